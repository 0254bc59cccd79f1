//! `wait`: one native callback for all futures that are waited for.
//!
//! Native are ioxide's own futures and tasks on ioxide's own loop, with a timeout that is a number or None. Everything else is
//! asyncio's `wait`.
//!
//! Invariants:
//! A1. The waiter is itself the entry in the loop's timers: once it is done, the entry is nobody's.
//! A2. The callback is in each future that is not done until the wait ends, however it ends.

use super::{DoneCallback, originals, plain_future};
use crate::event_loop::{EventLoop, on_timer_cancelled};
use crate::futures::{self, Future};
use ioxide_cpython::coroutine::{Body, Waiting, traced_coroutine, wait_for};
use ioxide_cpython::current::{current_task, running_loop};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, name_is};
use ioxide_cpython::names::{intern, keyword_names};
use ioxide_cpython::types::{Class, Native, NativeClass, allocate, head};
use ioxide_cpython::value::{set, set_add, set_of, text, tuple};
use ioxide_cpython::version::{FutureObject, FutureState, HAS_CALL_GRAPH};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, imports, none, none_object};
use std::cell::Cell;
use std::future::Future as RustFuture;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

const WAIT: Signature<3> =
    Signature { function: "wait", names: ["fs", "timeout", "return_when"], required: 1, positional: 1 };

/// `wait(fs, *, timeout=None, return_when=ALL_COMPLETED)`
pub fn wait(arguments: Arguments<'_>) -> Result<Object> {
    let [awaited, timeout, return_when] = WAIT.bind(arguments)?;
    let return_when = match return_when {
        Some(return_when) => return_when.to_object(),
        None => text("ALL_COMPLETED")?,
    };
    traced_coroutine(
        "wait",
        Wait {
            awaited: awaited.unwrap_or(none()).to_object(),
            timeout: timeout.unwrap_or(none()).to_object(),
            return_when,
            stage: Stage::Created,
        },
    )
}

/// `wait(awaited)`, for ioxide's own use.
pub fn wait_for_all(awaited: Object) -> Result<Object> {
    let return_when = text("ALL_COMPLETED")?;
    traced_coroutine("wait", Wait { awaited, timeout: none_object(), return_when, stage: Stage::Created })
}

struct Wait {
    awaited: Object,
    timeout: Object,
    return_when: Object,
    stage: Stage,
}

enum Stage {
    Created,
    Watching(Watch, Waiting),
    /// In asyncio's own coroutine.
    Borrowed(Waiting),
    Over,
}

impl RustFuture for Wait {
    type Output = Result<Object>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Object>> {
        if let Stage::Created = &self.stage {
            self.stage = match self.begin() {
                Ok(stage) => stage,
                Err(raised) => return Poll::Ready(Err(raised)),
            };
        }
        let outcome = match &mut self.stage {
            Stage::Watching(_, waiting) | Stage::Borrowed(waiting) => pin!(waiting).poll(context),
            Stage::Created | Stage::Over => Poll::Ready(Ok(none_object())),
        };
        let Poll::Ready(outcome) = outcome else { return Poll::Pending };
        Poll::Ready(match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Watching(watch, _) => match outcome.map_err(Raised::take) {
                Ok(_) => watch.result(),
                Err(exception) => {
                    drop(watch);
                    Err(Raised::exception(exception))
                }
            },
            _ => outcome,
        })
    }
}

