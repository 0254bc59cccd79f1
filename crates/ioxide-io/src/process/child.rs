//! What runs in the child before its program: in the parent's memory, beside the parent's threads.
//!
//! Invariants:
//! X1. Nothing but system calls, made here and not by the C library: the child has the parent thread's thread-local
//!     variables, errno among them, while that thread goes on. So nothing here allocates, locks, panics or calls libc.
//! X2. Of all memory only the `Order` is read and its two outcome fields are written; the parent keeps it until the
//!     pipe's end says that the child has left this memory.
//! X3. No signal handler runs here: handlers were reset at birth (CLONE_CLEAR_SIGHAND), and signals are blocked until all
//!     others are done with.

use super::kernel::call;
use super::order::Order;
use super::start::Failure;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

/// The kernel's sigaction, all zero: the default action.
const DEFAULT_ACTION: [u64; 4] = [0; 4];
const BYTES_OF_MASK: usize = 8;

/// The child's life before its program. SAFETY of all system calls here: pointers point into the `Order` or to constants.
pub(super) extern "C" fn run(order: *const Order) -> ! {
    // SAFETY: X2.
    let order = unsafe { &*order };
    let (step, error) = prepare(order).map_or_else(|failed| failed, |()| (Failure::Program, execute(order)));
    order.error.store(error, Ordering::Relaxed);
    order.failed_step.store(step as u32, Ordering::Release);
    loop {
        // SAFETY: no pointers.
        let _ = unsafe { call(libc::SYS_exit_group, [255, 0, 0, 0]) };
    }
}

/// Everything before the program. Fails: with what could not be done, and the errno.
#[inline(always)]
fn prepare(order: &Order) -> Result<(), (Failure, i32)> {
    let other = |error| (Failure::Preparation, error);
    for &fd in &order.passed {
        inherit(fd).map_err(other)?;
    }
    redirect(order.streams).map_err(other)?;
    if let Some(directory) = &order.directory {
        // SAFETY: X1.
        unsafe { call(libc::SYS_chdir, [directory.as_ptr() as usize, 0, 0, 0]) }
            .map_err(|error| (Failure::Directory, error))?;
    }
    if order.file_mode_mask >= 0 {
        // SAFETY: X1.
        unsafe { call(libc::SYS_umask, [order.file_mode_mask as usize, 0, 0, 0]) }.map_err(other)?;
    }
    if order.restore_signals {
        for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
            let action = [signal as usize, DEFAULT_ACTION.as_ptr() as usize, 0, BYTES_OF_MASK];
            // SAFETY: X1.
            unsafe { call(libc::SYS_rt_sigaction, action) }.map_err(other)?;
        }
    }
    let mask = [libc::SIG_SETMASK as usize, (&raw const order.signal_mask) as usize, 0, BYTES_OF_MASK];
    // SAFETY: X1.
    unsafe { call(libc::SYS_rt_sigprocmask, mask) }.map_err(other)?;
    if order.new_session {
        // SAFETY: X1.
        unsafe { call(libc::SYS_setsid, [0; 4]) }.map_err(other)?;
    }
    if order.process_group >= 0 {
        // SAFETY: X1.
        unsafe { call(libc::SYS_setpgid, [0, order.process_group as usize, 0, 0]) }.map_err(other)?;
    }
    if order.close_descriptors {
        close_others(order);
    }
    Ok(())
}

/// Standard input, output and error become these descriptors, which may themselves be 0, 1 or 2.
#[inline(always)]
fn redirect(streams: [RawFd; 3]) -> Result<(), i32> {
    let [input, mut output, mut error] = streams;
    if output == 0 {
        output = duplicate(output)?;
    }
    while error == 0 || error == 1 {
        error = duplicate(error)?;
    }
    for (target, fd) in [(0, input), (1, output), (2, error)] {
        if fd == target {
            inherit(fd)?;
        } else if fd >= 0 {
            // SAFETY: X1.
            unsafe { call(libc::SYS_dup3, [fd as usize, target as usize, 0, 0]) }?;
        }
    }
    Ok(())
}

/// Another number for the descriptor, closed on exec.
#[inline(always)]
fn duplicate(fd: RawFd) -> Result<RawFd, i32> {
    // SAFETY: X1.
    unsafe { call(libc::SYS_fcntl, [fd as usize, libc::F_DUPFD_CLOEXEC as usize, 0, 0]) }
        .map(|fd| fd as RawFd)
}

/// The descriptor stays open in the program.
#[inline(always)]
fn inherit(fd: RawFd) -> Result<(), i32> {
    // SAFETY: X1.
    unsafe { call(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, 0, 0]) }.map(drop)
}

/// Closes all descriptors from 3 on but those that are passed and the witness.
#[inline(always)]
fn close_others(order: &Order) {
    let mut first = 3;
    let mut witness = Some(order.witness);
    let mut passed = order.passed.iter().copied().peekable();
    loop {
        // The next of both that stays, in order.
        let kept = match (passed.peek().copied(), witness) {
            (Some(fd), Some(own)) if own < fd => witness.take(),
            (Some(_), _) => passed.next(),
            (None, _) => witness.take(),
        };
        let Some(kept) = kept else { break };
        if kept > first {
            close_range(first, (kept - 1) as u32);
        }
        if kept >= first {
            first = kept + 1;
        }
    }
    close_range(first, u32::MAX);
}

/// What is not open need not be closed: as `subprocess`, no error matters here.
#[inline(always)]
fn close_range(first: RawFd, last: u32) {
    // SAFETY: X1.
    let _ = unsafe { call(libc::SYS_close_range, [first as usize, last as usize, 0, 0]) };
}

/// Tries one program after the other. Returns the errno that is reported: the first that says more than that there is none.
#[inline(always)]
fn execute(order: &Order) -> i32 {
    let (arguments, environment) = (order.arguments.pointers.as_ptr(), order.environment.pointers.as_ptr());
    let (mut telling, mut last) = (0, libc::ENOENT);
    for &program in &order.programs.pointers {
        if program.is_null() {
            break;
        }
        // SAFETY: X1.
        let answer = unsafe {
            call(libc::SYS_execve, [program as usize, arguments as usize, environment as usize, 0])
        };
        if let Err(error) = answer {
            last = error;
            if error != libc::ENOENT && error != libc::ENOTDIR && telling == 0 {
                telling = error;
            }
        }
    }
    if telling == 0 { last } else { telling }
}
