//! `Procedure`: the coroutines of locks, queues, timeouts, `sleep` and `wait_for`. A step function says what to wait for next; everything that a
//! procedure holds is in slots that the collector sees, so that a forgotten loop with its waiting tasks can be freed.
//!
//! Leaves to others: what each coroutine does (locks, queues, tasks), coroutines that are Rust `async fn`s (ioxide_cpython::coroutine).
//!
//! Invariants:
//! R1. A step function runs only while the state is `Running`, and then nobody but it changes the slots.
//! R2. While a procedure is suspended, `awaiting` is what it waits for: a future or task of ioxide's itself, or an iterator; it is
//!     empty while the procedure only gives way.
//! R3. A closed procedure holds nothing.

use crate::futures::{self, Outcome, own};
use ioxide_cpython::coroutine::inspection::{self, Inspected, State};
use ioxide_cpython::coroutine::{
    Step, await_iterator, count_as_coroutine, forward_exception, send, thrown_exception,
};
use ioxide_cpython::exception::{Builtin, exception_is};
use ioxide_cpython::freelist::{FreeList, Recycled};
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, method, method0, method1};
use ioxide_cpython::types::{Class, Native, NativeClass};
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, builtin, none, none_object};
use std::cell::Cell;

/// What a coroutine is called and does.
pub struct Routine {
    /// `Lock.acquire`
    pub qualified_name: &'static str,
    pub step: fn(&Procedure, Resumed) -> Result<Progress>,
}

/// Why a step function is called.
pub enum Resumed {
    /// For the first time.
    Started,
    /// What it awaited is done, with this value.
    Done(Object),
    /// What it awaited raised, or somebody threw an exception in.
    Raised(Object),
}

/// What a step function wants.
pub enum Progress {
    /// To wait for a future, which is in `waiter` until the step function takes it.
    Wait(Object),
    /// To await anything.
    Await(Object),
    /// To let everything else run once: a bare `yield`.
    GiveWay,
    Return(Object),
}

/// A coroutine object. All zero bytes are one that has not been told what to do.
#[repr(C)]
pub struct Procedure {
    head: Any,
    owner: Slot,
    /// The argument of the call, if it has one.
    pub argument: Slot,
    /// The future that is waited for.
    pub waiter: Slot,
    awaiting: Slot,
    origin: Slot,
    /// What a step function keeps for later: an exception to raise at the end.
    pub kept: Slot,
    routine: Cell<Option<&'static Routine>>,
    /// For the step function: where it is, and a number.
    pub stage: Cell<u32>,
    pub number: Cell<i64>,
    state: Cell<State>,
}

static PROCEDURE: Once<Class> = Once::new();
static FREE_PROCEDURES: FreeList<Procedure> = FreeList::new(4096);

// SAFETY: repr(C) with the head first; created by the free list only.
unsafe impl Native for Procedure {
    fn class() -> &'static Once<Class> {
        &PROCEDURE
    }
}

/// Creates the class.
pub fn initialize() -> Result<()> {
    PROCEDURE.set(
        NativeClass::new::<Procedure>(c"ioxide.Procedure")
            .doc(c"A coroutine of a lock or queue; await it as any other.")
            .not_instantiable()
            .collected::<Procedure>()
            .recycled::<Procedure>()
            .finalized::<Procedure, _>(Procedure::warn_if_never_awaited)
            .awaitable::<Procedure, _>(Procedure::awaited)
            .sendable::<Procedure, _>(Procedure::send)
            .repr::<Procedure, _>(inspection::show::<Procedure>)
            .methods(vec![
                method1(c"send", |this: &Procedure, value: &Any| this.send(value)?.into_object()),
                method(c"throw", Procedure::throw),
                method0(c"close", Procedure::close),
            ])
            .attributes(inspection::attributes::<Procedure>())
            .create(&[])?,
    );
    count_as_coroutine(Procedure::class().get());
    Ok(())
}

impl Inspected for Procedure {
    fn state(&self) -> State {
        self.state.get()
    }

    fn qualified_name(&self) -> &'static str {
        self.routine.get().map_or("", |routine| routine.qualified_name)
    }

    fn waits_for(&self) -> Option<Object> {
        self.awaiting.get_object()
    }

    fn origin(&self) -> Object {
        self.origin.get_or_none()
    }
}

impl Recycled for Procedure {
    fn free_list() -> &'static FreeList<Procedure> {
        &FREE_PROCEDURES
    }

    fn wants_finalizer(&self) -> bool {
        matches!(self.state.get(), State::Created | State::Suspended)
    }

    fn release(&self) {
        if self.state.get() != State::Closed {
            self.let_go(); // R3
        }
    }
}

