//! `StreamWriter`: writes to a transport, and waits while its peer is slow.
//!
//! Leaves to others: `start_tls`, `__repr__` and `__del__`, which are asyncio's own over the attributes here; the waiting of a
//! paused protocol, which is the protocol's `_drain_helper`.
//!
//! Invariants:
//! W1. drain() of a protocol that is not paused does not suspend, and makes nothing but its own coroutine.

use super::reader::{self, StreamReader, present, raise};
use super::{ASYNCIO, assert_that, protocol};
use crate::shells::{Core, Shell};
use crate::transports;
use ioxide_cpython::coroutine::{Owner, coroutine_of, wait_for};
use ioxide_cpython::fields::{field, missing_attribute};
use ioxide_cpython::functions::coroutine_method0;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, Signature, attribute, documented, getter, method, method0,
};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, Slot, builtin, names, none, none_object};
use std::future::Future;
use std::ops::Deref;

/// A writer as Python sees it.
pub(super) type StreamWriter = Shell<WriterCore>;

/// The native state behind a writer.
#[repr(C)]
pub struct WriterCore {
    head: Any,
    transport: Slot,
    protocol: Slot,
    reader: Slot,
    event_loop: Slot,
    /// A future that is done; made when somebody looks.
    complete_future: Slot,
}

static WRITER_CORE: Once<Class> = Once::new();
static STREAM_WRITER: Once<ShellClass> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for WriterCore {
    fn class() -> &'static Once<Class> {
        &WRITER_CORE
    }
}

impl Core for WriterCore {
    fn shell() -> &'static Once<ShellClass> {
        &STREAM_WRITER
    }
}

/// Creates the class.
pub(super) fn initialize() -> Result<()> {
    WRITER_CORE.set(NativeClass::core::<WriterCore>(c"ioxide.WriterCore")?);
    STREAM_WRITER.set(ShellClass::create(ShellDefinition {
        name: c"StreamWriter",
        bases: vec![ASYNCIO.get().stream_writer.clone()],
        doc: "Writes to a transport; drain() waits while its peer reads too slowly.",
        methods: methods(),
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| {
            match arguments.positional() {
                [class, ..] => STREAM_WRITER.get().instantiate(class, allocate(WriterCore::new())?),
                [] => Err(Raised::type_error("StreamWriter.__new__(): not enough arguments")),
            }
        })),
    })?);
    Ok(())
}

/// The class object.
pub(super) fn class() -> &'static Any {
    STREAM_WRITER.get().class().as_any()
}

/// `StreamWriter(transport, protocol, reader, event_loop)`
pub(super) fn create(transport: &Any, protocol: &Any, reader: &Any, event_loop: &Any) -> Result<Object> {
    let writer = STREAM_WRITER.get().instantiate(class(), allocate(WriterCore::new())?)?;
    if let Some(writer) = StreamWriter::from_any(&writer) {
        open(writer, [transport, protocol, reader, event_loop])?;
    }
    Ok(writer)
}

fn initialize_instance(this: &StreamWriter, arguments: Arguments<'_>) -> Result<()> {
    const SIGNATURE: Signature<4> = Signature {
        function: "StreamWriter.__init__",
        names: ["transport", "protocol", "reader", "loop"],
        required: 4,
        positional: 4,
    };
    open(this, SIGNATURE.bind(arguments)?.map(|argument| argument.unwrap_or(none())))
}

fn open(this: &StreamWriter, parts: [&Any; 4]) -> Result<()> {
    let core = this.core();
    let [transport, protocol, reader, event_loop] = parts;
    core.transport.set(transport.to_object());
    core.protocol.set(protocol.to_object());
    assert_that(reader.is_none() || reader.is_instance(&ASYNCIO.get().stream_reader)?, "")?;
    core.reader.set(reader.to_object());
    core.event_loop.set(event_loop.to_object());
    core.complete_future.clear();
    Ok(())
}

fn methods() -> Vec<Definition> {
    vec![
        method(c"__init__", initialize_instance),
        documented(
            method(c"write", |this: &StreamWriter, arguments: Arguments<'_>| {
                let data = arguments.only("write", "data")?;
                transports::write(&*transport(this)?, data)
            }),
            c"write($self, data)\n--\n\nSends the bytes, now or soon; drain() after it waits where the peer is slow.",
        ),
        documented(
            method(c"writelines", |this: &StreamWriter, arguments: Arguments<'_>| {
                let data = arguments.only("writelines", "data")?;
                transport(this)?.call_method1(&names().writelines, data).map(drop)
            }),
            c"writelines($self, data)\n--\n\nSends the items of a list of bytes-like objects.",
        ),
        documented(
            method0(c"write_eof", |this: &StreamWriter| transport(this)?.call_method0(&names().write_eof)),
            c"write_eof($self)\n--\n\nCloses the writing half when what is buffered has been sent.",
        ),
        documented(
            method0(c"can_write_eof", |this: &StreamWriter| {
                transport(this)?.call_method0(&names().can_write_eof)
            }),
            c"can_write_eof($self)\n--\n\nWhether write_eof() can be used.",
        ),
        documented(
            method0(c"close", |this: &StreamWriter| transport(this)?.call_method0(&names().close)),
            c"close($self)\n--\n\nSends what is buffered and closes.",
        ),
        documented(
            method0(c"is_closing", |this: &StreamWriter| transport(this)?.call_method0(&names().is_closing)),
            c"is_closing($self)\n--\n\nWhether the stream is closed or being closed.",
        ),
        documented(
            method(c"get_extra_info", get_extra_info),
            c"get_extra_info($self, name, default=None)\n--\n\nWhat the transport knows under the name, or the default.",
        ),
        documented(
            coroutine_method0(c"wait_closed", |this: &StreamWriter| {
                writer_coroutine("StreamWriter.wait_closed", this, wait_closed)
            }),
            c"wait_closed($self)\n--\n\nWaits until the stream is closed. Fails with what the connection ended with.",
        ),
        documented(
            coroutine_method0(c"drain", |this: &StreamWriter| {
                writer_coroutine("StreamWriter.drain", this, drain)
            }),
            c"drain($self)\n--\n\nWaits while more is buffered than the transport's limit. Fails with what the connection ended with.",
        ),
    ]
}

