//! What other threads want a loop to do, in the order they asked for it.
//!
//! The loop's side costs one load when there is nothing. Ending the loop's wait is the business of
//! [`Wakes`](crate::Wakes): push first, then wake.
//!
//! Invariants:
//! I1. `pending` is written under the lock and says whether `arrived` has items.
//! I2. No item is handed out, and none is dropped, under the lock: that may run code that pushes.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An emptied buffer above this many items goes back to the allocator.
const RETAINED_ITEMS: usize = 1024;

struct Buffers<T> {
    arrived: VecDeque<T>,
    /// The emptied buffer of the last drain, so that a steady trickle allocates nothing.
    spare: VecDeque<T>,
}

/// A queue that any thread fills and one thread empties.
pub struct Inbox<T> {
    pending: AtomicBool,
    buffers: Mutex<Buffers<T>>,
}

impl<T: Send> Inbox<T> {
    /// An empty inbox; it allocates with the first item.
    pub const fn new() -> Self {
        Self {
            pending: AtomicBool::new(false),
            buffers: Mutex::new(Buffers { arrived: VecDeque::new(), spare: VecDeque::new() }),
        }
    }

    /// Appends an item, from any thread.
    #[inline]
    pub fn push(&self, item: T) {
        let mut buffers = self.lock();
        buffers.arrived.push_back(item);
        // I1
        self.pending.store(true, Ordering::Release);
    }

    /// Whether there is something to drain, in one load.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Hands over, in order, the items that were there when the call began. `receive` may push: such
    /// items wait for the next drain.
    #[inline]
    pub fn drain_into(&self, receive: impl FnMut(T)) {
        if self.is_pending() {
            self.drain_pending(receive);
        }
    }

    fn drain_pending(&self, receive: impl FnMut(T)) {
        let mut batch = {
            let mut buffers = self.lock();
            // I1
            self.pending.store(false, Ordering::Relaxed);
            let spare = mem::take(&mut buffers.spare);
            mem::replace(&mut buffers.arrived, spare)
        };
        // I2
        batch.drain(..).for_each(receive);
        if batch.capacity() <= RETAINED_ITEMS {
            self.lock().spare = batch;
        }
    }

    /// A panic under the lock can only come from a failed allocation, before anything has changed.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Buffers<T>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interest, Mode, Poller, Wakes};
    use std::os::fd::AsRawFd;

    fn drained<T: Send>(inbox: &Inbox<T>) -> Vec<T> {
        let mut items = Vec::new();
        inbox.drain_into(|item| items.push(item));
        items
    }

    #[test]
    fn items_come_out_in_order_and_once() {
        let inbox = Inbox::new();
        assert!(!inbox.is_pending());
        for round in 0..3 {
            (0..10).for_each(|item| inbox.push((round, item)));
            assert!(inbox.is_pending());
            assert_eq!(drained(&inbox), (0..10).map(|item| (round, item)).collect::<Vec<_>>());
            assert!(!inbox.is_pending());
            assert!(drained(&inbox).is_empty());
        }
    }

    #[test]
    fn a_push_during_a_drain_waits_for_the_next() {
        let inbox = Inbox::new();
        inbox.push(1);
        inbox.drain_into(|item| inbox.push(item + 1));
        assert!(inbox.is_pending());
        assert_eq!(drained(&inbox), [2]);
    }

    #[test]
    fn a_drain_during_a_drain_sees_only_new_items() {
        let inbox = Inbox::new();
        inbox.push(1);
        inbox.push(2);
        let mut seen = Vec::new();
        inbox.drain_into(|item| {
            inbox.push(item * 10);
            seen.push(item);
            inbox.drain_into(|inner| seen.push(inner));
        });
        assert_eq!(seen, [1, 10, 2, 20]);
    }

    #[test]
    fn steady_use_keeps_its_buffers_and_a_burst_returns_them() {
        let inbox = Inbox::new();
        for _ in 0..2 {
            inbox.push(0);
            drained(&inbox);
        }
        assert!(inbox.lock().spare.capacity() > 0);
        (0..100 * RETAINED_ITEMS).for_each(|item| inbox.push(item));
        drained(&inbox);
        let buffers = inbox.lock();
        assert!(buffers.arrived.capacity() + buffers.spare.capacity() <= 2 * RETAINED_ITEMS);
    }

    #[test]
    fn an_inbox_survives_a_thread_that_died_holding_its_lock() {
        let inbox = Inbox::new();
        inbox.push(1);
        std::thread::scope(|scope| {
            let died = scope.spawn(|| {
                let _guard = inbox.lock();
                panic!("a thread dies with the lock held, as this test wants it to");
            });
            assert!(died.join().is_err());
        });
        assert!(inbox.buffers.is_poisoned());
        inbox.push(2);
        assert_eq!(drained(&inbox), [1, 2]);
    }

    #[test]
    fn no_item_of_many_threads_is_lost_or_reordered_while_the_loop_sleeps() {
        const THREADS: usize = 4;
        const ITEMS: usize = 20_000;
        let inbox = Inbox::new();
        let wakes = Wakes::new().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(wakes.as_raw_fd(), 0, Interest::READABLE, Mode::Level).unwrap();
        let mut received: Vec<Vec<usize>> = vec![Vec::new(); THREADS];
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (inbox, wakes) = (&inbox, &wakes);
                scope.spawn(move || {
                    for item in 0..ITEMS {
                        inbox.push((thread, item));
                        wakes.wake().unwrap();
                    }
                });
            }
            let mut total = 0;
            while total < THREADS * ITEMS {
                // An endless wait: a lost wake-up would hang here.
                poller.wait(None).unwrap();
                wakes.drain().unwrap();
                inbox.drain_into(|(thread, item)| {
                    received[thread].push(item);
                    total += 1;
                });
            }
        });
        for items in received {
            assert_eq!(items, (0..ITEMS).collect::<Vec<_>>());
        }
    }
}
