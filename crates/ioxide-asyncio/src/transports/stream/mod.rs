//! `SocketTransport`: a connected stream socket, as asyncio.selector_events._SelectorSocketTransport.
//!
//! | file | room |
//! |---|---|
//! | mod | the class, the native state, its transitions |
//! | opening | `_make_socket_transport` |
//! | reading, writing, closing | what the names say |
//! | ahead | receiving for several transports before the first is told |
//! | extra | what `get_extra_info` knows |
//! | receiver | native protocols, which take bytes without a bytes object |
//! | methods | what Python sees |
//!
//! Invariants:
//! T1. The loop holds the transport while it watches the descriptor, or owes a flush; nobody else of ioxide does.
//! T2. Bytes go to the descriptor that the socket object has at the time, never to a remembered number.
//! T3. `Lost` is entered once; whoever enters it schedules or makes the one call of connection_lost.
//! T4. The write queue keeps its bytes over the end of a turn only while the descriptor is watched for writing.
//! T5. No borrow of the queue or of the loop's read buffer is held while Python runs.
//! T6. What was received ahead is delivered before anything else is received, and only while the transport reads.

mod ahead;
mod closing;
mod extra;
mod methods;
mod opening;
mod reading;
mod receiver;
mod writing;

pub use opening::{Parts, make_socket_transport, open_transport};
pub use receiver::{NativeReceiver, receiver_of};

use self::extra::Extra;
use super::base::{BaseTransport, transport_object};
use super::flow_control::{FlowControl, FlowControlled};
use crate::event_loop::Direction;
use ioxide_cpython::buffer::OwnedBytes;
use ioxide_cpython::context::with_context;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::socket::SocketSlot;
use ioxide_cpython::types::{Class, Native, NativeClass, OwnMethods, ShellClass, head};
use ioxide_cpython::{Any, Object, Once, Result, Slot};
use ioxide_io::{SocketRef, WriteQueue};
use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;

/// The transport as Python sees it. Derefs to the object; `core` is the state.
#[repr(transparent)]
pub struct SocketTransport(Any);

/// How received bytes reach the protocol.
#[derive(Clone, Copy)]
enum Delivery {
    /// `data_received(bytes)`
    Data,
    /// `get_buffer(-1)`, `buffer_updated(count)`
    Buffer,
    /// The bytes themselves.
    Native(&'static NativeReceiver),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Not begun, or over.
    Idle,
    /// The loop watches the descriptor.
    Watching,
    /// `pause_reading` was called.
    Paused,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Idle,
    /// A method of the protocol runs that is followed by a flush.
    Held,
    /// The loop flushes at the end of the turn.
    Queued,
    /// The kernel takes no more; the loop watches the descriptor.
    Watching,
}

/// How far the half close by `write_eof` is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteEnd {
    Open,
    /// To be sent when the queue is drained.
    Requested,
    Sent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// `close` was called; what is queued is still sent.
    Closing,
    /// connection_lost is scheduled or has been called; counts the writes that came too late, from one.
    Lost(u32),
}

/// The native state behind a transport.
#[repr(C)]
struct StreamCore {
    head: Any,
    event_loop: Slot,
    /// Empty once the socket is closed.
    socket: SocketSlot,
    protocol: Slot,
    server: Slot,
    /// The context that the creator gave for all callbacks; empty as a rule.
    given_context: Slot,
    reader_context: Slot,
    writer_context: Slot,
    empty_waiter: Slot,
    /// What was received before its turn: bytes, empty at the end of the stream, or an exception (T6).
    received: Slot,
    /// The number that the loop's watches know.
    fd: Cell<RawFd>,
    max_size: Cell<usize>,
    delivery: Cell<Delivery>,
    reading: Cell<Reading>,
    writing: Cell<Writing>,
    write_end: Cell<WriteEnd>,
    phase: Cell<Phase>,
    extra: Extra,
    flow: FlowControl,
    queue: RefCell<WriteQueue<OwnedBytes>>,
}

static STREAM_CORE: Once<Class> = Once::new();
static SOCKET_TRANSPORT: Once<ShellClass> = Once::new();
static OWN: Once<OwnMethods> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for StreamCore {
    fn class() -> &'static Once<Class> {
        &STREAM_CORE
    }
}

