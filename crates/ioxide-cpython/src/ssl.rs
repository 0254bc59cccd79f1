//! The `SSL*` inside Python's own `_ssl._SSLSocket`, driven without a Python call for each record.
//!
//! The functions are looked up in the libssl that `_ssl` itself has loaded; nothing is linked. Where anything about the
//! library or the layout of `_ssl`'s objects does not verify, there is no `DirectSsl`, and the caller uses the objects.
//! Leaves to others: handshake, shutdown and every error, which Python's own methods report (`Outcome::AskPython`).
//!
//! Invariants:
//! L1. The functions of `Library` come from one library that `_ssl` depends on, with no other one in front of it.
//! L2. A `DirectSsl` is made only of objects whose pointers agree with each other by the library's own accessors.
//! L3. The `_SSLSocket` outlives the `DirectSsl` (the maker holds it); it owns the `SSL`, which owns both BIOs.
//! L4. All calls hold the GIL, as callbacks of the library that `_ssl` installs expect to be able to take it.

use crate::object::{Any, Result};
use crate::value::bytes_filled_by;
use crate::{Object, call::import};
use pyo3_ffi as ffi;
use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// The most plain text in a record, and room for several.
const RECORD: usize = 16 * 1024;
const ROOM: usize = 64 * 1024;

const SSL_ERROR_WANT_READ: c_int = 2;
const SSL_ERROR_WANT_WRITE: c_int = 3;
const SSL_ERROR_ZERO_RETURN: c_int = 6;
const SSL_RECEIVED_SHUTDOWN: c_int = 2;

macro_rules! library {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions of OpenSSL, by their names there (L1).
        #[allow(non_snake_case)]
        struct Library { $($name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl Library {
            /// Looks up every function; `None` where one is missing.
            ///
            /// # Safety
            /// `find` returns addresses of functions of OpenSSL with the names it is given.
            #[allow(non_snake_case, clippy::missing_transmute_annotations)]
            unsafe fn resolve(find: impl Fn(&CStr) -> Option<NonNull<c_void>>) -> Option<Library> {
                $(
                    let name = CString::new(stringify!($name)).ok()?;
                    // SAFETY: the caller's promise; the signatures are those of OpenSSL's headers since 1.1.1.
                    let $name = unsafe { std::mem::transmute(find(&name)?.as_ptr()) };
                )*
                Some(Library { $($name,)* })
            }
        }
    };
}

library! {
    SSL_read_ex: fn(*mut c_void, *mut c_void, usize, *mut usize) -> c_int;
    SSL_write_ex: fn(*mut c_void, *const c_void, usize, *mut usize) -> c_int;
    SSL_get_error: fn(*const c_void, c_int) -> c_int;
    SSL_get_shutdown: fn(*const c_void) -> c_int;
    SSL_pending: fn(*const c_void) -> c_int;
    SSL_get_rbio: fn(*const c_void) -> *mut c_void;
    SSL_get_wbio: fn(*const c_void) -> *mut c_void;
    SSL_get_SSL_CTX: fn(*const c_void) -> *mut c_void;
    BIO_read: fn(*mut c_void, *mut c_void, c_int) -> c_int;
    BIO_write: fn(*mut c_void, *const c_void, c_int) -> c_int;
    BIO_ctrl_pending: fn(*mut c_void) -> usize;
    ERR_peek_error: fn() -> c_ulong;
    ERR_clear_error: fn() -> ();
    OpenSSL_version: fn(c_int) -> *const c_char;
}

static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();

/// What `_ssl` needs of a TLS connection's objects for the direct path.
pub struct Parts<'a> {
    /// The `_ssl._SSLSocket` inside an `ssl.SSLObject`.
    pub socket: &'a Any,
    pub context: &'a Any,
    pub incoming: &'a Any,
    pub outgoing: &'a Any,
}

/// A TLS connection over two memory BIOs, driven directly (L2, L3).
#[derive(Clone, Copy)]
pub struct DirectSsl {
    library: &'static Library,
    ssl: NonNull<c_void>,
    incoming: NonNull<c_void>,
    outgoing: NonNull<c_void>,
}

/// What a read or a write came to.
pub enum Outcome {
    Count(usize),
    /// Nothing more until more has arrived.
    Again,
    /// The peer has sent close_notify.
    EndOfStream,
    /// Something that Python's own method is to find out and to raise: call it in place of this one.
    AskPython,
}

impl DirectSsl {
    /// `None` where the objects or the library are not as they must be. Fails: with what looking at `_ssl` raises.
    pub fn new(parts: &Parts<'_>) -> Result<Option<DirectSsl>> {
        let Some(library) = library()? else { return Ok(None) };
        let module = import(c"_ssl")?;
        let exact = |object: &Any, class: &CStr| -> Result<bool> {
            Ok(module.get_attribute_str(class)?.is(object.get_type()))
        };
        if !(exact(parts.socket, c"_SSLSocket")?
            && exact(parts.incoming, c"MemoryBIO")?
            && exact(parts.outgoing, c"MemoryBIO")?
            && parts.context.is_instance(&*module.get_attribute_str(c"_SSLContext")?)?)
        {
            return Ok(None);
        }
        Ok(DirectSsl::verified(library, parts))
    }

