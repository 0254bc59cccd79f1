//! Conversions between Rust values and Python's built-in types. Floats of seconds and bare descriptors
//! cross this border; inside ioxide they are `MonotonicTime`, `Duration` and `RawFd`.

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;
use std::ffi::c_long;

/// A Python string whose UTF-8 form is borrowed from the string object.
pub struct Text(Object);

impl Text {
    pub fn as_str(&self) -> &str {
        let mut length = 0;
        // SAFETY: `to_text` has already made the UTF-8 form, which the string object keeps.
        unsafe {
            let bytes = ffi::PyUnicode_AsUTF8AndSize(self.0.as_ptr(), &mut length);
            std::str::from_utf8_unchecked(std::slice::from_raw_parts(bytes.cast(), length as usize))
        }
    }

    pub fn into_string(self) -> String {
        self.as_str().to_owned()
    }
}

/// Up to this, a float holds every integer.
const EXACT_IN_FLOATS: c_long = 1 << 53;

impl Any {
    /// Fails: TypeError where this is no string, UnicodeEncodeError for lone surrogates.
    pub fn to_text(&self) -> Result<Text> {
        let mut length = 0;
        // SAFETY: O1, O2.
        if unsafe { ffi::PyUnicode_AsUTF8AndSize(self.as_ptr(), &mut length) }.is_null() {
            // SAFETY: null comes with the error indicator set.
            return Err(unsafe { Raised::assume() });
        }
        Ok(Text(self.to_object()))
    }

    /// Fails: TypeError, OverflowError.
    pub fn to_i64(&self) -> Result<i64> {
        // SAFETY: O1, O2.
        let value = unsafe { ffi::PyLong_AsLongLong(self.as_ptr()) };
        if value == -1 && crate::exception_pending() {
            // SAFETY: just seen.
            return Err(unsafe { Raised::assume() });
        }
        Ok(value)
    }

    /// The value of a float or int of exactly these classes, where a float can hold it.
    #[inline]
    pub fn as_plain_number(&self) -> Option<f64> {
        // SAFETY: O1, O2; the type checks come first.
        unsafe {
            if ffi::PyFloat_CheckExact(self.as_ptr()) == 1 {
                return Some(ffi::PyFloat_AS_DOUBLE(self.as_ptr()));
            }
            if ffi::PyLong_CheckExact(self.as_ptr()) == 0 {
                return None;
            }
            let mut overflow = 0;
            let value = ffi::PyLong_AsLongAndOverflow(self.as_ptr(), &mut overflow);
            if overflow == 0 && value.abs() <= EXACT_IN_FLOATS {
                return Some(value as f64);
            }
        }
        self.to_f64().map_err(|raised| drop(raised.take())).ok()
    }

    /// Fails: TypeError, OverflowError.
    pub fn to_i32(&self) -> Result<i32> {
        let value = self.to_i64()?;
        i32::try_from(value).map_err(|_| {
            Raised::new(
                crate::builtin(crate::Builtin::OverflowError),
                "signed integer is out of range for a C int",
            )
        })
    }

    /// Fails: TypeError.
    #[inline]
    pub fn to_f64(&self) -> Result<f64> {
        // SAFETY: O1, O2.
        let value = unsafe { ffi::PyFloat_AsDouble(self.as_ptr()) };
        if value == -1.0 && crate::exception_pending() {
            // SAFETY: just seen.
            return Err(unsafe { Raised::assume() });
        }
        Ok(value)
    }

