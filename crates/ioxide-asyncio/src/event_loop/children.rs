//! How the end of a child process is noticed: a pidfd, watched as any descriptor. No thread and no signal handler, in any
//! thread's loop.
//!
//! Where the program has set a child watcher of another kind, or pidfds cannot be had, that watcher does it, as in
//! asyncio of the same version.
//!
//! Invariants:
//! D1. A child keeps its number until it is reaped here, and the pidfd means the child even after somebody else has
//!     reaped it: no status of another process is ever taken for its own.
//! D2. The pidfd is closed once: when the child has ended, or with the loop.

use super::EventLoop;
use super::watch::{Direction, Watcher};
use crate::handles::Handle;
use ioxide_cpython::call::import;
use ioxide_cpython::exception::{handling, raise_os_error};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, method0};
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, allocate, head};
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::version::{ENTERED_VALUE_WATCHES_CHILDREN, EXIT_IS_ANNOUNCED, ExitIsAnnounced};
use ioxide_cpython::{
    Any, Builtin, Object, Once, Raised, Result, Slot, builtin, imports, names, none, none_object,
};
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// What asyncio calls its watchers of this version, and where the program's is.
struct Stock {
    /// asyncio's watcher with a pidfd.
    pidfd: Object,
    /// asyncio's watcher with a thread a child.
    threaded: Object,
    /// Until 3.13: the default policy's class, and `asyncio.get_child_watcher`.
    policy: Option<(Object, Object)>,
}

static STOCK: Once<Stock> = Once::new();
static CHILD: Once<Class> = Once::new();
static ON_END: Once<FunctionDefinition> = Once::new();

/// Who notices the end of a child.
pub enum ChildWatcher {
    /// The loop, in the words of one of asyncio's watchers.
    Loop { threaded: bool, watcher: Object },
    /// The program's watcher, which is entered and left as a context manager, and what it entered as.
    Policy { manager: Object, entered: Slot },
    /// What the program has put into `loop._watcher`, from 3.14 on.
    Own(Object),
}

/// A child whose end the loop waits for.
#[repr(C)]
struct Child {
    head: Any,
    id: i32,
    threaded: bool,
    process: RefCell<Option<OwnedFd>>,
    event_loop: Slot,
    callback: Slot,
    transport: Slot,
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Child {
    fn class() -> &'static Once<Class> {
        &CHILD
    }
}

/// Creates the class and looks for asyncio's watchers.
pub fn initialize() -> Result<()> {
    CHILD.set(
        NativeClass::new::<Child>(c"ioxide.Child")
            .doc(c"A child process whose end the loop waits for.")
            .not_instantiable()
            .collected::<Child>()
            .dropped::<Child>()
            .create(&[])?,
    );
    ON_END.set(FunctionDefinition::new(method0(c"_do_wait", Child::on_end)));
    let source = import(c"asyncio.unix_events")?;
    let events = import(c"asyncio.events")?;
    let (pidfd, threaded, policy) = match events.get_attribute_optional(&*text("get_child_watcher")?)? {
        Some(get) => {
            let policy = source.get_attribute_str(c"_UnixDefaultEventLoopPolicy")?;
            ("PidfdChildWatcher", "ThreadedChildWatcher", Some((policy, get)))
        }
        None => ("_PidfdChildWatcher", "_ThreadedChildWatcher", None),
    };
    STOCK.set(Stock {
        pidfd: source.get_attribute(&*text(pidfd)?)?,
        threaded: source.get_attribute(&*text(threaded)?)?,
        policy,
    });
    Ok(())
}

/// What a new loop has in `_watcher`, from 3.14 on.
pub fn default_watcher() -> Result<Option<Object>> {
    let stock = STOCK.get();
    if stock.policy.is_some() {
        return Ok(None);
    }
    let can_use_pidfd = import(c"asyncio.unix_events")?.call_method0(&*text("can_use_pidfd")?)?.is_true()?;
    if can_use_pidfd { &stock.pidfd } else { &stock.threaded }.call0().map(Some)
}

