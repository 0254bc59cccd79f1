//! The side of a transport that receives. One receive for each event, in its turn or before it (`ahead`): what is left makes another one.
//!
//! Leaves to others: what the protocol writes in answer (`writing`), the end of the connection (`closing`).

use super::super::base::BaseTransport;
use super::{Delivery, NativeReceiver, Reading, SocketTransport, Writing};
use crate::event_loop::{Direction, Watcher};
use ioxide_cpython::buffer::Buffer;
use ioxide_cpython::exception::{raise_os_error, type_name};
use ioxide_cpython::value::{bytes, bytes_filled_by, integer};
use ioxide_cpython::{Any, Object, Raised, Result, names, none};
use ioxide_io::read_buffer::DEFAULT_CAPACITY;
use std::io;

/// The outcome of one receive; `None` where nothing has arrived.
enum Received {
    Some(Object),
    EndOfStream,
}

const READ_ERROR: &str = "Fatal read error on socket transport";

impl SocketTransport {
    pub(super) fn is_reading(&self) -> bool {
        let core = self.core();
        !core.is_closing() && core.reading.get() != Reading::Paused
    }

    /// Begins to watch, scheduled to run after connection_made; does nothing if that has paused reading or closed.
    pub(super) fn start_reading(&self) -> Result<()> {
        if !self.is_reading() {
            return Ok(());
        }
        let core = self.core();
        core.reader_context.set(self.callback_context()?);
        if core.reading.get() == Reading::Watching {
            return Ok(());
        }
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        event_loop.check_closed()?;
        drop(event_loop.watch(core.fd.get(), Direction::Read, Watcher::Transport(self.to_object()))?);
        core.reading.set(Reading::Watching);
        Ok(())
    }

    /// Stops watching; what comes after is the caller's.
    pub(super) fn stop_reading(&self, next: Reading) {
        let core = self.core();
        if core.reading.replace(next) == Reading::Watching
            && let Some(event_loop) = self.event_loop()
        {
            drop(event_loop.unwatch(core.fd.get(), Direction::Read));
        }
    }

    /// `transport.pause_reading()`
    pub(super) fn pause_reading(&self) -> Result<()> {
        if !self.is_reading() {
            return Ok(());
        }
        self.stop_reading(Reading::Paused);
        self.log_in_debug_mode(&names().debug, "%r pauses reading")
    }

    /// `transport.resume_reading()`
    pub(super) fn resume_reading(&self) -> Result<()> {
        let core = self.core();
        if core.is_closing() || core.reading.get() != Reading::Paused {
            return Ok(());
        }
        core.reading.set(Reading::Idle);
        self.start_reading()?;
        self.deliver_received_soon();
        self.log_in_debug_mode(&names().debug, "%r resumes reading")
    }

    pub(super) fn on_readable(&self) -> Result<()> {
        if let Some(received) = self.take_received() {
            return self.deliver_received(received);
        }
        // get_buffer() may set another protocol; what was begun is ended.
        let delivery = self.core().delivery.get();
        let received = match delivery {
            Delivery::Native(receiver) if self.core().max_size.get() == DEFAULT_CAPACITY => {
                return self.receive_native(receiver);
            }
            Delivery::Data | Delivery::Native(_) => self.receive_data(),
            Delivery::Buffer => self.receive_into_buffer(),
        };
        match received {
            Ok(None) => Ok(()),
            Ok(Some(Received::EndOfStream)) => self.on_end_of_stream(),
            Ok(Some(Received::Some(data))) => match delivery {
                Delivery::Data => self.deliver_data(&data),
                Delivery::Buffer => self.deliver_count(&data),
                Delivery::Native(receiver) => self.deliver_native(receiver, data.bytes().unwrap_or(&[])),
            },
            Err(raised) => self.fail(raised, READ_ERROR),
        }
    }

    /// What was received ahead. The protocol may be another one than at that time.
    fn deliver_received(&self, received: Result<Object>) -> Result<()> {
        let data = match received {
            Ok(data) => data,
            Err(raised) => return self.fail(raised, READ_ERROR),
        };
        match (data.bytes(), self.core().delivery.get()) {
            (Some([]) | None, _) => self.on_end_of_stream(),
            (Some(_), Delivery::Data) => self.deliver_data(&data),
            (Some(_), Delivery::Buffer) => self.deliver_into_buffer(&data),
            (Some(bytes), Delivery::Native(receiver)) => self.deliver_native(receiver, bytes),
        }
    }

    /// Receives into the loop's buffer, which is the protocol's to read until it returns (N2).
    fn receive_native(&self, receiver: &NativeReceiver) -> Result<()> {
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        let mut buffer = event_loop.read_buffer().take();
        let received = self.socket().and_then(|socket| unless_nothing(buffer.receive(socket)));
        let outcome = match received {
            Ok(None) => Ok(()),
            Ok(Some([])) => self.on_end_of_stream(),
            Ok(Some(data)) => self.deliver_native(receiver, data),
            Err(raised) => self.fail(raised, READ_ERROR),
        };
        drop(event_loop.read_buffer().replace(buffer));
        outcome
    }

