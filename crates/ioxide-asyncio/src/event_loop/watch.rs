//! Who waits for which descriptor: `add_reader` and `add_writer`, transports, and the operations of `sock_*`.
//!
//! Invariants:
//! W1. A descriptor has at most one reader and one writer; the kernel is asked for what they want. After an operation
//!     of `sock_*` the registration stays until the next one, which then costs one system call instead of two, or
//!     until an event comes that nobody wants.
//! W2. The key of an event is the descriptor with the generation of its entry, so that an event of a descriptor that
//!     was closed and opened anew meanwhile finds nobody.
//! W3. Watchers never close a descriptor: its socket or file does.

use super::EventLoop;
use super::sock::Operation;
use crate::handles::Handle;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{Arguments, Leading, name_is};
use ioxide_cpython::types::Native;
use ioxide_cpython::value::weak_reference;
use ioxide_cpython::{Any, Object, Raised, Result, names};
use ioxide_reactor::{Interest, Mode};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

/// The key of the loop's own wake-up descriptor.
pub const WAKES_KEY: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Read,
    Write,
}

/// Who is told that a descriptor is ready.
#[derive(Clone)]
pub enum Watcher {
    /// A callback of `add_reader` or `add_writer`.
    Handle(Object),
    /// A transport.
    Transport(Object),
    /// A listening socket, of `accept`.
    Listener(Object),
    /// An operation of a `sock_*` coroutine.
    Operation(Rc<Operation>),
}

/// What is known of one descriptor.
#[derive(Default)]
struct Entry {
    reader: Option<Watcher>,
    writer: Option<Watcher>,
    generation: u32,
    registered: Option<Interest>,
    /// A weak reference to the socket object of the operation that the registration was made for.
    socket: Option<Object>,
}

/// The descriptors of a loop, by number.
#[derive(Default)]
pub struct Watches {
    entries: RefCell<Vec<Entry>>,
    watching: Cell<usize>,
}

impl Watches {
    /// Whether any descriptor but the loop's own is watched.
    #[inline(always)]
    pub fn is_watching(&self) -> bool {
        self.watching.get() > 0
    }

    pub fn traverse(&self, visitor: &mut Visitor) {
        if let Ok(entries) = self.entries.try_borrow() {
            for entry in entries.iter() {
                for watcher in [&entry.reader, &entry.writer].into_iter().flatten() {
                    watcher.traverse(visitor);
                }
            }
        }
    }

    pub fn clear(&self) {
        let entries = std::mem::take(&mut *self.entries.borrow_mut());
        self.watching.set(0);
        drop(entries);
    }
}

impl Watcher {
    pub fn traverse(&self, visitor: &mut Visitor) {
        match self {
            Watcher::Handle(object) | Watcher::Transport(object) | Watcher::Listener(object) => {
                visitor.object(object);
            }
            // The operation is shared with the coroutine that waits for it.
            Watcher::Operation(_) => {}
        }
    }

    fn is_live(&self) -> bool {
        match self {
            Watcher::Handle(handle) => Handle::from_any(handle).is_none_or(|handle| !handle.is_cancelled()),
            Watcher::Transport(_) | Watcher::Listener(_) | Watcher::Operation(_) => true,
        }
    }
}

impl Entry {
    fn watcher(&mut self, direction: Direction) -> &mut Option<Watcher> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    fn interest(&self) -> Option<Interest> {
        match (&self.reader, &self.writer) {
            (Some(_), Some(_)) => Some(Interest::BOTH),
            (Some(_), None) => Some(Interest::READABLE),
            (None, Some(_)) => Some(Interest::WRITABLE),
            (None, None) => None,
        }
    }
}

fn key(fd: RawFd, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(fd as u32)
}

impl EventLoop {
    /// Lets `wake` end a wait.
    pub(super) fn watch_wakes(&self) -> Result<()> {
        let core = self.core();
        let (registrar, wakes) = (core.registrar.borrow(), core.wakes.borrow());
        match (registrar.as_ref(), wakes.as_ref()) {
            (Some(registrar), Some(wakes)) => registrar
                .add(wakes.as_raw_fd(), WAKES_KEY, Interest::READABLE, Mode::Level)
                .map_err(|error| raise_os_error(&error)),
            _ => Ok(()),
        }
    }

