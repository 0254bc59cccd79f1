//! Scheduling: callbacks for the next turn, for a time, from another thread; futures and tasks.

use super::timed::Timed;
use super::{EventLoop, Ready, thread_id};
use crate::futures;
use crate::handles::{Handle, TimerHandle};
use crate::tasks::{Task, TaskOptions};
use ioxide_cpython::methods::{Arguments, Leading, given, name_is, unexpected_keyword};
use ioxide_cpython::object::Detached;
use ioxide_cpython::types::Native;
use ioxide_cpython::value::{dict, float, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, builtin, imports, names, none_object};
use ioxide_reactor::MonotonicTime;

/// More timers than this, more than half of them cancelled: the cancelled ones are swept out. asyncio's rule.
const TIMERS_BEFORE_SWEEP: usize = 100;

impl EventLoop {
    /// `loop.time()`: seconds, equal to `time.monotonic()`.
    pub fn time(&self) -> Result<Object> {
        float(self.seconds())
    }

    /// As `time`, where nobody has replaced that.
    #[inline]
    pub fn seconds(&self) -> f64 {
        MonotonicTime::now().as_seconds()
    }

    /// `loop.call_soon(callback, *args, context=None)`
    #[inline]
    pub fn call_soon(&self, arguments: Arguments<'_>) -> Result<Object> {
        let Leading { parameters: [callback], rest, context: callback_context } =
            arguments.leading("call_soon", ["callback"], true)?;
        self.check_closed()?;
        if self.is_debug() {
            self.check_thread()?;
            check_callback(callback, "call_soon")?;
        }
        if let ([future], Some(task)) = (rest, Task::from_any(callback)) {
            // asyncio's own Future scheduling a waiter that ioxide left in it (futures, F1).
            self.push_ready(Ready::Wakeup(task.to_object(), future.to_object()));
            return Ok(none_object());
        }
        let handle = Handle::create(self, callback, rest, callback_context)?;
        self.push_ready(Ready::Handle(handle.clone()));
        Ok(handle)
    }

    /// `loop.call_soon_threadsafe(callback, *args, context=None)`
    pub fn call_soon_threadsafe(&self, arguments: Arguments<'_>) -> Result<Object> {
        let Leading { parameters: [callback], rest, context: callback_context } =
            arguments.leading("call_soon_threadsafe", ["callback"], true)?;
        self.check_closed()?;
        if self.is_debug() {
            check_callback(callback, "call_soon_threadsafe")?;
        }
        let handle = match &SCHEDULING.get().thread_safe_handle {
            Some(class) => {
                let callback_context = callback_context.unwrap_or(ioxide_cpython::none());
                let handle = class.call(&[callback, &*tuple(rest)?, self, callback_context])?;
                drop_last_frame(&handle)?;
                handle
            }
            None => Handle::create(self, callback, rest, callback_context)?,
        };
        let core = self.core();
        if core.thread.get() == thread_id() {
            self.push_ready(Ready::Handle(handle.clone()));
        } else {
            core.inbox.push(Detached::new(handle.clone()));
        }
        self.wake()?;
        Ok(handle)
    }

    /// Ends the wait of the loop, now or the next one.
    pub fn wake(&self) -> Result<()> {
        let wakes = self.core().wakes.borrow().clone();
        match wakes {
            Some(wakes) if super::worker_queue::put_off(&wakes) => Ok(()),
            Some(wakes) => wakes.wake().map_err(|error| ioxide_cpython::exception::raise_os_error(&error)),
            None => Ok(()),
        }
    }

    /// `loop.call_later(delay, callback, *args, context=None)`; `delay` in seconds.
    pub fn call_later(&self, arguments: Arguments<'_>) -> Result<Object> {
        let Leading { parameters: [delay, callback], rest, context: callback_context } =
            arguments.leading("call_later", ["delay", "callback"], true)?;
        if delay.is_none() {
            return Err(Raised::type_error("delay must not be None"));
        }
        let overrides = self.overrides();
        if overrides.call_at || overrides.time {
            return self.call_later_by_methods(delay, callback, rest, callback_context);
        }
        let now = MonotonicTime::now().as_seconds();
        match number(delay)? {
            Some(delay) => self.schedule_timer("call_later", now + delay, callback, rest, callback_context),
            // The sum says what is wrong with it, or knows how to make a time of it.
            None => {
                let when = operator(c"add")?.call(&[&*float(now)?, delay])?;
                self.schedule_at("call_later", &when, callback, rest, callback_context)
            }
        }
    }

