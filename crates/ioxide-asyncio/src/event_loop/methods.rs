//! What Python sees of the loop: every native method by its name.

use super::{EventLoop, attributes};
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::methods::{
    Arguments, Attribute, attribute, documented, getter, method, method0, method1,
};
use ioxide_cpython::types::ShellDefinition;
use ioxide_cpython::version::EXECUTOR_SHUTDOWN_TAKES_TIMEOUT;
use ioxide_cpython::{Any, Raised, Result, imports};

pub fn definition() -> ShellDefinition {
    let mut methods = lifecycle();
    methods.extend(scheduling());
    methods.extend(descriptors());
    methods.extend(crate::sslproto::loop_methods());
    methods.extend(sockets());
    methods.extend(services());
    methods.extend(endpoints());
    methods.extend(super::connection_methods::definitions());
    ShellDefinition {
        name: c"EventLoop",
        bases: vec![imports().AbstractEventLoop.clone()],
        doc: "An event loop in Rust: asyncio's, to be used wherever one of asyncio's is.\n\n\
              Differs from asyncio in docs/differences.md only.",
        methods,
        attributes: own_attributes(),
        new: Some(method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| {
            match arguments.positional() {
                [class, ..] => EventLoop::create(class),
                [] => Err(Raised::type_error("EventLoop.__new__(): not enough arguments")),
            }
        })),
    }
}

fn lifecycle() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            method0(c"run_forever", EventLoop::run_forever),
            c"run_forever($self, /)\n--\n\nRuns until stop() is called.",
        ),
        documented(
            method(c"run_until_complete", |this: &EventLoop, arguments: Arguments<'_>| {
                this.run_until_complete(arguments.only("run_until_complete", "future")?)
            }),
            c"run_until_complete($self, future)\n--\n\nRuns until the future is done and returns its result.",
        ),
        documented(
            method0(c"stop", EventLoop::stop),
            c"stop($self, /)\n--\n\nStops the loop at the end of the current turn.",
        ),
        documented(method0(c"is_running", EventLoop::is_running), c"is_running($self, /)\n--\n\n"),
        documented(method0(c"is_closed", EventLoop::is_closed), c"is_closed($self, /)\n--\n\n"),
        documented(
            method0(c"close", EventLoop::close),
            c"close($self, /)\n--\n\nCloses the loop; it must not be running.",
        ),
        documented(method0(c"get_debug", EventLoop::get_debug), c"get_debug($self, /)\n--\n\n"),
        documented(
            method(c"set_debug", |this: &EventLoop, arguments: Arguments<'_>| {
                this.set_debug(arguments.only("set_debug", "enabled")?)
            }),
            c"set_debug($self, enabled)\n--\n\nTurns debug mode on or off.",
        ),
        method0(c"_check_closed", EventLoop::check_closed),
        method0(c"_check_thread", EventLoop::check_thread),
        method0(c"__del__", EventLoop::finalize),
        method0(c"__repr__", EventLoop::show),
        method(c"__setattr__", |this: &EventLoop, arguments: Arguments<'_>| match arguments.positional() {
            [name, value] => this.set_attribute_noticed(name, value),
            _ => Err(Raised::type_error("expected 2 arguments")),
        }),
        method1(c"__delattr__", EventLoop::delete_attribute_noticed),
        method0(c"_check_running", EventLoop::check_running),
        method0(c"_write_to_self", EventLoop::wake),
    ]
}