    /// Makes `watcher` the one for a direction of a descriptor and returns the one before.
    /// Fails: OSError, as epoll says (EPERM for regular files, EBADF); RuntimeError in a forked child.
    pub fn watch(&self, fd: RawFd, direction: Direction, watcher: Watcher) -> Result<Option<Watcher>> {
        self.check_process()?;
        let index = usize::try_from(fd).map_err(|_| invalid_descriptor(fd))?;
        let core = self.core();
        let previous = {
            let mut entries = core.watches.entries.borrow_mut();
            if entries.len() <= index {
                entries.resize_with(index + 1, Entry::default);
            }
            entries[index].watcher(direction).replace(watcher)
        };
        match self.register(fd, index) {
            Ok(()) => Ok(previous),
            Err(error) => {
                let refused =
                    std::mem::replace(core.watches.entries.borrow_mut()[index].watcher(direction), previous);
                drop(refused);
                Err(raise_os_error(&error))
            }
        }
    }

    /// Makes an operation of `socket` the watcher of a direction. The registration that an operation of the very same
    /// socket object has left behind is still good: as long as the object has the descriptor, nobody has closed it.
    pub fn watch_operation(
        &self,
        fd: RawFd,
        direction: Direction,
        operation: Rc<Operation>,
        socket: &Any,
    ) -> Result<Option<Watcher>> {
        if !self.is_registered_for(fd, direction, socket)? {
            let previous = self.watch(fd, direction, Watcher::Operation(operation))?;
            let reference = weak_reference(socket)?;
            let mut entries = self.core().watches.entries.borrow_mut();
            let stale = entries.get_mut(fd as usize).and_then(|entry| entry.socket.replace(reference));
            drop(entries);
            drop(stale);
            return Ok(previous);
        }
        let mut entries = self.core().watches.entries.borrow_mut();
        let entry = entries.get_mut(fd as usize);
        Ok(entry.and_then(|entry| entry.watcher(direction).replace(Watcher::Operation(operation))))
    }

    /// Whether the kernel already reports a direction of a descriptor for an operation of this socket object.
    fn is_registered_for(&self, fd: RawFd, direction: Direction, socket: &Any) -> Result<bool> {
        let reference = {
            let entries = self.core().watches.entries.borrow();
            let Some(entry) = usize::try_from(fd).ok().and_then(|index| entries.get(index)) else {
                return Ok(false);
            };
            let registered = match direction {
                Direction::Read => entry.registered.is_some_and(Interest::is_readable),
                Direction::Write => entry.registered.is_some_and(Interest::is_writable),
            };
            entry.socket.clone().filter(|_| registered)
        };
        match reference {
            Some(reference) => Ok(reference.call0()?.is(socket)),
            None => Ok(false),
        }
    }

    /// Stops watching a direction of a descriptor and returns who watched it.
    pub fn unwatch(&self, fd: RawFd, direction: Direction) -> Option<Watcher> {
        let index = usize::try_from(fd).ok()?;
        let core = self.core();
        let watcher = core.watches.entries.borrow_mut().get_mut(index)?.watcher(direction).take()?;
        if !matches!(watcher, Watcher::Operation(_)) {
            self.register_again(fd, index);
        }
        Some(watcher)
    }

    /// Stops watching a direction of a descriptor for a transport, if it is the one that is told: the number may have
    /// been closed behind its back and belong to somebody else.
    pub fn unwatch_transport(&self, fd: RawFd, direction: Direction, transport: &Any) -> Option<Watcher> {
        let index = usize::try_from(fd).ok()?;
        let mut entries = self.core().watches.entries.borrow_mut();
        let is_told = match entries.get_mut(index)?.watcher(direction) {
            Some(Watcher::Transport(watcher)) => watcher.is(transport),
            _ => false,
        };
        drop(entries);
        if is_told { self.unwatch(fd, direction) } else { None }
    }

