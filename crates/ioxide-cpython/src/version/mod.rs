//! What differs from one Python version to the next: the C structs of asyncio's classes (`layout`), where instances keep
//! their attributes (`attributes`), the error indicator, what asyncio's own functions say (`code`), single rules.
//!
//! ioxide's Future, Task and Handle keep their state in the very fields of the classes they derive from, so
//! every inherited or unbound method of asyncio reads the truth. `verify_layout` compares the sizes of the structs with
//! the running interpreter's when the module is imported and refuses to load where they differ.

mod attributes;
mod code;
mod layout;
mod rules;
mod thread_state;

pub use attributes::has_instance_attributes;
pub use code::Code;
#[cfg(not(Py_3_14))]
pub(crate) use layout::task_of_node;
pub use layout::{
    FutureObject, FutureState, HandleObject, InstanceHead, ListNode, StopIterationObject, TaskObject,
    TimerHandleObject, as_future,
};
pub(crate) use rules::initialize as initialize_rules;
pub use rules::{Rules, ShieldedFailure, WaitClosed, rules};
pub(crate) use thread_state::coroutine_origin_tracking_depth;

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;
#[cfg(not(Py_3_13))]
use std::ffi::c_int;

/// Bytes of ioxide's own behind `_asyncio.Task`'s struct.
const TASK_TAIL: usize = if cfg!(Py_3_14) { 0 } else { size_of::<ListNode>() };