fn scheduling() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            method0(c"time", EventLoop::time),
            c"time($self, /)\n--\n\nThe loop's clock in seconds: time.monotonic().",
        ),
        documented(
            method(c"call_soon", EventLoop::call_soon),
            c"call_soon($self, callback, *args, context=None)\n--\n\nCalls the callback in the next turn.",
        ),
        documented(
            method(c"call_soon_threadsafe", EventLoop::call_soon_threadsafe),
            c"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n\
              call_soon() for other threads and for signal handlers.",
        ),
        documented(
            method(c"call_later", EventLoop::call_later),
            c"call_later($self, delay, callback, *args, context=None)\n--\n\n\
              Calls the callback `delay` seconds from now, never earlier.",
        ),
        documented(
            method(c"call_at", EventLoop::call_at),
            c"call_at($self, when, callback, *args, context=None)\n--\n\n\
              Calls the callback when time() has reached `when`, never earlier.",
        ),
        documented(method0(c"create_future", EventLoop::create_future), c"create_future($self, /)\n--\n\n"),
        documented(
            method(c"create_task", EventLoop::create_task),
            c"create_task($self, coro, **kwargs)\n--\n\nRuns the coroutine as a task.",
        ),
        documented(
            method(c"set_task_factory", |this: &EventLoop, arguments: Arguments<'_>| {
                this.set_task_factory(arguments.only("set_task_factory", "factory")?)
            }),
            c"set_task_factory($self, factory)\n--\n\n",
        ),
        documented(
            method0(c"get_task_factory", EventLoop::get_task_factory),
            c"get_task_factory($self, /)\n--\n\n",
        ),
        method1(c"_timer_handle_cancelled", EventLoop::timer_handle_cancelled),
        documented(
            coroutine_method(c"getaddrinfo", EventLoop::getaddrinfo),
            c"getaddrinfo($self, host, port, *, family=0, type=0, proto=0, flags=0)\n--\n\n",
        ),
        documented(
            coroutine_method(c"getnameinfo", EventLoop::getnameinfo),
            c"getnameinfo($self, sockaddr, flags=0)\n--\n\n",
        ),
    ]
}

fn descriptors() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            method(c"add_reader", EventLoop::add_reader),
            c"add_reader($self, fd, callback, *args)\n--\n\nCalls the callback whenever fd is readable.",
        ),
        documented(
            method(c"add_writer", EventLoop::add_writer),
            c"add_writer($self, fd, callback, *args)\n--\n\nCalls the callback whenever fd is writable.",
        ),
        documented(
            method(c"remove_reader", |this: &EventLoop, arguments: Arguments<'_>| {
                this.remove_reader(arguments.only("remove_reader", "fd")?)
            }),
            c"remove_reader($self, fd)\n--\n\n",
        ),
        documented(
            method(c"remove_writer", |this: &EventLoop, arguments: Arguments<'_>| {
                this.remove_writer(arguments.only("remove_writer", "fd")?)
            }),
            c"remove_writer($self, fd)\n--\n\n",
        ),
        method(c"_add_reader", EventLoop::add_reader_unchecked),
        method(c"_add_writer", EventLoop::add_writer_unchecked),
        method1(c"_remove_reader", EventLoop::remove_reader_unchecked),
        method1(c"_remove_writer", EventLoop::remove_writer_unchecked),
        method1(c"_ensure_fd_no_transport", EventLoop::check_not_in_use),
        method1(c"_stop_serving", EventLoop::stop_serving),
        method(c"_make_socket_transport", crate::transports::make_socket_transport),
    ]
}

fn sockets() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            coroutine_method(c"sock_recv", EventLoop::sock_recv),
            c"sock_recv($self, sock, n)\n--\n\n",
        ),
        documented(
            coroutine_method(c"sock_recv_into", EventLoop::sock_recv_into),
            c"sock_recv_into($self, sock, buf)\n--\n\n",
        ),
        documented(
            coroutine_method(c"sock_recvfrom", EventLoop::sock_recvfrom),
            c"sock_recvfrom($self, sock, bufsize)\n--\n\n",
        ),
        documented(
            coroutine_method(c"sock_recvfrom_into", EventLoop::sock_recvfrom_into),
            c"sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\n",
        ),
        documented(
            coroutine_method(c"sock_sendall", EventLoop::sock_sendall),
            c"sock_sendall($self, sock, data)\n--\n\n",
        ),
        documented(
            coroutine_method(c"sock_sendto", EventLoop::sock_sendto),
            c"sock_sendto($self, sock, data, address)\n--\n\n",
        ),
        documented(
            coroutine_method(c"sock_accept", EventLoop::sock_accept),
            c"sock_accept($self, sock)\n--\n\n",
        ),
        documented(
            coroutine_method(c"sock_connect", EventLoop::sock_connect),
            c"sock_connect($self, sock, address)\n--\n\n",
        ),
    ]
}

