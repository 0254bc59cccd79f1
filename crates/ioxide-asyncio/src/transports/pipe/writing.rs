//! `WritePipeTransport`: the end of a pipe that is written to, and watched for the reader's hang-up.
//!
//! As with stream transports, what is written in one turn of the loop leaves together, and whatever could tell the
//! difference sends first. What is no stream of bytes (terminals, devices, pipes in packet mode) is written at once.
//!
//! Invariants:
//! W1. A write of at most `ATOMIC_WRITE` bytes that the pipe has room for arrives in one piece, as asyncio's does: several
//!     processes may write to one FIFO.
//! W2. While the state is `Queued`, a flush will follow before the loop waits.
//! W3. No borrow of the queue is held while Python runs; dropping sent bytes runs no Python.

use super::super::base::{BaseTransport, transport_object};
use super::super::flow_control::{self, FlowControl, FlowControlled, LATE_WRITES_BEFORE_WARNING};
use super::{End, Parts, Phase, PipeTransport, refuse_creation, shared_attributes, shared_methods};
use crate::event_loop::{Direction, EventLoop, Watcher};
use ioxide_cpython::buffer::OwnedBytes;
use ioxide_cpython::call::import;
use ioxide_cpython::context::with_context;
use ioxide_cpython::exception::{exception_is, raise_os_error};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, documented, getter, method, method0, method1};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::value::{bytes, integer, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, Slot, builtin, imports, names, none};
use ioxide_io::pipe::ATOMIC_WRITE;
use ioxide_io::{FileKind, Progress, WriteQueue};
use std::cell::{Cell, RefCell};

const WRITE_ERROR: &str = "Fatal write error on pipe transport";

/// The transport as Python sees it. Derefs to the object; `core` is the state.
#[repr(transparent)]
pub struct WritePipeTransport(Any);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Idle,
    /// The loop flushes at the end of the turn.
    Queued,
    /// The kernel takes no more; the loop watches the descriptor.
    Watching,
}

/// The native state behind a transport.
#[repr(C)]
struct WritePipeCore {
    head: Any,
    end: End,
    hang_up_context: Slot,
    writer_context: Slot,
    /// Whether the loop watches for the reader's hang-up.
    watches_hang_up: Cell<bool>,
    /// Whether writes may be put together.
    gathers: Cell<bool>,
    writing: Cell<Writing>,
    /// `_conn_lost`: writes that failed or came too late.
    late_writes: Cell<u32>,
    flow: FlowControl,
    queue: RefCell<WriteQueue<OwnedBytes>>,
}

static CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static BYTES_LIKE: Once<Object> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for WritePipeCore {
    fn class() -> &'static Once<Class> {
        &CORE
    }
}

transport_object!(WritePipeTransport, WritePipeCore, SHELL);

impl BaseTransport for WritePipeTransport {
    fn loop_slot(&self) -> &Slot {
        &self.end().event_loop
    }

    fn protocol_slot(&self) -> &Slot {
        &self.end().protocol
    }
}

impl PipeTransport for WritePipeTransport {
    fn end(&self) -> &End {
        &self.core().end
    }
}

impl FlowControlled for WritePipeTransport {
    fn flow(&self) -> &FlowControl {
        &self.core().flow
    }

    fn pending_bytes(&self) -> usize {
        self.core().queue.borrow().len_bytes()
    }

    fn send_pending(&self) -> Result<()> {
        let core = self.core();
        if core.writing.get() == Writing::Watching || core.queue.borrow().is_empty() {
            return Ok(());
        }
        match self.flush_queue(ATOMIC_WRITE) {
            Ok(Progress::Drained) => {
                core.writing.set(Writing::Idle);
                Ok(())
            }
            Ok(Progress::Partial) => {
                self.watch_writable()?;
                self.maybe_pause_protocol()
            }
            Err(raised) => self.on_write_error(raised),
        }
    }
}

/// Creates the classes.
pub(super) fn initialize() -> Result<()> {
    CORE.set(NativeClass::core::<WritePipeCore>(c"ioxide.WritePipeCore")?);
    BYTES_LIKE.set(tuple(&[&imports().bytearray, &imports().memoryview])?);
    SHELL.set(create_class()?);
    Ok(())
}

