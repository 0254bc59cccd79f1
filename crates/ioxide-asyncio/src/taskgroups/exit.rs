//! `TaskGroup.__aexit__`: waits for the tasks, then decides which exception leaves the group.

use super::{RULES, TaskGroup, is_base_error, is_cancellation, is_true};
use crate::futures;
use ioxide_cpython::coroutine::wait_for;
use ioxide_cpython::exception::{Builtin, builtin, set_cause};
use ioxide_cpython::methods::Signature;
use ioxide_cpython::types::Native;
use ioxide_cpython::value::text;
use ioxide_cpython::{Any, Object, Raised, Result, boolean, imports, names, none, none_object};

pub const AEXIT: Signature<3> =
    Signature { function: "TaskGroup.__aexit__", names: ["et", "exc", "tb"], required: 3, positional: 3 };

/// The body of `__aexit__(class, raised, traceback)`.
pub async fn leave(this: Object, class: Option<Object>, raised: Option<Object>) -> Result<Object> {
    let Some(group) = TaskGroup::from_any(&this) else { return Ok(none_object()) };
    let outcome = group.finish(class.as_deref(), raised.as_deref()).await;
    let pending = outcome.map_err(Raised::take);
    group.done_callback.clear();
    if RULES.get().forgets_on_exit {
        group.parent_task.set(none_object());
        group.errors.set(none_object());
        group.base_error.set(none_object());
    }
    match pending {
        Ok(suppresses) => Ok(if suppresses { boolean(true) } else { none_object() }),
        Err(exception) => Err(Raised::exception(exception)),
    }
}

/// What waiting for the tasks brought.
struct Waited {
    /// The cancellation that leaves the group unless something more important does.
    propagates: Option<Object>,
    /// The last cancellation that interrupted the wait.
    last: Option<Object>,
}

impl TaskGroup {
    /// Whether the exception that leaves the body is suppressed. Fails: with what leaves the group.
    async fn finish(&self, class: Option<&Any>, raised: Option<&Any>) -> Result<bool> {
        let rules = RULES.get();
        self.exiting.set(boolean(true));
        if let Some(raised) = raised.filter(|raised| is_base_error(raised))
            && self.base_error.get_or_none().is_none()
        {
            self.base_error.set(raised.to_object());
        }
        let is_cancelled = class.map_or(Ok(false), is_cancellation)?;
        let mut propagates = raised.filter(|_| is_cancelled).map(Any::to_object);
        let asked_before = is_true(&self.parent_cancel_requested);
        if rules.uncancels_before_waiting && asked_before && self.uncancel_parent()? {
            propagates = None;
        }
        if class.is_some() && !is_true(&self.aborting) {
            self.abort_by_method()?;
        }
        let Waited { mut propagates, last } = self.wait_for_tasks(propagates).await?;
        let base_error = self.base_error.get_or_none();
        if !base_error.is_none() {
            return Err(Raised::raise(&base_error));
        }
        if self.must_uncancel(asked_before)? {
            if self.uncancel_parent()? {
                propagates = None;
            } else if propagates.is_none() && rules.keeps_other_cancellation {
                propagates = last;
            }
        }
        if let Some(cancellation) = propagates
            && !self.has_errors()?
        {
            return Err(Raised::raise(&cancellation));
        }
        if let Some(raised) = raised.filter(|_| !is_cancelled) {
            self.errors.get_or_none().list_append(raised)?;
        }
        if self.has_errors()? {
            return Err(self.raise_errors(class, raised)?);
        }
        // With an exception of the body only `cancel` leads here.
        Ok(class.is_some() || rules.always_suppresses)
    }

    /// Cancellations do not end the wait; the first one aborts the group.
    async fn wait_for_tasks(&self, propagates: Option<Object>) -> Result<Waited> {
        let mut waited = Waited { propagates, last: None };
        while self.has_tasks()? {
            if self.on_completed.get_or_none().is_none() {
                self.on_completed.set(futures::create_any(&self.event_loop.get_or_none())?);
            }
            let waiter = self.on_completed.get_or_none();
            match wait_for(&waiter).await {
                Ok(_) => {}
                Err(raised) if raised.matches(&imports().CancelledError) => {
                    let cancellation = raised.take();
                    if !is_true(&self.aborting) {
                        waited.propagates = Some(cancellation.clone());
                        self.abort_by_method()?;
                    }
                    waited.last = Some(cancellation);
                }
                Err(raised) => return Err(raised),
            }
            self.on_completed.set(none_object());
        }
        Ok(waited)
    }

    fn has_errors(&self) -> Result<bool> {
        self.errors.get_or_none().is_true()
    }

    /// Whether the group's request to cancel its parent is to be taken back after the wait.
    fn must_uncancel(&self, asked_before: bool) -> Result<bool> {
        if !is_true(&self.parent_cancel_requested) {
            return Ok(false);
        }
        // Where asyncio takes it back before the wait, what came later is `cancel`, which those versions do not have.
        Ok(!RULES.get().uncancels_before_waiting || (!asked_before && !self.has_errors()?))
    }

    /// Takes one request to cancel the parent back; whether none is left.
    fn uncancel_parent(&self) -> Result<bool> {
        let left = self.parent_task.get_or_none().call_method0(&names().uncancel)?;
        Ok(left.to_i64()? == 0)
    }

    /// The errors as they leave: an exception group, as a rule.
    fn raise_errors(&self, class: Option<&Any>, raised: Option<&Any>) -> Result<Raised> {
        let parent = self.parent_task.get_or_none();
        if RULES.get().keeps_cancel_count && crate::tasks::cancelling(&parent)? != 0 {
            // Somebody else wants the parent cancelled: the request stays, and is delivered at its next wait.
            parent.call_method0(&names().uncancel)?;
            crate::tasks::cancel_any(&parent)?;
        }
        let errors = self.errors.replace(Some(none_object())).unwrap_or_else(none_object);
        if let (Some(class), Some(raised)) = (class, raised)
            && RULES.get().lets_generator_exit_out
            && class.is_subclass(builtin(Builtin::GeneratorExit))?
            && errors.length()? == 1
        {
            return Ok(Raised::raise(raised));
        }
        let message = text("unhandled errors in a TaskGroup")?;
        let group = imports().BaseExceptionGroup.call(&[&*message, &*errors])?;
        set_cause(&group, none());
        Ok(Raised::raise(&group))
    }
}
