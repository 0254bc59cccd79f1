//! `Timeout`, `timeout`, `timeout_at`.
//!
//! The class derives from asyncio's and keeps its state in slots of asyncio's names, so `when`, `expired` and `repr` are
//! asyncio's own. What happens to every timeout (entering, arming the timer, leaving) is written here.
//!
//! Invariants:
//! W1. `_timeout_handler` holds the handle that is armed, and nothing once it has run or was cancelled.
//! W2. `_state` only goes forward: created, entered, then exited, or expiring and expired; each is asyncio's own
//!     member of its enumeration.

use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::tasks::Deadline;
use crate::{handles, tasks};
use ioxide_cpython::call::import;
use ioxide_cpython::current::{current_task, get_running_loop};
use ioxide_cpython::exception::{self, Builtin, builtin};
use ioxide_cpython::functions::{coroutine_method, coroutine_method0, function};
use ioxide_cpython::methods::{Arguments, Signature, documented, given, method, method0};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::{Class, FunctionDefinition, Native, SlottedDefinition, allocate_slotted};
use ioxide_cpython::value::integer;
use ioxide_cpython::version::InstanceHead;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, imports, names, none, none_object};
use std::mem::offset_of;
use std::ops::Deref;

#[repr(C)]
struct Timeout {
    head: InstanceHead,
    cancelling: Slot,
    state: Slot,
    task: Slot,
    handle: Slot,
    when: Slot,
}

/// What the running asyncio's Timeout is made of.
struct OfAsyncio {
    created: Object,
    entered: Object,
    expiring: Object,
    expired: Object,
    exited: Object,
    /// Up to 3.12 only a CancelledError itself becomes a TimeoutError; later classes derived from it do, too, and an
    /// exception raised while it was handled gets a TimeoutError in its context.
    looks_deeper: bool,
}

static TIMEOUT: Once<Class> = Once::new();
static OF_ASYNCIO: Once<OfAsyncio> = Once::new();
static ON_TIMEOUT: Once<FunctionDefinition> = Once::new();

// SAFETY: the slots of the class, in the order in which `type` lays them out; `create` verifies it.
unsafe impl Native for Timeout {
    fn class() -> &'static Once<Class> {
        &TIMEOUT
    }
}

impl Deref for Timeout {
    type Target = Any;
    fn deref(&self) -> &Any {
        &self.head
    }
}

pub fn add_to(module: &Module<'_>) -> Result<()> {
    let timeouts = import(c"asyncio.timeouts")?;
    let base = timeouts.get_attribute_str(c"Timeout")?;
    let states = timeouts.get_attribute_str(c"_State")?;
    let state = |name| states.get_attribute_str(name);
    OF_ASYNCIO.set(OfAsyncio {
        created: state(c"CREATED")?,
        entered: state(c"ENTERED")?,
        expiring: state(c"EXPIRING")?,
        expired: state(c"EXPIRED")?,
        exited: state(c"EXITED")?,
        looks_deeper: base.get_attribute_str(c"_insert_timeout_error").map(|_| true).or_else(absent)?,
    });
    ON_TIMEOUT.set(FunctionDefinition::new(method0(c"_on_timeout", Timeout::on_timeout)));
    TIMEOUT.set(definition(base).create()?);
    module.add(c"Timeout", Timeout::class().get().as_any())?;
    module.add_function(documented(
        function(c"timeout", timeout),
        c"timeout(delay)\n--\n\nAn asynchronous context manager that cancels what runs longer than `delay` seconds.\n\n\
        The cancellation leaves the block as TimeoutError. With None there is no limit until `reschedule()` sets one.",
    ))?;
    module.add_function(documented(
        function(c"timeout_at", timeout_at),
        c"timeout_at(when)\n--\n\nAs timeout(), with an absolute time in seconds of loop.time().",
    ))
}

/// An attribute that this Python's class does not have.
fn absent(raised: Raised) -> Result<bool> {
    if !raised.matches(builtin(Builtin::AttributeError)) {
        return Err(raised);
    }
    drop(raised.take());
    Ok(false)
}

fn definition(base: Object) -> SlottedDefinition {
    SlottedDefinition {
        name: c"Timeout",
        base,
        doc: "Asynchronous context manager for cancelling overdue coroutines; timeout() and timeout_at() make it.",
        slots: vec![
            ("_cancelling", offset_of!(Timeout, cancelling)),
            ("_state", offset_of!(Timeout, state)),
            ("_task", offset_of!(Timeout, task)),
            ("_timeout_handler", offset_of!(Timeout, handle)),
            ("_when", offset_of!(Timeout, when)),
        ],
        methods: vec![
            documented(
                method(c"reschedule", |this: &Timeout, arguments: Arguments<'_>| {
                    this.reschedule(arguments.only("Timeout.reschedule", "when")?)
                }),
                c"reschedule($self, when)\n--\n\nMove the deadline to `when`, a time of loop.time(), or to never with None.",
            ),
            documented(coroutine_method0(c"__aenter__", Timeout::aenter), c"__aenter__($self)\n--\n\n"),
            documented(
                coroutine_method(c"__aexit__", Timeout::aexit),
                c"__aexit__($self, exc_type, exc_val, exc_tb)\n--\n\n",
            ),
            method0(c"_on_timeout", Timeout::on_timeout),
        ],
    }
}

