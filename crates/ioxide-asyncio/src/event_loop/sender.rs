//! The way back to a loop from a thread that does not hold the GIL: a handle, made beforehand, that is sent once.
//!
//! Invariants:
//! N1. The handle is dropped with the GIL held: by the loop that runs it, or here when the loop is closed.

use super::EventLoop;
use crate::handles::Handle;
use ioxide_cpython::detach::with_gil;
use ioxide_cpython::object::Detached;
use ioxide_cpython::{Any, Raised, Result};
use ioxide_reactor::{Inbox, Wakes};
use std::sync::{Arc, Weak};

/// A handle on its way to its loop.
pub struct Sender {
    handle: Detached,
    inbox: Arc<Inbox<Detached>>,
    /// Gone when the loop is closed.
    wakes: Weak<Wakes>,
}

impl EventLoop {
    /// What calls `callback` on the loop's thread once it is sent. Fails: RuntimeError where the loop is closed.
    pub fn sender(&self, callback: &Any) -> Result<Sender> {
        let core = self.core();
        let wakes = core.wakes.borrow().as_ref().map(Arc::downgrade);
        Ok(Sender {
            handle: Detached::new(Handle::create(self, callback, &[], None)?),
            inbox: Arc::clone(&core.inbox),
            wakes: wakes.ok_or_else(|| Raised::runtime_error("Event loop is closed"))?,
        })
    }
}

impl Sender {
    /// From any thread, with or without the GIL.
    pub fn send(self) {
        match self.wakes.upgrade() {
            Some(wakes) => {
                self.inbox.push(self.handle);
                // It fails only when the descriptor was closed behind our back: then nobody waits for it.
                let _ = wakes.wake();
            }
            // N1; without an interpreter nobody misses it.
            None => match with_gil(|| ()) {
                Some(()) => drop(with_gil(move || drop(self.handle.into_object()))),
                None => std::mem::forget(self.handle),
            },
        }
    }
}
