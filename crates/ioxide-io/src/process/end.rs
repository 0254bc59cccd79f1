//! The end of a child process, seen through a pidfd: a descriptor that means this very process, even after its number
//! belongs to another one.
//!
//! Leaves to others: starting processes, and waiting until the descriptor is readable.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Opens a pidfd, which becomes readable when the process has ended. It is closed on exec.
///
/// Fails with `ENOSYS` before Linux 5.3, `EPERM` where a sandbox forbids it, `ESRCH` where there is no such process.
pub fn open_process(id: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: two integers; no memory is handed over.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reaps an ended child: its exit status, or the number of the signal that ended it, negated. `None` while it runs.
///
/// Fails with `ECHILD` where somebody else has reaped it.
pub fn reap(process: BorrowedFd<'_>, id: libc::pid_t) -> io::Result<Option<i32>> {
    match wait(libc::P_PIDFD, process.as_raw_fd() as libc::id_t, libc::WNOHANG) {
        // Before Linux 5.4 a child can only be named by its number, which nobody else has until it is reaped.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            wait(libc::P_PID, id as libc::id_t, libc::WNOHANG)
        }
        reaped => reaped,
    }
}

/// Reaps a child that is at its end, as `reap`: it has closed its descriptors already, and what it has left to do waits for
/// nobody.
///
/// Fails with `ECHILD` where somebody else has reaped it.
pub fn reap_at_end(process: BorrowedFd<'_>) -> io::Result<i32> {
    loop {
        if let Some(status) = wait(libc::P_PIDFD, process.as_raw_fd() as libc::id_t, 0)? {
            return Ok(status);
        }
    }
}

fn wait(kind: libc::idtype_t, id: libc::id_t, option: libc::c_int) -> io::Result<Option<i32>> {
    // SAFETY: zeroes are valid for a plain C struct, and the process id stays zero where there is nothing to reap.
    let mut ended: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `ended` is a writable siginfo_t.
        let result = unsafe { libc::waitid(kind, id, &mut ended, libc::WEXITED | option) };
        match crate::sys::check(result) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            outcome => break outcome?,
        }
    }
    // SAFETY: waitid has filled in the fields for SIGCHLD, or left the zeroes.
    let (process, status) = unsafe { (ended.si_pid(), ended.si_status()) };
    if process == 0 {
        return Ok(None);
    }
    Ok(Some(if ended.si_code == libc::CLD_EXITED { status } else { -status }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::process::Command;

    #[allow(clippy::zombie_processes, reason = "each test reaps its child by the pidfd")]
    fn start(command: &str) -> (OwnedFd, libc::pid_t) {
        let child = Command::new("/bin/sh").args(["-c", command]).spawn().unwrap();
        let id = child.id() as libc::pid_t;
        (open_process(id).unwrap(), id)
    }

    fn wait_until_readable(process: &OwnedFd) {
        let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 20_000) }, 1);
    }

    #[test]
    fn an_exit_status_and_a_signal() {
        for (command, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9)] {
            let (process, id) = start(command);
            wait_until_readable(&process);
            assert_eq!(reap(process.as_fd(), id).unwrap(), Some(expected));
            let error = reap(process.as_fd(), id).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
        }
    }

    #[test]
    fn a_running_child_is_left_alone() {
        let (process, id) = start("exec sleep 60");
        assert_eq!(
            wait(libc::P_PID, id as libc::id_t, libc::WNOHANG).unwrap_or(None),
            reap(process.as_fd(), id).unwrap_or(None)
        );
        // SAFETY: our own child, which nobody has reaped.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        wait_until_readable(&process);
        assert!(reap(process.as_fd(), id).unwrap().is_some());
    }

    #[test]
    fn there_is_no_such_process() {
        assert_eq!(open_process(i32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
