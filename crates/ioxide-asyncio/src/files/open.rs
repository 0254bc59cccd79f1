//! Opening by name: a raw file at once where the kernel has the whole path in its cache, a descriptor later otherwise.

use super::Backend;
use super::raw::RawFile;
use super::ring::submit_operation;
use crate::work::submit;
use ioxide_cpython::exception::raise_os_error_with_path;
use ioxide_cpython::methods::{Arguments, Signature, documented, method};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::FunctionDefinition;
use ioxide_cpython::value::{file_system_string, integer, text};
use ioxide_cpython::{Any, Object, Raised, Result, none};
use ioxide_io::opening::{OpenedNow, open, open_now};
use ioxide_io::operation::Opening;
use std::ffi::CString;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

pub fn add_to(module: &Module<'_>) -> Result<()> {
    let raw = documented(
        method(c"open_raw", |_: &Any, arguments: Arguments<'_>| open_raw(arguments)),
        c"open_raw(path, mode, flags)\n--\n\nA raw file, or a future for a descriptor where opening might wait.",
    );
    let backend = method(c"files_backend", |_: &Any, _: Arguments<'_>| text(Backend::of_process()?.name()));
    let choose = documented(
        method(c"choose_files_backend", |_: &Any, _: Arguments<'_>| text(Backend::choose()?.name())),
        c"choose_files_backend()\n--\n\nRead IOXIDE_FILES again, for files opened from now on.",
    );
    let cached = method(c"path_is_cached", |_: &Any, arguments: Arguments<'_>| path_is_cached(arguments));
    for (name, definition) in [
        (c"_open_raw", raw),
        (c"_files_backend", backend),
        (c"_choose_files_backend", choose),
        (c"_path_is_cached", cached),
    ] {
        module.add(name, &*FunctionDefinition::new(definition).bind(none())?)?;
    }
    Ok(())
}

/// What the permissions of new files are, but for the process's mask: as in `io.FileIO`.
const PERMISSIONS: u32 = 0o666;

fn open_raw(arguments: Arguments<'_>) -> Result<Object> {
    const OPEN: Signature<3> =
        Signature { function: "open_raw", names: ["path", "mode", "flags"], required: 3, positional: 3 };
    let [path, mode, flags] = OPEN.bind(arguments)?;
    let (path, mode) = (path.unwrap_or(none()), mode.unwrap_or(none()));
    let flags = flags.map_or(Ok(0), Any::to_i32)?;
    let encoded = file_system_string(path)?;
    let opened = match Backend::of_process()? {
        Backend::Automatic => open_now(&encoded, flags, PERMISSIONS),
        Backend::Inline => {
            open(&encoded, flags, PERMISSIONS).map(|file| OpenedNow::File { file, in_memory: false })
        }
        Backend::Uring | Backend::Threads => Ok(OpenedNow::WouldBlock),
    };
    let path_of_error = path.to_object();
    let descriptor = move |opened: io::Result<OwnedFd>| match opened {
        // The descriptor belongs to the caller from here on.
        Ok(file) => integer(i64::from(file.into_raw_fd())),
        Err(error) => Err(raise_os_error_with_path(&error, &path_of_error)),
    };
    match opened {
        Ok(OpenedNow::File { file, in_memory }) => RawFile::over(file, path, mode, in_memory),
        Ok(OpenedNow::Fifo(end)) => submit(move || end.meet(), descriptor),
        Ok(OpenedNow::WouldBlock) => {
            submit_operation(Opening { path: encoded, flags, mode: PERMISSIONS }, descriptor)
        }
        Err(error) => Err(raise_os_error_with_path(&error, path)),
    }
}

/// `path_is_cached(encoded, follow)`: whether looking at the path may happen on the loop's thread.
fn path_is_cached(arguments: Arguments<'_>) -> Result<bool> {
    const CACHED: Signature<2> =
        Signature { function: "path_is_cached", names: ["encoded", "follow"], required: 2, positional: 2 };
    let [encoded, follow] = CACHED.bind(arguments)?;
    let encoded = encoded.and_then(Any::bytes).ok_or_else(|| Raised::type_error("encoded must be bytes"))?;
    let encoded = CString::new(encoded).map_err(|_| Raised::value_error("embedded null byte"))?;
    let follow = follow.map_or(Ok(true), Any::is_true)?;
    Ok(match Backend::of_process()? {
        Backend::Automatic => ioxide_io::opening::path_is_cached(&encoded, follow),
        Backend::Inline => true,
        Backend::Uring | Backend::Threads => false,
    })
}
