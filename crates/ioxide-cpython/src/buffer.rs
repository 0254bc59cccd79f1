//! The buffer protocol: bytes-like arguments of `write` and `recv_into`, held while the kernel uses them.

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;
use std::mem::MaybeUninit;

/// A view of a bytes-like object; the exporter stays locked until it is dropped.
pub struct Buffer(Box<ffi::Py_buffer>);

impl Buffer {
    /// Fails: TypeError or BufferError, as the object says.
    pub fn readable(object: &Any) -> Result<Buffer> {
        Buffer::acquire(object, ffi::PyBUF_SIMPLE)
    }

    /// Fails: BufferError or TypeError where the object cannot be written to.
    pub fn writable(object: &Any) -> Result<Buffer> {
        Buffer::acquire(object, ffi::PyBUF_WRITABLE)
    }

    fn acquire(object: &Any, flags: i32) -> Result<Buffer> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::zeroed());
        // SAFETY: O1, O2; the view's memory does not move while the exporter knows it.
        unsafe {
            if ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) < 0 {
                return Err(Raised::assume());
            }
            Ok(Buffer(Box::from_raw(Box::into_raw(view).cast())))
        }
    }

    pub fn len(&self) -> usize {
        self.0.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes. Another thread may change a mutable exporter's bytes meanwhile, as with every Python buffer.
    pub fn as_slice(&self) -> &[u8] {
        if self.is_empty() {
            return &[];
        }
        // SAFETY: the exporter keeps `len` bytes at `buf` until the view is released.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast(), self.len()) }
    }

    /// The bytes to be written to.
    pub fn as_uninitialized(&mut self) -> &mut [MaybeUninit<u8>] {
        if self.is_empty() {
            return &mut [];
        }
        // SAFETY: as above, and the view was asked for as writable by `writable`.
        unsafe { std::slice::from_raw_parts_mut(self.0.buf.cast(), self.len()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: O1; acquired once, released once.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) }
    }
}

/// Bytes that wait to be written: a `bytes` object, immutable and so kept as it is.
pub struct OwnedBytes(Object);

impl OwnedBytes {
    /// Keeps a `bytes` object, copies any other bytes-like one. Fails: TypeError where it is none.
    pub fn new(object: &Any) -> Result<OwnedBytes> {
        // SAFETY: O2.
        if unsafe { ffi::PyBytes_CheckExact(object.as_ptr()) == 1 } {
            return Ok(OwnedBytes(object.to_object()));
        }
        let view = Buffer::readable(object)?;
        Ok(OwnedBytes(crate::value::bytes(view.as_slice())?))
    }

    pub fn object(&self) -> &Any {
        &self.0
    }

    pub fn into_object(self) -> Object {
        self.0
    }
}

impl AsRef<[u8]> for OwnedBytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.0.bytes().unwrap_or(&[])
    }
}
