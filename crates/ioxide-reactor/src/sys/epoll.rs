//! Waiting by epoll.
//!
//! A [`Poller`] is a struct of its own, sharing nothing, so that a caller can wait on it while it has
//! let go of every other lock. Which descriptor has which key, and what is to be done about an event,
//! is the caller's business.
//!
//! Invariants:
//! P1. The first `filled` entries of `buffer` are what the kernel wrote at the last wait.
//! P2. A wait allocates nothing.
//! P3. A wait that sees no event lasts at least its timeout: timeouts are rounded up, never down.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::interest::{Interest, Readiness};

/// How many events one wait can return; the rest stay in the kernel for the next one.
const BUFFER_LENGTH: usize = 256;

/// How long a registration lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reports at each wait for as long as the state holds.
    Level,
    /// Reports once and then nothing, errors included, until it is modified.
    OneShot,
}

/// One report: the key given at registration and what happened to its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: u64,
    pub readiness: Readiness,
}

/// Which system call waits with a timeout that is neither zero nor endless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    /// `epoll_pwait2`, Linux 5.11 and later.
    Nanoseconds,
    /// `epoll_wait`, where the kernel or a sandbox refused the other.
    Milliseconds,
}

/// `struct __kernel_timespec`: 64 bits per field on every architecture.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Changes what an epoll instance watches, also while somebody waits on its [`Poller`], from any thread.
#[derive(Clone)]
pub struct Registrar {
    epoll: Arc<OwnedFd>,
}

/// An epoll instance and the buffer of the events it last reported.
pub struct Poller {
    registrar: Registrar,
    buffer: Box<[libc::epoll_event]>,
    filled: usize,
    precision: Precision,
}

impl Registrar {
    /// Starts to watch `fd`; its events will carry `key`.
    ///
    /// Fails with `EEXIST` when `fd` is already watched, `EPERM` when it is something that cannot be
    /// waited for (a regular file), `EBADF` when it is not open, `ENOSPC` at the user's limit.
    #[inline]
    pub fn add(&self, fd: RawFd, key: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, key, interest, mode)
    }

    /// Replaces key, interest and mode of a watched `fd`; a spent one-shot registration is armed again.
    ///
    /// Fails with `ENOENT` when `fd` is not watched, `EBADF` when it is not open.
    #[inline]
    pub fn modify(&self, fd: RawFd, key: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, key, interest, mode)
    }

    /// Stops watching `fd`. Events already reported stay in the buffer: the key's owner ignores them.
    ///
    /// Fails with `ENOENT` when `fd` is not watched, `EBADF` when it is not open (closing a descriptor
    /// for good has removed it already).
    #[inline]
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: for a removal the kernel reads no event, so its pointer may be null.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) })
    }

    #[inline]
    fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        key: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let mode_bits = match mode {
            Mode::Level => 0,
            Mode::OneShot => libc::EPOLLONESHOT as u32,
        };
        let mut event = libc::epoll_event { events: interest.bits() | mode_bits, u64: key };
        // SAFETY: `event` is a valid epoll_event for the length of the call.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) })
    }
}

