//! The side of a transport that sends: at once, or, where the kernel has no room, in order when it has.

use super::super::base::BaseTransport;
use super::super::flow_control::{FlowControlled, LATE_WRITES_BEFORE_WARNING};
use super::{DatagramTransport, Phase};
use crate::addresses;
use crate::event_loop::{Direction, Watcher};
use ioxide_cpython::buffer::{Buffer, OwnedBytes};
use ioxide_cpython::call::import;
use ioxide_cpython::exception::{exception_is, raise_os_error, type_name};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, builtin, imports, names, none};
use std::io;

const WRITE_ERROR: &str = "Fatal write error on datagram transport";
const SENDTO: Signature<2> =
    Signature { function: "sendto", names: ["data", "addr"], required: 1, positional: 2 };

/// A datagram that waits for room in the kernel.
pub(super) struct Unsent {
    data: OwnedBytes,
    /// As the program gave it.
    pub(super) address: Object,
}

/// What this Python's asyncio does.
struct Asyncio {
    /// How many bytes a buffered datagram counts beside its data.
    header_size: usize,
    /// `(bytearray, memoryview)`
    bytes_like: Object,
}

static ASYNCIO: Once<Asyncio> = Once::new();

/// How far sending came.
enum Sent {
    Yes,
    NoRoom,
}

/// Asks asyncio's own transport. Since it counts the header it sends empty datagrams too.
pub(super) fn initialize() -> Result<()> {
    let class = import(c"asyncio.selector_events")?.get_attribute_str(c"_SelectorDatagramTransport")?;
    let header_size = match class.get_attribute_optional(&*text("_header_size")?)? {
        Some(size) => usize::try_from(size.to_i64()?).unwrap_or(0),
        None => {
            let eight = integer(8)?;
            let code = class.get_attribute(&names().sendto)?.get_attribute_str(c"__code__")?;
            let mut counted = 0;
            for constant in code.get_attribute_str(c"co_consts")?.tuple_items() {
                if constant.is_exact_integer() && constant.equals(&eight)? {
                    counted = 8;
                }
            }
            counted
        }
    };
    ASYNCIO.set(Asyncio { header_size, bytes_like: tuple(&[&imports().bytearray, &imports().memoryview])? });
    Ok(())
}

/// What a buffered datagram counts.
fn counted(data: &OwnedBytes) -> usize {
    data.as_ref().len() + ASYNCIO.get().header_size
}

impl DatagramTransport {
    /// `transport.sendto(data, addr=None)`
    pub(super) fn sendto(&self, arguments: Arguments<'_>) -> Result<()> {
        let [data, address] = SENDTO.bind(arguments)?;
        let (data, address) = (data.unwrap_or(none()), address.unwrap_or(none()));
        if !data.is_bytes() && !data.is_instance(&ASYNCIO.get().bytes_like)? {
            let shown = type_name(data);
            return Err(Raised::type_error(&format!(
                "data argument must be a bytes-like object, not '{shown}'"
            )));
        }
        if ASYNCIO.get().header_size == 0 && data.length()? == 0 {
            return Ok(());
        }
        let own = self.core().address.get_object();
        let own = match own {
            Some(own) if own.is_true()? => Some(own),
            _ => None,
        };
        if let Some(own) = &own
            && !address.is_none()
            && !address.equals(own)?
        {
            let shown = own.str()?.to_text()?;
            return Err(Raised::value_error(&format!("Invalid address: must be None or {}", shown.as_str())));
        }
        if self.is_too_late(own.is_some())? {
            return Ok(());
        }
        let address = own.as_deref().unwrap_or(address);
        if self.core().unsent.borrow().is_empty() {
            match self.send_now(data, address) {
                Ok(Sent::Yes) => return Ok(()),
                Ok(Sent::NoRoom) => self.watch_writable()?,
                Err(raised) => return self.on_send_error(raised),
            }
        }
        let unsent = Unsent { data: OwnedBytes::new(data)?, address: address.to_object() };
        let core = self.core();
        core.unsent_bytes.set(core.unsent_bytes.get() + counted(&unsent.data));
        core.unsent.borrow_mut().push_back(unsent);
        self.maybe_pause_protocol()
    }

    /// Datagrams to the peer after the end are dropped, and to anybody once the socket is closed; the fifth and later ones
    /// are worth a warning.
    fn is_too_late(&self, has_own_address: bool) -> Result<bool> {
        let core = self.core();
        if !core.is_lost() || (!has_own_address && !core.socket.is_empty()) {
            return Ok(false);
        }
        let count = core.late_writes.get();
        core.late_writes.set(count.saturating_add(1));
        if count >= LATE_WRITES_BEFORE_WARNING {
            imports().logger.call_method1(&names().warning, &*text("socket.send() raised exception.")?)?;
        }
        Ok(true)
    }

