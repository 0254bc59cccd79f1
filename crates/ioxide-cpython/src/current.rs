//! Which loop runs in this thread and which task it is in, told to asyncio so that `asyncio.get_running_loop`,
//! `asyncio.current_task` and every debugger see ioxide's.
//!
//! Until 3.13 asyncio keeps the current tasks in a dictionary, from 3.14 on in the thread state.

#[cfg(not(Py_3_14))]
mod entry;

use crate::imports::imports;
use crate::object::{Any, Object, Raised, Result};
use crate::once::Once;
use pyo3_ffi as ffi;

struct Functions {
    #[cfg(not(Py_3_14))]
    current_tasks: Object,
    #[cfg(Py_3_14)]
    enter_task: Object,
    #[cfg(Py_3_14)]
    leave_task: Object,
    #[cfg(Py_3_14)]
    swap_current_task: Object,
    #[cfg(Py_3_14)]
    current_task: Object,
    /// The current tasks of asyncio's Python class, which tells the thread state nothing of them.
    #[cfg(Py_3_14)]
    current_python_tasks: Object,
}

static FUNCTIONS: Once<Functions> = Once::new();

/// The C function behind `asyncio._get_running_loop`, called without the checks of a call.
struct RunningLoop {
    function: ffi::PyCFunction,
    module: *mut ffi::PyObject,
}

// SAFETY: a function and a module that live forever; used under the GIL only (O1).
unsafe impl Sync for RunningLoop {}

static RUNNING_LOOP: Once<Option<RunningLoop>> = Once::new();

/// `None` where `asyncio._get_running_loop` is no function of C without parameters.
fn find_running_loop() -> Option<RunningLoop> {
    let function = imports().get_running_loop.as_ptr();
    // SAFETY: O2; a built-in function of exactly this class has these parts, and `imports` keeps it alive.
    unsafe {
        let is_built_in = ffi::PyCFunction_CheckExact(function) == 1;
        if !is_built_in || ffi::PyCFunction_GetFlags(function) != ffi::METH_NOARGS {
            return None;
        }
        let module = ffi::PyCFunction_GetSelf(function);
        ffi::PyCFunction_GetFunction(function).map(|function| RunningLoop { function, module })
    }
}

pub(crate) fn initialize() -> Result<()> {
    RUNNING_LOOP.set(find_running_loop());
    let module = &imports().asyncio_c_module;
    FUNCTIONS.set(Functions {
        #[cfg(not(Py_3_14))]
        current_tasks: module.get_attribute_str(c"_current_tasks")?,
        #[cfg(Py_3_14)]
        enter_task: module.get_attribute_str(c"_enter_task")?,
        #[cfg(Py_3_14)]
        leave_task: module.get_attribute_str(c"_leave_task")?,
        #[cfg(Py_3_14)]
        swap_current_task: module.get_attribute_str(c"_swap_current_task")?,
        #[cfg(Py_3_14)]
        current_task: module.get_attribute_str(c"current_task")?,
        #[cfg(Py_3_14)]
        current_python_tasks: crate::call::import(c"asyncio.tasks")?.get_attribute_str(c"_current_tasks")?,
    });
    Ok(())
}

/// `asyncio._get_running_loop()`: the loop that runs in this thread.
#[inline]
pub fn running_loop() -> Result<Option<Object>> {
    let event_loop = match RUNNING_LOOP.get() {
        // SAFETY: O1; the convention METH_NOARGS.
        Some(running) => unsafe {
            Object::from_owned((running.function)(running.module, std::ptr::null_mut()))?
        },
        None => imports().get_running_loop.call0()?,
    };
    Ok((!event_loop.is_none()).then_some(event_loop))
}

/// `asyncio._set_running_loop(event_loop)`
pub fn set_running_loop(event_loop: Option<&Any>) -> Result<()> {
    imports().set_running_loop.call1(event_loop.unwrap_or(crate::none())).map(drop)
}

/// Says that `task` is being stepped by `event_loop`. Fails: RuntimeError where another one is.
#[cfg(not(Py_3_14))]
#[inline]
pub fn enter_task(event_loop: &Any, task: &Any) -> Result<()> {
    let current = &FUNCTIONS.get().current_tasks;
    // SAFETY: O1; a dictionary. The answer is borrowed: the task itself, or the one already there.
    unsafe {
        let entered = ffi::PyDict_SetDefault(current.as_ptr(), event_loop.as_ptr(), task.as_ptr());
        match Any::from_ptr_or_none(entered) {
            Some(entered) if entered.is(task) => Ok(()),
            Some(other) => Err(cannot_enter(task, &other.to_object())),
            None => Err(Raised::assume()),
        }
    }
}

#[cfg(not(Py_3_14))]
#[cold]
fn cannot_enter(task: &Any, other: &Any) -> Raised {
    message_of_two("Cannot enter into task ", task, " while another task ", other, " is being executed.")
}

