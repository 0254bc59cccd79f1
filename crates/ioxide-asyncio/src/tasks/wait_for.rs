//! `wait_for` as it is since 3.12: what is awaited runs in the caller's own task, which a deadline cancels.
//!
//! Native is what nearly every call is: a positive time limit or none, on ioxide's own loop, in a task of ioxide's. Everything
//! else is asyncio's own.
//!
//! Leaves to others: what it is on 3.11 (wait_for_task).

use super::deadline::SHORTEST_TIMEOUT;
use super::wait_for_task::WaitForTask;
use super::{Deadline, Task, originals, spawning_loop};
use crate::event_loop::EventLoop;
use crate::futures::own;
use crate::timeouts;
use ioxide_cpython::coroutine::{Body, Waiting, is_native_coroutine, traced_coroutine, wait_for as wait};
use ioxide_cpython::current::current_task;
use ioxide_cpython::exception::set_context;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::types::Native;
use ioxide_cpython::version::WAITS_IN_OWN_TASK;
use ioxide_cpython::{Object, Raised, Result, names, none};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

const WAIT_FOR: Signature<2> =
    Signature { function: "wait_for", names: ["fut", "timeout"], required: 2, positional: 2 };

/// `wait_for(fut, timeout)`
pub fn wait_for(arguments: Arguments<'_>) -> Result<Object> {
    let [awaitable, timeout] = WAIT_FOR.bind(arguments)?;
    let awaitable = awaitable.unwrap_or(none()).to_object();
    let timeout = timeout.unwrap_or(none()).to_object();
    if !WAITS_IN_OWN_TASK {
        return traced_coroutine("wait_for", WaitForTask::new(awaitable, timeout));
    }
    traced_coroutine("wait_for", WaitFor { awaitable, timeout, stage: Stage::Created })
}

struct WaitFor {
    awaitable: Object,
    timeout: Object,
    stage: Stage,
}

enum Stage {
    Created,
    Limited(Limit, Waiting),
    /// In asyncio's own coroutine.
    Borrowed(Waiting),
    Over,
}

/// The deadline of a wait, whose task it cancels.
struct Limit {
    deadline: Object,
    task: Object,
    /// How often the task's cancellation had been requested before.
    cancelling: i64,
}

impl Future for WaitFor {
    type Output = Result<Object>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Object>> {
        if let Stage::Created = &self.stage {
            self.stage = match self.begin() {
                Ok(stage) => stage,
                Err(raised) => return Poll::Ready(Err(raised)),
            };
        }
        let outcome = match &mut self.stage {
            Stage::Limited(_, waiting) | Stage::Borrowed(waiting) => pin!(waiting).poll(context),
            Stage::Created | Stage::Over => Poll::Ready(Ok(ioxide_cpython::none_object())),
        };
        let Poll::Ready(outcome) = outcome else { return Poll::Pending };
        Poll::Ready(match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Limited(limit, _) => limit.end(outcome),
            _ => outcome,
        })
    }
}

impl WaitFor {
    #[inline]
    fn begin(&self) -> Result<Stage> {
        let limit = match self.timeout.as_plain_number() {
            Some(timeout) if timeout >= SHORTEST_TIMEOUT && self.is_plain() => Limit::arm(timeout)?,
            _ => None,
        };
        match limit {
            Some(limit) => Ok(Stage::Limited(limit, wait(&self.awaitable))),
            None => {
                let coroutine = originals().wait_for.call(&[&*self.awaitable, &*self.timeout])?;
                Ok(Stage::Borrowed(wait(&coroutine)))
            }
        }
    }

    fn is_plain(&self) -> bool {
        own(&self.awaitable).is_some() || is_native_coroutine(&self.awaitable)
    }
}

impl Limit {
    /// `None` where the loop or the task is not ioxide's.
    #[inline]
    fn arm(timeout: f64) -> Result<Option<Limit>> {
        let Some(event_loop) = spawning_loop()? else { return Ok(None) };
        let (Some(native), Some(task)) = (EventLoop::from_any(&event_loop), current_task(&event_loop)?)
        else {
            return Ok(None);
        };
        let Some(cancelling) = Task::from_exact(&task).map(|task| i64::from(task.cancels_requested())) else {
            return Ok(None);
        };
        let when = native.seconds() + timeout;
        let deadline = Deadline::arm(native, when, &task, super::cancel_any)?;
        Ok(Some(Limit { deadline, task, cancelling }))
    }

    /// The wait is over, in time or not.
    #[inline]
    fn end(self, outcome: Result<Object>) -> Result<Object> {
        let expired = Deadline::from_exact(&self.deadline).is_some_and(Deadline::has_expired);
        if !expired {
            let pending = outcome.map_err(Raised::take);
            drop(self);
            return pending.map_err(Raised::exception);
        }
        let pending = outcome.map_err(Raised::take);
        let left = self.task.call_method0(&names().uncancel)?.to_i64()?;
        match pending {
            Err(exception) if left <= self.cancelling => {
                let explained = timeouts::explain_expiry(exception.get_type(), Some(&exception));
                Err(match explained.map_err(Raised::take) {
                    Ok(()) => Raised::exception(exception),
                    Err(timeout) => {
                        set_context(&timeout, &exception);
                        Raised::exception(timeout)
                    }
                })
            }
            Err(exception) => Err(Raised::exception(exception)),
            Ok(value) => Ok(value),
        }
    }

    fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.deadline);
        visitor.object(&self.task);
    }
}

impl Drop for Limit {
    /// The deadline in the timers is nobody's any more.
    fn drop(&mut self) {
        if let Some(deadline) = Deadline::from_exact(&self.deadline) {
            deadline.cancel();
        }
    }
}

impl Body for WaitFor {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.awaitable);
        visitor.object(&self.timeout);
        match &self.stage {
            Stage::Limited(limit, waiting) => {
                limit.traverse(visitor);
                waiting.traverse(visitor);
            }
            Stage::Borrowed(waiting) => waiting.traverse(visitor),
            Stage::Created | Stage::Over => {}
        }
    }
}
