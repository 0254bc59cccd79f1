//! `run_in_executor` and the default executor, which is a real `concurrent.futures.ThreadPoolExecutor`.
//!
//! What it leaves to others: how the executor's future and the loop's hang together (`futures::chain`), what `close`
//! does about it (`dns::discard_executor`).

use super::{EventLoop, worker_queue};
use crate::futures::chain;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::exception::handling;
use ioxide_cpython::methods::{Arguments, Leading, Signature, given};
use ioxide_cpython::names::keyword_names;
use ioxide_cpython::types::Native;
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::version::{Code, EXECUTOR_SHUTDOWN_TAKES_TIMEOUT};
use ioxide_cpython::{
    Any, Builtin, Object, Once, Raised, Result, boolean, builtin, imports, names, none, none_object,
};

/// What this Python's asyncio does about executors.
struct Rules {
    /// Whether the timeout of `shutdown_default_executor` ends the wait (3.13 and later) or only the join of the helper thread behind it.
    timeout_ends_wait: bool,
}

static RULES: Once<Rules> = Once::new();

/// Creates the class of the queue and asks asyncio's own loop what it does.
pub fn initialize() -> Result<()> {
    worker_queue::initialize()?;
    let base = import(c"asyncio.base_events")?.get_attribute_str(c"BaseEventLoop")?;
    RULES.set(Rules {
        timeout_ends_wait: Code::of_method(&base, "shutdown_default_executor")?.uses("timeouts")?,
    });
    Ok(())
}

const SHUTDOWN: Signature<1> =
    Signature { function: "shutdown_default_executor", names: ["timeout"], required: 0, positional: 1 };
const SHUTDOWN_WITHOUT_TIMEOUT: Signature<0> =
    Signature { function: "shutdown_default_executor", names: [], required: 0, positional: 0 };

impl EventLoop {
    /// `loop.run_in_executor(executor, func, *args)`: a future of the loop.
    pub fn run_in_executor(&self, arguments: Arguments<'_>) -> Result<Object> {
        let Leading { parameters: [executor, function], rest, .. } =
            arguments.leading("run_in_executor", ["executor", "func"], false)?;
        self.check_closed()?;
        if self.is_debug() {
            super::schedule::check_callback(function, "run_in_executor")?;
        }
        let own = executor.is_none().then(|| self.default_executor()).transpose()?;
        let mut all = vec![function];
        all.extend_from_slice(rest);
        let source = own.as_deref().unwrap_or(executor).call_method(&names().submit, &all)?;
        self.wrap_future(source, own.map_or(Ok(false), |own| has_worker_queue(&own))?)
    }

    /// `run_in_executor(None, function)` as the last thing of a step.
    pub fn run_in_default_executor(&self, function: &Any) -> Result<Object> {
        self.core().late_wakes.at_end_of_step(|| {
            self.check_closed()?;
            let executor = self.default_executor()?;
            let source = executor.call_method1(&names().submit, function)?;
            self.wrap_future(source, has_worker_queue(&executor)?)
        })
    }

    /// The default executor, made when it is first used. Fails: RuntimeError after its shutdown.
    fn default_executor(&self) -> Result<Object> {
        let executor = self.get_attribute(&names()._default_executor)?;
        self.check_default_executor()?;
        if !executor.is_none() {
            return Ok(executor);
        }
        let class = import(c"concurrent.futures")?.get_attribute_str(c"ThreadPoolExecutor")?;
        let keywords = tuple(&[&names().thread_name_prefix])?;
        let executor = class.call_keywords(&[&*text("asyncio")?], &keywords, 0)?;
        executor.set_attribute(&*text("_work_queue")?, &*worker_queue::create()?)?;
        self.set_attribute(&names()._default_executor, &executor)?;
        Ok(executor)
    }

    /// `loop._check_default_executor()`
    pub fn check_default_executor(&self) -> Result<()> {
        if self.get_attribute(&names()._executor_shutdown_called)?.is_true()? {
            return Err(Raised::runtime_error("Executor shutdown has been called"));
        }
        Ok(())
    }

    /// `asyncio.wrap_future(source, loop=self)`
    fn wrap_future(&self, source: Object, ends_work: bool) -> Result<Object> {
        if chain::is_future(&source)? {
            return Ok(source);
        }
        chain::check_concurrent(&source)?;
        let destination = self.call_method0(&names().create_future)?;
        chain::chain(&source, &destination, ends_work)?;
        Ok(destination)
    }

    /// `loop.set_default_executor(executor)`
    pub fn set_default_executor(&self, executor: &Any) -> Result<()> {
        let class = import(c"concurrent.futures")?.get_attribute_str(c"ThreadPoolExecutor")?;
        if !executor.is_instance(&class)? {
            return Err(Raised::type_error("executor must be ThreadPoolExecutor instance"));
        }
        self.set_attribute(&names()._default_executor, executor)
    }

    /// `await loop.shutdown_default_executor(timeout=None)`; `timeout` in seconds, from 3.12 on.
    pub fn shutdown_default_executor(&self, arguments: Arguments<'_>) -> Result<Object> {
        let timeout = match EXECUTOR_SHUTDOWN_TAKES_TIMEOUT {
            true => given(SHUTDOWN.bind(arguments)?[0]).map(Any::to_object),
            false => SHUTDOWN_WITHOUT_TIMEOUT.bind(arguments).map(|_| None)?,
        };
        let event_loop = self.to_object();
        coroutine("BaseEventLoop.shutdown_default_executor", async move {
            event_loop.set_attribute(&names()._executor_shutdown_called, &boolean(true))?;
            if event_loop.get_attribute(&names()._default_executor)?.is_none() {
                return Ok(none_object());
            }
            let future = event_loop.call_method0(&names().create_future)?;
            let thread = start_shutdown_thread(&event_loop, &future)?;
            let timeout = timeout.unwrap_or_else(none_object);
            match RULES.get().timeout_ends_wait {
                true => wait_for_shutdown(&event_loop, &future, &thread, &timeout).await,
                false => join_after_shutdown(&event_loop, &future, &thread, &timeout).await,
            }
        })
    }

