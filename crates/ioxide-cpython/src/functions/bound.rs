//! `BoundMethod`: what `lock.__aenter__` gives where every `async with` makes two bound methods anew, which is before Python 3.14.
//!
//! CPython's own bound methods lost their free list in 3.9; two of them were a fifth of the time of `async with lock`. This one
//! has a free list and calls the function's entry point directly. Everything that is asked of it, but for its call, is answered
//! by the bound method that CPython would have made, its `__class__` among it; only `type()` tells the two apart.
//!
//! Invariants:
//! M1. The instance is one of the function's owner, which `bind` checks.

use super::{Function, member};
use crate::freelist::{FreeList, Recycled, clear_weak_references};
use crate::gc::{Traverse, Visitor};
use crate::methods::{guard, guard_object};
use crate::object::{Any, Object, Raised, Result, Slot};
use crate::once::Once;
use crate::types::{Class, Native, NativeClass};
use pyo3_ffi as ffi;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;

/// More would only be in use at once where so many tasks are inside an `async with`.
const KEPT: usize = 256;

#[repr(C)]
pub(super) struct BoundMethod {
    head: Any,
    vectorcall: Cell<Option<ffi::vectorcallfunc>>,
    weak_references: Cell<*mut ffi::PyObject>,
    function: Slot,
    instance: Slot,
}

static BOUND_METHOD: Once<Class> = Once::new();
static FREE: FreeList<BoundMethod> = FreeList::new(KEPT);

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for BoundMethod {
    fn class() -> &'static Once<Class> {
        &BOUND_METHOD
    }
}

impl Recycled for BoundMethod {
    fn free_list() -> &'static FreeList<BoundMethod> {
        &FREE
    }

    fn wants_finalizer(&self) -> bool {
        false
    }

    fn release(&self) {
        if !self.weak_references.get().is_null() {
            clear_weak_references(&self.head);
        }
        self.clear();
    }
}

impl Traverse for BoundMethod {
    fn traverse(&self, visitor: &mut Visitor) {
        [&self.function, &self.instance].traverse(visitor);
    }

    fn clear(&self) {
        self.function.clear();
        self.instance.clear();
    }
}

pub(super) fn initialize() -> Result<()> {
    let mut class = NativeClass::new::<BoundMethod>(c"ioxide.BoundMethod")
        .not_instantiable()
        .collected::<BoundMethod>()
        .recycled::<BoundMethod>();
    class.add_flags(ffi::Py_TPFLAGS_HAVE_VECTORCALL);
    let members = vec![
        member(c"__vectorcalloffset__", offset_of!(BoundMethod, vectorcall), true),
        member(c"__weaklistoffset__", offset_of!(BoundMethod, weak_references), true),
    ];
    // SAFETY: the signatures of ternaryfunc, getattrofunc, setattrofunc, richcmpfunc, hashfunc and reprfunc.
    let class = unsafe {
        class
            .members(members)
            .slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void)
            .slot(ffi::Py_tp_getattro, get_attribute as *mut c_void)
            .slot(ffi::Py_tp_setattro, set_attribute as *mut c_void)
            .slot(ffi::Py_tp_richcompare, compare as *mut c_void)
            .slot(ffi::Py_tp_hash, hash as *mut c_void)
            .slot(ffi::Py_tp_repr, repr as *mut c_void)
    };
    BOUND_METHOD.set(class.create(&[])?);
    Ok(())
}

/// `function` bound to an instance of its owner (M1).
pub(super) fn bind(function: &Function, instance: &Any) -> Result<Object> {
    let object = FREE.allocate()?;
    // SAFETY: just created, with this layout.
    let method = unsafe { &*object.as_ptr().cast::<BoundMethod>() };
    method.vectorcall.set(Some(call));
    method.function.initialize(Some(function.head.to_object()));
    method.instance.initialize(Some(instance.to_object()));
    Ok(object)
}

unsafe extern "C" fn call(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live method, whose fields are set while anybody can call it, and the arguments; M1.
    unsafe {
        let method = &*this.cast::<BoundMethod>();
        let function = &*method.function.as_ptr().cast::<Function>();
        function.enter(method.instance.as_ptr(), arguments, ffi::PyVectorcall_NARGS(count), names)
    }
}

/// The bound method that CPython would have made.
fn of_python(this: &Any) -> Result<Object> {
    // SAFETY: O1; an instance of the class, by the slots that call this.
    unsafe {
        let method = &*this.as_ptr().cast::<BoundMethod>();
        Object::from_owned(super::PyMethod_New(method.function.as_ptr(), method.instance.as_ptr()))
    }
}

unsafe extern "C" fn get_attribute(this: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython's convention for tp_getattro.
    guard_object(|| unsafe { of_python(Any::from_ptr(this))?.get_attribute(Any::from_ptr(name)) })
}

unsafe extern "C" fn set_attribute(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: CPython's convention for tp_setattro; O1. Null deletes.
    guard(-1, || unsafe {
        match ffi::PyObject_SetAttr(of_python(Any::from_ptr(this))?.as_ptr(), name, value) {
            0 => Ok(0),
            _ => Err(Raised::assume()),
        }
    })
}

unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython's convention for tp_repr.
    guard_object(|| unsafe { of_python(Any::from_ptr(this))?.repr() })
}

unsafe extern "C" fn compare(
    this: *mut ffi::PyObject,
    other: *mut ffi::PyObject,
    operation: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's convention for tp_richcompare; O1.
    guard_object(|| unsafe {
        let other = Any::from_ptr(other);
        let is_bound = BOUND_METHOD.get().is_exact(other);
        let other = if is_bound { of_python(other)? } else { other.to_object() };
        let own = of_python(Any::from_ptr(this))?;
        Object::from_owned(ffi::PyObject_RichCompare(own.as_ptr(), other.as_ptr(), operation))
    })
}

unsafe extern "C" fn hash(this: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: CPython's convention for tp_hash; O1.
    guard(-1, || unsafe {
        let own = of_python(Any::from_ptr(this))?;
        match ffi::PyObject_Hash(own.as_ptr()) {
            -1 => Err(Raised::assume()),
            hash => Ok(hash),
        }
    })
}
