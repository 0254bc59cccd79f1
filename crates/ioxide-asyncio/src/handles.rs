//! `Handle` and `TimerHandle`: real subclasses of asyncio's, whose slots they keep their state in.
//!
//! Everything but creation, cancellation and the run by the loop is inherited from asyncio.events.
//!
//! Invariants:
//! H1. A cancelled handle holds neither callback nor arguments (but for the repr of debug mode).
//! H2. `_scheduled` of a timer handle is true exactly while the handle is in the loop's timers.

use crate::event_loop::{EventLoop, on_timer_cancelled};
use crate::futures;
use ioxide_cpython::exception::handling;
use ioxide_cpython::freelist::{FreeList, Recycled, clear_weak_references};
use ioxide_cpython::methods::{documented, method0};
use ioxide_cpython::types::{Class, Native, NativeClass};
use ioxide_cpython::value::{dict, float, text, tuple};
use ioxide_cpython::version::{HandleObject, TimerHandleObject};
use ioxide_cpython::{Any, Object, Once, Raised, Result, boolean, context, imports, names, none_object};
use std::ops::Deref;

#[repr(transparent)]
pub struct Handle(HandleObject);

#[repr(transparent)]
pub struct TimerHandle(TimerHandleObject);

static HANDLE: Once<Class> = Once::new();
static TIMER_HANDLE: Once<Class> = Once::new();
static FREE_HANDLES: FreeList<Handle> = FreeList::new(4096);
static FREE_TIMER_HANDLES: FreeList<TimerHandle> = FreeList::new(4096);

// SAFETY: transparent over the struct of asyncio.Handle, which the class derives from.
unsafe impl Native for Handle {
    fn class() -> &'static Once<Class> {
        &HANDLE
    }
}

// SAFETY: transparent over the struct of asyncio.TimerHandle, which the class derives from.
unsafe impl Native for TimerHandle {
    fn class() -> &'static Once<Class> {
        &TIMER_HANDLE
    }
}

impl Deref for Handle {
    type Target = HandleObject;
    #[inline(always)]
    fn deref(&self) -> &HandleObject {
        &self.0
    }
}

impl Deref for TimerHandle {
    type Target = TimerHandleObject;
    #[inline(always)]
    fn deref(&self) -> &TimerHandleObject {
        &self.0
    }
}

impl Recycled for Handle {
    fn free_list() -> &'static FreeList<Handle> {
        &FREE_HANDLES
    }

    fn wants_finalizer(&self) -> bool {
        false
    }

    fn release(&self) {
        clear_weak_references(self);
        self.clear_slots();
    }
}

impl Recycled for TimerHandle {
    fn free_list() -> &'static FreeList<TimerHandle> {
        &FREE_TIMER_HANDLES
    }

    fn wants_finalizer(&self) -> bool {
        false
    }

    fn release(&self) {
        clear_weak_references(self);
        self.clear_timer_slots();
    }
}

/// Creates both classes.
pub fn initialize() -> Result<()> {
    let cancel_doc =
        c"cancel($self, /)\n--\n\nKeeps the callback from being called. Does nothing after the call.";
    HANDLE.set(
        NativeClass::new::<Handle>(c"ioxide.Handle")
            .doc(c"A callback that the loop will call, as asyncio.Handle.")
            .subclassable()
            .recycled::<Handle>()
            .methods(vec![documented(method0(c"cancel", Handle::cancel), cancel_doc)])
            .create(&[&imports().Handle])?,
    );
    // asyncio.TimerHandle comes first: its struct is the larger one.
    TIMER_HANDLE.set(
        NativeClass::new::<TimerHandle>(c"ioxide.TimerHandle")
            .doc(c"A callback that the loop will call at a time, as asyncio.TimerHandle.")
            .subclassable()
            .recycled::<TimerHandle>()
            .methods(vec![documented(method0(c"cancel", TimerHandle::cancel), cancel_doc)])
            .create(&[&imports().TimerHandle])?,
    );
    Ok(())
}

