//! `Semaphore` and `BoundedSemaphore`: a number of holders at once, the others wait in line.
//!
//! Invariants:
//! S1. A waiter that is woken has been given its place: the value was counted down for it. Cancelled before it goes on, it
//!     gives the place back.

use super::count::Count;
use super::{Kind, Primitive, WaitQueue, assign_waiters, assigned, construct, is_cancellation};
use super::{new_method, shared_attributes, shared_methods, waiters_shown};
use crate::mixins::LoopBound;
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::shells::{Core, Shell};
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Attribute, Definition, attribute, documented, method, method0};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, head};
use ioxide_cpython::{Any, Object, Once, Raised, Result, boolean, none_object};
use std::cell::Cell;

pub type Semaphore = Shell<SemaphoreCore>;

#[repr(C)]
pub struct SemaphoreCore {
    head: Any,
    bound: LoopBound,
    waiters: WaitQueue,
    /// Whether `_waiters` is a deque and no longer None: somebody has had to wait.
    has_waiters: Cell<bool>,
    value: Count,
    /// `_bound_value` of a BoundedSemaphore.
    limit: Count,
}

static SEMAPHORE_CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static BOUNDED: Once<ShellClass> = Once::new();
static KINDS: Once<Kinds> = Once::new();

struct Kinds {
    semaphore: Kind,
    bounded: Kind,
    /// From 3.13 on whoever goes on, or is cancelled, wakes as many as there are places for. Before, one at most, and only a
    /// cancelled one that had been woken.
    wakes_as_many_as_fit: bool,
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for SemaphoreCore {
    fn class() -> &'static Once<Class> {
        &SEMAPHORE_CORE
    }
}

impl Core for SemaphoreCore {
    fn shell() -> &'static Once<ShellClass> {
        &SHELL
    }
}

impl Primitive for SemaphoreCore {
    const STATE: &'static [&'static std::ffi::CStr] = &[c"_waiters", c"_value"];

    fn fresh() -> SemaphoreCore {
        SemaphoreCore {
            head: head(),
            bound: LoopBound::new(),
            waiters: WaitQueue::new(),
            has_waiters: Cell::new(false),
            value: Count::new(1),
            limit: Count::new(1),
        }
    }

    fn bound(&self) -> &LoopBound {
        &self.bound
    }
}

/// Creates the classes.
pub fn initialize(locks: &Any) -> Result<(&'static Any, &'static Any)> {
    SEMAPHORE_CORE.set(NativeClass::core::<SemaphoreCore>(c"ioxide.SemaphoreCore")?);
    let base = locks.get_attribute_str(c"Semaphore")?;
    let bounded_base = locks.get_attribute_str(c"BoundedSemaphore")?;
    SHELL.set(ShellClass::create(ShellDefinition {
        name: c"Semaphore",
        bases: vec![base.clone()],
        doc: "Lets a number of tasks of one event loop through at once, as asyncio.Semaphore.\n\n\
              `value`, 1 by default, is how many; ValueError where it is negative. Tasks get their place in the order\n\
              in which they came. `async with semaphore:` holds one for a block.",
        methods: methods(),
        attributes: attributes(),
        new: Some(new_method::<SemaphoreCore>()),
    })?);
    SHELL.get().constructed_by(construct::<SemaphoreCore>, Semaphore::initialize);
    BOUNDED.set(SHELL.get().derive(ShellDefinition {
        name: c"BoundedSemaphore",
        bases: vec![bounded_base.clone()],
        doc: "A Semaphore that raises ValueError where release() is called more often than acquire(), as\n\
              asyncio.BoundedSemaphore.",
        methods: bounded_methods(),
        attributes: vec![attribute(
            c"_bound_value",
            |this: &Semaphore| this.core().limit.shown(),
            |this: &Semaphore, value: Option<&Any>| this.core().limit.set(assigned(value)?),
        )],
        new: None,
    })?);
    let (class, bounded) = (SHELL.get().class(), BOUNDED.get().class());
    let own = ["acquire", "release", "locked", "_wake_up_next", "_get_loop"];
    // It answers False, and not None, to a semaphore that nobody waits for.
    let wakes_as_many_as_fit =
        base.call0()?.call_method0(&*ioxide_cpython::names::intern("_wake_up_next")?)?.is(&boolean(false));
    KINDS.set(Kinds {
        semaphore: Kind::new(base, class, "asyncio.locks.Semaphore", &own)?,
        bounded: Kind::new(bounded_base, bounded, "asyncio.locks.BoundedSemaphore", &own)?,
        wakes_as_many_as_fit,
    });
    Ok((class.as_any(), bounded.as_any()))
}

