//! The birth of a child that holds nobody up: it shares this process's memory until its program begins, as after vfork,
//! but the thread that made it goes on meanwhile.
//!
//! Invariants:
//! T1. The child uses its `Order`, its stack and the code of `child` in this process's memory. It has left that memory
//!     before the write end of the witness pipe closes: a program that begins gets memory of its own before descriptors are
//!     closed, a process that ends gives its memory back before its descriptors. Nothing of it is freed before.
//! T2. The parent's own write end is closed before anybody else can fork with the GIL held, so that only the child has it.
//! T3. All signals are blocked in the thread while it clones, so that the child starts with all of them blocked.

use super::kernel;
use super::order::Order;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

const STACK_BYTES: usize = 64 * 1024;
/// Stacks that wait for the next child, a thread.
const KEPT_STACKS: usize = 16;
const CLEAR_SIGNAL_HANDLERS: u64 = 0x1_0000_0000;
const ALL_SIGNALS: u64 = u64::MAX;

/// What a child could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Failure {
    /// Something before the program, not the change of directory.
    Preparation = 1,
    Directory = 2,
    /// No program could be executed.
    Program = 3,
}

/// What became of a start.
#[derive(Debug)]
pub enum Started {
    /// The program runs.
    Program,
    /// The child has ended with status 255, and is to be reaped.
    Failed(Failure, io::Error),
}

/// A child whose program may not have begun yet.
pub struct Starting {
    id: libc::pid_t,
    process: Option<OwnedFd>,
    /// The read end of the pipe whose write end the child alone has (T2).
    witness: OwnedFd,
    /// What the child may still use (T1).
    in_use: Option<(Box<Order>, Stack)>,
}

/// Memory for a child's few frames.
struct Stack(*mut libc::c_void);

thread_local! {
    static FREE_STACKS: RefCell<Vec<Stack>> = const { RefCell::new(Vec::new()) };
}

/// Whether the kernel, and whoever confines this process, has what a start needs: `clone3` and `close_range` (Linux 5.9).
pub fn can_start() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // SAFETY: arguments of no size are refused before anything is read; no descriptor has this number.
        unsafe {
            let refused = libc::syscall(libc::SYS_clone3, std::ptr::null::<u64>(), 0);
            let is_refused_for_size =
                refused == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
            kernel::IS_KNOWN
                && is_refused_for_size
                && libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) == 0
        }
    })
}

impl Starting {
    /// Begins a child. Fails: as `clone3` and `pipe2` do.
    pub fn begin(order: Order) -> io::Result<Starting> {
        let (witness, childs_end) = witness_pipe()?;
        let mut order = Box::new(order);
        order.witness = childs_end.as_raw_fd();
        let stack = Stack::take()?;
        let mut pidfd: RawFd = -1;
        let flags = (libc::CLONE_VM | libc::CLONE_PIDFD) as u64 | CLEAR_SIGNAL_HANDLERS;
        let pidfd_place = (&raw mut pidfd) as u64;
        let arguments: [u64; 8] =
            [flags, pidfd_place, 0, 0, libc::SIGCHLD as u64, stack.0 as u64, STACK_BYTES as u64, 0];
        let mask = set_signal_mask(ALL_SIGNALS)?;
        order.signal_mask = mask;
        // SAFETY: T1: the order is boxed and stays; X1 to X3 hold with T3.
        let answer = unsafe { kernel::clone(arguments.as_ptr(), &*order) };
        let unmasked = set_signal_mask(mask);
        drop(childs_end);
        let id = match answer {
            Ok(id) => id as libc::pid_t,
            Err(number) => {
                stack.give_back();
                return Err(io::Error::from_raw_os_error(number));
            }
        };
        // SAFETY: the kernel has just opened it for us.
        let process = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let in_use = Some((order, stack));
        let starting = Starting { id, process: Some(process), witness, in_use };
        unmasked.map(|_| starting)
    }

    /// The child's number, which stays its own until it is reaped.
    pub fn id(&self) -> libc::pid_t {
        self.id
    }

    /// Takes the pidfd, which is closed on exec; `None` the second time.
    pub fn take_process(&mut self) -> Option<OwnedFd> {
        self.process.take()
    }

