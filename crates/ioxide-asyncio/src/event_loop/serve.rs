//! `create_server` and `create_unix_server`: listening sockets and their end.
//!
//! Leaves to others: accepting (`accept`), the server object (`crate::servers`).

use super::EventLoop;
use super::attempt::{bind_error, five};
use super::connect::{Security, host_and_socket};
use super::modules::{base_socket, check_no_ssl_socket, refuse_socket, socket_is};
use super::owned::ClosedUnlessKept;
use crate::servers::Server;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for, yield_once};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{dict, integer, list_of, text, tuple};
use ioxide_cpython::version::rules;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, boolean, builtin, imports, names, none};

/// `asyncio`'s default backlog.
pub(super) const BACKLOG: i64 = 100;

/// What a server is made with, beside its sockets.
pub(super) struct Service {
    pub event_loop: Object,
    pub protocol_factory: Object,
    pub ssl: Object,
    pub backlog: Object,
    pub handshake_timeout: Object,
    pub shutdown_timeout: Object,
    pub start_serving: Object,
}

impl Service {
    /// Fails: TypeError, as asyncio.
    pub(super) fn check_ssl(&self) -> Result<()> {
        if self.ssl.get_type().is(boolean(true).get_type()) {
            return Err(Raised::type_error("ssl argument must be an SSLContext or None"));
        }
        Ok(())
    }

    /// The server of listening sockets, which are its own from here on.
    pub(super) async fn open(&self, sockets: Vec<ClosedUnlessKept>) -> Result<Object> {
        for socket in &sockets {
            socket.object().call_method1(&names().setblocking, &boolean(false))?;
        }
        let listed = list_of(sockets.iter().map(|socket| socket.object().to_object()))?;
        let server = Server::class().call(&[
            &*self.event_loop,
            &*listed,
            &*self.protocol_factory,
            &*self.ssl,
            &*self.backlog,
            &*self.handshake_timeout,
            &*self.shutdown_timeout,
        ])?;
        if self.start_serving.is_true()? {
            server.call_method0(&names()._start_serving)?;
            sockets.iter().for_each(ClosedUnlessKept::keep);
            // So that the loop has begun to accept.
            yield_once().await?;
        }
        sockets.iter().for_each(ClosedUnlessKept::keep);
        Ok(server)
    }
}

/// Where `create_server` is to listen.
struct Places {
    host: Object,
    port: Object,
    family: Object,
    flags: Object,
    socket: Object,
    options: SocketOptions,
}

struct SocketOptions {
    reuse_address: Object,
    reuse_port: Object,
    keep_alive: Object,
}

const CREATE_SERVER: Signature<14> = Signature {
    function: "create_server",
    names: [
        "protocol_factory",
        "host",
        "port",
        "family",
        "flags",
        "sock",
        "backlog",
        "ssl",
        "reuse_address",
        "reuse_port",
        "keep_alive",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
        "start_serving",
    ],
    required: 1,
    positional: 3,
};

impl EventLoop {
    /// `await loop.create_server(protocol_factory, host=None, port=None, *, family=AF_UNSPEC, …)`
    pub fn create_server(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = CREATE_SERVER.bind(arguments)?;
        let value = |index: usize| bound[index].unwrap_or(none()).to_object();
        let number = |index: usize, default: i64| match bound[index] {
            Some(value) => Ok(value.to_object()),
            None => integer(default),
        };
        let places = Places {
            host: value(1),
            port: value(2),
            family: number(3, i64::from(libc::AF_UNSPEC))?,
            flags: number(4, i64::from(libc::AI_PASSIVE))?,
            socket: value(5),
            options: SocketOptions { reuse_address: value(8), reuse_port: value(9), keep_alive: value(10) },
        };
        let service = Service {
            event_loop: self.to_object(),
            protocol_factory: value(0),
            ssl: value(7),
            backlog: number(6, BACKLOG)?,
            handshake_timeout: value(11),
            shutdown_timeout: value(12),
            start_serving: bound[13].map_or_else(|| boolean(true), Any::to_object),
        };
        coroutine("create_server", async move {
            service.check_ssl()?;
            let is_secure = !service.ssl.is_none();
            Security::check_timeouts(is_secure, &service.handshake_timeout, &service.shutdown_timeout)?;
            let sockets = places.listening_sockets(&service.event_loop).await?;
            let server = service.open(sockets).await?;
            if crate::event_loop::is_debug(&service.event_loop)? {
                imports().logger.call_method(&names().info, &[&*text("%r is serving")?, &*server])?;
            }
            Ok(server)
        })
    }

