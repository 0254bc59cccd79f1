//! What a method was called with: reading and binding the arguments, and Python's words for wrong ones.

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;

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
        if given.iter().any(Option::is_none) {
            let missing: Vec<&str> =
                names.iter().zip(given).filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
            return Err(missing_arguments(function, &missing));
        }
        let parameters = given.map(|value| value.unwrap_or(crate::none()));
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
        let of_object = usize::from(function.contains('.')); // Python counts the object that a method is of
        let (takes, given) = (1 + of_object, self.positional + of_object);
        let plural = if takes == 1 { "" } else { "s" };
        Err(Raised::type_error(&format!(
            "{function}() takes {takes} positional argument{plural} but {given} were given"
        )))
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
        let required = || self.names.iter().zip(&bound).take(self.required);
        if required().any(|(_, value)| value.is_none()) {
            let missing: Vec<&str> =
                required().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
            return Err(missing_arguments(self.function, &missing));
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

/// That several required parameters have no value, in Python's words.
#[cold]
fn missing_arguments(function: &str, names: &[&str]) -> Raised {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let listed = match quoted.as_slice() {
        [] | [_] => return missing_argument(function, names.first().unwrap_or(&"")),
        [first, second] => format!("{first} and {second}"),
        [others @ .., last] => format!("{}, and {last}", others.join(", ")),
    };
    let count = names.len();
    Raised::type_error(&format!("{function}() missing {count} required positional arguments: {listed}"))
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
