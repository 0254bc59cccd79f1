//! Operations on a ring against the same operations with plain calls.

use super::{Entry, Job, Opcode, Queue, supports};
use crate::file::FileRef;
use crate::opening::open;
use crate::operation::{Need, Opening, Operation, Pending, Reading, Syncing, Writing};
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

struct One<O: Operation>(O, Option<O::Outcome>);

impl<O: Operation> Job for One<O> {
    fn entry(&mut self) -> Entry {
        self.0.entry()
    }

    fn advance(&mut self, result: io::Result<usize>) -> bool {
        self.1 = self.0.advance(result);
        self.1.is_some()
    }

    fn may_be_cancelled(&self) -> bool {
        O::OPCODE != Opcode::Write
    }
}

/// `None` where this machine has no io_uring.
fn on_a_ring<O: Operation>(operations: Vec<O>) -> Option<Vec<O::Outcome>> {
    if !supports(O::OPCODE) {
        return None;
    }
    let mut queue = Queue::new().unwrap();
    let count = operations.len();
    for operation in operations {
        queue.add(One(operation, None));
    }
    let mut done = Vec::new();
    while done.len() < count {
        queue.submit().unwrap();
        queue.reap(&mut done);
    }
    queue.finish(&mut Vec::new()).unwrap();
    Some(done.into_iter().filter_map(|job| job.1).collect())
}

fn scratch(name: &str) -> CString {
    let path = std::env::temp_dir().join(format!("ioxide-ring-{}-{name}", std::process::id()));
    CString::new(path.to_str().unwrap()).unwrap()
}

#[test]
fn what_is_written_is_read_and_more_jobs_than_entries_all_run() {
    let path = scratch("write");
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    let Some(opened) = on_a_ring(vec![Opening { path: path.clone(), flags, mode: 0o600 }]) else { return };
    let file = opened.into_iter().next().unwrap().unwrap();
    let reference = FileRef::new(file.as_raw_fd());
    let piece = |number: u64| Pending { offset: Some(number * 1000), data: vec![number as u8; 1000] };
    let writes =
        (0..1000).map(|number| Writing::new(reference, vec![piece(number), piece(number)])).collect();
    for outcome in on_a_ring(writes).unwrap() {
        assert!(outcome.is_ok());
    }
    assert!(on_a_ring(vec![Syncing { file: reference, data_only: true }]).unwrap()[0].is_ok());
    let all = on_a_ring(vec![Reading::new(reference, Some(0), Need::All, 4096)]).unwrap();
    let (plain, _) = Reading::new(reference, Some(0), Need::All, 4096).run().unwrap();
    assert_eq!(plain.len(), 1_000_000);
    assert!(all.into_iter().next().unwrap().unwrap() == (plain, true));
    std::fs::remove_file(path.to_str().unwrap()).unwrap();
}

#[test]
fn errors_are_those_of_the_plain_calls() {
    let path = CString::new("/nonexistent-ioxide/file").unwrap();
    let opening = || Opening { path: path.clone(), flags: libc::O_RDONLY, mode: 0 };
    let Some(opened) = on_a_ring(vec![opening()]) else { return };
    let found = opened.into_iter().next().unwrap().unwrap_err();
    assert_eq!(found.raw_os_error(), opening().run().unwrap_err().raw_os_error());
    let full = open(c"/dev/full", libc::O_WRONLY | libc::O_CLOEXEC, 0).unwrap();
    let pending = vec![Pending { offset: Some(0), data: b"data".to_vec() }];
    let written = on_a_ring(vec![Writing::new(FileRef::new(full.as_raw_fd()), pending)]).unwrap();
    let (rest, error) = written.into_iter().next().unwrap().unwrap_err();
    assert_eq!((rest[0].data.as_slice(), error.raw_os_error()), (b"data".as_slice(), Some(libc::ENOSPC)));
}

#[test]
fn finishing_cancels_what_waits_for_somebody_else() {
    if !supports(Opcode::Read) {
        return;
    }
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let mut queue = Queue::new().unwrap();
    queue.add(One(Reading::new(FileRef::new(ends[0]), Some(0), Need::Bytes(1), 1), None));
    queue.submit().unwrap();
    let mut done = Vec::new();
    queue.finish(&mut done).unwrap();
    assert_eq!(done.len(), 1);
    // SAFETY: opened above, closed once.
    unsafe { (libc::close(ends[0]), libc::close(ends[1])) };
}

#[test]
fn what_the_kernel_has_not_got_is_given_back_and_ends_elsewhere() {
    if !supports(Opcode::Write) {
        return;
    }
    let path = scratch("back");
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    let file = open(&path, flags, 0o600).unwrap();
    let reference = FileRef::new(file.as_raw_fd());
    let mut queue = Queue::new().unwrap();
    for number in 0..3 {
        let data = vec![b'a' + number; 10];
        queue.add(One(
            Writing::new(reference, vec![Pending { offset: Some(10 * u64::from(number)), data }]),
            None,
        ));
    }
    queue.push_waiting();
    let mut given_back = queue.give_up();
    assert_eq!((given_back.len(), queue.has_in_flight(), queue.has_waiting()), (3, false, false));
    // Of the first, the kernel had written four bytes.
    assert!(!given_back[0].advance(Ok(4)));
    reference.write_all_at(b"aaaa", 0).unwrap();
    for job in given_back {
        assert!(job.0.run().is_ok());
    }
    queue.finish(&mut Vec::new()).unwrap();
    assert_eq!(std::fs::read(path.to_str().unwrap()).unwrap(), b"aaaaaaaaaabbbbbbbbbbcccccccccc");
    std::fs::remove_file(path.to_str().unwrap()).unwrap();
}
