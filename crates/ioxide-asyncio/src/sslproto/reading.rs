//! What arrives: from the transport below into the connection, decrypted, and to the application's protocol in one call
//! for everything that has arrived.
//!
//! Invariant:
//! P1. The thread's room for plain text is out of its place while anybody reads into it or Python sees it.

use super::engine::{Plain, Progress};
use super::{Delivery, SslProtocol, State, asyncio};
use crate::transports::NativeReceiver;
use ioxide_cpython::buffer::Buffer;
use ioxide_cpython::call::import;
use ioxide_cpython::value::{bytes, integer};
use ioxide_cpython::{Any, Object, Result, imports, names, none};
use std::cell::Cell;

/// How stream transports hand bytes to a TLS protocol.
pub static RECEIVER: NativeReceiver = NativeReceiver {
    accepts: |protocol| SslProtocol::from_any(protocol).is_some(),
    receive: |protocol, data| match SslProtocol::from_any(protocol) {
        Some(protocol) => protocol.on_received(data),
        None => Ok(()),
    },
    failure: "Fatal error: protocol.buffer_updated() call failed.",
};

/// More room than this is not kept.
const ROOM_KEPT: usize = 512 * 1024;

thread_local! {
    /// Room for decrypted bytes, shared by all connections of the thread's loop.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Everything that could be decrypted.
struct Received {
    plain: Vec<u8>,
    /// The only chunk, where Python made it.
    object: Option<Object>,
    /// The peer has sent close_notify.
    has_ended: bool,
}

impl Received {
    fn new() -> Received {
        let mut plain = ROOM.take();
        plain.clear();
        Received { plain, object: None, has_ended: false }
    }

    fn add_object(&mut self, chunk: Object) {
        if self.plain.is_empty() && self.object.is_none() {
            self.object = Some(chunk);
            return;
        }
        self.put_object_first();
        self.plain.extend_from_slice(chunk.bytes().unwrap_or(&[]));
    }

    /// The only chunk is the only one no more.
    fn put_object_first(&mut self) {
        if let Some(object) = self.object.take() {
            self.plain.splice(0..0, object.bytes().unwrap_or(&[]).iter().copied());
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.object.is_none()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        if plain.capacity() > 0 && plain.capacity() <= ROOM_KEPT {
            ROOM.set(plain);
        }
    }
}

impl SslProtocol {
    /// Bytes have arrived.
    pub(super) fn on_received(&self, data: &[u8]) -> Result<()> {
        self.core().engine.feed(data)?;
        match self.core().state.get() {
            State::Handshake => self.do_handshake(),
            State::Wrapped => self.do_read(),
            State::Flushing => self.do_flush(),
            State::Shutdown => self.do_shutdown(),
            State::Unwrapped => Ok(()),
        }
    }

    /// Decrypts what has arrived and hands it over. Fails: with what is no Exception.
    pub(super) fn do_read(&self) -> Result<()> {
        if !matches!(self.core().state.get(), State::Wrapped | State::Flushing) {
            return Ok(());
        }
        self.fail(self.read_and_answer())
    }

    fn read_and_answer(&self) -> Result<()> {
        let core = self.core();
        if !core.app_reading_paused.get() {
            match core.delivery.get() {
                Delivery::Data => self.read_data(None)?,
                Delivery::Native(receiver) => self.read_data(Some(receiver))?,
                Delivery::Buffer => self.read_into_buffer()?,
            }
            let has_backlog = !core.backlog.borrow().is_empty();
            if has_backlog { self.do_write()? } else { self.process_outgoing()? }
        }
        self.control_ssl_reading()
    }

    fn read_data(&self, receiver: Option<&NativeReceiver>) -> Result<()> {
        let received = self.read_all(receiver.is_none())?;
        let has_ended = received.has_ended;
        if received.is_empty() {
            drop(received);
        } else {
            self.deliver(received, receiver)?;
        }
        if has_ended { self.on_close_notify() } else { Ok(()) }
    }

    fn read_all(&self, as_object: bool) -> Result<Received> {
        let ssl = asyncio::ssl()?;
        let engine = &self.core().engine;
        let mut received = Received::new();
        let mut end = None;
        if as_object {
            (received.object, end) = engine.read_much()?;
        }
        loop {
            let progress = match end.take() {
                Some(end) => engine.progress(ssl, end)?,
                None => engine.read(ssl, &mut received.plain)?,
            };
            match progress {
                Progress::Again => return Ok(received),
                Progress::Made(Plain::Appended(0)) => break,
                Progress::Made(Plain::Appended(_)) => received.put_object_first(),
                Progress::Made(Plain::Object(chunk)) if chunk.length()? == 0 => break,
                Progress::Made(Plain::Object(chunk)) => received.add_object(chunk),
            }
        }
        received.has_ended = true;
        Ok(received)
    }

    fn deliver(&self, mut received: Received, receiver: Option<&NativeReceiver>) -> Result<()> {
        let protocol = self.core().app_protocol.get_or_none();
        if let Some(receiver) = receiver {
            received.put_object_first();
            return (receiver.receive)(&protocol, &received.plain);
        }
        let data = match received.object.take() {
            Some(object) => object,
            None => bytes(&received.plain)?,
        };
        drop(received);
        protocol.call_method1(&names().data_received, &data).map(drop)
    }

    fn on_close_notify(&self) -> Result<()> {
        self.call_eof_received()?;
        self.start_shutdown()
    }

    /// Decrypts into a buffer of the protocol's; one that is full may not have been large enough.
    fn read_into_buffer(&self) -> Result<()> {
        let core = self.core();
        let hint = integer(core.engine.incoming_pending()? as i64)?;
        let buffer = core.app_get_buffer.get_or_none().call1(&hint)?;
        let room = buffer.length()?;
        let (count, has_ended) = match Buffer::writable(&buffer) {
            Ok(mut view) => self.fill_buffer(&buffer, &mut view)?,
            Err(raised) => {
                // Python's own read says what is wrong with the buffer.
                drop(raised.take());
                let object = core.engine.object.get_or_none();
                object.call_method(&names().read, &[&*integer(room as i64)?, &buffer])?;
                (0, false)
            }
        };
        if count > 0 && count >= room {
            let read_more = self.get_attribute(&names()._do_read)?;
            self.call_soon(&read_more, &[])?;
        }
        if count > 0 {
            let count = integer(count as i64)?;
            core.app_buffer_updated.get_or_none().call1(&count)?;
        }
        if has_ended { self.on_close_notify() } else { Ok(()) }
    }

    /// How many bytes were decrypted into the buffer, and whether the peer has sent close_notify.
    fn fill_buffer(&self, buffer: &Any, view: &mut Buffer) -> Result<(usize, bool)> {
        let ssl = asyncio::ssl()?;
        let mut filled = 0;
        loop {
            let rest = || rest_of(buffer, filled);
            match self.core().engine.read_into(ssl, &mut view.as_uninitialized()[filled..], rest)? {
                Progress::Again => return Ok((filled, false)),
                Progress::Made(0) => return Ok((filled, true)),
                Progress::Made(count) => filled += count,
            }
            if filled >= view.len() {
                return Ok((filled, false));
            }
        }
    }

    /// `get_buffer(n)` of the protocol, for a foreign transport: a buffer that it keeps.
    pub(super) fn lend_buffer(&self) -> Result<Object> {
        let slot = &self.core().lent_buffer;
        if let Some(buffer) = slot.get_object() {
            return Ok(buffer);
        }
        let memory = imports().bytearray.call1(&*integer(super::flow_control::READ_HIGH_WATER as i64)?)?;
        let buffer = imports().memoryview.call1(&memory)?;
        slot.set(buffer.clone());
        Ok(buffer)
    }

    /// `buffer_updated(nbytes)` of the protocol: so much of the lent buffer was received.
    pub(super) fn on_buffer_updated(&self, count: &Any) -> Result<()> {
        let count = usize::try_from(count.to_i64()?).unwrap_or(0);
        let Some(buffer) = self.core().lent_buffer.get_object() else { return Ok(()) };
        let view = Buffer::readable(&buffer)?;
        self.on_received(view.as_slice().get(..count).unwrap_or(&[]))
    }
}

/// `memoryview(buffer)[start:]`
fn rest_of(buffer: &Any, start: usize) -> Result<Object> {
    if start == 0 {
        return Ok(buffer.to_object());
    }
    let slice = import(c"builtins")?.get_attribute_str(c"slice")?;
    let slice = slice.call(&[&*integer(start as i64)?, none()])?;
    imports().memoryview.call1(buffer)?.get_item(&slice)
}
