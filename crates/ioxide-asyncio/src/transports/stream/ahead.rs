//! Receiving for a transport before its turn has come.
//!
//! The loop receives for several transports in a row and then tells their protocols, each in its turn: system calls next to
//! system calls and Python next to Python find their code and data in the processor's nearest caches. Nobody can see it, but
//! for a protocol that closes or hands away another connection in the very moment: what was received is read already.
//!
//! Invariants:
//! A1. Only the loop calls `receive_ahead`, for a transport that is queued to be told that its descriptor is readable.
//! A2. No Python code runs in `receive_ahead`: it is not in the transport's context.

use super::super::base::BaseTransport;
use super::{Delivery, Reading, SocketTransport};
use crate::event_loop::{Direction, Ready, Watcher};
use ioxide_cpython::call::import;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::value::bytes;
use ioxide_cpython::{Any, Object, Raised, Result};
use ioxide_io::SocketRef;
use ioxide_io::read_buffer::DEFAULT_CAPACITY;
use std::io;

impl SocketTransport {
    /// Whether something waits to be delivered.
    #[inline]
    pub fn has_received(&self) -> bool {
        !self.core().received.is_empty()
    }

    /// Receives, for `on_readable` to deliver. Returns how many bytes; `None` where nothing is to be received ahead: other
    /// protocols than those that take bytes objects do something before or need no copy.
    pub fn receive_ahead(&self) -> Option<usize> {
        let core = self.core();
        let is_wanted = core.reading.get() == Reading::Watching
            && matches!(core.delivery.get(), Delivery::Data)
            && core.max_size.get() == DEFAULT_CAPACITY
            && core.received.is_empty();
        if !is_wanted {
            return None;
        }
        let descriptor = core.socket.known_descriptor()?;
        let event_loop = self.event_loop()?;
        let received = event_loop.read_buffer().borrow_mut().receive(SocketRef::new(descriptor)).map(bytes);
        let made = match received {
            // It is asked again in its turn.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(0),
            Err(error) => Err(raise_os_error(&error)),
            Ok(made) => made,
        };
        match made {
            Ok(data) => {
                let length = data.bytes().map_or(0, <[u8]>::len);
                core.received.set(data);
                Some(length)
            }
            Err(raised) => {
                core.received.set(raised.take());
                None
            }
        }
    }

    /// What `receive_ahead` has left behind. Fails as the receive did.
    #[inline]
    pub(super) fn take_received(&self) -> Option<Result<Object>> {
        let received = self.core().received.take()?;
        Some(if received.is_bytes() { Ok(received) } else { Err(Raised::exception(received)) })
    }

    /// After a pause: the kernel may have nothing more to report, so the loop is told that there is something (T6).
    pub(super) fn deliver_received_soon(&self) {
        if self.has_received()
            && let Some(event_loop) = self.event_loop()
        {
            event_loop.push_ready(Ready::Watcher(Watcher::Transport(self.to_object()), Direction::Read));
        }
    }

    /// Bytes for a protocol with a buffer of its own, which was set after they were received.
    pub(super) fn deliver_into_buffer(&self, data: &Any) -> Result<()> {
        let feed = import(c"asyncio.protocols")?.get_attribute_str(c"_feed_data_to_buffered_proto")?;
        let call = |protocol: &Any| feed.call(&[protocol, data]);
        self.deliver(call, "Fatal error: protocol.buffer_updated() call failed.").map(drop)
    }
}
