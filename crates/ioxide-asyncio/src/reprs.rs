//! Texts that asyncio's own formatting functions make, so that log lines are asyncio's to the letter.

use ioxide_cpython::value::tuple;
use ioxide_cpython::{Any, Result, imports, names};

/// `format_helpers._format_callback_source(callback, args)`; from 3.13.? on it takes `debug` as well.
pub fn callback_source(event_loop: &Any, callback: &Any, arguments: &Any) -> Result<String> {
    let function = &imports().format_callback_source;
    let debug = event_loop.call_method0(&names().get_debug)?;
    let keywords = tuple(&[&names().debug])?;
    let source = match function.call_keywords(&[callback, arguments, &debug], &keywords, 2) {
        Ok(source) => source,
        Err(raised) if raised.matches(ioxide_cpython::builtin(ioxide_cpython::Builtin::TypeError)) => {
            drop(raised.take());
            function.call(&[callback, arguments])?
        }
        Err(raised) => return Err(raised),
    };
    Ok(source.str()?.to_text()?.into_string())
}
