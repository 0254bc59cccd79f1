//! Attributes that live in slots of a native struct and behave as those in an instance's dictionary.

use crate::methods::{Receiver, conjure, guard, guard_object};
use crate::object::{Any, Raised, Slot};
use pyo3_ffi as ffi;
use std::ffi::{CStr, c_char, c_int, c_void};

/// An attribute that lives in a slot and behaves as one of the instance's dictionary: it can be assigned and deleted,
/// and is missing (AttributeError) while the slot is empty.
pub fn field<T, F>(name: &'static CStr, _slot: F) -> ffi::PyGetSetDef
where
    T: Receiver,
    F: Fn(&T) -> &Slot + Copy + 'static,
{
    unsafe extern "C" fn get<T: Receiver, F: Fn(&T) -> &Slot + Copy>(
        this: *mut ffi::PyObject,
        name: *mut c_void,
    ) -> *mut ffi::PyObject {
        // SAFETY: CPython passes a live instance of the class and the definition's closure, which is the name.
        guard_object(|| unsafe {
            let slot = conjure::<F>()(T::receive(this)?);
            slot.get_object()
                .ok_or_else(|| missing_attribute(Any::from_ptr(this), CStr::from_ptr(name.cast())))
        })
    }
    unsafe extern "C" fn set<T: Receiver, F: Fn(&T) -> &Slot + Copy>(
        this: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        name: *mut c_void,
    ) -> c_int {
        // SAFETY: as above, with a live value, or null to delete.
        guard(-1, || unsafe {
            let slot = conjure::<F>()(T::receive(this)?);
            let value = Any::from_ptr_or_none(value).map(Any::to_object);
            let is_deletion = value.is_none();
            match slot.replace(value) {
                None if is_deletion => {
                    Err(missing_attribute(Any::from_ptr(this), CStr::from_ptr(name.cast())))
                }
                _ => Ok(0),
            }
        })
    }
    ffi::PyGetSetDef {
        name: name.as_ptr().cast::<c_char>(),
        get: Some(get::<T, F>),
        set: Some(set::<T, F>),
        doc: std::ptr::null(),
        closure: name.as_ptr().cast_mut().cast(),
    }
}

/// What looking for an attribute that an object does not have raises.
#[cold]
pub fn missing_attribute(object: &Any, name: &CStr) -> Raised {
    let message = format!(
        "'{}' object has no attribute '{}'",
        crate::exception::type_name(object),
        name.to_string_lossy()
    );
    Raised::new(crate::builtin(crate::Builtin::AttributeError), &message)
}