/// Whether the running interpreter lays its classes out as this file says. Fails: ImportError.
pub(crate) fn verify_layout(future: &Any, task: &Any, handle: &Any, timer_handle: &Any) -> Result<()> {
    let expected = [
        (future, size_of::<FutureObject>()),
        (task, size_of::<TaskObject>() - TASK_TAIL),
        (handle, size_of::<HandleObject>()),
        (timer_handle, size_of::<TimerHandleObject>()),
    ];
    for (class, size) in expected {
        // SAFETY: classes, by the import table.
        let found = unsafe { (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_basicsize } as usize;
        if found != size {
            let message = format!(
                "asyncio: {} has {found} bytes here and {size} where it was built",
                crate::exception::type_name_of_class(class),
            );
            return Err(built_for_another_layout_of(&message));
        }
    }
    attributes::verify()?;
    verify_slots(handle, &HANDLE_SLOTS)?;
    verify_slots(timer_handle, &TIMER_HANDLE_SLOTS)
}

/// What a Python that ioxide was not built for raises when it imports ioxide: ImportError.
#[cold]
pub(crate) fn built_for_another_layout_of(what: &str) -> Raised {
    let message = format!("ioxide was built for another layout of {what}");
    // SAFETY: the interpreter never frees ImportError.
    Raised::new(unsafe { Any::from_ptr(ffi::PyExc_ImportError) }, &message)
}

/// Whether StopIteration has the struct that `returned` fills. Fails: ImportError.
pub(crate) fn verify_stop_iteration(class: &Any) -> Result<()> {
    // SAFETY: a class.
    let size = unsafe { (*class.as_ptr().cast::<ffi::PyTypeObject>()).tp_basicsize } as usize;
    let descriptor = class.get_attribute(&crate::names().value)?;
    let offset = member_offset(&descriptor);
    let expected = std::mem::offset_of!(StopIterationObject, value);
    if size == size_of::<StopIterationObject>() && offset == Some(expected) {
        return thread_state::initialize();
    }
    Err(built_for_another_layout_of("StopIteration"))
}

const HANDLE_SLOTS: [(&std::ffi::CStr, usize); 7] = [
    (c"_args", std::mem::offset_of!(HandleObject, arguments)),
    (c"_callback", std::mem::offset_of!(HandleObject, callback)),
    (c"_cancelled", std::mem::offset_of!(HandleObject, cancelled)),
    (c"_context", std::mem::offset_of!(HandleObject, context)),
    (c"_loop", std::mem::offset_of!(HandleObject, event_loop)),
    (c"_repr", std::mem::offset_of!(HandleObject, repr)),
    (c"_source_traceback", std::mem::offset_of!(HandleObject, source_traceback)),
];

const TIMER_HANDLE_SLOTS: [(&std::ffi::CStr, usize); 2] = [
    (c"_scheduled", std::mem::offset_of!(TimerHandleObject, scheduled)),
    (c"_when", std::mem::offset_of!(TimerHandleObject, when)),
];

fn verify_slots(class: &Any, slots: &[(&std::ffi::CStr, usize)]) -> Result<()> {
    for (name, offset) in slots {
        let descriptor = class.get_attribute_str(name)?;
        if member_offset(&descriptor) != Some(*offset) {
            return Err(built_for_another_layout_of(&format!("asyncio's {}", name.to_string_lossy())));
        }
    }
    Ok(())
}

/// Where the field of a `member_descriptor` (a slot of a Python class) lies.
pub(crate) fn member_offset(descriptor: &Any) -> Option<usize> {
    // SAFETY: the type check comes first; the descriptor keeps its definition alive.
    unsafe {
        if descriptor.type_ptr() != &raw mut ffi::PyMemberDescr_Type {
            return None;
        }
        let descriptor = descriptor.as_ptr().cast::<ffi::PyMemberDescrObject>();
        usize::try_from((*(*descriptor).d_member).offset).ok()
    }
}

#[cfg(Py_3_12)]
pub(crate) fn take_raised_exception() -> Option<Object> {
    // SAFETY: O1; an owned reference or null.
    unsafe { Object::from_owned_or_none(ffi::PyErr_GetRaisedException()) }
}

#[cfg(not(Py_3_12))]
pub(crate) fn take_raised_exception() -> Option<Object> {
    let (mut class, mut value, mut traceback) =
        (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: O1; all three are owned references or null, and stay so after normalisation.
    unsafe {
        ffi::PyErr_Fetch(&mut class, &mut value, &mut traceback);
        if class.is_null() {
            return None;
        }
        ffi::PyErr_NormalizeException(&mut class, &mut value, &mut traceback);
        let traceback = Object::from_owned_or_none(traceback);
        drop(Object::from_owned_or_none(class));
        if let Some(traceback) = traceback {
            ffi::PyException_SetTraceback(value, traceback.as_ptr());
        }
        Object::from_owned_or_none(value)
    }
}

#[cfg(Py_3_12)]
pub(crate) fn restore_raised_exception(exception: Object) {
    // SAFETY: O1; steals the reference.
    unsafe { ffi::PyErr_SetRaisedException(exception.into_ptr()) }
}

#[cfg(not(Py_3_12))]
pub(crate) fn restore_raised_exception(exception: Object) {
    // SAFETY: O1; steals three references.
    unsafe {
        let traceback = ffi::PyException_GetTraceback(exception.as_ptr());
        let class = exception.get_type().to_object();
        ffi::PyErr_Restore(class.into_ptr(), exception.into_ptr(), traceback);
    }
}

/// Forgets weak references and instance attributes of a Future or Task that is about to be freed or reused.
pub fn clear_instance_attributes(future: &FutureObject) {
    // SAFETY: O1; the classes have weak references and a dictionary in every version (V1).
    unsafe {
        ffi::PyObject_ClearWeakRefs(future.as_ptr());
        #[cfg(Py_3_13)]
        PyObject_ClearManagedDict(future.as_ptr());
        #[cfg(not(Py_3_13))]
        drop(Object::from_owned_or_none(future.dict.replace(std::ptr::null_mut())));
    }
}

#[cfg(Py_3_13)]
unsafe extern "C" {
    fn PyObject_ClearManagedDict(object: *mut ffi::PyObject);
}

/// Whether the class itself must be shown to the collector by an instance's traverse, because the base's does not.
pub(crate) const BASE_TRAVERSE_SKIPS_TYPE: bool = !cfg!(Py_3_12);

/// The version of what attribute look-up finds on the object's class: another number after every change of the class or
/// of a base, 0 where nobody has looked since.
#[inline(always)]
pub fn class_version(object: &Any) -> u32 {
    // SAFETY: O2; an object keeps its type alive, and the field is in every version.
    unsafe { (*object.type_ptr()).tp_version_tag }
}

/// Whether the interpreter is shutting down.
///
/// # Safety
/// The interpreter is initialised.
pub(crate) unsafe fn is_finalizing() -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(Py_3_13)]
        return ffi::Py_IsFinalizing() != 0;
        #[cfg(not(Py_3_13))]
        return _Py_IsFinalizing() != 0;
    }
}