fn attributes() -> Vec<Attribute> {
    vec![
        getter(c"transport", transport),
        field(c"_transport", |this: &StreamWriter| &this.core().transport),
        field(c"_protocol", |this: &StreamWriter| &this.core().protocol),
        field(c"_reader", |this: &StreamWriter| &this.core().reader),
        field(c"_loop", |this: &StreamWriter| &this.core().event_loop),
        attribute(c"_complete_fut", complete_future, |this: &StreamWriter, value: Option<&Any>| {
            this.core().complete_future.set(reader::assigned(value)?.to_object());
            Ok(())
        }),
    ]
}

fn transport(this: &StreamWriter) -> Result<Object> {
    this.core().transport.get_object().ok_or_else(|| missing_attribute(this, c"_transport"))
}

fn protocol_of(this: &StreamWriter) -> Result<Object> {
    this.core().protocol.get_object().ok_or_else(|| missing_attribute(this, c"_protocol"))
}

fn complete_future(this: &StreamWriter) -> Result<Object> {
    let core = this.core();
    if core.complete_future.is_empty() {
        let event_loop = core.event_loop.get_object();
        let event_loop = event_loop.ok_or_else(|| missing_attribute(this, c"_complete_fut"))?;
        let future = crate::futures::create_any(&event_loop)?;
        crate::futures::set_result_unless_cancelled(&future, none())?;
        core.complete_future.set(future);
    }
    Ok(core.complete_future.get_or_none())
}

fn get_extra_info(this: &StreamWriter, arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<2> =
        Signature { function: "get_extra_info", names: ["name", "default"], required: 1, positional: 2 };
    let [name, default] = SIGNATURE.bind(arguments)?;
    let arguments = [name.unwrap_or(none()), default.unwrap_or(none())];
    transport(this)?.call_method(&names().get_extra_info, &arguments)
}

/// The writer of a coroutine.
struct HeldWriter(Owner);

impl Deref for HeldWriter {
    type Target = StreamWriter;
    #[inline(always)]
    fn deref(&self) -> &StreamWriter {
        match StreamWriter::from_any(&self.0) {
            Some(writer) => writer,
            None => unreachable!("the method's receiver is a writer, and held"),
        }
    }
}

fn writer_coroutine<F>(
    name: &'static str,
    writer: &StreamWriter,
    body: impl FnOnce(HeldWriter) -> F + 'static,
) -> Result<Object>
where
    F: Future<Output = Result<Object>> + 'static,
{
    coroutine_of(name, writer.to_object(), |writer| body(HeldWriter(writer)))
}

async fn wait_closed(writer: HeldWriter) -> Result<Object> {
    let waiter = protocol_of(&writer)?.call_method1(&names()._get_close_waiter, &writer)?;
    wait_for(&waiter).await?;
    Ok(none_object())
}

async fn drain(writer: HeldWriter) -> Result<Object> {
    check_reader(&writer)?;
    if transports::is_closing(&*transport(&writer)?)? {
        // connection_lost gets its turn, so that a loop of write() and drain() hears of the end.
        wait_for(&*ASYNCIO.get().sleep.call1(&*integer(0)?)?).await?;
    }
    let protocol = protocol_of(&writer)?;
    if let Some(own) = protocol::own(&protocol)? {
        if own.core().lost.get() {
            let class = builtin(Builtin::ConnectionResetError);
            return Err(Raised::exception(class.call1(&*text("Connection lost")?)?));
        }
        if !own.core().writing_paused.get() {
            // W1
            return Ok(none_object());
        }
    }
    wait_for(&*protocol.call_method0(&names()._drain_helper)?).await?;
    Ok(none_object())
}

/// Fails: with what reading fails with.
fn check_reader(writer: &StreamWriter) -> Result<()> {
    let Some(reader) = present(&writer.core().reader) else { return Ok(()) };
    let exception = match reader::own(&reader)? {
        Some(reader) => StreamReader::core(reader).exception.get_or_none(),
        None => reader.call_method0(&names().exception)?,
    };
    if exception.is_none() { Ok(()) } else { Err(raise(&exception)) }
}

impl WriterCore {
    fn new() -> WriterCore {
        WriterCore {
            head: head(),
            transport: Slot::empty(),
            protocol: Slot::empty(),
            reader: Slot::empty(),
            event_loop: Slot::empty(),
            complete_future: Slot::empty(),
        }
    }

    fn slots(&self) -> [&Slot; 5] {
        [&self.transport, &self.protocol, &self.reader, &self.event_loop, &self.complete_future]
    }
}

impl Traverse for WriterCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
    }
}
