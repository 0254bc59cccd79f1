//! `SocketRef` against the kernel: loopback TCP and UDP, Unix sockets, and its errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use ioxide_io::{AddressKind, Connection, SocketAddress, SocketRef};

fn borrowed(owner: &impl AsRawFd) -> SocketRef {
    SocketRef::new(owner.as_raw_fd())
}

fn new_socket(domain: i32, kind: i32) -> OwnedFd {
    // SAFETY: the call takes no pointer.
    let descriptor = unsafe { libc::socket(domain, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    assert!(descriptor >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just opened `descriptor` and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn receive(socket: SocketRef) -> io::Result<Vec<u8>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 64];
    let count = socket.receive(&mut buffer)?;
    // SAFETY: the first `count` bytes have been received.
    Ok(buffer[..count].iter().map(|byte| unsafe { byte.assume_init() }).collect())
}

/// Waits until `socket` has the given poll events, at most ten seconds.
fn wait_for(socket: SocketRef, events: i16) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: `poll` is one valid pollfd.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 10_000) }, 1, "nothing happened for ten seconds");
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_tcp_connection_from_connect_to_its_end() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listening = borrowed(&listener);
    assert!(listening.is_listening().unwrap());
    assert_eq!(kind(listening.accept()), Some(io::ErrorKind::WouldBlock));

    let client = new_socket(libc::AF_INET, libc::SOCK_STREAM);
    let client_socket = borrowed(&client);
    let server_address = listening.local_address().unwrap();
    if client_socket.connect(&server_address).unwrap() == Connection::InProgress {
        wait_for(client_socket, libc::POLLOUT);
    }
    assert!(client_socket.take_error().unwrap().is_none());
    assert_eq!(client_socket.peer_address().unwrap(), server_address);

    wait_for(listening, libc::POLLIN);
    let (accepted, peer) = listening.accept().unwrap();
    let accepted = borrowed(&accepted);
    assert_eq!(peer, client_socket.local_address().unwrap());
    assert!(accepted.is_nonblocking().unwrap());
    assert!(!accepted.is_listening().unwrap());
    // SAFETY: the call takes no pointer.
    assert_eq!(unsafe { libc::fcntl(accepted.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);

    assert_eq!(kind(receive(accepted)), Some(io::ErrorKind::WouldBlock));
    assert_eq!(client_socket.send(b"one ").unwrap(), 4);
    assert_eq!(client_socket.send_vectored(&[IoSlice::new(b"two "), IoSlice::new(b"three")]).unwrap(), 9);
    client_socket.shutdown_write().unwrap();
    let mut bytes = Vec::new();
    loop {
        wait_for(accepted, libc::POLLIN);
        match receive(accepted).unwrap() {
            piece if piece.is_empty() => break,
            piece => bytes.extend(piece),
        }
    }
    assert_eq!(bytes, b"one two three");
    assert_eq!(errno(client_socket.send(b"x")), Some(libc::EPIPE));
}

#[test]
fn a_refused_connection_is_told_once() {
    // A bound socket that does not listen keeps the port from everybody else.
    let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = borrowed(&bound).local_address().unwrap();
    let client = new_socket(libc::AF_INET, libc::SOCK_STREAM);
    let socket = borrowed(&client);
    let refused = match socket.connect(&address) {
        Ok(Connection::Established) => panic!("somebody listens on a port that was free"),
        Ok(Connection::InProgress) => {
            wait_for(socket, libc::POLLOUT);
            let error = socket.take_error().unwrap();
            assert!(socket.take_error().unwrap().is_none());
            error.and_then(|error| error.raw_os_error())
        }
        Err(error) => error.raw_os_error(),
    };
    assert_eq!(refused, Some(libc::ECONNREFUSED));
    assert_eq!(errno(socket.peer_address()), Some(libc::ENOTCONN));
    assert_eq!(errno(socket.shutdown_write()), Some(libc::ENOTCONN));
}

#[test]
fn a_full_unix_backlog_is_would_block_and_a_missing_path_an_error() {
    let folder = std::env::temp_dir().join(format!("ioxide-io-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("backlog");
    let address = SocketAddress::unix(path.as_os_str().as_encoded_bytes()).unwrap();
    let connect = || {
        let client = new_socket(libc::AF_UNIX, libc::SOCK_STREAM);
        let outcome = borrowed(&client).connect(&address);
        (client, outcome)
    };
    assert_eq!(errno(connect().1), Some(libc::ENOENT));
    let listener = UnixListener::bind(&path).unwrap();
    let name = borrowed(&listener).local_address().unwrap();
    assert_eq!(name.kind(), AddressKind::UnixPath(path.as_os_str().as_encoded_bytes()));
    // SAFETY: the call takes no pointer. A second `listen` changes the backlog, here to the smallest.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let (_first, outcome) = connect();
    assert_eq!(outcome.unwrap(), Connection::Established);
    let (_second, outcome) = connect();
    assert_eq!(kind(outcome), Some(io::ErrorKind::WouldBlock));
    let (_accepted, peer) = borrowed(&listener).accept().unwrap();
    assert_eq!(peer.kind(), AddressKind::UnixUnnamed);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn datagrams_know_their_senders() {
    let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let second = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 16];
    // S1: the sockets are in blocking mode, and the call does not block.
    assert_eq!(kind(borrowed(&second).receive_from(&mut buffer)), Some(io::ErrorKind::WouldBlock));
    let target = borrowed(&second).local_address().unwrap();
    assert_eq!(borrowed(&first).send_to(b"hello", &target).unwrap(), 5);
    wait_for(borrowed(&second), libc::POLLIN);
    let (count, sender) = borrowed(&second).receive_from(&mut buffer).unwrap();
    assert_eq!((count, sender), (5, borrowed(&first).local_address().unwrap()));
    assert_eq!(errno(borrowed(&first).send_to(&[0; 70_000], &target)), Some(libc::EMSGSIZE));

    let (near, far) = UnixDatagram::pair().unwrap();
    far.send(b"x").unwrap();
    let (count, sender) = borrowed(&near).receive_from(&mut buffer).unwrap();
    assert_eq!(count, 1);
    assert!(matches!(sender.kind(), AddressKind::Absent | AddressKind::UnixUnnamed), "{sender:?}");
}

#[test]
fn an_abstract_name_is_bound_and_shown() {
    let socket = new_socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    let name = format!("\0ioxide-io-{}", std::process::id());
    let address = SocketAddress::unix(name.as_bytes()).unwrap();
    let (raw, length) = address.as_raw();
    // SAFETY: `raw` is readable for `length` bytes.
    assert_eq!(unsafe { libc::bind(socket.as_raw_fd(), raw, length) }, 0);
    let local = borrowed(&socket).local_address().unwrap();
    assert_eq!(local.kind(), AddressKind::UnixAbstract(name.as_bytes()));
}

#[test]
fn options_reach_the_kernel() {
    let socket_fd = new_socket(libc::AF_INET6, libc::SOCK_STREAM);
    let socket = borrowed(&socket_fd);
    assert_eq!(socket.domain().unwrap(), libc::AF_INET6);
    assert_eq!(socket.socket_type().unwrap(), libc::SOCK_STREAM);
    assert_eq!(socket.protocol().unwrap(), libc::IPPROTO_TCP);
    let read = |level, name| {
        let mut value: libc::c_int = -1;
        let mut length = 4;
        // SAFETY: `value` has room for the four bytes that are asked for.
        let result = unsafe {
            libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &mut length)
        };
        assert_eq!(result, 0);
        value != 0
    };
    for enabled in [true, false] {
        socket.set_nodelay(enabled).unwrap();
        assert_eq!(read(libc::IPPROTO_TCP, libc::TCP_NODELAY), enabled);
        socket.set_reuse_address(enabled).unwrap();
        assert_eq!(read(libc::SOL_SOCKET, libc::SO_REUSEADDR), enabled);
        socket.set_reuse_port(enabled).unwrap();
        assert_eq!(read(libc::SOL_SOCKET, libc::SO_REUSEPORT), enabled);
        socket.set_keep_alive(enabled).unwrap();
        assert_eq!(read(libc::SOL_SOCKET, libc::SO_KEEPALIVE), enabled);
        socket.set_broadcast(enabled).unwrap();
        assert_eq!(read(libc::SOL_SOCKET, libc::SO_BROADCAST), enabled);
        socket.set_ipv6_only(enabled).unwrap();
        assert_eq!(read(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), enabled);
        socket.set_nonblocking(enabled).unwrap();
        assert_eq!(socket.is_nonblocking().unwrap(), enabled);
    }
}

#[test]
fn an_ipv6_address_is_shown_by_the_kernel_as_it_was_given() {
    let listener = match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(listener) => listener,
        // A machine without IPv6 has nothing to show.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return,
        Err(error) => panic!("{error}"),
    };
    let port = listener.local_addr().unwrap().port();
    let address = borrowed(&listener).local_address().unwrap();
    assert_eq!(address, SocketAddress::ipv6(Ipv6Addr::LOCALHOST, port, 0, 0));
    let client = new_socket(libc::AF_INET6, libc::SOCK_STREAM);
    if borrowed(&client).connect(&address).unwrap() == Connection::InProgress {
        wait_for(borrowed(&client), libc::POLLOUT);
    }
    assert!(borrowed(&client).take_error().unwrap().is_none());
}

#[test]
fn what_is_no_socket_is_the_kernels_error() {
    let nothing = SocketRef::new(-1);
    assert_eq!(errno(nothing.send(b"x")), Some(libc::EBADF));
    assert_eq!(errno(nothing.accept()), Some(libc::EBADF));
    assert_eq!(errno(nothing.is_nonblocking()), Some(libc::EBADF));
    let (reader, _writer) = io::pipe().unwrap();
    assert_eq!(errno(receive(borrowed(&reader))), Some(libc::ENOTSOCK));
    assert_eq!(errno(borrowed(&reader).take_error()), Some(libc::ENOTSOCK));
}

#[test]
fn a_full_blocking_socket_does_not_block_the_sender() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let chunk = vec![7u8; 1 << 16];
    let mut sent = 0;
    let error = loop {
        match borrowed(&near).send(&chunk) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(near);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), sent);
}

#[test]
fn a_reset_by_the_peer_is_an_error_of_the_receiver() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"unread").unwrap();
    wait_for(borrowed(&client), libc::POLLIN);
    // Closing with unread data in the buffer resets the connection.
    drop(client);
    wait_for(borrowed(&server), libc::POLLIN);
    assert_eq!(errno(receive(borrowed(&server))), Some(libc::ECONNRESET));
}
