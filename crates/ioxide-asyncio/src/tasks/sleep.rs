//! `sleep`: on ioxide's own loop the future itself waits in the timers; everywhere else asyncio's own runs.

use super::originals;
use crate::event_loop::{EventLoop, on_timer_cancelled};
use crate::futures::{self, Future};
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure_of_nobody};
use ioxide_cpython::coroutine::{Body, Waiting, traced_coroutine, wait_for};
use ioxide_cpython::current::running_loop;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::types::Native;
use ioxide_cpython::{Any, Object, Raised, Result, none, none_object};
use std::future::Future as RustFuture;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

const SLEEP: Signature<2> =
    Signature { function: "sleep", names: ["delay", "result"], required: 1, positional: 2 };

/// `sleep(delay, result=None)`
pub fn sleep(arguments: Arguments<'_>) -> Result<Object> {
    let [delay, result] = SLEEP.bind(arguments)?;
    let delay = delay.unwrap_or(none());
    if delay.as_plain_number().is_some_and(|delay| delay <= 0.0) {
        return procedure_of_nobody(&GIVE_WAY, result);
    }
    let result = result.map_or_else(none_object, Any::to_object);
    traced_coroutine("sleep", Sleep { delay: delay.to_object(), result: Some(result), stage: Stage::Created })
}

/// `sleep(0, result)`: lets everything else run once.
static GIVE_WAY: Routine = Routine { qualified_name: "sleep", step: give_way };

fn give_way(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    match resumed {
        Resumed::Started => Ok(Progress::GiveWay),
        Resumed::Done => Ok(Progress::Return(procedure.argument.get_or_none())),
        Resumed::Raised(exception) => Err(Raised::exception(exception)),
    }
}

struct Sleep {
    delay: Object,
    /// Until it is handed to the future, or returned.
    result: Option<Object>,
    stage: Stage,
}

enum Stage {
    Created,
    /// For a future in the timers.
    Asleep(Waiting),
    /// In asyncio's own coroutine.
    Borrowed(Waiting),
    Over,
}

impl RustFuture for Sleep {
    type Output = Result<Object>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Object>> {
        loop {
            let outcome = match &mut self.stage {
                Stage::Created => {
                    self.stage = match self.begin() {
                        Ok(stage) => stage,
                        Err(raised) => return Poll::Ready(Err(raised)),
                    };
                    continue;
                }
                Stage::Asleep(waiting) | Stage::Borrowed(waiting) => pin!(waiting).poll(context),
                Stage::Over => Poll::Ready(Ok(none_object())),
            };
            if let Poll::Ready(Ok(_)) = &outcome {
                self.stage = Stage::Over;
            }
            return outcome;
        }
    }
}

impl Sleep {
    #[inline]
    fn begin(&mut self) -> Result<Stage> {
        let Some(delay) = self.delay.as_plain_number() else { return self.borrow() };
        let event_loop = running_loop()?;
        let Some(native) = event_loop.as_deref().and_then(EventLoop::plain).filter(|_| !delay.is_nan())
        else {
            return self.borrow();
        };
        let future = futures::create(native)?;
        if let Some(own) = Future::from_exact(&future) {
            own.result.initialize(self.result.take());
        }
        let waiting = wait_for(&future);
        native.add_timed(delay, future);
        Ok(Stage::Asleep(waiting))
    }

    fn borrow(&mut self) -> Result<Stage> {
        let result = self.result.take().unwrap_or_else(none_object);
        let coroutine = originals().sleep.call(&[&*self.delay, &*result])?;
        Ok(Stage::Borrowed(wait_for(&coroutine)))
    }
}

impl Drop for Sleep {
    /// Somebody else than the timer has ended the sleep: the entry in the timers is nobody's.
    fn drop(&mut self) {
        let Stage::Asleep(waiting) = &self.stage else { return };
        let Some(future) = Future::from_exact(waiting.target()) else { return };
        let event_loop = future.event_loop.get_or_none();
        futures::abandon(future);
        on_timer_cancelled(&event_loop);
    }
}

impl Body for Sleep {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.delay);
        visitor.optional(self.result.as_ref());
        if let Stage::Asleep(waiting) | Stage::Borrowed(waiting) = &self.stage {
            waiting.traverse(visitor);
        }
    }
}
