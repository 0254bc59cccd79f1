//! `asyncio.queues`: Queue, PriorityQueue, LifoQueue, and shutdown on every version.
//!
//! Shells over asyncio's own classes, as the locks are (see locks/mod.rs, X1 and X2): what a subclass overrides, and misuse,
//! runs asyncio's own code on the same state.
//!
//! | file | room |
//! |---|---|
//! | mod | the classes: what Python sees |
//! | queue | the state and what happens to it, the coroutines |
//! | items | what is in a queue |

mod items;
mod queue;

use self::items::Order;
use self::queue::{Queue, QueueCore};
use crate::locks::{Kind, assigned, new_instance, shared_attributes, shared_methods};
use ioxide_cpython::call::import;
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, attribute, documented, getter, method, method0, method1,
};
use ioxide_cpython::module::Module;
use ioxide_cpython::names::intern;
use ioxide_cpython::types::{Class, NativeClass, OwnMethods, ShellClass, ShellDefinition};
use ioxide_cpython::value::{dict, integer, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, builtin, names};

static QUEUE_CORE: Once<Class> = Once::new();
static SHELL: Once<ShellClass> = Once::new();
static KINDS: Once<Kinds> = Once::new();

struct Kinds {
    first_in: Kind,
    last_in: Kind,
    smallest: Kind,
    storage: [OwnMethods; 3],
    errors: Errors,
}

/// asyncio's exceptions; before 3.13 the last one is ioxide's own.
struct Errors {
    pub empty: Object,
    pub full: Object,
    pub shut_down: Object,
}

/// The methods by which a queue calls itself, but for those of its storage.
const OWN: [&str; 8] =
    ["_wakeup_next", "_get_loop", "qsize", "empty", "full", "put_nowait", "get_nowait", "join"];

/// The methods that a subclass overrides to keep the items in its own way.
const STORAGE: [&str; 3] = ["_init", "_put", "_get"];

/// Creates the classes and adds them to `_ioxide`.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    items::initialize()?;
    QUEUE_CORE.set(NativeClass::core::<QueueCore>(c"ioxide.QueueCore")?);
    let queues = import(c"asyncio.queues")?;
    let base = queues.get_attribute_str(c"Queue")?;
    SHELL.set(ShellClass::create(ShellDefinition {
        name: c"Queue",
        bases: vec![base.clone()],
        doc: "A first-in, first-out queue for tasks of one event loop, as asyncio.Queue.\n\n\
              At most `maxsize` items are in it: put() waits while it is full. Zero or less: any number.",
        methods: methods(),
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| {
            create(arguments, Order::FirstIn)
        })),
    })?);
    let last_in_base = queues.get_attribute_str(c"LifoQueue")?;
    let last_in = derive(
        c"LifoQueue",
        &last_in_base,
        "A Queue whose latest item comes out first, as asyncio.LifoQueue.",
        method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| create(arguments, Order::LastIn)),
    )?;
    let smallest_base = queues.get_attribute_str(c"PriorityQueue")?;
    let smallest = derive(
        c"PriorityQueue",
        &smallest_base,
        "A Queue whose smallest item comes out first, as asyncio.PriorityQueue. Items are compared with `<`.",
        method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| create(arguments, Order::Smallest)),
    )?;
    let errors = Errors {
        empty: queues.get_attribute_str(c"QueueEmpty")?,
        full: queues.get_attribute_str(c"QueueFull")?,
        shut_down: shut_down_error(&queues)?,
    };
    let class = SHELL.get().class();
    module.add(c"Queue", class.as_any())?;
    module.add(c"LifoQueue", last_in.as_any())?;
    module.add(c"PriorityQueue", smallest.as_any())?;
    module.add(c"QueueShutDown", &errors.shut_down)?;
    KINDS.set(Kinds {
        first_in: Kind::new(base, class, "asyncio.queues.Queue", &OWN)?,
        last_in: Kind::new(last_in_base, last_in, "asyncio.queues.LifoQueue", &OWN)?,
        smallest: Kind::new(smallest_base, smallest, "asyncio.queues.PriorityQueue", &OWN)?,
        storage: [
            OwnMethods::of(class.as_any(), &STORAGE)?,
            OwnMethods::of(last_in.as_any(), &STORAGE)?,
            OwnMethods::of(smallest.as_any(), &STORAGE)?,
        ],
        errors,
    });
    Ok(())
}

fn derive(
    name: &'static std::ffi::CStr,
    base: &Any,
    doc: &'static str,
    new: Definition,
) -> Result<&'static Class> {
    let shell = SHELL.get().derive(ShellDefinition {
        name,
        bases: vec![base.to_object()],
        doc,
        methods: Vec::new(),
        attributes: Vec::new(),
        new: Some(new),
    })?;
    // Classes live forever.
    Ok(Box::leak(Box::new(shell)).class())
}

fn create(arguments: Arguments<'_>, order: Order) -> Result<Object> {
    new_instance(arguments, QueueCore::new(order))
}

/// asyncio's QueueShutDown, or one of ioxide's where asyncio has none.
fn shut_down_error(queues: &Any) -> Result<Object> {
    if let Some(error) = queues.get_attribute_optional(&*intern("QueueShutDown")?)? {
        return Ok(error);
    }
    let base = builtin(Builtin::Exception);
    let namespace = dict()?;
    namespace.dict_set(&names().__module__, &*text("ioxide")?)?;
    namespace.dict_set(
        &names().__doc__,
        &*text("Raised when putting on to or getting from a shut-down Queue.")?,
    )?;
    base.get_type().call(&[&*text("QueueShutDown")?, &*tuple(&[base])?, &*namespace])
}

