//! `getaddrinfo` and `getnameinfo`. Literal addresses are answered at once; everything else goes to a small pool of threads of
//! its own, so that slow name servers hold up no other work: without the GIL where `socket.getaddrinfo` is Python's own.
//!
//! Leaves to others: the C library's call (`ioxide_io::look_up`), what a look-up without Python is made of (`look_up`).

use super::{EventLoop, look_up};
use crate::work;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, names, none};
use ioxide_io::Pool;

const GETADDRINFO: Signature<6> = Signature {
    function: "getaddrinfo",
    names: ["host", "port", "family", "type", "proto", "flags"],
    required: 2,
    positional: 2,
};

const GETNAMEINFO: Signature<2> =
    Signature { function: "getnameinfo", names: ["sockaddr", "flags"], required: 1, positional: 2 };

impl EventLoop {
    /// `await loop.getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0)`
    pub fn getaddrinfo(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = GETADDRINFO.bind(arguments)?;
        let zero = integer(0)?;
        let values = bound.map(|value| value.unwrap_or(&zero).to_object());
        let event_loop = self.to_object();
        coroutine("getaddrinfo", async move {
            let values = values.each_ref().map(|value| &**value);
            check_closed(&event_loop)?;
            if EventLoop::from_any(&event_loop).is_some_and(EventLoop::get_debug) {
                return answer(&event_loop, &*logging_function(&event_loop)?, &values).await;
            }
            let function = import(c"socket")?.get_attribute_str(c"getaddrinfo")?;
            let Some(question) = look_up::question(&function, values)? else {
                return answer(&event_loop, &function, &values).await;
            };
            look_up::audit(values)?;
            match is_numeric(values[0], values[1]) {
                true => look_up::ask(&question),
                false => wait_for(&*look_up::submit(&event_loop, question)?).await,
            }
        })
    }

    /// `await loop.getnameinfo(sockaddr, flags=0)`
    pub fn getnameinfo(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = GETNAMEINFO.bind(arguments)?;
        let zero = integer(0)?;
        let values = bound.map(|value| value.unwrap_or(&zero).to_object());
        let event_loop = self.to_object();
        coroutine("getnameinfo", async move {
            check_closed(&event_loop)?;
            let function = import(c"socket")?.get_attribute_str(c"getnameinfo")?;
            wait_for(&*work::call_on(
                &Pool::for_look_ups(),
                &event_loop,
                &function,
                &values.each_ref().map(|value| &**value),
            )?)
            .await
        })
    }

    /// A coroutine for the first address that `address` resolves to, of the socket's kind.
    pub fn resolve(&self, socket: &Any, address: &Any) -> Result<Object> {
        let (event_loop, socket, address) = (self.to_object(), socket.to_object(), address.to_object());
        coroutine("resolve", async move {
            let family = socket.get_attribute(&names().family)?;
            let kind = socket.get_attribute(&names().type_name)?;
            let protocol = socket.get_attribute(&names().proto)?;
            let keywords =
                tuple(&[&names().family, &names().type_name, &names().proto, &names().event_loop])?;
            let arguments = [&*address, &*family, &*kind, &*protocol, &*event_loop];
            let lookup = event_loop.call_method_keywords(&names()._ensure_resolved, &arguments, &keywords)?;
            let found = wait_for(&lookup).await?;
            let first = found.get_item(&*integer(0)?)?;
            match first.tuple_items() {
                [_, _, _, _, address] => Ok(address.to_object()),
                _ => Err(Raised::runtime_error("getaddrinfo() returned no address")),
            }
        })
    }

    /// What `close` does about the default executor: it is told not to wait.
    pub(super) fn discard_executor(&self) -> Result<()> {
        self.keep("_executor_shutdown_called", &ioxide_cpython::boolean(true))?;
        let executor = self.kept("_default_executor")?.filter(|executor| !executor.is_none());
        self.keep("_default_executor", none())?;
        let Some(executor) = executor else { return Ok(()) };
        let keywords = tuple(&[&names().wait])?;
        let wait = ioxide_cpython::boolean(false);
        executor.call_method_keywords(&names().shutdown, &[&wait], &keywords).map(drop)
    }
}

/// asyncio's own function for debug mode, which logs, as a method of the loop.
fn logging_function(event_loop: &Any) -> Result<Object> {
    let class = import(c"asyncio.base_events")?.get_attribute_str(c"BaseEventLoop")?;
    class.get_attribute_str(c"_getaddrinfo_debug")?.call_method1(&*text("__get__")?, event_loop)
}

fn check_closed(event_loop: &Any) -> Result<()> {
    EventLoop::from_any(event_loop).map_or(Ok(()), EventLoop::check_closed)
}

/// What a Python function answers: at once to what needs no look-up, else on a thread.
async fn answer(event_loop: &Any, function: &Any, values: &[&Any; 6]) -> Result<Object> {
    if is_numeric(values[0], values[1]) {
        return function.call_slice(values);
    }
    wait_for(&*work::call_on(&Pool::for_look_ups(), event_loop, function, values)?).await
}

/// Whether host and port need no look-up: a literal address, and a number for a port. Runs no Python.
fn is_numeric(host: &Any, port: &Any) -> bool {
    let is_literal = |host: &[u8]| ioxide_io::parse_literal(host).is_some();
    let is_number = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    holds_for_bytes(host, is_literal)
        && (port.is_none() || port.is_integer() || holds_for_bytes(port, is_number))
}

fn holds_for_bytes(value: &Any, condition: impl Fn(&[u8]) -> bool) -> bool {
    match look_up::string(value) {
        Some(text) => condition(text.as_bytes()),
        None => value.bytes().is_some_and(condition),
    }
}
