//! The attributes of a loop that are Python's own objects, under asyncio's names: libraries and debuggers read them.

use super::EventLoop;
use ioxide_cpython::value::{dict, float};
use ioxide_cpython::{Any, Result, boolean, imports, names, none};

/// Gives them to a new loop.
pub fn give(event_loop: &EventLoop) -> Result<()> {
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
