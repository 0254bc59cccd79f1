//! `sendfile` and `sock_sendfile`: by the kernel where it can, else read and sent piece by piece.
//!
//! Leaves to others: the kernel's way (`sendfile_kernel`), reading and sending by hand (`sendfile_pieces`).
//!
//! Invariants:
//! X1. While a file is being sent through a transport, the transport neither reads nor is it in the loop's register of
//!     transports; however the coroutine ends, both are as before (`Lent`).

use super::modules::{check_no_ssl_socket, socket_is};
use super::sendfile_kernel::Progress;
use super::sendfile_pieces::{Pieces, send_to_socket, send_to_transport};
use super::sock::Socket;
use super::{Direction, EventLoop};
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::exception::{self, exception_is, exception_matches};
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, names, none};
use ioxide_io::sendfile;
use std::os::fd::RawFd;

/// Bytes that are read at a time for a transport; for a socket it is asyncio's constant.
const PIECE: i64 = 16384;

/// The four arguments of most methods here.
const fn four(function: &'static str, first: &'static str) -> Signature<4> {
    Signature { function, names: [first, "file", "offset", "count"], required: 4, positional: 4 }
}

/// The arguments of the two public ones.
const fn five(function: &'static str, first: &'static str) -> Signature<5> {
    let names = [first, "file", "offset", "count", "fallback"];
    Signature { function, names, required: 2, positional: 4 }
}

/// What is to be sent, through a socket or a transport.
pub(super) struct Request {
    pub(super) event_loop: Object,
    pub(super) target: Object,
    pub(super) file: Object,
    pub(super) offset: Object,
    count: Object,
    may_fall_back: bool,
}

impl Request {
    fn new(event_loop: &EventLoop, bound: [Option<&Any>; 5]) -> Result<Request> {
        let value = |index: usize| bound[index].unwrap_or(none()).to_object();
        Ok(Request {
            event_loop: event_loop.to_object(),
            target: value(0),
            file: value(1),
            offset: bound[2].map_or_else(|| integer(0), |offset| Ok(offset.to_object()))?,
            count: value(3),
            may_fall_back: bound[4].map_or(Ok(true), Any::is_true)?,
        })
    }

    fn of_four(event_loop: &EventLoop, bound: [Option<&Any>; 4]) -> Result<Request> {
        let [target, file, offset, count] = bound;
        Request::new(event_loop, [target, file, offset, count, None])
    }

    /// `self.event_loop.method(target, file, offset, count)`, awaited.
    async fn delegate(&self, method: &Any) -> Result<Object> {
        let arguments: [&Any; 4] = [&self.target, &self.file, &self.offset, &self.count];
        wait_for(&*self.event_loop.call_method(method, &arguments)?).await
    }

    /// As `delegate`; `None` where the kernel cannot do it and the caller may fall back.
    async fn delegate_if_available(&self, method: &Any) -> Result<Option<Object>> {
        match self.delegate(method).await {
            Ok(sent) => Ok(Some(sent)),
            Err(raised) => {
                let exception = raised.take();
                let is_unavailable = exception_matches(&exception, &*unavailable_class()?);
                if self.may_fall_back && is_unavailable {
                    return Ok(None);
                }
                Err(Raised::exception(exception))
            }
        }
    }

    /// How many bytes at most; `None` for all there are.
    pub(super) fn limit(&self) -> Result<Option<i64>> {
        if self.count.is_true()? { self.count.to_i64().map(Some) } else { Ok(None) }
    }
}

fn unavailable_class() -> Result<Object> {
    import(c"asyncio.exceptions")?.get_attribute_str(c"SendfileNotAvailableError")
}

/// SendfileNotAvailableError.
pub(super) fn unavailable(message: &str) -> Raised {
    match unavailable_class() {
        Ok(class) => Raised::new(&class, message),
        Err(raised) => raised,
    }
}

impl EventLoop {
    /// `await loop.sock_sendfile(sock, file, offset=0, count=None, *, fallback=True)`
    pub fn sock_sendfile(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<5> = five("sock_sendfile", "sock");
        let request = Request::new(self, SIGNATURE.bind(arguments)?)?;
        coroutine("sock_sendfile", async move {
            if crate::event_loop::is_debug(&request.event_loop)? {
                let timeout = request.target.call_method0(&names().gettimeout)?;
                if !timeout.equals(&*integer(0)?)? {
                    return Err(Raised::value_error("the socket must be non-blocking"));
                }
            }
            check_no_ssl_socket(&request.target)?;
            check_parameters(&request)?;
            if let Some(sent) = request.delegate_if_available(&names()._sock_sendfile_native).await? {
                return Ok(sent);
            }
            request.delegate(&names()._sock_sendfile_fallback).await
        })
    }

