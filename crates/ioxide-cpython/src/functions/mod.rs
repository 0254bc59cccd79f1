//! `Function`: what a Python `def` or `async def` of asyncio becomes when it is written in Rust.
//!
//! Built-in functions and method descriptors are told from Python's functions everywhere: `inspect.iscoroutinefunction`,
//! `unittest.mock` and descriptors treat them differently. A `Function` has what Python looks at: a code object with the
//! parameters of the declared signature and the flag of a coroutine function, it binds, and it takes attributes.
//!
//! Leaves to others: what the function does (`methods` makes its entry point), coroutine objects (`coroutine`), methods that are
//! bound often (`bound`).
//!
//! Invariants:
//! N1. The definition lives forever; its entry point has the convention METH_FASTCALL | METH_KEYWORDS.
//! N2. The function of a class calls its entry point only with an instance of that class as `self`.

#[cfg(not(Py_3_14))]
mod bound;

use crate::call::import;
use crate::gc::{Traverse, Visitor};
use crate::methods::{
    Arguments, Definition, Receiver, Returned, conjure, definition, getter, guard_object, method, method0,
};
use crate::names::intern;
use crate::object::{Any, Object, Raised, Result, Slot};
use crate::once::Once;
use crate::types::{Class, Native, NativeClass, allocate, head};
use crate::value::{dict, text};
use pyo3_ffi as ffi;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

/// Bits of ours in `ml_flags`, which never reach CPython.
const FUNCTION: c_int = 1 << 24;
const COROUTINE: c_int = 1 << 25;
const NO_ARGUMENTS: c_int = 1 << 26;

/// A Python function whose body is written in Rust.
#[repr(C)]
pub struct Function {
    head: Any,
    vectorcall: ffi::vectorcallfunc,
    weak_references: Cell<*mut ffi::PyObject>,
    attributes: Slot,
    name: Slot,
    qualified_name: Slot,
    doc: Slot,
    /// The class of `self`; null for functions of a module.
    owner: Slot,
    /// A Python function with the same signature, made when somebody asks for the code object.
    prototype: Slot,
    definition: *const Definition,
    /// Whether `async with` binds it.
    #[cfg(not(Py_3_14))]
    is_bound_often: bool,
}

static FUNCTION_CLASS: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Function {
    fn class() -> &'static Once<Class> {
        &FUNCTION_CLASS
    }
}

pub(crate) fn initialize() -> Result<()> {
    #[cfg(not(Py_3_14))]
    bound::initialize()?;
    FUNCTION_CLASS.set(
        NativeClass::new::<Function>(c"ioxide.Function")
            .not_instantiable()
            .collected::<Function>()
            .dropped::<Function>()
            .function_like(vec![
                member(c"__vectorcalloffset__", std::mem::offset_of!(Function, vectorcall), true),
                member(c"__weaklistoffset__", std::mem::offset_of!(Function, weak_references), true),
                member(c"__dictoffset__", std::mem::offset_of!(Function, attributes), true),
                member(c"__name__", std::mem::offset_of!(Function, name), false),
                member(c"__qualname__", std::mem::offset_of!(Function, qualified_name), false),
                member(c"__doc__", std::mem::offset_of!(Function, doc), false),
            ])
            .repr::<Function, _>(Function::repr)
            .methods(vec![method0(c"__reduce__", |this: &Function| this.qualified_name.get_or_none())])
            .attributes(vec![
                ffi::PyGetSetDef {
                    name: c"__dict__".as_ptr(),
                    get: Some(ffi::PyObject_GenericGetDict),
                    set: Some(ffi::PyObject_GenericSetDict),
                    ..Default::default()
                },
                getter(c"__code__", |this: &Function| this.prototype()?.get_attribute(&*intern("__code__")?)),
                getter(c"__defaults__", |this: &Function| {
                    this.prototype()?.get_attribute(&*intern("__defaults__")?)
                }),
                getter(c"__kwdefaults__", |this: &Function| {
                    this.prototype()?.get_attribute(&*intern("__kwdefaults__")?)
                }),
                getter(c"__annotations__", |this: &Function| {
                    this.prototype()?.get_attribute(&*intern("__annotations__")?)
                }),
            ])
            .create(&[])?,
    );
    show_call()
}

