//! Socket addresses: Python's tuples and strings on one side, the kernel's structs on the other.

use ioxide_cpython::buffer::Buffer;
use ioxide_cpython::call::import;
use ioxide_cpython::value::{bytes, file_system_text, integer, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, builtin, names, none, none_object};
use ioxide_io::{AddressKind, LiteralAddress, SocketAddress, parse_literal};
use std::io;
use std::net::Ipv6Addr;

/// An address as Python's socket module shows it.
pub fn to_python(address: &SocketAddress) -> Result<Object> {
    match address.kind() {
        AddressKind::Absent => Ok(none_object()),
        AddressKind::Ipv4 { address, port } => {
            tuple(&[&*text(&address.to_string())?, &*integer(i64::from(port))?])
        }
        AddressKind::Ipv6 { address, port, flow_info, scope_id } => tuple(&[
            &*text(&shown_ipv6(address))?,
            &*integer(i64::from(port))?,
            &*integer(i64::from(flow_info))?,
            &*integer(i64::from(scope_id))?,
        ]),
        AddressKind::UnixUnnamed => text(""),
        AddressKind::UnixPath(path) => file_system_text(path),
        AddressKind::UnixAbstract(name) => bytes(name),
        AddressKind::Other { family, data } => tuple(&[&*integer(i64::from(family))?, &*bytes(data)?]),
    }
}

/// As `inet_ntop` shows it: an IPv4 address in the last four bytes with dots, also without `ffff` before it. The scope has a
/// number of its own in Python's tuple.
fn shown_ipv6(address: Ipv6Addr) -> String {
    match (address.segments(), address.octets()) {
        ([0, 0, 0, 0, 0, 0, high, _], [.., a, b, c, d]) if high != 0 => format!("::{a}.{b}.{c}.{d}"),
        _ => address.to_string(),
    }
}

/// The kernel's form of an address for a socket; `None` where a name has to be resolved first.
/// Fails: TypeError, OverflowError, OSError for addresses that are none.
pub fn from_python(socket: &Any, address: &Any) -> Result<Option<SocketAddress>> {
    let family = socket.get_attribute(&names().family)?.to_i32()?;
    match family {
        libc::AF_INET | libc::AF_INET6 => internet_address(family, address),
        libc::AF_UNIX => unix_address(address).map(Some),
        _ => Err(Raised::new(builtin(Builtin::OSError), "unsupported address family")),
    }
}

/// The kernel's form of an address that is written out in full, of a kind nobody has overridden anything of; `None` for
/// all others, which the socket module reads. Fails never, runs no Python.
pub fn literal(family: i32, address: &Any) -> Option<SocketAddress> {
    if !matches!(family, libc::AF_INET | libc::AF_INET6) || !address.is_tuple() {
        return None;
    }
    let number = |value: &Any| value.is_exact_integer().then(|| quietly(value.to_i64())).flatten();
    let (host, port, rest) = match *address.tuple_items() {
        [host, port] => (host, port, None),
        [host, port, flow_info, scope_id] if family == libc::AF_INET6 => {
            (host, port, Some((number(flow_info)?, number(scope_id)?)))
        }
        _ => return None,
    };
    let port = u16::try_from(number(port)?).ok()?;
    let host = if host.is_string() { quietly(host.to_text())? } else { return None };
    match (family, parse_literal(host.as_str().as_bytes())?) {
        (libc::AF_INET, LiteralAddress::Ipv4(address)) => Some(SocketAddress::ipv4(address, port)),
        (libc::AF_INET6, LiteralAddress::Ipv6 { address, zone: None }) => {
            let (flow_info, scope_id) = rest.unwrap_or((0, 0));
            // The socket module refuses a flow label of more than 20 bits.
            let flow_info = u32::try_from(flow_info).ok().filter(|flow_info| *flow_info <= 0xf_ffff)?;
            Some(SocketAddress::ipv6(address, port, flow_info, u32::try_from(scope_id).ok()?))
        }
        _ => None,
    }
}

fn quietly<T>(outcome: Result<T>) -> Option<T> {
    outcome.map_err(|raised| drop(raised.take())).ok()
}

fn internet_address(family: i32, address: &Any) -> Result<Option<SocketAddress>> {
    // asyncio unpacks `address[:2]`, so that a list will do.
    let sliced = match address.is_tuple() {
        true => address.to_object(),
        false => {
            let whole = import(c"builtins")?.get_attribute_str(c"slice")?.call1(none())?;
            import(c"builtins")?.get_attribute_str(c"tuple")?.call1(&*address.get_item(&whole)?)?
        }
    };
    let [host, port, rest @ ..] = sliced.tuple_items() else {
        let count = sliced.tuple_items().len();
        return Err(Raised::value_error(&format!("not enough values to unpack (expected 2, got {count})")));
    };
    if !port.is_integer() {
        return Ok(None);
    }
    let port = u16::try_from(port.to_i64()?)
        .map_err(|_| Raised::new(builtin(Builtin::OverflowError), "connect(): port must be 0-65535."))?;
    let number = |index: usize| -> Result<u32> {
        let value = rest.get(index).map_or(Ok(0), |value: &&Any| value.to_i64())?;
        u32::try_from(value)
            .map_err(|_| Raised::new(builtin(Builtin::OverflowError), "address field out of range"))
    };
    let (flow_info, scope_id) = (number(0)?, number(1)?);
    if !host.is_string() {
        return Ok(None);
    }
    let host = host.to_text()?;
    Ok(match (family, parse_literal(host.as_str().as_bytes())) {
        (libc::AF_INET, Some(LiteralAddress::Ipv4(address))) => Some(SocketAddress::ipv4(address, port)),
        (libc::AF_INET6, Some(LiteralAddress::Ipv6 { address, zone: None })) => {
            Some(SocketAddress::ipv6(address, port, flow_info, scope_id))
        }
        _ => None,
    })
}

fn unix_address(address: &Any) -> Result<SocketAddress> {
    // As the socket module reads it: text is encoded, and everything else has to be bytes-like, a path object too.
    let path = if address.is_string() {
        Buffer::readable(&*import(c"os")?.get_attribute_str(c"fsencode")?.call1(address)?)?
    } else {
        Buffer::readable(address)?
    };
    SocketAddress::unix(path.as_slice()).map_err(|error| match error.raw_os_error() {
        Some(libc::ENAMETOOLONG) => Raised::new(builtin(Builtin::OSError), "AF_UNIX path too long"),
        _ => ioxide_cpython::exception::raise_os_error(&error),
    })
}

/// `OSError(errno, f'Connect call failed {address}')`, as asyncio raises for a refused connection.
pub fn raise_connect_error(error: &io::Error, address: &SocketAddress) -> Raised {
    let build = || -> Result<Object> {
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        let shown = to_python(address)?.str()?.to_text()?;
        let message = text(&format!("Connect call failed {}", shown.as_str()))?;
        builtin(Builtin::OSError).call(&[&*integer(i64::from(number))?, &*message])
    };
    match build() {
        Ok(exception) => Raised::exception(exception),
        Err(raised) => raised,
    }
}
