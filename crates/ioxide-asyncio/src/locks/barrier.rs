//! `Barrier`: a number of tasks wait for each other, again and again.
//!
//! Invariants:
//! B1. `count` is how many are inside `wait`, from the moment they are let in until they leave.
//! B2. State and count change only while the condition's lock is held, and every change is followed by a notification.

use super::condition::Condition;
use super::count::Count;
use super::{Kind, Primitive, assigned, new_method, shared_attributes, shared_methods};
use crate::mixins::LoopBound;
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::shells::{Core, Shell};
use ioxide_cpython::call::import;
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, attribute, documented, getter, method, method0,
};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, head};
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, none_object};
use std::cell::Cell;

pub type Barrier = Shell<BarrierCore>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BarrierState {
    Filling,
    Draining,
    Resetting,
    Broken,
}

const STATES: [BarrierState; 4] =
    [BarrierState::Filling, BarrierState::Draining, BarrierState::Resetting, BarrierState::Broken];

#[repr(C)]
pub struct BarrierCore {
    head: Any,
    bound: LoopBound,
    condition: Slot,
    parties: Count,
    count: Cell<i64>,
    state: Cell<BarrierState>,
}

static BARRIER_CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static KIND: Once<Kind> = Once::new();
static MEMBERS: Once<Members> = Once::new();

struct Members {
    /// The members of asyncio's `_BarrierState`, in the order of `STATES`.
    states: [Object; 4],
    error: Object,
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for BarrierCore {
    fn class() -> &'static Once<Class> {
        &BARRIER_CORE
    }
}

impl Core for BarrierCore {
    fn shell() -> &'static Once<ShellClass> {
        &SHELL
    }
}

impl Primitive for BarrierCore {
    const STATE: &'static [&'static std::ffi::CStr] = &[c"_cond", c"_parties", c"_state", c"_count"];

    fn fresh() -> BarrierCore {
        BarrierCore {
            head: head(),
            bound: LoopBound::new(),
            condition: Slot::empty(),
            parties: Count::new(1),
            count: Cell::new(0),
            state: Cell::new(BarrierState::Filling),
        }
    }

    fn bound(&self) -> &LoopBound {
        &self.bound
    }
}

/// Creates the class.
pub fn initialize(locks: &Any) -> Result<&'static Any> {
    BARRIER_CORE.set(NativeClass::core::<BarrierCore>(c"ioxide.BarrierCore")?);
    let members = locks.get_attribute_str(c"_BarrierState")?;
    MEMBERS.set(Members {
        states: [
            members.get_attribute_str(c"FILLING")?,
            members.get_attribute_str(c"DRAINING")?,
            members.get_attribute_str(c"RESETTING")?,
            members.get_attribute_str(c"BROKEN")?,
        ],
        error: import(c"asyncio.exceptions")?.get_attribute_str(c"BrokenBarrierError")?,
    });
    let base = locks.get_attribute_str(c"Barrier")?;
    SHELL.set(ShellClass::create(ShellDefinition {
        name: c"Barrier",
        bases: vec![base.clone()],
        doc: "`parties` tasks of one event loop wait for each other, as asyncio.Barrier.\n\n\
              ValueError where parties is less than one. `async with barrier as index:` waits at its beginning.",
        methods: methods(),
        attributes: attributes(),
        new: Some(new_method::<BarrierCore>()),
    })?);
    let class = SHELL.get().class();
    let own = ["wait", "_block", "_release", "_wait", "_exit"];
    KIND.set(Kind::new(base, class, "asyncio.locks.Barrier", &own)?);
    Ok(class.as_any())
}

fn methods() -> Vec<Definition> {
    let mut methods = shared_methods::<BarrierCore>();
    methods.extend([
        documented(method(c"__init__", Barrier::initialize), c"__init__($self, parties)\n--\n\n"),
        method0(c"__repr__", Barrier::show),
        documented(
            coroutine_method0(c"wait", Barrier::wait),
            c"wait($self)\n--\n\nWaits until `parties` tasks wait, and returns the number of this one, from 0 on.\n\n\
              Raises BrokenBarrierError where the barrier is reset or aborted meanwhile, or has been aborted before.",
        ),
        documented(
            coroutine_method0(c"reset", Barrier::reset),
            c"reset($self)\n--\n\nMakes the barrier new; whoever waits gets BrokenBarrierError.",
        ),
        documented(
            coroutine_method0(c"abort", Barrier::abort),
            c"abort($self)\n--\n\nBreaks the barrier: whoever waits, now or later, gets BrokenBarrierError.",
        ),
        documented(coroutine_method0(c"__aenter__", Barrier::enter), c"__aenter__($self)\n--\n\n"),
        documented(coroutine_method(c"__aexit__", Barrier::exit), c"__aexit__($self, *args)\n--\n\n"),
    ]);
    methods
}

