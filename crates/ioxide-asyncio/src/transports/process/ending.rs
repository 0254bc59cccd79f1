//! How a child is ended, and how its end is waited for.

use super::super::base::BaseTransport;
use super::pipes::pipe_of;
use super::{ProcessTransport, RULES};
use crate::futures;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine_of, wait_for};
use ioxide_cpython::exception::warn_resource;
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, builtin, names};

impl ProcessTransport {
    /// The Popen. Fails: ProcessLookupError where there is none, or none any more.
    pub(super) fn process(&self) -> Result<Object> {
        let process = self.core().process.get_object();
        process.ok_or_else(|| Raised::empty(builtin(Builtin::ProcessLookupError)))
    }

    /// `transport.send_signal(signal)`
    pub(super) fn send_signal(&self, signal: &Any) -> Result<()> {
        let process = self.process()?;
        let rules = RULES.get();
        if !rules.sends_with_kernel {
            return process.call_method1(&names().send_signal, signal).map(drop);
        }
        if rules.knows_the_end && !self.core().returncode.is_empty() {
            return Ok(());
        }
        let id = process.get_attribute(&names().pid)?;
        unless_gone(import(c"os")?.call_method(&names().kill, &[&*id, signal]), false)
    }

    /// `transport.terminate()`
    pub(super) fn terminate(&self) -> Result<()> {
        self.send_or_ask(libc::SIGTERM, &names().terminate)
    }

    /// `transport.kill()`
    pub(super) fn kill(&self) -> Result<()> {
        self.send_or_ask(libc::SIGKILL, &names().kill)
    }

    fn send_or_ask(&self, signal: i32, method: &Any) -> Result<()> {
        if RULES.get().sends_with_kernel {
            return self.call_method1(&names().send_signal, &*integer(i64::from(signal))?).map(drop);
        }
        self.process()?.call_method0(method).map(drop)
    }

    /// `transport.close()`
    pub fn close(&self) -> Result<()> {
        let core = self.core();
        if core.is_closed.replace(true) {
            return Ok(());
        }
        let is_loop_open = || self.event_loop().is_some_and(|event_loop| !event_loop.is_closed());
        for protocol in self.connected_pipes() {
            if !RULES.get().minds_closed_loop || is_loop_open() {
                pipe_of(&protocol)?.call_method0(&names().close)?;
            }
        }
        let Some(process) = core.process.get_object() else { return Ok(()) };
        if !core.returncode.is_empty() || !process.call_method0(&names().poll)?.is_none() {
            return Ok(());
        }
        self.log_in_debug_mode(&names().warning, "Close running child process: kill %r")?;
        unless_gone(process.call_method0(&names().kill), RULES.get().forgives_permission)
    }

    /// `transport.__del__()`
    pub(super) fn finalize(&self) -> Result<()> {
        if self.core().is_closed.get() {
            return Ok(());
        }
        let shown = self.repr()?.to_text()?;
        warn_resource(&format!("unclosed transport {}", shown.as_str()), self)?;
        self.close()
    }

    /// `await transport._wait()`: the return code, when the child has ended.
    pub(super) fn wait(&self) -> Result<Object> {
        coroutine_of("BaseSubprocessTransport._wait", self.to_object(), |owner| async move {
            let waiting = {
                let Some(this) = ProcessTransport::from_any(&owner) else {
                    return Err(Raised::runtime_error("the transport is not initialized"));
                };
                if let Some(returncode) = this.core().returncode.get_object() {
                    return Ok(returncode);
                }
                let waiter = this.loop_slot().get_or_none().call_method0(&names().create_future)?;
                let waiting = wait_for(&waiter);
                if let Some(waiters) = this.core().exit_waiters.borrow_mut().as_mut() {
                    waiters.push(waiter);
                }
                waiting
            };
            let outcome = waiting.await.map_err(Raised::take);
            if let Some(this) = ProcessTransport::from_any(&owner) {
                this.forget_done_waiters()?;
            }
            outcome.map_err(Raised::exception)
        })
    }

    /// Who was cancelled waits no more.
    fn forget_done_waiters(&self) -> Result<()> {
        let exit_waiters = &self.core().exit_waiters;
        let Some(waiters) = exit_waiters.borrow_mut().as_mut().map(std::mem::take) else { return Ok(()) };
        let mut pending = Vec::new();
        for waiter in waiters {
            if !futures::is_done(&waiter)? {
                pending.push(waiter);
            }
        }
        if let Some(waiters) = exit_waiters.borrow_mut().as_mut() {
            waiters.append(&mut pending);
        }
        Ok(())
    }
}

/// What is gone need not be ended.
fn unless_gone(sent: Result<Object>, forgives_permission: bool) -> Result<()> {
    match sent {
        Err(raised)
            if raised.matches(builtin(Builtin::ProcessLookupError))
                || forgives_permission && raised.matches(builtin(Builtin::PermissionError)) =>
        {
            drop(raised.take());
            Ok(())
        }
        sent => sent.map(drop),
    }
}
