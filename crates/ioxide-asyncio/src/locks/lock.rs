//! `Lock`: one holder, the others wait in line.
//!
//! Invariants:
//! K1. A waiter leaves the queue when it is woken or cancelled, before anything else happens.
//! K2. If the lock is free and somebody waits, the first who waits has been woken: whoever frees the lock, and whoever was
//!     woken and cannot take it, wakes the first.

use super::{Kind, Primitive, WaitQueue, assign_waiters, assigned, construct, is_cancellation};
use super::{new_method, shared_attributes, shared_methods, waiters_shown};
use crate::mixins::LoopBound;
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::shells::{Core, Shell};
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Attribute, Definition, attribute, documented, method, method0};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::{Any, Object, Once, Raised, Result, boolean, none_object};
use std::cell::Cell;

pub type Lock = Shell<LockCore>;

#[repr(C)]
pub struct LockCore {
    head: Any,
    bound: LoopBound,
    waiters: WaitQueue,
    /// Whether `_waiters` is a deque and no longer None: somebody has had to wait.
    has_waiters: Cell<bool>,
    locked: Cell<bool>,
}

static LOCK_CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static KIND: Once<Kind> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for LockCore {
    fn class() -> &'static Once<Class> {
        &LOCK_CORE
    }
}

impl Core for LockCore {
    fn shell() -> &'static Once<ShellClass> {
        &SHELL
    }
}

impl Primitive for LockCore {
    const STATE: &'static [&'static std::ffi::CStr] = &[c"_waiters", c"_locked"];

    fn fresh() -> LockCore {
        LockCore {
            head: head(),
            bound: LoopBound::new(),
            waiters: WaitQueue::new(),
            has_waiters: Cell::new(false),
            locked: Cell::new(false),
        }
    }

    fn bound(&self) -> &LoopBound {
        &self.bound
    }
}

/// Creates the class.
pub fn initialize(locks: &Any) -> Result<&'static Any> {
    LOCK_CORE.set(NativeClass::core::<LockCore>(c"ioxide.LockCore")?);
    let base = locks.get_attribute_str(c"Lock")?;
    SHELL.set(ShellClass::create(ShellDefinition {
        name: c"Lock",
        bases: vec![base.clone()],
        doc: "A lock for tasks of one event loop, as asyncio.Lock.\n\n\
              Not owned by the task that holds it, and not reentrant. Tasks get it in the order in which they came.\n\
              `async with lock:` holds it for a block.",
        methods: methods(),
        attributes: attributes(),
        new: Some(new_method::<LockCore>()),
    })?);
    SHELL.get().constructed_by(construct::<LockCore>, Lock::initialize);
    let class = SHELL.get().class();
    let own = ["acquire", "release", "_wake_up_first", "_get_loop"];
    KIND.set(Kind::new(base, class, "asyncio.locks.Lock", &own)?);
    Ok(class.as_any())
}

fn methods() -> Vec<Definition> {
    let mut methods = shared_methods::<LockCore>();
    methods.extend([
        documented(method(c"__init__", Lock::initialize), c"__init__($self)\n--\n\n"),
        method0(c"__repr__", Lock::show),
        documented(
            method0(c"locked", Lock::is_locked),
            c"locked($self)\n--\n\nWhether somebody holds the lock.",
        ),
        documented(
            coroutine_method0(c"acquire", Lock::acquire),
            c"acquire($self)\n--\n\nWaits until the lock is free, takes it and returns True.\n\n\
              Cancelled while it waits, it leaves the line.",
        ),
        documented(
            method0(c"release", Lock::release),
            c"release($self)\n--\n\nFrees the lock and wakes the first who waits for it.\n\n\
              Raises RuntimeError where nobody holds it. Any task may call it.",
        ),
        documented(method0(c"_wake_up_first", Lock::wake_up_first), c"_wake_up_first($self)\n--\n\n"),
        documented(coroutine_method0(c"__aenter__", Lock::enter), c"__aenter__($self)\n--\n\n"),
        documented(
            coroutine_method(c"__aexit__", Lock::exit),
            c"__aexit__($self, exc_type, exc, tb)\n--\n\n",
        ),
    ]);
    methods
}

fn attributes() -> Vec<Attribute> {
    let mut attributes = shared_attributes::<LockCore>();
    attributes.extend([
        attribute(c"_waiters", Lock::waiters, |this: &Lock, value: Option<&Any>| {
            let value = assigned(value)?;
            this.core().has_waiters.set(!value.is_none());
            assign_waiters(&this.core().waiters, value);
            Ok(())
        }),
        attribute(c"_locked", Lock::is_locked, |this: &Lock, value: Option<&Any>| {
            this.core().locked.set(assigned(value)?.is_true()?);
            Ok(())
        }),
    ]);
    attributes
}

