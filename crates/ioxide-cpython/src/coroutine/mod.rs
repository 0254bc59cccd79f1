//! Coroutines, both ways: stepping Python's, and being one.
//!
//! | file | room |
//! |---|---|
//! | mod | stepping anything that can be awaited |
//! | object | `Coroutine`: a Python coroutine object with a Rust body |
//! | memory | where objects and bodies live |
//! | waiting | awaiting inside a body |
//! | own_iterator | futures that Python's `await` steps without an iterator |
//! | returned | how a value gets back to `await` in Python code |
//! | inspection | what debuggers and warnings see |

pub mod inspection;
mod memory;
mod object;
mod own_iterator;
mod returned;
mod waiting;

pub use memory::Body;
pub use object::{Coroutine, Owner, coroutine, coroutine_of, traced_coroutine};
pub use own_iterator::await_without_iterator;
pub use waiting::{Waiting, YieldOnce, forward_exception, wait_for, yield_once};

use crate::exception::{Builtin, builtin};
use crate::methods::{Receiver, conjure, guard};
use crate::names::names;
use crate::object::{Any, Object, Raised, Result};
use crate::once::Once;
use crate::types::{Class, Native};
use pyo3_ffi as ffi;
use std::cell::Cell;

/// What one step of a coroutine came to; an exception is the `Err` beside it.
pub enum Step {
    Yielded(Object),
    Returned(Object),
}

/// `coroutine.send(value)`. Runs Python: yes.
#[inline(always)]
pub fn send(coroutine: &Any, value: &Any) -> Result<Step> {
    let mut result = std::ptr::null_mut();
    // SAFETY: O1, O2; `result` is owned unless the answer is an error.
    unsafe {
        match ffi::PyIter_Send(coroutine.as_ptr(), value.as_ptr(), &mut result) {
            ffi::PySendResult::PYGEN_NEXT => Object::from_owned(result).map(Step::Yielded),
            ffi::PySendResult::PYGEN_RETURN => Object::from_owned(result).map(Step::Returned),
            _ => Err(Raised::assume()),
        }
    }
}

/// A class of coroutines that another crate brings; null until it does.
struct OtherClass(Cell<*mut ffi::PyTypeObject>);

// SAFETY: touched under the GIL only (O1).
unsafe impl Sync for OtherClass {}

static OTHER_CLASS: OtherClass = OtherClass(Cell::new(std::ptr::null_mut()));

/// From now on instances of exactly this class count as native coroutines, as those of `Coroutine` do. One class may.
pub fn count_as_coroutine(class: &'static Class) {
    OTHER_CLASS.0.set(class.as_type_ptr());
}

/// Whether the object is what calling an `async def` gives, or a coroutine of ioxide's own.
#[inline]
pub fn is_native_coroutine(object: &Any) -> bool {
    // SAFETY: O2.
    let of_python = unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) == 1 };
    of_python || Coroutine::from_exact(object).is_some() || object.type_ptr() == OTHER_CLASS.0.get()
}

/// Whether the object is a generator.
pub fn is_generator(object: &Any) -> bool {
    // SAFETY: O2.
    unsafe { ffi::PyGen_Check(object.as_ptr()) == 1 }
}

/// `throw` of Python's own coroutines.
static THROW: Once<Object> = Once::new();

pub(crate) fn initialize() -> Result<()> {
    // SAFETY: the interpreter never frees the class.
    let class = unsafe { Any::from_ptr((&raw mut ffi::PyCoro_Type).cast()) };
    THROW.set(class.get_attribute(&names().throw)?);
    returned::initialize()?;
    object::initialize()
}

/// `coroutine.throw(exception)`. Runs Python: yes.
pub fn throw(coroutine: &Any, exception: &Any) -> Result<Step> {
    if let Some(native) = Coroutine::from_exact(coroutine) {
        return native.throw(exception.to_object());
    }
    // SAFETY: O2.
    let yielded = match unsafe { ffi::PyCoro_CheckExact(coroutine.as_ptr()) } {
        1 => THROW.get().call(&[coroutine, exception]),
        _ => coroutine.call_method1(&names().throw, exception),
    };
    match yielded {
        Ok(yielded) => Ok(Step::Yielded(yielded)),
        Err(raised) => returned_by_stop_iteration(raised),
    }
}

