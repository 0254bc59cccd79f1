//! What asyncio changed from one patch release to the next: asked of the running asyncio's own code, once, when the
//! module is imported. What differs between minor versions alone is a constant of `version`.

use crate::call::import;
use crate::object::{Any, Result};
use crate::once::Once;
use crate::value::text;

/// When `Server.wait_closed` returns at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitClosed {
    /// The server is closed (3.11).
    Closed,
    /// Closed and without connections, or without connections anyway (3.12.0).
    NoConnections,
    /// Closed and without connections (3.12.1 and later).
    ClosedWithoutConnections,
}

pub struct Rules {
    /// The error of a failed `bind` tells the kernel's text alone; later the text with its number.
    pub bind_error_is_strerror: bool,
    /// `create_server` passes over addresses that this machine does not have.
    pub skips_unavailable_addresses: bool,
    /// `create_server(reuse_port=True)` leaves sockets that are neither IPv4 nor IPv6 alone.
    pub reuse_port_is_for_internet: bool,
    /// A cancelled `serve_forever` closes the connections.
    pub serve_forever_closes_clients: bool,
    pub wait_closed: WaitClosed,
}

static RULES: Once<Rules> = Once::new();

pub fn rules() -> &'static Rules {
    RULES.get()
}

pub(crate) fn initialize() -> Result<()> {
    let module = import(c"asyncio.base_events")?;
    let event_loop = module.get_attribute_str(c"BaseEventLoop")?;
    let server = module.get_attribute_str(c"Server")?;
    let connect = event_loop.get_attribute_str(c"_connect_sock")?;
    let create_server = event_loop.get_attribute_str(c"create_server")?;
    let wait_closed = server.get_attribute_str(c"wait_closed")?;
    RULES.set(Rules {
        bind_error_is_strerror: mentions(&connect, "strerror")?,
        skips_unavailable_addresses: mentions(&create_server, "EADDRNOTAVAIL")?,
        reuse_port_is_for_internet: mentions(&create_server, "AF_INET")?,
        serve_forever_closes_clients: mentions(
            &*server.get_attribute_str(c"serve_forever")?,
            "close_clients",
        )?,
        wait_closed: if mentions(&wait_closed, "_sockets")? {
            WaitClosed::Closed
        } else if mentions(&wait_closed, "_active_count")? {
            WaitClosed::NoConnections
        } else {
            WaitClosed::ClosedWithoutConnections
        },
    });
    Ok(())
}

/// Whether the code of a Python function uses a name.
fn mentions(function: &Any, name: &str) -> Result<bool> {
    let used = function.get_attribute_str(c"__code__")?.get_attribute_str(c"co_names")?;
    let name = text(name)?;
    for used in used.tuple_items() {
        if used.equals(&name)? {
            return Ok(true);
        }
    }
    Ok(false)
}
