//! Which tasks live: behind `asyncio.all_tasks()`, which keeps its own register.
//!
//! From 3.14 on asyncio's register is a linked list through the tasks' own structs, one a thread, and ioxide's tasks
//! are in it. Until 3.13 it is a WeakSet, whose upkeep costs more than a step; ioxide links its tasks in a list
//! of its own and adds them to the WeakSet when somebody iterates over it, which is all that asyncio's `all_tasks` does with
//! it; ioxide's looks at both.
//!
//! Invariants:
//! G1. A node is in a list exactly while both its pointers are set; its neighbours are alive: tasks leave the list
//!     before they die.
//! G2. A task is in the list of the thread that made it, where there is one a thread: all that `all_tasks` looks at is that
//!     of its own.

use crate::object::{Any, Object, Result};
use crate::version::{ListNode, TaskObject};
#[cfg(Py_3_14)]
use crate::{Once, imports};
use std::cell::Cell;
use std::ptr::null;

/// The node of a task that is alive, to link the next one beside it, and whose list it is in (G2); null if none is known.
struct Neighbour {
    node: Cell<*const ListNode>,
    list: Cell<i64>,
}

// SAFETY: touched under the GIL only.
unsafe impl Sync for Neighbour {}

static NEIGHBOUR: Neighbour = Neighbour { node: Cell::new(null()), list: Cell::new(0) };

#[cfg(Py_3_14)]
static REGISTER_TASK: Once<Object> = Once::new();

#[cfg(Py_3_14)]
pub(crate) fn initialize() -> Result<()> {
    REGISTER_TASK.set(imports().asyncio_c_module.get_attribute_str(c"_register_task")?);
    Ok(())
}

/// The task counts as alive from now on.
#[inline]
pub fn register(task: &TaskObject) -> Result<()> {
    if task.node.is_linked() {
        return Ok(());
    }
    let list = own_list();
    let is_own = NEIGHBOUR.list.replace(list) == list;
    let neighbour = NEIGHBOUR.node.replace(&task.node);
    // SAFETY: G1: the neighbour is a live task's node.
    match unsafe { neighbour.as_ref() } {
        // asyncio's own code may have taken a finished neighbour out of the list.
        Some(neighbour) if is_own && neighbour.is_linked() => {
            task.node.link_after(neighbour);
            Ok(())
        }
        _ => register_first(task),
    }
}

/// Which list a task that is made now belongs to: threads have numbers that are never used again.
#[inline(always)]
fn own_list() -> i64 {
    #[cfg(Py_3_14)]
    // SAFETY: the GIL is held, so the thread has a state.
    return unsafe { pyo3_ffi::PyThreadState_GetID(pyo3_ffi::PyThreadState_Get()) };
    #[cfg(not(Py_3_14))]
    return 0;
}

/// Links the first task of a list into asyncio's own, of this thread.
#[cfg(Py_3_14)]
fn register_first(task: &TaskObject) -> Result<()> {
    REGISTER_TASK.get().call1(task).map(drop)
}

/// The task is done or about to die.
#[inline]
pub fn unregister(task: &TaskObject) {
    if std::ptr::eq(NEIGHBOUR.node.get(), &task.node) {
        NEIGHBOUR.node.set(null());
    }
    if task.node.is_linked() {
        task.node.unlink();
    }
}

/// `asyncio.all_tasks(event_loop)`; `None` from 3.14 on, where asyncio's own is in C and reads the same list.
#[cfg(Py_3_14)]
pub const ALL_TASKS: Option<fn(&Any) -> Result<Object>> = None;
#[cfg(not(Py_3_14))]
pub const ALL_TASKS: Option<fn(&Any) -> Result<Object>> = Some(before_3_14::all_tasks);

#[cfg(not(Py_3_14))]
pub(crate) use before_3_14::initialize;
#[cfg(not(Py_3_14))]
use before_3_14::register_first;

#[cfg(not(Py_3_14))]
mod before_3_14 {
    use super::{Cell, ListNode, Result, TaskObject, null};
    use crate::call::import;
    use crate::methods::method1;
    use crate::value::{dict, set, set_add, text, tuple, weak_referent};
    use crate::{Any, Object, Once, imports, names};

