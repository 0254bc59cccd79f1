//! What asyncio's `_LoopBoundMixin` does: a lock or queue belongs to the loop in which it first had to wait.

use ioxide_cpython::current::running_loop;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::{Any, Object, Raised, Result, Slot, none_object};

/// The loop that an object is bound to; empty until it first waits.
pub struct LoopBound(Slot);

impl LoopBound {
    pub const fn new() -> LoopBound {
        LoopBound(Slot::empty())
    }

    /// `_get_loop()` of `owner`: the running loop, None where there is none.
    /// Fails: RuntimeError where another loop is running than the one `owner` is bound to.
    #[inline]
    pub fn get_loop(&self, owner: &Any) -> Result<Object> {
        let running = running_loop()?.unwrap_or_else(none_object);
        if self.0.is(&running) {
            return Ok(running);
        }
        if self.0.is_empty() {
            if !running.is_none() {
                self.0.set(running.clone());
            }
            return Ok(running);
        }
        let shown = owner.repr()?.to_text()?;
        Err(Raised::runtime_error(&format!("{} is bound to a different event loop", shown.as_str())))
    }

    /// A future of that loop, by the loop's own `create_future`.
    #[inline]
    pub fn create_future(&self, owner: &Any) -> Result<Object> {
        crate::futures::create_any(&*self.get_loop(owner)?)
    }

    /// `_loop`
    pub fn shown(&self) -> Object {
        self.0.get_or_none()
    }

    /// `_loop = value`
    pub fn assign(&self, value: Option<&Any>) {
        drop(self.0.replace(value.filter(|value| !value.is_none()).map(Any::to_object)));
    }

    pub fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.0);
    }

    pub fn clear(&self) {
        self.0.clear();
    }
}