/// A coroutine object that does what `routine` says to `owner`.
#[inline]
pub fn procedure(routine: &'static Routine, owner: &Any, argument: Option<&Any>) -> Result<Object> {
    create(routine, FREE_PROCEDURES.allocate()?, Some(owner), argument)
}

/// As `procedure`, of nobody, for a routine that awaits nothing.
#[inline]
pub fn procedure_of_nobody(routine: &'static Routine, argument: Option<&Any>) -> Result<Object> {
    let object = match argument {
        Some(_) => FREE_PROCEDURES.allocate()?,
        None => FREE_PROCEDURES.allocate_untracked()?,
    };
    create(routine, object, None, argument)
}

#[inline(always)]
fn create(
    routine: &'static Routine,
    object: Object,
    owner: Option<&Any>,
    argument: Option<&Any>,
) -> Result<Object> {
    if let Some(procedure) = Procedure::from_exact(&object) {
        procedure.owner.initialize(owner.map(Any::to_object));
        procedure.argument.initialize(argument.map(Any::to_object));
        procedure.origin.initialize(inspection::origin()?);
        procedure.routine.set(Some(routine));
    }
    Ok(object)
}

enum Inbound<'a> {
    Value(&'a Any),
    Exception(Object),
}

impl Procedure {
    /// The lock or queue whose method this is.
    #[inline(always)]
    pub fn owner(&self) -> &Any {
        self.owner.get().unwrap_or(none())
    }

    /// The future that `Progress::Wait` named.
    #[inline(always)]
    pub fn take_waiter(&self) -> Object {
        self.waiter.take().unwrap_or_else(none_object)
    }

    /// Sends or throws, and goes on until it waits again.
    #[inline]
    fn resume(&self, inbound: Inbound<'_>) -> Result<Step> {
        let state = self.state.get();
        match state {
            State::Running => return Err(Raised::value_error("coroutine already executing")),
            State::Closed => {
                return Err(Raised::runtime_error("cannot reuse already awaited coroutine"));
            }
            State::Created | State::Suspended => {}
        }
        self.state.set(State::Running);
        let outcome = match (state, inbound) {
            (State::Created, Inbound::Value(_)) => self.advance(Resumed::Started),
            (State::Suspended, inbound) => match self.hand_on(inbound) {
                Handed::Yielded(object) => Ok(Step::Yielded(object)),
                Handed::Ended(resumed) => self.advance(resumed),
            },
            (_, Inbound::Exception(exception)) => Err(Raised::exception(exception)),
            (_, Inbound::Value(_)) => Ok(Step::Returned(none_object())),
        };
        if let Ok(Step::Yielded(_)) = &outcome {
            self.state.set(State::Suspended);
            return outcome;
        }
        self.finish(outcome)
    }

    /// Lets go of everything, which may run Python: an exception on its way out survives that.
    fn finish(&self, outcome: Result<Step>) -> Result<Step> {
        self.state.set(State::Closed);
        match outcome {
            Ok(step) => {
                self.let_go();
                Ok(step)
            }
            Err(raised) => {
                let exception = raised.take();
                self.let_go();
                Err(Raised::exception(exception))
            }
        }
    }

    fn let_go(&self) {
        self.owner.clear();
        self.argument.clear();
        self.waiter.clear();
        self.awaiting.clear();
        self.kept.clear();
        self.origin.clear();
    }

    /// Calls the step function until it returns or has to wait.
    #[inline]
    fn advance(&self, mut resumed: Resumed) -> Result<Step> {
        let Some(routine) = self.routine.get() else { return Ok(Step::Returned(none_object())) };
        loop {
            let awaitable = match (routine.step)(self, resumed)? {
                Progress::Return(value) => return Ok(Step::Returned(value)),
                Progress::GiveWay => return Ok(Step::Yielded(none_object())),
                Progress::Wait(future) => {
                    self.waiter.set(future.clone());
                    future
                }
                Progress::Await(awaitable) => awaitable,
            };
            if let Some(native) = own(&awaitable)
                && native.is_pending()
                && !native.blocking()
            {
                native.set_blocking(true);
                self.awaiting.set(awaitable.clone());
                return Ok(Step::Yielded(awaitable));
            }
            let stepped = await_iterator(&awaitable).and_then(|iterator| {
                self.awaiting.set(iterator.clone());
                send(&iterator, none())
            });
            resumed = match stepped {
                Ok(Step::Yielded(object)) => return Ok(Step::Yielded(object)),
                Ok(Step::Returned(value)) => Resumed::Done(value),
                Err(raised) => Resumed::Raised(raised.take()),
            };
            self.awaiting.clear();
        }
    }

