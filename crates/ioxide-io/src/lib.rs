//! The crate that moves bytes, and never waits for them.
//!
//! `WouldBlock` is an answer here, not a failure: when to try again is `ioxide-reactor`'s business, and
//! what the bytes mean to a program is `ioxide-asyncio`'s. There is no Python in it.
//!
//! The map: [`socket`] is every system call on a socket; [`address`] is what a socket is called and how
//! literal addresses are read; [`sendfile`] sends files whole; [`write_queue`] is what a transport still has to send; [`read_buffer`]
//! is where a loop receives into; [`pipe`] is every system call on the end of a pipe; [`process`] is the birth
//! and the end of child processes; [`search`] finds bytes in bytes; [`datagrams`] receives several datagrams with one call;
//! [`file`] is every system call on an open file, [`opening`] opens them; [`operation`] are those that take several; [`pool`] runs those that block, and
//! [`uring`] has the kernel make them.
//!
//! Invariants:
//! B1. No call blocks on a descriptor that is in non-blocking mode; transfers of sockets do not block on any. Files have
//!     no such mode: what may wait for a disk says so and belongs on the [`pool`].
//! B2. Interrupted calls are repeated inside, so that `Interrupted` never comes out.
//! B3. A descriptor is closed here only if it is an `OwnedFd`; a [`SocketRef`] borrows.
//! B4. An error is the kernel's, with its errno.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod address;
pub mod datagrams;
pub mod file;
pub mod look_up;
pub mod opening;
pub mod operation;
pub mod pipe;
pub mod pool;
pub mod process;
pub mod read_buffer;
pub mod search;
pub mod sendfile;
pub mod socket;
mod sys;
pub mod uring;
pub mod write_queue;

#[cfg(test)]
mod random;

pub use address::{AddressKind, LiteralAddress, SocketAddress, parse_literal};
pub use datagrams::DatagramBatch;
pub use file::{FileRef, Now, Storage};
pub use look_up::{Answer, Question};
pub use operation::{Need, Operation};
pub use pipe::{FileKind, PipeRef};
pub use pool::Pool;
pub use process::{
    Failure, Order, Started, Starting, can_start, environment, open_process, reap, reap_at_end,
};
pub use read_buffer::ReadBuffer;
pub use socket::{Connection, SocketRef};
pub use write_queue::{Progress, WriteQueue};