impl Poller {
    /// Opens an epoll instance, closed on exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened `descriptor` and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let buffer = vec![libc::epoll_event { events: 0, u64: 0 }; BUFFER_LENGTH].into_boxed_slice();
        let registrar = Registrar { epoll: Arc::new(epoll) };
        Ok(Self { registrar, buffer, filled: 0, precision: Precision::Nanoseconds })
    }

    /// The handle for registrations.
    pub fn registrar(&self) -> &Registrar {
        &self.registrar
    }

    /// See [`Registrar::add`].
    #[inline]
    pub fn add(&self, fd: RawFd, key: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.registrar.add(fd, key, interest, mode)
    }

    /// See [`Registrar::modify`].
    #[inline]
    pub fn modify(&self, fd: RawFd, key: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.registrar.modify(fd, key, interest, mode)
    }

    /// See [`Registrar::remove`].
    #[inline]
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.registrar.remove(fd)
    }

    /// Waits for events, at most `timeout` (without end for `None`), and returns how many there are.
    ///
    /// Fails with `Interrupted` when a signal handler ran; whether to go on is the caller's decision.
    /// After a failure there are no events.
    #[inline]
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.filled = 0;
        self.filled = match timeout {
            None => self.wait_milliseconds(-1)?,
            Some(Duration::ZERO) => self.wait_milliseconds(0)?,
            Some(timeout) if self.precision == Precision::Nanoseconds => self.wait_precisely(timeout)?,
            Some(timeout) => self.wait_milliseconds(milliseconds_not_before(timeout))?,
        };
        Ok(self.filled)
    }

    #[inline]
    fn wait_milliseconds(&mut self, milliseconds: libc::c_int) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `BUFFER_LENGTH` events into a buffer of that length.
        let count = unsafe {
            libc::epoll_wait(
                self.registrar.epoll.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                BUFFER_LENGTH as libc::c_int,
                milliseconds,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Called by number: a C library older than the kernel has no name for this system call.
    fn wait_precisely(&mut self, timeout: Duration) -> io::Result<usize> {
        let timespec = KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(timeout.subsec_nanos()),
        };
        // SAFETY: the kernel writes at most `BUFFER_LENGTH` events into a buffer of that length and
        // reads a timespec of its own layout; without a signal mask, the mask's size is not looked at.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                libc::c_long::from(self.registrar.epoll.as_raw_fd()),
                self.buffer.as_mut_ptr(),
                BUFFER_LENGTH as libc::c_long,
                &timespec as *const KernelTimespec,
                ptr::null::<libc::sigset_t>(),
                0 as libc::size_t,
            )
        };
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        // A kernel without the call says ENOSYS; the sandboxes of some container engines say EPERM.
        if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            return Err(error);
        }
        self.precision = Precision::Milliseconds;
        self.wait_milliseconds(milliseconds_not_before(timeout))
    }

    /// The events of the last wait.
    #[inline]
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event> + '_ {
        // P1
        self.buffer[..self.filled].iter().map(convert)
    }

    /// The event at `index` of the last wait, for a caller that must not hold a borrow while it acts.
    #[inline]
    pub fn event(&self, index: usize) -> Option<Event> {
        // P1
        self.buffer[..self.filled].get(index).map(convert)
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registrar.epoll.as_fd()
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.registrar.epoll.as_raw_fd()
    }
}

#[inline]
fn convert(event: &libc::epoll_event) -> Event {
    Event { key: event.u64, readiness: Readiness::from_bits(event.events) }
}

