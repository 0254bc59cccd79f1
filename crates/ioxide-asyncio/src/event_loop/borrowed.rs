//! The methods of the loop that run asyncio's own Python code, of the same Python version, over ioxide's native
//! ones: what happens once a connection, a server, a process or a program, not once a message or a task.
//! They call back into the loop by its documented and private method names, which `methods` has.
//!
//! The list only shrinks: a method leaves it when a native one takes its place.

use super::EventLoop;
use ioxide_cpython::call::import;
use ioxide_cpython::value::{dict, float};
use ioxide_cpython::{Any, Result, boolean, imports, names, none};

/// Methods of `asyncio.unix_events._UnixSelectorEventLoop` and its bases. Which of them exist depends on the version.
const METHODS: &[&str] = &[];

/// Puts asyncio's functions into the class.
pub fn borrow_methods(class: &Any) -> Result<()> {
    let source = import(c"asyncio.unix_events")?.get_attribute_str(c"_UnixSelectorEventLoop")?;
    for name in METHODS {
        let name = ioxide_cpython::names::intern(name)?;
        if let Some(function) = source.get_attribute_optional(&name)? {
            class.set_attribute(&name, &function)?;
        }
    }
    Ok(())
}

/// Gives a new loop the instance attributes that the borrowed methods use.
pub fn give_attributes(event_loop: &EventLoop) -> Result<()> {
    let attributes = event_loop.get_attribute(&names().__dict__)?;
    let set = |name: &str, value: &Any| attributes.dict_set(&*ioxide_cpython::names::intern(name)?, value);
    set("slow_callback_duration", &*float(0.1)?)?;
    set("_clock_resolution", &*float(1e-9)?)?;
    set("_current_handle", none())?;
    set("_exception_handler", none())?;
    set("_default_executor", none())?;
    set("_executor_shutdown_called", &boolean(false))?;
    set("_asyncgens", &*imports().WeakSet.call0()?)?;
    set("_asyncgens_shutdown_called", &boolean(false))?;
    set("_signal_handlers", &*dict()?)?;
    set("_unix_server_sockets", &*dict()?)?;
    if let Some(watcher) = super::children::default_watcher()? {
        set("_watcher", &watcher)?;
    }
    set("_transports", &*imports().WeakValueDictionary.call0()?)
}
