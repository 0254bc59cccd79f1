//! Declaring Python classes in Rust, in three ways.
//!
//! | file | room |
//! |---|---|
//! | native | `NativeClass`: the Rust struct is the object. For everything hot: futures, tasks, handles, awaitables, and the cores behind shells. Its base, if it has one, is a class whose struct `version` mirrors |
//! | shell | `ShellClass`: a class made by `type` over a Python class of asyncio (AbstractEventLoop, Transport), with instance dictionary and weak references as any Python class, and one hidden slot that owns its native core |
//! | own_methods | `OwnMethods`: whether somebody has replaced a method, in a subclass, on the class or on the instance |
//! | slotted | a class made by `type` over a Python class of asyncio, whose private attributes are slots that Rust knows as fields: one object, and what is not hot is inherited |
//!
//! Invariants:
//! K1. A class is created once, by module initialisation, and never freed.
//! K2. The hidden slot holds null or an instance of the core's class: no Python code can reach it, because the
//!     descriptor is removed from the class as soon as its offset is known.

mod native;
mod own_methods;
mod shell;
mod slotted;

pub use native::{NativeClass, allocate, free_memory, head};
pub use own_methods::OwnMethods;
pub use shell::{ShellClass, ShellDefinition};
pub use slotted::{SlottedDefinition, allocate_slotted};

use crate::methods::Receiver;
use crate::object::{Any, Object, Result};
use crate::once::Once;
use pyo3_ffi as ffi;
use std::ffi::CStr;

/// A created class (K1).
pub struct Class(*mut ffi::PyTypeObject);

impl Class {
    /// A class that `type` has made. Refs: keeps the reference for ever (K1).
    fn from_created(class: Object) -> Class {
        Class(class.into_ptr().cast())
    }

    #[inline(always)]
    pub fn as_any(&self) -> &'static Any {
        // SAFETY: K1.
        unsafe { Any::from_ptr(self.0.cast()) }
    }

    #[inline(always)]
    pub fn as_type_ptr(&self) -> *mut ffi::PyTypeObject {
        self.0
    }

    /// Whether the object is an instance of exactly this class.
    #[inline(always)]
    pub fn is_exact(&self, object: &Any) -> bool {
        object.type_ptr() == self.0
    }
}

/// A Rust struct that is a Python object: `#[repr(C)]`, beginning with the object's head.
///
/// # Safety
/// The struct begins with an object head (`Any` or one of the structs of `version.rs`), and every instance of
/// the class `class()` names has at least its size.
pub unsafe trait Native: Sized + 'static {
    fn class() -> &'static Once<Class>;

    /// Whether the object is one, of this class or a derived one.
    #[inline(always)]
    fn from_any(object: &Any) -> Option<&Self> {
        // SAFETY: the class was checked; the trait's promise.
        Self::is_instance(object).then(|| unsafe { &*object.as_ptr().cast::<Self>() })
    }

    /// Whether the object is of exactly this class.
    #[inline(always)]
    fn from_exact(object: &Any) -> Option<&Self> {
        // SAFETY: the class was checked; the trait's promise.
        Self::class().get().is_exact(object).then(|| unsafe { &*object.as_ptr().cast::<Self>() })
    }

    #[inline(always)]
    fn is_instance(object: &Any) -> bool {
        let class = Self::class().get();
        class.is_exact(object) || object.is_subtype_of(class.as_any())
    }
}

impl<T: Native> Receiver for T {
    #[inline(always)]
    unsafe fn receive<'a>(this: *mut ffi::PyObject) -> Result<&'a T> {
        // SAFETY: the caller's promise: an instance of the class.
        Ok(unsafe { &*this.cast::<T>() })
    }
}

/// Adds a native method to a class that Python made.
pub fn add_method(class: &Any, method: ffi::PyMethodDef) -> Result<()> {
    if crate::functions::is_function(&method) {
        return crate::functions::add_to_class(class, method);
    }
    let method = Box::leak(Box::new(method));
    // SAFETY: O1; a class; the definition and its name live forever (K1).
    unsafe {
        let descriptor = Object::from_owned(ffi::PyDescr_NewMethod(class.as_ptr().cast(), method))?;
        let name = CStr::from_ptr(method.ml_name).to_string_lossy();
        class.set_attribute(&*crate::names::intern(&name)?, &descriptor)
    }
}

/// The definition of a built-in function, which can be bound to any number of objects.
pub struct FunctionDefinition(*mut ffi::PyMethodDef);

impl FunctionDefinition {
    pub fn new(definition: ffi::PyMethodDef) -> FunctionDefinition {
        FunctionDefinition(Box::leak(Box::new(definition)))
    }

    /// A built-in function with `owner` as its `__self__`. Functions bound to one owner are equal.
    pub fn bind(&self, owner: &Any) -> Result<Object> {
        // SAFETY: O1; the definition lives forever.
        unsafe { Object::from_owned(ffi::PyCFunction_NewEx(self.0, owner.as_ptr(), std::ptr::null_mut())) }
    }
}
