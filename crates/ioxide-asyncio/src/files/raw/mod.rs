//! `RawFile`: an `io.FileIO` whose reads come from a window that was filled before, and whose writes leave afterwards.
//!
//! An asynchronous operation asks `_ready(need)` whether Python's own buffered or text file can run it without waiting; if not it
//! awaits `_fetch(need)`. Then the operation runs, and `_settle()` sends what it has written. Nothing breaks where the guess was too
//! small: then the read waits, as a synchronous one does.
//!
//! | file | room |
//! |---|---|
//! | mod | the class, its state, the position |
//! | reading, writing | what the names say |
//!
//! Invariants:
//! R1. The position is the window's; the descriptor's own is used for files that cannot seek only.
//! R2. No borrow of the state is held while Python runs or without the GIL.
//! R3. Whoever uses the file asynchronously runs one operation at a time.

mod reading;
mod writing;

use super::Backend;
use super::window::Window;
use ioxide_cpython::call::import;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Receiver, Signature, documented, method, method0, method1};
use ioxide_cpython::module::Module;
use ioxide_cpython::object::RawObject;
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Once, Raised, Result, names};
use ioxide_io::operation::Pending;
use ioxide_io::{FileRef, Need};
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// The file as Python sees it.
#[repr(transparent)]
pub struct RawFile(Any);

/// How the kernel is asked for bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// The page cache answers at once or says that it cannot.
    Cached,
    /// Every read may be made on the loop's thread.
    Resident,
    /// Only the kernel or a thread of the pool may read.
    Waiting,
}

impl Access {
    /// What files with a position begin with.
    fn of_files(backend: Backend) -> Access {
        match backend {
            Backend::Automatic => Access::Cached,
            Backend::Inline => Access::Resident,
            Backend::Uring | Backend::Threads => Access::Waiting,
        }
    }
}

#[repr(C)]
struct RawCore {
    head: Any,
    /// -1 before `_begin` and after `close`.
    descriptor: Cell<i32>,
    access: Cell<Access>,
    seekable: Cell<bool>,
    readable: Cell<bool>,
    writable: Cell<bool>,
    appends: Cell<bool>,
    storage_is_known: Cell<bool>,
    window: RefCell<Window>,
    pending: RefCell<Vec<Pending>>,
}

static RAW_CORE: Once<Class> = Once::new();
static RAW_FILE: Once<ShellClass> = Once::new();
static BASE: Once<Base> = Once::new();

/// Methods of `io.FileIO` that RawFile's end in.
struct Base {
    new: Object,
    init: Object,
    close: Object,
    truncate: Object,
    seek: Object,
    fileno: Object,
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for RawCore {
    fn class() -> &'static Once<Class> {
        &RAW_CORE
    }
}

impl Deref for RawFile {
    type Target = Any;
    fn deref(&self) -> &Any {
        &self.0
    }
}

impl Receiver for RawFile {
    unsafe fn receive<'a>(this: *mut RawObject) -> Result<&'a RawFile> {
        // SAFETY: the method descriptors of the class check that `this` is an instance.
        unsafe {
            let shell = Any::from_ptr(this);
            match RAW_FILE.get().core::<RawCore>(shell) {
                Some(_) => Ok(&*(shell as *const Any).cast::<RawFile>()),
                None => Err(Raised::value_error("the file is not initialized")),
            }
        }
    }
}

impl Traverse for RawCore {
    fn traverse(&self, _visitor: &mut Visitor) {}

    fn clear(&self) {}
}

pub fn initialize() -> Result<()> {
    let base = import(c"io")?.get_attribute_str(c"FileIO")?;
    BASE.set(Base {
        new: base.get_attribute_str(c"__new__")?,
        init: base.get_attribute_str(c"__init__")?,
        close: base.get_attribute_str(c"close")?,
        truncate: base.get_attribute_str(c"truncate")?,
        seek: base.get_attribute_str(c"seek")?,
        fileno: base.get_attribute_str(c"fileno")?,
    });
    RAW_CORE.set(NativeClass::core::<RawCore>(c"ioxide.RawFileCore")?);
    RAW_FILE.set(ShellClass::create(ShellDefinition {
        name: c"RawFile",
        bases: vec![base],
        doc: "A raw file whose reads and writes need not wait: the layer under ioxide's asynchronous files.",
        methods: methods(),
        attributes: Vec::new(),
        new: Some(method(c"__new__", |_: &Any, arguments: Arguments<'_>| match arguments.positional() {
            [class, ..] => create(class),
            [] => Err(Raised::type_error("RawFile.__new__(): not enough arguments")),
        })),
    })?);
    Ok(())
}