fn create_class() -> Result<ShellClass> {
    use WritePipeTransport as T;
    let mut methods = shared_methods::<T>();
    methods.extend(flow_control::methods::<T>());
    methods.extend([
        documented(
            method1(c"write", T::write),
            c"write($self, data)\n--\n\nWrites the bytes, now or soon. AssertionError for other objects.",
        ),
        documented(method0(c"write_eof", T::write_eof), c"write_eof($self)\n--\n\nAs close()."),
        documented(method0(c"can_write_eof", |_: &T| true), c"can_write_eof($self)\n--\n\n"),
        documented(method0(c"close", T::close), c"close($self)\n--\n\nWrites what is buffered and closes."),
        documented(method0(c"abort", T::abort), c"abort($self)\n--\n\nCloses at once."),
        method(c"_fatal_error", T::fatal_error),
        method0(c"_start_watching", T::start_watching),
        method0(c"__repr__", T::show),
    ]);
    let mut attributes = shared_attributes::<T>();
    attributes.extend(flow_control::attributes::<T>());
    attributes.extend([
        getter(c"_conn_lost", |this: &T| integer(i64::from(this.core().late_writes.get()))),
        getter(c"_buffer", T::buffered),
    ]);
    ShellClass::create(ShellDefinition {
        name: c"WritePipeTransport",
        bases: vec![import(c"asyncio.unix_events")?.get_attribute_str(c"_UnixWritePipeTransport")?],
        doc: "The writing end of a pipe, as the transport that asyncio's own loop makes.",
        methods,
        attributes,
        new: Some(method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| {
            refuse_creation("WritePipeTransport")
        })),
    })
}

/// `loop._make_write_pipe_transport(pipe, protocol, waiter=None, extra=None)`
pub fn make_write_pipe_transport(event_loop: &EventLoop, arguments: Arguments<'_>) -> Result<Object> {
    let parts = Parts::bind("_make_write_pipe_transport", arguments)?;
    let core = allocate(WritePipeCore {
        head: head(),
        end: End::new(),
        hang_up_context: Slot::empty(),
        writer_context: Slot::empty(),
        watches_hang_up: Cell::new(false),
        gathers: Cell::new(false),
        writing: Cell::new(Writing::Idle),
        late_writes: Cell::new(0),
        flow: FlowControl::new(),
        queue: RefCell::new(WriteQueue::new()),
    })?;
    let transport = SHELL.get().instantiate(SHELL.get().class().as_any(), core)?;
    if let Some(transport) = WritePipeTransport::from_any(&transport) {
        let refusal = "Pipe transport is only for pipes, sockets and character devices";
        let kind = transport.open(event_loop, &parts, refusal)?;
        let gathers = transport.descriptor()?.is_byte_stream().map_err(|error| raise_os_error(&error))?;
        transport.core().gathers.set(gathers);
        if kind != FileKind::CharacterDevice {
            transport.call_soon(&*transport.get_attribute(&names()._start_watching)?, &[])?;
        }
        transport.wake_waiter(&parts)?;
    }
    Ok(transport)
}

impl WritePipeTransport {
    /// `repr(transport)`, with what asyncio's shows; changes nothing.
    fn show(&self) -> Result<Object> {
        let watching = if self.core().writing.get() == Writing::Watching { "polling" } else { "idle" };
        let mut shown = self.shown(Some(watching));
        if shown.ends_with(watching) {
            shown.push_str(&format!(" bufsize={}", self.pending_bytes()));
        }
        text(&format!("{shown}>"))
    }

    /// `transport._buffer`: a bytearray of what waits for the kernel.
    fn buffered(&self) -> Result<Object> {
        self.send_pending()?;
        let pending = self.core().queue.borrow().remaining().collect::<Vec<_>>().concat();
        imports().bytearray.call1(&*bytes(&pending)?)
    }

    /// Begins to watch for the reader's hang-up, scheduled to run after connection_made.
    fn start_watching(&self) -> Result<()> {
        let core = self.core();
        if core.end.is_lost() || core.watches_hang_up.get() {
            return Ok(());
        }
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        event_loop.check_closed()?;
        core.hang_up_context.set(self.callback_context()?);
        let watcher = Watcher::Transport(self.to_object());
        drop(event_loop.watch(core.end.fd.get(), Direction::Read, watcher)?);
        core.watches_hang_up.set(true);
        Ok(())
    }

