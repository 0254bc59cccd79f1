//! Attempts to connect: one address, one after the other, or a staggered race (happy eyeballs), and what is raised when
//! all have failed.
//!
//! The race itself is asyncio's `staggered_race` of the running version, which knows about tasks alone.

use super::EventLoop;
use super::modules::base_socket;
use super::owned::ClosedUnlessKept;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{list, list_of, text, tuple};
use ioxide_cpython::version::rules;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, boolean, builtin, names, none, none_object};

const CONNECT_SOCKET: Signature<3> = Signature {
    function: "_connect_sock",
    names: ["exceptions", "addr_info", "local_addr_infos"],
    required: 2,
    positional: 3,
};

impl EventLoop {
    /// `await loop._connect_sock(exceptions, addr_info, local_addr_infos=None)`: a connected socket. Its OSErrors go
    /// into a list of their own at the end of the list `exceptions`, too.
    pub fn connect_socket(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = CONNECT_SOCKET.bind(arguments)?;
        let [failures, address_info, local_addresses] =
            bound.map(|value| value.unwrap_or(none()).to_object());
        let event_loop = self.to_object();
        coroutine("_connect_sock", async move {
            let own_failures = list()?;
            failures.list_append(&own_failures)?;
            drop(failures);
            match connected(&event_loop, &own_failures, &address_info, &local_addresses).await {
                Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
                    let exception = raised.take();
                    own_failures.list_append(&exception)?;
                    Err(Raised::exception(exception))
                }
                outcome => outcome,
            }
        })
    }
}

async fn connected(
    event_loop: &Any,
    failures: &Any,
    address_info: &Any,
    local_addresses: &Any,
) -> Result<Object> {
    let [family, kind, protocol, _, address] = five(address_info)?;
    let keywords = tuple(&[&names().family, &names().type_name, &names().proto])?;
    let arguments: [&Any; 3] = [&family, &kind, &protocol];
    let socket = base_socket()?.call_method_keywords(&names().socket, &arguments, &keywords)?;
    let socket = ClosedUnlessKept::new(socket);
    socket.object().call_method1(&names().setblocking, &boolean(false))?;
    if !local_addresses.is_none() {
        bind_to_any(socket.object(), failures, &family, local_addresses)?;
    }
    let connecting = event_loop.call_method(&names().sock_connect, &[socket.object(), &*address])?;
    wait_for(&connecting).await?;
    Ok(socket.into_kept())
}

/// The five parts of what `getaddrinfo` says of an address.
pub(super) fn five(address_info: &Any) -> Result<[Object; 5]> {
    let mut parts = Vec::with_capacity(5);
    for part in address_info.iterate()? {
        parts.push(part?);
    }
    let count = parts.len();
    parts.try_into().map_err(|_| {
        Raised::value_error(&match count {
            0..5 => format!("not enough values to unpack (expected 5, got {count})"),
            _ => String::from("too many values to unpack (expected 5)"),
        })
    })
}

/// Binds to the first local address of the family that will do. Fails: with the last error.
fn bind_to_any(socket: &Any, failures: &Any, family: &Any, local_addresses: &Any) -> Result<()> {
    let mut last: Option<Object> = None;
    for local in local_addresses.iterate()? {
        let [local_family, _, _, _, address] = five(&*local?)?;
        if !local_family.equals(family)? {
            continue;
        }
        let outcome = socket.call_method1(&names().bind, &address);
        if let Some(earlier) = last.take() {
            failures.list_append(&earlier)?;
        }
        match outcome {
            Ok(_) => return Ok(()),
            Err(raised) => {
                let message = "error while attempting to bind on address ";
                last = Some(bind_error(raised, message, &address)?.1);
            }
        }
    }
    if let Some(exception) = last {
        return Err(Raised::exception(exception));
    }
    let shown = family.repr()?.to_text()?;
    let message = format!("no matching local address with family={} found", shown.as_str());
    Err(Raised::new(builtin(Builtin::OSError), &message))
}

