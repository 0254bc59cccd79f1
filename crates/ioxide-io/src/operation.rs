//! Operations on files that take several system calls: made by a thread that waits, or step by step by a ring.
//!
//! Invariants:
//! S1. Between `entry` and `advance` an operation does not touch what the entry points to, and nobody moves it: its bytes
//!     are on the heap.
//! S2. Both ways make the same calls and have the same outcome.

use crate::file::FileRef;
use crate::opening::open;
use crate::uring::{Entry, Opcode};
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// What an operation needs before it can run without waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// So many bytes, or the end of the file.
    Bytes(usize),
    /// Everything up to the end of the file.
    All,
    /// A whole line; a carriage return ends one too where `carriage_return` is set.
    Line { carriage_return: bool },
}

pub trait Operation: Send + 'static {
    type Outcome: Send + 'static;
    const OPCODE: Opcode;

    /// How many bytes are read with one call at most; zero where none are.
    fn bytes(&self) -> usize {
        0
    }
    /// All of it, waiting.
    fn run(self) -> Self::Outcome;
    /// The next system call.
    fn entry(&mut self) -> Entry;
    /// What the call returned; the outcome after the last one.
    fn advance(&mut self, result: io::Result<usize>) -> Option<Self::Outcome>;
}

/// Reads from `offset` until a need is met, in pieces of at least `piece` bytes.
pub struct Reading {
    pub file: FileRef,
    /// `None`: at the descriptor's own position, which is for threads only.
    pub offset: Option<u64>,
    pub need: Need,
    pub piece: usize,
    data: Vec<u8>,
    /// Where the piece that is being read ends.
    until: usize,
    room: usize,
}

/// Bytes that `write` took and that the kernel has not got yet.
pub struct Pending {
    /// `None`: at the descriptor's own position.
    pub offset: Option<u64>,
    pub data: Vec<u8>,
}

/// Writes one after the other.
pub struct Writing {
    pub file: FileRef,
    pub pending: Vec<Pending>,
    /// How many are written, and how much of the next one.
    written: usize,
    part: usize,
}

pub struct Syncing {
    pub file: FileRef,
    pub data_only: bool,
}

pub struct Opening {
    pub path: CString,
    pub flags: i32,
    pub mode: u32,
}

/// A ring copies what the page cache has on the loop's thread: this much at a time.
const RING_PIECE: usize = 512 << 10;
/// More than this is left to a worker of the kernel's: copying it, and finding memory for it, takes the loop's time.
pub const SMALL_READ: usize = 64 << 10;
const STREAM_PIECE: usize = 64 << 10;

impl Reading {
    pub fn new(file: FileRef, offset: Option<u64>, need: Need, piece: usize) -> Reading {
        Reading { file, offset, need, piece, data: Vec::new(), until: 0, room: 0 }
    }

    fn is_enough(&self, data: &[u8]) -> bool {
        match self.need {
            Need::All => false,
            Need::Bytes(count) => data.len() >= if self.offset.is_some() { self.piece } else { count },
            Need::Line { carriage_return } => {
                data.contains(&b'\n') || (carriage_return && data.contains(&b'\r'))
            }
        }
    }

    fn most(&self) -> usize {
        if self.need == Need::All { usize::MAX } else { self.piece }
    }
}

impl Operation for Reading {
    /// The bytes, and whether the end of the file stands behind them.
    type Outcome = io::Result<(Vec<u8>, bool)>;
    const OPCODE: Opcode = Opcode::Read;

    fn bytes(&self) -> usize {
        match self.offset {
            Some(offset) => self.most().min(self.file.room_for_the_rest(offset)),
            None => self.piece,
        }
    }

    fn run(mut self) -> Self::Outcome {
        loop {
            let ended = match self.offset {
                Some(offset) => {
                    let position = offset + self.data.len() as u64;
                    let most = self.most();
                    self.file.read_to_vec_at(&mut self.data, position, most)?
                }
                None => {
                    self.data.reserve(STREAM_PIECE);
                    let count = self.file.read(self.data.spare_capacity_mut())?;
                    // SAFETY: the kernel has initialised `count` bytes behind the old length.
                    unsafe { self.data.set_len(self.data.len() + count) };
                    count == 0
                }
            };
            if ended || self.is_enough(&self.data) {
                return Ok((self.data, ended));
            }
        }
    }

    fn entry(&mut self) -> Entry {
        if self.data.len() >= self.until {
            self.until = self.data.len().saturating_add(self.most());
        }
        let offset = self.offset.unwrap_or(0) + self.data.len() as u64;
        if self.room == 0 {
            self.room = self.file.room_for_the_rest(offset);
        }
        let length = (self.until - self.data.len()).min(self.room).min(RING_PIECE);
        self.data.reserve(length);
        let address = self.data.spare_capacity_mut().as_mut_ptr() as u64;
        Entry { by_worker: length > SMALL_READ, ..transfer(Opcode::Read, self.file, address, length, offset) }
    }

