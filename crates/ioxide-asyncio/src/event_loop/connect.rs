//! `create_connection`, `create_unix_connection` and `connect_accepted_socket`.
//!
//! Leaves to others: looking names up (`resolve`), one attempt to connect (`attempt`), TLS (`secure`).
//!
//! Invariants:
//! N1. A socket that was made here is owned by a `ClosedUnlessKept` until a transport owns it: however the coroutine
//!     ends, exactly this socket object is closed.

use super::EventLoop;
use super::attempt::{attempt_all, attempt_staggered, raise_failures};
use super::modules::{base_socket, check_no_ssl_socket, refuse_socket, socket_is, unix_os, unix_socket};
use super::owned::ClosedUnlessKept;
use super::resolve::interleaved;
use super::secure::{self, SecureParts};
use ioxide_cpython::context::copy_current;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::version::CONNECTIONS_HAVE_CONTEXT;
use ioxide_cpython::{
    Any, Builtin, Object, Raised, Result, boolean, builtin, imports, names, none, none_object,
};

/// The arguments about TLS that every method of this file takes.
pub(super) struct Security {
    ssl: Object,
    server_hostname: Object,
    handshake_timeout: Object,
    shutdown_timeout: Object,
}

impl Security {
    /// Fails: ValueError for timeouts that nobody would use.
    pub(super) fn check_timeouts(
        is_secure: bool,
        handshake_timeout: &Any,
        shutdown_timeout: &Any,
    ) -> Result<()> {
        let given = [
            (handshake_timeout, "ssl_handshake_timeout is only meaningful with ssl"),
            (shutdown_timeout, "ssl_shutdown_timeout is only meaningful with ssl"),
        ];
        for (timeout, message) in given {
            if !timeout.is_none() && !is_secure {
                return Err(Raised::value_error(message));
            }
        }
        Ok(())
    }
}

/// What `create_connection` was asked for.
struct Request {
    event_loop: Object,
    protocol_factory: Object,
    host: Object,
    port: Object,
    security: Security,
    family: Object,
    protocol: Object,
    flags: Object,
    socket: Object,
    local_address: Object,
    happy_eyeballs_delay: Object,
    interleave: Object,
    all_errors: Object,
}

const CREATE_CONNECTION: Signature<15> = Signature {
    function: "create_connection",
    names: [
        "protocol_factory",
        "host",
        "port",
        "ssl",
        "family",
        "proto",
        "flags",
        "sock",
        "local_addr",
        "server_hostname",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
        "happy_eyeballs_delay",
        "interleave",
        "all_errors",
    ],
    required: 1,
    positional: 3,
};

impl EventLoop {
    /// `await loop.create_connection(protocol_factory, host=None, port=None, *, ssl=None, …)`
    pub fn create_connection(&self, arguments: Arguments<'_>) -> Result<Object> {
        let zero = integer(0)?;
        let bound = CREATE_CONNECTION.bind(arguments)?;
        let value = |index: usize| bound[index].unwrap_or(none()).to_object();
        let number = |index: usize| bound[index].unwrap_or(&zero).to_object();
        let mut request = Request {
            event_loop: self.to_object(),
            protocol_factory: value(0),
            host: value(1),
            port: value(2),
            security: Security {
                ssl: value(3),
                server_hostname: value(9),
                handshake_timeout: value(10),
                shutdown_timeout: value(11),
            },
            family: number(4),
            protocol: number(5),
            flags: number(6),
            socket: value(7),
            local_address: value(8),
            happy_eyeballs_delay: value(12),
            interleave: value(13),
            all_errors: value(14),
        };
        coroutine("create_connection", async move {
            request.check()?;
            request.connect().await
        })
    }
}

