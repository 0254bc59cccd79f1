//! Every system call on a socket whose descriptor belongs to somebody else (a Python socket object).
//!
//! Waiting, retrying after `WouldBlock` and closing are the caller's. Passing a number that is not an
//! open socket is safe: the kernel answers `EBADF` or `ENOTSOCK`.
//!
//! Invariants:
//! S1. Transfers carry `MSG_DONTWAIT`: they do not block even on a socket in blocking mode. `accept`
//!     and `connect` have no such flag and need the socket in non-blocking mode.
//! S2. Writing carries `MSG_NOSIGNAL`: a peer that is gone is `EPIPE`, not a signal.

use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::address::SocketAddress;
use crate::sys::{check, transfer};

/// A socket that is borrowed for the length of a call. Its owner keeps it open meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketRef(RawFd);

/// How far a `connect` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Connection {
    /// The socket is connected.
    Established,
    /// The kernel goes on by itself: the socket becomes writable when it is done, and `take_error`
    /// tells how it ended.
    InProgress,
}

impl SocketRef {
    /// Borrows the socket behind a descriptor.
    #[inline]
    pub const fn new(fd: RawFd) -> Self {
        Self(fd)
    }

    /// Receives at most `buffer.len()` bytes into its beginning and returns how many: zero is the end
    /// of a stream, or an empty datagram.
    ///
    /// Fails with `WouldBlock` when nothing has arrived.
    #[inline]
    pub fn receive(self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, and no uninitialised ones.
        transfer(|| unsafe {
            libc::recv(self.0, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
        })
    }

    /// Receives one datagram into the beginning of `buffer` and returns its length (what did not fit is
    /// lost) and its sender.
    ///
    /// Fails with `WouldBlock` when nothing has arrived.
    #[inline]
    pub fn receive_from(self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, SocketAddress)> {
        SocketAddress::filled_by(|name, length| {
            let capacity = *length;
            transfer(|| {
                *length = capacity;
                // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, no uninitialised
                // ones, and at most `*length` bytes into `name`.
                unsafe {
                    libc::recvfrom(
                        self.0,
                        buffer.as_mut_ptr().cast(),
                        buffer.len(),
                        libc::MSG_DONTWAIT,
                        name,
                        length,
                    )
                }
            })
        })
    }

    /// Sends from the beginning of `data` and returns how many bytes the kernel took.
    ///
    /// Fails with `WouldBlock` when it has room for none, `EPIPE` when the peer is gone.
    #[inline]
    pub fn send(self, data: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `data` is readable for its length.
        transfer(|| unsafe { libc::send(self.0, data.as_ptr().cast(), data.len(), flags) })
    }

    /// Sends one datagram to `address` and returns its length.
    ///
    /// Fails with `WouldBlock` when the kernel has no room for it, `EMSGSIZE` when it is too long.
    #[inline]
    pub fn send_to(self, data: &[u8], address: &SocketAddress) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let (name, length) = address.as_raw();
        // SAFETY: `data` and `name` are readable for their lengths.
        transfer(|| unsafe { libc::sendto(self.0, data.as_ptr().cast(), data.len(), flags, name, length) })
    }

    /// Sends the buffers one after the other in one call and returns how many bytes the kernel took.
    ///
    /// Fails with `WouldBlock` when it has room for none, `EPIPE` when the peer is gone, `EMSGSIZE` when
    /// there are more than 1024 buffers.
    #[inline]
    pub fn send_vectored(self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: `msghdr` is made of integers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // An IoSlice is promised to be laid out as an iovec; sending does not write through it.
        message.msg_iov = buffers.as_ptr().cast_mut().cast();
        message.msg_iovlen = buffers.len() as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `message` names `buffers.len()` readable buffers and no address or ancillary data.
        transfer(|| unsafe { libc::sendmsg(self.0, &message, flags) })
    }

