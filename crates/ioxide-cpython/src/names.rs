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
    abort, accept, aclose, add, add_done_callback, add_signal_handler, args, _asyncgen_finalizer_hook,
    _asyncgen_firstiter_hook, _asyncgens, _asyncgens_shutdown_called, _asyncio_future_blocking, _attach,
    bind, buffer_updated, call_at, _call_connection_lost, call_exception_handler, call_later, call_soon,
    call_soon_threadsafe, cancel, cancelled, cancelling, close, close_clients, connect, _connect_sock,
    connection_lost, connection_made, context, _create_connection_transport, create_future,
    _create_server_getaddrinfo, create_task, _current_handle, data, data_received, debug,
    default_exception_handler, _default_executor, _detach, __dict__, discard, __doc__, done,
    _ensure_resolved, eof_received, errno, error, event_loop as "loop", exc_info, exception,
    _exception_handler, _executor_shutdown_called, _extra, extra, family, filename, fileno, flags, future, get,
    get_buffer, get_context, get_debug, get_extra_info, get_loop, get_pid, _get_snapshot, getaddrinfo,
    getpeername, getsockname, gettimeout, handle, high, info, _ioxide_core, is_closed, is_closing,
    extend, find, _maybe_resume_transport, readline, readuntil, _wait_for_data, _wakeup_waiter,
    can_write_eof, create_connection, create_server, create_unix_connection, create_unix_server,
    _drain_helper, feed_data, feed_eof, _get_close_waiter, set_transport, writelines, write_eof,
    is_running, _iterating, join, listen, _log_subprocess, _loop, low, lower, _make_read_pipe_transport,
    _make_socket_transport, _make_ssl_transport, _make_subprocess_transport, _make_write_pipe_transport,
    datagram_received, error_received, _make_datagram_transport,
    max_workers, message, __module__, msg, name, pause_writing, peername, pipe, pop, _process_exited, proto,
    protocol, remove_done_callback, remove_signal_handler, result, resume_writing, _run, run,
    run_in_executor, _sendfile_compatible, sendto, server, server_hostname, server_side, set_exception,
    set_name, set_result, set_running_or_notify_cancel, set_wakeup_fd, _set_write_buffer_limits, setblocking, __setitem__, setsockopt,
    shutdown, signal, _signal_handlers, __slots__, sock_connect, socket, sockname, source,
    _source_traceback, source_traceback, ssl_handshake_timeout, ssl_shutdown_timeout, start, _start_reading,
    _start_serving, _start_tls_compatible, _start_watching, _stop_serving, submit, target, task,
    thread_name_prefix, throw, time, transport, _transports, type_name as "type", eager_start, uncancel, unlink, value,
    _wait, wait, wait_closed, waiter, warning, write,
    _buffer, clear, _incoming, _msg_callback, _sslobj, _stream_reader, _check_handshake_timeout, _check_shutdown_timeout, cipher, compression, do_handshake, _do_read, _force_close, getpeercert, pause_reading, peercert, pending, read, resume_reading, _resume_tls_reading, set_protocol, sslcontext, ssl_object, unwrap, wrap_bio,
    acquire, append, __context__, _get, _init, locked, _notify, popleft, _put, release, remove, set,
    fallback, mode, readinto, _reset_empty_waiter, _make_empty_waiter, seek, sock_sendall,
    connect_read_pipe, connect_write_pipe, disconnected, kill, pid, pipe_connection_lost, pipe_data_received, poll,
    process_exited, returncode, send_signal, stderr, stdin, stdout, subprocess, terminate, _child_created,
    _close_pipe_fds, _connect_pipes, _execute_child,
    sock_sendfile, _sendfile_native, _sendfile_fallback, _sock_sendfile_native, _sock_sendfile_fallback, _sock_fd, _sock, is_reading,
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
