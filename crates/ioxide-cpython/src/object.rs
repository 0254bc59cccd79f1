//! Python objects as Rust values: `Any` (a borrowed object), `Object` (one owned reference), `Slot` (a
//! nullable field of a C struct that owns one reference) and `Raised` (the error of every fallible call).
//!
//! Invariants:
//! O1. The GIL is held wherever an `Any`, an `Object` or a `Slot` is touched. None of them is `Send`, so
//!     `detach::without_gil` cannot capture one; every entry point of the extension holds the GIL.
//! O2. `&Any` points at a live object for as long as the reference lives: it comes from an `Object`, a
//!     `Slot` that nobody clears meanwhile, or an argument that the caller of a C function keeps alive.
//! O3. `Raised` exists only while the interpreter's error indicator is set; whoever does not pass it on
//!     takes it (`Raised::take`).

use pyo3_ffi as ffi;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

/// Any Python object, borrowed. Only ever seen behind a reference.
#[repr(transparent)]
pub struct Any(UnsafeCell<ffi::PyObject>);

/// One owned reference to a Python object. Cloning takes another, dropping gives it back.
///
/// Runs Python: dropping may run finalizers, so no borrow of loop state is held across a drop.
#[repr(transparent)]
pub struct Object(NonNull<ffi::PyObject>);

/// The exception is set in the interpreter; see O3.
#[derive(Debug)]
#[must_use]
pub struct Raised(());

pub type Result<T> = std::result::Result<T, Raised>;

impl Any {
    /// Refs: borrows.
    ///
    /// # Safety
    /// `pointer` is a live object for all of `'a` (O2).
    #[inline(always)]
    pub unsafe fn from_ptr<'a>(pointer: *mut ffi::PyObject) -> &'a Any {
        // SAFETY: the caller's promise; `Any` is a transparent view of the object.
        unsafe { &*(pointer as *const Any) }
    }

    /// Refs: borrows. `None` for a null pointer.
    ///
    /// # Safety
    /// A pointer that is not null is a live object for all of `'a` (O2).
    #[inline(always)]
    pub unsafe fn from_ptr_or_none<'a>(pointer: *mut ffi::PyObject) -> Option<&'a Any> {
        // SAFETY: the caller's promise.
        unsafe { (pointer as *const Any).as_ref() }
    }

    #[inline(always)]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.get()
    }

    /// Refs: new.
    #[inline(always)]
    pub fn to_object(&self) -> Object {
        // SAFETY: O1, O2.
        unsafe {
            ffi::Py_INCREF(self.as_ptr());
            Object(NonNull::new_unchecked(self.as_ptr()))
        }
    }

    /// Whether both are the same object.
    #[inline(always)]
    pub fn is(&self, other: &Any) -> bool {
        std::ptr::eq(self, other)
    }

    /// Whether nobody but one refers to the object, so that it is one argument of a call and not two. Never known where the
    /// interpreter calls with references that it does not own.
    #[inline(always)]
    pub fn is_one_argument(&self) -> bool {
        // SAFETY: O2.
        crate::version::CALLS_OWN_ARGUMENTS && unsafe { ffi::Py_REFCNT(self.as_ptr()) == 1 }
    }

    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.as_ptr() == none().as_ptr()
    }

    #[inline(always)]
    pub fn type_ptr(&self) -> *mut ffi::PyTypeObject {
        // SAFETY: O2.
        unsafe { ffi::Py_TYPE(self.as_ptr()) }
    }

    /// The object's type as an object.
    #[inline(always)]
    pub fn get_type(&self) -> &Any {
        // SAFETY: an object keeps its type alive.
        unsafe { Any::from_ptr(self.type_ptr().cast()) }
    }
}

impl Object {
    /// Refs: steals. Fails: when the pointer is null, which means that the call set an exception.
    ///
    /// # Safety
    /// `pointer` is an owned reference, or null with the error indicator set.
    #[inline(always)]
    pub unsafe fn from_owned(pointer: *mut ffi::PyObject) -> Result<Object> {
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Object(pointer)),
            None => Err(Raised(())),
        }
    }

    /// Refs: steals. `None` for a null pointer, which is not an error here.
    ///
    /// # Safety
    /// `pointer` is null or an owned reference.
    #[inline(always)]
    pub unsafe fn from_owned_or_none(pointer: *mut ffi::PyObject) -> Option<Object> {
        NonNull::new(pointer).map(Object)
    }

    /// Refs: gives the reference to the caller.
    #[inline(always)]
    pub fn into_ptr(self) -> *mut ffi::PyObject {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        pointer
    }
}

