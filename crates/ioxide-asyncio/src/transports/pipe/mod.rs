//! The transports of the two ends of a pipe, as asyncio.unix_events._UnixReadPipeTransport and _UnixWritePipeTransport:
//! pipes, FIFOs, character devices, terminals and sockets that are read and written as files.
//!
//! | file | room |
//! |---|---|
//! | mod | what both ends have: the pipe, its beginning and its end |
//! | reading, writing | the two classes |
//!
//! Leaves to others: `connect_read_pipe` and `connect_write_pipe` (`event_loop/pipes`), flow control (`flow_control`).
//!
//! Invariants:
//! P1. Only the Python object of the pipe closes the descriptor, by its `close()`, once; nobody here does.
//! P2. Bytes go to the descriptor that the pipe object has at the time, never to a remembered number. A transport stops
//!     watching only where it is still the one that is told: the number may be somebody else's by now.
//! P3. `Lost` is entered once; whoever enters it schedules or makes the one call of connection_lost.

mod reading;
mod writing;

pub use reading::{ReadPipeTransport, make_read_pipe_transport};
pub use writing::{WritePipeTransport, make_write_pipe_transport};

use super::base::BaseTransport;
use crate::event_loop::{Direction, EventLoop};
use ioxide_cpython::exception::{raise_os_error, type_name, warn_resource};
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, Receiver, Signature, documented, getter, given, method0, method1,
};
use ioxide_cpython::value::{dict, integer};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, Slot, builtin, imports, names, none};
use ioxide_io::{FileKind, PipeRef};
use std::cell::Cell;
use std::os::fd::RawFd;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// `close` was called or the end was reached; what is queued is still written.
    Closing,
    /// connection_lost is scheduled or has been called.
    Lost,
}

/// What both ends have.
struct End {
    event_loop: Slot,
    /// Empty once the pipe is closed.
    pipe: Slot,
    protocol: Slot,
    /// The number that the loop's watches know.
    fd: Cell<RawFd>,
    phase: Cell<Phase>,
}

/// What a transport is made of.
struct Parts<'a> {
    pipe: &'a Any,
    protocol: &'a Any,
    waiter: Option<&'a Any>,
    extra: Option<&'a Any>,
}

/// Creates the classes.
pub fn initialize() -> Result<()> {
    reading::initialize()?;
    writing::initialize()
}

impl<'a> Parts<'a> {
    /// `function(pipe, protocol, waiter=None, extra=None)`
    fn bind(function: &'static str, arguments: Arguments<'a>) -> Result<Parts<'a>> {
        let signature = Signature::<4> {
            function,
            names: ["pipe", "protocol", "waiter", "extra"],
            required: 2,
            positional: 4,
        };
        let [pipe, protocol, waiter, extra] = signature.bind(arguments)?;
        Ok(Parts {
            pipe: pipe.unwrap_or(none()),
            protocol: protocol.unwrap_or(none()),
            waiter: given(waiter),
            extra: given(extra),
        })
    }
}

impl End {
    fn new() -> End {
        End {
            event_loop: Slot::empty(),
            pipe: Slot::empty(),
            protocol: Slot::empty(),
            fd: Cell::new(-1),
            phase: Cell::new(Phase::Open),
        }
    }

    fn is_closing(&self) -> bool {
        self.phase.get() != Phase::Open
    }

    fn is_lost(&self) -> bool {
        self.phase.get() == Phase::Lost
    }

    fn traverse(&self, visitor: &mut Visitor) {
        for slot in [&self.event_loop, &self.pipe, &self.protocol] {
            visitor.slot(slot);
        }
    }

    fn clear(&self) {
        for slot in [&self.event_loop, &self.pipe, &self.protocol] {
            slot.clear();
        }
    }
}

/// What both transports do the same way.
trait PipeTransport: BaseTransport + Receiver {
    fn end(&self) -> &End;

    /// Takes the pipe and schedules connection_made; what follows it is the caller's. `refusal` is what is said of a
    /// descriptor that is neither pipe nor socket nor character device. Fails: ValueError, OSError.
    fn open(&self, event_loop: &EventLoop, parts: &Parts<'_>, refusal: &str) -> Result<FileKind> {
        let fd = parts.pipe.call_method0(&names().fileno)?.to_i32()?;
        let descriptor = PipeRef::new(fd);
        let kind = descriptor.kind().map_err(|error| raise_os_error(&error))?;
        if kind == FileKind::Other {
            return Err(Raised::value_error(refusal));
        }
        let extra = match parts.extra {
            Some(extra) => extra.to_object(),
            None => dict()?,
        };
        extra.call_method(&names().__setitem__, &[&names().pipe, parts.pipe])?;
        self.set_attribute(&names()._extra, &extra)?;
        descriptor.set_nonblocking(true).map_err(|error| raise_os_error(&error))?;
        let end = self.end();
        end.event_loop.set(event_loop.to_object());
        end.protocol.set(parts.protocol.to_object());
        end.fd.set(fd);
        end.pipe.set(parts.pipe.to_object());
        self.call_soon(&*parts.protocol.get_attribute(&names().connection_made)?, &[self])?;
        Ok(kind)
    }

