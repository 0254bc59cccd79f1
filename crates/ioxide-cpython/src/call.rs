//! Calling Python: functions, methods and attributes, by vectorcall wherever there is one.
//!
//! Every function here: Refs: borrows its arguments, returns new references. Fails: with the callee's
//! exception. Runs Python: yes.

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;
use std::ffi::CStr;

/// Room that vectorcall may overwrite before the first argument.
const OFFSET: usize = ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;

#[inline(always)]
fn check(status: i32) -> Result<()> {
    if status < 0 {
        // SAFETY: a negative status comes with the error indicator set.
        return Err(unsafe { Raised::assume() });
    }
    Ok(())
}

impl Any {
    #[inline]
    pub fn call0(&self) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyObject_CallNoArgs(self.as_ptr())) }
    }

    #[inline]
    pub fn call1(&self, argument: &Any) -> Result<Object> {
        self.call(&[argument])
    }

    #[inline]
    pub fn call<const N: usize>(&self, arguments: &[&Any; N]) -> Result<Object> {
        self.call_slice(arguments)
    }

    /// Calls with positional arguments.
    #[inline]
    pub fn call_slice(&self, arguments: &[&Any]) -> Result<Object> {
        // SAFETY: O1, O2; `&Any` has the layout of an object pointer.
        unsafe {
            Object::from_owned(ffi::PyObject_Vectorcall(
                self.as_ptr(),
                arguments.as_ptr().cast(),
                arguments.len() as _,
                std::ptr::null_mut(),
            ))
        }
    }

    /// Calls with positional arguments followed by the values of the keywords `names` (a tuple of strings).
    #[inline]
    pub fn call_keywords(&self, arguments: &[&Any], names: &Any, positional: usize) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe {
            Object::from_owned(ffi::PyObject_Vectorcall(
                self.as_ptr(),
                arguments.as_ptr().cast(),
                positional as _,
                names.as_ptr(),
            ))
        }
    }

    /// Calls with a tuple and, if there is one, a dictionary of keywords.
    pub fn call_tuple(&self, arguments: &Any, keywords: Option<&Any>) -> Result<Object> {
        let keywords = keywords.map_or(std::ptr::null_mut(), Any::as_ptr);
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyObject_Call(self.as_ptr(), arguments.as_ptr(), keywords)) }
    }

    /// `self.name()`
    #[inline]
    pub fn call_method0(&self, name: &Any) -> Result<Object> {
        let arguments = [self.as_ptr()];
        // SAFETY: O1, O2.
        unsafe {
            Object::from_owned(ffi::PyObject_VectorcallMethod(
                name.as_ptr(),
                arguments.as_ptr(),
                1 | OFFSET,
                std::ptr::null_mut(),
            ))
        }
    }

    /// `self.name(argument)`
    #[inline]
    pub fn call_method1(&self, name: &Any, argument: &Any) -> Result<Object> {
        let arguments = [self.as_ptr(), argument.as_ptr()];
        // SAFETY: O1, O2.
        unsafe {
            Object::from_owned(ffi::PyObject_VectorcallMethod(
                name.as_ptr(),
                arguments.as_ptr(),
                2 | OFFSET,
                std::ptr::null_mut(),
            ))
        }
    }

    /// `self.name(*arguments)`
    pub fn call_method(&self, name: &Any, arguments: &[&Any]) -> Result<Object> {
        let mut all = Vec::with_capacity(arguments.len() + 1);
        all.push(self);
        all.extend_from_slice(arguments);
        // SAFETY: O1, O2; `&Any` has the layout of an object pointer.
        unsafe {
            Object::from_owned(ffi::PyObject_VectorcallMethod(
                name.as_ptr(),
                all.as_ptr().cast(),
                all.len() | OFFSET,
                std::ptr::null_mut(),
            ))
        }
    }

    /// `self.name(*arguments[..positional], **dict(zip(names, rest)))`
    pub fn call_method_keywords(&self, name: &Any, arguments: &[&Any], names: &Any) -> Result<Object> {
        // SAFETY: `names` is a tuple.
        let keywords = unsafe { ffi::PyTuple_GET_SIZE(names.as_ptr()) } as usize;
        let method = self.get_attribute(name)?;
        method.call_keywords(arguments, names, arguments.len() - keywords)
    }

    #[inline]
    pub fn get_attribute(&self, name: &Any) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyObject_GetAttr(self.as_ptr(), name.as_ptr())) }
    }

    /// The attribute, or `None` where there is none; other errors are errors.
    #[inline]
    pub fn get_attribute_optional(&self, name: &Any) -> Result<Option<Object>> {
        let mut value = std::ptr::null_mut();
        // SAFETY: O1, O2; `value` is an owned reference or null afterwards.
        unsafe {
            check(ffi::compat::PyObject_GetOptionalAttr(self.as_ptr(), name.as_ptr(), &mut value))?;
            Ok(Object::from_owned_or_none(value))
        }
    }

    pub fn get_attribute_str(&self, name: &CStr) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyObject_GetAttrString(self.as_ptr(), name.as_ptr())) }
    }

    pub fn set_attribute(&self, name: &Any, value: &Any) -> Result<()> {
        // SAFETY: O1, O2.
        check(unsafe { ffi::PyObject_SetAttr(self.as_ptr(), name.as_ptr(), value.as_ptr()) })
    }

    pub fn delete_attribute(&self, name: &Any) -> Result<()> {
        // SAFETY: O1, O2.
        check(unsafe { ffi::PyObject_SetAttr(self.as_ptr(), name.as_ptr(), std::ptr::null_mut()) })
    }

    pub fn get_item(&self, key: &Any) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyObject_GetItem(self.as_ptr(), key.as_ptr())) }
    }

    #[inline]
    pub fn is_true(&self) -> Result<bool> {
        // SAFETY: O1, O2.
        let truth = unsafe { ffi::PyObject_IsTrue(self.as_ptr()) };
        check(truth)?;
        Ok(truth == 1)
    }

    #[inline]
    pub fn is_callable(&self) -> bool {
        // SAFETY: O1, O2.
        unsafe { ffi::PyCallable_Check(self.as_ptr()) == 1 }
    }

    pub fn equals(&self, other: &Any) -> Result<bool> {
        // SAFETY: O1, O2.
        let answer = unsafe { ffi::PyObject_RichCompareBool(self.as_ptr(), other.as_ptr(), ffi::Py_EQ) };
        check(answer)?;
        Ok(answer == 1)
    }

    /// `self <= other`
    pub fn is_at_most(&self, other: &Any) -> Result<bool> {
        // SAFETY: O1, O2.
        let answer = unsafe { ffi::PyObject_RichCompareBool(self.as_ptr(), other.as_ptr(), ffi::Py_LE) };
        check(answer)?;
        Ok(answer == 1)
    }

    /// `self < other`
    pub fn is_less_than(&self, other: &Any) -> Result<bool> {
        // SAFETY: O1, O2.
        let answer = unsafe { ffi::PyObject_RichCompareBool(self.as_ptr(), other.as_ptr(), ffi::Py_LT) };
        check(answer)?;
        Ok(answer == 1)
    }

    /// `self >= other`
    pub fn is_at_least(&self, other: &Any) -> Result<bool> {
        // SAFETY: O1, O2.
        let answer = unsafe { ffi::PyObject_RichCompareBool(self.as_ptr(), other.as_ptr(), ffi::Py_GE) };
        check(answer)?;
        Ok(answer == 1)
    }

    /// `self + other`
    pub fn add(&self, other: &Any) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyNumber_Add(self.as_ptr(), other.as_ptr())) }
    }

    /// `issubclass(self, class)`. Fails: TypeError where `self` is no class.
    pub fn is_subclass(&self, class: &Any) -> Result<bool> {
        // SAFETY: O1, O2.
        let answer = unsafe { ffi::PyObject_IsSubclass(self.as_ptr(), class.as_ptr()) };
        check(answer)?;
        Ok(answer == 1)
    }

    /// `isinstance(self, class)`; `class` may be a tuple of classes.
    pub fn is_instance(&self, class: &Any) -> Result<bool> {
        // SAFETY: O1, O2.
        let answer = unsafe { ffi::PyObject_IsInstance(self.as_ptr(), class.as_ptr()) };
        check(answer)?;
        Ok(answer == 1)
    }

    /// Whether the object's class is `class` or derives from it; asks no Python code.
    #[inline]
    pub fn is_subtype_of(&self, class: &Any) -> bool {
        // SAFETY: O1, O2; a class, by the caller.
        unsafe { ffi::PyObject_TypeCheck(self.as_ptr(), class.as_ptr().cast()) == 1 }
    }

    pub fn repr(&self) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyObject_Repr(self.as_ptr())) }
    }

    pub fn str(&self) -> Result<Object> {
        // SAFETY: O1, O2.
        unsafe { Object::from_owned(ffi::PyObject_Str(self.as_ptr())) }
    }

    /// `next(self)` of an iterator, `None` at its end.
    pub fn next_item(&self) -> Result<Option<Object>> {
        Objects(self.to_object()).next().transpose()
    }

    pub fn iterate(&self) -> Result<Objects> {
        // SAFETY: O1, O2.
        unsafe { Ok(Objects(Object::from_owned(ffi::PyObject_GetIter(self.as_ptr()))?)) }
    }
}

