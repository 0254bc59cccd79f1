//! A job on one of the pools, for files or look-ups of names, and the future that its caller awaits.
//!
//! The job runs without the GIL and knows no Python. Its outcome becomes the future's result on the loop's thread: on ioxide's
//! loop through its inbox, on any other through `call_soon_threadsafe`.
//!
//! Invariants:
//! J1. What the job shares with the loop is dropped by the job's thread before the outcome is sent, so that a Python object in it is
//!     dropped with the GIL.
//! J2. Cancelling the future does not stop the job; its outcome is dropped, which closes a descriptor in it.

use crate::event_loop::{EventLoop, Sender};
use crate::futures;
use ioxide_cpython::call::import;
use ioxide_cpython::detach::{with_gil, without_gil};
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, method, method0};
use ioxide_cpython::module::Module;
use ioxide_cpython::object::Detached;
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, allocate, head};
use ioxide_cpython::version::FutureObject;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, current, names, none};
use ioxide_io::Pool;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

type Finish = Box<dyn FnOnce() -> Result<Object>>;

/// What makes the future's result when the job has ended.
#[repr(C)]
struct Delivery {
    head: Any,
    future: Slot,
    finish: RefCell<Option<Finish>>,
}

static DELIVERY: Once<Class> = Once::new();
static DELIVER: Once<FunctionDefinition> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Delivery {
    fn class() -> &'static Once<Class> {
        &DELIVERY
    }
}

/// Creates the class and adds the function.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    DELIVERY.set(NativeClass::core::<Delivery>(c"ioxide.Delivery")?);
    DELIVER.set(FunctionDefinition::new(method0(c"deliver", Delivery::deliver)));
    let run = FunctionDefinition::new(method(c"run_in_pool", |_: &Any, arguments: Arguments<'_>| {
        run_in_pool(arguments)
    }));
    module.add(c"_run_in_pool", &*run.bind(none())?)?;
    // What was being written must not be lost with the process; and a job that ends later could not tell anybody.
    let wait = FunctionDefinition::new(method0(c"wait_for_files", |_: &Any| wait_until_finished()));
    import(c"atexit")?.get_attribute_str(c"register")?.call1(&*wait.bind(none())?).map(drop)
}

fn wait_until_finished() {
    let pools = [Pool::for_files(), Pool::for_look_ups()];
    without_gil(move || pools.iter().for_each(Pool::wait_until_finished));
}

/// A future of the running loop for what `finish` makes of the outcome of `work`.
///
/// Fails: RuntimeError without a running loop; OSError where no thread can be started.
pub fn submit<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    finish: impl FnOnce(T) -> Result<Object> + 'static,
) -> Result<Object> {
    submit_to(&Pool::for_files(), &*running_loop()?, work, finish)
}

/// As `submit`, on any pool and for any loop.
pub fn submit_to<T: Send + 'static>(
    pool: &Pool,
    event_loop: &Any,
    work: impl FnOnce() -> T + Send + 'static,
    finish: impl FnOnce(T) -> Result<Object> + 'static,
) -> Result<Object> {
    let future = match EventLoop::from_any(event_loop) {
        Some(native) => futures::create(native)?,
        None => event_loop.call_method0(&*ioxide_cpython::names::intern("create_future")?)?,
    };
    run_on(pool, event_loop, future.clone(), work, finish)?;
    Ok(future)
}

pub fn running_loop() -> Result<Object> {
    current::running_loop()?.ok_or_else(|| Raised::runtime_error("no running event loop"))
}

/// Runs `work` on the pool for files and settles `future` with what `finish` makes of its outcome.
pub fn run<T: Send + 'static>(
    event_loop: &Any,
    future: Object,
    work: impl FnOnce() -> T + Send + 'static,
    finish: impl FnOnce(T) -> Result<Object> + 'static,
) -> Result<()> {
    run_on(&Pool::for_files(), event_loop, future, work, finish)
}

