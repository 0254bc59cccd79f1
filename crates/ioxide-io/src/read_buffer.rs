//! Where a loop receives before it knows how much there is: one large buffer for all its sockets.
//!
//! What is in it is copied to where it belongs before the next receive; the borrow checker sees to it.
//!
//! Invariant:
//! R1. Only bytes that the last receive wrote are ever shown.

use std::io;
use std::mem::MaybeUninit;
use std::slice;

use crate::address::SocketAddress;
use crate::pipe::PipeRef;
use crate::socket::SocketRef;

/// What asyncio's selector transports ask for in one `recv`.
pub const DEFAULT_CAPACITY: usize = 256 * 1024;

/// A reusable receive buffer. It takes memory with the first use, and of that only what is written to.
pub struct ReadBuffer {
    capacity: usize,
    bytes: Option<Box<[MaybeUninit<u8>]>>,
}

impl ReadBuffer {
    /// A buffer of `capacity` bytes.
    pub const fn with_capacity(capacity: usize) -> Self {
        Self { capacity, bytes: None }
    }

    /// The most bytes one receive can return.
    #[inline]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Receives what has arrived, up to the capacity; empty is the end of a stream, or an empty datagram.
    ///
    /// Fails as [`SocketRef::receive`] does, with `WouldBlock` when nothing has arrived.
    #[inline]
    pub fn receive(&mut self, socket: SocketRef) -> io::Result<&[u8]> {
        let bytes = self.bytes();
        let length = socket.receive(bytes)?;
        // SAFETY: the receive has written `length` bytes (R1).
        Ok(unsafe { initialised(bytes, length) })
    }

    /// Reads what has arrived in a pipe, up to the capacity; empty is the end.
    ///
    /// Fails as [`PipeRef::read`] does, with `WouldBlock` when nothing has arrived.
    #[inline]
    pub fn read(&mut self, pipe: PipeRef) -> io::Result<&[u8]> {
        let bytes = self.bytes();
        let length = pipe.read(bytes)?;
        // SAFETY: the read has written `length` bytes (R1).
        Ok(unsafe { initialised(bytes, length) })
    }

    /// Receives one datagram, cut to the capacity, and its sender.
    ///
    /// Fails as [`SocketRef::receive_from`] does, with `WouldBlock` when nothing has arrived.
    #[inline]
    pub fn receive_from(&mut self, socket: SocketRef) -> io::Result<(&[u8], SocketAddress)> {
        let bytes = self.bytes();
        let (length, sender) = socket.receive_from(bytes)?;
        // SAFETY: the receive has written `length` bytes (R1).
        Ok((unsafe { initialised(bytes, length) }, sender))
    }

    #[inline]
    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        let capacity = self.capacity;
        self.bytes.get_or_insert_with(|| Box::new_uninit_slice(capacity))
    }
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }
}

/// # Safety
/// The first `length` bytes have been written.
#[inline]
unsafe fn initialised(bytes: &[MaybeUninit<u8>], length: usize) -> &[u8] {
    debug_assert!(length <= bytes.len());
    // SAFETY: the caller's promise, which includes that they exist.
    unsafe { slice::from_raw_parts(bytes.as_ptr().cast(), length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn a_stream_comes_in_pieces_up_to_the_capacity() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let socket = SocketRef::new(near.as_raw_fd());
        let mut buffer = ReadBuffer::with_capacity(4);
        assert_eq!(buffer.receive(socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        far.write_all(b"abcdef").unwrap();
        assert_eq!(buffer.receive(socket).unwrap(), b"abcd");
        assert_eq!(buffer.receive(socket).unwrap(), b"ef");
        assert_eq!(buffer.receive(socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(far);
        assert_eq!(buffer.receive(socket).unwrap(), b"");
    }

    #[test]
    fn datagrams_keep_their_borders() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let socket = SocketRef::new(near.as_raw_fd());
        let mut buffer = ReadBuffer::with_capacity(4);
        for datagram in ["ab", "", "cdefgh"] {
            far.send(datagram.as_bytes()).unwrap();
        }
        assert_eq!(buffer.receive_from(socket).unwrap().0, b"ab");
        assert_eq!(buffer.receive_from(socket).unwrap().0, b"");
        assert_eq!(buffer.receive_from(socket).unwrap().0, b"cdef");
        assert_eq!(buffer.receive_from(socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn memory_comes_with_the_first_use() {
        let mut buffer = ReadBuffer::default();
        assert!(buffer.bytes.is_none());
        assert_eq!(buffer.bytes().len(), DEFAULT_CAPACITY);
        assert_eq!(buffer.capacity(), DEFAULT_CAPACITY);
    }
}