impl Handle {
    /// A handle in `callback_context`, or in a copy of the current context.
    #[inline]
    pub fn create(
        event_loop: &EventLoop,
        callback: &Any,
        arguments: &[&Any],
        callback_context: Option<&Any>,
    ) -> Result<Object> {
        let object = FREE_HANDLES.allocate()?;
        if let Some(handle) = Handle::from_exact(&object) {
            fill(handle, event_loop, callback, arguments, callback_context)?;
        }
        Ok(object)
    }

    fn cancel(&self) -> Result<()> {
        cancel(self)
    }
}

impl TimerHandle {
    /// A handle for the time `when`, in seconds of the loop's clock.
    pub fn create(
        event_loop: &EventLoop,
        when: f64,
        callback: &Any,
        arguments: &[&Any],
        callback_context: Option<&Any>,
    ) -> Result<Object> {
        let object = FREE_TIMER_HANDLES.allocate()?;
        if let Some(timer) = TimerHandle::from_exact(&object) {
            fill(timer, event_loop, callback, arguments, callback_context)?;
            timer.when.initialize(Some(float(when)?));
            timer.scheduled.initialize(Some(boolean(true)));
        }
        Ok(object)
    }

    fn cancel(&self) -> Result<()> {
        if self.is_cancelled() {
            return Ok(());
        }
        if self.scheduled.is(&boolean(true)) {
            on_timer_cancelled(&self.event_loop.get_or_none());
        }
        cancel(self)
    }
}

#[inline]
fn fill(
    handle: &HandleObject,
    event_loop: &EventLoop,
    callback: &Any,
    arguments: &[&Any],
    callback_context: Option<&Any>,
) -> Result<()> {
    let callback_context = match callback_context {
        Some(callback_context) => callback_context.to_object(),
        None => context::copy_current()?,
    };
    let arguments = if arguments.is_empty() { imports().empty_tuple.clone() } else { tuple(arguments)? };
    handle.context.initialize(Some(callback_context));
    handle.event_loop.initialize(Some(event_loop.to_object()));
    handle.callback.initialize(Some(callback.to_object()));
    handle.arguments.initialize(Some(arguments));
    handle.cancelled.initialize(Some(boolean(false)));
    handle.repr.initialize(Some(none_object()));
    let traceback = event_loop.creation_traceback()?;
    handle.source_traceback.initialize(Some(traceback.unwrap_or_else(none_object)));
    Ok(())
}

/// `Handle.cancel` (H1). In debug mode the repr is kept first, for log lines about the cancelled handle.
fn cancel(handle: &HandleObject) -> Result<()> {
    if handle.is_cancelled() {
        return Ok(());
    }
    handle.cancelled.set(boolean(true));
    let event_loop = handle.event_loop.get_object();
    if let Some(event_loop) = event_loop
        && crate::event_loop::is_debug(&event_loop)?
    {
        handle.repr.set(handle.repr()?);
    }
    handle.callback.set(none_object());
    handle.arguments.set(none_object());
    Ok(())
}

