//! `Deadline`: cancels a task when its time comes; what `wait_for` arms instead of a timer handle with a Python callback.
//!
//! Invariants:
//! D1. The deadline is in the loop's timers from its creation until it expires, is swept out or comes due disarmed.

use ioxide_cpython::freelist::{FreeList, Recycled};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::types::{Class, Native, NativeClass};
use ioxide_cpython::{Any, Object, Once, Result, Slot};
use std::cell::Cell;

/// All zero bytes are an armed deadline of no task.
#[repr(C)]
pub struct Deadline {
    head: Any,
    task: Slot,
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
        self.task.clear();
    }
}

pub(super) fn initialize() -> Result<()> {
    DEADLINE.set(
        NativeClass::new::<Deadline>(c"ioxide.Deadline")
            .not_instantiable()
            .collected::<Deadline>()
            .recycled::<Deadline>()
            .create(&[])?,
    );
    Ok(())
}

impl Deadline {
    #[inline]
    pub fn create(task: Object) -> Result<Object> {
        let object = FREE_DEADLINES.allocate()?;
        if let Some(deadline) = Deadline::from_exact(&object) {
            deadline.task.initialize(Some(task));
        }
        Ok(object)
    }

    #[inline]
    pub fn is_armed(&self) -> bool {
        !self.disarmed.get()
    }

    /// Whether it has cancelled its task.
    #[inline]
    pub fn has_expired(&self) -> bool {
        self.expired.get()
    }

    /// The time has come.
    pub fn expire(&self) -> Result<()> {
        let Some(task) = self.task.get_object().filter(|_| self.is_armed()) else { return Ok(()) };
        super::cancel_any(&task)?;
        self.expired.set(true);
        self.disarm();
        Ok(())
    }

    /// Nothing happens when the time comes.
    #[inline]
    pub fn disarm(&self) {
        self.disarmed.set(true);
        self.task.clear();
    }
}

impl Traverse for Deadline {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.task);
    }

    fn clear(&self) {
        self.task.clear();
    }
}