    /// Readable when `outcome` has an answer.
    pub fn witness(&self) -> BorrowedFd<'_> {
        self.witness.as_fd()
    }

    /// What became of the start; `None` while that is open.
    pub fn outcome(&mut self) -> Option<Started> {
        let mut byte = 0u8;
        // SAFETY: one writable byte; the pipe is in non-blocking mode.
        let read = crate::sys::transfer(|| unsafe {
            libc::read(self.witness.as_raw_fd(), (&raw mut byte).cast(), 1)
        });
        if matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return None;
        }
        let (order, stack) = self.in_use.take()?;
        stack.give_back();
        let step = order.failed_step.load(Ordering::Acquire);
        let failure = [Failure::Preparation, Failure::Directory, Failure::Program]
            .into_iter()
            .find(|failure| *failure as u32 == step);
        Some(match failure {
            None => Started::Program,
            Some(failure) => {
                let number = order.error.load(Ordering::Relaxed);
                Started::Failed(failure, io::Error::from_raw_os_error(number))
            }
        })
    }

    /// Waits, without the loop, until the child has left this memory.
    fn wait(&mut self) {
        while self.in_use.is_some() && self.outcome().is_none() {
            let mut poll = libc::pollfd { fd: self.witness.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd. An interrupted wait is begun again.
            unsafe { libc::poll(&mut poll, 1, -1) };
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.wait();
    }
}

impl Stack {
    fn take() -> io::Result<Stack> {
        if let Some(stack) = FREE_STACKS.with_borrow_mut(Vec::pop) {
            return Ok(stack);
        }
        // SAFETY: fresh anonymous memory, whose place the kernel chooses.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Stack(memory)) }
    }

    /// Keeps the memory for the next child.
    fn give_back(self) {
        FREE_STACKS
            .try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT_STACKS {
                    free.push(self);
                }
            })
            .unwrap_or_default();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `take`; no child uses it any more (T1).
        unsafe { libc::munmap(self.0, STACK_BYTES) };
    }
}

/// A pipe whose ends are closed on exec, the write end above standard error, the read end in non-blocking mode.
fn witness_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors, which the kernel opens for us.
    let (reader, writer) = unsafe {
        crate::sys::check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK))?;
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    if writer.as_raw_fd() > 2 {
        return Ok((reader, writer));
    }
    // SAFETY: no pointers; the new descriptor is ours.
    let moved = unsafe {
        let fd = libc::fcntl(writer.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
        crate::sys::check(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    Ok((reader, moved))
}

/// Sets the thread's mask of signals, those that the C library keeps to itself included, and returns the one before.
fn set_signal_mask(mask: u64) -> io::Result<u64> {
    let mut before = 0u64;
    // SAFETY: two masks of the kernel's eight bytes.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, 8)
    };
    crate::sys::check(result as libc::c_int)?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::io::Read;

    fn strings(values: &[&str]) -> Vec<CString> {
        values.iter().map(|value| CString::new(*value).unwrap()).collect()
    }

    fn outcome(starting: &mut Starting) -> Started {
        loop {
            let mut poll =
                libc::pollfd { fd: starting.witness().as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd.
            assert_eq!(unsafe { libc::poll(&mut poll, 1, 20_000) }, 1);
            if let Some(outcome) = starting.outcome() {
                return outcome;
            }
        }
    }

    fn end(starting: &mut Starting) -> i32 {
        let process = starting.take_process().unwrap();
        let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 20_000) }, 1);
        super::super::reap(process.as_fd(), starting.id()).unwrap().unwrap()
    }

    #[test]
    fn a_program_begins_and_writes() {
        let (mut reader, writer) = io::pipe().unwrap();
        let order = Order::new(
            strings(&["/no/such/program", "/bin/sh"]),
            strings(&["sh", "-c", "echo $WORD; pwd; exit 3"]),
            strings(&["WORD=word"]),
        );
        let order = order
            .directory(Some(CString::new("/").unwrap()))
            .streams([-1, writer.as_raw_fd(), -1])
            .descriptors(Vec::new(), true);
        let mut starting = Starting::begin(order).unwrap();
        drop(writer);
        assert!(matches!(outcome(&mut starting), Started::Program));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "word\n/\n");
        assert_eq!(end(&mut starting), 3);
    }

    #[test]
    fn what_fails_is_told() {
        let no_program = Order::new(strings(&["/no/such/program"]), strings(&["none"]), Vec::new());
        let no_directory = Order::new(strings(&["/bin/true"]), strings(&["true"]), Vec::new())
            .directory(Some(CString::new("/no/such/directory").unwrap()));
        let no_descriptor = Order::new(strings(&["/bin/true"]), strings(&["true"]), Vec::new())
            .descriptors(vec![1_000_000], false);
        let expected = [
            (no_program, Failure::Program, libc::ENOENT),
            (no_directory, Failure::Directory, libc::ENOENT),
            (no_descriptor, Failure::Preparation, libc::EBADF),
        ];
        for (order, failure, number) in expected {
            let mut starting = Starting::begin(order).unwrap();
            let Started::Failed(found, error) = outcome(&mut starting) else { panic!("the program began") };
            assert_eq!((found, error.raw_os_error()), (failure, Some(number)));
            assert_eq!(end(&mut starting), 255);
        }
    }

    #[test]
    fn many_at_once_and_dropped_before_they_began() {
        let begin = |_| {
            let order = Order::new(strings(&["/bin/true"]), strings(&["true"]), Vec::new());
            Starting::begin(order.descriptors(vec![], true)).unwrap()
        };
        let mut starting: Vec<Starting> = (0..50).map(begin).collect();
        for child in &mut starting {
            assert_eq!(end(child), 0);
        }
        let mut dropped = begin(0);
        let process = dropped.take_process().unwrap();
        let id = dropped.id();
        drop(dropped);
        let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 20_000) }, 1);
        assert_eq!(super::super::reap(process.as_fd(), id).unwrap(), Some(0));
    }
}