    /// One try. Fails with what the kernel or the socket module says.
    fn send_now(&self, data: &Any, address: &Any) -> Result<Sent> {
        if let Some(data) = data.bytes() {
            return self.send_bytes(data, address);
        }
        let view = Buffer::readable(data)?;
        self.send_bytes(view.as_slice(), address)
    }

    fn send_bytes(&self, data: &[u8], address: &Any) -> Result<Sent> {
        let socket = self.socket()?;
        let core = self.core();
        if core.is_connected.get() {
            return unless_full(socket.send(data));
        }
        // The sender of the datagram that the protocol has just been handed. A system call runs no Python.
        if let Some(known) = core.known.borrow().address_of(address, core.last_place.get()) {
            return unless_full(socket.send_to(data, known));
        }
        match addresses::literal(core.family.get(), address) {
            Some(literal) => unless_full(socket.send_to(data, &literal)),
            None => self.send_by_name(data, address),
        }
    }

    /// Python's own sendto reads every other form of address, looks names up, and says what is wrong with the rest.
    fn send_by_name(&self, data: &[u8], address: &Any) -> Result<Sent> {
        let Some(socket) = self.core().socket.get_object() else {
            return unless_full(Err(io::Error::from_raw_os_error(libc::EBADF)));
        };
        let data = ioxide_cpython::value::bytes(data)?;
        match socket.call_method(&names().sendto, &[&*data, address]) {
            Ok(_) => Ok(Sent::Yes),
            Err(raised)
                if raised.matches(builtin(Builtin::BlockingIOError))
                    || raised.matches(builtin(Builtin::InterruptedError)) =>
            {
                drop(raised.take());
                Ok(Sent::NoRoom)
            }
            Err(raised) => Err(raised),
        }
    }

    /// Errors of the kernel are the protocol's to hear; every other one ends the transport.
    fn on_send_error(&self, raised: Raised) -> Result<()> {
        if raised.leaves_the_loop() {
            return Err(raised);
        }
        let exception = raised.take();
        if exception_is(&exception, Builtin::OSError) {
            return self.get_protocol().call_method1(&names().error_received, &exception).map(drop);
        }
        self.on_fatal_error(&exception, WRITE_ERROR)
    }

    fn watch_writable(&self) -> Result<()> {
        let core = self.core();
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        event_loop.check_closed()?;
        drop(event_loop.watch(core.fd.get(), Direction::Write, Watcher::Transport(self.to_object()))?);
        core.writer_context.set(self.callback_context()?);
        core.is_watching_writes.set(true);
        Ok(())
    }

    pub(super) fn stop_writing(&self) {
        let core = self.core();
        if core.is_watching_writes.replace(false)
            && let Some(event_loop) = self.event_loop()
        {
            drop(event_loop.unwatch_transport(core.fd.get(), Direction::Write, self));
        }
        core.writer_context.clear();
    }

    /// There is room in the kernel. After an error the rest waits for the next event, as asyncio's does.
    pub(super) fn on_writable(&self) -> Result<()> {
        let core = self.core();
        loop {
            let first = core.unsent.borrow_mut().pop_front();
            let Some(unsent) = first else { break };
            let counted = counted(&unsent.data);
            core.unsent_bytes.set(core.unsent_bytes.get().saturating_sub(counted));
            match self.send_bytes(unsent.data.as_ref(), &unsent.address) {
                Ok(Sent::Yes) => {}
                Ok(Sent::NoRoom) => {
                    core.unsent_bytes.set(core.unsent_bytes.get() + counted);
                    core.unsent.borrow_mut().push_front(unsent);
                    break;
                }
                Err(raised) => return self.on_send_error(raised),
            }
        }
        self.maybe_resume_protocol()?;
        if !core.unsent.borrow().is_empty() {
            return Ok(());
        }
        self.stop_writing();
        match core.phase.get() {
            Phase::Closing => self.call_connection_lost(none()),
            Phase::Open | Phase::Lost => Ok(()),
        }
    }

    pub(super) fn drop_unsent(&self) {
        let unsent = self.core().unsent.take();
        self.core().unsent_bytes.set(0);
        drop(unsent);
    }
}

fn unless_full(sent: io::Result<usize>) -> Result<Sent> {
    match sent {
        Ok(_) => Ok(Sent::Yes),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::NoRoom),
        Err(error) => Err(raise_os_error(&error)),
    }
}
