//! One step of a task: the coroutine runs until it yields, and what it yields says what the task waits for.
//!
//! Leaves to others: who runs steps and when (event_loop/turn).

use super::{GatheringFuture, Task, schedule_step, schedule_throw};
use crate::futures::{self, Future, Outcome};
use ioxide_cpython::coroutine::{self, Step};
use ioxide_cpython::current;
use ioxide_cpython::exception::{Builtin, exception_is, exception_matches};
use ioxide_cpython::task_registry as registry;
use ioxide_cpython::types::Native;
use ioxide_cpython::version::{FutureObject, FutureState};
use ioxide_cpython::{Any, Object, Raised, Result, context, imports, names, none};

/// Runs a scheduled step in the task's context. The loop has published the task as its current one.
#[inline]
pub fn run_step(task: &Task) -> Result<()> {
    let task_context = task.context.get_or_none();
    let event_loop = task.event_loop.get_or_none();
    context::with_context(&task_context, || advance(task, &event_loop, None))
}

/// Runs a scheduled step that begins with an exception, as `run_step`.
pub fn run_throw(task: &Task, exception: Object) -> Result<()> {
    let task_context = task.context.get_or_none();
    let event_loop = task.event_loop.get_or_none();
    context::with_context(&task_context, || advance(task, &event_loop, Some(exception)))
}

/// Runs the wake-up of a task by a future that is done, as `run_step`.
#[inline]
pub fn run_wakeup(task: &Task, future: &Any) -> Result<()> {
    let task_context = task.context.get_or_none();
    let event_loop = task.event_loop.get_or_none();
    context::with_context(&task_context, || {
        let exception = exception_of(task, future)?;
        advance(task, &event_loop, exception)
    })
}

/// The wake-up as a callback of a future: the task goes on with the future's result or exception.
pub fn wakeup(task: &Task, future: &Any) -> Result<()> {
    let exception = exception_of(task, future)?;
    step(task, exception)
}

/// What the task is to be told of the future that it waited for: nothing, or an exception.
#[inline]
fn exception_of(task: &Task, future: &Any) -> Result<Option<Object>> {
    let native = match Task::from_exact(future) {
        Some(other) => &**other,
        None => match Future::from_any(future) {
            Some(native) => &**native,
            None => return exception_of_foreign(task, future),
        },
    };
    native.awaited_by_discard(task)?;
    match futures::outcome(native) {
        Ok(Outcome::Result) => Ok(None),
        Ok(Outcome::Exception(exception)) => Ok(Some(exception)),
        Err(raised) => Ok(Some(raised.take())),
    }
}

fn exception_of_foreign(task: &Task, future: &Any) -> Result<Option<Object>> {
    if future.is_subtype_of(&imports().Future) {
        // asyncio's own futures have the very struct of ioxide's.
        ioxide_cpython::version::as_future(future).awaited_by_discard(task)?;
    }
    match future.call_method0(&names().result) {
        Ok(_) => Ok(None),
        Err(raised) => Ok(Some(raised.take())),
    }
}

/// `Task.__step`: enters the task, steps the coroutine, leaves the task.
#[inline]
pub fn step(task: &Task, exception: Option<Object>) -> Result<()> {
    let event_loop = task.event_loop.get_or_none();
    current::enter_task(&event_loop, task)?;
    let outcome = advance(task, &event_loop, exception);
    match outcome {
        Ok(()) => current::leave_task(&event_loop, task),
        Err(raised) => {
            let exception = raised.take();
            if let Err(second) = current::leave_task(&event_loop, task) {
                drop(second.take());
            }
            Err(Raised::exception(exception))
        }
    }
}