    fn stop_watching_hang_up(&self) {
        if self.core().watches_hang_up.replace(false) {
            self.stop_watching(Direction::Read);
        }
    }

    /// The descriptor is ready. Fails: KeyboardInterrupt, SystemExit.
    pub fn on_ready(&self, direction: Direction) -> Result<()> {
        let core = self.core();
        // The event may have been queued before somebody stopped watching.
        let (context, callback) = match direction {
            Direction::Read if core.watches_hang_up.get() => (&core.hang_up_context, "_read_ready"),
            Direction::Write if core.writing.get() == Writing::Watching => {
                (&core.writer_context, "_write_ready")
            }
            _ => return Ok(()),
        };
        let (Some(context), Some(event_loop)) = (context.get_object(), self.event_loop()) else {
            return Ok(());
        };
        let outcome = with_context(&context, || match direction {
            Direction::Read => self.on_hang_up(),
            Direction::Write => self.on_writable(),
        });
        self.keep_in_loop(&event_loop, outcome, callback)
    }

    /// The reader has closed its end (or, where it is a socket, has sent something, which asyncio takes for the same).
    fn on_hang_up(&self) -> Result<()> {
        // asyncio has written it when it was given: the error of that comes first.
        self.send_pending()?;
        if self.end().is_lost() {
            return Ok(());
        }
        self.log_in_debug_mode(&names().info, "%r was closed by peer")?;
        if self.core().queue.borrow().is_empty() {
            return self.close_with(none());
        }
        self.close_with(&*builtin(Builtin::BrokenPipeError).call0()?)
    }

    /// `transport.write(data)`
    fn write(&self, data: &Any) -> Result<()> {
        if !data.is_bytes() && !data.is_instance(BYTES_LIKE.get())? {
            let shown = data.repr()?.to_text()?;
            return Err(Raised::new(builtin(Builtin::AssertionError), shown.as_str()));
        }
        let core = self.core();
        if data.length()? == 0 {
            return Ok(());
        }
        if core.late_writes.get() > 0 || core.end.is_closing() {
            return self.on_late_write();
        }
        match OwnedBytes::new(data) {
            Ok(owned) => core.queue.borrow_mut().push(owned),
            Err(raised) => return self.on_write_error(raised),
        }
        self.on_written()
    }

    /// Writes after the end are dropped; the sixth and later ones are worth a warning.
    fn on_late_write(&self) -> Result<()> {
        let late_writes = &self.core().late_writes;
        if late_writes.get() >= LATE_WRITES_BEFORE_WARNING {
            let warning = text("pipe closed by peer or os.write(pipe, data) raised exception.")?;
            imports().logger.call_method1(&names().warning, &warning)?;
        }
        late_writes.set(late_writes.get().saturating_add(1));
        Ok(())
    }

    /// The queue has grown: decides when it is written.
    fn on_written(&self) -> Result<()> {
        let core = self.core();
        if core.writing.get() == Writing::Watching {
            return self.maybe_pause_protocol();
        }
        if !core.gathers.get() || self.is_worth_sending_now() {
            return self.send_pending();
        }
        if core.writing.get() == Writing::Queued {
            return Ok(());
        }
        let Some(event_loop) = self.event_loop().filter(|event_loop| event_loop.in_own_thread()) else {
            return self.send_pending();
        };
        core.writer_context.set(self.callback_context()?);
        core.writing.set(Writing::Queued);
        event_loop.flush_later(self.to_object(), self.pending_bytes());
        Ok(())
    }

    /// The loop's call at the end of a turn. Fails: KeyboardInterrupt, SystemExit.
    pub fn on_end_of_turn(&self) -> Result<()> {
        let core = self.core();
        if core.writing.get() != Writing::Queued {
            return Ok(());
        }
        let outcome = match core.writer_context.get_object() {
            // The protocol is called in the context of the write, as by asyncio's `write`.
            Some(context) => with_context(&context, || self.send_pending()),
            None => self.send_pending(),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(raised) => self.on_write_error(raised),
        }
    }

    /// Writes as much as the kernel takes, gathering at most `limit` bytes a call.
    fn flush_queue(&self, limit: usize) -> Result<Progress> {
        let mut pipe = self.descriptor()?;
        let flushed = self.core().queue.borrow_mut().flush_by(limit, &mut pipe, &mut drop);
        flushed.map_err(|error| raise_os_error(&error))
    }