/// `function.__call__` is the function: unittest.mock asks it for the signature.
fn show_call() -> Result<()> {
    let class = Function::class().get();
    let call = Box::leak(Box::new(getter(c"__call__", |this: &Function| this.head.to_object())));
    // SAFETY: O1; a heap type that nobody has seen yet. Its dictionary is written without the attribute's setter, which
    // would replace tp_call as well; the definition lives forever.
    unsafe {
        let descriptor = Object::from_owned(ffi::PyDescr_NewGetSet(class.as_type_ptr(), call))?;
        Any::from_ptr((*class.as_type_ptr()).tp_dict).dict_set(&*intern("__call__")?, &descriptor)?;
        ffi::PyType_Modified(class.as_type_ptr());
    }
    Ok(())
}

fn member(name: &'static CStr, offset: usize, hidden: bool) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: if hidden { ffi::Py_T_PYSSIZET } else { ffi::Py_T_OBJECT_EX },
        offset: offset as _,
        flags: if hidden { ffi::Py_READONLY } else { 0 },
        doc: std::ptr::null(),
    }
}

/// A method that is an `async def` in asyncio: what it returns is awaited. Goes where `method` goes.
pub fn coroutine_method<T: Receiver, R: Returned, F: Fn(&T, Arguments<'_>) -> R + Copy + 'static>(
    name: &'static CStr,
    function: F,
) -> Definition {
    flagged(method(name, function), FUNCTION | COROUTINE)
}

/// As `coroutine_method`, for methods without arguments.
pub fn coroutine_method0<T: Receiver, R: Returned, F: Fn(&T) -> R + Copy + 'static>(
    name: &'static CStr,
    _function: F,
) -> Definition {
    let pointer = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: entry_without_arguments::<T, R, F> };
    let definition = definition(name, pointer, ffi::METH_FASTCALL | ffi::METH_KEYWORDS);
    flagged(definition, FUNCTION | COROUTINE | NO_ARGUMENTS)
}