fn methods() -> Vec<Definition> {
    let mut methods = shared_methods::<SemaphoreCore>();
    methods.extend([
        documented(method(c"__init__", Semaphore::initialize), c"__init__($self, value=1)\n--\n\n"),
        method0(c"__repr__", Semaphore::show),
        documented(
            method0(c"locked", Semaphore::is_locked),
            c"locked($self)\n--\n\nWhether acquire() would have to wait.",
        ),
        documented(
            coroutine_method0(c"acquire", Semaphore::acquire),
            c"acquire($self)\n--\n\nWaits until there is a place, takes it and returns True.\n\n\
              Cancelled while it waits, it leaves the line.",
        ),
        documented(
            method0(c"release", Semaphore::release),
            c"release($self)\n--\n\nGives a place back and wakes the first who waits for one. Any task may call it.",
        ),
        documented(method0(c"_wake_up_next", Semaphore::wake_up_next_shown), c"_wake_up_next($self)\n--\n\n"),
        documented(coroutine_method0(c"__aenter__", Semaphore::enter), c"__aenter__($self)\n--\n\n"),
        documented(
            coroutine_method(c"__aexit__", Semaphore::exit),
            c"__aexit__($self, exc_type, exc, tb)\n--\n\n",
        ),
    ]);
    methods
}

fn bounded_methods() -> Vec<Definition> {
    vec![
        documented(method(c"__init__", Semaphore::initialize_bounded), c"__init__($self, value=1)\n--\n\n"),
        documented(
            method0(c"release", Semaphore::release_bounded),
            c"release($self)\n--\n\nGives a place back and wakes the first who waits for one.\n\n\
              Raises ValueError where all places are free already.",
        ),
        method0(c"__getstate__", |this: &Semaphore| {
            let state = super::get_state(this)?;
            state.dict_set(&*ioxide_cpython::names::intern("_bound_value")?, &*this.core().limit.shown()?)?;
            Ok(state)
        }),
    ]
}

fn attributes() -> Vec<Attribute> {
    let mut attributes = shared_attributes::<SemaphoreCore>();
    attributes.extend([
        attribute(c"_waiters", Semaphore::waiters, |this: &Semaphore, value: Option<&Any>| {
            let value = assigned(value)?;
            this.core().has_waiters.set(!value.is_none());
            assign_waiters(&this.core().waiters, value);
            Ok(())
        }),
        attribute(
            c"_value",
            |this: &Semaphore| this.core().value.shown(),
            |this: &Semaphore, value: Option<&Any>| this.core().value.set(assigned(value)?),
        ),
    ]);
    attributes
}

static ACQUIRE: Routine = Routine { qualified_name: "Semaphore.acquire", step: acquire_step };
static ENTER: Routine = Routine { qualified_name: "_ContextManagerMixin.__aenter__", step: enter_step };
static EXIT: Routine = Routine { qualified_name: "_ContextManagerMixin.__aexit__", step: exit_step };

fn semaphore_of(procedure: &Procedure) -> Result<&Semaphore> {
    Semaphore::from_any(procedure.owner()).ok_or_else(|| Raised::runtime_error("the semaphore is gone"))
}

