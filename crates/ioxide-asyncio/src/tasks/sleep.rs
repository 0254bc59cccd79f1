//! `sleep`: on ioxide's own loop the future itself waits in the timers; everywhere else asyncio's own runs.
//!
//! Invariants:
//! P1. While a sleep is `ASLEEP`, its waiter is in the timers of the waiter's loop and counted as due.

use super::originals;
use crate::event_loop::{EventLoop, on_timer_cancelled};
use crate::futures::{self, Future};
use crate::procedures::{Procedure, Progress, Resumed, Routine, procedure, procedure_of_nobody};
use ioxide_cpython::current::running_loop;
use ioxide_cpython::methods::{Arguments, Signature};
use ioxide_cpython::types::Native;
use ioxide_cpython::{Any, Object, Raised, Result, none};

const SLEEP: Signature<2> =
    Signature { function: "sleep", names: ["delay", "result"], required: 1, positional: 2 };

/// `sleep(delay, result=None)`
pub fn sleep(arguments: Arguments<'_>) -> Result<Object> {
    let [delay, result] = SLEEP.bind(arguments)?;
    let delay = delay.unwrap_or(none());
    if delay.as_plain_number().is_some_and(|delay| delay <= 0.0) {
        return procedure_of_nobody(&GIVE_WAY, result);
    }
    procedure(&TIMED, delay, result)
}

/// `sleep(0, result)`: lets everything else run once.
static GIVE_WAY: Routine = Routine { qualified_name: "sleep", step: give_way };

fn give_way(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    match resumed {
        Resumed::Started => Ok(Progress::GiveWay),
        Resumed::Done(_) => Ok(Progress::Return(procedure.argument.get_or_none())),
        Resumed::Raised(exception) => Err(Raised::exception(exception)),
    }
}

/// `sleep(delay, result)`, whose owner is the delay: waits for a future in the timers, or in asyncio's own coroutine.
static TIMED: Routine = Routine { qualified_name: "sleep", step: sleep_step };

/// In the timers (P1), not in asyncio's own coroutine.
const ASLEEP: u32 = 1;

fn sleep_step(procedure: &Procedure, resumed: Resumed) -> Result<Progress> {
    match resumed {
        Resumed::Started => fall_asleep(procedure),
        Resumed::Done(result) => Ok(Progress::Return(result)),
        Resumed::Raised(exception) => {
            if procedure.stage.get() == ASLEEP {
                leave_timers(&procedure.take_waiter());
            }
            Err(Raised::exception(exception))
        }
    }
}

#[inline]
fn fall_asleep(procedure: &Procedure) -> Result<Progress> {
    let event_loop = running_loop()?;
    let delay = procedure.owner().as_plain_number().filter(|delay| !delay.is_nan());
    let (Some(native), Some(delay)) = (event_loop.as_deref().and_then(EventLoop::plain), delay) else {
        let result = procedure.argument.get_or_none();
        return originals().sleep.call(&[procedure.owner(), &*result]).map(Progress::Await);
    };
    let future = futures::create_timed(native, procedure.argument.get_or_none())?;
    native.add_timed(delay, future.clone());
    procedure.stage.set(ASLEEP);
    Ok(Progress::Wait(future))
}

/// Somebody else than the timer has ended the sleep: the entry in the timers is nobody's.
fn leave_timers(waiter: &Any) {
    let Some(future) = Future::from_exact(waiter) else { return };
    let event_loop = future.event_loop.get_or_none();
    futures::abandon(future);
    on_timer_cancelled(&event_loop);
}