    pub fn is_string(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyUnicode_Check(self.as_ptr()) == 1 }
    }

    pub fn is_bytes(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyBytes_Check(self.as_ptr()) == 1 }
    }

    /// Whether this is a bytes object and of no derived class.
    #[inline]
    pub fn is_exact_bytes(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyBytes_CheckExact(self.as_ptr()) == 1 }
    }

    pub fn is_integer(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyLong_Check(self.as_ptr()) == 1 }
    }

    pub fn is_exact_integer(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyLong_CheckExact(self.as_ptr()) == 1 }
    }

    /// Whether this is a list, tuple, set or frozenset, and of no derived class.
    pub fn is_builtin_collection(&self) -> bool {
        // SAFETY: O2.
        unsafe {
            ffi::PyList_CheckExact(self.as_ptr()) == 1
                || ffi::PyTuple_CheckExact(self.as_ptr()) == 1
                || ffi::PyAnySet_CheckExact(self.as_ptr()) == 1
        }
    }

    pub fn is_tuple(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyTuple_Check(self.as_ptr()) == 1 }
    }

    pub fn is_exception(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyExceptionInstance_Check(self.as_ptr()) == 1 }
    }

    /// Whether this is an exception class.
    pub fn is_exception_class(&self) -> bool {
        // SAFETY: O2.
        unsafe { ffi::PyExceptionClass_Check(self.as_ptr()) == 1 }
    }

    /// The bytes of a `bytes` object, `None` for anything else.
    pub fn bytes(&self) -> Option<&[u8]> {
        if !self.is_bytes() {
            return None;
        }
        // SAFETY: bytes objects are immutable and live as long as `self` (O2).
        unsafe {
            let start = ffi::PyBytes_AS_STRING(self.as_ptr()).cast();
            Some(std::slice::from_raw_parts(start, ffi::Py_SIZE(self.as_ptr()) as usize))
        }
    }

    /// The items of a tuple (empty for anything else).
    pub fn tuple_items(&self) -> &[&Any] {
        if !self.is_tuple() {
            return &[];
        }
        // SAFETY: a tuple's items live as long as the tuple and never change; `&Any` is one pointer.
        unsafe {
            let tuple = self.as_ptr().cast::<ffi::PyTupleObject>();
            let size = ffi::PyTuple_GET_SIZE(self.as_ptr()) as usize;
            std::slice::from_raw_parts((&raw const (*tuple).ob_item).cast(), size)
        }
    }

    pub fn list_append(&self, item: &Any) -> Result<()> {
        // SAFETY: O1, O2.
        status(unsafe { ffi::PyList_Append(self.as_ptr(), item.as_ptr()) })
    }

    /// `dict[key] = value`
    pub fn dict_set(&self, key: &Any, value: &Any) -> Result<()> {
        // SAFETY: O1, O2.
        status(unsafe { ffi::PyDict_SetItem(self.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }

    /// `dict.get(key)`, `None` where it is missing.
    pub fn dict_get(&self, key: &Any) -> Result<Option<Object>> {
        // SAFETY: O1, O2; the value is borrowed from the dict and taken at once.
        unsafe {
            let value = ffi::PyDict_GetItemWithError(self.as_ptr(), key.as_ptr());
            match Any::from_ptr_or_none(value) {
                Some(value) => Ok(Some(value.to_object())),
                None if crate::exception_pending() => Err(Raised::assume()),
                None => Ok(None),
            }
        }
    }

    /// `del dict[key]`. Fails: KeyError.
    pub fn dict_delete(&self, key: &Any) -> Result<()> {
        // SAFETY: O1, O2.
        status(unsafe { ffi::PyDict_DelItem(self.as_ptr(), key.as_ptr()) })
    }

    pub fn length(&self) -> Result<usize> {
        // SAFETY: O1, O2.
        let length = unsafe { ffi::PyObject_Size(self.as_ptr()) };
        usize::try_from(length).map_err(|_| {
            // SAFETY: a negative size comes with the error indicator set.
            unsafe { Raised::assume() }
        })
    }
}

fn status(status: i32) -> Result<()> {
    if status < 0 {
        // SAFETY: a negative status comes with the error indicator set.
        return Err(unsafe { Raised::assume() });
    }
    Ok(())
}

pub fn text(value: &str) -> Result<Object> {
    // SAFETY: O1; the slice is valid UTF-8 of that length.
    unsafe { Object::from_owned(ffi::PyUnicode_FromStringAndSize(value.as_ptr().cast(), value.len() as _)) }
}

/// A string from file-system bytes, as `os.fsdecode`.
pub fn file_system_text(value: &[u8]) -> Result<Object> {
    // SAFETY: O1; the slice has that length.
    unsafe {
        Object::from_owned(ffi::PyUnicode_DecodeFSDefaultAndSize(value.as_ptr().cast(), value.len() as _))
    }
}

/// What `value` is called in the file system, as a C string: `os.fsencode` of a str, bytes or path.
/// Fails: TypeError for other objects, ValueError where there is a null in it.
pub fn file_system_string(value: &Any) -> Result<std::ffi::CString> {
    let mut encoded: *mut ffi::PyObject = std::ptr::null_mut();
    // SAFETY: O1, O2; the converter leaves an owned bytes object, or fails and leaves nothing.
    let encoded = unsafe {
        if ffi::PyUnicode_FSConverter(value.as_ptr(), (&raw mut encoded).cast()) == 0 {
            return Err(Raised::assume());
        }
        Object::from_owned(encoded)?
    };
    std::ffi::CString::new(encoded.bytes().unwrap_or_default())
        .map_err(|_| Raised::value_error("embedded null byte"))
}

pub fn integer(value: i64) -> Result<Object> {
    // SAFETY: O1.
    unsafe { Object::from_owned(ffi::PyLong_FromLongLong(value)) }
}

#[inline]
pub fn float(value: f64) -> Result<Object> {
    // SAFETY: O1.
    unsafe { Object::from_owned(ffi::PyFloat_FromDouble(value)) }
}

#[inline]
pub fn bytes(value: &[u8]) -> Result<Object> {
    // SAFETY: O1; the slice has that length.
    unsafe { Object::from_owned(ffi::PyBytes_FromStringAndSize(value.as_ptr().cast(), value.len() as _)) }
}

/// A tuple of borrowed items.
#[inline]
pub fn tuple(items: &[&Any]) -> Result<Object> {
    // SAFETY: O1; every place of the fresh tuple is filled once, with an owned reference.
    unsafe {
        let tuple = Object::from_owned(ffi::PyTuple_New(items.len() as _))?;
        for (index, item) in items.iter().enumerate() {
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index as _, item.to_object().into_ptr());
        }
        Ok(tuple)
    }
}

/// `sequence[index]`
pub fn sequence_item(sequence: &Any, index: usize) -> Result<Object> {
    // SAFETY: O1, O2.
    unsafe { Object::from_owned(ffi::PySequence_GetItem(sequence.as_ptr(), index as _)) }
}

pub fn list() -> Result<Object> {
    // SAFETY: O1.
    unsafe { Object::from_owned(ffi::PyList_New(0)) }
}

/// The items of a list (none for anything else).
pub fn list_items(list: &Any) -> Vec<Object> {
    // SAFETY: O1, O2; the type check comes first, and nothing runs while the items are taken.
    unsafe {
        if ffi::PyList_Check(list.as_ptr()) == 0 {
            return Vec::new();
        }
        let size = ffi::PyList_GET_SIZE(list.as_ptr());
        (0..size).map(|index| Any::from_ptr(ffi::PyList_GET_ITEM(list.as_ptr(), index)).to_object()).collect()
    }
}

pub fn list_of<T: std::borrow::Borrow<Any>>(items: impl IntoIterator<Item = T>) -> Result<Object> {
    let list = list()?;
    for item in items {
        list.list_append(item.borrow())?;
    }
    Ok(list)
}

/// A list of these items, whose references it takes.
pub fn list_from(items: Vec<Object>) -> Result<Object> {
    // SAFETY: O1; as many places as items, each filled once, with no allocation in between.
    unsafe {
        let list = Object::from_owned(ffi::PyList_New(items.len() as ffi::Py_ssize_t))?;
        for (place, item) in items.into_iter().enumerate() {
            ffi::PyList_SET_ITEM(list.as_ptr(), place as ffi::Py_ssize_t, item.into_ptr());
        }
        Ok(list)
    }
}

pub fn dict() -> Result<Object> {
    // SAFETY: O1.
    unsafe { Object::from_owned(ffi::PyDict_New()) }
}

pub fn set() -> Result<Object> {
    // SAFETY: O1.
    unsafe { Object::from_owned(ffi::PySet_New(std::ptr::null_mut())) }
}

/// `set(iterable)`. Fails: TypeError where it is no iterable, or an item has no hash. Runs Python: maybe.
pub fn set_of(iterable: &Any) -> Result<Object> {
    // SAFETY: O1, O2.
    unsafe { Object::from_owned(ffi::PySet_New(iterable.as_ptr())) }
}

/// `set.add(item)`
pub fn set_add(set: &Any, item: &Any) -> Result<()> {
    // SAFETY: O1, O2; an exact set or an instance of a class derived from it, by the caller.
    status(unsafe { ffi::PySet_Add(set.as_ptr(), item.as_ptr()) })
}

/// `set.discard(item)`
pub fn set_discard(set: &Any, item: &Any) -> Result<()> {
    // SAFETY: O1, O2; an exact set or an instance of a class derived from it, by the caller.
    status(unsafe { ffi::PySet_Discard(set.as_ptr(), item.as_ptr()) })
}

/// `weakref.ref(object)`. Fails: TypeError where the object's class has no weak references.
pub fn weak_reference(object: &Any) -> Result<Object> {
    // SAFETY: O1, O2.
    unsafe { Object::from_owned(ffi::PyWeakref_NewRef(object.as_ptr(), std::ptr::null_mut())) }
}

/// What a weak reference refers to, `None` where that is gone. Fails: TypeError where `reference` is no weak reference.
#[inline]
pub fn weak_referent(reference: &Any) -> Result<Option<Object>> {
    let mut referent = std::ptr::null_mut();
    // SAFETY: O1, O2; `referent` is an owned reference or null afterwards.
    unsafe {
        status(ffi::compat::PyWeakref_GetRef(reference.as_ptr(), &mut referent))?;
        Ok(Object::from_owned_or_none(referent))
    }
}

impl std::borrow::Borrow<Any> for Object {
    fn borrow(&self) -> &Any {
        self
    }
}

/// A `bytes` object of at most `room` bytes that `fill` writes: as long as `fill` says, or none where it says `None`.
pub fn bytes_filled_by(
    room: usize,
    fill: impl FnOnce(&mut [std::mem::MaybeUninit<u8>]) -> Result<Option<usize>>,
) -> Result<Option<Object>> {
    // SAFETY: O1; the bytes of a fresh object nobody else has seen are ours to write, up to `room`; the object is
    // shrunk to what was written before anybody sees it, and _PyBytes_Resize consumes the reference it is given.
    unsafe {
        let object = Object::from_owned(ffi::PyBytes_FromStringAndSize(std::ptr::null(), room as _))?;
        let start = ffi::PyBytes_AS_STRING(object.as_ptr()).cast_mut().cast();
        let Some(length) = fill(std::slice::from_raw_parts_mut(start, room))? else { return Ok(None) };
        if length >= room {
            return Ok(Some(object));
        }
        let mut pointer = object.into_ptr();
        if _PyBytes_Resize(&mut pointer, length as _) < 0 {
            return Err(Raised::assume());
        }
        Object::from_owned(pointer).map(Some)
    }
}

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, length: ffi::Py_ssize_t) -> std::ffi::c_int;
}