pub fn add_to(module: &Module<'_>) -> Result<()> {
    module.add(c"_RawFile", RAW_FILE.get().class().as_any())
}

fn methods() -> Vec<ioxide_cpython::methods::Definition> {
    vec![
        documented(
            method1(c"_begin", RawFile::begin),
            c"_begin($self, mode, /)\n--\n\nLook at what was opened: called once, after __init__, with its mode.",
        ),
        documented(
            method1(c"_ready", RawFile::ready),
            c"_ready($self, need, /)\n--\n\nWhether `need` can be met without waiting: bytes, -1 for all, -2 for a line, \
              -3 for a line that may end with a carriage return.",
        ),
        documented(
            method1(c"_at_hand", RawFile::at_hand),
            c"_at_hand($self, need, /)\n--\n\nWhether `need` is met now, and no other task has a right to run before: as `_ready` \
              and `_due_to_yield`, but a file that is closed is not ready.",
        ),
        documented(
            method1(c"_fetch", RawFile::fetch),
            c"_fetch($self, need, /)\n--\n\nA future that is done when `need` can be met without waiting.",
        ),
        documented(
            method0(c"_settle", RawFile::settle),
            c"_settle($self, /)\n--\n\nA future that is done when what was written is the kernel's, or None.",
        ),
        documented(
            method0(c"_writes_at_once", RawFile::writes_at_once),
            c"_writes_at_once($self, /)\n--\n\nWhether writing waits for nothing: the file is in memory.",
        ),
        documented(
            method1(c"_lines", RawFile::lines),
            c"_lines($self, need, /)\n--\n\nHow many whole lines can be read without waiting.",
        ),
        method(c"_pread_now", RawFile::pread_now),
        method(c"_pread", RawFile::pread),
        method(c"_pwrite", RawFile::pwrite),
        method1(c"_sync", RawFile::sync),
        method1(c"readinto", RawFile::readinto),
        method(c"read", RawFile::read),
        method0(c"readall", RawFile::readall),
        method1(c"write", RawFile::write),
        method(c"seek", RawFile::seek),
        method0(c"tell", RawFile::tell),
        method0(c"seekable", RawFile::is_seekable),
        method(c"truncate", RawFile::truncate),
        method0(c"close", RawFile::close),
    ]
}

fn create(class: &Any) -> Result<Object> {
    let core = allocate(RawCore {
        head: head(),
        descriptor: Cell::new(-1),
        access: Cell::new(Access::Waiting),
        seekable: Cell::new(false),
        readable: Cell::new(false),
        writable: Cell::new(false),
        appends: Cell::new(false),
        storage_is_known: Cell::new(false),
        window: RefCell::new(Window::default()),
        pending: RefCell::new(Vec::new()),
    })?;
    RAW_FILE.get().adopt(BASE.get().new.call1(class)?, core)
}

fn need_of(number: &Any) -> Result<Need> {
    Ok(match number.to_i64()? {
        -1 => Need::All,
        -2 => Need::Line { carriage_return: false },
        -3 => Need::Line { carriage_return: true },
        count => Need::Bytes(usize::try_from(count).unwrap_or(0)),
    })
}

impl RawFile {
    fn core(&self) -> &RawCore {
        // SAFETY: an instance of the class; its core is there from `__new__` on.
        match unsafe { RAW_FILE.get().core::<RawCore>(&self.0) } {
            Some(core) => core,
            None => unreachable!("a raw file has its core"),
        }
    }

    fn file(&self) -> Result<FileRef> {
        match self.core().descriptor.get() {
            -1 => Err(Raised::value_error("I/O operation on closed file")),
            descriptor => Ok(FileRef::new(descriptor)),
        }
    }

    /// A raw file over a regular file or a folder that was opened without waiting. Fails: OSError for a folder, as
    /// `io.FileIO` does.
    pub fn over(file: OwnedFd, name: &Any, mode: &Any, in_memory: bool) -> Result<Object> {
        let descriptor = file.as_raw_fd();
        let base = BASE.get();
        let shell = create(RAW_FILE.get().class().as_any())?;
        if let Err(raised) = base.init.call(&[&*shell, &*integer(i64::from(descriptor))?, mode]) {
            let exception = raised.take();
            exception.set_attribute(&names().filename, name)?;
            return Err(Raised::exception(exception));
        }
        // From here on the descriptor is the shell's.
        let _ = file.into_raw_fd();
        shell.set_attribute(&names().name, name)?;
        // SAFETY: an instance of the class.
        let this = unsafe { RawFile::receive(shell.as_ptr()) }?;
        let access = match Backend::of_process()? {
            Backend::Automatic if in_memory => Access::Resident,
            backend => Access::of_files(backend),
        };
        let mode = mode.to_text()?;
        // Nobody has moved it; but FileIO has gone to the end where it appends.
        let position =
            if mode.as_str().contains('a') { FileRef::new(descriptor).position() } else { Some(0) };
        this.look_at(descriptor, mode.as_str(), position, access);
        Ok(shell)
    }

