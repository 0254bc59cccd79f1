//! Native classes: the slots of a class whose instances are a Rust struct, and their C entry points.
//!
//! Leaves to others: methods and attributes (`methods`), free lists (`freelist`), what a coroutine does (`coroutine`).

use super::{Class, Native};
use crate::functions::{add_to_class, split_functions};
use crate::gc::{Traverse, Visitor};
use crate::methods::{Arguments, Receiver, conjure, guard, guard_object, with_tuple_and_dict};
use crate::object::{Any, Object, Raised, Result};
use crate::value::tuple;
use crate::version::BASE_TRAVERSE_SKIPS_TYPE;
use pyo3_ffi as ffi;
use std::ffi::{CStr, c_int, c_void};

/// Collects the slots of a native class.
pub struct NativeClass {
    name: &'static CStr,
    size: usize,
    item_size: c_int,
    flags: u64,
    slots: Vec<ffi::PyType_Slot>,
    functions: Vec<ffi::PyMethodDef>,
}

impl NativeClass {
    /// `name` is the full name, `ioxide.Future`.
    pub fn new<T: Native>(name: &'static CStr) -> NativeClass {
        let flags = u64::from(ffi::Py_TPFLAGS_DEFAULT as u32);
        NativeClass {
            name,
            size: size_of::<T>(),
            item_size: 0,
            flags,
            slots: Vec::new(),
            functions: Vec::new(),
        }
    }

    /// The class of a core: made by Rust only, seen by the collector, and with nothing that Python could call.
    pub fn core<T: Native + Traverse>(name: &'static CStr) -> Result<Class> {
        NativeClass::new::<T>(name).not_instantiable().collected::<T>().dropped::<T>().create(&[])
    }

    /// # Safety
    /// `function` has the signature that CPython wants of the slot.
    pub(crate) unsafe fn slot(mut self, slot: c_int, function: *mut c_void) -> NativeClass {
        self.slots.push(ffi::PyType_Slot { slot, pfunc: function });
        self
    }

    pub(crate) fn add_flags(&mut self, flags: u64) {
        self.flags |= flags;
    }

    /// Python classes may derive from it.
    pub fn subclassable(mut self) -> NativeClass {
        self.flags |= ffi::Py_TPFLAGS_BASETYPE;
        self
    }

    /// Instances come from Rust only.
    pub fn not_instantiable(mut self) -> NativeClass {
        self.flags |= ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        self
    }

