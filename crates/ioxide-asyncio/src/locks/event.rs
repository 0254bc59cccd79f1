//! `Event`: a flag that tasks wait for.

use super::{Kind, Primitive, WaitQueue, assigned, construct, new_method, shared_attributes, shared_methods};
use super::{assign_waiters, waiters_shown};
use crate::mixins::LoopBound;
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::shells::{Core, Shell};
use ioxide_cpython::functions::coroutine_method0;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Attribute, Definition, attribute, documented, method, method0};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::{Any, Object, Once, Raised, Result, boolean};
use std::cell::Cell;

pub type Event = Shell<EventCore>;

#[repr(C)]
pub struct EventCore {
    head: Any,
    bound: LoopBound,
    waiters: WaitQueue,
    value: Cell<bool>,
}

static EVENT_CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static KIND: Once<Kind> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for EventCore {
    fn class() -> &'static Once<Class> {
        &EVENT_CORE
    }
}

impl Core for EventCore {
    fn shell() -> &'static Once<ShellClass> {
        &SHELL
    }
}

impl Primitive for EventCore {
    const STATE: &'static [&'static std::ffi::CStr] = &[c"_waiters", c"_value"];

    fn fresh() -> EventCore {
        EventCore {
            head: head(),
            bound: LoopBound::new(),
            waiters: WaitQueue::new(),
            value: Cell::new(false),
        }
    }

    fn bound(&self) -> &LoopBound {
        &self.bound
    }
}

/// Creates the class.
pub fn initialize(locks: &Any) -> Result<&'static Any> {
    EVENT_CORE.set(NativeClass::core::<EventCore>(c"ioxide.EventCore")?);
    let base = locks.get_attribute_str(c"Event")?;
    SHELL.set(ShellClass::create(ShellDefinition {
        name: c"Event",
        bases: vec![base.clone()],
        doc: "A flag that tasks of one event loop wait for, as asyncio.Event. It is not set at first.",
        methods: methods(),
        attributes: attributes(),
        new: Some(new_method::<EventCore>()),
    })?);
    SHELL.get().constructed_by(construct::<EventCore>, Event::initialize);
    let class = SHELL.get().class();
    KIND.set(Kind::new(base, class, "asyncio.locks.Event", &["_get_loop"])?);
    Ok(class.as_any())
}

fn methods() -> Vec<Definition> {
    let mut methods = shared_methods::<EventCore>();
    methods.extend([
        documented(method(c"__init__", Event::initialize), c"__init__($self)\n--\n\n"),
        method0(c"__repr__", Event::show),
        documented(method0(c"is_set", Event::is_set), c"is_set($self)\n--\n\nWhether the flag is set."),
        documented(
            method0(c"set", Event::set),
            c"set($self)\n--\n\nSets the flag and wakes everybody who waits for it.",
        ),
        documented(
            method0(c"clear", Event::reset),
            c"clear($self)\n--\n\nUnsets the flag: from now on wait() waits.",
        ),
        documented(
            coroutine_method0(c"wait", Event::wait),
            c"wait($self)\n--\n\nWaits until the flag is set and returns True; at once where it is set already.",
        ),
    ]);
    methods
}

fn attributes() -> Vec<Attribute> {
    let mut attributes = shared_attributes::<EventCore>();
    attributes.extend([
        attribute(
            c"_waiters",
            |this: &Event| this.core().waiters.shown(),
            |this: &Event, value: Option<&Any>| {
                assign_waiters(&this.core().waiters, assigned(value)?);
                Ok(())
            },
        ),
        attribute(c"_value", Event::is_set, |this: &Event, value: Option<&Any>| {
            this.core().value.set(assigned(value)?.is_true()?);
            Ok(())
        }),
    ]);
    attributes
}

static WAIT: Routine = Routine { qualified_name: "Event.wait", step: wait_step };

fn wait_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let Some(event) = Event::from_any(procedure.owner()) else {
        return Err(Raised::runtime_error("the event is gone"));
    };
    let core = event.core();
    if let Resumed::Started = resumed {
        if core.value.get() {
            return Ok(Progress::Return(boolean(true)));
        }
        let waiter = core.bound.create_future(event)?;
        core.waiters.append(&waiter)?;
        return Ok(Progress::Wait(waiter));
    }
    core.waiters.remove(&procedure.take_waiter())?;
    match resumed {
        Resumed::Raised(exception) => Err(Raised::exception(exception)),
        _ => Ok(Progress::Return(boolean(true))),
    }
}

impl Event {
    /// A new event, set or not.
    pub fn create(set: bool) -> Result<Object> {
        let core = EventCore::fresh();
        core.value.set(set);
        SHELL.get().instantiate(SHELL.get().class().as_any(), allocate(core)?)
    }

    fn initialize(&self, arguments: Arguments<'_>) -> Result<()> {
        if arguments.has_keywords() || !arguments.positional().is_empty() {
            return KIND.get().asyncios_with(self, c"__init__", arguments).map(drop);
        }
        self.core().value.set(false);
        self.core().waiters.clear();
        Ok(())
    }

    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.core().value.get()
    }

    /// `event.set()`
    pub fn set(&self) -> Result<()> {
        let core = self.core();
        if core.value.replace(true) {
            return Ok(());
        }
        core.waiters.wake(usize::MAX, &boolean(true)).map(drop)
    }

    /// `event.clear()`
    pub fn reset(&self) {
        self.core().value.set(false);
    }

    /// `event.wait()`
    #[inline]
    pub fn wait(&self) -> Result<Object> {
        if !KIND.get().is_plain(self)? {
            return KIND.get().asyncios(self, c"wait", &[]);
        }
        procedure(&WAIT, self, None)
    }

    fn show(&self) -> Result<Object> {
        let state = if self.is_set() { "set" } else { "unset" };
        KIND.get().show(self, &format!("{state}{}", waiters_shown(&self.core().waiters)?))
    }
}

impl Traverse for EventCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.bound.traverse(visitor);
        self.waiters.traverse(visitor);
    }

    fn clear(&self) {
        self.bound.clear();
        self.waiters.clear();
    }
}
