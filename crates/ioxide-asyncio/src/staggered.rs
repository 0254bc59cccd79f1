//! `staggered_race`: coroutines that start one after the other until the first one returns (happy eyeballs).
//!
//! asyncio wrote it anew between releases, and corrections came with patch releases, so the running asyncio's own function
//! is asked which one it is. One that is not known here runs itself.
//!
//! Invariants:
//! R1. `Race` and `Racer` hold what the bodies of the coroutines work with: the bodies hold no references while they
//!     wait, so the collector finds a race whose loop was forgotten.
//! R2. `running` is not borrowed while Python runs.

use crate::locks::Event;
use crate::{futures, tasks};
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{Owner, coroutine_of, wait_for};
use ioxide_cpython::current::{current_task, get_running_loop};
use ioxide_cpython::exception::{Builtin, builtin};
use ioxide_cpython::functions::coroutine_function;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, documented, method1};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::{Class, FunctionDefinition, Native, NativeClass, allocate, head};
use ioxide_cpython::value::{integer, list, list_of, text, tuple};
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, imports, names, none, none_object};
use std::cell::{Cell, RefCell};

/// How the race waits for its tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// With `wait`, again and again while tasks are added (until 3.12.8 and 3.13.1).
    InRounds,
    /// For a future that the last task's callback sets; a cancellation is handed on to the tasks.
    ForTheLast,
}

struct Rules {
    waits: Waits,
    /// A task waits until the one that made it has noted it, which matters where tasks start eagerly.
    starts_when_noted: bool,
    /// `__debug__`: what a coroutine must not raise leaves the race.
    raises_unhandled: bool,
}

static ORIGINAL: Once<Object> = Once::new();
static RULES: Once<Option<Rules>> = Once::new();

/// Adds the function, and asks asyncio's own what it does.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    RACE.set(NativeClass::core::<Race>(c"ioxide.StaggeredRace")?);
    RACER.set(NativeClass::core::<Racer>(c"ioxide.StaggeredRacer")?);
    TASK_DONE
        .set(FunctionDefinition::new(method1(c"task_done", |race: &Race, task: &Any| race.task_done(task))));
    let original = import(c"asyncio.staggered")?.get_attribute_str(c"staggered_race")?;
    RULES.set(Rules::of(&Code::of(&original)?)?);
    ORIGINAL.set(original);
    module.add_function(documented(
        coroutine_function(c"staggered_race", staggered_race),
        c"staggered_race(coro_fns, delay, *, loop=None)\n--\n\nCalls the functions and awaits what they return until the first \
        one is done without an exception.\n\nThe next one starts `delay` seconds after the one before it (None: never), or \
        when that has failed.\nReturns the result of the winner or None, its index or None, and a list with the exception of \
        each that was started.",
    ))
}

impl Rules {
    /// `None` for a function that is not known here.
    fn of(code: &Code) -> Result<Option<Rules>> {
        let Some(racer) = code.nested_named("run_one_coro")? else { return Ok(None) };
        let has_callback = code.nested_named("task_done")?.is_some();
        let waits = match (code.nested()?.len(), has_callback) {
            (1, false) if code.uses("wait")? => Waits::InRounds,
            (2, true) if code.uses("create_future")? => Waits::ForTheLast,
            _ => return Ok(None),
        };
        let starts_when_noted = racer.mentions("ok_to_start")?;
        let optimize = import(c"sys")?.get_attribute_str(c"flags")?.get_attribute_str(c"optimize")?;
        Ok(Some(Rules { waits, starts_when_noted, raises_unhandled: !optimize.is_true()? }))
    }
}

const SIGNATURE: Signature<3> = Signature {
    function: "staggered_race",
    names: ["coro_fns", "delay", "loop"],
    required: 2,
    positional: 2,
};