impl ChildWatcher {
    /// The watcher for the children of a loop.
    pub fn of(event_loop: &Any) -> Result<ChildWatcher> {
        let stock = STOCK.get();
        let Some((policy_class, get_child_watcher)) = &stock.policy else {
            let watcher = event_loop.get_attribute_str(c"_watcher")?;
            return Ok(match watcher.get_type().is(&stock.pidfd) {
                true => ChildWatcher::Loop { threaded: false, watcher },
                false => ChildWatcher::Own(watcher),
            });
        };
        let events = import(c"asyncio.events")?;
        let policy = events.call_method0(&*text("get_event_loop_policy")?)?;
        let name = text("get_child_watcher")?;
        let is_stock = policy.is_instance(policy_class)?
            && policy.get_type().get_attribute(&name)?.is(&*policy_class.get_attribute(&name)?)
            && events.get_attribute(&name)?.is(get_child_watcher);
        if is_stock {
            let present = text("_watcher")?;
            if policy.get_attribute(&present)?.is_none() {
                policy.call_method0(&*text("_init_watcher")?)?;
            }
            let watcher = policy.get_attribute(&present)?;
            let class = watcher.get_type();
            if class.is(&stock.pidfd) || class.is(&stock.threaded) {
                let threaded = class.is(&stock.threaded);
                return Ok(ChildWatcher::Loop { threaded, watcher });
            }
        }
        let manager = ask_without_warning(&events, &name)?;
        Ok(ChildWatcher::Policy { manager, entered: Slot::empty() })
    }

    /// Fails: RuntimeError where the program's watcher is not ready.
    pub fn check_active(&self) -> Result<()> {
        let ChildWatcher::Policy { entered, .. } = self else { return Ok(()) };
        if entered.get_or_none().call_method0(&*text("is_active")?)?.is_true()? {
            return Ok(());
        }
        Err(Raised::runtime_error(
            "asyncio.get_child_watcher() is not activated, subprocess support is not installed.",
        ))
    }

