//! How this operating system reports the outcome of a call.

pub(crate) mod release;

use std::io;

/// The outcome of a call that returns zero or -1.
#[inline]
pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Repeats a call that returns -1 or a count until no signal interrupts it (B2).
#[inline]
pub(crate) fn transfer(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}
