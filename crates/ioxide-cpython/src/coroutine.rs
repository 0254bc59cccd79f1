//! Coroutines, both ways: stepping Python's, and being one.
//!
//! `Coroutine` is a Python coroutine whose body is a Rust `async fn`: the compiler writes the state machine,
//! the asyncio task that awaits it is the executor, and `.await` on a Python awaitable hands what it yields to
//! that task. There is no Rust executor and no waker that wakes.
//!
//! Invariants:
//! C1. A body is polled only from `step`, on the thread that holds the GIL; its waker is the `Exchange` of the
//!     coroutine being stepped and is read nowhere else.
//! C2. While a body waits, the Python iterator it waits for is in `awaiting`, where the collector sees it.

use crate::exception::{Builtin, builtin, exception_is};
use crate::gc::{Traverse, Visitor};
use crate::methods::{Receiver, conjure, guard, guard_object, method0, method1};
use crate::names::names;
use crate::object::{Any, Object, Raised, Result, Slot};
use crate::once::Once;
use crate::types::{Class, Native, NativeClass, allocate, head};
use crate::value::text;
use pyo3_ffi as ffi;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// What one step of a coroutine came to; an exception is the `Err` beside it.
pub enum Step {
    Yielded(Object),
    Returned(Object),
}

/// `coroutine.send(value)`. Runs Python: yes.
#[inline(always)]
pub fn send(coroutine: &Any, value: &Any) -> Result<Step> {
    let mut result = std::ptr::null_mut();
    // SAFETY: O1, O2; `result` is owned unless the answer is an error.
    unsafe {
        match ffi::PyIter_Send(coroutine.as_ptr(), value.as_ptr(), &mut result) {
            ffi::PySendResult::PYGEN_NEXT => Object::from_owned(result).map(Step::Yielded),
            ffi::PySendResult::PYGEN_RETURN => Object::from_owned(result).map(Step::Returned),
            _ => Err(Raised::assume()),
        }
    }
}

/// Whether the object is what calling an `async def` gives, or a coroutine of ioxide's own.
#[inline]
pub fn is_native_coroutine(object: &Any) -> bool {
    // SAFETY: O2.
    unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) == 1 || Coroutine::from_exact(object).is_some() }
}

/// Whether the object is a generator.
pub fn is_generator(object: &Any) -> bool {
    // SAFETY: O2.
    unsafe { ffi::PyGen_Check(object.as_ptr()) == 1 }
}

/// `coroutine.throw(exception)`. Runs Python: yes.
pub fn throw(coroutine: &Any, exception: &Any) -> Result<Step> {
    match coroutine.call_method1(&names().throw, exception) {
        Ok(yielded) => Ok(Step::Yielded(yielded)),
        Err(raised) => returned_by_stop_iteration(raised),
    }
}

/// The value of a StopIteration, any other exception again.
fn returned_by_stop_iteration(raised: Raised) -> Result<Step> {
    if !raised.matches(builtin(Builtin::StopIteration)) {
        return Err(raised);
    }
    raised.take().get_attribute(&names().value).map(Step::Returned)
}

pub(crate) unsafe extern "C" fn entry_send<T: Native, F: Fn(&T, &Any) -> Result<Step> + Copy>(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    guard(ffi::PySendResult::PYGEN_ERROR, || {
        // SAFETY: CPython passes live objects and a place for the result; F is zero-sized.
        unsafe {
            let (place, kind) = match conjure::<F>()(T::receive(this)?, Any::from_ptr(value))? {
                Step::Yielded(object) => (object, ffi::PySendResult::PYGEN_NEXT),
                Step::Returned(object) => (object, ffi::PySendResult::PYGEN_RETURN),
            };
            *result = place.into_ptr();
            Ok(kind)
        }
    })
}

pub(crate) unsafe extern "C" fn entry_next<T: Native, F: Fn(&T, &Any) -> Result<Step> + Copy>(
    this: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    guard_object(|| {
        // SAFETY: CPython passes a live object; F is zero-sized.
        let step = unsafe { conjure::<F>()(T::receive(this)?, crate::none())? };
        step.into_object()
    })
}

impl Step {
    /// As `__next__` and `send` give it to Python: a returned value is a StopIteration.
    pub fn into_object(self) -> Result<Object> {
        match self {
            Step::Yielded(object) => Ok(object),
            Step::Returned(value) => Err(stop_iteration(&value)),
        }
    }
}

/// Raises StopIteration with `value`, also where the value is a tuple or an exception.
fn stop_iteration(value: &Any) -> Raised {
    if value.is_none() {
        return Raised::empty(builtin(Builtin::StopIteration));
    }
    match builtin(Builtin::StopIteration).call1(value) {
        Ok(instance) => Raised::exception(instance),
        Err(raised) => raised,
    }
}