impl Wait {
    fn begin(&mut self) -> Result<Stage> {
        let event_loop = running_loop()?;
        let (Some(native), Some(when)) =
            (event_loop.as_deref().and_then(EventLoop::plain), When::of(&self.return_when))
        else {
            return self.borrow();
        };
        if !self.is_collection()? {
            return self.borrow();
        }
        // As asyncio does. What was iterated over is used up: from now on it is an iterator, which is never taken for empty.
        let distinct = set_of(&self.awaited)?;
        let members = distinct.iterate()?.collect::<Result<Vec<Object>>>()?;
        self.awaited = distinct.iterate()?.into_object();
        let is_plain =
            |future: &Object| plain_future(future).is_some_and(|future| future.event_loop.is(native));
        let timeout = self.timeout.as_plain_number();
        let is_timeout = self.timeout.is_none() || timeout.is_some_and(|timeout| !timeout.is_nan());
        if members.is_empty() || !is_timeout || !members.iter().all(is_plain) {
            return self.borrow();
        }
        let waiter = futures::create_timed(native, none_object())?;
        if let Some(timeout) = timeout {
            native.add_timed(timeout, waiter.clone());
        }
        let watch = Watch::begin(native, members, when, &waiter, timeout.is_some())?;
        Ok(Stage::Watching(watch, wait_for(&waiter)))
    }

    /// Whether there is nothing to complain about: neither a future nor a coroutine, and not empty.
    fn is_collection(&self) -> Result<bool> {
        if self.awaited.is_builtin_collection() {
            return Ok(self.awaited.length()? > 0);
        }
        Ok(!imports().isfuture.call1(&self.awaited)?.is_true()?
            && !imports().iscoroutine.call1(&self.awaited)?.is_true()?
            && self.awaited.is_true()?)
    }

    fn borrow(&self) -> Result<Stage> {
        let keywords = keyword_names(&[&*intern("timeout")?, &*intern("return_when")?])?;
        let arguments = [&*self.awaited, &*self.timeout, &*self.return_when];
        let coroutine = originals().wait.call_keywords(&arguments, &keywords, 1)?;
        Ok(Stage::Borrowed(wait_for(&coroutine)))
    }
}

impl Body for Wait {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.awaited);
        visitor.object(&self.timeout);
        visitor.object(&self.return_when);
        match &self.stage {
            Stage::Watching(watch, waiting) => {
                watch.traverse(visitor);
                waiting.traverse(visitor);
            }
            Stage::Borrowed(waiting) => waiting.traverse(visitor),
            Stage::Created | Stage::Over => {}
        }
    }
}

/// `return_when`
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    AllCompleted,
    FirstCompleted,
    FirstException,
}

impl When {
    fn of(return_when: &Any) -> Option<When> {
        let all = [
            (When::AllCompleted, "ALL_COMPLETED"),
            (When::FirstCompleted, "FIRST_COMPLETED"),
            (When::FirstException, "FIRST_EXCEPTION"),
        ];
        all.into_iter().find(|(_, name)| name_is(return_when, name)).map(|(when, _)| when)
    }
}

/// Everything that is being waited for, with our callback in it (A2).
struct Watch {
    members: Vec<Object>,
    callback: Object,
    progress: Object,
}

impl Watch {
    fn begin(
        event_loop: &EventLoop,
        members: Vec<Object>,
        when: When,
        waiter: &Any,
        timed: bool,
    ) -> Result<Watch> {
        let task = if HAS_CALL_GRAPH { current_task(event_loop)? } else { None };
        let progress = allocate(WaitProgress {
            head: head(),
            waiter: Slot::filled(waiter.to_object()),
            task: Slot::empty(),
            pending: Cell::new(members.len()),
            when: Cell::new(when),
            timed: Cell::new(timed),
        })?;
        if let (Some(own), Some(task)) = (WaitProgress::from_exact(&progress), task) {
            own.task.set(task);
        }
        let callback = DoneCallback::create("_wait.<locals>._on_completion", on_completion, &progress)?;
        let watch = Watch { members, callback, progress };
        for member in watch.members.iter().filter_map(|member| plain_future(member)) {
            futures::add_native_callback(member, &watch.callback)?;
            if let Some(task) = watch.progress().and_then(|progress| progress.task.get_object()) {
                member.awaited_by_add(&task)?;
            }
        }
        Ok(watch)
    }

    fn progress(&self) -> Option<&WaitProgress> {
        WaitProgress::from_exact(&self.progress)
    }

