//! The coroutines that an `as_completed` iterator gives out: each waits until one more is done.
//!
//! Invariants:
//! O1. While it waits, its getter is among the iterator's; it leaves them however the wait ends, and hands a wake-up that it
//!     cannot use to the next one.

use super::as_completed::AsCompleted;
use super::plain_future;
use crate::futures::{self, Outcome};
use ioxide_cpython::coroutine::{Body, Waiting, traced_coroutine, wait_for};
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::types::Native;
use ioxide_cpython::version::{AS_COMPLETED_IS_GENERATOR, rules};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, builtin, imports, none, none_object};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// What the coroutine returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The result of the future, which was counted when the coroutine was made.
    Result,
    /// The future itself, which is counted when the coroutine begins.
    NextFuture,
}

pub struct WaitForOne {
    iterator: Object,
    wanted: Wanted,
    stage: Stage,
}

enum Stage {
    Created,
    Waiting(Waiting),
    Over,
}

const QUALIFIED_NAME: &str = if AS_COMPLETED_IS_GENERATOR {
    "as_completed.<locals>._wait_for_one"
} else {
    "_AsCompletedIterator._wait_for_one"
};

impl WaitForOne {
    pub fn coroutine(iterator: &Any, wanted: Wanted) -> Result<Object> {
        let name = match wanted {
            Wanted::Result => QUALIFIED_NAME,
            Wanted::NextFuture => "_AsCompletedIterator.__anext__",
        };
        traced_coroutine(name, WaitForOne { iterator: iterator.to_object(), wanted, stage: Stage::Created })
    }

    fn owner(&self) -> Result<&AsCompleted> {
        AsCompleted::from_exact(&self.iterator).ok_or_else(|| Raised::runtime_error("the iterator is gone"))
    }

    fn begin(&self) -> Result<()> {
        if self.wanted == Wanted::Result {
            return Ok(());
        }
        let owner = self.owner()?;
        owner.begin_for_async()?;
        match owner.take_one() {
            true => Ok(()),
            false => Err(Raised::empty(builtin(Builtin::StopAsyncIteration))),
        }
    }

    /// What is done already, or a wait for it.
    fn next_stage(&self) -> Result<Next> {
        let owner = self.owner()?;
        match owner.take_done() {
            Some(Some(future)) => Ok(Next::Done(future)),
            Some(None) => Err(Raised::empty(&imports().TimeoutError)),
            None => Ok(Next::Wait(wait_for(&*owner.create_getter()?))),
        }
    }

    fn returned(&self, done: Object) -> Result<Object> {
        if self.wanted == Wanted::NextFuture {
            return Ok(done);
        }
        let Some(future) = plain_future(&done) else { return Ok(none_object()) };
        match futures::outcome(future)? {
            Outcome::Result => Ok(future.result.get_or_none()),
            Outcome::Exception(exception) => Err(Raised::exception(exception)),
        }
    }

    /// The wait was interrupted (O1).
    fn leave(&self, getter: &Any) -> Result<()> {
        let owner = self.owner()?;
        futures::cancel_any(getter)?;
        owner.getters.discard(getter)?;
        if owner.has_done() && !futures::is_cancelled(getter)? {
            owner.getters.take_and_wake_next(none())?;
        }
        if rules().as_completed_counts_again {
            owner.give_one_back();
        }
        Ok(())
    }
}

enum Next {
    Done(Object),
    Wait(Waiting),
}

impl Future for WaitForOne {
    type Output = Result<Object>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Object>> {
        loop {
            match &mut self.stage {
                Stage::Created => {
                    if let Err(raised) = self.begin() {
                        return Poll::Ready(Err(raised));
                    }
                }
                Stage::Waiting(waiting) => {
                    let Poll::Ready(outcome) = pin!(&mut *waiting).poll(context) else {
                        return Poll::Pending;
                    };
                    let Stage::Waiting(waiting) = std::mem::replace(&mut self.stage, Stage::Over) else {
                        return Poll::Ready(outcome);
                    };
                    if let Err(exception) = outcome.map_err(Raised::take) {
                        let left = self.leave(waiting.target());
                        return Poll::Ready(left.and(Err(Raised::exception(exception))));
                    }
                }
                Stage::Over => return Poll::Ready(Ok(none_object())),
            }
            self.stage = match self.next_stage() {
                Ok(Next::Wait(waiting)) => Stage::Waiting(waiting),
                Ok(Next::Done(future)) => return Poll::Ready(self.returned(future)),
                Err(raised) => return Poll::Ready(Err(raised)),
            };
        }
    }
}

impl Drop for WaitForOne {
    /// The coroutine is given up.
    fn drop(&mut self) {
        if let Stage::Waiting(waiting) = std::mem::replace(&mut self.stage, Stage::Over)
            && let Err(raised) = self.leave(waiting.target())
        {
            raised.write_unraisable(&self.iterator);
        }
    }
}

impl Body for WaitForOne {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.iterator);
        if let Stage::Waiting(waiting) = &self.stage {
            waiting.traverse(visitor);
        }
    }
}