/// `timeout(delay)`. Fails: RuntimeError outside of a loop.
fn timeout(arguments: Arguments<'_>) -> Result<Object> {
    let delay = arguments.only("timeout", "delay")?;
    let event_loop = get_running_loop()?;
    if delay.is_none() {
        return Timeout::create(none_object());
    }
    Timeout::create(handles::time_after(&event_loop, delay)?)
}

/// `timeout_at(when)`
fn timeout_at(arguments: Arguments<'_>) -> Result<Object> {
    Timeout::create(arguments.only("timeout_at", "when")?.to_object())
}

const AEXIT: Signature<3> = Signature {
    function: "Timeout.__aexit__",
    names: ["exc_type", "exc_val", "exc_tb"],
    required: 3,
    positional: 3,
};

static ENTER: Routine = Routine { qualified_name: "Timeout.__aenter__", step: enter_step };
static EXIT: Routine = Routine { qualified_name: "Timeout.__aexit__", step: exit_step };

fn timeout_of(procedure: &Procedure) -> Result<&Timeout> {
    Timeout::from_any(procedure.owner()).ok_or_else(|| Raised::runtime_error("the timeout is gone"))
}

fn enter_step(procedure: &Procedure, _resumed: Resumed) -> Result<Progress> {
    timeout_of(procedure)?.enter()?;
    Ok(Progress::Return(procedure.owner().to_object()))
}

fn exit_step(procedure: &Procedure, _resumed: Resumed) -> Result<Progress> {
    let (class, exception) = (procedure.argument.get_object(), procedure.kept.get_object());
    timeout_of(procedure)?.exit(class.as_deref(), exception.as_deref())?;
    Ok(Progress::Return(none_object()))
}

/// The deadline of a timeout has come: `_on_timeout`, as a handle would call it.
fn come_due(timeout: &Any) -> Result<()> {
    let Some(this) = Timeout::from_any(timeout) else { return Ok(()) };
    match this.on_timeout() {
        Err(raised) if !raised.leaves_the_loop() => {
            let exception = raised.take();
            let event_loop = this.task.get_or_none().call_method0(&names().get_loop)?;
            handles::report_of_callback(&event_loop, &*ON_TIMEOUT.get().bind(timeout)?, exception)
        }
        outcome => outcome,
    }
}

impl Timeout {
    fn create(when: Object) -> Result<Object> {
        let object = allocate_slotted::<Timeout>()?;
        if let Some(timeout) = Timeout::from_any(&object) {
            timeout.state.initialize(Some(OF_ASYNCIO.get().created.clone()));
            timeout.when.initialize(Some(when));
            timeout.task.initialize(Some(none_object()));
            timeout.handle.initialize(Some(none_object()));
        }
        Ok(object)
    }

    fn is_in(&self, state: &Any) -> bool {
        self.state.is(state)
    }

    fn aenter(&self) -> Result<Object> {
        procedure(&ENTER, self, None)
    }

    fn enter(&self) -> Result<()> {
        let of_asyncio = OF_ASYNCIO.get();
        if !self.is_in(&of_asyncio.created) {
            return Err(Raised::runtime_error("Timeout has already been entered"));
        }
        let event_loop = get_running_loop()?;
        let Some(task) = current_task(&event_loop)? else {
            return Err(Raised::runtime_error("Timeout should be used inside a task"));
        };
        self.state.set(of_asyncio.entered.clone());
        self.cancelling.set(integer(tasks::cancelling(&task)?)?);
        self.task.set(task);
        self.arm(&event_loop)
    }

    /// `reschedule(when)`. Fails: RuntimeError unless the timeout is entered and has not expired.
    fn reschedule(&self, when: &Any) -> Result<()> {
        let of_asyncio = OF_ASYNCIO.get();
        if !self.is_in(&of_asyncio.entered) {
            if self.is_in(&of_asyncio.created) {
                return Err(Raised::runtime_error("Timeout has not been entered"));
            }
            let state = self.state.get_or_none().get_attribute(&names().value)?.to_text()?;
            return Err(Raised::runtime_error(&format!("Cannot change state of {} Timeout", state.as_str())));
        }
        self.when.set(when.to_object());
        self.disarm()?;
        if when.is_none() {
            return Ok(());
        }
        self.arm(&*get_running_loop()?)
    }