    /// The wait was not interrupted: what is done, and what is not.
    fn result(mut self) -> Result<Object> {
        let members = std::mem::take(&mut self.members);
        self.leave(&members)?;
        let (done, pending) = (set()?, set()?);
        for member in &members {
            let is_pending = plain_future(member).is_some_and(|future| future.is_pending());
            set_add(if is_pending { &pending } else { &done }, member)?;
        }
        tuple(&[&*done, &*pending])
    }

    fn leave(&self, members: &[Object]) -> Result<()> {
        let Some(progress) = self.progress() else { return Ok(()) };
        progress.give_up_timer();
        for member in members.iter().filter_map(|member| plain_future(member)) {
            futures::remove_native_callback(member, &self.callback)?;
            if let Some(task) = progress.task.get_object() {
                member.awaited_by_discard(&task)?;
            }
        }
        Ok(())
    }

    fn traverse(&self, visitor: &mut Visitor) {
        for member in &self.members {
            visitor.object(member);
        }
        visitor.object(&self.callback);
        visitor.object(&self.progress);
    }
}

impl Drop for Watch {
    /// The wait was interrupted, or its coroutine is given up.
    fn drop(&mut self) {
        let members = std::mem::take(&mut self.members);
        if let Err(raised) = self.leave(&members) {
            raised.write_unraisable(&self.callback);
        }
    }
}

/// How far a wait is: what its callback works on.
#[repr(C)]
struct WaitProgress {
    head: Any,
    waiter: Slot,
    /// For the call graph of 3.14.
    task: Slot,
    pending: Cell<usize>,
    when: Cell<When>,
    /// Whether the waiter is in the timers and not counted as cancelled there.
    timed: Cell<bool>,
}

static WAIT_PROGRESS: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for WaitProgress {
    fn class() -> &'static Once<Class> {
        &WAIT_PROGRESS
    }
}

pub(super) fn initialize() -> Result<()> {
    WAIT_PROGRESS.set(NativeClass::core::<WaitProgress>(c"ioxide.WaitProgress")?);
    Ok(())
}

fn on_completion(callback: &DoneCallback, future: &Any) -> Result<()> {
    let owner = callback.owner.get_or_none();
    match (WaitProgress::from_exact(&owner), plain_future(future)) {
        (Some(progress), Some(future)) => progress.note(future),
        _ => Ok(()),
    }
}

impl WaitProgress {
    fn note(&self, future: &FutureObject) -> Result<()> {
        let pending = self.pending.get().saturating_sub(1);
        self.pending.set(pending);
        let is_over = pending == 0
            || match self.when.get() {
                When::AllCompleted => false,
                When::FirstCompleted => true,
                When::FirstException => has_failed(future),
            };
        if is_over && let Some(waiter) = self.waiter.get_object() {
            if let Some(waiter) = Future::from_exact(&waiter).filter(|waiter| waiter.is_pending()) {
                futures::set_result(waiter, none())?;
                self.count_timer(waiter);
            }
        }
        match self.task.get_object() {
            Some(task) => future.awaited_by_discard(&task),
            None => Ok(()),
        }
    }

    /// The waiter in the timers, if it is there, is nobody's any more (A1).
    fn count_timer(&self, waiter: &Future) {
        if self.timed.replace(false) {
            on_timer_cancelled(&waiter.event_loop.get_or_none());
        }
    }

    /// The wait is over: unless its time has come, the timer is cancelled.
    fn give_up_timer(&self) {
        let Some(waiter) = self.waiter.take() else { return };
        let Some(waiter) = Future::from_exact(&waiter) else { return };
        if waiter.state() == FutureState::Finished {
            return;
        }
        futures::abandon(waiter);
        self.count_timer(waiter);
    }
}

/// Whether a future that is done has an exception, which counts as retrieved then.
fn has_failed(future: &FutureObject) -> bool {
    if future.state() == FutureState::Cancelled {
        return false;
    }
    future.set_log_traceback(false);
    !future.exception.is_empty()
}

impl Traverse for WaitProgress {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.waiter);
        visitor.slot(&self.task);
    }

    fn clear(&self) {
        self.waiter.clear();
        self.task.clear();
    }
}