    pub fn doc(self, doc: &'static CStr) -> NativeClass {
        // SAFETY: a C string.
        unsafe { self.slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()) }
    }

    pub fn methods(mut self, mut methods: Vec<ffi::PyMethodDef>) -> NativeClass {
        self.functions.extend(split_functions(&mut methods));
        methods.push(ffi::PyMethodDef::zeroed());
        // SAFETY: an array that ends with a zero entry and lives forever (K1).
        unsafe { self.slot(ffi::Py_tp_methods, Box::leak(methods.into_boxed_slice()).as_mut_ptr().cast()) }
    }

    pub fn attributes(self, mut attributes: Vec<ffi::PyGetSetDef>) -> NativeClass {
        attributes.push(ffi::PyGetSetDef::default());
        // SAFETY: an array that ends with a zero entry and lives forever (K1).
        unsafe { self.slot(ffi::Py_tp_getset, Box::leak(attributes.into_boxed_slice()).as_mut_ptr().cast()) }
    }

    /// `__init__`
    pub fn init<T, F>(self, _function: F) -> NativeClass
    where
        T: Native,
        F: Fn(&T, Arguments<'_>) -> Result<()> + Copy + 'static,
    {
        unsafe extern "C" fn entry<T: Native, F: Fn(&T, Arguments<'_>) -> Result<()> + Copy>(
            this: *mut ffi::PyObject,
            arguments: *mut ffi::PyObject,
            keywords: *mut ffi::PyObject,
        ) -> c_int {
            // SAFETY: CPython's convention for tp_init; F is zero-sized, as `conjure` checks.
            guard(-1, || unsafe {
                let this = T::receive(this)?;
                with_tuple_and_dict(arguments, keywords, |arguments| conjure::<F>()(this, arguments))
                    .map(|()| 0)
            })
        }
        // SAFETY: the signature of initproc.
        unsafe { self.slot(ffi::Py_tp_init, entry::<T, F> as *mut c_void) }
    }

    /// `__repr__`
    pub fn repr<T: Native, F: Fn(&T) -> Result<Object> + Copy + 'static>(self, _function: F) -> NativeClass {
        // SAFETY: the signature of reprfunc.
        unsafe { self.slot(ffi::Py_tp_repr, entry_unary::<T, F> as *mut c_void) }
    }

    /// `__await__` and `__iter__`
    pub fn awaitable<T: Native, F: Fn(&T) -> Result<Object> + Copy + 'static>(
        self,
        _function: F,
    ) -> NativeClass {
        // SAFETY: the signature of unaryfunc and getiterfunc.
        unsafe {
            self.slot(ffi::Py_am_await, entry_unary::<T, F> as *mut c_void)
                .slot(ffi::Py_tp_iter, entry_unary::<T, F> as *mut c_void)
        }
    }

    /// `__iter__`, which gives the object itself, and `__next__`, which ends the iteration by `None`.
    pub fn iterator<T, F>(self, _function: F) -> NativeClass
    where
        T: Native,
        F: Fn(&T) -> Result<Option<Object>> + Copy + 'static,
    {
        unsafe extern "C" fn entry<T: Native, F: Fn(&T) -> Result<Option<Object>> + Copy>(
            this: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            guard(std::ptr::null_mut(), || {
                // SAFETY: CPython passes a live instance of the class. Null without an exception is the end.
                let next = conjure::<F>()(unsafe { T::receive(this) }?)?;
                Ok(next.map_or(std::ptr::null_mut(), Object::into_ptr))
            })
        }
        // SAFETY: the signatures of getiterfunc and iternextfunc.
        unsafe {
            self.slot(ffi::Py_tp_iter, entry_itself as *mut c_void)
                .slot(ffi::Py_tp_iternext, entry::<T, F> as *mut c_void)
        }
    }

    /// `__aiter__`, which gives the object itself, and `__anext__`.
    pub fn async_iterator<T: Native, F: Fn(&T) -> Result<Object> + Copy + 'static>(
        self,
        _function: F,
    ) -> NativeClass {
        // SAFETY: the signatures of unaryfunc.
        unsafe {
            self.slot(ffi::Py_am_aiter, entry_itself as *mut c_void)
                .slot(ffi::Py_am_anext, entry_unary::<T, F> as *mut c_void)
        }
    }

    /// An awaitable that is its own iterator.
    pub fn awaits_itself<T: Native>(self) -> NativeClass {
        // SAFETY: the signature of unaryfunc and getiterfunc.
        unsafe {
            self.slot(ffi::Py_am_await, entry_itself as *mut c_void)
                .slot(ffi::Py_tp_iter, entry_itself as *mut c_void)
        }
    }

    /// `send` without the cost of StopIteration, and `__next__` with it.
    pub fn sendable<T, F>(self, _function: F) -> NativeClass
    where
        T: Native,
        F: Fn(&T, &Any) -> Result<crate::coroutine::Step> + Copy + 'static,
    {
        use crate::coroutine::{entry_next, entry_send};
        // SAFETY: the signatures of sendfunc and iternextfunc.
        unsafe {
            self.slot(ffi::Py_am_send, entry_send::<T, F> as *mut c_void)
                .slot(ffi::Py_tp_iternext, entry_next::<T, F> as *mut c_void)
        }
    }

    /// Calls of the instance.
    pub fn callable<T, F>(self, _function: F) -> NativeClass
    where
        T: Native,
        F: Fn(&T, Arguments<'_>) -> Result<Object> + Copy + 'static,
    {
        unsafe extern "C" fn entry<T: Native, F: Fn(&T, Arguments<'_>) -> Result<Object> + Copy>(
            this: *mut ffi::PyObject,
            arguments: *mut ffi::PyObject,
            keywords: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            // SAFETY: CPython's convention for tp_call.
            guard_object(|| unsafe {
                let this = T::receive(this)?;
                with_tuple_and_dict(arguments, keywords, |arguments| conjure::<F>()(this, arguments))
            })
        }
        // SAFETY: the signature of ternaryfunc.
        unsafe { self.slot(ffi::Py_tp_call, entry::<T, F> as *mut c_void) }
    }

    /// Takes part in garbage collection; the base's references, if there is a native base, are visited by it.
    pub fn collected<T: Native + Traverse>(mut self) -> NativeClass {
        self.flags |= ffi::Py_TPFLAGS_HAVE_GC;
        // SAFETY: the signatures of traverseproc and inquiry.
        unsafe {
            self.slot(ffi::Py_tp_traverse, entry_traverse::<T> as *mut c_void)
                .slot(ffi::Py_tp_clear, entry_clear::<T> as *mut c_void)
        }
    }

    /// Takes part in garbage collection with the base's references and those of `T`.
    pub fn collected_over_base<T: Native + Traverse>(mut self) -> NativeClass {
        self.flags |= ffi::Py_TPFLAGS_HAVE_GC;
        // SAFETY: the signatures of traverseproc and inquiry.
        unsafe {
            self.slot(ffi::Py_tp_traverse, entry_traverse_over_base::<T> as *mut c_void)
                .slot(ffi::Py_tp_clear, entry_clear_over_base::<T> as *mut c_void)
        }
    }

    /// Takes part in garbage collection through the traverse and clear of `base`, the first base.
    pub fn collected_by_base(mut self, base: &Any) -> NativeClass {
        if !BASE_TRAVERSE_SKIPS_TYPE {
            // `type` inherits traverse, clear and the flag together.
            return self;
        }
        self.flags |= ffi::Py_TPFLAGS_HAVE_GC;
        // SAFETY: a class; the signatures of traverseproc and inquiry.
        unsafe {
            let clear = (*base.as_ptr().cast::<ffi::PyTypeObject>()).tp_clear;
            let clear = clear.map_or(std::ptr::null_mut(), |clear| clear as *mut c_void);
            self.slot(ffi::Py_tp_traverse, entry_traverse_base as *mut c_void).slot(ffi::Py_tp_clear, clear)
        }
    }

    /// Instances have more bytes behind the struct, as many as their `ob_size` says; `deallocate` frees them.
    pub(crate) fn variable_size(mut self, deallocate: ffi::destructor) -> NativeClass {
        self.item_size = 1;
        // SAFETY: the signature of destructor.
        unsafe { self.slot(ffi::Py_tp_dealloc, deallocate as *mut c_void) }
    }

    /// Drops the struct in place and frees the memory; for classes without a base.
    pub fn dropped<T: Native>(self) -> NativeClass {
        // SAFETY: the signature of destructor.
        unsafe { self.slot(ffi::Py_tp_dealloc, entry_drop::<T> as *mut c_void) }
    }

    /// Called once before an instance dies (`__del__`).
    pub fn finalized<T: Native, F: Fn(&T) + Copy + 'static>(self, _function: F) -> NativeClass {
        unsafe extern "C" fn entry<T: Native, F: Fn(&T) + Copy>(this: *mut ffi::PyObject) {
            // The pending exception belongs to whoever drops the object.
            let pending = crate::exception::take();
            guard((), || {
                // SAFETY: a live instance of the class.
                conjure::<F>()(unsafe { T::receive(this) }?);
                Ok(())
            });
            if let Some(pending) = pending {
                crate::exception::restore(pending);
            }
        }
        // SAFETY: the signature of destructor.
        unsafe { self.slot(ffi::Py_tp_finalize, entry::<T, F> as *mut c_void) }
    }

    /// Called once before an instance dies, and then the finalizer of the base is.
    pub fn finalized_before_base<T: Native, F: Fn(&T) + Copy + 'static>(self, _function: F) -> NativeClass {
        unsafe extern "C" fn entry<T: Native, F: Fn(&T) + Copy>(this: *mut ffi::PyObject) {
            // SAFETY: a live instance of the class; the chain of bases ends at `object`, which has no finalizer.
            unsafe {
                conjure::<F>()(&*this.cast::<T>());
                let own: ffi::destructor = entry::<T, F>;
                let mut base = T::class().get().as_type_ptr();
                while !base.is_null() {
                    match (*base).tp_finalize {
                        Some(finalize) if !std::ptr::fn_addr_eq(finalize, own) => return finalize(this),
                        _ => base = (*base).tp_base,
                    }
                }
            }
        }
        // SAFETY: the signature of destructor.
        unsafe { self.slot(ffi::Py_tp_finalize, entry::<T, F> as *mut c_void) }
    }

    /// Creates the class over `bases` (object where there is none).
    pub fn create(mut self, bases: &[&Any]) -> Result<Class> {
        self.slots.push(ffi::PyType_Slot { slot: 0, pfunc: std::ptr::null_mut() });
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize: self.size as c_int,
            itemsize: self.item_size,
            flags: self.flags as u32 as _,
            slots: self.slots.as_mut_ptr(),
        };
        // SAFETY: O1; the slots were checked by the methods that added them.
        unsafe {
            let class = if bases.is_empty() {
                Object::from_owned(ffi::PyType_FromSpec(&mut spec))?
            } else {
                let bases = tuple(bases)?;
                Object::from_owned(ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr()))?
            };
            for function in self.functions {
                add_to_class(&class, function)?;
            }
            Ok(Class(class.into_ptr().cast()))
        }
    }
}