/// Threads, asynchronous generators, exceptions, signals.
fn services() -> Vec<ioxide_cpython::methods::Definition> {
    let mut methods = vec![
        documented(
            method(c"run_in_executor", EventLoop::run_in_executor),
            c"run_in_executor($self, executor, func, *args)\n--\n\n\
              Calls func(*args) in the executor, None for the default one, and returns a future of the result.",
        ),
        documented(
            method(c"set_default_executor", |this: &EventLoop, arguments: Arguments<'_>| {
                this.set_default_executor(arguments.only("set_default_executor", "executor")?)
            }),
            c"set_default_executor($self, executor)\n--\n\n",
        ),
        documented(
            coroutine_method(c"shutdown_default_executor", EventLoop::shutdown_default_executor),
            match EXECUTOR_SHUTDOWN_TAKES_TIMEOUT {
                true => {
                    c"shutdown_default_executor($self, timeout=None)\n--\n\n\
                      Waits for the threads of the default executor, at most `timeout` seconds."
                }
                false => {
                    c"shutdown_default_executor($self)\n--\n\nWaits for the threads of the default executor."
                }
            },
        ),
        method1(c"_do_shutdown", EventLoop::do_shutdown),
        method0(c"_check_default_executor", EventLoop::check_default_executor),
        documented(
            coroutine_method0(c"shutdown_asyncgens", EventLoop::shutdown_asyncgens),
            c"shutdown_asyncgens($self)\n--\n\nCloses all asynchronous generators that are alive.",
        ),
        method1(c"_asyncgen_firstiter_hook", EventLoop::on_asyncgen_begun),
        method1(c"_asyncgen_finalizer_hook", EventLoop::on_asyncgen_dropped),
        method(c"_check_callback", |_this: &EventLoop, arguments: Arguments<'_>| match arguments.positional() {
            [callback, function] => super::schedule::check_callback(callback, function.to_text()?.as_str()),
            _ => Err(Raised::type_error("_check_callback expected 2 arguments")),
        }),
    ];
    methods.extend(processes());
    methods.extend(exceptions_and_signals());
    methods
}

fn processes() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            coroutine_method(c"subprocess_exec", EventLoop::subprocess_exec),
            c"subprocess_exec($self, protocol_factory, program, *args, stdin=-1, stdout=-1, stderr=-1, \
              universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, **kwargs)\n--\n\n\
              Starts a program and returns its transport and protocol. The keywords are subprocess.Popen's.",
        ),
        documented(
            coroutine_method(c"subprocess_shell", EventLoop::subprocess_shell),
            c"subprocess_shell($self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, \
              universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs)\n--\n\n\
              Starts a command of the shell and returns its transport and protocol.",
        ),
        documented(
            coroutine_method(c"_make_subprocess_transport", EventLoop::make_subprocess_transport),
            c"_make_subprocess_transport($self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None, \
              **kwargs)\n--\n\n",
        ),
        method(c"_child_watcher_callback", EventLoop::on_child_ended),
        method(c"_log_subprocess", EventLoop::log_subprocess),
    ]
}

