//! `create_datagram_endpoint`: a socket, bound and connected as asked for, its transport and its protocol.
//!
//! Leaves to others: the transport (`transports/datagram`), which owns the socket from its creation on; looking names up.
//!
//! Invariants:
//! G1. A socket that was created here is closed here, unless a protocol was asked for: then the transport has it.

use super::EventLoop;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::version::Code;
use ioxide_cpython::{
    Any, Builtin, Object, Once, Raised, Result, boolean, builtin, imports, names, none, none_object,
};

const SIGNATURE: Signature<9> = Signature {
    function: "create_datagram_endpoint",
    names: [
        "protocol_factory",
        "local_addr",
        "remote_addr",
        "family",
        "proto",
        "flags",
        "reuse_port",
        "allow_broadcast",
        "sock",
    ],
    required: 1,
    positional: 3,
};

/// What the sockets of other types hear: only streams are refused since 3.13, whatever is no datagram before.
const OLD_REFUSAL: &str = "A UDP Socket was expected, got ";
const REFUSAL: &str = "A datagram socket was expected, got ";

static REFUSES_STREAMS_ONLY: Once<bool> = Once::new();

/// Asks asyncio's own method.
pub(super) fn initialize() -> Result<()> {
    let class = import(c"asyncio.base_events")?.get_attribute_str(c"BaseEventLoop")?;
    let code = Code::of_method(&class, "create_datagram_endpoint")?;
    REFUSES_STREAMS_ONLY.set(code.text_beginning(OLD_REFUSAL)?.is_none());
    Ok(())
}

/// What the caller asked for, None for what it did not.
struct Request {
    event_loop: Object,
    factory: Object,
    local_address: Object,
    remote_address: Object,
    family: Object,
    protocol: Object,
    flags: Object,
    reuse_port: Object,
    allow_broadcast: Object,
    socket: Object,
}

/// A kind of socket, and the addresses it is bound and connected to, None for none.
struct Candidate {
    family: Object,
    protocol: Object,
    local_address: Object,
    remote_address: Object,
}

/// A socket and the address that the transport sends to.
struct Opened {
    socket: Object,
    remote_address: Object,
}

impl EventLoop {
    /// `await loop.create_datagram_endpoint(protocol_factory, local_addr=None, remote_addr=None, *, …)`
    pub fn create_datagram_endpoint(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = SIGNATURE.bind(arguments)?;
        let zero = integer(0)?;
        let [factory, local_address, remote_address, family, protocol, flags, reuse_port, broadcast, socket] =
            bound;
        let or_none = |value: Option<&Any>| value.unwrap_or(none()).to_object();
        let or_zero = |value: Option<&Any>| value.unwrap_or(&zero).to_object();
        let request = Request {
            event_loop: self.to_object(),
            factory: or_none(factory),
            local_address: or_none(local_address),
            remote_address: or_none(remote_address),
            family: or_zero(family),
            protocol: or_zero(protocol),
            flags: or_zero(flags),
            reuse_port: or_none(reuse_port),
            allow_broadcast: or_none(broadcast),
            socket: or_none(socket),
        };
        coroutine("create_datagram_endpoint", async move {
            let opened = match request.socket.is_none() {
                true => request.open().await?,
                false => request.take_socket()?,
            };
            request.connect(opened).await
        })
    }
}

impl Request {
    /// The caller's own socket. Fails: ValueError where it is of another type, or where it is to be changed.
    fn take_socket(&self) -> Result<Opened> {
        let kind = self.socket.get_attribute(&names().type_name)?.to_i64()?;
        let (is_wrong, refusal) = match *REFUSES_STREAMS_ONLY.get() {
            true => (kind == i64::from(libc::SOCK_STREAM), REFUSAL),
            false => (kind != i64::from(libc::SOCK_DGRAM), OLD_REFUSAL),
        };
        if is_wrong {
            let shown = self.socket.repr()?.to_text()?;
            return Err(Raised::value_error(&format!("{refusal}{}", shown.as_str())));
        }
        let mut problems = Vec::new();
        for (name, value) in [
            ("local_addr", &self.local_address),
            ("remote_addr", &self.remote_address),
            ("family", &self.family),
            ("proto", &self.protocol),
            ("flags", &self.flags),
            ("reuse_port", &self.reuse_port),
            ("allow_broadcast", &self.allow_broadcast),
        ] {
            if value.is_true()? {
                // As an f-string shows it.
                problems.push(format!(
                    "{name}={}",
                    import(c"builtins")?.get_attribute_str(c"format")?.call1(value)?.to_text()?.as_str()
                ));
            }
        }
        if !problems.is_empty() {
            return Err(Raised::value_error(&format!(
                "socket modifier keyword arguments can not be used when sock is specified. ({})",
                problems.join(", ")
            )));
        }
        self.socket.call_method1(&names().setblocking, &boolean(false))?;
        Ok(Opened { socket: self.socket.clone(), remote_address: none_object() })
    }

