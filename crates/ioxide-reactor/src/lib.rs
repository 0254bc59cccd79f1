//! The crate that waits: everything an event loop needs to know *when* to run something.
//!
//! It holds a clock, a timer heap, a queue of what is ready, the kernel's readiness poller, and the
//! two ways another thread can reach a loop: an inbox for what to do and a wake-up so that it looks.
//! It moves no bytes (`ioxide-io` does), knows no Python (`ioxide-asyncio` does) and decides no order
//! of events within a turn: it offers the parts, and the event loop is the one that turns.
//!
//! Invariants:
//! R1. Only [`Wakes`] and [`Inbox`] may be used from a thread other than the loop's.
//! R2. Nothing here calls its owner while it holds a lock.
//! R3. A deadline is never reported as due before its instant.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod clock;
pub mod inbox;
pub mod interest;
pub mod ready;
pub mod sys;
pub mod timers;
pub mod wakes;

#[cfg(test)]
mod random;

pub use clock::MonotonicTime;
pub use inbox::Inbox;
pub use interest::{Interest, Readiness};
pub use ready::ReadyQueue;
pub use sys::{Event, Mode, Poller, Registrar};
pub use timers::Timers;
pub use wakes::Wakes;
