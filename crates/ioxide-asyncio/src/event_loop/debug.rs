//! Debug mode: each callback is timed, and slow ones are logged in asyncio's words.

use super::{EventLoop, Ready};
use ioxide_cpython::value::{float, text};
use ioxide_cpython::{Any, Raised, Result, imports, names, none};
use ioxide_reactor::MonotonicTime;

impl EventLoop {
    pub(super) fn run_in_debug_mode(&self, item: Ready) -> Result<()> {
        let shown = match &item {
            Ready::Handle(handle) => Some(handle.clone()),
            Ready::Step(task) | Ready::Throw(task, _) | Ready::Wakeup(task, _) => Some(task.clone()),
            Ready::Callback { callback, .. } => Some(callback.clone()),
            Ready::Watcher(super::Watcher::Handle(handle), _) => Some(handle.clone()),
            Ready::Done(callback, _) => Some(callback.clone()),
            Ready::Due(_) | Ready::Watcher(_, _) => None,
        };
        self.keep("_current_handle", shown.as_deref().unwrap_or(none()))?;
        let started = MonotonicTime::now();
        let outcome = self.run_item(item).map_err(Raised::take);
        let took = MonotonicTime::now().saturating_since(started).as_secs_f64();
        self.keep("_current_handle", none())?;
        if let Err(exception) = outcome {
            return Err(Raised::exception(exception));
        }
        if took >= self.get_attribute_str(c"slow_callback_duration")?.to_f64()? {
            self.log_slow(shown.as_deref(), took)?;
        }
        Ok(())
    }

    fn log_slow(&self, shown: Option<&Any>, took: f64) -> Result<()> {
        let shown = match shown {
            Some(handle) if handle.is_instance(&imports().Handle)? => {
                imports().format_handle.call1(handle)?
            }
            Some(task) => task.repr()?,
            None => text("<callback of a transport or timer>")?,
        };
        imports()
            .logger
            .call_method(
                &names().warning,
                &[&*text("Executing %s took %.3f seconds")?, &*shown, &*float(took)?],
            )
            .map(drop)
    }
}
