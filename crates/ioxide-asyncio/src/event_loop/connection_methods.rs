//! What Python sees of the loop's connections and servers: the methods of `connect`, `attempt`, `resolve`, `serve`,
//! `serve_unix` and `accept`, with the signatures of the running Python version.

use super::EventLoop;
use ioxide_cpython::functions::coroutine_method;
use ioxide_cpython::methods::{Definition, documented, method, method1};
use ioxide_cpython::version::CLEANUP_SOCKET;

pub(super) fn definitions() -> Vec<Definition> {
    let mut methods = clients();
    methods.extend(servers());
    methods.extend(files());
    methods.extend(private());
    methods
}

fn clients() -> Vec<Definition> {
    vec![
        documented(
            coroutine_method(c"create_connection", EventLoop::create_connection),
                                c"create_connection($self, protocol_factory, host=None, port=None, *, ssl=None, family=0, \
                      proto=0, flags=0, sock=None, local_addr=None, server_hostname=None, \
                      ssl_handshake_timeout=None, ssl_shutdown_timeout=None, happy_eyeballs_delay=None, \
                      interleave=None, all_errors=False)\n--\n\n\
                      Connects to a TCP server: a transport and its protocol. Times are in seconds.",
        ),
        documented(
            coroutine_method(c"create_unix_connection", EventLoop::create_unix_connection),
            c"create_unix_connection($self, protocol_factory, path=None, *, ssl=None, sock=None, \
              server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)\n--\n\n\
              Connects to a server's Unix socket: a transport and its protocol. Times are in seconds.",
        ),
        documented(
            coroutine_method(c"connect_accepted_socket", EventLoop::connect_accepted_socket),
            c"connect_accepted_socket($self, protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None, \
              ssl_shutdown_timeout=None)\n--\n\n\
              A transport and its protocol for a connection that was accepted elsewhere. Times are in seconds.",
        ),
    ]
}

fn servers() -> Vec<Definition> {
    vec![
        documented(
            coroutine_method(c"create_server", EventLoop::create_server),
                                c"create_server($self, protocol_factory, host=None, port=None, *, family=0, flags=1, sock=None, \
                      backlog=100, ssl=None, reuse_address=None, reuse_port=None, keep_alive=None, \
                      ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True)\n--\n\n\
                      A Server that listens on TCP sockets. `backlog` counts connections that wait to be accepted.",
        ),
        documented(
            coroutine_method(c"create_unix_server", EventLoop::create_unix_server),
            match CLEANUP_SOCKET {
                false => {
                    c"create_unix_server($self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, \
                      ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, \
                      cleanup_socket=False)\n--\n\n\
                      A Server that listens on a Unix socket, whose file stays unless told otherwise."
                }
                true => {
                    c"create_unix_server($self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, \
                      ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, \
                      cleanup_socket=True)\n--\n\n\
                      A Server that listens on a Unix socket, whose file goes with it unless told otherwise."
                }
            },
        ),
    ]
}

fn files() -> Vec<Definition> {
    vec![
        documented(
            coroutine_method(c"sendfile", EventLoop::sendfile),
            c"sendfile($self, transport, file, offset=0, count=None, *, fallback=True)\n--\n\n\
              Sends a file through a transport and returns how many bytes: `count` at most, from `offset` on.",
        ),
        documented(
            coroutine_method(c"sock_sendfile", EventLoop::sock_sendfile),
            c"sock_sendfile($self, sock, file, offset=0, count=None, *, fallback=True)\n--\n\n\
              Sends a file through a socket and returns how many bytes: `count` at most, from `offset` on.",
        ),
        coroutine_method(c"_sendfile_native", EventLoop::sendfile_native),
        coroutine_method(c"_sendfile_fallback", EventLoop::sendfile_fallback),
        coroutine_method(c"_sock_sendfile_native", EventLoop::sock_sendfile_native),
        coroutine_method(c"_sock_sendfile_fallback", EventLoop::sock_sendfile_fallback),
        method(c"_check_sendfile_params", EventLoop::check_sendfile_parameters),
    ]
}

/// What asyncio's own code and programs that know it call.
fn private() -> Vec<Definition> {
    vec![
        coroutine_method(c"_ensure_resolved", EventLoop::ensure_resolved),
        coroutine_method(c"_connect_sock", EventLoop::connect_socket),
        coroutine_method(c"_create_connection_transport", EventLoop::create_connection_transport),
        coroutine_method(c"_create_server_getaddrinfo", EventLoop::create_server_addresses),
        method(c"_start_serving", EventLoop::start_serving),
        method1(c"_stop_serving", EventLoop::stop_serving),
        method(c"_make_socket_transport", crate::transports::make_socket_transport),
    ]
}
