//! `gather`: tasks, and one native callback for all of them.
//!
//! Native are the arguments that nearly every call has: coroutines, and futures and tasks of ioxide's, on ioxide's own loop.
//! Everything else is asyncio's `gather`.
//!
//! Invariants:
//! Y1. The gathering future exists before its children and is their callback's owner; one that is `abandoned` was never
//!     returned to anybody, and only marks exceptions as retrieved.

use super::{DoneCallback, Task, TaskOptions, originals, spawning_loop};
use crate::event_loop::EventLoop;
use crate::futures::{self, Future, cancelled_error, own};
use ioxide_cpython::coroutine::is_native_coroutine;
use ioxide_cpython::current::current_task;
use ioxide_cpython::freelist::{FreeList, Recycled};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, attribute, method, name_is};
use ioxide_cpython::types::{Class, Native, NativeClass};
use ioxide_cpython::value::{list_from, list_items};
use ioxide_cpython::version::{
    FutureObject, FutureState, GATHER_COUNTS_DONE_AT_ONCE, HAS_CALL_GRAPH, clear_instance_attributes,
};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, boolean, imports, none};
use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Deref;

/// `asyncio.tasks._GatheringFuture`
#[repr(C)]
pub struct GatheringFuture {
    future: FutureObject,
    children: Slot,
    /// For the call graph of 3.14.
    waiter: Slot,
    pending: Cell<usize>,
    return_exceptions: Cell<bool>,
    cancel_requested: Cell<bool>,
    abandoned: Cell<bool>,
}

static GATHERING_FUTURE: Once<Class> = Once::new();

// SAFETY: repr(C), beginning with the struct of asyncio.Future, which the class derives from.
unsafe impl Native for GatheringFuture {
    fn class() -> &'static Once<Class> {
        &GATHERING_FUTURE
    }
}

static FREE_GATHERING_FUTURES: FreeList<GatheringFuture> = FreeList::new(64);

impl Recycled for GatheringFuture {
    fn free_list() -> &'static FreeList<GatheringFuture> {
        &FREE_GATHERING_FUTURES
    }

    fn wants_finalizer(&self) -> bool {
        self.log_traceback()
    }

    fn release(&self) {
        clear_instance_attributes(self);
        self.clear_fields();
        self.children.clear();
        self.waiter.clear();
    }
}

impl Deref for GatheringFuture {
    type Target = FutureObject;
    #[inline(always)]
    fn deref(&self) -> &FutureObject {
        &self.future
    }
}

pub(super) fn initialize() -> Result<()> {
    let base = Future::class().get().as_any();
    GATHERING_FUTURE.set(
        NativeClass::new::<GatheringFuture>(c"ioxide._GatheringFuture")
            .doc(c"What gather() returns: a future for the results of all its children.")
            .not_instantiable()
            .collected_over_base::<GatheringFuture>()
            .recycled::<GatheringFuture>()
            .methods(vec![method(c"cancel", |this: &GatheringFuture, arguments: Arguments<'_>| {
                let [message] = futures::CANCEL.bind(arguments)?;
                this.cancel(message)
            })])
            .attributes(vec![
                attribute(
                    c"_children",
                    |this: &GatheringFuture| this.children.get_or_none(),
                    |this: &GatheringFuture, value: Option<&Any>| {
                        this.children.set(value.unwrap_or(none()).to_object());
                        Ok(())
                    },
                ),
                attribute(
                    c"_cancel_requested",
                    |this: &GatheringFuture| boolean(this.cancel_requested.get()),
                    |this: &GatheringFuture, value: Option<&Any>| {
                        this.cancel_requested.set(value.unwrap_or(none()).is_true()?);
                        Ok(())
                    },
                ),
            ])
            .create(&[base])?,
    );
    Ok(())
}

