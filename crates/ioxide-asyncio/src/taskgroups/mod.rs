//! `TaskGroup`.
//!
//! The class derives from asyncio's and keeps its state in slots of asyncio's names, so `repr` and `_is_base_error` are
//! asyncio's own.
//!
//! | file | room |
//! |---|---|
//! | mod | the class: entering, creating tasks, what becomes of a task that is done, cancelling |
//! | exit | `__aexit__`: waiting for the tasks, which exception leaves |
//! | rules | what the running asyncio does where versions differ |
//!
//! Invariants:
//! P1. `_tasks` holds exactly the tasks that are not done or whose callback has not run yet.
//! P2. `_done_callback` is the one function that all native tasks of the group call when they are done. It refers back
//!     to the group and is dropped when the group is left.

mod exit;
mod rules;

use self::rules::Rules;
use crate::tasks::DoneCallback;
use crate::{futures, tasks};
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::coroutine;
use ioxide_cpython::current::{current_task, get_running_loop};
use ioxide_cpython::exception::{Builtin, exception_is};
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::methods::{Arguments, Signature, documented, given, method, method0, method1};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::{Class, Native, SlottedDefinition};
use ioxide_cpython::value::{dict, list, set, set_add, set_discard, text};
use ioxide_cpython::version::InstanceHead;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, boolean, imports, names, none_object};
use std::mem::offset_of;
use std::ops::Deref;

#[repr(C)]
struct TaskGroup {
    head: InstanceHead,
    aborting: Slot,
    base_error: Slot,
    cancel_on_enter: Slot,
    done_callback: Slot,
    entered: Slot,
    errors: Slot,
    exiting: Slot,
    event_loop: Slot,
    on_completed: Slot,
    parent_cancel_requested: Slot,
    parent_task: Slot,
    tasks: Slot,
}

static TASK_GROUP: Once<Class> = Once::new();
static RULES: Once<Rules> = Once::new();

// SAFETY: the slots of the class, in the order in which `type` lays them out; `create` verifies it.
unsafe impl Native for TaskGroup {
    fn class() -> &'static Once<Class> {
        &TASK_GROUP
    }
}

impl Deref for TaskGroup {
    type Target = Any;
    fn deref(&self) -> &Any {
        &self.head
    }
}

pub fn add_to(module: &Module<'_>) -> Result<()> {
    let base = import(c"asyncio.taskgroups")?.get_attribute_str(c"TaskGroup")?;
    RULES.set(Rules::of(&base)?);
    TASK_GROUP.set(definition(base).create()?);
    module.add(c"TaskGroup", TaskGroup::class().get().as_any())
}

fn definition(base: Object) -> SlottedDefinition {
    SlottedDefinition {
        name: c"TaskGroup",
        base,
        doc: "Asynchronous context manager for a group of tasks, all of which are awaited when it is left.\n\n\
              The first task that fails cancels the others; what failed leaves in an ExceptionGroup.",
        slots: vec![
            ("_aborting", offset_of!(TaskGroup, aborting)),
            ("_base_error", offset_of!(TaskGroup, base_error)),
            ("_cancel_on_enter", offset_of!(TaskGroup, cancel_on_enter)),
            ("_done_callback", offset_of!(TaskGroup, done_callback)),
            ("_entered", offset_of!(TaskGroup, entered)),
            ("_errors", offset_of!(TaskGroup, errors)),
            ("_exiting", offset_of!(TaskGroup, exiting)),
            ("_loop", offset_of!(TaskGroup, event_loop)),
            ("_on_completed_fut", offset_of!(TaskGroup, on_completed)),
            ("_parent_cancel_requested", offset_of!(TaskGroup, parent_cancel_requested)),
            ("_parent_task", offset_of!(TaskGroup, parent_task)),
            ("_tasks", offset_of!(TaskGroup, tasks)),
        ],
        methods: vec![
            documented(method0(c"__init__", TaskGroup::initialize), c"__init__($self, /)\n--\n\n"),
            documented(coroutine_method0(c"__aenter__", TaskGroup::aenter), c"__aenter__($self)\n--\n\n"),
            documented(
                coroutine_method(c"__aexit__", TaskGroup::aexit),
                c"__aexit__($self, et, exc, tb)\n--\n\n",
            ),
            documented(
                method(c"create_task", TaskGroup::create_task),
                match RULES.get().forwards_keywords {
                    true => {
                        c"create_task($self, coro, **kwargs)\n--\n\nRun a coroutine as a task of the group. The keywords are those of the loop's create_task()."
                    }
                    false => {
                        c"create_task($self, coro, *, name=None, context=None, eager_start=False)\n--\n\nRun a coroutine as a task of the group."
                    }
                },
            ),
            method1(c"_on_task_done", TaskGroup::on_task_done),
            method0(c"_abort", TaskGroup::abort),
            documented(
                method0(c"cancel", TaskGroup::cancel),
                c"cancel($self, /)\n--\n\nCancel the tasks of the group and its body. The group is then left without CancelledError.\n\n\
                Before the group is entered, it is cancelled as soon as it is; afterwards nothing happens.",
            ),
        ],
    }
}

