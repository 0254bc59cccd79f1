//! The entry of a loop in asyncio's dictionary of current tasks, where a task's step puts the task in the place of the one
//! before. That is what setting the item does, without hashing and looking up at each step.
//!
//! Invariants:
//! E1. While the dictionary has the block of entries that it had when `entry` was found in it, `entry` lies in that block.
//!     Any insertion that moves entries takes another block; a deletion empties the entry.
//! E2. An entry is three words: the hash, the key, the value. One whose words are the loop's hash, the loop and a task is
//!     the loop's.
//! E3. A dictionary's smallest block of entries for keys that are no strings has `SEARCHED` words.

use crate::object::{Any, Object, Raised, Result};
use pyo3_ffi as ffi;
use std::cell::Cell;
use std::ptr::null_mut;

/// Words at the beginning of a block in which the entry is looked for: four of the head, one of indices, and five entries. Each
/// time that a loop is set anew takes the next entry, until all are used.
const SEARCHED: usize = 20;

#[repr(C)]
struct Entry {
    hash: ffi::Py_hash_t,
    key: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
}

struct Place {
    block: Cell<*mut ffi::PyDictKeysObject>,
    entry: Cell<*mut Entry>,
    /// How many tasks were set in a row without it: one that is taken out at once need not be found.
    missed: Cell<u32>,
}

// SAFETY: touched under the GIL only (O1).
unsafe impl Sync for Place {}

static PLACE: Place =
    Place { block: Cell::new(null_mut()), entry: Cell::new(null_mut()), missed: Cell::new(0) };

/// The place of the loop's current task, if it is known and there is one.
#[inline(always)]
fn place(current: &Any, event_loop: &Any) -> Option<*mut Entry> {
    // SAFETY: O1; `current` is a dictionary; E1 says that the entry can be read.
    unsafe {
        let block = (*current.as_ptr().cast::<ffi::PyDictObject>()).ma_keys;
        let entry = PLACE.entry.get();
        let is_known = block == PLACE.block.get()
            && !entry.is_null()
            && (*entry).key == event_loop.as_ptr()
            && !(*entry).value.is_null();
        is_known.then_some(entry)
    }
}

/// The loop's current task, where its place is known.
#[inline]
pub(super) fn get(current: &Any, event_loop: &Any) -> Option<Object> {
    // SAFETY: E2; the dictionary owns the reference, another one is taken at once.
    place(current, event_loop).map(|entry| unsafe { Any::from_ptr((*entry).value).to_object() })
}

/// Puts `task` in the place of the loop's current one. Whether there was one in the place that is known.
/// Runs Python: maybe, a finalizer of the task before.
#[inline(always)]
pub(super) fn replace(current: &Any, event_loop: &Any, task: &Any) -> bool {
    let Some(entry) = place(current, event_loop) else { return false };
    // SAFETY: O1, E2; the dictionary owns the references of its entry.
    unsafe {
        let before = std::mem::replace(&mut (*entry).value, task.to_object().into_ptr());
        ffi::Py_DECREF(before);
    }
    true
}

/// Looks for the entry in which the dictionary has just put `task`.
pub(super) fn find(current: &Any, event_loop: &Any, task: &Any) -> Result<()> {
    PLACE.missed.set(PLACE.missed.get() + 1);
    if PLACE.missed.get() < 2 {
        return Ok(());
    }
    // SAFETY: O1; a dictionary with the loop's entry, so that the keys are no strings alone; its block is readable up to SEARCHED (E3).
    unsafe {
        let hash = ffi::PyObject_Hash(event_loop.as_ptr());
        if hash == -1 {
            return Err(Raised::assume());
        }
        let dictionary = current.as_ptr().cast::<ffi::PyDictObject>();
        let block = (*dictionary).ma_keys;
        if !(*dictionary).ma_values.is_null() {
            return Ok(());
        }
        for word in 0..=SEARCHED - 3 {
            let entry = block.cast::<usize>().add(word).cast::<Entry>();
            if (*entry).hash == hash && (*entry).key == event_loop.as_ptr() && (*entry).value == task.as_ptr()
            {
                PLACE.block.set(block);
                PLACE.entry.set(entry);
            }
        }
    }
    Ok(())
}

/// The loop's current task is taken out of the dictionary.
#[inline]
pub(super) fn forget() {
    PLACE.missed.set(0);
}
