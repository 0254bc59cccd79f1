//! What is in flight on a ring, and what waits for its turn.
//!
//! Invariants:
//! U1. A job is in a box of its own that nobody touches from its submission to its completion: what its entry points to stays where
//!     it is, also when nobody waits for it any more.
//! U2. No more is in flight than there is room for completions.
//! U3. In a forked child nothing is submitted, reaped or freed that the kernel may still use for the parent.

use super::kernel::{Opcode, Submission};
use super::ring::Ring;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

/// A system call for the kernel to make. Its pointers are good until it has completed (U1).
#[derive(Clone, Copy)]
pub struct Entry {
    pub(crate) opcode: Opcode,
    pub(crate) descriptor: RawFd,
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) offset: u64,
    pub(crate) flags: u32,
    /// Not at once in `submit`, even if it could be.
    pub(crate) by_worker: bool,
}

/// What is done by one system call after the other.
pub trait Job {
    /// The next call.
    fn entry(&mut self) -> Entry;
    /// The call's result; whether that was the last one.
    fn advance(&mut self, result: io::Result<usize>) -> bool;
    /// Whether it may be cut short when nobody waits for anything any more. What writes may not.
    fn may_be_cancelled(&self) -> bool;
}

pub struct Queue<J> {
    ring: Ring,
    process: u32,
    jobs: Vec<Option<Box<J>>>,
    free: Vec<usize>,
    waiting: VecDeque<usize>,
    in_flight: usize,
    closing: bool,
}

const ENTRIES: u32 = 256;
/// The token of what is submitted to cancel something else.
const NOBODY: u64 = u64::MAX;
/// IOSQE_ASYNC
const BY_WORKER: u8 = 1 << 4;

impl<J: Job> Queue<J> {
    /// Fails: where the kernel gives no ring.
    pub fn new() -> io::Result<Queue<J>> {
        Ok(Queue {
            ring: Ring::new(ENTRIES)?,
            process: std::process::id(),
            jobs: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: 0,
            closing: false,
        })
    }

    /// Readable while there is something to `reap`.
    pub fn descriptor(&self) -> RawFd {
        self.ring.descriptor()
    }

    /// Whether the ring is this process's (U3).
    pub fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Takes a job; it starts with the next `submit`.
    pub fn add(&mut self, job: J) {
        let job = Some(Box::new(job));
        let index = match self.free.pop() {
            Some(index) => {
                self.jobs[index] = job;
                index
            }
            None => {
                self.jobs.push(job);
                self.jobs.len() - 1
            }
        };
        self.waiting.push_back(index);
    }

    /// Whether something waits to be submitted.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.ring.has_unsubmitted()
    }

    /// Hands the kernel as much as there is room for.
    pub fn submit(&mut self) -> io::Result<()> {
        loop {
            self.push_waiting();
            self.ring.submit()?;
            if self.waiting.is_empty()
                || self.in_flight >= self.ring.capacity()
                || self.ring.has_unsubmitted()
            {
                return Ok(());
            }
        }
    }

    /// Writes as much into the kernel's queue as there is room for.
    pub(super) fn push_waiting(&mut self) {
        while self.in_flight < self.ring.capacity() // U2
            && let Some(&index) = self.waiting.front()
        {
            let Some(job) = self.jobs[index].as_mut() else { break };
            if !self.ring.push(submission(job.entry(), index as u64)) {
                break;
            }
            self.waiting.pop_front();
            self.in_flight += 1;
        }
    }

    /// Takes what has completed; jobs that are done are appended to `done`, the others wait for their next call.
    pub fn reap(&mut self, done: &mut Vec<Box<J>>) {
        while let Some((token, result)) = self.ring.completed() {
            if token == NOBODY {
                continue;
            }
            let index = token as usize;
            let Some(job) = self.jobs.get_mut(index).and_then(Option::as_mut) else { continue };
            self.in_flight -= 1;
            let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            if job.advance(result) || (self.closing && job.may_be_cancelled()) {
                self.free.push(index);
                done.extend(self.jobs[index].take());
            } else {
                self.waiting.push_back(index);
            }
        }
    }

    /// The ring does not work any more: what the kernel has not got is for somebody else to do, in the order of its coming.
    pub fn give_up(&mut self) -> Vec<Box<J>> {
        let mut left: Vec<usize> = self.ring.take_back().into_iter().map(|token| token as usize).collect();
        left.retain(|index| *index < self.jobs.len()); // not `NOBODY`
        self.in_flight -= left.len();
        left.extend(std::mem::take(&mut self.waiting));
        self.free.extend(&left);
        left.into_iter().filter_map(|index| self.jobs[index].take()).collect()
    }

    /// Whether the kernel has something that it has not completed.
    pub fn has_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Cuts short what may be, and blocks until nothing is in flight; what was writing writes all of it.
    pub fn finish(&mut self, done: &mut Vec<Box<J>>) -> io::Result<()> {
        if !self.is_ours() {
            return Ok(());
        }
        self.closing = true;
        self.drop_waiting(done);
        for index in 0..self.jobs.len() {
            if self.jobs[index].as_ref().is_some_and(|job| job.may_be_cancelled()) {
                let cancel = Entry {
                    opcode: Opcode::Cancel,
                    descriptor: -1,
                    address: index as u64,
                    length: 0,
                    offset: 0,
                    flags: 0,
                    by_worker: false,
                };
                if !self.ring.push(submission(cancel, NOBODY)) {
                    self.ring.submit()?;
                    self.ring.push(submission(cancel, NOBODY));
                }
            }
        }
        while self.in_flight > 0 || self.has_waiting() {
            self.submit()?;
            if self.in_flight > 0 {
                self.ring.wait()?;
            }
            self.reap(done);
        }
        Ok(())
    }

    /// What has not begun and may be left out.
    fn drop_waiting(&mut self, done: &mut Vec<Box<J>>) {
        let jobs = &mut self.jobs;
        self.waiting.retain(|&index| match jobs[index].take_if(|job| job.may_be_cancelled()) {
            Some(job) => {
                done.push(job);
                false
            }
            None => true,
        });
    }
}

impl<J> Drop for Queue<J> {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // U1, U3: memory that the kernel may still write to is not given to anybody else.
            std::mem::forget(std::mem::take(&mut self.jobs));
        }
    }
}

fn submission(entry: Entry, token: u64) -> Submission {
    Submission {
        opcode: entry.opcode as u8,
        flags: if entry.by_worker { BY_WORKER } else { 0 },
        descriptor: entry.descriptor,
        offset: entry.offset,
        address: entry.address,
        length: entry.length,
        operation_flags: entry.flags,
        token,
        ..Submission::default()
    }
}