/// The value of a StopIteration, any other exception again.
fn returned_by_stop_iteration(raised: Raised) -> Result<Step> {
    if !raised.matches(builtin(Builtin::StopIteration)) {
        return Err(raised);
    }
    raised.take().get_attribute(&names().value).map(Step::Returned)
}

pub(crate) unsafe extern "C" fn entry_send<T: Native, F: Fn(&T, &Any) -> Result<Step> + Copy>(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    guard(ffi::PySendResult::PYGEN_ERROR, || {
        // SAFETY: CPython passes live objects and a place for the result; F is zero-sized.
        unsafe {
            let (place, kind) = match conjure::<F>()(T::receive(this)?, Any::from_ptr(value))? {
                Step::Yielded(object) => (object, ffi::PySendResult::PYGEN_NEXT),
                Step::Returned(object) => (object, ffi::PySendResult::PYGEN_RETURN),
            };
            *result = place.into_ptr();
            Ok(kind)
        }
    })
}

pub(crate) unsafe extern "C" fn entry_next<T: Native, F: Fn(&T, &Any) -> Result<Step> + Copy>(
    this: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    guard(std::ptr::null_mut(), || {
        // SAFETY: CPython passes a live object; F is zero-sized.
        match unsafe { conjure::<F>()(T::receive(this)?, crate::none())? } {
            Step::Yielded(object) => Ok(object.into_ptr()),
            // The end without an exception: None was returned.
            Step::Returned(value) if value.is_none() => Ok(std::ptr::null_mut()),
            Step::Returned(value) => Err(returned::raise_returned(value)),
        }
    })
}

impl Step {
    /// As `send` gives it to Python: a returned value is a StopIteration.
    pub fn into_object(self) -> Result<Object> {
        match self {
            Step::Yielded(object) => Ok(object),
            Step::Returned(value) => Err(stop_iteration(&value)),
        }
    }
}

/// Raises StopIteration with `value`, also where the value is a tuple or an exception.
fn stop_iteration(value: &Any) -> Raised {
    if value.is_none() {
        return Raised::empty(builtin(Builtin::StopIteration));
    }
    match builtin(Builtin::StopIteration).call1(value) {
        Ok(instance) => Raised::exception(instance),
        Err(raised) => raised,
    }
}

/// The iterator behind `await object`. Fails: TypeError where the object cannot be awaited.
pub fn await_iterator(object: &Any) -> Result<Object> {
    // SAFETY: O1, O2; the slots belong to the object's class.
    unsafe {
        // A coroutine is stepped itself, so that whoever looks at `cr_await` sees it.
        if ffi::PyCoro_CheckExact(object.as_ptr()) == 1 {
            return Ok(object.to_object());
        }
        let slots = (*object.type_ptr()).tp_as_async;
        if let Some(get) = slots.as_ref().and_then(|slots| slots.am_await) {
            return Object::from_owned(get(object.as_ptr()));
        }
    }
    let name = crate::exception::type_name(object);
    Err(Raised::type_error(&crate::version::cannot_be_awaited(&name)))
}

/// The exception instance that the arguments of `throw` stand for. Fails: TypeError.
pub fn thrown_exception(arguments: &[&Any]) -> Result<Object> {
    let Some(&first) = arguments.first() else {
        return Err(Raised::type_error("throw expected at least 1 argument, got 0"));
    };
    if first.is_exception() {
        return Ok(first.to_object());
    }
    if !first.is_exception_class() {
        let name = crate::exception::type_name(first);
        return Err(Raised::type_error(&format!(
            "exceptions must be classes or instances deriving from BaseException, not {name}"
        )));
    }
    match arguments.get(1) {
        Some(value) if value.is_instance(first)? => Ok(value.to_object()),
        Some(value) if value.is_tuple() => first.call_tuple(value, None),
        Some(value) if !value.is_none() => first.call1(value),
        _ => first.call0(),
    }
}