    /// The first candidate that can be bound and connected. Fails: with the first one's error.
    async fn open(&self) -> Result<Opened> {
        let mut first_error = None;
        for candidate in self.candidates().await? {
            match self.try_candidate(&candidate).await {
                Ok(opened) => return Ok(opened),
                Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
                    let error = raised.take();
                    first_error.get_or_insert(error);
                }
                Err(raised) => return Err(raised),
            }
        }
        match first_error {
            Some(error) => Err(Raised::exception(error)),
            None => Err(Raised::value_error("can not get address information")),
        }
    }

    async fn candidates(&self) -> Result<Vec<Candidate>> {
        let has_address = self.local_address.is_true()? || self.remote_address.is_true()?;
        let family = if self.family.is_integer() { self.family.to_i64()? } else { -1 };
        if has_address && family != i64::from(libc::AF_UNIX) {
            return self.resolve().await;
        }
        if !has_address && family == i64::from(libc::AF_UNSPEC) {
            return Err(Raised::value_error("unexpected address family"));
        }
        if has_address {
            self.prepare_unix_addresses()?;
        }
        let or_none = |address: &Object| if has_address { address.clone() } else { none_object() };
        Ok(vec![Candidate {
            family: self.family.clone(),
            protocol: self.protocol.clone(),
            local_address: or_none(&self.local_address),
            remote_address: or_none(&self.remote_address),
        }])
    }

    /// Fails: TypeError for addresses that are no strings.
    fn prepare_unix_addresses(&self) -> Result<()> {
        for address in [&self.local_address, &self.remote_address] {
            if !address.is_none() && !address.is_string() {
                return Err(Raised::type_error("string is expected"));
            }
        }
        let path = &self.local_address;
        if !path.is_true()? || path.get_item(&*integer(0)?)?.equals(&*text("\0")?)? {
            return Ok(());
        }
        match remove_stale_socket(path) {
            Ok(()) => Ok(()),
            Err(raised) if raised.matches(builtin(Builtin::FileNotFoundError)) => {
                drop(raised.take());
                Ok(())
            }
            Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
                // The directory may allow no more than to create a socket.
                let error = raised.take();
                let line = text("Unable to check or remove stale UNIX socket %r: %r")?;
                imports().logger.call_method(&names().error, &[&*line, path, &*error]).map(drop)
            }
            Err(raised) => Err(raised),
        }
    }

    /// The kinds of sockets for which every given address has a form.
    async fn resolve(&self) -> Result<Vec<Candidate>> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for (is_local, address) in [(true, &self.local_address), (false, &self.remote_address)] {
            if address.is_none() {
                continue;
            }
            if !address.is_tuple() || address.tuple_items().len() != 2 {
                return Err(Raised::type_error("2-tuple is expected"));
            }
            let found = self.look_up(address).await?;
            if !found.is_true()? {
                return Err(Raised::new(builtin(Builtin::OSError), "getaddrinfo() returned empty list"));
            }
            for info in found.iterate()? {
                note(&mut candidates, &*info?, is_local)?;
            }
        }
        let (needs_local, needs_remote) = (self.local_address.is_true()?, self.remote_address.is_true()?);
        candidates.retain(|candidate| {
            !(needs_local && candidate.local_address.is_none()
                || needs_remote && candidate.remote_address.is_none())
        });
        Ok(candidates)
    }

    async fn look_up(&self, address: &Any) -> Result<Object> {
        let keywords = tuple(&[
            &names().family,
            &names().type_name,
            &names().proto,
            &names().flags,
            &names().event_loop,
        ])?;
        let kind = import(c"socket")?.get_attribute_str(c"SOCK_DGRAM")?;
        let arguments = [address, &*self.family, &*kind, &*self.protocol, &*self.flags, &*self.event_loop];
        let lookup =
            self.event_loop.call_method_keywords(&names()._ensure_resolved, &arguments, &keywords)?;
        wait_for(&lookup).await
    }

    /// Fails: with what the kernel says, and with whatever ends the waiting; the socket is closed then (G1).
    async fn try_candidate(&self, candidate: &Candidate) -> Result<Opened> {
        let kind = import(c"socket")?.get_attribute_str(c"SOCK_DGRAM")?;
        let socket = imports().socket.call(&[&*candidate.family, &*kind, &*candidate.protocol])?;
        match self.bind_and_connect(&socket, candidate).await {
            Ok(remote_address) => Ok(Opened { socket, remote_address }),
            Err(raised) => {
                let exception = raised.take();
                socket.call_method0(&names().close)?;
                Err(Raised::exception(exception))
            }
        }
    }

    async fn bind_and_connect(&self, socket: &Any, candidate: &Candidate) -> Result<Object> {
        if self.reuse_port.is_true()? {
            set_reuse_port(socket)?;
        }
        let allows_broadcast = self.allow_broadcast.is_true()?;
        if allows_broadcast {
            set_socket_option(socket, libc::SO_BROADCAST)?;
        }
        socket.call_method1(&names().setblocking, &boolean(false))?;
        if self.local_address.is_true()? {
            socket.call_method1(&names().bind, &candidate.local_address)?;
        }
        if !self.remote_address.is_true()? {
            return Ok(none_object());
        }
        // A socket that is connected to a broadcast address hears nobody.
        if !allows_broadcast {
            let arguments = [socket, &*candidate.remote_address];
            let connecting = self.event_loop.call_method(&names().sock_connect, &arguments)?;
            wait_for(&connecting).await?;
        }
        Ok(candidate.remote_address.clone())
    }

    /// The transport and the protocol, when connection_made has been called.
    async fn connect(&self, opened: Opened) -> Result<Object> {
        let protocol = self.factory.call0()?;
        let waiter = self.event_loop.call_method0(&names().create_future)?;
        let arguments = [&*opened.socket, &*protocol, &*opened.remote_address, &*waiter];
        let transport = self.event_loop.call_method(&names()._make_datagram_transport, &arguments)?;
        if super::is_debug(&self.event_loop)? {
            self.log_created(&transport, &protocol)?;
        }
        if let Err(raised) = wait_for(&waiter).await {
            let exception = raised.take();
            transport.call_method0(&names().close)?;
            return Err(Raised::exception(exception));
        }
        tuple(&[&*transport, &*protocol])
    }

    /// asyncio's line for debug mode.
    fn log_created(&self, transport: &Any, protocol: &Any) -> Result<()> {
        let logger = &imports().logger;
        if self.local_address.is_true()? {
            let line = text("Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)")?;
            let arguments = [&*line, &*self.local_address, &*self.remote_address, transport, protocol];
            return logger.call_method(&names().info, &arguments).map(drop);
        }
        let line = text("Datagram endpoint remote_addr=%r created: (%r, %r)")?;
        logger.call_method(&names().debug, &[&*line, &*self.remote_address, transport, protocol]).map(drop)
    }
}

