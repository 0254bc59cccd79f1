//! `Future`: a real subclass of `asyncio.Future` that keeps its state in asyncio's own fields.
//!
//! What schedules callbacks is written here, so that finishing a future wakes its waiters without a call
//! through Python. Everything else (`result`, `exception`, `done`, `__await__`, reprs, the report of exceptions
//! that nobody retrieved) is inherited: it reads the same fields.
//!
//! Invariants:
//! F1. A callback that is an ioxide Task stands for that task's wake-up and is shown to Python as its
//!     `task_wakeup` function. It is only put there when the loop of both is an ioxide loop.
//! F2. Callbacks leave the future before any of them is scheduled.
//! F3. A `DoneCallback` in the first callback field has no context beside it; ioxide's loop runs it without one.

mod callbacks;
pub mod chain;

pub use callbacks::{call_soon, schedule_callbacks};

use self::callbacks::{Callbacks, schedule, shown};
use crate::event_loop::EventLoop;
use crate::tasks::Task;
use ioxide_cpython::call::bound_method;
use ioxide_cpython::coroutine::await_without_iterator;
use ioxide_cpython::freelist::{FreeList, Recycled};
use ioxide_cpython::methods::{Arguments, Signature, getter, method, method1};
use ioxide_cpython::types::{Class, Native, NativeClass};
use ioxide_cpython::value::{list, tuple};
use ioxide_cpython::version::{FutureObject, FutureState, clear_instance_attributes};
use ioxide_cpython::{Any, Object, Once, Raised, Result, context, imports, names, none, none_object};
use std::ffi::CStr;
use std::ops::Deref;

pub use ioxide_cpython::outcome::{Outcome, cancelled_error, outcome};

#[repr(transparent)]
pub struct Future(FutureObject);

static FUTURE: Once<Class> = Once::new();
static FREE_FUTURES: FreeList<Future> = FreeList::new(8192);
static BASE: Once<BaseMethods> = Once::new();

/// Methods of `asyncio.Future` that ioxide's add scheduling to.
struct BaseMethods {
    set_exception: Object,
}

// SAFETY: transparent over the struct of asyncio.Future, which the class derives from.
unsafe impl Native for Future {
    fn class() -> &'static Once<Class> {
        &FUTURE
    }
}

impl Deref for Future {
    type Target = FutureObject;
    #[inline(always)]
    fn deref(&self) -> &FutureObject {
        &self.0
    }
}

impl Recycled for Future {
    fn free_list() -> &'static FreeList<Future> {
        &FREE_FUTURES
    }

    fn wants_finalizer(&self) -> bool {
        self.log_traceback()
    }

    fn release(&self) {
        clear_instance_attributes(self);
        self.clear_fields();
    }
}

/// Creates the class.
pub fn initialize() -> Result<()> {
    let base = &imports().Future;
    BASE.set(BaseMethods { set_exception: base.get_attribute(&names().set_exception)? });
    FUTURE.set(
        NativeClass::new::<Future>(c"ioxide.Future")
            .doc(c"A result that arrives later, as asyncio.Future.")
            .subclassable()
            .collected_by_base(base)
            .recycled::<Future>()
            .methods(vec![
                method1(SET_RESULT, |this: &Future, result: &Any| set_result(this, result)),
                method1(c"set_exception", |this: &Future, exception: &Any| set_exception(this, exception)),
                method(c"cancel", |this: &Future, arguments: Arguments<'_>| {
                    let [message] = CANCEL.bind(arguments)?;
                    cancel(this, message)
                }),
                method(c"add_done_callback", |this: &Future, arguments: Arguments<'_>| {
                    add_done_callback_method(this, arguments)
                }),
                method1(c"remove_done_callback", |this: &Future, callback: &Any| {
                    remove_done_callback(this, callback)
                }),
            ])
            .attributes(vec![getter(c"_callbacks", |this: &Future| callbacks(this))])
            .create(&[base])?,
    );
    await_without_iterator(FUTURE.get());
    Ok(())
}

const SET_RESULT: &CStr = c"set_result";

