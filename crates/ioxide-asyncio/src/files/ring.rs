//! The io_uring of a loop: operations that the kernel makes while the loop goes on, joined to the loop's own wait.
//!
//! Operations of one turn are handed over together at the start of the next one. What the page cache has completes at that moment;
//! the rest makes the ring's descriptor readable, which the loop watches like any other.
//!
//! Invariants:
//! G1. One ring for each loop, made with the first operation, closed with the loop. A forked child goes to the pool instead.
//! G2. No borrow of the queue is held while Python runs or without the GIL.
//! G3. Cancelling a future does not stop its operation; its outcome is dropped, which closes a descriptor in it.

use super::Backend;
use crate::event_loop::{Direction, EventLoop, Watcher};
use crate::handles::{Handle, call_soon};
use crate::work;
use ioxide_cpython::detach::without_gil;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::method0;
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, allocate, head};
use ioxide_cpython::{Any, Object, Once, Result, Slot};
use ioxide_io::Operation;
use ioxide_io::uring::{Entry, Job, Opcode, Queue, supports};
use std::cell::{Cell, RefCell};
use std::io;

/// The ring as the loop holds it.
#[repr(C)]
struct FileRing {
    head: Any,
    queue: RefCell<Option<Queue<Box<dyn Task>>>>,
    /// Whether `submit` is scheduled.
    scheduled: Cell<bool>,
    event_loop: Slot,
}

/// An operation with the future that its caller awaits.
trait Task {
    fn entry(&mut self) -> Entry;
    fn advance(&mut self, result: io::Result<usize>) -> bool;
    fn may_be_cancelled(&self) -> bool;
    fn deliver(self: Box<Self>) -> Result<()>;
    /// The ring has failed before the operation began.
    fn run_in_pool(self: Box<Self>, event_loop: &Any) -> Result<()>;
}

struct Running<O: Operation, F> {
    operation: O,
    outcome: Option<O::Outcome>,
    finish: F,
    future: Object,
}

static FILE_RING: Once<Class> = Once::new();
static SUBMIT: Once<FunctionDefinition> = Once::new();
static REAP: Once<FunctionDefinition> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for FileRing {
    fn class() -> &'static Once<Class> {
        &FILE_RING
    }
}

pub fn initialize() -> Result<()> {
    FILE_RING.set(NativeClass::core::<FileRing>(c"ioxide.FileRing")?);
    SUBMIT.set(FunctionDefinition::new(method0(c"submit", FileRing::submit)));
    REAP.set(FunctionDefinition::new(method0(c"reap", FileRing::reap)));
    Ok(())
}

/// Whether this process can use rings at all.
pub fn is_available() -> bool {
    [Opcode::Read, Opcode::Write, Opcode::Sync, Opcode::Open].into_iter().any(supports)
}

/// As `work::submit`, by the kernel without a thread where the backend says so and the loop is ioxide's.
pub fn submit_operation<O: Operation>(
    operation: O,
    finish: impl FnOnce(O::Outcome) -> Result<Object> + 'static,
) -> Result<Object> {
    if Backend::of_process()?.uses_ring(O::OPCODE, || operation.bytes())
        && let Some(native) = EventLoop::from_any(&*work::running_loop()?)
    {
        return match start(native, operation, finish)? {
            Ok(future) => Ok(future),
            Err((operation, finish)) => work::submit(move || operation.run(), finish),
        };
    }
    work::submit(move || operation.run(), finish)
}

/// A future for what `finish` makes of the operation's outcome; the operation itself where the loop has no ring (G1).
pub fn start<O: Operation, F: FnOnce(O::Outcome) -> Result<Object> + 'static>(
    native: &EventLoop,
    operation: O,
    finish: F,
) -> Result<std::result::Result<Object, (O, F)>> {
    let ring = match native.file_ring() {
        Some(ring) => ring,
        None => match open(native)? {
            Some(ring) => ring,
            None => return Ok(Err((operation, finish))),
        },
    };
    let Some(ring) = FileRing::from_any(&ring) else { return Ok(Err((operation, finish))) };
    if !ring.queue.borrow().as_ref().is_some_and(Queue::is_ours) {
        return Ok(Err((operation, finish)));
    }
    let future = crate::futures::create(native)?;
    let running = Running { operation, outcome: None, finish, future: future.clone() };
    if let Some(queue) = ring.queue.borrow_mut().as_mut() {
        queue.add(Box::new(running));
    }
    ring.submit_soon()?;
    Ok(Ok(future))
}

