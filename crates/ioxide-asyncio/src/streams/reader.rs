//! `StreamReader`: the class, its attributes, and the side that a protocol feeds.
//!
//! Leaves to others: reading (`reading`), the bytes (`buffer`), `__aiter__` and `_replace_transport`, which are asyncio's own.

use super::buffer::Buffer;
use super::{ASYNCIO, assert_that, reading};
use crate::shells::{Core, Shell};
use ioxide_cpython::fields::{field, missing_attribute};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, Signature, attribute, documented, getter, given, method, method0,
};
use ioxide_cpython::types::{
    Class, Native, NativeClass, OwnMethods, ShellClass, ShellDefinition, allocate, head,
};
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::{
    Any, Builtin, Object, Once, Raised, Result, Slot, builtin, imports, names, none, none_object,
};
use std::cell::Cell;

/// `asyncio.streams._DEFAULT_LIMIT`
pub(super) const DEFAULT_LIMIT: i64 = 64 * 1024;

/// A reader as Python sees it.
pub(super) type StreamReader = Shell<ReaderCore>;

/// The native state behind a reader.
#[repr(C)]
pub struct ReaderCore {
    head: Any,
    pub(super) buffer: Buffer,
    pub(super) eof: Cell<bool>,
    pub(super) paused: Cell<bool>,
    /// The limit in bytes, and as it was given.
    limit: Cell<usize>,
    given_limit: Slot,
    pub(super) event_loop: Slot,
    pub(super) waiter: Slot,
    pub(super) exception: Slot,
    pub(super) transport: Slot,
    pub(super) source_traceback: Slot,
}

static READER_CORE: Once<Class> = Once::new();
static STREAM_READER: Once<ShellClass> = Once::new();
static OWN: Once<OwnMethods> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for ReaderCore {
    fn class() -> &'static Once<Class> {
        &READER_CORE
    }
}

impl Core for ReaderCore {
    fn shell() -> &'static Once<ShellClass> {
        &STREAM_READER
    }
}

/// What asyncio calls on `self`, or the protocol on its reader.
const CALLED: [&str; 10] = [
    "exception",
    "feed_data",
    "feed_eof",
    "set_exception",
    "read",
    "readline",
    "readuntil",
    "_maybe_resume_transport",
    "_wait_for_data",
    "_wakeup_waiter",
];

/// Creates the class.
pub(super) fn initialize() -> Result<()> {
    READER_CORE.set(NativeClass::core::<ReaderCore>(c"ioxide.ReaderCore")?);
    let mut methods = methods();
    methods.extend(reading::methods());
    STREAM_READER.set(ShellClass::create(ShellDefinition {
        name: c"StreamReader",
        bases: vec![ASYNCIO.get().stream_reader.clone()],
        doc: "What arrives on a stream, to be read by one coroutine at a time.\n\n\
              `limit` is in bytes and positive (ValueError): a longer line is refused, and the transport pauses above twice as much.",
        methods,
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| match arguments.positional() {
            [class, ..] => STREAM_READER.get().instantiate(class, allocate(ReaderCore::new())?),
            [] => Err(Raised::type_error("StreamReader.__new__(): not enough arguments")),
        })),
    })?);
    OWN.set(OwnMethods::of(class(), &CALLED)?);
    Ok(())
}

/// The class object.
pub(super) fn class() -> &'static Any {
    STREAM_READER.get().class().as_any()
}

/// The object as a reader whose methods are all ioxide's own (R2).
pub(super) fn own(reader: &Any) -> Result<Option<&StreamReader>> {
    match StreamReader::from_any(reader) {
        Some(reader) if is_own(reader)? => Ok(Some(reader)),
        _ => Ok(None),
    }
}

/// Whether the reader's methods are all ioxide's own (R2).
pub(super) fn is_own(reader: &StreamReader) -> Result<bool> {
    OWN.get().hold_for(reader)
}

