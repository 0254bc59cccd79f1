//! `loop.start_tls`: a TLS connection over a transport that is connected already, of whatever kind.

use super::opening::{Options, create};
use super::{SslProtocol, asyncio};
use crate::event_loop::EventLoop;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature, given};
use ioxide_cpython::{Any, Object, Raised, Result, names, none};

/// The arguments, kept until the coroutine runs.
struct Request {
    event_loop: Object,
    transport: Object,
    protocol: Object,
    context: Object,
    is_server: Option<Object>,
    server_hostname: Option<Object>,
    handshake_timeout: Option<Object>,
    shutdown_timeout: Option<Object>,
}

/// `await loop.start_tls(transport, protocol, sslcontext, *, server_side=False, server_hostname=None,
/// ssl_handshake_timeout=None, ssl_shutdown_timeout=None)`: the transport to go on with.
pub fn start_tls(event_loop: &EventLoop, arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<7> = Signature {
        function: "start_tls",
        names: [
            "transport",
            "protocol",
            "sslcontext",
            "server_side",
            "server_hostname",
            "ssl_handshake_timeout",
            "ssl_shutdown_timeout",
        ],
        required: 3,
        positional: 3,
    };
    let [transport, protocol, context, side, name, handshake, shutdown] = SIGNATURE.bind(arguments)?;
    let kept = |argument: Option<&Any>| given(argument).map(Any::to_object);
    let request = Request {
        event_loop: event_loop.to_object(),
        transport: transport.unwrap_or(none()).to_object(),
        protocol: protocol.unwrap_or(none()).to_object(),
        context: context.unwrap_or(none()).to_object(),
        is_server: kept(side),
        server_hostname: kept(name),
        handshake_timeout: kept(handshake),
        shutdown_timeout: kept(shutdown),
    };
    coroutine("start_tls", async move { request.run().await })
}

impl Request {
    async fn run(self) -> Result<Object> {
        self.check()?;
        let event_loop = EventLoop::from_any(&self.event_loop)
            .ok_or_else(|| Raised::runtime_error("the event loop is gone"))?;
        let is_server = self.is_server.as_deref().map_or(Ok(false), Any::is_true)?;
        let waiter = event_loop.create_future()?;
        let options = Options {
            protocol: &self.protocol,
            context: Some(&self.context),
            waiter: Some(&waiter),
            is_server,
            server_hostname: self.server_hostname.as_deref(),
            handshake_timeout: self.handshake_timeout.as_deref(),
            shutdown_timeout: self.shutdown_timeout.as_deref(),
            calls_connection_made: false,
        };
        let ssl_protocol = create(event_loop, &options)?;
        // What arrives now must not reach the TLS protocol before its connection_made.
        self.transport.call_method0(&names().pause_reading)?;
        if is_server && asyncio::asyncio().moves_buffered_data {
            self.move_buffered_data(&ssl_protocol)?;
        }
        self.transport.call_method1(&names().set_protocol, &ssl_protocol)?;
        let scheduled = self.schedule(&ssl_protocol)?;
        match wait_for(&waiter).await {
            Ok(_) => Ok(SslProtocol::transport_of(&ssl_protocol)),
            Err(raised) => {
                let exception = raised.take();
                self.transport.call_method0(&names().close)?;
                for handle in &scheduled {
                    handle.call_method0(&names().cancel)?;
                }
                Err(Raised::exception(exception))
            }
        }
    }

    /// Fails: RuntimeError without ssl, TypeError in asyncio's words.
    fn check(&self) -> Result<()> {
        let Some(ssl) = &asyncio::asyncio().ssl else {
            return Err(Raised::runtime_error("Python ssl module is not available"));
        };
        if !self.context.is_instance(&ssl.ssl_context)? {
            let shown = self.context.repr()?.to_text()?;
            return Err(Raised::type_error(&format!(
                "sslcontext is expected to be an instance of ssl.SSLContext, got {}",
                shown.as_str()
            )));
        }
        let compatible = self.transport.get_attribute_optional(&names()._start_tls_compatible)?;
        if !compatible.as_deref().map_or(Ok(false), Any::is_true)? {
            let shown = self.transport.repr()?.to_text()?;
            let message = format!("transport {} is not supported by start_tls()", shown.as_str());
            return Err(Raised::type_error(&message));
        }
        Ok(())
    }

    /// connection_made, then reading: both in the next turn.
    fn schedule(&self, ssl_protocol: &Any) -> Result<[Object; 2]> {
        let connection_made = ssl_protocol.get_attribute(&names().connection_made)?;
        let resume = self.transport.get_attribute(&names().resume_reading)?;
        let event_loop = &self.event_loop;
        Ok([
            event_loop.call_method(&names().call_soon, &[&connection_made, &self.transport])?,
            event_loop.call_method1(&names().call_soon, &resume)?,
        ])
    }

    /// A client may have begun its handshake before the server's stream has changed hands.
    fn move_buffered_data(&self, ssl_protocol: &Any) -> Result<()> {
        if !self.protocol.is_instance(&asyncio::asyncio().stream_reader_protocol)? {
            return Ok(());
        }
        let Some(reader) = self.protocol.get_attribute_optional(&names()._stream_reader)? else {
            return Ok(());
        };
        if reader.is_none() {
            return Ok(());
        }
        let buffer = reader.get_attribute(&names()._buffer)?;
        if !buffer.is_true()? {
            return Ok(());
        }
        let incoming = ssl_protocol.get_attribute(&names()._incoming)?;
        incoming.call_method1(&names().write, &buffer)?;
        buffer.call_method0(&names().clear).map(drop)
    }
}
