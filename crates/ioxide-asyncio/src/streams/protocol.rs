//! `StreamReaderProtocol`: hands what a transport receives to a StreamReader, and a new connection to a server's callback.
//!
//! Leaves to others: `__init__`, connection_lost, pausing and resuming the writing, `_drain_helper` and what else happens once a
//! connection or when a peer is slow: they are asyncio's own, over the attributes here. Writing is `writer`'s.
//!
//! Invariants:
//! P1. The protocol holds its reader weakly, but for the time until the callback of a server has it.

use super::reader::{self, StreamReader, feed_bytes, feed_data, feed_eof, present, set_flag};
use super::{ASYNCIO, writer};
use crate::shells::{Core, Shell};
use ioxide_cpython::coroutine::is_native_coroutine;
use ioxide_cpython::fields::field;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, attribute, documented, method, method0, method1,
};
use ioxide_cpython::types::{
    Class, FunctionDefinition, Native, NativeClass, OwnMethods, ShellClass, ShellDefinition, allocate, head,
};
use ioxide_cpython::value::{bytes, dict, text, tuple, weak_reference, weak_referent};
use ioxide_cpython::{
    Any, Builtin, Object, Once, Raised, Result, Slot, builtin, imports, names, none, none_object,
};
use std::cell::Cell;

/// A protocol as Python sees it.
pub(super) type StreamReaderProtocol = Shell<ProtocolCore>;

/// The native state behind a protocol.
#[repr(C)]
pub struct ProtocolCore {
    head: Any,
    pub(super) event_loop: Slot,
    /// A weak reference to the reader, or None.
    reader_reference: Slot,
    source_traceback: Slot,
    strong_reader: Slot,
    /// Until 3.12 the protocol keeps the writer it gave to the callback.
    stream_writer: Slot,
    task: Slot,
    transport: Slot,
    client_connected_callback: Slot,
    closed: Slot,
    /// A deque of futures; made when it is first asked for.
    drain_waiters: Slot,
    pub(super) writing_paused: Cell<bool>,
    pub(super) lost: Cell<bool>,
    rejects: Cell<bool>,
    over_ssl: Cell<bool>,
}

static PROTOCOL_CORE: Once<Class> = Once::new();
static PROTOCOL: Once<ShellClass> = Once::new();
static OWN: Once<OwnMethods> = Once::new();
static TASK_DONE: Once<FunctionDefinition> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for ProtocolCore {
    fn class() -> &'static Once<Class> {
        &PROTOCOL_CORE
    }
}

impl Core for ProtocolCore {
    fn shell() -> &'static Once<ShellClass> {
        &PROTOCOL
    }
}

/// What is called on a protocol, by transports, writers and itself.
const CALLED: [&str; 4] = ["data_received", "_drain_helper", "_get_close_waiter", "_stream_reader"];

/// Creates the class.
pub(super) fn initialize() -> Result<()> {
    PROTOCOL_CORE.set(NativeClass::core::<ProtocolCore>(c"ioxide.StreamReaderProtocolCore")?);
    PROTOCOL.set(ShellClass::create(ShellDefinition {
        name: c"StreamReaderProtocol",
        bases: vec![ASYNCIO.get().protocol.clone()],
        doc: "The protocol behind a StreamReader and a StreamWriter.",
        methods: methods(),
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| {
            match arguments.positional() {
                [class, ..] => PROTOCOL.get().instantiate(class, allocate(ProtocolCore::new())?),
                [] => Err(Raised::type_error("StreamReaderProtocol.__new__(): not enough arguments")),
            }
        })),
    })?);
    TASK_DONE.set(FunctionDefinition::new(method1(c"callback", on_task_done)));
    OWN.set(OwnMethods::of(class(), &CALLED)?);
    Ok(())
}

/// The class object.
pub(super) fn class() -> &'static Any {
    PROTOCOL.get().class().as_any()
}

/// The object as a protocol whose methods are all ioxide's own (R2).
pub(super) fn own(protocol: &Any) -> Result<Option<&StreamReaderProtocol>> {
    match StreamReaderProtocol::from_any(protocol) {
        Some(protocol) if OWN.get().hold_for(protocol)? => Ok(Some(protocol)),
        _ => Ok(None),
    }
}

/// Whether the object is of exactly this class; what has been replaced on it is noticed when something arrives.
pub(super) fn is_exact(protocol: &Any) -> bool {
    PROTOCOL.get().class().is_exact(protocol)
}

