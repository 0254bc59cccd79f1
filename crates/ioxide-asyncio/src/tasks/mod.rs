//! `Task`: a real subclass of `asyncio.Task` and of `ioxide.Future` that keeps its state in asyncio's own fields.
//!
//! | file | room |
//! |---|---|
//! | mod | the class: creation, cancellation by inheritance, names, reprs of its callables |
//! | step | one step of the coroutine, and what a task does with what it yields |
//! | functions | the table of asyncio's functions of this module |
//! | sleep, gather, wait, wait_for, shield, spawn | asyncio's functions of these names; `spawn` is create_task and ensure_future |
//! | wait_for_task | `wait_for` of 3.11 |
//! | threadsafe | `run_coroutine_threadsafe` |
//! | as_completed, wait_for_one | what `as_completed` returns, and the coroutines that it gives out |
//! | eager | `eager_task_factory` and its maker |
//! | originals | asyncio's own functions, for whatever the native ones do not do |
//! | done_callback, deadline | callbacks of futures, and time limits, without Python functions |
//!
//! Invariants:
//! T1. A pending task that has started is in exactly one place: the ready queue, or waiting for `awaited`.
//! T2. A task is in the registry from its creation until it is done or its finalizer has run.

mod as_completed;
mod deadline;
mod done_callback;
mod eager;
mod functions;
mod gather;
mod originals;
mod shield;
mod sleep;
mod spawn;
mod step;
mod threadsafe;
mod wait;
mod wait_for;
mod wait_for_one;
mod wait_for_task;

pub use deadline::Deadline;
pub use done_callback::DoneCallback;
use gather::GatheringFuture;
use originals::originals;
use spawn::spawning_loop;

pub use step::{run_step, run_throw, run_wakeup};
pub use wait::wait_for_all;
pub use wait_for::wait_for_at_most;

use crate::event_loop::{EventLoop, Ready, is_debug};
use crate::futures::{self, Future};
use ioxide_cpython::coroutine::await_without_iterator;
use ioxide_cpython::freelist::{FreeList, Recycled};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, getter, given, method, method0, method1};
use ioxide_cpython::module::Module;
use ioxide_cpython::spare_integers::{give_back, number};
use ioxide_cpython::task_registry as registry;
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, allocate, head};
use ioxide_cpython::value::text;
use ioxide_cpython::version::{
    CHECKS_CONTEXT, FutureObject, FutureState, HAS_CALL_GRAPH, INITIALIZES_ONCE, TaskObject,
    clear_instance_attributes,
};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, context, imports, names, none, none_object};
use std::ops::Deref;

#[repr(transparent)]
pub struct Task(TaskObject);

static TASK: Once<Class> = Once::new();
static TASK_STEP: Once<Class> = Once::new();
static WAKEUP: Once<FunctionDefinition> = Once::new();
static FREE_TASKS: FreeList<Task> = FreeList::new(8192);

// SAFETY: transparent over the struct of asyncio.Task (and, until 3.13, a list node behind it).
unsafe impl Native for Task {
    fn class() -> &'static Once<Class> {
        &TASK
    }
}

impl Deref for Task {
    type Target = TaskObject;
    #[inline(always)]
    fn deref(&self) -> &TaskObject {
        &self.0
    }
}

impl Recycled for Task {
    fn free_list() -> &'static FreeList<Task> {
        &FREE_TASKS
    }

    fn wants_finalizer(&self) -> bool {
        self.is_pending() || self.log_traceback()
    }

    fn release(&self) {
        registry::unregister(self);
        clear_instance_attributes(self);
        if let Some(name) = self.name.take() {
            give_back(name);
        }
        self.clear_task_fields();
    }
}

