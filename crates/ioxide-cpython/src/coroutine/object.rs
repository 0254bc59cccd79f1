//! `Coroutine`: a Python coroutine whose body is a Rust `async fn`. The compiler writes the state machine, the asyncio task
//! that awaits it is the executor; there is no Rust executor and no waker that wakes.
//!
//! Invariants:
//! C1. A body is polled only from `step`, on the thread that holds the GIL; its waker is the `Exchange` of the
//!     coroutine being stepped and is read nowhere else.
//! C2. While a body waits, what it waits for is in `awaiting`, where the collector sees it.
//! C3. `table` is taken out before the body is dropped, and is in its place while the body is polled only as `Running`.
//! C4. `owner` stays until the body has been dropped.
//! C5. While `awaiting` is there, the body's `Waiting` holds the same object once more; a body that is not traced leaves it to
//!     the coroutine to tell the collector of both.

use super::inspection::{self, Inspected, State};
use super::memory::{self, Body, BodyTable};
use super::waiting::Exchange;
use super::{Step, thrown_exception};
use crate::exception::{Builtin, builtin};
use crate::gc::{Traverse, Visitor};
use crate::methods::{Arguments, method, method0, method1};
use crate::object::{Any, Object, Raised, Result, Slot};
use crate::once::Once;
use crate::types::{Class, Native, NativeClass, head};
use pyo3_ffi as ffi;
use std::cell::Cell;
use std::future::Future;
use std::task::Poll;

/// A Python coroutine object with a Rust body, which lies behind these fields (memory, M3).
#[repr(C, align(16))]
pub struct Coroutine {
    head: Any,
    room: ffi::Py_ssize_t,
    table: Cell<Option<&'static BodyTable>>,
    exchange: Exchange,
    /// What the body works on, if it was given something.
    owner: Slot,
    origin: Slot,
    qualified_name: &'static str,
    state: Cell<State>,
}

static COROUTINE: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `memory::create` only.
unsafe impl Native for Coroutine {
    fn class() -> &'static Once<Class> {
        &COROUTINE
    }
}

impl Inspected for Coroutine {
    fn state(&self) -> State {
        self.state.get()
    }

    fn qualified_name(&self) -> &'static str {
        self.qualified_name
    }

    fn waits_for(&self) -> Option<Object> {
        self.exchange.awaiting.get_object()
    }

    fn origin(&self) -> Object {
        self.origin.get_or_none()
    }
}

pub(super) fn initialize() -> Result<()> {
    let class = NativeClass::new::<Coroutine>(c"ioxide.Coroutine")
        .doc(c"A coroutine whose body is written in Rust; await it as any other.")
        .not_instantiable()
        .variable_size(memory::deallocate)
        .collected::<Coroutine>()
        .finalized::<Coroutine, _>(|this: &Coroutine| {
            if this.state.get() == State::Created {
                inspection::warn_never_awaited(&this.head);
            }
        })
        .awaits_itself::<Coroutine>()
        .sendable::<Coroutine, _>(Coroutine::send)
        .repr::<Coroutine, _>(inspection::show::<Coroutine>)
        .methods(vec![
            method1(c"send", Coroutine::python_send),
            method(c"throw", Coroutine::python_throw),
            method0(c"close", Coroutine::close),
        ])
        .attributes(inspection::attributes::<Coroutine>())
        .create(&[])?;
    COROUTINE.set(class);
    Ok(())
}

/// A coroutine object that runs `body` when it is awaited. `qualified_name` is what its repr shows.
#[inline]
pub fn coroutine(
    qualified_name: &'static str,
    body: impl Future<Output = Result<Object>> + 'static,
) -> Result<Object> {
    create(qualified_name, Slot::empty(), body)
}

/// As `coroutine`, for a body that works on `owner`. The collector sees that the coroutine holds it, so that who waits in
/// vain for something of the owner's can be freed together with it.
#[inline]
pub fn coroutine_of<F: Future<Output = Result<Object>> + 'static>(
    qualified_name: &'static str,
    owner: Object,
    body: impl FnOnce(Owner) -> F,
) -> Result<Object> {
    let body = body(Owner(owner.as_ptr()));
    create(qualified_name, Slot::filled(owner), body)
}

/// The owner of a coroutine, for its body alone, which keeps it to itself.
pub struct Owner(*mut ffi::PyObject);

impl std::ops::Deref for Owner {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        // SAFETY: C4.
        unsafe { Any::from_ptr(self.0) }
    }
}

#[inline]
fn create(
    qualified_name: &'static str,
    owner: Slot,
    body: impl Future<Output = Result<Object>> + 'static,
) -> Result<Object> {
    let origin = inspection::origin()?;
    memory::create(body, |table| Coroutine::new(qualified_name, owner, origin, table))
}

/// As [`coroutine`], with a body that the collector sees into.
#[inline]
pub fn traced_coroutine(qualified_name: &'static str, body: impl Body) -> Result<Object> {
    let origin = inspection::origin()?;
    memory::create_traced(body, |table| Coroutine::new(qualified_name, Slot::empty(), origin, table))
}

