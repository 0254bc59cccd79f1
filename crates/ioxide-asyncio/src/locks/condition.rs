//! `Condition`: tasks that hold a lock wait to be told that something has changed.
//!
//! The lock may be any object with `locked`, `acquire` and `release`. The short cuts are for a native one that nobody has
//! changed; with another, asyncio's own code runs.
//!
//! Invariants:
//! D1. Whoever leaves `wait` holds the lock again, however it leaves.
//! D2. From 3.13 on, whoever leaves `wait` with an exception wakes another one: it may have been the one that was told.

use super::lock::Lock;
use super::{Kind, Primitive, WaitQueue, assign_waiters, assigned, is_cancellation};
use super::{new_method, shared_attributes, shared_methods, waiters_shown};
use crate::mixins::LoopBound;
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::shells::{Core, Shell};
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, attribute, documented, method, method0, method1,
};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, head};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, boolean, imports, names, none_object};

pub type Condition = Shell<ConditionCore>;

#[repr(C)]
pub struct ConditionCore {
    head: Any,
    bound: LoopBound,
    waiters: WaitQueue,
    lock: Slot,
    /// The lock's methods as attributes of the instance, where they are not simply those of a native lock.
    locked: Slot,
    acquire: Slot,
    release: Slot,
}

static CONDITION_CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static KIND: Once<Kind> = Once::new();
static RULES: Once<Rules> = Once::new();

/// What this Python's asyncio does.
struct Rules {
    /// D2. Before, whoever was cancelled said nothing, raised a new CancelledError if it was cancelled while it took the
    /// lock again, and freed the lock before it asked for the loop.
    passes_notifications_on: bool,
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for ConditionCore {
    fn class() -> &'static Once<Class> {
        &CONDITION_CORE
    }
}

impl Core for ConditionCore {
    fn shell() -> &'static Once<ShellClass> {
        &SHELL
    }
}

impl Primitive for ConditionCore {
    const STATE: &'static [&'static std::ffi::CStr] =
        &[c"_lock", c"locked", c"acquire", c"release", c"_waiters"];

    fn fresh() -> ConditionCore {
        ConditionCore {
            head: head(),
            bound: LoopBound::new(),
            waiters: WaitQueue::new(),
            lock: Slot::empty(),
            locked: Slot::empty(),
            acquire: Slot::empty(),
            release: Slot::empty(),
        }
    }

    fn bound(&self) -> &LoopBound {
        &self.bound
    }
}

/// Creates the class.
pub fn initialize(locks: &Any) -> Result<&'static Any> {
    CONDITION_CORE.set(NativeClass::core::<ConditionCore>(c"ioxide.ConditionCore")?);
    let base = locks.get_attribute_str(c"Condition")?;
    let passes_notifications_on = base.get_attribute_optional(&names()._notify)?.is_some();
    RULES.set(Rules { passes_notifications_on });
    let mut methods = methods();
    let mut own = vec!["wait", "wait_for", "notify", "_get_loop"];
    if passes_notifications_on {
        methods.push(method1(c"_notify", Condition::wake));
        own.push("_notify");
    }
    SHELL.set(ShellClass::create(ShellDefinition {
        name: c"Condition",
        bases: vec![base.clone()],
        doc: "Tasks of one event loop wait, holding a lock, until others notify them, as asyncio.Condition.\n\n\
              `lock` is a Lock, a new one where none is given. `async with condition:` holds it for a block.",
        methods,
        attributes: attributes(),
        new: Some(new_method::<ConditionCore>()),
    })?);
    let class = SHELL.get().class();
    KIND.set(Kind::new(base, class, "asyncio.locks.Condition", &own)?);
    Ok(class.as_any())
}