impl Request {
    /// Fails: ValueError, TypeError, in asyncio's words.
    fn check(&mut self) -> Result<()> {
        let is_secure = self.security.ssl.is_true()?;
        if !self.security.server_hostname.is_none() && !is_secure {
            return Err(Raised::value_error("server_hostname is only meaningful with ssl"));
        }
        if self.security.server_hostname.is_none() && is_secure {
            if !self.host.is_true()? {
                return Err(Raised::value_error(
                    "You must set server_hostname when using ssl without a host",
                ));
            }
            self.security.server_hostname = self.host.clone();
        }
        let Security { handshake_timeout, shutdown_timeout, .. } = &self.security;
        Security::check_timeouts(is_secure, handshake_timeout, shutdown_timeout)?;
        if !self.socket.is_none() {
            check_no_ssl_socket(&self.socket)?;
        }
        if !self.happy_eyeballs_delay.is_none() && self.interleave.is_none() {
            // Happy eyeballs are meant to change families.
            self.interleave = integer(1)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Object> {
        let socket = if !self.host.is_none() || !self.port.is_none() {
            if !self.socket.is_none() {
                return Err(host_and_socket());
            }
            self.connect_to_host().await?
        } else if self.socket.is_none() {
            return Err(Raised::value_error("host and port was not specified and no sock specified"));
        } else if !socket_is(&self.socket, &names().type_name, libc::SOCK_STREAM)? {
            return Err(refuse_socket(&self.socket, "A Stream Socket"));
        } else {
            self.socket.clone()
        };
        let connection = make_transport(&self.event_loop, &socket, &self.protocol_factory, &self.security)?;
        let connection = wait_for(&connection).await?;
        self.log(&connection)?;
        Ok(connection)
    }

    async fn connect_to_host(&self) -> Result<Object> {
        let address = tuple(&[&*self.host, &*self.port])?;
        let mut addresses = self.resolve(&address).await?;
        let local_addresses = match self.local_address.is_none() {
            true => none_object(),
            false => self.resolve(&self.local_address).await?,
        };
        if self.interleave.is_true()? {
            addresses = interleaved(&addresses, self.interleave.to_i64()?)?;
        }
        let failures = ioxide_cpython::value::list()?;
        let socket = if self.happy_eyeballs_delay.is_none() {
            attempt_all(&self.event_loop, &failures, &addresses, &local_addresses).await?
        } else {
            let delay = &self.happy_eyeballs_delay;
            attempt_staggered(&self.event_loop, &failures, &addresses, &local_addresses, delay).await?
        };
        if socket.is_none() {
            return Err(raise_failures(&failures, self.all_errors.is_true()?));
        }
        Ok(socket)
    }

    async fn resolve(&self, address: &Any) -> Result<Object> {
        let kind = base_socket()?.get_attribute_str(c"SOCK_STREAM")?;
        let keywords = tuple(&[
            &names().family,
            &names().type_name,
            &names().proto,
            &names().flags,
            &names().event_loop,
        ])?;
        let arguments: [&Any; 6] =
            [address, &self.family, &kind, &self.protocol, &self.flags, &self.event_loop];
        let lookup =
            self.event_loop.call_method_keywords(&names()._ensure_resolved, &arguments, &keywords)?;
        let found = wait_for(&lookup).await?;
        if !found.is_true()? {
            return Err(Raised::new(builtin(Builtin::OSError), "getaddrinfo() returned empty list"));
        }
        Ok(found)
    }

    /// A line about the connection, in debug mode.
    fn log(&self, connection: &Any) -> Result<()> {
        if !crate::event_loop::is_debug(&self.event_loop)? {
            return Ok(());
        }
        let [transport, protocol] = connection.tuple_items() else { return Ok(()) };
        let socket = transport.call_method1(&names().get_extra_info, &names().socket)?;
        let line = text("%r connected to %s:%r: (%r, %r)")?;
        let arguments: [&Any; 6] = [&line, &socket, &self.host, &self.port, transport, protocol];
        imports().logger.call_method(&names().debug, &arguments).map(drop)
    }
}

pub(super) fn host_and_socket() -> Raised {
    Raised::value_error("host/port and sock can not be specified at the same time")
}

/// A coroutine of `loop._create_connection_transport` for a connection to a server.
fn make_transport(
    event_loop: &Any,
    socket: &Any,
    protocol_factory: &Any,
    security: &Security,
) -> Result<Object> {
    let Security { ssl, server_hostname, handshake_timeout, shutdown_timeout } = security;
    let keywords = tuple(&[&names().ssl_handshake_timeout, &names().ssl_shutdown_timeout])?;
    let arguments: [&Any; 6] =
        [socket, protocol_factory, ssl, server_hostname, handshake_timeout, shutdown_timeout];
    event_loop.call_method_keywords(&names()._create_connection_transport, &arguments, &keywords)
}

const CREATE_TRANSPORT: Signature<8> = Signature {
    function: "_create_connection_transport",
    names: [
        "sock",
        "protocol_factory",
        "ssl",
        "server_hostname",
        "server_side",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
        if CONNECTIONS_HAVE_CONTEXT { "context" } else { "" },
    ],
    required: 4,
    positional: 7 + CONNECTIONS_HAVE_CONTEXT as usize,
};

impl EventLoop {
    /// `await loop._create_connection_transport(sock, protocol_factory, ssl, server_hostname, server_side=False, …)`:
    /// the transport and the protocol of a connected socket. It owns the socket, whatever comes (N1).
    pub fn create_connection_transport(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = CREATE_TRANSPORT.bind(arguments)?;
        let held = bound.map(|value| value.unwrap_or(none()).to_object());
        let event_loop = self.to_object();
        coroutine("_create_connection_transport", async move {
            let [socket, factory, ssl, server_hostname, server_side, handshake, shutdown, context] = &held;
            let Some(event_loop) = EventLoop::from_any(&event_loop) else { return Ok(none_object()) };
            let connection = ClosedUnlessKept::new(socket.clone());
            socket.call_method1(&names().setblocking, &boolean(false))?;
            let context = match CONNECTIONS_HAVE_CONTEXT && context.is_none() {
                true => copy_current()?,
                false => context.clone(),
            };
            let protocol = factory.call0()?;
            let waiter = event_loop.call_method0(&names().create_future)?;
            let transport = if ssl.is_true()? {
                let parts = SecureParts {
                    socket,
                    protocol: &protocol,
                    ssl_context: secure::context_of(ssl),
                    waiter: &waiter,
                    server_side: server_side.is_true()?,
                    server_hostname: Some(server_hostname),
                    extra: None,
                    server: None,
                    handshake_timeout: handshake,
                    shutdown_timeout: shutdown,
                    context: &context,
                };
                secure::make_ssl_transport(event_loop, &parts)?
            } else {
                make_plain(event_loop, socket, &protocol, &waiter, &context)?
            };
            connection.keep();
            let opened = ClosedUnlessKept::new(transport.clone());
            wait_for(&waiter).await?;
            opened.keep();
            tuple(&[&*transport, &*protocol])
        })
    }
}

fn make_plain(
    event_loop: &EventLoop,
    socket: &Any,
    protocol: &Any,
    waiter: &Any,
    context: &Any,
) -> Result<Object> {
    let name = &names()._make_socket_transport;
    if CONNECTIONS_HAVE_CONTEXT {
        let arguments = [socket, protocol, waiter, context];
        return event_loop.call_method_keywords(name, &arguments, &imports().names_context);
    }
    event_loop.call_method(name, &[socket, protocol, waiter])
}

const CONNECT_ACCEPTED: Signature<5> = Signature {
    function: "connect_accepted_socket",
    names: ["protocol_factory", "sock", "ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout"],
    required: 2,
    positional: 2,
};

impl EventLoop {
    /// `await loop.connect_accepted_socket(protocol_factory, sock, *, ssl=None, …)`
    pub fn connect_accepted_socket(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = CONNECT_ACCEPTED.bind(arguments)?;
        let held = bound.map(|value| value.unwrap_or(none()).to_object());
        let event_loop = self.to_object();
        coroutine("connect_accepted_socket", async move {
            let [factory, socket, ssl, handshake_timeout, shutdown_timeout] = &held;
            if !socket_is(socket, &names().type_name, libc::SOCK_STREAM)? {
                return Err(refuse_socket(socket, "A Stream Socket"));
            }
            Security::check_timeouts(ssl.is_true()?, handshake_timeout, shutdown_timeout)?;
            check_no_ssl_socket(socket)?;
            let keywords = tuple(&[
                &names().server_side,
                &names().ssl_handshake_timeout,
                &names().ssl_shutdown_timeout,
            ])?;
            let (no_name, server_side) = (text("")?, boolean(true));
            let arguments: [&Any; 7] =
                [socket, factory, ssl, &no_name, &server_side, handshake_timeout, shutdown_timeout];
            let name = &names()._create_connection_transport;
            let connection = event_loop.call_method_keywords(name, &arguments, &keywords)?;
            let connection = wait_for(&connection).await?;
            if let [transport, protocol] = connection.tuple_items()
                && crate::event_loop::is_debug(&event_loop)?
            {
                let socket = transport.call_method1(&names().get_extra_info, &names().socket)?;
                let line = text("%r handled: (%r, %r)")?;
                imports().logger.call_method(&names().debug, &[&*line, &*socket, *transport, *protocol])?;
            }
            Ok(connection)
        })
    }
}

const CREATE_UNIX_CONNECTION: Signature<7> = Signature {
    function: "create_unix_connection",
    names: [
        "protocol_factory",
        "path",
        "ssl",
        "sock",
        "server_hostname",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
    ],
    required: 1,
    positional: 2,
};

impl EventLoop {
    /// `await loop.create_unix_connection(protocol_factory, path=None, *, ssl=None, sock=None, …)`
    pub fn create_unix_connection(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = CREATE_UNIX_CONNECTION.bind(arguments)?;
        let [factory, path, ssl, socket, server_hostname, handshake_timeout, shutdown_timeout] =
            bound.map(|value| value.unwrap_or(none()).to_object());
        let security = Security { ssl, server_hostname, handshake_timeout, shutdown_timeout };
        let event_loop = self.to_object();
        coroutine("create_unix_connection", async move {
            check_unix_security(&security)?;
            let socket = unix_stream(&event_loop, &path, &socket).await?;
            let connection = make_transport(&event_loop, &socket, &factory, &security)?;
            wait_for(&connection).await
        })
    }
}

/// Fails: AssertionError, ValueError, as asyncio.
fn check_unix_security(security: &Security) -> Result<()> {
    let Security { ssl, server_hostname, handshake_timeout, shutdown_timeout } = security;
    if !server_hostname.is_none() && !server_hostname.is_string() {
        return Err(Raised::empty(builtin(Builtin::AssertionError)));
    }
    if ssl.is_true()? {
        if server_hostname.is_none() {
            return Err(Raised::value_error("you have to pass server_hostname when using ssl"));
        }
        return Ok(());
    }
    if !server_hostname.is_none() {
        return Err(Raised::value_error("server_hostname is only meaningful with ssl"));
    }
    Security::check_timeouts(false, handshake_timeout, shutdown_timeout)
}

/// A socket connected to the path, or the one that was given.
async fn unix_stream(event_loop: &Any, path: &Any, given: &Any) -> Result<Object> {
    if path.is_none() {
        if given.is_none() {
            return Err(Raised::value_error("no path and sock were specified"));
        }
        check_unix_socket(given)?;
        given.call_method1(&names().setblocking, &boolean(false))?;
        return Ok(given.to_object());
    }
    if !given.is_none() {
        return Err(Raised::value_error("path and sock can not be specified at the same time"));
    }
    let path = unix_os()?.get_attribute_str(c"fspath")?.call1(path)?;
    let socket = ClosedUnlessKept::new(new_unix_socket()?);
    socket.object().call_method1(&names().setblocking, &boolean(false))?;
    let connecting = event_loop.call_method(&names().sock_connect, &[socket.object(), &*path])?;
    wait_for(&connecting).await?;
    Ok(socket.into_kept())
}

/// `socket.socket(AF_UNIX, SOCK_STREAM)`
pub(super) fn new_unix_socket() -> Result<Object> {
    let module = unix_socket()?;
    let (family, kind) = (module.get_attribute_str(c"AF_UNIX")?, module.get_attribute_str(c"SOCK_STREAM")?);
    module.call_method(&names().socket, &[&*family, &*kind])
}

/// Fails: ValueError for a socket of another kind.
pub(super) fn check_unix_socket(socket: &Any) -> Result<()> {
    let is_unix = socket_is(socket, &names().family, libc::AF_UNIX)?;
    if is_unix && socket_is(socket, &names().type_name, libc::SOCK_STREAM)? {
        return Ok(());
    }
    Err(refuse_socket(socket, "A UNIX Domain Stream Socket"))
}
