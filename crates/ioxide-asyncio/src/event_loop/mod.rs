//! `EventLoop`: a Python class over `asyncio.AbstractEventLoop` with a native core.
//!
//! | file | room |
//! |---|---|
//! | mod | the class, the core's state, which methods somebody has overridden |
//! | methods, connection_methods | the tables of what Python sees |
//! | turn | one turn: wait, events, due timers, exactly the callbacks that were ready |
//! | schedule | call_soon, call_later, call_at, call_soon_threadsafe, create_task |
//! | lifecycle | run_forever, run_until_complete, stop, close |
//! | watch | which descriptor somebody waits for: add_reader, transports, operations |
//! | sock | the sock_* coroutines |
//! | connect, attempt, resolve, owned | create_connection and its kin |
//! | serve, serve_unix, accept | listening sockets and the connections they bring |
//! | sendfile, sendfile_kernel, sendfile_pieces | files sent whole |
//! | secure, modules | where TLS is asked for, asyncio's modules as asyncio's code sees them |
//! | datagram, pipes | create_datagram_endpoint, connect_read_pipe, connect_write_pipe |
//! | dns, look_up, signals, debug, report | names and addresses, signal handlers, debug mode, exceptions that nobody catches |
//! | executor, worker_queue, asyncgens | work in threads, what workers have to do, asynchronous generators |
//! | processes, children | starting child processes, noticing their end |
//! | timed | what waits in the timers: handles, sleepers, deadlines |
//! | sender | the way back to the loop from a thread without the GIL |
//! | attributes | the attributes that are Python's own objects |
//!
//! Invariants:
//! E1. No borrow of a `RefCell` of the core is held while Python runs; objects taken out of one are dropped after it.
//! E2. `fast` is true exactly while scheduling may go straight into the ready queue: the loop is open, debug mode is
//!     off and nobody has overridden `call_soon`.
//! E3. The core's state is touched by the loop's thread, or by another one that holds the GIL while this one waits;
//!     only `inbox`, `wakes` and `registrar` are meant for other threads.

mod accept;
mod asyncgens;
mod attempt;
mod attributes;
mod children;
mod connect;
mod connection_methods;
mod datagram;
mod debug;
mod dns;
mod executor;
mod lifecycle;
mod look_up;
mod methods;
mod modules;
mod overrides;
mod owned;
mod pipes;
mod processes;
mod report;
mod resolve;
mod schedule;
mod secure;
mod sender;
mod sendfile;
mod sendfile_kernel;
mod sendfile_pieces;
mod serve;
mod serve_unix;
mod signals;
mod sock;
mod timed;
mod turn;
mod watch;
mod worker_queue;

pub use sender::Sender;
pub use timed::on_timer_cancelled;
pub use watch::{Direction, Watcher};
pub use worker_queue::at_end_of_work;

use self::overrides::Overrides;
use self::processes::Starts;
use self::signals::SignalSockets;
use self::watch::Watches;
use self::worker_queue::LateWakes;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::Receiver;
use ioxide_cpython::object::Detached;
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, allocate, head};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, imports, names};
use ioxide_io::{DatagramBatch, ReadBuffer};
use ioxide_reactor::{Inbox, MonotonicTime, Poller, ReadyQueue, Registrar, Timers, Wakes};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

/// The loop as Python sees it. Derefs to the object; `core` is the state.
#[repr(transparent)]
pub struct EventLoop(Any);

