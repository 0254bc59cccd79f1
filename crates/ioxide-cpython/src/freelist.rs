//! Free lists: the memory of dead futures, tasks and handles, kept for the next ones.
//!
//! Invariants:
//! L1. An object on a list is dead: untracked, without weak references, attributes or fields, its reference to
//!     the class given back. Only instances of exactly the list's class are kept, and of them only those whose
//!     finalizer has not run: the collector notes in the memory that it has, and would never run it again.

use crate::object::{Any, Object, Raised, Result};
use crate::types::{Native, NativeClass, free_memory};
use pyo3_ffi as ffi;
use std::cell::UnsafeCell;

/// Dead objects of one class, most recent last.
pub struct FreeList<T> {
    objects: UnsafeCell<Vec<*mut T>>,
    capacity: usize,
}

// SAFETY: touched under the GIL only (O1).
unsafe impl<T> Sync for FreeList<T> {}

impl<T: Recycled> FreeList<T> {
    pub const fn new(capacity: usize) -> FreeList<T> {
        FreeList { objects: UnsafeCell::new(Vec::new()), capacity }
    }

    /// A new instance whose fields are all zero, tracked by the collector. Runs Python: maybe, by a collection.
    #[inline]
    pub fn allocate(&'static self) -> Result<Object> {
        self.allocate_tracked(true)
    }

    /// As `allocate`, for an instance that will never refer to anything that refers to it: the collector need not see it.
    #[inline]
    pub fn allocate_untracked(&'static self) -> Result<Object> {
        self.allocate_tracked(false)
    }

    #[inline(always)]
    fn allocate_tracked(&'static self, tracked: bool) -> Result<Object> {
        let class = T::class().get().as_type_ptr();
        // SAFETY: O1; nothing below touches the list while it is borrowed here.
        let recycled = unsafe { (*self.objects.get()).pop() };
        // SAFETY: L1: the memory is that of an instance; it becomes one again with a fresh head and zeroed fields.
        unsafe {
            if let Some(this) = recycled {
                let head_size = size_of::<ffi::PyObject>();
                this.cast::<u8>().add(head_size).write_bytes(0, size_of::<T>() - head_size);
                ffi::Py_INCREF(class.cast());
                _Py_NewReference(this.cast());
                if tracked {
                    ffi::PyObject_GC_Track(this.cast());
                }
                return Object::from_owned(this.cast());
            }
            match (*class).tp_alloc {
                // Tracked, which does no harm.
                Some(alloc) => Object::from_owned(alloc(class, 0)),
                None => Err(Raised::type_error("class cannot be instantiated")),
            }
        }
    }

    /// Keeps the memory if there is room.
    ///
    /// # Safety
    /// L1 holds for `this`, but for the reference to the class.
    unsafe fn free(&'static self, this: *mut T) {
        // SAFETY: O1 and the caller's promise.
        unsafe {
            let objects = &mut *self.objects.get();
            if objects.len() < self.capacity {
                objects.push(this);
                ffi::Py_DECREF(T::class().get().as_type_ptr().cast());
            } else {
                free_memory(this.cast());
            }
        }
    }
}

unsafe extern "C" {
    pub(crate) fn _Py_NewReference(object: *mut ffi::PyObject);
}

/// A class whose dead instances go to a free list.
pub trait Recycled: Native {
    fn free_list() -> &'static FreeList<Self>;

    /// Whether the finalizer has anything to say about this instance.
    fn wants_finalizer(&self) -> bool;

    /// Lets go of weak references, attributes and fields. Runs Python: finalizers of what was held.
    fn release(&self);
}

impl NativeClass {
    /// Dead instances go to the free list of `T`.
    pub fn recycled<T: Recycled>(self) -> NativeClass {
        // SAFETY: the signature of destructor.
        unsafe { self.slot(ffi::Py_tp_dealloc, entry_recycle::<T> as *mut std::ffi::c_void) }
    }
}

unsafe extern "C" fn entry_recycle<T: Recycled>(this: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone. CPython's order for tp_dealloc; for instances of derived classes the
    // interpreter's subtype_dealloc has called the finalizer already.
    unsafe {
        let object = &*this.cast::<T>();
        let exact = T::class().get().is_exact(Any::from_ptr(this));
        if exact && object.wants_finalizer() && ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(this.cast());
        crate::methods::guard((), || {
            object.release();
            Ok(())
        });
        if exact && ffi::PyObject_GC_IsFinalized(this) == 0 {
            T::free_list().free(this.cast());
        } else {
            free_memory(this);
        }
    }
}

/// Forgets the weak references to an object that is about to die. Runs Python: their callbacks.
pub fn clear_weak_references(object: &Any) {
    // SAFETY: O1; the object's class supports weak references, by the caller.
    unsafe { ffi::PyObject_ClearWeakRefs(object.as_ptr()) }
}
