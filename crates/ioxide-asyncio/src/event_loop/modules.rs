//! The modules that asyncio's own code reads functions from. They are looked up where it does, each time, so that a
//! function which a program or a test has replaced there is the one that is called.

use ioxide_cpython::call::import;
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Raised, Result, names};

/// `asyncio.base_events.socket`
pub fn base_socket() -> Result<Object> {
    import(c"asyncio.base_events")?.get_attribute(&names().socket)
}

/// `asyncio.unix_events.socket`
pub fn unix_socket() -> Result<Object> {
    import(c"asyncio.unix_events")?.get_attribute(&names().socket)
}

/// `asyncio.unix_events.os`
pub fn unix_os() -> Result<Object> {
    import(c"asyncio.unix_events")?.get_attribute_str(c"os")
}

/// Fails: TypeError for a socket of the ssl module.
pub fn check_no_ssl_socket(socket: &Any) -> Result<()> {
    let ssl = import(c"asyncio.base_events")?.get_attribute_str(c"ssl")?;
    if !ssl.is_none() && socket.is_instance(&*ssl.get_attribute_str(c"SSLSocket")?)? {
        return Err(Raised::type_error("Socket cannot be of type SSLSocket"));
    }
    Ok(())
}

/// Whether an attribute of a socket, such as its type, is the number.
pub fn socket_is(socket: &Any, attribute: &Any, number: i32) -> Result<bool> {
    socket.get_attribute(attribute)?.equals(&*integer(i64::from(number))?)
}

/// Fails: ValueError, `expected` with the socket's repr.
pub fn refuse_socket(socket: &Any, expected: &str) -> Raised {
    match socket.repr().and_then(|shown| shown.to_text()) {
        Ok(shown) => Raised::value_error(&format!("{expected} was expected, got {}", shown.as_str())),
        Err(raised) => raised,
    }
}