/// Something that is to run in the next turn.
pub enum Ready {
    /// A handle of `call_soon` or of a due timer.
    Handle(Object),
    /// The next step of a task.
    Step(Object),
    /// A step that begins with an exception.
    Throw(Object, Object),
    /// The wake-up of a task by a future that is done.
    Wakeup(Object, Object),
    /// A callback of a future that is done, to be called with the future in its context. Nobody was handed a handle.
    Callback { callback: Object, future: Object, context: Object },
    /// A native callback of a future that is done.
    Done(Object, Object),
    /// A timer that is no handle has come due.
    Due(Object),
    /// A descriptor is ready for whoever watches it.
    Watcher(Watcher, Direction),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifecycle {
    Idle,
    Running,
    Closed,
}

/// The native state behind a loop.
#[repr(C)]
pub struct LoopCore {
    head: Any,
    lifecycle: Cell<Lifecycle>,
    stopping: Cell<bool>,
    fast: Cell<bool>,
    plain: Cell<bool>,
    debug: Cell<bool>,
    overrides: Cell<Overrides>,
    seen_class: Cell<u32>,
    /// The thread that runs the loop, as `threading.get_ident` numbers it; 0 for none.
    thread: Cell<u64>,
    /// The process that opened the loop: a forked child must not touch its parent's descriptors.
    process: Cell<u32>,
    ready: RefCell<ReadyQueue<Ready>>,
    timers: RefCell<Timers<Option<Object>>>,
    cancelled_timers: Cell<usize>,
    poller: RefCell<Option<Poller>>,
    registrar: RefCell<Option<Registrar>>,
    wakes: RefCell<Option<Arc<Wakes>>>,
    inbox: Arc<Inbox<Detached>>,
    watches: Watches,
    polled_at: Cell<MonotonicTime>,
    timers_fired_at: Cell<MonotonicTime>,
    /// Whether a task is published as the current one.
    in_task: Cell<bool>,
    polls_every_turn: bool,
    read_buffer: RefCell<ReadBuffer>,
    datagram_batch: RefCell<DatagramBatch>,
    /// Counts the turns, from one.
    turn: Cell<u64>,
    /// Transports with bytes to send before the next wait.
    unflushed: RefCell<VecDeque<Object>>,
    /// How many bytes these had to send when they came here.
    unflushed_bytes: Cell<usize>,
    task_factory: Slot,
    /// A dictionary, see `attributes`.
    attributes: Slot,
    late_wakes: LateWakes,
    signal_sockets: SignalSockets,
    starts: Starts,
    /// What file operations are handed to; none before the first of them.
    file_ring: Slot,
}

static LOOP_CORE: Once<Class> = Once::new();
static EVENT_LOOP: Once<ShellClass> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for LoopCore {
    fn class() -> &'static Once<Class> {
        &LOOP_CORE
    }
}

impl Deref for EventLoop {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.0
    }
}

impl Receiver for EventLoop {
    #[inline(always)]
    unsafe fn receive<'a>(this: *mut ioxide_cpython::object::RawObject) -> Result<&'a EventLoop> {
        // SAFETY: the method descriptors of the class check that `this` is an instance.
        unsafe {
            let shell = Any::from_ptr(this);
            match EVENT_LOOP.get().core::<LoopCore>(shell) {
                Some(_) => Ok(&*(shell as *const Any).cast::<EventLoop>()),
                None => Err(Raised::runtime_error("the event loop is not initialized")),
            }
        }
    }
}

/// Creates the classes.
pub fn initialize() -> Result<()> {
    LOOP_CORE.set(NativeClass::core::<LoopCore>(c"ioxide.LoopCore")?);
    let class = ShellClass::create(methods::definition())?;
    EVENT_LOOP.set(class);
    accept::initialize()?;
    datagram::initialize()?;
    schedule::initialize()?;
    executor::initialize()?;
    look_up::initialize()?;
    processes::initialize();
    children::initialize()?;
    overrides::initialize(EventLoop::class())
}