fn acquire_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let semaphore = semaphore_of(procedure)?;
    let core = semaphore.core();
    if let Resumed::Started = resumed {
        if !semaphore.is_locked()? {
            core.value.add(-1)?;
            return Ok(Progress::Return(boolean(true)));
        }
        core.has_waiters.set(true);
        let waiter = core.bound.create_future(semaphore)?;
        core.waiters.append(&waiter)?;
        return Ok(Progress::Wait(waiter));
    }
    let waiter = procedure.take_waiter();
    let removed = core.waiters.remove(&waiter);
    let exception = match (removed, resumed) {
        (Err(raised), _) => Some(raised.take()),
        (Ok(()), Resumed::Raised(exception)) => Some(exception),
        (Ok(()), _) => None,
    };
    let outcome = if KINDS.get().wakes_as_many_as_fit {
        semaphore.leave_line(&waiter, exception.as_deref())
    } else {
        semaphore.leave_line_of_old(&waiter, exception.as_deref())
    };
    outcome?;
    match exception {
        Some(exception) => Err(Raised::exception(exception)),
        None => Ok(Progress::Return(boolean(true))),
    }
}

fn enter_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    Ok(match acquire_step(procedure, resumed)? {
        Progress::Return(_) => Progress::Return(none_object()),
        waits => waits,
    })
}

fn exit_step(procedure: &Procedure, _resumed: Resumed) -> Result<Progress> {
    let semaphore = semaphore_of(procedure)?;
    match (semaphore.kind().is_plain(semaphore)?, semaphore.is_bounded()) {
        (true, false) => semaphore.give_back()?,
        (true, true) => semaphore.release_bounded()?,
        (false, _) => drop(semaphore.call_method0(&ioxide_cpython::names().release)?),
    }
    Ok(Progress::Return(none_object()))
}