fn is_true(slot: &Slot) -> bool {
    slot.is(&boolean(true))
}

const CREATE_TASK: Signature<4> = Signature {
    function: "TaskGroup.create_task",
    names: ["coro", "name", "context", "eager_start"],
    required: 1,
    positional: 1,
};

impl TaskGroup {
    /// `__init__()`
    fn initialize(&self) -> Result<()> {
        for flag in [
            &self.aborting,
            &self.cancel_on_enter,
            &self.entered,
            &self.exiting,
            &self.parent_cancel_requested,
        ] {
            flag.set(boolean(false));
        }
        for reference in [&self.base_error, &self.event_loop, &self.on_completed, &self.parent_task] {
            reference.set(none_object());
        }
        self.done_callback.clear();
        self.errors.set(list()?);
        self.tasks.set(set()?);
        Ok(())
    }

    fn is_exact(&self) -> bool {
        TaskGroup::class().get().is_exact(self)
    }

    fn has_tasks(&self) -> Result<bool> {
        self.tasks.get_or_none().is_true()
    }

    /// RuntimeError("TaskGroup <repr> <what>")
    #[cold]
    fn misused(&self, what: &str) -> Raised {
        match self.repr().and_then(|shown| shown.to_text()) {
            Ok(shown) => Raised::runtime_error(&format!("TaskGroup {} {what}", shown.as_str())),
            Err(raised) => raised,
        }
    }

    fn aenter(&self) -> Result<Object> {
        let this = self.to_object();
        coroutine("TaskGroup.__aenter__", async move {
            if let Some(group) = TaskGroup::from_any(&this) {
                group.enter()?;
            }
            Ok(this)
        })
    }

    fn enter(&self) -> Result<()> {
        if is_true(&self.entered) {
            return Err(self.misused("has already been entered"));
        }
        if self.event_loop.get_or_none().is_none() {
            self.event_loop.set(get_running_loop()?);
        }
        let parent = current_task(&self.event_loop.get_or_none())?;
        let is_in_task = parent.is_some();
        self.parent_task.set(parent.unwrap_or_else(none_object));
        if !is_in_task {
            return Err(self.misused("cannot determine the parent task"));
        }
        self.entered.set(boolean(true));
        if is_true(&self.cancel_on_enter) {
            self.cancel()?;
        }
        Ok(())
    }

    fn aexit(&self, arguments: Arguments<'_>) -> Result<Object> {
        let [class, exception, _traceback] = exit::AEXIT.bind(arguments)?;
        let this = self.to_object();
        let class = given(class).map(Any::to_object);
        let exception = given(exception).map(Any::to_object);
        coroutine("TaskGroup.__aexit__", exit::leave(this, class, exception))
    }

