//! io_uring as the kernel defines it: its three system calls, its structures, and what it can do here.
//!
//! Leaves to others: the two queues in shared memory are `ring`, what is in flight is `queue`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

/// An operation by the kernel's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    Sync = 3,
    Cancel = 14,
    Open = 18,
    Read = 22,
    Write = 23,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct Parameters {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub flags: u32,
    pub sq_thread_cpu: u32,
    pub sq_thread_idle: u32,
    pub features: u32,
    pub wq_fd: u32,
    pub reserved: [u32; 3],
    pub sq: Offsets,
    pub cq: Offsets,
}

/// Where the fields of a queue are in its memory. `fifth` is the flags of one and the overflow counter of the other,
/// `seventh` the index array of one and the flags of the other.
#[repr(C)]
#[derive(Default)]
pub(super) struct Offsets {
    pub head: u32,
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub fifth: u32,
    pub sixth: u32,
    pub seventh: u32,
    pub reserved: u32,
    pub user_address: u64,
}

/// A submission.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Submission {
    pub opcode: u8,
    pub flags: u8,
    pub io_priority: u16,
    pub descriptor: i32,
    pub offset: u64,
    pub address: u64,
    pub length: u32,
    pub operation_flags: u32,
    pub token: u64,
    pub rest: [u64; 3],
}

/// A completion.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub token: u64,
    pub result: i32,
    pub flags: u32,
}

const _: () = assert!(size_of::<Parameters>() == 120 && size_of::<Submission>() == 64);

/// One mapping holds both queues (5.4); completions are never dropped (5.5); workers are threads of this process (5.12).
const NEEDED_FEATURES: u32 = 1 | 1 << 1 | 1 << 9;
pub(super) const ENTER_GET_EVENTS: u32 = 1;
const SETUP_CLAMP: u32 = 1 << 4;
const REGISTER_PROBE: u32 = 8;
const REGISTER_WORKERS: u32 = 19;
/// The kernel's threads for one ring, of each of its two kinds.
const WORKERS: u32 = 8;

/// Opens a ring. Fails: as the kernel says (EPERM and ENOSYS where it is forbidden or unknown, ENOMEM over a limit), and
/// ENOSYS for a kernel that is too old.
pub(super) fn set_up(entries: u32) -> io::Result<(OwnedFd, Parameters)> {
    let mut parameters = Parameters { flags: SETUP_CLAMP, ..Parameters::default() };
    // SAFETY: the kernel fills the structure, whose size is part of its interface; the descriptor is new.
    let descriptor = unsafe {
        let descriptor = libc::syscall(libc::SYS_io_uring_setup, entries, &mut parameters);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(descriptor as RawFd)
    };
    if parameters.features & NEEDED_FEATURES != NEEDED_FEATURES {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    limit_workers(&descriptor);
    Ok((descriptor, parameters))
}

/// Hundreds of threads of the kernel's would come otherwise. A kernel that knows no limit (before 5.15) goes without.
fn limit_workers(ring: &OwnedFd) {
    let mut most = [WORKERS, WORKERS];
    // SAFETY: two numbers, which the kernel replaces by the old ones.
    let _ = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_WORKERS, most.as_mut_ptr(), 2)
    };
}

/// Submits, and waits until so many completions are there. Returns how many submissions the kernel has taken.
pub(super) fn enter(ring: &OwnedFd, submit: u32, wait_for: u32) -> io::Result<u32> {
    let flags = if wait_for > 0 { ENTER_GET_EVENTS } else { 0 };
    // SAFETY: no signal mask is handed over; what the submissions point to is the caller's (`queue`, U1).
    let taken = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            submit,
            wait_for,
            flags,
            std::ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    u32::try_from(taken).map_err(|_| io::Error::last_os_error())
}

#[repr(C)]
struct Probe {
    last_opcode: u8,
    count: u8,
    reserved: [u16; 7],
    operations: [ProbedOperation; 64],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProbedOperation {
    opcode: u8,
    reserved: u8,
    flags: u16,
    reserved_too: u32,
}

/// Whether this process can use an operation. Found out once: what is forbidden stays so.
pub fn supports(opcode: Opcode) -> bool {
    static SUPPORTED: OnceLock<u64> = OnceLock::new();
    SUPPORTED.get_or_init(|| probe().unwrap_or(0)) & 1 << opcode as u8 != 0
}

fn probe() -> io::Result<u64> {
    let (ring, _) = set_up(1)?;
    let mut probe =
        Probe { last_opcode: 0, count: 0, reserved: [0; 7], operations: [ProbedOperation::default(); 64] };
    // SAFETY: the kernel fills at most the 64 operations that it is told of.
    let probed = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_PROBE, &mut probe, 64)
    };
    if probed < 0 {
        return Err(io::Error::last_os_error());
    }
    enter(&ring, 0, 0)?; // a filter may allow the set-up and forbid the rest
    let known = probe.operations.iter().take(usize::from(probe.count));
    Ok(known
        .filter(|operation| operation.flags & 1 != 0)
        .fold(0, |all, operation| all | 1 << operation.opcode))
}
