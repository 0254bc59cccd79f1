//! Files sent whole: from the page cache to a socket, without a copy of ours.
//!
//! Descriptors are borrowed. Passing a number that is not an open file is safe: the kernel answers `EBADF`.

use crate::socket::SocketRef;
use crate::sys::{check, transfer};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The most that one call sends: the kernel stops there by itself.
const MOST: usize = 0x7fff_f000;

/// Sends at most `count` bytes of the file from `offset` on; returns how many, zero at its end. The file's own position
/// stays. May wait for a disk.
///
/// Fails with `WouldBlock` when the socket takes none, `EINVAL` or `ENOSYS` for files that have no pages.
pub fn send_file(socket: SocketRef, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
    let mut position = offset;
    // SAFETY: the kernel reads and writes the one offset; it is a local.
    transfer(|| unsafe { libc::sendfile(socket.as_raw_fd(), file, &mut position, count.min(MOST)) })
}

/// The size of a file in bytes; zero for what has none.
pub fn file_size(file: RawFd) -> io::Result<u64> {
    // SAFETY: `stat` is made of integers, for which zero is a value; the kernel fills it.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    check(unsafe { libc::fstat(file, &mut status) })?;
    Ok(u64::try_from(status.st_size).unwrap_or(0))
}

/// Moves a file's own position to `offset`.
pub fn set_position(file: RawFd, offset: i64) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    match unsafe { libc::lseek(file, offset, libc::SEEK_SET) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
