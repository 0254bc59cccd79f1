//! A slot for a Python socket, and a short way to its descriptor: `fileno()` only reads a number that CPython keeps as the
//! first field of every `_socket.socket`, and two calls of it for each message are a part of what a message costs.
//!
//! Invariants:
//! D1. The number is read only from an instance of `_socket.socket`, by its memory and not by a `__class__` that says so, whose
//!     `fileno` nobody has replaced, in a slot that saw, when it was filled, that the field and `fileno()` agree. `close` and
//!     `detach` write -1 there.

use crate::call::import;
use crate::gc::{Traverse, Visitor};
use crate::names::names;
use crate::object::{Any, Object, Result, Slot};
use crate::once::Once;
use crate::types::OwnMethods;
use pyo3_ffi as ffi;
use std::cell::Cell;
use std::os::fd::RawFd;

/// `_socket.socket` and its `fileno`.
static OWN: Once<(Object, OwnMethods)> = Once::new();

/// Looks up the class.
pub(crate) fn initialize() -> Result<()> {
    let class = import(c"_socket")?.get_attribute_str(c"socket")?;
    let own = OwnMethods::of(&class, &["fileno"])?;
    OWN.set((class, own));
    Ok(())
}

/// A slot that holds a socket, or whatever has a `fileno()`.
pub struct SocketSlot {
    slot: Slot,
    /// D1
    has_field: Cell<bool>,
}

impl SocketSlot {
    pub const fn empty() -> SocketSlot {
        SocketSlot { slot: Slot::empty(), has_field: Cell::new(false) }
    }

    /// Returns the socket's descriptor. Fails as its `fileno` does.
    pub fn fill(&self, socket: &Any) -> Result<RawFd> {
        let descriptor = fileno(socket)?;
        let (class, own) = OWN.get();
        // SAFETY: an instance of the class has its fields, of which the descriptor is the first (D1).
        let agrees = || unsafe { field(socket) } == descriptor;
        self.has_field
            .set(has_room(class) && socket.is_subtype_of(class) && own.hold_for(socket)? && agrees());
        self.slot.set(socket.to_object());
        Ok(descriptor)
    }

    /// The descriptor that the socket has now; -1, which the kernel refuses, where the slot is empty. Fails as `fileno` does.
    #[inline]
    pub fn descriptor(&self) -> Result<RawFd> {
        match self.slot.get() {
            None => Ok(-1),
            Some(socket) if self.has_field.get() && OWN.get().1.hold_for(socket)? => {
                // SAFETY: D1.
                Ok(unsafe { field(socket) })
            }
            Some(socket) => fileno(&socket.to_object()),
        }
    }

    /// As `descriptor`, where it can be read without a call of Python's.
    #[inline]
    pub fn known_descriptor(&self) -> Option<RawFd> {
        let socket = self.slot.get().filter(|_| self.has_field.get())?;
        match OWN.get().1.hold_for(socket) {
            // SAFETY: D1.
            Ok(true) => Some(unsafe { field(socket) }),
            Ok(false) => None,
            Err(raised) => {
                drop(raised.take());
                None
            }
        }
    }

    pub fn get_object(&self) -> Option<Object> {
        self.slot.get_object()
    }

    /// What Python sees of the slot: the socket, or None.
    pub fn get_or_none(&self) -> Object {
        self.slot.get_or_none()
    }

    pub fn is_empty(&self) -> bool {
        self.slot.is_empty()
    }

    pub fn take(&self) -> Option<Object> {
        self.slot.take()
    }
}

impl Traverse for SocketSlot {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.slot);
    }

    fn clear(&self) {
        self.slot.clear();
    }
}

fn fileno(socket: &Any) -> Result<RawFd> {
    socket.call_method0(&names().fileno)?.to_i32()
}

/// Whether instances of the class have a number behind the object's head.
fn has_room(class: &Any) -> bool {
    // SAFETY: the class is a type object.
    let size = unsafe { (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_basicsize };
    size >= (size_of::<ffi::PyObject>() + size_of::<RawFd>()) as isize
}

/// # Safety
/// The object's class has the number there.
#[inline]
unsafe fn field(socket: &Any) -> RawFd {
    // SAFETY: the caller's.
    unsafe { socket.as_ptr().add(1).cast::<RawFd>().read() }
}