    /// Wakes whoever waits for connection_made, after it.
    fn wake_waiter(&self, parts: &Parts<'_>) -> Result<()> {
        match parts.waiter {
            Some(waiter) => self.call_soon(&imports().set_result_unless_cancelled, &[waiter, none()]),
            None => Ok(()),
        }
    }

    /// The descriptor to read from and write to (P2); -1, which the kernel refuses, for a closed pipe.
    fn descriptor(&self) -> Result<PipeRef> {
        let Some(pipe) = self.end().pipe.get_object() else { return Ok(PipeRef::new(-1)) };
        match pipe.call_method0(&names().fileno) {
            Ok(number) => Ok(PipeRef::new(number.to_i32()?)),
            // A closed file has no number.
            Err(raised) if raised.matches(builtin(Builtin::ValueError)) => {
                drop(raised.take());
                Ok(PipeRef::new(-1))
            }
            Err(raised) => Err(raised),
        }
    }

    fn stop_watching(&self, direction: Direction) {
        if let Some(event_loop) = self.event_loop() {
            drop(event_loop.unwatch_transport(self.end().fd.get(), direction, self));
        }
    }

    /// connection_lost is called in the next turn, unless it is on its way already (P3).
    fn lose_connection(&self, exception: &Any) -> Result<()> {
        if self.end().phase.replace(Phase::Lost) == Phase::Lost {
            return Ok(());
        }
        self.schedule_connection_lost(exception)
    }

    /// `transport._call_connection_lost(exc)`: tells the protocol, closes the pipe (P1) and lets go of everything.
    fn call_connection_lost(&self, exception: &Any) -> Result<()> {
        let end = self.end();
        end.phase.set(Phase::Lost);
        let Some(protocol) = end.protocol.get_object() else { return Ok(()) };
        let told = protocol.call_method1(&names().connection_lost, exception).map_err(Raised::take);
        let pipe = end.pipe.take();
        drop((end.protocol.take(), end.event_loop.take()));
        let closed = match &pipe {
            Some(pipe) => pipe.call_method0(&names().close).map(drop),
            None => Ok(()),
        };
        // As a `finally` block: the last exception is the one that is raised.
        closed.and(told.map(drop).map_err(Raised::exception))
    }

    /// `transport.set_protocol(protocol)`
    fn set_protocol(&self, protocol: &Any) -> Result<()> {
        self.end().protocol.set(protocol.to_object());
        Ok(())
    }

    /// `transport.__del__()`
    fn finalize(&self) -> Result<()> {
        let Some(pipe) = self.end().pipe.get_object() else { return Ok(()) };
        let shown = self.repr()?.to_text()?;
        warn_resource(&format!("unclosed transport {}", shown.as_str()), self)?;
        self.end().pipe.clear();
        pipe.call_method0(&names().close).map(drop)
    }

    /// How the repr of both begins and, where nothing is to be said of watching, ends.
    fn shown(&self, watching: Option<&str>) -> String {
        let end = self.end();
        let mut shown = format!("<{}", type_name(self));
        if end.pipe.is_empty() {
            shown.push_str(" closed");
        } else if end.is_closing() {
            shown.push_str(" closing");
        }
        shown.push_str(&format!(" fd={}", end.fd.get()));
        let is_loop_open = self.event_loop().is_some_and(|event_loop| !event_loop.is_closed());
        let state = match (end.pipe.is_empty(), watching) {
            (true, _) => "closed",
            (false, Some(watching)) if is_loop_open => watching,
            (false, _) => "open",
        };
        shown.push(' ');
        shown.push_str(state);
        shown
    }
}

/// What Python sees of both.
fn shared_methods<T: PipeTransport + 'static>() -> Vec<Definition> {
    vec![
        documented(method0(c"is_closing", |this: &T| this.end().is_closing()), c"is_closing($self)\n--\n\n"),
        documented(method1(c"set_protocol", T::set_protocol), c"set_protocol($self, protocol)\n--\n\n"),
        documented(method0(c"get_protocol", T::get_protocol), c"get_protocol($self)\n--\n\n"),
        method1(c"_call_connection_lost", T::call_connection_lost),
        method0(c"__del__", T::finalize),
    ]
}

fn shared_attributes<T: PipeTransport + 'static>() -> Vec<Attribute> {
    vec![
        getter(c"_pipe", |this: &T| this.end().pipe.get_or_none()),
        getter(c"_fileno", |this: &T| integer(i64::from(this.end().fd.get()))),
        getter(c"_loop", |this: &T| this.loop_slot().get_or_none()),
        getter(c"_protocol", T::get_protocol),
        getter(c"_closing", |this: &T| this.end().is_closing()),
    ]
}

/// `__new__` of classes that only the loop creates.
fn refuse_creation(name: &str) -> Result<Object> {
    Err(Raised::type_error(&format!("cannot create 'ioxide.{name}' instances")))
}
