//! Accepting connections: the watcher of a listening socket takes all that wait, up to its backlog and one more, and
//! makes their transports itself. Only the protocol factory is Python.
//!
//! Leaves to others: sockets and servers (`serve`, `crate::servers`), the transports.
//!
//! Invariants:
//! A1. A listener accepts from the descriptor that its socket object has at the time, and asks before each time.
//! A2. An accepted descriptor belongs to its socket object from the first moment; where no transport comes to own
//!     the socket it is closed.
//! A3. Each connection begins in a copy of the context in which the socket began to serve.

use super::owned::ClosedUnlessKept;
use super::secure::{self, SecureParts};
use super::{Direction, EventLoop, Watcher};
use crate::addresses;
use crate::servers::Server;
use crate::transports::{Parts, open_transport};
use ioxide_cpython::call::import;
use ioxide_cpython::context::{copy, copy_current, with_context};
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::exception::{os_error, raise_os_error};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::types::{Class, Native, NativeClass, allocate, head};
use ioxide_cpython::value::{dict, integer, text, tuple};
use ioxide_cpython::version::CONNECTIONS_HAVE_CONTEXT;
use ioxide_cpython::{
    Any, Builtin, Object, Once, Raised, Result, Slot, boolean, builtin, imports, names, none, none_object,
};
use ioxide_io::{SocketAddress, SocketRef};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// A listening socket with all that its connections are made of.
#[repr(C)]
pub struct Listener {
    head: Any,
    protocol_factory: Slot,
    socket: Slot,
    ssl_context: Slot,
    server: Slot,
    handshake_timeout: Slot,
    shutdown_timeout: Slot,
    /// See A3.
    context: Slot,
    /// `_start_serving`'s own arguments, for when accepting has to pause.
    arguments: Slot,
    /// Family, type and protocol of the socket, as numbers.
    kind: Slot,
    backlog: Cell<usize>,
    /// Whether the socket's `accept` is the socket module's own.
    accepts_natively: bool,
    has_own_context: bool,
}

static LISTENER: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Listener {
    fn class() -> &'static Once<Class> {
        &LISTENER
    }
}

pub(super) fn initialize() -> Result<()> {
    LISTENER.set(NativeClass::core::<Listener>(c"ioxide.Listener")?);
    Ok(())
}

const START_SERVING: Signature<8> = Signature {
    function: "_start_serving",
    names: [
        "protocol_factory",
        "sock",
        "sslcontext",
        "server",
        "backlog",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
        if CONNECTIONS_HAVE_CONTEXT { "context" } else { "" },
    ],
    required: 2,
    positional: 7 + CONNECTIONS_HAVE_CONTEXT as usize,
};

/// What one attempt to accept came to.
enum Accepted {
    Connection { socket: Object, peer: Peer },
    Nobody,
    GoneAlready,
    Failed(Object),
}

/// Who has connected.
enum Peer {
    Native(SocketAddress),
    /// As the `accept` of a socket class of its own says it.
    Python(Object),
}

impl Peer {
    fn to_python(&self) -> Result<Object> {
        match self {
            Peer::Native(address) => addresses::to_python(address),
            Peer::Python(address) => Ok(address.clone()),
        }
    }

    fn to_extra(&self) -> Result<Object> {
        let extra = dict()?;
        extra.dict_set(&names().peername, &*self.to_python()?)?;
        Ok(extra)
    }
}