    /// Finds the pointers where `_ssl.c` has kept them in every version, and compares each with what the library says.
    fn verified(library: &'static Library, parts: &Parts<'_>) -> Option<DirectSsl> {
        // SAFETY: the objects are of `_ssl`'s own classes, which have at least one word behind their head, and
        // `_SSLSocket` three: Socket, ssl, ctx. That the third is the context makes the second the SSL.
        unsafe {
            if (*parts.socket.type_ptr()).tp_basicsize < head_size(3)
                || word(parts.socket, 2)?.as_ptr() != parts.context.as_ptr().cast()
            {
                return None;
            }
            if word(parts.socket, 0).is_some_and(|socket| socket.as_ptr() != ffi::Py_None().cast()) {
                // Over a real socket, not over memory.
                return None;
            }
            let direct = DirectSsl {
                library,
                ssl: word(parts.socket, 1)?,
                incoming: word(parts.incoming, 0)?,
                outgoing: word(parts.outgoing, 0)?,
            };
            let ssl = direct.ssl.as_ptr();
            let agree = (library.SSL_get_rbio)(ssl) == direct.incoming.as_ptr()
                && (library.SSL_get_wbio)(ssl) == direct.outgoing.as_ptr()
                && (library.SSL_get_SSL_CTX)(ssl) == word(parts.context, 0)?.as_ptr();
            agree.then_some(direct)
        }
    }

    /// Gives received bytes to the connection; false where the library has not taken them all.
    pub fn feed(&self, data: &[u8]) -> bool {
        let Ok(length) = c_int::try_from(data.len()) else { return false };
        // SAFETY: L3; the bytes are copied.
        unsafe { (self.library.BIO_write)(self.incoming.as_ptr(), data.as_ptr().cast(), length) == length }
    }

    /// How many received bytes wait to be decrypted.
    pub fn incoming_pending(&self) -> usize {
        // SAFETY: L3.
        unsafe { (self.library.BIO_ctrl_pending)(self.incoming.as_ptr()) }
    }

    /// How many encrypted bytes wait to be sent.
    pub fn outgoing_pending(&self) -> usize {
        // SAFETY: L3.
        unsafe { (self.library.BIO_ctrl_pending)(self.outgoing.as_ptr()) }
    }

    /// Decrypts at most one record into `room`. Runs Python: where the context has callbacks.
    pub fn read(&self, room: &mut [MaybeUninit<u8>]) -> Outcome {
        // SAFETY: L3, L4.
        unsafe {
            let library = self.library;
            if (library.SSL_pending)(self.ssl.as_ptr()) <= 0 && self.incoming_pending() == 0 {
                // Finding that out by a read costs more.
                return Outcome::Again;
            }
            self.forget_errors_of_others();
            let mut count = 0;
            let status =
                (library.SSL_read_ex)(self.ssl.as_ptr(), room.as_mut_ptr().cast(), room.len(), &mut count);
            self.outcome(status, count)
        }
    }

    /// Decrypts at most one record behind what is in `plain`. Runs Python: where the context has callbacks.
    pub fn read_append(&self, plain: &mut Vec<u8>) -> Outcome {
        if plain.capacity() - plain.len() < RECORD {
            plain.reserve(ROOM);
        }
        let outcome = self.read(plain.spare_capacity_mut());
        if let Outcome::Count(count) = outcome {
            let length = plain.len() + count;
            // SAFETY: the library has written `count` bytes into the spare capacity.
            unsafe { plain.set_len(length) };
        }
        outcome
    }

    /// Decrypts all complete records into one bytes object, `None` where there is none; and what ended that, unless there was no
    /// more room. Runs Python: where the context has callbacks.
    pub fn read_all(&self) -> Result<(Option<Object>, Option<Outcome>)> {
        let mut end = None;
        let plain = bytes_filled_by(self.incoming_pending(), |room| {
            let mut filled = 0;
            while end.is_none() && filled < room.len() {
                match self.read(&mut room[filled..]) {
                    Outcome::Count(count) => filled += count,
                    outcome => end = Some(outcome),
                }
            }
            Ok((filled > 0).then_some(filled))
        })?;
        Ok((plain, end))
    }

    /// Encrypts some of `data` as one record. Runs Python: where the context has callbacks.
    pub fn write(&self, data: &[u8]) -> Outcome {
        // SAFETY: L3, L4.
        unsafe {
            self.forget_errors_of_others();
            let mut count = 0;
            let status =
                (self.library.SSL_write_ex)(self.ssl.as_ptr(), data.as_ptr().cast(), data.len(), &mut count);
            self.outcome(status, count)
        }
    }