/// The message and the OSError for an address that could not be bound. Fails: with any other exception.
pub(super) fn bind_error(raised: Raised, message: &str, address: &Any) -> Result<(Object, Object)> {
    if !raised.matches(builtin(Builtin::OSError)) {
        return Err(raised);
    }
    let error = raised.take();
    let reason = match rules().bind_error_is_strerror {
        true => error.get_attribute_str(c"strerror")?,
        false => error.str()?,
    };
    let reason = reason.call_method0(&names().lower)?.to_text()?;
    let message = text(&format!("{message}{}: {}", address.repr()?.to_text()?.as_str(), reason.as_str()))?;
    let number = error.get_attribute_str(c"errno")?;
    let exception = builtin(Builtin::OSError).call(&[&*number, &*message])?;
    Ok((message, exception))
}

/// The first address that lets itself be connected to, or None.
pub async fn attempt_all(
    event_loop: &Any,
    failures: &Any,
    addresses: &Any,
    local_addresses: &Any,
) -> Result<Object> {
    for address in addresses.iterate()? {
        let address = address?;
        let attempt =
            event_loop.call_method(&names()._connect_sock, &[failures, &*address, local_addresses])?;
        match wait_for(&attempt).await {
            Err(raised) if raised.matches(builtin(Builtin::OSError)) => drop(raised.take()),
            outcome => return outcome,
        }
    }
    Ok(none_object())
}

/// The address that wins the race, or None: the next one starts `delay` seconds after the one before it, or when that
/// has failed.
pub async fn attempt_staggered(
    event_loop: &Any,
    failures: &Any,
    addresses: &Any,
    local_addresses: &Any,
    delay: &Any,
) -> Result<Object> {
    let connect = event_loop.get_attribute(&names()._connect_sock)?;
    let partial = import(c"functools")?.get_attribute_str(c"partial")?;
    let mut attempts = Vec::new();
    for address in addresses.iterate()? {
        attempts.push(partial.call(&[&*connect, failures, &*address?, local_addresses])?);
    }
    let race = import(c"asyncio.base_events")?
        .get_attribute_str(c"staggered")?
        .get_attribute_str(c"staggered_race")?;
    let keywords = tuple(&[&names().event_loop])?;
    let attempts = list_of(attempts)?;
    let race = race.call_keywords(&[&*attempts, delay, event_loop], &keywords, 2)?;
    let outcome = wait_for(&race).await?;
    outcome.get_item(&*ioxide_cpython::value::integer(0)?)
}

/// What `create_connection` raises when no address could be connected to.
pub fn raise_failures(failures: &Any, all_errors: bool) -> Raised {
    combined(failures, all_errors).unwrap_or_else(|raised| raised)
}

fn combined(failures: &Any, all_errors: bool) -> Result<Raised> {
    let mut flat = Vec::new();
    for group in failures.iterate()? {
        for exception in group?.iterate()? {
            flat.push(exception?);
        }
    }
    // Frames in the exceptions' tracebacks may hold the list: it must not hold the exceptions.
    failures.call_method0(&names().clear)?;
    if all_errors {
        let class = import(c"builtins")?.get_attribute_str(c"ExceptionGroup")?;
        let group = class.call(&[&*text("create_connection failed")?, &*list_of(flat)?])?;
        return Ok(Raised::exception(group));
    }
    let Some(first) = flat.first() else {
        return Ok(Raised::new(builtin(Builtin::TimeoutError), "create_connection failed"));
    };
    let mut texts = Vec::with_capacity(flat.len());
    for exception in &flat {
        texts.push(exception.str()?.to_text()?.into_string());
    }
    if texts.iter().all(|text| *text == texts[0]) {
        return Ok(Raised::exception(first.clone()));
    }
    let message = format!("Multiple exceptions: {}", texts.join(", "));
    Ok(Raised::new(builtin(Builtin::OSError), &message))
}
