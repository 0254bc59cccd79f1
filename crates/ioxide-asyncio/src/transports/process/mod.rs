//! `SubprocessTransport`: the transport of a child process, as asyncio.unix_events._UnixSubprocessTransport. The child
//! itself is a `subprocess.Popen`.
//!
//! | file | room |
//! |---|---|
//! | mod | the class and its native state, its beginning |
//! | methods | what Python sees of it, its repr |
//! | connecting | the transports of the child's pipes are made |
//! | pipes | the protocols of those |
//! | events | data, ends of pipes, the end of the child: what the protocol is told, and in which order |
//! | ending | close, kill and other signals, waiting for the end |
//! | popen | a Popen whose child begins while the loop goes on |
//! | command | what such a child has to do |
//!
//! Leaves to others: when a child may be started (`event_loop/processes`), how its end is noticed (`event_loop/children`).
//!
//! Invariants:
//! Q1. `calls` is there until the pipes are connected: what the protocol is to be told meanwhile waits in it, behind
//!     connection_made.
//! Q2. No borrow of `calls` or `exit_waiters` is held while Python runs.

mod command;
mod connecting;
mod ending;
mod events;
mod methods;
mod pipes;
mod popen;

pub use popen::{Begun, begin, wait_until_begun};

use super::base::BaseTransport;
use crate::event_loop::EventLoop;
use crate::shells::{Core, Shell};
use ioxide_cpython::call::import;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, allocate, head};
use ioxide_cpython::value::{dict, text};
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Object, Once, Result, Slot, imports, names};
use std::cell::{Cell, RefCell};

pub type ProcessTransport = Shell<ProcessCore>;

/// The native state behind a transport.
#[repr(C)]
pub struct ProcessCore {
    head: Any,
    event_loop: Slot,
    protocol: Slot,
    /// The Popen; empty before the start and after connection_lost.
    process: Slot,
    id: Slot,
    returncode: Slot,
    is_closed: Cell<bool>,
    /// connection_lost is on its way.
    is_finished: Cell<bool>,
    pipes: [PipeEnd; 3],
    calls: RefCell<Option<Vec<Call>>>,
    /// `None` when nobody will wait any more.
    exit_waiters: RefCell<Option<Vec<Object>>>,
}

/// Standard input, output or error of the child.
struct PipeEnd {
    /// Whether it is a pipe of this transport's.
    is_wanted: Cell<bool>,
    /// Empty until it is connected.
    protocol: Slot,
}

/// A call of the protocol that waits (Q1).
struct Call {
    callback: Object,
    arguments: Vec<Object>,
}

/// How asyncio's versions differ, as their own code says.
struct Rules {
    /// Signals are sent with `os.kill`, not by the Popen.
    sends_with_kernel: bool,
    /// A child that has ended is sent no signals.
    knows_the_end: bool,
    /// `close` leaves the pipes of a closed loop alone.
    minds_closed_loop: bool,
    /// A child that must not be killed is no error of `close`.
    forgives_permission: bool,
    /// `_wait` ends with the child, and not with the connection.
    wait_ends_with_child: bool,
    /// Where a pipe cannot be connected, all are closed.
    closes_unconnected: bool,
}

static CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static RULES: Once<Rules> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for ProcessCore {
    fn class() -> &'static Once<Class> {
        &CORE
    }
}

impl Core for ProcessCore {
    fn shell() -> &'static Once<ShellClass> {
        &SHELL
    }
}

impl BaseTransport for ProcessTransport {
    fn loop_slot(&self) -> &Slot {
        &self.core().event_loop
    }

    fn protocol_slot(&self) -> &Slot {
        &self.core().protocol
    }
}

/// Creates the classes, and asks asyncio's own code.
pub(super) fn initialize() -> Result<()> {
    let class = import(c"asyncio.base_subprocess")?.get_attribute_str(c"BaseSubprocessTransport")?;
    let mentions = |method: &str, name: &str| Code::of_method(&class, method)?.mentions(name);
    RULES.set(Rules {
        sends_with_kernel: mentions("send_signal", "os")?,
        knows_the_end: mentions("send_signal", "_returncode")?,
        minds_closed_loop: mentions("close", "is_closed")?,
        forgives_permission: mentions("close", "PermissionError")?,
        wait_ends_with_child: mentions("_process_exited", "_exit_waiters")?,
        closes_unconnected: mentions("_connect_pipes", "close")?,
    });
    CORE.set(NativeClass::core::<ProcessCore>(c"ioxide.ProcessCore")?);
    SHELL.set(methods::create_class()?);
    connecting::initialize();
    pipes::initialize()?;
    popen::initialize()
}

