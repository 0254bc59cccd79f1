//! What `get_extra_info` of asyncio's base class reads: the dictionary `_extra`, made when somebody asks for it. Together with
//! what is in it, it is more than all the rest of an idle connection, and most programs never look.
//!
//! Leaves to others: dictionaries that a creator gave, which are filled at once (`base`).
//!
//! Invariants:
//! E1. The names are those at the time of opening, whatever becomes of the socket; an IPv4 address is kept as numbers.
//! E2. The dictionary is made once, and the same one is seen ever after.

use super::super::base::unless_os_error;
use super::SocketTransport;
use crate::addresses;
use ioxide_cpython::types::OwnMethods;
use ioxide_cpython::value::dict;
use ioxide_cpython::{Any, Object, Once, Result, Slot, imports, names, none_object};
use ioxide_io::{AddressKind, SocketAddress, SocketRef};
use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;

/// The name of one end of a connection.
pub(super) enum Name {
    Ipv4(Ipv4Addr, u16),
    /// As Python shows it.
    Shown(Object),
}

/// The state behind `_extra`.
pub(super) struct Extra {
    /// The dictionary; before it is made, and after the end of the connection, the socket.
    pub(super) held: Slot,
    is_made: Cell<bool>,
    own_name: Cell<Option<Name>>,
    peer_name: Cell<Option<Name>>,
}

/// The socket module's own ways to ask for names.
static OWN: Once<OwnMethods> = Once::new();

pub(super) fn initialize() -> Result<()> {
    OWN.set(OwnMethods::of(&imports().socket, &["getsockname", "getpeername", "fileno"])?);
    Ok(())
}

impl Name {
    fn of(address: &SocketAddress) -> Result<Name> {
        match address.kind() {
            AddressKind::Ipv4 { address, port } => Ok(Name::Ipv4(address, port)),
            _ => addresses::to_python(address).map(Name::Shown),
        }
    }

    fn into_python(self) -> Result<Object> {
        match self {
            Name::Ipv4(address, port) => addresses::to_python(&SocketAddress::ipv4(address, port)),
            Name::Shown(name) => Ok(name),
        }
    }
}

impl Extra {
    pub(super) fn new() -> Extra {
        Extra {
            held: Slot::empty(),
            is_made: Cell::new(false),
            own_name: Cell::new(None),
            peer_name: Cell::new(None),
        }
    }

    /// `transport._extra = value`
    pub(super) fn set(&self, value: &Any) {
        self.is_made.set(true);
        self.held.set(value.to_object());
    }

    /// The connection is over; its socket is still to be had.
    pub(super) fn keep_socket(&self, socket: &Any) {
        if !self.is_made.get() {
            self.held.set(socket.to_object());
        }
    }
}

impl SocketTransport {
    /// Notes the names (E1). `peer` is known already where the connection was accepted.
    pub(super) fn note_names(&self, socket: &Any, peer: Option<&SocketAddress>) -> Result<()> {
        let extra = &self.core().extra;
        extra.own_name.set(self.name(socket, &names().getsockname, SocketRef::local_address)?);
        extra.peer_name.set(match peer {
            Some(peer) => Some(Name::of(peer)?),
            None => self.name(socket, &names().getpeername, SocketRef::peer_address)?,
        });
        Ok(())
    }

    /// `None` where the kernel has no such name.
    fn name(
        &self,
        socket: &Any,
        method: &Any,
        ask: fn(SocketRef) -> io::Result<SocketAddress>,
    ) -> Result<Option<Name>> {
        match self.core().socket.known_descriptor() {
            Some(descriptor) if OWN.get().hold_for(socket)? => {
                ask(SocketRef::new(descriptor)).ok().map(|name| Name::of(&name)).transpose()
            }
            _ => Ok(Some(Name::Shown(unless_os_error(socket.call_method0(method))?))),
        }
    }

    /// `transport._extra`
    pub(super) fn extra(&self) -> Result<Object> {
        let core = self.core();
        let extra = &core.extra;
        if extra.is_made.get() {
            return Ok(extra.held.get_or_none());
        }
        let made = dict()?;
        if let Some(socket) = extra.held.get_object().or_else(|| core.socket.get_object()) {
            made.dict_set(&names().socket, &*imports().TransportSocket.call1(&socket)?)?;
        }
        for (key, name) in [(&names().sockname, &extra.own_name), (&names().peername, &extra.peer_name)] {
            let name = name.take().map_or_else(|| Ok(none_object()), Name::into_python)?;
            made.dict_set(key, &name)?;
        }
        // TransportSocket is Python, and may have asked as well (E2).
        if !extra.is_made.replace(true) {
            extra.held.set(made);
        }
        Ok(extra.held.get_or_none())
    }
}