    /// `self.call_at(self.time() + delay, ...)`, for loops on which somebody has replaced either.
    fn call_later_by_methods(
        &self,
        delay: &Any,
        callback: &Any,
        rest: &[&Any],
        callback_context: Option<&Any>,
    ) -> Result<Object> {
        let when = float(self.call_method0(&names().time)?.to_f64()? + delay.to_f64()?)?;
        let mut all = vec![&*when, callback];
        all.extend_from_slice(rest);
        match callback_context {
            Some(callback_context) => {
                all.push(callback_context);
                self.call_method_keywords(&names().call_at, &all, &imports().names_context)
            }
            None => self.call_method(&names().call_at, &all),
        }
    }

    /// `loop.call_at(when, callback, *args, context=None)`; `when` in seconds of `loop.time()`.
    pub fn call_at(&self, arguments: Arguments<'_>) -> Result<Object> {
        let Leading { parameters: [when, callback], rest, context: callback_context } =
            arguments.leading("call_at", ["when", "callback"], true)?;
        if when.is_none() {
            return Err(Raised::type_error("when cannot be None"));
        }
        self.schedule_at("call_at", when, callback, rest, callback_context)
    }

    /// A timer at `when`, whatever that is: what is no number is in front of all others, and the loop fails when it looks
    /// at it, as asyncio's does.
    fn schedule_at(
        &self,
        function: &str,
        when: &Any,
        callback: &Any,
        rest: &[&Any],
        callback_context: Option<&Any>,
    ) -> Result<Object> {
        if let Some(seconds) = number(when)? {
            return self.schedule_timer(function, seconds, callback, rest, callback_context);
        }
        let other = self.core().timers.borrow().peek().cloned().flatten();
        if let Some(other) = other.as_deref().and_then(TimerHandle::from_any) {
            operator(c"lt")?.call(&[when, &*other.when.get_or_none()])?;
        }
        let timer = self.schedule_timer(function, 0.0, callback, rest, callback_context)?;
        if let Some(timer) = TimerHandle::from_any(&timer) {
            timer.when.set(when.to_object());
        }
        Ok(timer)
    }

    /// Fails: TypeError where the timer in front has a time that is no number.
    pub(super) fn check_front_timer(&self) -> Result<()> {
        let front = {
            let timers = self.core().timers.borrow();
            if timers.next_deadline() != Some(MonotonicTime::ZERO) {
                return Ok(());
            }
            timers.peek().cloned().flatten()
        };
        let timer = front.as_deref().and_then(TimerHandle::from_any).filter(|timer| !timer.is_cancelled());
        let Some(timer) = timer else { return Ok(()) };
        let when = timer.when.get_or_none();
        if number(&when)?.is_some() {
            return Ok(());
        }
        operator(c"sub")?.call(&[&*when, &*self.call_method0(&names().time)?]).map(drop)
    }

    fn schedule_timer(
        &self,
        function: &str,
        when: f64,
        callback: &Any,
        rest: &[&Any],
        callback_context: Option<&Any>,
    ) -> Result<Object> {
        self.check_closed()?;
        if self.is_debug() {
            self.check_thread()?;
            check_callback(callback, function)?;
        }
        let timer = TimerHandle::create(self, when, callback, rest, callback_context)?;
        let deadline = MonotonicTime::not_before_seconds(when);
        self.core().timers.borrow_mut().push(deadline, Some(timer.clone()));
        Ok(timer)
    }

    /// Whether nobody has replaced `time`.
    #[inline]
    pub fn has_own_clock(&self) -> bool {
        !self.overrides().time
    }

    /// Whether nobody has replaced `create_task`.
    #[inline]
    pub fn has_own_create_task(&self) -> bool {
        !self.overrides().create_task
    }

    /// Whether nobody has replaced `create_future`.
    #[inline]
    pub fn has_own_create_future(&self) -> bool {
        !self.overrides().create_future
    }

    /// Whether nobody has replaced `run_in_executor`.
    #[inline]
    pub fn has_own_executor(&self) -> bool {
        !self.overrides().run_in_executor
    }

    /// Whether nobody has replaced `call_at`.
    #[inline]
    pub fn has_own_timers(&self) -> bool {
        !self.overrides().call_at
    }

