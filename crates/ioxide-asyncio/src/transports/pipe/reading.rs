//! `ReadPipeTransport`: the end of a pipe that is read. One read for each event: what is left makes another one.

use super::super::base::{BaseTransport, transport_object};
use super::super::flow_control::assigned;
use super::{End, Parts, Phase, PipeTransport, refuse_creation, shared_attributes, shared_methods};
use crate::event_loop::{Direction, EventLoop, Watcher};
use ioxide_cpython::call::import;
use ioxide_cpython::context::with_context;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, attribute, documented, getter, method, method0};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::value::{bytes, bytes_filled_by, integer, text};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, names, none};
use ioxide_io::read_buffer::DEFAULT_CAPACITY;
use std::cell::Cell;
use std::io;

/// The transport as Python sees it. Derefs to the object; `core` is the state.
#[repr(transparent)]
pub struct ReadPipeTransport(Any);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Not begun, or over.
    Idle,
    /// The loop watches the descriptor and holds the transport.
    Watching,
    Paused,
}

/// The native state behind a transport.
#[repr(C)]
struct ReadPipeCore {
    head: Any,
    end: End,
    /// In which the protocol is called.
    reader_context: Slot,
    reading: Cell<Reading>,
    max_size: Cell<usize>,
}

static CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for ReadPipeCore {
    fn class() -> &'static Once<Class> {
        &CORE
    }
}

transport_object!(ReadPipeTransport, ReadPipeCore, SHELL);

impl BaseTransport for ReadPipeTransport {
    fn loop_slot(&self) -> &Slot {
        &self.end().event_loop
    }

    fn protocol_slot(&self) -> &Slot {
        &self.end().protocol
    }
}

impl PipeTransport for ReadPipeTransport {
    fn end(&self) -> &End {
        &self.core().end
    }
}

/// Creates the classes.
pub(super) fn initialize() -> Result<()> {
    CORE.set(NativeClass::core::<ReadPipeCore>(c"ioxide.ReadPipeCore")?);
    SHELL.set(create_class()?);
    Ok(())
}

fn create_class() -> Result<ShellClass> {
    use ReadPipeTransport as T;
    let mut methods = shared_methods::<T>();
    methods.extend([
        documented(method0(c"close", T::close), c"close($self)\n--\n\nStops reading and closes the pipe."),
        documented(method0(c"is_reading", T::is_reading), c"is_reading($self)\n--\n\n"),
        documented(method0(c"pause_reading", T::pause_reading), c"pause_reading($self)\n--\n\n"),
        documented(method0(c"resume_reading", T::resume_reading), c"resume_reading($self)\n--\n\n"),
        method(c"_fatal_error", T::fatal_error),
        method0(c"_start_reading", T::start_reading),
        method0(c"__repr__", |this: &T| text(&format!("{}>", this.shown(Some(this.watching()))))),
    ]);
    let mut attributes = shared_attributes::<T>();
    attributes.extend([
        getter(c"_paused", |this: &T| this.core().reading.get() == Reading::Paused),
        attribute(
            c"max_size",
            |this: &T| integer(this.core().max_size.get() as i64),
            |this: &T, value: Option<&Any>| this.set_max_size(assigned(value)?),
        ),
    ]);
    ShellClass::create(ShellDefinition {
        name: c"ReadPipeTransport",
        bases: vec![import(c"asyncio.unix_events")?.get_attribute_str(c"_UnixReadPipeTransport")?],
        doc: "The reading end of a pipe, as the transport that asyncio's own loop makes.",
        methods,
        attributes,
        new: Some(method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| {
            refuse_creation("ReadPipeTransport")
        })),
    })
}

/// `loop._make_read_pipe_transport(pipe, protocol, waiter=None, extra=None)`
pub fn make_read_pipe_transport(event_loop: &EventLoop, arguments: Arguments<'_>) -> Result<Object> {
    let parts = Parts::bind("_make_read_pipe_transport", arguments)?;
    let core = allocate(ReadPipeCore {
        head: head(),
        end: End::new(),
        reader_context: Slot::empty(),
        reading: Cell::new(Reading::Idle),
        max_size: Cell::new(DEFAULT_CAPACITY),
    })?;
    let transport = SHELL.get().instantiate(SHELL.get().class().as_any(), core)?;
    if let Some(transport) = ReadPipeTransport::from_any(&transport) {
        transport.open(event_loop, &parts, "Pipe transport is for pipes/sockets only.")?;
        transport.call_soon(&*transport.get_attribute(&names()._start_reading)?, &[])?;
        transport.wake_waiter(&parts)?;
    }
    Ok(transport)
}

