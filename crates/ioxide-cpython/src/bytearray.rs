//! A real `bytearray` as storage: for attributes of asyncio's classes that programs look at and change.
//!
//! Invariants:
//! B1. A view of the bytes is used up before Python runs or the array is resized; both move the bytes.

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;

/// `bytearray(value)`
pub fn bytearray(value: &[u8]) -> Result<Object> {
    // SAFETY: O1; the slice has that length.
    unsafe { Object::from_owned(ffi::PyByteArray_FromStringAndSize(value.as_ptr().cast(), value.len() as _)) }
}

impl Any {
    /// Whether this is a bytearray, of that class or a derived one.
    pub fn is_bytearray(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyByteArray_Check(self.as_ptr()) == 1 }
    }

    /// What `look` makes of the bytes of a bytearray (of nothing for anything else). `look` runs no Python (B1).
    pub fn with_bytearray<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        if !self.is_bytearray() {
            return look(&[]);
        }
        // SAFETY: the type was checked; B1.
        unsafe {
            let length = ffi::PyByteArray_Size(self.as_ptr()) as usize;
            look(std::slice::from_raw_parts(ffi::PyByteArray_AsString(self.as_ptr()).cast(), length))
        }
    }

    /// Appends to a bytearray. Fails: BufferError while somebody has a view of it, TypeError where it is none.
    pub fn bytearray_append(&self, value: &[u8]) -> Result<()> {
        self.check_bytearray()?;
        // SAFETY: the type was checked; the array has room for both after the resize, and `value` is not part of it,
        // since it would be a view of what has just been resized.
        unsafe {
            let length = ffi::PyByteArray_Size(self.as_ptr());
            if ffi::PyByteArray_Resize(self.as_ptr(), length + value.len() as ffi::Py_ssize_t) < 0 {
                return Err(Raised::assume());
            }
            let end = ffi::PyByteArray_AsString(self.as_ptr()).add(length as usize);
            std::ptr::copy_nonoverlapping(value.as_ptr(), end.cast(), value.len());
        }
        Ok(())
    }

    /// `del array[:count]`. Fails: BufferError while somebody has a view of it, TypeError where it is none.
    pub fn bytearray_delete_front(&self, count: usize) -> Result<()> {
        self.check_bytearray()?;
        // SAFETY: O1, O2; slices are cut to the array's length.
        if unsafe { ffi::PySequence_DelSlice(self.as_ptr(), 0, count.min(isize::MAX as usize) as _) } < 0 {
            // SAFETY: a negative status comes with the error indicator set.
            return Err(unsafe { Raised::assume() });
        }
        Ok(())
    }

    fn check_bytearray(&self) -> Result<()> {
        if self.is_bytearray() {
            return Ok(());
        }
        let name = crate::exception::type_name(self);
        Err(Raised::type_error(&format!("expected bytearray, not {name}")))
    }
}