/// The first step of a task that starts at once, inside whatever task creates it.
pub fn eager_start(task: &Task, event_loop: &Any) -> Result<()> {
    let creator = current::swap_task(event_loop, task)?;
    registry::register(task)?;
    let task_context = task.context.get_or_none();
    let outcome = context::with_context(&task_context, || advance(task, event_loop, None));
    let pending = outcome.map_err(Raised::take);
    let swapped = current::swap_task(event_loop, &creator);
    if !task.is_pending() {
        task.coroutine.clear();
    }
    match pending {
        Err(exception) => {
            if let Err(second) = swapped {
                drop(second.take());
            }
            Err(Raised::exception(exception))
        }
        Ok(()) => swapped.map(drop),
    }
}

/// Steps the coroutine once and deals with what it came to.
#[inline]
fn advance(task: &Task, event_loop: &Any, exception: Option<Object>) -> Result<()> {
    if !task.is_pending() {
        return Err(already_done(task, exception.as_deref()));
    }
    let exception = match exception {
        exception if !task.must_cancel() => exception,
        exception => {
            task.set_must_cancel(false);
            match exception {
                Some(exception) if exception_matches(&exception, &imports().CancelledError) => {
                    Some(exception)
                }
                _ => Some(futures::cancelled_error(task)?),
            }
        }
    };
    task.awaited.clear();
    let Some(coroutine) = task.coroutine.get_object() else {
        return Err(Raised::runtime_error("uninitialized Task object"));
    };
    let stepped = match exception {
        None => coroutine::send(&coroutine, none()),
        Some(exception) => coroutine::throw(&coroutine, &exception),
    };
    match stepped {
        Ok(Step::Yielded(yielded)) => wait_for(task, event_loop, yielded),
        Ok(Step::Returned(value)) => finish(task, &value),
        Err(raised) => fail(task, raised),
    }
}

#[cold]
fn already_done(task: &Task, exception: Option<&Any>) -> Raised {
    let shown =
        task.repr().and_then(|task| Ok((task.to_text()?, exception.unwrap_or(none()).repr()?.to_text()?)));
    match shown {
        Ok((task, exception)) => {
            let message = format!("__step(): already done: {} {}", task.as_str(), exception.as_str());
            Raised::new(&imports().InvalidStateError, &message)
        }
        Err(raised) => raised,
    }
}

/// The coroutine returned.
#[inline]
fn finish(task: &Task, value: &Any) -> Result<()> {
    registry::unregister(task);
    if task.must_cancel() {
        // Cancelled in the very step in which the coroutine returned.
        task.set_must_cancel(false);
        let message = task.cancel_message.get_object();
        return futures::cancel(task, message.as_deref()).map(drop);
    }
    task.result.set(value.to_object());
    task.set_state(FutureState::Finished);
    futures::schedule_callbacks(task)
}

/// The coroutine raised.
fn fail(task: &Task, raised: Raised) -> Result<()> {
    registry::unregister(task);
    let exception = raised.take();
    if exception_matches(&exception, &imports().CancelledError) {
        task.cancelled_exception.set(exception);
        return futures::cancel(task, None).map(drop);
    }
    futures::set_exception(task, &exception)?;
    let leaves =
        exception_is(&exception, Builtin::KeyboardInterrupt) || exception_is(&exception, Builtin::SystemExit);
    if leaves { Err(Raised::exception(exception)) } else { Ok(()) }
}

/// The coroutine yielded: the task waits for a future, or for the next turn of the loop.
#[inline]
fn wait_for(task: &Task, event_loop: &Any, yielded: Object) -> Result<()> {
    if yielded.is_none() {
        return schedule_step(task, event_loop);
    }
    let own = Future::from_exact(&yielded).map(|future| &**future);
    let own = own.or_else(|| Task::from_exact(&yielded).map(|other| &***other));
    let own = own.or_else(|| GatheringFuture::from_exact(&yielded).map(|future| &**future));
    if let Some(future) = own
        && !yielded.is(task)
        && future.event_loop.is(event_loop)
        && future.blocking()
    {
        return wait_for_own(task, future, &yielded);
    }
    if yielded.is(task) {
        return complain(
            task,
            event_loop,
            |shown, _| format!("Task cannot await on itself: {shown}"),
            &yielded,
        );
    }
    wait_for_any(task, event_loop, yielded)
}

