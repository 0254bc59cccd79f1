//! `connect_read_pipe` and `connect_write_pipe`: a transport for one end of a pipe, and its protocol.
//!
//! Leaves to others: the transports themselves (`transports/pipe`), which own the pipe from their creation on.

use super::EventLoop;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{text, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, imports, names, none};

/// Which end of the pipe the transport has.
#[derive(Clone, Copy)]
enum PipeEnd {
    Read,
    Write,
}

impl EventLoop {
    /// `await loop.connect_read_pipe(protocol_factory, pipe)`: the transport and the protocol.
    pub fn connect_read_pipe(&self, arguments: Arguments<'_>) -> Result<Object> {
        self.connect_pipe("connect_read_pipe", PipeEnd::Read, arguments)
    }

    /// `await loop.connect_write_pipe(protocol_factory, pipe)`: the transport and the protocol.
    pub fn connect_write_pipe(&self, arguments: Arguments<'_>) -> Result<Object> {
        self.connect_pipe("connect_write_pipe", PipeEnd::Write, arguments)
    }

    fn connect_pipe(
        &self,
        function: &'static str,
        pipe_end: PipeEnd,
        arguments: Arguments<'_>,
    ) -> Result<Object> {
        let signature =
            Signature::<2> { function, names: ["protocol_factory", "pipe"], required: 2, positional: 2 };
        let [factory, pipe] = signature.bind(arguments)?;
        let event_loop = self.to_object();
        let (factory, pipe) = (factory.unwrap_or(none()).to_object(), pipe.unwrap_or(none()).to_object());
        coroutine(function, async move {
            let protocol = factory.call0()?;
            let waiter = event_loop.call_method0(&names().create_future)?;
            let make = match pipe_end {
                PipeEnd::Read => &names()._make_read_pipe_transport,
                PipeEnd::Write => &names()._make_write_pipe_transport,
            };
            let transport = event_loop.call_method(make, &[&*pipe, &*protocol, &*waiter])?;
            let connected = wait_for(&waiter);
            // Nobody but the coroutine holds what it waits for, so that the collector sees all owners.
            drop(waiter);
            if let Err(raised) = connected.await {
                let exception = raised.take();
                transport.call_method0(&names().close)?;
                return Err(Raised::exception(exception));
            }
            log_connected(&event_loop, pipe_end, &pipe, &transport, &protocol)?;
            tuple(&[&*transport, &*protocol])
        })
    }
}

/// asyncio's line for debug mode.
fn log_connected(
    event_loop: &Any,
    pipe_end: PipeEnd,
    pipe: &Any,
    transport: &Any,
    protocol: &Any,
) -> Result<()> {
    if !super::is_debug(event_loop)? {
        return Ok(());
    }
    let line = match pipe_end {
        PipeEnd::Read => "Read pipe %r connected: (%r, %r)",
        PipeEnd::Write => "Write pipe %r connected: (%r, %r)",
    };
    let number = pipe.call_method0(&names().fileno)?;
    imports().logger.call_method(&names().debug, &[&*text(line)?, &*number, transport, protocol]).map(drop)
}