    /// After less is wanted than before. The descriptor may be closed already, which has ended its registration.
    fn register_again(&self, fd: RawFd, index: usize) {
        let _ = self.register(fd, index);
    }

    /// Brings the kernel's registration in line with the entry (W1).
    fn register(&self, fd: RawFd, index: usize) -> io::Result<()> {
        let core = self.core();
        if core.process.get() != std::process::id() {
            // A forked child shares the epoll instance: what it changed there its parent would miss.
            return Ok(());
        }
        let registrar = core.registrar.borrow();
        let Some(registrar) = registrar.as_ref() else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        let mut entries = core.watches.entries.borrow_mut();
        let entry = &mut entries[index];
        let was_registered = entry.registered;
        // Dropping a weak reference runs no Python: it has no callback.
        entry.socket = None;
        let outcome = match (entry.interest(), was_registered) {
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                entry.registered = None;
                entry.generation = entry.generation.wrapping_add(1);
                registrar.remove(fd)
            }
            (Some(interest), None) => {
                entry.generation = entry.generation.wrapping_add(1);
                let key = key(fd, entry.generation);
                match registrar.add(fd, key, interest, Mode::Level) {
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                        registrar.modify(fd, key, interest, Mode::Level)
                    }
                    added => added,
                }
            }
            (Some(interest), Some(_)) => {
                let key = key(fd, entry.generation);
                match registrar.modify(fd, key, interest, Mode::Level) {
                    // The descriptor was closed and its number given to another file.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                        entry.generation = entry.generation.wrapping_add(1);
                        registrar.add(fd, self::key(fd, entry.generation), interest, Mode::Level)
                    }
                    modified => modified,
                }
            }
        };
        if outcome.is_ok() {
            entry.registered = entry.interest();
        }
        let watching = core.watches.watching.get() + usize::from(entry.registered.is_some());
        core.watches.watching.set(watching - usize::from(was_registered.is_some()));
        outcome
    }

    /// Who is to be told of an event (W2). A cancelled reader or writer is removed instead.
    pub(super) fn watcher_of_event(&self, key: u64, direction: Direction) -> Option<Watcher> {
        let fd = (key & u64::from(u32::MAX)) as u32 as RawFd;
        let generation = (key >> 32) as u32;
        let index = usize::try_from(fd).ok()?;
        let watcher = {
            let mut entries = self.core().watches.entries.borrow_mut();
            let entry = entries.get_mut(index).filter(|entry| entry.generation == generation)?;
            entry.watcher(direction).clone()
        };
        match watcher {
            Some(watcher) if watcher.is_live() => return Some(watcher),
            Some(_) => drop(self.unwatch(fd, direction)),
            // What the last operation wanted is wanted no more (W1).
            None => self.register_again(fd, index),
        }
        None
    }

    fn add_watcher(&self, direction: Direction, function: &str, arguments: Arguments<'_>) -> Result<Object> {
        let Leading { parameters: [descriptor, callback], rest, .. } =
            arguments.leading(function, ["fd", "callback"], false)?;
        self.check_closed()?;
        let fd = descriptor_of(descriptor)?;
        let handle = Handle::create(self, callback, rest, None)?;
        let previous = self.watch(fd, direction, Watcher::Handle(handle.clone()))?;
        cancel_watcher(previous)?;
        Ok(handle)
    }

    fn remove_watcher(&self, direction: Direction, descriptor: &Any) -> Result<bool> {
        if self.is_closed() {
            return Ok(false);
        }
        let watcher = self.unwatch(descriptor_of(descriptor)?, direction);
        let found = watcher.is_some();
        cancel_watcher(watcher)?;
        Ok(found)
    }

    /// `loop._add_reader(fd, callback, *args)`, which asyncio's own transports call.
    pub fn add_reader_unchecked(&self, arguments: Arguments<'_>) -> Result<Object> {
        self.add_watcher(Direction::Read, "_add_reader", arguments)
    }

    /// `loop._add_writer(fd, callback, *args)`
    pub fn add_writer_unchecked(&self, arguments: Arguments<'_>) -> Result<Object> {
        self.add_watcher(Direction::Write, "_add_writer", arguments)
    }

    /// `loop._remove_reader(fd)`
    pub fn remove_reader_unchecked(&self, descriptor: &Any) -> Result<bool> {
        self.remove_watcher(Direction::Read, descriptor)
    }

    /// `loop._remove_writer(fd)`
    pub fn remove_writer_unchecked(&self, descriptor: &Any) -> Result<bool> {
        self.remove_watcher(Direction::Write, descriptor)
    }

    /// `loop.add_reader(fd, callback, *args)`
    pub fn add_reader(&self, arguments: Arguments<'_>) -> Result<()> {
        self.check_first_not_in_use(arguments)?;
        self.add_watcher(Direction::Read, "add_reader", arguments).map(drop)
    }

    /// `loop.add_writer(fd, callback, *args)`
    pub fn add_writer(&self, arguments: Arguments<'_>) -> Result<()> {
        self.check_first_not_in_use(arguments)?;
        self.add_watcher(Direction::Write, "add_writer", arguments).map(drop)
    }

    /// `loop.remove_reader(fd)`: whether there was one.
    pub fn remove_reader(&self, descriptor: &Any) -> Result<bool> {
        self.check_not_in_use(descriptor)?;
        self.remove_watcher(Direction::Read, descriptor)
    }

    /// `loop.remove_writer(fd)`: whether there was one.
    pub fn remove_writer(&self, descriptor: &Any) -> Result<bool> {
        self.check_not_in_use(descriptor)?;
        self.remove_watcher(Direction::Write, descriptor)
    }

    fn check_first_not_in_use(&self, arguments: Arguments<'_>) -> Result<()> {
        let by_name = || arguments.keywords().find_map(|(name, value)| name_is(name, "fd").then_some(value));
        match arguments.positional().first().copied().or_else(by_name) {
            Some(descriptor) => self.check_not_in_use(descriptor),
            None => Ok(()),
        }
    }

    /// `loop._ensure_fd_no_transport(fd)`. Fails: RuntimeError where a transport owns the descriptor.
    pub fn check_not_in_use(&self, descriptor: &Any) -> Result<()> {
        let fd = descriptor_of(descriptor)?;
        if let Some(transport) = crate::transports::owner_of(self, fd)? {
            let shown = transport.repr()?.to_text()?;
            let descriptor = descriptor.repr()?.to_text()?;
            return Err(Raised::runtime_error(&format!(
                "File descriptor {} is used by transport {}",
                descriptor.as_str(),
                shown.as_str()
            )));
        }
        Ok(())
    }
}

/// A reader or writer that was replaced or removed: its handle runs no more.
pub(super) fn cancel_watcher(watcher: Option<Watcher>) -> Result<()> {
    match watcher {
        Some(Watcher::Handle(handle)) => handle.call_method0(&names().cancel).map(drop),
        _ => Ok(()),
    }
}

#[cold]
fn invalid_descriptor(fd: RawFd) -> Raised {
    Raised::value_error(&format!("Invalid file descriptor: {fd}"))
}

/// The number of a descriptor: an integer, or whatever has a `fileno()`, as `selectors` reads it.
/// Fails: ValueError.
pub fn descriptor_of(object: &Any) -> Result<RawFd> {
    if object.is_integer() {
        let fd = object.to_i32()?;
        return if fd < 0 { Err(invalid_descriptor(fd)) } else { Ok(fd) };
    }
    let number = object.call_method0(&names().fileno).and_then(|number| number.to_i32());
    match number {
        Ok(fd) if fd >= 0 => Ok(fd),
        Ok(fd) => Err(invalid_descriptor(fd)),
        Err(raised) => {
            drop(raised.take());
            let shown = object.repr()?.to_text()?;
            Err(Raised::value_error(&format!("Invalid file object: {}", shown.as_str())))
        }
    }
}
