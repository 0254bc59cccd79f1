//! The functions of asyncio.tasks as the module offers them: names, signatures and what `help` says.
//!
//! Leaves to others: what they do (the files of their names).

use super::{as_completed, eager, gather, originals, shield, sleep, spawn, threadsafe, wait, wait_for};
use ioxide_cpython::current::get_running_loop;
use ioxide_cpython::functions::{coroutine_function, function};
use ioxide_cpython::methods::{Arguments, Signature, documented, given};
use ioxide_cpython::module::Module;
use ioxide_cpython::task_registry::ALL_TASKS;
use ioxide_cpython::version::{CREATE_TASK_FORWARDS, EAGER_FACTORY_FORWARDS};
use ioxide_cpython::{Object, Result};
use std::ffi::CStr;

const CREATE_TASK_DOC: &CStr = if CREATE_TASK_FORWARDS {
    c"create_task(coro, **kwargs)\n--\n\nA task that runs the coroutine on the running loop."
} else {
    c"create_task(coro, *, name=None, context=None, eager_start=False)\n--\n\nA task that runs the coroutine on the running loop."
};

const EAGER_TASK_FACTORY_DOC: &CStr = if EAGER_FACTORY_FORWARDS {
    c"eager_task_factory(loop, coro, *, eager_start=True, **kwargs)\n--\n\nFor loop.set_task_factory(): tasks that start \
    at once, and are done when they are made where their coroutine never waits."
} else {
    c"eager_task_factory(loop, coro, *, name=None, context=None)\n--\n\nFor loop.set_task_factory(): tasks that start at \
    once, and are done when they are made where their coroutine never waits."
};

pub fn add_to(module: &Module<'_>) -> Result<()> {
    if ALL_TASKS.is_some() {
        module.add_function(documented(
            function(c"all_tasks", all_tasks),
            c"all_tasks(loop=None)\n--\n\nA set of the tasks of the loop, the running one by default, that are not done.",
        ))?;
    }
    add_what_makes_tasks(module)?;
    add_what_waits(module)
}

const ALL_TASKS_SIGNATURE: Signature<1> =
    Signature { function: "all_tasks", names: ["loop"], required: 0, positional: 1 };

/// `all_tasks(loop=None)`
fn all_tasks(arguments: Arguments<'_>) -> Result<Object> {
    let Some(all_tasks) = ALL_TASKS else { return arguments.call(&originals().all_tasks) };
    match given(ALL_TASKS_SIGNATURE.bind(arguments)?[0]) {
        Some(event_loop) => all_tasks(event_loop),
        None => all_tasks(&*get_running_loop()?),
    }
}

fn add_what_makes_tasks(module: &Module<'_>) -> Result<()> {
    module.add_function(documented(function(c"create_task", spawn::create_task), CREATE_TASK_DOC))?;
    module.add_function(documented(
        function(c"ensure_future", spawn::ensure_future),
        c"ensure_future(coro_or_future, *, loop=None)\n--\n\nThe future itself, or a task that runs the coroutine or awaitable.",
    ))?;
    module.add_function(documented(
        function(c"run_coroutine_threadsafe", threadsafe::run_coroutine_threadsafe),
        c"run_coroutine_threadsafe(coro, loop)\n--\n\nRun the coroutine on a loop of another thread.\n\nReturns a \
        concurrent.futures.Future, whose result() waits; cancelling it cancels the task.",
    ))?;
    module.add_function(documented(
        function(c"eager_task_factory", eager::eager_task_factory),
        EAGER_TASK_FACTORY_DOC,
    ))?;
    module.add_function(documented(
        function(c"create_eager_task_factory", eager::create_eager_task_factory),
        c"create_eager_task_factory(custom_task_constructor)\n--\n\nA task factory whose tasks start at once.\n\nThe \
        constructor is called as Task is, with eager_start=True.",
    ))
}

fn add_what_waits(module: &Module<'_>) -> Result<()> {
    module.add_function(documented(
        function(c"as_completed", as_completed::as_completed),
        c"as_completed(fs, *, timeout=None)\n--\n\nThe awaitables in the order in which they are done: for `async for` the \
        futures and tasks, for `for` a coroutine\nfor the result of each. After `timeout` seconds the rest raise TimeoutError.",
    ))?;
    module.add_function(documented(
        function(c"gather", gather::gather),
        c"gather(*coros_or_futures, return_exceptions=False)\n--\n\nA future for the list of all results, in the order of \
        the arguments.\n\nThe first exception is the future's, unless return_exceptions is true. Cancelling it cancels all.",
    ))?;
    module.add_function(documented(
        function(c"shield", shield::shield),
        c"shield(arg)\n--\n\nA future for the result of `arg`, which goes on where the future is cancelled.\n\nKeep a \
        reference to a task that is shielded: the loop has only a weak one.",
    ))?;
    module.add_function(documented(
        coroutine_function(c"sleep", sleep::sleep),
        c"sleep(delay, result=None)\n--\n\nReturns the result after `delay` seconds, never earlier; 0 gives way once.",
    ))?;
    module.add_function(documented(
        coroutine_function(c"wait", wait::wait),
        c"wait(fs, *, timeout=None, return_when='ALL_COMPLETED')\n--\n\nWaits for futures and tasks; returns the sets of \
        those that are done and of those that are not.\n\nAfter `timeout` seconds at the latest, without an exception. \
        Raises TypeError for coroutines, ValueError for no futures.",
    ))?;
    module.add_function(documented(
        coroutine_function(c"wait_for", wait_for::wait_for),
        c"wait_for(fut, timeout)\n--\n\nWhat the awaitable returns. After `timeout` seconds it is cancelled and TimeoutError \
        raised;\nwith None there is no limit.",
    ))
}
