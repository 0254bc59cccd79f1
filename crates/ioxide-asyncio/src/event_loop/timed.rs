//! What waits in the loop's timers: handles of `call_at`, futures of sleepers, deadlines. Only handles are ever handed to
//! Python, so the others are lighter.
//!
//! Leaves to others: when timers are due (turn), when cancelled ones are swept out (schedule).

use super::EventLoop;
use crate::futures::{self, Future};
use crate::handles::TimerHandle;
use crate::tasks::Deadline;
use ioxide_cpython::types::Native;
use ioxide_cpython::{Any, Object, Result, boolean};
use ioxide_reactor::MonotonicTime;

/// An entry of the timers.
pub enum Timed<'a> {
    Handle(&'a TimerHandle),
    /// The future that a sleeping task waits for; its result is in it already.
    Sleeper(&'a Future),
    Deadline(&'a Deadline),
}

impl<'a> Timed<'a> {
    #[inline]
    pub fn of(entry: &'a Any) -> Option<Timed<'a>> {
        if let Some(future) = Future::from_exact(entry) {
            return Some(Timed::Sleeper(future));
        }
        if let Some(deadline) = Deadline::from_exact(entry) {
            return Some(Timed::Deadline(deadline));
        }
        TimerHandle::from_any(entry).map(Timed::Handle)
    }

    #[inline]
    pub fn is_cancelled(&self) -> bool {
        match self {
            Timed::Handle(timer) => timer.is_cancelled(),
            Timed::Sleeper(future) => !futures::is_timed(future),
            Timed::Deadline(deadline) => !deadline.is_armed(),
        }
    }

    pub fn is_handle(&self) -> bool {
        matches!(self, Timed::Handle(_))
    }

    /// The entry is in the timers no more.
    #[inline]
    pub fn leave_timers(&self) {
        if let Timed::Handle(timer) = self {
            timer.scheduled.set(boolean(false));
        }
    }
}

/// The time of an entry that is no handle has come.
#[inline]
pub fn on_due(entry: &Any) -> Result<()> {
    match Timed::of(entry) {
        Some(Timed::Sleeper(future)) if futures::is_timed(future) => futures::finish_with_own_result(future),
        Some(Timed::Deadline(deadline)) => deadline.come_due(),
        _ => Ok(()),
    }
}

/// An entry in the timers of `event_loop` is nobody's any more; nothing is counted where the loop is not ioxide's.
#[inline]
pub fn on_timer_cancelled(event_loop: &Any) {
    if let Some(native) = EventLoop::from_any(event_loop) {
        native.on_timer_cancelled();
    }
}

impl EventLoop {
    /// Puts an entry that is no handle into the timers, `delay` seconds from now.
    #[inline]
    pub fn add_timed(&self, delay: f64, entry: Object) {
        self.add_timed_at(MonotonicTime::now().as_seconds() + delay, entry);
    }

    /// Whether `loop.time()` has not reached `when` yet.
    #[inline]
    pub fn is_before(&self, when: f64) -> bool {
        let deadline = MonotonicTime::not_before_seconds(when);
        deadline.is_far() || MonotonicTime::now() < deadline
    }

    /// As `add_timed`, for a time of `loop.time()`.
    #[inline]
    pub fn add_timed_at(&self, when: f64, entry: Object) {
        let deadline = MonotonicTime::not_before_seconds(when);
        self.core().timers.borrow_mut().push(deadline, Some(entry));
    }
}
