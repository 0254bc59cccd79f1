//! `Deadline`: does something when its time comes, without a handle, a context and a Python callback; what `wait_for` and
//! `timeout` arm.
//!
//! Invariants:
//! D1. An armed deadline is in the timers of `event_loop`; one that is not is there until it is swept out or comes due, or
//!     has been there.

use crate::event_loop::{EventLoop, on_timer_cancelled};
use ioxide_cpython::freelist::{FreeList, Recycled};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::method0;
use ioxide_cpython::types::{Class, Native, NativeClass};
use ioxide_cpython::value::float;
use ioxide_cpython::{Any, Object, Once, Result, Slot};
use std::cell::Cell;

/// Below this many seconds asyncio may find the deadline in the past already.
pub const SHORTEST_TIMEOUT: f64 = 1e-6;

/// What happens to the target when the time comes.
pub type Expire = fn(&Any) -> Result<()>;

/// All zero bytes are an armed deadline of nothing.
#[repr(C)]
pub struct Deadline {
    head: Any,
    target: Slot,
    event_loop: Slot,
    expire: Cell<Option<Expire>>,
    when: Cell<f64>,
    disarmed: Cell<bool>,
    expired: Cell<bool>,
}

static DEADLINE: Once<Class> = Once::new();
static FREE_DEADLINES: FreeList<Deadline> = FreeList::new(1024);

// SAFETY: repr(C) with the head first; created by the free list only.
unsafe impl Native for Deadline {
    fn class() -> &'static Once<Class> {
        &DEADLINE
    }
}

impl Recycled for Deadline {
    fn free_list() -> &'static FreeList<Deadline> {
        &FREE_DEADLINES
    }

    fn wants_finalizer(&self) -> bool {
        false
    }

    fn release(&self) {
        self.target.clear();
        self.event_loop.clear();
    }
}

pub(super) fn initialize() -> Result<()> {
    DEADLINE.set(
        NativeClass::new::<Deadline>(c"ioxide.Deadline")
            .doc(c"What a timeout waits for, as asyncio.TimerHandle.")
            .not_instantiable()
            .collected::<Deadline>()
            .recycled::<Deadline>()
            .methods(vec![
                method0(c"cancel", Deadline::cancel),
                method0(c"cancelled", |this: &Deadline| !this.is_armed() && !this.has_expired()),
                method0(c"when", |this: &Deadline| float(this.when.get())),
            ])
            .create(&[])?,
    );
    Ok(())
}

impl Deadline {
    /// A deadline at `when`, in seconds of `loop.time()`, that calls `expire` with `target`.
    #[inline]
    pub fn arm(event_loop: &EventLoop, when: f64, target: &Any, expire: Expire) -> Result<Object> {
        let object = FREE_DEADLINES.allocate()?;
        if let Some(deadline) = Deadline::from_exact(&object) {
            deadline.target.initialize(Some(target.to_object()));
            deadline.event_loop.initialize(Some(event_loop.to_object()));
            deadline.expire.set(Some(expire));
            deadline.when.set(when);
        }
        event_loop.add_timed_at(when, object.clone());
        Ok(object)
    }

    /// As `arm`, on any loop: `None` where it is not ioxide's own, or the time has come already.
    #[inline]
    pub fn arm_any(event_loop: &Any, when: f64, target: &Any, expire: Expire) -> Result<Option<Object>> {
        match EventLoop::plain(event_loop) {
            Some(native) if native.is_before(when) => Deadline::arm(native, when, target, expire).map(Some),
            _ => Ok(None),
        }
    }

    #[inline]
    pub fn is_armed(&self) -> bool {
        !self.disarmed.get()
    }

    /// Whether its time has come.
    #[inline]
    pub fn has_expired(&self) -> bool {
        self.expired.get()
    }

    /// The time has come.
    pub fn come_due(&self) -> Result<()> {
        if self.disarmed.replace(true) {
            return Ok(());
        }
        self.expired.set(true);
        match (self.target.get_object(), self.expire.get()) {
            (Some(target), Some(expire)) => expire(&target),
            _ => Ok(()),
        }
    }

    /// What the deadline expired for, which it was armed with.
    pub fn target(&self) -> Object {
        self.target.get_or_none()
    }

    /// Nothing happens when the time comes.
    #[inline]
    pub fn cancel(&self) {
        if self.disarmed.replace(true) {
            return;
        }
        self.target.clear();
        if let Some(event_loop) = self.event_loop.take() {
            on_timer_cancelled(&event_loop);
        }
    }
}

impl Traverse for Deadline {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.target);
        visitor.slot(&self.event_loop);
    }

    fn clear(&self) {
        self.target.clear();
        self.event_loop.clear();
    }
}