/// The iterator behind `await object`. Fails: TypeError where the object cannot be awaited.
pub fn await_iterator(object: &Any) -> Result<Object> {
    // SAFETY: O1, O2; the slots belong to the object's class.
    unsafe {
        let slots = (*object.type_ptr()).tp_as_async;
        if let Some(get) = slots.as_ref().and_then(|slots| slots.am_await) {
            return Object::from_owned(get(object.as_ptr()));
        }
    }
    let name = crate::exception::type_name(object);
    Err(Raised::type_error(&format!("object {name} can't be used in 'await' expression")))
}

/// What the task handed to the body, and what the body hands to the task.
struct Exchange {
    inbound: RefCell<Option<Inbound>>,
    yielded: Slot,
    awaiting: Slot,
}

enum Inbound {
    Value(Object),
    Exception(Object),
}

static EXCHANGE_TABLE: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &EXCHANGE_TABLE), |_| {}, |_| {}, |_| {});

type Body = Pin<Box<dyn Future<Output = Result<Object>>>>;

/// A Python coroutine object with a Rust body.
#[repr(C)]
pub struct Coroutine {
    head: Any,
    body: RefCell<Option<Body>>,
    exchange: Exchange,
    qualified_name: &'static str,
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Suspended,
    Running,
    Closed,
}

static COROUTINE: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Coroutine {
    fn class() -> &'static Once<Class> {
        &COROUTINE
    }
}

pub(crate) fn initialize() -> Result<()> {
    let class = NativeClass::new::<Coroutine>(c"ioxide.Coroutine")
        .doc(c"A coroutine whose body is written in Rust; await it as any other.")
        .not_instantiable()
        .collected::<Coroutine>()
        .dropped::<Coroutine>()
        .finalized::<Coroutine, _>(Coroutine::warn_if_never_awaited)
        .awaits_itself::<Coroutine>()
        .sendable::<Coroutine, _>(Coroutine::send)
        .repr::<Coroutine, _>(Coroutine::repr)
        .methods(vec![
            method1(c"send", Coroutine::python_send),
            crate::methods::method(c"throw", Coroutine::python_throw),
            method0(c"close", Coroutine::close),
        ])
        .attributes(vec![
            crate::methods::getter(c"__name__", Coroutine::name),
            crate::methods::getter(c"__qualname__", Coroutine::qualified_name),
            crate::methods::getter(c"cr_await", |this: &Coroutine| this.exchange.awaiting.get_or_none()),
            crate::methods::getter(c"cr_running", |this: &Coroutine| this.state.get() == State::Running),
        ])
        .create(&[])?;
    COROUTINE.set(class);
    Ok(())
}

/// A coroutine object that runs `body` when it is awaited. `qualified_name` is what its repr shows.
pub fn coroutine(
    qualified_name: &'static str,
    body: impl Future<Output = Result<Object>> + 'static,
) -> Result<Object> {
    allocate(Coroutine {
        head: head(),
        body: RefCell::new(Some(Box::pin(body))),
        exchange: Exchange { inbound: RefCell::new(None), yielded: Slot::empty(), awaiting: Slot::empty() },
        qualified_name,
        state: Cell::new(State::Created),
    })
}