fn attributes() -> Vec<Attribute> {
    let mut attributes = shared_attributes::<BarrierCore>();
    attributes.extend([
        getter(c"parties", |this: &Barrier| this.core().parties.shown()),
        getter(c"n_waiting", |this: &Barrier| integer(this.waiting())),
        getter(c"broken", |this: &Barrier| this.core().state.get() == BarrierState::Broken),
        attribute(
            c"_cond",
            |this: &Barrier| this.core().condition.get_or_none(),
            |this: &Barrier, value: Option<&Any>| {
                this.core().condition.set(assigned(value)?.to_object());
                Ok(())
            },
        ),
        attribute(
            c"_parties",
            |this: &Barrier| this.core().parties.shown(),
            |this: &Barrier, value: Option<&Any>| this.core().parties.set(assigned(value)?),
        ),
        attribute(
            c"_count",
            |this: &Barrier| integer(this.core().count.get()),
            |this: &Barrier, value: Option<&Any>| {
                this.core().count.set(assigned(value)?.to_i64()?);
                Ok(())
            },
        ),
        attribute(
            c"_state",
            |this: &Barrier| MEMBERS.get().states[this.core().state.get() as usize].clone(),
            |this: &Barrier, value: Option<&Any>| this.assign_state(assigned(value)?),
        ),
    ]);
    attributes
}

static WAIT: Routine = Routine { qualified_name: "Barrier.wait", step: wait_step };
static ENTER: Routine = Routine { qualified_name: "Barrier.__aenter__", step: wait_step };
static RESET: Routine = Routine { qualified_name: "Barrier.reset", step: reset_step };
static ABORT: Routine = Routine { qualified_name: "Barrier.abort", step: abort_step };

/// Where a `wait` is: it takes the lock, is held up while the barrier drains, waits for the others.
const TAKES_THE_LOCK: u32 = 0;
const IS_HELD_UP: u32 = 1;
const WAITS: u32 = 2;

fn barrier_of(procedure: &Procedure) -> Result<&Barrier> {
    Barrier::from_any(procedure.owner()).ok_or_else(|| Raised::runtime_error("the barrier is gone"))
}

fn wait_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let barrier = barrier_of(procedure)?;
    let condition = barrier.condition()?;
    match (procedure.stage.get(), resumed) {
        (TAKES_THE_LOCK, Resumed::Started) => match condition.take_lock()? {
            Progress::Return(_) => barrier.come_in(procedure, condition),
            waits => Ok(waits),
        },
        (TAKES_THE_LOCK, Resumed::Raised(exception)) => Err(Raised::exception(exception)),
        (IS_HELD_UP, Resumed::Raised(exception)) => leave_block(condition, Err(Raised::exception(exception))),
        (TAKES_THE_LOCK | IS_HELD_UP, _) => barrier.come_in(procedure, condition),
        (_, Resumed::Raised(exception)) => {
            barrier.leave(procedure, condition, Err(Raised::exception(exception)))
        }
        _ => barrier.go_on(procedure, condition),
    }
}

/// Frees the lock at the end of the block, whatever the block came to.
fn leave_block(condition: &Condition, outcome: Result<Progress>) -> Result<Progress> {
    match outcome {
        Ok(progress) => condition.free_lock().map(|()| progress),
        Err(raised) => {
            let exception = raised.take();
            condition.free_lock()?;
            Err(Raised::exception(exception))
        }
    }
}

/// A coroutine that takes the lock, changes the state and tells everybody.
fn change_step(procedure: &Procedure, resumed: Resumed, change: fn(&BarrierCore)) -> Result<Progress> {
    let barrier = barrier_of(procedure)?;
    let condition = barrier.condition()?;
    match resumed {
        Resumed::Started => match condition.take_lock()? {
            Progress::Return(_) => {}
            waits => return Ok(waits),
        },
        Resumed::Raised(exception) => return Err(Raised::exception(exception)),
        Resumed::Done(_) => {}
    }
    change(barrier.core());
    let told = condition.notify_all();
    leave_block(condition, told.map(|()| Progress::Return(none_object())))
}

fn reset_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    change_step(procedure, resumed, |core| {
        let somebody_waits = core.count.get() > 0;
        core.state.set(if somebody_waits { BarrierState::Resetting } else { BarrierState::Filling });
    })
}

fn abort_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    change_step(procedure, resumed, |core| core.state.set(BarrierState::Broken))
}

#[cold]
fn broken(message: &str) -> Raised {
    Raised::new(&MEMBERS.get().error, message)
}

impl Barrier {
    fn initialize(&self, arguments: Arguments<'_>) -> Result<()> {
        let parties = match arguments.positional() {
            [parties] if !arguments.has_keywords() && parties.is_exact_integer() => {
                parties.to_i64().map_err(|raised| drop(raised.take())).ok()
            }
            _ => None,
        };
        let Some(parties) = parties.filter(|parties| *parties >= 1) else {
            return KIND.get().asyncios_with(self, c"__init__", arguments).map(drop);
        };
        let core = self.core();
        core.condition.set(Condition::create()?);
        core.parties.set_integer(parties);
        core.state.set(BarrierState::Filling);
        core.count.set(0);
        Ok(())
    }

