//! What a transport has still to send, in the order it was written.
//!
//! The queue owns its buffers and gives each back when its last byte is in the kernel, because dropping
//! a buffer may be more than freeing memory. When to flush, and what a failed flush means, is the
//! transport's business.
//!
//! Invariants:
//! Q1. `bytes` is the sum of what remains of every chunk.
//! Q2. Bytes leave in the order they were pushed, each once, whatever the kernel takes at a time.
//! Q3. Every buffer pushed is released once, by `flush` or by `clear`, or dropped with the queue.
//! Q4. Where there is no `first`, `rest` is empty: a queue of one buffer, which most are, allocates nothing.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// How many buffers go into one system call; more would seldom fit into a socket's buffer.
const GATHERED_BUFFERS: usize = 64;
/// Room for so many buffers stays with a drained queue.
const RETAINED_BUFFERS: usize = 32;

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing is left.
    Drained,
    /// The kernel takes no more for now: try again when the descriptor is writable.
    Partial,
}

struct Chunk<B> {
    buffer: B,
    /// How many bytes of `buffer` are in the kernel already.
    sent: usize,
}

impl<B: AsRef<[u8]>> Chunk<B> {
    #[inline]
    fn remaining(&self) -> &[u8] {
        self.buffer.as_ref().get(self.sent..).unwrap_or_default()
    }
}

/// The unsent buffers of one descriptor. The bytes of a buffer must not change while it is in the queue.
pub struct WriteQueue<B> {
    first: Option<Chunk<B>>,
    #[expect(
        clippy::box_collection,
        reason = "an idle connection has no rest, and keeps one word for it instead of four"
    )]
    rest: Option<Box<VecDeque<Chunk<B>>>>,
    bytes: usize,
}

impl<B: AsRef<[u8]>> WriteQueue<B> {
    /// An empty queue; it allocates with the second buffer.
    pub const fn new() -> Self {
        Self { first: None, rest: None, bytes: 0 }
    }

    /// Appends a buffer.
    #[inline]
    pub fn push(&mut self, buffer: B) {
        self.push_remainder(buffer, 0);
    }

    /// Appends a buffer of which the first `sent` bytes are in the kernel already.
    #[inline]
    pub fn push_remainder(&mut self, buffer: B, sent: usize) {
        let chunk = Chunk { buffer, sent };
        self.bytes += chunk.remaining().len();
        if self.first.is_none() {
            self.first = Some(chunk);
        } else {
            self.rest.get_or_insert_default().push_back(chunk);
        }
    }

    /// How many bytes are still to be sent.
    #[inline]
    pub const fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no buffer; an empty one counts until it is released.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The buffers in the queue, oldest first.
    pub fn buffers(&self) -> impl Iterator<Item = &B> {
        self.chunks().map(|chunk| &chunk.buffer)
    }