fn run_on<T: Send + 'static>(
    pool: &Pool,
    event_loop: &Any,
    future: Object,
    work: impl FnOnce() -> T + Send + 'static,
    finish: impl FnOnce(T) -> Result<Object> + 'static,
) -> Result<()> {
    let native = EventLoop::from_any(event_loop);
    let outcome = Arc::new(Mutex::new(None));
    let received = Arc::clone(&outcome);
    let finish: Finish = Box::new(move || {
        let value = received.lock().unwrap_or_else(PoisonError::into_inner).take();
        finish(
            value
                .ok_or_else(|| Raised::runtime_error("an operation on a thread ended without an outcome"))?,
        )
    });
    let delivery = allocate(Delivery {
        head: head(),
        future: Slot::filled(future),
        finish: RefCell::new(Some(finish)),
    })?;
    let callback = DELIVER.get().bind(&delivery)?;
    let way_back = match native {
        Some(native) => WayBack::Native(native.sender(&callback)?),
        None => WayBack::Foreign {
            event_loop: Detached::new(event_loop.to_object()),
            callback: Detached::new(callback),
        },
    };
    let job = move || {
        // A panic leaves no outcome, which the one who waits is told.
        if let Ok(value) = catch_unwind(AssertUnwindSafe(work)) {
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }
        drop(outcome); // J1
        way_back.take();
    };
    pool.submit(job).map_err(|error| raise_os_error(&error))
}

enum WayBack {
    Native(Sender),
    Foreign { event_loop: Detached, callback: Detached },
}

impl WayBack {
    fn take(self) {
        match self {
            WayBack::Native(sender) => sender.send(),
            WayBack::Foreign { event_loop, callback } => {
                let objects = (event_loop, callback);
                let told = with_gil(move || {
                    let (event_loop, callback) = (objects.0.into_object(), objects.1.into_object());
                    tell(&event_loop, &callback);
                });
                debug_assert!(told.is_some(), "the interpreter waits for the pool before it shuts down");
            }
        }
    }
}

/// A loop that was closed meanwhile has nobody who waits.
fn tell(event_loop: &Any, callback: &Any) {
    let told = (|| {
        let is_closed = event_loop.call_method0(&*ioxide_cpython::names::intern("is_closed")?)?.is_true()?;
        if !is_closed {
            let name = ioxide_cpython::names::intern("call_soon_threadsafe")?;
            event_loop.call_method1(&name, callback)?;
        }
        Ok(())
    })();
    if let Err(raised) = told {
        let raised: Raised = raised;
        raised.write_unraisable(callback);
    }
}

impl Delivery {
    fn deliver(&self) -> Result<()> {
        let (Some(future), Some(finish)) = (self.future.take(), self.finish.borrow_mut().take()) else {
            return Ok(());
        };
        settle(&future, finish)
    }
}

/// Gives a future what `finish` returns, unless it has been cancelled meanwhile (J2).
pub fn settle(future: &Any, finish: impl FnOnce() -> Result<Object>) -> Result<()> {
    if future.call_method0(&names().done)?.is_true()? {
        return Ok(());
    }
    let native = futures::Future::from_exact(future).map(|future| &**future);
    match finish() {
        Ok(result) => set_result(future, native, &result),
        Err(raised) => {
            let exception = raised.take();
            match native {
                Some(native) => futures::set_exception(native, &exception),
                None => future.call_method1(&names().set_exception, &exception).map(drop),
            }
        }
    }
}

fn set_result(future: &Any, native: Option<&FutureObject>, result: &Any) -> Result<()> {
    match native {
        Some(native) => futures::set_result(native, result),
        None => future.call_method1(&names().set_result, result).map(drop),
    }
}

impl Traverse for Delivery {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.future);
    }

    fn clear(&self) {
        self.future.clear();
        let finish = self.finish.borrow_mut().take();
        drop(finish);
    }
}

/// `run_in_pool(function, *args)`: a future for what a Python function returns on a thread of the pool.
fn run_in_pool(arguments: Arguments<'_>) -> Result<Object> {
    let Some((function, rest)) = arguments.positional().split_first() else {
        return Err(Raised::type_error("run_in_pool() needs a function"));
    };
    call_on(&Pool::for_files(), &*running_loop()?, function, rest)
}

/// A future for what a Python function returns on a thread of the pool.
pub fn call_on(pool: &Pool, event_loop: &Any, function: &Any, arguments: &[&Any]) -> Result<Object> {
    let arguments = ioxide_cpython::value::tuple(arguments)?;
    let call = Detached::new(ioxide_cpython::value::tuple(&[function, &*arguments])?);
    let work = move || {
        with_gil(move || {
            let call = call.into_object();
            let outcome = match call.tuple_items() {
                [function, arguments] => function.call_tuple(arguments, None),
                _ => Err(Raised::runtime_error("a call is a function and its arguments")),
            };
            match outcome {
                Ok(result) => Ok(Detached::new(result)),
                Err(raised) => Err(Detached::new(raised.take())),
            }
        })
    };
    submit_to(pool, event_loop, work, |outcome| match outcome {
        Some(Ok(result)) => Ok(result.into_object()),
        Some(Err(exception)) => Err(Raised::exception(exception.into_object())),
        None => Err(Raised::runtime_error("the interpreter is shutting down")),
    })
}
