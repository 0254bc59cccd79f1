//! What happens to a child and its pipes, and what its protocol is told of it.

use super::super::base::BaseTransport;
use super::{Call, ProcessTransport, RULES};
use crate::futures;
use ioxide_cpython::methods::Arguments;
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, builtin, imports, names, none};

impl ProcessTransport {
    /// `transport._call(cb, *data)`: calls in the next turn, or when the pipes are connected (Q1).
    pub(super) fn call_protocol(&self, arguments: Arguments<'_>) -> Result<()> {
        let callback = arguments.first("_call", "cb")?;
        self.tell(callback, arguments.positional().get(1..).unwrap_or_default())
    }

    fn tell(&self, callback: &Any, arguments: &[&Any]) -> Result<()> {
        if let Some(calls) = self.core().calls.borrow_mut().as_mut() {
            let arguments = arguments.iter().map(|argument| argument.to_object()).collect();
            calls.push(Call { callback: callback.to_object(), arguments });
            return Ok(());
        }
        self.call_soon(callback, arguments)
    }

    /// The pipes are connected: the protocol hears of the connection, and then of what has waited (Q1).
    /// Fails: AssertionError the second time.
    pub(super) fn connected(&self) -> Result<()> {
        if self.core().calls.borrow().is_none() {
            return Err(Raised::empty(builtin(Builtin::AssertionError)));
        }
        let made = self.get_protocol().get_attribute(&names().connection_made)?;
        self.call_soon(&made, &[self])?;
        let calls = self.core().calls.borrow_mut().take();
        for call in calls.into_iter().flatten() {
            let arguments: Vec<&Any> = call.arguments.iter().map(|argument| &**argument).collect();
            self.call_soon(&call.callback, &arguments)?;
        }
        Ok(())
    }

    /// `transport._pipe_data_received(fd, data)`
    pub(super) fn pipe_data_received_method(&self, arguments: Arguments<'_>) -> Result<()> {
        let [fd, data] = two(arguments, "_pipe_data_received", ["fd", "data"])?;
        self.pipe_data_received(fd, data)
    }

    pub(super) fn pipe_data_received(&self, fd: &Any, data: &Any) -> Result<()> {
        self.tell(&*self.get_protocol().get_attribute(&names().pipe_data_received)?, &[fd, data])
    }

    /// `transport._pipe_connection_lost(fd, exc)`
    pub(super) fn pipe_connection_lost_method(&self, arguments: Arguments<'_>) -> Result<()> {
        let [fd, exception] = two(arguments, "_pipe_connection_lost", ["fd", "exc"])?;
        self.pipe_connection_lost(fd, exception)
    }

    pub(super) fn pipe_connection_lost(&self, fd: &Any, exception: &Any) -> Result<()> {
        self.tell(&*self.get_protocol().get_attribute(&names().pipe_connection_lost)?, &[fd, exception])?;
        self.try_finish()
    }

    /// `transport._process_exited(returncode)`: the child has ended. Fails: AssertionError the second time.
    pub(super) fn process_exited(&self, returncode: &Any) -> Result<()> {
        let core = self.core();
        let refused =
            if returncode.is_none() { Some(returncode.to_object()) } else { core.returncode.get_object() };
        if let Some(value) = refused {
            return Err(Raised::exception(builtin(Builtin::AssertionError).call1(&value)?));
        }
        if self.is_debug()? {
            let line = text("%r exited with return code %r")?;
            imports().logger.call_method(&names().info, &[&*line, self, returncode])?;
        }
        core.returncode.set(returncode.to_object());
        let process = core.process.get_or_none();
        if process.get_attribute(&names().returncode)?.is_none() {
            // The Popen does not wait for its child any more, and knows that it need not warn.
            process.set_attribute(&names().returncode, returncode)?;
        }
        self.tell(&*self.get_protocol().get_attribute(&names().process_exited)?, &[])?;
        self.try_finish()?;
        if RULES.get().wait_ends_with_child {
            self.wake_waiters(returncode)?;
        }
        Ok(())
    }

    /// `transport._try_finish()`: connection_lost is on its way when the child and all its pipes have ended.
    pub(super) fn try_finish(&self) -> Result<()> {
        let core = self.core();
        if core.is_finished.get() {
            return Err(Raised::empty(builtin(Builtin::AssertionError)));
        }
        if core.returncode.is_empty() {
            return Ok(());
        }
        for pipe in &core.pipes {
            if !pipe.is_over()? {
                return Ok(());
            }
        }
        core.is_finished.set(true);
        let lost = self.get_attribute(&names()._call_connection_lost)?;
        self.tell(&lost, &[none()])
    }

    /// `transport._call_connection_lost(exc)`: tells the protocol, wakes who waits, lets go of everything.
    pub(super) fn call_connection_lost(&self, exception: &Any) -> Result<()> {
        let told =
            self.get_protocol().call_method1(&names().connection_lost, exception).map_err(Raised::take);
        let core = self.core();
        let woken = match RULES.get().wait_ends_with_child {
            true => Ok(()),
            false => self.wake_waiters(&core.returncode.get_or_none()),
        };
        drop((core.event_loop.take(), core.process.take(), core.protocol.take()));
        // As a `finally` block: the last exception is the one that is raised.
        woken.and(told.map(drop).map_err(Raised::exception))
    }

    fn wake_waiters(&self, returncode: &Any) -> Result<()> {
        let waiters: Option<Vec<Object>> = self.core().exit_waiters.borrow_mut().take();
        for waiter in waiters.iter().flatten() {
            futures::set_result_unless_done(waiter, returncode)?;
        }
        Ok(())
    }
}

fn two<'a>(
    arguments: Arguments<'a>,
    function: &'static str,
    names: [&'static str; 2],
) -> Result<[&'a Any; 2]> {
    Ok(arguments.leading(function, names, false)?.parameters)
}

/// The number of a pipe in the child.
pub(super) fn number(index: usize) -> Result<Object> {
    integer(index as i64)
}