    /// What remains of every buffer, oldest first.
    pub fn remaining(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks().map(Chunk::remaining)
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk<B>> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// Takes the oldest buffer out (Q4). Its bytes are the caller's to count.
    #[inline]
    fn pop(&mut self) -> Option<B> {
        let oldest = self.first.take()?;
        self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
        Some(oldest.buffer)
    }

    /// Writes as much as `sink` takes without waiting, and hands every buffer that is through to
    /// `release`, which must not reach this queue.
    ///
    /// Fails with the sink's error, but for `WouldBlock`, which is `Partial`, and `Interrupted`, which
    /// is repeated. What was not written by then stays in the queue.
    pub fn flush(&mut self, sink: &mut impl Write, release: &mut impl FnMut(B)) -> io::Result<Progress> {
        self.flush_by(usize::MAX, sink, release)
    }

    /// As `flush`, but a write gathers buffers up to `limit` bytes only: a longer one goes by itself.
    pub fn flush_by(
        &mut self,
        limit: usize,
        sink: &mut impl Write,
        release: &mut impl FnMut(B),
    ) -> io::Result<Progress> {
        loop {
            self.release_sent(release);
            if self.first.is_none() {
                if let Some(rest) = &mut self.rest {
                    rest.shrink_to(RETAINED_BUFFERS);
                }
                return Ok(Progress::Drained);
            }
            let (offered, taken) = match self.write_once(limit, sink) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Partial),
                Err(error) => return Err(error),
            };
            self.advance(taken, release);
            // The kernel took what it had room for: asking again would only cost a system call.
            if taken < offered {
                return Ok(Progress::Partial);
            }
        }
    }

    /// Returns how many bytes were offered to `sink` and how many it took.
    #[inline]
    fn write_once(&self, limit: usize, sink: &mut impl Write) -> io::Result<(usize, usize)> {
        if let Some(only) = &self.first
            && self.rest.as_ref().is_none_or(|rest| rest.is_empty())
        {
            let remaining = only.remaining();
            return Ok((remaining.len(), sink.write(remaining)?));
        }
        self.write_gathered(limit, sink)
    }

    fn write_gathered(&self, limit: usize, sink: &mut impl Write) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); GATHERED_BUFFERS];
        let mut offered = 0;
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(self.chunks()) {
            let remaining = chunk.remaining();
            if count > 0 && offered + remaining.len() > limit {
                break;
            }
            offered += remaining.len();
            count += 1;
            *slice = IoSlice::new(remaining);
        }
        Ok((offered, sink.write_vectored(&slices[..count])?))
    }

    /// Notes that the first `taken` bytes have left (Q1, Q2).
    #[inline]
    fn advance(&mut self, mut taken: usize, release: &mut impl FnMut(B)) {
        self.bytes = self.bytes.saturating_sub(taken);
        while taken > 0 {
            let Some(first) = &mut self.first else { return };
            let remaining = first.remaining().len();
            if taken < remaining {
                first.sent += taken;
                return;
            }
            taken -= remaining;
            if let Some(buffer) = self.pop() {
                release(buffer);
            }
        }
    }

    /// Releases the buffers at the front of which nothing remains: the ones that were pushed empty.
    #[inline]
    fn release_sent(&mut self, release: &mut impl FnMut(B)) {
        while self.first.as_ref().is_some_and(|first| first.remaining().is_empty()) {
            if let Some(buffer) = self.pop() {
                release(buffer);
            }
        }
    }

    /// Gives up what was not sent; every buffer goes to `release`.
    pub fn clear(&mut self, release: &mut impl FnMut(B)) {
        self.bytes = 0;
        let chunks = self.first.take().into_iter().chain(self.rest.take().into_iter().flat_map(|rest| *rest));
        chunks.for_each(|chunk| release(chunk.buffer));
    }
}

