//! Garbage collection: what a native type shows the collector, and how it lets go.

use crate::object::{Any, Object, Slot};
use pyo3_ffi as ffi;
use std::ffi::{c_int, c_void};

/// Shows the collector every owned reference of an object.
pub struct Visitor {
    visit: ffi::visitproc,
    argument: *mut c_void,
    status: c_int,
}

impl Visitor {
    /// # Safety
    /// Both come from the collector's call of tp_traverse.
    pub unsafe fn new(visit: ffi::visitproc, argument: *mut c_void) -> Visitor {
        Visitor { visit, argument, status: 0 }
    }

    /// The collector's answer, which tp_traverse returns.
    pub fn status(&self) -> c_int {
        self.status
    }

    #[inline]
    pub fn object(&mut self, object: &Any) {
        self.pointer(object.as_ptr());
    }

    #[inline]
    pub fn slot(&mut self, slot: &Slot) {
        self.pointer(slot.as_ptr());
    }

    pub fn optional(&mut self, object: Option<&Object>) {
        if let Some(object) = object {
            self.object(object);
        }
    }

    fn pointer(&mut self, pointer: *mut ffi::PyObject) {
        if self.status == 0 && !pointer.is_null() {
            // SAFETY: the collector's own function and argument, and a live object.
            self.status = unsafe { (self.visit)(pointer, self.argument) };
        }
    }
}

/// What a native type with references to other objects implements.
///
/// `traverse` visits exactly the references that the object owns, once each, and runs no Python. `clear` lets go
/// of enough of them to break every cycle and leaves the object in a state its methods answer from.
pub trait Traverse {
    fn traverse(&self, visitor: &mut Visitor);
    fn clear(&self);
}

/// The slots of an object, listed once for both.
impl<const N: usize> Traverse for [&Slot; N] {
    fn traverse(&self, visitor: &mut Visitor) {
        self.iter().for_each(|slot| visitor.slot(slot));
    }

    fn clear(&self) {
        self.iter().for_each(|slot| slot.clear());
    }
}
