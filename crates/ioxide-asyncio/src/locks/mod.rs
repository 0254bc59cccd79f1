//! `asyncio.locks`: Lock, Event, Condition, Semaphore, BoundedSemaphore, Barrier.
//!
//! Each is a shell over asyncio's own class. What is done a million times is native; whatever somebody has overridden, and
//! every misuse, runs asyncio's own code of the running version on the same object, whose private attributes
//! (`_waiters`, `_value` …) are the native state.
//!
//! | file | room |
//! |---|---|
//! | mod | what the classes share: `Kind`, reprs, pickling |
//! | wait_queue | who waits, in order |
//! | count | the number that a semaphore counts with |
//! | lock, event, condition, semaphore, barrier | the classes |
//!
//! Invariants:
//! X1. A short cut is taken only where `Kind::is_plain` says that asyncio's code would come to the same: the methods by
//!     which the object calls itself are all the class's own.
//! X2. No borrow of a primitive's state is held while Python runs.

mod barrier;
mod condition;
mod count;
mod event;
mod lock;
mod semaphore;
mod wait_queue;

pub use count::Count;
pub use event::Event;
pub use wait_queue::{WaitQueue, append_to, new_deque};

use crate::mixins::LoopBound;
use crate::shells::{Core, Shell};
use ioxide_cpython::call::import;
use ioxide_cpython::methods::{Arguments, Attribute, Definition, attribute, method, method0, method1};
use ioxide_cpython::module::Module;
use ioxide_cpython::names::intern;
use ioxide_cpython::types::{Class, OwnMethods, allocate};
use ioxide_cpython::value::{dict, text};
use ioxide_cpython::{Any, Object, Once, Raised, Result, imports, none};
use std::ffi::CStr;

/// A native class and the class of asyncio that it stands for.
pub struct Kind {
    /// asyncio's own class.
    base: Object,
    own: OwnMethods,
    /// `asyncio.locks.Lock`, as reprs of exact instances show it.
    shown_as: &'static str,
    class: &'static Class,
}

impl Kind {
    /// `own` are the methods by which the class calls itself.
    pub fn new(base: Object, class: &'static Class, shown_as: &'static str, own: &[&str]) -> Result<Kind> {
        Ok(Kind { base, own: OwnMethods::of(class.as_any(), own)?, shown_as, class })
    }

    /// Whether the short cuts hold for this object (X1).
    #[inline(always)]
    pub fn is_plain(&self, object: &Any) -> Result<bool> {
        self.own.hold_for(object)
    }

    /// asyncio's own method of that name, called with the object.
    #[cold]
    pub fn asyncios(&self, object: &Any, name: &CStr, arguments: &[&Any]) -> Result<Object> {
        let mut all = vec![object];
        all.extend_from_slice(arguments);
        self.base.get_attribute_str(name)?.call_slice(&all)
    }

    /// As `asyncios`, with the arguments as the caller gave them.
    #[cold]
    pub fn asyncios_with(&self, object: &Any, name: &CStr, arguments: Arguments<'_>) -> Result<Object> {
        let mut all = vec![object];
        all.extend_from_slice(arguments.positional());
        if !arguments.has_keywords() {
            return self.base.get_attribute_str(name)?.call_slice(&all);
        }
        let keywords = dict()?;
        for (keyword, value) in arguments.keywords() {
            keywords.dict_set(keyword, value)?;
        }
        let all = ioxide_cpython::value::tuple(&all)?;
        self.base.get_attribute_str(name)?.call_tuple(&all, Some(&keywords))
    }

    /// `object.__repr__(self)` with what `extra` says in brackets, as asyncio's own classes show themselves.
    pub fn show(&self, object: &Any, extra: &str) -> Result<Object> {
        if self.class.is_exact(object) {
            return text(&format!("<{} object at {:p} [{extra}]>", self.shown_as, object.as_ptr()));
        }
        let shown = OBJECT_REPR.get().call1(object)?.to_text()?;
        let shown = shown.as_str().trim_start_matches('<').trim_end_matches('>').to_owned();
        text(&format!("<{shown} [{extra}]>"))
    }
}

static OBJECT_REPR: Once<Object> = Once::new();

