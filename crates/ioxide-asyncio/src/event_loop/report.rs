//! What becomes of an exception that nobody catches: it goes to the loop's exception handler, and the loop goes on.
//!
//! Invariants:
//! R1. KeyboardInterrupt and SystemExit end the run; every other exception is reported.
//! R2. A handler runs as if inside `except`: `sys.exc_info()` is the exception that is reported.
//! R3. From 3.12 on the program's handler runs in the context of the task, future or handle of the report.

use super::EventLoop;
use crate::handles::Handle;
use crate::tasks::Task;
use ioxide_cpython::call::import;
use ioxide_cpython::exception::handling;
use ioxide_cpython::methods::given;
use ioxide_cpython::names::keyword_names;
use ioxide_cpython::types::Native;
use ioxide_cpython::value::{dict, list, text, tuple};
use ioxide_cpython::version::HANDLER_RUNS_IN_CONTEXT;
use ioxide_cpython::{Any, Object, Raised, Result, boolean, imports, names};

impl EventLoop {
    /// R1
    #[inline(always)]
    pub(super) fn report_step(&self, task: &Task, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => self.report_step_exception(task, raised),
        }
    }

    /// Reports as the handle would that asyncio calls a future's callback through.
    #[cold]
    pub(super) fn report_callback_exception(
        &self,
        callback: &Any,
        future: &Any,
        context: &Any,
        raised: Raised,
    ) -> Result<()> {
        let exception = raised.take();
        let handle = Handle::create(self, callback, &[future], Some(context))?;
        match Handle::from_exact(&handle) {
            Some(handle) => crate::handles::report_exception(handle, exception),
            None => Ok(()),
        }
    }

    #[cold]
    fn report_step_exception(&self, task: &Task, raised: Raised) -> Result<()> {
        let exception: Object = raised.take();
        let shown = task.repr()?.to_text()?;
        let report = dict()?;
        report.dict_set(&names().message, &*text(&format!("Exception in callback {}", shown.as_str()))?)?;
        report.dict_set(&names().exception, &exception)?;
        report.dict_set(&names().task, task)?;
        handling(&exception, || self.call_method1(&names().call_exception_handler, &report)).map(drop)
    }

    /// `loop.get_exception_handler()`: None while the default one is in use.
    pub fn get_exception_handler(&self) -> Result<Object> {
        self.get_attribute(&names()._exception_handler)
    }

    /// `loop.set_exception_handler(handler)`. Fails: TypeError where it is neither callable nor None.
    pub fn set_exception_handler(&self, handler: &Any) -> Result<()> {
        if !handler.is_none() && !handler.is_callable() {
            let shown = handler.repr()?.to_text()?;
            return Err(Raised::type_error(&format!(
                "A callable object or None is expected, got {}",
                shown.as_str()
            )));
        }
        self.set_attribute(&names()._exception_handler, handler)
    }

    /// `loop.call_exception_handler(context)`. Fails: R1; whatever else a handler fails with is logged.
    pub fn call_exception_handler(&self, report: &Any) -> Result<()> {
        let handler = self.get_exception_handler()?;
        if handler.is_none() {
            return match self.call_method1(&names().default_exception_handler, report) {
                Err(raised) => log_failure(raised, "Exception in default exception handler"),
                Ok(_) => Ok(()),
            };
        }
        match self.call_own_handler(&handler, report) {
            Ok(()) => Ok(()),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => {
                let exception = raised.take();
                handling(&exception, || self.report_broken_handler(&exception, report))
            }
        }
    }

    /// The handler that the program has set (R3).
    fn call_own_handler(&self, handler: &Any, report: &Any) -> Result<()> {
        if HANDLER_RUNS_IN_CONTEXT
            && let Some(context) = context_of(report)?
            && let Some(run) = context.get_attribute_optional(&names().run)?
        {
            return run.call(&[handler, self, report]).map(drop);
        }
        handler.call(&[self, report]).map(drop)
    }

    fn report_broken_handler(&self, exception: &Any, report: &Any) -> Result<()> {
        let second = dict()?;
        second.dict_set(&names().message, &*text("Unhandled error in exception handler")?)?;
        second.dict_set(&names().exception, exception)?;
        second.dict_set(&names().context, report)?;
        match self.call_method1(&names().default_exception_handler, &second) {
            Ok(_) => Ok(()),
            Err(raised) => log_failure(
                raised,
                "Exception in default exception handler while handling an unexpected error in custom \
                 exception handler",
            ),
        }
    }

    /// `loop.default_exception_handler(context)`: logs the report, and in debug mode where things were created.
    pub fn default_exception_handler(&self, report: &Any) -> Result<()> {
        let get = |name: &Any| report.call_method1(&names().get, name);
        let mut message = get(&names().message)?;
        if !message.is_true()? {
            message = text("Unhandled exception in event loop")?;
        }
        let exception = get(&names().exception)?;
        let exc_info = match exception.is_none() {
            true => boolean(false),
            false => {
                let traceback = exception.get_attribute_str(c"__traceback__")?;
                tuple(&[exception.get_type(), &*exception, &*traceback])?
            }
        };
        self.add_handle_traceback(report)?;
        let lines = list()?;
        lines.list_append(&message)?;
        for key in import(c"builtins")?.get_attribute_str(c"sorted")?.call1(report)?.iterate()? {
            let key = key?;
            if !key.equals(&names().message)? && !key.equals(&names().exception)? {
                let value = report.get_item(&key)?;
                let key_shown = key.str()?.to_text()?;
                let value_shown = shown_value(&key, &value)?.to_text()?;
                lines.list_append(&*text(&format!("{}: {}", key_shown.as_str(), value_shown.as_str()))?)?;
            }
        }
        let joined = text("\n")?.call_method1(&names().join, &lines)?;
        let keywords = keyword_names(&[&names().exc_info])?;
        imports().logger.call_method_keywords(&names().error, &[&joined, &exc_info], &keywords).map(drop)
    }

    /// Debug mode: without a traceback of its own, the report gets that of the handle that is running.
    fn add_handle_traceback(&self, report: &Any) -> Result<()> {
        if report.call_method1(&*text("__contains__")?, &names().source_traceback)?.is_true()? {
            return Ok(());
        }
        let current = self.get_attribute(&names()._current_handle)?;
        if current.is_none() {
            return Ok(());
        }
        let traceback = current.get_attribute(&names()._source_traceback)?;
        if traceback.is_true()? {
            report.call_method(&names().__setitem__, &[&*text("handle_traceback")?, &*traceback])?;
        }
        Ok(())
    }
}