fn exceptions_and_signals() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            method0(c"get_exception_handler", EventLoop::get_exception_handler),
            c"get_exception_handler($self, /)\n--\n\nThe handler, or None while the default one is in use.",
        ),
        documented(
            method(c"set_exception_handler", |this: &EventLoop, arguments: Arguments<'_>| {
                this.set_exception_handler(arguments.only("set_exception_handler", "handler")?)
            }),
            c"set_exception_handler($self, handler)\n--\n\n\
              Has handler(loop, context) called for what nobody catches; None for the default one.",
        ),
        documented(
            method(c"default_exception_handler", |this: &EventLoop, arguments: Arguments<'_>| {
                this.default_exception_handler(arguments.only("default_exception_handler", "context")?)
            }),
            c"default_exception_handler($self, context)\n--\n\nLogs the report to the `asyncio` logger.",
        ),
        documented(
            method(c"call_exception_handler", |this: &EventLoop, arguments: Arguments<'_>| {
                this.call_exception_handler(arguments.only("call_exception_handler", "context")?)
            }),
            c"call_exception_handler($self, context)\n--\n\nReports to the handler in use.",
        ),
        documented(
            method(c"add_signal_handler", EventLoop::add_signal_handler),
            c"add_signal_handler($self, sig, callback, *args)\n--\n\n\
              Has the callback called by the loop when the signal arrives. Main thread only.",
        ),
        documented(
            method(c"remove_signal_handler", |this: &EventLoop, arguments: Arguments<'_>| {
                this.remove_signal_handler(arguments.only("remove_signal_handler", "sig")?)
            }),
            c"remove_signal_handler($self, sig)\n--\n\nWhether there was a handler to remove.",
        ),
        method1(c"_check_signal", EventLoop::check_signal),
        method1(c"_handle_signal", EventLoop::handle_signal),
        method0(c"_read_from_self", EventLoop::read_signals),
        method1(c"_process_self_data", EventLoop::process_signals),
        method1(c"_add_callback", EventLoop::add_callback),
        method1(c"_add_callback_signalsafe", EventLoop::add_callback_signalsafe),
    ]
}

fn endpoints() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            coroutine_method(c"connect_read_pipe", EventLoop::connect_read_pipe),
            c"connect_read_pipe($self, protocol_factory, pipe)\n--\n\n\
              Reads from a pipe, FIFO, socket or character device, which the transport closes. \
              ValueError for other files.",
        ),
        documented(
            coroutine_method(c"connect_write_pipe", EventLoop::connect_write_pipe),
            c"connect_write_pipe($self, protocol_factory, pipe)\n--\n\n\
              Writes to a pipe, FIFO, socket or character device, which the transport closes. \
              ValueError for other files.",
        ),
        documented(
            coroutine_method(c"create_datagram_endpoint", EventLoop::create_datagram_endpoint),
            c"create_datagram_endpoint($self, protocol_factory, local_addr=None, remote_addr=None, *, family=0, \
              proto=0, flags=0, reuse_port=None, allow_broadcast=None, sock=None)\n--\n\n\
              Opens a socket of datagrams. ValueError and TypeError for addresses and options that do not fit, \
              OSError as the kernel says.",
        ),
        method(c"_make_datagram_transport", crate::transports::make_datagram_transport),
        method(c"_make_read_pipe_transport", crate::transports::make_read_pipe_transport),
        method(c"_make_write_pipe_transport", crate::transports::make_write_pipe_transport),
    ]
}

impl EventLoop {
    /// `loop._thread_id`: the thread that runs the loop, or None.
    fn thread_number(&self) -> Result<ioxide_cpython::Object> {
        match self.core().thread.get() {
            0 => Ok(ioxide_cpython::none_object()),
            thread => ioxide_cpython::value::integer(thread as i64),
        }
    }
}

fn own_attributes() -> Vec<Attribute> {
    let mut attributes = attributes::definitions();
    attributes.extend([
        attribute(c"_debug", EventLoop::get_debug, |this: &EventLoop, value: Option<&Any>| match value {
            Some(value) => this.set_debug(value),
            None => Err(Raised::type_error("cannot delete attribute")),
        }),
        getter(c"_closed", EventLoop::is_closed),
        getter(c"_thread_id", EventLoop::thread_number),
        getter(c"_stopping", |this: &EventLoop| this.core().stopping.get()),
        getter(c"_csock", EventLoop::signal_writer),
        getter(c"_ssock", EventLoop::signal_reader),
        getter(c"_internal_fds", EventLoop::count_internal_descriptors),
    ]);
    attributes
}