pub const CANCEL: Signature<1> = Signature { function: "cancel", names: ["msg"], required: 0, positional: 1 };

/// `loop.create_future()`
#[inline]
pub fn create(event_loop: &EventLoop) -> Result<Object> {
    let object = FREE_FUTURES.allocate()?;
    if let Some(future) = Future::from_exact(&object) {
        future.event_loop.initialize(Some(event_loop.to_object()));
        if let Some(traceback) = event_loop.creation_traceback()? {
            future.source_traceback.initialize(Some(traceback));
        }
    }
    Ok(object)
}

/// The future whose bound method `set_result` the callback is, if that is ioxide's own.
#[inline]
pub fn of_set_result(callback: &Any) -> Option<&Future> {
    bound_method(callback, SET_RESULT).and_then(Future::from_exact)
}

/// `future.set_result(result)` of whatever future it is, unless it is cancelled.
#[inline]
pub fn set_result_unless_cancelled(future: &Any, result: &Any) -> Result<()> {
    if let Some(native) = Future::from_exact(future) {
        return if native.state() == FutureState::Cancelled { Ok(()) } else { set_result(native, result) };
    }
    if future.call_method0(&names().cancelled)?.is_true()? {
        return Ok(());
    }
    future.call_method1(&names().set_result, result).map(drop)
}

/// `future.set_exception(exception)` of whatever future it is, unless it is cancelled.
pub fn set_exception_unless_cancelled(future: &Any, exception: &Any) -> Result<()> {
    if future.call_method0(&names().cancelled)?.is_true()? {
        return Ok(());
    }
    future.call_method1(&names().set_exception, exception).map(drop)
}

/// `if not future.done(): future.set_result(result)`, whatever future it is. Returns whether it was not done.
#[inline]
pub fn set_result_unless_done(future: &Any, result: &Any) -> Result<bool> {
    if let Some(native) = Future::from_exact(future) {
        let pending = native.is_pending();
        if pending {
            set_result(native, result)?;
        }
        return Ok(pending);
    }
    if future.call_method0(&names().done)?.is_true()? {
        return Ok(false);
    }
    future.call_method1(&names().set_result, result).map(|_| true)
}

/// `future.cancel()`, whatever future it is.
pub fn cancel_any(future: &Any) -> Result<()> {
    match Future::from_exact(future) {
        Some(native) => cancel(native, None).map(drop),
        None => future.call_method0(&names().cancel).map(drop),
    }
}

/// `future.cancelled()`, whatever future it is.
#[inline]
pub fn is_cancelled(future: &Any) -> Result<bool> {
    match Future::from_exact(future) {
        Some(native) => Ok(native.state() == FutureState::Cancelled),
        None => future.call_method0(&names().cancelled)?.is_true(),
    }
}

/// `future.done()`, whatever future it is.
#[inline]
pub fn is_done(future: &Any) -> Result<bool> {
    match Future::from_exact(future) {
        Some(native) => Ok(!native.is_pending()),
        None => future.call_method0(&names().done)?.is_true(),
    }
}

/// `future.set_result(result)`. Fails: InvalidStateError; what scheduling the callbacks fails with.
pub fn set_result(future: &FutureObject, result: &Any) -> Result<()> {
    check_initialized(future)?;
    if !future.is_pending() {
        return Err(invalid_state());
    }
    future.result.set(result.to_object());
    future.set_state(FutureState::Finished);
    schedule_callbacks(future)
}

#[inline(always)]
fn check_initialized(future: &FutureObject) -> Result<()> {
    if future.event_loop.is_empty() {
        return Err(Raised::runtime_error("Future object is not initialized."));
    }
    Ok(())
}

#[cold]
fn invalid_state() -> Raised {
    Raised::new(&imports().InvalidStateError, "invalid state")
}

/// `asyncio.Future.set_exception(future, exception)`, with the callbacks scheduled by ioxide.
pub fn set_exception(future: &FutureObject, exception: &Any) -> Result<()> {
    let waiting = Callbacks::take(future);
    match BASE.get().set_exception.call(&[&**future, exception]) {
        Ok(_) => waiting.schedule(future),
        Err(raised) => {
            waiting.restore(future);
            Err(raised)
        }
    }
}

