//! Reading: what is at hand, what the page cache has, and what only the disk can tell.

use super::super::fairness;
use super::super::ring::submit_operation;
use super::super::window::READ_AHEAD;
use super::{Access, RawFile, need_of};
use crate::work::submit;
use ioxide_cpython::buffer::Buffer;
use ioxide_cpython::detach::without_gil;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::methods::{Arguments, Receiver, Signature};
use ioxide_cpython::value::{bytes, bytes_filled_by, integer};
use ioxide_cpython::{Any, Object, Raised, Result, none_object};
use ioxide_io::operation::Reading;
use ioxide_io::{FileRef, Need, Now, Operation, Storage};
use std::io;
use std::mem::MaybeUninit;

/// Bytes that one operation copies out of the page cache on the loop's thread: more takes milliseconds where the kernel reads
/// ahead meanwhile, and a trip to the pool costs less than copying it.
const INLINE_AT_MOST: usize = 128 << 10;
/// The page cache has whole pages: where fewer bytes come than were asked for and the last is not a page's, the file ends.
const PAGE: u64 = 4096;

impl RawFile {
    pub(super) fn ready(&self, need: &Any) -> Result<bool> {
        let (core, need, file) = (self.core(), need_of(need)?, self.file()?);
        if !core.readable.get() {
            return Ok(true); // the operation itself says what is wrong
        }
        core.window.borrow_mut().take_end(); // what an earlier operation knew
        let mut copied = 0;
        loop {
            if core.window.borrow().satisfies(need) {
                return Ok(true);
            }
            let missing = core.window.borrow().missing(need);
            if copied + missing > INLINE_AT_MOST && core.access.get() == Access::Cached {
                return Ok(false);
            }
            match self.append_now(file, missing)? {
                Now::Done(0) => {
                    core.window.borrow_mut().met_the_end();
                    return Ok(true);
                }
                Now::Done(count) if count < missing && self.ends_inside_a_page() => {
                    core.window.borrow_mut().met_the_end();
                    return Ok(true);
                }
                Now::Done(count) => copied += count,
                Now::WouldBlock => return Ok(false),
                Now::Unsupported => {
                    if !self.turns_out_to_be_in_memory(file) {
                        return Ok(false);
                    }
                }
            }
        }
    }

    pub(super) fn at_hand(&self, need: &Any) -> Result<bool> {
        Ok(self.core().descriptor.get() >= 0 && !fairness::is_overdue() && self.ready(need)?)
    }

    /// Appends to the window what can be had now; zero bytes are the end of the file.
    pub(super) fn append_now(&self, file: FileRef, most: usize) -> Result<Now<usize>> {
        let core = self.core();
        let mut window = core.window.borrow_mut();
        let end = window.end();
        let data = window.room();
        data.reserve(most);
        let room = data.spare_capacity_mut();
        let length = room.len().min(most);
        let outcome = match core.access.get() {
            Access::Cached => file.read_at_now(&mut room[..length], end),
            Access::Resident if core.seekable.get() => file.read_at(&mut room[..length], end).map(Now::Done),
            Access::Resident => file.read(&mut room[..length]).map(Now::Done),
            Access::Waiting => Ok(Now::WouldBlock),
        };
        if let Ok(Now::Done(count)) = outcome {
            // SAFETY: the kernel has initialised `count` bytes behind the old length.
            unsafe { data.set_len(data.len() + count) };
        }
        outcome.map_err(|error| raise_os_error(&error))
    }

    /// Whether the bytes at hand, the last of which came from the page cache, end where a page does not.
    fn ends_inside_a_page(&self) -> bool {
        let core = self.core();
        core.access.get() == Access::Cached && core.window.borrow().end() % PAGE != 0
    }

    /// The file system has no way to answer at once: because it never waits, or because it does not say.
    fn turns_out_to_be_in_memory(&self, file: FileRef) -> bool {
        let in_memory = file.storage() == Storage::Memory;
        self.core().access.set(if in_memory { Access::Resident } else { Access::Waiting });
        in_memory
    }

    /// Reads on the pool until the need is met, then appends to the window.
    pub(super) fn fetch(&self, need: &Any) -> Result<Object> {
        let (core, need, file) = (self.core(), need_of(need)?, self.file()?);
        let (end, missing) = {
            let window = core.window.borrow();
            (window.end(), window.missing(need))
        };
        let seekable = core.seekable.get();
        let this = self.to_object();
        let reading = Reading::new(file, seekable.then_some(end), need, missing);
        let finish = move |outcome: io::Result<(Vec<u8>, bool)>| {
            let (data, ended) = outcome.map_err(|error| raise_os_error(&error))?;
            // SAFETY: an instance of the class; `self` was one.
            let this = unsafe { RawFile::receive(this.as_ptr()) }?;
            let mut window = this.core().window.borrow_mut();
            // A cancelled operation's bytes come when the file is somewhere else by now; a pipe's must not be lost.
            if window.end() == end || !seekable {
                window.append(data);
                // Asking a terminal or a pipe a second time would wait for somebody again.
                if ended {
                    window.met_the_end();
                }
            }
            Ok(none_object())
        };
        match seekable {
            true => submit_operation(reading, finish),
            // Who waits for somebody else waits in a thread, of which a cancelled read of a pipe may keep one.
            false => submit(move || reading.run(), finish),
        }
    }