/// `staggered_race(coro_fns, delay, *, loop=None)`
fn staggered_race(arguments: Arguments<'_>) -> Result<Object> {
    let [functions, delay, event_loop] = SIGNATURE.bind(arguments)?;
    let Some(rules) = RULES.get() else { return arguments.call(ORIGINAL.get()) };
    let race = allocate(Race {
        head: head(),
        event_loop: Slot::filled(event_loop.unwrap_or(none()).to_object()),
        functions: Slot::filled(functions.unwrap_or(none()).to_object()),
        delay: Slot::filled(delay.unwrap_or(none()).to_object()),
        parent: Slot::empty(),
        exceptions: Slot::filled(list()?),
        winner: Slot::empty(),
        winner_index: Cell::new(None),
        started: Cell::new(0),
        running: RefCell::new(Vec::new()),
        unhandled: RefCell::new(Vec::new()),
        completed: Slot::empty(),
    })?;
    coroutine_of("staggered_race", race, move |owner| run_race(owner, rules))
}

#[repr(C)]
struct Race {
    head: Any,
    event_loop: Slot,
    /// What is still to be started: an iterator, from the first step on.
    functions: Slot,
    delay: Slot,
    /// The task that awaits the race.
    parent: Slot,
    exceptions: Slot,
    winner: Slot,
    winner_index: Cell<Option<usize>>,
    started: Cell<usize>,
    /// In rounds all tasks, otherwise those that are not done.
    running: RefCell<Vec<Object>>,
    unhandled: RefCell<Vec<Object>>,
    /// The future that the last task's callback sets.
    completed: Slot,
}

static RACE: Once<Class> = Once::new();
static TASK_DONE: Once<FunctionDefinition> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Race {
    fn class() -> &'static Once<Class> {
        &RACE
    }
}

async fn run_race(owner: Owner, rules: &'static Rules) -> Result<Object> {
    let Some(race) = Race::from_exact(&owner) else { return Ok(none_object()) };
    race.begin()?;
    let outcome = match rules.waits {
        Waits::InRounds => race.wait_in_rounds(rules).await,
        Waits::ForTheLast => race.wait_for_the_last(rules).await,
    };
    outcome?;
    let index = match race.winner_index.get() {
        Some(index) => integer(index as i64)?,
        None => none_object(),
    };
    tuple(&[&*race.winner.get_or_none(), &*index, &*race.exceptions.get_or_none()])
}

impl Race {
    fn begin(&self) -> Result<()> {
        let given_loop = self.event_loop.get_or_none();
        if !given_loop.is_true()? {
            self.event_loop.set(get_running_loop()?);
        }
        self.parent.set(current_task(&self.event_loop.get_or_none())?.unwrap_or_else(none_object));
        let functions = self.functions.get_or_none().iterate()?.into_object();
        self.functions.set(functions);
        Ok(())
    }

    /// Makes the task of the next racer, which begins when `previous` has failed or the delay is over.
    fn add_racer(&self, rules: &Rules, previous: Option<Object>) -> Result<()> {
        let may_start = rules.starts_when_noted.then(|| Event::create(false)).transpose()?;
        let racer = allocate(Racer {
            head: head(),
            race: Slot::filled(self.head.to_object()),
            may_start: may_start.clone().map_or_else(Slot::empty, Slot::filled),
            previous_failed: previous.map_or_else(Slot::empty, Slot::filled),
            failed: Slot::empty(),
        })?;
        let coroutine = coroutine_of("staggered_race.<locals>.run_one_coro", racer, run_racer)?;
        let task = self.event_loop.get_or_none().call_method1(&names().create_task, &coroutine)?;
        self.running.borrow_mut().push(task.clone());
        if rules.waits == Waits::ForTheLast {
            tasks::awaited_by_add(&task, &self.parent.get_or_none())?;
            futures::add_done_callback_any(&task, &*TASK_DONE.get().bind(&self.head)?)?;
        }
        match may_start.as_deref().and_then(Event::from_any) {
            Some(may_start) => may_start.set(),
            None => Ok(()),
        }
    }

    fn tasks(&self) -> Vec<Object> {
        self.running.borrow().clone()
    }

