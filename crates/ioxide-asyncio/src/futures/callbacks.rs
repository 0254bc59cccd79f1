//! The callbacks of a future that is done: out of the future, and into the loop.
//!
//! Leaves to others: adding and removing them (futures), whose invariants F1 to F3 are cited here.

use crate::event_loop::{EventLoop, Ready};
use crate::tasks::{DoneCallback, Task};
use ioxide_cpython::types::Native;
use ioxide_cpython::version::FutureObject;
use ioxide_cpython::{Any, Object, Result, context, imports, names};

/// A callback as Python sees it (F1).
pub(super) fn shown(callback: &Any) -> Result<Object> {
    match Task::from_any(callback) {
        Some(task) => crate::tasks::wakeup_function(task),
        None => Ok(callback.to_object()),
    }
}

/// The callbacks of one future, taken out of it (F2).
pub(super) struct Callbacks {
    first: Option<Object>,
    first_context: Option<Object>,
    others: Option<Object>,
}

impl Callbacks {
    pub(super) fn take(future: &FutureObject) -> Callbacks {
        Callbacks {
            first: future.callback0.take(),
            first_context: future.context0.take(),
            others: future.callbacks.take(),
        }
    }

    pub(super) fn restore(self, future: &FutureObject) {
        drop(future.callback0.replace(self.first));
        drop(future.context0.replace(self.first_context));
        drop(future.callbacks.replace(self.others));
    }

    pub(super) fn into_pairs(self) -> Result<Vec<(Object, Object)>> {
        let mut pairs = Vec::new();
        if let Some(first) = self.first {
            let first_context = match (self.first_context, Task::from_any(&first)) {
                (Some(first_context), _) => first_context,
                (None, Some(task)) => task.context.get_or_none(),
                (None, None) => context::copy_current()?,
            };
            pairs.push((first, first_context));
        }
        if let Some(others) = self.others {
            for entry in others.iterate()? {
                if let [callback, callback_context] = entry?.tuple_items() {
                    pairs.push((callback.to_object(), callback_context.to_object()));
                }
            }
        }
        Ok(pairs)
    }

    #[inline]
    pub(super) fn schedule(self, future: &FutureObject) -> Result<()> {
        if self.first.is_none() && self.others.is_none() {
            return Ok(());
        }
        let Some(event_loop) = future.event_loop.get_object() else { return Ok(()) };
        if let Some(first) = self.first {
            schedule(&event_loop, &first, future, self.first_context.as_deref())?;
        }
        if let Some(others) = self.others {
            for entry in others.iterate()? {
                if let [callback, callback_context] = entry?.tuple_items() {
                    schedule(&event_loop, callback, future, Some(callback_context))?;
                }
            }
        }
        Ok(())
    }
}

/// Schedules every callback of a future that has just become done.
#[inline]
pub fn schedule_callbacks(future: &FutureObject) -> Result<()> {
    if future.callbacks.is_empty() && future.context0.is_empty() {
        return match future.callback0.take() {
            Some(only) => schedule_only(future, only),
            None => Ok(()),
        };
    }
    Callbacks::take(future).schedule(future)
}

/// Schedules the only callback, without a context beside it (F1, F3); its reference goes on into the queue.
#[inline]
fn schedule_only(future: &FutureObject, callback: Object) -> Result<()> {
    let Some(event_loop) = future.event_loop.get_object() else { return Ok(()) };
    let Some(native) = EventLoop::fast(&event_loop) else {
        return schedule(&event_loop, &callback, future, None);
    };
    native.push_ready(match own_callback(&callback) {
        Own::Task => Ready::Wakeup(callback, future.to_object()),
        Own::Done => Ready::Done(callback, future.to_object()),
        Own::Neither => return schedule(&event_loop, &callback, future, None),
    });
    Ok(())
}

/// What ioxide's loop runs without a call (F1, F3).
enum Own {
    Task,
    Done,
    Neither,
}

#[inline(always)]
fn own_callback(callback: &Any) -> Own {
    if Task::from_exact(callback).is_some() {
        return Own::Task;
    }
    if DoneCallback::from_exact(callback).is_some() {
        return Own::Done;
    }
    if Task::is_instance(callback) { Own::Task } else { Own::Neither }
}

/// `loop.call_soon(callback, future, context=callback_context)`
#[inline]
pub(super) fn schedule(
    event_loop: &Any,
    callback: &Any,
    future: &FutureObject,
    callback_context: Option<&Any>,
) -> Result<()> {
    if let Some(native) = EventLoop::fast(event_loop) {
        let item = match own_callback(callback) {
            Own::Task => Ready::Wakeup(callback.to_object(), future.to_object()),
            Own::Done => Ready::Done(callback.to_object(), future.to_object()),
            Own::Neither => Ready::Callback {
                callback: callback.to_object(),
                future: future.to_object(),
                context: match callback_context {
                    Some(callback_context) => callback_context.to_object(),
                    None => context::copy_current()?,
                },
            },
        };
        native.push_ready(item);
        return Ok(());
    }
    let task_context = Task::from_any(callback).map(|task| task.context.get_or_none());
    let callback = shown(callback)?;
    let callback_context = callback_context.or(task_context.as_deref());
    call_soon(event_loop, &[&*callback, future], callback_context)
}

/// `loop.call_soon(*arguments, context=callback_context)` by the loop's own method, whatever loop it is.
pub fn call_soon(event_loop: &Any, arguments: &[&Any], callback_context: Option<&Any>) -> Result<()> {
    let Some(callback_context) = callback_context else {
        return event_loop.call_method(&names().call_soon, arguments).map(drop);
    };
    let mut all = arguments.to_vec();
    all.push(callback_context);
    event_loop.call_method_keywords(&names().call_soon, &all, &imports().names_context).map(drop)
}
