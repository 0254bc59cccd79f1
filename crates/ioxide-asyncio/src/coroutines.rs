//! `iscoroutine`, and of asyncio.futures `isfuture`: what everybody asks who takes an awaitable.
//!
//! Leaves to others: objects that are no native ones, about which asyncio's own code decides.

use crate::futures::chain::is_future;
use ioxide_cpython::coroutine::is_native_coroutine;
use ioxide_cpython::functions::function;
use ioxide_cpython::methods::{Arguments, documented};
use ioxide_cpython::module::Module;
use ioxide_cpython::{Result, imports};

pub fn add_to(module: &Module<'_>) -> Result<()> {
    module.add_function(documented(
        function(c"iscoroutine", iscoroutine),
        c"iscoroutine(obj)\n--\n\nWhether the object is a coroutine, native or of any class that is a collections.abc.Coroutine.",
    ))?;
    module.add_function(documented(
        function(c"isfuture", isfuture),
        c"isfuture(obj)\n--\n\nWhether the object is a future or a task, or behaves as one.",
    ))
}

/// `iscoroutine(obj)`
fn iscoroutine(arguments: Arguments<'_>) -> Result<bool> {
    let object = arguments.only("iscoroutine", "obj")?;
    Ok(is_native_coroutine(object) || imports().iscoroutine.call1(object)?.is_true()?)
}

/// `isfuture(obj)`
fn isfuture(arguments: Arguments<'_>) -> Result<bool> {
    let object = arguments.only("isfuture", "obj")?;
    is_future(object)
}