impl EventLoop {
    /// `loop._start_serving(protocol_factory, sock, sslcontext=None, server=None, backlog=100, …)`
    pub fn start_serving(&self, arguments: Arguments<'_>) -> Result<()> {
        let bound = START_SERVING.bind(arguments)?;
        let [factory, socket, ssl_context, server, backlog, handshake_timeout, shutdown_timeout, context] =
            bound.map(|value| value.unwrap_or(none()));
        // Accepting was paused, and the server has been closed meanwhile.
        if Server::from_any(server).is_some_and(Server::is_closed) {
            return Ok(());
        }
        self.check_closed()?;
        let given: Vec<&Any> = bound.iter().copied().map_while(|value| value).collect();
        let fd = super::watch::descriptor_of(&*socket.call_method0(&names().fileno)?)?;
        let backlog = if backlog.is_none() { 100 } else { backlog.to_i64()? };
        let number = |name: &Any| socket.get_attribute(name)?.to_i64();
        let kind = [number(&names().family)?, number(&names().type_name)?, number(&names().proto)?];
        let accept = socket.get_type().get_attribute(&names().accept)?;
        let listener = allocate(Listener {
            head: head(),
            protocol_factory: Slot::filled(factory.to_object()),
            socket: Slot::filled(socket.to_object()),
            ssl_context: Slot::filled(ssl_context.to_object()),
            server: Slot::filled(server.to_object()),
            handshake_timeout: Slot::filled(handshake_timeout.to_object()),
            shutdown_timeout: Slot::filled(shutdown_timeout.to_object()),
            context: Slot::filled(if context.is_none() { copy_current()? } else { context.to_object() }),
            arguments: Slot::filled(tuple(&given)?),
            kind: Slot::filled(tuple(&[&*integer(kind[0])?, &*integer(kind[1])?, &*integer(kind[2])?])?),
            backlog: Cell::new(usize::try_from(backlog).unwrap_or(0)),
            accepts_natively: accept.is(&*imports().socket.get_attribute(&names().accept)?),
            has_own_context: !context.is_none(),
        })?;
        let previous = self.watch(fd, Direction::Read, Watcher::Listener(listener))?;
        super::watch::cancel_watcher(previous)
    }

    /// A listening socket is ready. Fails: KeyboardInterrupt, SystemExit.
    pub(super) fn accept_ready(&self, listener: &Any) -> Result<()> {
        let Some(listener) = Listener::from_exact(listener) else { return Ok(()) };
        let outcome = self.accept_waiting(listener);
        match outcome {
            Err(raised) if !raised.leaves_the_loop() => self.report_accept_error(&raised.take()),
            outcome => outcome,
        }
    }

    fn accept_waiting(&self, listener: &Listener) -> Result<()> {
        let Some(socket) = listener.socket.get_object() else { return Ok(()) };
        for _ in 0..=listener.backlog.get() {
            let fd = socket.call_method0(&names().fileno)?.to_i32()?;
            if fd < 0 {
                return Ok(());
            }
            let accepted = match listener.accepts_natively {
                true => listener.accept(SocketRef::new(fd))?,
                false => accept_in_python(&socket)?,
            };
            match accepted {
                Accepted::Connection { socket, peer } => self.on_accepted(listener, &socket, &peer)?,
                Accepted::GoneAlready => {}
                Accepted::Nobody => return Ok(()),
                Accepted::Failed(error) => return self.on_accept_failed(listener, &socket, error),
            }
        }
        Ok(())
    }

    /// A connection was accepted.
    fn on_accepted(&self, listener: &Listener, socket: &Any, peer: &Peer) -> Result<()> {
        let connection = ClosedUnlessKept::new(socket.to_object());
        let server = listener.server.get_or_none();
        if self.is_debug() {
            let line = text("%r got a new connection from %r: %r")?;
            imports().logger.call_method(&names().debug, &[&*line, &*server, &*peer.to_python()?, socket])?;
        }
        let context = copy(&listener.context.get_or_none())?;
        let ssl_context = listener.ssl_context.get_or_none();
        if ssl_context.is_true()? || self.overrides().make_socket_transport {
            let own_context = listener.has_own_context.then(|| context.clone());
            let extra = peer.to_extra()?;
            let setup =
                Setup { event_loop: self.to_object(), connection, extra, own_context }.run(listener)?;
            return with_context(&context, || self.create_setup_task(listener, &setup, &context));
        }
        let (peer_name, extra) = match peer {
            Peer::Native(address) => (Some(address), None),
            Peer::Python(_) => (None, Some(peer.to_extra()?)),
        };
        let mut protocol = none_object();
        let outcome = with_context(&context, || {
            protocol = listener.protocol_factory.get_or_none().call0()?;
            let parts = Parts {
                socket,
                protocol: &protocol,
                waiter: None,
                extra: extra.as_deref(),
                peer_name,
                server: Some(&*server).filter(|server| !server.is_none()),
                context: Some(&*context).filter(|_| listener.has_own_context),
            };
            open_transport(self, &parts)
        });
        match outcome {
            Ok(_transport) => {
                connection.keep();
                Ok(())
            }
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => self.report_setup_error(&raised.take(), &protocol, none()),
        }
    }

