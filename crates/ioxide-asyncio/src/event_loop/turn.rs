//! One turn of the loop, always in this order: wait for events, queue what they woke, queue the due timers, run
//! exactly the callbacks that were ready then, send what transports have buffered.
//!
//! Invariants:
//! U1. While callbacks are ready and descriptors are watched, no more than `WAIT_AT_LEAST_EVERY` passes between two
//!     looks at the kernel, callbacks themselves not counted. The first turn of a run always looks.
//! U2. After a step its task stays the current one until the next step, until other Python code runs, or until the loop
//!     waits: from one step to the next, replacing it is all there is to do.
//! U3. A timer never fires early. One of few fires at its nanosecond; one of a swarm no later than a millisecond after.

use super::timed::{self, Timed};
use super::watch::{Direction, WAKES_KEY};
use super::worker_queue::wake_workers;
use super::{EventLoop, Ready, Watcher};
use crate::handles::{Handle, TimerHandle, run_set_result};
use crate::tasks::{self, DoneCallback, Task};
use crate::transports;
use ioxide_cpython::call::check_signals;
use ioxide_cpython::context::{copy_current, is_context, with_context};
use ioxide_cpython::current;
use ioxide_cpython::detach::without_gil;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::types::Native;
use ioxide_cpython::{Object, Result, names};
use ioxide_reactor::MonotonicTime;
use std::io;
use std::time::Duration;

/// See U3. This many timers are a swarm, which is served this often: asyncio and libuv wake once a millisecond
/// for any timer.
const SWARM: usize = 16;
const SWARM_INTERVAL: Duration = Duration::from_millis(1);

/// See U1. Looking costs a system call, about as much as a callback; a message can wait this long.
const WAIT_AT_LEAST_EVERY: Duration = Duration::from_micros(50);

/// So many bytes to be sent do not wait for the end of the turn: they would leave the processor's nearest caches.
const FLUSH_AT: usize = 128 * 1024;

/// For so many transports behind the one that is told is received, and so many bytes at most but for the last message:
/// they stay in the processor's nearest caches.
const RECEIVE_AHEAD: usize = 15;
const RECEIVE_AHEAD_BYTES: usize = 32 * 1024;

/// In so many turns signals are looked for, where there is something to run: Python code looks for them itself. Before a wait
/// the loop always does.
const CHECK_SIGNALS_EVERY: u64 = 16;

impl EventLoop {
    /// Fails: KeyboardInterrupt and SystemExit out of a callback, and kernel errors of the wait.
    pub fn run_once(&self) -> Result<()> {
        self.wait()?;
        self.queue_due_timers()?;
        self.run_ready()?;
        if self.core().unflushed_bytes.get() == 0 && self.core().unflushed.borrow().is_empty() {
            return Ok(());
        }
        self.flush_transports()
    }

    /// Waits until there is something to do, or only looks where there is.
    fn wait(&self) -> Result<()> {
        let core = self.core();
        if core.inbox.is_pending() {
            self.receive_from_threads();
        }
        if !self.has_ready() || core.turn.get() % CHECK_SIGNALS_EVERY == 0 {
            check_signals()?; // whose handlers may schedule
        }
        let has_ready = self.has_ready();
        if has_ready {
            core.late_wakes.make();
        }
        if has_ready && !self.is_time_to_look() {
            return Ok(());
        }
        let timeout = if has_ready {
            Some(Duration::ZERO)
        } else {
            self.end_task()?;
            self.check_front_timer()?;
            self.time_to_next_timer()?
        };
        match self.wait_for_events(timeout) {
            Ok(count) => self.queue_events(count),
            // A signal: its handler runs now; what it scheduled is found by the next turn.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => check_signals()?,
            Err(error) => return Err(raise_os_error(&error)),
        }
        if core.inbox.is_pending() {
            self.receive_from_threads();
        }
        Ok(())
    }

    #[inline(always)]
    fn has_ready(&self) -> bool {
        let core = self.core();
        !core.ready.borrow().is_empty() || core.stopping.get()
    }

    /// Whether events may have been waiting for long enough (U1).
    fn is_time_to_look(&self) -> bool {
        let core = self.core();
        if core.polls_every_turn || core.polled_at.get() == MonotonicTime::ZERO {
            return true;
        }
        if !core.watches.is_watching() {
            return false;
        }
        match core.polled_at.get() {
            // The last look was before the first descriptor was watched.
            MonotonicTime::MAX => true,
            polled_at => MonotonicTime::now().saturating_since(polled_at) >= WAIT_AT_LEAST_EVERY,
        }
    }

