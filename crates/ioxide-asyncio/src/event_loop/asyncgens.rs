//! Asynchronous generators: the loop hears of their first iteration and of their end, and closes what is left of them.
//!
//! Invariants:
//! G1. `_asyncgens` is a WeakSet of the generators that have begun under this loop and have not ended.

use super::EventLoop;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::exception::warn_resource;
use ioxide_cpython::value::{dict, text};
use ioxide_cpython::{Any, Builtin, Object, Result, boolean, imports, names, none_object};

impl EventLoop {
    /// Hands both hooks to the interpreter, for the thread that runs the loop.
    pub(super) fn install_asyncgen_hooks(&self) -> Result<()> {
        let first_iteration = self.get_attribute(&names()._asyncgen_firstiter_hook)?;
        let finalizer = self.get_attribute(&names()._asyncgen_finalizer_hook)?;
        imports().set_asyncgen_hooks.call(&[&*first_iteration, &*finalizer]).map(drop)
    }

    /// `loop._asyncgen_firstiter_hook(agen)`
    pub fn on_asyncgen_begun(&self, generator: &Any) -> Result<()> {
        if self.get_attribute(&names()._asyncgens_shutdown_called)?.is_true()? {
            let shown = generator.repr()?.to_text()?;
            let message = format!(
                "asynchronous generator {} was scheduled after loop.shutdown_asyncgens() call",
                shown.as_str()
            );
            warn_resource(&message, self)?;
        }
        self.get_attribute(&names()._asyncgens)?.call_method1(&names().add, generator).map(drop)
    }

    /// `loop._asyncgen_finalizer_hook(agen)`, in whichever thread drops the generator.
    pub fn on_asyncgen_dropped(&self, generator: &Any) -> Result<()> {
        self.get_attribute(&names()._asyncgens)?.call_method1(&names().discard, generator)?;
        if self.is_closed() {
            return Ok(());
        }
        let create_task = self.get_attribute(&names().create_task)?;
        let closing = generator.call_method0(&names().aclose)?;
        self.call_method(&names().call_soon_threadsafe, &[&create_task, &closing]).map(drop)
    }

    /// `await loop.shutdown_asyncgens()`
    pub fn shutdown_asyncgens(&self) -> Result<Object> {
        let event_loop = self.to_object();
        coroutine("BaseEventLoop.shutdown_asyncgens", async move {
            event_loop.set_attribute(&names()._asyncgens_shutdown_called, &boolean(true))?;
            let living = event_loop.get_attribute(&names()._asyncgens)?;
            let generators: Vec<Object> = living.iterate()?.collect::<Result<_>>()?;
            if generators.is_empty() {
                return Ok(none_object());
            }
            living.call_method0(&*text("clear")?)?;
            close_all(&event_loop, generators).await?;
            Ok(none_object())
        })
    }
}

/// Closes the generators at the same time. What one fails with is reported and stops no other.
async fn close_all(event_loop: &Any, generators: Vec<Object>) -> Result<()> {
    let mut arguments = Vec::with_capacity(generators.len() + 1);
    for generator in &generators {
        arguments.push(generator.call_method0(&names().aclose)?);
    }
    arguments.push(boolean(true));
    let arguments: Vec<&Any> = arguments.iter().map(|argument| &**argument).collect();
    let gather = import(c"asyncio.tasks")?.get_attribute_str(c"gather")?;
    let keywords = ioxide_cpython::names::keyword_names(&[&*text("return_exceptions")?])?;
    let gathered = gather.call_keywords(&arguments, &keywords, generators.len())?;
    let results = wait_for(&gathered).await?;
    let results: Vec<Object> = results.iterate()?.collect::<Result<_>>()?;
    for (result, generator) in results.iter().zip(&generators) {
        if ioxide_cpython::exception::exception_is(result, Builtin::Exception) {
            report_failed_close(event_loop, generator, result)?;
        }
    }
    Ok(())
}

fn report_failed_close(event_loop: &Any, generator: &Any, exception: &Any) -> Result<()> {
    let shown = generator.repr()?.to_text()?;
    let message = format!("an error occurred during closing of asynchronous generator {}", shown.as_str());
    let report = dict()?;
    report.dict_set(&names().message, &*text(&message)?)?;
    report.dict_set(&names().exception, exception)?;
    report.dict_set(&*text("asyncgen")?, generator)?;
    event_loop.call_method1(&names().call_exception_handler, &report).map(drop)
}