    /// Receives into the loop's buffer and copies: most messages are short.
    fn receive_data(&self) -> Result<Option<Received>> {
        let socket = self.socket()?;
        let room = self.core().max_size.get();
        if room != DEFAULT_CAPACITY {
            let data = bytes_filled_by(room, |room| unless_nothing(socket.receive(room)))?;
            return Ok(data.map(|data| match data.bytes() {
                Some([]) | None => Received::EndOfStream,
                Some(_) => Received::Some(data),
            }));
        }
        let Some(event_loop) = self.event_loop() else { return Ok(None) };
        // T5: making a bytes object runs no Python.
        let mut buffer = event_loop.read_buffer().borrow_mut();
        match unless_nothing(buffer.receive(socket))? {
            None => Ok(None),
            Some([]) => Ok(Some(Received::EndOfStream)),
            Some(received) => Ok(Some(Received::Some(bytes(received)?))),
        }
    }

    fn deliver_data(&self, data: &Any) -> Result<()> {
        let call = |protocol: &Any| protocol.call_method1(&names().data_received, data);
        self.deliver(call, "Fatal error: protocol.data_received() call failed.").map(drop)
    }

    /// Receives into a buffer of the protocol's. The count of bytes is what was received.
    fn receive_into_buffer(&self) -> Result<Option<Received>> {
        let call = |protocol: &Any| {
            let buffer = protocol.call_method1(&names().get_buffer, &*integer(-1)?)?;
            if buffer.length()? == 0 {
                return Err(Raised::runtime_error("get_buffer() returned an empty buffer"));
            }
            Ok(buffer)
        };
        let failure = "Fatal error: protocol.get_buffer() call failed.";
        let Some(buffer) = self.deliver(call, failure)? else { return Ok(None) };
        let socket = self.socket()?;
        // The view is given back before the protocol is called: it may want to resize its buffer.
        let mut view = Buffer::writable(&buffer).map_err(|raised| not_writable(raised, &buffer))?;
        let count = unless_nothing(socket.receive(view.as_uninitialized()))?;
        drop(view);
        match count {
            None => Ok(None),
            Some(0) => Ok(Some(Received::EndOfStream)),
            Some(count) => Ok(Some(Received::Some(integer(count as i64)?))),
        }
    }

    fn deliver_count(&self, count: &Any) -> Result<()> {
        let call = |protocol: &Any| protocol.call_method1(&names().buffer_updated, count);
        self.deliver(call, "Fatal error: protocol.buffer_updated() call failed.").map(drop)
    }

    fn on_end_of_stream(&self) -> Result<()> {
        self.log_in_debug_mode(&names().debug, "%r received EOF")?;
        let call = |protocol: &Any| protocol.call_method0(&names().eof_received);
        let Some(answer) = self.deliver(call, "Fatal error: protocol.eof_received() call failed.")? else {
            return Ok(());
        };
        if !answer.is_true()? {
            return self.close();
        }
        // The protocol may go on writing; there is nothing more to read.
        if self.core().reading.get() == Reading::Watching {
            self.stop_reading(Reading::Idle);
        }
        Ok(())
    }

    /// Calls the protocol and sends at once what it wrote meanwhile. `None` where it failed, which closes.
    /// Fails: KeyboardInterrupt, SystemExit.
    pub(super) fn deliver<T>(
        &self,
        call: impl FnOnce(&Any) -> Result<T>,
        failure: &str,
    ) -> Result<Option<T>> {
        let core = self.core();
        let protocol = core.protocol.get_object();
        if core.writing.get() == Writing::Idle {
            core.writing.set(Writing::Held);
        }
        match call(protocol.as_deref().unwrap_or(none())) {
            Ok(answer) => {
                self.end_hold()?;
                Ok(Some(answer))
            }
            Err(raised) => {
                let exception = raised.take();
                self.end_hold()?;
                self.fail(Raised::exception(exception), failure)?;
                Ok(None)
            }
        }
    }

    /// An exception on the way between kernel and protocol. Fails: KeyboardInterrupt, SystemExit.
    pub(super) fn fail(&self, raised: Raised, failure: &str) -> Result<()> {
        if raised.leaves_the_loop() {
            return Err(raised);
        }
        self.on_fatal_error(&raised.take(), failure)
    }
}

/// `None` where nothing has arrived.
fn unless_nothing<T>(received: io::Result<T>) -> Result<Option<T>> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(raise_os_error(&error)),
    }
}

/// What `socket.recv_into` says of a buffer that cannot be written to.
#[cold]
fn not_writable(raised: Raised, buffer: &Any) -> Raised {
    drop(raised.take());
    Raised::type_error(&format!(
        "recv_into() argument 1 must be read-write bytes-like object, not {}",
        type_name(buffer)
    ))
}
