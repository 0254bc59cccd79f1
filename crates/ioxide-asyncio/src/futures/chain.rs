//! Two futures that hang together, of asyncio or of `concurrent.futures`, and `wrap_future`.
//!
//! Leaves to others: who submits work to an executor (`event_loop::executor`), `run_coroutine_threadsafe`
//! (`tasks::threadsafe`).
//!
//! Invariants:
//! X1. The result goes from the source to the destination, cancellation the other way. Only a loop's thread touches a
//!     future of the loop; other threads send there by `call_soon_threadsafe`.
//! X2. A chain lets go of both futures when the result has arrived: futures of `concurrent.futures` keep their callbacks
//!     for good.

use super::{create_any, own};
use crate::event_loop::at_end_of_work;
use ioxide_cpython::call::import;
use ioxide_cpython::current::running_loop;
use ioxide_cpython::functions::function;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, documented, given, method, method1};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, allocate, head};
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, Slot, builtin, imports, names, none};

/// What this Python's asyncio does about chained futures.
struct Rules {
    /// What arrives in the thread of the destination's loop is set at once (3.14 and later); before, where both futures
    /// have the same loop.
    sets_in_running_loop: bool,
    /// As above, for cancelling the source.
    cancels_in_running_loop: bool,
    convert_exception: Object,
}

static RULES: Once<Rules> = Once::new();

#[repr(C)]
struct Chain {
    head: Any,
    source: Slot,
    destination: Slot,
    /// Empty for a future of `concurrent.futures`.
    source_loop: Slot,
    /// Empty for a future of `concurrent.futures`.
    destination_loop: Slot,
    /// Whether the source is finished by a worker of a loop's own executor, as the last thing it does for it.
    ends_work: bool,
}

static CHAIN: Once<Class> = Once::new();
static CALL_CHECK_CANCEL: Once<FunctionDefinition> = Once::new();
static CALL_SET_STATE: Once<FunctionDefinition> = Once::new();
static SET_STATE: Once<FunctionDefinition> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Chain {
    fn class() -> &'static Once<Class> {
        &CHAIN
    }
}

/// Creates the class, asks asyncio's own functions what they do and adds `wrap_future`.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    CHAIN.set(NativeClass::core::<Chain>(c"ioxide.FutureChain")?);
    CALL_CHECK_CANCEL
        .set(FunctionDefinition::new(method1(c"_call_check_cancel", |chain: &Chain, _destination: &Any| {
            chain.pass_cancellation()
        })));
    CALL_SET_STATE
        .set(FunctionDefinition::new(method1(c"_call_set_state", |chain: &Chain, _source: &Any| {
            chain.send_state()
        })));
    SET_STATE.set(FunctionDefinition::new(method(
        c"_set_state",
        |chain: &Chain, arguments: Arguments<'_>| match arguments.positional() {
            [destination, source] => chain.set_state(destination, source),
            _ => Err(Raised::type_error("_set_state expected 2 arguments")),
        },
    )));
    let futures = import(c"asyncio.futures")?;
    let chain_future = Code::of_method(&futures, "_chain_future")?;
    let asks_running_loop = |name| match chain_future.nested_named(name)? {
        Some(code) => code.uses("_get_running_loop"),
        None => Ok(false),
    };
    RULES.set(Rules {
        sets_in_running_loop: asks_running_loop("_call_set_state")?,
        cancels_in_running_loop: asks_running_loop("_call_check_cancel")?,
        convert_exception: futures.get_attribute_str(c"_convert_future_exc")?,
    });
    module.add_function(documented(
        function(c"wrap_future", wrap_future),
        c"wrap_future(future, *, loop=None)\n--\n\nA future of the loop for a concurrent.futures.Future.\n\nCancelling the \
        one cancels the other. A future of asyncio is returned as it is.",
    ))
}

const WRAP_FUTURE: Signature<2> =
    Signature { function: "wrap_future", names: ["future", "loop"], required: 1, positional: 1 };