/// Creates the classes and adds them to `_ioxide`.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    OBJECT_REPR.set(import(c"builtins")?.get_attribute_str(c"object")?.get_attribute_str(c"__repr__")?);
    wait_queue::initialize()?;
    let locks = import(c"asyncio.locks")?;
    module.add(c"Lock", lock::initialize(&locks)?)?;
    module.add(c"Event", event::initialize(&locks)?)?;
    module.add(c"Condition", condition::initialize(&locks)?)?;
    let (semaphore, bounded) = semaphore::initialize(&locks)?;
    module.add(c"Semaphore", semaphore)?;
    module.add(c"BoundedSemaphore", bounded)?;
    module.add(c"Barrier", barrier::initialize(&locks)?)
}

/// The state of a primitive, as far as all of them are alike.
pub trait Primitive: Core {
    /// What a new object has before `__init__`.
    fn fresh() -> Self;
    fn bound(&self) -> &LoopBound;
    /// The attributes that asyncio's own class keeps in the instance's dictionary, in that order.
    const STATE: &'static [&'static CStr];
}

/// The methods that every primitive has.
pub fn shared_methods<C: Primitive>() -> Vec<Definition> {
    vec![
        method0(c"_get_loop", |this: &Shell<C>| this.core().bound().get_loop(this)),
        method0(c"__getstate__", get_state::<C>),
        method1(c"__setstate__", set_state::<C>),
    ]
}

/// The attributes that every primitive has.
pub fn shared_attributes<C: Primitive>() -> Vec<Attribute> {
    vec![attribute(
        c"_loop",
        |this: &Shell<C>| this.core().bound().shown(),
        |this: &Shell<C>, value: Option<&Any>| {
            this.core().bound().assign(value);
            Ok(())
        },
    )]
}

/// `__new__` of the class of `C`.
pub fn new_method<C: Primitive>() -> Definition {
    method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| new_instance(arguments, C::fresh()))
}

/// As `__new__`, for a call of exactly the class of `C`.
pub fn construct<C: Primitive>(class: &Any) -> Result<Object> {
    C::shell().get().instantiate(class, allocate(C::fresh())?)
}

/// What `__new__` returns, called with a class and whatever `__init__` will be called with.
pub fn new_instance<C: Primitive>(arguments: Arguments<'_>, core: C) -> Result<Object> {
    match arguments.positional() {
        [class, ..] => C::shell().get().instantiate(class, allocate(core)?),
        [] => Err(Raised::type_error("__new__(): not enough arguments")),
    }
}

/// `vars(self)` as asyncio's own class has it, for copy and pickle.
fn get_state<C: Primitive>(this: &Shell<C>) -> Result<Object> {
    let state = dict()?;
    for name in C::STATE {
        let value = this.get_attribute_str(name)?;
        state.dict_set(&*intern(&name.to_string_lossy())?, &value)?;
    }
    let event_loop = this.core().bound().shown();
    if !event_loop.is_none() {
        state.dict_set(&*intern("_loop")?, &event_loop)?;
    }
    let attributes = this.get_attribute_str(c"__dict__")?;
    state.call_method1(&*intern("update")?, &attributes)?;
    Ok(state)
}

fn set_state<C: Primitive>(this: &Shell<C>, state: &Any) -> Result<()> {
    for item in state.call_method0(&*intern("items")?)?.iterate()? {
        if let [name, value] = item?.tuple_items() {
            this.set_attribute(name, value)?;
        }
    }
    Ok(())
}

/// What an attribute that cannot be deleted says to `del`.
pub fn assigned(value: Option<&Any>) -> Result<&Any> {
    value.ok_or_else(|| Raised::type_error("cannot delete attribute"))
}

/// Whether an exception is a CancelledError.
pub fn is_cancellation(exception: &Any) -> bool {
    ioxide_cpython::exception::exception_matches(exception, &imports().CancelledError)
}

/// `, waiters:2` where somebody waits.
fn waiters_shown(waiters: &WaitQueue) -> Result<String> {
    Ok(match waiters.length()? {
        0 => String::new(),
        count => format!(", waiters:{count}"),
    })
}

/// The attribute `_waiters` where None stands for a queue that nobody has needed yet.
fn assign_waiters(waiters: &WaitQueue, value: &Any) {
    waiters.assign((!value.is(none())).then_some(value));
}
