//! `shield`: a future that follows another one without being able to cancel it.
//!
//! Native are coroutines, and futures and tasks of ioxide's, on ioxide's own loop, where asyncio's release has rules known
//! here. Everything else is asyncio's `shield`.

use super::spawn::spawn;
use super::{DoneCallback, originals, plain_future, spawning_loop};
use crate::event_loop::EventLoop;
use crate::futures::{self, Future};
use ioxide_cpython::coroutine::is_native_coroutine;
use ioxide_cpython::current::current_task;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::Arguments;
use ioxide_cpython::types::{Class, Native, NativeClass, allocate, head};
use ioxide_cpython::version::{FutureObject, FutureState, HAS_CALL_GRAPH, ShieldedFailure, rules};
use ioxide_cpython::{Any, Object, Once, Result, Slot, none_object};

/// `shield(arg)`
pub fn shield(arguments: Arguments<'_>) -> Result<Object> {
    let awaitable = arguments.only("shield", "arg")?;
    if rules().shielded_failure == ShieldedFailure::Unknown {
        return originals().shield.call1(awaitable);
    }
    let inner = match plain_future(awaitable) {
        Some(_) => awaitable.to_object(),
        None if is_native_coroutine(awaitable) => match spawning_loop()? {
            Some(event_loop) => spawn(&event_loop, awaitable)?,
            None => return originals().shield.call1(awaitable),
        },
        None => return originals().shield.call1(awaitable),
    };
    let Some(future) = plain_future(&inner) else { return originals().shield.call1(&inner) };
    if !future.is_pending() {
        return Ok(inner);
    }
    match future.event_loop.get_object().as_deref().and_then(EventLoop::plain) {
        Some(native) => follow(native, &inner, future),
        None => originals().shield.call1(&inner),
    }
}

/// The outer future of `inner`, which is `future`.
fn follow(event_loop: &EventLoop, inner: &Any, future: &FutureObject) -> Result<Object> {
    let outer = futures::create(event_loop)?;
    let task = if HAS_CALL_GRAPH { current_task(event_loop)? } else { None };
    let on_task = match &task {
        Some(task) => {
            future.awaited_by_add(task)?;
            let callback =
                DoneCallback::create("shield.<locals>._clear_awaited_by_callback", on_inner_left, task)?;
            futures::add_native_callback(future, &callback)?;
            Slot::filled(callback)
        }
        None => Slot::empty(),
    };
    let on_inner = DoneCallback::create("shield.<locals>._inner_done_callback", on_inner_done, &outer)?;
    futures::add_native_callback(future, &on_inner)?;
    let followed = allocate(Followed {
        head: head(),
        inner: Slot::filled(inner.to_object()),
        on_inner: Slot::filled(on_inner),
        on_task,
    })?;
    let on_outer = DoneCallback::create("shield.<locals>._outer_done_callback", on_outer_done, &followed)?;
    if let Some(outer) = Future::from_exact(&outer) {
        futures::add_native_callback(outer, &on_outer)?;
    }
    Ok(outer)
}

/// What the outer future follows.
#[repr(C)]
struct Followed {
    head: Any,
    inner: Slot,
    on_inner: Slot,
    /// For the call graph of 3.14.
    on_task: Slot,
}

static FOLLOWED: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Followed {
    fn class() -> &'static Once<Class> {
        &FOLLOWED
    }
}

pub(super) fn initialize() -> Result<()> {
    FOLLOWED.set(NativeClass::core::<Followed>(c"ioxide.Followed")?);
    Ok(())
}

/// The inner future is done: the outer one becomes what it is.
fn on_inner_done(callback: &DoneCallback, inner: &Any) -> Result<()> {
    let owner = callback.owner.get_or_none();
    let (Some(outer), Some(inner)) = (Future::from_exact(&owner), plain_future(inner)) else { return Ok(()) };
    let is_cancelled = inner.state() == FutureState::Cancelled;
    if outer.state() == FutureState::Cancelled {
        if !is_cancelled && rules().shielded_failure == ShieldedFailure::IsRetrieved {
            inner.set_log_traceback(false);
        }
        return Ok(());
    }
    if is_cancelled {
        return futures::cancel(outer, None).map(drop);
    }
    inner.set_log_traceback(false);
    match inner.exception.get_object() {
        Some(exception) => futures::set_exception(outer, &exception),
        None => futures::set_result(outer, &inner.result.get_or_none()),
    }
}

/// The inner future is done: the task awaits it no more.
fn on_inner_left(callback: &DoneCallback, inner: &Any) -> Result<()> {
    match plain_future(inner) {
        Some(inner) => inner.awaited_by_discard(&callback.owner.get_or_none()),
        None => Ok(()),
    }
}

/// The outer future is done: unless the inner one was first, it is followed no more.
fn on_outer_done(callback: &DoneCallback, _outer: &Any) -> Result<()> {
    let owner = callback.owner.get_or_none();
    let Some(followed) = Followed::from_exact(&owner) else { return Ok(()) };
    let inner = followed.inner.take().unwrap_or_else(none_object);
    let Some(future) = plain_future(&inner).filter(|future| future.is_pending()) else { return Ok(()) };
    if let Some(on_inner) = followed.on_inner.take() {
        futures::remove_native_callback(future, &on_inner)?;
    }
    let Some(on_task) = followed.on_task.take() else { return Ok(()) };
    futures::remove_native_callback(future, &on_task)?;
    match DoneCallback::from_exact(&on_task) {
        Some(callback) => future.awaited_by_discard(&callback.owner.get_or_none()),
        None => Ok(()),
    }
}

impl Traverse for Followed {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.inner);
        visitor.slot(&self.on_inner);
        visitor.slot(&self.on_task);
    }

    fn clear(&self) {
        self.inner.clear();
        self.on_inner.clear();
        self.on_task.clear();
    }
}