    /// Hands what was sent or thrown to what is being awaited.
    #[inline]
    fn hand_on(&self, inbound: Inbound<'_>) -> Handed {
        let Some(awaiting) = self.awaiting.get_object() else {
            return Handed::Ended(match inbound {
                Inbound::Exception(exception) => Resumed::Raised(exception),
                Inbound::Value(_) => Resumed::Done(none_object()),
            });
        };
        if let Some(future) = own(&awaiting) {
            self.awaiting.clear();
            return Handed::Ended(match inbound {
                Inbound::Exception(exception) => Resumed::Raised(exception),
                Inbound::Value(_) if future.is_pending() => not_awaited_with_future(),
                Inbound::Value(_) => match futures::outcome(future) {
                    Ok(Outcome::Result) => Resumed::Done(future.result.get_or_none()),
                    Ok(Outcome::Exception(exception)) => Resumed::Raised(exception),
                    Err(raised) => Resumed::Raised(raised.take()),
                },
            });
        }
        let stepped = match inbound {
            Inbound::Value(value) => send(&awaiting, value),
            Inbound::Exception(exception) => forward_exception(&awaiting, exception),
        };
        let resumed = match stepped {
            Ok(Step::Yielded(object)) => return Handed::Yielded(object),
            Ok(Step::Returned(value)) => Resumed::Done(value),
            Err(raised) => Resumed::Raised(raised.take()),
        };
        self.awaiting.clear();
        Handed::Ended(resumed)
    }

    /// `__await__`. Fails: RuntimeError while somebody awaits it already.
    fn awaited(&self) -> Result<Object> {
        if self.state.get() == State::Suspended {
            return Err(Raised::runtime_error("coroutine is being awaited already"));
        }
        Ok(self.head.to_object())
    }

    #[inline]
    fn send(&self, value: &Any) -> Result<Step> {
        if self.state.get() == State::Created && !value.is_none() {
            return Err(Raised::type_error("can't send non-None value to a just-started coroutine"));
        }
        self.resume(Inbound::Value(value))
    }

    /// `throw(exception)` and, as generators still take it, `throw(type, value, traceback)`.
    fn throw(&self, arguments: Arguments<'_>) -> Result<Object> {
        let exception = thrown_exception(arguments.positional())?;
        self.resume(Inbound::Exception(exception))?.into_object()
    }

    fn close(&self) -> Result<()> {
        if matches!(self.state.get(), State::Created | State::Closed) {
            self.state.set(State::Closed);
            self.let_go();
            return Ok(());
        }
        let exit = builtin(Builtin::GeneratorExit).call0()?;
        match self.resume(Inbound::Exception(exit)) {
            Ok(Step::Yielded(_)) => Err(Raised::runtime_error("coroutine ignored GeneratorExit")),
            Ok(Step::Returned(_)) => Ok(()),
            Err(raised) => {
                let exception = raised.take();
                let expected = exception_is(&exception, Builtin::GeneratorExit)
                    || exception_is(&exception, Builtin::StopIteration);
                if expected { Ok(()) } else { Err(Raised::exception(exception)) }
            }
        }
    }

    /// The finalizer: one that was never awaited is warned about, one that waits is closed.
    fn warn_if_never_awaited(&self) {
        match self.state.get() {
            State::Created => inspection::warn_never_awaited(&self.head),
            State::Suspended => {
                if let Err(raised) = self.close() {
                    raised.write_unraisable(&self.head);
                }
            }
            State::Running | State::Closed => {}
        }
    }
}

/// What handing on came to: what is awaited still waits, or it has ended.
enum Handed {
    Yielded(Object),
    Ended(Resumed),
}

/// Somebody sent into the coroutine who is no task: the future is not done yet.
#[cold]
fn not_awaited_with_future() -> Resumed {
    Resumed::Raised(Raised::runtime_error("await wasn't used with future").take())
}

impl Traverse for Procedure {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.owner);
        visitor.slot(&self.argument);
        visitor.slot(&self.waiter);
        visitor.slot(&self.awaiting);
        visitor.slot(&self.origin);
        visitor.slot(&self.kept);
    }

    fn clear(&self) {
        self.state.set(State::Closed);
        self.let_go();
    }
}
