//! `_ensure_resolved`: the addresses behind a host and a port. Literal addresses are answered here, names are asked of
//! `loop.getaddrinfo`, which somebody may have overridden.

use super::EventLoop;
use super::modules::base_socket;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, list_of, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, builtin, names, none};
use ioxide_io::{LiteralAddress, parse_literal};

const ENSURE_RESOLVED: Signature<6> = Signature {
    function: "_ensure_resolved",
    names: ["address", "family", "type", "proto", "flags", "loop"],
    required: 1,
    positional: 1,
};

/// What a look-up is about, beside host and port.
struct Kind {
    family: Object,
    kind: Object,
    protocol: Object,
    flags: Object,
}

impl EventLoop {
    /// `await loop._ensure_resolved(address, *, family=0, type=SOCK_STREAM, proto=0, flags=0, loop)`
    pub fn ensure_resolved(&self, arguments: Arguments<'_>) -> Result<Object> {
        let [address, family, kind, protocol, flags, event_loop] = ENSURE_RESOLVED.bind(arguments)?;
        let zero = integer(0)?;
        let asked = Kind {
            family: family.unwrap_or(&zero).to_object(),
            kind: match kind {
                Some(kind) => kind.to_object(),
                None => base_socket()?.get_attribute_str(c"SOCK_STREAM")?,
            },
            protocol: protocol.unwrap_or(&zero).to_object(),
            flags: flags.unwrap_or(&zero).to_object(),
        };
        let address = address.unwrap_or(none()).to_object();
        let event_loop = event_loop.unwrap_or(self).to_object();
        coroutine("_ensure_resolved", async move {
            let parts = unpacked(&address)?;
            let [host, port, rest @ ..] = parts.tuple_items() else {
                let count = parts.tuple_items().len();
                return Err(Raised::value_error(&format!(
                    "not enough values to unpack (expected 2, got {count})"
                )));
            };
            if let Some(found) = literal(host, port, rest, &asked)? {
                return list_of([found]);
            }
            let keywords = [&*names().family, &*names().type_name, &*names().proto, &*names().flags];
            let Kind { family, kind, protocol, flags } = &asked;
            let arguments: [&Any; 6] = [host, port, family, kind, protocol, flags];
            let lookup =
                event_loop.call_method_keywords(&names().getaddrinfo, &arguments, &*tuple(&keywords)?)?;
            wait_for(&lookup).await
        })
    }
}

/// The address as a tuple: anything that can be sliced will do.
fn unpacked(address: &Any) -> Result<Object> {
    if address.is_tuple() {
        return Ok(address.to_object());
    }
    let builtins = import(c"builtins")?;
    let whole = builtins.get_attribute_str(c"slice")?.call1(none())?;
    builtins.get_attribute_str(c"tuple")?.call1(&*address.get_item(&whole)?)
}

/// What `getaddrinfo` would say of a literal address with a numeric port, as asyncio's `_ipaddr_info` does; `None`
/// where it has to be asked.
fn literal(host: &Any, port: &Any, rest: &[&Any], asked: &Kind) -> Result<Option<Object>> {
    let socket = base_socket()?;
    let is_internet =
        [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(i64::from).contains(&number(&asked.protocol)?);
    if !is_internet || host.is_none() || socket.get_attribute_optional(&*text("inet_pton")?)?.is_none() {
        return Ok(None);
    }
    let protocol = match i32::try_from(number(&asked.kind)?) {
        Ok(libc::SOCK_STREAM) => libc::IPPROTO_TCP,
        Ok(libc::SOCK_DGRAM) => libc::IPPROTO_UDP,
        _ => return Ok(None),
    };
    let Some(port) = numeric_port(port)? else { return Ok(None) };
    let host = if host.is_bytes() {
        host.call_method1(&*text("decode")?, &*text("idna")?)?
    } else {
        host.to_object()
    };
    // Raises what asyncio raises for a host that is no text.
    if import(c"operator")?.get_attribute_str(c"contains")?.call(&[&*host, &*text("%")?])?.is_true()? {
        return Ok(None);
    }
    let literal = host.to_text()?;
    let found = match parse_literal(literal.as_str().as_bytes()) {
        Some(LiteralAddress::Ipv4(_)) => (libc::AF_INET, c"AF_INET"),
        Some(LiteralAddress::Ipv6 { .. }) => (libc::AF_INET6, c"AF_INET6"),
        None => return Ok(None),
    };
    let family = match number(&asked.family)? {
        0 => socket.get_attribute_str(found.1)?,
        family if family == i64::from(found.0) => asked.family.clone(),
        _ => return Ok(None),
    };
    let zero = integer(0)?;
    let address = if found.0 == libc::AF_INET6 {
        let (flow_info, scope_id) = (rest.first().copied(), rest.get(1).copied());
        tuple(&[&*host, &*port, flow_info.unwrap_or(&zero), scope_id.unwrap_or(&zero)])?
    } else {
        tuple(&[&*host, &*port])?
    };
    let protocol = integer(i64::from(protocol))?;
    tuple(&[&*family, &*asked.kind, &*protocol, &*text("")?, &*address]).map(Some)
}

/// A number that need not be one: -1 is none of those that are asked for.
fn number(value: &Any) -> Result<i64> {
    if value.is_integer() { value.to_i64() } else { Ok(-1) }
}

/// The port as a number; `None` for the name of a service.
fn numeric_port(port: &Any) -> Result<Option<Object>> {
    let is_empty = port.is_none()
        || port.bytes().is_some_and(<[u8]>::is_empty)
        || (port.is_string() && port.length()? == 0);
    if is_empty {
        return integer(0).map(Some);
    }
    if port.is_exact_integer() {
        return Ok(Some(port.to_object()));
    }
    match import(c"builtins")?.get_attribute_str(c"int")?.call1(port) {
        Ok(port) => Ok(Some(port)),
        Err(raised)
            if raised.matches(builtin(Builtin::TypeError))
                || raised.matches(builtin(Builtin::ValueError)) =>
        {
            drop(raised.take());
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

/// Addresses of the families in turn, as `interleave` of create_connection wants them: `first` of the first family
/// before the first of the second.
pub fn interleaved(found: &Any, first: i64) -> Result<Object> {
    let mut families: Vec<(Object, std::collections::VecDeque<Object>)> = Vec::new();
    for address in found.iterate()? {
        let address = address?;
        let family = address.get_item(&*integer(0)?)?;
        let mut place = None;
        for (index, (known, _)) in families.iter().enumerate() {
            if known.equals(&family)? {
                place = Some(index);
                break;
            }
        }
        match place {
            Some(index) => families[index].1.push_back(address),
            None => families.push((family, [address].into())),
        }
    }
    let mut ordered = Vec::new();
    if let Some((_, addresses)) = families.first_mut() {
        let count = usize::try_from(first - 1).unwrap_or(0).min(addresses.len());
        ordered.extend(addresses.drain(..count));
    }
    while families.iter().any(|(_, addresses)| !addresses.is_empty()) {
        ordered.extend(families.iter_mut().filter_map(|(_, addresses)| addresses.pop_front()));
    }
    list_of(ordered)
}
