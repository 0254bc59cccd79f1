//! Flow control between the application and the transport below, both ways.

use super::{SslProtocol, State, asyncio};
use crate::transports::Limit;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, names, none};

/// `asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE`, in bytes.
pub(super) const WRITE_HIGH_WATER: usize = 512 * 1024;
/// `asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_READ`, in bytes.
pub(super) const READ_HIGH_WATER: usize = 256 * 1024;

impl SslProtocol {
    /// Tells the application's protocol to pause, or to go on.
    pub(super) fn control_application_writing(&self) -> Result<()> {
        let core = self.core();
        let size = self.write_buffer_size()?;
        if size >= core.outgoing_high.bytes() && !core.app_writing_paused.get() {
            core.app_writing_paused.set(true);
            return self.tell_application(&names().pause_writing, "protocol.pause_writing() failed");
        }
        if size <= core.outgoing_low.bytes() && core.app_writing_paused.get() {
            core.app_writing_paused.set(false);
            return self.tell_application(&names().resume_writing, "protocol.resume_writing() failed");
        }
        Ok(())
    }

    fn tell_application(&self, method: &Any, failure: &str) -> Result<()> {
        match self.core().app_protocol.get_or_none().call_method0(method) {
            Ok(_) => Ok(()),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => {
                self.report(failure, &raised.take(), self.core().app_transport.get_object().as_deref())
            }
        }
    }

    /// Pauses the transport below while more waits to be decrypted than the application takes.
    pub(super) fn control_ssl_reading(&self) -> Result<()> {
        let core = self.core();
        let size = core.engine.incoming_pending()?;
        if size >= core.incoming_high.bytes() && !core.ssl_reading_paused.get() {
            core.ssl_reading_paused.set(true);
            return self.call_transport(&names().pause_reading, &[]).map(drop);
        }
        if size <= core.incoming_low.bytes() && core.ssl_reading_paused.get() {
            core.ssl_reading_paused.set(false);
            return self.call_transport(&names().resume_reading, &[]).map(drop);
        }
        Ok(())
    }

    /// `transport.resume_reading()`: what has arrived meanwhile is read in the next turn.
    pub(super) fn resume_application_reading(&self) -> Result<()> {
        if !self.core().app_reading_paused.replace(false) {
            return Ok(());
        }
        let resume = self.get_attribute(&names()._resume_tls_reading)?;
        self.call_soon(&resume, &[])
    }

    /// What `resume_reading` schedules.
    pub(super) fn on_resumed(&self) -> Result<()> {
        match self.core().state.get() {
            State::Wrapped => self.do_read(),
            State::Flushing => self.do_flush(),
            State::Shutdown => self.do_shutdown(),
            State::Unwrapped | State::Handshake => Ok(()),
        }
    }

    /// The transport below is full. Fails: AssertionError where it is known to be.
    pub(super) fn pause_writing(&self) -> Result<()> {
        if self.core().ssl_writing_paused.replace(true) {
            return Err(assertion_error());
        }
        Ok(())
    }

    /// The transport below takes more. Fails: AssertionError where it was not paused.
    pub(super) fn resume_writing(&self) -> Result<()> {
        if !self.core().ssl_writing_paused.replace(false) {
            return Err(assertion_error());
        }
        self.process_outgoing()
    }

    /// `transport.set_write_buffer_limits(high=None, low=None)`. Fails: ValueError, in asyncio's words.
    pub(super) fn set_write_buffer_limits(&self, arguments: Arguments<'_>) -> Result<()> {
        let core = self.core();
        set_limits(
            "set_write_buffer_limits",
            arguments,
            WRITE_HIGH_WATER,
            &core.outgoing_high,
            &core.outgoing_low,
        )?;
        self.control_application_writing()
    }

    /// `transport.set_read_buffer_limits(high=None, low=None)`. Fails: ValueError, in asyncio's words.
    pub(super) fn set_read_buffer_limits(&self, arguments: Arguments<'_>) -> Result<()> {
        let core = self.core();
        set_limits(
            "set_read_buffer_limits",
            arguments,
            READ_HIGH_WATER,
            &core.incoming_high,
            &core.incoming_low,
        )?;
        self.control_ssl_reading()
    }
}

/// asyncio's own function computes what was not given, and checks.
fn set_limits(
    function: &'static str,
    arguments: Arguments<'_>,
    default: usize,
    high_limit: &Limit,
    low_limit: &Limit,
) -> Result<()> {
    let signature: Signature<2> = Signature { function, names: ["high", "low"], required: 0, positional: 2 };
    let [high, low] = signature.bind(arguments)?;
    let kilobytes = integer((default / 1024) as i64)?;
    let limits = asyncio::asyncio().add_flowcontrol_defaults.call(&[
        high.unwrap_or(none()),
        low.unwrap_or(none()),
        &*kilobytes,
    ])?;
    if let [high, low] = limits.tuple_items() {
        high_limit.set(high)?;
        low_limit.set(low)?;
    }
    Ok(())
}

/// `(low, high)`
pub(super) fn limits(low: &Limit, high: &Limit) -> Result<Object> {
    tuple(&[&*low.get()?, &*high.get()?])
}

#[cold]
fn assertion_error() -> Raised {
    Raised::empty(ioxide_cpython::builtin(ioxide_cpython::Builtin::AssertionError))
}
