//! A `subprocess.Popen` whose child begins its program while the loop goes on.
//!
//! The object is a real Popen, initialized by Popen's own `__init__`, with every keyword and every error it has. Only the
//! last thing that `__init__` does, `_execute_child`, is done here: it starts the child and does not wait until the program
//! has begun; the loop does, and raises what Popen would have raised.
//!
//! Leaves to others: what the child has to do (`command`), when a child may be started (`event_loop/processes`).
//!
//! Invariants:
//! O1. Popen's own code runs in full where somebody has replaced the class, one of its methods or `_fork_exec`, where
//!     `subprocess._USE_VFORK` forbids shared memory, and where the kernel lacks what is needed.
//! O2. A start that is under way is held by the loop's watch, and tells `event_loop/processes` when it is over.
//! O3. Coroutines hold a start where the collector does not see it, so nothing leads from a start to a coroutine.

use super::command::Command;
use super::stream_names;
use crate::event_loop::{Direction, EventLoop, Watcher};
use crate::futures;
use crate::handles::Handle;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{Waiting, wait_for};
use ioxide_cpython::exception::{raise_os_error, raise_os_error_with_path};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, method, method0};
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, OwnMethods, allocate, head};
use ioxide_cpython::value::{integer, text, tuple, weak_reference, weak_referent};
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, Slot, boolean, builtin, names, none};
use ioxide_io::{Failure, Started, Starting, can_start};
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Popen as it was when ioxide was imported (O1).
struct Stock {
    class: Object,
    methods: OwnMethods,
    fork_exec: Object,
    /// From 3.13 on what fails before the program, but for the directory, is told without a file name.
    tells_directory: bool,
}

/// What `_execute_child` is given, in its order.
pub(super) struct PopenArguments<'a> {
    pub(super) arguments: &'a Any,
    pub(super) executable: &'a Any,
    pub(super) preexec_fn: &'a Any,
    pub(super) close_fds: &'a Any,
    pub(super) pass_fds: &'a Any,
    pub(super) directory: &'a Any,
    pub(super) environment: &'a Any,
    pub(super) shell: &'a Any,
    /// The ends of the pipes: of input the child's and the parent's, of output and error the parent's and the child's.
    pub(super) pipes: [&'a Any; 6],
    pub(super) restore_signals: &'a Any,
    pub(super) group: &'a Any,
    pub(super) extra_groups: &'a Any,
    pub(super) user: &'a Any,
    pub(super) umask: &'a Any,
    pub(super) start_new_session: &'a Any,
    pub(super) process_group: &'a Any,
}

/// A child whose program has not begun yet.
#[repr(C)]
struct Start {
    head: Any,
    popen: Slot,
    program: Slot,
    directory: Slot,
    event_loop: Slot,
    /// A weak reference to the future of whoever waits (O3).
    waiter: Slot,
    starting: RefCell<Option<Starting>>,
    outcome: RefCell<Option<Started>>,
    process: RefCell<Option<OwnedFd>>,
}

/// A Popen, and how its child began.
pub struct Begun {
    pub popen: Object,
    /// Empty where the program runs already.
    start: Option<Object>,
}

static START: Once<Class> = Once::new();
static EXECUTE_CHILD: Once<FunctionDefinition> = Once::new();
static ON_BEGUN: Once<FunctionDefinition> = Once::new();
static STOCK: Once<Stock> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Start {
    fn class() -> &'static Once<Class> {
        &START
    }
}

/// The methods of Popen that a start relies on.
const METHODS: [&str; 6] =
    ["__init__", "_execute_child", "_get_handles", "_close_pipe_fds", "_get_devnull", "__setattr__"];

pub(super) fn initialize() -> Result<()> {
    START.set(NativeClass::core::<Start>(c"ioxide.ChildStart")?);
    EXECUTE_CHILD.set(FunctionDefinition::new(method(c"_execute_child", Start::execute_child)));
    ON_BEGUN.set(FunctionDefinition::new(method0(c"_on_child_begun", Start::on_begun)));
    let module = import(c"subprocess")?;
    let class = module.get_attribute_str(c"Popen")?;
    STOCK.set(Stock {
        methods: OwnMethods::of(&class, &METHODS)?,
        fork_exec: module.get_attribute_str(c"_fork_exec")?,
        tells_directory: Code::of_method(&class, "_execute_child")?.text_beginning("noexec:chdir")?.is_some(),
        class,
    });
    Ok(())
}

