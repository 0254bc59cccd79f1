//! The write buffer's limits, and telling the protocol to pause and to go on: asyncio.transports._FlowControlMixin.
//!
//! Invariants:
//! C1. pause_writing and resume_writing alternate, whatever the protocol does inside them.

use super::base::BaseTransport;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, Receiver, Signature, attribute, documented, getter, method, method0,
};
use ioxide_cpython::value::{integer, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, Slot, names, none};
use std::cell::Cell;

/// More than this is sent without waiting for the end of the turn.
const SEND_ABOVE: usize = 64 * 1024;
/// `asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES`
pub(super) const LATE_WRITES_BEFORE_WARNING: u32 = 5;
const DEFAULT_HIGH_WATER: usize = 64 * 1024;
const DEFAULT_LOW_WATER: usize = DEFAULT_HIGH_WATER / 4;

/// A limit as Python gave it (any number), and as bytes are compared with it.
pub struct Limit {
    bytes: Cell<usize>,
    given: Slot,
}

pub(super) struct FlowControl {
    pub(super) high: Limit,
    pub(super) low: Limit,
    is_paused: Cell<bool>,
}

impl Limit {
    pub fn new(bytes: usize) -> Limit {
        Limit { bytes: Cell::new(bytes), given: Slot::empty() }
    }

    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub fn get(&self) -> Result<Object> {
        match self.given.get_object() {
            Some(given) => Ok(given),
            None => integer(self.bytes.get() as i64),
        }
    }

    /// Fails: TypeError where the value is no number.
    pub fn set(&self, value: &Any) -> Result<()> {
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

    pub fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.given);
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
        self.high.traverse(visitor);
        self.low.traverse(visitor);
    }
}

/// A transport with a write buffer.
pub(super) trait FlowControlled: BaseTransport + Receiver {
    fn flow(&self) -> &FlowControl;

    /// What is buffered and not yet in the kernel, in bytes.
    fn pending_bytes(&self) -> usize;

    /// Sends what was written in this turn, unless the kernel is known to take no more.
    /// Fails: KeyboardInterrupt, SystemExit; OSError where the descriptor cannot be watched.
    fn send_pending(&self) -> Result<()>;

    /// Whether so much is buffered that it is sent without waiting for the end of the turn.
    #[inline]
    fn is_worth_sending_now(&self) -> bool {
        self.pending_bytes() > SEND_ABOVE.min(self.flow().high.bytes())
    }

    /// Tells the protocol to stop writing when more is buffered than the high-water mark allows.
    /// Fails: KeyboardInterrupt, SystemExit.
    fn maybe_pause_protocol(&self) -> Result<()> {
        let flow = self.flow();
        if self.pending_bytes() <= flow.high.bytes() || flow.is_paused.replace(true) {
            return Ok(());
        }
        self.tell_protocol(&names().pause_writing, "protocol.pause_writing() failed")
    }

    /// Tells a paused protocol to go on when no more is buffered than the low-water mark says.
    /// Fails: KeyboardInterrupt, SystemExit.
    fn maybe_resume_protocol(&self) -> Result<()> {
        let flow = self.flow();
        if !flow.is_paused() || self.pending_bytes() > flow.low.bytes() {
            return Ok(());
        }
        flow.is_paused.set(false);
        self.tell_protocol(&names().resume_writing, "protocol.resume_writing() failed")
    }

    fn tell_protocol(&self, method: &Any, failure: &str) -> Result<()> {
        match self.get_protocol().call_method0(method) {
            Ok(_) => Ok(()),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => self.report(failure, &raised.take()),
        }
    }

    /// `transport.set_write_buffer_limits(high=None, low=None)`. Fails: ValueError, in asyncio's words.
    fn set_write_buffer_limits(&self, arguments: Arguments<'_>) -> Result<()> {
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
    fn get_write_buffer_limits(&self) -> Result<Object> {
        let flow = self.flow();
        tuple(&[&*flow.low.get()?, &*flow.high.get()?])
    }

    /// `transport.get_write_buffer_size()`: what the kernel has not taken.
    fn get_write_buffer_size(&self) -> Result<Object> {
        self.send_pending()?;
        integer(self.pending_bytes() as i64)
    }
}

/// What Python sees of a transport's flow control.
pub(super) fn methods<T: FlowControlled + 'static>() -> Vec<Definition> {
    vec![
        documented(
            method0(c"get_write_buffer_size", T::get_write_buffer_size),
            c"get_write_buffer_size($self)\n--\n\nThe bytes that the kernel has not taken.",
        ),
        documented(
            method0(c"get_write_buffer_limits", T::get_write_buffer_limits),
            c"get_write_buffer_limits($self)\n--\n\nThe low and the high limit, in bytes.",
        ),
        documented(
            method(c"set_write_buffer_limits", T::set_write_buffer_limits),
            c"set_write_buffer_limits($self, high=None, low=None)\n--\n\n\
              Pauses the protocol above `high` bytes, lets it go on at `low`. ValueError unless high >= low >= 0.",
        ),
        method0(c"_maybe_pause_protocol", T::maybe_pause_protocol),
        method0(c"_maybe_resume_protocol", T::maybe_resume_protocol),
    ]
}

/// The attributes that asyncio's mixin reads and assigns.
pub(super) fn attributes<T: FlowControlled + 'static>() -> Vec<Attribute> {
    vec![
        getter(c"_protocol_paused", |this: &T| this.flow().is_paused()),
        attribute(
            c"_high_water",
            |this: &T| this.flow().high.get(),
            |this: &T, value: Option<&Any>| this.flow().high.set(assigned(value)?),
        ),
        attribute(
            c"_low_water",
            |this: &T| this.flow().low.get(),
            |this: &T, value: Option<&Any>| this.flow().low.set(assigned(value)?),
        ),
    ]
}

/// The value of an assignment. Fails: TypeError where the attribute is deleted.
pub(super) fn assigned(value: Option<&Any>) -> Result<&Any> {
    value.ok_or_else(|| Raised::type_error("cannot delete attribute"))
}