/// `None` where the kernel gives no ring: out of memory or descriptors; the pool does the work then.
fn open(native: &EventLoop) -> Result<Option<Object>> {
    let Ok(queue) = Queue::new() else { return Ok(None) };
    let descriptor = queue.descriptor();
    let ring = allocate(FileRing {
        head: head(),
        queue: RefCell::new(Some(queue)),
        scheduled: Cell::new(false),
        event_loop: Slot::filled(native.to_object()),
    })?;
    let handle = Handle::create(native, &*REAP.get().bind(&ring)?, &[], None)?;
    native.watch(descriptor, Direction::Read, Watcher::Handle(handle))?;
    native.keep_file_ring(ring.clone());
    Ok(Some(ring))
}

/// The loop is closed: reads are cut short, writes end whole, and nobody is told.
pub fn close(ring: &Any) -> Result<()> {
    let Some(ring) = FileRing::from_any(ring) else { return Ok(()) };
    let queue = ring.queue.borrow_mut().take();
    let event_loop = ring.event_loop.take();
    let Some(mut queue) = queue else { return Ok(()) };
    let mut done = Vec::new();
    // Tasks advance without Python; they are dropped below, with the GIL.
    let finished = {
        let (queue, done) = (Unshared(&mut queue), Unshared(&mut done));
        without_gil(move || {
            let (queue, done) = (queue, done);
            queue.0.finish(done.0)
        })
    };
    drop(done);
    let Err(error) = finished else { return Ok(()) };
    // Forbidden meanwhile: threads write what was to be written.
    if let Some(event_loop) = event_loop {
        for task in queue.give_up() {
            task.run_in_pool(&event_loop)?;
        }
    }
    if queue.has_in_flight() { Err(raise_os_error(&error)) } else { Ok(()) }
}

struct Unshared<'a, T>(&'a mut T);

// SAFETY: `without_gil` runs its function on the same thread.
unsafe impl<T> Send for Unshared<'_, T> {}

impl FileRing {
    fn submit_soon(&self) -> Result<()> {
        if self.scheduled.replace(true) {
            return Ok(());
        }
        let Some(event_loop) = self.event_loop.get_object() else { return Ok(()) };
        call_soon(&event_loop, &*SUBMIT.get().bind(&self.head)?).map(drop)
    }

    fn submit(&self) -> Result<()> {
        self.scheduled.set(false);
        let outcome = match self.queue.borrow_mut().as_mut() {
            Some(queue) if queue.is_ours() => queue.submit(),
            _ => return Ok(()),
        };
        if outcome.is_err() {
            // Forbidden meanwhile, by a filter or by the system's switch: what has not begun is done by threads.
            let waiting = self.queue.borrow_mut().as_mut().map(Queue::give_up).unwrap_or_default();
            if let Some(event_loop) = self.event_loop.get_object() {
                for task in waiting {
                    task.run_in_pool(&event_loop)?;
                }
            }
        }
        self.reap()
    }

    /// Tells those whose operations have completed.
    fn reap(&self) -> Result<()> {
        let mut done = Vec::new();
        let more = match self.queue.borrow_mut().as_mut() {
            Some(queue) if queue.is_ours() => {
                queue.reap(&mut done);
                queue.has_waiting()
            }
            _ => false,
        };
        if more {
            self.submit_soon()?; // in the next turn: others run between the pieces of a large file
        }
        for task in done {
            task.deliver()?;
        }
        Ok(())
    }
}

impl Job for Box<dyn Task> {
    fn entry(&mut self) -> Entry {
        (**self).entry()
    }

    fn advance(&mut self, result: io::Result<usize>) -> bool {
        (**self).advance(result)
    }

    fn may_be_cancelled(&self) -> bool {
        (**self).may_be_cancelled()
    }
}

impl<O: Operation, F: FnOnce(O::Outcome) -> Result<Object> + 'static> Task for Running<O, F> {
    fn entry(&mut self) -> Entry {
        self.operation.entry()
    }

    fn advance(&mut self, result: io::Result<usize>) -> bool {
        self.outcome = self.operation.advance(result);
        self.outcome.is_some()
    }

    fn may_be_cancelled(&self) -> bool {
        !matches!(O::OPCODE, Opcode::Write | Opcode::Sync)
    }

    fn deliver(self: Box<Self>) -> Result<()> {
        let Running { outcome, finish, future, .. } = *self;
        match outcome {
            Some(outcome) => work::settle(&future, || finish(outcome)), // G3
            None => Ok(()),
        }
    }

    fn run_in_pool(self: Box<Self>, event_loop: &Any) -> Result<()> {
        let Running { operation, finish, future, .. } = *self;
        work::run(event_loop, future, move || operation.run(), finish)
    }
}

impl Traverse for FileRing {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.event_loop);
    }

    fn clear(&self) {
        self.event_loop.clear();
    }
}