/// `StreamReader(limit, loop)`
pub(super) fn create(limit: &Any, event_loop: &Any) -> Result<Object> {
    let reader = STREAM_READER.get().instantiate(class(), allocate(ReaderCore::new())?)?;
    if let Some(reader) = StreamReader::from_any(&reader) {
        open(reader, limit, event_loop)?;
    }
    Ok(reader)
}

fn methods() -> Vec<Definition> {
    vec![
        method(c"__init__", initialize_instance),
        method0(c"__repr__", show),
        documented(method0(c"exception", exception), c"exception($self)\n--\n\nWhat reading fails with, or None."),
        documented(
            method(c"set_exception", |this: &StreamReader, arguments: Arguments<'_>| {
                set_exception(this, arguments.only("set_exception", "exc")?)
            }),
            c"set_exception($self, exc)\n--\n\nMakes every read fail with the exception, also one that is waiting.",
        ),
        documented(
            method(c"set_transport", |this: &StreamReader, arguments: Arguments<'_>| {
                set_transport(this, arguments.only("set_transport", "transport")?)
            }),
            c"set_transport($self, transport)\n--\n\nNames the transport that is paused when too much waits to be read.",
        ),
        documented(method0(c"feed_eof", feed_eof), c"feed_eof($self)\n--\n\nSays that nothing more will arrive."),
        documented(method0(c"at_eof", at_eof), c"at_eof($self)\n--\n\nWhether everything has arrived and been read."),
        documented(
            method(c"feed_data", |this: &StreamReader, arguments: Arguments<'_>| {
                feed_data(this, arguments.only("feed_data", "data")?)
            }),
            c"feed_data($self, data)\n--\n\nAppends bytes that arrived and wakes who waits for them.",
        ),
        method0(c"_wakeup_waiter", wake_waiter),
        method0(c"_maybe_resume_transport", maybe_resume_transport),
    ]
}

fn attributes() -> Vec<Attribute> {
    vec![
        attribute(c"_buffer", |this: &StreamReader| this.core().buffer.share(), set_buffer),
        attribute(
            c"_eof",
            |this: &StreamReader| this.core().eof.get(),
            |this: &StreamReader, value: Option<&Any>| set_flag(&this.core().eof, value),
        ),
        attribute(
            c"_paused",
            |this: &StreamReader| this.core().paused.get(),
            |this: &StreamReader, value: Option<&Any>| set_flag(&this.core().paused, value),
        ),
        attribute(
            c"_limit",
            |this: &StreamReader| {
                let limit = this.core().given_limit.get_object();
                limit.ok_or_else(|| missing_attribute(this, c"_limit"))
            },
            |this: &StreamReader, value: Option<&Any>| set_limit(this.core(), assigned(value)?),
        ),
        field(c"_loop", |this: &StreamReader| &this.core().event_loop),
        field(c"_waiter", |this: &StreamReader| &this.core().waiter),
        field(c"_exception", |this: &StreamReader| &this.core().exception),
        field(c"_transport", |this: &StreamReader| &this.core().transport),
        getter(c"_source_traceback", |this: &StreamReader| this.core().source_traceback.get_or_none()),
    ]
}

/// The new value of an attribute that cannot be deleted.
pub(super) fn assigned(value: Option<&Any>) -> Result<&Any> {
    value.ok_or_else(|| Raised::type_error("cannot delete attribute"))
}

pub(super) fn set_flag(flag: &Cell<bool>, value: Option<&Any>) -> Result<()> {
    flag.set(assigned(value)?.is_true()?);
    Ok(())
}

fn set_buffer(this: &StreamReader, value: Option<&Any>) -> Result<()> {
    let value = assigned(value)?;
    if !value.is_bytearray() {
        return Err(Raised::type_error("the buffer of a StreamReader is a bytearray"));
    }
    this.core().buffer.set_shared(value.to_object());
    Ok(())
}