    fn watch_writable(&self) -> Result<()> {
        let core = self.core();
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        event_loop.check_closed()?;
        let watcher = Watcher::Transport(self.to_object());
        drop(event_loop.watch(core.end.fd.get(), Direction::Write, watcher)?);
        // A queued flush has noted the context of the write.
        if core.writing.get() != Writing::Queued || core.writer_context.is_empty() {
            core.writer_context.set(self.callback_context()?);
        }
        core.writing.set(Writing::Watching);
        Ok(())
    }

    /// Nothing is written any more, or everything is.
    fn stop_writing(&self) {
        let core = self.core();
        if core.writing.replace(Writing::Idle) == Writing::Watching {
            self.stop_watching(Direction::Write);
        }
        core.writer_context.clear();
    }

    /// Fails: KeyboardInterrupt, SystemExit.
    fn on_write_error(&self, raised: Raised) -> Result<()> {
        if raised.leaves_the_loop() {
            return Err(raised);
        }
        let exception = raised.take();
        let core = self.core();
        core.late_writes.set(core.late_writes.get().saturating_add(1));
        self.drop_queue();
        self.on_fatal_error(&exception, WRITE_ERROR)
    }

    fn drop_queue(&self) {
        self.stop_writing();
        self.core().queue.borrow_mut().clear(&mut drop);
    }

    fn on_writable(&self) -> Result<()> {
        // What has waited is written whole, as asyncio does, W1 being over for it.
        match self.flush_queue(usize::MAX) {
            Ok(Progress::Partial) => return Ok(()),
            Ok(Progress::Drained) => self.stop_writing(),
            Err(raised) => return self.on_write_error(raised),
        }
        self.maybe_resume_protocol()?;
        if self.end().phase.get() != Phase::Closing {
            return Ok(());
        }
        self.stop_watching_hang_up();
        self.call_connection_lost(none())
    }

    /// `transport.write_eof()`: what is buffered is still written, then comes connection_lost(None).
    fn write_eof(&self) -> Result<()> {
        let core = self.core();
        if core.end.is_closing() {
            return Ok(());
        }
        self.send_pending()?;
        // Writing may have failed, and may have called the protocol.
        if core.end.is_closing() {
            return Ok(());
        }
        core.end.phase.set(Phase::Closing);
        if !core.queue.borrow().is_empty() {
            return Ok(());
        }
        self.stop_watching_hang_up();
        self.lose_connection(none())
    }

    /// `transport.close()`
    fn close(&self) -> Result<()> {
        if self.end().pipe.is_empty() {
            return Ok(());
        }
        self.write_eof()
    }

    /// `transport.abort()`: what is buffered is dropped.
    fn abort(&self) -> Result<()> {
        // asyncio has written it when it was given.
        self.send_pending()?;
        self.close_with(none())
    }

    fn close_with(&self, exception: &Any) -> Result<()> {
        self.drop_queue();
        self.stop_watching_hang_up();
        self.lose_connection(exception)
    }

    /// `transport._fatal_error(exc, message='Fatal error on pipe transport')`
    fn fatal_error(&self, arguments: Arguments<'_>) -> Result<()> {
        const SIGNATURE: Signature<2> =
            Signature { function: "_fatal_error", names: ["exc", "message"], required: 1, positional: 2 };
        let [exception, message] = SIGNATURE.bind(arguments)?;
        let message = match message {
            Some(message) => message.to_text()?.into_string(),
            None => String::from("Fatal error on pipe transport"),
        };
        self.on_fatal_error(exception.unwrap_or(none()), &message)
    }

    /// The pipe cannot be written to. Errors of the kernel are everyday.
    fn on_fatal_error(&self, exception: &Any, message: &str) -> Result<()> {
        if exception_is(exception, Builtin::OSError) {
            self.log_everyday_error(message, exception)?;
        } else {
            self.report(message, exception)?;
        }
        self.close_with(exception)
    }
}

impl Traverse for WritePipeCore {
    /// The queue's bytes objects refer to nothing and are not shown.
    fn traverse(&self, visitor: &mut Visitor) {
        self.end.traverse(visitor);
        visitor.slot(&self.hang_up_context);
        visitor.slot(&self.writer_context);
        self.flow.traverse(visitor);
    }

    fn clear(&self) {
        self.end.clear();
        self.hang_up_context.clear();
        self.writer_context.clear();
    }
}