    async fn wait_in_rounds(&self, rules: &Rules) -> Result<()> {
        self.add_racer(rules, None)?;
        let outcome = self.rounds(rules).await.map_err(Raised::take);
        // Whatever happened, no task is left running.
        for task in self.tasks() {
            tasks::cancel_any(&task)?;
        }
        outcome.map_err(Raised::exception)
    }

    async fn rounds(&self, rules: &Rules) -> Result<()> {
        loop {
            let waiting = {
                let running = list_of(self.tasks())?;
                wait_for(&*tasks::wait_for_all(running)?)
            };
            let answer = waiting.await?;
            let [done, _] = answer.tuple_items() else { return Ok(()) };
            let count = done.length()?;
            if rules.raises_unhandled {
                for task in done.iterate()? {
                    if let Some(exception) = tasks::failure(&*task?)? {
                        return Err(Raised::raise(&exception));
                    }
                }
            }
            if count == self.running.borrow().len() {
                return Ok(());
            }
        }
    }

    async fn wait_for_the_last(&self, rules: &Rules) -> Result<()> {
        self.add_racer(rules, None)?;
        let mut cancellation = None;
        while !self.running.borrow().is_empty() {
            let waiting = {
                let completed = futures::create_any(&self.event_loop.get_or_none())?;
                self.completed.set(completed.clone());
                wait_for(&completed)
            };
            match waiting.await {
                Err(raised) if raised.matches(&imports().CancelledError) => {
                    let exception = raised.take();
                    let details = exception.get_attribute(&names().args)?;
                    for task in self.tasks() {
                        task.get_attribute(&names().cancel)?.call_slice(details.tuple_items())?;
                    }
                    cancellation = Some(exception);
                }
                outcome => drop(outcome?),
            }
            self.completed.clear();
        }
        let unhandled = self.unhandled.take();
        if rules.raises_unhandled && !unhandled.is_empty() {
            let message = text("staggered race failed")?;
            let group = imports().ExceptionGroup.call(&[&*message, &*list_of(unhandled)?])?;
            return Err(Raised::raise(&group));
        }
        match cancellation {
            Some(exception) => Err(Raised::raise(&exception)),
            None => Ok(()),
        }
    }

    /// The callback of every task that `wait_for_the_last` waits for.
    fn task_done(&self, task: &Any) -> Result<()> {
        let (place, is_last) = {
            let mut running = self.running.borrow_mut();
            let index = running.iter().position(|present| present.is(task));
            (index.map(|index| running.remove(index)), running.is_empty())
        };
        drop(place);
        tasks::awaited_by_discard(task, &self.parent.get_or_none())?;
        if let Some(completed) = self.completed.get_object().filter(|_| is_last) {
            futures::set_result_unless_done(&completed, none())?;
        }
        if let Some(exception) = tasks::failure(task)? {
            self.unhandled.borrow_mut().push(exception);
        }
        Ok(())
    }

    /// The next function and its index, whose place for an exception is made. `None` where all have started.
    fn next(&self) -> Result<Option<(usize, Object)>> {
        let function = self.functions.get_or_none().next_item()?;
        Ok(function.map(|function| (self.started.replace(self.started.get() + 1), function)))
    }

    /// Fails: AssertionError where somebody has won already.
    fn win(&self, rules: &Rules, index: usize, result: Object) -> Result<()> {
        if self.winner_index.get().is_some() {
            return Err(Raised::empty(builtin(Builtin::AssertionError)));
        }
        self.winner_index.set(Some(index));
        self.winner.set(result);
        let current = current_task(&self.event_loop.get_or_none())?;
        for (place, task) in self.tasks().iter().enumerate() {
            let is_own = match rules.waits {
                Waits::InRounds => place == index,
                Waits::ForTheLast => current.as_deref().is_some_and(|current| current.is(task)),
            };
            if !is_own {
                tasks::cancel_any(task)?;
            }
        }
        Ok(())
    }
}

/// One of those that race.
#[repr(C)]
struct Racer {
    head: Any,
    race: Slot,
    /// Set when its task is noted; empty where nobody asks.
    may_start: Slot,
    /// Set when the racer before it has failed; empty for the first one.
    previous_failed: Slot,
    failed: Slot,
}