    fn create_setup_task(&self, listener: &Listener, setup: &Any, context: &Any) -> Result<()> {
        if listener.has_own_context {
            let arguments = [setup, context];
            return self
                .call_method_keywords(&names().create_task, &arguments, &imports().names_context)
                .map(drop);
        }
        self.call_method1(&names().create_task, setup).map(drop)
    }

    /// `accept` failed. Where the process or the machine is out of something, accepting pauses for a second: the
    /// connection keeps waiting, and the kernel would go on reporting it.
    fn on_accept_failed(&self, listener: &Listener, socket: &Any, error: Object) -> Result<()> {
        let number = error.get_attribute_str(c"errno")?;
        let is_shortage = number.is_integer()
            && matches!(
                i32::try_from(number.to_i64()?),
                Ok(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
            );
        if !is_shortage {
            return Err(Raised::exception(error));
        }
        let report = dict()?;
        report.dict_set(&names().message, &*text("socket.accept() out of system resource")?)?;
        report.dict_set(&names().exception, &error)?;
        report.dict_set(&names().socket, &*imports().TransportSocket.call1(socket)?)?;
        self.call_method1(&names().call_exception_handler, &report)?;
        self.remove_reader_unchecked(&*socket.call_method0(&names().fileno)?)?;
        let delay = import(c"asyncio.constants")?.get_attribute_str(c"ACCEPT_RETRY_DELAY")?;
        let resume = self.get_attribute(&names()._start_serving)?;
        let arguments = listener.arguments.get_or_none();
        let mut all: Vec<&Any> = vec![&delay, &resume];
        all.extend_from_slice(arguments.tuple_items());
        let context = listener.context.get_or_none();
        with_context(&*copy(&context)?, || self.call_method(&names().call_later, &all).map(drop))
    }

    /// As a handle would report what left `_accept_connection`.
    fn report_accept_error(&self, exception: &Any) -> Result<()> {
        let name = ioxide_cpython::exception::type_name(self);
        let report = dict()?;
        let message = text(&format!("Exception in callback {name}._accept_connection()"))?;
        report.dict_set(&names().message, &message)?;
        report.dict_set(&names().exception, exception)?;
        self.call_method1(&names().call_exception_handler, &report).map(drop)
    }

    /// A connection could not be set up: its own affair, told in debug mode only.
    fn report_setup_error(&self, exception: &Any, protocol: &Any, transport: &Any) -> Result<()> {
        if !self.is_debug() {
            return Ok(());
        }
        let report = dict()?;
        let message = text("Error on transport creation for incoming connection")?;
        report.dict_set(&names().message, &message)?;
        report.dict_set(&names().exception, exception)?;
        if !protocol.is_none() {
            report.dict_set(&names().protocol, protocol)?;
        }
        if !transport.is_none() {
            report.dict_set(&names().transport, transport)?;
        }
        self.call_method1(&names().call_exception_handler, &report).map(drop)
    }
}

/// A connection whose transport takes time (TLS), or is made by Python: asyncio's `_accept_connection2`.
struct Setup {
    event_loop: Object,
    connection: ClosedUnlessKept,
    extra: Object,
    own_context: Option<Object>,
}

impl Setup {
    fn run(self, listener: &Listener) -> Result<Object> {
        let factory = listener.protocol_factory.get_or_none();
        let (ssl_context, server) = (listener.ssl_context.get_or_none(), listener.server.get_or_none());
        let handshake_timeout = listener.handshake_timeout.get_or_none();
        let shutdown_timeout = listener.shutdown_timeout.get_or_none();
        coroutine("_accept_connection2", async move {
            let Setup { event_loop, connection, extra, own_context } = self;
            let Some(event_loop) = EventLoop::from_any(&event_loop) else { return Ok(none_object()) };
            let (mut protocol, mut transport) = (none_object(), none_object());
            let socket = connection.object().to_object();
            let context = own_context.unwrap_or_else(none_object);
            let mut begin = || -> Result<Object> {
                protocol = factory.call0()?;
                let waiter = event_loop.call_method0(&names().create_future)?;
                transport = if ssl_context.is_true()? {
                    let parts = SecureParts {
                        socket: &socket,
                        protocol: &protocol,
                        ssl_context: &ssl_context,
                        waiter: &waiter,
                        server_side: true,
                        server_hostname: None,
                        extra: Some(&extra),
                        server: Some(&server),
                        handshake_timeout: &handshake_timeout,
                        shutdown_timeout: &shutdown_timeout,
                        context: &context,
                    };
                    secure::make_ssl_transport(event_loop, &parts)?
                } else {
                    make_overridden(event_loop, &socket, &protocol, &waiter, &extra, &server, &context)?
                };
                Ok(waiter)
            };
            let outcome = match begin() {
                Ok(waiter) => {
                    connection.keep();
                    let opened = ClosedUnlessKept::new(transport.clone());
                    let outcome = wait_for(&waiter).await;
                    if outcome.is_ok() {
                        opened.keep();
                    }
                    outcome
                }
                Err(raised) => Err(raised),
            };
            match outcome {
                Err(raised) if raised.leaves_the_loop() => Err(raised),
                Err(raised) => {
                    let exception = raised.take();
                    event_loop.report_setup_error(&exception, &protocol, &transport).map(|()| none_object())
                }
                Ok(_) => Ok(none_object()),
            }
        })
    }
}

/// `loop._make_socket_transport(…)` where somebody has overridden it.
fn make_overridden(
    event_loop: &EventLoop,
    socket: &Any,
    protocol: &Any,
    waiter: &Any,
    extra: &Any,
    server: &Any,
    context: &Any,
) -> Result<Object> {
    let mut keywords: Vec<&Any> = vec![&names().waiter, &names().extra, &names().server];
    let mut arguments = vec![socket, protocol, waiter, extra, server];
    if !context.is_none() {
        keywords.push(&names().context);
        arguments.push(context);
    }
    event_loop.call_method_keywords(&names()._make_socket_transport, &arguments, &*tuple(&keywords)?)
}

impl Listener {
    fn accept(&self, socket: SocketRef) -> Result<Accepted> {
        match socket.accept() {
            Ok((descriptor, address)) => {
                Ok(Accepted::Connection { socket: self.socket_of(descriptor)?, peer: Peer::Native(address) })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Accepted::Nobody),
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(Accepted::GoneAlready),
            Err(error) => os_error(&error).map(Accepted::Failed),
        }
    }

