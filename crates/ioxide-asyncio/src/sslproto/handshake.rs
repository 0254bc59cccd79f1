//! The handshake: `SSLObject.do_handshake` until it is done, its timeout, and what its end brings.

use super::engine::{Progress, unless_again};
use super::{AppState, SslProtocol, State, asyncio};
use ioxide_cpython::value::{float, text};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, Slot, builtin, imports, names, none};

impl SslProtocol {
    /// The transport below is connected.
    pub(super) fn connection_made(&self, transport: &Any) -> Result<()> {
        self.core().transport.set(transport.to_object());
        self.start_handshake()
    }

    fn start_handshake(&self) -> Result<()> {
        let core = self.core();
        if self.is_debug()? {
            self.log_debug("%r starts SSL handshake")?;
            core.handshake_began.set(self.time()?);
        }
        self.set_state(State::Handshake)?;
        let on_timeout = self.get_attribute(&names()._check_handshake_timeout)?;
        core.handshake_timer.set(self.call_later(&core.handshake_timeout.get_or_none(), &on_timeout)?);
        self.do_handshake()
    }

    fn time(&self) -> Result<f64> {
        self.event_loop().call_method0(&names().time)?.to_f64()
    }

    /// The handshake's time is over.
    pub(super) fn check_handshake_timeout(&self) -> Result<()> {
        let core = self.core();
        if core.state.get() != State::Handshake {
            return Ok(());
        }
        let timeout = core.handshake_timeout.get_or_none().str()?.to_text()?;
        let message = text(&format!(
            "SSL handshake is taking longer than {} seconds: aborting the connection",
            timeout.as_str()
        ))?;
        let exception = builtin(Builtin::ConnectionAbortedError).call1(&message)?;
        self.fatal_error(&exception, "Fatal error on transport")
    }

    /// Goes on with the handshake.
    pub(super) fn do_handshake(&self) -> Result<()> {
        let ssl = asyncio::ssl()?;
        let step = self.core().engine.object.get_or_none().call_method0(&names().do_handshake);
        match unless_again(ssl, step) {
            Ok(Progress::Again) => self.process_outgoing(),
            Ok(Progress::Made(_)) => self.on_handshake_complete(None),
            Err(raised) if raised.matches(&ssl.ssl_error) => self.on_handshake_complete(Some(raised.take())),
            Err(raised) => Err(raised),
        }
    }

    /// The handshake is over, well or with an exception.
    pub(super) fn on_handshake_complete(&self, failure: Option<Object>) -> Result<()> {
        let core = self.core();
        cancel_timer(&core.handshake_timer)?;
        let object = core.engine.object.get_or_none();
        let certificate = match failure {
            None => self.set_state(State::Wrapped).and_then(|()| object.call_method0(&names().getpeercert)),
            Some(exception) => Err(Raised::exception(exception)),
        };
        let certificate = match certificate {
            Ok(certificate) => certificate,
            Err(raised) if raised.matches(builtin(Builtin::Exception)) => {
                return self.on_handshake_failed(&raised.take());
            }
            Err(raised) => return Err(raised),
        };
        self.log_duration()?;
        self.note_outcome(&object, &certificate)?;
        if core.app_state.get() == AppState::Initial {
            core.app_state.set(AppState::ConnectionMade);
            let transport = core.app_transport.get_or_none();
            core.app_protocol.get_or_none().call_method1(&names().connection_made, &transport)?;
        }
        self.wake_waiter(None)?;
        self.do_read()
    }

    fn on_handshake_failed(&self, exception: &Any) -> Result<()> {
        self.set_state(State::Unwrapped)?;
        let message = if exception.is_instance(&asyncio::ssl()?.certificate_error)? {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        self.fatal_error(exception, message)?;
        self.wake_waiter(Some(exception))
    }

    fn log_duration(&self) -> Result<()> {
        if !self.is_debug()? {
            return Ok(());
        }
        let milliseconds = (self.time()? - self.core().handshake_began.get()) * 1e3;
        let arguments = [&*text("%r: SSL handshake took %.1f ms")?, self, &*float(milliseconds)?];
        imports().logger.call_method(&names().debug, &arguments).map(drop)
    }

    /// What `get_extra_info` knows from now on. Records may pass directly.
    fn note_outcome(&self, object: &Any, certificate: &Any) -> Result<()> {
        let core = self.core();
        let extra = core.extra.get_or_none();
        extra.dict_set(&names().peercert, certificate)?;
        extra.dict_set(&names().cipher, &*object.call_method0(&names().cipher)?)?;
        extra.dict_set(&names().compression, &*object.call_method0(&names().compression)?)?;
        extra.dict_set(&names().ssl_object, object)?;
        core.engine.become_direct(asyncio::ssl()?)
    }

    /// Who waits for the handshake hears of its end, once.
    pub(super) fn wake_waiter(&self, exception: Option<&Any>) -> Result<()> {
        let core = self.core();
        let Some(waiter) = core.waiter.get_object() else { return Ok(()) };
        if !waiter.call_method0(&names().cancelled)?.is_true()? {
            match exception {
                Some(exception) => waiter.call_method1(&names().set_exception, exception)?,
                None => waiter.call_method1(&names().set_result, none())?,
            };
        }
        core.waiter.clear();
        Ok(())
    }
}

/// Cancels and forgets a timer, if there is one.
pub(super) fn cancel_timer(timer: &Slot) -> Result<()> {
    match timer.take() {
        Some(timer) => timer.call_method0(&names().cancel).map(drop),
        None => Ok(()),
    }
}