    /// Schedules the end for the deadline, if there is one and it is not scheduled yet (W1).
    fn arm(&self, event_loop: &Any) -> Result<()> {
        let when = self.when.get_or_none();
        if when.is_none() {
            return Ok(());
        }
        let is_exact = Timeout::class().get().is_exact(self);
        if is_exact
            && let Some(time) = when.as_plain_number()
            && let Some(deadline) = Deadline::arm_any(event_loop, time, self, come_due)?
        {
            self.handle.set(deadline);
            return Ok(());
        }
        let callback = match is_exact {
            true => ON_TIMEOUT.get().bind(self)?,
            false => self.get_attribute_str(c"_on_timeout")?,
        };
        let handle = match when.is_at_most(&*handles::time(event_loop)?)? {
            true => handles::call_soon(event_loop, &callback)?,
            false => handles::call_at(event_loop, &when, &callback)?,
        };
        self.handle.set(handle);
        Ok(())
    }

    fn disarm(&self) -> Result<()> {
        match self.handle.replace(Some(none_object())) {
            Some(handle) if handle.is_none() => Ok(()),
            Some(handle) => match Deadline::from_exact(&handle) {
                Some(deadline) => {
                    deadline.cancel();
                    Ok(())
                }
                None => handles::cancel_any(&handle),
            },
            None => Ok(()),
        }
    }

    /// The deadline has come: the task is cancelled, and `__aexit__` knows why.
    fn on_timeout(&self) -> Result<()> {
        tasks::cancel_any(&self.task.get_or_none())?;
        self.state.set(OF_ASYNCIO.get().expiring.clone());
        self.handle.set(none_object());
        Ok(())
    }

    fn aexit(&self, arguments: Arguments<'_>) -> Result<Object> {
        let [class, exception, _traceback] = AEXIT.bind(arguments)?;
        let object = procedure(&EXIT, self, given(class))?;
        if let (Some(procedure), Some(exception)) = (Procedure::from_exact(&object), given(exception)) {
            procedure.kept.set(exception.to_object());
        }
        Ok(object)
    }

    /// Fails: TimeoutError where the exception that leaves the block is the cancellation by this timeout.
    fn exit(&self, class: Option<&Any>, raised: Option<&Any>) -> Result<()> {
        let of_asyncio = OF_ASYNCIO.get();
        if !self.is_in(&of_asyncio.entered) && !self.is_in(&of_asyncio.expiring) {
            return Err(Raised::empty(builtin(Builtin::AssertionError)));
        }
        self.disarm()?;
        if self.is_in(&of_asyncio.entered) {
            self.state.set(of_asyncio.exited.clone());
        }
        if !self.is_in(&of_asyncio.expiring) {
            return Ok(());
        }
        self.state.set(of_asyncio.expired.clone());
        let left = self.task.get_or_none().call_method0(&names().uncancel)?;
        let (true, Some(class)) = (left.is_at_most(&self.cancelling.get_or_none())?, class) else {
            return Ok(()); // somebody else wants the task cancelled, or nobody noticed
        };
        explain_expiry(class, raised)
    }
}

/// What becomes of an exception, of class `class`, that leaves the block after the deadline has cancelled its task.
/// Fails: TimeoutError where it is the cancellation.
pub fn explain_expiry(class: &Any, raised: Option<&Any>) -> Result<()> {
    let cancelled = &*imports().CancelledError;
    let looks_deeper = OF_ASYNCIO.get().looks_deeper;
    if class.is(cancelled) || (looks_deeper && class.is_subclass(cancelled)?) {
        return Err(Raised::from_cause(&imports().TimeoutError, raised.unwrap_or(none())));
    }
    match raised {
        Some(raised) if looks_deeper => explain(raised),
        _ => Ok(()),
    }
}

/// Says in the context of an exception, and of those in its group, that the cancellation behind it was a timeout.
fn explain(raised: &Any) -> Result<()> {
    insert_timeout_error(raised.to_object())?;
    if raised.is_instance(&imports().ExceptionGroup)? {
        for member in raised.get_attribute_str(c"exceptions")?.iterate()? {
            insert_timeout_error(member?)?;
        }
    }
    Ok(())
}

/// Puts a TimeoutError between the exception and the first CancelledError in the chain of its contexts.
fn insert_timeout_error(mut raised: Object) -> Result<()> {
    while let Some(context) = exception::context(&raised) {
        if exception::exception_matches(&context, &imports().CancelledError) {
            let error = imports().TimeoutError.call0()?;
            exception::set_cause(&error, &context);
            exception::set_context(&error, &context);
            exception::set_context(&raised, &error);
            return Ok(());
        }
        raised = context;
    }
    Ok(())
}