/// `wrap_future(future, *, loop=None)`
fn wrap_future(arguments: Arguments<'_>) -> Result<Object> {
    let [source, event_loop] = WRAP_FUTURE.bind(arguments)?;
    let source = source.unwrap_or(none());
    if is_future(source)? {
        return Ok(source.to_object());
    }
    check_concurrent(source)?;
    let event_loop = match given(event_loop) {
        Some(event_loop) => event_loop.to_object(),
        None => imports().get_event_loop.call0()?,
    };
    let destination = create_any(&event_loop)?;
    chain(source, &destination, false)?;
    Ok(destination)
}

/// Whether it is a future of asyncio, and not of `concurrent.futures`.
pub fn is_future(object: &Any) -> Result<bool> {
    Ok(own(object).is_some() || imports().isfuture.call1(object)?.is_true()?)
}

/// Fails: AssertionError for what is no future of `concurrent.futures`.
pub fn check_concurrent(source: &Any) -> Result<()> {
    if source.is_instance(&imports().ConcurrentFuture)? {
        return Ok(());
    }
    let shown = source.repr()?.to_text()?;
    let message = format!("concurrent.futures.Future is expected, got {}", shown.as_str());
    Err(Raised::new(builtin(Builtin::AssertionError), &message))
}

/// What becomes of `source` becomes of `destination`; if that is cancelled, so is `source`. `ends_work`: a worker of a
/// loop's own executor finishes the source, as the last thing it does for it.
/// Fails: TypeError for what is no future.
pub fn chain(source: &Any, destination: &Any, ends_work: bool) -> Result<()> {
    let source_loop = loop_of(source, "source")?;
    let destination_loop = loop_of(destination, "destination")?;
    let chain = allocate(Chain {
        head: head(),
        source: Slot::filled(source.to_object()),
        destination: Slot::filled(destination.to_object()),
        source_loop: source_loop.map_or_else(Slot::empty, Slot::filled),
        destination_loop: destination_loop.map_or_else(Slot::empty, Slot::filled),
        ends_work,
    })?;
    let check_cancel = CALL_CHECK_CANCEL.get().bind(&chain)?;
    destination.call_method1(&names().add_done_callback, &check_cancel)?;
    source.call_method1(&names().add_done_callback, &*CALL_SET_STATE.get().bind(&chain)?).map(drop)
}

/// The loop of a future of asyncio, `None` for one of `concurrent.futures`.
fn loop_of(future: &Any, role: &str) -> Result<Option<Object>> {
    if is_future(future)? {
        return match future.get_attribute_optional(&names().get_loop)? {
            Some(get_loop) => get_loop.call0(),
            None => future.get_attribute(&names()._loop),
        }
        .map(Some);
    }
    if future.is_instance(&imports().ConcurrentFuture)? {
        return Ok(None);
    }
    Err(Raised::type_error(&format!("A future is required for {role} argument")))
}

/// Whether this is the thread in which a future of `event_loop` may be touched, as asyncio tells it.
fn may_touch(event_loop: &Any, other: &Slot, asks_running_loop: bool) -> Result<bool> {
    match asks_running_loop {
        true => Ok(running_loop()?.is_some_and(|running| running.is(event_loop))),
        false => Ok(other.is(event_loop)),
    }
}

impl Chain {
    /// The destination is done: if it was cancelled, so is the source.
    fn pass_cancellation(&self) -> Result<()> {
        let (Some(source), Some(destination)) = (self.source.get_object(), self.destination.get_object())
        else {
            return Ok(());
        };
        if !destination.call_method0(&names().cancelled)?.is_true()? {
            return Ok(());
        }
        let asks = RULES.get().cancels_in_running_loop;
        match self.source_loop.get_object() {
            Some(event_loop) if !may_touch(&event_loop, &self.destination_loop, asks)? => {
                let cancel = source.get_attribute(&names().cancel)?;
                event_loop.call_method1(&names().call_soon_threadsafe, &cancel).map(drop)
            }
            _ => source.call_method0(&names().cancel).map(drop),
        }
    }

