//! The attributes of a loop that are Python's own objects, under asyncio's names: libraries and debuggers read and set them.
//!
//! They are attributes of the class, and their values are in a dictionary of the core. An instance that has a dictionary of its
//! own keeps the interpreter from specialising the calls of its methods, each of which is looked up along the classes then.

use super::EventLoop;
use ioxide_cpython::methods::{Attribute, attribute};
use ioxide_cpython::names::intern;
use ioxide_cpython::value::{dict, float};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, boolean, builtin, imports, none};

/// Gives a new loop their values.
pub fn give(event_loop: &EventLoop) -> Result<()> {
    event_loop.core().attributes.set(dict()?);
    let set = |name: &str, value: &Any| event_loop.keep(name, value);
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

/// One definition a name: a getter and a setter are functions that know it.
macro_rules! attributes {
    ($($name:literal $text:literal),* $(,)?) => {
        vec![$(attribute(
            $name,
            |this: &EventLoop| this.kept($text)?.ok_or_else(|| missing($text)),
            |this: &EventLoop, value: Option<&Any>| match value {
                Some(value) => this.keep($text, value),
                None => this.forget($text),
            },
        )),*]
    };
}

pub fn definitions() -> Vec<Attribute> {
    attributes![
        c"slow_callback_duration" "slow_callback_duration",
        c"_clock_resolution" "_clock_resolution",
        c"_current_handle" "_current_handle",
        c"_exception_handler" "_exception_handler",
        c"_default_executor" "_default_executor",
        c"_executor_shutdown_called" "_executor_shutdown_called",
        c"_asyncgens" "_asyncgens",
        c"_asyncgens_shutdown_called" "_asyncgens_shutdown_called",
        c"_signal_handlers" "_signal_handlers",
        c"_unix_server_sockets" "_unix_server_sockets",
        c"_watcher" "_watcher",
        c"_transports" "_transports",
    ]
}

#[cold]
fn missing(name: &str) -> Raised {
    Raised::new(builtin(Builtin::AttributeError), &format!("'EventLoop' object has no attribute '{name}'"))
}

impl EventLoop {
    /// The value of one of the attributes, `None` where it has been deleted.
    pub(super) fn kept(&self, name: &str) -> Result<Option<Object>> {
        match self.core().attributes.get_object() {
            Some(attributes) => attributes.dict_get(&*intern(name)?),
            None => Ok(None),
        }
    }

    /// Sets one of the attributes, or keeps something under a name that Python does not see.
    pub(super) fn keep(&self, name: &str, value: &Any) -> Result<()> {
        match self.core().attributes.get_object() {
            Some(attributes) => attributes.dict_set(&*intern(name)?, value),
            None => Ok(()),
        }
    }

    fn forget(&self, name: &str) -> Result<()> {
        match (self.kept(name)?, self.core().attributes.get_object()) {
            (Some(_), Some(attributes)) => attributes.dict_delete(&*intern(name)?),
            _ => Err(missing(name)),
        }
    }
}
