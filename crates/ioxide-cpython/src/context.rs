//! contextvars: copying, entering and leaving a context around a callback or a task's step.

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;

/// `contextvars.copy_context()`. Refs: new.
#[inline]
pub fn copy_current() -> Result<Object> {
    // SAFETY: O1.
    unsafe { Object::from_owned(ffi::PyContext_CopyCurrent()) }
}

/// `context.copy()`. Fails: TypeError where it is no Context. Refs: new.
#[inline]
pub fn copy(context: &Any) -> Result<Object> {
    // SAFETY: O1, O2.
    unsafe { Object::from_owned(ffi::PyContext_Copy(context.as_ptr())) }
}

/// Runs `body` inside `context`. Fails: RuntimeError where the context is already entered; what `body` fails with.
#[inline]
pub fn with_context<T>(context: &Any, body: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: O1, O2; enter and exit are paired below.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        // SAFETY: a negative status comes with the error indicator set.
        return Err(unsafe { Raised::assume() });
    }
    let outcome = body();
    // SAFETY: O1, O2. It fails only where `body` left another context entered, and then sets the indicator.
    let left = unsafe { ffi::PyContext_Exit(context.as_ptr()) };
    if left < 0 && outcome.is_ok() {
        // SAFETY: a negative status comes with the error indicator set.
        return Err(unsafe { Raised::assume() });
    }
    outcome
}

/// Whether the object is a `contextvars.Context`.
pub fn is_context(object: &Any) -> bool {
    // SAFETY: O2.
    unsafe { ffi::PyContext_CheckExact(object.as_ptr()) == 1 }
}