    /// `loop._check_sendfile_params(sock, file, offset, count)`. Fails: ValueError, TypeError.
    pub fn check_sendfile_parameters(&self, arguments: Arguments<'_>) -> Result<()> {
        const SIGNATURE: Signature<4> = four("_check_sendfile_params", "sock");
        check_parameters(&Request::of_four(self, SIGNATURE.bind(arguments)?)?)
    }

    /// `await loop._sock_sendfile_native(sock, file, offset, count)`. Fails: SendfileNotAvailableError where the kernel
    /// cannot do it and nothing was sent.
    pub fn sock_sendfile_native(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<4> = four("_sock_sendfile_native", "sock");
        let request = Request::of_four(self, SIGNATURE.bind(arguments)?)?;
        coroutine("_sock_sendfile_native", async move {
            let descriptor = file_descriptor(&request.file)?;
            let size = sendfile::file_size(descriptor).map_err(|_| unavailable("not a regular file"))?;
            let limit = request.limit()?;
            if limit.is_none() && size == 0 {
                return integer(0);
            }
            let Some(event_loop) = EventLoop::from_any(&request.event_loop) else { return integer(0) };
            let socket = Socket::new(event_loop, &request.target)?;
            let offset = request.offset.to_i64()?;
            let progress = Progress::new(request.file.clone(), descriptor, size, offset, limit);
            let target = request.target.clone();
            socket.retry(Direction::Write, move || progress.attempt(&target)).await
        })
    }

    /// `await loop._sock_sendfile_fallback(sock, file, offset, count)`
    pub fn sock_sendfile_fallback(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<4> = four("_sock_sendfile_fallback", "sock");
        let request = Request::of_four(self, SIGNATURE.bind(arguments)?)?;
        coroutine("_sock_sendfile_fallback", async move {
            let constants = import(c"asyncio.constants")?;
            let most = constants.get_attribute_str(c"SENDFILE_FALLBACK_READBUFFER_SIZE")?.to_i64()?;
            let mut pieces = Pieces::begin(&request, most)?;
            let outcome = send_to_socket(&request, &mut pieces).await.map_err(Raised::take);
            pieces.end(&request)?;
            outcome.map_err(Raised::exception)?;
            integer(pieces.sent)
        })
    }

    /// `await loop.sendfile(transport, file, offset=0, count=None, *, fallback=True)`
    pub fn sendfile(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<5> = five("sendfile", "transport");
        let request = Request::new(self, SIGNATURE.bind(arguments)?)?;
        coroutine("sendfile", async move {
            if request.target.call_method0(&names().is_closing)?.is_true()? {
                return Err(Raised::runtime_error("Transport is closing"));
            }
            let modes = import(c"asyncio.constants")?.get_attribute_str(c"_SendfileMode")?;
            let unsupported = modes.get_attribute_str(c"UNSUPPORTED")?;
            let mode = request.target.get_attribute_optional(&names()._sendfile_compatible)?;
            let mode = mode.unwrap_or_else(|| unsupported.clone());
            if mode.is(&unsupported) {
                return Err(refusal("sendfile is not supported for transport", &request.target));
            }
            if mode.is(&*modes.get_attribute_str(c"TRY_NATIVE")?) {
                if let Some(sent) = request.delegate_if_available(&names()._sendfile_native).await? {
                    return Ok(sent);
                }
            }
            if !request.may_fall_back {
                let reason = "fallback is disabled and native sendfile is not supported for transport";
                return Err(refusal(reason, &request.target));
            }
            request.delegate(&names()._sendfile_fallback).await
        })
    }

    /// `await loop._sendfile_native(transp, file, offset, count)`
    pub fn sendfile_native(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<4> = four("_sendfile_native", "transp");
        let request = Request::of_four(self, SIGNATURE.bind(arguments)?)?;
        coroutine("_sendfile_native", async move {
            let transport = &request.target;
            let transports = request.event_loop.get_attribute(&names()._transports)?;
            let descriptor = transport.get_attribute(&names()._sock_fd)?;
            transports.call_method1(&names().pop, &descriptor)?;
            let was_reading = transport.call_method0(&names().is_reading)?.is_true()?;
            let lent = Lent { transport, transports, descriptor, was_reading };
            transport.call_method0(&names().pause_reading)?;
            let drained = transport.call_method0(&names()._make_empty_waiter)?;
            wait_for(&drained).await?;
            let socket = transport.get_attribute(&names()._sock)?;
            let no_fallback = ioxide_cpython::boolean(false);
            let arguments: [&Any; 5] =
                [&socket, &request.file, &request.offset, &request.count, &no_fallback];
            let keywords = tuple(&[&names().fallback])?;
            let sending =
                request.event_loop.call_method_keywords(&names().sock_sendfile, &arguments, &keywords)?;
            let sent = wait_for(&sending).await;
            drop(lent);
            sent
        })
    }

