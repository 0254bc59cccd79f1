//! What a child has to do between its birth and its program.
//!
//! Invariants:
//! R1. The pointers of `Order` point into its own strings, which nobody changes or moves: the child reads them while the
//!     parent goes on.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32};

/// Strings, and the array of pointers to them that `execve` wants.
pub(super) struct Strings {
    pub(super) pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

/// What the child does, in the order of `subprocess`: descriptors, directory, mask of file modes, signals, session, process
/// group, descriptors that are closed, program.
pub struct Order {
    /// Where the program may be; the first that can be executed is.
    pub(super) programs: Strings,
    pub(super) arguments: Strings,
    pub(super) environment: Strings,
    pub(super) directory: Option<CString>,
    /// What becomes standard input, output and error; -1 where the parent's stays.
    pub(super) streams: [RawFd; 3],
    /// Sorted: what stays open in the program although `close_descriptors`.
    pub(super) passed: Vec<RawFd>,
    pub(super) close_descriptors: bool,
    /// Not set where negative.
    pub(super) file_mode_mask: c_int,
    pub(super) restore_signals: bool,
    pub(super) new_session: bool,
    /// Not set where negative.
    pub(super) process_group: c_int,
    /// The write end of the pipe that closes when the program begins.
    pub(super) witness: RawFd,
    /// The parent thread's mask of signals.
    pub(super) signal_mask: u64,
    /// What the child could not do (`Failure`), zero while nothing has failed; and the errno.
    pub(super) failed_step: AtomicU32,
    pub(super) error: AtomicI32,
}

impl Strings {
    fn new(strings: Vec<CString>) -> Strings {
        let mut pointers: Vec<*const c_char> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Strings { pointers, _strings: strings }
    }
}

impl Order {
    /// A child that inherits everything and runs the first of `programs` that there is.
    pub fn new(programs: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Order {
        Order {
            programs: Strings::new(programs),
            arguments: Strings::new(arguments),
            environment: Strings::new(environment),
            directory: None,
            streams: [-1; 3],
            passed: Vec::new(),
            close_descriptors: false,
            file_mode_mask: -1,
            restore_signals: false,
            new_session: false,
            process_group: -1,
            witness: -1,
            signal_mask: 0,
            failed_step: AtomicU32::new(0),
            error: AtomicI32::new(0),
        }
    }

    /// The program runs in this directory.
    pub fn directory(mut self, directory: Option<CString>) -> Order {
        self.directory = directory;
        self
    }

    /// What becomes the program's standard input, output and error; -1 where it has the parent's.
    pub fn streams(mut self, streams: [RawFd; 3]) -> Order {
        self.streams = streams;
        self
    }

    /// The program has these descriptors; with `close_others` no other ones above the first three.
    pub fn descriptors(mut self, mut passed: Vec<RawFd>, close_others: bool) -> Order {
        passed.sort_unstable();
        self.passed = passed;
        self.close_descriptors = close_others;
        self
    }

    /// The program's mask of file modes, the parent's where negative.
    pub fn file_mode_mask(mut self, mask: c_int) -> Order {
        self.file_mode_mask = mask;
        self
    }

    /// SIGPIPE and SIGXFSZ, which Python ignores, end the program again.
    pub fn restore_signals(mut self, restore: bool) -> Order {
        self.restore_signals = restore;
        self
    }

    /// The program leads a new session; it is in this process group, in the parent's where negative.
    pub fn session(mut self, is_new: bool, process_group: c_int) -> Order {
        self.new_session = is_new;
        self.process_group = process_group;
        self
    }
}

/// A copy of this process's environment.
///
/// # Safety
/// Nobody changes the environment meanwhile.
pub unsafe fn environment() -> Vec<CString> {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    let mut copy = Vec::new();
    // SAFETY: the caller's promise; an array of C strings that ends with null, or null.
    unsafe {
        let mut place = environ;
        while !place.is_null() && !(*place).is_null() {
            copy.push(CStr::from_ptr(*place).to_owned());
            place = place.add(1);
        }
    }
    copy
}