static ACQUIRE: Routine = Routine { qualified_name: "Lock.acquire", step: acquire_step };
static ENTER: Routine = Routine { qualified_name: "_ContextManagerMixin.__aenter__", step: enter_step };
static EXIT: Routine = Routine { qualified_name: "_ContextManagerMixin.__aexit__", step: exit_step };

/// The lock whose coroutine this is.
fn lock_of(procedure: &Procedure) -> Result<&Lock> {
    Lock::from_any(procedure.owner()).ok_or_else(|| Raised::runtime_error("the lock is gone"))
}

fn acquire_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let lock = lock_of(procedure)?;
    let core = lock.core();
    if let Resumed::Started = resumed {
        if lock.try_acquire()? {
            return Ok(Progress::Return(boolean(true)));
        }
        core.has_waiters.set(true);
        let waiter = core.bound.create_future(lock)?;
        core.waiters.append(&waiter)?;
        return Ok(Progress::Wait(waiter));
    }
    core.waiters.remove(&procedure.take_waiter())?;
    match resumed {
        Resumed::Raised(exception) => {
            // Woken and cancelled at once, perhaps: another one must be woken in its place (K2).
            if is_cancellation(&exception) && !core.locked.get() {
                lock.wake_up_first()?;
            }
            Err(Raised::exception(exception))
        }
        _ => {
            core.locked.set(true);
            Ok(Progress::Return(boolean(true)))
        }
    }
}

fn enter_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    Ok(match acquire_step(procedure, resumed)? {
        Progress::Return(_) => Progress::Return(none_object()),
        waits => waits,
    })
}

fn exit_step(procedure: &Procedure, _resumed: Resumed) -> Result<Progress> {
    lock_of(procedure)?.release()?;
    Ok(Progress::Return(none_object()))
}

impl Lock {
    /// A new lock that nobody holds.
    pub fn create() -> Result<Object> {
        SHELL.get().instantiate(SHELL.get().class().as_any(), allocate(LockCore::fresh())?)
    }

    fn initialize(&self, arguments: Arguments<'_>) -> Result<()> {
        if arguments.has_keywords() || !arguments.positional().is_empty() {
            return KIND.get().asyncios_with(self, c"__init__", arguments).map(drop);
        }
        let core = self.core();
        core.locked.set(false);
        core.has_waiters.set(false);
        core.waiters.clear();
        Ok(())
    }

    /// Whether the short cuts hold (X1).
    #[inline(always)]
    pub fn is_plain(&self) -> Result<bool> {
        KIND.get().is_plain(self)
    }

    /// `lock.locked()`
    #[inline(always)]
    pub fn is_locked(&self) -> bool {
        self.core().locked.get()
    }

    /// Takes the lock where it is free and nobody waits for it who has not been cancelled.
    #[inline]
    pub fn try_acquire(&self) -> Result<bool> {
        let core = self.core();
        let free = !core.locked.get() && !core.waiters.has_uncancelled()?;
        if free {
            core.locked.set(true);
        }
        Ok(free)
    }

    /// `lock.acquire()`
    #[inline]
    pub fn acquire(&self) -> Result<Object> {
        if !self.is_plain()? {
            return KIND.get().asyncios(self, c"acquire", &[]);
        }
        procedure(&ACQUIRE, self, None)
    }

    fn enter(&self) -> Result<Object> {
        if !self.is_plain()? {
            return KIND.get().asyncios(self, c"__aenter__", &[]);
        }
        procedure(&ENTER, self, None)
    }

    fn exit(&self, arguments: Arguments<'_>) -> Result<Object> {
        if arguments.positional().len() != 3 || !self.is_plain()? {
            return KIND.get().asyncios_with(self, c"__aexit__", arguments);
        }
        procedure(&EXIT, self, None)
    }

    /// `lock.release()`
    #[inline]
    pub fn release(&self) -> Result<()> {
        let core = self.core();
        if !core.locked.get() || !self.is_plain()? {
            return KIND.get().asyncios(self, c"release", &[]).map(drop);
        }
        core.locked.set(false);
        self.wake_up_first()
    }

    /// Wakes the first who waits, unless it has been woken already (K2).
    #[inline]
    pub fn wake_up_first(&self) -> Result<()> {
        match self.core().waiters.first()? {
            Some(first) => crate::futures::set_result_unless_done(&first, &boolean(true)).map(drop),
            None => Ok(()),
        }
    }

    fn waiters(&self) -> Result<Object> {
        let core = self.core();
        if core.has_waiters.get() { core.waiters.shown() } else { Ok(none_object()) }
    }

    fn show(&self) -> Result<Object> {
        let state = if self.is_locked() { "locked" } else { "unlocked" };
        KIND.get().show(self, &format!("{state}{}", waiters_shown(&self.core().waiters)?))
    }
}

impl Traverse for LockCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.bound.traverse(visitor);
        self.waiters.traverse(visitor);
    }

    fn clear(&self) {
        self.bound.clear();
        self.waiters.clear();
    }
}