/// `future.cancel(msg)`: whether the future was still pending.
pub fn cancel(future: &FutureObject, message: Option<&Any>) -> Result<bool> {
    check_initialized(future)?;
    future.set_log_traceback(false);
    if !future.is_pending() {
        return Ok(false);
    }
    future.set_state(FutureState::Cancelled);
    future.cancel_message.set(message.unwrap_or(none()).to_object());
    schedule_callbacks(future)?;
    Ok(true)
}

const ADD_DONE_CALLBACK: Signature<2> =
    Signature { function: "add_done_callback", names: ["fn", "context"], required: 1, positional: 1 };

/// `future.add_done_callback(fn, *, context=None)`
pub fn add_done_callback_method(future: &FutureObject, arguments: Arguments<'_>) -> Result<()> {
    let [callback, callback_context] = ADD_DONE_CALLBACK.bind(arguments)?;
    let callback = callback.unwrap_or(none());
    let callback_context = match ioxide_cpython::methods::given(callback_context) {
        Some(callback_context) => callback_context.to_object(),
        None => context::copy_current()?,
    };
    add_done_callback(future, callback, &callback_context)
}

/// Fails: RuntimeError for a future without a loop.
pub fn add_done_callback(future: &FutureObject, callback: &Any, callback_context: &Any) -> Result<()> {
    let Some(event_loop) = future.event_loop.get_object() else {
        return Err(Raised::runtime_error("uninitialized Future object"));
    };
    if !future.is_pending() {
        return schedule(&event_loop, callback, future, Some(callback_context));
    }
    if future.callbacks.is_empty() && future.callback0.is_empty() {
        future.callback0.set(callback.to_object());
        future.context0.set(callback_context.to_object());
        return Ok(());
    }
    let entry = tuple(&[callback, callback_context])?;
    if future.callbacks.is_empty() {
        future.callbacks.set(list()?);
    }
    match future.callbacks.get_object() {
        Some(callbacks) => callbacks.list_append(&entry),
        None => Ok(()),
    }
}

/// `event_loop.create_future()`, of any loop.
#[inline]
pub fn create_any(event_loop: &Any) -> Result<Object> {
    match EventLoop::fast(event_loop) {
        Some(native) if native.has_own_create_future() => create(native),
        _ => event_loop.call_method0(&names().create_future),
    }
}

/// `event_loop.run_in_executor(None, function)`, of any loop, as the last thing of a step: the caller awaits the future.
pub fn run_in_default_executor(event_loop: &Any, function: &Any) -> Result<Object> {
    match EventLoop::fast(event_loop) {
        Some(native) if native.has_own_executor() => native.run_in_default_executor(function),
        _ => event_loop.call_method(&names().run_in_executor, &[none(), function]),
    }
}

/// `future.add_done_callback(callback)`, of any future or task.
#[inline]
pub fn add_done_callback_any(future: &Any, callback: &Any) -> Result<()> {
    if let Some(native) = own(future) {
        return add_done_callback(native, callback, &*context::copy_current()?);
    }
    future.call_method1(&names().add_done_callback, callback).map(drop)
}

/// `future.set_result(result)`, of any future.
pub fn set_result_any(future: &Any, result: &Any) -> Result<()> {
    match Future::from_exact(future) {
        Some(future) => set_result(future, result),
        None => future.call_method1(&names().set_result, result).map(drop),
    }
}

/// An object of exactly ioxide's Future or Task, whose methods nobody has replaced.
#[inline]
pub fn own(future: &Any) -> Option<&FutureObject> {
    match Task::from_exact(future) {
        Some(task) => Some(task),
        None => Future::from_exact(future).map(|future| &**future),
    }
}

/// As `add_done_callback`, with a native callback, which needs no context (F3).
#[inline]
pub fn add_native_callback(future: &FutureObject, callback: &Any) -> Result<()> {
    if future.is_pending() && future.callback0.is_empty() && future.callbacks.is_empty() {
        future.callback0.set(callback.to_object());
        return Ok(());
    }
    add_done_callback(future, callback, &*context::copy_current()?)
}

