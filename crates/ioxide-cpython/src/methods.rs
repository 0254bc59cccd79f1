//! Rust functions as Python methods: the C entry points, their arguments and what they return.
//!
//! Every entry point turns a panic into a RuntimeError, so no unwinding ever crosses into C.
//! A Rust function becomes a method by naming it: `method0(c"time", EventLoop::time)`. The function's own
//! (zero-sized) type carries it into the C entry point, so there is no table and no indirection.

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

/// The arguments of one call: positional ones, then the values of `names`.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    values: &'a [&'a Any],
    positional: usize,
    names: Option<&'a Any>,
}

impl<'a> Arguments<'a> {
    /// # Safety
    /// The vectorcall convention.
    #[inline(always)]
    pub(crate) unsafe fn from_vectorcall(
        values: *const *mut ffi::PyObject,
        positional: usize,
        names: *mut ffi::PyObject,
    ) -> Arguments<'a> {
        // SAFETY: the caller's promise; `&Any` has the layout of an object pointer.
        unsafe {
            let names = Any::from_ptr_or_none(names);
            let keywords = names.map_or(0, |names| ffi::PyTuple_GET_SIZE(names.as_ptr()) as usize);
            let count = positional + keywords;
            let values = if count == 0 { &[] } else { std::slice::from_raw_parts(values.cast(), count) };
            Arguments { values, positional, names }
        }
    }

    #[inline(always)]
    pub fn positional(&self) -> &'a [&'a Any] {
        &self.values[..self.positional]
    }

    /// Name and value of every keyword argument.
    pub fn keywords(&self) -> impl Iterator<Item = (&'a Any, &'a Any)> + use<'a> {
        let names = self.names.map_or(&[] as &[&Any], Any::tuple_items);
        names.iter().copied().zip(self.values[self.positional..].iter().copied())
    }

    /// Calls a Python function with the same arguments.
    pub fn call(&self, function: &Any) -> Result<Object> {
        match self.names {
            Some(names) => function.call_keywords(self.values, names, self.positional),
            None => function.call_slice(self.values),
        }
    }

    #[inline(always)]
    pub fn has_keywords(&self) -> bool {
        self.values.len() > self.positional
    }

    /// The arguments of `f(first, *args, context=None)` and its kin: the leading parameters, each given by position or
    /// by name, what follows them, and the context. Fails: TypeError, in Python's words.
    #[inline]
    pub fn leading<const N: usize>(
        &self,
        function: &str,
        names: [&'static str; N],
        takes_context: bool,
    ) -> Result<Leading<'a, N>> {
        if !self.has_keywords()
            && let Some((parameters, rest)) = self.positional().split_first_chunk()
        {
            return Ok(Leading { parameters: *parameters, rest, context: None });
        }
        self.leading_by_name(function, names, takes_context)
    }

    fn leading_by_name<const N: usize>(
        &self,
        function: &str,
        names: [&'static str; N],
        takes_context: bool,
    ) -> Result<Leading<'a, N>> {
        let mut given: [Option<&'a Any>; N] = [None; N];
        let by_position = self.positional.min(N);
        for (place, value) in given.iter_mut().zip(self.positional()) {
            *place = Some(*value);
        }
        let mut context = None;
        for (name, value) in self.keywords() {
            match names.iter().position(|parameter| name_is(name, parameter)) {
                Some(index) if given[index].is_some() => return Err(multiple_values(function, names[index])),
                Some(index) => given[index] = Some(value),
                None if takes_context && name_is(name, "context") => {
                    context = Some(value).filter(|value| !value.is_none());
                }
                None => return Err(unexpected_keyword(function, name)),
            }
        }
        let mut parameters = [crate::none(); N];
        for ((place, value), name) in parameters.iter_mut().zip(given).zip(names) {
            *place = value.ok_or_else(|| missing_argument(function, name))?;
        }
        Ok(Leading { parameters, rest: &self.positional()[by_position..], context })
    }

    /// The first argument of a function with more, given by position or by name.
    #[inline]
    pub fn first(&self, function: &str, name: &'static str) -> Result<&'a Any> {
        match self.positional() {
            [first, ..] => Ok(first),
            [] => {
                let named = self.keywords().find(|(keyword, _)| name_is(keyword, name));
                named.map(|(_, value)| value).ok_or_else(|| missing_argument(function, name))
            }
        }
    }

    /// The argument of `f(name)`, given by position or by name.
    pub fn only(&self, function: &str, name: &'static str) -> Result<&'a Any> {
        let Leading { parameters: [value], rest, .. } = self.leading(function, [name], false)?;
        if rest.is_empty() {
            return Ok(value);
        }
        let given = self.positional.to_string();
        Err(Raised::type_error(&format!("{function}() takes 1 positional argument but {given} were given")))
    }
}

/// What [`Arguments::leading`] finds.
pub struct Leading<'a, const N: usize> {
    pub parameters: [&'a Any; N],
    pub rest: &'a [&'a Any],
    pub context: Option<&'a Any>,
}

/// Calls `body` with the arguments of a tp_init or tp_new: a tuple and, maybe, a dictionary.
///
/// # Safety
/// `arguments` is a tuple; `keywords` is a dictionary or null. Both stay alive.
pub(crate) unsafe fn with_tuple_and_dict<T>(
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
    body: impl FnOnce(Arguments<'_>) -> Result<T>,
) -> Result<T> {
    // SAFETY: the caller's promise. The values are borrowed from the dictionary, which the caller keeps as it is.
    unsafe {
        let positional = Any::from_ptr(arguments).tuple_items();
        if keywords.is_null() || ffi::PyDict_Size(keywords) == 0 {
            let values = positional;
            return body(Arguments { values, positional: positional.len(), names: None });
        }
        let mut values = positional.to_vec();
        let mut keyword_names: Vec<&Any> = Vec::new();
        let (mut position, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        while ffi::PyDict_Next(keywords, &mut position, &mut key, &mut value) != 0 {
            keyword_names.push(Any::from_ptr(key));
            values.push(Any::from_ptr(value));
        }
        let keyword_names = crate::value::tuple(&keyword_names)?;
        body(Arguments { values: &values, positional: positional.len(), names: Some(&keyword_names) })
    }
}

/// The parameters of a method: names in order, how many are required, how many may be given by position. An empty name
/// is a parameter that this Python version does not have.
pub struct Signature<const N: usize> {
    pub function: &'static str,
    pub names: [&'static str; N],
    /// The first `required` parameters have no default.
    pub required: usize,
    /// The parameters behind this many are keyword-only.
    pub positional: usize,
}

impl<const N: usize> Signature<N> {
    /// One value a parameter, `None` where the caller gave none. Fails: TypeError, in Python's words.
    #[inline(always)]
    pub fn bind<'a>(&self, arguments: Arguments<'a>) -> Result<[Option<&'a Any>; N]> {
        let positional = arguments.positional();
        if arguments.has_keywords() || positional.len() < self.required || positional.len() > self.positional
        {
            return self.bind_by_name(arguments);
        }
        Ok(std::array::from_fn(|index| positional.get(index).copied()))
    }

    #[inline(never)]
    fn bind_by_name<'a>(&self, arguments: Arguments<'a>) -> Result<[Option<&'a Any>; N]> {
        self.bind_with(arguments, |name| Err(unexpected_keyword(self.function, name)))
    }

    /// As `bind`, but hands keywords that are no parameter to `other`.
    pub fn bind_with<'a>(
        &self,
        arguments: Arguments<'a>,
        mut other: impl FnMut(&'a Any) -> Result<()>,
    ) -> Result<[Option<&'a Any>; N]> {
        let mut bound = [None; N];
        let positional = arguments.positional();
        if positional.len() > self.positional {
            return Err(self.too_many(positional.len()));
        }
        for (place, value) in bound.iter_mut().zip(positional) {
            *place = Some(*value);
        }
        for (name, value) in arguments.keywords() {
            let is_named = |parameter: &&str| !parameter.is_empty() && name_is(name, parameter);
            match self.names.iter().position(is_named) {
                Some(index) if bound[index].is_some() => {
                    return Err(multiple_values(self.function, self.names[index]));
                }
                Some(index) => bound[index] = Some(value),
                None => other(name)?,
            }
        }
        for (index, name) in self.names.iter().enumerate().take(self.required) {
            if bound[index].is_none() {
                return Err(missing_argument(self.function, name));
            }
        }
        Ok(bound)
    }

    #[cold]
    fn too_many(&self, given: usize) -> Raised {
        Raised::type_error(&format!(
            "{}() takes at most {} positional argument{} ({given} given)",
            self.function,
            self.positional,
            if self.positional == 1 { "" } else { "s" },
        ))
    }
}

#[cold]
pub fn multiple_values(function: &str, name: &str) -> Raised {
    Raised::type_error(&format!("{function}() got multiple values for argument '{name}'"))
}

#[cold]
pub fn missing_argument(function: &str, name: &str) -> Raised {
    Raised::type_error(&format!("{function}() missing 1 required positional argument: '{name}'"))
}

#[cold]
pub fn unexpected_keyword(function: &str, name: &Any) -> Raised {
    match name.to_text() {
        Ok(name) => Raised::type_error(&format!(
            "{function}() got an unexpected keyword argument '{}'",
            name.as_str()
        )),
        Err(raised) => raised,
    }
}

/// Whether a keyword is called `expected`.
pub fn name_is(name: &Any, expected: &str) -> bool {
    name.to_text().map(|text| text.as_str() == expected).unwrap_or_else(|raised| {
        drop(raised.take());
        false
    })
}

/// `None` where the argument is missing or is None.
pub fn given(argument: Option<&Any>) -> Option<&Any> {
    argument.filter(|argument| !argument.is_none())
}