/// The items of a Python iterable.
pub struct Objects(Object);

impl Objects {
    /// The Python iterator.
    pub fn into_object(self) -> Object {
        self.0
    }
}

impl Iterator for Objects {
    type Item = Result<Object>;
    fn next(&mut self) -> Option<Result<Object>> {
        // SAFETY: O1; a null without an exception is the end.
        unsafe {
            let item = ffi::PyIter_Next(self.0.as_ptr());
            if item.is_null() && ffi::PyErr_Occurred().is_null() {
                return None;
            }
            Some(Object::from_owned(item))
        }
    }
}

/// Imports a module by its dotted name.
pub fn import(name: &CStr) -> Result<Object> {
    // SAFETY: O1.
    unsafe { Object::from_owned(ffi::PyImport_ImportModule(name.as_ptr())) }
}

/// Runs the Python-level handlers of signals that arrived. Fails: with what a handler raised.
#[inline]
pub fn check_signals() -> Result<()> {
    // SAFETY: O1.
    check(unsafe { ffi::PyErr_CheckSignals() })
}

/// The object whose built-in method a callable is, if that was defined with this very name.
#[inline]
pub fn bound_method<'a>(callable: &'a Any, name: &'static CStr) -> Option<&'a Any> {
    // SAFETY: O2; a built-in function of exactly this class has this struct, whose object lives as long as it does.
    unsafe {
        if ffi::PyCFunction_CheckExact(callable.as_ptr()) == 0 {
            return None;
        }
        let function = &*callable.as_ptr().cast::<ffi::PyCFunctionObject>();
        if (*function.m_ml).ml_name != name.as_ptr() {
            return None;
        }
        Any::from_ptr_or_none(function.m_self)
    }
}