/// How a value of a report is logged.
fn shown_value(key: &Any, value: &Any) -> Result<Object> {
    let title = if key.equals(&names().source_traceback)? {
        "Object created at (most recent call last):"
    } else if key.equals(&*text("handle_traceback")?)? {
        "Handle created at (most recent call last):"
    } else {
        return value.repr();
    };
    let lines = import(c"traceback")?.get_attribute_str(c"format_list")?.call1(value)?;
    let joined = text("")?.call_method1(&names().join, &lines)?.to_text()?;
    text(&format!("{title}\n{}", joined.as_str().trim_end()))
}

/// The context of the task, future or handle that a report is about (R3).
fn context_of(report: &Any) -> Result<Option<Object>> {
    let mut about = None;
    for name in [&names().task, &names().future, &names().handle] {
        let found = report.call_method1(&names().get, name)?;
        if !found.is_none() {
            about = Some(found);
            break;
        }
    }
    let Some(about) = about else { return Ok(None) };
    let Some(get_context) = about.get_attribute_optional(&names().get_context)? else { return Ok(None) };
    let context = get_context.call0()?;
    Ok(given(Some(&context)).map(Any::to_object))
}

/// The last line of defence: what a handler fails with goes to the log (R1, R2).
fn log_failure(raised: Raised, message: &str) -> Result<()> {
    if raised.leaves_the_loop() {
        return Err(raised);
    }
    let exception = raised.take();
    let keywords = keyword_names(&[&names().exc_info])?;
    handling(&exception, || {
        imports().logger.call_method_keywords(&names().error, &[&*text(message)?, &boolean(true)], &keywords)
    })
    .map(drop)
}
