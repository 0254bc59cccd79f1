//! `as_completed`: what it returns, for plain and asynchronous iteration. Until 3.12 asyncio's is a generator, so nothing
//! happens before the first step there; `async for` works on every version.
//!
//! Native are coroutines, and futures and tasks of ioxide's, on ioxide's own loop. Everything else is asyncio's `as_completed`.
//!
//! Leaves to others: waiting for the next one that is done (wait_for_one).
//!
//! Invariants:
//! S1. `todo` holds what is not done, or whose callback has not run yet; it is empty after a timeout, and then callbacks do
//!     nothing. `callback` is there as long as `todo` is not empty.
//! S2. No borrow of `done` is held while Python runs.

use super::spawn::{can_run, future_of};
use super::wait_for_one::{WaitForOne, Wanted};
use super::{DoneCallback, originals, plain_future, spawning_loop};
use crate::event_loop::EventLoop;
use crate::futures;
use crate::locks::WaitQueue;
use crate::mixins::LoopBound;
use ioxide_cpython::coroutine::thrown_exception;
use ioxide_cpython::current::current_task;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, getter, method, method0, method1};
use ioxide_cpython::names::{intern, keyword_names};
use ioxide_cpython::types::{Class, Native, NativeClass, allocate, head};
use ioxide_cpython::value::{list_of, set, set_add, set_discard};
use ioxide_cpython::version::{AS_COMPLETED_IS_GENERATOR, HAS_CALL_GRAPH};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, imports, names, none, none_object};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

const AS_COMPLETED: Signature<2> =
    Signature { function: "as_completed", names: ["fs", "timeout"], required: 1, positional: 1 };

/// `as_completed(fs, *, timeout=None)`
pub fn as_completed(arguments: Arguments<'_>) -> Result<Object> {
    let [awaitables, timeout] = AS_COMPLETED.bind(arguments)?;
    let (awaitables, timeout) = (awaitables.unwrap_or(none()), timeout.unwrap_or(none()));
    let object = allocate(AsCompleted::of(awaitables, timeout))?;
    if AS_COMPLETED_IS_GENERATOR {
        return Ok(object);
    }
    let Some(iterator) = AsCompleted::from_exact(&object) else { return Ok(object) };
    iterator.begin()?;
    Ok(iterator.borrowed.take().unwrap_or(object))
}

/// `asyncio.tasks._AsCompletedIterator`
#[repr(C)]
pub struct AsCompleted {
    head: Any,
    /// The arguments, until it begins.
    awaitables: Slot,
    timeout: Slot,
    /// asyncio's own, where that has to do the work.
    borrowed: Slot,
    bound: LoopBound,
    todo: Slot,
    callback: Slot,
    timer: Slot,
    /// For the call graph of 3.14.
    task: Slot,
    /// What is done, in this order; `None` for each that was not done in time.
    done: RefCell<VecDeque<Option<Object>>>,
    pub getters: WaitQueue,
    /// How many more can be asked for.
    left: Cell<usize>,
}

static AS_COMPLETED_CLASS: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for AsCompleted {
    fn class() -> &'static Once<Class> {
        &AS_COMPLETED_CLASS
    }
}

pub(super) fn initialize() -> Result<()> {
    let mut methods = vec![method0(c"_handle_timeout", AsCompleted::on_timeout)];
    if AS_COMPLETED_IS_GENERATOR {
        methods.extend([
            method1(c"send", AsCompleted::send),
            method(c"throw", AsCompleted::throw),
            method0(c"close", AsCompleted::close),
        ]);
    }
    AS_COMPLETED_CLASS.set(
        NativeClass::new::<AsCompleted>(c"ioxide._AsCompletedIterator")
            .doc(c"Awaitables in the order in which they are done.")
            .not_instantiable()
            .collected::<AsCompleted>()
            .dropped::<AsCompleted>()
            .iterator::<AsCompleted, _>(AsCompleted::next)
            .async_iterator::<AsCompleted, _>(AsCompleted::next_async)
            .methods(methods)
            .attributes(vec![getter(c"_todo", |this: &AsCompleted| this.todo.get_or_none())])
            .create(&[])?,
    );
    Ok(())
}

const CALLBACK: &str = if AS_COMPLETED_IS_GENERATOR {
    "as_completed.<locals>._on_completion"
} else {
    "_AsCompletedIterator._handle_completion"
};

