//! System calls that the C library must not make: the birth of a child on a stack of its own, and what the child calls while
//! its thread-local variables are another thread's.
//!
//! Invariants:
//! N1. Nothing here touches a thread-local variable; an error is an errno, as the kernel returns it.

use super::child::run;
use super::order::Order;

/// What a system call returns, or its errno.
pub(super) type Answer = Result<usize, i32>;

/// Whether this processor's calls are written here. Elsewhere every one is refused, and nobody starts children so.
pub(super) const IS_KNOWN: bool = cfg!(target_arch = "x86_64");

#[cfg(target_arch = "x86_64")]
const ARGUMENTS_OF_CLONE: usize = 64;

/// A system call.
///
/// # Safety
/// What the call itself asks of its arguments.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> Answer {
    let result: isize;
    // SAFETY: the kernel's calling convention; the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer(result)
}

/// `clone3`: the child continues in `run(order)` on the stack that `arguments` name, and never returns. In the parent:
/// the child's number.
///
/// # Safety
/// `arguments` are the kernel's clone_args, of 64 bytes, with a stack for the child; `order` outlives its use there.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn clone(arguments: *const u64, order: *const Order) -> Answer {
    let result: isize;
    // SAFETY: the caller's promise. The child never comes back from `run`; the parent's registers are as declared.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") arguments,
            in("rsi") ARGUMENTS_OF_CLONE,
            in("r12") order,
            in("r13") run as extern "C" fn(*const Order) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer(result)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn answer(result: isize) -> Answer {
    if result < 0 { Err(-result as i32) } else { Ok(result as usize) }
}

/// See `IS_KNOWN`.
///
/// # Safety
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn call(_number: libc::c_long, _arguments: [usize; 4]) -> Answer {
    Err(libc::ENOSYS)
}

/// See `IS_KNOWN`.
///
/// # Safety
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn clone(_arguments: *const u64, _order: *const Order) -> Answer {
    let _never_called = run as extern "C" fn(*const Order) -> !;
    Err(libc::ENOSYS)
}
