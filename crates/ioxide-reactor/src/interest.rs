//! What one wants to know about a descriptor, and what the kernel answered.
//!
//! The bits are epoll's own; their meaning in terms of reading and writing is asyncio's, which lives
//! in `selectors.EpollSelector`: an error or a hang-up wakes the reader and the writer alike.

use std::ops::BitOr;

const READ_BIT: u32 = libc::EPOLLIN as u32;
const WRITE_BIT: u32 = libc::EPOLLOUT as u32;
const HANGUP_BITS: u32 = (libc::EPOLLHUP | libc::EPOLLRDHUP) as u32;
const ERROR_BIT: u32 = libc::EPOLLERR as u32;

/// A set of directions to watch; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interest(u32);

impl Interest {
    /// Wants to know when reading makes progress.
    pub const READABLE: Self = Self(READ_BIT);
    /// Wants to know when writing makes progress.
    pub const WRITABLE: Self = Self(WRITE_BIT);
    /// Wants to know both.
    pub const BOTH: Self = Self(READ_BIT | WRITE_BIT);

    /// Whether reading is in the set.
    #[inline]
    pub const fn is_readable(self) -> bool {
        self.0 & READ_BIT != 0
    }

    /// Whether writing is in the set.
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.0 & WRITE_BIT != 0
    }

    /// The directions of either set.
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is left without the directions of `other`; `None` when nothing is.
    #[inline]
    pub const fn without(self, other: Self) -> Option<Self> {
        match self.0 & !other.0 {
            0 => None,
            left => Some(Self(left)),
        }
    }

    /// The epoll bits of the set.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Interest {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

/// What the kernel reported about a descriptor. It may say more than was asked for: errors and
/// hang-ups are always reported, so the owner compares it with the interest it has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Readiness(u32);

impl Readiness {
    /// Wraps the bits of an `epoll_event`.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits as the kernel gave them.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether a reader should try: there is data, or an end or an error for it to find.
    #[inline]
    pub const fn is_readable(self) -> bool {
        self.0 & !WRITE_BIT != 0
    }

    /// Whether a writer should try: there is room, or an end or an error for it to find.
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.0 & !READ_BIT != 0
    }

    /// Whether the other side hung up.
    #[inline]
    pub const fn is_hangup(self) -> bool {
        self.0 & HANGUP_BITS != 0
    }

    /// Whether the descriptor has a pending error.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.0 & ERROR_BIT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_and_shrink() {
        const BOTH: Interest = Interest::READABLE.with(Interest::WRITABLE);
        assert_eq!(BOTH, Interest::BOTH);
        assert_eq!(Interest::READABLE | Interest::WRITABLE, Interest::BOTH);
        assert!(BOTH.is_readable() && BOTH.is_writable());
        assert_eq!(BOTH.without(Interest::READABLE), Some(Interest::WRITABLE));
        assert_eq!(BOTH.without(Interest::BOTH), None);
        assert_eq!(Interest::READABLE.without(Interest::WRITABLE), Some(Interest::READABLE));
        assert!(!Interest::READABLE.is_writable() && !Interest::WRITABLE.is_readable());
    }

    #[test]
    fn data_and_room_are_told_apart() {
        let data = Readiness::from_bits(READ_BIT);
        assert!(data.is_readable() && !data.is_writable() && !data.is_hangup() && !data.is_error());
        let room = Readiness::from_bits(WRITE_BIT);
        assert!(room.is_writable() && !room.is_readable());
    }

    #[test]
    fn hangup_and_error_wake_both_sides_as_in_selectors() {
        for bits in [libc::EPOLLHUP as u32, libc::EPOLLRDHUP as u32, ERROR_BIT] {
            let readiness = Readiness::from_bits(bits);
            assert!(readiness.is_readable() && readiness.is_writable());
            assert_eq!(readiness.is_error(), bits == ERROR_BIT);
            assert_eq!(readiness.is_hangup(), bits != ERROR_BIT);
        }
    }
}
