//! A file sent by the kernel, from its pages to a socket: one call for each time that the socket is ready.
//!
//! Invariants:
//! X2. Socket and file are asked for their descriptors before each try: a number is no owner.
//! X3. The file's own position is where the sending ended, however it ended.

use super::sendfile::unavailable;
use ioxide_cpython::detach::without_gil;
use ioxide_cpython::exception::{self, raise_os_error};
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::version::SENDFILE_ALWAYS_SEEKS;
use ioxide_cpython::{Any, Object, Raised, Result, imports, names};
use ioxide_io::{SocketRef, sendfile};
use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;

/// How far a file has been sent by the kernel.
pub(super) struct Progress {
    file: Object,
    descriptor: RawFd,
    offset: Cell<i64>,
    sent: Cell<i64>,
    limit: Option<i64>,
    size: i64,
}

impl Progress {
    /// Of a file with `size` bytes, from `offset` on, at most `limit` bytes.
    pub(super) fn new(
        file: Object,
        descriptor: RawFd,
        size: u64,
        offset: i64,
        limit: Option<i64>,
    ) -> Progress {
        Progress {
            file,
            descriptor,
            offset: Cell::new(offset),
            sent: Cell::new(0),
            limit,
            size: i64::try_from(size).unwrap_or(i64::MAX),
        }
    }

    /// One call of the kernel's; `None` while there is more to send.
    pub(super) fn attempt(&self, socket: &Any) -> Result<Option<Object>> {
        let wanted = self.limit.map_or(self.size, |limit| limit - self.sent.get());
        if wanted <= 0 {
            return integer(self.sent.get()).map(Some);
        }
        let offset = self.offset.get();
        let target = SocketRef::new(socket.call_method0(&names().fileno)?.to_i32()?);
        let source = self.open_descriptor();
        let count = usize::try_from(wanted).unwrap_or(usize::MAX);
        match without_gil(move || sendfile::send_file(target, source, offset, count)) {
            Ok(0) => integer(self.sent.get()).map(Some),
            Ok(count) => {
                self.offset.set(offset + count as i64);
                self.sent.set(self.sent.get() + count as i64);
                let is_all = self.limit.is_some_and(|limit| self.sent.get() >= limit);
                if is_all { integer(self.sent.get()).map(Some) } else { Ok(None) }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) if self.sent.get() == 0 => Err(unavailable("os.sendfile call failed")),
            Err(error) => Err(failure(&error)),
        }
    }

    /// The file's descriptor, as long as the file has it (X2).
    fn open_descriptor(&self) -> RawFd {
        let number = self.file.call_method0(&names().fileno).and_then(|number| number.to_i32());
        match number {
            Ok(number) if number == self.descriptor => number,
            Ok(_) => -1,
            Err(raised) => {
                // Closed: the kernel refuses -1 with the error that a closed number would have.
                drop(raised.take());
                -1
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.sent.get() == 0 && !SENDFILE_ALWAYS_SEEKS {
            return;
        }
        let pending = exception::take();
        // What cannot be positioned has no position.
        let _ = sendfile::set_position(self.open_descriptor(), self.offset.get());
        if let Some(pending) = pending {
            exception::restore(pending);
        }
    }
}

/// A connection that was closed in the middle is a ConnectionError, as asyncio says.
fn failure(error: &io::Error) -> Raised {
    let original = raise_os_error(error);
    if error.raw_os_error() != Some(libc::ENOTCONN) {
        return original;
    }
    let cause = original.take();
    let build = || -> Result<Object> {
        let number = integer(i64::from(libc::ENOTCONN))?;
        let exception = imports().ConnectionError.call(&[&*text("socket is not connected")?, &*number])?;
        exception.set_attribute(&*text("__cause__")?, &cause)?;
        Ok(exception)
    };
    match build() {
        Ok(exception) => Raised::exception(exception),
        Err(raised) => raised,
    }
}
