//! What is ready to run, first in, first out.
//!
//! A turn of the loop runs exactly what is ready when it starts: the caller takes `len()`, pops that
//! many and then calls `end_turn()`. What is pushed meanwhile waits for the next turn.
//!
//! Invariants:
//! Q1. Items leave in the order they came.
//! Q2. Memory follows use: after a burst, `end_turn` gives back what many turns in a row did not need.

use std::collections::VecDeque;

/// Capacity that is never given back: one allocation serves an ordinary program for its lifetime.
const RETAINED_ITEMS: usize = 256;
/// So many turns in a row must leave most of the queue unused before it shrinks, lest a program that
/// alternates between many and few callbacks pay for an allocation each time.
const QUIET_TURNS: u32 = 64;

/// The queue of one loop, on the loop's thread.
pub struct ReadyQueue<T> {
    items: VecDeque<T>,
    quiet_turns: u32,
}

impl<T> ReadyQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self { items: VecDeque::with_capacity(RETAINED_ITEMS), quiet_turns: 0 }
    }

    /// Appends an item.
    #[inline]
    pub fn push_back(&mut self, item: T) {
        self.items.push_back(item);
    }

    /// Takes the oldest item.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The item that `index` others are in front of.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.items.get(index)
    }

    /// How many items wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no item waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Takes all items out and their memory with them. A caller whose items run code when they are
    /// dropped drops the result after its borrow of the queue has ended.
    pub fn clear(&mut self) -> VecDeque<T> {
        self.quiet_turns = 0;
        std::mem::take(&mut self.items)
    }

    /// Says that a turn which ran `ran` items is over, so that the queue can judge its size (Q2).
    #[inline]
    pub fn end_turn(&mut self, ran: usize) {
        if self.items.capacity() > RETAINED_ITEMS {
            self.judge_size(ran);
        }
    }

    fn judge_size(&mut self, ran: usize) {
        let needed = ran.max(self.items.len());
        if needed > self.items.capacity() / 8 {
            self.quiet_turns = 0;
            return;
        }
        self.quiet_turns += 1;
        if self.quiet_turns >= QUIET_TURNS {
            self.quiet_turns = 0;
            self.items.shrink_to(RETAINED_ITEMS.max(needed * 2));
        }
    }
}

impl<T> Default for ReadyQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// One turn as the loop makes it; returns what ran.
    fn turn(queue: &mut ReadyQueue<u64>, mut run: impl FnMut(&mut ReadyQueue<u64>, u64)) -> Vec<u64> {
        let mut ran = Vec::new();
        for _ in 0..queue.len() {
            let Some(item) = queue.pop() else { break };
            ran.push(item);
            run(queue, item);
        }
        queue.end_turn(ran.len());
        ran
    }

    #[test]
    fn a_turn_runs_what_was_there_at_its_start() {
        let mut queue = ReadyQueue::new();
        queue.push_back(1);
        queue.push_back(2);
        assert_eq!(turn(&mut queue, |queue, item| queue.push_back(item + 10)), [1, 2]);
        assert_eq!(turn(&mut queue, |_, _| {}), [11, 12]);
        assert!(queue.is_empty());
        assert!(turn(&mut queue, |_, _| {}).is_empty());
    }

    #[test]
    fn clearing_within_a_turn_ends_it() {
        let mut queue = ReadyQueue::new();
        (0..5).for_each(|item| queue.push_back(item));
        let mut rest = VecDeque::new();
        assert_eq!(turn(&mut queue, |queue, _| rest = queue.clear()), [0]);
        assert_eq!(rest, [1, 2, 3, 4]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn order_holds_over_random_turns() {
        let mut random = Random::new(4);
        let mut queue = ReadyQueue::new();
        let (mut pushed, mut expected) = (0, 0);
        for _ in 0..5_000 {
            for _ in 0..random.below(40) {
                queue.push_back(pushed);
                pushed += 1;
            }
            assert!(queue.iter().copied().eq(expected..pushed));
            for _ in 0..random.below(40) {
                match queue.pop() {
                    Some(item) => {
                        assert_eq!(item, expected);
                        expected += 1;
                    }
                    None => assert_eq!(expected, pushed),
                }
            }
            assert_eq!(queue.len() as u64, pushed - expected);
        }
    }

    #[test]
    fn memory_returns_after_a_burst_but_not_between_two() {
        let mut queue = ReadyQueue::new();
        let burst = 100 * RETAINED_ITEMS;
        for _ in 0..3 {
            (0..burst as u64).for_each(|item| queue.push_back(item));
            assert_eq!(turn(&mut queue, |_, _| {}).len(), burst);
            (1..QUIET_TURNS).for_each(|_| queue.end_turn(1));
            assert!(queue.items.capacity() >= burst);
        }
        (0..=QUIET_TURNS).for_each(|_| queue.end_turn(1));
        assert_eq!(queue.items.capacity(), RETAINED_ITEMS);
    }
}