    /// A non-blocking socket object that owns the descriptor (A2).
    fn socket_of(&self, accepted: OwnedFd) -> Result<Object> {
        let kind = self.kind.get_or_none();
        let [family, kind, protocol] = kind.tuple_items() else {
            return Err(raise_os_error(&io::Error::from_raw_os_error(libc::EBADF)));
        };
        let number = integer(i64::from(accepted.as_raw_fd()))?;
        let socket = imports().socket.call(&[*family, *kind, *protocol, &*number])?;
        // The socket object owns the descriptor from here on.
        let _ = accepted.into_raw_fd();
        socket.call_method1(&names().setblocking, &boolean(false))?;
        Ok(socket)
    }

    fn slots(&self) -> [&Slot; 9] {
        [
            &self.protocol_factory,
            &self.socket,
            &self.ssl_context,
            &self.server,
            &self.handshake_timeout,
            &self.shutdown_timeout,
            &self.context,
            &self.arguments,
            &self.kind,
        ]
    }
}

/// `sock.accept()` of a socket class with an `accept` of its own.
fn accept_in_python(socket: &Any) -> Result<Accepted> {
    match socket.call_method0(&names().accept) {
        Ok(accepted) => match accepted.tuple_items() {
            [connection, address] => {
                connection.call_method1(&names().setblocking, &boolean(false))?;
                Ok(Accepted::Connection {
                    socket: connection.to_object(),
                    peer: Peer::Python(address.to_object()),
                })
            }
            _ => Err(Raised::type_error("accept() must return a socket and an address")),
        },
        Err(raised) => {
            for (class, accepted) in [
                (Builtin::BlockingIOError, Accepted::Nobody),
                (Builtin::InterruptedError, Accepted::Nobody),
                (Builtin::ConnectionAbortedError, Accepted::GoneAlready),
            ] {
                if raised.matches(builtin(class)) {
                    drop(raised.take());
                    return Ok(accepted);
                }
            }
            if raised.matches(builtin(Builtin::OSError)) {
                return Ok(Accepted::Failed(raised.take()));
            }
            Err(raised)
        }
    }
}

impl Traverse for Listener {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
    }
}