    /// `create_task(coro, **keywords)`
    fn create_task(&self, arguments: Arguments<'_>) -> Result<Object> {
        let coroutine = arguments.first("TaskGroup.create_task", "coro")?;
        if !is_true(&self.entered) {
            return Err(self.refuse(coroutine, "has not been entered"));
        }
        if is_true(&self.exiting) && !self.has_tasks()? {
            return Err(self.refuse(coroutine, "is finished"));
        }
        if is_true(&self.aborting) {
            return Err(self.refuse(coroutine, "is shutting down"));
        }
        let task = self.task_of_loop(coroutine, arguments)?;
        self.adopt(&task)?;
        Ok(task)
    }

    #[cold]
    fn refuse(&self, coroutine: &Any, what: &str) -> Raised {
        if RULES.get().closes_refused
            && let Err(raised) = coroutine.call_method0(&names().close)
        {
            return raised;
        }
        self.misused(what)
    }

    /// `loop.create_task(coro, **keywords)`, with the keywords that the running asyncio passes on.
    fn task_of_loop(&self, coroutine: &Any, arguments: Arguments<'_>) -> Result<Object> {
        let event_loop = self.event_loop.get_or_none();
        let rules = RULES.get();
        if rules.forwards_keywords {
            return tasks::create_by_loop(&event_loop, coroutine, arguments);
        }
        let [_, name, task_context, eager_start] = CREATE_TASK.bind(arguments)?;
        if !arguments.has_keywords() && tasks::has_own_create_task(&event_loop) {
            return tasks::create_by_loop(&event_loop, coroutine, arguments);
        }
        let mut passed: Vec<(&Any, &Any)> = Vec::new();
        if !rules.names_afterwards {
            passed.push((&names().name, name.unwrap_or(ioxide_cpython::none())));
        }
        if let Some(task_context) = given(task_context) {
            passed.push((&names().context, task_context));
        }
        if let Some(eager_start) = eager_start {
            passed.push((&names().eager_start, eager_start));
        }
        let (keywords, mut values): (Vec<&Any>, Vec<&Any>) = passed.into_iter().unzip();
        values.insert(0, coroutine);
        let keywords = ioxide_cpython::names::keyword_names(&keywords)?;
        let task = event_loop.call_method_keywords(&names().create_task, &values, &keywords)?;
        if let Some(name) = given(name).filter(|_| rules.names_afterwards) {
            tasks::set_task_name(&task, name)?;
        }
        Ok(task)
    }

    /// The group waits for the task (P1).
    fn adopt(&self, task: &Any) -> Result<()> {
        let rules = RULES.get();
        tasks::awaited_by_add(task, &self.parent_task.get_or_none())?;
        if rules.settles_at_once && tasks::is_done(task)? {
            return self.task_done(task);
        }
        set_add(&self.tasks.get_or_none(), task)?;
        match futures::own(task).filter(|_| self.is_exact()) {
            Some(own) => futures::add_native_callback(own, &*self.callback()?)?,
            None => futures::add_done_callback_any(task, &*self.callback()?)?,
        }
        if rules.cancels_eager_tasks && is_true(&self.aborting) && !tasks::is_done(task)? {
            tasks::cancel_any(task)?;
        }
        Ok(())
    }

    /// What the tasks call when they are done (P2).
    fn callback(&self) -> Result<Object> {
        if let Some(callback) = self.done_callback.get_object() {
            return Ok(callback);
        }
        let callback = match self.is_exact() {
            true => DoneCallback::create("TaskGroup._on_task_done", on_task_done, self)?,
            false => self.get_attribute_str(c"_on_task_done")?,
        };
        self.done_callback.set(callback.clone());
        Ok(callback)
    }

    fn on_task_done(&self, task: &Any) -> Result<()> {
        set_discard(&self.tasks.get_or_none(), task)?;
        tasks::awaited_by_discard(task, &self.parent_task.get_or_none())?;
        let waiter = self.on_completed.get_or_none();
        if !waiter.is_none() && !self.has_tasks()? && !tasks::is_done(&waiter)? {
            futures::set_result_any(&waiter, &boolean(true))?;
        }
        match tasks::failure(task)? {
            Some(exception) => self.task_failed(task, &exception),
            None => Ok(()),
        }
    }

