//! `to_thread`: a function in a worker of the loop's default executor, in a copy of the caller's context.
//!
//! Leaves to others: the executor and how its workers are woken (the loop's `run_in_executor`).

use crate::futures;
use ioxide_cpython::context::copy_current;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::current::get_running_loop;
use ioxide_cpython::functions::coroutine_function;
use ioxide_cpython::methods::{Arguments, documented};
use ioxide_cpython::module::Module;
use ioxide_cpython::value::{dict, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, imports, names};

pub fn add_to(module: &Module<'_>) -> Result<()> {
    module.add_function(documented(
        coroutine_function(c"to_thread", to_thread),
        c"to_thread(func, /, *args, **kwargs)\n--\n\nRun a function in a worker thread and return what it returns.\n\n\
        It runs in a copy of the current context. Cancelling the wait does not stop a function that has begun.",
    ))
}

/// `to_thread(func, /, *args, **kwargs)`
fn to_thread(arguments: Arguments<'_>) -> Result<Object> {
    let Some((function, rest)) = arguments.positional().split_first() else {
        return Err(Raised::type_error("to_thread() missing 1 required positional argument: 'func'"));
    };
    let (function, rest) = (function.to_object(), tuple(rest)?);
    let keywords = dict()?;
    for (name, value) in arguments.keywords() {
        keywords.dict_set(name, value)?;
    }
    coroutine("to_thread", async move {
        let event_loop = get_running_loop()?;
        let call = in_context(&function, &rest, &keywords)?;
        let future = futures::run_in_default_executor(&event_loop, &call)?;
        wait_for(&future).await
    })
}

/// `functools.partial(copy_context().run, function, *rest, **keywords)`
fn in_context(function: &Any, rest: &Any, keywords: &Any) -> Result<Object> {
    let run = copy_current()?.get_attribute(&names().run)?;
    let mut all = vec![&*run, function];
    all.extend_from_slice(rest.tuple_items());
    imports().partial.call_tuple(&*tuple(&all)?, Some(keywords))
}
