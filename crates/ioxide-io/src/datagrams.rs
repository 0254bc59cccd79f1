//! Receiving several datagrams with one system call.
//!
//! What is in a batch is copied to where it belongs before the next receive; the borrow checker sees to it.
//!
//! Invariants:
//! D1. Only bytes that the last receive wrote are ever shown.
//! D2. The structures that the kernel is given point into memory that this batch owns and that does not move meanwhile.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::slice;

use crate::address::SocketAddress;
use crate::socket::SocketRef;
use crate::sys::transfer;

/// How many datagrams one call receives at most.
pub const BATCH: usize = 8;
/// No datagram of the internet protocols is longer.
const LONGEST: usize = 64 * 1024;

/// Room for some datagrams of the internet protocols and their senders. It takes memory with the first use, and of that
/// only what is written to.
#[derive(Default)]
pub struct DatagramBatch {
    bytes: Option<Box<[MaybeUninit<u8>]>>,
    senders: Vec<SocketAddress>,
    lengths: [usize; BATCH],
    count: usize,
}

impl DatagramBatch {
    /// Receives what has arrived, one datagram at least and `BATCH` at most, and returns how many.
    ///
    /// Fails with `WouldBlock` when nothing has arrived, with the socket's pending error, and as `recvmmsg` does.
    pub fn receive(&mut self, socket: SocketRef) -> io::Result<usize> {
        self.count = 0;
        let bytes = self.bytes.get_or_insert_with(|| Box::new_uninit_slice(BATCH * LONGEST));
        self.senders.resize_with(BATCH, SocketAddress::absent);
        // SAFETY: both are made of integers and pointers, for which zero is a value.
        let (mut vectors, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let places = bytes.chunks_exact_mut(LONGEST).zip(&mut self.senders);
        for ((vector, header), (room, sender)) in vectors.iter_mut().zip(&mut headers).zip(places) {
            vector.iov_base = room.as_mut_ptr().cast();
            vector.iov_len = room.len();
            let (name, capacity) = sender.as_raw_mut();
            header.msg_hdr.msg_name = name.cast();
            header.msg_hdr.msg_namelen = capacity;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each header names one buffer and one address, writable for the lengths given (D2).
        let count = transfer(|| unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            ) as libc::ssize_t
        })?;
        for ((header, sender), length) in
            headers.iter().zip(&mut self.senders).zip(&mut self.lengths).take(count)
        {
            sender.set_length(header.msg_hdr.msg_namelen);
            *length = header.msg_len as usize;
        }
        self.count = count;
        Ok(count)
    }

    /// The datagrams of the last receive and their senders, oldest first.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], &SocketAddress)> {
        let rooms = self.bytes.iter().flat_map(|bytes| bytes.chunks_exact(LONGEST));
        rooms.zip(&self.lengths).zip(&self.senders).take(self.count).map(|((room, length), sender)| {
            // SAFETY: the receive has written `length` bytes into this room, which is no shorter (D1).
            (unsafe { slice::from_raw_parts(room.as_ptr().cast(), (*length).min(LONGEST)) }, sender)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_come_in_order_with_their_senders() {
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let there = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        let socket = SocketRef::new(here.as_raw_fd());
        let mut batch = DatagramBatch::default();
        assert_eq!(batch.receive(socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(batch.datagrams().count(), 0);
        let sent: Vec<Vec<u8>> = (0..BATCH + 3).map(|index| vec![index as u8; index * 1000]).collect();
        for (index, data) in sent.iter().enumerate() {
            there[index % 2].send_to(data, here.local_addr().unwrap()).unwrap();
        }
        let mut received = Vec::new();
        for expected in [BATCH, 3] {
            assert_eq!(batch.receive(socket).unwrap(), expected);
            for (data, sender) in batch.datagrams() {
                let from = SocketRef::new(there[received.len() % 2].as_raw_fd());
                assert_eq!(*sender, from.local_address().unwrap());
                received.push(data.to_vec());
            }
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn a_connected_socket_hears_of_a_port_that_is_closed() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        here.connect(gone.local_addr().unwrap()).unwrap();
        drop(gone);
        here.send(b"anybody?").unwrap();
        let error = DatagramBatch::default().receive(SocketRef::new(here.as_raw_fd())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    }
}