    /// Everything encrypted so far, `None` where there is nothing.
    pub fn take_outgoing(&self) -> Result<Option<Object>> {
        let pending = c_int::try_from(self.outgoing_pending()).unwrap_or(c_int::MAX);
        if pending == 0 {
            return Ok(None);
        }
        bytes_filled_by(pending as usize, |room| {
            // SAFETY: L3; `room` has `pending` bytes.
            let count =
                unsafe { (self.library.BIO_read)(self.outgoing.as_ptr(), room.as_mut_ptr().cast(), pending) };
            Ok(usize::try_from(count).ok())
        })
    }

    /// The library finds the reason of a failure in the thread's queue of errors, where somebody may have left one.
    ///
    /// # Safety
    /// L1.
    unsafe fn forget_errors_of_others(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            if (self.library.ERR_peek_error)() != 0 {
                (self.library.ERR_clear_error)();
            }
        }
    }

    /// # Safety
    /// L3; `status` and `count` are of the last call on this connection.
    #[inline]
    unsafe fn outcome(&self, status: c_int, count: usize) -> Outcome {
        if status == 1 {
            return Outcome::Count(count);
        }
        // SAFETY: the caller's promise. The errors stay in the queue, where Python's method finds them.
        unsafe {
            match (self.library.SSL_get_error)(self.ssl.as_ptr(), status) {
                SSL_ERROR_WANT_READ | SSL_ERROR_WANT_WRITE => Outcome::Again,
                SSL_ERROR_ZERO_RETURN
                    if (self.library.SSL_get_shutdown)(self.ssl.as_ptr()) == SSL_RECEIVED_SHUTDOWN =>
                {
                    Outcome::EndOfStream
                }
                _ => Outcome::AskPython,
            }
        }
    }
}

const fn head_size(words: usize) -> isize {
    (size_of::<ffi::PyObject>() + words * size_of::<*mut c_void>()) as isize
}

/// A word of an object's struct behind its head, `None` where it is null.
///
/// # Safety
/// The struct has that word, and it is a pointer.
unsafe fn word(object: &Any, index: usize) -> Option<NonNull<c_void>> {
    // SAFETY: the caller's promise.
    unsafe {
        let words = object.as_ptr().cast::<u8>().add(size_of::<ffi::PyObject>()).cast::<*mut c_void>();
        NonNull::new(words.add(index).read())
    }
}

/// The library that `_ssl` uses, looked up once.
fn library() -> Result<Option<&'static Library>> {
    if let Some(library) = LIBRARY.get() {
        return Ok(library.as_ref());
    }
    let found = find_library()?;
    Ok(LIBRARY.get_or_init(|| found).as_ref())
}

fn find_library() -> Result<Option<Library>> {
    let module = import(c"_ssl")?;
    let Some(file) = module.get_attribute_optional(&*crate::names::intern("__file__")?)? else {
        // Built into the interpreter, and OpenSSL with it.
        return Ok(None);
    };
    let version = module.get_attribute_str(c"OPENSSL_VERSION")?.to_text()?.into_string();
    let Ok(path) = CString::new(file.to_text()?.into_string()) else { return Ok(None) };
    // SAFETY: `_ssl` is loaded already, so this only finds its handle, which is never closed.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    let Some(handle) = NonNull::new(handle) else { return Ok(None) };
    let find = |name: &CStr| find_in(handle, name);
    if !come_from_one_library(&find) {
        return Ok(None);
    }
    // SAFETY: the handle's scope is `_ssl` and what it depends on, and nothing stands in front of it (L1).
    let Some(library) = (unsafe { Library::resolve(find) }) else { return Ok(None) };
    // SAFETY: a function without side effects that returns a constant string.
    let found = unsafe { CStr::from_ptr((library.OpenSSL_version)(0)) };
    Ok((found.to_bytes() == version.as_bytes()).then_some(library))
}

/// A function in the scope of `_ssl`, unless the program has put another one of that name in front of it.
fn find_in(handle: NonNull<c_void>, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: a handle that is never closed, and a C string.
    unsafe {
        let found = NonNull::new(libc::dlsym(handle.as_ptr(), name.as_ptr()))?;
        let global = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        (global.is_null() || global == found.as_ptr()).then_some(found)
    }
}

/// Whether all of libssl's functions lie in one file, and all of libcrypto's in one.
fn come_from_one_library(find: &impl Fn(&CStr) -> Option<NonNull<c_void>>) -> bool {
    let base = |name: &CStr| -> Option<NonNull<c_void>> {
        let mut information = MaybeUninit::<libc::Dl_info>::uninit();
        // SAFETY: dladdr fills the struct where it succeeds.
        unsafe {
            let found = libc::dladdr(find(name)?.as_ptr(), information.as_mut_ptr());
            if found == 0 { None } else { NonNull::new(information.assume_init().dli_fbase) }
        }
    };
    let ssl = [c"SSL_read_ex", c"SSL_write_ex", c"SSL_get_error", c"SSL_get_rbio"].map(base);
    let crypto = [c"BIO_read", c"BIO_write", c"ERR_peek_error", c"OpenSSL_version"].map(base);
    [ssl, crypto].iter().all(|bases| bases[0].is_some() && bases.iter().all(|base| *base == bases[0]))
}