impl EventLoop {
    /// The class object.
    pub fn class() -> &'static Any {
        EVENT_LOOP.get().class().as_any()
    }

    /// The object as a loop of ioxide's, if it is one.
    #[inline(always)]
    pub fn from_any(object: &Any) -> Option<&EventLoop> {
        let shell = EVENT_LOOP.get();
        if !shell.class().is_exact(object) && !object.is_subtype_of(shell.class().as_any()) {
            return None;
        }
        // SAFETY: an instance of the class, and its core is there.
        unsafe {
            shell.core::<LoopCore>(object)?;
            Some(&*(object as *const Any).cast::<EventLoop>())
        }
    }

    /// The object as a loop whose ready queue may be filled directly (E2).
    #[inline(always)]
    pub fn fast(object: &Any) -> Option<&EventLoop> {
        EventLoop::from_any(object).filter(|event_loop| {
            event_loop.notice_class();
            event_loop.core().fast.get()
        })
    }

    /// The object as a loop whose futures, tasks and timers may be made directly as well: nobody has overridden a method
    /// that schedules.
    #[inline(always)]
    pub fn plain(object: &Any) -> Option<&EventLoop> {
        EventLoop::from_any(object).filter(|event_loop| {
            event_loop.notice_class();
            event_loop.core().plain.get()
        })
    }

    /// Whether the object is a loop of ioxide's.
    #[inline(always)]
    pub fn is_native(object: &Any) -> bool {
        EventLoop::from_any(object).is_some()
    }

    #[inline(always)]
    pub fn core(&self) -> &LoopCore {
        // SAFETY: an instance of the class, whose core was there when the reference was made; only the collector
        // takes it away, and then nobody holds the loop.
        match unsafe { EVENT_LOOP.get().core::<LoopCore>(&self.0) } {
            Some(core) => core,
            None => unreachable!("a loop that is in use has its core"),
        }
    }

    /// `EventLoop.__new__`
    fn create(class: &Any) -> Result<Object> {
        let poller = Poller::new().map_err(|error| ioxide_cpython::exception::raise_os_error(&error))?;
        let wakes = Wakes::new().map_err(|error| ioxide_cpython::exception::raise_os_error(&error))?;
        let registrar = poller.registrar().clone();
        let polls_every_turn = std::env::var_os("IOXIDE_POLL_EVERY_TURN").is_some_and(|value| value == "1");
        let core = allocate(LoopCore {
            head: head(),
            lifecycle: Cell::new(Lifecycle::Idle),
            stopping: Cell::new(false),
            fast: Cell::new(false),
            plain: Cell::new(false),
            debug: Cell::new(lifecycle::debug_by_default()?),
            overrides: Cell::new(Overrides::default()),
            seen_class: Cell::new(overrides::NO_CLASS_SEEN),
            thread: Cell::new(0),
            process: Cell::new(std::process::id()),
            ready: RefCell::new(ReadyQueue::new()),
            timers: RefCell::new(Timers::new()),
            cancelled_timers: Cell::new(0),
            poller: RefCell::new(Some(poller)),
            registrar: RefCell::new(Some(registrar)),
            wakes: RefCell::new(Some(Arc::new(wakes))),
            inbox: Arc::new(Inbox::new()),
            watches: Watches::default(),
            polled_at: Cell::new(MonotonicTime::ZERO),
            timers_fired_at: Cell::new(MonotonicTime::ZERO),
            in_task: Cell::new(false),
            polls_every_turn,
            read_buffer: RefCell::new(ReadBuffer::default()),
            datagram_batch: RefCell::new(DatagramBatch::default()),
            turn: Cell::new(0),
            unflushed: RefCell::new(VecDeque::new()),
            unflushed_bytes: Cell::new(0),
            task_factory: Slot::empty(),
            attributes: Slot::empty(),
            late_wakes: LateWakes::default(),
            signal_sockets: SignalSockets::none(),
            starts: Starts::default(),
            file_ring: Slot::empty(),
        })?;
        let shell = EVENT_LOOP.get().instantiate(class, core)?;
        if let Some(event_loop) = EventLoop::from_any(&shell) {
            event_loop.watch_wakes()?;
            attributes::give(event_loop)?;
            event_loop.refresh_overrides()?;
        }
        Ok(shell)
    }

    /// Fails: RuntimeError where the loop is closed.
    #[inline]
    pub fn check_closed(&self) -> Result<()> {
        if self.core().lifecycle.get() == Lifecycle::Closed {
            return Err(Raised::runtime_error("Event loop is closed"));
        }
        Ok(())
    }

    pub fn is_closed(&self) -> bool {
        self.core().lifecycle.get() == Lifecycle::Closed
    }

    /// Whether debug mode is on.
    #[inline(always)]
    pub fn is_debug(&self) -> bool {
        self.core().debug.get()
    }

    /// Where an object of the loop is being created, for debug mode; `None` without it.
    #[inline]
    pub fn creation_traceback(&self) -> Result<Option<Object>> {
        if !self.is_debug() || ioxide_cpython::module::is_finalizing() {
            return Ok(None);
        }
        imports().extract_stack.call0().map(Some)
    }

    /// Appends to the ready queue, behind what other threads have sent before.
    #[inline(always)]
    pub fn push_ready(&self, item: Ready) {
        let core = self.core();
        if core.inbox.is_pending() {
            self.receive_from_threads();
        }
        core.ready.borrow_mut().push_back(item);
    }

    /// Moves the handles that other threads have sent to the ready queue.
    fn receive_from_threads(&self) {
        let core = self.core();
        core.inbox.drain_into(|handle| {
            core.ready.borrow_mut().push_back(Ready::Handle(handle.into_object()));
        });
    }

    /// Keeps E2 true after any change of what it depends on.
    fn refresh_fast(&self) {
        let core = self.core();
        let open = core.lifecycle.get() != Lifecycle::Closed;
        let fast = open && !core.debug.get() && !core.overrides.get().call_soon;
        core.fast.set(fast);
        core.plain.set(fast && core.overrides.get().none());
    }

    /// The transport has so many bytes to send before the next wait.
    pub fn flush_later(&self, transport: Object, bytes: usize) {
        let core = self.core();
        core.unflushed.borrow_mut().push_back(transport);
        core.unflushed_bytes.set(core.unflushed_bytes.get() + bytes);
    }

    /// The loop's scratch buffer for reading; whoever borrows it gives it back before Python runs (E1).
    pub fn read_buffer(&self) -> &RefCell<ReadBuffer> {
        &self.core().read_buffer
    }

    /// Where the loop receives datagrams; whoever takes it gives it back.
    pub fn datagram_batch(&self) -> &RefCell<DatagramBatch> {
        &self.core().datagram_batch
    }

    /// Whether the next turn would begin with nothing to run, before it has looked at the kernel.
    pub fn has_nothing_else_to_do(&self) -> bool {
        let core = self.core();
        !core.debug.get()
            && !core.stopping.get()
            && !core.polls_every_turn
            && !core.inbox.is_pending()
            && core.ready.borrow().is_empty()
    }

    /// The number of the current turn.
    pub fn turn(&self) -> u64 {
        self.core().turn.get()
    }

    /// Whether the calling thread runs the loop now.
    pub fn in_own_thread(&self) -> bool {
        self.core().thread.get() == thread_id()
    }
}