/// A function of a module: an `async def` in asyncio.
pub fn coroutine_function<R: Returned, F: Fn(Arguments<'_>) -> R + Copy + 'static>(
    name: &'static CStr,
    function_: F,
) -> Definition {
    flagged(function(name, function_), COROUTINE)
}

/// A function of a module: a plain `def` in asyncio.
pub fn function<R: Returned, F: Fn(Arguments<'_>) -> R + Copy + 'static>(
    name: &'static CStr,
    _function: F,
) -> Definition {
    let pointer = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: entry_of_function::<R, F> };
    flagged(definition(name, pointer, ffi::METH_FASTCALL | ffi::METH_KEYWORDS), FUNCTION)
}

fn flagged(mut definition: Definition, flags: c_int) -> Definition {
    definition.ml_flags |= flags;
    definition
}

/// Whether a definition is for a `Function` and not for CPython's own descriptors.
pub(crate) fn is_function(definition: &Definition) -> bool {
    definition.ml_flags & FUNCTION != 0
}

/// The functions among a class's methods, which are added when the class exists.
pub(crate) fn split_functions(methods: &mut Vec<Definition>) -> Vec<Definition> {
    let (functions, others) = std::mem::take(methods).into_iter().partition(is_function);
    *methods = others;
    functions
}

unsafe extern "C" fn entry_of_function<R: Returned, F: Fn(Arguments<'_>) -> R + Copy>(
    _this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the vectorcall convention, by `call`.
    guard_object(|| unsafe {
        conjure::<F>()(Arguments::from_vectorcall(arguments, count as usize, names)).into_result()
    })
}

unsafe extern "C" fn entry_without_arguments<T: Receiver, R: Returned, F: Fn(&T) -> R + Copy>(
    this: *mut ffi::PyObject,
    _arguments: *const *mut ffi::PyObject,
    _count: ffi::Py_ssize_t,
    _names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: an instance of the class, by `call` (N2).
    guard_object(|| unsafe { conjure::<F>()(T::receive(this)?).into_result() })
}

/// The vectorcall of every `Function`.
unsafe extern "C" fn call(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live function and its arguments by the vectorcall convention; N1, N2.
    unsafe {
        let function = &*this.cast::<Function>();
        let count = ffi::PyVectorcall_NARGS(count);
        let Some(owner) = function.owner.get() else {
            return function.enter(this, arguments, count, names);
        };
        if count == 0 || !Any::from_ptr(*arguments).is_subtype_of(owner) {
            return guard_object(|| Err(function.not_applicable(owner, count)));
        }
        function.enter(*arguments, arguments.add(1), count - 1, names)
    }
}

impl Function {
    /// Calls the entry point with `count` arguments behind `this`.
    ///
    /// # Safety
    /// The vectorcall convention; N2.
    #[inline(always)]
    unsafe fn enter(
        &self,
        this: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        count: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject {
        // SAFETY: N1 and the caller's promise.
        unsafe {
            let definition = &*self.definition;
            if definition.ml_flags & NO_ARGUMENTS != 0 && (count > 0 || !names.is_null()) {
                return guard_object(
                    || Err(self.takes_no_arguments(count + 1, Any::from_ptr_or_none(names))),
                );
            }
            (definition.ml_meth.PyCFunctionFastWithKeywords)(this, arguments, count, names)
        }
    }

    /// A function of `definition`, of `owner` or of the module.
    fn create(definition: Definition, owner: Option<&Any>) -> Result<Object> {
        let definition: &'static Definition = Box::leak(Box::new(definition));
        // SAFETY: N1; names and docstrings are literals.
        let (name, doc) = unsafe {
            let doc = (!definition.ml_doc.is_null()).then(|| CStr::from_ptr(definition.ml_doc));
            (CStr::from_ptr(definition.ml_name).to_string_lossy(), doc)
        };
        let qualified_name = match owner {
            Some(owner) => format!("{}.{name}", crate::exception::type_name_of_class(owner)),
            None => name.to_string(),
        };
        let doc = match doc.map(|doc| doc.to_string_lossy()) {
            Some(doc) => text(doc.split_once("\n--\n\n").map_or(&*doc, |(_, rest)| rest))?,
            None => crate::none_object(),
        };
        allocate(Function {
            head: head(),
            vectorcall: call,
            weak_references: Cell::new(std::ptr::null_mut()),
            attributes: Slot::empty(),
            name: Slot::filled(intern(&name)?),
            qualified_name: Slot::filled(text(&qualified_name)?),
            doc: Slot::filled(doc),
            owner: owner.map_or_else(Slot::empty, |owner| Slot::filled(owner.to_object())),
            prototype: Slot::empty(),
            definition,
            #[cfg(not(Py_3_14))]
            is_bound_often: owner.is_some() && matches!(&*name, "__aenter__" | "__aexit__"),
        })
    }

    /// A Python function of the same signature, which is never called.
    fn prototype(&self) -> Result<Object> {
        if let Some(prototype) = self.prototype.get_object() {
            return Ok(prototype);
        }
        let (name, signature, flags) = self.declaration();
        let keyword = if flags & COROUTINE != 0 { "async def" } else { "def" };
        let source = text(&format!("{keyword} {name}({signature}): pass"))?;
        let namespace = dict()?;
        namespace.dict_set(&*intern("__name__")?, &*text("ioxide")?)?;
        let builtins = import(c"builtins")?;
        let code = builtins.get_attribute_str(c"compile")?.call(&[
            &*source,
            &*text("<ioxide>")?,
            &*text("exec")?,
        ])?;
        builtins.get_attribute_str(c"exec")?.call(&[&*code, &*namespace])?;
        let prototype = namespace.get_item(&*intern(&name)?)?;
        self.prototype.set(prototype.clone());
        Ok(prototype)
    }

    /// The name, the parameters as Python writes them, and the flags of the definition.
    fn declaration(&self) -> (String, String, c_int) {
        // SAFETY: N1.
        unsafe {
            let definition = &*self.definition;
            let name = CStr::from_ptr(definition.ml_name).to_string_lossy().into_owned();
            let doc = match definition.ml_doc.is_null() {
                true => std::borrow::Cow::from(""),
                false => CStr::from_ptr(definition.ml_doc).to_string_lossy(),
            };
            let declared = doc
                .split_once("\n--\n\n")
                .and_then(|(line, _)| line.strip_prefix(&*name)?.strip_prefix('(')?.strip_suffix(')'));
            let own = if self.owner.is_empty() { "*args, **kwargs" } else { "self, *args, **kwargs" };
            let signature =
                declared.unwrap_or(own).replacen("$self, /", "$self", 1).replacen("$self", "self", 1);
            (name, signature, definition.ml_flags)
        }
    }

    #[cold]
    fn not_applicable(&self, owner: &Any, count: ffi::Py_ssize_t) -> Raised {
        let (name, ..) = self.declaration();
        let class = crate::exception::type_name_of_class(owner);
        Raised::type_error(&match count {
            0 => format!("unbound method {class}.{name}() needs an argument"),
            _ => format!("function '{name}' of class '{class}' needs an instance of it"),
        })
    }

    #[cold]
    fn takes_no_arguments(&self, count: ffi::Py_ssize_t, names: Option<&Any>) -> Raised {
        let qualified_name = self.qualified_name.get_or_none().to_text();
        match (qualified_name, names.map_or(&[] as &[&Any], Any::tuple_items)) {
            (Ok(name), [first, ..]) => crate::methods::unexpected_keyword(name.as_str(), first),
            (Ok(name), []) => Raised::type_error(&format!(
                "{}() takes 1 positional argument but {count} were given",
                name.as_str()
            )),
            (Err(raised), _) => raised,
        }
    }

    fn repr(&self) -> Result<Object> {
        let name = self.qualified_name.get_or_none().str()?.to_text()?.into_string();
        text(&format!("<function {name} at {:p}>", self))
    }
}

impl Traverse for Function {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.attributes.clear();
        self.prototype.clear();
    }
}

impl Function {
    fn slots(&self) -> [&Slot; 6] {
        [&self.attributes, &self.name, &self.qualified_name, &self.doc, &self.owner, &self.prototype]
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        if !self.weak_references.get().is_null() {
            // SAFETY: O1; the object is dying and its memory still whole.
            unsafe { ffi::PyObject_ClearWeakRefs((&raw mut *self).cast()) }
        }
    }
}

unsafe extern "C" fn bind(
    this: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _class: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes live objects, or null (or None) for an access through the class.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            return ffi::Py_NewRef(this);
        }
        #[cfg(not(Py_3_14))]
        {
            let function = &*this.cast::<Function>();
            if function.is_bound_often && Any::from_ptr(instance).is_subtype_of(&function.owner.get_or_none())
            {
                return guard_object(|| bound::bind(function, Any::from_ptr(instance)));
            }
        }
        PyMethod_New(this, instance)
    }
}

