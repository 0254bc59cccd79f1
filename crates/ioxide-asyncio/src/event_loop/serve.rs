//! The end of a listening socket. Its beginning, `create_server`, is borrowed.

use super::EventLoop;
use ioxide_cpython::call::import;
use ioxide_cpython::value::text;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, builtin, imports, names};

impl EventLoop {
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
                log_failed_unlink(&path, raised)?;
            }
        }
        Ok(())
    }
}

fn unlink_if_same(path: &Any, inode: &Any) -> Result<()> {
    let os = import(c"os")?;
    let status = os.call_method1(&*text("stat")?, path)?;
    if status.get_attribute_str(c"st_ino")?.equals(inode)? {
        os.call_method1(&names().unlink, path)?;
    }
    Ok(())
}

/// A file that is gone needs no cleaning; other errors are logged in asyncio's words.
fn log_failed_unlink(path: &Any, raised: Raised) -> Result<()> {
    if raised.matches(builtin(Builtin::FileNotFoundError)) {
        drop(raised.take());
        return Ok(());
    }
    if !raised.matches(builtin(Builtin::OSError)) {
        return Err(raised);
    }
    let error: Object = raised.take();
    let message = text("Unable to clean up listening UNIX socket %r: %r")?;
    imports().logger.call_method(&names().error, &[&*message, path, &*error]).map(drop)
}
