//! Sockets and transports that are being set up: whatever goes wrong, also a coroutine that nobody finishes, closes
//! exactly the object that was opened, never a number that somebody else may own by now.

use ioxide_cpython::{Any, Builtin, Object, builtin, exception, names};
use std::cell::Cell;

/// Calls `close` on its object when it is dropped, unless somebody has kept it.
pub struct ClosedUnlessKept {
    object: Object,
    is_kept: Cell<bool>,
}

impl ClosedUnlessKept {
    pub fn new(object: Object) -> ClosedUnlessKept {
        ClosedUnlessKept { object, is_kept: Cell::new(false) }
    }

    pub fn object(&self) -> &Any {
        &self.object
    }

    /// The object belongs to somebody else from here on.
    pub fn keep(&self) {
        self.is_kept.set(true);
    }

    /// As `keep`, and hands the object out.
    pub fn into_kept(self) -> Object {
        self.keep();
        self.object.clone()
    }
}

impl Drop for ClosedUnlessKept {
    fn drop(&mut self) {
        if self.is_kept.get() {
            return;
        }
        // The pending exception is why nobody keeps the object; an error of closing does not hide it.
        let pending = exception::take();
        if let Err(raised) = self.object.call_method0(&names().close) {
            if raised.matches(builtin(Builtin::OSError)) {
                drop(raised.take());
            } else {
                raised.write_unraisable(&self.object);
            }
        }
        if let Some(pending) = pending {
            exception::restore(pending);
        }
    }
}
