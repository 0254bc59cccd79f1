//! Every system call on an open file: what the page cache can answer at once, and the calls that block.
//!
//! `*_now` never wait for a disk: their answer may be [`Now::WouldBlock`], or [`Now::Unsupported`] where the file system
//! cannot tell. The others block and belong on a thread of the pool.
//!
//! Invariants:
//! F1. A descriptor is borrowed for the length of a call; its owner keeps it open meanwhile.
//! F2. Interrupted calls are repeated.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use crate::sys::release::reads_now_truly;
use crate::sys::transfer;

/// An answer that did not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Now<T> {
    Done(T),
    /// It would have to wait for the disk.
    WouldBlock,
    /// The file system or the kernel cannot answer without waiting, or does not say.
    Unsupported,
}

/// A file whose descriptor belongs to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRef(RawFd);

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In memory (tmpfs, ramfs): no call waits for a disk.
    Memory,
    /// On a disk of this machine: closing and asking for attributes of an open file do not wait.
    Disk,
    /// On another machine, in another process, or unknown: any call may wait.
    Remote,
}

impl FileRef {
    pub const fn new(fd: RawFd) -> Self {
        Self(fd)
    }

    pub(crate) const fn descriptor(self) -> RawFd {
        self.0
    }

    /// Reads at `offset` what the page cache has: at most `buffer.len()` bytes, zero at the end of the file.
    pub fn read_at_now(self, buffer: &mut [MaybeUninit<u8>], offset: u64) -> io::Result<Now<usize>> {
        if !reads_now_truly() {
            return Ok(Now::Unsupported);
        }
        let part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        now(transfer(|| {
            // SAFETY: F1; the kernel writes at most `iov_len` bytes, no uninitialised ones, into `buffer`.
            unsafe { libc::preadv2(self.0, &part, 1, offset as libc::off_t, libc::RWF_NOWAIT) }
        }))
    }

    /// Reads at `offset`, waiting for the disk.
    pub fn read_at(self, buffer: &mut [MaybeUninit<u8>], offset: u64) -> io::Result<usize> {
        // SAFETY: as above.
        transfer(|| unsafe {
            libc::pread(self.0, buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t)
        })
    }

