//! The one place where setting up a connection asks for TLS.

use super::EventLoop;
use ioxide_cpython::value::tuple;
use ioxide_cpython::version::CONNECTIONS_HAVE_CONTEXT;
use ioxide_cpython::{Any, Object, Result, boolean, names, none};

/// What a connection with TLS is made of.
pub struct SecureParts<'a> {
    pub socket: &'a Any,
    pub protocol: &'a Any,
    /// An SSLContext, or None for the default one.
    pub ssl_context: &'a Any,
    pub waiter: &'a Any,
    pub server_side: bool,
    /// Whom a client expects.
    pub server_hostname: Option<&'a Any>,
    /// Of an accepted connection.
    pub extra: Option<&'a Any>,
    pub server: Option<&'a Any>,
    pub handshake_timeout: &'a Any,
    pub shutdown_timeout: &'a Any,
    /// None but from 3.15 on.
    pub context: &'a Any,
}

/// `loop._make_ssl_transport(…)`, which somebody may have overridden. The handshake begins, and ends with `waiter`.
pub fn make_ssl_transport(event_loop: &EventLoop, parts: &SecureParts<'_>) -> Result<Object> {
    let server_side = boolean(parts.server_side);
    let mut arguments: Vec<&Any> = vec![parts.socket, parts.protocol, parts.ssl_context, parts.waiter];
    let mut keywords: Vec<&Any> = Vec::new();
    let mut add = |name: &'static Any, value| {
        keywords.push(name);
        arguments.push(value);
    };
    add(&names().server_side, &server_side);
    let optional = [
        (&names().server_hostname, parts.server_hostname),
        (&names().extra, parts.extra),
        (&names().server, parts.server),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            add(name, value);
        }
    }
    add(&names().ssl_handshake_timeout, parts.handshake_timeout);
    add(&names().ssl_shutdown_timeout, parts.shutdown_timeout);
    if CONNECTIONS_HAVE_CONTEXT && !parts.context.is_none() {
        add(&names().context, parts.context);
    }
    event_loop.call_method_keywords(&names()._make_ssl_transport, &arguments, &*tuple(&keywords)?)
}

/// The context among `ssl`, which may also be True: the default one.
pub fn context_of(ssl: &Any) -> &Any {
    if ssl.get_type().is(boolean(true).get_type()) { none() } else { ssl }
}
