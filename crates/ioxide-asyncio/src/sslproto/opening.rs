//! How a TLS connection begins: `loop._make_ssl_transport`, and what the protocol is made of.

use super::{AppState, Delivery, SSL_PROTOCOL, SslProtocol, TlsCore, asyncio, transport};
use crate::event_loop::EventLoop;
use crate::transports::{Parts, open_transport, receiver_of};
use ioxide_cpython::methods::{Arguments, Signature, given};
use ioxide_cpython::types::allocate;
use ioxide_cpython::value::{dict, integer, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, boolean, imports, names, none};

/// What a TLS connection is made of.
pub(super) struct Options<'a> {
    pub(super) protocol: &'a Any,
    pub(super) context: Option<&'a Any>,
    pub(super) waiter: Option<&'a Any>,
    pub(super) is_server: bool,
    pub(super) server_hostname: Option<&'a Any>,
    pub(super) handshake_timeout: Option<&'a Any>,
    pub(super) shutdown_timeout: Option<&'a Any>,
    /// Whether the application's protocol is to be told of the connection.
    pub(super) calls_connection_made: bool,
}

/// `loop._make_ssl_transport(rawsock, protocol, sslcontext, waiter=None, *, server_side=False, server_hostname=None,
/// extra=None, server=None, ssl_handshake_timeout=60.0, ssl_shutdown_timeout=30.0, call_connection_made=True,
/// context=None)`
pub fn make_ssl_transport(event_loop: &EventLoop, arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<12> = Signature {
        function: "_make_ssl_transport",
        names: [
            "rawsock",
            "protocol",
            "sslcontext",
            "waiter",
            "server_side",
            "server_hostname",
            "extra",
            "server",
            "ssl_handshake_timeout",
            "ssl_shutdown_timeout",
            "call_connection_made",
            "context",
        ],
        required: 3,
        positional: 4,
    };
    let [socket, protocol, tls, waiter, side, name, extra, server, handshake, shutdown, made, context] =
        SIGNATURE.bind(arguments)?;
    let socket = socket.unwrap_or(none());
    event_loop.check_not_in_use(socket)?;
    let options = Options {
        protocol: protocol.unwrap_or(none()),
        context: given(tls),
        waiter: given(waiter),
        is_server: side.map_or(Ok(false), Any::is_true)?,
        server_hostname: given(name),
        handshake_timeout: given(handshake),
        shutdown_timeout: given(shutdown),
        calls_connection_made: made.map_or(Ok(true), Any::is_true)?,
    };
    let ssl_protocol = create(event_loop, &options)?;
    let parts = Parts {
        socket,
        protocol: &ssl_protocol,
        waiter: None,
        extra: given(extra),
        peer_name: None,
        server: given(server),
        context: given(context),
    };
    open_transport(event_loop, &parts)?;
    Ok(SslProtocol::transport_of(&ssl_protocol))
}

/// A new protocol with its transport. Fails: ValueError for bad timeouts, whatever the context's `wrap_bio` raises.
pub(super) fn create(event_loop: &EventLoop, options: &Options<'_>) -> Result<Object> {
    let ssl = asyncio::ssl()?;
    let defaults = asyncio::asyncio();
    let handshake = timeout("ssl_handshake_timeout", options.handshake_timeout, &defaults.handshake_timeout)?;
    let shutdown = timeout("ssl_shutdown_timeout", options.shutdown_timeout, &defaults.shutdown_timeout)?;
    let context = match options.context {
        Some(context) if context.is_true()? => context.to_object(),
        _ => defaults
            .create_transport_context
            .call(&[&boolean(options.is_server), options.server_hostname.unwrap_or(none())])?,
    };
    let shell = SSL_PROTOCOL.get();
    let object = shell.instantiate(shell.class().as_any(), allocate(TlsCore::new(event_loop))?)?;
    let Some(protocol) = SslProtocol::from_any(&object) else {
        return Err(Raised::runtime_error("the protocol is not initialized"));
    };
    let core = protocol.core();
    core.is_server.set(options.is_server);
    if let Some(name) = options.server_hostname
        && !options.is_server
        && name.is_true()?
    {
        core.server_hostname.set(name.to_object());
    }
    let extra = dict()?;
    extra.dict_set(&names().sslcontext, &context)?;
    core.extra.set(extra);
    drop(core.waiter.replace(options.waiter.map(Any::to_object)));
    protocol.set_app_protocol(options.protocol)?;
    core.handshake_timeout.set(handshake);
    core.shutdown_timeout.set(shutdown);
    core.engine.incoming.set(ssl.memory_bio.call0()?);
    core.engine.outgoing.set(ssl.memory_bio.call0()?);
    if !options.calls_connection_made {
        core.app_state.set(AppState::ConnectionMade);
    }
    core.engine.object.set(protocol.wrap(&context)?);
    core.context.set(context);
    core.app_transport.set(transport::create(event_loop, protocol)?);
    Ok(object)
}

/// A timeout in seconds, any number. Fails: ValueError, in asyncio's words.
fn timeout(name: &str, given: Option<&Any>, default: &Any) -> Result<Object> {
    let Some(given) = given else { return Ok(default.to_object()) };
    if given.is_at_most(&*integer(0)?)? {
        let shown = given.str()?.to_text()?;
        let message = format!("{name} should be a positive number, got {}", shown.as_str());
        return Err(Raised::value_error(&message));
    }
    Ok(given.to_object())
}

impl SslProtocol {
    /// `context.wrap_bio(incoming, outgoing, server_side=…, server_hostname=…)`
    fn wrap(&self, context: &Any) -> Result<Object> {
        let core = self.core();
        let keywords = tuple(&[&names().server_side, &names().server_hostname])?;
        context.call_method_keywords(
            &names().wrap_bio,
            &[
                &*core.engine.incoming.get_or_none(),
                &*core.engine.outgoing.get_or_none(),
                &boolean(core.is_server.get()),
                &*core.server_hostname.get_or_none(),
            ],
            &keywords,
        )
    }

    /// `ssl_protocol._app_transport`
    pub(super) fn transport_of(object: &Any) -> Object {
        match SslProtocol::from_any(object) {
            Some(protocol) => protocol.core().app_transport.get_or_none(),
            None => none().to_object(),
        }
    }

    /// `_set_app_protocol(app_protocol)`
    pub(super) fn set_app_protocol(&self, protocol: &Any) -> Result<()> {
        let core = self.core();
        let delivery = if let Some(receiver) = receiver_of(protocol) {
            Delivery::Native(receiver)
        } else if let Some(get_buffer) = protocol.get_attribute_optional(&names().get_buffer)?
            && protocol.is_instance(&imports().BufferedProtocol)?
        {
            core.app_buffer_updated.set(protocol.get_attribute(&names().buffer_updated)?);
            core.app_get_buffer.set(get_buffer);
            Delivery::Buffer
        } else {
            Delivery::Data
        };
        core.delivery.set(delivery);
        core.app_protocol.set(protocol.to_object());
        Ok(())
    }

    /// `_get_extra_info(name, default)`
    pub(super) fn extra_info(&self, name: &Any, default: &Any) -> Result<Object> {
        let core = self.core();
        if let Some(value) = core.extra.get_or_none().dict_get(name)? {
            return Ok(value);
        }
        match core.transport.get_object() {
            Some(transport) => transport.call_method(&names().get_extra_info, &[name, default]),
            None => Ok(default.to_object()),
        }
    }
}