#[inline]
fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// P3: rounds up. Capped at the call's limit of 24 days, after which a wait ends without events.
fn milliseconds_not_before(timeout: Duration) -> libc::c_int {
    libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicTime;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn poll(poller: &mut Poller) -> Vec<Event> {
        let count = poller.wait(Some(Duration::ZERO)).unwrap();
        let events: Vec<Event> = poller.events().collect();
        assert_eq!(events.len(), count);
        for (index, event) in events.iter().enumerate() {
            assert_eq!(poller.event(index), Some(*event));
        }
        assert_eq!(poller.event(count), None);
        events
    }

    #[test]
    fn level_registration_reports_until_the_data_is_gone() {
        let mut poller = Poller::new().unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        poller.add(near.as_raw_fd(), 7, Interest::READABLE, Mode::Level).unwrap();
        assert!(poll(&mut poller).is_empty());
        far.write_all(b"x").unwrap();
        for _ in 0..2 {
            let events = poll(&mut poller);
            assert_eq!(events.len(), 1);
            assert_eq!(events[0].key, 7);
            assert!(events[0].readiness.is_readable() && !events[0].readiness.is_writable());
        }
        near.read_exact(&mut [0]).unwrap();
        assert!(poll(&mut poller).is_empty());
    }

    #[test]
    fn one_shot_registration_reports_once_until_modified() {
        let mut poller = Poller::new().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        poller.add(near.as_raw_fd(), 1, Interest::WRITABLE, Mode::OneShot).unwrap();
        assert_eq!(poll(&mut poller).len(), 1);
        assert!(poll(&mut poller).is_empty());
        poller.modify(near.as_raw_fd(), u64::MAX, Interest::BOTH, Mode::OneShot).unwrap();
        let events = poll(&mut poller);
        assert_eq!(events[0].key, u64::MAX);
        assert!(events[0].readiness.is_writable() && !events[0].readiness.is_readable());
    }

    #[test]
    fn hangup_is_reported_to_both_directions() {
        let mut poller = Poller::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        poller.add(reader.as_raw_fd(), 1, Interest::READABLE, Mode::Level).unwrap();
        drop(writer);
        let readiness = poll(&mut poller)[0].readiness;
        assert!(readiness.is_readable() && readiness.is_writable() && readiness.is_hangup());

        let (reader, writer) = io::pipe().unwrap();
        poller.add(writer.as_raw_fd(), 2, Interest::WRITABLE, Mode::Level).unwrap();
        drop(reader);
        let broken = poll(&mut poller).into_iter().find(|event| event.key == 2).unwrap();
        assert!(broken.readiness.is_error());
    }

    #[test]
    fn mistakes_are_the_kernels_errors() {
        let poller = Poller::new().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let fd = near.as_raw_fd();
        let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error();
        assert_eq!(errno(poller.modify(fd, 0, Interest::BOTH, Mode::Level)), Some(libc::ENOENT));
        assert_eq!(errno(poller.remove(fd)), Some(libc::ENOENT));
        poller.add(fd, 0, Interest::BOTH, Mode::Level).unwrap();
        assert_eq!(errno(poller.add(fd, 0, Interest::BOTH, Mode::Level)), Some(libc::EEXIST));
        poller.remove(fd).unwrap();
        assert_eq!(errno(poller.add(-1, 0, Interest::BOTH, Mode::Level)), Some(libc::EBADF));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(errno(poller.add(file.as_raw_fd(), 0, Interest::BOTH, Mode::Level)), Some(libc::EPERM));
    }

    #[test]
    fn more_events_than_the_buffer_holds_come_in_turns() {
        let mut poller = Poller::new().unwrap();
        let pairs: Vec<_> = (0..BUFFER_LENGTH + 10).map(|_| UnixStream::pair().unwrap()).collect();
        for (key, (near, _)) in pairs.iter().enumerate() {
            poller.add(near.as_raw_fd(), key as u64, Interest::WRITABLE, Mode::OneShot).unwrap();
        }
        let mut keys: Vec<u64> = Vec::new();
        loop {
            let events = poll(&mut poller);
            if events.is_empty() {
                break;
            }
            keys.extend(events.iter().map(|event| event.key));
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..pairs.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn no_wait_ends_early_with_either_call() {
        let mut poller = Poller::new().unwrap();
        for precision in [Precision::Nanoseconds, Precision::Milliseconds] {
            poller.precision = precision;
            for nanoseconds in [1, 999, 100_000, 1_000_001, 3_000_000] {
                let timeout = Duration::from_nanos(nanoseconds);
                let started = MonotonicTime::now();
                assert_eq!(poller.wait(Some(timeout)).unwrap(), 0);
                assert!(MonotonicTime::now().saturating_since(started) >= timeout);
            }
            assert_eq!(poller.precision, precision);
        }
    }

    #[test]
    fn timeouts_round_up_and_saturate() {
        let milliseconds = |nanoseconds| milliseconds_not_before(Duration::from_nanos(nanoseconds));
        assert_eq!(milliseconds(1), 1);
        assert_eq!(milliseconds(1_000_000), 1);
        assert_eq!(milliseconds(1_000_001), 2);
        assert_eq!(milliseconds_not_before(Duration::MAX), libc::c_int::MAX);
    }

    #[test]
    fn the_longest_timeout_still_waits_for_events() {
        let mut poller = Poller::new().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        poller.add(near.as_raw_fd(), 3, Interest::WRITABLE, Mode::Level).unwrap();
        assert_eq!(poller.wait(Some(Duration::MAX)).unwrap(), 1);
        assert_eq!(poller.wait(None).unwrap(), 1);
    }

    #[test]
    fn a_signal_interrupts_the_wait() {
        static HANDLED: AtomicBool = AtomicBool::new(false);
        extern "C" fn handler(_signal: libc::c_int) {
            HANDLED.store(true, Ordering::SeqCst);
        }
        // SAFETY: an all-zero sigaction is a valid one, without flags: interrupted calls do not restart.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        // SAFETY: `action` is valid and its handler only stores into an atomic.
        assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
        // SAFETY: the call takes no pointer; this thread outlives the one that uses the result.
        let waiter = unsafe { libc::pthread_self() } as usize;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The first signals may come before the wait has begun: they repeat until it has ended.
                while !done.load(Ordering::SeqCst) {
                    // SAFETY: the scope keeps the waiting thread alive.
                    unsafe { libc::pthread_kill(waiter as libc::pthread_t, libc::SIGUSR1) };
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let error = Poller::new().unwrap().wait(Some(Duration::from_secs(60))).unwrap_err();
            done.store(true, Ordering::SeqCst);
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        });
        assert!(HANDLED.load(Ordering::SeqCst));
    }
}