/// `subprocess.Popen(command, **keywords)`, which may not have begun its program when this returns.
pub fn begin(command: &Any, keywords: &Any) -> Result<Begun> {
    let module = import(c"subprocess")?;
    let class = module.get_attribute_str(c"Popen")?;
    let Some(popen) = unmade_popen(&module, &class)? else {
        return Ok(Begun { popen: class.call_tuple(&*tuple(&[command])?, Some(keywords))?, start: None });
    };
    let start = allocate(Start {
        head: head(),
        popen: Slot::filled(popen.clone()),
        program: Slot::empty(),
        directory: Slot::empty(),
        event_loop: Slot::empty(),
        waiter: Slot::empty(),
        starting: RefCell::new(None),
        outcome: RefCell::new(None),
        process: RefCell::new(None),
    })?;
    popen.set_attribute(&names()._execute_child, &*EXECUTE_CHILD.get().bind(&start)?)?;
    let initialize = class.get_attribute_str(c"__init__")?;
    let initialized =
        initialize.call_tuple(&*tuple(&[&popen, command])?, Some(keywords)).map_err(Raised::take);
    popen.delete_attribute(&names()._execute_child)?;
    initialized.map_err(Raised::exception)?;
    let is_under_way = Start::from_exact(&start).is_some_and(|start| start.starting.borrow().is_some());
    Ok(Begun { popen, start: is_under_way.then_some(start) })
}

/// A Popen that is not initialized yet, where its child may be started here (O1).
fn unmade_popen(module: &Any, class: &Any) -> Result<Option<Object>> {
    if !may_begin(module, class)? {
        return Ok(None);
    }
    let popen = class.call_method1(&*text("__new__")?, class)?;
    Ok(STOCK.get().methods.hold_for(&popen)?.then_some(popen))
}

/// See O1.
fn may_begin(module: &Any, class: &Any) -> Result<bool> {
    let stock = STOCK.get();
    if !class.is(&stock.class)
        || !module.get_attribute_str(c"_fork_exec")?.is(&stock.fork_exec)
        || !can_start()
    {
        return Ok(false);
    }
    match module.get_attribute_optional(&*text("_USE_VFORK")?)? {
        Some(shares_memory) => shares_memory.is_true(),
        None => Ok(true),
    }
}

impl Begun {
    /// Whether the loop has to wait until the program has begun.
    pub fn is_under_way(&self) -> bool {
        self.start.is_some()
    }

    /// The child's pidfd, once.
    pub fn take_process(&self) -> Option<OwnedFd> {
        self.start.as_deref().and_then(Start::from_exact).and_then(|start| start.process.take())
    }

    /// Lets the loop wait for the program to begin (O2).
    pub fn watch(&self, event_loop: &EventLoop) -> Result<()> {
        match self.start.as_deref().and_then(Start::from_exact) {
            Some(start) => start.watch(event_loop),
            None => Ok(()),
        }
    }
}

/// Waits until the child's program has begun. A cancellation meanwhile is returned: it counts when the child is there.
/// Fails: as Popen where the program cannot be executed.
pub async fn wait_until_begun(begun: &Begun, event_loop: &EventLoop) -> Result<Option<Object>> {
    let Some(start) = begun.start.as_deref().and_then(Start::from_exact) else { return Ok(None) };
    let mut cancelled = None;
    while start.outcome.borrow().is_none() {
        let waiting = start.new_waiter(event_loop)?;
        match waiting.await {
            Ok(_) => {}
            Err(raised) if raised.leaves_the_loop() => return Err(raised),
            // Nobody runs the coroutine any more.
            Err(raised) if raised.matches(builtin(Builtin::GeneratorExit)) => return Err(raised),
            Err(raised) => cancelled = Some(raised.take()),
        }
    }
    let outcome = start.outcome.take();
    match (outcome, &cancelled) {
        (Some(Started::Failed(failure, error)), cancelled) => {
            start.clean_up()?;
            match cancelled {
                Some(exception) => Err(Raised::exception(exception.clone())),
                None => Err(start.failed(failure, &error)),
            }
        }
        _ => Ok(cancelled),
    }
}

