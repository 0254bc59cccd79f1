//! How a transport ends: `close`, `abort`, fatal errors, connection_lost, and being dropped unclosed.

use super::super::base::BaseTransport;
use super::{DatagramTransport, Phase, Reading};
use ioxide_cpython::exception::{exception_is, warn_resource};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::{Any, Builtin, Raised, Result, names, none};

impl DatagramTransport {
    /// `transport.close()`: what is buffered is still sent, then comes connection_lost(None).
    pub(super) fn close(&self) -> Result<()> {
        let core = self.core();
        if core.is_closing() {
            return Ok(());
        }
        core.phase.set(Phase::Closing);
        self.stop_reading_for_good();
        if !core.unsent.borrow().is_empty() {
            return Ok(());
        }
        self.stop_writing();
        self.lose_connection(none())
    }

    /// `transport.abort()`: what is buffered is dropped.
    pub(super) fn abort(&self) -> Result<()> {
        self.force_close(none())
    }

    fn stop_reading_for_good(&self) {
        let next = match self.core().reading.get() {
            Reading::Paused => Reading::Paused,
            Reading::Idle | Reading::Watching => Reading::Idle,
        };
        self.stop_reading(next);
        self.drop_received();
    }

    /// `transport._fatal_error(exc, message='Fatal error on transport')`
    pub(super) fn fatal_error(&self, arguments: Arguments<'_>) -> Result<()> {
        const SIGNATURE: Signature<2> =
            Signature { function: "_fatal_error", names: ["exc", "message"], required: 1, positional: 2 };
        let [exception, message] = SIGNATURE.bind(arguments)?;
        let message = match message {
            Some(message) => message.to_text()?.into_string(),
            None => String::from("Fatal error on transport"),
        };
        self.on_fatal_error(exception.unwrap_or(none()), &message)
    }

    /// The endpoint cannot go on. Errors of the kernel are everyday and only logged in debug mode.
    pub(super) fn on_fatal_error(&self, exception: &Any, message: &str) -> Result<()> {
        if exception_is(exception, Builtin::OSError) {
            self.log_everyday_error(message, exception)?;
        } else {
            self.report(message, exception)?;
        }
        self.force_close(exception)
    }

    /// `transport._force_close(exc)`
    pub(super) fn force_close(&self, exception: &Any) -> Result<()> {
        if self.core().is_lost() {
            return Ok(());
        }
        self.drop_unsent();
        self.stop_writing();
        self.core().phase.set(Phase::Closing);
        self.stop_reading_for_good();
        self.lose_connection(exception)
    }

    /// connection_lost is called in the next turn (D3).
    fn lose_connection(&self, exception: &Any) -> Result<()> {
        self.core().phase.set(Phase::Lost);
        self.core().late_writes.set(1);
        self.schedule_connection_lost(exception)
    }

    /// `transport._call_connection_lost(exc)`: tells the protocol, closes the socket and lets go of everything.
    pub(super) fn call_connection_lost(&self, exception: &Any) -> Result<()> {
        let core = self.core();
        let Some(protocol) = core.protocol.get_object() else { return Ok(()) };
        core.late_writes.set(core.late_writes.get().max(1));
        core.phase.set(Phase::Lost);
        let told = protocol.call_method1(&names().connection_lost, exception).map_err(Raised::take);
        let socket = core.socket.take();
        drop((core.protocol.take(), core.event_loop.take(), core.reader_context.take()));
        let closed = match &socket {
            Some(socket) => socket.call_method0(&names().close).map(drop),
            None => Ok(()),
        };
        // As a `finally` block: the last exception is the one that is raised.
        closed.and(told.map(drop).map_err(Raised::exception))
    }

    /// `transport.__del__()`
    pub(super) fn finalize(&self) -> Result<()> {
        let Some(socket) = self.core().socket.get_object() else { return Ok(()) };
        let shown = self.repr()?.to_text()?;
        warn_resource(&format!("unclosed transport {}", shown.as_str()), self)?;
        drop(self.core().socket.take());
        socket.call_method0(&names().close).map(drop)
    }
}
