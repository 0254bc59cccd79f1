//! `WaitQueue`: the futures of those who wait for a lock or queue, in the order in which they came: `_waiters`, `_getters`,
//! `_putters`.
//!
//! Invariants:
//! W1. The futures are in `futures` until somebody asks for the attribute; from then on a `collections.deque` of the same
//!     futures is in `deque`, what Python does to it counts, and `futures` is empty.
//! W2. No borrow of `futures` is held while Python runs.

use crate::futures::{Future, is_cancelled, is_done, set_result_unless_done};
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::types::Native;
use ioxide_cpython::value::sequence_item;
use ioxide_cpython::version::FutureState;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, names};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;

static DEQUE: Once<Object> = Once::new();

pub fn initialize() -> Result<()> {
    DEQUE.set(ioxide_cpython::call::import(c"collections")?.get_attribute_str(c"deque")?);
    Ok(())
}

/// `collections.deque()`
pub fn new_deque() -> Result<Object> {
    DEQUE.get().call0()
}

/// `deque.append(item)`
pub fn append_to(deque: &Any, item: &Any) -> Result<()> {
    deque.call_method1(&names().append, item).map(drop)
}

pub struct WaitQueue {
    futures: RefCell<VecDeque<Object>>,
    deque: Slot,
}

impl WaitQueue {
    pub const fn new() -> WaitQueue {
        WaitQueue { futures: RefCell::new(VecDeque::new()), deque: Slot::empty() }
    }

    pub fn length(&self) -> Result<usize> {
        match self.deque.get_object() {
            Some(deque) => deque.length(),
            None => Ok(self.futures.borrow().len()),
        }
    }

    /// Whether nobody waits: `not self._waiters`.
    #[inline]
    pub fn is_empty(&self) -> Result<bool> {
        match self.deque.get_object() {
            Some(deque) => Ok(!deque.is_true()?),
            None => Ok(self.futures.borrow().is_empty()),
        }
    }

    #[inline]
    pub fn append(&self, future: &Any) -> Result<()> {
        if let Some(deque) = self.deque.get_object() {
            return append_to(&deque, future);
        }
        self.futures.borrow_mut().push_back(future.to_object());
        Ok(())
    }

    /// `deque.remove(future)`. Fails: ValueError where it is not there.
    #[inline]
    pub fn remove(&self, future: &Any) -> Result<()> {
        if let Some(deque) = self.deque.get_object() {
            return deque.call_method1(&names().remove, future).map(drop);
        }
        let removed = {
            let mut futures = self.futures.borrow_mut();
            match futures.front() {
                // Who has been woken is the first, as a rule.
                Some(first) if first.is(future) => futures.pop_front(),
                _ => {
                    let place = futures.iter().position(|present| present.is(future));
                    place.and_then(|place| futures.remove(place))
                }
            }
        };
        match removed {
            Some(_) => Ok(()),
            None => Err(Raised::value_error("deque.remove(x): x not in deque")),
        }
    }

    /// `remove` where the future may have left already.
    pub fn discard(&self, future: &Any) -> Result<()> {
        match self.remove(future) {
            Err(raised) if raised.matches(ioxide_cpython::builtin(ioxide_cpython::Builtin::ValueError)) => {
                drop(raised.take());
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// `deque.popleft()`, `None` where it is empty.
    #[inline]
    pub fn pop_first(&self) -> Result<Option<Object>> {
        match self.deque.get_object() {
            Some(deque) if deque.is_true()? => deque.call_method0(&names().popleft).map(Some),
            Some(_) => Ok(None),
            None => Ok(self.futures.borrow_mut().pop_front()),
        }
    }

    pub fn first(&self) -> Result<Option<Object>> {
        self.nth(0)
    }

    fn nth(&self, index: usize) -> Result<Option<Object>> {
        match self.deque.get_object() {
            Some(deque) if index < deque.length()? => sequence_item(&deque, index).map(Some),
            Some(_) => Ok(None),
            None => Ok(self.futures.borrow().get(index).cloned()),
        }
    }

    /// Shows the futures to `visit` in order, until it breaks. Python may run in between (W2).
    /// Fails: RuntimeError where that changes the deque, as asyncio's own loop over it does.
    fn each(&self, mut visit: impl FnMut(&Object) -> Result<ControlFlow<()>>) -> Result<()> {
        if let Some(deque) = self.deque.get_object() {
            for future in deque.iterate()? {
                if visit(&future?)?.is_break() {
                    return Ok(());
                }
            }
            return Ok(());
        }
        let mut index = 0;
        while let Some(future) = self.nth(index)? {
            if visit(&future)?.is_break() {
                return Ok(());
            }
            index += 1;
        }
        Ok(())
    }

    /// The first future that is so; `None` where that cannot be told without asking futures that are not ioxide's own.
    #[inline]
    fn first_own(&self, is_so: impl Fn(&Future) -> bool) -> Option<Option<Object>> {
        if !self.deque.is_empty() {
            return None;
        }
        for future in self.futures.borrow().iter() {
            if is_so(Future::from_exact(future)?) {
                return Some(Some(future.clone()));
            }
        }
        Some(None)
    }

    /// Whether somebody waits who has not been cancelled.
    #[inline]
    pub fn has_uncancelled(&self) -> Result<bool> {
        if self.is_empty()? {
            return Ok(false);
        }
        if let Some(first) = self.first_own(|future| future.state() != FutureState::Cancelled) {
            return Ok(first.is_some());
        }
        let mut found = false;
        self.each(|future| {
            found = !is_cancelled(future)?;
            Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    /// The first who is neither woken nor cancelled.
    #[inline]
    pub fn first_not_done(&self) -> Result<Option<Object>> {
        if let Some(first) = self.first_own(|future| future.is_pending()) {
            return Ok(first);
        }
        let mut found = None;
        self.each(|future| {
            if is_done(future)? {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some(future.clone());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Sets the result of the first `count` futures that are not done yet. Returns how many there were.
    #[inline]
    pub fn wake(&self, count: usize, result: &Any) -> Result<usize> {
        let mut woken = 0;
        self.each(|future| {
            if woken >= count {
                return Ok(ControlFlow::Break(()));
            }
            woken += usize::from(set_result_unless_done(future, result)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(woken)
    }

    /// `_wakeup_next` of queues: takes futures out until one of them was not done yet, and sets its result.
    #[inline]
    pub fn take_and_wake_next(&self, result: &Any) -> Result<()> {
        while let Some(future) = self.pop_first()? {
            if set_result_unless_done(&future, result)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The attribute: from now on a deque that Python shares (W1).
    pub fn shown(&self) -> Result<Object> {
        if let Some(deque) = self.deque.get_object() {
            return Ok(deque);
        }
        let deque = new_deque()?;
        self.deque.set(deque.clone());
        loop {
            let future = self.futures.borrow_mut().pop_front();
            match future {
                Some(future) => append_to(&deque, &future)?,
                None => return Ok(deque),
            }
        }
    }

    /// What an assignment to the attribute, or `__init__`, puts in the queue's place.
    pub fn assign(&self, deque: Option<&Any>) {
        let futures = std::mem::take(&mut *self.futures.borrow_mut());
        let old = self.deque.replace(deque.map(Any::to_object));
        drop((futures, old));
    }

    pub fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.deque);
        if let Ok(futures) = self.futures.try_borrow() {
            for future in futures.iter() {
                visitor.object(future);
            }
        }
    }

    pub fn clear(&self) {
        self.assign(None);
    }
}