impl Deref for Object {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        // SAFETY: an owned reference keeps the object alive (O2).
        unsafe { Any::from_ptr(self.0.as_ptr()) }
    }
}

impl Clone for Object {
    #[inline(always)]
    fn clone(&self) -> Object {
        self.to_object()
    }
}

impl Drop for Object {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: O1; the reference is owned and given back once.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Any {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "<Python object at {:p}>", self.as_ptr())
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

/// A field of a C struct that holds null or one owned reference. All zero bytes is an empty slot.
#[repr(transparent)]
pub struct Slot(Cell<*mut ffi::PyObject>);

impl Slot {
    pub const fn empty() -> Slot {
        Slot(Cell::new(std::ptr::null_mut()))
    }

    pub fn filled(value: Object) -> Slot {
        Slot(Cell::new(value.into_ptr()))
    }

    /// The object in the slot. The reference is good until the slot changes (O2): call nothing that may
    /// change it while holding on, or take an `Object` with [`Slot::get_object`].
    #[inline(always)]
    pub fn get(&self) -> Option<&Any> {
        // SAFETY: the slot owns the reference.
        unsafe { Any::from_ptr_or_none(self.0.get()) }
    }

    #[inline(always)]
    pub fn get_object(&self) -> Option<Object> {
        self.get().map(Any::to_object)
    }

    /// What Python sees of the slot: the object, or None.
    #[inline(always)]
    pub fn get_or_none(&self) -> Object {
        self.get_object().unwrap_or_else(none_object)
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.get().is_null()
    }

    #[inline(always)]
    pub fn is(&self, other: &Any) -> bool {
        self.0.get() == other.as_ptr()
    }

    #[inline(always)]
    pub fn take(&self) -> Option<Object> {
        // SAFETY: the slot's reference passes to the caller.
        unsafe { Object::from_owned_or_none(self.0.replace(std::ptr::null_mut())) }
    }

    /// Fills the slot first and drops what it held afterwards: the old value's finalizer sees the new state.
    #[inline(always)]
    pub fn set(&self, value: Object) {
        drop(self.replace(Some(value)));
    }

    #[inline(always)]
    pub fn clear(&self) {
        drop(self.take());
    }

    #[inline(always)]
    pub fn replace(&self, value: Option<Object>) -> Option<Object> {
        let value = value.map_or(std::ptr::null_mut(), Object::into_ptr);
        // SAFETY: the slot's old reference passes to the caller.
        unsafe { Object::from_owned_or_none(self.0.replace(value)) }
    }

    /// Fills a slot whose memory is fresh, without dropping what it held.
    #[inline(always)]
    pub fn initialize(&self, value: Option<Object>) {
        self.0.set(value.map_or(std::ptr::null_mut(), Object::into_ptr));
    }

    #[inline(always)]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.get()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Raised {
    /// The marker for an error that the interpreter already holds.
    ///
    /// # Safety
    /// The error indicator is set (O3).
    #[inline(always)]
    pub unsafe fn assume() -> Raised {
        Raised(())
    }
}

#[inline(always)]
pub fn none() -> &'static Any {
    // SAFETY: None is never freed.
    unsafe { Any::from_ptr(ffi::Py_None()) }
}

#[inline(always)]
pub fn none_object() -> Object {
    none().to_object()
}

#[inline(always)]
pub fn boolean(value: bool) -> Object {
    // SAFETY: True and False are never freed.
    unsafe { Any::from_ptr(if value { ffi::Py_True() } else { ffi::Py_False() }).to_object() }
}

/// The type of the pointers that C entry points receive.
pub type RawObject = ffi::PyObject;

/// An object on its way from one thread to another. It is taken out, and dropped, with the GIL held.
pub struct Detached(Object);

// SAFETY: the object inside is not touched until `into_object`, whose caller holds the GIL (O1).
unsafe impl Send for Detached {}

impl Detached {
    pub fn new(object: Object) -> Detached {
        Detached(object)
    }

    pub fn into_object(self) -> Object {
        self.0
    }
}
