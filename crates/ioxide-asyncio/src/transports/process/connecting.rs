//! The transports of a child's pipes are made, by the loop's own methods, before its protocol hears of the connection.

use super::pipes::{PipeProtocol, pipe_of};
use super::{ProcessTransport, RULES, stream_names};
use crate::futures;
use ioxide_cpython::coroutine::{coroutine_of, wait_for};
use ioxide_cpython::exception::handling;
use ioxide_cpython::methods::method0;
use ioxide_cpython::types::FunctionDefinition;
use ioxide_cpython::{Any, Object, Once, Raised, Result, names, none, none_object};

/// `lambda: protocol`
static PROTOCOL_FACTORY: Once<FunctionDefinition> = Once::new();

pub(super) fn initialize() {
    PROTOCOL_FACTORY
        .set(FunctionDefinition::new(method0(c"protocol_factory", |protocol: &Any| protocol.to_object())));
}

impl ProcessTransport {
    /// `await transport._connect_pipes(waiter)`
    pub(super) fn connect_pipes(&self, waiter: &Any) -> Result<Object> {
        let waiter = waiter.to_object();
        coroutine_of("BaseSubprocessTransport._connect_pipes", self.to_object(), |owner| async move {
            let Some(transport) = ProcessTransport::from_any(&owner) else { return Ok(none_object()) };
            let process = transport.core().process.get_or_none();
            match connect_all(transport, &process).await {
                Ok(()) if waiter.is_none() => {}
                Ok(()) => futures::set_result_unless_cancelled(&waiter, none())?,
                Err(raised) if raised.leaves_the_loop() => return Err(raised),
                Err(raised) => {
                    let exception = raised.take();
                    if RULES.get().closes_unconnected {
                        handling(&exception, || transport.close_pipes(&process))?;
                    }
                    if !waiter.is_none() {
                        futures::set_exception_unless_cancelled(&waiter, &exception)?;
                    }
                }
            }
            Ok(none_object())
        })
    }

    /// Closes the pipes that are connected, and those that are not.
    fn close_pipes(&self, process: &Any) -> Result<()> {
        for protocol in self.connected_pipes() {
            pipe_of(&protocol)?.call_method0(&names().close)?;
        }
        for stream in stream_names() {
            let pipe = process.get_attribute(stream)?;
            if !pipe.is_none() {
                pipe.call_method0(&names().close)?;
            }
        }
        Ok(())
    }
}

async fn connect_all(transport: &ProcessTransport, process: &Any) -> Result<()> {
    let event_loop = transport.core().event_loop.get_or_none();
    let names = names();
    for (index, stream) in stream_names().into_iter().enumerate() {
        let pipe = process.get_attribute(stream)?;
        if pipe.is_none() {
            continue;
        }
        let protocol = PipeProtocol::create(transport, index)?;
        let factory = PROTOCOL_FACTORY.get().bind(&protocol)?;
        let connect = if index == 0 { &names.connect_write_pipe } else { &names.connect_read_pipe };
        // Nobody but the coroutine holds what it waits for, so that the collector sees all owners.
        let connecting = wait_for(&*event_loop.call_method(connect, &[&*factory, &*pipe])?);
        let connected = connecting.await?;
        let protocol = pair(&connected)?;
        let end = &transport.core().pipes[index];
        end.is_wanted.set(true);
        end.protocol.set(protocol);
    }
    transport.connected()
}

/// The protocol of `(transport, protocol)`.
fn pair(connected: &Any) -> Result<Object> {
    match connected.tuple_items() {
        [_, protocol] => Ok(protocol.to_object()),
        _ => Err(Raised::type_error("a transport and a protocol were expected")),
    }
}