    /// `await loop._sendfile_fallback(transp, file, offset, count)`
    pub fn sendfile_fallback(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<4> = four("_sendfile_fallback", "transp");
        let request = Request::of_four(self, SIGNATURE.bind(arguments)?)?;
        coroutine("_sendfile_fallback", async move {
            let mut pieces = Pieces::begin(&request, PIECE)?;
            // asyncio's own protocol, which stands in for the transport's meanwhile.
            let class = import(c"asyncio.base_events")?.get_attribute_str(c"_SendfileFallbackProtocol")?;
            let protocol = class.call1(&request.target)?;
            let outcome = send_to_transport(&request, &mut pieces, &protocol).await.map_err(Raised::take);
            let ended = pieces.end(&request).map_err(Raised::take);
            wait_for(&*protocol.call_method0(&*text("restore")?)?).await?;
            ended.and(outcome).map_err(Raised::exception)?;
            integer(pieces.sent)
        })
    }
}

fn refusal(reason: &str, transport: &Any) -> Raised {
    match transport.repr().and_then(|shown| shown.to_text()) {
        Ok(shown) => Raised::runtime_error(&format!("{reason} {}", shown.as_str())),
        Err(raised) => raised,
    }
}

/// Fails: ValueError, TypeError, in asyncio's words.
fn check_parameters(request: &Request) -> Result<()> {
    let mode = request.file.get_attribute_optional(&names().mode)?;
    let is_binary = match mode {
        Some(mode) => {
            let contains = import(c"operator")?.get_attribute_str(c"contains")?;
            contains.call(&[&*mode, &*text("b")?])?.is_true()?
        }
        None => true,
    };
    if !is_binary {
        return Err(Raised::value_error("file should be opened in binary mode"));
    }
    if !socket_is(&request.target, &names().type_name, libc::SOCK_STREAM)? {
        return Err(Raised::value_error("only SOCK_STREAM type sockets are supported"));
    }
    let zero = integer(0)?;
    if !request.count.is_none() {
        let fault = |shown: &str| format!("count must be a positive integer (got {shown})");
        check_number(&request.count, fault, |count| Ok(!exceeds(count, &zero)?))?;
    }
    let fault = |shown: &str| format!("offset must be a non-negative integer (got {shown})");
    check_number(&request.offset, fault, |offset| exceeds(&zero, offset))
}

fn check_number(
    value: &Any,
    fault: impl Fn(&str) -> String,
    is_wrong: impl Fn(&Any) -> Result<bool>,
) -> Result<()> {
    if !value.is_integer() {
        return Err(Raised::type_error(&fault(value.repr()?.to_text()?.as_str())));
    }
    if is_wrong(value)? {
        return Err(Raised::value_error(&fault(value.repr()?.to_text()?.as_str())));
    }
    Ok(())
}

/// `larger > smaller`, of any size.
fn exceeds(larger: &Any, smaller: &Any) -> Result<bool> {
    import(c"operator")?.get_attribute_str(c"gt")?.call(&[larger, smaller])?.is_true()
}

/// Fails: SendfileNotAvailableError for what has no descriptor.
fn file_descriptor(file: &Any) -> Result<RawFd> {
    match file.call_method0(&names().fileno) {
        Ok(number) => number.to_i32(),
        Err(raised) => {
            let error = raised.take();
            let unsupported = import(c"io")?.get_attribute_str(c"UnsupportedOperation")?;
            if exception_is(&error, Builtin::AttributeError) || exception_matches(&error, &unsupported) {
                return Err(unavailable("not a regular file"));
            }
            Err(Raised::exception(error))
        }
    }
}

/// A transport that `sendfile` has taken away from its protocol (X1).
struct Lent<'a> {
    transport: &'a Any,
    transports: Object,
    descriptor: Object,
    was_reading: bool,
}

impl Lent<'_> {
    fn give_back(&self) -> Result<()> {
        self.transport.call_method0(&names()._reset_empty_waiter)?;
        if self.was_reading {
            self.transport.call_method0(&names().resume_reading)?;
        }
        self.transports.call_method(&names().__setitem__, &[&*self.descriptor, self.transport]).map(drop)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let pending = exception::take();
        if let Err(raised) = self.give_back() {
            raised.write_unraisable(self.transport);
        }
        if let Some(pending) = pending {
            exception::restore(pending);
        }
    }
}