impl Coroutine {
    /// One step of the body.
    fn step(&self, inbound: Inbound) -> Result<Step> {
        match self.state.get() {
            State::Running => return Err(already_executing()),
            State::Closed => return Err(Raised::runtime_error("cannot reuse already awaited coroutine")),
            State::Created => {
                if let Inbound::Exception(exception) = inbound {
                    self.finish();
                    return Err(Raised::exception(exception));
                }
            }
            State::Suspended => {}
        }
        let Some(mut body) = self.body.borrow_mut().take() else {
            return Err(Raised::runtime_error("cannot reuse already awaited coroutine"));
        };
        self.state.set(State::Running);
        *self.exchange.inbound.borrow_mut() = Some(inbound);
        // SAFETY: the table's functions ignore the pointer; `Awaiting::poll` reads it during this call only (C1).
        let waker = unsafe { Waker::new((&raw const self.exchange).cast(), &EXCHANGE_TABLE) };
        match body.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                self.state.set(State::Suspended);
                *self.body.borrow_mut() = Some(body);
                Ok(Step::Yielded(self.exchange.yielded.take().unwrap_or_else(crate::none_object)))
            }
            Poll::Ready(outcome) => {
                self.finish();
                drop_keeping_exception(body);
                outcome.map(Step::Returned)
            }
        }
    }

    fn finish(&self) {
        self.state.set(State::Closed);
        let body = self.body.borrow_mut().take();
        let inbound = self.exchange.inbound.borrow_mut().take();
        drop((body, inbound));
        self.exchange.awaiting.clear();
    }

    fn send(&self, value: &Any) -> Result<Step> {
        if self.state.get() == State::Created && !value.is_none() {
            return Err(Raised::type_error("can't send non-None value to a just-started coroutine"));
        }
        self.step(Inbound::Value(value.to_object()))
    }

    fn python_send(&self, value: &Any) -> Result<Object> {
        self.send(value)?.into_object()
    }

    /// `throw(exception)` and, as generators still take it, `throw(type, value, traceback)`.
    fn python_throw(&self, arguments: crate::methods::Arguments<'_>) -> Result<Object> {
        let exception = thrown_exception(arguments.positional())?;
        if self.state.get() == State::Closed {
            return Err(Raised::exception(exception));
        }
        self.step(Inbound::Exception(exception))?.into_object()
    }

    fn close(&self) -> Result<()> {
        if matches!(self.state.get(), State::Created | State::Closed) {
            self.finish();
            return Ok(());
        }
        let exit = builtin(Builtin::GeneratorExit).call0()?;
        match self.step(Inbound::Exception(exit)) {
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

    fn warn_if_never_awaited(&self) {
        if self.state.get() != State::Created {
            return;
        }
        let message = format!("coroutine '{}' was never awaited", self.qualified_name);
        let warned = text(&message).and_then(|message| {
            crate::imports::imports().warn.call(&[&*message, builtin(Builtin::RuntimeWarning)])
        });
        if let Err(raised) = warned {
            // SAFETY: a live object: the finalizer runs before anything is freed.
            raised.write_unraisable(unsafe { Any::from_ptr((&raw const *self).cast_mut().cast()) });
        }
    }

    fn name(&self) -> Result<Object> {
        text(self.qualified_name.rsplit('.').next().unwrap_or(self.qualified_name))
    }

    fn qualified_name(&self) -> Result<Object> {
        text(self.qualified_name)
    }

    fn repr(&self) -> Result<Object> {
        text(&format!("<coroutine object {} at {:p}>", self.qualified_name, self))
    }
}

/// Dropping a body drops its arguments, which may run Python: the outcome's exception must survive that.
fn drop_keeping_exception(body: Body) {
    let pending = crate::exception::take();
    drop(body);
    if let Some(pending) = pending {
        crate::exception::restore(pending);
    }
}

#[cold]
fn already_executing() -> Raised {
    Raised::value_error("coroutine already executing")
}

/// The exception instance that the arguments of `throw` stand for. Fails: TypeError.
pub fn thrown_exception(arguments: &[&Any]) -> Result<Object> {
    let Some(&first) = arguments.first() else {
        return Err(Raised::type_error("throw expected at least 1 argument, got 0"));
    };
    if first.is_exception() {
        return Ok(first.to_object());
    }
    if !first.is_exception_class() {
        let name = crate::exception::type_name(first);
        return Err(Raised::type_error(&format!(
            "exceptions must be classes or instances deriving from BaseException, not {name}"
        )));
    }
    match arguments.get(1) {
        Some(value) if value.is_instance(first)? => Ok(value.to_object()),
        Some(value) if value.is_tuple() => first.call_tuple(value, None),
        Some(value) if !value.is_none() => first.call1(value),
        _ => first.call0(),
    }
}

impl Traverse for Coroutine {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.exchange.yielded);
        visitor.slot(&self.exchange.awaiting);
    }

    fn clear(&self) {
        self.finish();
    }
}

/// Awaits a Python awaitable inside the body of a [`Coroutine`].
pub async fn wait_for(awaitable: &Any) -> Result<Object> {
    let iterator = await_iterator(awaitable)?;
    Awaiting { iterator, started: false }.await
}

struct Awaiting {
    iterator: Object,
    started: bool,
}

impl Future for Awaiting {
    type Output = Result<Object>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Object>> {
        let waker = context.waker();
        if !std::ptr::eq(waker.vtable(), &EXCHANGE_TABLE) {
            return Poll::Ready(Err(Raised::runtime_error("awaited outside of a coroutine of ioxide")));
        }
        // SAFETY: the table says that this is the exchange of the coroutine being stepped (C1).
        let exchange = unsafe { &*waker.data().cast::<Exchange>() };
        let step = if self.started {
            let inbound = exchange.inbound.borrow_mut().take();
            match inbound {
                Some(Inbound::Exception(exception)) => forward_exception(&self.iterator, exception),
                Some(Inbound::Value(value)) => send(&self.iterator, &value),
                None => send(&self.iterator, crate::none()),
            }
        } else {
            self.started = true;
            exchange.awaiting.set(self.iterator.clone());
            send(&self.iterator, crate::none())
        };
        match step {
            Ok(Step::Yielded(object)) => {
                exchange.yielded.set(object);
                Poll::Pending
            }
            Ok(Step::Returned(value)) => {
                exchange.awaiting.clear();
                Poll::Ready(Ok(value))
            }
            Err(raised) => {
                let exception = raised.take();
                exchange.awaiting.clear();
                Poll::Ready(Err(Raised::exception(exception)))
            }
        }
    }
}

/// As `yield from` does: GeneratorExit closes the iterator, everything else is thrown into it.
fn forward_exception(iterator: &Any, exception: Object) -> Result<Step> {
    if exception_is(&exception, Builtin::GeneratorExit) {
        if let Some(close) = iterator.get_attribute_optional(&names().close)? {
            close.call0()?;
        }
        return Err(Raised::exception(exception));
    }
    if iterator.get_attribute_optional(&names().throw)?.is_none() {
        return Err(Raised::exception(exception));
    }
    throw(iterator, &exception)
}
