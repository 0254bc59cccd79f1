//! What debuggers, tracebacks and warnings see of a native coroutine: a code object and a frame with its name, where it was
//! created, and the warning that it was never awaited.

use crate::call::import;
use crate::names::intern;
use crate::object::{Any, Object, Result};
use crate::value::{dict, tuple};
use pyo3_ffi as ffi;
use std::ffi::CString;

/// A code object that has a name and nothing to run.
pub fn code(qualified_name: &str) -> Result<Object> {
    let name = qualified_name.rsplit('.').next().unwrap_or(qualified_name);
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: O1; C strings.
    unsafe {
        let code = ffi::PyCode_NewEmpty(c"<ioxide>".as_ptr(), name.as_ptr(), 1);
        Object::from_owned(code.cast())
    }
}

/// A frame of that code, in which nothing runs.
pub fn frame(qualified_name: &str) -> Result<Object> {
    let code = code(qualified_name)?;
    let globals = dict()?;
    globals.dict_set(&*intern("__name__")?, &*intern("ioxide")?)?;
    // SAFETY: O1; a code object and a dictionary.
    unsafe {
        let frame = ffi::PyFrame_New(
            ffi::PyThreadState_Get(),
            code.as_ptr().cast(),
            globals.as_ptr(),
            globals.as_ptr(),
        );
        Object::from_owned(frame.cast())
    }
}

/// Where a coroutine is being created, while `sys.set_coroutine_origin_tracking_depth` asks for it.
#[inline]
pub fn origin() -> Result<Option<Object>> {
    match crate::version::coroutine_origin_tracking_depth() {
        0 => Ok(None),
        depth => frames(depth).map(Some),
    }
}

/// `(file name, line, function)` of the innermost frames.
#[cold]
fn frames(depth: i32) -> Result<Object> {
    let mut frames = Vec::new();
    // SAFETY: O1; the answer is borrowed.
    let mut frame = unsafe { Any::from_ptr_or_none(ffi::PyEval_GetFrame().cast()).map(Any::to_object) };
    while let Some(current) = frame.take().filter(|frame| !frame.is_none()) {
        if frames.len() as i64 >= i64::from(depth) {
            break;
        }
        let code = current.get_attribute(&*intern("f_code")?)?;
        frames.push(tuple(&[
            &*code.get_attribute(&*intern("co_filename")?)?,
            &*current.get_attribute(&*intern("f_lineno")?)?,
            &*code.get_attribute(&*intern("co_name")?)?,
        ])?);
        frame = Some(current.get_attribute(&*intern("f_back")?)?);
    }
    let frames: Vec<&Any> = frames.iter().map(|frame| &**frame).collect();
    tuple(&frames)
}

/// "coroutine … was never awaited", as the interpreter says it of its own.
pub fn warn_never_awaited(coroutine: &Any) {
    let warned = import(c"warnings")
        .and_then(|warnings| warnings.get_attribute_str(c"_warn_unawaited_coroutine")?.call1(coroutine));
    if let Err(raised) = warned {
        raised.write_unraisable(coroutine);
    }
}
