//! `Items`: what is in a queue, in the order in which it comes out.
//!
//! Invariants:
//! I1. `python` is what the attribute `_queue` shows, once there is something to show; until then the items of a Queue are in
//!     `native`. The heap and the stack are Python lists from the beginning: `heapq` itself keeps the heap, so the order of
//!     equal items and what a comparison does to the list are asyncio's.
//! I2. No borrow of `native` is held while Python runs, and nothing of it is dropped inside one.

use crate::locks::{append_to, new_deque};
use ioxide_cpython::call::import;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::value::{list, list_of};
use ioxide_cpython::{Any, Object, Once, Result, Slot, names};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Which item comes out next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    FirstIn,
    LastIn,
    Smallest,
}

struct Heap {
    push: Object,
    pop: Object,
}

static HEAP: Once<Heap> = Once::new();

pub fn initialize() -> Result<()> {
    let heapq = import(c"heapq")?;
    HEAP.set(Heap { push: heapq.get_attribute_str(c"heappush")?, pop: heapq.get_attribute_str(c"heappop")? });
    Ok(())
}

pub struct Items {
    pub order: Cell<Order>,
    native: RefCell<VecDeque<Object>>,
    python: Slot,
}

impl Items {
    pub fn new(order: Order) -> Items {
        Items { order: Cell::new(order), native: RefCell::new(VecDeque::new()), python: Slot::empty() }
    }

    #[inline]
    pub fn length(&self) -> Result<usize> {
        match self.python.get_object() {
            Some(items) => items.length(),
            None => Ok(self.native.borrow().len()),
        }
    }

    /// `not self._queue`
    #[inline]
    pub fn is_empty(&self) -> Result<bool> {
        match self.python.get_object() {
            Some(items) => Ok(!items.is_true()?),
            None => Ok(self.native.borrow().is_empty()),
        }
    }

    #[inline]
    pub fn put(&self, item: &Any) -> Result<()> {
        if let Some(items) = self.python.get_object() {
            return match self.order.get() {
                Order::FirstIn | Order::LastIn => append_to(&items, item),
                Order::Smallest => HEAP.get().push.call(&[&items, item]).map(drop),
            };
        }
        if self.order.get() != Order::FirstIn {
            self.shown()?;
            return self.put(item);
        }
        self.native.borrow_mut().push_back(item.to_object());
        Ok(())
    }

    /// Fails: IndexError where there is nothing.
    #[inline]
    pub fn take(&self) -> Result<Object> {
        if self.python.is_empty() {
            let first = self.native.borrow_mut().pop_front();
            if let Some(first) = first {
                return Ok(first);
            }
        }
        let items = self.shown()?;
        match self.order.get() {
            Order::FirstIn => items.call_method0(&names().popleft),
            Order::LastIn => items.call_method0(&names().pop),
            Order::Smallest => HEAP.get().pop.call1(&items),
        }
    }

    /// The attribute `_queue`: from now on what Python does to it counts (I1).
    pub fn shown(&self) -> Result<Object> {
        if let Some(items) = self.python.get_object() {
            return Ok(items);
        }
        let items = if self.order.get() == Order::FirstIn { new_deque()? } else { list()? };
        self.python.set(items.clone());
        loop {
            let item = self.native.borrow_mut().pop_front();
            match item {
                Some(item) => append_to(&items, &item)?,
                None => return Ok(items),
            }
        }
    }

    /// `list(self._queue)`
    pub fn listed(&self) -> Result<Object> {
        match self.python.get_object() {
            Some(items) => list_of(items.iterate()?.collect::<Result<Vec<Object>>>()?),
            None => {
                let items: Vec<Object> = self.native.borrow().iter().cloned().collect();
                list_of(items)
            }
        }
    }

    /// What an assignment to `_queue`, or `_init`, puts in their place.
    pub fn assign(&self, items: Option<&Any>) {
        let native = std::mem::take(&mut *self.native.borrow_mut());
        let python = self.python.replace(items.map(Any::to_object));
        drop((native, python));
    }

    pub fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.python);
        if let Ok(native) = self.native.try_borrow() {
            for item in native.iter() {
                visitor.object(item);
            }
        }
    }
}
