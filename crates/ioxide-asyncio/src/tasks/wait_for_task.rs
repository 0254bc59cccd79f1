//! `wait_for` as it is on 3.11: what is awaited runs in a task of its own, which a late end cancels and waits for.
//!
//! Native are coroutines, and futures and tasks of ioxide's, on ioxide's own loop, with a positive time limit or none.
//! Everything else is asyncio's own.
//!
//! Invariants:
//! B1. The first waiter is itself the entry in the loop's timers: once it is done, the entry is nobody's.

use super::deadline::SHORTEST_TIMEOUT;
use super::spawn::{can_run, future_of};
use super::{DoneCallback, originals, plain_future, spawning_loop};
use crate::event_loop::{EventLoop, on_timer_cancelled};
use crate::futures::{self, Future, Outcome};
use ioxide_cpython::coroutine::{Body, Waiting, wait_for as wait};
use ioxide_cpython::current::get_running_loop;
use ioxide_cpython::exception::{exception_matches, handling};
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::types::Native;
use ioxide_cpython::version::FutureState;
use ioxide_cpython::{Any, Object, Raised, Result, imports, none, none_object};
use std::future::Future as RustFuture;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

pub struct WaitForTask {
    awaitable: Object,
    timeout: Object,
    stage: Stage,
}

enum Stage {
    Created,
    /// Until the future is done or its time is over.
    Limited(Watched, Waiting),
    /// The future has been cancelled; its end is waited for.
    Ending(Watched, Why, Waiting),
    /// Without a limit, or in asyncio's own coroutine.
    Plain(Waiting),
    Over,
}

/// Why the future was cancelled.
enum Why {
    TimeIsOver,
    /// The wait was, with this exception.
    Cancelled(Object),
}

/// The future that is waited for, and the callback in it that releases the waiter.
struct Watched {
    future: Object,
    callback: Object,
    waiter: Object,
    /// Whether the waiter is in the timers (B1).
    timed: bool,
}

impl WaitForTask {
    pub fn new(awaitable: Object, timeout: Object) -> WaitForTask {
        WaitForTask { awaitable, timeout, stage: Stage::Created }
    }

    fn begin(&self) -> Result<Stage> {
        if self.timeout.is_none() {
            get_running_loop()?;
            return Ok(Stage::Plain(wait(&self.awaitable)));
        }
        let event_loop = spawning_loop()?;
        let (Some(native), Some(timeout)) =
            (event_loop.as_deref().and_then(EventLoop::plain), self.timeout.as_plain_number())
        else {
            return self.borrow();
        };
        if !can_run(native, &self.awaitable) || timeout.is_nan() || timeout < SHORTEST_TIMEOUT {
            return self.borrow();
        }
        let waiter = futures::create_timed(native, none_object())?;
        native.add_timed(timeout, waiter.clone());
        let future = future_of(native, &self.awaitable)?;
        let watched = Watched::watch(future, waiter, true)?;
        let waiting = wait(&watched.waiter);
        Ok(Stage::Limited(watched, waiting))
    }

    fn borrow(&self) -> Result<Stage> {
        let coroutine = originals().wait_for.call(&[&*self.awaitable, &*self.timeout])?;
        Ok(Stage::Plain(wait(&coroutine)))
    }

    /// The wait within the limit is over.
    fn after_limit(&mut self, watched: &Watched, outcome: Result<Object>) -> Result<Option<Object>> {
        let interrupted = outcome.map_err(Raised::take).err();
        if let Some(exception) =
            interrupted.as_ref().filter(|exception| !exception_matches(exception, &imports().CancelledError))
        {
            return Err(Raised::exception(exception.clone()));
        }
        if !watched.is_pending() {
            return watched.result(interrupted.as_deref()).map(Some);
        }
        watched.forget()?;
        let why = match interrupted {
            Some(exception) => Why::Cancelled(exception),
            None => Why::TimeIsOver,
        };
        let event_loop = get_running_loop()?;
        let ending = Watched::watch(watched.future.clone(), futures::create_any(&event_loop)?, false)?;
        super::cancel_with_message(&ending.future, none())?;
        let waiting = wait(&ending.waiter);
        self.stage = Stage::Ending(ending, why, waiting);
        Ok(None)
    }
}

