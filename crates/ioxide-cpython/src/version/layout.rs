//! The C structs of asyncio's Future, Task and Handle, and what is done to their fields.
//!
//! Invariants:
//! V1. The structs mirror Modules/_asynciomodule.c and Lib/asyncio/events.py of each version, field by field.

#[cfg(Py_3_14)]
use crate::object::Raised;
use crate::object::{Any, Result, Slot};
use pyo3_ffi as ffi;
use std::cell::Cell;
use std::ffi::c_int;
use std::ops::Deref;

/// `fut_state` of `_asyncio.Future`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FutureState {
    Pending,
    Cancelled,
    Finished,
}

/// The struct of `_asyncio.Future` (V1).
#[repr(C)]
pub struct FutureObject {
    head: Any,
    pub event_loop: Slot,
    pub callback0: Slot,
    pub context0: Slot,
    pub callbacks: Slot,
    pub exception: Slot,
    pub exception_traceback: Slot,
    pub result: Slot,
    pub source_traceback: Slot,
    pub cancel_message: Slot,
    #[cfg(Py_3_13)]
    pub cancelled_exception: Slot,
    #[cfg(Py_3_14)]
    pub awaited_by: Slot,
    state: Cell<c_int>,
    #[cfg(not(Py_3_13))]
    log_traceback: Cell<c_int>,
    #[cfg(not(Py_3_13))]
    blocking: Cell<c_int>,
    #[cfg(not(Py_3_13))]
    pub(super) dict: Cell<*mut ffi::PyObject>,
    #[cfg(not(Py_3_13))]
    weak_references: Cell<*mut ffi::PyObject>,
    #[cfg(not(Py_3_13))]
    pub cancelled_exception: Slot,
    #[cfg(Py_3_14)]
    is_task: Cell<u8>,
    #[cfg(Py_3_14)]
    awaited_by_is_set: Cell<u8>,
    #[cfg(Py_3_13)]
    flags: Cell<u8>,
}

/// The bit fields of 3.13 and later, shared by Future and Task.
#[cfg(Py_3_13)]
mod flag {
    pub const LOG_TRACEBACK: u8 = 1;
    pub const BLOCKING: u8 = 2;
    pub const MUST_CANCEL: u8 = 4;
    pub const LOG_DESTROY_PENDING: u8 = 8;
}

/// The struct of `_asyncio.Task` (V1). Until 3.13 `node` is ioxide's own and lies behind asyncio's fields.
#[repr(C)]
pub struct TaskObject {
    future: FutureObject,
    #[cfg(Py_3_13)]
    cancels_requested: Cell<c_int>,
    pub awaited: Slot,
    pub coroutine: Slot,
    pub name: Slot,
    pub context: Slot,
    #[cfg(not(Py_3_13))]
    must_cancel: Cell<c_int>,
    #[cfg(not(Py_3_13))]
    log_destroy_pending: Cell<c_int>,
    #[cfg(not(Py_3_13))]
    cancels_requested: Cell<c_int>,
    pub node: ListNode,
}

/// A node of a circular doubly linked list: `struct llist_node` of CPython. Null pointers: in no list.
#[repr(C)]
pub struct ListNode {
    pub next: Cell<*const ListNode>,
    pub previous: Cell<*const ListNode>,
}

/// The slots of `asyncio.Handle`, in the order in which `type` lays them out: by name.
#[repr(C)]
pub struct HandleObject {
    head: Any,
    pub arguments: Slot,
    pub callback: Slot,
    pub cancelled: Slot,
    pub context: Slot,
    pub event_loop: Slot,
    pub repr: Slot,
    pub source_traceback: Slot,
    #[cfg(not(Py_3_12))]
    weak_references: Cell<*mut ffi::PyObject>,
}

/// The struct of StopIteration.
#[repr(C)]
pub struct StopIterationObject {
    head: Any,
    dict: Slot,
    pub arguments: Slot,
    notes: Slot,
    traceback: Slot,
    context: Slot,
    cause: Slot,
    suppress_context: Cell<std::ffi::c_char>,
    pub value: Slot,
}

impl StopIterationObject {
    /// Whether nothing but its value and its arguments has been given to the exception.
    #[inline]
    pub fn is_bare(&self) -> bool {
        [&self.dict, &self.notes, &self.traceback, &self.context, &self.cause]
            .iter()
            .all(|slot| slot.is_empty())
    }
}

/// The slots of `asyncio.TimerHandle`.
#[repr(C)]
pub struct TimerHandleObject {
    pub handle: HandleObject,
    pub scheduled: Slot,
    pub when: Slot,
}