/// Fails: TypeError where the value is no number.
fn set_limit(core: &ReaderCore, value: &Any) -> Result<()> {
    // A fraction makes no difference to a whole number of bytes; the cast ends at the type's bounds.
    let limit = match value.to_i64() {
        Ok(limit) => usize::try_from(limit).unwrap_or(0),
        Err(raised) => {
            drop(raised.take());
            value.to_f64()? as usize
        }
    };
    core.limit.set(limit);
    core.given_limit.set(value.to_object());
    Ok(())
}

fn initialize_instance(this: &StreamReader, arguments: Arguments<'_>) -> Result<()> {
    const SIGNATURE: Signature<2> =
        Signature { function: "StreamReader.__init__", names: ["limit", "loop"], required: 0, positional: 2 };
    let [limit, event_loop] = SIGNATURE.bind(arguments)?;
    let limit = match limit {
        Some(limit) => limit.to_object(),
        None => integer(DEFAULT_LIMIT)?,
    };
    let event_loop = match given(event_loop) {
        Some(event_loop) => event_loop.to_object(),
        None => imports().get_event_loop.call0()?,
    };
    open(this, &limit, &event_loop)
}

/// Everything that `__init__` sets.
fn open(this: &StreamReader, limit: &Any, event_loop: &Any) -> Result<()> {
    if !integer(0)?.is_less_than(limit)? {
        return Err(Raised::value_error("Limit cannot be <= 0"));
    }
    let core = this.core();
    set_limit(core, limit)?;
    core.event_loop.set(event_loop.to_object());
    core.buffer.clear();
    core.eof.set(false);
    core.paused.set(false);
    for slot in [&core.waiter, &core.exception, &core.transport] {
        slot.set(none_object());
    }
    if event_loop.call_method0(&names().get_debug)?.is_true()? {
        core.source_traceback.set(ASYNCIO.get().extract_stack.call0()?);
    }
    Ok(())
}

/// What is in a slot, unless it is None.
pub(super) fn present(slot: &Slot) -> Option<Object> {
    slot.get_object().filter(|object| !object.is_none())
}

/// `repr(reader)`
fn show(this: &StreamReader) -> Result<Object> {
    let core = this.core();
    let mut shown = String::from("<StreamReader");
    let buffered = core.buffer.len();
    if buffered > 0 {
        shown.push_str(&format!(" {buffered} bytes"));
    }
    if core.eof.get() {
        shown.push_str(" eof");
    }
    if core.limit.get() != DEFAULT_LIMIT as usize {
        let limit = core.given_limit.get_or_none().str()?.to_text()?;
        shown.push_str(&format!(" limit={}", limit.as_str()));
    }
    for (name, slot) in
        [("waiter", &core.waiter), ("exception", &core.exception), ("transport", &core.transport)]
    {
        if let Some(value) = present(slot)
            && value.is_true()?
        {
            shown.push_str(&format!(" {name}={}", value.repr()?.to_text()?.as_str()));
        }
    }
    if core.paused.get() {
        shown.push_str(" paused");
    }
    shown.push('>');
    text(&shown)
}

/// `reader.exception()`
pub(super) fn exception(this: &StreamReader) -> Object {
    this.core().exception.get_or_none()
}

/// `reader.set_exception(exc)`
pub(super) fn set_exception(this: &StreamReader, exception: &Any) -> Result<()> {
    let core = this.core();
    core.exception.set(exception.to_object());
    let Some(waiter) = present(&core.waiter) else { return Ok(()) };
    core.waiter.set(none_object());
    crate::futures::set_exception_unless_cancelled(&waiter, exception)
}

/// `reader._wakeup_waiter()`
fn wake_waiter(this: &StreamReader) -> Result<()> {
    let core = this.core();
    let Some(waiter) = present(&core.waiter) else { return Ok(()) };
    core.waiter.set(none_object());
    crate::futures::set_result_unless_cancelled(&waiter, none())
}