/// Whether a loop, ioxide's or not, is in debug mode.
pub fn is_debug(event_loop: &Any) -> Result<bool> {
    match EventLoop::from_any(event_loop) {
        Some(native) if !native.overrides().get_debug => Ok(native.is_debug()),
        _ => event_loop.call_method0(&names().get_debug)?.is_true(),
    }
}

/// `threading.get_ident()`
pub fn thread_id() -> u64 {
    ioxide_cpython::current::thread_id()
}

impl Traverse for LoopCore {
    fn traverse(&self, visitor: &mut Visitor) {
        if let Ok(ready) = self.ready.try_borrow() {
            for item in ready.iter() {
                item.traverse(visitor);
            }
        }
        if let Ok(timers) = self.timers.try_borrow() {
            for timer in timers.iter() {
                visitor.optional(timer.as_ref());
            }
        }
        if let Ok(unflushed) = self.unflushed.try_borrow() {
            for transport in unflushed.iter() {
                visitor.object(transport);
            }
        }
        self.watches.traverse(visitor);
        visitor.slot(&self.task_factory);
        visitor.slot(&self.attributes);
        self.signal_sockets.traverse(visitor);
        self.starts.traverse(visitor);
        visitor.slot(&self.file_ring);
    }

    fn clear(&self) {
        let ready = self.ready.borrow_mut().clear();
        let timers = self.timers.borrow_mut().drain().collect::<Vec<_>>();
        let unflushed = std::mem::take(&mut *self.unflushed.borrow_mut());
        drop((ready, timers, unflushed));
        self.watches.clear();
        self.task_factory.clear();
        self.attributes.clear();
        self.signal_sockets.clear();
        self.starts.clear();
        self.file_ring.clear();
    }
}

impl Ready {
    fn traverse(&self, visitor: &mut Visitor) {
        match self {
            Ready::Handle(object) | Ready::Step(object) | Ready::Due(object) => visitor.object(object),
            Ready::Throw(first, second) | Ready::Wakeup(first, second) | Ready::Done(first, second) => {
                visitor.object(first);
                visitor.object(second);
            }
            Ready::Callback { callback, future, context } => {
                visitor.object(callback);
                visitor.object(future);
                visitor.object(context);
            }
            Ready::Watcher(watcher, _) => watcher.traverse(visitor),
        }
    }
}