unsafe extern "C" fn entry_itself(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: O1; a live object.
    unsafe { ffi::Py_NewRef(this) }
}

unsafe extern "C" fn entry_unary<T: Native, F: Fn(&T) -> Result<Object> + Copy>(
    this: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live instance of the class.
    guard_object(|| conjure::<F>()(unsafe { T::receive(this) }?))
}

unsafe extern "C" fn entry_traverse<T: Native + Traverse>(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the collector passes a live instance; nothing below runs Python.
    unsafe {
        let mut visitor = Visitor::new(visit, argument);
        visitor.object(Any::from_ptr(ffi::Py_TYPE(this).cast()));
        (*this.cast::<T>()).traverse(&mut visitor);
        visitor.status()
    }
}

/// Visits the class, then what the nearest base with another traverse visits.
unsafe extern "C" fn entry_traverse_base(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the collector passes a live instance; the chain of bases ends at `object`, which has no traverse.
    unsafe {
        let own: ffi::traverseproc = entry_traverse_base;
        let mut base = ffi::Py_TYPE(this);
        let mut passed_own = false;
        while !base.is_null() {
            match (*base).tp_traverse {
                Some(traverse) if std::ptr::fn_addr_eq(traverse, own) => passed_own = true,
                Some(traverse) if passed_own => {
                    let status = traverse(this, visit, argument);
                    return if status != 0 { status } else { visit(ffi::Py_TYPE(this).cast(), argument) };
                }
                _ => {}
            }
            base = (*base).tp_base;
        }
        0
    }
}