#[cfg(not(Py_3_14))]
#[cold]
fn message_of_two(start: &str, first: &Any, middle: &str, second: &Any, end: &str) -> Raised {
    let texts = first.repr().and_then(|first| Ok((first.to_text()?, second.repr()?.to_text()?)));
    match texts {
        Ok((first, second)) => {
            Raised::runtime_error(&format!("{start}{}{middle}{}{end}", first.as_str(), second.as_str()))
        }
        Err(raised) => raised,
    }
}

/// Says that the step of `task` is over. Fails: RuntimeError where another one is current.
#[cfg(not(Py_3_14))]
#[inline]
pub fn leave_task(event_loop: &Any, task: &Any) -> Result<()> {
    let current = &FUNCTIONS.get().current_tasks;
    let entered = current.dict_get(event_loop)?;
    match entered {
        Some(entered) if entered.is(task) => current.dict_delete(event_loop),
        other => {
            let other = other.unwrap_or_else(crate::none_object);
            Err(message_of_two("Leaving task ", task, " does not match the current task ", &other, "."))
        }
    }
}

/// Says that `task` is being stepped, in the place of whichever task was before.
#[cfg(not(Py_3_14))]
#[inline]
pub fn publish_task(event_loop: &Any, task: &Any) -> Result<()> {
    let current = &FUNCTIONS.get().current_tasks;
    match entry::replace(current, event_loop, task) {
        true => Ok(()),
        false => {
            current.dict_set(event_loop, task)?;
            entry::find(current, event_loop, task)
        }
    }
}

/// Says that no task is being stepped.
#[cfg(not(Py_3_14))]
pub fn unpublish_task(event_loop: &Any) -> Result<()> {
    entry::forget();
    FUNCTIONS.get().current_tasks.dict_delete(event_loop)
}

/// Says that `task` is being stepped, in the place of whichever task was before.
#[cfg(Py_3_14)]
#[inline]
pub fn publish_task(event_loop: &Any, task: &Any) -> Result<()> {
    FUNCTIONS.get().swap_current_task.call(&[event_loop, task]).map(drop)
}

/// Says that no task is being stepped.
#[cfg(Py_3_14)]
pub fn unpublish_task(event_loop: &Any) -> Result<()> {
    publish_task(event_loop, crate::none())
}

/// Puts `task` in the place of the current task, which it returns (None for no task).
#[cfg(not(Py_3_14))]
pub fn swap_task(event_loop: &Any, task: &Any) -> Result<Object> {
    let current = &FUNCTIONS.get().current_tasks;
    let previous = current.dict_get(event_loop)?;
    if task.is_none() {
        if previous.is_some() {
            current.dict_delete(event_loop)?;
        }
    } else {
        current.dict_set(event_loop, task)?;
    }
    Ok(previous.unwrap_or_else(crate::none_object))
}

/// Says that `task` is being stepped by `event_loop`. Fails: RuntimeError where another one is.
#[cfg(Py_3_14)]
#[inline]
pub fn enter_task(event_loop: &Any, task: &Any) -> Result<()> {
    FUNCTIONS.get().enter_task.call(&[event_loop, task]).map(drop)
}

/// Says that the step of `task` is over. Fails: RuntimeError where another one is current.
#[cfg(Py_3_14)]
#[inline]
pub fn leave_task(event_loop: &Any, task: &Any) -> Result<()> {
    FUNCTIONS.get().leave_task.call(&[event_loop, task]).map(drop)
}

/// Puts `task` in the place of the current task, which it returns (None for no task).
#[cfg(Py_3_14)]
pub fn swap_task(event_loop: &Any, task: &Any) -> Result<Object> {
    FUNCTIONS.get().swap_current_task.call(&[event_loop, task])
}

/// `asyncio.current_task(event_loop)`
#[cfg(not(Py_3_14))]
#[inline]
pub fn current_task(event_loop: &Any) -> Result<Option<Object>> {
    let current = &FUNCTIONS.get().current_tasks;
    match entry::get(current, event_loop) {
        Some(task) => Ok(Some(task)),
        None => current.dict_get(event_loop),
    }
}

/// `asyncio.current_task(event_loop)`
#[cfg(Py_3_14)]
#[inline]
pub fn current_task(event_loop: &Any) -> Result<Option<Object>> {
    let functions = FUNCTIONS.get();
    let task = functions.current_task.call1(event_loop)?;
    match task.is_none() {
        false => Ok(Some(task)),
        true => functions.current_python_tasks.dict_get(event_loop),
    }
}

/// `asyncio.get_running_loop()`. Fails: RuntimeError where no loop runs in this thread.
#[inline]
pub fn get_running_loop() -> Result<Object> {
    running_loop()?.ok_or_else(|| Raised::runtime_error("no running event loop"))
}

/// `threading.get_ident()`
#[inline]
pub fn thread_id() -> u64 {
    // SAFETY: may be asked on any thread.
    unsafe { ffi::PyThread_get_thread_ident() as u64 }
}