impl<B: AsRef<[u8]>> Default for WriteQueue<B> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::socket::SocketRef;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    /// Reads what has arrived on a non-blocking stream.
    fn arrived(stream: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        bytes
    }

    #[test]
    fn buffers_leave_in_order_and_are_released() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut socket = SocketRef::new(near.as_raw_fd());
        let mut queue = WriteQueue::new();
        let mut released = Vec::new();
        for buffer in ["", "head ", "", "body", ""] {
            queue.push(buffer.to_owned());
        }
        queue.push_remainder("xx tail".to_owned(), 2);
        assert_eq!((queue.len_bytes(), queue.buffers().count()), (14, 6));
        let progress = queue.flush(&mut socket, &mut |buffer| released.push(buffer)).unwrap();
        assert_eq!(progress, Progress::Drained);
        assert_eq!(released, ["", "head ", "", "body", "", "xx tail"]);
        assert!(queue.is_empty() && queue.len_bytes() == 0);
        assert_eq!(arrived(&mut far), b"head body tail");
    }

    #[test]
    fn an_empty_queue_and_one_of_empty_buffers_are_drained_without_a_call() {
        // A descriptor that is none: a system call would fail.
        let mut nowhere = SocketRef::new(-1);
        let mut queue = WriteQueue::new();
        let mut released = 0;
        assert_eq!(queue.flush(&mut nowhere, &mut |_| released += 1).unwrap(), Progress::Drained);
        queue.push(Vec::new());
        queue.push_remainder(b"sent".to_vec(), 4);
        assert!(!queue.is_empty() && queue.len_bytes() == 0);
        assert_eq!(queue.flush(&mut nowhere, &mut |_| released += 1).unwrap(), Progress::Drained);
        assert_eq!(released, 2);
    }

    #[test]
    fn random_buffers_pass_a_small_socket_unharmed() {
        let mut random = Random::new(7);
        let (near, mut far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut socket = SocketRef::new(near.as_raw_fd());
        let mut queue: WriteQueue<Vec<u8>> = WriteQueue::new();
        let (mut pushed, mut received) = (Vec::new(), Vec::new());
        let (mut buffers, mut released, mut partial) = (0, 0, 0);
        for _ in 0..400 {
            for _ in 0..random.below(150) {
                let magnitude = random.below(15);
                let length = random.below(1 << magnitude);
                let buffer: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
                pushed.extend_from_slice(&buffer);
                queue.push(buffer);
                buffers += 1;
            }
            partial +=
                u32::from(queue.flush(&mut socket, &mut |_| released += 1).unwrap() == Progress::Partial);
            if random.below(3) == 0 {
                received.extend(arrived(&mut far));
            } else {
                let mut some = [0; 5_000];
                let count = far.read(&mut some).unwrap_or_default();
                received.extend_from_slice(&some[..count]);
            }
            assert!(received.len() + queue.len_bytes() <= pushed.len());
            assert_eq!(queue.buffers().count(), buffers - released);
        }
        while queue.flush(&mut socket, &mut |_| released += 1).unwrap() == Progress::Partial {
            received.extend(arrived(&mut far));
        }
        received.extend(arrived(&mut far));
        assert!(partial > 0, "the socket was never full: the test tested nothing");
        assert_eq!((released, queue.len_bytes()), (buffers, 0));
        assert!(received == pushed, "the bytes that arrived are not the bytes that were pushed");
    }

    #[test]
    fn a_full_socket_keeps_the_rest_and_a_dead_one_is_an_error() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut socket = SocketRef::new(near.as_raw_fd());
        let mut queue = WriteQueue::new();
        let mut released = Vec::new();
        queue.push(vec![1; 8 << 20]);
        queue.push(vec![2; 3]);
        for _ in 0..2 {
            let progress = queue.flush(&mut socket, &mut |buffer| released.push(buffer)).unwrap();
            assert_eq!(progress, Progress::Partial);
        }
        let left = queue.len_bytes();
        assert!(left > 3 && left < (8 << 20) + 3 && released.is_empty());
        drop(far);
        let error = queue.flush(&mut socket, &mut |buffer| released.push(buffer)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        assert_eq!(queue.len_bytes(), left);
        queue.clear(&mut |buffer| released.push(buffer));
        assert_eq!(released.iter().map(Vec::len).collect::<Vec<_>>(), [8 << 20, 3]);
        assert!(queue.is_empty() && queue.len_bytes() == 0);
    }

    #[test]
    fn a_pipe_is_a_sink_too() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let mut queue = WriteQueue::new();
        (0..3 * GATHERED_BUFFERS).for_each(|index| queue.push(vec![index as u8; 2]));
        assert_eq!(queue.flush(&mut writer, &mut drop).unwrap(), Progress::Drained);
        drop(writer);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, (0..3 * GATHERED_BUFFERS).flat_map(|index| [index as u8; 2]).collect::<Vec<_>>());
    }

    #[test]
    fn a_limited_flush_keeps_small_writes_whole() {
        struct Lengths(Vec<usize>);
        impl Write for Lengths {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.0.push(data.len());
                Ok(data.len())
            }
            fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
                self.0.push(buffers.iter().map(|buffer| buffer.len()).sum());
                Ok(self.0[self.0.len() - 1])
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut queue = WriteQueue::new();
        for length in [3, 4, 5, 30, 1, 9, 2] {
            queue.push(vec![0; length]);
        }
        assert_eq!(queue.remaining().map(<[u8]>::len).sum::<usize>(), queue.len_bytes());
        let mut lengths = Lengths(Vec::new());
        assert_eq!(queue.flush_by(10, &mut lengths, &mut drop).unwrap(), Progress::Drained);
        assert_eq!(lengths.0, [7, 5, 30, 10, 2]);
    }

    #[test]
    fn a_drained_queue_keeps_little_memory() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut queue = WriteQueue::new();
        (0..10_000).for_each(|_| queue.push(b"".to_vec()));
        let progress = queue.flush(&mut SocketRef::new(near.as_raw_fd()), &mut drop).unwrap();
        assert_eq!(progress, Progress::Drained);
        assert!(queue.rest.is_some_and(|rest| rest.capacity() <= RETAINED_BUFFERS));
    }
}