static RACER: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for Racer {
    fn class() -> &'static Once<Class> {
        &RACER
    }
}

async fn run_racer(owner: Owner) -> Result<Object> {
    let (Some(racer), Some(rules)) = (Racer::from_exact(&owner), RULES.get()) else {
        return Ok(none_object());
    };
    racer.wait_for_its_turn().await?;
    let Some((index, function)) = racer.in_race(Race::next)? else { return Ok(none_object()) };
    let failed = Event::create(false)?;
    racer.failed.set(failed.clone());
    racer.in_race(|race| race.add_racer(rules, Some(failed)))?;
    racer.in_race(|race| {
        let exceptions = race.exceptions.get_or_none();
        exceptions.list_append(none())?;
        // Where tasks start eagerly and nobody waits until they are noted, the next one was faster.
        let is_in_order = exceptions.length()? == index + 1
            && (rules.waits == Waits::ForTheLast || race.running.borrow().len() == index + 2);
        if is_in_order { Ok(()) } else { Err(Raised::empty(builtin(Builtin::AssertionError))) }
    })?;
    let called = function.call0();
    drop(function);
    let outcome = match called {
        Ok(awaitable) => {
            let waiting = wait_for(&awaitable);
            drop(awaitable);
            waiting.await
        }
        Err(raised) => Err(raised),
    };
    match outcome {
        Ok(result) => racer.in_race(|race| race.win(rules, index, result))?,
        Err(raised) if raised.leaves_the_loop() => return Err(raised),
        Err(raised) => {
            let exception = raised.take();
            racer.in_race(|race| {
                let place = integer(index as i64)?;
                let exceptions = race.exceptions.get_or_none();
                exceptions.call_method(&names().__setitem__, &[&*place, &*exception])
            })?;
            if let Some(failed) = racer.failed.get_object().as_deref().and_then(Event::from_any) {
                failed.set()?;
            }
        }
    }
    Ok(none_object())
}

impl Racer {
    fn in_race<T>(&self, body: impl FnOnce(&Race) -> Result<T>) -> Result<T> {
        let race = self.race.get_or_none();
        match Race::from_exact(&race) {
            Some(race) => body(race),
            None => Err(Raised::runtime_error("the race is gone")),
        }
    }

    async fn wait_for_its_turn(&self) -> Result<()> {
        let noted = match self.may_start.get_object().as_deref().and_then(Event::from_any) {
            Some(may_start) => Some(wait_for(&*may_start.wait()?)),
            None => None,
        };
        if let Some(noted) = noted {
            noted.await?;
        }
        let previous = match self.previous_failed.get_object().as_deref().and_then(Event::from_any) {
            Some(previous_failed) => {
                let delay = self.in_race(|race| Ok(race.delay.get_or_none()))?;
                Some(wait_for(&*tasks::wait_for_at_most(&*previous_failed.wait()?, &delay)?))
            }
            None => None,
        };
        let Some(previous) = previous else { return Ok(()) };
        match previous.await {
            Err(raised) if raised.matches(&imports().TimeoutError) => drop(raised.take()),
            outcome => drop(outcome?),
        }
        Ok(())
    }
}

impl Race {
    fn slots(&self) -> [&Slot; 7] {
        [
            &self.event_loop,
            &self.functions,
            &self.delay,
            &self.parent,
            &self.exceptions,
            &self.winner,
            &self.completed,
        ]
    }
}

impl Traverse for Race {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
        for objects in [&self.running, &self.unhandled] {
            if let Ok(objects) = objects.try_borrow() {
                for object in objects.iter() {
                    visitor.object(object);
                }
            }
        }
    }

    fn clear(&self) {
        self.slots().clear();
        drop((self.running.take(), self.unhandled.take()));
    }
}

impl Racer {
    fn slots(&self) -> [&Slot; 4] {
        [&self.race, &self.may_start, &self.previous_failed, &self.failed]
    }
}

impl Traverse for Racer {
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
    }
}