    fn advance(&mut self, result: io::Result<usize>) -> Option<Self::Outcome> {
        match result {
            Ok(0) => Some(Ok((std::mem::take(&mut self.data), true))),
            Ok(count) => {
                // SAFETY: S1; the kernel has initialised `count` bytes behind the old length.
                unsafe { self.data.set_len(self.data.len() + count) };
                self.room = self.room.saturating_sub(count).max(STREAM_PIECE);
                let piece_is_read = self.data.len() >= self.until;
                (piece_is_read && self.is_enough(&self.data))
                    .then(|| Ok((std::mem::take(&mut self.data), false)))
            }
            Err(error) => failure(error).map(Err),
        }
    }
}

impl Writing {
    pub fn new(file: FileRef, pending: Vec<Pending>) -> Writing {
        Writing { file, pending, written: 0, part: 0 }
    }

    /// What is left after an error.
    fn rest(&mut self) -> Vec<Pending> {
        let mut rest = self.pending.split_off(self.written.min(self.pending.len()));
        if let Some(first) = rest.first_mut() {
            first.data.drain(..self.part);
            first.offset = first.offset.map(|offset| offset + self.part as u64);
        }
        rest
    }
}

impl Operation for Writing {
    /// Fails: with what is left.
    type Outcome = Result<(), (Vec<Pending>, io::Error)>;
    const OPCODE: Opcode = Opcode::Write;

    fn run(mut self) -> Self::Outcome {
        while let Some(item) = self.pending.get(self.written) {
            // A ring may have written a part, and given up.
            let data = item.data.get(self.part..).unwrap_or(&[]);
            let outcome = match item.offset {
                Some(offset) => self.file.write_all_at(data, offset + self.part as u64),
                None => self.file.write_all(data),
            };
            if let Err((count, error)) = outcome {
                self.part += count;
                return Err((self.rest(), error));
            }
            (self.written, self.part) = (self.written + 1, 0);
        }
        Ok(())
    }

    fn entry(&mut self) -> Entry {
        let (data, offset) = match self.pending.get(self.written) {
            Some(item) => (item.data.get(self.part..).unwrap_or(&[]), item.offset.unwrap_or(0)),
            None => (&[][..], 0),
        };
        let address = data.as_ptr() as u64;
        transfer(Opcode::Write, self.file, address, data.len().min(WRITE_AT_MOST), offset + self.part as u64)
    }

    fn advance(&mut self, result: io::Result<usize>) -> Option<Self::Outcome> {
        let length = self.pending.get(self.written).map_or(0, |item| item.data.len());
        match result {
            Ok(0) if length > self.part => Some(Err((self.rest(), io::Error::from_raw_os_error(libc::EIO)))),
            Ok(count) => {
                self.part += count;
                if self.part >= length {
                    (self.written, self.part) = (self.written + 1, 0);
                }
                (self.written >= self.pending.len()).then_some(Ok(()))
            }
            Err(error) => failure(error).map(|error| Err((self.rest(), error))),
        }
    }
}

/// As much as the kernel writes with one call, rounded.
const WRITE_AT_MOST: usize = 1 << 30;

impl Operation for Syncing {
    type Outcome = io::Result<()>;
    const OPCODE: Opcode = Opcode::Sync;

    fn run(self) -> io::Result<()> {
        self.file.sync(self.data_only)
    }

    fn entry(&mut self) -> Entry {
        let flags = u32::from(self.data_only); // IORING_FSYNC_DATASYNC
        Entry { flags, ..transfer(Opcode::Sync, self.file, 0, 0, 0) }
    }

    fn advance(&mut self, result: io::Result<usize>) -> Option<io::Result<()>> {
        match result {
            Ok(_) => Some(Ok(())),
            Err(error) => failure(error).map(Err),
        }
    }
}

impl Operation for Opening {
    type Outcome = io::Result<OwnedFd>;
    const OPCODE: Opcode = Opcode::Open;

    /// A signal is the main thread's business: the open of a FIFO goes on.
    fn run(self) -> io::Result<OwnedFd> {
        loop {
            match open(&self.path, self.flags, self.mode) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    fn entry(&mut self) -> Entry {
        Entry {
            opcode: Opcode::Open,
            descriptor: libc::AT_FDCWD,
            address: self.path.as_ptr() as u64,
            length: self.mode,
            offset: 0,
            flags: self.flags as u32,
            // At once, the kernel would open one end of a FIFO without waiting for the other.
            by_worker: true,
        }
    }

    fn advance(&mut self, result: io::Result<usize>) -> Option<io::Result<OwnedFd>> {
        match result {
            // SAFETY: the kernel has just opened it and nobody else knows it.
            Ok(descriptor) => Some(Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })),
            Err(error) => failure(error).map(Err),
        }
    }
}

fn transfer(opcode: Opcode, file: FileRef, address: u64, length: usize, offset: u64) -> Entry {
    let descriptor = file.descriptor();
    Entry { opcode, descriptor, address, length: length as u32, offset, flags: 0, by_worker: false }
}

/// `None` for an error that asks to try again.
fn failure(error: io::Error) -> Option<io::Error> {
    (!matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))).then_some(error)
}