/// Creates the classes.
pub fn initialize() -> Result<()> {
    let base = &imports().Task;
    TASK.set(
        NativeClass::new::<Task>(c"ioxide.Task")
            .doc(c"A coroutine that the loop runs, as asyncio.Task.")
            .subclassable()
            .collected_by_base(base)
            .recycled::<Task>()
            .finalized_before_base::<Task, _>(|task: &Task| registry::unregister(task))
            .init::<Task, _>(Task::python_init)
            .methods(vec![
                method(c"add_done_callback", |this: &Task, arguments: Arguments<'_>| {
                    futures::add_done_callback_method(this, arguments)
                }),
                method1(c"remove_done_callback", |this: &Task, callback: &Any| {
                    futures::remove_done_callback(this, callback)
                }),
                method(c"cancel", Task::cancel),
                method0(c"get_name", Task::get_name),
                // Inherited, it would crash on 3.12.1 for a task that an eager start has finished: there asyncio takes
                // the coroutine for granted.
                method0(c"get_coro", |this: &Task| this.coroutine.get_or_none()),
            ])
            .attributes(vec![getter(c"_callbacks", |this: &Task| futures::callbacks(this))])
            .create(&[base, Future::class().get().as_any()])?,
    );
    await_without_iterator(TASK.get());
    TASK_STEP.set(
        NativeClass::new::<TaskStep>(c"ioxide.TaskStep")
            .doc(c"The next step of a task, as a callback.")
            .not_instantiable()
            .collected::<TaskStep>()
            .dropped::<TaskStep>()
            .callable::<TaskStep, _>(TaskStep::call)
            .attributes(vec![getter(c"__self__", |this: &TaskStep| this.task.get_or_none())])
            .create(&[])?,
    );
    WAKEUP.set(FunctionDefinition::new(method1(
        c"task_wakeup",
        |this: &Any, future: &Any| match Task::from_any(this) {
            Some(task) => step::wakeup(task, future),
            None => Err(Raised::type_error("task_wakeup belongs to a task")),
        },
    )));
    Ok(())
}

/// Adds the class and asyncio's functions of this module.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    originals::initialize()?;
    done_callback::initialize()?;
    deadline::initialize()?;
    gather::initialize()?;
    wait::initialize()?;
    shield::initialize()?;
    eager::initialize()?;
    as_completed::initialize()?;
    threadsafe::initialize()?;
    module.add(c"Task", Task::class().get().as_any())?;
    functions::add_to(module)
}

/// What `Task(...)` takes beside the coroutine.
#[derive(Default, Clone, Copy)]
pub struct TaskOptions<'a> {
    pub name: Option<&'a Any>,
    pub context: Option<&'a Any>,
    pub eager_start: bool,
}

const INIT: Signature<5> = Signature {
    function: "Task",
    names: ["coro", "loop", "name", "context", "eager_start"],
    required: 1,
    positional: 1,
};

/// Counts the tasks that were given no name.
static NAME_COUNTER: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

impl Task {
    /// `loop.create_task` without a task factory.
    pub fn create(event_loop: &EventLoop, coroutine: &Any, options: TaskOptions<'_>) -> Result<Object> {
        let object = FREE_TASKS.allocate()?;
        if let Some(task) = Task::from_exact(&object) {
            task.event_loop.initialize(Some(event_loop.to_object()));
            if let Some(traceback) = event_loop.creation_traceback()? {
                task.source_traceback.initialize(Some(traceback));
            }
            task.start(coroutine, options)?;
        }
        Ok(object)
    }

    fn python_init(&self, arguments: Arguments<'_>) -> Result<()> {
        let [coroutine, event_loop, name, task_context, eager_start] = INIT.bind(arguments)?;
        if INITIALIZES_ONCE && !self.event_loop.is_empty() {
            let class = ioxide_cpython::exception::type_name(self);
            return Err(Raised::runtime_error(&format!("ioxide.{class} object is already initialized")));
        }
        registry::unregister(self);
        self.clear_task_fields();
        self.set_state(FutureState::Pending);
        self.set_log_traceback(false);
        self.set_blocking(false);
        let event_loop = match given(event_loop) {
            Some(event_loop) => event_loop.to_object(),
            None => imports().get_event_loop.call0()?,
        };
        self.event_loop.set(event_loop.clone());
        if is_debug(&event_loop)? {
            self.source_traceback.set(imports().extract_stack.call0()?);
        }
        let eager_start = match eager_start {
            Some(eager_start) => eager_start.is_true()?,
            None => false,
        };
        let options = TaskOptions { name: given(name), context: given(task_context), eager_start };
        self.start(coroutine.unwrap_or(none()), options)
    }

    /// The common end of both ways to a task: checks the coroutine, then schedules or makes the first step.
    fn start(&self, coroutine: &Any, options: TaskOptions<'_>) -> Result<()> {
        self.mark_as_task();
        if !is_coroutine(coroutine)? {
            self.set_log_destroy_pending(false);
            let shown = coroutine.repr()?.to_text()?.into_string();
            return Err(Raised::type_error(&format!("a coroutine was expected, got {shown}")));
        }
        let task_context = match options.context {
            Some(task_context) if CHECKS_CONTEXT && !context::is_context(task_context) => {
                self.set_log_destroy_pending(false);
                let class = ioxide_cpython::exception::type_name(task_context);
                return Err(Raised::type_error(&format!("a contextvars.Context was expected, got {class}")));
            }
            Some(task_context) => task_context.to_object(),
            None => context::copy_current()?,
        };
        self.context.set(task_context);
        self.awaited.clear();
        self.set_must_cancel(false);
        self.set_log_destroy_pending(true);
        self.set_cancels_requested(0);
        self.coroutine.set(coroutine.to_object());
        self.name.set(task_name(options.name)?);
        let event_loop = self.event_loop.get_or_none();
        if options.eager_start && event_loop.call_method0(&names().is_running)?.is_true()? {
            return step::eager_start(self, &event_loop);
        }
        schedule_step(self, &event_loop)?;
        registry::register(self)
    }