    fn assign_state(&self, value: &Any) -> Result<()> {
        let states = MEMBERS.get().states.iter().zip(STATES);
        for (member, state) in states {
            if value.is(member) {
                self.core().state.set(state);
                return Ok(());
            }
        }
        Err(Raised::type_error("_state is a member of asyncio.locks._BarrierState"))
    }

    fn condition(&self) -> Result<&Condition> {
        let condition = self.core().condition.get().and_then(Condition::from_any);
        condition.ok_or_else(|| Raised::runtime_error("the condition is gone"))
    }

    /// Whether the short cuts hold (X1).
    fn is_plain(&self) -> Result<bool> {
        let Some(condition) = self.core().condition.get().and_then(Condition::from_any) else {
            return Ok(false);
        };
        Ok(KIND.get().is_plain(self)? && condition.plain_lock()?.is_some())
    }

    fn wait(&self) -> Result<Object> {
        if !self.is_plain()? {
            return KIND.get().asyncios(self, c"wait", &[]);
        }
        procedure(&WAIT, self, None)
    }

    fn enter(&self) -> Result<Object> {
        if !self.is_plain()? {
            return KIND.get().asyncios(self, c"__aenter__", &[]);
        }
        procedure(&ENTER, self, None)
    }

    fn exit(&self, arguments: Arguments<'_>) -> Result<Object> {
        KIND.get().asyncios_with(self, c"__aexit__", arguments)
    }

    fn reset(&self) -> Result<Object> {
        if !self.is_plain()? {
            return KIND.get().asyncios(self, c"reset", &[]);
        }
        procedure(&RESET, self, None)
    }

    fn abort(&self) -> Result<Object> {
        if !self.is_plain()? {
            return KIND.get().asyncios(self, c"abort", &[]);
        }
        procedure(&ABORT, self, None)
    }

    /// With the lock: waits while the barrier drains or resets, then is one of the party.
    fn come_in(&self, procedure: &Procedure, condition: &Condition) -> Result<Progress> {
        let core = self.core();
        match core.state.get() {
            BarrierState::Draining | BarrierState::Resetting => {
                procedure.stage.set(IS_HELD_UP);
                condition.wait().map(Progress::Await)
            }
            BarrierState::Broken => leave_block(condition, Err(broken("Barrier aborted"))),
            BarrierState::Filling => {
                let index = core.count.get();
                procedure.number.set(index);
                core.count.set(index + 1);
                if !core.parties.is(index + 1)? {
                    procedure.stage.set(WAITS);
                    return self.await_the_others(procedure, condition);
                }
                // The last one: whoever comes next waits until all of these have left.
                core.state.set(BarrierState::Draining);
                let told = condition.notify_all();
                self.leave(procedure, condition, told)
            }
        }
    }

    fn await_the_others(&self, procedure: &Procedure, condition: &Condition) -> Result<Progress> {
        match condition.wait() {
            Ok(waiting) => Ok(Progress::Await(waiting)),
            Err(raised) => self.leave(procedure, condition, Err(raised)),
        }
    }

    /// With the lock again, after a notification.
    fn go_on(&self, procedure: &Procedure, condition: &Condition) -> Result<Progress> {
        match self.core().state.get() {
            BarrierState::Filling => self.await_the_others(procedure, condition),
            BarrierState::Draining => self.leave(procedure, condition, Ok(())),
            BarrierState::Resetting | BarrierState::Broken => {
                self.leave(procedure, condition, Err(broken("Abort or reset of barrier")))
            }
        }
    }

    /// One of the party leaves; the last one opens the barrier again.
    fn leave(&self, procedure: &Procedure, condition: &Condition, outcome: Result<()>) -> Result<Progress> {
        let core = self.core();
        let outcome = outcome.map_err(Raised::take);
        core.count.set(core.count.get() - 1);
        let mut told = Ok(());
        if core.count.get() == 0 {
            if matches!(core.state.get(), BarrierState::Resetting | BarrierState::Draining) {
                core.state.set(BarrierState::Filling);
            }
            told = condition.notify_all();
        }
        let outcome = match (told, outcome) {
            (Err(raised), _) => Err(raised),
            (Ok(()), Err(exception)) => Err(Raised::exception(exception)),
            (Ok(()), Ok(())) => integer(procedure.number.get()).map(Progress::Return),
        };
        leave_block(condition, outcome)
    }

    fn waiting(&self) -> i64 {
        let core = self.core();
        if core.state.get() == BarrierState::Filling { core.count.get() } else { 0 }
    }

    fn show(&self) -> Result<Object> {
        let core = self.core();
        let state = match core.state.get() {
            BarrierState::Filling => "filling",
            BarrierState::Draining => "draining",
            BarrierState::Resetting => "resetting",
            BarrierState::Broken => return KIND.get().show(self, "broken"),
        };
        let parties = core.parties.shown()?.str()?.to_text()?;
        KIND.get().show(self, &format!("{state}, waiters:{}/{}", self.waiting(), parties.as_str()))
    }
}

impl Traverse for BarrierCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.bound.traverse(visitor);
        visitor.slot(&self.condition);
        self.parties.traverse(visitor);
    }

    fn clear(&self) {
        self.bound.clear();
        self.condition.clear();
        self.parties.clear();
    }
}
