//! What becomes of an exception that leaves a task's step: none should, but where one does the loop goes on.

use super::EventLoop;
use crate::tasks::Task;
use ioxide_cpython::value::{dict, text};
use ioxide_cpython::{Object, Raised, Result, names};

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
