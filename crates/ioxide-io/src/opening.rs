//! Opening files: without waiting where the kernel has the whole path in its cache, and by the call that blocks.
//!
//! Invariants:
//! N1. `open_now` waits neither for a disk nor for another process; but see N2.
//! N2. That a folder is in memory is remembered by its path, and checked by the device of each file that is opened there. Where
//!     something else has come to that path, one file may have been created on a disk, and no more: it says so.
//! N3. Interrupted calls are not repeated: a FIFO's open is left to the caller, who may have signals to handle.

use crate::file::{FileRef, Storage};
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `open(2)`; may wait for the disk, a FIFO's other end or a terminal.
pub fn open(path: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: a C string; the descriptor is new and nobody else's.
    unsafe {
        let fd = libc::open(path.as_ptr(), flags, mode);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// What came of opening without waiting.
#[derive(Debug)]
#[must_use]
pub enum OpenedNow {
    /// A regular file or a folder. `in_memory`: it was created or truncated, and no call on it waits for a disk.
    File { file: OwnedFd, in_memory: bool },
    /// An end of a FIFO, not open in the sense of [`open`] before [`FifoEnd::meet`].
    Fifo(FifoEnd),
    /// Nothing was opened: it might have to wait.
    WouldBlock,
}

/// An end of a FIFO that was opened without waiting for somebody at the other end, who has seen it already: it must not be
/// closed and opened again.
#[derive(Debug)]
pub struct FifoEnd {
    end: OwnedFd,
    flags: i32,
}

/// How long a writer who writes nothing may wait to be noticed.
const SILENT_WRITER_MILLISECONDS: i32 = 10;

impl FifoEnd {
    /// Waits for a writer where [`open`] would: at an end that is for reading only. The other kinds had a reader, or need none.
    pub fn meet(self) -> io::Result<OwnedFd> {
        if self.flags & libc::O_ACCMODE == libc::O_RDONLY {
            let copy = pipe()?;
            while !self.has_bytes_or_was_left()? && !self.has_writer(&copy.1)? {}
        }
        set_blocking_mode(&self.end, self.flags)?;
        Ok(self.end)
    }

    /// Whether there is something to read, or a writer has come and gone; waits a moment for that.
    fn has_bytes_or_was_left(&self) -> io::Result<bool> {
        let mut asked = libc::pollfd { fd: self.end.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one struct, as is told.
        match unsafe { libc::poll(&mut asked, 1, SILENT_WRITER_MILLISECONDS) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
            count => Ok(count > 0),
        }
    }

    /// Whether a writer is there. Reading would tell, and take what has been written meanwhile; duplicating it into another
    /// pipe takes nothing.
    fn has_writer(&self, copy: &OwnedFd) -> io::Result<bool> {
        // SAFETY: the call takes no pointer.
        match unsafe { libc::tee(self.end.as_raw_fd(), copy.as_raw_fd(), 1, libc::SPLICE_F_NONBLOCK) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
            count => Ok(count > 0),
        }
    }
}

/// The reading and the writing end of a new pipe.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors, which are new and nobody else's.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Takes the O_NONBLOCK of `open_now` back: of the flags that F_SETFL changes, the file has those that it was opened with.
fn set_blocking_mode(file: &OwnedFd, flags: i32) -> io::Result<()> {
    // SAFETY: an open descriptor of ours; the call takes no pointer.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Opens a file if every part of its path is in the kernel's cache, so that the open waits for no disk.
/// What creates or truncates is [`OpenedNow::WouldBlock`], but for files in memory.
pub fn open_now(path: &CStr, flags: i32, mode: u32) -> io::Result<OpenedNow> {
    if flags & (libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE) != 0 {
        return open_in_memory(path, flags, mode);
    }
    // A FIFO without its other end must not hold up the loop.
    let how = OpenHow { flags: (flags | libc::O_NONBLOCK) as u64, mode: 0, resolve: RESOLVE_CACHED };
    match open_at_with(libc::AT_FDCWD, path, &how) {
        Ok(file) => in_blocking_mode(file, flags, |_device| false),
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENXIO)) || is_refusal(&error) =>
        {
            Ok(OpenedNow::WouldBlock)
        }
        Err(error) => Err(error),
    }
}

/// Whether the kernel does not know the call, or a filter of system calls forbids it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::EPERM | libc::E2BIG))
}

/// A folder of files in memory.
struct Folder {
    path: Vec<u8>,
    device: u64,
}

thread_local! {
    /// The one in which this thread has last opened a file (N2): who creates one file often creates many.
    static IN_MEMORY: RefCell<Option<Folder>> = const { RefCell::new(None) };
}

/// Creates or truncates a file in a folder that is in memory.
fn open_in_memory(path: &CStr, flags: i32, mode: u32) -> io::Result<OpenedNow> {
    let (folder, name) = folder_and_name(path);
    if matches!(name, b"" | b"." | b"..") || flags & libc::O_TMPFILE == libc::O_TMPFILE {
        return Ok(OpenedNow::WouldBlock);
    }
    IN_MEMORY.with_borrow_mut(|known| {
        let device = match known {
            Some(known) if known.path == folder => known.device,
            _ => match device_of_folder_in_memory(folder) {
                Some(device) => known.insert(Folder { path: folder.to_vec(), device }).device,
                None => return Ok(OpenedNow::WouldBlock),
            },
        };
        // A link may lead to a disk: it is opened anew by a thread. A FIFO must not hold up the loop.
        let careful = (flags | libc::O_NOFOLLOW | libc::O_NONBLOCK) as u64;
        let how = OpenHow { flags: careful, mode: u64::from(mode & 0o7777), resolve: 0 };
        match open_at_with(libc::AT_FDCWD, path, &how) {
            Ok(file) => {
                let opened = in_blocking_mode(file, flags, |on| on == device);
                if matches!(opened, Ok(OpenedNow::File { in_memory: false, .. })) {
                    *known = None;
                }
                opened
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENXIO | libc::EAGAIN | libc::EINTR) => Ok(OpenedNow::WouldBlock),
                _ if is_refusal(&error) => Ok(OpenedNow::WouldBlock),
                _ => Err(error),
            },
        }
    })
}