    /// Accepts a connection; its socket is non-blocking and closed on exec. The listening socket must be
    /// non-blocking (S1).
    ///
    /// Fails with `WouldBlock` when none waits, `ECONNABORTED` when one has gone already, `EMFILE`,
    /// `ENFILE`, `ENOBUFS` or `ENOMEM` when resources are short.
    #[inline]
    pub fn accept(self) -> io::Result<(OwnedFd, SocketAddress)> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        SocketAddress::filled_by(|name, length| {
            let capacity = *length;
            let descriptor = transfer(|| {
                *length = capacity;
                // SAFETY: the kernel writes at most `*length` bytes into `name`.
                unsafe { libc::accept4(self.0, name, length, flags) as libc::ssize_t }
            })?;
            // SAFETY: the kernel has just opened this descriptor, an int, and nobody else knows it.
            Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
        })
    }

    /// Begins to connect. The socket must be non-blocking (S1).
    ///
    /// Fails with `WouldBlock` when the backlog of a Unix socket is full (the kernel does not go on by
    /// itself), and with the error of the attempt when that is known at once.
    pub fn connect(self, address: &SocketAddress) -> io::Result<Connection> {
        let (name, length) = address.as_raw();
        // SAFETY: `name` is readable for `length` bytes.
        let Err(error) = check(unsafe { libc::connect(self.0, name, length) }) else {
            return Ok(Connection::Established);
        };
        match error.raw_os_error() {
            // An interrupted attempt goes on; a second call would only hear EALREADY.
            Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => Ok(Connection::InProgress),
            _ => Err(error),
        }
    }

    /// Takes the pending error (`SO_ERROR`) out of the socket; `None` when there is none.
    pub fn take_error(self) -> io::Result<Option<io::Error>> {
        match self.option(libc::SOL_SOCKET, libc::SO_ERROR)? {
            0 => Ok(None),
            errno => Ok(Some(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Tells the peer that no more bytes will come.
    ///
    /// Fails with `ENOTCONN` when there is no peer.
    pub fn shutdown_write(self) -> io::Result<()> {
        // SAFETY: the call takes no pointer.
        check(unsafe { libc::shutdown(self.0, libc::SHUT_WR) })
    }

    /// The address the socket is bound to.
    pub fn local_address(self) -> io::Result<SocketAddress> {
        // SAFETY: the kernel writes at most `*length` bytes into `name`.
        SocketAddress::filled_by(|name, length| check(unsafe { libc::getsockname(self.0, name, length) }))
            .map(|((), address)| address)
    }

    /// The address the socket is connected to.
    ///
    /// Fails with `ENOTCONN` when it is not connected.
    pub fn peer_address(self) -> io::Result<SocketAddress> {
        // SAFETY: the kernel writes at most `*length` bytes into `name`.
        SocketAddress::filled_by(|name, length| check(unsafe { libc::getpeername(self.0, name, length) }))
            .map(|((), address)| address)
    }

    /// The address family (`AF_INET`…).
    pub fn domain(self) -> io::Result<i32> {
        self.option(libc::SOL_SOCKET, libc::SO_DOMAIN)
    }

    /// The socket type (`SOCK_STREAM`…), without flags.
    pub fn socket_type(self) -> io::Result<i32> {
        self.option(libc::SOL_SOCKET, libc::SO_TYPE)
    }

    /// The protocol (`IPPROTO_TCP`…); zero where the family has only one.
    pub fn protocol(self) -> io::Result<i32> {
        self.option(libc::SOL_SOCKET, libc::SO_PROTOCOL)
    }

    /// Whether the socket listens.
    pub fn is_listening(self) -> io::Result<bool> {
        Ok(self.option(libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0)
    }

    /// Whether small segments are sent at once (`TCP_NODELAY`).
    pub fn set_nodelay(self, enabled: bool) -> io::Result<()> {
        self.set_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, enabled)
    }

    /// Whether an address in `TIME_WAIT` may be bound (`SO_REUSEADDR`).
    pub fn set_reuse_address(self, enabled: bool) -> io::Result<()> {
        self.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, enabled)
    }

    /// Whether several sockets may bind the same address (`SO_REUSEPORT`).
    pub fn set_reuse_port(self, enabled: bool) -> io::Result<()> {
        self.set_option(libc::SOL_SOCKET, libc::SO_REUSEPORT, enabled)
    }

    /// Whether the kernel probes an idle peer (`SO_KEEPALIVE`).
    pub fn set_keep_alive(self, enabled: bool) -> io::Result<()> {
        self.set_option(libc::SOL_SOCKET, libc::SO_KEEPALIVE, enabled)
    }

    /// Whether datagrams may go to a broadcast address (`SO_BROADCAST`).
    pub fn set_broadcast(self, enabled: bool) -> io::Result<()> {
        self.set_option(libc::SOL_SOCKET, libc::SO_BROADCAST, enabled)
    }

    /// Whether an IPv6 socket leaves IPv4 alone (`IPV6_V6ONLY`).
    pub fn set_ipv6_only(self, enabled: bool) -> io::Result<()> {
        self.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, enabled)
    }

    /// Whether the descriptor is in non-blocking mode.
    pub fn is_nonblocking(self) -> io::Result<bool> {
        // SAFETY: the call takes no pointer.
        let flags = unsafe { libc::fcntl(self.0, libc::F_GETFL) };
        check(flags)?;
        Ok(flags & libc::O_NONBLOCK != 0)
    }

    /// Puts the descriptor into non-blocking mode or out of it.
    pub fn set_nonblocking(self, enabled: bool) -> io::Result<()> {
        let mut value = libc::c_int::from(enabled);
        // SAFETY: the kernel reads one int from `value`.
        check(unsafe { libc::ioctl(self.0, libc::FIONBIO, &mut value) })
    }

    fn option(self, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `value`, which is that large.
        check(unsafe {
            libc::getsockopt(self.0, level, name, ptr::from_mut(&mut value).cast(), &mut length)
        })?;
        Ok(value)
    }

    fn set_option(self, level: libc::c_int, name: libc::c_int, enabled: bool) -> io::Result<()> {
        let value = libc::c_int::from(enabled);
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `value` is readable for `length` bytes.
        check(unsafe { libc::setsockopt(self.0, level, name, ptr::from_ref(&value).cast(), length) })
    }
}

impl AsRawFd for SocketRef {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// Sends, so that what writes to any `io::Write` (a [`WriteQueue`](crate::WriteQueue)) writes to sockets.
impl io::Write for SocketRef {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    #[inline]
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_vectored(buffers)
    }

    /// The kernel sends by itself what it has taken.
    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
