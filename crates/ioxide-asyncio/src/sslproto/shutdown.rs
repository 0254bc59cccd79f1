//! The end of a TLS connection: close_notify both ways, the end of the transport below, timeouts, abort.

use super::engine::{Progress, unless_again};
use super::handshake::cancel_timer;
use super::{AppState, SslProtocol, State, asyncio};
use ioxide_cpython::value::text;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, boolean, builtin, imports, names, none_object};

impl SslProtocol {
    /// `transport.close()`, or the peer has sent close_notify.
    pub(super) fn start_shutdown(&self) -> Result<()> {
        let core = self.core();
        if matches!(core.state.get(), State::Flushing | State::Shutdown | State::Unwrapped) {
            return Ok(());
        }
        self.mark_transport_closed();
        if core.state.get() == State::Handshake {
            return self.abort(None);
        }
        self.set_state(State::Flushing)?;
        self.start_shutdown_timer()?;
        self.do_flush()
    }

    fn start_shutdown_timer(&self) -> Result<()> {
        let core = self.core();
        let on_timeout = self.get_attribute(&names()._check_shutdown_timeout)?;
        core.shutdown_timer.set(self.call_later(&core.shutdown_timeout.get_or_none(), &on_timeout)?);
        Ok(())
    }

    /// The shutdown's time is over.
    pub(super) fn check_shutdown_timeout(&self) -> Result<()> {
        if !matches!(self.core().state.get(), State::Flushing | State::Shutdown) {
            return Ok(());
        }
        let exception = builtin(Builtin::TimeoutError).call1(&*text("SSL shutdown timed out")?)?;
        self.call_transport(&names()._force_close, &[&exception]).map(drop)
    }

    /// The application still gets what has arrived; then close_notify is sent.
    pub(super) fn do_flush(&self) -> Result<()> {
        self.do_read()?;
        self.set_state(State::Shutdown)?;
        self.do_shutdown()
    }

    /// Goes on with the exchange of close_notify.
    pub(super) fn do_shutdown(&self) -> Result<()> {
        let core = self.core();
        let ssl = asyncio::ssl()?;
        let step = if core.eof_received.get() {
            Ok(none_object())
        } else {
            core.engine.object.get_or_none().call_method0(&names().unwrap)
        };
        match unless_again(ssl, step) {
            Ok(Progress::Again) => self.process_outgoing(),
            Ok(Progress::Made(_)) => {
                self.process_outgoing()?;
                self.call_eof_received()?;
                self.on_shutdown_complete(None)
            }
            Err(raised) if raised.matches(&ssl.ssl_error) => self.on_shutdown_complete(Some(raised.take())),
            Err(raised) => Err(raised),
        }
    }

    fn on_shutdown_complete(&self, failure: Option<Object>) -> Result<()> {
        let core = self.core();
        let times_last_flush = asyncio::asyncio().times_last_flush;
        if failure.is_some() || !times_last_flush {
            cancel_timer(&core.shutdown_timer)?;
        }
        if let Some(exception) = failure {
            return self.fatal_error(&exception, "Fatal error on transport");
        }
        if times_last_flush && core.shutdown_timer.is_empty() {
            self.start_shutdown_timer()?;
        }
        let close = core.transport.get_or_none().get_attribute(&names().close)?;
        self.call_soon(&close, &[])
    }

    /// The peer sends no more: the application's protocol is told once.
    pub(super) fn call_eof_received(&self) -> Result<()> {
        let core = self.core();
        if core.app_state.get() != AppState::ConnectionMade {
            return Ok(());
        }
        core.app_state.set(AppState::Eof);
        let answer = core.app_protocol.get_or_none().call_method0(&names().eof_received);
        match answer.and_then(|keep_open| keep_open.is_true()) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let line = "returning true from eof_received() has no effect when using ssl";
                imports().logger.call_method1(&names().warning, &*text(line)?).map(drop)
            }
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => self.fatal_error(&raised.take(), "Error calling eof_received()"),
        }
    }

    /// `transport.abort()` and `transport._force_close(exc)`
    pub(super) fn abort(&self, exception: Option<&Any>) -> Result<()> {
        self.set_state(State::Unwrapped)?;
        if self.core().transport.is_empty() {
            return Ok(());
        }
        match exception {
            None if !asyncio::asyncio().aborts_with_exception => self.call_transport(&names().abort, &[]),
            exception => {
                let exception = exception.map_or_else(none_object, Any::to_object);
                self.call_transport(&names()._force_close, &[&exception])
            }
        }
        .map(drop)
    }

    /// The transport below has received the end of its stream. Returns what its protocol's eof_received is to return.
    pub(super) fn eof_received(&self) -> Result<Object> {
        self.core().eof_received.set(true);
        match self.on_eof() {
            Ok(answer) => Ok(answer),
            Err(raised) if raised.matches(builtin(Builtin::Exception)) => {
                let exception = raised.take();
                self.call_transport(&names().close, &[])?;
                Err(Raised::exception(exception))
            }
            Err(raised) => Err(raised),
        }
    }

    fn on_eof(&self) -> Result<Object> {
        let core = self.core();
        self.log_debug("%r received EOF")?;
        match core.state.get() {
            State::Handshake => {
                let exception = builtin(Builtin::ConnectionResetError).call0()?;
                self.on_handshake_complete(Some(exception))?;
            }
            State::Wrapped => {
                self.set_state(State::Flushing)?;
                if core.app_reading_paused.get() {
                    return Ok(boolean(true));
                }
                self.do_flush()?;
            }
            State::Flushing => {
                self.do_write()?;
                self.set_state(State::Shutdown)?;
                self.do_shutdown()?;
            }
            State::Shutdown => self.do_shutdown()?,
            State::Unwrapped => {}
        }
        Ok(none_object())
    }

    /// The transport below is closed.
    pub(super) fn connection_lost(&self, exception: &Any) -> Result<()> {
        let core = self.core();
        core.backlog.borrow_mut().clear();
        drop(core.engine.take_outgoing()?);
        core.lost_count.set(core.lost_count.get().saturating_add(1));
        self.mark_transport_closed();
        if core.state.get() != State::Handshake
            && matches!(core.app_state.get(), AppState::ConnectionMade | AppState::Eof)
        {
            core.app_state.set(AppState::ConnectionLost);
            let protocol = core.app_protocol.get_or_none();
            self.call_soon(&*protocol.get_attribute(&names().connection_lost)?, &[exception])?;
        }
        self.set_state(State::Unwrapped)?;
        for slot in [&core.transport, &core.app_transport, &core.app_protocol] {
            slot.clear();
        }
        self.wake_waiter(Some(exception).filter(|exception| !exception.is_none()))?;
        cancel_timer(&core.shutdown_timer)?;
        cancel_timer(&core.handshake_timer)
    }

    /// The application's transport is closed, so it does not complain when it goes.
    fn mark_transport_closed(&self) {
        if let Some(transport) = self.core().app_transport.get_object() {
            super::transport::mark_closed(&transport);
        }
    }
}
