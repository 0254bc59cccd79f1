//! Signal handlers. Python's own wake-up descriptor tells the loop; it is set with the first handler and reset with
//! the last, and asyncio's code does both.

use super::{EventLoop, Ready};
use ioxide_cpython::methods::Arguments;
use ioxide_cpython::value::{list_of, text};
use ioxide_cpython::{Any, Result, names};

impl EventLoop {
    /// `loop.add_signal_handler(sig, callback, *args)`. The pair of sockets that signals arrive through is made when the
    /// first handler is, since most loops have none.
    pub fn add_signal_handler(&self, arguments: Arguments<'_>) -> Result<()> {
        if self.get_attribute_str(c"_csock")?.is_none() {
            self.check_closed()?;
            self.call_method0(&*text("_make_self_pipe")?)?;
        }
        let mut all: Vec<&Any> = vec![self];
        all.extend_from_slice(arguments.positional());
        super::borrowed::add_signal_handler().call_slice(&all).map(drop)
    }

    /// What `close` does about signals: no handler stays, the wake-up descriptor is given back.
    pub(super) fn remove_all_signal_handlers(&self) -> Result<()> {
        let handlers = self.get_attribute_str(c"_signal_handlers")?;
        if handlers.is_true()? {
            for signal in list_of(handlers.iterate()?.collect::<Result<Vec<_>>>()?)?.iterate()? {
                self.call_method1(&*text("remove_signal_handler")?, &*signal?)?;
            }
        }
        if !self.get_attribute_str(c"_csock")?.is_none() {
            self.call_method0(&*text("_close_self_pipe")?)?;
        }
        Ok(())
    }

    /// `loop._add_callback_signalsafe(handle)`, which asyncio's signal code calls.
    pub fn add_callback_signalsafe(&self, handle: &Any) -> Result<()> {
        self.add_callback(handle)?;
        self.wake()
    }

    /// `loop._add_callback(handle)`
    pub fn add_callback(&self, handle: &Any) -> Result<()> {
        let cancelled = handle.call_method0(&names().cancelled)?.is_true()?;
        if !cancelled {
            self.push_ready(Ready::Handle(handle.to_object()));
        }
        Ok(())
    }
}