/// One line of what `getaddrinfo` says goes to the candidate of its family and protocol.
fn note(candidates: &mut Vec<Candidate>, info: &Any, is_local: bool) -> Result<()> {
    let [family, _, protocol, _, address] = info.tuple_items() else {
        return Err(Raised::value_error("getaddrinfo() must return tuples of five"));
    };
    let mut place = candidates.len();
    for (index, candidate) in candidates.iter().enumerate() {
        if candidate.family.equals(family)? && candidate.protocol.equals(protocol)? {
            place = index;
        }
    }
    if place == candidates.len() {
        candidates.push(Candidate {
            family: family.to_object(),
            protocol: protocol.to_object(),
            local_address: none_object(),
            remote_address: none_object(),
        });
    }
    match is_local {
        true => candidates[place].local_address = address.to_object(),
        false => candidates[place].remote_address = address.to_object(),
    }
    Ok(())
}

/// Fails: OSError.
fn remove_stale_socket(path: &Any) -> Result<()> {
    let os = import(c"os")?;
    let mode = os.get_attribute_str(c"stat")?.call1(path)?.get_attribute_str(c"st_mode")?.to_i64()?;
    if mode & i64::from(libc::S_IFMT) == i64::from(libc::S_IFSOCK) {
        os.get_attribute_str(c"remove")?.call1(path)?;
    }
    Ok(())
}

fn set_socket_option(socket: &Any, option: i32) -> Result<()> {
    let arguments = [&*integer(i64::from(libc::SOL_SOCKET))?, &*integer(i64::from(option))?, &*integer(1)?];
    socket.call_method(&names().setsockopt, &arguments).map(drop)
}

/// Fails: ValueError where the kernel cannot.
fn set_reuse_port(socket: &Any) -> Result<()> {
    match set_socket_option(socket, libc::SO_REUSEPORT) {
        Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
            drop(raised.take());
            Err(Raised::value_error(
                "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented.",
            ))
        }
        outcome => outcome,
    }
}
