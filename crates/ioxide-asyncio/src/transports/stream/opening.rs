//! How a transport begins: `loop._make_socket_transport`.

use super::super::base::BaseTransport;
use super::super::flow_control::FlowControlled;
use super::receiver::receiver_of;
use super::{Delivery, SOCKET_TRANSPORT, SocketTransport, StreamCore};
use crate::event_loop::EventLoop;
use ioxide_cpython::exception::{self, raise_os_error};
use ioxide_cpython::methods::{Arguments, Signature, given};
use ioxide_cpython::types::allocate;
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Raised, Result, imports, names, none};
use ioxide_io::{SocketAddress, SocketRef};

/// What a transport is made of.
pub struct Parts<'a> {
    pub socket: &'a Any,
    pub protocol: &'a Any,
    pub waiter: Option<&'a Any>,
    pub extra: Option<&'a Any>,
    /// Who was accepted. Only where no `extra` is given, which says it itself.
    pub peer_name: Option<&'a SocketAddress>,
    pub server: Option<&'a Any>,
    pub context: Option<&'a Any>,
}

/// `loop._make_socket_transport(sock, protocol, waiter=None, *, extra=None, server=None, context=None)`
pub fn make_socket_transport(event_loop: &EventLoop, arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<6> = Signature {
        function: "_make_socket_transport",
        names: ["sock", "protocol", "waiter", "extra", "server", "context"],
        required: 2,
        positional: 3,
    };
    let [socket, protocol, waiter, extra, server, context] = SIGNATURE.bind(arguments)?;
    let parts = Parts {
        socket: socket.unwrap_or(none()),
        protocol: protocol.unwrap_or(none()),
        waiter: given(waiter),
        extra: given(extra),
        peer_name: None,
        server: given(server),
        context: given(context),
    };
    open_transport(event_loop, &parts)
}

/// A transport whose protocol hears of its connection in the next turn.
pub fn open_transport(event_loop: &EventLoop, parts: &Parts<'_>) -> Result<Object> {
    event_loop.check_not_in_use(parts.socket)?;
    let class = SOCKET_TRANSPORT.get();
    let transport = class.instantiate(class.class().as_any(), allocate(StreamCore::new())?)?;
    if let Some(transport) = SocketTransport::from_any(&transport) {
        transport.open(event_loop, parts).inspect_err(|_| transport.give_up())?;
    }
    Ok(transport)
}

impl SocketTransport {
    fn open(&self, event_loop: &EventLoop, parts: &Parts<'_>) -> Result<()> {
        let core = self.core();
        core.event_loop.set(event_loop.to_object());
        drop(core.given_context.replace(parts.context.map(Any::to_object)));
        let fd = core.socket.fill(parts.socket)?;
        core.fd.set(fd);
        match parts.extra {
            Some(extra) => drop(self.set_socket_extra(parts.socket, Some(extra))?),
            None => self.note_names(parts.socket, parts.peer_name)?,
        }
        self.set_protocol(parts.protocol)?;
        if let Some(server) = parts.server {
            crate::servers::attach(server, self)?;
            core.server.set(server.to_object());
        }
        if let Some(transports) = event_loop.get_attribute_optional(&names()._transports)? {
            transports.call_method(&names().__setitem__, &[&*integer(i64::from(fd))?, self])?;
        }
        set_nodelay(parts.socket, SocketRef::new(fd))?;
        self.schedule_beginning(parts)
    }

    /// Nobody will see this transport: its socket is the caller's again.
    fn give_up(&self) {
        let core = self.core();
        // Why it was given up is what the caller hears of.
        let reason = exception::take();
        drop(core.socket.take());
        if let Some(server) = core.server.take()
            && let Err(raised) = crate::servers::detach(&server, self)
        {
            raised.write_unraisable(self);
        }
        if let Some(reason) = reason {
            exception::restore(reason);
        }
    }

    /// connection_made first, then reading, then the waiter.
    fn schedule_beginning(&self, parts: &Parts<'_>) -> Result<()> {
        let connection_made = parts.protocol.get_attribute(&names().connection_made)?;
        self.call_soon(&connection_made, &[self])?;
        self.call_soon(&*self.get_attribute(&names()._start_reading)?, &[])?;
        match parts.waiter {
            Some(waiter) => self.call_soon(&imports().set_result_unless_cancelled, &[waiter, none()]),
            None => Ok(()),
        }
    }

    /// `transport.set_protocol(protocol)`
    pub(super) fn set_protocol(&self, protocol: &Any) -> Result<()> {
        let core = self.core();
        let delivery = match receiver_of(protocol) {
            Some(receiver) => Delivery::Native(receiver),
            None if protocol.is_instance(&imports().BufferedProtocol)? => Delivery::Buffer,
            None => Delivery::Data,
        };
        // What the old protocol wrote may have to pause it.
        self.send_pending()?;
        core.delivery.set(delivery);
        core.protocol.set(protocol.to_object());
        Ok(())
    }
}

/// `asyncio.base_events._set_nodelay`: small writes need not wait for an acknowledgement.
fn set_nodelay(object: &Any, socket: SocketRef) -> Result<()> {
    let tcp = integer(i64::from(libc::IPPROTO_TCP))?;
    if !object.get_attribute(&names().proto)?.equals(&tcp)? {
        return Ok(());
    }
    let is_internet = matches!(socket.domain(), Ok(libc::AF_INET | libc::AF_INET6));
    if is_internet && matches!(socket.socket_type(), Ok(libc::SOCK_STREAM)) {
        return socket
            .set_nodelay(true)
            .map_err(|error: std::io::Error| -> Raised { raise_os_error(&error) });
    }
    Ok(())
}
