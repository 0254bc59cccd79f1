//! Every attribute and keyword name that ioxide looks up, interned once.

use crate::object::{Any, Object, Result};
use crate::once::Once;
use pyo3_ffi as ffi;

macro_rules! names {
    ($($name:ident $(as $text:literal)?),* $(,)?) => {
        /// The interned strings, one field a name.
        #[allow(non_snake_case)]
        pub struct Names { $(pub $name: Object,)* }

        impl Names {
            fn intern_all() -> Result<Names> {
                Ok(Names { $($name: intern([$($text,)? stringify!($name)][0])?,)* })
            }
        }
    };
}

names! {
    __class__, __await__, __dict__, __doc__, __module__, __name__, __qualname__, __self__, __slots__, __wrapped__,
    _abort, _asyncio_future_blocking, _attach, _callbacks, _check_closed, _detach, _fut_waiter, _ioxide_core, _iterating,
    _loop, _make_cancelled_error, _must_cancel, _run, _source_traceback, _start, _wakeup,
    abort, accept, add, add_done_callback, add_signal_handler, all_errors, all_tasks, append, args, athrow,
    asend, aclose, backlog, bind, buffer_updated, buffering, callback, call_at, call_later, call_soon, call_soon_threadsafe,
    call_exception_handler, cancel, cancelled, client_connected_cb, close, connect, connection_lost, connection_made, context,
    copy, coro, cr_running, create_connection, create_future, create_server, create_task, critical, data, data_received, debug,
    default_exception_handler, delay, detach, discard, done, eager_start, eof_received, error, exc, exc_info, exception,
    exceptions, executor, extract_stack, family, fd, fileno, flags, func, future, get_buffer, get_debug, get_extra_info,
    get_loop, getaddrinfo, getnameinfo, getsockname, getpeername, gettimeout, handle, happy_eyeballs_delay, host, info, interleave,
    is_alive, is_running, join, keep_alive, limit, listen, local_addr, log, event_loop as "loop", message, msg, name, path, pause_writing, pop, port,
    proto, protocol, protocol_factory, reduce, remove_done_callback, result, resume_writing, reuse_address, reuse_port,
    run, run_in_executor, send, sendto, server_hostname, server_side, set_exception, set_name, set_result, setblocking, setsockopt, shutdown,
    shutdown_asyncgens, sig, signal, sock, sock_connect, source, source_traceback, ssl, ssl_handshake_timeout,
    ssl_shutdown_timeout, start_serving, stop, submit, task, throw, thread_name_prefix, timeout, time, transport, type_name as "type", uncancel,
    wait, warning, when, max_workers, target, daemon, start, sockets, server, value, stacklevel, func_name, limit_name,
    fallback, unlink, n, buf, nbytes, addr, address, bufsize, sockaddr, asyncgen, firstiter, finalizer, http, extra, waiter,
    cleanup_socket, set_wakeup_fd, write, coroutine,
    __setitem__, _call_connection_lost, _extra, _sendfile_compatible, _set_write_buffer_limits, _start_reading,
    _start_tls_compatible, _transports, get, high, is_closing, low, peername, socket, sockname,
}

static NAMES: Once<Names> = Once::new();

/// The table of interned names.
#[inline(always)]
pub fn names() -> &'static Names {
    NAMES.get()
}

pub(crate) fn initialize() -> Result<()> {
    NAMES.set(Names::intern_all()?);
    Ok(())
}

/// An interned string.
pub fn intern(name: &str) -> Result<Object> {
    // SAFETY: O1; InternInPlace swaps an owned reference for another.
    unsafe {
        let mut string = ffi::PyUnicode_FromStringAndSize(name.as_ptr().cast(), name.len() as _);
        if !string.is_null() {
            ffi::PyUnicode_InternInPlace(&mut string);
        }
        Object::from_owned(string)
    }
}

/// A tuple of interned names, as vectorcall wants its keywords.
pub fn keyword_names(names: &[&Any]) -> Result<Object> {
    crate::value::tuple(names)
}
