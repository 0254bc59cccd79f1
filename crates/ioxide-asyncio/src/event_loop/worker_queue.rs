//! `WorkerQueue`: the queue between the loop and the workers of its default executor, in the place of the SimpleQueue that
//! ThreadPoolExecutor makes.
//!
//! A worker that sends its result wakes the loop, which then wants the GIL that the worker still holds: both stumble.
//! Here the worker notes the wake-up and makes it when it has let go of the GIL, on its way to sleep. The same is true of
//! a loop that hands out work as the last thing of a step: it wakes the worker when it lets go of the GIL itself.
//!
//! Invariants:
//! Q1. Items and sleepers are touched under the GIL only; a sleeper is parked without it and holds no lock, so a fork
//!     finds nothing locked.
//! Q2. A wake-up of a loop that was put off is made by the next `get` of the same thread, before it sleeps or returns.
//! Q3. A wake-up of a worker that was put off is made before the loop runs anything else, waits or ends its run.

use ioxide_cpython::call::import;
use ioxide_cpython::detach::without_gil;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, documented, given, method, method0};
use ioxide_cpython::types::{Class, Native, NativeClass, allocate, head};
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Once, Raised, Result, none};
use ioxide_reactor::Wakes;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

#[repr(C)]
pub struct WorkerQueue {
    head: Any,
    items: RefCell<VecDeque<Object>>,
    /// The workers that sleep, the last one to do so last: it is woken first.
    sleepers: RefCell<Vec<Thread>>,
}

static WORKER_QUEUE: Once<Class> = Once::new();

/// Workers that have an item and are to be woken soon (Q3).
#[derive(Default)]
pub struct LateWakes(RefCell<Vec<Thread>>);

impl LateWakes {
    #[inline(always)]
    pub fn make(&self) {
        if !self.0.borrow().is_empty() {
            wake_workers(self.take());
        }
    }

    pub fn take(&self) -> Vec<Thread> {
        self.0.take()
    }

    /// Runs `body`, the last thing that a step does: workers that it gives an item are woken a moment later.
    pub fn at_end_of_step<T>(&self, body: impl FnOnce() -> T) -> T {
        let before = LATE.replace(Some(Vec::new()));
        let outcome = body();
        let late = LATE.replace(before).unwrap_or_default();
        self.0.borrow_mut().extend(late);
        outcome
    }
}

pub fn wake_workers(workers: Vec<Thread>) {
    for worker in workers {
        worker.unpark();
    }
}

thread_local! {
    /// Whether this thread takes items from a queue of this class.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    static LATE: RefCell<Option<Vec<Thread>>> = const { RefCell::new(None) };
    static PUTS_OFF: Cell<bool> = const { Cell::new(false) };
    static PUT_OFF: RefCell<Vec<Arc<Wakes>>> = const { RefCell::new(Vec::new()) };
}

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for WorkerQueue {
    fn class() -> &'static Once<Class> {
        &WORKER_QUEUE
    }
}

/// Creates the class.
pub fn initialize() -> Result<()> {
    WORKER_QUEUE.set(
        NativeClass::new::<WorkerQueue>(c"ioxide.WorkerQueue")
            .doc(c"What the workers of a default executor have to do, as queue.SimpleQueue.")
            .not_instantiable()
            .collected::<WorkerQueue>()
            .dropped::<WorkerQueue>()
            .methods(vec![
                documented(
                    method(c"put", WorkerQueue::put),
                    c"put($self, item, block=True, timeout=None)\n--\n\nNever blocks.",
                ),
                documented(
                    method(c"get", WorkerQueue::get),
                    c"get($self, block=True, timeout=None)\n--\n\n`timeout` in seconds; queue.Empty after it.",
                ),
                method0(c"get_nowait", |this: &WorkerQueue| this.pop().ok_or_else(empty)),
                method0(c"qsize", |this: &WorkerQueue| integer(this.items.borrow().len() as i64)),
                method0(c"empty", |this: &WorkerQueue| this.items.borrow().is_empty()),
            ])
            .create(&[])?,
    );
    Ok(())
}

/// A new, empty queue.
pub fn create() -> Result<Object> {
    allocate(WorkerQueue {
        head: head(),
        items: RefCell::new(VecDeque::new()),
        sleepers: RefCell::new(Vec::new()),
    })
}

