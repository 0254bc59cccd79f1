//! Shell classes: Python classes over Python classes, each instance with a native core (K2).

use super::{Class, FunctionDefinition, Native, add_method};
use crate::methods::{Arguments, Receiver, conjure, guard, guard_object, with_tuple_and_dict};
use crate::names::names;
use crate::object::{Any, Object, Raised, Result, Slot};
use crate::value::{dict, text, tuple};
use crate::version::member_offset;
use pyo3_ffi as ffi;
use std::ffi::{CStr, c_int};

/// A class made by `type` whose instances own a native core in a hidden slot (K2).
pub struct ShellClass {
    class: Class,
    core_offset: usize,
}

/// What a shell class is made of.
pub struct ShellDefinition {
    pub name: &'static CStr,
    pub bases: Vec<Object>,
    pub doc: &'static str,
    pub methods: Vec<ffi::PyMethodDef>,
    pub attributes: Vec<ffi::PyGetSetDef>,
    /// `__new__`, called with the class and the caller's arguments; `None` for classes that only Rust creates.
    pub new: Option<ffi::PyMethodDef>,
}

impl ShellClass {
    /// A class over this one, and over other bases behind it, whose instances keep this class's core.
    pub fn derive(&self, definition: ShellDefinition) -> Result<ShellClass> {
        let namespace = namespace_of(&definition)?;
        namespace.dict_set(&names().__slots__, &*tuple(&[])?)?;
        let mut bases = vec![self.class.as_any()];
        bases.extend(definition.bases.iter().map(|base| &**base));
        let class = make_class(&definition, &bases, &namespace)?;
        let shell = ShellClass { class: Class(class.into_ptr().cast()), core_offset: self.core_offset };
        shell.add_members(definition.methods, definition.attributes, definition.new)?;
        Ok(shell)
    }

    pub fn create(definition: ShellDefinition) -> Result<ShellClass> {
        let namespace = namespace_of(&definition)?;
        let mut slots = vec![names()._ioxide_core.clone()];
        let bases: Vec<&Any> = definition.bases.iter().map(|base| &**base).collect();
        for (name, offset) in [("__dict__", dict_offset as fn(&Any) -> bool), ("__weakref__", weak_offset)] {
            if !bases.iter().any(|base| offset(base)) {
                slots.push(text(name)?);
            }
        }
        let slots: Vec<&Any> = slots.iter().map(|slot| &**slot).collect();
        namespace.dict_set(&names().__slots__, &*tuple(&slots)?)?;
        let class = make_class(&definition, &bases, &namespace)?;
        let descriptor = class.get_attribute(&names()._ioxide_core)?;
        let core_offset = member_offset(&descriptor)
            .ok_or_else(|| Raised::runtime_error("the class has no slot for its core"))?;
        class.delete_attribute(&names()._ioxide_core)?;
        let shell = ShellClass { class: Class(class.into_ptr().cast()), core_offset };
        shell.add_members(definition.methods, definition.attributes, definition.new)?;
        Ok(shell)
    }

    fn add_members(
        &self,
        methods: Vec<ffi::PyMethodDef>,
        attributes: Vec<ffi::PyGetSetDef>,
        new: Option<ffi::PyMethodDef>,
    ) -> Result<()> {
        let class = self.class.as_any();
        for method in methods {
            add_method(class, method)?;
        }
        for attribute in Box::leak(attributes.into_boxed_slice()) {
            // SAFETY: O1; the definition lives forever (K1).
            unsafe {
                let descriptor = Object::from_owned(ffi::PyDescr_NewGetSet(self.class.0, attribute))?;
                let name = CStr::from_ptr(attribute.name).to_string_lossy();
                class.set_attribute(&*crate::names::intern(&name)?, &descriptor)?;
            }
        }
        if let Some(new) = new {
            let function = FunctionDefinition::new(new).bind(class)?;
            // SAFETY: the interpreter never frees `staticmethod`.
            let wrapper = unsafe { Any::from_ptr((&raw mut ffi::PyStaticMethod_Type).cast()) };
            class.set_attribute(&*crate::names::intern("__new__")?, &*wrapper.call1(&function)?)?;
        }
        Ok(())
    }

