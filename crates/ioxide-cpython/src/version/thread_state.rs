//! Fields of the thread state that Python code can set and read, but C code outside the interpreter cannot: their places are
//! found when the module is imported, by setting them twice and looking where the values are.

use crate::imports::imports;
use crate::object::Result;
use crate::once::Once;
use crate::value::integer;
use pyo3_ffi as ffi;

/// Bytes of a thread state that are looked at: fewer than its struct has in any version.
const SEARCHED: usize = 320;

/// Values that nothing else in a thread state has.
const MARKS: [i32; 2] = [0x5a3c_71e9, 0x3b96_0d47];

struct Places {
    /// `None` where it was not found: the interpreter is asked then.
    origin_tracking_depth: Option<usize>,
}

static PLACES: Once<Places> = Once::new();

pub(super) fn initialize() -> Result<()> {
    let depth = imports().get_coroutine_origin_tracking_depth.call0()?;
    let set = &imports().set_coroutine_origin_tracking_depth;
    let mut candidates: Vec<usize> = (0..SEARCHED).step_by(size_of::<i32>()).collect();
    for mark in MARKS {
        set.call1(&*integer(i64::from(mark))?)?;
        candidates.retain(|offset| read(*offset) == mark);
    }
    set.call1(&depth)?;
    let origin_tracking_depth = match candidates[..] {
        [only] => Some(only),
        _ => None,
    };
    PLACES.set(Places { origin_tracking_depth });
    Ok(())
}

/// An aligned number in this thread's state.
#[inline(always)]
fn read(offset: usize) -> i32 {
    // SAFETY: O1: there is a thread state; the offset is below SEARCHED and a multiple of the number's size.
    unsafe { ffi::PyThreadState_Get().cast::<u8>().add(offset).cast::<i32>().read() }
}

/// `sys.get_coroutine_origin_tracking_depth()`
#[inline(always)]
pub(crate) fn coroutine_origin_tracking_depth() -> i32 {
    match PLACES.get().origin_tracking_depth {
        Some(offset) => read(offset),
        None => ask(),
    }
}

#[cold]
fn ask() -> i32 {
    let depth = imports().get_coroutine_origin_tracking_depth.call0().and_then(|depth| depth.to_i32());
    depth.unwrap_or_else(|raised| {
        drop(raised.take());
        0
    })
}
