//! Whether the methods by which an object calls itself are still ioxide's own, so that a native short cut past them
//! changes nothing. A subclass, somebody who patches the class and somebody who patches the instance are all noticed at
//! once.
//!
//! Invariants:
//! M1. A class that keeps its version tag has not changed, nor has any of its bases; tags are never used again.

use crate::names::intern;
use crate::object::{Any, Object, Result};
use crate::version::{has_instance_attributes, type_version};
use pyo3_ffi as ffi;
use std::cell::Cell;

/// The methods that one class calls on itself.
pub struct OwnMethods {
    class: Object,
    methods: Vec<(Object, Object)>,
    /// What was found for the class itself, and for the subclass that was asked about last.
    found: [Cell<Found>; 2],
}

#[derive(Clone, Copy)]
struct Found {
    class: *mut ffi::PyTypeObject,
    /// Never zero in an answer that counts.
    version: u32,
    all_own: bool,
}

impl OwnMethods {
    /// Notes what `class` has under these names now.
    pub fn of(class: &Any, names: &[&str]) -> Result<OwnMethods> {
        let mut methods = Vec::new();
        for name in names {
            let name = intern(name)?;
            let method = class.get_attribute(&name)?;
            methods.push((name, method));
        }
        let nothing = Found { class: std::ptr::null_mut(), version: 0, all_own: false };
        Ok(OwnMethods { class: class.to_object(), methods, found: [Cell::new(nothing), Cell::new(nothing)] })
    }

    /// Whether `object`, an instance of the class or of a derived one, has all of them from the class.
    #[inline]
    pub fn hold_for(&self, object: &Any) -> Result<bool> {
        let class = object.type_ptr();
        let place = &self.found[usize::from(class.cast() != self.class.as_ptr())];
        let found = place.get();
        let all_own = if found.class == class && found.version != 0 && found.version == type_version(class) {
            found.all_own
        } else {
            self.look(object.get_type(), place)?
        };
        if all_own && has_instance_attributes(object) {
            return self.not_shadowed(object);
        }
        Ok(all_own)
    }

    #[cold]
    fn look(&self, class: &Any, place: &Cell<Found>) -> Result<bool> {
        let mut all_own = true;
        for (name, own) in &self.methods {
            all_own &= class.get_attribute(name)?.is(own);
        }
        let class = class.as_ptr().cast();
        place.set(Found { class, version: type_version(class), all_own });
        Ok(all_own)
    }

    /// Whether no attribute of the instance hides one of the methods.
    fn not_shadowed(&self, object: &Any) -> Result<bool> {
        let attributes = object.get_attribute(&crate::names().__dict__)?;
        for (name, _) in &self.methods {
            if attributes.dict_get(name)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
