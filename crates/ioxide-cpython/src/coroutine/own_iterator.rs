//! `await future` in Python code without an iterator: where a future of ioxide's is awaited, it is stepped itself.
//!
//! Only the interpreter's own slots say so. Whoever asks for an iterator by `iter(future)` or `future.__await__()` gets
//! asyncio's, and so do instances of derived classes, whose slots the interpreter makes of the methods that they inherit.
//!
//! Invariants:
//! W1. Every class whose `am_await` is `entry_await` has the struct of asyncio's Future.

use super::returned::raise_returned;
use crate::methods::{guard, guard_object};
use crate::object::{Any, Object, Raised, Result};
use crate::outcome::{Outcome, outcome};
use crate::types::Class;
use crate::version::as_future;
use pyo3_ffi as ffi;
use std::ptr::null_mut;

/// Instances of exactly this class, one of futures, are stepped themselves where they are awaited.
pub fn await_without_iterator(class: &Class) {
    // SAFETY: O1; a heap type (K1), which has room for its slots; the signatures of unaryfunc and iternextfunc.
    unsafe {
        let class = class.as_type_ptr();
        (*class).tp_iternext = Some(entry_next);
        if let Some(slots) = (*class).tp_as_async.as_mut() {
            slots.am_await = Some(entry_await);
        }
    }
}

/// What `await` asks a future for: itself. Fails: RuntimeError for a future without a loop.
pub(super) unsafe extern "C" fn entry_await(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guard_object(|| {
        // SAFETY: CPython passes a live object; W1.
        let this = unsafe { Any::from_ptr(this) };
        match as_future(this).event_loop.is_empty() {
            true => Err(Raised::runtime_error("Future object is not initialized.")),
            false => Ok(this.to_object()),
        }
    })
}

/// A step of `await`: the future itself while it is pending, then its result.
unsafe extern "C" fn entry_next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guard(null_mut(), || {
        // SAFETY: CPython passes a live object; W1.
        let this = unsafe { Any::from_ptr(this) };
        step(this).map(|yielded| yielded.map_or(null_mut(), Object::into_ptr))
    })
}

/// `None` is the end without an exception, for the result None.
#[inline(always)]
fn step(this: &Any) -> Result<Option<Object>> {
    let future = as_future(this);
    if future.is_pending() {
        if future.blocking() {
            return Err(Raised::runtime_error("await wasn't used with future"));
        }
        future.set_blocking(true);
        return Ok(Some(this.to_object()));
    }
    match outcome(future)? {
        Outcome::Exception(exception) => Err(Raised::raise(&exception)),
        Outcome::Result => match future.result.get_or_none() {
            result if result.is_none() => Ok(None),
            result => Err(raise_returned(result)),
        },
    }
}