/// What stands before the last slash of a path, and behind it.
fn folder_and_name(path: &CStr) -> (&[u8], &[u8]) {
    let path = path.to_bytes();
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash.max(1)], &path[slash + 1..]),
        None => (b".", path),
    }
}

/// The device of a folder, if that is in memory and its path in the kernel's cache.
fn device_of_folder_in_memory(path: &[u8]) -> Option<u64> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let how = OpenHow { flags: flags as u64, mode: 0, resolve: RESOLVE_CACHED };
    let folder = open_at_with(libc::AT_FDCWD, &CString::new(path).ok()?, &how).ok()?;
    let folder = FileRef::new(folder.as_raw_fd());
    match folder.storage() {
        Storage::Memory => folder.length_and_device().ok().map(|(_, device)| device),
        Storage::Disk | Storage::Remote => None,
    }
}

/// Whether the kernel can answer for the path without waiting for a disk: it has every part of it, or knows that it is missing.
pub fn path_is_cached(path: &CStr, follow: bool) -> bool {
    let flags = libc::O_PATH | libc::O_CLOEXEC | if follow { 0 } else { libc::O_NOFOLLOW };
    let how = OpenHow { flags: flags as u64, mode: 0, resolve: RESOLVE_CACHED };
    match open_at_with(libc::AT_FDCWD, path, &how) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() != Some(libc::EAGAIN) && !is_refusal(&error),
    }
}