#[cfg(not(Py_3_13))]
unsafe extern "C" {
    fn _Py_IsFinalizing() -> c_int;
}

/// Whether a program's exception handler runs in the context of what the report is about.
pub const HANDLER_RUNS_IN_CONTEXT: bool = cfg!(Py_3_12);

/// Whether `shutdown_default_executor` has a timeout.
pub const EXECUTOR_SHUTDOWN_TAKES_TIMEOUT: bool = cfg!(Py_3_12);

/// Whether StreamReader takes bytes out of its buffer by `bytearray.take_bytes`, with that method's errors.
pub const STREAM_READER_TAKES_BYTES: bool = cfg!(Py_3_15);

/// Whether coroutines have `cr_state`.
pub const COROUTINES_TELL_STATE: bool = cfg!(Py_3_15);

/// How many turns pass between the end of a child and `_process_exited` of its transport.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ExitIsAnnounced {
    InTwoTurns,
    InTheNextTurn,
    AtOnce,
}

pub const EXIT_IS_ANNOUNCED: ExitIsAnnounced = if cfg!(Py_3_14) {
    ExitIsAnnounced::AtOnce
} else if cfg!(Py_3_12) {
    ExitIsAnnounced::InTheNextTurn
} else {
    ExitIsAnnounced::InTwoTurns
};

/// Whether `with watcher as entered:` is meant by asyncio, so that another object may watch children.
pub const ENTERED_VALUE_WATCHES_CHILDREN: bool = !cfg!(Py_3_12);

/// Whether a cancellation while a child is being ended leaves that to go on.
pub const EXIT_WAIT_IS_SHIELDED: bool = cfg!(Py_3_14);

/// Whether `Task` refuses a context that is none, and a second `__init__`.
pub const CHECKS_CONTEXT: bool = cfg!(Py_3_15);
pub const INITIALIZES_ONCE: bool = cfg!(Py_3_15);

/// Whether a Unix server removes its socket's file where nobody says that it should or should not.
pub const CLEANUP_SOCKET: bool = cfg!(Py_3_13);

/// Whether `Server._attach` and `_detach` are handed the transport.
pub const SERVERS_KNOW_CLIENTS: bool = cfg!(Py_3_13);

/// Whether connections are given one context for all their callbacks.
pub const CONNECTIONS_HAVE_CONTEXT: bool = cfg!(Py_3_15);

/// A number that changes with the class or any of its bases, and is zero while nobody has looked anything up in it.
#[inline(always)]
pub(crate) fn type_version(class: *mut ffi::PyTypeObject) -> u32 {
    // SAFETY: O1; a class that an object keeps alive.
    unsafe { (*class).tp_version_tag }
}

/// Whether a file that is sent by hand is read from `offset` in any case, also zero, and its position is set where the
/// sending ended in any case, also where nothing was sent; and whether the transport is waited for after writing.
pub const SENDFILE_ALWAYS_SEEKS: bool = cfg!(Py_3_14);

/// Whether `gather` counts children that are done already at once, and not in the next turn.
pub const GATHER_COUNTS_DONE_AT_ONCE: bool = cfg!(Py_3_12);

/// Whether every argument of a call is a reference of its own.
pub(crate) const CALLS_OWN_ARGUMENTS: bool = cfg!(not(Py_3_14));

/// Whether `wait_for` awaits in the caller's own task.
pub const WAITS_IN_OWN_TASK: bool = cfg!(Py_3_12);

/// What the TypeError of `await` says about an object of a class that cannot be awaited.
pub(crate) fn cannot_be_awaited(class: &str) -> String {
    match cfg!(Py_3_14) {
        true => format!("'{class}' object can't be awaited"),
        false => format!("object {class} can't be used in 'await' expression"),
    }
}

/// Whether futures note who awaits them.
pub const HAS_CALL_GRAPH: bool = cfg!(Py_3_14);

/// Whether `create_task` forwards whatever keywords it is given.
pub const CREATE_TASK_FORWARDS: bool = cfg!(Py_3_14);

/// Whether the factories of `create_eager_task_factory` forward whatever keywords they are given.
pub const EAGER_FACTORY_FORWARDS: bool = cfg!(Py_3_14);

/// Whether `as_completed` is a generator function, in which nothing happens before the first step.
pub const AS_COMPLETED_IS_GENERATOR: bool = !cfg!(Py_3_13);
