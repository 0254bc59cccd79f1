//! `sock_recv`, `sock_sendall`, `sock_connect`, `sock_accept` and their kin: one try at once, then one
//! try each time the descriptor is ready, with one future however often that is.
//!
//! Invariants:
//! S1. An operation is attempted on the loop's thread only and never after its future is done.
//! S2. The descriptor belongs to the caller's socket: nothing here closes one, but accepted ones until their socket
//!     object exists.

use super::{Direction, EventLoop, Watcher};
use crate::addresses;
use crate::futures;
use ioxide_cpython::buffer::Buffer;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::types::Native;
use ioxide_cpython::value::{bytes_filled_by, integer, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, boolean, builtin, imports, names, none, none_object};
use ioxide_io::{Connection, SocketRef};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

/// A try: `None` while the kernel would block.
type Attempt = Box<dyn FnMut() -> Result<Option<Object>>>;

/// Something to be tried whenever its descriptor is ready, until it comes to a result.
pub struct Operation {
    future: Object,
    attempt: RefCell<Option<Attempt>>,
}

impl Operation {
    /// The descriptor is ready. Fails: never but for what setting the future's result fails with.
    pub fn attempt(&self) -> Result<()> {
        let Some(future) =
            crate::futures::Future::from_any(&self.future).filter(|future| future.is_pending())
        else {
            return Ok(());
        };
        let Some(mut attempt) = self.attempt.borrow_mut().take() else { return Ok(()) };
        match attempt() {
            Ok(None) => {
                *self.attempt.borrow_mut() = Some(attempt);
                Ok(())
            }
            Ok(Some(value)) => futures::set_result(future, &value),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => futures::set_exception(future, &raised.take()),
        }
    }
}

/// What the body of a `sock_*` coroutine works with.
pub(super) struct Socket {
    event_loop: Object,
    pub(super) socket: Object,
    fd: RawFd,
}

impl Socket {
    /// Fails: ValueError for a blocking socket in debug mode, whatever `fileno` raises.
    pub(super) fn new(event_loop: &EventLoop, socket: &Any) -> Result<Socket> {
        if event_loop.is_debug() {
            let timeout = socket.call_method0(&names().gettimeout)?;
            if timeout.is_none() || timeout.is_true()? {
                return Err(Raised::value_error("the socket must be non-blocking"));
            }
        }
        let fd = socket.call_method0(&names().fileno)?.to_i32()?;
        Ok(Socket { event_loop: event_loop.to_object(), socket: socket.to_object(), fd })
    }

    fn event_loop(&self) -> Result<&EventLoop> {
        EventLoop::from_any(&self.event_loop).ok_or_else(|| Raised::runtime_error("the event loop is gone"))
    }

    /// One try now, then one at each readiness. On cancellation the descriptor is watched no more.
    pub(super) async fn retry(
        &self,
        direction: Direction,
        mut attempt: impl FnMut() -> Result<Option<Object>> + 'static,
    ) -> Result<Object> {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        self.wait(direction, Box::new(attempt)).await
    }

    async fn wait(&self, direction: Direction, attempt: Attempt) -> Result<Object> {
        let event_loop = self.event_loop()?;
        event_loop.check_not_in_use(&*integer(i64::from(self.fd))?)?;
        let future = futures::create(event_loop)?;
        let operation = Rc::new(Operation { future: future.clone(), attempt: RefCell::new(Some(attempt)) });
        let previous = event_loop.watch_operation(self.fd, direction, operation.clone(), &self.socket)?;
        drop(previous);
        let watching = Watching { socket: self, direction, operation };
        let outcome = wait_for(&future).await;
        drop(watching);
        outcome
    }
}

/// Ends the watch when the coroutine ends, however it does.
struct Watching<'a> {
    socket: &'a Socket,
    direction: Direction,
    operation: Rc<Operation>,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let Some(event_loop) = EventLoop::from_any(&self.socket.event_loop) else { return };
        match event_loop.unwatch(self.socket.fd, self.direction) {
            Some(Watcher::Operation(found)) if Rc::ptr_eq(&found, &self.operation) => {}
            // Somebody else's watcher by now: it goes back.
            Some(other) => {
                if let Err(raised) = event_loop.watch(self.socket.fd, self.direction, other) {
                    drop(raised.take());
                }
            }
            None => {}
        }
    }
}

/// `None` for WouldBlock.
fn unless_blocked<T>(outcome: io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(raise_os_error(&error)),
    }
}

/// A coroutine of the loop about a socket. Its body runs when it is awaited.
fn sock_coroutine<F>(
    name: &'static str,
    event_loop: &EventLoop,
    socket: &Any,
    body: impl FnOnce(Socket) -> F + 'static,
) -> Result<Object>
where
    F: Future<Output = Result<Object>>,
{
    let (event_loop, socket) = (event_loop.to_object(), socket.to_object());
    coroutine(name, async move {
        let native = EventLoop::from_any(&event_loop);
        let native = native.ok_or_else(|| Raised::runtime_error("the event loop is gone"))?;
        body(Socket::new(native, &socket)?).await
    })
}

