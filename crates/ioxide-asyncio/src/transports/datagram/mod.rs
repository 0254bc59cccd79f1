//! `DatagramTransport`: a socket of datagrams, as asyncio.selector_events._SelectorDatagramTransport.
//!
//! | file | room |
//! |---|---|
//! | mod | the class, the native state, its beginning |
//! | receiving, sending, closing | what the names say |
//! | known_addresses | addresses that were converted before |
//!
//! Leaves to others: `create_datagram_endpoint` (`event_loop/datagram`), flow control (`flow_control`).
//!
//! Invariants:
//! D1. The protocol is handed at most one datagram a turn of the loop in which anything else runs, as by asyncio. What one
//!     receive has brought beyond that waits in the transport as it would have in the kernel, and is dropped with the socket.
//! D2. Datagrams go to the descriptor that the socket object has at the time, never to a remembered number.
//! D3. `Lost` is entered once; whoever enters it schedules or makes the one call of connection_lost.
//! D4. While datagrams wait in `received` and the transport is reading, the ready queue holds it.
//! D5. No borrow of a queue or of the loop's buffers is held while Python runs.

mod closing;
mod known_addresses;
mod methods;
mod receiving;
mod sending;

use self::known_addresses::KnownAddresses;
use self::sending::Unsent;
use super::base::{BaseTransport, transport_object};
use super::flow_control::{FlowControl, FlowControlled};
use crate::event_loop::{Direction, EventLoop};
use ioxide_cpython::context::with_context;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, given};
use ioxide_cpython::socket::SocketSlot;
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, allocate, head};
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Once, Result, Slot, imports, names, none};
use ioxide_io::SocketRef;
use ioxide_io::read_buffer::DEFAULT_CAPACITY;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// The transport as Python sees it. Derefs to the object; `core` is the state.
#[repr(transparent)]
pub struct DatagramTransport(Any);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Not begun, or over.
    Idle,
    /// The loop watches the descriptor and holds the transport.
    Watching,
    Paused,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// `close` was called; what is queued is still sent.
    Closing,
    /// connection_lost is scheduled or has been called.
    Lost,
}

/// A datagram that waits for its turn.
struct Received {
    data: Object,
    sender: Object,
    /// Where the sender is known.
    place: usize,
}

/// The native state behind a transport.
#[repr(C)]
struct DatagramCore {
    head: Any,
    event_loop: Slot,
    /// Empty once the socket is closed.
    socket: SocketSlot,
    protocol: Slot,
    /// The remote address that `create_datagram_endpoint` was given; None or empty as a rule.
    address: Slot,
    reader_context: Slot,
    writer_context: Slot,
    /// The number that the loop's watches know.
    fd: Cell<RawFd>,
    family: Cell<i32>,
    /// Whether the socket has a peer: datagrams are sent without an address then.
    is_connected: Cell<bool>,
    max_size: Cell<usize>,
    reading: Cell<Reading>,
    /// Whether the loop watches for room to send.
    is_watching_writes: Cell<bool>,
    phase: Cell<Phase>,
    /// `_conn_lost`: the end, and the writes that came after it.
    late_writes: Cell<u32>,
    /// The turn of the loop that the protocol was last called in (D1).
    received_in_turn: Cell<u64>,
    received: RefCell<VecDeque<Received>>,
    known: RefCell<KnownAddresses>,
    /// Where the sender of the datagram that was handed over last is known.
    last_place: Cell<usize>,
    unsent: RefCell<VecDeque<Unsent>>,
    /// What is buffered, as asyncio of this version counts it.
    unsent_bytes: Cell<usize>,
    flow: FlowControl,
}

static CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for DatagramCore {
    fn class() -> &'static Once<Class> {
        &CORE
    }
}

transport_object!(DatagramTransport, DatagramCore, SHELL);

impl BaseTransport for DatagramTransport {
    fn loop_slot(&self) -> &Slot {
        &self.core().event_loop
    }

    fn protocol_slot(&self) -> &Slot {
        &self.core().protocol
    }
}

impl FlowControlled for DatagramTransport {
    fn flow(&self) -> &FlowControl {
        &self.core().flow
    }

    fn pending_bytes(&self) -> usize {
        self.core().unsent_bytes.get()
    }

    /// A datagram is sent when it is given, or waits for room.
    fn send_pending(&self) -> Result<()> {
        Ok(())
    }
}

/// Creates the classes.
pub fn initialize() -> Result<()> {
    CORE.set(NativeClass::core::<DatagramCore>(c"ioxide.DatagramCore")?);
    sending::initialize()?;
    SHELL.set(methods::create_class()?);
    Ok(())
}