    struct Head(ListNode);

    // SAFETY: touched under the GIL only.
    unsafe impl Sync for Head {}

    static HEAD: Head = Head(ListNode { next: Cell::new(null()), previous: Cell::new(null()) });
    static ALL_TASKS: Once<Object> = Once::new();
    /// The tasks of asyncio's own class that are in their eager start, from 3.12 on.
    static EAGER_TASKS: Once<Option<Object>> = Once::new();

    /// Puts a set in the place of the one in which asyncio's WeakSet of tasks notes who iterates over it. It tells us
    /// when somebody looks; in everything else it is the set that it replaces.
    pub(crate) fn initialize() -> Result<()> {
        HEAD.0.next.set(&HEAD.0);
        HEAD.0.previous.set(&HEAD.0);
        let module = &imports().asyncio_c_module;
        let all_tasks = match module.get_attribute_optional(&*text("_scheduled_tasks")?)? {
            Some(scheduled) => scheduled,
            None => module.get_attribute(&*text("_all_tasks")?)?,
        };
        ALL_TASKS.set(all_tasks.clone());
        EAGER_TASKS.set(module.get_attribute_optional(&*text("_eager_tasks")?)?);
        let class_of_sets = import(c"builtins")?.get_attribute_str(c"set")?;
        let namespace = dict()?;
        namespace.dict_set(&names().__slots__, &imports().empty_tuple)?;
        let bases = tuple(&[&class_of_sets])?;
        let class = class_of_sets.get_type().call(&[&*text("IteratingGuards")?, &*bases, &*namespace])?;
        let guards = class.call0()?;
        crate::types::add_method(&class, method1(c"add", on_iteration))?;
        all_tasks.set_attribute(&names()._iterating, &guards)
    }

    /// Somebody begins to iterate over the WeakSet: every live task goes into it first.
    fn on_iteration(guards: &Any, guard: &Any) -> Result<()> {
        set_add(guards, guard)?;
        for task in live_tasks() {
            add_to_all_tasks(&task)?;
        }
        Ok(())
    }

    /// The tasks in our own list.
    fn live_tasks() -> Vec<Object> {
        let mut live = Vec::new();
        let head: *const ListNode = &HEAD.0;
        let mut node = HEAD.0.next.get();
        while !std::ptr::eq(node, head) {
            // SAFETY: G1: every node but the head is that of a live task.
            unsafe {
                live.push(crate::version::task_of_node(node));
                node = (*node).next.get();
            }
        }
        live
    }

    /// `asyncio.all_tasks(event_loop)`, without ioxide's tasks entering the WeakSet: a set of the loop's tasks that are
    /// not done.
    pub fn all_tasks(event_loop: &Any) -> Result<Object> {
        // All of them first: asking a task may run Python, which may change what is iterated over.
        let mut tasks = live_tasks();
        if let Some(eager) = EAGER_TASKS.get() {
            tasks.extend(eager.iterate()?.collect::<Result<Vec<Object>>>()?);
        }
        let references = ALL_TASKS.get().get_attribute_str(c"data")?.iterate()?;
        for reference in references.collect::<Result<Vec<Object>>>()? {
            tasks.extend(weak_referent(&reference)?);
        }
        let found = set()?;
        for task in tasks {
            let task_loop = match task.get_attribute_optional(&names().get_loop)? {
                Some(get_loop) => get_loop.call0()?,
                None => task.get_attribute(&names()._loop)?,
            };
            if task_loop.is(event_loop) && !task.call_method0(&names().done)?.is_true()? {
                set_add(&found, &task)?;
            }
        }
        Ok(found)
    }

    /// `WeakSet.add` as it is outside of an iteration: straight into its set of references.
    fn add_to_all_tasks(task: &Any) -> Result<()> {
        let all_tasks = ALL_TASKS.get();
        let remove = all_tasks.get_attribute_str(c"_remove")?;
        let reference = import(c"weakref")?.get_attribute_str(c"ref")?.call(&[task, &remove])?;
        set_add(&*all_tasks.get_attribute_str(c"data")?, &reference)
    }

    pub fn register_first(task: &TaskObject) -> Result<()> {
        task.node.link_after(&HEAD.0);
        Ok(())
    }
}
