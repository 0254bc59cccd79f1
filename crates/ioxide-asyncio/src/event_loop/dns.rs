//! Names and addresses. Literal addresses are answered at once; everything else goes to a small pool of threads of
//! its own, so that slow name servers hold up no other work.

use super::EventLoop;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, imports, names, none};

/// Look-ups at a time: as many as asyncio's default executor gives a small machine.
const LOOKUP_THREADS: i64 = 8;

/// Where a loop keeps their pool.
const LOOKUP_EXECUTOR: &str = "_lookup_executor";

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
            let function = import(c"socket")?.get_attribute_str(c"getaddrinfo")?;
            let values: Vec<&Any> = values.iter().map(|value| &**value).collect();
            if is_numeric(values[0], values[1])? {
                return function.call_slice(&values);
            }
            look_up(&event_loop, &function, &values).await
        })
    }

    /// `await loop.getnameinfo(sockaddr, flags=0)`
    pub fn getnameinfo(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = GETNAMEINFO.bind(arguments)?;
        let zero = integer(0)?;
        let values = bound.map(|value| value.unwrap_or(&zero).to_object());
        let event_loop = self.to_object();
        coroutine("getnameinfo", async move {
            let function = import(c"socket")?.get_attribute_str(c"getnameinfo")?;
            let values: Vec<&Any> = values.iter().map(|value| &**value).collect();
            look_up(&event_loop, &function, &values).await
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

    /// The pool for look-ups, made with the first one.
    fn lookup_executor(&self) -> Result<Object> {
        if let Some(executor) = self.kept(LOOKUP_EXECUTOR)? {
            return Ok(executor);
        }
        let keywords = tuple(&[&names().max_workers, &names().thread_name_prefix])?;
        let executor = imports().ThreadPoolExecutor.call_keywords(
            &[&*integer(LOOKUP_THREADS)?, &*text("ioxide-lookup")?],
            &keywords,
            0,
        )?;
        self.keep(LOOKUP_EXECUTOR, &executor)?;
        Ok(executor)
    }

    /// What `close` does about executors: the default one and the one for look-ups are told not to wait.
    pub(super) fn discard_executors(&self) -> Result<()> {
        self.keep("_executor_shutdown_called", &ioxide_cpython::boolean(true))?;
        for name in ["_default_executor", LOOKUP_EXECUTOR] {
            let executor = self.kept(name)?.filter(|executor| !executor.is_none());
            self.keep(name, none())?;
            if let Some(executor) = executor {
                let keywords = tuple(&[&names().wait])?;
                executor.call_method_keywords(
                    &names().shutdown,
                    &[&ioxide_cpython::boolean(false)],
                    &keywords,
                )?;
            }
        }
        Ok(())
    }
}

/// `await loop.run_in_executor(lookups, function, *values)`
async fn look_up(event_loop: &Any, function: &Any, values: &[&Any]) -> Result<Object> {
    let native =
        EventLoop::from_any(event_loop).ok_or_else(|| Raised::runtime_error("the event loop is gone"))?;
    let executor = native.lookup_executor()?;
    let mut all = vec![&*executor, function];
    all.extend_from_slice(values);
    let future = event_loop.call_method(&names().run_in_executor, &all)?;
    wait_for(&future).await
}

/// Whether host and port need no look-up: no host or a literal address, and a number for a port.
fn is_numeric(host: &Any, port: &Any) -> Result<bool> {
    let literal = if host.is_string() {
        ioxide_io::parse_literal(host.to_text()?.as_str().as_bytes()).is_some()
    } else {
        host.bytes().is_some_and(|host| ioxide_io::parse_literal(host).is_some())
    };
    let numeric_port = port.is_none()
        || port.is_integer()
        || (port.is_string() && port.to_text()?.as_str().bytes().all(|digit| digit.is_ascii_digit()))
        || port.bytes().is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    Ok(literal && numeric_port)
}
