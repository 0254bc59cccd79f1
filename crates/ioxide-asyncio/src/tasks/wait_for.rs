//! `wait_for` as it is since 3.12: what is awaited runs in the caller's own task, which a deadline cancels.
//!
//! Native is what nearly every call is: a positive time limit or none, on ioxide's own loop, in a task of ioxide's. Everything
//! else is asyncio's own.
//!
//! Leaves to others: what it is on 3.11 (wait_for_task).
//!
//! Invariants:
//! L1. While a wait is `LIMITED`, `kept` is its deadline and `number` how often the cancellation of the deadline's task had
//!     been requested before.

use super::deadline::SHORTEST_TIMEOUT;
use super::wait_for_task::WaitForTask;
use super::{Deadline, Task, originals, spawning_loop};
use crate::event_loop::EventLoop;
use crate::futures::own;
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::timeouts;
use ioxide_cpython::coroutine::{is_native_coroutine, traced_coroutine};
use ioxide_cpython::current::current_task;
use ioxide_cpython::exception::set_context;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::types::Native;
use ioxide_cpython::version::WAITS_IN_OWN_TASK;
use ioxide_cpython::{Any, Object, Raised, Result, names, none};

const WAIT_FOR: Signature<2> =
    Signature { function: "wait_for", names: ["fut", "timeout"], required: 2, positional: 2 };

/// `wait_for(fut, timeout)`
pub fn wait_for(arguments: Arguments<'_>) -> Result<Object> {
    let [awaitable, timeout] = WAIT_FOR.bind(arguments)?;
    wait_for_at_most(awaitable.unwrap_or(none()), timeout.unwrap_or(none()))
}

/// `wait_for(awaitable, timeout)`, for ioxide's own use.
pub fn wait_for_at_most(awaitable: &Any, timeout: &Any) -> Result<Object> {
    if !WAITS_IN_OWN_TASK {
        return traced_coroutine("wait_for", WaitForTask::new(awaitable.to_object(), timeout.to_object()));
    }
    procedure(&WAIT, awaitable, Some(timeout))
}

/// The owner is the awaitable, the argument the time limit.
static WAIT: Routine = Routine { qualified_name: "wait_for", step: wait_step };

/// With a deadline of ioxide's (L1), not in asyncio's own coroutine.
const LIMITED: u32 = 1;

fn wait_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let outcome = match resumed {
        Resumed::Started => return begin(procedure),
        Resumed::Done(value) => Ok(value),
        Resumed::Raised(exception) => Err(exception),
    };
    let outcome = match procedure.stage.get() {
        LIMITED => end(procedure, outcome),
        _ => outcome.map_err(Raised::exception),
    };
    outcome.map(Progress::Return)
}

#[inline]
fn begin(procedure: &Procedure) -> Result<Progress> {
    let (awaitable, timeout) = (procedure.owner(), procedure.argument.get_or_none());
    let is_armed = match timeout.as_plain_number() {
        Some(timeout) if timeout >= SHORTEST_TIMEOUT && is_plain(awaitable) => arm(procedure, timeout)?,
        _ => false,
    };
    match is_armed {
        true => Ok(Progress::Await(awaitable.to_object())),
        false => originals().wait_for.call(&[awaitable, &*timeout]).map(Progress::Await),
    }
}

fn is_plain(awaitable: &Any) -> bool {
    own(awaitable).is_some() || is_native_coroutine(awaitable)
}

/// Whether loop and task are ioxide's, so that there is a deadline.
#[inline]
fn arm(procedure: &Procedure, timeout: f64) -> Result<bool> {
    let Some(event_loop) = spawning_loop()? else { return Ok(false) };
    let (Some(native), Some(current)) = (EventLoop::from_any(&event_loop), current_task(&event_loop)?) else {
        return Ok(false);
    };
    let Some(task) = Task::from_exact(&current) else { return Ok(false) };
    procedure.number.set(i64::from(task.cancels_requested()));
    procedure.stage.set(LIMITED);
    procedure.kept.set(Deadline::arm(native, native.seconds() + timeout, &current, super::cancel_any)?);
    Ok(true)
}

/// The wait is over, in time or not: the deadline in the timers is nobody's any more.
#[inline]
fn end(procedure: &Procedure, outcome: std::result::Result<Object, Object>) -> Result<Object> {
    let kept = procedure.kept.take();
    match kept.as_deref().and_then(Deadline::from_exact) {
        Some(deadline) if deadline.has_expired() => end_too_late(procedure, &deadline.target(), outcome),
        Some(deadline) => {
            deadline.cancel();
            outcome.map_err(Raised::exception)
        }
        None => outcome.map_err(Raised::exception),
    }
}

/// The deadline has cancelled `task`. Fails: TimeoutError, unless what is awaited ended otherwise.
#[cold]
fn end_too_late(
    procedure: &Procedure,
    task: &Any,
    outcome: std::result::Result<Object, Object>,
) -> Result<Object> {
    let left = task.call_method0(&names().uncancel)?.to_i64()?;
    let exception = match outcome {
        Err(exception) if left <= procedure.number.get() => exception,
        outcome => return outcome.map_err(Raised::exception),
    };
    let explained = timeouts::explain_expiry(exception.get_type(), Some(&exception));
    Err(match explained.map_err(Raised::take) {
        Ok(()) => Raised::exception(exception),
        Err(timeout) => {
            set_context(&timeout, &exception);
            Raised::exception(timeout)
        }
    })
}
