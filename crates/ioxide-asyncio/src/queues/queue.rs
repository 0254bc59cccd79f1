//! The state of a queue, what happens to it, and its coroutines.
//!
//! Invariants:
//! Q1. A getter or putter that is woken is out of its line already. Cancelled then, it wakes the next one in its place.
//! Q2. A getter or putter that is cancelled or closed leaves its line.
//! Q3. `finished`, once it is there, is set exactly while nothing is unfinished; until then `is_finished` says so.

use super::items::{Items, Order};
use super::{QUEUE_CORE, SHELL, errors, kind_of, shut_down, storage_of};
use crate::futures::{cancel_any, is_cancelled};
use crate::locks::{Count, Event, Kind, Primitive, WaitQueue};
use crate::mixins::LoopBound;
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure};
use crate::shells::{Core, Shell};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::types::{Class, Native, ShellClass, head};
use ioxide_cpython::value::text;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, names, none, none_object};
use std::cell::Cell;

pub type Queue = Shell<QueueCore>;

#[repr(C)]
pub struct QueueCore {
    head: Any,
    bound: LoopBound,
    pub items: Items,
    pub maxsize: Count,
    pub getters: WaitQueue,
    pub putters: WaitQueue,
    pub unfinished: Count,
    /// The event of `join`, made when somebody needs it (Q3).
    pub finished: Slot,
    is_finished: Cell<bool>,
    pub is_shut_down: Cell<bool>,
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for QueueCore {
    fn class() -> &'static Once<Class> {
        &QUEUE_CORE
    }
}

impl Core for QueueCore {
    fn shell() -> &'static Once<ShellClass> {
        &SHELL
    }
}

impl Primitive for QueueCore {
    const STATE: &'static [&'static std::ffi::CStr] = &[
        c"_maxsize",
        c"_getters",
        c"_putters",
        c"_unfinished_tasks",
        c"_finished",
        c"_queue",
        c"_is_shutdown",
    ];

    fn fresh() -> QueueCore {
        QueueCore::new(Order::FirstIn)
    }

    fn bound(&self) -> &LoopBound {
        &self.bound
    }
}

impl QueueCore {
    /// What a queue has before `__init__`.
    pub fn new(order: Order) -> QueueCore {
        QueueCore {
            head: head(),
            bound: LoopBound::new(),
            items: Items::new(order),
            maxsize: Count::new(0),
            getters: WaitQueue::new(),
            putters: WaitQueue::new(),
            unfinished: Count::new(0),
            finished: Slot::empty(),
            is_finished: Cell::new(true),
            is_shut_down: Cell::new(false),
        }
    }
}

static PUT: Routine = Routine { qualified_name: "Queue.put", step: put_step };
static GET: Routine = Routine { qualified_name: "Queue.get", step: get_step };
static JOIN: Routine = Routine { qualified_name: "Queue.join", step: join_step };

fn queue_of(procedure: &Procedure) -> Result<&Queue> {
    Queue::from_any(procedure.owner()).ok_or_else(|| Raised::runtime_error("the queue is gone"))
}

fn put_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let queue = queue_of(procedure)?;
    let core = queue.core();
    let putter = procedure.waiter.take();
    if let Resumed::Raised(exception) = resumed {
        if let Some(putter) = putter
            && queue.leave(&core.putters, &putter)?
            && !queue.is_full()?
        {
            core.putters.take_and_wake_next(none())?;
        }
        return Err(Raised::exception(exception));
    }
    drop(putter);
    if queue.is_full()? {
        if core.is_shut_down.get() {
            return Err(shut_down());
        }
        let putter = core.bound.create_future(queue)?;
        core.putters.append(&putter)?;
        return Ok(Progress::Wait(putter));
    }
    queue.put_in(&procedure.argument.get_or_none())?;
    Ok(Progress::Return(none_object()))
}

fn get_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let queue = queue_of(procedure)?;
    let core = queue.core();
    let getter = procedure.waiter.take();
    if let Resumed::Raised(exception) = resumed {
        if let Some(getter) = getter
            && queue.leave(&core.getters, &getter)?
            && !queue.is_empty()?
        {
            core.getters.take_and_wake_next(none())?;
        }
        return Err(Raised::exception(exception));
    }
    drop(getter);
    if queue.is_empty()? {
        if core.is_shut_down.get() {
            return Err(shut_down());
        }
        let getter = core.bound.create_future(queue)?;
        core.getters.append(&getter)?;
        return Ok(Progress::Wait(getter));
    }
    queue.take_out().map(Progress::Return)
}

fn join_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    let queue = queue_of(procedure)?;
    match resumed {
        Resumed::Started if queue.core().unfinished.is_positive()? => {
            queue.finished()?.call_method0(&names().wait).map(Progress::Await)
        }
        Resumed::Raised(exception) => Err(Raised::exception(exception)),
        _ => Ok(Progress::Return(none_object())),
    }
}