    /// `with watcher:` begins.
    pub fn enter(&self) -> Result<()> {
        match self {
            ChildWatcher::Policy { manager, entered } => {
                let value = manager.call_method0(&*text("__enter__")?)?;
                entered.set(if ENTERED_VALUE_WATCHES_CHILDREN { value } else { manager.clone() });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `with watcher:` ends.
    pub fn leave(&self, outcome: Result<Object>) -> Result<Object> {
        let ChildWatcher::Policy { manager, .. } = self else { return outcome };
        let leave = text("__exit__")?;
        match outcome.map_err(Raised::take) {
            Ok(value) => manager.call_method(&leave, &[none(), none(), none()]).map(|_| value),
            Err(exception) => {
                let traceback = exception.get_attribute_str(c"__traceback__")?;
                let arguments = [exception.get_type(), &*exception, &*traceback];
                let swallowed = handling(&exception, || manager.call_method(&leave, &arguments))?;
                match swallowed.is_true()? {
                    true => Ok(none_object()),
                    false => Err(Raised::exception(exception)),
                }
            }
        }
    }

    /// Has `loop._child_watcher_callback` called with the transport when its child has ended. `process` is its pidfd,
    /// where there is one already.
    pub fn add_child(&self, event_loop: &Any, transport: &Any, process: Option<OwnedFd>) -> Result<()> {
        let id = transport.call_method0(&names().get_pid)?;
        let callback = event_loop.get_attribute_str(c"_child_watcher_callback")?;
        let watcher = match self {
            ChildWatcher::Loop { watcher, .. } | ChildWatcher::Own(watcher) => watcher.clone(),
            ChildWatcher::Policy { entered, .. } => entered.get_or_none(),
        };
        if let ChildWatcher::Loop { threaded, .. } = self
            && let Some(native) = EventLoop::from_any(event_loop)
            && id.is_integer()
        {
            let number = id.to_i32()?;
            match process.map_or_else(|| ioxide_io::open_process(number), Ok) {
                Ok(process) => {
                    return native.watch_child(number, process, *threaded, callback, transport);
                }
                // asyncio's own watcher of this version needs no pidfd.
                Err(_) if *threaded => {}
                Err(error) => return Err(raise_os_error(&error)),
            }
        }
        watcher.call_method(&*text("add_child_handler")?, &[&*id, &*callback, transport]).map(drop)
    }
}

/// `asyncio.get_child_watcher()`, whose deprecation is not the program's business here.
fn ask_without_warning(events: &Any, name: &Any) -> Result<Object> {
    let warnings = import(c"warnings")?;
    let guard = warnings.call_method0(&*text("catch_warnings")?)?;
    guard.call_method0(&*text("__enter__")?)?;
    let ignored = [&*text("ignore")?, builtin(Builtin::DeprecationWarning)];
    let asked = warnings
        .call_method(&*text("simplefilter")?, &ignored)
        .and_then(|_| events.call_method0(name))
        .map_err(Raised::take);
    guard.call_method(&*text("__exit__")?, &[none(), none(), none()])?;
    asked.map_err(Raised::exception)
}

impl EventLoop {
    fn watch_child(
        &self,
        id: i32,
        process: OwnedFd,
        threaded: bool,
        callback: Object,
        transport: &Any,
    ) -> Result<()> {
        let fd = process.as_raw_fd();
        let child = allocate(Child {
            head: head(),
            id,
            threaded,
            process: RefCell::new(Some(process)),
            event_loop: Slot::filled(self.to_object()),
            callback: Slot::filled(callback),
            transport: Slot::filled(transport.to_object()),
        })?;
        let handle = Handle::create(self, &*ON_END.get().bind(&child)?, &[], None)?;
        self.watch(fd, Direction::Read, Watcher::Handle(handle)).map(drop)
    }

    /// `loop._child_watcher_callback(pid, returncode, transp)`, in the loop's thread or a watcher's.
    pub fn on_child_ended(&self, arguments: Arguments<'_>) -> Result<()> {
        let [_id, status, transport] = arguments.positional() else {
            return Err(Raised::type_error("_child_watcher_callback expected 3 arguments"));
        };
        let exited = transport.get_attribute(&names()._process_exited)?;
        match EXIT_IS_ANNOUNCED {
            ExitIsAnnounced::InTwoTurns => {
                let call_soon = self.get_attribute(&names().call_soon)?;
                let arguments = [&*call_soon, &*exited, status];
                self.call_method(&names().call_soon_threadsafe, &arguments).map(drop)
            }
            ExitIsAnnounced::InTheNextTurn => {
                self.call_method(&names().call_soon_threadsafe, &[&exited, status]).map(drop)
            }
            ExitIsAnnounced::AtOnce => exited.call1(status).map(drop),
        }
    }
}

impl Child {
    /// The pidfd is readable: the child is reaped, and its transport is told (D1, D2).
    fn on_end(&self) -> Result<()> {
        let Some(fd) = self.descriptor() else { return Ok(()) };
        let reaped = {
            let process = self.process.borrow();
            let Some(process) = process.as_ref() else { return Ok(()) };
            ioxide_io::reap(process.as_fd(), self.id)
        };
        let status = match reaped {
            Ok(Some(status)) => Some(status),
            Ok(None) => return Ok(()),
            Err(_) => None,
        };
        let Some(event_loop) = self.event_loop.take() else { return Ok(()) };
        if let Some(native) = EventLoop::from_any(&event_loop) {
            let watcher = native.unwatch(fd, Direction::Read);
            drop(watcher);
        }
        drop(self.process.take());
        let (callback, transport) = (self.callback.take(), self.transport.take());
        self.log(&event_loop, status)?;
        let (Some(callback), Some(transport)) = (callback, transport) else { return Ok(()) };
        let (id, status) = (integer(i64::from(self.id))?, integer(i64::from(status.unwrap_or(255)))?);
        if self.threaded {
            // asyncio's thread sends the news to the loop, which hears it in its next turn.
            let arguments = [&*callback, &*id, &*status, &*transport];
            return event_loop.call_method(&names().call_soon, &arguments).map(drop);
        }
        callback.call(&[&id, &status, &transport]).map(drop)
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.process.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// What asyncio's watcher logs.
    fn log(&self, event_loop: &Any, status: Option<i32>) -> Result<()> {
        let id = integer(i64::from(self.id))?;
        let Some(status) = status else {
            let message = match self.threaded {
                true => "Unknown child process pid %d, will report returncode 255",
                false => "child process pid %d exit status already read:  will report returncode 255",
            };
            return imports().logger.call_method(&names().warning, &[&*text(message)?, &*id]).map(drop);
        };
        if self.threaded && super::is_debug(event_loop)? {
            let message = text("process %s exited with returncode %s")?;
            let status = integer(i64::from(status))?;
            imports().logger.call_method(&names().debug, &[&*message, &*id, &*status])?;
        }
        Ok(())
    }
}

impl Traverse for Child {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.event_loop);
        visitor.slot(&self.callback);
        visitor.slot(&self.transport);
    }

    fn clear(&self) {
        self.event_loop.clear();
        self.callback.clear();
        self.transport.clear();
    }
}
