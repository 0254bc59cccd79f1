//! `run_coroutine_threadsafe`: a coroutine handed to a loop from another thread.
//!
//! Leaves to others: how the task and the future that the caller waits for hang together (`futures::chain`).
//!
//! Invariants:
//! S1. Only the loop's thread makes the task: `Submission` goes there by `call_soon_threadsafe`.

use super::originals;
use super::spawn::{spawn, spawning_loop};
use crate::futures::chain::chain;
use ioxide_cpython::coroutine::is_native_coroutine;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, method0};
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, allocate, head};
use ioxide_cpython::value::tuple;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, imports, names, none};

#[repr(C)]
struct Submission {
    head: Any,
    coroutine: Slot,
    event_loop: Slot,
    /// The `concurrent.futures.Future` that the caller waits for.
    future: Slot,
}

static SUBMISSION: Once<Class> = Once::new();
static CALLBACK: Once<FunctionDefinition> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Submission {
    fn class() -> &'static Once<Class> {
        &SUBMISSION
    }
}

pub(super) fn initialize() -> Result<()> {
    SUBMISSION.set(NativeClass::core::<Submission>(c"ioxide.Submission")?);
    CALLBACK.set(FunctionDefinition::new(method0(c"callback", Submission::begin)));
    Ok(())
}

const RUN: Signature<2> =
    Signature { function: "run_coroutine_threadsafe", names: ["coro", "loop"], required: 2, positional: 2 };

/// `run_coroutine_threadsafe(coro, loop)`
pub fn run_coroutine_threadsafe(arguments: Arguments<'_>) -> Result<Object> {
    let [coroutine, event_loop] = RUN.bind(arguments)?.map(|argument| argument.unwrap_or(none()));
    if !is_native_coroutine(coroutine) && !imports().iscoroutine.call1(coroutine)?.is_true()? {
        return Err(Raised::type_error("A coroutine object is required"));
    }
    let future = imports().ConcurrentFuture.call0()?;
    let submission = allocate(Submission {
        head: head(),
        coroutine: Slot::filled(coroutine.to_object()),
        event_loop: Slot::filled(event_loop.to_object()),
        future: Slot::filled(future.clone()),
    })?;
    let callback = CALLBACK.get().bind(&submission)?;
    event_loop.call_method1(&names().call_soon_threadsafe, &callback)?;
    Ok(future)
}

impl Submission {
    /// Makes the task, in the loop's thread. What goes wrong is told to the caller and to the loop.
    fn begin(&self) -> Result<()> {
        let (coroutine, event_loop) = (self.coroutine.get_or_none(), self.event_loop.get_or_none());
        let future = self.future.get_or_none();
        let begun = task(&coroutine, &event_loop).and_then(|task| chain(&task, &future, false));
        match begun {
            Err(raised) if !raised.leaves_the_loop() => {
                let exception = raised.take();
                if future.call_method0(&names().set_running_or_notify_cancel)?.is_true()? {
                    future.call_method1(&names().set_exception, &exception)?;
                }
                Err(Raised::exception(exception))
            }
            begun => begun,
        }
    }
}

/// `ensure_future(coroutine, loop=event_loop)`
fn task(coroutine: &Any, event_loop: &Any) -> Result<Object> {
    if is_native_coroutine(coroutine)
        && let Some(running) = spawning_loop()?
        && running.is(event_loop)
    {
        return spawn(&running, coroutine);
    }
    let keywords = tuple(&[&names().event_loop])?;
    originals().ensure_future.call_keywords(&[coroutine, event_loop], &keywords, 1)
}

impl Submission {
    fn slots(&self) -> [&Slot; 3] {
        [&self.coroutine, &self.event_loop, &self.future]
    }
}

impl Traverse for Submission {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
    }
}