/// Waits for a future or task of ioxide's own, on the same loop.
#[inline]
fn wait_for_own(task: &Task, future: &FutureObject, yielded: &Object) -> Result<()> {
    future.awaited_by_add(task)?;
    future.set_blocking(false);
    if crate::event_loop::EventLoop::is_native(&task.event_loop.get_or_none()) {
        futures::add_waiting_task(future, task)?;
    } else {
        let wakeup = super::wakeup_function(task)?;
        futures::add_done_callback(future, &wakeup, &task.context.get_or_none())?;
    }
    wait(task, yielded)
}

/// Notes what the task waits for and hands on a cancellation that arrived meanwhile.
#[inline]
fn wait(task: &Task, awaited: &Object) -> Result<()> {
    task.awaited.set(awaited.clone());
    if task.must_cancel() {
        let message = task.cancel_message.get_or_none();
        if super::cancel_with_message(awaited, &message)? {
            task.set_must_cancel(false);
        }
    }
    Ok(())
}

/// Waits for anything that behaves as a future, by its Python methods; complains about everything else.
fn wait_for_any(task: &Task, event_loop: &Any, yielded: Object) -> Result<()> {
    let blocking = yielded.get_attribute_optional(&names()._asyncio_future_blocking)?;
    let Some(blocking) = blocking.filter(|blocking| !blocking.is_none()) else {
        return bad_yield(task, event_loop, &yielded);
    };
    let blocking = blocking.is_true()?;
    if !future_loop(&yielded)?.is(event_loop) {
        let message = |task: &str, future: &str| {
            format!("Task {task} got Future {future} attached to a different loop")
        };
        return complain(task, event_loop, message, &yielded);
    }
    if !blocking {
        let message = |task: &str, future: &str| {
            format!("yield was used instead of yield from in task {task} with {future}")
        };
        return complain(task, event_loop, message, &yielded);
    }
    if yielded.is_subtype_of(&imports().Future) {
        ioxide_cpython::version::as_future(&yielded).awaited_by_add(task)?;
    }
    yielded.set_attribute(&names()._asyncio_future_blocking, &ioxide_cpython::boolean(false))?;
    let wakeup = super::wakeup_function(task)?;
    let task_context = task.context.get_or_none();
    yielded.call_method_keywords(
        &names().add_done_callback,
        &[&wakeup, &task_context],
        &imports().names_context,
    )?;
    wait(task, &yielded)
}

/// `asyncio.futures._get_loop`
fn future_loop(future: &Any) -> Result<Object> {
    match future.get_attribute_optional(&names().get_loop)? {
        Some(get_loop) => get_loop.call0(),
        None => future.get_attribute(&names()._loop),
    }
}

#[cold]
fn bad_yield(task: &Task, event_loop: &Any, yielded: &Any) -> Result<()> {
    if coroutine::is_generator(yielded) {
        let message = |task: &str, generator: &str| {
            format!("yield was used instead of yield from for generator in task {task} with {generator}")
        };
        return complain(task, event_loop, message, yielded);
    }
    complain(task, event_loop, |_, yielded| format!("Task got bad yield: {yielded}"), yielded)
}

/// Throws a RuntimeError about what the coroutine yielded into it, in the next turn.
#[cold]
fn complain(
    task: &Task,
    event_loop: &Any,
    message: impl FnOnce(&str, &str) -> String,
    yielded: &Any,
) -> Result<()> {
    let task_shown = task.repr()?.to_text()?;
    let yielded_shown = yielded.repr()?.to_text()?;
    let message = message(task_shown.as_str(), yielded_shown.as_str());
    let error =
        ioxide_cpython::builtin(Builtin::RuntimeError).call1(&*ioxide_cpython::value::text(&message)?)?;
    schedule_throw(task, event_loop, error)
}