fn methods() -> Vec<Definition> {
    let mut methods = shared_methods::<QueueCore>();
    methods.extend(coroutines());
    methods.extend([
        documented(method(c"__init__", Queue::initialize), c"__init__($self, maxsize=0)\n--\n\n"),
        documented(
            method0(c"qsize", |this: &Queue| this.length().and_then(|length| integer(length as i64))),
            c"qsize($self)\n--\n\nHow many items are in the queue.",
        ),
        documented(
            method0(c"empty", |this: &Queue| this.is_empty()),
            c"empty($self)\n--\n\nWhether there is no item in the queue.",
        ),
        documented(
            method0(c"full", Queue::is_full_shown),
            c"full($self)\n--\n\nWhether there are `maxsize` items in the queue; never where it is unlimited.",
        ),
        documented(
            method(c"put_nowait", Queue::put_nowait),
            c"put_nowait($self, item)\n--\n\nPuts an item in at once.\n\n\
              Raises QueueFull where there is no room, QueueShutDown after shutdown().",
        ),
        documented(
            method0(c"get_nowait", Queue::get_nowait),
            c"get_nowait($self)\n--\n\nTakes an item out at once.\n\n\
              Raises QueueEmpty where there is none, QueueShutDown where there will be none after shutdown().",
        ),
        documented(
            method0(c"task_done", Queue::task_done),
            c"task_done($self)\n--\n\nSays that an item that was taken out has been dealt with.\n\n\
              Raises ValueError where it is called more often than items were put in.",
        ),
        documented(
            method(c"shutdown", Queue::shutdown),
            c"shutdown($self, immediate=False)\n--\n\nFrom now on put() raises QueueShutDown, and get() when nothing\n\
              is left; with immediate=True what is left is thrown away. Whoever waits is woken.",
        ),
        method1(c"_init", |this: &Queue, _maxsize: &Any| this.core().items.assign(None)),
        method1(c"_put", |this: &Queue, item: &Any| this.core().items.put(item)),
        method0(c"_get", |this: &Queue| this.core().items.take()),
        method0(c"_format", Queue::format),
    ]);
    methods
}

fn coroutines() -> Vec<Definition> {
    vec![
        documented(
            coroutine_method(c"put", Queue::put),
            c"put($self, item)\n--\n\nWaits until there is room and puts the item in.\n\n\
              Raises QueueShutDown after shutdown(). Cancelled while it waits, it has put nothing in.",
        ),
        documented(
            coroutine_method0(c"get", Queue::get),
            c"get($self)\n--\n\nWaits until there is an item and takes it out.\n\n\
              Raises QueueShutDown where there will be none after shutdown(). Cancelled while it waits, it has taken\n\
              nothing out.",
        ),
        documented(
            coroutine_method0(c"join", Queue::join),
            c"join($self)\n--\n\nWaits until task_done() was called for every item.",
        ),
    ]
}

fn attributes() -> Vec<Attribute> {
    let mut attributes = shared_attributes::<QueueCore>();
    attributes.extend([
        getter(c"maxsize", |this: &Queue| this.core().maxsize.shown()),
        attribute(
            c"_maxsize",
            |this: &Queue| this.core().maxsize.shown(),
            |this: &Queue, value: Option<&Any>| this.core().maxsize.set(assigned(value)?),
        ),
        attribute(
            c"_queue",
            |this: &Queue| this.core().items.shown(),
            |this: &Queue, value: Option<&Any>| {
                this.core().items.assign(Some(assigned(value)?));
                Ok(())
            },
        ),
        attribute(
            c"_getters",
            |this: &Queue| this.core().getters.shown(),
            |this: &Queue, value: Option<&Any>| {
                this.core().getters.assign(Some(assigned(value)?));
                Ok(())
            },
        ),
        attribute(
            c"_putters",
            |this: &Queue| this.core().putters.shown(),
            |this: &Queue, value: Option<&Any>| {
                this.core().putters.assign(Some(assigned(value)?));
                Ok(())
            },
        ),
        attribute(
            c"_unfinished_tasks",
            |this: &Queue| this.core().unfinished.shown(),
            |this: &Queue, value: Option<&Any>| this.core().unfinished.set(assigned(value)?),
        ),
        attribute(c"_finished", Queue::finished, |this: &Queue, value: Option<&Any>| {
            this.core().finished.set(assigned(value)?.to_object());
            Ok(())
        }),
        attribute(
            c"_is_shutdown",
            |this: &Queue| this.core().is_shut_down.get(),
            |this: &Queue, value: Option<&Any>| {
                this.core().is_shut_down.set(assigned(value)?.is_true()?);
                Ok(())
            },
        ),
    ]);
    attributes
}

/// The class of asyncio's that a queue of this order stands for.
fn kind_of(order: Order) -> &'static Kind {
    let kinds = KINDS.get();
    match order {
        Order::FirstIn => &kinds.first_in,
        Order::LastIn => &kinds.last_in,
        Order::Smallest => &kinds.smallest,
    }
}

/// The storage methods of the class of this order.
fn storage_of(order: Order) -> &'static OwnMethods {
    &KINDS.get().storage[order as usize]
}

fn errors() -> &'static Errors {
    &KINDS.get().errors
}

#[cold]
fn shut_down() -> Raised {
    Raised::empty(&errors().shut_down)
}
