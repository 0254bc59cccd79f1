//! What asyncio changed from one patch release to the next: asked of the running asyncio's own code, once, when the
//! module is imported. What differs between minor versions alone is a constant of `version`.

use crate::call::import;
use crate::object::Result;
use crate::once::Once;
use crate::version::Code;

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

/// What becomes of the exception of a shielded future whose outer future was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShieldedFailure {
    /// It counts as retrieved (until 3.13).
    IsRetrieved,
    /// It is reported as of any other future.
    IsNobodys,
    /// A rule that is not known here.
    Unknown,
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
    pub shielded_failure: ShieldedFailure,
    /// Who gives up waiting for the next one of `as_completed` may be followed by another one.
    pub as_completed_counts_again: bool,
}

static RULES: Once<Rules> = Once::new();

pub fn rules() -> &'static Rules {
    RULES.get()
}

pub(crate) fn initialize() -> Result<()> {
    let module = import(c"asyncio.base_events")?;
    let event_loop = module.get_attribute_str(c"BaseEventLoop")?;
    let server = module.get_attribute_str(c"Server")?;
    let connect = Code::of_method(&event_loop, "_connect_sock")?;
    let create_server = Code::of_method(&event_loop, "create_server")?;
    let wait_closed = Code::of_method(&server, "wait_closed")?;
    let tasks = import(c"asyncio.tasks")?;
    RULES.set(Rules {
        bind_error_is_strerror: connect.uses("strerror")?,
        skips_unavailable_addresses: create_server.uses("EADDRNOTAVAIL")?,
        reuse_port_is_for_internet: create_server.uses("AF_INET")?,
        serve_forever_closes_clients: Code::of_method(&server, "serve_forever")?.uses("close_clients")?,
        wait_closed: if wait_closed.uses("_sockets")? {
            WaitClosed::Closed
        } else if wait_closed.uses("_active_count")? {
            WaitClosed::NoConnections
        } else {
            WaitClosed::ClosedWithoutConnections
        },
        as_completed_counts_again: match tasks
            .get_attribute_optional(&*crate::names::intern("_AsCompletedIterator")?)?
        {
            Some(class) => Code::of_method(&class, "_wait_for_one")?.uses("_todo_left")?,
            None => false,
        },
        shielded_failure: shielded_failure(&Code::of(&*tasks.get_attribute_str(c"shield")?)?)?,
    });
    Ok(())
}

/// What asyncio's `shield` does is in the functions inside it.
fn shielded_failure(shield: &Code) -> Result<ShieldedFailure> {
    let mut known = 0;
    for name in ["_inner_done_callback", "_outer_done_callback", "_clear_awaited_by_callback"] {
        known += usize::from(shield.nested_named(name)?.is_some());
    }
    let Some(inner) = shield.nested_named("_inner_done_callback")? else {
        return Ok(ShieldedFailure::Unknown);
    };
    let used = inner.names_and_variables()?;
    let first_use = |name: &str| used.iter().position(|used| used == name);
    Ok(match (first_use("exception"), first_use("cancel")) {
        _ if shield.nested()?.len() != known => ShieldedFailure::Unknown,
        (Some(exception), Some(cancel)) if exception < cancel => ShieldedFailure::IsRetrieved,
        (Some(_), Some(_)) => ShieldedFailure::IsNobodys,
        _ => ShieldedFailure::Unknown,
    })
}