unsafe extern "C" fn entry_traverse_over_base<T: Native + Traverse>(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the collector passes a live instance; the base visits its own references and the class.
    unsafe {
        if let Some(traverse) = (*(*T::class().get().as_type_ptr()).tp_base).tp_traverse {
            let status = traverse(this, visit, argument);
            if status != 0 {
                return status;
            }
        }
        let mut visitor = Visitor::new(visit, argument);
        (*this.cast::<T>()).traverse(&mut visitor);
        visitor.status()
    }
}

unsafe extern "C" fn entry_clear_over_base<T: Native + Traverse>(this: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector passes a live instance.
    unsafe {
        if let Some(clear) = (*(*T::class().get().as_type_ptr()).tp_base).tp_clear {
            clear(this);
        }
        entry_clear::<T>(this)
    }
}

unsafe extern "C" fn entry_clear<T: Native + Traverse>(this: *mut ffi::PyObject) -> c_int {
    guard(-1, || {
        // SAFETY: the collector passes a live instance.
        unsafe { (*this.cast::<T>()).clear() };
        Ok(0)
    })
}

unsafe extern "C" fn entry_drop<T: Native>(this: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone; CPython's order for tp_dealloc of a heap type.
    unsafe {
        let class = ffi::Py_TYPE(this);
        if (*class).tp_finalize.is_some() && ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
            return;
        }
        if ffi::PyType_IS_GC(class) != 0 {
            ffi::PyObject_GC_UnTrack(this.cast());
        }
        guard((), || {
            std::ptr::drop_in_place(body_of::<T>(this));
            Ok(())
        });
        free_memory(this);
    }
}

/// The struct without the object head, which is not Rust's to drop: `Any` has no drop glue.
unsafe fn body_of<T>(this: *mut ffi::PyObject) -> *mut T {
    this.cast()
}

/// Frees the memory of an instance and its reference to the class.
///
/// # Safety
/// The instance is dead: no references, untracked, fields cleared.
pub unsafe fn free_memory(this: *mut ffi::PyObject) {
    // SAFETY: the caller's promise; tp_free belongs to the class that allocated it.
    unsafe {
        let class = ffi::Py_TYPE(this);
        if let Some(free) = (*class).tp_free {
            free(this.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

/// A fresh instance of a native class without a base: the head is CPython's, the rest is `value`'s.
///
/// `value` is a whole struct whose head is ignored; see [`head`].
pub fn allocate<T: Native>(value: T) -> Result<Object> {
    let class = T::class().get().as_type_ptr();
    // SAFETY: O1; tp_alloc gives zeroed memory of the class's size with a valid head, which is kept.
    unsafe {
        let Some(alloc) = (*class).tp_alloc else {
            return Err(Raised::type_error("class cannot be instantiated"));
        };
        let object = Object::from_owned(alloc(class, 0))?;
        let start = object.as_ptr().cast::<u8>();
        let head_size = size_of::<ffi::PyObject>();
        let value = std::mem::ManuallyDrop::new(value);
        std::ptr::copy_nonoverlapping(
            (&raw const value).cast::<u8>().add(head_size),
            start.add(head_size),
            size_of::<T>() - head_size,
        );
        Ok(object)
    }
}

/// A placeholder for the head of a struct that [`allocate`] moves into an object.
pub fn head() -> Any {
    // SAFETY: never used as an object: `allocate` skips these bytes, and zeroes are valid for them.
    unsafe { std::mem::zeroed() }
}