    /// `loop._do_shutdown(future)`, in the helper thread: waits for the workers, then tells the loop.
    pub fn do_shutdown(&self, future: &Any) -> Result<()> {
        let executor = self.get_attribute(&names()._default_executor)?;
        let ended = shut_down(&executor, true).and_then(|()| {
            if self.is_closed() {
                return Ok(());
            }
            if RULES.get().timeout_ends_wait {
                let set_result = &imports().set_result_unless_cancelled;
                return self
                    .call_method(&names().call_soon_threadsafe, &[set_result, future, none()])
                    .map(drop);
            }
            let set_result = future.get_attribute(&names().set_result)?;
            self.call_method(&names().call_soon_threadsafe, &[&set_result, none()]).map(drop)
        });
        match ended {
            Err(raised) if raised.matches(builtin(Builtin::Exception)) => {
                let exception = raised.take();
                handling(&exception, || self.report_failed_shutdown(future, &exception))
            }
            ended => ended,
        }
    }

    fn report_failed_shutdown(&self, future: &Any, exception: &Any) -> Result<()> {
        if self.is_closed() {
            return Ok(());
        }
        if RULES.get().timeout_ends_wait && future.call_method0(&names().cancelled)?.is_true()? {
            return Ok(());
        }
        let set_exception = future.get_attribute(&names().set_exception)?;
        self.call_method(&names().call_soon_threadsafe, &[&set_exception, exception]).map(drop)
    }
}

/// Whether the executor was made by a loop of ioxide's, not by the program.
fn has_worker_queue(executor: &Any) -> Result<bool> {
    let queue = executor.get_attribute_optional(&*text("_work_queue")?)?;
    Ok(queue.is_some_and(|queue| worker_queue::WorkerQueue::from_exact(&queue).is_some()))
}

/// `threading.Thread(target=loop._do_shutdown, args=(future,))`, started.
fn start_shutdown_thread(event_loop: &Any, future: &Any) -> Result<Object> {
    let class = import(c"threading")?.get_attribute_str(c"Thread")?;
    let target = event_loop.get_attribute_str(c"_do_shutdown")?;
    let keywords = keyword_names(&[&names().target, &names().args])?;
    let thread = class.call_keywords(&[&*target, &*tuple(&[future])?], &keywords, 0)?;
    thread.call_method0(&names().start)?;
    Ok(thread)
}

/// 3.13 and later: the timeout ends the wait, with a warning.
async fn wait_for_shutdown(event_loop: &Any, future: &Any, thread: &Any, timeout: &Any) -> Result<Object> {
    let manager = import(c"asyncio.timeouts")?.get_attribute_str(c"timeout")?.call1(timeout)?;
    wait_for(&*manager.call_method0(&*text("__aenter__")?)?).await?;
    let waited = wait_for(future).await.map_err(Raised::take);
    let leave = text("__aexit__")?;
    let left = match waited {
        Ok(_) => {
            let leaving = manager.call_method(&leave, &[none(), none(), none()])?;
            wait_for(&leaving).await.map(drop)
        }
        Err(exception) => {
            let traceback = exception.get_attribute_str(c"__traceback__")?;
            let arguments = [exception.get_type(), &*exception, &*traceback];
            let leaving = manager.call_method(&leave, &arguments)?;
            match wait_for(&leaving).await {
                Ok(suppressed) if suppressed.is_true()? => Ok(()),
                Ok(_) => Err(Raised::exception(exception)),
                Err(raised) => Err(raised),
            }
        }
    };
    match left {
        Ok(()) => thread.call_method0(&names().join),
        Err(raised) if raised.matches(builtin(Builtin::TimeoutError)) => {
            let exception = raised.take();
            handling(&exception, || abandon_workers(event_loop, timeout))
        }
        Err(raised) => Err(raised),
    }
}

/// 3.11 and 3.12: waits for the workers however long they take, then joins the helper thread.
async fn join_after_shutdown(event_loop: &Any, future: &Any, thread: &Any, timeout: &Any) -> Result<Object> {
    let waited = wait_for(future).await.map_err(Raised::take);
    thread.call_method1(&names().join, timeout)?;
    if let Err(exception) = waited {
        return Err(Raised::exception(exception));
    }
    if thread.call_method0(&*text("is_alive")?)?.is_true()? {
        return abandon_workers(event_loop, timeout);
    }
    Ok(none_object())
}

/// The workers did not end in time: nobody waits for them any longer.
fn abandon_workers(event_loop: &Any, timeout: &Any) -> Result<Object> {
    let timeout = timeout.str()?.to_text()?;
    let message =
        format!("The executor did not finishing joining its threads within {} seconds.", timeout.as_str());
    let keywords = keyword_names(&[&*text("stacklevel")?])?;
    let arguments = [&*text(&message)?, builtin(Builtin::RuntimeWarning), &*integer(1)?];
    imports().warn.call_keywords(&arguments, &keywords, 2)?;
    shut_down(&*event_loop.get_attribute(&names()._default_executor)?, false)?;
    Ok(none_object())
}

fn shut_down(executor: &Any, wait: bool) -> Result<()> {
    let keywords = tuple(&[&names().wait])?;
    executor.call_method_keywords(&names().shutdown, &[&boolean(wait)], &keywords).map(drop)
}