    /// Calls of exactly this class go to these functions without looking `__new__` and `__init__` up, which do the same.
    /// The interpreter itself takes them away when somebody assigns to either, and gives derived classes its own.
    pub fn constructed_by<T, N, I>(&self, _new: N, _initialize: I)
    where
        T: Receiver,
        N: Fn(&Any) -> Result<Object> + Copy + 'static,
        I: Fn(&T, Arguments<'_>) -> Result<()> + Copy + 'static,
    {
        // SAFETY: O1; a heap type (K1); the signatures of newfunc and initproc.
        unsafe {
            (*self.class.0).tp_new = Some(entry_new::<N>);
            (*self.class.0).tp_init = Some(entry_init::<T, I>);
        }
    }

    pub fn class(&self) -> &Class {
        &self.class
    }

    /// The slot of the core in a shell.
    ///
    /// # Safety
    /// `shell` is an instance of this class or of a class derived from it.
    #[inline(always)]
    unsafe fn core_slot<'a>(&self, shell: &'a Any) -> &'a Slot {
        // SAFETY: the caller's promise; the offset is the descriptor's (K2).
        unsafe { &*shell.as_ptr().cast::<u8>().add(self.core_offset).cast::<Slot>() }
    }

    /// The core of a shell, `None` where the shell was never given one or the collector took it.
    ///
    /// # Safety
    /// `shell` is an instance of this class or of a class derived from it, and `T` is its core's type.
    #[inline(always)]
    pub unsafe fn core<'a, T: Native>(&self, shell: &'a Any) -> Option<&'a T> {
        // SAFETY: the caller's promise, and K2.
        unsafe { self.core_slot(shell).get().map(|core| &*core.as_ptr().cast::<T>()) }
    }

    /// Gives its core to an instance that the base's own `__new__` has made.
    pub fn adopt(&self, shell: Object, core: Object) -> Result<Object> {
        if !shell.is_subtype_of(self.class.as_any()) {
            return Err(Raised::type_error("the class is not derived from the one whose __new__ is called"));
        }
        // SAFETY: an instance of this class, checked above.
        unsafe { self.core_slot(&shell).set(core) };
        Ok(shell)
    }

    /// A new instance of `class` (this one or a derived one) with its core, by `object.__new__`.
    pub fn instantiate(&self, class: &Any, core: Object) -> Result<Object> {
        // SAFETY: O1; `class` derives from this class (checked), so it is allocated as a Python class.
        unsafe {
            let class = class.as_ptr().cast::<ffi::PyTypeObject>();
            if ffi::PyType_IsSubtype(class, self.class.0) == 0 {
                return Err(Raised::type_error(
                    "the class is not derived from the one whose __new__ is called",
                ));
            }
            let Some(alloc) = (*class).tp_alloc else {
                return Err(Raised::type_error("class cannot be instantiated"));
            };
            let shell = Object::from_owned(alloc(class, 0))?;
            self.core_slot(&shell).set(core);
            Ok(shell)
        }
    }
}

unsafe extern "C" fn entry_new<N: Fn(&Any) -> Result<Object> + Copy>(
    class: *mut ffi::PyTypeObject,
    _arguments: *mut ffi::PyObject,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live class; N is zero-sized.
    guard_object(|| unsafe { conjure::<N>()(Any::from_ptr(class.cast())) })
}

unsafe extern "C" fn entry_init<T: Receiver, I: Fn(&T, Arguments<'_>) -> Result<()> + Copy>(
    this: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: CPython's convention for tp_init, with an instance that `entry_new` has made.
    guard(-1, || unsafe {
        let this = T::receive(this)?;
        with_tuple_and_dict(arguments, keywords, |arguments| conjure::<I>()(this, arguments)).map(|()| 0)
    })
}

fn namespace_of(definition: &ShellDefinition) -> Result<Object> {
    let namespace = dict()?;
    namespace.dict_set(&names().__module__, &*text("ioxide")?)?;
    namespace.dict_set(&names().__doc__, &*text(definition.doc)?)?;
    Ok(namespace)
}

fn make_class(definition: &ShellDefinition, bases: &[&Any], namespace: &Any) -> Result<Object> {
    let name = text(&definition.name.to_string_lossy())?;
    // SAFETY: the interpreter never frees `type`.
    let metaclass = unsafe { Any::from_ptr((&raw mut ffi::PyType_Type).cast()) };
    let metaclass = match bases.first() {
        // The metaclass of the base (ABCMeta, say) makes the class.
        Some(base) if !base.get_type().is(metaclass) => base.get_type(),
        _ => metaclass,
    };
    metaclass.call(&[&*name, &*tuple(bases)?, namespace])
}

fn dict_offset(class: &Any) -> bool {
    // SAFETY: a class, by the caller.
    unsafe { (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_dictoffset != 0 }
}

fn weak_offset(class: &Any) -> bool {
    // SAFETY: a class, by the caller.
    unsafe { (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_weaklistoffset != 0 }
}