/// Runs `body`, the last thing that a worker does for an item: loops that it wakes are woken a moment later (Q2).
pub fn at_end_of_work<T>(body: impl FnOnce() -> T) -> T {
    PUTS_OFF.set(IS_WORKER.get());
    let outcome = body();
    PUTS_OFF.set(false);
    outcome
}

/// Whether the wake-up is put off; otherwise the caller makes it.
pub fn put_off(wakes: &Arc<Wakes>) -> bool {
    if PUTS_OFF.get() {
        PUT_OFF.with_borrow_mut(|put_off| put_off.push(wakes.clone()));
    }
    PUTS_OFF.get()
}

fn make_put_off(wakes: Vec<Arc<Wakes>>) {
    for wakes in wakes {
        // An error means that the loop has closed its descriptor meanwhile: there is nobody to wake.
        let _ = wakes.wake();
    }
}

/// `queue.Empty()`
#[cold]
fn empty() -> Raised {
    match import(c"queue").and_then(|queue| queue.get_attribute_str(c"Empty")) {
        Ok(class) => Raised::empty(&class),
        Err(raised) => raised,
    }
}

const PUT: Signature<3> =
    Signature { function: "put", names: ["item", "block", "timeout"], required: 1, positional: 3 };
const GET: Signature<2> =
    Signature { function: "get", names: ["block", "timeout"], required: 0, positional: 2 };

impl WorkerQueue {
    fn pop(&self) -> Option<Object> {
        self.items.borrow_mut().pop_front()
    }

    fn put(&self, arguments: Arguments<'_>) -> Result<()> {
        let [item, _, _] = PUT.bind(arguments)?;
        self.items.borrow_mut().push_back(item.unwrap_or(none()).to_object());
        let sleeper = self.sleepers.borrow_mut().pop();
        if let Some(sleeper) = sleeper {
            LATE.with_borrow_mut(|late| match late {
                Some(late) => late.push(sleeper),
                None => sleeper.unpark(),
            });
        }
        Ok(())
    }

    /// The next item; sleeps until there is one.
    fn get(&self, arguments: Arguments<'_>) -> Result<Object> {
        let [block, timeout] = GET.bind(arguments)?;
        let blocks = block.map_or(Ok(true), Any::is_true)?;
        let deadline = match given(timeout) {
            Some(timeout) => Some(deadline(timeout.to_f64()?)?),
            None => None,
        };
        IS_WORKER.set(true);
        loop {
            let wakes = PUT_OFF.take();
            if let Some(item) = self.pop() {
                make_put_off(wakes);
                return Ok(item);
            }
            let is_late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !blocks || is_late {
                make_put_off(wakes);
                return Err(empty());
            }
            self.sleep(wakes, deadline);
        }
    }

    /// Sleeps until somebody puts an item, until the deadline, or for no reason at all.
    fn sleep(&self, wakes: Vec<Arc<Wakes>>, deadline: Option<Instant>) {
        let thread = std::thread::current();
        let identity = thread.id();
        self.sleepers.borrow_mut().push(thread);
        without_gil(|| {
            make_put_off(wakes);
            match deadline {
                Some(deadline) => {
                    std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()))
                }
                None => std::thread::park(),
            }
        });
        // Whoever was not woken by an item is still among the sleepers.
        self.sleepers.borrow_mut().retain(|sleeper| sleeper.id() != identity);
    }
}

/// Fails: ValueError for a negative number of seconds.
fn deadline(seconds: f64) -> Result<Instant> {
    let timeout = Duration::try_from_secs_f64(seconds)
        .map_err(|_| Raised::value_error("'timeout' must be a non-negative number"))?;
    // What lies beyond the clock is as good as never.
    Ok(Instant::now().checked_add(timeout).unwrap_or_else(|| Instant::now() + Duration::from_secs(1 << 30)))
}

impl Traverse for WorkerQueue {
    fn traverse(&self, visitor: &mut Visitor) {
        if let Ok(items) = self.items.try_borrow() {
            for item in items.iter() {
                visitor.object(item);
            }
        }
    }

    fn clear(&self) {
        let items = std::mem::take(&mut *self.items.borrow_mut());
        drop(items);
    }
}