fn methods() -> Vec<Definition> {
    let mut methods = shared_methods::<ConditionCore>();
    methods.extend([
        documented(method(c"__init__", Condition::initialize), c"__init__($self, lock=None)\n--\n\n"),
        method0(c"__repr__", Condition::show),
        documented(
            coroutine_method0(c"wait", Condition::wait),
            c"wait($self)\n--\n\nFrees the lock, waits until notified, takes the lock again and returns True.\n\n\
              Raises RuntimeError where nobody holds the lock. It may also return without a notification.",
        ),
        documented(
            coroutine_method(c"wait_for", Condition::wait_for),
            c"wait_for($self, predicate)\n--\n\nWaits until predicate() is true, and returns what it returned.",
        ),
        documented(
            method(c"notify", Condition::notify),
            c"notify($self, n=1)\n--\n\nWakes the first n who wait, or all if they are fewer.\n\n\
              Raises RuntimeError where nobody holds the lock. They go on when they have taken it again.",
        ),
        documented(
            method0(c"notify_all", Condition::notify_all),
            c"notify_all($self)\n--\n\nWakes all who wait, as notify().",
        ),
        documented(coroutine_method0(c"__aenter__", Condition::enter), c"__aenter__($self)\n--\n\n"),
        documented(
            coroutine_method(c"__aexit__", Condition::exit),
            c"__aexit__($self, exc_type, exc, tb)\n--\n\n",
        ),
    ]);
    methods
}

fn attributes() -> Vec<Attribute> {
    let mut attributes = shared_attributes::<ConditionCore>();
    attributes.extend([
        attribute(
            c"_waiters",
            |this: &Condition| this.core().waiters.shown(),
            |this: &Condition, value: Option<&Any>| {
                assign_waiters(&this.core().waiters, assigned(value)?);
                Ok(())
            },
        ),
        attribute(
            c"_lock",
            |this: &Condition| this.core().lock.get_or_none(),
            |this: &Condition, value: Option<&Any>| {
                this.core().lock.set(assigned(value)?.to_object());
                Ok(())
            },
        ),
        attribute(
            c"locked",
            |this: &Condition| this.method_of_lock(&this.core().locked, &names().locked),
            |this: &Condition, value: Option<&Any>| replace(&this.core().locked, value),
        ),
        attribute(
            c"acquire",
            |this: &Condition| this.method_of_lock(&this.core().acquire, &names().acquire),
            |this: &Condition, value: Option<&Any>| replace(&this.core().acquire, value),
        ),
        attribute(
            c"release",
            |this: &Condition| this.method_of_lock(&this.core().release, &names().release),
            |this: &Condition, value: Option<&Any>| replace(&this.core().release, value),
        ),
    ]);
    attributes
}

fn replace(slot: &Slot, value: Option<&Any>) -> Result<()> {
    drop(slot.replace(value.map(Any::to_object)));
    Ok(())
}

static WAIT: Routine = Routine { qualified_name: "Condition.wait", step: wait_step };
static WAIT_FOR: Routine = Routine { qualified_name: "Condition.wait_for", step: wait_for_step };
static ENTER: Routine = Routine { qualified_name: "_ContextManagerMixin.__aenter__", step: enter_step };
static EXIT: Routine = Routine { qualified_name: "_ContextManagerMixin.__aexit__", step: exit_step };

/// Where a `wait` is.
const WAITS: u32 = 1;
const TAKES_THE_LOCK: u32 = 2;

fn condition_of(procedure: &Procedure) -> Result<&Condition> {
    Condition::from_any(procedure.owner()).ok_or_else(|| Raised::runtime_error("the condition is gone"))
}

fn wait_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let condition = condition_of(procedure)?;
    let core = condition.core();
    match (procedure.stage.get(), resumed) {
        (WAITS, resumed) => {
            procedure.stage.set(TAKES_THE_LOCK);
            let removed = core.waiters.remove(&procedure.take_waiter());
            match (removed, resumed) {
                (Err(raised), _) => procedure.kept.set(raised.take()),
                (Ok(()), Resumed::Raised(exception)) => procedure.kept.set(exception),
                (Ok(()), _) => {}
            }
            condition.take_lock_again(procedure)
        }
        (TAKES_THE_LOCK, Resumed::Raised(exception)) => {
            let cancelled = is_cancellation(&exception);
            if let Some(earlier) = procedure.kept.get_object()
                && !earlier.is(&exception)
            {
                exception.set_attribute(&names().__context__, &earlier)?;
            }
            if !cancelled {
                return condition.leave_with(exception);
            }
            if RULES.get().passes_notifications_on {
                procedure.kept.set(exception);
            } else {
                procedure.kept.set(imports().CancelledError.call0()?);
            }
            condition.take_lock_again(procedure)
        }
        (TAKES_THE_LOCK, _) => condition.return_from_wait(procedure),
        // asyncio's own code has done it all.
        (_, Resumed::Raised(exception)) => Err(Raised::exception(exception)),
        (_, Resumed::Done(_)) => Ok(Progress::Return(boolean(true))),
        (_, Resumed::Started) => condition.begin_to_wait(procedure),
    }
}

