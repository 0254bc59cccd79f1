//! From birth to close: run_forever, run_until_complete, stop, close, debug mode.

use super::{EventLoop, Lifecycle, thread_id};
use crate::files;
use ioxide_cpython::call::import;
use ioxide_cpython::current::{running_loop, set_running_loop};
use ioxide_cpython::exception::warn_resource;
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::{Any, Object, Raised, Result, boolean, imports, names};
use ioxide_reactor::MonotonicTime;

/// `asyncio.constants.DEBUG_STACK_DEPTH`: how deep the origin of a coroutine is kept.
const ORIGIN_TRACKING_DEPTH: i64 = 10;

/// What a run changes for the thread and gives back at its end.
struct RunState {
    hooks: Object,
    origin_depth: Option<Object>,
}

/// `asyncio.coroutines._is_debug_mode()`: -X dev, or PYTHONASYNCIODEBUG.
pub fn debug_by_default() -> Result<bool> {
    import(c"asyncio.coroutines")?.get_attribute_str(c"_is_debug_mode")?.call0()?.is_true()
}

impl EventLoop {
    /// `loop.run_forever()`
    pub fn run_forever(&self) -> Result<()> {
        let state = self.begin_run()?;
        let outcome = self.turn_until_stopped();
        self.core().late_wakes.make();
        let pending = outcome.map_err(Raised::take);
        let ended = self.end_run(state);
        match pending {
            Err(exception) => {
                if let Err(second) = ended {
                    drop(second.take());
                }
                Err(Raised::exception(exception))
            }
            Ok(()) => ended,
        }
    }

    fn turn_until_stopped(&self) -> Result<()> {
        let core = self.core();
        core.polled_at.set(MonotonicTime::ZERO);
        loop {
            self.run_once()?;
            if core.stopping.get() {
                return Ok(());
            }
        }
    }

    /// Fails: RuntimeError where this loop or another one of the thread is running.
    pub(super) fn check_running(&self) -> Result<()> {
        if self.core().lifecycle.get() == Lifecycle::Running {
            return Err(Raised::runtime_error("This event loop is already running"));
        }
        if running_loop()?.is_some() {
            return Err(Raised::runtime_error("Cannot run the event loop while another loop is running"));
        }
        Ok(())
    }

    /// A forked child shares its parent's epoll instance: using it would take the parent's events.
    pub(super) fn check_process(&self) -> Result<()> {
        if self.core().process.get() == std::process::id() {
            return Ok(());
        }
        Err(Raised::runtime_error(
            "this event loop belongs to the parent process; create a new one after a fork",
        ))
    }

    fn begin_run(&self) -> Result<RunState> {
        self.check_closed()?;
        self.check_running()?;
        self.check_process()?;
        self.refresh_overrides()?;
        let core = self.core();
        let hooks = imports().get_asyncgen_hooks.call0()?;
        let origin_depth = self.track_origins()?;
        core.lifecycle.set(Lifecycle::Running);
        core.thread.set(thread_id());
        let state = RunState { hooks, origin_depth };
        let begun = self.install_asyncgen_hooks().and_then(|()| set_running_loop(Some(self)));
        match begun {
            Ok(()) => Ok(state),
            Err(raised) => {
                let exception = raised.take();
                if let Err(second) = self.end_run(state) {
                    drop(second.take());
                }
                Err(Raised::exception(exception))
            }
        }
    }

    fn end_run(&self, state: RunState) -> Result<()> {
        let core = self.core();
        let ended = self.end_task();
        core.stopping.set(false);
        core.thread.set(0);
        core.lifecycle.set(Lifecycle::Idle);
        let flushed = self.flush_transports();
        set_running_loop(None)?;
        if let Some(depth) = state.origin_depth {
            imports().set_coroutine_origin_tracking_depth.call1(&depth)?;
        }
        imports().set_asyncgen_hooks.call_slice(state.hooks.tuple_items())?;
        ended.and(flushed)
    }

    /// Debug mode keeps where coroutines were created. Returns the depth to go back to.
    fn track_origins(&self) -> Result<Option<Object>> {
        if !self.is_debug() {
            return Ok(None);
        }
        let depth = imports().get_coroutine_origin_tracking_depth.call0()?;
        imports().set_coroutine_origin_tracking_depth.call1(&*integer(ORIGIN_TRACKING_DEPTH)?)?;
        Ok(Some(depth))
    }