    fn wait_for_events(&self, timeout: Option<Duration>) -> io::Result<usize> {
        let core = self.core();
        let Ok(mut poller) = core.poller.try_borrow_mut() else {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        };
        let Some(poller) = poller.as_mut() else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        let count = match timeout {
            Some(Duration::ZERO) => {
                core.late_wakes.make();
                poller.wait(timeout)
            }
            _ => {
                let workers = core.late_wakes.take();
                without_gil(|| {
                    wake_workers(workers);
                    poller.wait(timeout)
                })
            }
        };
        core.polled_at.set(match core.watches.is_watching() && !core.polls_every_turn {
            true => MonotonicTime::now(),
            // Nobody will ask how long ago this was.
            false => MonotonicTime::MAX,
        });
        count
    }

    /// `None` without timers: wait without end. Cancelled timers at the front are nobody's.
    fn time_to_next_timer(&self) -> Result<Option<Duration>> {
        let core = self.core();
        loop {
            let front = {
                let timers = core.timers.borrow();
                let (Some(front), Some(deadline)) = (timers.peek(), timers.next_deadline()) else {
                    return Ok(None);
                };
                let timed = front.as_deref().and_then(Timed::of);
                timed.filter(|timed| !timed.is_cancelled()).map(|_| deadline)
            };
            if let Some(deadline) = front {
                return Ok(Some(self.wake_up_time(deadline).saturating_since(self.now()?)));
            }
            let timer = core.timers.borrow_mut().pop().flatten();
            self.forget_timer(timer);
        }
    }

    /// The time that deadlines are compared with: the clock's, or what an overridden `time` says.
    #[inline]
    fn now(&self) -> Result<MonotonicTime> {
        if !self.overrides().time {
            return Ok(MonotonicTime::now());
        }
        Ok(MonotonicTime::not_before_seconds(self.call_method0(&names().time)?.to_f64()?))
    }

    /// When to wake for a deadline: at the deadline, but for a swarm of timers at most once a millisecond (U3).
    fn wake_up_time(&self, deadline: MonotonicTime) -> MonotonicTime {
        let core = self.core();
        if core.timers.borrow().len() < SWARM {
            return deadline;
        }
        deadline.max(core.timers_fired_at.get().saturating_add(SWARM_INTERVAL))
    }

    /// A cancelled timer leaves the heap.
    fn forget_timer(&self, timer: Option<Object>) {
        let core = self.core();
        core.cancelled_timers.set(core.cancelled_timers.get().saturating_sub(1));
        if let Some(timed) = timer.as_deref().and_then(Timed::of) {
            timed.leave_timers();
        }
    }

    /// Queues for whoever watches the descriptors of the events.
    fn queue_events(&self, count: usize) {
        let core = self.core();
        for index in 0..count {
            let event = core.poller.borrow().as_ref().and_then(|poller| poller.event(index));
            let Some(event) = event else { continue };
            if event.key == WAKES_KEY {
                let wakes = core.wakes.borrow().clone();
                if let Some(wakes) = wakes {
                    // An error here means that the descriptor is gone: the next wait says so.
                    let _ = wakes.drain();
                }
                self.receive_from_threads();
                continue;
            }
            // As asyncio does: the reader first, then the writer.
            for direction in [Direction::Read, Direction::Write] {
                let ready = match direction {
                    Direction::Read => event.readiness.is_readable(),
                    Direction::Write => event.readiness.is_writable(),
                };
                if ready && let Some(watcher) = self.watcher_of_event(event.key, direction) {
                    core.ready.borrow_mut().push_back(Ready::Watcher(watcher, direction));
                }
            }
        }
    }

    fn queue_due_timers(&self) -> Result<()> {
        let core = self.core();
        if core.timers.borrow().is_empty() {
            return Ok(());
        }
        self.check_front_timer()?;
        let front = core.timers.borrow().next_deadline();
        if front.is_some_and(MonotonicTime::is_far) && !self.overrides().time {
            return Ok(());
        }
        let now = self.now()?;
        loop {
            let due = core.timers.borrow_mut().pop_due(now);
            let Some(Some(handle)) = due else { return Ok(()) };
            let Some(timed) = Timed::of(&handle) else { continue };
            if timed.is_cancelled() {
                self.forget_timer(Some(handle));
                continue;
            }
            timed.leave_timers();
            core.timers_fired_at.set(now);
            let is_handle = timed.is_handle();
            let item = if is_handle { Ready::Handle(handle) } else { Ready::Due(handle) };
            core.ready.borrow_mut().push_back(item);
        }
    }