    /// `self._on_task_done(task)`, which a derived class may have replaced.
    fn task_done(&self, task: &Any) -> Result<()> {
        match self.is_exact() {
            true => self.on_task_done(task),
            false => self.get_attribute_str(c"_on_task_done")?.call1(task).map(drop),
        }
    }

    /// The first failure cancels the other tasks, and the body of the group if it still runs.
    #[cold]
    fn task_failed(&self, task: &Any, exception: &Any) -> Result<()> {
        self.errors.get_or_none().list_append(exception)?;
        if is_base_error(exception) && self.base_error.get_or_none().is_none() {
            self.base_error.set(exception.to_object());
        }
        let parent = self.parent_task.get_or_none();
        if tasks::is_done(&parent)? {
            return self.report_orphan(task, exception, &parent);
        }
        if !is_true(&self.aborting) && !is_true(&self.parent_cancel_requested) {
            self.abort_by_method()?;
            self.parent_cancel_requested.set(boolean(true));
            tasks::cancel_any(&parent)?;
        }
        Ok(())
    }

    fn report_orphan(&self, task: &Any, exception: &Any, parent: &Any) -> Result<()> {
        let (shown, parent) = (task.repr()?.to_text()?, parent.str()?.to_text()?);
        let message = format!(
            "Task {} has errored out but its parent task {} is already completed",
            shown.as_str(),
            parent.as_str()
        );
        let report = dict()?;
        report.dict_set(&names().message, &*text(&message)?)?;
        report.dict_set(&names().exception, exception)?;
        report.dict_set(&names().task, task)?;
        self.event_loop.get_or_none().call_method1(&names().call_exception_handler, &report).map(drop)
    }

    fn abort(&self) -> Result<()> {
        self.aborting.set(boolean(true));
        for task in self.tasks.get_or_none().iterate()? {
            let task = task?;
            if !tasks::is_done(&task)? {
                tasks::cancel_any(&task)?;
            }
        }
        Ok(())
    }

    /// `self._abort()`, which a derived class may have replaced.
    fn abort_by_method(&self) -> Result<()> {
        match self.is_exact() {
            true => self.abort(),
            false => self.get_attribute_str(c"_abort")?.call0().map(drop),
        }
    }

    /// `cancel()`: also before Python 3.15, where asyncio has no such method.
    fn cancel(&self) -> Result<()> {
        if !is_true(&self.entered) {
            self.cancel_on_enter.set(boolean(true));
            return Ok(());
        }
        if is_true(&self.exiting) && !self.has_tasks()? {
            return Ok(());
        }
        if is_true(&self.aborting) {
            return Ok(());
        }
        self.abort_by_method()?;
        let parent = self.parent_task.get_or_none();
        if !parent.is_none() && !is_true(&self.parent_cancel_requested) {
            self.parent_cancel_requested.set(boolean(true));
            tasks::cancel_any(&parent)?;
        }
        Ok(())
    }
}

fn on_task_done(callback: &DoneCallback, task: &Any) -> Result<()> {
    match TaskGroup::from_any(&callback.owner.get_or_none()) {
        Some(group) => group.on_task_done(task),
        None => Ok(()),
    }
}

/// SystemExit and KeyboardInterrupt leave the group as they are.
fn is_base_error(exception: &Any) -> bool {
    exception_is(exception, Builtin::SystemExit) || exception_is(exception, Builtin::KeyboardInterrupt)
}

/// Whether a class is CancelledError, or derives from it where that counts.
fn is_cancellation(class: &Any) -> Result<bool> {
    let cancelled = &*imports().CancelledError;
    Ok(class.is(cancelled) || (RULES.get().matches_derived && class.is_subclass(cancelled)?))
}