    /// `call_at(when, callback)` of a loop that is `fast` and has its own timers.
    #[inline]
    pub fn add_timer(&self, when: f64, callback: &Any) -> Result<Object> {
        self.schedule_timer("call_at", when, callback, &[], None)
    }

    /// A timer in the heap was cancelled: it stays there until it is due or there are too many of its kind.
    pub fn on_timer_cancelled(&self) {
        let core = self.core();
        let cancelled = core.cancelled_timers.get() + 1;
        core.cancelled_timers.set(cancelled);
        let count = core.timers.borrow().len();
        if count > TIMERS_BEFORE_SWEEP && cancelled * 2 > count {
            self.sweep_cancelled_timers();
        }
    }

    fn sweep_cancelled_timers(&self) {
        let mut swept = Vec::new();
        self.core().timers.borrow_mut().retain(|entry| {
            // The handle whose cancellation began the sweep is marked after it: it is kept, and stays counted.
            let timed = entry.as_deref().and_then(Timed::of);
            let cancelled = timed.is_none_or(|timed| timed.is_cancelled());
            if cancelled {
                swept.extend(entry.take());
            }
            !cancelled
        });
        let core = self.core();
        core.cancelled_timers.set(core.cancelled_timers.get().saturating_sub(swept.len()).min(1));
        for timed in swept.iter().filter_map(|entry| Timed::of(entry)) {
            timed.leave_timers();
        }
    }

    /// `loop._timer_handle_cancelled(handle)`, which asyncio's own timer handles call.
    pub fn timer_handle_cancelled(&self, _handle: &Any) -> Result<()> {
        self.on_timer_cancelled();
        Ok(())
    }

    /// `loop.create_future()`
    pub fn create_future(&self) -> Result<Object> {
        futures::create(self)
    }

    /// `loop.create_task(coro, **kwargs)`; without a factory `name`, `context` and `eager_start`, on every version.
    pub fn create_task(&self, arguments: Arguments<'_>) -> Result<Object> {
        let coroutine = coroutine_of(arguments)?;
        self.check_closed()?;
        if let Some(factory) = self.core().task_factory.get_object() {
            return self.create_task_by_factory(&factory, coroutine, arguments);
        }
        let mut options = TaskOptions::default();
        for (name, value) in arguments.keywords() {
            if name_is(name, "name") {
                options.name = given(Some(value));
            } else if name_is(name, "context") {
                options.context = given(Some(value));
            } else if name_is(name, "eager_start") {
                options.eager_start = value.is_true()?;
            } else if !name_is(name, "coro") {
                return Err(unexpected_keyword("create_task", name));
            }
        }
        Task::create(self, coroutine, options)
    }

    /// A factory gets the keywords that the caller passed and no others.
    fn create_task_by_factory(
        &self,
        factory: &Any,
        coroutine: &Any,
        arguments: Arguments<'_>,
    ) -> Result<Object> {
        let keywords = dict()?;
        let mut name = None;
        for (keyword, value) in arguments.keywords() {
            if name_is(keyword, "coro") {
                continue;
            }
            if SCHEDULING.get().forwards_keywords {
                keywords.dict_set(keyword, value)?;
            } else if name_is(keyword, "name") {
                name = given(Some(value));
            } else if name_is(keyword, "context") {
                if !value.is_none() {
                    keywords.dict_set(keyword, value)?;
                }
            } else if name_is(keyword, "eager_start") {
                keywords.dict_set(keyword, value)?;
            } else {
                return Err(unexpected_keyword("create_task", keyword));
            }
        }
        let positional = tuple(&[self, coroutine])?;
        let task = factory.call_tuple(&positional, Some(&keywords))?;
        if let Some(name) = name {
            crate::tasks::set_task_name(&task, name)?;
        }
        Ok(task)
    }

    /// `loop.set_task_factory(factory)`. Fails: TypeError where the factory is neither callable nor None.
    pub fn set_task_factory(&self, factory: &Any) -> Result<()> {
        if !factory.is_none() && !factory.is_callable() {
            return Err(Raised::type_error("task factory must be a callable or None"));
        }
        drop(self.core().task_factory.replace((!factory.is_none()).then(|| factory.to_object())));
        Ok(())
    }

    /// `loop.get_task_factory()`
    pub fn get_task_factory(&self) -> Object {
        self.core().task_factory.get_or_none()
    }