fn set_transport(this: &StreamReader, transport: &Any) -> Result<()> {
    let core = this.core();
    assert_that(present(&core.transport).is_none(), "Transport already set")?;
    core.transport.set(transport.to_object());
    Ok(())
}

/// `reader.feed_eof()`
pub(super) fn feed_eof(this: &StreamReader) -> Result<()> {
    this.core().eof.set(true);
    wake(this)
}

fn wake(this: &StreamReader) -> Result<()> {
    if is_own(this)? {
        return wake_waiter(this);
    }
    this.call_method0(&names()._wakeup_waiter).map(drop)
}

fn at_eof(this: &StreamReader) -> bool {
    this.core().eof.get() && this.core().buffer.is_empty()
}

/// `reader.feed_data(data)`
pub(super) fn feed_data(this: &StreamReader, data: &Any) -> Result<()> {
    assert_that(!this.core().eof.get(), "feed_data after feed_eof")?;
    if !data.is_true()? {
        return Ok(());
    }
    if data.is_exact_bytes() {
        this.core().buffer.push(data)?;
    } else {
        this.core().buffer.extend(data)?;
    }
    on_fed(this)
}

/// `reader.feed_data` for bytes that are no object yet.
pub(super) fn feed_bytes(this: &StreamReader, data: &[u8]) -> Result<()> {
    assert_that(!this.core().eof.get(), "feed_data after feed_eof")?;
    this.core().buffer.push_copy(data)?;
    on_fed(this)
}

/// `raise exception`, of an instance or a class.
#[cold]
pub(super) fn raise(exception: &Any) -> Raised {
    if exception.is_exception() {
        return Raised::exception(exception.to_object());
    }
    if !exception.is_exception_class() {
        return Raised::type_error("exceptions must derive from BaseException");
    }
    match exception.call0() {
        Ok(instance) => Raised::exception(instance),
        Err(raised) => raised,
    }
}

/// Wakes who waits, and pauses the transport when too much waits to be read.
fn on_fed(this: &StreamReader) -> Result<()> {
    wake(this)?;
    let core = this.core();
    if core.paused.get() || core.buffer.len() <= core.limit.get().saturating_mul(2) {
        return Ok(());
    }
    let Some(transport) = present(&core.transport) else { return Ok(()) };
    match transport.call_method0(&names().pause_reading) {
        Ok(_) => core.paused.set(true),
        // It cannot be paused; everything has to be kept.
        Err(raised) if raised.matches(builtin(Builtin::NotImplementedError)) => {
            drop(raised.take());
            core.transport.set(none_object());
        }
        Err(raised) => return Err(raised),
    }
    Ok(())
}

/// `reader._maybe_resume_transport()`
pub(super) fn maybe_resume_transport(this: &StreamReader) -> Result<()> {
    let core = this.core();
    if !core.paused.get() || core.buffer.len() > core.limit.get() {
        return Ok(());
    }
    resume_transport(this)
}

/// Lets a paused transport go on.
pub(super) fn resume_transport(this: &StreamReader) -> Result<()> {
    let core = this.core();
    core.paused.set(false);
    core.transport.get_or_none().call_method0(&names().resume_reading).map(drop)
}

impl ReaderCore {
    fn new() -> ReaderCore {
        ReaderCore {
            head: head(),
            buffer: Buffer::new(),
            eof: Cell::new(false),
            paused: Cell::new(false),
            limit: Cell::new(DEFAULT_LIMIT as usize),
            given_limit: Slot::empty(),
            event_loop: Slot::empty(),
            waiter: Slot::empty(),
            exception: Slot::empty(),
            transport: Slot::empty(),
            source_traceback: Slot::empty(),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.get()
    }

    fn slots(&self) -> [&Slot; 6] {
        [
            &self.given_limit,
            &self.event_loop,
            &self.waiter,
            &self.exception,
            &self.transport,
            &self.source_traceback,
        ]
    }
}

impl Traverse for ReaderCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
        self.buffer.traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
        self.buffer.clear();
    }
}