/// What every instance of a class written in Python begins with, unless the class has `__slots__`.
#[repr(C)]
pub struct InstanceHead {
    head: Any,
    #[cfg(not(Py_3_12))]
    weak_references: Cell<*mut ffi::PyObject>,
}

impl ListNode {
    #[inline(always)]
    pub fn is_linked(&self) -> bool {
        !self.next.get().is_null()
    }

    /// Links a node that is in no list behind `neighbour`, which is in one.
    #[inline(always)]
    pub fn link_after(&self, neighbour: &ListNode) {
        let next = neighbour.next.get();
        self.previous.set(neighbour);
        self.next.set(next);
        // SAFETY: the neighbours of a linked node are alive.
        unsafe { (*next).previous.set(self) };
        neighbour.next.set(self);
    }

    /// Takes a linked node out of its list.
    #[inline(always)]
    pub fn unlink(&self) {
        let (next, previous) = (self.next.get(), self.previous.get());
        // SAFETY: the neighbours of a linked node are alive.
        unsafe {
            (*next).previous.set(previous);
            (*previous).next.set(next);
        }
        self.next.set(std::ptr::null());
        self.previous.set(std::ptr::null());
    }
}

/// The task whose node this is. Refs: new.
///
/// # Safety
/// The node is that of a live task.
#[cfg(not(Py_3_14))]
pub unsafe fn task_of_node(node: *const ListNode) -> crate::object::Object {
    // SAFETY: the caller's promise: the node lies at its place in a task.
    unsafe {
        let task = node.cast::<u8>().sub(std::mem::offset_of!(TaskObject, node));
        Any::from_ptr(task.cast_mut().cast()).to_object()
    }
}

/// One of asyncio's own futures (or tasks) as the struct it is.
///
/// Panics: never for an instance of `asyncio.Future`, which the caller has checked.
pub fn as_future(future: &Any) -> &FutureObject {
    debug_assert!(future.is_subtype_of(&crate::imports().Future));
    // SAFETY: an instance of asyncio.Future, by the caller's check, has its struct (V1).
    unsafe { &*future.as_ptr().cast() }
}

impl Deref for FutureObject {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.head
    }
}

impl Deref for InstanceHead {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.head
    }
}

impl Deref for TaskObject {
    type Target = FutureObject;
    #[inline(always)]
    fn deref(&self) -> &FutureObject {
        &self.future
    }
}

impl Deref for HandleObject {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.head
    }
}

impl Deref for TimerHandleObject {
    type Target = HandleObject;
    #[inline(always)]
    fn deref(&self) -> &HandleObject {
        &self.handle
    }
}

macro_rules! flag_accessors {
    ($get:ident, $set:ident, $field:ident, $bit:ident) => {
        #[inline(always)]
        pub fn $get(&self) -> bool {
            #[cfg(not(Py_3_13))]
            return self.$field.get() != 0;
            #[cfg(Py_3_13)]
            return self.flags.get() & flag::$bit != 0;
        }

        #[inline(always)]
        pub fn $set(&self, value: bool) {
            #[cfg(not(Py_3_13))]
            self.$field.set(c_int::from(value));
            #[cfg(Py_3_13)]
            self.flags.set(if value {
                self.flags.get() | flag::$bit
            } else {
                self.flags.get() & !flag::$bit
            });
        }
    };
}

impl FutureObject {
    flag_accessors!(log_traceback, set_log_traceback, log_traceback, LOG_TRACEBACK);
    flag_accessors!(blocking, set_blocking, blocking, BLOCKING);

    #[inline(always)]
    pub fn state(&self) -> FutureState {
        match self.state.get() {
            0 => FutureState::Pending,
            1 => FutureState::Cancelled,
            _ => FutureState::Finished,
        }
    }

    #[inline(always)]
    pub fn is_pending(&self) -> bool {
        self.state.get() == 0
    }

    #[inline(always)]
    pub fn set_state(&self, state: FutureState) {
        self.state.set(state as c_int);
    }

    /// Marks the object as a task for debuggers that read its memory.
    #[inline(always)]
    pub fn mark_as_task(&self) {
        #[cfg(Py_3_14)]
        self.is_task.set(1);
    }

    /// Who awaits this future: one task, or a set of several, for the call graph of 3.14 and its tools.
    #[cfg(Py_3_14)]
    pub fn awaited_by_add(&self, task: &Any) -> Result<()> {
        let Some(first) = self.awaited_by.get_object() else {
            self.awaited_by.set(task.to_object());
            return Ok(());
        };
        if self.awaited_by_is_set.get() != 0 {
            return crate::value::set_add(&first, task);
        }
        let waiters = crate::value::set()?;
        crate::value::set_add(&waiters, &first)?;
        crate::value::set_add(&waiters, task)?;
        self.awaited_by.set(waiters);
        self.awaited_by_is_set.set(1);
        Ok(())
    }