    /// `task.cancel(msg=None)`
    fn cancel(&self, arguments: Arguments<'_>) -> Result<bool> {
        let [message] = futures::CANCEL.bind(arguments)?;
        self.request_cancel(message)
    }

    fn request_cancel(&self, message: Option<&Any>) -> Result<bool> {
        self.set_log_traceback(false);
        if !self.is_pending() {
            return Ok(false);
        }
        self.set_cancels_requested(self.cancels_requested() + 1);
        let message = message.unwrap_or(none());
        if let Some(awaited) = self.awaited.get_object()
            && cancel_with_message(&awaited, message)?
        {
            return Ok(true);
        }
        self.set_must_cancel(true);
        self.cancel_message.set(message.to_object());
        Ok(true)
    }

    /// `task.get_name()`: names are made of the counter when somebody asks.
    fn get_name(&self) -> Result<Object> {
        let name = self.name.get_or_none();
        if !name.is_exact_integer() {
            return Ok(name);
        }
        let name = text(&format!("Task-{}", name.to_i64()?))?;
        self.name.set(name.clone());
        Ok(name)
    }
}

/// `task.cancel()`, of any task.
pub fn cancel_any(task: &Any) -> Result<()> {
    match Task::from_exact(task) {
        Some(task) => task.request_cancel(None).map(drop),
        None => task.call_method0(&names().cancel).map(drop),
    }
}

/// `task.cancelling()`, of any task.
pub fn cancelling(task: &Any) -> Result<i64> {
    match Task::from_exact(task) {
        Some(task) => Ok(i64::from(task.cancels_requested())),
        None => task.call_method0(&names().cancelling)?.to_i64(),
    }
}

/// `future.done()`, of any future or task.
#[inline]
pub fn is_done(future: &Any) -> Result<bool> {
    match futures::own(future) {
        Some(own) => Ok(!own.is_pending()),
        None => future.call_method0(&names().done)?.is_true(),
    }
}

/// A future whose methods are ioxide's own: exactly a Future, a Task or what `gather` returns.
#[inline]
fn plain_future(future: &Any) -> Option<&FutureObject> {
    futures::own(future).or_else(|| GatheringFuture::from_exact(future).map(|gathering| &**gathering))
}

/// The exception of a task that is done, which counts as retrieved then; `None` where it returned or was cancelled.
#[inline]
pub fn failure(task: &Any) -> Result<Option<Object>> {
    if let Some(own) = Task::from_exact(task) {
        if own.state() == FutureState::Cancelled || own.exception.is_empty() {
            return Ok(None);
        }
        own.set_log_traceback(false);
        return Ok(own.exception.get_object());
    }
    if task.call_method0(&names().cancelled)?.is_true()? {
        return Ok(None);
    }
    let exception = task.call_method0(&names().exception)?;
    Ok((!exception.is_none()).then_some(exception))
}

/// `asyncio.futures.future_add_to_awaited_by(future, task)`, for the call graph of 3.14.
#[inline]
pub fn awaited_by_add(future: &Any, task: &Any) -> Result<()> {
    if !HAS_CALL_GRAPH {
        return Ok(());
    }
    match (as_asyncio_future(future), as_asyncio_future(task)) {
        (Some(future), Some(_)) => future.awaited_by_add(task),
        _ => Ok(()),
    }
}

/// `asyncio.futures.future_discard_from_awaited_by(future, task)`
#[inline]
pub fn awaited_by_discard(future: &Any, task: &Any) -> Result<()> {
    if !HAS_CALL_GRAPH {
        return Ok(());
    }
    match (as_asyncio_future(future), as_asyncio_future(task)) {
        (Some(future), Some(_)) => future.awaited_by_discard(task),
        _ => Ok(()),
    }
}

fn as_asyncio_future(object: &Any) -> Option<&FutureObject> {
    object.is_subtype_of(&imports().Future).then(|| ioxide_cpython::version::as_future(object))
}

