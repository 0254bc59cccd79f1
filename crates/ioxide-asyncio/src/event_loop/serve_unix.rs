//! `create_unix_server`, and the end of listening sockets with the file of a Unix socket.

use super::EventLoop;
use super::connect::{Security, check_unix_socket, new_unix_socket};
use super::modules::unix_os;
use super::owned::ClosedUnlessKept;
use super::serve::Service;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::coroutine;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::version::CLEANUP_SOCKET;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, boolean, builtin, imports, names, none};

const CREATE_UNIX_SERVER: Signature<9> = Signature {
    function: "create_unix_server",
    names: [
        "protocol_factory",
        "path",
        "sock",
        "backlog",
        "ssl",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
        "start_serving",
        "cleanup_socket",
    ],
    required: 1,
    positional: 2,
};

impl EventLoop {
    /// `await loop.create_unix_server(protocol_factory, path=None, *, sock=None, backlog=100, …)`
    pub fn create_unix_server(&self, arguments: Arguments<'_>) -> Result<Object> {
        let bound = CREATE_UNIX_SERVER.bind(arguments)?;
        let value = |index: usize| bound[index].unwrap_or(none()).to_object();
        let flag = |index: usize, default| bound[index].map_or_else(|| boolean(default), Any::to_object);
        let (path, socket, cleanup_socket) = (value(1), value(2), flag(8, CLEANUP_SOCKET));
        let service = Service {
            event_loop: self.to_object(),
            protocol_factory: value(0),
            ssl: value(4),
            backlog: bound[3]
                .map_or_else(|| integer(super::serve::BACKLOG), |value| Ok(value.to_object()))?,
            handshake_timeout: value(5),
            shutdown_timeout: value(6),
            start_serving: flag(7, true),
        };
        coroutine("create_unix_server", async move {
            service.check_ssl()?;
            let is_secure = service.ssl.is_true()?;
            Security::check_timeouts(is_secure, &service.handshake_timeout, &service.shutdown_timeout)?;
            let socket = bound_socket(&path, &socket)?;
            if cleanup_socket.is_true()? {
                note_file(&service.event_loop, socket.object())?;
            }
            service.open(vec![socket]).await
        })
    }

    /// `loop._stop_serving(sock)`: from 3.13 on the file of a Unix socket goes with it, if it is still the same one.
    pub fn stop_serving(&self, socket: &Any) -> Result<()> {
        let sockets = self.get_attribute_str(c"_unix_server_sockets")?;
        let file = sockets.dict_get(socket)?;
        let path = match &file {
            Some(_) => Some(socket.call_method0(&names().getsockname)?),
            None => None,
        };
        self.remove_reader_unchecked(&*socket.call_method0(&names().fileno)?)?;
        socket.call_method0(&names().close)?;
        if let (Some(inode), Some(path)) = (file, path) {
            sockets.dict_delete(socket)?;
            if let Err(raised) = unlink_if_same(&path, &inode) {
                log_file_error(raised, "Unable to clean up listening UNIX socket %r: %r", &path)?;
            }
        }
        Ok(())
    }
}

/// A socket bound to the path, or the one that was given.
fn bound_socket(path: &Any, given: &Any) -> Result<ClosedUnlessKept> {
    if path.is_none() {
        if given.is_none() {
            return Err(Raised::value_error("path was not specified, and no sock specified"));
        }
        check_unix_socket(given)?;
        let given = ClosedUnlessKept::new(given.to_object());
        given.keep();
        return Ok(given);
    }
    if !given.is_none() {
        return Err(Raised::value_error("path and sock can not be specified at the same time"));
    }
    let path = unix_os()?.get_attribute_str(c"fspath")?.call1(path)?;
    let socket = ClosedUnlessKept::new(new_unix_socket()?);
    if !is_abstract(&path)?
        && let Err(raised) = remove_if_stale(&path)
    {
        // The directory may allow to make sockets and nothing else.
        log_file_error(raised, "Unable to check or remove stale UNIX socket %r: %r", &path)?;
    }
    match socket.object().call_method1(&names().bind, &path) {
        Ok(_) => Ok(socket),
        Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
            let error = raised.take();
            let in_use = integer(i64::from(libc::EADDRINUSE))?;
            if !error.get_attribute_str(c"errno")?.equals(&in_use)? {
                return Err(Raised::exception(error));
            }
            let message = text(&format!("Address {} is already in use", path.repr()?.to_text()?.as_str()))?;
            Err(Raised::exception(builtin(Builtin::OSError).call(&[&*in_use, &*message])?))
        }
        Err(raised) => Err(raised),
    }
}

/// Whether a path names no file. Fails: IndexError for an empty one.
fn is_abstract(path: &Any) -> Result<bool> {
    let first = path.get_item(&*integer(0)?)?;
    Ok(first.equals(&*integer(0)?)? || first.equals(&*text("\0")?)?)
}

/// What a server that is gone has left behind would be in the way.
fn remove_if_stale(path: &Any) -> Result<()> {
    let os = unix_os()?;
    let mode = os.call_method1(&*text("stat")?, path)?.get_attribute_str(c"st_mode")?;
    if import(c"stat")?.get_attribute_str(c"S_ISSOCK")?.call1(&mode)?.is_true()? {
        os.call_method1(&*text("remove")?, path)?;
    }
    Ok(())
}

/// Notes the file of a listening socket, which `_stop_serving` removes.
fn note_file(event_loop: &Any, socket: &Any) -> Result<()> {
    let path = socket.call_method0(&names().getsockname)?;
    if is_abstract(&path)? {
        return Ok(());
    }
    match unix_os()?.call_method1(&*text("stat")?, &path) {
        Ok(status) => {
            let inode = status.get_attribute_str(c"st_ino")?;
            event_loop.get_attribute_str(c"_unix_server_sockets")?.dict_set(socket, &inode)
        }
        Err(raised) if raised.matches(builtin(Builtin::FileNotFoundError)) => {
            drop(raised.take());
            Ok(())
        }
        Err(raised) => Err(raised),
    }
}

fn unlink_if_same(path: &Any, inode: &Any) -> Result<()> {
    let os = unix_os()?;
    let status = os.call_method1(&*text("stat")?, path)?;
    if status.get_attribute_str(c"st_ino")?.equals(inode)? {
        os.call_method1(&names().unlink, path)?;
    }
    Ok(())
}

/// A file that is gone needs no cleaning; other errors are logged in asyncio's words.
fn log_file_error(raised: Raised, line: &str, path: &Any) -> Result<()> {
    if raised.matches(builtin(Builtin::FileNotFoundError)) {
        drop(raised.take());
        return Ok(());
    }
    if !raised.matches(builtin(Builtin::OSError)) {
        return Err(raised);
    }
    let error: Object = raised.take();
    imports().logger.call_method(&names().error, &[&*text(line)?, path, &*error]).map(drop)
}
