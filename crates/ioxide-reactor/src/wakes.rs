//! The way another thread ends a loop's wait: an eventfd that the loop's poller watches.
//!
//! It carries no news but "look"; what there is to do lies in an [`Inbox`](crate::Inbox).
//!
//! Invariants:
//! W1. While `signalled` is set, a write has been made or is about to be made that no drain has answered.
//! W2. A drain empties the eventfd before it clears `signalled`. The other order could swallow a write
//!     whose flag stays set, and no later wake would be written.
//! W3. Both sides exchange the flag with acquire and release: a wake that writes nothing has left what
//!     came before it to the drain that clears the flag.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A wake-up for one poller, usable from every thread.
pub struct Wakes {
    eventfd: OwnedFd,
    signalled: AtomicBool,
}

impl Wakes {
    /// Opens the eventfd: non-blocking, closed on exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened `descriptor` and nobody else knows it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { eventfd, signalled: AtomicBool::new(false) })
    }

    /// Makes the eventfd readable until the next drain; of several wakes before it only the first writes.
    ///
    /// Fails only when the descriptor was closed behind our back.
    #[inline]
    pub fn wake(&self) -> io::Result<()> {
        // W3
        if self.signalled.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the eight bytes of `one` are readable.
        let written = unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        if written >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // A counter at its limit is readable all the same.
        if error.kind() == io::ErrorKind::WouldBlock {
            return Ok(());
        }
        // W1: nothing was written, so the next wake must try again.
        self.signalled.store(false, Ordering::Release);
        Err(error)
    }

    /// Takes the wake-up back, on the loop's thread. What other threads left before their wakes must be
    /// looked for after this call, not before.
    ///
    /// Fails only when the descriptor was closed behind our back.
    #[inline]
    pub fn drain(&self) -> io::Result<()> {
        let mut counter = [0u8; 8];
        // SAFETY: the eight bytes of `counter` are writable.
        let read =
            unsafe { libc::read(self.eventfd.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
        // W2, W3
        let result = if read < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        self.signalled.swap(false, Ordering::AcqRel);
        match result {
            // Nobody had woken us: the flag was clear, or its writer is yet to write.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}

impl AsRawFd for Wakes {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interest::Interest;
    use crate::sys::{Mode, Poller};
    use std::time::Duration;

    fn watched() -> (Wakes, Poller) {
        let wakes = Wakes::new().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(wakes.as_raw_fd(), 0, Interest::READABLE, Mode::Level).unwrap();
        (wakes, poller)
    }

    #[test]
    fn a_wake_is_seen_until_it_is_drained() {
        let (wakes, mut poller) = watched();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 0);
        for _ in 0..3 {
            wakes.wake().unwrap();
            assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 1);
            wakes.drain().unwrap();
            assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 0);
        }
    }

    #[test]
    fn wakes_before_a_drain_are_written_once() {
        let wakes = Wakes::new().unwrap();
        for _ in 0..5 {
            wakes.wake().unwrap();
        }
        let mut counter = [0u8; 8];
        // SAFETY: the eight bytes of `counter` are writable.
        let read = unsafe { libc::read(wakes.as_raw_fd(), counter.as_mut_ptr().cast(), 8) };
        assert_eq!((read, u64::from_ne_bytes(counter)), (8, 1));
    }

    #[test]
    fn a_drain_without_a_wake_changes_nothing() {
        let (wakes, mut poller) = watched();
        wakes.drain().unwrap();
        wakes.drain().unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 0);
        wakes.wake().unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 1);
    }

    #[test]
    fn a_wake_from_another_thread_ends_an_endless_wait() {
        let (wakes, mut poller) = watched();
        std::thread::scope(|scope| {
            scope.spawn(|| wakes.wake().unwrap());
            assert_eq!(poller.wait(None).unwrap(), 1);
        });
    }
}