/// `gather(*coros_or_futures, return_exceptions=False)`
pub fn gather(arguments: Arguments<'_>) -> Result<Object> {
    let awaitables = arguments.positional();
    let (Some(event_loop), Some(return_exceptions), false) =
        (spawning_loop()?, read_keywords(arguments)?, awaitables.is_empty())
    else {
        return arguments.call(&originals().gather);
    };
    let event_loop = match EventLoop::from_any(&event_loop) {
        Some(native) if are_plain(awaitables, native) => native,
        _ => return arguments.call(&originals().gather),
    };
    let outer = GatheringFuture::create(event_loop, awaitables.len(), return_exceptions)?;
    let Some(gathering) = GatheringFuture::from_exact(&outer) else { return Ok(outer) };
    match gathering.take_children(event_loop, awaitables) {
        Ok(()) => Ok(outer),
        Err(raised) => {
            gathering.abandoned.set(true);
            Err(raised)
        }
    }
}

/// The value of `return_exceptions`; `None` where there are other keywords.
fn read_keywords(arguments: Arguments<'_>) -> Result<Option<bool>> {
    let mut return_exceptions = false;
    for (keyword, value) in arguments.keywords() {
        if !name_is(keyword, "return_exceptions") {
            return Ok(None);
        }
        return_exceptions = value.is_true()?;
    }
    Ok(Some(return_exceptions))
}

/// Whether all of them are coroutines, or futures of this loop, and no two are the same.
fn are_plain(awaitables: &[&Any], event_loop: &EventLoop) -> bool {
    let is_plain = |awaitable: &Any| match own(awaitable) {
        Some(future) => future.event_loop.is(event_loop),
        None => is_native_coroutine(awaitable),
    };
    if !awaitables.iter().all(|awaitable| is_plain(awaitable)) {
        return false;
    }
    // Whoever is there twice is referred to twice.
    let shared: Vec<&Any> =
        awaitables.iter().copied().filter(|awaitable| !awaitable.is_one_argument()).collect();
    if shared.len() <= 8 {
        return shared
            .iter()
            .enumerate()
            .all(|(index, first)| !shared[..index].iter().any(|second| first.is(second)));
    }
    let mut seen = HashSet::with_capacity_and_hasher(shared.len(), AddressHash::default());
    shared.iter().all(|awaitable| seen.insert(std::ptr::from_ref::<Any>(awaitable) as usize))
}

type AddressHash = BuildHasherDefault<AddressHasher>;

/// Addresses of objects need no better hash: they are multiples of sixteen, in no order that anybody chooses.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

impl GatheringFuture {
    fn create(event_loop: &EventLoop, count: usize, return_exceptions: bool) -> Result<Object> {
        let outer = FREE_GATHERING_FUTURES.allocate()?;
        if let Some(gathering) = GatheringFuture::from_exact(&outer) {
            gathering.event_loop.initialize(Some(event_loop.to_object()));
            gathering.pending.set(count);
            gathering.return_exceptions.set(return_exceptions);
        }
        Ok(outer)
    }

    /// Makes tasks of the coroutines and waits for all of them.
    fn take_children(&self, event_loop: &EventLoop, awaitables: &[&Any]) -> Result<()> {
        let waiter = if HAS_CALL_GRAPH { current_task(event_loop)? } else { None };
        self.waiter.initialize(waiter.clone());
        let callback = DoneCallback::create("gather.<locals>._done_callback", on_child_done, self)?;
        let mut children = Vec::with_capacity(awaitables.len());
        let mut done = Vec::new();
        for awaitable in awaitables {
            let child = match own(awaitable) {
                Some(_) => awaitable.to_object(),
                None => {
                    let task = Task::create(event_loop, awaitable, TaskOptions::default())?;
                    if let Some(task) = Task::from_exact(&task) {
                        // The caller never sees it, so nobody can be blamed for its end.
                        task.set_log_destroy_pending(false);
                    }
                    task
                }
            };
            if let Some(future) = own(&child) {
                if GATHER_COUNTS_DONE_AT_ONCE && !future.is_pending() {
                    done.push(child.clone());
                } else {
                    if let Some(waiter) = &waiter {
                        future.awaited_by_add(waiter)?;
                    }
                    futures::add_native_callback(future, &callback)?;
                }
            }
            children.push(child);
        }
        self.children.initialize(Some(list_from(children)?));
        for child in done {
            self.child_done(&child)?;
        }
        Ok(())
    }

