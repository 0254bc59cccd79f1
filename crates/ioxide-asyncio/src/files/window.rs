//! The bytes of a file that are at hand: a window that begins where the file's position is.
//!
//! Invariants:
//! W1. `data[consumed..]` are the file's bytes from `position` on; nothing else in the window is ever handed out.
//! W2. `ended` says that a read behind the window has just met the end of the file. It is believed once: files grow.

use ioxide_io::Need;
use std::cell::Cell;

/// Bytes read ahead of what was asked for.
pub const READ_AHEAD: usize = 64 << 10;
/// Consumed bytes are thrown away when there are so many of them.
const COMPACT_AT: usize = 64 << 10;
/// A larger buffer is given back.
const SPARE_AT_MOST: usize = 128 << 10;

#[derive(Default)]
pub struct Window {
    data: Vec<u8>,
    consumed: usize,
    position: u64,
    ended: bool,
}

thread_local! {
    /// A buffer that a closed file has left to the next one.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Window {
    /// The file's position.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The position behind the last byte at hand: where reading ahead goes on.
    pub fn end(&self) -> u64 {
        self.position + self.available().len() as u64
    }

    pub fn available(&self) -> &[u8] {
        self.data.get(self.consumed..).unwrap_or(&[])
    }

    /// Whether the bytes at hand are enough; the end of the file is the caller's to know.
    pub fn satisfies(&self, need: Need) -> bool {
        let available = self.available();
        match need {
            Need::Bytes(count) => available.len() >= count,
            Need::All => false,
            Need::Line { carriage_return } => has_line(available, carriage_return),
        }
    }

    /// How many bytes to read for a need.
    pub fn missing(&self, need: Need) -> usize {
        match need {
            Need::Bytes(count) => count.saturating_sub(self.available().len()).max(READ_AHEAD),
            Need::All | Need::Line { .. } => READ_AHEAD,
        }
    }

    /// Hands out at most `room.len()` bytes and moves the position; returns how many.
    pub fn take(&mut self, room: &mut [std::mem::MaybeUninit<u8>]) -> usize {
        let available = self.available();
        let count = available.len().min(room.len());
        for (place, byte) in room.iter_mut().zip(&available[..count]) {
            place.write(*byte);
        }
        self.advance(count);
        count
    }

    /// `count` bytes of the window, or of the file behind it, have been read.
    pub fn advance(&mut self, count: usize) {
        self.position += count as u64;
        self.consumed = (self.consumed + count).min(self.data.len());
        if self.consumed == self.data.len() {
            self.data.clear();
            self.consumed = 0;
        }
    }

    /// Moves the position; what is at hand stays where the new position is inside it.
    pub fn seek(&mut self, position: u64) {
        let forward = position.checked_sub(self.position).and_then(|distance| usize::try_from(distance).ok());
        match forward {
            Some(distance) if distance <= self.available().len() => self.advance(distance),
            _ => self.clear(),
        }
        self.position = position;
    }

    /// Forgets what is at hand: the file has changed.
    pub fn clear(&mut self) {
        self.data.clear();
        self.consumed = 0;
        self.ended = false;
    }

    /// A read behind the window has met the end of the file (W2).
    pub fn met_the_end(&mut self) {
        self.ended = true;
    }

    /// Whether nothing stands behind the window, as far as the last read knew (W2).
    pub fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// The file is closed: what is at hand is forgotten, its memory kept for the next file.
    pub fn retire(&mut self) {
        self.clear();
        let data = std::mem::take(&mut self.data);
        if (1..=SPARE_AT_MOST).contains(&data.capacity()) {
            SPARE.set(data);
        }
    }

    /// Where bytes that follow the window are appended.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.consumed >= COMPACT_AT {
            self.data.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.data.capacity() == 0 {
            self.data = SPARE.take();
        }
        &mut self.data
    }

    /// Bytes that follow the window.
    pub fn append(&mut self, data: Vec<u8>) {
        if self.available().is_empty() {
            (self.data, self.consumed) = (data, 0);
        } else {
            self.room().extend_from_slice(&data);
        }
    }

    /// How many whole lines are at hand.
    pub fn lines(&self, carriage_return: bool) -> usize {
        let available = self.available();
        let feeds = available.iter().filter(|byte| **byte == b'\n').count();
        if !carriage_return {
            return feeds;
        }
        // A carriage return before a line feed is part of it; the last byte may be the first half of such a pair.
        feeds + available.windows(2).filter(|pair| pair[0] == b'\r' && pair[1] != b'\n').count()
    }
}

fn has_line(available: &[u8], carriage_return: bool) -> bool {
    available.contains(&b'\n')
        || (carriage_return && available.iter().rev().skip(1).any(|byte| *byte == b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::MaybeUninit;

    fn window(bytes: &[u8]) -> Window {
        let mut window = Window::default();
        window.room().extend_from_slice(bytes);
        window
    }

    #[test]
    fn bytes_are_handed_out_once_and_in_order() {
        let mut window = window(b"abcdef");
        let mut room = [MaybeUninit::uninit(); 4];
        assert_eq!(window.take(&mut room), 4);
        assert_eq!((window.available(), window.position(), window.end()), (b"ef".as_slice(), 4, 6));
        assert_eq!(window.take(&mut room), 2);
        assert_eq!((window.available(), window.position()), (b"".as_slice(), 6));
    }

    #[test]
    fn seeking_inside_keeps_what_is_at_hand_and_outside_forgets_it() {
        let mut inside = window(b"abcdef");
        inside.seek(2);
        assert_eq!((inside.available(), inside.position()), (b"cdef".as_slice(), 2));
        inside.seek(1);
        assert_eq!((inside.available(), inside.position()), (b"".as_slice(), 1));
    }

    #[test]
    fn lines_end_with_feeds_and_where_asked_with_returns() {
        assert_eq!(window(b"a\nb\r\nc").lines(true), 2);
        assert_eq!(window(b"a\rb\rc").lines(true), 2);
        assert_eq!(window(b"a\rb\rc").lines(false), 0);
        assert!(!window(b"a\r").satisfies(Need::Line { carriage_return: true }));
    }
}