/// The two arguments of most `sock_*` methods.
const fn two(function: &'static str, second: &'static str) -> Signature<2> {
    Signature { function, names: ["sock", second], required: 2, positional: 2 }
}

impl EventLoop {
    /// `await loop.sock_recv(sock, n)`: at most `n` bytes, empty at the end of the stream.
    pub fn sock_recv(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<2> = two("sock_recv", "n");
        let [socket, count] = SIGNATURE.bind(arguments)?;
        let count = count.unwrap_or(none()).to_object();
        sock_coroutine("sock_recv", self, socket.unwrap_or(none()), async move |socket: Socket| {
            let count = buffer_size(&count, "recv")?;
            let descriptor = SocketRef::new(socket.fd);
            let attempt = move || bytes_filled_by(count, |room| unless_blocked(descriptor.receive(room)));
            socket.retry(Direction::Read, attempt).await
        })
    }

    /// `await loop.sock_recv_into(sock, buf)`: how many bytes were received into `buf`.
    pub fn sock_recv_into(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<2> = two("sock_recv_into", "buf");
        let [socket, buffer] = SIGNATURE.bind(arguments)?;
        let buffer = buffer.unwrap_or(none()).to_object();
        sock_coroutine("sock_recv_into", self, socket.unwrap_or(none()), async move |socket: Socket| {
            let descriptor = SocketRef::new(socket.fd);
            let mut view = writable(&buffer, "recv_into")?;
            let attempt = move || match unless_blocked(descriptor.receive(view.as_uninitialized()))? {
                Some(count) => integer(count as i64).map(Some),
                None => Ok(None),
            };
            socket.retry(Direction::Read, attempt).await
        })
    }

    /// `await loop.sock_recvfrom(sock, bufsize)`: a datagram and where it came from.
    pub fn sock_recvfrom(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<2> = two("sock_recvfrom", "bufsize");
        let [socket, count] = SIGNATURE.bind(arguments)?;
        let count = count.unwrap_or(none()).to_object();
        sock_coroutine("sock_recvfrom", self, socket.unwrap_or(none()), async move |socket: Socket| {
            let count = buffer_size(&count, "recvfrom")?;
            let descriptor = SocketRef::new(socket.fd);
            let attempt = move || {
                let mut sender = None;
                let data = bytes_filled_by(count, |room| {
                    Ok(unless_blocked(descriptor.receive_from(room))?.map(|(count, address)| {
                        sender = Some(address);
                        count
                    }))
                })?;
                match (data, sender) {
                    (Some(data), Some(sender)) => {
                        tuple(&[&*data, &*addresses::to_python(&sender)?]).map(Some)
                    }
                    _ => Ok(None),
                }
            };
            socket.retry(Direction::Read, attempt).await
        })
    }

    /// `await loop.sock_recvfrom_into(sock, buf, nbytes=0)`: how many bytes, and where they came from.
    pub fn sock_recvfrom_into(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<3> = Signature {
            function: "sock_recvfrom_into",
            names: ["sock", "buf", "nbytes"],
            required: 2,
            positional: 3,
        };
        let [socket, buffer, limit] = SIGNATURE.bind(arguments)?;
        let buffer = buffer.unwrap_or(none()).to_object();
        let limit = limit.map_or(Ok(0), Any::to_i64)?;
        sock_coroutine("sock_recvfrom_into", self, socket.unwrap_or(none()), async move |socket: Socket| {
            let descriptor = SocketRef::new(socket.fd);
            let mut view = writable(&buffer, "recvfrom_into")?;
            let limit = match usize::try_from(limit) {
                Ok(0) => view.len(),
                Ok(limit) if limit <= view.len() => limit,
                Ok(_) => return Err(Raised::value_error("nbytes is greater than the length of the buffer")),
                Err(_) => return Err(Raised::value_error("negative buffersize in recvfrom_into")),
            };
            let attempt = move || {
                let room = &mut view.as_uninitialized()[..limit];
                match unless_blocked(descriptor.receive_from(room))? {
                    Some((count, sender)) => {
                        tuple(&[&*integer(count as i64)?, &*addresses::to_python(&sender)?]).map(Some)
                    }
                    None => Ok(None),
                }
            };
            socket.retry(Direction::Read, attempt).await
        })
    }

    /// `await loop.sock_sendall(sock, data)`
    pub fn sock_sendall(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<2> = two("sock_sendall", "data");
        let [socket, data] = SIGNATURE.bind(arguments)?;
        let data = data.unwrap_or(none()).to_object();
        sock_coroutine("sock_sendall", self, socket.unwrap_or(none()), async move |socket: Socket| {
            let descriptor = SocketRef::new(socket.fd);
            let view = Buffer::readable(&data)?;
            let mut sent = 0;
            let attempt = move || {
                let rest = view.as_slice().get(sent..).unwrap_or(&[]);
                if !rest.is_empty() {
                    sent += unless_blocked(descriptor.send(rest))?.unwrap_or(0);
                }
                Ok((sent >= view.len()).then(none_object))
            };
            socket.retry(Direction::Write, attempt).await
        })
    }