/// Takes a native callback out again, wherever it is; by identity, so that no Python code compares.
pub fn remove_native_callback(future: &FutureObject, callback: &Any) -> Result<()> {
    if future.callbacks.is_empty() {
        if future.callback0.is(callback) {
            future.callback0.clear();
            future.context0.clear();
        }
        return Ok(());
    }
    for (present, present_context) in Callbacks::take(future).into_pairs()? {
        if !present.is(callback) {
            add_done_callback(future, &present, &present_context)?;
        }
    }
    Ok(())
}

/// A sleeper's future: the result is in it already.
#[inline]
pub fn finish_with_own_result(future: &FutureObject) -> Result<()> {
    future.set_state(FutureState::Finished);
    schedule_callbacks(future)
}

/// A future that the timers will finish with this result, which is in it from now on.
#[inline]
pub fn create_timed(event_loop: &EventLoop, result: Object) -> Result<Object> {
    let object = create(event_loop)?;
    if let Some(future) = Future::from_exact(&object) {
        future.result.initialize(Some(result));
    }
    Ok(object)
}

/// The timers do not finish this future any more. A task that waits for it goes on waiting: somebody has closed its coroutine by hand.
pub fn abandon(future: &FutureObject) {
    if future.is_pending() && future.callback0.is_empty() && future.callbacks.is_empty() {
        future.set_state(FutureState::Cancelled);
    }
    future.result.clear();
}

/// Whether the timers are to finish the future.
#[inline]
pub fn is_timed(future: &FutureObject) -> bool {
    future.is_pending() && !future.result.is_empty()
}

/// Lets `task` wait for a future of the same ioxide loop (F1).
#[inline]
pub fn add_waiting_task(future: &FutureObject, task: &Task) -> Result<()> {
    if future.is_pending() && future.callback0.is_empty() && future.callbacks.is_empty() {
        future.callback0.set(task.to_object());
        return Ok(());
    }
    add_done_callback(future, task, &task.context.get_or_none())
}

/// `future.remove_done_callback(fn)`: how many were removed.
pub fn remove_done_callback(future: &FutureObject, callback: &Any) -> Result<Object> {
    check_initialized(future)?;
    let waiting = Callbacks::take(future).into_pairs()?;
    let mut removed = 0;
    let mut kept = Vec::new();
    let mut failure = None;
    for (present, present_context) in waiting {
        let equal = if failure.is_some() { Ok(false) } else { shown(&present)?.equals(callback) };
        match equal {
            Ok(true) => removed += 1,
            Ok(false) => kept.push((present, present_context)),
            Err(raised) => {
                failure = Some(raised.take());
                kept.push((present, present_context));
            }
        }
    }
    // A comparison may have run Python that added callbacks: they stay, behind the older ones.
    kept.extend(Callbacks::take(future).into_pairs()?);
    if future.is_pending() {
        for (present, present_context) in &kept {
            add_done_callback(future, present, present_context)?;
        }
    }
    match failure {
        Some(exception) => Err(Raised::exception(exception)),
        None => ioxide_cpython::value::integer(removed),
    }
}

/// `future._callbacks`: a list of (callback, context), or None.
pub fn callbacks(future: &FutureObject) -> Result<Object> {
    let Some(first) = future.callback0.get_object() else {
        return Ok(none_object());
    };
    let pairs = list()?;
    let first_context = match (Task::from_any(&first), future.context0.get_object()) {
        (_, Some(first_context)) => first_context,
        (Some(task), None) => task.context.get_or_none(),
        (None, None) => context::copy_current()?,
    };
    pairs.list_append(&*tuple(&[&*shown(&first)?, &*first_context])?)?;
    if let Some(others) = future.callbacks.get_object() {
        for entry in others.iterate()? {
            let entry = entry?;
            if let [callback, callback_context] = entry.tuple_items() {
                pairs.list_append(&*tuple(&[&*shown(callback)?, *callback_context])?)?;
            }
        }
    }
    Ok(pairs)
}