impl Semaphore {
    /// The class of asyncio's that the object stands for.
    #[inline(always)]
    fn kind(&self) -> &'static Kind {
        let kinds = KINDS.get();
        if self.is_bounded() { &kinds.bounded } else { &kinds.semaphore }
    }

    #[inline(always)]
    fn is_bounded(&self) -> bool {
        !SHELL.get().class().is_exact(self) && self.is_subtype_of(BOUNDED.get().class().as_any())
    }

    fn initialize(&self, arguments: Arguments<'_>) -> Result<()> {
        self.core().limit.set_integer(0);
        self.begin(arguments, &KINDS.get().semaphore).map(drop)
    }

    fn initialize_bounded(&self, arguments: Arguments<'_>) -> Result<()> {
        if let Some(value) = self.begin(arguments, &KINDS.get().bounded)? {
            self.core().limit.set_integer(value);
        }
        Ok(())
    }

    /// `__init__`: the value, where it is nothing unusual that asyncio's own code has dealt with.
    fn begin(&self, arguments: Arguments<'_>, kind: &Kind) -> Result<Option<i64>> {
        let value = match arguments.positional() {
            _ if arguments.has_keywords() => None,
            [] => Some(1),
            [value] if value.is_exact_integer() => value.to_i64().map_err(|raised| drop(raised.take())).ok(),
            _ => None,
        };
        let core = self.core();
        let Some(value) = value.filter(|value| *value >= 0) else {
            kind.asyncios_with(self, c"__init__", arguments)?;
            return Ok(None);
        };
        core.has_waiters.set(false);
        core.waiters.clear();
        core.value.set_integer(value);
        Ok(Some(value))
    }

    /// `semaphore.locked()`: without a place, or others come first.
    #[inline]
    fn is_locked(&self) -> Result<bool> {
        let core = self.core();
        Ok(core.value.is(0)? || core.waiters.has_uncancelled()?)
    }

    /// `semaphore.acquire()`
    #[inline]
    fn acquire(&self) -> Result<Object> {
        let kind = self.kind();
        if !kind.is_plain(self)? {
            return kind.asyncios(self, c"acquire", &[]);
        }
        procedure(&ACQUIRE, self, None)
    }

    fn enter(&self) -> Result<Object> {
        let kind = self.kind();
        if !kind.is_plain(self)? {
            return kind.asyncios(self, c"__aenter__", &[]);
        }
        procedure(&ENTER, self, None)
    }

    fn exit(&self, arguments: Arguments<'_>) -> Result<Object> {
        let kind = self.kind();
        if arguments.positional().len() != 3 || !kind.is_plain(self)? {
            return kind.asyncios_with(self, c"__aexit__", arguments);
        }
        procedure(&EXIT, self, None)
    }

    /// `Semaphore.release(self)`, also as `super().release()` of a bounded one.
    #[inline]
    fn release(&self) -> Result<()> {
        let kind = self.kind();
        if !kind.is_plain(self)? {
            return KINDS.get().semaphore.asyncios(self, c"release", &[]).map(drop);
        }
        self.give_back()
    }

    /// `release` where the short cuts hold.
    #[inline]
    fn give_back(&self) -> Result<()> {
        self.core().value.add(1)?;
        self.wake_up_next().map(drop)
    }

    /// `BoundedSemaphore.release(self)`
    #[inline]
    fn release_bounded(&self) -> Result<()> {
        let core = self.core();
        let kind = &KINDS.get().bounded;
        if core.value.is_at_least(&core.limit)? || !kind.is_plain(self)? {
            return kind.asyncios(self, c"release", &[]).map(drop);
        }
        core.value.add(1)?;
        self.wake_up_next().map(drop)
    }

    /// Gives the first who waits and is not done yet its place. Whether there was one.
    #[inline]
    fn wake_up_next(&self) -> Result<bool> {
        let core = self.core();
        if core.waiters.is_empty()? {
            return Ok(false);
        }
        match core.waiters.first_not_done()? {
            Some(waiter) => {
                core.value.add(-1)?;
                crate::futures::set_result_unless_done(&waiter, &boolean(true))?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// `_wake_up_next()`, whose answer is newer than the method.
    fn wake_up_next_shown(&self) -> Result<Object> {
        let woken = self.wake_up_next()?;
        Ok(if KINDS.get().wakes_as_many_as_fit { boolean(woken) } else { none_object() })
    }

    /// A waiter goes on, or leaves with an exception (S1).
    #[inline]
    fn leave_line(&self, waiter: &Any, exception: Option<&Any>) -> Result<()> {
        let core = self.core();
        if exception.is_some_and(is_cancellation) && was_woken(waiter)? {
            core.value.add(1)?;
        }
        while core.value.is_positive()? && self.wake_up_next()? {}
        Ok(())
    }

    /// As it was before 3.13.
    fn leave_line_of_old(&self, waiter: &Any, exception: Option<&Any>) -> Result<()> {
        let core = self.core();
        let Some(exception) = exception else {
            return if core.value.is_positive()? { self.wake_up_next().map(drop) } else { Ok(()) };
        };
        if is_cancellation(exception) && !crate::futures::is_cancelled(waiter)? {
            core.value.add(1)?;
            self.wake_up_next()?;
        }
        Ok(())
    }

    fn waiters(&self) -> Result<Object> {
        let core = self.core();
        if core.has_waiters.get() { core.waiters.shown() } else { Ok(none_object()) }
    }

    fn show(&self) -> Result<Object> {
        let core = self.core();
        let state = if self.call_method0(&ioxide_cpython::names().locked)?.is_true()? {
            String::from("locked")
        } else {
            format!("unlocked, value:{}", core.value.shown()?.str()?.to_text()?.as_str())
        };
        self.kind().show(self, &format!("{state}{}", waiters_shown(&core.waiters)?))
    }
}

/// `waiter.done() and not waiter.cancelled()`
fn was_woken(waiter: &Any) -> Result<bool> {
    Ok(crate::futures::is_done(waiter)? && !crate::futures::is_cancelled(waiter)?)
}

impl Traverse for SemaphoreCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.bound.traverse(visitor);
        self.waiters.traverse(visitor);
        self.value.traverse(visitor);
        self.limit.traverse(visitor);
    }

    fn clear(&self) {
        self.bound.clear();
        self.waiters.clear();
        self.value.clear();
        self.limit.clear();
    }
}
