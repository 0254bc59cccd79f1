//! Every system call on the end of a pipe, FIFO, character device or socket that is read and written as a file.
//!
//! The descriptor belongs to somebody else (a Python file or socket object), as with [`SocketRef`](crate::SocketRef).
//!
//! Invariants:
//! P1. `read` and `write` carry no flag that keeps them from blocking: the descriptor is in non-blocking mode.
//! P2. Writing to a pipe without readers is `EPIPE` as long as the process ignores SIGPIPE, as Python does.

use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::RawFd;
use std::ptr;

use crate::sys::{check, transfer};

/// What a write of at most so many bytes into a pipe is never torn apart by (`PIPE_BUF`).
pub const ATOMIC_WRITE: usize = libc::PIPE_BUF;

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An unnamed pipe or a FIFO in the file system.
    Pipe,
    Socket,
    CharacterDevice,
    /// A file, a directory, anything that a transport cannot be made of.
    Other,
}

/// The end of a pipe that is borrowed for the length of a call. Its owner keeps it open meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipeRef(RawFd);

impl PipeRef {
    /// Borrows what is behind a descriptor.
    #[inline]
    pub const fn new(fd: RawFd) -> Self {
        Self(fd)
    }

    /// What the descriptor stands for. Fails with `EBADF`.
    pub fn kind(self) -> io::Result<FileKind> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the kernel fills the whole structure in, or says that it has not.
        let mode = unsafe {
            check(libc::fstat(self.0, status.as_mut_ptr()))?;
            status.assume_init().st_mode
        };
        Ok(match mode & libc::S_IFMT {
            libc::S_IFIFO => FileKind::Pipe,
            libc::S_IFSOCK => FileKind::Socket,
            libc::S_IFCHR => FileKind::CharacterDevice,
            _ => FileKind::Other,
        })
    }

    /// Whether two writes may become one without the reader being able to tell: a stream of bytes, not of messages.
    pub fn is_byte_stream(self) -> io::Result<bool> {
        match self.kind()? {
            // A pipe in packet mode gives each write to one read.
            FileKind::Pipe => Ok(self.status_flags()? & libc::O_DIRECT == 0),
            FileKind::Socket => Ok(self.socket_type()? == libc::SOCK_STREAM),
            FileKind::CharacterDevice | FileKind::Other => Ok(false),
        }
    }

    /// Puts the descriptor into non-blocking mode or out of it, as `os.set_blocking` does.
    pub fn set_nonblocking(self, enabled: bool) -> io::Result<()> {
        let flags = self.status_flags()?;
        let wanted = if enabled { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
        if wanted == flags {
            return Ok(());
        }
        // SAFETY: the call takes no pointer.
        check(unsafe { libc::fcntl(self.0, libc::F_SETFL, wanted) })
    }

    /// Reads at most `buffer.len()` bytes into its beginning and returns how many: zero is the end.
    ///
    /// Fails with `WouldBlock` when nothing has arrived, `EIO` when the other end of a terminal is gone.
    #[inline]
    pub fn read(self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, and no uninitialised ones.
        transfer(|| unsafe { libc::read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    fn status_flags(self) -> io::Result<libc::c_int> {
        // SAFETY: the call takes no pointer.
        let flags = unsafe { libc::fcntl(self.0, libc::F_GETFL) };
        check(flags)?;
        Ok(flags)
    }

    fn socket_type(self) -> io::Result<libc::c_int> {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `value`, which is that large.
        check(unsafe {
            libc::getsockopt(
                self.0,
                libc::SOL_SOCKET,
                libc::SO_TYPE,
                ptr::from_mut(&mut value).cast(),
                &mut length,
            )
        })?;
        Ok(value)
    }
}

/// Writes, so that a [`WriteQueue`](crate::WriteQueue) writes to pipes.
impl io::Write for PipeRef {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // SAFETY: `data` is readable for its length.
        transfer(|| unsafe { libc::write(self.0, data.as_ptr().cast(), data.len()) })
    }

    #[inline]
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        // An IoSlice is promised to be laid out as an iovec; writing does not write through it.
        // SAFETY: `buffers` names so many readable buffers.
        transfer(|| unsafe { libc::writev(self.0, buffers.as_ptr().cast(), buffers.len() as libc::c_int) })
    }

    /// There is nothing between this and the kernel.
    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn kinds_are_told_apart() {
        let (reader, _writer) = io::pipe().unwrap();
        let (stream, _far) = UnixStream::pair().unwrap();
        let (datagram, _far_datagram) = UnixDatagram::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let directory = std::fs::File::open("/").unwrap();
        let seen = [reader.as_raw_fd(), stream.as_raw_fd(), datagram.as_raw_fd(), null.as_raw_fd()]
            .map(|fd| (PipeRef::new(fd).kind().unwrap(), PipeRef::new(fd).is_byte_stream().unwrap()));
        assert_eq!(
            seen,
            [
                (FileKind::Pipe, true),
                (FileKind::Socket, true),
                (FileKind::Socket, false),
                (FileKind::CharacterDevice, false),
            ]
        );
        assert_eq!(PipeRef::new(directory.as_raw_fd()).kind().unwrap(), FileKind::Other);
        assert_eq!(PipeRef::new(-1).kind().unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn bytes_pass_a_pipe_and_its_end_is_seen() {
        let (reader, writer) = io::pipe().unwrap();
        let (near, mut far) = (PipeRef::new(reader.as_raw_fd()), PipeRef::new(writer.as_raw_fd()));
        near.set_nonblocking(true).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 16];
        assert_eq!(near.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(far.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        assert_eq!(far.write(b"d").unwrap(), 1);
        assert_eq!(near.read(&mut buffer).unwrap(), 4);
        drop(writer);
        assert_eq!(near.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_pipe_without_readers_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = PipeRef::new(writer.as_raw_fd()).write(b"lost").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}
