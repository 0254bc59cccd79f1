//! `create_task` and `ensure_future`: on ioxide's own loop a task is made directly; everywhere else asyncio's own run.

use super::{Task, TaskOptions, originals, plain_future};
use crate::event_loop::EventLoop;
use crate::futures::own;
use ioxide_cpython::coroutine::is_native_coroutine;
use ioxide_cpython::current::running_loop;
use ioxide_cpython::methods::{Arguments, given, name_is};
use ioxide_cpython::{Any, Object, Result, boolean};

/// The running loop, if tasks can be made on it without asking anybody.
#[inline]
pub fn spawning_loop() -> Result<Option<Object>> {
    let event_loop = running_loop()?;
    Ok(event_loop.filter(|event_loop| {
        EventLoop::plain(event_loop).is_some_and(|native| native.get_task_factory().is_none())
    }))
}

/// `create_task(coro, *, name=None, context=None, eager_start=False)`; from 3.14 on other keywords are the factory's business.
pub fn create_task(arguments: Arguments<'_>) -> Result<Object> {
    let mut options = TaskOptions::default();
    let ([coroutine], Some(event_loop), true) =
        (arguments.positional(), spawning_loop()?, take_options(arguments, &mut options))
    else {
        return arguments.call(&originals().create_task);
    };
    match EventLoop::plain(&event_loop) {
        Some(native) => Task::create(native, coroutine, options),
        None => arguments.call(&originals().create_task),
    }
}

/// Whether the keywords are the task's own, and not the business of asyncio's function or a factory.
fn take_options<'a>(arguments: Arguments<'a>, options: &mut TaskOptions<'a>) -> bool {
    for (keyword, value) in arguments.keywords() {
        if name_is(keyword, "name") {
            options.name = given(Some(value));
        } else if name_is(keyword, "context") {
            options.context = given(Some(value));
        } else if name_is(keyword, "eager_start") && (value.is(&boolean(true)) || value.is(&boolean(false))) {
            options.eager_start = value.is(&boolean(true));
        } else {
            return false;
        }
    }
    true
}

/// `ensure_future(coro_or_future, *, loop=None)`
pub fn ensure_future(arguments: Arguments<'_>) -> Result<Object> {
    if let ([awaitable], false) = (arguments.positional(), arguments.has_keywords()) {
        if own(awaitable).is_some() {
            return Ok(awaitable.to_object());
        }
        if is_native_coroutine(awaitable)
            && let Some(event_loop) = spawning_loop()?
        {
            return spawn(&event_loop, awaitable);
        }
    }
    arguments.call(&originals().ensure_future)
}

/// Whether `future_of` has something to give: a coroutine, or a future or task of this loop.
#[inline]
pub fn can_run(event_loop: &EventLoop, awaitable: &Any) -> bool {
    match plain_future(awaitable) {
        Some(future) => future.event_loop.is(event_loop),
        None => is_native_coroutine(awaitable),
    }
}

/// The future or task itself, or a task for the coroutine.
#[inline]
pub fn future_of(event_loop: &EventLoop, awaitable: &Any) -> Result<Object> {
    match plain_future(awaitable) {
        Some(_) => Ok(awaitable.to_object()),
        None => spawn(event_loop, awaitable),
    }
}

/// A task on a loop that `spawning_loop` gave.
#[inline]
pub fn spawn(event_loop: &Any, coroutine: &Any) -> Result<Object> {
    match EventLoop::from_any(event_loop) {
        Some(native) => Task::create(native, coroutine, TaskOptions::default()),
        None => originals().ensure_future.call1(coroutine),
    }
}
