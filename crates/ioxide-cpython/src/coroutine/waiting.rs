//! Waiting inside a body: for anything that Python can await, or for one turn of the loop.

use super::{Step, await_iterator, send, throw};
use crate::exception::{Builtin, exception_is};
use crate::gc::Visitor;
use crate::names::names;
use crate::object::{Any, Object, Raised, Result, Slot};
use crate::outcome::{Outcome, outcome};
use crate::version::{FutureObject, as_future};
use pyo3_ffi as ffi;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// What the task handed to the body, and what the body hands to the task.
pub struct Exchange {
    /// Empty for None.
    pub sent: Slot,
    pub thrown: Slot,
    /// Empty for None.
    pub yielded: Slot,
    /// The iterator, or the future, that the body waits for.
    pub awaiting: Slot,
}

static EXCHANGE_TABLE: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &EXCHANGE_TABLE), |_| {}, |_| {}, |_| {});

impl Exchange {
    pub const fn new() -> Exchange {
        Exchange {
            sent: Slot::empty(),
            thrown: Slot::empty(),
            yielded: Slot::empty(),
            awaiting: Slot::empty(),
        }
    }

    /// Calls `poll` with a context whose waker is this exchange.
    #[inline(always)]
    pub fn with_context<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
        // SAFETY: the table's functions ignore the pointer; `of` reads it during this call only (C1).
        let waker = unsafe { Waker::new((self as *const Exchange).cast(), &EXCHANGE_TABLE) };
        // Dropping the waker would do nothing.
        poll(&mut Context::from_waker(&ManuallyDrop::new(waker)))
    }

    /// The exchange of the coroutine that is being stepped. Fails: RuntimeError where none is.
    #[inline(always)]
    fn of<'a>(context: &'a Context<'_>) -> Result<&'a Exchange> {
        let waker = context.waker();
        if !std::ptr::eq(waker.vtable(), &EXCHANGE_TABLE) {
            return Err(Raised::runtime_error("awaited outside of a coroutine of ioxide"));
        }
        // SAFETY: the table says that this is the exchange of the coroutine being stepped (C1).
        Ok(unsafe { &*waker.data().cast::<Exchange>() })
    }
}

/// Awaits a Python awaitable inside the body of a [`super::Coroutine`].
#[inline]
pub fn wait_for(awaitable: &Any) -> Waiting {
    Waiting { target: awaitable.to_object(), stage: Stage::Created }
}

/// What [`wait_for`] returns.
pub struct Waiting {
    target: Object,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Created,
    /// The target is one of asyncio's or ioxide's futures: its state is read directly.
    Future,
    Iterator,
}

impl Future for Waiting {
    type Output = Result<Object>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Object>> {
        let exchange = match Exchange::of(context) {
            Ok(exchange) => exchange,
            Err(raised) => return Poll::Ready(Err(raised)),
        };
        match self.stage {
            Stage::Created => self.begin(exchange),
            Stage::Future => match exchange.thrown.take() {
                Some(exception) => {
                    exchange.awaiting.clear();
                    Poll::Ready(Err(Raised::exception(exception)))
                }
                None => self.poll_future(exchange),
            },
            Stage::Iterator => {
                let step = match exchange.thrown.take() {
                    Some(exception) => forward_exception(&self.target, exception),
                    None => match exchange.sent.take() {
                        Some(value) => send(&self.target, &value),
                        None => send(&self.target, crate::none()),
                    },
                };
                end_of_step(exchange, step)
            }
        }
    }
}

impl Waiting {
    /// What is waited for.
    pub fn target(&self) -> &Any {
        &self.target
    }

    pub fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.target);
    }

    #[inline]
    fn begin(&mut self, exchange: &Exchange) -> Poll<Result<Object>> {
        if is_plain_future(&self.target) {
            self.stage = Stage::Future;
            let future = as_future(&self.target);
            if !future.is_pending() {
                return Poll::Ready(result_of(future));
            }
            exchange.awaiting.set(self.target.clone());
            return self.poll_future(exchange);
        }
        let iterator = match await_iterator(&self.target) {
            Ok(iterator) => iterator,
            Err(raised) => return Poll::Ready(Err(raised)),
        };
        self.stage = Stage::Iterator;
        self.target = iterator;
        exchange.awaiting.set(self.target.clone());
        end_of_step(exchange, send(&self.target, crate::none()))
    }

    /// What the future's own iterator does in a step.
    #[inline]
    fn poll_future(&self, exchange: &Exchange) -> Poll<Result<Object>> {
        let future = as_future(&self.target);
        if future.is_pending() {
            if future.blocking() {
                exchange.awaiting.clear();
                return Poll::Ready(Err(Raised::runtime_error("await wasn't used with future")));
            }
            future.set_blocking(true);
            exchange.yielded.set(self.target.clone());
            return Poll::Pending;
        }
        exchange.awaiting.clear();
        Poll::Ready(result_of(future))
    }
}

/// Whether awaiting the object is what asyncio's own `Future.__await__` does, by whichever slot.
#[inline(always)]
fn is_plain_future(object: &Any) -> bool {
    // SAFETY: O2; the slots belong to the object's class, the class is an imported one.
    unsafe {
        let future = crate::imports().Future.as_ptr().cast::<ffi::PyTypeObject>();
        let (own, slots) = ((*future).tp_as_async, (*object.type_ptr()).tp_as_async);
        if slots.is_null() || own.is_null() {
            return false;
        }
        let entry_await: ffi::unaryfunc = super::own_iterator::entry_await;
        match ((*slots).am_await, (*own).am_await) {
            (Some(found), _) if std::ptr::fn_addr_eq(found, entry_await) => true,
            (Some(found), Some(own)) => std::ptr::fn_addr_eq(found, own),
            _ => false,
        }
    }
}

#[inline]
fn result_of(future: &FutureObject) -> Result<Object> {
    match outcome(future)? {
        Outcome::Result => Ok(future.result.get_or_none()),
        Outcome::Exception(exception) => Err(Raised::exception(exception)),
    }
}

#[inline]
fn end_of_step(exchange: &Exchange, step: Result<Step>) -> Poll<Result<Object>> {
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

/// As `yield from` does: GeneratorExit closes the iterator, everything else is thrown into it.
pub fn forward_exception(iterator: &Any, exception: Object) -> Result<Step> {
    if exception_is(&exception, Builtin::GeneratorExit) {
        if let Some(close) = iterator.get_attribute_optional(&names().close)? {
            close.call0()?;
        }
        return Err(Raised::exception(exception));
    }
    if super::is_native_coroutine(iterator) || iterator.get_attribute_optional(&names().throw)?.is_some() {
        return throw(iterator, &exception);
    }
    Err(Raised::exception(exception))
}

/// Gives way to everything else that is ready: a bare `yield`.
pub fn yield_once() -> YieldOnce {
    YieldOnce { yielded: false }
}

/// What [`yield_once`] returns.
pub struct YieldOnce {
    yielded: bool,
}

impl Future for YieldOnce {
    type Output = Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.yielded {
            self.yielded = true;
            return Poll::Pending;
        }
        Poll::Ready(match Exchange::of(context).map(|exchange| exchange.thrown.take()) {
            Ok(None) => Ok(()),
            Ok(Some(exception)) => Err(Raised::exception(exception)),
            Err(raised) => Err(raised),
        })
    }
}