    /// Reads at the descriptor's own position, waiting for what it is: pipes and terminals have no other.
    pub fn read(self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        // SAFETY: as above.
        transfer(|| unsafe { libc::read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    /// Appends to `data` what stands at `offset`, at most `most` bytes; returns whether that was up to the end of the file.
    pub fn read_to_vec_at(self, data: &mut Vec<u8>, offset: u64, most: usize) -> io::Result<bool> {
        let begun = data.len();
        let mut room_wanted = self.room_for_the_rest(offset);
        while data.len() - begun < most {
            let missing = most - (data.len() - begun);
            data.reserve(missing.min(room_wanted));
            room_wanted = READ_AT_LEAST;
            let position = offset + (data.len() - begun) as u64;
            let room = data.spare_capacity_mut();
            let room_length = room.len().min(missing);
            let count = self.read_at(&mut room[..room_length], position)?;
            if count == 0 {
                return Ok(true);
            }
            // SAFETY: the kernel has initialised `count` bytes behind the old length.
            unsafe { data.set_len(data.len() + count) };
        }
        Ok(false)
    }

    /// Enough for what stands behind `offset` and to see that nothing follows it: a large buffer for a small file costs
    /// more than the file. Files of /proc do not say how long they are.
    pub(crate) fn room_for_the_rest(self, offset: u64) -> usize {
        let rest = self.length_and_device().ok().and_then(|(length, _)| length.checked_sub(offset));
        match rest {
            None | Some(0) => READ_AT_LEAST,
            Some(rest) => usize::try_from(rest).map_or(READ_AT_MOST, |rest| (rest + 1).min(READ_AT_MOST)),
        }
    }

    /// Writes all of `data` at `offset`, waiting. A file opened for appending writes at its end, whatever the offset.
    /// Fails: with how many bytes were written before the error.
    pub fn write_all_at(self, data: &[u8], offset: u64) -> Result<(), (usize, io::Error)> {
        self.write_all_by(data, |rest, written| {
            // SAFETY: F1; the kernel reads at most `rest.len()` bytes.
            transfer(|| unsafe {
                let offset = (offset + written as u64) as libc::off_t;
                libc::pwrite(self.0, rest.as_ptr().cast(), rest.len(), offset)
            })
        })
    }

    /// Writes all of `data` at the descriptor's own position, waiting.
    /// Fails: with how many bytes were written before the error.
    pub fn write_all(self, data: &[u8]) -> Result<(), (usize, io::Error)> {
        self.write_all_by(data, |rest, _| {
            // SAFETY: as above.
            transfer(|| unsafe { libc::write(self.0, rest.as_ptr().cast(), rest.len()) })
        })
    }

    fn write_all_by(
        self,
        data: &[u8],
        mut write: impl FnMut(&[u8], usize) -> io::Result<usize>,
    ) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < data.len() {
            match write(&data[written..], written) {
                Ok(0) => return Err((written, io::Error::from_raw_os_error(libc::EIO))),
                Ok(count) => written += count,
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    /// Waits until the file's data, and its attributes unless `data_only`, are on the disk.
    pub fn sync(self, data_only: bool) -> io::Result<()> {
        let call = if data_only { libc::fdatasync } else { libc::fsync };
        // SAFETY: F1; the calls take no pointer.
        transfer(|| unsafe { call(self.0) as libc::ssize_t }).map(drop)
    }

    /// The descriptor's own position; `None` where it has none: pipes, sockets, terminals.
    pub fn position(self) -> Option<u64> {
        // SAFETY: F1; the call takes no pointer.
        u64::try_from(unsafe { libc::lseek(self.0, 0, libc::SEEK_CUR) }).ok()
    }

    /// How long the file is, and which device it is on.
    pub fn length_and_device(self) -> io::Result<(u64, u64)> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: F1; the kernel fills `status` when it succeeds.
        unsafe {
            if libc::fstat(self.0, status.as_mut_ptr()) < 0 {
                return Err(io::Error::last_os_error());
            }
            let status = status.assume_init();
            Ok((status.st_size.max(0) as u64, status.st_dev))
        }
    }

    /// Where the file's bytes are; [`Storage::Remote`] where the kernel does not say.
    pub fn storage(self) -> Storage {
        let mut status = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: F1; the kernel fills `status` when it succeeds.
        let kind = unsafe {
            if libc::fstatfs(self.0, status.as_mut_ptr()) < 0 {
                return Storage::Remote;
            }
            status.assume_init().f_type
        };
        match kind {
            TMPFS | RAMFS | HUGETLBFS => Storage::Memory,
            EXT | XFS | BTRFS | F2FS | OVERLAY | ZFS | BCACHEFS => Storage::Disk,
            _ => Storage::Remote,
        }
    }
}

/// Bytes asked for in one system call at most: one call must not hold a thread for minutes.
const READ_AT_MOST: usize = 16 << 20;
/// And at least, where so many are wanted.
const READ_AT_LEAST: usize = 64 << 10;

const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
const HUGETLBFS: i64 = 0x9584_58f6;
const EXT: i64 = 0xef53;
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683e;
const F2FS: i64 = 0xf2f5_2010;
const OVERLAY: i64 = 0x794c_7630;
const ZFS: i64 = 0x2fc1_2fc1;
const BCACHEFS: i64 = 0xca45_1a4e;

fn now(outcome: io::Result<usize>) -> io::Result<Now<usize>> {
    match outcome {
        Ok(count) => Ok(Now::Done(count)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Now::WouldBlock),
            // EPERM: a filter of system calls that is older than the call. Whoever waits instead is told what is really wrong.
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EPERM) => {
                Ok(Now::Unsupported)
            }
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::open;
    use std::ffi::CString;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, content: &[u8]) -> Scratch {
            let path = std::env::temp_dir().join(format!("ioxide-file-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Scratch(path)
        }

        fn c_path(&self) -> CString {
            CString::new(self.0.as_os_str().as_bytes()).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).unwrap();
        }
    }

    #[test]
    fn what_was_just_written_is_read_at_once_or_said_to_block() {
        let scratch = Scratch::new("now", b"hello, file");
        let file = open(&scratch.c_path(), libc::O_RDONLY | libc::O_CLOEXEC, 0).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 64];
        match FileRef::new(file.as_raw_fd()).read_at_now(&mut buffer, 7).unwrap() {
            Now::Done(count) => assert_eq!(count, 4),
            Now::WouldBlock | Now::Unsupported => {}
        }
    }

    #[test]
    fn reading_to_the_end_says_so() {
        let scratch = Scratch::new("end", &[7; 100_000]);
        let file = open(&scratch.c_path(), libc::O_RDONLY | libc::O_CLOEXEC, 0).unwrap();
        let mut data = Vec::new();
        assert!(!FileRef::new(file.as_raw_fd()).read_to_vec_at(&mut data, 0, 60_000).unwrap());
        assert_eq!(data.len(), 60_000);
        assert!(FileRef::new(file.as_raw_fd()).read_to_vec_at(&mut data, 60_000, usize::MAX).unwrap());
        assert_eq!(data, [7; 100_000]);
    }

    #[test]
    fn a_write_error_tells_how_much_was_written() {
        let full = open(c"/dev/full", libc::O_WRONLY | libc::O_CLOEXEC, 0).unwrap();
        let (written, error) = FileRef::new(full.as_raw_fd()).write_all(b"data").unwrap_err();
        assert_eq!((written, error.raw_os_error()), (0, Some(libc::ENOSPC)));
    }
}