impl AsCompleted {
    fn of(awaitables: &Any, timeout: &Any) -> AsCompleted {
        AsCompleted {
            head: head(),
            awaitables: Slot::filled(awaitables.to_object()),
            timeout: Slot::filled(timeout.to_object()),
            borrowed: Slot::empty(),
            bound: LoopBound::new(),
            todo: Slot::empty(),
            callback: Slot::empty(),
            timer: Slot::empty(),
            task: Slot::empty(),
            done: RefCell::new(VecDeque::new()),
            getters: WaitQueue::new(),
            left: Cell::new(0),
        }
    }

    /// Makes tasks of the coroutines and watches all of them, or has asyncio do it.
    fn begin(&self) -> Result<()> {
        let Some(awaitables) = self.awaitables.take() else { return Ok(()) };
        let timeout = self.timeout.take().unwrap_or_else(none_object);
        let event_loop = spawning_loop()?;
        let Some(native) = event_loop.as_deref().and_then(EventLoop::plain) else {
            return self.borrow(&awaitables, &timeout);
        };
        if is_refused(&awaitables)? {
            return self.borrow(&awaitables, &timeout);
        }
        let items = awaitables.iterate()?.collect::<Result<Vec<Object>>>()?;
        if !items.iter().all(|item| can_run(native, item)) || !are_distinct(&items) {
            return self.borrow(&*list_of(items)?, &timeout);
        }
        self.watch(native, &items)?;
        if !items.is_empty() && !timeout.is_none() {
            let on_timeout = self.head.get_attribute(&*intern("_handle_timeout")?)?;
            self.timer.set(native.call_method(&names().call_later, &[&timeout, &on_timeout])?);
        }
        Ok(())
    }

    fn borrow(&self, awaitables: &Any, timeout: &Any) -> Result<()> {
        let keywords = keyword_names(&[&*intern("timeout")?])?;
        self.borrowed.set(originals().as_completed.call_keywords(&[awaitables, timeout], &keywords, 1)?);
        Ok(())
    }

    fn watch(&self, event_loop: &EventLoop, items: &[Object]) -> Result<()> {
        let todo = set()?;
        let callback = DoneCallback::create(CALLBACK, on_completion, &self.head)?;
        if HAS_CALL_GRAPH && let Some(task) = current_task(event_loop)? {
            self.task.set(task);
        }
        let mut futures = Vec::with_capacity(items.len());
        for item in items {
            let future = future_of(event_loop, item)?;
            set_add(&todo, &future)?;
            futures.push(future);
        }
        self.left.set(futures.len());
        if !futures.is_empty() {
            self.todo.set(todo);
            self.callback.set(callback.clone());
        }
        for future in futures.iter().filter_map(|future| plain_future(future)) {
            futures::add_native_callback(future, &callback)?;
            if let Some(task) = self.task.get_object() {
                future.awaited_by_add(&task)?;
            }
        }
        Ok(())
    }

    /// `__next__`: a coroutine for the result of the next one that is done.
    fn next(&self) -> Result<Option<Object>> {
        self.begin()?;
        if let Some(borrowed) = self.borrowed.get_object() {
            return borrowed.next_item();
        }
        if !self.take_one() {
            return Ok(None);
        }
        WaitForOne::coroutine(&self.head, Wanted::Result).map(Some)
    }

    /// `__anext__`: a coroutine for the next one that is done.
    fn next_async(&self) -> Result<Object> {
        WaitForOne::coroutine(&self.head, Wanted::NextFuture)
    }