    /// `await loop._create_server_getaddrinfo(host, port, family, flags)`
    pub fn create_server_addresses(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<4> = Signature {
            function: "_create_server_getaddrinfo",
            names: ["host", "port", "family", "flags"],
            required: 4,
            positional: 4,
        };
        let held = SIGNATURE.bind(arguments)?.map(|value| value.unwrap_or(none()).to_object());
        let event_loop = self.to_object();
        coroutine("_create_server_getaddrinfo", async move {
            let [host, port, family, flags] = &held;
            let address = tuple(&[&**host, &**port])?;
            let kind = base_socket()?.get_attribute_str(c"SOCK_STREAM")?;
            let keywords =
                tuple(&[&names().family, &names().type_name, &names().flags, &names().event_loop])?;
            let arguments: [&Any; 5] = [&address, family, &kind, flags, &event_loop];
            let lookup = event_loop.call_method_keywords(&names()._ensure_resolved, &arguments, &keywords)?;
            let found = wait_for(&lookup).await?;
            if !found.is_true()? {
                let shown = host.repr()?.to_text()?;
                let message = format!("getaddrinfo({}) returned empty list", shown.as_str());
                return Err(Raised::new(builtin(Builtin::OSError), &message));
            }
            Ok(found)
        })
    }
}

impl Places {
    async fn listening_sockets(&self, event_loop: &Any) -> Result<Vec<ClosedUnlessKept>> {
        if !self.socket.is_none() {
            check_no_ssl_socket(&self.socket)?;
        }
        if !self.host.is_none() || !self.port.is_none() {
            if !self.socket.is_none() {
                return Err(host_and_socket());
            }
            let addresses = self.resolve(event_loop).await?;
            return self.bind_all(event_loop, &addresses);
        }
        if self.socket.is_none() {
            return Err(Raised::value_error("Neither host/port nor sock were specified"));
        }
        if !socket_is(&self.socket, &names().type_name, libc::SOCK_STREAM)? {
            return Err(refuse_socket(&self.socket, "A Stream Socket"));
        }
        let given = ClosedUnlessKept::new(self.socket.clone());
        given.keep();
        Ok(vec![given])
    }

    /// The hosts to listen on: one, or all of a sequence; None, all interfaces, for an empty text.
    fn hosts(&self) -> Result<Vec<Object>> {
        if self.host.is_string() {
            let is_empty = self.host.length()? == 0;
            return Ok(vec![if is_empty { ioxide_cpython::none_object() } else { self.host.clone() }]);
        }
        let iterable = import(c"collections.abc")?.get_attribute_str(c"Iterable")?;
        if !self.host.is_instance(&iterable)? {
            return Ok(vec![self.host.clone()]);
        }
        self.host.iterate()?.collect()
    }

    /// What the hosts resolve to, each address once.
    async fn resolve(&self, event_loop: &Any) -> Result<Vec<Object>> {
        let keywords = tuple(&[&names().family, &names().flags])?;
        let mut lookups = Vec::new();
        for host in self.hosts()? {
            let arguments: [&Any; 4] = [&host, &self.port, &self.family, &self.flags];
            let name = &names()._create_server_getaddrinfo;
            lookups.push(event_loop.call_method_keywords(name, &arguments, &keywords)?);
        }
        let found = match lookups.as_slice() {
            [only] => list_of([wait_for(only).await?])?,
            _ => {
                let gather = import(c"asyncio.tasks")?.get_attribute_str(c"gather")?;
                let lookups: Vec<&Any> = lookups.iter().map(|lookup| &**lookup).collect();
                wait_for(&*gather.call_slice(&lookups)?).await?
            }
        };
        let (seen, mut distinct) = (dict()?, Vec::new());
        for addresses in found.iterate()? {
            for address in addresses?.iterate()? {
                let address = address?;
                if seen.dict_get(&address)?.is_none() {
                    seen.dict_set(&address, none())?;
                    distinct.push(address);
                }
            }
        }
        Ok(distinct)
    }