fn wait_for_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    if let Resumed::Raised(exception) = resumed {
        return Err(Raised::exception(exception));
    }
    let result = procedure.argument.get_or_none().call0()?;
    if result.is_true()? {
        return Ok(Progress::Return(result));
    }
    Ok(Progress::Await(condition_of(procedure)?.wait()?))
}

/// Takes the lock at the beginning of a block.
fn enter_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    match resumed {
        Resumed::Started => condition_of(procedure)?.take_lock(),
        Resumed::Done(_) => Ok(Progress::Return(none_object())),
        Resumed::Raised(exception) => Err(Raised::exception(exception)),
    }
}

fn exit_step(procedure: &Procedure, _resumed: Resumed) -> Result<Progress> {
    condition_of(procedure)?.free_lock()?;
    Ok(Progress::Return(none_object()))
}

impl Condition {
    /// A new condition with a lock of its own.
    pub fn create() -> Result<Object> {
        SHELL.get().class().as_any().call0()
    }

    fn initialize(&self, arguments: Arguments<'_>) -> Result<()> {
        let lock = match arguments.positional() {
            _ if arguments.has_keywords() => None,
            [] => Some(Lock::create()?),
            [lock] if Lock::from_any(lock).is_some() => Some(lock.to_object()),
            _ => None,
        };
        let core = self.core();
        for replaced in [&core.locked, &core.acquire, &core.release] {
            replaced.clear();
        }
        let Some(lock) = lock else {
            return KIND.get().asyncios_with(self, c"__init__", arguments).map(drop);
        };
        core.lock.set(lock);
        core.waiters.clear();
        Ok(())
    }

    /// `self.locked` and its kin: the lock's method, unless it was replaced.
    fn method_of_lock(&self, replaced: &Slot, name: &Any) -> Result<Object> {
        match replaced.get_object() {
            Some(method) => Ok(method),
            None => self.core().lock.get_or_none().get_attribute(name),
        }
    }

    /// The lock, where the short cuts hold (X1): everything about condition and lock is ioxide's.
    #[inline]
    pub fn plain_lock(&self) -> Result<Option<&Lock>> {
        let core = self.core();
        if !(core.locked.is_empty() && core.acquire.is_empty() && core.release.is_empty()) {
            return Ok(None);
        }
        let Some(lock) = core.lock.get().and_then(Lock::from_any) else { return Ok(None) };
        Ok((KIND.get().is_plain(self)? && lock.is_plain()?).then_some(lock))
    }

    /// `condition.wait()`
    #[inline]
    pub fn wait(&self) -> Result<Object> {
        match self.plain_lock()? {
            Some(_) => procedure(&WAIT, self, None),
            None => KIND.get().asyncios(self, c"wait", &[]),
        }
    }

    /// The first step of `wait`: the lock is freed, and the task is in line.
    fn begin_to_wait(&self, procedure: &Procedure) -> Result<Progress> {
        let core = self.core();
        let Some(lock) = self.plain_lock()? else {
            return self.await_asyncios_wait();
        };
        if !lock.is_locked() {
            return self.await_asyncios_wait();
        }
        let early =
            if RULES.get().passes_notifications_on { Some(core.bound.create_future(self)?) } else { None };
        lock.release()?;
        let waiter = match early.map_or_else(|| core.bound.create_future(self), Ok) {
            Ok(waiter) => waiter,
            Err(raised) => {
                procedure.stage.set(TAKES_THE_LOCK);
                procedure.kept.set(raised.take());
                return self.take_lock_again(procedure);
            }
        };
        core.waiters.append(&waiter)?;
        procedure.stage.set(WAITS);
        Ok(Progress::Wait(waiter))
    }

    /// Somebody changed the condition between call and first step, or misuses it.
    #[cold]
    fn await_asyncios_wait(&self) -> Result<Progress> {
        KIND.get().asyncios(self, c"wait", &[]).map(Progress::Await)
    }

    fn wait_for(&self, arguments: Arguments<'_>) -> Result<Object> {
        match (arguments.positional(), self.plain_lock()?) {
            ([predicate], Some(_)) if !arguments.has_keywords() => {
                procedure(&WAIT_FOR, self, Some(predicate))
            }
            _ => KIND.get().asyncios_with(self, c"wait_for", arguments),
        }
    }