    /// Whether there was one more to ask for; it counts as asked for then.
    pub fn take_one(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// Who asked for one gave up.
    pub fn give_one_back(&self) {
        self.left.set(self.left.get() + 1);
    }

    /// Before the first step on versions where nothing happens until then.
    pub fn begin_for_async(&self) -> Result<()> {
        if !AS_COMPLETED_IS_GENERATOR {
            return Ok(());
        }
        self.begin()?;
        match self.borrowed.is_empty() {
            true => Ok(()),
            false => Err(Raised::type_error(
                "'async for' over as_completed() needs awaitables of ioxide's own loop",
            )),
        }
    }

    /// The next one that is done; the inner `None` where the time was over.
    pub fn take_done(&self) -> Option<Option<Object>> {
        self.done.borrow_mut().pop_front()
    }

    pub fn has_done(&self) -> bool {
        !self.done.borrow().is_empty()
    }

    /// A future for who waits until something is done.
    pub fn create_getter(&self) -> Result<Object> {
        let getter = self.bound.create_future(&self.head)?;
        self.getters.append(&getter)?;
        Ok(getter)
    }

    fn put(&self, done: Option<Object>) -> Result<()> {
        self.done.borrow_mut().push_back(done);
        self.getters.take_and_wake_next(none())
    }

    fn completed(&self, future: &Any) -> Result<()> {
        let Some(todo) = self.todo.get_object() else { return Ok(()) };
        set_discard(&todo, future)?;
        if let (Some(future), Some(task)) = (plain_future(future), self.task.get_object()) {
            future.awaited_by_discard(&task)?;
        }
        self.put(Some(future.to_object()))?;
        if todo.length()? > 0 {
            return Ok(());
        }
        self.todo.clear();
        self.callback.clear();
        match self.timer.take() {
            Some(timer) => timer.call_method0(&names().cancel).map(drop),
            None => Ok(()),
        }
    }

    fn on_timeout(&self) -> Result<()> {
        let (Some(todo), Some(callback)) = (self.todo.take(), self.callback.take()) else { return Ok(()) };
        for future in todo.iterate()? {
            let future = future?;
            if let Some(future) = plain_future(&future) {
                futures::remove_native_callback(future, &callback)?;
                if let Some(task) = self.task.get_object() {
                    future.awaited_by_discard(&task)?;
                }
            }
            self.put(None)?;
        }
        Ok(())
    }

    fn slots(&self) -> [&Slot; 7] {
        [&self.awaitables, &self.timeout, &self.borrowed, &self.todo, &self.callback, &self.timer, &self.task]
    }

    /// As a generator: `send`.
    fn send(&self, value: &Any) -> Result<Object> {
        if !value.is_none() && !self.awaitables.is_empty() {
            return Err(Raised::type_error("can't send non-None value to a just-started generator"));
        }
        match self.next()? {
            Some(coroutine) => Ok(coroutine),
            None => Err(Raised::empty(ioxide_cpython::builtin(ioxide_cpython::Builtin::StopIteration))),
        }
    }

    /// As a generator: `throw`, which ends it.
    fn throw(&self, arguments: Arguments<'_>) -> Result<()> {
        let exception = thrown_exception(arguments.positional())?;
        self.close();
        Err(Raised::exception(exception))
    }

    /// As a generator: `close`. The tasks go on.
    fn close(&self) {
        self.awaitables.clear();
        self.borrowed.clear();
        self.left.set(0);
    }
}

fn on_completion(callback: &DoneCallback, future: &Any) -> Result<()> {
    let owner = callback.owner.get_or_none();
    match AsCompleted::from_exact(&owner) {
        Some(iterator) => iterator.completed(future),
        None => Ok(()),
    }
}

/// Whether asyncio refuses to iterate over it, because it is something to await.
fn is_refused(awaitables: &Any) -> Result<bool> {
    if awaitables.is_builtin_collection() {
        return Ok(false);
    }
    if !AS_COMPLETED_IS_GENERATOR {
        return originals().isawaitable.call1(awaitables)?.is_true();
    }
    Ok(imports().isfuture.call1(awaitables)?.is_true()?
        || imports().iscoroutine.call1(awaitables)?.is_true()?)
}

/// Whether no object is there twice.
fn are_distinct(items: &[Object]) -> bool {
    let mut addresses: Vec<usize> =
        items.iter().map(|item| std::ptr::from_ref::<Any>(item) as usize).collect();
    addresses.sort_unstable();
    addresses.windows(2).all(|pair| pair[0] != pair[1])
}

impl Traverse for AsCompleted {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
        self.bound.traverse(visitor);
        self.getters.traverse(visitor);
        if let Ok(done) = self.done.try_borrow() {
            for future in done.iter().flatten() {
                visitor.object(future);
            }
        }
    }

    fn clear(&self) {
        self.slots().clear();
        self.bound.clear();
        self.getters.clear();
        let done = std::mem::take(&mut *self.done.borrow_mut());
        drop(done);
    }
}