    /// `loop.run_until_complete(future)`
    pub fn run_until_complete(&self, future: &Any) -> Result<Object> {
        self.check_closed()?;
        self.check_running()?;
        self.check_process()?;
        let is_new_task = !imports().isfuture.call1(future)?.is_true()?;
        let keywords = ioxide_cpython::names::keyword_names(&[&names().event_loop])?;
        let future = imports().ensure_future.call_keywords(&[future, self], &keywords, 1)?;
        if is_new_task {
            future.set_attribute(&*text("_log_destroy_pending")?, &boolean(false))?;
        }
        let callback = &imports().run_until_complete_callback;
        future.call_method1(&names().add_done_callback, callback)?;
        let outcome = self.call_method0(&*text("run_forever")?);
        if let Err(raised) = outcome {
            let exception = raised.take();
            if is_new_task {
                retrieve_exception(&future)?;
            }
            future.call_method1(&names().remove_done_callback, callback)?;
            return Err(Raised::exception(exception));
        }
        future.call_method1(&names().remove_done_callback, callback)?;
        if !future.call_method0(&names().done)?.is_true()? {
            return Err(Raised::runtime_error("Event loop stopped before Future completed."));
        }
        future.call_method0(&names().result)
    }

    /// `loop.stop()`: the current turn is the last one.
    pub fn stop(&self) {
        self.core().stopping.set(true);
    }

    /// `loop.is_running()`
    pub fn is_running(&self) -> bool {
        self.core().lifecycle.get() == Lifecycle::Running
    }

    /// `loop.close()`. Fails: RuntimeError where the loop runs.
    pub fn close(&self) -> Result<()> {
        let core = self.core();
        match core.lifecycle.get() {
            Lifecycle::Running => return Err(Raised::runtime_error("Cannot close a running event loop")),
            Lifecycle::Closed => return Ok(()),
            Lifecycle::Idle => {}
        }
        self.remove_all_signal_handlers()?;
        core.lifecycle.set(Lifecycle::Closed);
        self.refresh_fast();
        core.inbox.drain_into(|handle| drop(handle.into_object()));
        let ready = core.ready.borrow_mut().clear();
        let timers = core.timers.borrow_mut().drain().collect::<Vec<_>>();
        core.cancelled_timers.set(0);
        drop((ready, timers));
        core.watches.clear();
        core.starts.clear();
        let kernel_side = (
            core.registrar.borrow_mut().take(),
            core.poller.borrow_mut().take(),
            core.wakes.borrow_mut().take(),
        );
        drop(kernel_side);
        let ring_closed = core.file_ring.take().map_or(Ok(()), |ring| files::close_ring(&ring));
        self.discard_executor()?;
        ring_closed
    }

    /// What file operations are handed to (`files::ring`).
    pub fn file_ring(&self) -> Option<Object> {
        self.core().file_ring.get_object()
    }

    pub fn keep_file_ring(&self, ring: Object) {
        self.core().file_ring.set(ring);
    }

    /// `loop.get_debug()`
    pub fn get_debug(&self) -> bool {
        self.is_debug()
    }

    /// `loop.set_debug(enabled)`
    pub fn set_debug(&self, enabled: &Any) -> Result<()> {
        self.core().debug.set(enabled.is_true()?);
        self.refresh_fast();
        if self.is_running() {
            let depth = if self.is_debug() { ORIGIN_TRACKING_DEPTH } else { 0 };
            imports().set_coroutine_origin_tracking_depth.call1(&*integer(depth)?)?;
        }
        Ok(())
    }

    /// `loop.__del__()`: warns about a loop that nobody closed, and closes it.
    pub fn finalize(&self) -> Result<()> {
        if self.is_closed() {
            return Ok(());
        }
        let shown = self.repr()?.to_text()?;
        warn_resource(&format!("unclosed event loop {}", shown.as_str()), self)?;
        if !self.is_running() {
            self.call_method0(&names().close)?;
        }
        Ok(())
    }

    /// `repr(loop)`, as asyncio's loops show themselves.
    pub fn show(&self) -> Result<Object> {
        let shown = format!(
            "<{} running={} closed={} debug={}>",
            ioxide_cpython::exception::type_name(self),
            python_bool(self.is_running()),
            python_bool(self.is_closed()),
            python_bool(self.is_debug()),
        );
        text(&shown)
    }

    /// `loop.__setattr__`, which notices overridden methods.
    pub fn set_attribute_noticed(&self, name: &Any, value: &Any) -> Result<()> {
        object_method("__setattr__")?.call(&[self, name, value])?;
        self.refresh_overrides()
    }

    /// `loop.__delattr__`, which notices methods that are no longer overridden.
    pub fn delete_attribute_noticed(&self, name: &Any) -> Result<()> {
        object_method("__delattr__")?.call(&[self, name])?;
        self.refresh_overrides()
    }
}

fn object_method(name: &str) -> Result<Object> {
    import(c"builtins")?.get_attribute_str(c"object")?.get_attribute(&*text(name)?)
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// The exception of a task that was created for the run: whoever sees the run fail has seen it.
fn retrieve_exception(future: &Any) -> Result<()> {
    let done = future.call_method0(&names().done)?.is_true()?;
    if done && !future.call_method0(&names().cancelled)?.is_true()? {
        future.call_method0(&names().exception)?;
    }
    Ok(())
}