    /// Debug mode: refuses calls from another thread than the loop's.
    pub fn check_thread(&self) -> Result<()> {
        let thread = self.core().thread.get();
        if thread != 0 && thread != thread_id() {
            return Err(Raised::runtime_error(
                "Non-thread-safe operation invoked on an event loop other than the current one",
            ));
        }
        Ok(())
    }
}

/// The value of a number, `None` for what is none.
fn number(value: &Any) -> Result<Option<f64>> {
    match value.to_f64() {
        Ok(value) => Ok(Some(value)),
        Err(raised) if raised.matches(builtin(Builtin::TypeError)) => {
            drop(raised.take());
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

/// A function of the `operator` module.
fn operator(name: &std::ffi::CStr) -> Result<Object> {
    ioxide_cpython::call::import(c"operator")?.get_attribute_str(name)
}

/// The coroutine that `create_task` is given, by position or by name. Fails: TypeError.
fn coroutine_of<'a>(arguments: Arguments<'a>) -> Result<&'a Any> {
    match arguments.positional() {
        [coroutine] => Ok(coroutine),
        [] => {
            arguments.keywords().find_map(|(name, value)| name_is(name, "coro").then_some(value)).ok_or_else(
                || Raised::type_error("create_task() missing 1 required positional argument: 'coro'"),
            )
        }
        _ => Err(Raised::type_error("create_task() takes 1 positional argument")),
    }
}

/// What this Python's asyncio does about scheduling.
struct Scheduling {
    /// Whether `create_task` forwards all keywords to the task or its factory (3.13.3 and later).
    forwards_keywords: bool,
    /// The class of the handles that `call_soon_threadsafe` returns (3.14 and later), whose `cancel` and `cancelled`
    /// wait for a callback that is running.
    thread_safe_handle: Option<Object>,
    /// asyncio's own, without the deprecation warning that it has from 3.14 on.
    iscoroutinefunction: Object,
}

static SCHEDULING: Once<Scheduling> = Once::new();

/// Asks asyncio's own loop what it does.
pub fn initialize() -> Result<()> {
    const CO_VARKEYWORDS: i64 = 8;
    let base = ioxide_cpython::call::import(c"asyncio.base_events")?.get_attribute_str(c"BaseEventLoop")?;
    let flags = base.get_attribute_str(c"create_task")?.get_attribute_str(c"__code__")?;
    let flags = flags.get_attribute_str(c"co_flags")?.to_i64()?;
    let events = ioxide_cpython::call::import(c"asyncio.events")?;
    let coroutines = ioxide_cpython::call::import(c"asyncio.coroutines")?;
    let iscoroutinefunction = match coroutines.get_attribute_optional(&*text("_iscoroutinefunction")?)? {
        Some(function) => function,
        None => coroutines.get_attribute_str(c"iscoroutinefunction")?,
    };
    SCHEDULING.set(Scheduling {
        forwards_keywords: flags & CO_VARKEYWORDS != 0,
        thread_safe_handle: events.get_attribute_optional(&*text("_ThreadSafeHandle")?)?,
        iscoroutinefunction,
    });
    Ok(())
}

/// The frame of asyncio's own constructor is no part of where a handle was created.
fn drop_last_frame(handle: &Any) -> Result<()> {
    let traceback = handle.get_attribute(&names()._source_traceback)?;
    if traceback.is_true()? {
        traceback.call_method0(&names().pop)?;
    }
    Ok(())
}

/// Fails: TypeError where a coroutine is given for a callback.
pub fn refuse_coroutine(callback: &Any, function: &str) -> Result<()> {
    let is_coroutine = imports().iscoroutine.call1(callback)?.is_true()?
        || SCHEDULING.get().iscoroutinefunction.call1(callback)?.is_true()?;
    if is_coroutine {
        return Err(Raised::type_error(&format!("coroutines cannot be used with {function}()")));
    }
    Ok(())
}

/// Debug mode: refuses coroutines and what cannot be called.
pub fn check_callback(callback: &Any, function: &str) -> Result<()> {
    if Task::from_any(callback).is_some() {
        return Ok(());
    }
    refuse_coroutine(callback, function)?;
    if !callback.is_callable() {
        let shown = callback.repr()?.to_text()?;
        return Err(Raised::type_error(&format!(
            "a callable object was expected by {function}(), got {}",
            shown.as_str()
        )));
    }
    Ok(())
}