    pub(super) fn lines(&self, need: &Any) -> Result<Object> {
        let carriage_return = matches!(need_of(need)?, Need::Line { carriage_return: true });
        let lines = self.core().window.borrow().lines(carriage_return);
        integer(lines as i64)
    }

    /// Fills `room`: from the window, or from the file, waiting if nothing else is left.
    pub(super) fn receive_into(&self, room: &mut [MaybeUninit<u8>]) -> Result<usize> {
        let (core, file) = (self.core(), self.file()?);
        self.check_readable()?;
        self.write_pending()?;
        if room.is_empty() {
            return Ok(0);
        }
        if !core.window.borrow().available().is_empty() {
            return Ok(core.window.borrow_mut().take(room));
        }
        if core.window.borrow_mut().take_end() {
            return Ok(0);
        }
        let position = core.window.borrow().position();
        let seekable = core.seekable.get();
        let at_once = match core.access.get() {
            Access::Cached => file.read_at_now(room, position),
            Access::Resident | Access::Waiting => Ok(Now::WouldBlock),
        };
        let count = match at_once {
            Ok(Now::Done(count)) => Ok(count),
            Ok(_) => without_gil(|| if seekable { file.read_at(room, position) } else { file.read(room) }),
            Err(error) => Err(error),
        };
        let count = count.map_err(|error| raise_os_error(&error))?;
        core.window.borrow_mut().advance(count);
        Ok(count)
    }

    pub(super) fn readinto(&self, buffer: &Any) -> Result<Object> {
        let mut view = Buffer::writable(buffer)?;
        integer(self.receive_into(view.as_uninitialized())? as i64)
    }

    pub(super) fn read(&self, arguments: Arguments<'_>) -> Result<Object> {
        const READ: Signature<1> =
            Signature { function: "read", names: ["size"], required: 0, positional: 1 };
        let [size] = READ.bind(arguments)?;
        let size = match size.filter(|size| !size.is_none()) {
            Some(size) => size.to_i64()?,
            None => -1,
        };
        let Ok(size) = usize::try_from(size) else { return self.readall() };
        match bytes_filled_by(size, |room| self.receive_into(room).map(Some))? {
            Some(data) => Ok(data),
            None => bytes(b""),
        }
    }

    pub(super) fn readall(&self) -> Result<Object> {
        let core = self.core();
        self.file()?;
        self.check_readable()?;
        if core.window.borrow_mut().take_end() {
            let all = bytes(core.window.borrow().available())?;
            let mut window = core.window.borrow_mut();
            let length = window.available().len();
            window.advance(length);
            return Ok(all);
        }
        let mut data = Vec::new();
        loop {
            let room_wanted = self.core().window.borrow().available().len().max(READ_AHEAD);
            data.reserve(room_wanted);
            let count = self.receive_into(data.spare_capacity_mut())?;
            if count == 0 {
                return bytes(&data);
            }
            // SAFETY: `count` bytes behind the old length have been initialised.
            unsafe { data.set_len(data.len() + count) };
        }
    }

    pub(super) fn pread_now(&self, arguments: Arguments<'_>) -> Result<Object> {
        let (file, count, offset) = self.positional(arguments)?;
        let core = self.core();
        if count > INLINE_AT_MOST && core.access.get() == Access::Cached {
            return Ok(none_object());
        }
        let mut blocked = false;
        let data = bytes_filled_by(count, |room| {
            let outcome = match core.access.get() {
                Access::Cached => file.read_at_now(room, offset),
                Access::Resident => file.read_at(room, offset).map(Now::Done),
                Access::Waiting => Ok(Now::WouldBlock),
            };
            if matches!(outcome, Ok(Now::Unsupported)) {
                self.turns_out_to_be_in_memory(file);
            }
            let ended = |read| match file.length_and_device() {
                Ok((length, _)) => offset + read as u64 >= length,
                Err(_) => false,
            };
            match outcome.map_err(|error| raise_os_error(&error))? {
                // Fewer bytes than asked for, in the middle of the file: the rest is on the disk.
                Now::Done(read) if read == room.len() || read == 0 || ended(read) => Ok(Some(read)),
                _ => {
                    blocked = true;
                    Ok(None)
                }
            }
        })?;
        Ok(if blocked { none_object() } else { data.unwrap_or_else(none_object) })
    }

    pub(super) fn pread(&self, arguments: Arguments<'_>) -> Result<Object> {
        let (file, count, offset) = self.positional(arguments)?;
        let reading = Reading::new(file, Some(offset), Need::Bytes(count), count);
        submit_operation(reading, |outcome| bytes(&outcome.map_err(|error| raise_os_error(&error))?.0))
    }

    /// The file, how many bytes and where.
    pub(super) fn positional(&self, arguments: Arguments<'_>) -> Result<(FileRef, usize, u64)> {
        const PREAD: Signature<2> =
            Signature { function: "pread", names: ["size", "offset"], required: 2, positional: 2 };
        let [count, offset] = PREAD.bind(arguments)?;
        let invalid = || raise_os_error(&io::Error::from_raw_os_error(22));
        let count = usize::try_from(count.map_or(Ok(0), Any::to_i64)?)
            .map_err(|_| Raised::value_error("size must not be negative"))?;
        let offset = u64::try_from(offset.map_or(Ok(0), Any::to_i64)?).map_err(|_| invalid())?;
        Ok((self.file()?, count, offset))
    }
}
