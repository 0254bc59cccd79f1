//! What debuggers, tracebacks and warnings see of a native coroutine: a code object and a frame with its name, where it was
//! created, and the warning that it was never awaited.

use crate::call::import;
use crate::methods::getter;
use crate::names::intern;
use crate::none_object;
use crate::object::{Any, Object, Result};
use crate::types::Native;
use crate::value::{dict, text, tuple};
use crate::version::COROUTINES_TELL_STATE;
use pyo3_ffi as ffi;
use std::ffi::CString;

/// Where a coroutine is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Suspended,
    Running,
    Closed,
}

impl State {
    /// As the module `inspect` calls it.
    fn name(self) -> &'static str {
        match self {
            State::Created => "CORO_CREATED",
            State::Suspended => "CORO_SUSPENDED",
            State::Running => "CORO_RUNNING",
            State::Closed => "CORO_CLOSED",
        }
    }
}

/// A native coroutine, as whoever inspects it sees it.
pub trait Inspected: Native {
    fn state(&self) -> State;
    fn qualified_name(&self) -> &'static str;
    /// The future or iterator that it waits for.
    fn waits_for(&self) -> Option<Object>;
    /// Where it was created, if that was tracked.
    fn origin(&self) -> Object;
}

/// The attributes that coroutines have, in the names of the running Python version.
pub fn attributes<T: Inspected>() -> Vec<ffi::PyGetSetDef> {
    let mut attributes = vec![
        getter(c"__name__", |this: &T| text(this.qualified_name().rsplit('.').next().unwrap_or_default())),
        getter(c"__qualname__", |this: &T| text(this.qualified_name())),
        getter(c"cr_await", |this: &T| awaited(this.waits_for())),
        getter(c"cr_running", |this: &T| this.state() == State::Running),
        getter(c"cr_suspended", |this: &T| this.state() == State::Suspended),
        getter(c"cr_code", |this: &T| code(this.qualified_name())),
        getter(c"cr_frame", |this: &T| match this.state() {
            State::Closed => Ok(none_object()),
            _ => frame(this.qualified_name()),
        }),
        getter(c"cr_origin", |this: &T| this.origin()),
    ];
    if COROUTINES_TELL_STATE {
        attributes.push(getter(c"cr_state", |this: &T| intern(this.state().name())));
    }
    attributes
}

/// Of a future, the iterator that `await` in Python would show.
fn awaited(waits_for: Option<Object>) -> Result<Object> {
    match waits_for {
        None => Ok(none_object()),
        Some(future) if future.is_subtype_of(&crate::imports().Future) => super::await_iterator(&future),
        Some(iterator) => Ok(iterator),
    }
}

/// `repr(coroutine)`
pub fn show<T: Inspected>(coroutine: &T) -> Result<Object> {
    text(&format!("<coroutine object {} at {coroutine:p}>", coroutine.qualified_name()))
}

/// A code object that has a name and nothing to run.
fn code(qualified_name: &str) -> Result<Object> {
    let name = qualified_name.rsplit('.').next().unwrap_or(qualified_name);
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: O1; C strings.
    unsafe {
        let code = ffi::PyCode_NewEmpty(c"<ioxide>".as_ptr(), name.as_ptr(), 1);
        Object::from_owned(code.cast())
    }
}

/// A frame of that code, in which nothing runs.
fn frame(qualified_name: &str) -> Result<Object> {
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