    /// `await loop.sock_sendto(sock, data, address)`: how many bytes were sent.
    pub fn sock_sendto(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<3> = Signature {
            function: "sock_sendto",
            names: ["sock", "data", "address"],
            required: 3,
            positional: 3,
        };
        let [socket, data, address] = SIGNATURE.bind(arguments)?;
        let data = data.unwrap_or(none()).to_object();
        let address = address.unwrap_or(none()).to_object();
        sock_coroutine("sock_sendto", self, socket.unwrap_or(none()), async move |socket: Socket| {
            // Python's own sendto reads every form of address there is.
            let sender = socket.socket.clone();
            let attempt = move || match sender.call_method(&names().sendto, &[&*data, &*address]) {
                Ok(count) => Ok(Some(count)),
                Err(raised) if would_block(&raised) => {
                    drop(raised.take());
                    Ok(None)
                }
                Err(raised) => Err(raised),
            };
            socket.retry(Direction::Write, attempt).await
        })
    }

    /// `await loop.sock_accept(sock)`: the connection's socket, non-blocking, and its peer's address.
    pub fn sock_accept(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<1> =
            Signature { function: "sock_accept", names: ["sock"], required: 1, positional: 1 };
        let [socket] = SIGNATURE.bind(arguments)?;
        sock_coroutine("sock_accept", self, socket.unwrap_or(none()), async move |socket: Socket| {
            let listener = socket.socket.clone();
            let descriptor = SocketRef::new(socket.fd);
            let attempt = move || match unless_blocked(descriptor.accept())? {
                Some((accepted, address)) => {
                    let connection = socket_of(&listener, accepted)?;
                    tuple(&[&*connection, &*addresses::to_python(&address)?]).map(Some)
                }
                None => Ok(None),
            };
            socket.retry(Direction::Read, attempt).await
        })
    }

    /// `await loop.sock_connect(sock, address)`; names in the address are resolved first.
    pub fn sock_connect(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<2> = two("sock_connect", "address");
        let [socket, address] = SIGNATURE.bind(arguments)?;
        let address = address.unwrap_or(none()).to_object();
        sock_coroutine("sock_connect", self, socket.unwrap_or(none()), async move |socket: Socket| {
            let event_loop = socket.event_loop()?;
            let address = match addresses::from_python(&socket.socket, &address)? {
                Some(address) => address,
                None => {
                    let resolved = wait_for(&*event_loop.resolve(&socket.socket, &address)?).await?;
                    addresses::from_python(&socket.socket, &resolved)?
                        .ok_or_else(|| Raised::value_error("the address could not be resolved"))?
                }
            };
            let descriptor = SocketRef::new(socket.fd);
            match descriptor.connect(&address) {
                Ok(Connection::Established) => return Ok(none_object()),
                Ok(Connection::InProgress) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(raise_os_error(&error)),
            }
            let attempt = move || match descriptor.take_error() {
                Ok(None) => Ok(Some(none_object())),
                Ok(Some(error)) => Err(addresses::raise_connect_error(&error, &address)),
                Err(error) => Err(raise_os_error(&error)),
            };
            socket.wait(Direction::Write, Box::new(attempt)).await
        })
    }
}

fn would_block(raised: &Raised) -> bool {
    raised.matches(builtin(ioxide_cpython::Builtin::BlockingIOError))
        || raised.matches(builtin(ioxide_cpython::Builtin::InterruptedError))
}

/// A buffer to receive into. Fails: TypeError, in the words of the socket module.
fn writable(buffer: &Any, function: &str) -> Result<Buffer> {
    Buffer::writable(buffer).map_err(|raised| {
        drop(raised.take());
        let shown = if buffer.is_none() { "None" } else { &ioxide_cpython::exception::type_name(buffer) };
        Raised::type_error(&format!(
            "{function}() argument 1 must be read-write bytes-like object, not {shown}"
        ))
    })
}

/// The size of a receive buffer. Fails: ValueError for a negative one, in the words of the socket module.
fn buffer_size(count: &Any, function: &str) -> Result<usize> {
    usize::try_from(count.to_i64()?)
        .map_err(|_| Raised::value_error(&format!("negative buffersize in {function}")))
}

/// A non-blocking socket object of the listener's kind that owns an accepted descriptor (S2).
pub fn socket_of(listener: &Any, accepted: OwnedFd) -> Result<Object> {
    let family = listener.get_attribute(&names().family)?;
    let kind = listener.get_attribute(&names().type_name)?;
    let protocol = listener.get_attribute(&names().proto)?;
    let number = integer(i64::from(accepted.as_raw_fd()))?;
    let socket = imports().socket.call(&[&*family, &*kind, &*protocol, &*number])?;
    // The socket object owns the descriptor from here on.
    let _ = accepted.into_raw_fd();
    socket.call_method1(&names().setblocking, &boolean(false))?;
    Ok(socket)
}
