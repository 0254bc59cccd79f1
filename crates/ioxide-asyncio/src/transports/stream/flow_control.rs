//! The write buffer's limits, and telling the protocol to pause and to go on: asyncio.transports._FlowControlMixin.
//!
//! Invariants:
//! C1. pause_writing and resume_writing alternate, whatever the protocol does inside them.

use super::SocketTransport;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{dict, integer, text, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, Slot, names, none, none_object};
use std::cell::Cell;

const DEFAULT_HIGH_WATER: usize = 64 * 1024;
const DEFAULT_LOW_WATER: usize = DEFAULT_HIGH_WATER / 4;

/// A limit as Python gave it (any number), and as bytes are compared with it.
pub(super) struct Limit {
    bytes: Cell<usize>,
    given: Slot,
}

pub(super) struct FlowControl {
    pub(super) high: Limit,
    pub(super) low: Limit,
    is_paused: Cell<bool>,
}

impl Limit {
    fn new(bytes: usize) -> Limit {
        Limit { bytes: Cell::new(bytes), given: Slot::empty() }
    }

    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub(super) fn get(&self) -> Result<Object> {
        match self.given.get_object() {
            Some(given) => Ok(given),
            None => integer(self.bytes.get() as i64),
        }
    }

    /// Fails: TypeError where the value is no number.
    pub(super) fn set(&self, value: &Any) -> Result<()> {
        // A float's fraction makes no difference to a whole number of bytes; the cast ends at the type's bounds.
        let bytes = match value.to_i64() {
            Ok(bytes) => usize::try_from(bytes).unwrap_or(0),
            Err(raised) => {
                drop(raised.take());
                value.to_f64()? as usize
            }
        };
        self.bytes.set(bytes);
        self.given.set(value.to_object());
        Ok(())
    }
}

impl FlowControl {
    pub(super) fn new() -> FlowControl {
        FlowControl {
            high: Limit::new(DEFAULT_HIGH_WATER),
            low: Limit::new(DEFAULT_LOW_WATER),
            is_paused: Cell::new(false),
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.get()
    }

    pub(super) fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.high.given);
        visitor.slot(&self.low.given);
    }
}

impl SocketTransport {
    /// Tells the protocol to stop writing when more is buffered than the high-water mark allows.
    /// Fails: KeyboardInterrupt, SystemExit.
    pub(super) fn maybe_pause_protocol(&self) -> Result<()> {
        let core = self.core();
        if core.pending_bytes() <= core.flow.high.bytes() || core.flow.is_paused.replace(true) {
            return Ok(());
        }
        self.tell_protocol(&names().pause_writing, "protocol.pause_writing() failed")
    }

    /// Tells a paused protocol to go on when no more is buffered than the low-water mark says.
    /// Fails: KeyboardInterrupt, SystemExit.
    pub(super) fn maybe_resume_protocol(&self) -> Result<()> {
        let core = self.core();
        if !core.flow.is_paused() || core.pending_bytes() > core.flow.low.bytes() {
            return Ok(());
        }
        core.flow.is_paused.set(false);
        self.tell_protocol(&names().resume_writing, "protocol.resume_writing() failed")
    }

    fn tell_protocol(&self, method: &Any, failure: &str) -> Result<()> {
        let protocol = self.core().protocol.get_object();
        let outcome = protocol.as_deref().unwrap_or(none()).call_method0(method);
        match outcome {
            Ok(_) => Ok(()),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => self.report(failure, &raised.take()),
        }
    }

    /// Calls the loop's exception handler.
    pub(super) fn report(&self, message: &str, exception: &Any) -> Result<()> {
        match self.event_loop() {
            Some(event_loop) => self.report_to(&event_loop, message, exception),
            None => Err(Raised::exception(exception.to_object())),
        }
    }

    pub(super) fn report_to(&self, event_loop: &Any, message: &str, exception: &Any) -> Result<()> {
        let report = dict()?;
        report.dict_set(&names().message, &*text(message)?)?;
        report.dict_set(&names().exception, exception)?;
        report.dict_set(&names().transport, self)?;
        report.dict_set(&names().protocol, &self.core().protocol.get_or_none())?;
        event_loop.call_method1(&names().call_exception_handler, &report).map(drop)
    }

    /// `transport.set_write_buffer_limits(high=None, low=None)`. Fails: ValueError, in asyncio's words.
    pub(super) fn set_write_buffer_limits(&self, arguments: Arguments<'_>) -> Result<()> {
        const SIGNATURE: Signature<2> = Signature {
            function: "set_write_buffer_limits",
            names: ["high", "low"],
            required: 0,
            positional: 2,
        };
        let [high, low] = SIGNATURE.bind(arguments)?;
        // The mixin computes what was not given, checks, and assigns `_high_water` and `_low_water`.
        let keywords = tuple(&[&names().high, &names().low])?;
        let values = [high.unwrap_or(none()), low.unwrap_or(none())];
        self.call_method_keywords(&names()._set_write_buffer_limits, &values, &keywords)?;
        self.send_pending()?;
        self.maybe_pause_protocol()
    }

    /// `transport.get_write_buffer_limits()`: low, high.
    pub(super) fn get_write_buffer_limits(&self) -> Result<Object> {
        let flow = &self.core().flow;
        tuple(&[&*flow.low.get()?, &*flow.high.get()?])
    }

    /// `transport.get_write_buffer_size()`: what the kernel has not taken.
    pub(super) fn get_write_buffer_size(&self) -> Result<Object> {
        self.send_pending()?;
        integer(self.core().pending_bytes() as i64)
    }

    /// `transport._make_empty_waiter()`: a future that is done when everything written is in the kernel.
    pub(super) fn make_empty_waiter(&self) -> Result<Object> {
        let core = self.core();
        if !core.empty_waiter.is_empty() {
            return Err(Raised::runtime_error("Empty waiter is already set"));
        }
        self.send_pending()?;
        let Some(event_loop) = self.event_loop() else {
            return Err(Raised::runtime_error("the transport is closed"));
        };
        let waiter = event_loop.create_future()?;
        core.empty_waiter.set(waiter.clone());
        if core.queue.borrow().is_empty() {
            waiter.call_method1(&names().set_result, none())?;
        }
        Ok(waiter)
    }

    /// `transport._reset_empty_waiter()`
    pub(super) fn reset_empty_waiter(&self) -> Object {
        self.core().empty_waiter.clear();
        none_object()
    }
}
