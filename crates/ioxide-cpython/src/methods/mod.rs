//! Rust functions as Python methods: the C entry points, their arguments and what they return.
//!
//! Every entry point turns a panic into a RuntimeError, so no unwinding ever crosses into C.
//! A Rust function becomes a method by naming it: `method0(c"time", EventLoop::time)`. The function's own
//! (zero-sized) type carries it into the C entry point, so there is no table and no indirection.

mod arguments;

pub use arguments::*;

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a C entry point finds the Rust value behind `self`.
pub trait Receiver {
    /// # Safety
    /// `this` is an instance of the Python class that the method belongs to, alive for `'a`.
    unsafe fn receive<'a>(this: *mut ffi::PyObject) -> Result<&'a Self>;
}

/// Whatever `self` is: for methods that belong to no native class.
impl Receiver for Any {
    unsafe fn receive<'a>(this: *mut ffi::PyObject) -> Result<&'a Any> {
        // SAFETY: the caller's promise.
        Ok(unsafe { Any::from_ptr(this) })
    }
}

/// What a method may return.
pub trait Returned {
    fn into_result(self) -> Result<Object>;
}

impl Returned for Result<Object> {
    #[inline(always)]
    fn into_result(self) -> Result<Object> {
        self
    }
}

impl Returned for Result<()> {
    #[inline(always)]
    fn into_result(self) -> Result<Object> {
        self.map(|()| crate::none_object())
    }
}

impl Returned for Result<bool> {
    #[inline(always)]
    fn into_result(self) -> Result<Object> {
        self.map(crate::boolean)
    }
}

impl Returned for Object {
    #[inline(always)]
    fn into_result(self) -> Result<Object> {
        Ok(self)
    }
}

impl Returned for bool {
    #[inline(always)]
    fn into_result(self) -> Result<Object> {
        Ok(crate::boolean(self))
    }
}

impl Returned for () {
    #[inline(always)]
    fn into_result(self) -> Result<Object> {
        Ok(crate::none_object())
    }
}

/// Runs the body of an entry point; a panic becomes a RuntimeError.
#[inline(always)]
pub(crate) fn guard<T>(failure: T, body: impl FnOnce() -> std::result::Result<T, Raised>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(_raised)) => failure,
        Err(panic) => {
            report_panic(&panic);
            failure
        }
    }
}

#[inline(always)]
pub(crate) fn guard_object(body: impl FnOnce() -> Result<Object>) -> *mut ffi::PyObject {
    guard(std::ptr::null_mut(), || body().map(Object::into_ptr))
}

#[cold]
fn report_panic(panic: &(dyn std::any::Any + Send)) {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    drop(crate::exception::take());
    let _ = Raised::runtime_error(&format!("internal error in ioxide, please report it: {message}"));
}

/// The value of a zero-sized function type, of which the caller was handed one.
#[inline(always)]
pub(crate) fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "methods and slots are named functions, not closures with state") };
    // SAFETY: a value without bytes can be read from anywhere.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

unsafe extern "C" fn entry0<T: Receiver, R: Returned, F: Fn(&T) -> R + Copy>(
    this: *mut ffi::PyObject,
    _none: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live instance of the class.
    guard_object(|| conjure::<F>()(unsafe { T::receive(this) }?).into_result())
}

unsafe extern "C" fn entry1<T: Receiver, R: Returned, F: Fn(&T, &Any) -> R + Copy>(
    this: *mut ffi::PyObject,
    argument: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes live objects.
    guard_object(|| unsafe { conjure::<F>()(T::receive(this)?, Any::from_ptr(argument)).into_result() })
}

unsafe extern "C" fn entry<T: Receiver, R: Returned, F: Fn(&T, Arguments<'_>) -> R + Copy>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the vectorcall convention: `count` positional arguments and a value for each name, all alive.
    guard_object(|| unsafe {
        let arguments = Arguments::from_vectorcall(arguments, count as usize, names);
        conjure::<F>()(T::receive(this)?, arguments).into_result()
    })
}

/// A method without arguments.
/// What the functions below make.
pub type Definition = ffi::PyMethodDef;

/// What `getter` and `attribute` make.
pub type Attribute = ffi::PyGetSetDef;

pub fn method0<T: Receiver, R: Returned, F: Fn(&T) -> R + Copy + 'static>(
    name: &'static CStr,
    _function: F,
) -> ffi::PyMethodDef {
    definition(name, ffi::PyMethodDefPointer { PyCFunction: entry0::<T, R, F> }, ffi::METH_NOARGS)
}

/// A method of one positional argument.
pub fn method1<T: Receiver, R: Returned, F: Fn(&T, &Any) -> R + Copy + 'static>(
    name: &'static CStr,
    _function: F,
) -> ffi::PyMethodDef {
    definition(name, ffi::PyMethodDefPointer { PyCFunction: entry1::<T, R, F> }, ffi::METH_O)
}

/// A method that binds its arguments itself, with a [`Signature`] as a rule.
pub fn method<T: Receiver, R: Returned, F: Fn(&T, Arguments<'_>) -> R + Copy + 'static>(
    name: &'static CStr,
    _function: F,
) -> ffi::PyMethodDef {
    definition(
        name,
        ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: entry::<T, R, F> },
        ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
    )
}

pub(crate) fn definition(
    name: &'static CStr,
    pointer: ffi::PyMethodDefPointer,
    flags: c_int,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: pointer, ml_flags: flags, ml_doc: std::ptr::null() }
}

/// Adds the docstring, which begins with the signature line that `inspect.signature` reads
/// (`name($self, ...)\n--\n\n`).
pub fn documented(mut definition: ffi::PyMethodDef, doc: &'static CStr) -> ffi::PyMethodDef {
    definition.ml_doc = doc.as_ptr();
    definition
}

unsafe extern "C" fn entry_get<T: Receiver, R: Returned, F: Fn(&T) -> R + Copy>(
    this: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live instance of the class.
    guard_object(|| conjure::<F>()(unsafe { T::receive(this) }?).into_result())
}

unsafe extern "C" fn entry_set<T: Receiver, F: Fn(&T, Option<&Any>) -> Result<()> + Copy>(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> c_int {
    // SAFETY: CPython passes a live instance of the class and a live value, or null to delete.
    guard(-1, || unsafe { conjure::<F>()(T::receive(this)?, Any::from_ptr_or_none(value)).map(|()| 0) })
}

/// A read-only attribute.
pub fn getter<T: Receiver, R: Returned, F: Fn(&T) -> R + Copy + 'static>(
    name: &'static CStr,
    _function: F,
) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr().cast::<c_char>(),
        get: Some(entry_get::<T, R, F>),
        set: None,
        doc: std::ptr::null(),
        closure: std::ptr::null_mut(),
    }
}

/// An attribute that can be assigned to. The setter is handed `None` for `del`.
pub fn attribute<T, R, G, S>(name: &'static CStr, get: G, _set: S) -> ffi::PyGetSetDef
where
    T: Receiver,
    R: Returned,
    G: Fn(&T) -> R + Copy + 'static,
    S: Fn(&T, Option<&Any>) -> Result<()> + Copy + 'static,
{
    ffi::PyGetSetDef { set: Some(entry_set::<T, S>), ..getter(name, get) }
}