    /// The source is done, in whichever thread: its state goes where the destination belongs (X1).
    fn send_state(&self) -> Result<()> {
        let (Some(source), Some(destination)) = (self.source.get_object(), self.destination.get_object())
        else {
            return Ok(());
        };
        let Some(event_loop) = self.destination_loop.get_object() else {
            return self.set_state(&destination, &source);
        };
        let closed = event_loop.call_method0(&names().is_closed)?.is_true()?;
        if closed && destination.call_method0(&names().cancelled)?.is_true()? {
            return Ok(());
        }
        if may_touch(&event_loop, &self.source_loop, RULES.get().sets_in_running_loop)? {
            return self.set_state(&destination, &source);
        }
        if closed {
            return Ok(());
        }
        let set_state = SET_STATE.get().bind(&self.head)?;
        let arguments = [&*set_state, &*destination, &*source];
        let send = || event_loop.call_method(&names().call_soon_threadsafe, &arguments).map(drop);
        if self.ends_work { at_end_of_work(send) } else { send() }
    }

    /// Copies the state of the source to the destination (X2).
    fn set_state(&self, destination: &Any, source: &Any) -> Result<()> {
        let held = (self.source.take(), self.destination.take());
        let outcome = match self.destination_loop.is_empty() {
            true => copy_to_concurrent(destination, source),
            false => copy_to_future(destination, source),
        };
        drop_keeping(held, outcome)
    }
}

/// Drops references, which may run Python, without losing a pending exception.
fn drop_keeping<T>(references: T, outcome: Result<()>) -> Result<()> {
    match outcome.map_err(Raised::take) {
        Ok(()) => {
            drop(references);
            Ok(())
        }
        Err(exception) => {
            drop(references);
            Err(Raised::exception(exception))
        }
    }
}

fn copy_to_future(destination: &Any, source: &Any) -> Result<()> {
    if destination.call_method0(&names().cancelled)?.is_true()? {
        return Ok(());
    }
    if destination.call_method0(&names().done)?.is_true()? {
        return Err(Raised::empty(builtin(Builtin::AssertionError)));
    }
    match state_of(source)? {
        State::Cancelled => destination.call_method0(&names().cancel).map(drop),
        state => state.hand_to(destination),
    }
}

fn copy_to_concurrent(destination: &Any, source: &Any) -> Result<()> {
    let state = state_of(source)?;
    if let State::Cancelled = state {
        destination.call_method0(&names().cancel)?;
    }
    if !destination.call_method0(&names().set_running_or_notify_cancel)?.is_true()? {
        return Ok(());
    }
    state.hand_to(destination)
}

/// How a future ended.
enum State {
    Cancelled,
    Exception(Object),
    Result(Object),
}

impl State {
    fn hand_to(self, destination: &Any) -> Result<()> {
        match self {
            State::Cancelled => Ok(()),
            State::Exception(exception) => {
                let exception = RULES.get().convert_exception.call1(&exception)?;
                destination.call_method1(&names().set_exception, &exception).map(drop)
            }
            State::Result(result) => destination.call_method1(&names().set_result, &result).map(drop),
        }
    }
}

fn state_of(source: &Any) -> Result<State> {
    if let Some(snapshot) = source.get_attribute_optional(&names()._get_snapshot)? {
        let snapshot = snapshot.call0()?;
        if let [_done, cancelled, result, exception] = snapshot.tuple_items() {
            return Ok(match given(Some(exception)) {
                _ if cancelled.is_true()? => State::Cancelled,
                Some(exception) => State::Exception(exception.to_object()),
                None => State::Result(result.to_object()),
            });
        }
    }
    if source.call_method0(&names().cancelled)?.is_true()? {
        return Ok(State::Cancelled);
    }
    let exception = source.call_method0(&names().exception)?;
    if !exception.is_none() {
        return Ok(State::Exception(exception));
    }
    source.call_method0(&names().result).map(State::Result)
}

impl Chain {
    fn slots(&self) -> [&Slot; 4] {
        [&self.source, &self.destination, &self.source_loop, &self.destination_loop]
    }
}

impl Traverse for Chain {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
    }
}