const SHUTDOWN: Signature<1> =
    Signature { function: "shutdown", names: ["immediate"], required: 0, positional: 1 };

impl Queue {
    #[inline]
    fn kind(&self) -> &'static Kind {
        kind_of(self.core().items.order.get())
    }

    /// Whether the short cuts hold (X1 in locks/mod.rs).
    #[inline]
    fn is_plain(&self) -> Result<bool> {
        self.kind().is_plain(self)
    }

    /// Whether nobody has overridden `_init`, `_put` or `_get`, which decide where the items are.
    #[inline]
    fn keeps_its_items(&self) -> Result<bool> {
        storage_of(self.core().items.order.get()).hold_for(self)
    }

    pub fn initialize(&self, arguments: Arguments<'_>) -> Result<()> {
        let maxsize = match arguments.positional() {
            [] if !arguments.has_keywords() => None,
            [maxsize] if !arguments.has_keywords() => Some(*maxsize),
            [] => match arguments.keywords().next() {
                Some((name, maxsize)) if ioxide_cpython::methods::name_is(name, "maxsize") => Some(maxsize),
                _ => return self.initialize_as_asyncio(arguments),
            },
            _ => return self.initialize_as_asyncio(arguments),
        };
        if arguments.keywords().count() > 1 || !self.is_plain()? {
            return self.initialize_as_asyncio(arguments);
        }
        let core = self.core();
        match maxsize {
            Some(maxsize) => core.maxsize.set(maxsize)?,
            None => core.maxsize.set_integer(0),
        }
        core.getters.clear();
        core.putters.clear();
        core.unfinished.set_integer(0);
        core.is_finished.set(true);
        core.finished.clear();
        core.items.assign(None);
        if !self.keeps_its_items()? {
            self.call_method1(&names()._init, &*core.maxsize.shown()?)?;
        }
        core.is_shut_down.set(false);
        Ok(())
    }

    #[cold]
    fn initialize_as_asyncio(&self, arguments: Arguments<'_>) -> Result<()> {
        self.kind().asyncios_with(self, c"__init__", arguments).map(drop)
    }

    #[inline]
    pub fn length(&self) -> Result<usize> {
        self.core().items.length()
    }

    #[inline]
    pub fn is_empty(&self) -> Result<bool> {
        self.core().items.is_empty()
    }

    /// `queue.full()` where the short cuts hold.
    #[inline]
    fn is_full(&self) -> Result<bool> {
        let core = self.core();
        match core.maxsize.as_integer() {
            Some(maxsize) if maxsize <= 0 => Ok(false),
            Some(maxsize) => Ok(self.length()? as i64 >= maxsize),
            None => self.kind().asyncios(self, c"full", &[])?.is_true(),
        }
    }

    pub fn is_full_shown(&self) -> Result<bool> {
        if self.is_plain()? { self.is_full() } else { self.kind().asyncios(self, c"full", &[])?.is_true() }
    }

    /// `queue.put(item)`
    #[inline]
    pub fn put(&self, arguments: Arguments<'_>) -> Result<Object> {
        match arguments.positional() {
            [item] if !arguments.has_keywords() && self.is_plain()? => procedure(&PUT, self, Some(item)),
            _ => self.kind().asyncios_with(self, c"put", arguments),
        }
    }

    /// `queue.put_nowait(item)`
    #[inline]
    pub fn put_nowait(&self, arguments: Arguments<'_>) -> Result<()> {
        match arguments.positional() {
            [item] if !arguments.has_keywords() && self.is_plain()? => {
                if !self.core().is_shut_down.get() && self.is_full()? {
                    return Err(Raised::empty(&errors().full));
                }
                self.put_in(item)
            }
            _ => self.kind().asyncios_with(self, c"put_nowait", arguments).map(drop),
        }
    }

    /// An item goes in; there is room. Fails: QueueShutDown; what a comparison fails with.
    #[inline]
    fn put_in(&self, item: &Any) -> Result<()> {
        let core = self.core();
        if core.is_shut_down.get() {
            return Err(shut_down());
        }
        if self.keeps_its_items()? {
            core.items.put(item)?;
        } else {
            self.call_method1(&names()._put, item)?;
        }
        core.unfinished.add(1)?;
        self.set_finished(false)?;
        core.getters.take_and_wake_next(none())
    }

    /// `queue.get()`
    #[inline]
    pub fn get(&self) -> Result<Object> {
        if !self.is_plain()? {
            return self.kind().asyncios(self, c"get", &[]);
        }
        procedure(&GET, self, None)
    }

    /// `queue.get_nowait()`
    #[inline]
    pub fn get_nowait(&self) -> Result<Object> {
        if !self.is_plain()? {
            return self.kind().asyncios(self, c"get_nowait", &[]);
        }
        if self.is_empty()? {
            return Err(match self.core().is_shut_down.get() {
                true => shut_down(),
                false => Raised::empty(&errors().empty),
            });
        }
        self.take_out()
    }

    /// An item comes out; there is one.
    #[inline]
    fn take_out(&self) -> Result<Object> {
        let core = self.core();
        let item = self.take_item()?;
        core.putters.take_and_wake_next(none())?;
        Ok(item)
    }

    /// `self._get()`
    #[inline]
    fn take_item(&self) -> Result<Object> {
        if self.keeps_its_items()? { self.core().items.take() } else { self.call_method0(&names()._get) }
    }

    /// A waiter leaves its line with an exception (Q2). Whether it had been woken (Q1).
    #[cold]
    fn leave(&self, line: &WaitQueue, waiter: &Any) -> Result<bool> {
        cancel_any(waiter)?;
        line.discard(waiter)?;
        Ok(!is_cancelled(waiter)?)
    }

    /// `queue.task_done()`
    pub fn task_done(&self) -> Result<()> {
        let core = self.core();
        if !core.unfinished.is_positive()? {
            return self.kind().asyncios(self, c"task_done", &[]).map(drop);
        }
        core.unfinished.add(-1)?;
        if core.unfinished.is(0)? { self.set_finished(true) } else { Ok(()) }
    }

    /// `queue.join()`
    pub fn join(&self) -> Result<Object> {
        procedure(&JOIN, self, None)
    }

    /// `_finished` (Q3).
    pub fn finished(&self) -> Result<Object> {
        let core = self.core();
        if let Some(event) = core.finished.get_object() {
            return Ok(event);
        }
        let event = Event::create(core.is_finished.get())?;
        core.finished.set(event.clone());
        Ok(event)
    }

    #[inline]
    fn set_finished(&self, finished: bool) -> Result<()> {
        let core = self.core();
        core.is_finished.set(finished);
        let Some(event) = core.finished.get_object() else { return Ok(()) };
        match (Event::from_any(&event), finished) {
            (Some(event), true) => event.set(),
            (Some(event), false) => {
                event.reset();
                Ok(())
            }
            (None, true) => event.call_method0(&names().set).map(drop),
            (None, false) => event.call_method0(&names().clear).map(drop),
        }
    }

    /// `queue.shutdown(immediate=False)`
    pub fn shutdown(&self, arguments: Arguments<'_>) -> Result<()> {
        if !self.is_plain()? {
            return self.kind().asyncios_with(self, c"shutdown", arguments).map(drop);
        }
        let [immediate] = SHUTDOWN.bind(arguments)?;
        let immediate = match immediate {
            Some(immediate) => immediate.is_true()?,
            None => false,
        };
        let core = self.core();
        core.is_shut_down.set(true);
        if immediate {
            while !self.is_empty()? {
                drop(self.take_item()?);
                if core.unfinished.is_positive()? {
                    core.unfinished.add(-1)?;
                }
            }
            if core.unfinished.is(0)? {
                self.set_finished(true)?;
            }
        }
        for line in [&core.getters, &core.putters] {
            while let Some(waiter) = line.pop_first()? {
                crate::futures::set_result_unless_done(&waiter, none())?;
            }
        }
        Ok(())
    }

    /// `queue._format()`, which `repr` and `str` show.
    pub fn format(&self) -> Result<Object> {
        let core = self.core();
        let mut shown = format!("maxsize={}", core.maxsize.shown()?.repr()?.to_text()?.as_str());
        if !core.items.is_empty()? {
            shown += &format!(" _queue={}", core.items.listed()?.repr()?.to_text()?.as_str());
        }
        for (name, line) in [("_getters", &core.getters), ("_putters", &core.putters)] {
            let length = line.length()?;
            if length > 0 {
                shown += &format!(" {name}[{length}]");
            }
        }
        if !core.unfinished.is(0)? {
            shown += &format!(" tasks={}", core.unfinished.shown()?.str()?.to_text()?.as_str());
        }
        if core.is_shut_down.get() {
            shown += " shutdown";
        }
        text(&shown)
    }
}

impl Traverse for QueueCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.bound.traverse(visitor);
        self.items.traverse(visitor);
        self.getters.traverse(visitor);
        self.putters.traverse(visitor);
        self.maxsize.traverse(visitor);
        self.unfinished.traverse(visitor);
        visitor.slot(&self.finished);
    }

    fn clear(&self) {
        self.bound.clear();
        self.items.assign(None);
        self.getters.clear();
        self.putters.clear();
        self.maxsize.clear();
        self.unfinished.clear();
        self.finished.clear();
    }
}
