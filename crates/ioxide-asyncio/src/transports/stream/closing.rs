//! How a transport ends: `close`, `abort`, fatal errors, connection_lost, and being dropped unclosed.

use super::super::base::BaseTransport;
use super::super::flow_control::FlowControlled;
use super::{Phase, Reading, SocketTransport, Writing};
use ioxide_cpython::exception::{exception_is, warn_resource};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::text;
use ioxide_cpython::version::SERVERS_KNOW_CLIENTS;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, imports, names, none};

impl SocketTransport {
    /// `transport.close()`: what is buffered is still sent, then comes connection_lost(None).
    pub(super) fn close(&self) -> Result<()> {
        let core = self.core();
        if core.is_closing() {
            return Ok(());
        }
        self.send_pending()?;
        // Sending may have failed, and may have called the protocol.
        if core.is_closing() {
            return Ok(());
        }
        core.phase.set(Phase::Closing);
        self.stop_reading_for_good();
        if !core.queue.borrow().is_empty() {
            return Ok(());
        }
        core.phase.set(Phase::Lost(1));
        self.stop_writing();
        self.schedule_connection_lost(none())
    }

    /// `transport.abort()`: what is buffered is dropped.
    pub(super) fn abort(&self) -> Result<()> {
        // asyncio has sent it when it was written.
        self.send_pending()?;
        self.force_close(none())
    }

    fn stop_reading_for_good(&self) {
        let next = match self.core().reading.get() {
            Reading::Paused => Reading::Paused,
            Reading::Idle | Reading::Watching => Reading::Idle,
        };
        self.stop_reading(next);
        self.core().received.clear();
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

    /// The connection cannot go on. Errors of the kernel are everyday and only logged in debug mode.
    /// Fails: KeyboardInterrupt, SystemExit.
    pub(super) fn on_fatal_error(&self, exception: &Any, message: &str) -> Result<()> {
        if !exception_is(exception, Builtin::OSError) {
            self.report(message, exception)?;
        } else {
            self.log_everyday_error(message, exception)?;
        }
        self.force_close(exception)
    }

    /// `transport._force_close(exc)`
    pub(super) fn force_close(&self, exception: &Any) -> Result<()> {
        let core = self.core();
        if core.is_lost() {
            return Ok(());
        }
        if core.writing.get() != Writing::Watching && !core.queue.borrow().is_empty() {
            // asyncio has sent it when it was written. The connection ends with `exception`, not with an error of this.
            if let Err(raised) = self.flush_queue() {
                drop(raised.take());
            }
        }
        self.drop_queue();
        self.stop_reading_for_good();
        core.phase.set(Phase::Lost(1));
        self.schedule_connection_lost(exception)
    }

    /// `transport._call_connection_lost(exc)`: tells the protocol, closes the socket and lets go of everything.
    pub(super) fn call_connection_lost(&self, exception: &Any) -> Result<()> {
        let core = self.core();
        let Some(protocol) = core.protocol.get_object() else { return Ok(()) };
        let told = protocol.call_method1(&names().connection_lost, exception).map_err(Raised::take);
        let released = self.release().map_err(Raised::take);
        let waiting = self.fail_empty_waiter().map_err(Raised::take);
        // As nested `finally` blocks: the last exception is the one that is raised.
        match waiting.and(released).and(told) {
            Ok(_) => Ok(()),
            Err(exception) => Err(Raised::exception(exception)),
        }
    }

    /// Closes the socket and lets go of everything.
    fn release(&self) -> Result<()> {
        let core = self.core();
        let socket = core.socket.take();
        if let Some(socket) = &socket {
            core.extra.keep_socket(socket);
        }
        let server = core.server.take();
        drop(core.protocol.take());
        drop(core.event_loop.take());
        for context in [&core.given_context, &core.reader_context, &core.writer_context] {
            context.clear();
        }
        let closed = match &socket {
            Some(socket) => socket.call_method0(&names().close).map(drop),
            None => Ok(()),
        };
        let closed = closed.map_err(Raised::take);
        let detached = self.detach_from(server.as_ref());
        match closed {
            Ok(()) => detached,
            Err(exception) => {
                if let Err(raised) = detached {
                    drop(raised.take());
                }
                Err(Raised::exception(exception))
            }
        }
    }

    fn detach_from(&self, server: Option<&Object>) -> Result<()> {
        match server {
            Some(server) => crate::servers::detach(server, self),
            None => Ok(()),
        }
    }

    fn fail_empty_waiter(&self) -> Result<()> {
        let Some(waiter) = self.core().empty_waiter.get_object() else { return Ok(()) };
        let error = imports().ConnectionError.call1(&*text("Connection is closed by peer")?)?;
        waiter.call_method1(&names().set_exception, &error).map(drop)
    }

    /// `transport.__del__()`
    pub(super) fn finalize(&self) -> Result<()> {
        let core = self.core();
        let Some(socket) = core.socket.get_object() else { return Ok(()) };
        let shown = self.repr()?.to_text()?;
        warn_resource(&format!("unclosed transport {}", shown.as_str()), self)?;
        socket.call_method0(&names().close)?;
        core.extra.keep_socket(&socket);
        drop(core.socket.take());
        // Older servers count their transports and are told by connection_lost alone.
        let server = core.server.take().filter(|_| SERVERS_KNOW_CLIENTS);
        self.detach_from(server.as_ref())
    }
}
