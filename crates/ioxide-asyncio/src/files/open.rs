//! Descriptors for files: opened at once where the kernel has the whole path in its cache, on the pool otherwise.

use super::Backend;
use super::ring::submit_operation;
use ioxide_cpython::exception::raise_os_error_with_path;
use ioxide_cpython::methods::{Arguments, Signature, documented, method};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::FunctionDefinition;
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::{Any, Object, Raised, Result, none, none_object};
use ioxide_io::Now;
use ioxide_io::file::{open, open_now};
use ioxide_io::operation::Opening;
use std::ffi::CString;
use std::os::fd::{IntoRawFd, OwnedFd};

const OPEN: Signature<4> = Signature {
    function: "open_descriptor",
    names: ["path", "encoded", "flags", "mode"],
    required: 3,
    positional: 4,
};

pub fn add_to(module: &Module<'_>) -> Result<()> {
    let now = documented(
        method(c"open_descriptor_now", |_: &Any, arguments: Arguments<'_>| open_descriptor_now(arguments)),
        c"open_descriptor_now(path, encoded, flags, mode=0)\n--\n\nA descriptor, or None where opening might wait.",
    );
    let later = documented(
        method(c"open_descriptor", |_: &Any, arguments: Arguments<'_>| open_descriptor(arguments)),
        c"open_descriptor(path, encoded, flags, mode=0)\n--\n\nA future for a descriptor.",
    );
    let backend = method(c"files_backend", |_: &Any, _: Arguments<'_>| text(Backend::of_process()?.name()));
    let choose = documented(
        method(c"choose_files_backend", |_: &Any, _: Arguments<'_>| text(Backend::choose()?.name())),
        c"choose_files_backend()\n--\n\nRead IOXIDE_FILES again, for files opened from now on.",
    );
    let cached = method(c"path_is_cached", |_: &Any, arguments: Arguments<'_>| path_is_cached(arguments));
    for (name, definition) in [
        (c"_open_descriptor_now", now),
        (c"_open_descriptor", later),
        (c"_files_backend", backend),
        (c"_choose_files_backend", choose),
        (c"_path_is_cached", cached),
    ] {
        module.add(name, &*FunctionDefinition::new(definition).bind(none())?)?;
    }
    Ok(())
}

/// The path as the caller gave it (for errors) and as the kernel takes it, the flags and the mode.
fn bind(arguments: Arguments<'_>) -> Result<(Object, CString, i32, u32)> {
    let [path, encoded, flags, mode] = OPEN.bind(arguments)?;
    let encoded = encoded.and_then(Any::bytes).ok_or_else(|| Raised::type_error("encoded must be bytes"))?;
    let encoded = CString::new(encoded).map_err(|_| Raised::value_error("embedded null byte"))?;
    let mode = mode.map_or(Ok(0), Any::to_i64)?;
    let flags = flags.map_or(Ok(0), Any::to_i32)?;
    Ok((path.unwrap_or(none()).to_object(), encoded, flags, u32::try_from(mode).unwrap_or(0)))
}

fn open_descriptor_now(arguments: Arguments<'_>) -> Result<Object> {
    let (path, encoded, flags, mode) = bind(arguments)?;
    let opened = match Backend::of_process()? {
        Backend::Automatic => open_now(&encoded, flags, mode),
        Backend::Inline => open(&encoded, flags, mode).map(Now::Done),
        Backend::Uring | Backend::Threads => Ok(Now::WouldBlock),
    };
    match opened {
        Ok(Now::Done(file)) => handed_over(file),
        Ok(Now::WouldBlock | Now::Unsupported) => Ok(none_object()),
        Err(error) => Err(raise_os_error_with_path(&error, &path)),
    }
}

fn open_descriptor(arguments: Arguments<'_>) -> Result<Object> {
    let (path, encoded, flags, mode) = bind(arguments)?;
    submit_operation(Opening { path: encoded, flags, mode }, move |opened| match opened {
        Ok(file) => handed_over(file),
        Err(error) => Err(raise_os_error_with_path(&error, &path)),
    })
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
        Backend::Automatic => ioxide_io::file::path_is_cached(&encoded, follow),
        Backend::Inline => true,
        Backend::Uring | Backend::Threads => false,
    })
}

/// The descriptor belongs to the caller from here on.
fn handed_over(file: OwnedFd) -> Result<Object> {
    integer(i64::from(file.into_raw_fd()))
}