/// Whether `event_loop.create_task` is ioxide's own, so that calling it directly makes no difference.
pub fn has_own_create_task(event_loop: &Any) -> bool {
    EventLoop::from_any(event_loop).is_some_and(EventLoop::has_own_create_task)
}

/// `event_loop.create_task(coroutine, **keywords)` with the keywords of `arguments`, of any loop.
pub fn create_by_loop(event_loop: &Any, coroutine: &Any, arguments: Arguments<'_>) -> Result<Object> {
    if let Some(native) = EventLoop::from_any(event_loop).filter(|native| native.has_own_create_task()) {
        return native.create_task(arguments);
    }
    let (names_, mut values): (Vec<&Any>, Vec<&Any>) =
        arguments.keywords().filter(|(name, _)| !ioxide_cpython::methods::name_is(name, "coro")).unzip();
    values.insert(0, coroutine);
    let keywords = ioxide_cpython::names::keyword_names(&names_)?;
    event_loop.call_method_keywords(&names().create_task, &values, &keywords)
}

/// `task.set_name(name)`, where the task has names.
pub fn set_task_name(task: &Any, name: &Any) -> Result<()> {
    match task.get_attribute_optional(&names().set_name)? {
        Some(set_name) => set_name.call1(name).map(drop),
        None => Ok(()),
    }
}

/// `awaited.cancel(msg=message)`; without a call through Python where `awaited` is a future of ioxide's own.
fn cancel_with_message(awaited: &Any, message: &Any) -> Result<bool> {
    if let Some(future) = Future::from_exact(awaited) {
        return futures::cancel(future, Some(message));
    }
    if let Some(task) = Task::from_exact(awaited) {
        return task.request_cancel(Some(message));
    }
    if let Some(gathering) = GatheringFuture::from_exact(awaited) {
        return gathering.cancel(Some(message));
    }
    awaited.call_method_keywords(&names().cancel, &[message], &imports().names_message)?.is_true()
}

fn task_name(name: Option<&Any>) -> Result<Object> {
    match name {
        None => number(NAME_COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1),
        Some(name) => name.str(),
    }
}

/// Whether a task can run the object: native coroutines at once, others as `asyncio.iscoroutine` says.
fn is_coroutine(object: &Any) -> Result<bool> {
    if ioxide_cpython::coroutine::is_native_coroutine(object) {
        return Ok(true);
    }
    imports().iscoroutine.call1(object)?.is_true()
}

/// `loop.call_soon(step, context=task.context)`
pub fn schedule_step(task: &Task, event_loop: &Any) -> Result<()> {
    if let Some(native) = EventLoop::fast(event_loop) {
        native.push_ready(Ready::Step(task.to_object()));
        return Ok(());
    }
    let step = TaskStep::create(task, None)?;
    futures::call_soon(event_loop, &[&step], Some(&task.context.get_or_none()))
}

/// `loop.call_soon(step with an exception, context=task.context)`
pub fn schedule_throw(task: &Task, event_loop: &Any, exception: Object) -> Result<()> {
    if let Some(native) = EventLoop::fast(event_loop) {
        native.push_ready(Ready::Throw(task.to_object(), exception));
        return Ok(());
    }
    let step = TaskStep::create(task, Some(exception))?;
    futures::call_soon(event_loop, &[&step], Some(&task.context.get_or_none()))
}

/// The callback by which a future that is not ioxide's wakes the task: a built-in method of the task.
pub fn wakeup_function(task: &Task) -> Result<Object> {
    WAKEUP.get().bind(task)
}

/// A step as a Python callable, for loops that are not ioxide's or that somebody has overridden.
#[repr(C)]
struct TaskStep {
    head: Any,
    task: Slot,
    exception: Slot,
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for TaskStep {
    fn class() -> &'static Once<Class> {
        &TASK_STEP
    }
}

impl TaskStep {
    fn create(task: &Task, exception: Option<Object>) -> Result<Object> {
        let exception = exception.map_or_else(Slot::empty, Slot::filled);
        allocate(TaskStep { head: head(), task: Slot::filled(task.to_object()), exception })
    }

    fn call(&self, _arguments: Arguments<'_>) -> Result<Object> {
        let task = self.task.get_or_none();
        if let Some(task) = Task::from_any(&task) {
            step::step(task, self.exception.get_object())?;
        }
        Ok(none_object())
    }
}

impl Traverse for TaskStep {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.task);
        visitor.slot(&self.exception);
    }

    fn clear(&self) {
        self.task.clear();
        self.exception.clear();
    }
}
