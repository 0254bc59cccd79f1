//! The side of a transport that receives: several datagrams a system call, one datagram a turn that others can see (D1).

use super::super::base::BaseTransport;
use super::known_addresses::convert;
use super::{DatagramTransport, Phase, Reading, Received};
use crate::event_loop::{Direction, Ready, Watcher};
use ioxide_cpython::exception::{exception_is, raise_os_error};
use ioxide_cpython::value::{bytes, bytes_filled_by};
use ioxide_cpython::{Builtin, Object, Raised, Result, names};
use ioxide_io::read_buffer::DEFAULT_CAPACITY;
use ioxide_io::{SocketAddress, SocketRef};
use std::collections::VecDeque;
use std::io;

impl DatagramTransport {
    pub(super) fn is_reading(&self) -> bool {
        !self.core().is_closing() && self.core().reading.get() != Reading::Paused
    }

    /// Begins to watch, scheduled to run after connection_made; does nothing if that has paused reading or closed.
    pub(super) fn start_reading(&self) -> Result<()> {
        let core = self.core();
        if !self.is_reading() || core.reading.get() == Reading::Watching {
            return Ok(());
        }
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        event_loop.check_closed()?;
        core.reader_context.set(self.callback_context()?);
        drop(event_loop.watch(core.fd.get(), Direction::Read, Watcher::Transport(self.to_object()))?);
        core.reading.set(Reading::Watching);
        self.queue_received();
        Ok(())
    }

    /// Stops watching; what comes after is the caller's.
    pub(super) fn stop_reading(&self, next: Reading) {
        let core = self.core();
        if core.reading.replace(next) == Reading::Watching
            && let Some(event_loop) = self.event_loop()
        {
            drop(event_loop.unwatch_transport(core.fd.get(), Direction::Read, self));
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
        self.log_in_debug_mode(&names().debug, "%r resumes reading")
    }

    /// Another datagram waits: its turn is the next one, as if the kernel had reported it (D4).
    pub(super) fn queue_received(&self) {
        let core = self.core();
        if core.reading.get() != Reading::Watching || core.received.borrow().is_empty() {
            return;
        }
        if let Some(event_loop) = self.event_loop() {
            event_loop.push_ready(Ready::Watcher(Watcher::Transport(self.to_object()), Direction::Read));
        }
    }

    /// Hands over a datagram, and the ones that were received with it for as long as nothing else wants to run: then
    /// the turns between them would be empty, and nobody can tell that there were none (D1).
    pub(super) fn on_readable(&self) -> Result<()> {
        loop {
            if !self.hand_over_one()? {
                return Ok(());
            }
            let core = self.core();
            if core.reading.get() != Reading::Watching || core.received.borrow().is_empty() {
                return Ok(());
            }
            match self.event_loop() {
                Some(event_loop) if event_loop.has_nothing_else_to_do() => {}
                _ => return Ok(()),
            }
        }
    }

    /// Whether there was one. What waits still is queued by the caller.
    fn hand_over_one(&self) -> Result<bool> {
        let core = self.core();
        if core.is_lost() {
            return Ok(false);
        }
        let waiting = core.received.borrow_mut().pop_front();
        let received = match waiting {
            Some(received) => Ok(Some(received)),
            None => self.receive(),
        };
        match received {
            Ok(None) => Ok(false),
            Ok(Some(Received { data, sender, place })) => {
                core.last_place.set(place);
                self.get_protocol().call_method(&names().datagram_received, &[&*data, &*sender]).map(|_| true)
            }
            Err(raised) => self.on_receive_error(raised).map(|()| true),
        }
    }

    /// Errors of the kernel are the protocol's to hear; every other one ends the transport.
    fn on_receive_error(&self, raised: Raised) -> Result<()> {
        if raised.leaves_the_loop() {
            return Err(raised);
        }
        let exception = raised.take();
        if exception_is(&exception, Builtin::OSError) {
            return self.get_protocol().call_method1(&names().error_received, &exception).map(drop);
        }
        self.on_fatal_error(&exception, "Fatal read error on datagram transport")
    }

    /// The oldest datagram that has arrived; `None` where none has. Others that were received with it wait.
    fn receive(&self) -> Result<Option<Received>> {
        let socket = self.socket()?;
        let core = self.core();
        let is_internet = matches!(core.family.get(), libc::AF_INET | libc::AF_INET6);
        if !is_internet || core.max_size.get() != DEFAULT_CAPACITY {
            return self.receive_one(socket);
        }
        let Some(event_loop) = self.event_loop() else { return Ok(None) };
        // Whoever receives while this batch is in use takes a fresh one (D5).
        let mut batch = event_loop.datagram_batch().take();
        let outcome = match unless_nothing(batch.receive(socket)) {
            Ok(Some(_)) => self.keep(batch.datagrams()),
            Ok(None) => Ok(()),
            Err(raised) => Err(raised),
        };
        drop(event_loop.datagram_batch().replace(batch));
        outcome?;
        Ok(core.received.borrow_mut().pop_front())
    }

    fn keep<'a>(&self, datagrams: impl Iterator<Item = (&'a [u8], &'a SocketAddress)>) -> Result<()> {
        for (data, sender) in datagrams {
            let received = self.received(bytes(data)?, sender)?;
            self.core().received.borrow_mut().push_back(received);
        }
        Ok(())
    }

    /// One datagram of up to `max_size` bytes, as asyncio receives.
    fn receive_one(&self, socket: SocketRef) -> Result<Option<Received>> {
        let mut sender = None;
        let data = bytes_filled_by(self.core().max_size.get(), |room| {
            Ok(unless_nothing(socket.receive_from(room))?.map(|(count, address)| {
                sender = Some(address);
                count
            }))
        })?;
        match (data, sender) {
            (Some(data), Some(sender)) => self.received(data, &sender).map(Some),
            _ => Ok(None),
        }
    }

    fn received(&self, data: Object, address: &SocketAddress) -> Result<Received> {
        let known = self.core().known.borrow().object_of(address);
        if let Some((sender, place)) = known {
            return Ok(Received { data, sender, place });
        }
        let sender = convert(address)?;
        let (place, replaced) = self.core().known.borrow_mut().note(address, sender.clone());
        drop(replaced);
        Ok(Received { data, sender, place })
    }

    /// What has not been handed over goes the way of what the kernel still has.
    pub(super) fn drop_received(&self) {
        if self.core().phase.get() != Phase::Open {
            let received: VecDeque<Received> = self.core().received.take();
            drop(received);
        }
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