/// `StreamReaderProtocol(reader, client_connected_callback, event_loop)`
pub(super) fn create(reader: &Any, callback: Option<&Any>, event_loop: &Any) -> Result<Object> {
    let protocol = PROTOCOL.get().instantiate(class(), allocate(ProtocolCore::new())?)?;
    let Some(this) = StreamReaderProtocol::from_any(&protocol) else { return Ok(protocol) };
    let core = this.core();
    core.event_loop.set(event_loop.to_object());
    core.reader_reference.set(weak_reference(reader)?);
    if let Some(reader) = StreamReader::from_any(reader)
        && let Some(traceback) = reader.core().source_traceback.get_object()
    {
        core.source_traceback.set(traceback);
    }
    core.client_connected_callback.set(callback.map_or_else(none_object, Any::to_object));
    if callback.is_some() {
        core.strong_reader.set(reader.to_object());
    }
    if ASYNCIO.get().protocol_keeps_writer {
        core.stream_writer.set(none_object());
    }
    core.task.set(none_object());
    core.transport.set(none_object());
    core.closed.set(crate::futures::create_any(event_loop)?);
    Ok(protocol)
}

fn methods() -> Vec<Definition> {
    vec![
        documented(
            method1(c"connection_made", connection_made),
            c"connection_made($self, transport)\n--\n\nGives the transport to the reader, and reader and writer to a server's callback.",
        ),
        documented(
            method1(c"data_received", data_received),
            c"data_received($self, data)\n--\n\nFeeds the reader, if it is still there.",
        ),
        documented(
            method0(c"eof_received", eof_received),
            c"eof_received($self)\n--\n\nFeeds the end of the stream. The transport stays open for writing, but for TLS.",
        ),
    ]
}

fn attributes() -> Vec<Attribute> {
    use StreamReaderProtocol as P;
    vec![
        field(c"_loop", |this: &P| &this.core().event_loop),
        field(c"_stream_reader_wr", |this: &P| &this.core().reader_reference),
        field(c"_strong_reader", |this: &P| &this.core().strong_reader),
        field(c"_stream_writer", |this: &P| &this.core().stream_writer),
        field(c"_task", |this: &P| &this.core().task),
        field(c"_transport", |this: &P| &this.core().transport),
        field(c"_client_connected_cb", |this: &P| &this.core().client_connected_callback),
        field(c"_closed", |this: &P| &this.core().closed),
        attribute(
            c"_source_traceback",
            |this: &P| this.core().source_traceback.get_or_none(),
            |this: &P, value: Option<&Any>| {
                drop(this.core().source_traceback.replace(value.map(Any::to_object)));
                Ok(())
            },
        ),
        attribute(c"_drain_waiters", drain_waiters, |this: &P, value: Option<&Any>| {
            this.core().drain_waiters.set(reader::assigned(value)?.to_object());
            Ok(())
        }),
        attribute(
            c"_paused",
            |this: &P| this.core().writing_paused.get(),
            |this: &P, value: Option<&Any>| set_flag(&this.core().writing_paused, value),
        ),
        attribute(
            c"_connection_lost",
            |this: &P| this.core().lost.get(),
            |this: &P, value: Option<&Any>| set_flag(&this.core().lost, value),
        ),
        attribute(
            c"_reject_connection",
            |this: &P| this.core().rejects.get(),
            |this: &P, value: Option<&Any>| set_flag(&this.core().rejects, value),
        ),
        attribute(
            c"_over_ssl",
            |this: &P| this.core().over_ssl.get(),
            |this: &P, value: Option<&Any>| set_flag(&this.core().over_ssl, value),
        ),
    ]
}

fn drain_waiters(this: &StreamReaderProtocol) -> Result<Object> {
    let slot = &this.core().drain_waiters;
    if slot.is_empty() {
        slot.set(ASYNCIO.get().deque.call0()?);
    }
    Ok(slot.get_or_none())
}

/// `protocol._stream_reader`
fn stream_reader(this: &StreamReaderProtocol) -> Result<Option<Object>> {
    if OWN.get().hold_for(this)? {
        return match present(&this.core().reader_reference) {
            Some(reference) => weak_referent(&reference),
            None => Ok(None),
        };
    }
    let found = this.get_attribute(&names()._stream_reader)?;
    Ok((!found.is_none()).then_some(found))
}

/// `protocol.data_received(data)`
fn data_received(this: &StreamReaderProtocol, data: &Any) -> Result<()> {
    let Some(reader) = stream_reader(this)? else { return Ok(()) };
    match reader::own(&reader)? {
        Some(reader) => feed_data(reader, data),
        None => reader.call_method1(&names().feed_data, data).map(drop),
    }
}

/// What a transport of ioxide's has received, in its own buffer.
pub(super) fn receive(protocol: &Any, data: &[u8]) -> Result<()> {
    let Some(this) = own(protocol)? else {
        return protocol.call_method1(&names().data_received, &*bytes(data)?).map(drop);
    };
    let Some(reader) = stream_reader(this)? else { return Ok(()) };
    match reader::own(&reader)? {
        Some(reader) => feed_bytes(reader, data),
        None => reader.call_method1(&names().feed_data, &*bytes(data)?).map(drop),
    }
}

/// `protocol.eof_received()`: whether the transport stays open.
fn eof_received(this: &StreamReaderProtocol) -> Result<bool> {
    if let Some(reader) = stream_reader(this)? {
        match reader::own(&reader)? {
            Some(reader) => feed_eof(reader)?,
            None => drop(reader.call_method0(&names().feed_eof)?),
        }
    }
    Ok(!this.core().over_ssl.get())
}