    fn child_done(&self, child: &Any) -> Result<()> {
        self.pending.set(self.pending.get().saturating_sub(1));
        if let (Some(child), Some(waiter)) = (own(child), self.waiter.get_object()) {
            child.awaited_by_discard(&waiter)?;
        }
        if self.abandoned.get() || !self.is_pending() {
            return End::of(child).map(drop);
        }
        if !self.return_exceptions.get() {
            match End::of(child)? {
                End::Result(_) => {}
                End::Exception(exception) => {
                    self.forget_waiter()?;
                    return futures::set_exception(self, &exception);
                }
                End::Cancelled => {
                    self.forget_waiter()?;
                    return futures::set_exception(self, &*made_cancelled_error(child)?);
                }
            }
        }
        if self.pending.get() == 0 { self.finish() } else { Ok(()) }
    }

    /// All children are done.
    fn finish(&self) -> Result<()> {
        let children = self.children.get_or_none();
        let children = list_items(&children);
        let mut results = Vec::with_capacity(children.len());
        for child in &children {
            let result = match End::of(child)? {
                End::Result(result) | End::Exception(result) => result,
                End::Cancelled => cancelled_error_as_result(child)?,
            };
            results.push(result);
        }
        // Behind the loop, because that marks every exception as retrieved.
        if self.cancel_requested.get() {
            // The request goes on to whoever awaits the gathering, whatever the children made of it.
            let last = children.last().map_or(none(), |last| &**last);
            return futures::set_exception(self, &*made_cancelled_error(last)?);
        }
        futures::set_result(self, &*list_from(results)?)
    }

    /// Children that outlive the gathering are awaited by nobody.
    fn forget_waiter(&self) -> Result<()> {
        let Some(waiter) = self.waiter.get_object() else { return Ok(()) };
        let children = self.children.get_or_none();
        for child in list_items(&children) {
            if let Some(child) = own(&child) {
                child.awaited_by_discard(&waiter)?;
            }
        }
        Ok(())
    }

    /// `cancel(msg=None)`: cancels the children; the gathering ends when they do.
    pub(super) fn cancel(&self, message: Option<&Any>) -> Result<bool> {
        if !self.is_pending() {
            return Ok(false);
        }
        let children = self.children.get_or_none();
        let mut any = false;
        for child in list_items(&children) {
            any |= super::cancel_with_message(&child, message.unwrap_or(none()))?;
        }
        if any {
            self.cancel_requested.set(true);
        }
        Ok(any)
    }
}

fn on_child_done(callback: &DoneCallback, child: &Any) -> Result<()> {
    let owner = callback.owner.get_or_none();
    match GatheringFuture::from_exact(&owner) {
        Some(gathering) => gathering.child_done(child),
        None => Ok(()),
    }
}

/// How a child ended; asking for its exception marks it as retrieved.
enum End {
    Result(Object),
    Exception(Object),
    Cancelled,
}

impl End {
    fn of(child: &Any) -> Result<End> {
        let Some(future) = own(child) else {
            return Err(Raised::type_error("a child of gather() is no future"));
        };
        if future.state() == FutureState::Cancelled {
            return Ok(End::Cancelled);
        }
        future.set_log_traceback(false);
        Ok(match future.exception.get_object() {
            Some(exception) => End::Exception(exception),
            None => End::Result(future.result.get_or_none()),
        })
    }
}

/// `child._make_cancelled_error()`
fn made_cancelled_error(child: &Any) -> Result<Object> {
    match own(child) {
        Some(future) => cancelled_error(future),
        None => imports().CancelledError.call0(),
    }
}

/// What stands for a cancelled child in the list of results.
fn cancelled_error_as_result(child: &Any) -> Result<Object> {
    let message = own(child).and_then(|future| future.cancel_message.get_object());
    match message.filter(|message| !message.is_none()) {
        Some(message) => imports().CancelledError.call1(&message),
        None => imports().CancelledError.call1(&*ioxide_cpython::value::text("")?),
    }
}

impl Traverse for GatheringFuture {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.children);
        visitor.slot(&self.waiter);
    }

    fn clear(&self) {
        self.children.clear();
        self.waiter.clear();
    }
}