    /// Runs what is ready now and nothing that becomes so meanwhile. Much to send leaves in between.
    fn run_ready(&self) -> Result<()> {
        let core = self.core();
        let count = core.ready.borrow().len();
        core.turn.set(core.turn.get() + 1);
        for _ in 0..count {
            let item = core.ready.borrow_mut().pop();
            let Some(item) = item else { break };
            core.late_wakes.make();
            if core.debug.get() {
                self.run_in_debug_mode(item)?;
            } else {
                self.run_item(item)?;
            }
            if core.unflushed_bytes.get() >= FLUSH_AT {
                self.flush_transports()?;
            }
        }
        core.ready.borrow_mut().end_turn(count);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn run_item(&self, item: Ready) -> Result<()> {
        match item {
            Ready::Step(task) => self.run_task(&task, tasks::run_step),
            Ready::Wakeup(task, future) => self.run_task(&task, |task| tasks::run_wakeup(task, &future)),
            Ready::Throw(task, exception) => self.run_task(&task, |task| tasks::run_throw(task, exception)),
            Ready::Handle(handle) => {
                if run_set_result(&handle, self)? {
                    return Ok(());
                }
                self.end_task()?;
                run_handle(&handle)
            }
            Ready::Callback { callback, future, context } => {
                self.end_task()?;
                let outcome = match is_context(&context) {
                    true => with_context(&context, || callback.call1(&future)),
                    // Whatever the caller gave for a context.
                    false => context.call_method(&names().run, &[&callback, &future]),
                };
                match outcome {
                    Ok(_) => Ok(()),
                    Err(raised) if raised.leaves_the_loop() => Err(raised),
                    Err(raised) => self.report_callback_exception(&callback, &future, &context, raised),
                }
            }
            Ready::Done(callback, future) => {
                self.end_task()?;
                self.run_done_callback(&callback, &future)
            }
            Ready::Due(timed) => {
                self.end_task()?;
                timed::on_due(&timed)
            }
            Ready::Watcher(watcher, direction) => {
                self.end_task()?;
                self.run_watcher(watcher, direction)
            }
        }
    }

    /// Runs a step of a task, which is the current one meanwhile (U2).
    #[inline(always)]
    fn run_task(&self, task: &Object, run: impl FnOnce(&Task) -> Result<()>) -> Result<()> {
        let Some(task) = Task::from_any(task) else { return Ok(()) };
        self.core().in_task.set(true);
        current::publish_task(self, task)?;
        self.report_step(task, run(task))
    }

    /// No task is current any more (U2).
    #[inline(always)]
    pub(super) fn end_task(&self) -> Result<()> {
        if !self.core().in_task.replace(false) {
            return Ok(());
        }
        current::unpublish_task(self)
    }

    /// A native callback needs no context: it runs no Python but what it is told of futures.
    #[inline]
    fn run_done_callback(&self, callback: &Object, future: &Object) -> Result<()> {
        let Some(native) = DoneCallback::from_exact(callback) else { return Ok(()) };
        match native.run(future) {
            Ok(()) => Ok(()),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => self.report_callback_exception(callback, future, &*copy_current()?, raised),
        }
    }

    fn run_watcher(&self, watcher: Watcher, direction: Direction) -> Result<()> {
        match watcher {
            Watcher::Handle(handle) => run_handle(&handle),
            Watcher::Transport(transport) => {
                if direction == Direction::Read {
                    self.receive_ahead(&transport);
                }
                transports::on_ready(&transport, direction)
            }
            Watcher::Listener(listener) => self.accept_ready(&listener),
            Watcher::Operation(operation) => operation.attempt(),
        }
    }

    /// Before a transport is told: receives for those that are next, too. The kernel's way of receiving and the protocols' Python
    /// code each fill the processor's nearest caches; taking turns with every message, each would drive out the other.
    fn receive_ahead(&self, told: &Object) {
        if transports::has_received(told) {
            return;
        }
        let mut bytes = 0;
        for index in 0..RECEIVE_AHEAD {
            // No borrow is held while receiving: an error is an exception, and making one may run the collector.
            let next = match self.core().ready.borrow().get(index) {
                Some(Ready::Watcher(Watcher::Transport(next), Direction::Read)) => next.clone(),
                _ => return,
            };
            match transports::receive_ahead(&next) {
                Some(received) if bytes + received < RECEIVE_AHEAD_BYTES => bytes += received,
                _ => return,
            }
        }
    }

    /// Sends what the transports have buffered in this turn, each with one system call. A protocol that is told to
    /// pause may write to another transport, so it ends only when there is nothing left.
    pub(super) fn flush_transports(&self) -> Result<()> {
        let core = self.core();
        core.unflushed_bytes.set(0);
        loop {
            let transport = core.unflushed.borrow_mut().pop_front();
            let Some(transport) = transport else { return Ok(()) };
            transports::flush(&transport)?;
        }
    }
}

#[inline(always)]
fn run_handle(handle: &Object) -> Result<()> {
    if let Some(handle) = Handle::from_exact(handle) {
        return if handle.is_cancelled() { Ok(()) } else { crate::handles::run(handle) };
    }
    if let Some(timer) = TimerHandle::from_any(handle) {
        return if timer.is_cancelled() { Ok(()) } else { crate::handles::run(timer) };
    }
    run_python_handle(handle)
}

/// A handle of asyncio's own class, as its signal code makes them, or of a class derived from ioxide's.
#[cold]
fn run_python_handle(handle: &Object) -> Result<()> {
    if handle.call_method0(&names().cancelled)?.is_true()? {
        return Ok(());
    }
    handle.call_method0(&names()._run).map(drop)
}
