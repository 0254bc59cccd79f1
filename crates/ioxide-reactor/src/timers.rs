//! Deadlines, earliest first.
//!
//! A heap of the standard library, turned upside down. It knows nothing of cancellation: the owner
//! marks its items, skips marked ones as they come due, and calls `retain` when there are too many.
//!
//! Invariants:
//! T1. Items leave in the order of their deadlines, and in the order of their pushes when those are equal.
//! T2. No item leaves by `pop_due` before its deadline.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::clock::MonotonicTime;

/// An emptied heap above this many items gives its memory back.
const RETAINED_ITEMS: usize = 1024;

struct Entry<T> {
    deadline: MonotonicTime,
    sequence: u64,
    item: T,
}

impl<T> Entry<T> {
    #[inline]
    fn rank(&self) -> (MonotonicTime, u64) {
        (self.deadline, self.sequence)
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: the heap keeps the greatest on top, and that must be the earliest (T1).
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank().cmp(&self.rank())
    }
}

impl<T> PartialOrd for Entry<T> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<T> Eq for Entry<T> {}

/// The timers of one loop, on the loop's thread.
pub struct Timers<T> {
    heap: BinaryHeap<Entry<T>>,
    next_sequence: u64,
}

impl<T> Timers<T> {
    /// Without timers; allocates with the first one.
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new(), next_sequence: 0 }
    }

    /// Adds an item that comes due at `deadline`.
    #[inline]
    pub fn push(&mut self, deadline: MonotonicTime, item: T) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.heap.push(Entry { deadline, sequence, item });
    }

    /// The earliest deadline.
    #[inline]
    pub fn next_deadline(&self) -> Option<MonotonicTime> {
        self.heap.peek().map(|entry| entry.deadline)
    }

    /// The item with the earliest deadline, to see whether it is still wanted.
    #[inline]
    pub fn peek(&self) -> Option<&T> {
        self.heap.peek().map(|entry| &entry.item)
    }

    /// Takes the earliest item if its deadline is at or before `now`.
    #[inline]
    pub fn pop_due(&mut self, now: MonotonicTime) -> Option<T> {
        // T2
        if self.next_deadline()? > now {
            return None;
        }
        self.pop()
    }

    /// Takes the earliest item, due or not.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let entry = self.heap.pop()?;
        if self.heap.is_empty() && self.heap.capacity() > RETAINED_ITEMS {
            self.heap.shrink_to(RETAINED_ITEMS);
        }
        Some(entry.item)
    }

    /// How many timers there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is no timer.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The items, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|entry| &entry.item)
    }

    /// Drops the items for which `keep` says no, in linear time; the order of the others stays (T1).
    /// `keep` may take out of an item what must not be dropped here.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain_mut(|entry| keep(&mut entry.item));
        if entries.len() < entries.capacity() / 4 {
            entries.shrink_to(RETAINED_ITEMS.max(entries.len() * 2));
        }
        self.heap = BinaryHeap::from(entries);
    }

    /// Takes all items out, in no particular order, and their memory with them. They are dropped with
    /// the iterator, which does not borrow the timers.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = T> + use<T> {
        std::mem::take(&mut self.heap).into_vec().into_iter().map(|entry| entry.item)
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const fn at(nanoseconds: u64) -> MonotonicTime {
        MonotonicTime::from_nanoseconds(nanoseconds)
    }

    #[test]
    fn nothing_leaves_before_its_deadline() {
        let mut timers = Timers::new();
        assert_eq!(timers.next_deadline(), None);
        assert_eq!(timers.pop_due(MonotonicTime::MAX), None);
        timers.push(at(10), "ten");
        timers.push(at(5), "five");
        assert_eq!((timers.next_deadline(), timers.peek()), (Some(at(5)), Some(&"five")));
        assert_eq!(timers.pop_due(at(4)), None);
        assert_eq!(timers.pop_due(at(5)), Some("five"));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop(), Some("ten"));
        assert!(timers.is_empty());
    }

    #[test]
    fn equal_deadlines_leave_in_the_order_of_their_pushes() {
        let mut timers = Timers::new();
        (0..1_000).for_each(|item| timers.push(at(1), item));
        let left: Vec<i32> = std::iter::from_fn(|| timers.pop_due(at(1))).collect();
        assert_eq!(left, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn random_use_agrees_with_a_sorted_list() {
        let mut random = Random::new(5);
        let mut timers = Timers::new();
        let mut model: Vec<(MonotonicTime, u64)> = Vec::new();
        let mut now = 0;
        for item in 0..30_000 {
            match random.below(100) {
                0 => {
                    let divisor = 2 + random.below(5);
                    timers.retain(|item| *item % divisor != 0);
                    model.retain(|(_, item)| item % divisor != 0);
                }
                1..60 => {
                    // Few distinct deadlines, so that many are equal.
                    let deadline = at(now + random.below(16));
                    timers.push(deadline, item);
                    model.push((deadline, item));
                    // The sort is stable, as items only grow.
                    model.sort_unstable();
                }
                _ => {
                    now += random.below(3);
                    while let Some(item) = timers.pop_due(at(now)) {
                        assert_eq!(model.remove(0).1, item);
                    }
                    assert!(model.first().is_none_or(|(deadline, _)| *deadline > at(now)));
                }
            }
            assert_eq!(timers.len(), model.len());
            assert_eq!(timers.next_deadline(), model.first().map(|(deadline, _)| *deadline));
        }
        let mut rest: Vec<u64> = timers.iter().copied().collect();
        rest.sort_unstable();
        let mut drained: Vec<u64> = timers.drain().collect();
        drained.sort_unstable();
        model.sort_unstable_by_key(|(_, item)| *item);
        assert_eq!(rest, drained);
        assert_eq!(drained, model.iter().map(|(_, item)| *item).collect::<Vec<_>>());
        assert!(timers.is_empty());
    }

    #[test]
    fn items_are_moved_and_dropped_once() {
        use std::rc::Rc;
        let witness = Rc::new(());
        let mut timers = Timers::new();
        (0..100).for_each(|index| timers.push(at(index % 7), Some(Rc::clone(&witness))));
        let mut taken = Vec::new();
        let mut index = 0;
        timers.retain(|item| {
            index += 1;
            if index % 2 == 0 {
                taken.push(item.take());
                return false;
            }
            true
        });
        assert_eq!((timers.len(), taken.len(), Rc::strong_count(&witness)), (50, 50, 101));
        taken.clear();
        drop(timers.pop());
        assert_eq!(Rc::strong_count(&witness), 50);
        drop(timers.drain());
        assert_eq!(Rc::strong_count(&witness), 1);
    }

    #[test]
    fn memory_returns_after_a_burst() {
        let burst = 100 * RETAINED_ITEMS as u64;
        let mut timers = Timers::new();
        (0..burst).for_each(|item| timers.push(at(item), item));
        while timers.pop().is_some() {}
        assert!(timers.heap.capacity() <= RETAINED_ITEMS);
        (0..burst).for_each(|item| timers.push(at(item), item));
        timers.retain(|item| *item == 1);
        assert!(timers.heap.capacity() <= RETAINED_ITEMS);
        assert_eq!(timers.pop(), Some(1));
    }
}