impl ReadPipeTransport {
    fn watching(&self) -> &'static str {
        if self.core().reading.get() == Reading::Watching { "polling" } else { "idle" }
    }

    fn is_reading(&self) -> bool {
        !self.end().is_closing() && self.core().reading.get() != Reading::Paused
    }

    /// Fails: ValueError where nothing could be read.
    fn set_max_size(&self, value: &Any) -> Result<()> {
        match usize::try_from(value.to_i64()?) {
            Ok(size) if size > 0 => self.core().max_size.set(size),
            _ => return Err(Raised::value_error("max_size must be positive")),
        }
        Ok(())
    }

    /// Begins to watch, scheduled to run after connection_made; does nothing if that has paused reading or closed.
    fn start_reading(&self) -> Result<()> {
        let core = self.core();
        if !self.is_reading() || core.reading.get() == Reading::Watching {
            return Ok(());
        }
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        event_loop.check_closed()?;
        core.reader_context.set(self.callback_context()?);
        let watcher = Watcher::Transport(self.to_object());
        drop(event_loop.watch(core.end.fd.get(), Direction::Read, watcher)?);
        core.reading.set(Reading::Watching);
        Ok(())
    }

    fn stop_reading(&self, next: Reading) {
        if self.core().reading.replace(next) == Reading::Watching {
            self.stop_watching(Direction::Read);
        }
    }

    /// `transport.pause_reading()`
    fn pause_reading(&self) -> Result<()> {
        if !self.is_reading() {
            return Ok(());
        }
        self.stop_reading(Reading::Paused);
        self.log_in_debug_mode(&names().debug, "%r pauses reading")
    }

    /// `transport.resume_reading()`
    fn resume_reading(&self) -> Result<()> {
        let core = self.core();
        if core.end.is_closing() || core.reading.get() != Reading::Paused {
            return Ok(());
        }
        core.reading.set(Reading::Idle);
        self.start_reading()?;
        self.log_in_debug_mode(&names().debug, "%r resumes reading")
    }

    /// The descriptor is ready. Fails: KeyboardInterrupt, SystemExit.
    pub fn on_ready(&self) -> Result<()> {
        let core = self.core();
        // The event may have been queued before somebody stopped watching.
        if core.reading.get() != Reading::Watching {
            return Ok(());
        }
        let (Some(context), Some(event_loop)) = (core.reader_context.get_object(), self.event_loop()) else {
            return Ok(());
        };
        let outcome = with_context(&context, || self.on_readable());
        self.keep_in_loop(&event_loop, outcome, "_read_ready")
    }

    fn on_readable(&self) -> Result<()> {
        match self.read() {
            Ok(None) => Ok(()),
            Ok(Some(data)) if data.bytes().is_some_and(<[u8]>::is_empty) => self.on_end(),
            // What the protocol raises is no matter of the pipe's: it goes to whoever runs the callback.
            Ok(Some(data)) => self.get_protocol().call_method1(&names().data_received, &data).map(drop),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => self.on_fatal_error(&raised.take(), "Fatal read error on pipe transport"),
        }
    }

    /// What has arrived, empty at the end; `None` where nothing has. No borrow outlives the making of the bytes object.
    fn read(&self) -> Result<Option<Object>> {
        let pipe = self.descriptor()?;
        let room = self.core().max_size.get();
        if room != DEFAULT_CAPACITY {
            return bytes_filled_by(room, |room| unless_nothing(pipe.read(room)));
        }
        let Some(event_loop) = self.event_loop() else { return Ok(None) };
        let mut buffer = event_loop.read_buffer().borrow_mut();
        match unless_nothing(buffer.read(pipe))? {
            Some(read) => bytes(read).map(Some),
            None => Ok(None),
        }
    }

    /// Every writer has closed its end.
    fn on_end(&self) -> Result<()> {
        self.log_in_debug_mode(&names().info, "%r was closed by peer")?;
        self.end().phase.set(Phase::Closing);
        self.stop_reading(Reading::Idle);
        self.call_soon(&*self.get_protocol().get_attribute(&names().eof_received)?, &[])?;
        self.lose_connection(none())
    }

    /// `transport.close()`
    fn close(&self) -> Result<()> {
        if self.end().is_closing() {
            return Ok(());
        }
        self.close_with(none())
    }

    fn close_with(&self, exception: &Any) -> Result<()> {
        let next = match self.core().reading.get() {
            Reading::Paused => Reading::Paused,
            Reading::Idle | Reading::Watching => Reading::Idle,
        };
        self.stop_reading(next);
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

    /// The pipe cannot be read any more. The other end of a terminal that is gone (EIO) is everyday.
    fn on_fatal_error(&self, exception: &Any, message: &str) -> Result<()> {
        if is_input_output_error(exception)? {
            self.log_everyday_error(message, exception)?;
        } else {
            self.report(message, exception)?;
        }
        self.close_with(exception)
    }
}

fn is_input_output_error(exception: &Any) -> Result<bool> {
    if !ioxide_cpython::exception::exception_is(exception, ioxide_cpython::Builtin::OSError) {
        return Ok(false);
    }
    let number = exception.get_attribute(&names().errno)?;
    Ok(number.is_integer() && number.to_i64()? == i64::from(libc::EIO))
}

/// `None` where nothing has arrived.
fn unless_nothing<T>(read: io::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(raise_os_error(&error)),
    }
}

impl Traverse for ReadPipeCore {
    fn traverse(&self, visitor: &mut Visitor) {
        self.end.traverse(visitor);
        visitor.slot(&self.reader_context);
    }

    fn clear(&self) {
        self.end.clear();
        self.reader_context.clear();
    }
}