fn open_at_with(folder: RawFd, path: &CStr, how: &OpenHow) -> io::Result<OwnedFd> {
    // SAFETY: a C string, and a struct of the size that is told; the descriptor is new and nobody else's.
    unsafe {
        let fd = libc::syscall(libc::SYS_openat2, folder, path.as_ptr(), how, size_of::<OpenHow>());
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_CACHED: u64 = 0x20;

/// Takes the O_NONBLOCK of `open_now` back. `is_in_memory` is asked with the device of what was opened.
fn in_blocking_mode(file: OwnedFd, flags: i32, is_in_memory: impl Fn(u64) -> bool) -> io::Result<OpenedNow> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: an open descriptor of ours; the kernel fills `status` when it succeeds.
    let status = unsafe {
        if libc::fstat(file.as_raw_fd(), status.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        status.assume_init()
    };
    match status.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFDIR => {}
        libc::S_IFIFO => return Ok(OpenedNow::Fifo(FifoEnd { end: file, flags })),
        // Devices are opened anew by a thread.
        _ => return Ok(OpenedNow::WouldBlock),
    }
    set_blocking_mode(&file, flags)?;
    Ok(OpenedNow::File { file, in_memory: is_in_memory(status.st_dev) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, remove_dir_all, write};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    const READING: i32 = libc::O_RDONLY | libc::O_CLOEXEC;
    const CREATING: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(within: &Path, name: &str) -> Scratch {
            let path = within.join(format!("ioxide-opening-{}-{name}", std::process::id()));
            create_dir(&path).unwrap();
            Scratch(path)
        }

        fn path(&self, name: &str) -> CString {
            CString::new(self.0.join(name).as_os_str().as_bytes()).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            remove_dir_all(&self.0).unwrap();
        }
    }

    /// A folder in memory, where this machine has one.
    fn in_memory(name: &str) -> Option<Scratch> {
        let place = Path::new("/dev/shm");
        device_of_folder_in_memory(place.as_os_str().as_bytes()).map(|_| Scratch::new(place, name))
    }

    #[test]
    fn a_missing_file_and_a_creating_open_are_told_apart() {
        let missing = c"/nonexistent-ioxide/file";
        match open_now(missing, READING, 0) {
            Ok(OpenedNow::WouldBlock) => {}
            Ok(opened) => panic!("opened a file that does not exist: {opened:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        }
        let creating = open_now(missing, CREATING, 0o600).unwrap();
        assert!(matches!(creating, OpenedNow::WouldBlock));
    }

    #[test]
    fn an_opened_file_is_in_blocking_mode() {
        let folder = Scratch::new(&std::env::temp_dir(), "mode");
        write(folder.0.join("file"), b"x").unwrap();
        // The path is in the cache: the file has just been written.
        if let OpenedNow::File { file, .. } = open_now(&folder.path("file"), READING, 0).unwrap() {
            // SAFETY: an open descriptor.
            let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
            assert_eq!(flags & libc::O_NONBLOCK, 0);
        }
    }

    #[test]
    fn what_comes_to_the_path_of_a_folder_in_memory_is_seen() {
        let Some(memory) = in_memory("moved") else { return };
        let disk = Scratch::new(&std::env::temp_dir(), "moved");
        create_dir(memory.0.join("folder")).unwrap();
        let tells = |name: &str| match open_now(&memory.path(name), CREATING, 0o600).unwrap() {
            OpenedNow::File { in_memory, .. } => in_memory,
            other => panic!("{other:?}"),
        };
        assert!(tells("folder/first") && tells("folder/second"));
        remove_dir_all(memory.0.join("folder")).unwrap();
        symlink(&disk.0, memory.0.join("folder")).unwrap();
        if device_of_folder_in_memory(disk.0.as_os_str().as_bytes()).is_some() {
            return; // the folder for temporary files is in memory too
        }
        assert!(!tells("folder/third"));
        assert!(disk.0.join("third").exists());
        let again = open_now(&memory.path("folder/fourth"), CREATING, 0o600).unwrap();
        assert!(matches!(again, OpenedNow::WouldBlock));
    }

    fn fifo(folder: &Scratch) -> (CString, FifoEnd) {
        let path = folder.path("fifo");
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        // Not by `open_now`, which may find that the path is not in the cache.
        let end = open(&path, READING | libc::O_NONBLOCK, 0).unwrap();
        (path, FifoEnd { end, flags: READING })
    }

    #[test]
    fn a_fifo_is_told_from_a_file() {
        let folder = Scratch::new(&std::env::temp_dir(), "fifo");
        let (path, _end) = fifo(&folder);
        let opened = open_now(&path, READING, 0).unwrap();
        assert!(matches!(opened, OpenedNow::Fifo(_) | OpenedNow::WouldBlock), "{opened:?}");
    }

    #[test]
    fn a_writer_that_has_come_written_and_gone_is_met() {
        let folder = Scratch::new(&std::env::temp_dir(), "gone");
        let (path, end) = fifo(&folder);
        let writer = open(&path, libc::O_WRONLY | libc::O_CLOEXEC, 0).unwrap();
        FileRef::new(writer.as_raw_fd()).write_all(b"bytes").unwrap();
        drop(writer);
        let met = end.meet().unwrap();
        let mut buffer = [MaybeUninit::uninit(); 64];
        assert_eq!(FileRef::new(met.as_raw_fd()).read(&mut buffer).unwrap(), 5);
        assert_eq!(FileRef::new(met.as_raw_fd()).read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_writer_that_has_written_nothing_is_met() {
        let folder = Scratch::new(&std::env::temp_dir(), "silent");
        let (path, end) = fifo(&folder);
        let waiting = std::thread::spawn(move || end.meet().map(drop));
        // The time that nobody comes is waited for, not spent.
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!waiting.is_finished());
        let _writer = open(&path, libc::O_WRONLY | libc::O_CLOEXEC, 0).unwrap();
        waiting.join().unwrap().unwrap();
    }
}