/// The attributes of a Popen that hold the parent's ends of the pipes, by the child's descriptors.
fn stream_names() -> [&'static Object; 3] {
    let names = names();
    [&names.stdin, &names.stdout, &names.stderr]
}

impl ProcessTransport {
    /// A transport without a child. `streams` are those that the caller wants: input, output and error.
    pub fn create(
        event_loop: &EventLoop,
        protocol: &Any,
        streams: [&Any; 3],
        extra: Option<&Any>,
    ) -> Result<Object> {
        let pipe = import(c"subprocess")?.get_attribute_str(c"PIPE")?;
        let mut wanted = [false; 3];
        for (wanted, stream) in wanted.iter_mut().zip(streams) {
            *wanted = stream.equals(&pipe)?;
        }
        let core = allocate(ProcessCore {
            head: head(),
            event_loop: Slot::filled(event_loop.to_object()),
            protocol: Slot::filled(protocol.to_object()),
            process: Slot::empty(),
            id: Slot::empty(),
            returncode: Slot::empty(),
            is_closed: Cell::new(false),
            is_finished: Cell::new(false),
            pipes: wanted
                .map(|is_wanted| PipeEnd { is_wanted: Cell::new(is_wanted), protocol: Slot::empty() }),
            calls: RefCell::new(Some(Vec::new())),
            exit_waiters: RefCell::new(Some(Vec::new())),
        })?;
        let transport = SHELL.get().instantiate(SHELL.get().class().as_any(), core)?;
        let extra = match extra {
            Some(extra) if extra.is_true()? => extra.to_object(),
            _ => dict()?,
        };
        transport.set_attribute(&names()._extra, &extra)?;
        Ok(transport)
    }

    /// The transport's child from now on, also while it has not begun its program.
    pub fn adopt(&self, process: &Any) -> Result<()> {
        self.core().process.set(process.to_object());
        self.core().id.set(process.get_attribute(&names().pid)?);
        Ok(())
    }

    /// The child's program runs: connects the pipes, and then wakes the waiter.
    pub fn open(&self, process: &Any, command: &Any, waiter: &Any) -> Result<()> {
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        let extra = self.get_attribute(&names()._extra)?;
        extra.call_method(&names().__setitem__, &[&names().subprocess, process])?;
        if self.is_debug()? {
            let program = match command.is_string() || command.is_bytes() {
                true => command.to_object(),
                false => ioxide_cpython::value::sequence_item(command, 0)?,
            };
            let line = text("process %r created: pid %s")?;
            let arguments = [&*line, &*program, &*self.core().id.get_or_none()];
            imports().logger.call_method(&names().debug, &arguments)?;
        }
        let connecting = self.connect_pipes(waiter)?;
        event_loop.call_method1(&names().create_task, &connecting).map(drop)
    }

    /// The protocol of one of the child's pipes that is connected.
    fn pipe(&self, index: usize) -> Option<Object> {
        self.core().pipes.get(index).and_then(|pipe| pipe.protocol.get_object())
    }

    /// The protocols of all pipes that are connected.
    fn connected_pipes(&self) -> Vec<Object> {
        (0..3).filter_map(|index| self.pipe(index)).collect()
    }
}

impl PipeEnd {
    /// Whether nothing more comes of it.
    fn is_over(&self) -> Result<bool> {
        match self.protocol.get_object() {
            Some(protocol) => pipes::is_disconnected(&protocol),
            None => Ok(!self.is_wanted.get()),
        }
    }
}

impl Traverse for ProcessCore {
    fn traverse(&self, visitor: &mut Visitor) {
        for slot in [&self.event_loop, &self.protocol, &self.process, &self.id, &self.returncode] {
            visitor.slot(slot);
        }
        for pipe in &self.pipes {
            visitor.slot(&pipe.protocol);
        }
        if let Ok(calls) = self.calls.try_borrow() {
            for call in calls.iter().flatten() {
                visitor.object(&call.callback);
                call.arguments.iter().for_each(|argument| visitor.object(argument));
            }
        }
        if let Ok(waiters) = self.exit_waiters.try_borrow() {
            waiters.iter().flatten().for_each(|waiter| visitor.object(waiter));
        }
    }

    fn clear(&self) {
        for slot in [&self.event_loop, &self.protocol, &self.process] {
            slot.clear();
        }
        for pipe in &self.pipes {
            pipe.protocol.clear();
        }
        let calls = self.calls.borrow_mut().take();
        let waiters = self.exit_waiters.borrow_mut().take();
        drop((calls, waiters));
    }
}