impl<'a> PopenArguments<'a> {
    /// `None` where a Popen of another kind has called.
    fn bind(arguments: Arguments<'a>) -> Option<PopenArguments<'a>> {
        let &[
            arguments,
            executable,
            preexec_fn,
            close_fds,
            pass_fds,
            directory,
            environment,
            _,
            _,
            shell,
            a,
            b,
            c,
            d,
            e,
            f,
            restore_signals,
            group,
            extra_groups,
            user,
            umask,
            start_new_session,
            process_group,
        ] = arguments.positional()
        else {
            return None;
        };
        Some(PopenArguments {
            arguments,
            executable,
            preexec_fn,
            close_fds,
            pass_fds,
            directory,
            environment,
            shell,
            pipes: [a, b, c, d, e, f],
            restore_signals,
            group,
            extra_groups,
            user,
            umask,
            start_new_session,
            process_group,
        })
    }

    /// The child's ends: standard input, output and error, -1 where it has the parent's.
    pub(super) fn childs_streams(&self) -> Result<[i32; 3]> {
        let [input, _, _, output, _, error] = self.pipes;
        Ok([input.to_i32()?, output.to_i32()?, error.to_i32()?])
    }
}

impl Start {
    /// `popen._execute_child(...)`, called by Popen's `__init__`.
    fn execute_child(&self, arguments: Arguments<'_>) -> Result<()> {
        let popen = self.popen.get_or_none();
        let given = PopenArguments::bind(arguments);
        let command = match given.as_ref().map(Command::compose) {
            Some(Ok(command)) => command,
            Some(Err(raised)) if raised.leaves_the_loop() => return Err(raised),
            // Popen's own code says what is wrong.
            Some(Err(raised)) => {
                drop(raised.take());
                None
            }
            None => None,
        };
        let (Some(given), Some(command)) = (given, command) else {
            let mut all = vec![&*popen];
            all.extend_from_slice(arguments.positional());
            let own = STOCK.get().class.get_attribute(&names()._execute_child)?;
            return own.call_slice(&all).map(drop);
        };
        let Command { order, program, arguments, spawned_environment } = command;
        let audit = import(c"sys")?.get_attribute_str(c"audit")?;
        let event = text("subprocess.Popen")?;
        audit.call(&[&*event, &*program, &*arguments, given.directory, given.environment])?;
        let program = match spawned_environment {
            Some(environment) => {
                let program = import(c"os")?.get_attribute_str(c"fspath")?.call1(&program)?;
                audit.call(&[&*text("os.posix_spawn")?, &*program, &*arguments, &*environment])?;
                program
            }
            None => program,
        };
        let mut starting = Starting::begin(order).map_err(|error| raise_os_error(&error))?;
        popen.set_attribute(&names().pid, &*integer(i64::from(starting.id()))?)?;
        popen.set_attribute(&names()._child_created, &boolean(true))?;
        self.program.set(program);
        self.directory.set(given.directory.to_object());
        drop(self.process.replace(starting.take_process()));
        drop(self.starting.replace(Some(starting)));
        popen.call_method(&names()._close_pipe_fds, &given.pipes).map(drop)
    }

    fn watch(&self, event_loop: &EventLoop) -> Result<()> {
        let fd = self.starting.borrow().as_ref().map(|starting| starting.witness().as_raw_fd());
        let Some(fd) = fd else { return Ok(()) };
        self.event_loop.set(event_loop.to_object());
        let handle = Handle::create(event_loop, &*ON_BEGUN.get().bind(&self.head)?, &[], None)?;
        event_loop.watch(fd, Direction::Read, Watcher::Handle(handle)).map(drop)
    }

    /// A future of which the collector knows all owners: the start refers to it weakly (O3).
    fn new_waiter(&self, event_loop: &EventLoop) -> Result<Waiting> {
        let waiter = futures::create(event_loop)?;
        self.waiter.set(weak_reference(&waiter)?);
        Ok(wait_for(&waiter))
    }

    /// The child has left this process's memory: its program runs, or it has ended.
    fn on_begun(&self) -> Result<()> {
        let (fd, outcome) = {
            let mut starting = self.starting.borrow_mut();
            let Some(starting) = starting.as_mut() else { return Ok(()) };
            let Some(outcome) = starting.outcome() else { return Ok(()) };
            (starting.witness().as_raw_fd(), outcome)
        };
        drop(self.outcome.replace(Some(outcome)));
        let event_loop = self.event_loop.take();
        if let Some(native) = event_loop.as_deref().and_then(EventLoop::from_any) {
            drop(native.unwatch(fd, Direction::Read));
            drop(self.starting.take());
            native.child_has_begun()?;
        }
        let waiter = self.waiter.take().map(|waiter| weak_referent(&waiter)).transpose()?.flatten();
        match waiter {
            Some(waiter) => futures::set_result_unless_done(&waiter, none()).map(drop),
            None => Ok(()),
        }
    }

    /// What Popen does when its child could not execute the program: closes the pipes and reaps the child.
    fn clean_up(&self) -> Result<()> {
        let popen = self.popen.get_or_none();
        for stream in stream_names() {
            let pipe = popen.get_attribute(stream)?;
            if pipe.is_true()? {
                match pipe.call_method0(&names().close) {
                    Err(raised) if !raised.matches(builtin(Builtin::OSError)) => return Err(raised),
                    Err(raised) => drop(raised.take()),
                    Ok(_) => {}
                }
            }
        }
        let process = self.process.take();
        // Somebody else may have reaped it.
        let status = process.and_then(|process| ioxide_io::reap_at_end(process.as_fd()).ok());
        match status {
            Some(status) => popen.set_attribute(&names().returncode, &*integer(i64::from(status))?),
            None => Ok(()),
        }
    }

    /// The exception that Popen raises.
    fn failed(&self, failure: Failure, error: &std::io::Error) -> Raised {
        match failure {
            Failure::Preparation if STOCK.get().tells_directory => raise_os_error(error),
            Failure::Preparation | Failure::Directory => {
                raise_os_error_with_path(error, &self.directory.get_or_none())
            }
            Failure::Program => raise_os_error_with_path(error, &self.program.get_or_none()),
        }
    }
}

impl Start {
    fn slots(&self) -> [&Slot; 5] {
        [&self.popen, &self.program, &self.directory, &self.event_loop, &self.waiter]
    }
}

impl Traverse for Start {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
    }
}