/// `loop._make_datagram_transport(sock, protocol, address=None, waiter=None, extra=None)`
pub fn make_datagram_transport(event_loop: &EventLoop, arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<5> = Signature {
        function: "_make_datagram_transport",
        names: ["sock", "protocol", "address", "waiter", "extra"],
        required: 2,
        positional: 5,
    };
    let [socket, protocol, address, waiter, extra] = SIGNATURE.bind(arguments)?;
    let (socket, protocol) = (socket.unwrap_or(none()), protocol.unwrap_or(none()));
    let transport = SHELL.get().instantiate(SHELL.get().class().as_any(), allocate(DatagramCore::new())?)?;
    let Some(opened) = DatagramTransport::from_any(&transport) else { return Ok(transport) };
    opened.open(event_loop, socket, protocol, given(extra))?;
    opened.core().address.set(address.unwrap_or(none()).to_object());
    // connection_made first, then reading, then the waiter.
    opened.call_soon(&*protocol.get_attribute(&names().connection_made)?, &[opened])?;
    opened.call_soon(&*opened.get_attribute(&names()._start_reading)?, &[])?;
    if let Some(waiter) = given(waiter) {
        opened.call_soon(&imports().set_result_unless_cancelled, &[waiter, none()])?;
    }
    Ok(transport)
}

impl DatagramTransport {
    fn open(&self, event_loop: &EventLoop, socket: &Any, protocol: &Any, extra: Option<&Any>) -> Result<()> {
        let core = self.core();
        core.event_loop.set(event_loop.to_object());
        let extra = self.set_socket_extra(socket, extra)?;
        let peer = extra.get_item(&names().peername)?;
        core.is_connected.set(peer.is_true()?);
        let fd = core.socket.fill(socket)?;
        core.fd.set(fd);
        // A descriptor that is no socket has no family: the socket module says so when it is used.
        core.family.set(SocketRef::new(fd).domain().unwrap_or(libc::AF_UNSPEC));
        core.protocol.set(protocol.to_object());
        if let Some(transports) = event_loop.get_attribute_optional(&names()._transports)? {
            transports.call_method(&names().__setitem__, &[&*integer(i64::from(fd))?, self])?;
        }
        Ok(())
    }

    /// The descriptor to send to and receive from (D2); -1, which the kernel refuses, for a closed socket.
    #[inline]
    fn socket(&self) -> Result<SocketRef> {
        Ok(SocketRef::new(self.core().socket.descriptor()?))
    }

    /// The descriptor is ready, or datagrams wait. Fails: KeyboardInterrupt, SystemExit.
    pub fn on_ready(&self, direction: Direction) -> Result<()> {
        let core = self.core();
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        // The event may have been queued before somebody stopped watching.
        let (context, callback) = match direction {
            Direction::Read if core.reading.get() == Reading::Watching => {
                if core.received_in_turn.replace(event_loop.turn()) == event_loop.turn() {
                    // D1. What waits in the transport is queued for the next turn, what waits in the kernel is reported again.
                    return Ok(());
                }
                (&core.reader_context, "_read_ready")
            }
            Direction::Write if core.is_watching_writes.get() => (&core.writer_context, "_sendto_ready"),
            _ => return Ok(()),
        };
        let Some(context) = context.get_object() else { return Ok(()) };
        let outcome = with_context(&context, || match direction {
            Direction::Read => self.on_readable(),
            Direction::Write => self.on_writable(),
        });
        self.queue_received();
        self.keep_in_loop(&event_loop, outcome, callback)
    }
}

impl DatagramCore {
    fn new() -> DatagramCore {
        DatagramCore {
            head: head(),
            event_loop: Slot::empty(),
            socket: SocketSlot::empty(),
            protocol: Slot::empty(),
            address: Slot::empty(),
            reader_context: Slot::empty(),
            writer_context: Slot::empty(),
            fd: Cell::new(-1),
            family: Cell::new(libc::AF_UNSPEC),
            is_connected: Cell::new(false),
            max_size: Cell::new(DEFAULT_CAPACITY),
            reading: Cell::new(Reading::Idle),
            is_watching_writes: Cell::new(false),
            phase: Cell::new(Phase::Open),
            late_writes: Cell::new(0),
            received_in_turn: Cell::new(0),
            received: RefCell::new(VecDeque::new()),
            known: RefCell::new(KnownAddresses::default()),
            last_place: Cell::new(0),
            unsent: RefCell::new(VecDeque::new()),
            unsent_bytes: Cell::new(0),
            flow: FlowControl::new(),
        }
    }

    #[inline]
    fn is_closing(&self) -> bool {
        self.phase.get() != Phase::Open
    }

    fn is_lost(&self) -> bool {
        self.phase.get() == Phase::Lost
    }

    fn slots(&self) -> [&Slot; 5] {
        [&self.event_loop, &self.protocol, &self.address, &self.reader_context, &self.writer_context]
    }
}

impl Traverse for DatagramCore {
    /// Data and addresses that wait refer to nothing but text, bytes and numbers, and are not shown; what the program
    /// gave as an address is.
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
        self.socket.traverse(visitor);
        if let Ok(unsent) = self.unsent.try_borrow() {
            unsent.iter().for_each(|unsent| visitor.object(&unsent.address));
        }
        self.flow.traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
        self.socket.clear();
        drop(self.unsent.take());
    }
}