impl Coroutine {
    #[inline(always)]
    fn new(
        qualified_name: &'static str,
        owner: Slot,
        origin: Option<Object>,
        table: &'static BodyTable,
    ) -> Coroutine {
        Coroutine {
            head: head(),
            room: 0,
            table: Cell::new(Some(table)),
            exchange: Exchange::new(),
            owner,
            origin: origin.map_or_else(Slot::empty, Slot::filled),
            qualified_name,
            state: Cell::new(State::Created),
        }
    }

    /// One step of the body, which finds in the exchange what was sent or thrown.
    #[inline]
    fn step(&self) -> Result<Step> {
        match self.state.get() {
            State::Running => return Err(self.refuse("coroutine already executing")),
            State::Closed => return Err(self.refuse("cannot reuse already awaited coroutine")),
            State::Created | State::Suspended => {}
        }
        let Some(table) = self.table.get() else {
            return Err(self.refuse("cannot reuse already awaited coroutine"));
        };
        self.state.set(State::Running);
        let body = memory::body_of(self.head.as_ptr().cast());
        // SAFETY: memory, M3; it is not polled again meanwhile, because the state says Running (C3).
        match self.exchange.with_context(|context| unsafe { (table.poll)(body, context) }) {
            Poll::Pending => {
                self.state.set(State::Suspended);
                Ok(Step::Yielded(self.exchange.yielded.take().unwrap_or_else(crate::none_object)))
            }
            Poll::Ready(outcome) => {
                self.finish();
                outcome.map(Step::Returned)
            }
        }
    }

    #[cold]
    fn refuse(&self, message: &str) -> Raised {
        self.exchange.sent.clear();
        self.exchange.thrown.clear();
        match self.state.get() {
            State::Running => Raised::value_error(message),
            _ => Raised::runtime_error(message),
        }
    }

    /// The body has ended, or is given up.
    fn finish(&self) {
        self.state.set(State::Closed);
        // C5: out of the collector's sight before the body lets go of it.
        let awaiting = self.exchange.awaiting.take();
        if let Some(table) = self.table.take() {
            memory::drop_body_of(&self.head, table);
        }
        drop(awaiting);
        self.exchange.sent.clear();
        self.exchange.thrown.clear();
        self.owner.clear();
    }

    #[inline]
    fn send(&self, value: &Any) -> Result<Step> {
        if !value.is_none() {
            if self.state.get() == State::Created {
                return Err(Raised::type_error("can't send non-None value to a just-started coroutine"));
            }
            self.exchange.sent.set(value.to_object());
        }
        self.step()
    }

    fn python_send(&self, value: &Any) -> Result<Object> {
        self.send(value)?.into_object()
    }

    /// `throw(exception)`
    pub(super) fn throw(&self, exception: Object) -> Result<Step> {
        match self.state.get() {
            State::Created => {
                self.finish();
                Err(Raised::exception(exception))
            }
            _ => {
                self.exchange.thrown.set(exception);
                self.step()
            }
        }
    }

    /// `throw(exception)` and, as generators still take it, `throw(type, value, traceback)`.
    fn python_throw(&self, arguments: Arguments<'_>) -> Result<Object> {
        let exception = thrown_exception(arguments.positional())?;
        self.throw(exception)?.into_object()
    }

    fn close(&self) -> Result<()> {
        if matches!(self.state.get(), State::Created | State::Closed) {
            self.finish();
            return Ok(());
        }
        match self.throw(builtin(Builtin::GeneratorExit).call0()?) {
            Ok(Step::Yielded(_)) => Err(Raised::runtime_error("coroutine ignored GeneratorExit")),
            Ok(Step::Returned(_)) => Ok(()),
            Err(raised)
                if raised.matches(builtin(Builtin::GeneratorExit))
                    || raised.matches(builtin(Builtin::StopIteration)) =>
            {
                drop(raised.take());
                Ok(())
            }
            Err(raised) => Err(raised),
        }
    }

    /// Whether there is anything to say when the object dies.
    pub(super) fn wants_finalizer(&self) -> bool {
        self.state.get() == State::Created
    }

    /// Lets go of body and fields before the memory is used for another coroutine.
    pub(super) fn release(&self) {
        self.finish();
        self.exchange.yielded.clear();
        self.origin.clear();
    }
}

impl Traverse for Coroutine {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.exchange.sent);
        visitor.slot(&self.exchange.thrown);
        visitor.slot(&self.exchange.yielded);
        visitor.slot(&self.exchange.awaiting);
        visitor.slot(&self.owner);
        visitor.slot(&self.origin);
        match self.table.get().and_then(|table| table.traverse) {
            // SAFETY: memory, M3; the body is not being polled.
            Some(traverse) if self.state.get() != State::Running => unsafe {
                traverse(memory::body_of(self.head.as_ptr().cast()), visitor);
            },
            Some(_) => {}
            None => visitor.slot(&self.exchange.awaiting), // C5
        }
    }

    fn clear(&self) {
        if self.state.get() != State::Running {
            self.finish();
        }
    }
}
