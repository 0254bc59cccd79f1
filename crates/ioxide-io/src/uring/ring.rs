//! One ring: the two queues that a process shares with the kernel.
//!
//! Leaves to others: who waits for a completion, and that buffers stay where they are, is `queue`.
//!
//! Invariants:
//! G1. The pointers point into the two mappings, which live as long as the ring does.
//! G2. The submission queue's tail and the completion queue's head are written here only, the other two by the kernel only:
//!     what is written is released, what the other side writes is acquired.
//! G3. A forked child does not have the mappings (MADV_DONTFORK); whoever owns the ring sees to it that it is not used there.

use super::kernel::{Completion, Parameters, Submission, enter, set_up};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Memory that the kernel has given.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

pub(super) struct Ring {
    descriptor: OwnedFd,
    queues: Mapping,
    submissions: Mapping,
    parameters: Parameters,
    /// Written to the queue, and not yet taken by the kernel.
    unsubmitted: u32,
}

const OFFSET_OF_QUEUES: libc::off_t = 0;
const OFFSET_OF_SUBMISSIONS: libc::off_t = 0x1000_0000;

impl Mapping {
    fn of(ring: &OwnedFd, offset: libc::off_t, length: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping of the ring's memory, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let mapping = Mapping { start, length };
        // SAFETY: G1, the whole mapping.
        if unsafe { libc::madvise(mapping.start.as_ptr().cast(), length, libc::MADV_DONTFORK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
    }

    fn number(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: G1; the kernel's offsets are inside the mapping and aligned.
        unsafe { &*self.start.as_ptr().add(offset as usize).cast::<AtomicU32>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `of`, of which nobody has a pointer any more (G1).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl Ring {
    pub fn new(entries: u32) -> io::Result<Ring> {
        let (descriptor, parameters) = set_up(entries)?;
        let of_submissions =
            parameters.sq.seventh as usize + parameters.sq_entries as usize * size_of::<u32>();
        let of_completions =
            parameters.cq.sixth as usize + parameters.cq_entries as usize * size_of::<Completion>();
        let queues = Mapping::of(&descriptor, OFFSET_OF_QUEUES, of_submissions.max(of_completions))?;
        let length = parameters.sq_entries as usize * size_of::<Submission>();
        let submissions = Mapping::of(&descriptor, OFFSET_OF_SUBMISSIONS, length)?;
        Ok(Ring { descriptor, queues, submissions, parameters, unsubmitted: 0 })
    }

    /// Readable while there are completions.
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// How many completions the kernel can hold.
    pub fn capacity(&self) -> usize {
        self.parameters.cq_entries as usize
    }

    /// Writes a submission into the queue; false where there is no room before the next `submit`.
    pub fn push(&mut self, submission: Submission) -> bool {
        let offsets = &self.parameters.sq;
        let (head, tail) = (self.queues.number(offsets.head), self.queues.number(offsets.tail));
        let position = tail.load(Ordering::Relaxed);
        if position.wrapping_sub(head.load(Ordering::Acquire)) >= self.parameters.sq_entries {
            return false;
        }
        let index = position & (self.parameters.sq_entries - 1);
        // SAFETY: G1, G2; the kernel's sizes are powers of two, and it reads the place only after the new tail is seen.
        unsafe { self.submissions.start.as_ptr().cast::<Submission>().add(index as usize).write(submission) };
        self.queues.number(offsets.seventh + index * size_of::<u32>() as u32).store(index, Ordering::Relaxed);
        tail.store(position.wrapping_add(1), Ordering::Release);
        self.unsubmitted += 1;
        true
    }

    /// Hands the queue to the kernel. What it does not take now stays for the next time.
    /// Fails: with an error that is no passing one.
    pub fn submit(&mut self) -> io::Result<()> {
        while self.unsubmitted > 0 {
            match enter(&self.descriptor, self.unsubmitted, 0) {
                Ok(taken) => self.unsubmitted = self.unsubmitted.saturating_sub(taken),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // Too much under way, or no memory at the moment: completions come first.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what the kernel has not taken out of the queue again, which it reads in `submit` only; returns the tokens.
    pub fn take_back(&mut self) -> Vec<u64> {
        let tail = self.queues.number(self.parameters.sq.tail);
        let end = tail.load(Ordering::Relaxed);
        let first = end.wrapping_sub(std::mem::take(&mut self.unsubmitted));
        tail.store(first, Ordering::Release);
        let count = end.wrapping_sub(first);
        (0..count).map(|place| self.token_at(first.wrapping_add(place))).collect()
    }

    fn token_at(&self, position: u32) -> u64 {
        let index = (position & (self.parameters.sq_entries - 1)) as usize;
        // SAFETY: G1; the place was written by `push`, and the kernel only reads it.
        unsafe { (*self.submissions.start.as_ptr().cast::<Submission>().add(index)).token }
    }

    pub fn has_unsubmitted(&self) -> bool {
        self.unsubmitted > 0
    }

    /// Blocks until there is a completion.
    pub fn wait(&mut self) -> io::Result<()> {
        match enter(&self.descriptor, 0, 1) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => Err(error),
            _ => Ok(()),
        }
    }

    /// The next completion: its token and its result.
    pub fn completed(&mut self) -> Option<(u64, i32)> {
        let offsets = &self.parameters.cq;
        let (head, tail) = (self.queues.number(offsets.head), self.queues.number(offsets.tail));
        let position = head.load(Ordering::Relaxed);
        if position == tail.load(Ordering::Acquire) {
            return None;
        }
        let index = (position & (self.parameters.cq_entries - 1)) as usize;
        // SAFETY: G1, G2; the kernel has written the place before the tail that we have seen.
        let completion = unsafe {
            let first = self.queues.start.as_ptr().add(offsets.sixth as usize).cast::<Completion>();
            first.add(index).read()
        };
        head.store(position.wrapping_add(1), Ordering::Release);
        Some((completion.token, completion.result))
    }
}