unsafe extern "C" {
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

impl NativeClass {
    /// With these members.
    fn members(self, mut members: Vec<ffi::PyMemberDef>) -> NativeClass {
        // SAFETY: a zero entry ends an array of members.
        members.push(unsafe { std::mem::zeroed() });
        // SAFETY: an array that ends with a zero entry and lives forever.
        unsafe { self.slot(ffi::Py_tp_members, Box::leak(members.into_boxed_slice()).as_mut_ptr().cast()) }
    }

    /// Called by vectorcall, bound as a method by attribute access, with these members.
    fn function_like(mut self, members: Vec<ffi::PyMemberDef>) -> NativeClass {
        // The interpreter specialises the loading of a method only where its class cannot change.
        self.add_flags(
            ffi::Py_TPFLAGS_HAVE_VECTORCALL
                | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
                | ffi::Py_TPFLAGS_IMMUTABLETYPE,
        );
        // SAFETY: the signatures of ternaryfunc and descrgetfunc.
        unsafe {
            self.members(members)
                .slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void)
                .slot(ffi::Py_tp_descr_get, bind as *mut c_void)
        }
    }
}

/// Adds a function to a class.
pub(crate) fn add_to_class(class: &Any, definition: Definition) -> Result<()> {
    // SAFETY: names are literals.
    let name = unsafe { CStr::from_ptr(definition.ml_name) }.to_string_lossy();
    let name = intern(&name)?;
    class.set_attribute(&name, &*Function::create(definition, Some(class))?)
}

/// A function of a module, as an object.
pub fn create_function(definition: Definition) -> Result<Object> {
    Function::create(definition, None)
}
