//! Slotted classes: Python classes over Python classes of asyncio that keep their state in `__slots__` named after
//! asyncio's own private attributes, where Rust reads and writes it as fields of a struct.
//!
//! What asyncio wrote in Python and a program inherits (`repr`, `when`, …) reads the same attributes; what is hot is
//! overridden by native methods. Allocation, collection and death are those of any Python class.
//!
//! Invariants:
//! K3. The struct is what `type` lays out: the head of the base's instances, then one `Slot` an attribute, sorted by
//!     name. `create` compares every offset and refuses the class otherwise.

use super::{Class, Native, add_method};
use crate::names::{intern, names};
use crate::object::{Any, Object, Raised, Result};
use crate::value::{dict, text, tuple};
use crate::version::member_offset;
use pyo3_ffi as ffi;
use std::ffi::CStr;

/// What a slotted class is made of.
pub struct SlottedDefinition {
    pub name: &'static CStr,
    pub base: Object,
    pub doc: &'static str,
    /// Attributes and where the struct has them (K3).
    pub slots: Vec<(&'static str, usize)>,
    pub methods: Vec<ffi::PyMethodDef>,
}

impl SlottedDefinition {
    /// Creates the class. Fails: RuntimeError where `type` lays its instances out differently.
    pub fn create(self) -> Result<Class> {
        let namespace = dict()?;
        namespace.dict_set(&names().__module__, &*text("ioxide")?)?;
        namespace.dict_set(&names().__doc__, &*text(self.doc)?)?;
        let slots = self.slots.iter().map(|(name, _)| intern(name)).collect::<Result<Vec<_>>>()?;
        let slots: Vec<&Any> = slots.iter().map(|slot| &**slot).collect();
        namespace.dict_set(&names().__slots__, &*tuple(&slots)?)?;
        let name = text(&self.name.to_string_lossy())?;
        // The metaclass of the base makes the class.
        let class = self.base.get_type().call(&[&*name, &*tuple(&[&self.base])?, &*namespace])?;
        for (name, offset) in &self.slots {
            if member_offset(&*class.get_attribute(&*intern(name)?)?) != Some(*offset) {
                return Err(Raised::runtime_error(&format!(
                    "ioxide was built for another layout: {name} is elsewhere"
                )));
            }
        }
        for method in self.methods {
            add_method(&class, method)?;
        }
        Ok(Class::from_created(class))
    }
}

/// A new instance with empty slots, of `class` or a class derived from it; `__init__` is not called.
pub fn allocate_slotted<T: Native>() -> Result<Object> {
    let class = T::class().get().as_type_ptr();
    // SAFETY: O1; tp_alloc of a Python class gives zeroed slots.
    unsafe {
        let Some(alloc) = (*class).tp_alloc else {
            return Err(Raised::type_error("class cannot be instantiated"));
        };
        Object::from_owned(alloc(class, 0))
    }
}