    #[cfg(Py_3_14)]
    pub fn awaited_by_discard(&self, task: &Any) -> Result<()> {
        if self.awaited_by.is(task) {
            self.awaited_by.clear();
            return Ok(());
        }
        match self.awaited_by.get_object() {
            Some(waiters) if self.awaited_by_is_set.get() != 0 => {
                // SAFETY: O1; the flag says that this is a set.
                if unsafe { ffi::PySet_Discard(waiters.as_ptr(), task.as_ptr()) } < 0 {
                    // SAFETY: a negative status comes with the error indicator set.
                    return Err(unsafe { Raised::assume() });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Before 3.14 nobody asks.
    #[cfg(not(Py_3_14))]
    #[inline(always)]
    pub fn awaited_by_add(&self, _task: &Any) -> Result<()> {
        Ok(())
    }

    #[cfg(not(Py_3_14))]
    #[inline(always)]
    pub fn awaited_by_discard(&self, _task: &Any) -> Result<()> {
        Ok(())
    }

    /// Drops every reference of the struct. Runs Python: finalizers.
    pub fn clear_fields(&self) {
        self.event_loop.clear();
        self.callback0.clear();
        self.context0.clear();
        self.callbacks.clear();
        self.exception.clear();
        self.exception_traceback.clear();
        self.result.clear();
        self.source_traceback.clear();
        self.cancel_message.clear();
        self.cancelled_exception.clear();
        #[cfg(Py_3_14)]
        {
            self.awaited_by.clear();
            self.awaited_by_is_set.set(0);
        }
    }
}

impl TaskObject {
    #[inline(always)]
    pub fn must_cancel(&self) -> bool {
        #[cfg(not(Py_3_13))]
        return self.must_cancel.get() != 0;
        #[cfg(Py_3_13)]
        return self.future.flags.get() & flag::MUST_CANCEL != 0;
    }

    #[inline(always)]
    pub fn set_must_cancel(&self, value: bool) {
        #[cfg(not(Py_3_13))]
        self.must_cancel.set(c_int::from(value));
        #[cfg(Py_3_13)]
        self.set_flag(flag::MUST_CANCEL, value);
    }

    #[inline(always)]
    pub fn set_log_destroy_pending(&self, value: bool) {
        #[cfg(not(Py_3_13))]
        self.log_destroy_pending.set(c_int::from(value));
        #[cfg(Py_3_13)]
        self.set_flag(flag::LOG_DESTROY_PENDING, value);
    }

    #[cfg(Py_3_13)]
    #[inline(always)]
    fn set_flag(&self, bit: u8, value: bool) {
        let flags = self.future.flags.get();
        self.future.flags.set(if value { flags | bit } else { flags & !bit });
    }

    #[inline(always)]
    pub fn cancels_requested(&self) -> c_int {
        self.cancels_requested.get()
    }

    #[inline(always)]
    pub fn set_cancels_requested(&self, count: c_int) {
        self.cancels_requested.set(count);
    }

    /// Drops every reference of the struct. Runs Python: finalizers.
    pub fn clear_task_fields(&self) {
        self.future.clear_fields();
        self.context.clear();
        self.coroutine.clear();
        self.name.clear();
        self.awaited.clear();
    }
}

impl HandleObject {
    #[inline(always)]
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: True is never freed.
        self.cancelled.is(unsafe { Any::from_ptr(ffi::Py_True()) })
    }

    /// Drops every reference of the struct. Runs Python: finalizers.
    pub fn clear_slots(&self) {
        self.arguments.clear();
        self.callback.clear();
        self.cancelled.clear();
        self.context.clear();
        self.event_loop.clear();
        self.repr.clear();
        self.source_traceback.clear();
    }
}

impl StopIterationObject {
    /// Drops every reference of the struct. Runs Python: finalizers.
    pub fn clear_fields(&self) {
        self.dict.clear();
        self.arguments.clear();
        self.notes.clear();
        self.traceback.clear();
        self.context.clear();
        self.cause.clear();
        self.suppress_context.set(0);
        self.value.clear();
    }
}

impl TimerHandleObject {
    pub fn clear_timer_slots(&self) {
        self.handle.clear_slots();
        self.scheduled.clear();
        self.when.clear();
    }
}