/// Creates the classes.
pub fn initialize() -> Result<()> {
    STREAM_CORE.set(NativeClass::core::<StreamCore>(c"ioxide.StreamCore")?);
    writing::initialize()?;
    extra::initialize()?;
    SOCKET_TRANSPORT.set(methods::create_class()?);
    OWN.set(OwnMethods::of(SOCKET_TRANSPORT.get().class().as_any(), &["write", "is_closing"])?);
    Ok(())
}

transport_object!(SocketTransport, StreamCore, SOCKET_TRANSPORT);

impl BaseTransport for SocketTransport {
    fn loop_slot(&self) -> &Slot {
        &self.core().event_loop
    }

    fn protocol_slot(&self) -> &Slot {
        &self.core().protocol
    }

    fn given_context(&self) -> Option<Object> {
        self.core().given_context.get_object()
    }
}

impl FlowControlled for SocketTransport {
    fn flow(&self) -> &FlowControl {
        &self.core().flow
    }

    fn pending_bytes(&self) -> usize {
        self.core().queue.borrow().len_bytes()
    }

    fn send_pending(&self) -> Result<()> {
        self.send_written()
    }
}

impl SocketTransport {
    /// The object as a transport of ioxide's whose `write` and `is_closing` nobody has replaced.
    #[inline]
    pub fn own(object: &Any) -> Result<Option<&SocketTransport>> {
        match SocketTransport::from_any(object) {
            Some(transport) if OWN.get().hold_for(transport)? => Ok(Some(transport)),
            _ => Ok(None),
        }
    }

    /// `transport.is_closing()`
    pub fn is_closing(&self) -> bool {
        self.core().is_closing()
    }

    /// The descriptor to send to and receive from (T2); -1, which the kernel refuses, for a closed socket.
    #[inline]
    fn socket(&self) -> Result<SocketRef> {
        Ok(SocketRef::new(self.core().socket.descriptor()?))
    }

    /// The descriptor is ready. Fails: KeyboardInterrupt, SystemExit.
    pub fn on_ready(&self, direction: Direction) -> Result<()> {
        let core = self.core();
        // The event may have been queued before somebody stopped watching.
        let callback_context = match direction {
            Direction::Read if core.reading.get() == Reading::Watching => &core.reader_context,
            Direction::Write if core.writing.get() == Writing::Watching => &core.writer_context,
            _ => return Ok(()),
        };
        let Some(callback_context) = callback_context.get_object() else { return Ok(()) };
        // connection_lost makes the transport forget its loop.
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        let outcome = with_context(&callback_context, || match direction {
            Direction::Read => self.on_readable(),
            Direction::Write => self.on_writable(),
        });
        let callback = match direction {
            Direction::Read => "_read_ready",
            Direction::Write => "_write_ready",
        };
        self.keep_in_loop(&event_loop, outcome, callback)
    }
}

impl StreamCore {
    fn new() -> StreamCore {
        StreamCore {
            head: head(),
            event_loop: Slot::empty(),
            socket: SocketSlot::empty(),
            protocol: Slot::empty(),
            server: Slot::empty(),
            given_context: Slot::empty(),
            reader_context: Slot::empty(),
            writer_context: Slot::empty(),
            empty_waiter: Slot::empty(),
            received: Slot::empty(),
            fd: Cell::new(-1),
            max_size: Cell::new(ioxide_io::read_buffer::DEFAULT_CAPACITY),
            delivery: Cell::new(Delivery::Data),
            reading: Cell::new(Reading::Idle),
            writing: Cell::new(Writing::Idle),
            write_end: Cell::new(WriteEnd::Open),
            phase: Cell::new(Phase::Open),
            extra: Extra::new(),
            flow: FlowControl::new(),
            queue: RefCell::new(WriteQueue::new()),
        }
    }

    #[inline]
    fn is_closing(&self) -> bool {
        self.phase.get() != Phase::Open
    }

    #[inline]
    fn is_lost(&self) -> bool {
        matches!(self.phase.get(), Phase::Lost(_))
    }

    fn slots(&self) -> [&Slot; 9] {
        [
            &self.event_loop,
            &self.protocol,
            &self.server,
            &self.given_context,
            &self.reader_context,
            &self.writer_context,
            &self.empty_waiter,
            &self.received,
            &self.extra.held,
        ]
    }
}

impl Traverse for StreamCore {
    /// The queue's bytes objects refer to nothing and are not shown.
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
        self.socket.traverse(visitor);
        self.flow.traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
        self.socket.clear();
    }
}
