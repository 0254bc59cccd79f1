//! Transports: what stands between a descriptor and a protocol.
//!
//! | file | room |
//! |---|---|
//! | base | what all of them have |
//! | flow_control | limits of the write buffer, pausing and resuming the protocol |
//! | stream/ | the transport of a connected stream socket |
//! | datagram/ | the transport of a socket of datagrams |
//! | pipe/ | the transports of the two ends of a pipe |
//! | process/ | the transport of a child process |

mod base;
mod datagram;
mod flow_control;
mod pipe;
mod process;
mod stream;

pub use datagram::make_datagram_transport;
pub use flow_control::Limit;
pub use pipe::{make_read_pipe_transport, make_write_pipe_transport};
pub use process::{Begun, ProcessTransport, begin, wait_until_begun};
pub use stream::{
    NativeReceiver, Parts, SocketTransport, make_socket_transport, open_transport, receiver_of,
};

use self::datagram::DatagramTransport;
use self::pipe::{ReadPipeTransport, WritePipeTransport};
use crate::event_loop::{Direction, EventLoop};
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Result, names};
use std::os::fd::RawFd;

/// Creates the classes.
pub fn initialize() -> Result<()> {
    stream::initialize()?;
    datagram::initialize()?;
    pipe::initialize()?;
    process::initialize()
}

/// The descriptor of a transport is ready. `transport` is what was given to `EventLoop::watch`.
/// Fails: KeyboardInterrupt, SystemExit; other exceptions go to the loop's exception handler.
pub fn on_ready(transport: &Object, direction: Direction) -> Result<()> {
    if let Some(transport) = SocketTransport::from_any(transport) {
        transport.on_ready(direction)
    } else if let Some(transport) = DatagramTransport::from_any(transport) {
        transport.on_ready(direction)
    } else if let Some(transport) = ReadPipeTransport::from_any(transport) {
        transport.on_ready()
    } else if let Some(transport) = WritePipeTransport::from_any(transport) {
        transport.on_ready(direction)
    } else {
        Ok(())
    }
}

/// Receives for a transport whose turn is near, and returns how many bytes; `None` where it is not to be done.
/// `transport` is as for `on_ready`.
#[inline]
pub fn receive_ahead(transport: &Object) -> Option<usize> {
    SocketTransport::from_any(transport)?.receive_ahead()
}

/// Whether `receive_ahead` was called for the transport and it was not told since.
#[inline]
pub fn has_received(transport: &Object) -> bool {
    SocketTransport::from_any(transport).is_some_and(SocketTransport::has_received)
}

/// Sends what a transport has buffered in this turn. `transport` is what was given to `EventLoop::flush_later`.
/// Fails: KeyboardInterrupt, SystemExit.
pub fn flush(transport: &Object) -> Result<()> {
    if let Some(transport) = SocketTransport::from_any(transport) {
        transport.on_end_of_turn()
    } else if let Some(transport) = WritePipeTransport::from_any(transport) {
        transport.on_end_of_turn()
    } else {
        Ok(())
    }
}

/// `transport.write(data)` of whatever transport it is.
#[inline]
pub fn write(transport: &Any, data: &Any) -> Result<()> {
    match SocketTransport::own(transport)? {
        Some(native) => native.write(data),
        None => transport.call_method1(&names().write, data).map(drop),
    }
}

/// `transport.is_closing()` of whatever transport it is.
#[inline]
pub fn is_closing(transport: &Any) -> Result<bool> {
    match SocketTransport::own(transport)? {
        Some(native) => Ok(native.is_closing()),
        None => transport.call_method0(&names().is_closing)?.is_true(),
    }
}

/// The transport that owns the descriptor and is not closing, if there is one: ioxide's and asyncio's own Python
/// transports are all in the loop's weak dictionary `_transports`.
pub fn owner_of(event_loop: &EventLoop, fd: RawFd) -> Result<Option<Object>> {
    let Some(transports) = event_loop.get_attribute_optional(&names()._transports)? else { return Ok(None) };
    if transports.get_attribute(&names().data)?.length()? == 0 {
        return Ok(None);
    }
    let transport = transports.call_method1(&names().get, &*integer(i64::from(fd))?)?;
    if transport.is_none() || transport.call_method0(&names().is_closing)?.is_true()? {
        return Ok(None);
    }
    Ok(Some(transport))
}
