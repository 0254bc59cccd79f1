//! Whether an instance of a Python class has attributes of its own, without making the dictionary that would tell.
//!
//! Invariants:
//! V2. Instances of a class with the flag `MANAGED_DICT` have, in front of the object, the words that `pycore_object.h` and
//!     `pycore_dict.h` of each version describe: a dictionary, or an array of values that knows how many it holds.
//!     `verify` tries it out when the module is imported.

use crate::object::{Any, Object, Result};
use pyo3_ffi as ffi;

const MANAGED_DICT: std::ffi::c_ulong = 1 << 4;

/// The word of the dictionary, counted in words from the object.
const DICT_WORD: isize = -3;

/// Whether the instance has attributes of its own. True also where its class keeps them in another way than Python classes
/// do, false where instances cannot have any.
#[inline]
pub fn has_instance_attributes(object: &Any) -> bool {
    // SAFETY: O2; V2 for a class with the flag.
    unsafe {
        let class = object.type_ptr();
        if (*class).tp_flags & MANAGED_DICT == 0 {
            return (*class).tp_dictoffset != 0;
        }
        let dict = object.as_ptr().cast::<*mut ffi::PyObject>().offset(DICT_WORD).read();
        has_values(object, dict)
    }
}

/// The values lie behind the object; once there is a dictionary, it counts.
#[cfg(Py_3_13)]
#[inline]
unsafe fn has_values(object: &Any, dict: *mut ffi::PyObject) -> bool {
    const INLINE_VALUES: std::ffi::c_ulong = 1 << 2;
    // SAFETY: V2.
    unsafe {
        if !dict.is_null() {
            return ffi::PyDict_Size(dict) != 0;
        }
        let class = object.type_ptr();
        if (*class).tp_flags & INLINE_VALUES == 0 {
            return false;
        }
        // The bytes of the head: capacity, size.
        object.as_ptr().cast::<u8>().offset((*class).tp_basicsize + 1).read() != 0
    }
}

/// One word for both; the lowest bit tells that it points one byte before the values.
#[cfg(all(Py_3_12, not(Py_3_13)))]
#[inline]
unsafe fn has_values(_object: &Any, word: *mut ffi::PyObject) -> bool {
    // SAFETY: V2.
    unsafe {
        if word.is_null() {
            return false;
        }
        if word.addr() & 1 == 0 {
            return ffi::PyDict_Size(word) != 0;
        }
        // The second byte before the values counts them.
        word.cast::<u8>().add(1).sub(2).read() != 0
    }
}

/// The values have a word of their own in front of the dictionary's.
#[cfg(not(Py_3_12))]
#[inline]
unsafe fn has_values(object: &Any, dict: *mut ffi::PyObject) -> bool {
    // SAFETY: V2.
    unsafe {
        let values = object.as_ptr().cast::<*mut u8>().offset(DICT_WORD - 1).read();
        match values.is_null() {
            false => values.sub(2).read() != 0,
            true => !dict.is_null() && ffi::PyDict_Size(dict) != 0,
        }
    }
}

/// Tries V2 out. Fails: ImportError where this Python keeps attributes in another way.
pub(super) fn verify() -> Result<()> {
    // SAFETY: O1; `type` is never freed.
    let (metaclass, empty) = unsafe {
        let metaclass = Any::from_ptr((&raw mut ffi::PyType_Type).cast());
        (metaclass, Object::from_owned(ffi::PyTuple_New(0))?)
    };
    let name = crate::value::text("Probe")?;
    let instance = metaclass.call(&[&*name, &*empty, &*crate::value::dict()?])?.call0()?;
    let mut answers = vec![has_instance_attributes(&instance)];
    instance.set_attribute(&name, &name)?;
    answers.push(has_instance_attributes(&instance));
    instance.delete_attribute(&name)?;
    answers.push(has_instance_attributes(&instance));
    instance.set_attribute(&name, &name)?;
    let attributes = instance.get_attribute_str(c"__dict__")?;
    answers.push(has_instance_attributes(&instance));
    attributes.dict_delete(&name)?;
    answers.push(has_instance_attributes(&instance));
    if answers == [false, true, false, true, false] {
        return Ok(());
    }
    Err(super::built_for_another_layout_of("instance attributes"))
}