    /// Takes the lock at once where it is free, waits for it else.
    #[inline]
    pub fn take_lock(&self) -> Result<Progress> {
        match self.plain_lock()? {
            Some(lock) if lock.try_acquire()? => Ok(Progress::Return(none_object())),
            Some(lock) => lock.acquire().map(Progress::Await),
            None => self.get_attribute(&names().acquire)?.call0().map(Progress::Await),
        }
    }

    /// `self.release()`
    #[inline]
    pub fn free_lock(&self) -> Result<()> {
        match self.plain_lock()? {
            Some(lock) => lock.release(),
            None => self.get_attribute(&names().release)?.call0().map(drop),
        }
    }

    /// The lock must be taken again even where the wait was cancelled (D1).
    fn take_lock_again(&self, procedure: &Procedure) -> Result<Progress> {
        match self.take_lock() {
            Ok(Progress::Return(_)) => self.return_from_wait(procedure),
            Ok(waits) => Ok(waits),
            Err(raised) => self.leave_with(raised.take()),
        }
    }

    fn return_from_wait(&self, procedure: &Procedure) -> Result<Progress> {
        match procedure.kept.take() {
            Some(exception) => self.leave_with(exception),
            None => Ok(Progress::Return(boolean(true))),
        }
    }

    /// `wait` ends with an exception (D2).
    #[cold]
    fn leave_with(&self, exception: Object) -> Result<Progress> {
        if RULES.get().passes_notifications_on {
            self.core().waiters.wake(1, &boolean(false))?;
        }
        Err(Raised::exception(exception))
    }

    /// `_notify(n)`
    fn wake(&self, count: &Any) -> Result<()> {
        match count_of(count) {
            Some(count) => self.core().waiters.wake(count, &boolean(false)).map(drop),
            None => KIND.get().asyncios(self, c"_notify", &[count]).map(drop),
        }
    }

    fn notify(&self, arguments: Arguments<'_>) -> Result<()> {
        let count = match arguments.positional() {
            _ if arguments.has_keywords() => None,
            [] => Some(1),
            [count] => count_of(count),
            _ => None,
        };
        match (count, self.plain_lock()?) {
            (Some(count), Some(lock)) if lock.is_locked() => {
                self.core().waiters.wake(count, &boolean(false)).map(drop)
            }
            _ => KIND.get().asyncios_with(self, c"notify", arguments).map(drop),
        }
    }

    /// `condition.notify_all()`
    pub fn notify_all(&self) -> Result<()> {
        match self.plain_lock()? {
            Some(lock) if lock.is_locked() => self.core().waiters.wake(usize::MAX, &boolean(false)).map(drop),
            _ => KIND.get().asyncios(self, c"notify_all", &[]).map(drop),
        }
    }

    fn enter(&self) -> Result<Object> {
        match self.plain_lock()? {
            Some(_) => procedure(&ENTER, self, None),
            None => KIND.get().asyncios(self, c"__aenter__", &[]),
        }
    }

    fn exit(&self, arguments: Arguments<'_>) -> Result<Object> {
        match self.plain_lock()? {
            Some(_) if arguments.positional().len() == 3 => procedure(&EXIT, self, None),
            _ => KIND.get().asyncios_with(self, c"__aexit__", arguments),
        }
    }

    fn show(&self) -> Result<Object> {
        let locked = self.get_attribute(&names().locked)?.call0()?.is_true()?;
        let state = if locked { "locked" } else { "unlocked" };
        KIND.get().show(self, &format!("{state}{}", waiters_shown(&self.core().waiters)?))
    }
}

/// How many to wake, where it is a plain number: anything else is compared by asyncio's own code.
fn count_of(count: &Any) -> Option<usize> {
    if !count.is_exact_integer() {
        return None;
    }
    let count = count.to_i64();
    count.map_err(|raised| drop(raised.take())).ok().map(|count| usize::try_from(count).unwrap_or(0))
}

impl Traverse for ConditionCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.bound.traverse(visitor);
        self.waiters.traverse(visitor);
        for slot in [&self.lock, &self.locked, &self.acquire, &self.release] {
            visitor.slot(slot);
        }
    }

    fn clear(&self) {
        self.bound.clear();
        self.waiters.clear();
        for slot in [&self.lock, &self.locked, &self.acquire, &self.release] {
            slot.clear();
        }
    }
}
