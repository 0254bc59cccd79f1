//! Ints that are used again: the number of a task that was given no name becomes that of another one when the task is dead.
//!
//! Making an int and freeing it is a twentieth of what a short task costs.
//!
//! Invariants:
//! I1. A spare int has one reference, which is here: nobody can see its value change.
//! I2. A spare int has the layout of `OneDigit`, and only numbers of one digit that the interpreter has no object of its own
//!     for are put into it.

use crate::object::{Any, Object, Result};
use crate::value::integer;
use crate::version::built_for_another_layout_of;
use pyo3_ffi as ffi;
use std::cell::UnsafeCell;

/// An int of one digit, of thirty bits (`longintrepr.h`).
#[repr(C)]
struct OneDigit {
    head: ffi::PyObject,
    /// Until 3.11 the number of digits, then that and the sign.
    size: usize,
    digit: u32,
}

const SIZE_OF_ONE_DIGIT: usize = if cfg!(Py_3_12) { 1 << 3 } else { 1 };
const CAPACITY: usize = 8192;
/// Below this the interpreter may have an int already.
const SMALLEST: i64 = 2048;
const LIMIT_OF_DIGIT: i64 = 1 << 30;

struct Spares(UnsafeCell<Vec<Object>>);

// SAFETY: touched under the GIL only (O1).
unsafe impl Sync for Spares {}

static SPARES: Spares = Spares(UnsafeCell::new(Vec::new()));

/// Fails: ImportError where this Python has another layout of ints (I2).
pub(crate) fn verify() -> Result<()> {
    let probe = integer(1_000_003)?;
    // SAFETY: O2; as in `is_spare`.
    let (size, digit) = unsafe {
        let probe = &*probe.as_ptr().cast::<OneDigit>();
        (probe.size, probe.digit)
    };
    match (size, digit) {
        (SIZE_OF_ONE_DIGIT, 1_000_003) => Ok(()),
        _ => Err(built_for_another_layout_of("ints")),
    }
}

/// As `integer`, of a spare int where there is one.
#[inline]
pub fn number(value: i64) -> Result<Object> {
    if !(SMALLEST..LIMIT_OF_DIGIT).contains(&value) {
        return integer(value);
    }
    // SAFETY: O1; nothing below touches the list while it is borrowed here.
    match unsafe { (*SPARES.0.get()).pop() } {
        Some(spare) => {
            // SAFETY: I1, I2.
            unsafe { (*spare.as_ptr().cast::<OneDigit>()).digit = value as u32 };
            Ok(spare)
        }
        None => integer(value),
    }
}

/// Keeps the int for another number if nobody else has it.
#[inline]
pub fn give_back(number: Object) {
    if !is_spare(&number) {
        return;
    }
    // SAFETY: O1; nothing below runs Python while the list is borrowed here.
    unsafe {
        let spares = &mut *SPARES.0.get();
        if spares.len() < CAPACITY {
            spares.push(number);
        }
    }
}

/// Whether the object may be changed (I1, I2).
#[inline(always)]
fn is_spare(number: &Any) -> bool {
    // SAFETY: O2; an int of exactly this class has at least the head, a size and a digit.
    unsafe {
        let pointer = number.as_ptr();
        ffi::Py_REFCNT(pointer) == 1
            && ffi::PyLong_CheckExact(pointer) == 1
            && (*pointer.cast::<OneDigit>()).size == SIZE_OF_ONE_DIGIT
            && i64::from((*pointer.cast::<OneDigit>()).digit) >= SMALLEST
    }
}