/// The future has ended after its cancellation, or the wait for that was interrupted.
fn after_end(watched: &Watched, why: Why, outcome: Result<Object>) -> Result<Object> {
    let interrupted = outcome.map_err(Raised::take).err();
    watched.forget()?;
    if let Some(exception) = interrupted {
        return Err(Raised::exception(exception));
    }
    match why {
        Why::Cancelled(exception) => Err(Raised::exception(exception)),
        Why::TimeIsOver => watched.result(None).map_err(|raised| {
            let exception = raised.take();
            if !exception_matches(&exception, &imports().CancelledError) {
                return Raised::exception(exception);
            }
            handling(&exception, || Raised::from_cause(&imports().TimeoutError, &exception))
        }),
    }
}

impl Watched {
    fn watch(future: Object, waiter: Object, timed: bool) -> Result<Watched> {
        let callback = DoneCallback::create("_release_waiter", release_waiter, &waiter)?;
        if let Some(future) = plain_future(&future) {
            futures::add_native_callback(future, &callback)?;
        }
        Ok(Watched { future, callback, waiter, timed })
    }

    /// Whether the callback has released the waiter, which it forgets then.
    fn is_released(&self) -> bool {
        DoneCallback::from_exact(&self.callback).is_some_and(|callback| callback.owner.is_empty())
    }

    fn is_pending(&self) -> bool {
        plain_future(&self.future).is_some_and(|future| future.is_pending())
    }

    fn forget(&self) -> Result<()> {
        match plain_future(&self.future) {
            Some(future) => futures::remove_native_callback(future, &self.callback),
            None => Ok(()),
        }
    }

    /// `future.result()`, while `handled` is being handled.
    fn result(&self, handled: Option<&Any>) -> Result<Object> {
        let Some(future) = plain_future(&self.future) else { return Ok(none_object()) };
        match (futures::outcome(future)?, handled) {
            (Outcome::Result, _) => Ok(future.result.get_or_none()),
            (Outcome::Exception(exception), None) => Err(Raised::exception(exception)),
            (Outcome::Exception(exception), Some(handled)) => {
                Err(handling(handled, || Raised::raise(&exception)))
            }
        }
    }

    fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.future);
        visitor.object(&self.callback);
        visitor.object(&self.waiter);
    }
}

impl Drop for Watched {
    /// The timer is cancelled, unless it has been due.
    fn drop(&mut self) {
        let Some(waiter) = Future::from_exact(&self.waiter).filter(|_| self.timed) else { return };
        let was_due = waiter.state() == FutureState::Finished && !self.is_released();
        futures::abandon(waiter);
        if !was_due {
            on_timer_cancelled(&waiter.event_loop.get_or_none());
        }
    }
}

fn release_waiter(callback: &DoneCallback, _future: &Any) -> Result<()> {
    let waiter = callback.owner.get_or_none();
    if futures::set_result_unless_done(&waiter, none())? {
        callback.owner.clear();
    }
    Ok(())
}

impl RustFuture for WaitForTask {
    type Output = Result<Object>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Object>> {
        loop {
            let outcome = match &mut self.stage {
                Stage::Created => {
                    self.stage = match self.begin() {
                        Ok(stage) => stage,
                        Err(raised) => return Poll::Ready(Err(raised)),
                    };
                    continue;
                }
                Stage::Limited(_, waiting) | Stage::Ending(_, _, waiting) | Stage::Plain(waiting) => {
                    pin!(waiting).poll(context)
                }
                Stage::Over => Poll::Ready(Ok(none_object())),
            };
            let Poll::Ready(outcome) = outcome else { return Poll::Pending };
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Limited(watched, _) => {
                    let ended = self.after_limit(&watched, outcome).map_err(Raised::take);
                    drop(watched);
                    match ended {
                        Ok(None) => {}
                        Ok(Some(value)) => return Poll::Ready(Ok(value)),
                        Err(exception) => return Poll::Ready(Err(Raised::exception(exception))),
                    }
                }
                Stage::Ending(watched, why, _) => {
                    let ended = after_end(&watched, why, outcome).map_err(Raised::take);
                    drop(watched);
                    return Poll::Ready(ended.map_err(Raised::exception));
                }
                _ => return Poll::Ready(outcome),
            }
        }
    }
}

impl Body for WaitForTask {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.awaitable);
        visitor.object(&self.timeout);
        match &self.stage {
            Stage::Limited(watched, waiting) => {
                watched.traverse(visitor);
                waiting.traverse(visitor);
            }
            Stage::Ending(watched, why, waiting) => {
                watched.traverse(visitor);
                if let Why::Cancelled(exception) = why {
                    visitor.object(exception);
                }
                waiting.traverse(visitor);
            }
            Stage::Plain(waiting) => waiting.traverse(visitor),
            Stage::Created | Stage::Over => {}
        }
    }
}