    fn bind_all(&self, event_loop: &Any, addresses: &[Object]) -> Result<Vec<ClosedUnlessKept>> {
        let mut sockets = Vec::new();
        let mut tried = Vec::new();
        for address_info in addresses {
            let [family, kind, protocol, _, address] = five(address_info)?;
            tried.push(address.clone());
            let made = base_socket()?.call_method(&names().socket, &[&*family, &*kind, &*protocol]);
            let socket = match made {
                Ok(socket) => ClosedUnlessKept::new(socket),
                Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
                    // The machine has no such kind of socket.
                    log_missing_kind(event_loop, raised, [&*family, &*kind, &*protocol])?;
                    continue;
                }
                Err(raised) => return Err(raised),
            };
            self.options.set(socket.object(), &family)?;
            if bind(event_loop, socket.object(), &address)? {
                sockets.push(socket);
            }
        }
        if sockets.is_empty() && rules().skips_unavailable_addresses {
            let shown = list_of(tried)?.repr()?.to_text()?;
            let message = format!("could not bind on any address out of {}", shown.as_str());
            return Err(Raised::new(builtin(Builtin::OSError), &message));
        }
        Ok(sockets)
    }
}

impl SocketOptions {
    fn set(&self, socket: &Any, family: &Any) -> Result<()> {
        let module = base_socket()?;
        let set = |level: i32, option: i32| {
            let (level, option) = (integer(i64::from(level))?, integer(i64::from(option))?);
            socket.call_method(&names().setsockopt, &[&*level, &*option, &boolean(true)])
        };
        let is_family = |number: i32| family.equals(&*integer(i64::from(number))?);
        if self.reuse_address.is_none() || self.reuse_address.is_true()? {
            set(libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        }
        let is_internet = is_family(libc::AF_INET)? || is_family(libc::AF_INET6)?;
        if self.reuse_port.is_true()? && (is_internet || !rules().reuse_port_is_for_internet) {
            if module.get_attribute_optional(&*text("SO_REUSEPORT")?)?.is_none() {
                return Err(Raised::value_error("reuse_port not supported by socket module"));
            }
            if let Err(raised) = set(libc::SOL_SOCKET, libc::SO_REUSEPORT) {
                return Err(without_reuse_port(raised));
            }
        }
        if self.keep_alive.is_true()? {
            set(libc::SOL_SOCKET, libc::SO_KEEPALIVE)?;
        }
        if is_family(libc::AF_INET6)? {
            // The same port of IPv4 is a socket of its own.
            set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
        }
        Ok(())
    }
}

fn without_reuse_port(raised: Raised) -> Raised {
    if !raised.matches(builtin(Builtin::OSError)) {
        return raised;
    }
    drop(raised.take());
    Raised::value_error(
        "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented.",
    )
}

/// Whether the address could be bound; not, where this machine does not have it.
fn bind(event_loop: &Any, socket: &Any, address: &Any) -> Result<bool> {
    let Err(raised) = socket.call_method1(&names().bind, address) else { return Ok(true) };
    let (message, exception) = bind_error(raised, "error while attempting to bind on address ", address)?;
    let number = exception.get_attribute_str(c"errno")?;
    let is_unavailable = number.equals(&*integer(i64::from(libc::EADDRNOTAVAIL))?)?;
    if !is_unavailable || !rules().skips_unavailable_addresses {
        return Err(Raised::exception(exception));
    }
    if crate::event_loop::is_debug(event_loop)? {
        imports().logger.call_method1(&names().warning, &message)?;
    }
    Ok(false)
}

fn log_missing_kind(event_loop: &Any, raised: Raised, kind: [&Any; 3]) -> Result<()> {
    let error = raised.take();
    if !crate::event_loop::is_debug(event_loop)? {
        return Ok(());
    }
    let line = text("create_server() failed to create socket.socket(%r, %r, %r)")?;
    let keywords = tuple(&[&names().exc_info])?;
    let arguments: [&Any; 5] = [&line, kind[0], kind[1], kind[2], &error];
    imports().logger.call_method_keywords(&names().warning, &arguments, &keywords).map(drop)
}