    /// Called once, after `FileIO.__init__`: looks at what was opened.
    fn begin(&self, mode: &Any) -> Result<()> {
        let descriptor = BASE.get().fileno.call1(self)?.to_i32()?;
        let position = FileRef::new(descriptor).position();
        let access = match position {
            // Pipes and terminals wait for somebody, and not for a disk.
            None => Access::Waiting,
            Some(_) => Access::of_files(Backend::of_process()?),
        };
        self.look_at(descriptor, mode.to_text()?.as_str(), position, access);
        Ok(())
    }

    fn look_at(&self, descriptor: i32, mode: &str, position: Option<u64>, access: Access) {
        let core = self.core();
        core.descriptor.set(descriptor);
        core.access.set(access);
        core.seekable.set(position.is_some());
        core.readable.set(mode.contains(['r', '+']));
        core.writable.set(mode.contains(['w', 'a', 'x', '+']));
        core.appends.set(mode.contains('a'));
        if let Some(position) = position {
            core.window.borrow_mut().seek(position);
        }
    }

    fn is_seekable(&self) -> Result<bool> {
        self.file()?;
        Ok(self.core().seekable.get())
    }

    fn seek(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SEEK: Signature<2> =
            Signature { function: "seek", names: ["offset", "whence"], required: 1, positional: 2 };
        let [offset, whence] = SEEK.bind(arguments)?;
        let (core, file) = (self.core(), self.file()?);
        let offset = offset.map_or(Ok(0), Any::to_i64)?;
        let whence = whence.map_or(Ok(0), Any::to_i64)?;
        if !core.seekable.get() || !(0..=2).contains(&whence) {
            self.write_pending()?;
            let position = BASE.get().seek.call(&[self, &*integer(offset)?, &*integer(whence)?])?;
            core.window.borrow_mut().seek(u64::try_from(position.to_i64()?).unwrap_or(0));
            return Ok(position);
        }
        let origin = match whence {
            0 => 0,
            1 => core.window.borrow().position() as i64,
            _ => {
                self.write_pending()?;
                file.length_and_device().map_err(|error| raise_os_error(&error))?.0 as i64
            }
        };
        let position = origin.checked_add(offset).and_then(|position| u64::try_from(position).ok());
        let Some(position) = position else {
            return Err(raise_os_error(&io::Error::from_raw_os_error(22)));
        };
        core.window.borrow_mut().seek(position);
        integer(position as i64)
    }

    fn tell(&self) -> Result<Object> {
        self.file()?;
        if !self.core().seekable.get() {
            return BASE.get().seek.call(&[self, &*integer(0)?, &*integer(1)?]);
        }
        let position = self.core().window.borrow().position();
        integer(position as i64)
    }

    fn truncate(&self, arguments: Arguments<'_>) -> Result<Object> {
        const TRUNCATE: Signature<1> =
            Signature { function: "truncate", names: ["size"], required: 0, positional: 1 };
        let [size] = TRUNCATE.bind(arguments)?;
        self.write_pending()?;
        let size = match size.filter(|size| !size.is_none()) {
            Some(size) => size.to_object(),
            None => self.tell()?,
        };
        let length = BASE.get().truncate.call(&[self, &*size])?;
        self.core().window.borrow_mut().clear();
        Ok(length)
    }

    fn close(&self) -> Result<()> {
        let written = match self.core().descriptor.get() {
            -1 => Ok(()),
            _ => self.write_pending(),
        };
        self.core().descriptor.set(-1);
        self.core().window.borrow_mut().retire();
        let pending = written.map_err(Raised::take);
        let closed = BASE.get().close.call1(self).map(drop);
        match pending {
            Ok(()) => closed,
            Err(exception) => {
                drop(closed.map_err(Raised::take));
                Err(Raised::exception(exception))
            }
        }
    }

    fn check_readable(&self) -> Result<()> {
        check(self.core().readable.get(), "File not open for reading")
    }

    fn check_writable(&self) -> Result<()> {
        check(self.core().writable.get(), "File not open for writing")
    }
}

fn check(allowed: bool, complaint: &str) -> Result<()> {
    if allowed {
        return Ok(());
    }
    let unsupported = import(c"io")?.get_attribute_str(c"UnsupportedOperation")?;
    Err(Raised::new(&unsupported, complaint))
}