/// Whether the handle was one of `future.set_result` for a pending future of `event_loop`, which has its result now: no
/// Python code runs for that, so that neither a context nor the current task matters.
#[inline]
pub fn run_set_result(handle: &Any, event_loop: &EventLoop) -> Result<bool> {
    let handle = match Handle::from_exact(handle) {
        Some(handle) => &handle.0,
        None => match TimerHandle::from_exact(handle) {
            Some(timer) => &timer.0.handle,
            None => return Ok(false),
        },
    };
    let (Some(callback), Some(arguments)) = (handle.callback.get_object(), handle.arguments.get_object())
    else {
        return Ok(false);
    };
    match (futures::of_set_result(&callback), arguments.tuple_items()) {
        (Some(future), [result]) if future.is_pending() && future.event_loop.is(event_loop) => {
            futures::set_result(future, result).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Calls the callback in its context. An exception goes to the loop's exception handler.
/// Fails: KeyboardInterrupt, SystemExit. Runs Python: yes.
pub fn run(handle: &HandleObject) -> Result<()> {
    let (Some(callback), Some(arguments), Some(callback_context)) =
        (handle.callback.get_object(), handle.arguments.get_object(), handle.context.get_object())
    else {
        return Ok(());
    };
    let outcome = match context::is_context(&callback_context) {
        true => context::with_context(&callback_context, || {
            callback.call_slice(arguments.tuple_items()).map(drop)
        }),
        false => run_in_foreign_context(&callback_context, &callback, &arguments),
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(raised) if raised.leaves_the_loop() => Err(raised),
        Err(raised) => report_exception(handle, raised.take()),
    }
}

/// `context.run(callback, *arguments)`, for whatever the caller gave for a context.
#[cold]
fn run_in_foreign_context(callback_context: &Any, callback: &Any, arguments: &Any) -> Result<()> {
    let mut all = vec![callback];
    all.extend_from_slice(arguments.tuple_items());
    callback_context.call_method(&names().run, &all).map(drop)
}

/// Reports as `asyncio.Handle._run` does.
#[cold]
pub fn report_exception(handle: &HandleObject, exception: Object) -> Result<()> {
    let Some(event_loop) = handle.event_loop.get_object() else { return Ok(()) };
    // The callback may have cancelled its own handle.
    let (callback, arguments) = (handle.callback.get_or_none(), handle.arguments.get_or_none());
    let source = crate::reprs::callback_source(&event_loop, &callback, &arguments)?;
    let report = dict()?;
    report.dict_set(&names().message, &*text(&format!("Exception in callback {source}"))?)?;
    report.dict_set(&names().exception, &exception)?;
    report.dict_set(&names().handle, handle)?;
    if let Some(traceback) = handle.source_traceback.get_object()
        && traceback.is_true()?
    {
        report.dict_set(&names().source_traceback, &traceback)?;
    }
    handling(&exception, || event_loop.call_method1(&names().call_exception_handler, &report)).map(drop)
}

/// `event_loop.time()` as a float; without a call through Python where nobody has replaced the loop's clock.
#[inline]
pub fn time(event_loop: &Any) -> Result<Object> {
    match EventLoop::fast(event_loop) {
        Some(native) if native.has_own_clock() => native.time(),
        _ => event_loop.call_method0(&names().time),
    }
}

/// `event_loop.time() + delay`
#[inline]
pub fn time_after(event_loop: &Any, delay: &Any) -> Result<Object> {
    match (EventLoop::fast(event_loop), delay.as_plain_number()) {
        (Some(native), Some(delay)) if native.has_own_clock() => float(native.seconds() + delay),
        _ => time(event_loop)?.add(delay),
    }
}

/// Reports an exception as the handle of `callback` would.
#[cold]
pub fn report_of_callback(event_loop: &Any, callback: &Any, exception: Object) -> Result<()> {
    let Some(native) = EventLoop::from_any(event_loop) else { return Err(Raised::exception(exception)) };
    let handle = Handle::create(native, callback, &[], None)?;
    match Handle::from_exact(&handle) {
        Some(handle) => report_exception(handle, exception),
        None => Err(Raised::exception(exception)),
    }
}

/// `event_loop.call_soon(callback)`
pub fn call_soon(event_loop: &Any, callback: &Any) -> Result<Object> {
    match EventLoop::fast(event_loop) {
        Some(native) => {
            let handle = Handle::create(native, callback, &[], None)?;
            native.push_ready(crate::event_loop::Ready::Handle(handle.clone()));
            Ok(handle)
        }
        None => event_loop.call_method1(&names().call_soon, callback),
    }
}

/// `event_loop.call_at(when, callback)`
pub fn call_at(event_loop: &Any, when: &Any, callback: &Any) -> Result<Object> {
    match EventLoop::fast(event_loop) {
        Some(native) if native.has_own_timers() => native.add_timer(when.to_f64()?, callback),
        _ => event_loop.call_method(&names().call_at, &[when, callback]),
    }
}

/// `handle.cancel()`, of any handle.
#[inline]
pub fn cancel_any(handle: &Any) -> Result<()> {
    match TimerHandle::from_exact(handle) {
        Some(timer) => timer.cancel(),
        None => handle.call_method0(&names().cancel).map(drop),
    }
}