/// `protocol.connection_made(transport)`
fn connection_made(this: &StreamReaderProtocol, transport: &Any) -> Result<()> {
    let core = this.core();
    if core.rejects.get() {
        return reject(this, transport);
    }
    core.transport.set(transport.to_object());
    let reader = stream_reader(this)?;
    if let Some(reader) = &reader {
        reader.call_method1(&names().set_transport, transport)?;
    }
    let context = transport.call_method1(&names().get_extra_info, &names().sslcontext)?;
    core.over_ssl.set(!context.is_none());
    let Some(callback) = present(&core.client_connected_callback) else { return Ok(()) };
    let event_loop = core.event_loop.get_or_none();
    let writer = writer::create(transport, this, reader.as_deref().unwrap_or(none()), &event_loop)?;
    if ASYNCIO.get().protocol_keeps_writer {
        core.stream_writer.set(writer.clone());
    }
    match callback.call(&[reader.as_deref().unwrap_or(none()), &*writer]) {
        Ok(answer) => start_task(this, transport, &answer, &event_loop)?,
        Err(raised) if ASYNCIO.get().callback_errors_are_reported && is_ordinary(&raised) => {
            report_unhandled(&event_loop, &raised.take(), transport)?;
        }
        Err(raised) => return Err(raised),
    }
    core.strong_reader.set(none_object());
    Ok(())
}

fn is_ordinary(raised: &Raised) -> bool {
    raised.matches(builtin(Builtin::Exception))
}

/// What a server's callback returned runs as a task if it is a coroutine.
fn start_task(this: &StreamReaderProtocol, transport: &Any, answer: &Any, event_loop: &Any) -> Result<()> {
    if !is_native_coroutine(answer) && !imports().iscoroutine.call1(answer)?.is_true()? {
        return Ok(());
    }
    let task = event_loop.call_method1(&names().create_task, answer)?;
    this.core().task.set(task.clone());
    let on_done = TASK_DONE.get().bind(&*tuple(&[event_loop, transport])?)?;
    task.call_method1(&names().add_done_callback, &on_done).map(drop)
}

/// The task of a server's callback is done; `state` is its loop and transport.
fn on_task_done(state: &Any, task: &Any) -> Result<()> {
    let &[event_loop, transport] = state.tuple_items() else { return Ok(()) };
    if ASYNCIO.get().cancelled_callbacks_close && task.call_method0(&names().cancelled)?.is_true()? {
        return transport.call_method0(&names().close).map(drop);
    }
    let exception = task.call_method0(&names().exception)?;
    if exception.is_none() {
        return Ok(());
    }
    report_unhandled(event_loop, &exception, transport)
}

/// Reports what a server's callback failed with, and closes the connection.
fn report_unhandled(event_loop: &Any, exception: &Any, transport: &Any) -> Result<()> {
    let report = dict()?;
    report.dict_set(&names().message, &*text("Unhandled exception in client_connected_cb")?)?;
    report.dict_set(&names().exception, exception)?;
    report.dict_set(&names().transport, transport)?;
    event_loop.call_method1(&names().call_exception_handler, &report)?;
    transport.call_method0(&names().close).map(drop)
}

fn reject(this: &StreamReaderProtocol, transport: &Any) -> Result<()> {
    let core = this.core();
    let report = dict()?;
    let message = "An open stream was garbage collected prior to establishing network connection; \
                   call \"stream.close()\" explicitly.";
    report.dict_set(&names().message, &*text(message)?)?;
    if let Some(traceback) = present(&core.source_traceback) {
        report.dict_set(&names().source_traceback, &traceback)?;
    }
    core.event_loop.get_or_none().call_method1(&names().call_exception_handler, &report)?;
    transport.call_method0(&names().abort).map(drop)
}

impl ProtocolCore {
    fn new() -> ProtocolCore {
        ProtocolCore {
            head: head(),
            event_loop: Slot::empty(),
            reader_reference: Slot::empty(),
            source_traceback: Slot::empty(),
            strong_reader: Slot::empty(),
            stream_writer: Slot::empty(),
            task: Slot::empty(),
            transport: Slot::empty(),
            client_connected_callback: Slot::empty(),
            closed: Slot::empty(),
            drain_waiters: Slot::empty(),
            writing_paused: Cell::new(false),
            lost: Cell::new(false),
            rejects: Cell::new(false),
            over_ssl: Cell::new(false),
        }
    }

    fn slots(&self) -> [&Slot; 10] {
        [
            &self.event_loop,
            &self.reader_reference,
            &self.source_traceback,
            &self.strong_reader,
            &self.stream_writer,
            &self.task,
            &self.transport,
            &self.client_connected_callback,
            &self.closed,
            &self.drain_waiters,
        ]
    }
}

impl Traverse for ProtocolCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
    }
}
