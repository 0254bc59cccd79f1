//! `eager_task_factory` and `create_eager_task_factory`: what `loop.set_task_factory` takes, so that tasks start at once.
//! asyncio has them from 3.12 on; ioxide offers them on every version.
//!
//! Leaves to others: the eager start itself (`step::eager_start`).

use super::{Task, TaskOptions};
use crate::event_loop::EventLoop;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, Signature, getter, given};
use ioxide_cpython::types::{Class, Native, NativeClass, allocate, head};
use ioxide_cpython::value::{dict, text, tuple};
use ioxide_cpython::version::EAGER_FACTORY_FORWARDS;
use ioxide_cpython::{Any, Object, Once, Result, Slot, boolean, names, none, none_object};

/// `create_eager_task_factory(custom_task_constructor)`
pub fn create_eager_task_factory(arguments: Arguments<'_>) -> Result<Object> {
    let constructor = arguments.only("create_eager_task_factory", "custom_task_constructor")?;
    allocate(EagerTaskFactory { head: head(), constructor: Slot::filled(constructor.to_object()) })
}

/// `eager_task_factory(loop, coro, …)`
pub fn eager_task_factory(arguments: Arguments<'_>) -> Result<Object> {
    make("eager_task_factory", Task::class().get().as_any(), arguments)
}

/// The keywords of 3.14 and later are the constructor's business.
fn make(function: &'static str, constructor: &Any, arguments: Arguments<'_>) -> Result<Object> {
    let parameters =
        ["loop", "coro", "name", "context", if EAGER_FACTORY_FORWARDS { "eager_start" } else { "" }];
    let signature = Signature { function, names: parameters, required: 2, positional: 2 };
    let further = dict()?;
    let [event_loop, coroutine, name, context, eager_start] = signature.bind_with(arguments, |keyword| {
        if !EAGER_FACTORY_FORWARDS {
            return Err(ioxide_cpython::methods::unexpected_keyword(function, keyword));
        }
        match arguments.keywords().find(|(present, _)| present.is(keyword)) {
            Some((_, value)) => further.dict_set(keyword, value),
            None => Ok(()),
        }
    })?;
    let (event_loop, coroutine) = (event_loop.unwrap_or(none()), coroutine.unwrap_or(none()));
    if constructor.is(Task::class().get().as_any())
        && let Some(native) = EventLoop::from_any(event_loop)
        && further.length()? == 0
    {
        let eager_start = eager_start.map_or(Ok(true), Any::is_true)?;
        let options = TaskOptions { name: given(name), context: given(context), eager_start };
        return Task::create(native, coroutine, options);
    }
    let eager_start = eager_start.map_or_else(|| boolean(true), Any::to_object);
    further.dict_set(&names().event_loop, event_loop)?;
    further.dict_set(&names().eager_start, &eager_start)?;
    for (keyword, value) in [(&names().name, name), (&names().context, context)] {
        match value {
            Some(value) => further.dict_set(keyword, value)?,
            None if !EAGER_FACTORY_FORWARDS => further.dict_set(keyword, none())?,
            None => {}
        }
    }
    constructor.call_tuple(&*tuple(&[coroutine])?, Some(&further))
}

/// What `create_eager_task_factory` returns.
#[repr(C)]
struct EagerTaskFactory {
    head: Any,
    constructor: Slot,
}

static EAGER_TASK_FACTORY: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for EagerTaskFactory {
    fn class() -> &'static Once<Class> {
        &EAGER_TASK_FACTORY
    }
}

const QUALIFIED_NAME: &str = "create_eager_task_factory.<locals>.factory";

pub(super) fn initialize() -> Result<()> {
    EAGER_TASK_FACTORY.set(
        NativeClass::new::<EagerTaskFactory>(c"ioxide.EagerTaskFactory")
            .doc(c"A task factory whose tasks start at once.")
            .not_instantiable()
            .collected::<EagerTaskFactory>()
            .dropped::<EagerTaskFactory>()
            .callable::<EagerTaskFactory, _>(EagerTaskFactory::call)
            .repr::<EagerTaskFactory, _>(|this: &EagerTaskFactory| {
                text(&format!("<function {QUALIFIED_NAME} at {this:p}>"))
            })
            .attributes(vec![
                getter(c"__name__", |_: &EagerTaskFactory| text("factory")),
                getter(c"__qualname__", |_: &EagerTaskFactory| text(QUALIFIED_NAME)),
            ])
            .create(&[])?,
    );
    Ok(())
}

impl EagerTaskFactory {
    fn call(&self, arguments: Arguments<'_>) -> Result<Object> {
        let constructor = self.constructor.get_object().unwrap_or_else(none_object);
        make("factory", &constructor, arguments)
    }
}

impl Traverse for EagerTaskFactory {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.constructor);
    }

    fn clear(&self) {
        self.constructor.clear();
    }
}
