//! What becomes of an exception that leaves a future's callback or (none should) a task's step: the loop goes on.

use super::EventLoop;
use crate::handles::Handle;
use crate::tasks::Task;
use ioxide_cpython::types::Native;
use ioxide_cpython::value::{dict, text, tuple};
use ioxide_cpython::{Any, Object, Raised, Result, names};

impl EventLoop {
    /// KeyboardInterrupt and SystemExit end the run; everything else goes to the exception handler.
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
            Some(handle) => {
                crate::handles::report_exception(handle, callback, &*tuple(&[future])?, exception)
            }
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
        self.call_method1(&names().call_exception_handler, &report).map(drop)
    }
}
