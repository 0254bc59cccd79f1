//! `Once`: a value of the extension module, set when the module is first executed and never again.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// A static that module initialisation fills before any other code of ioxide can run.
///
/// Reading costs one load: this stands where `OnceLock` would add a check to every hot path.
pub struct Once<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: written once, under the GIL, before anything reads it; afterwards only read.
unsafe impl<T> Sync for Once<T> {}

impl<T> Once<T> {
    pub const fn new() -> Once<T> {
        Once(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// Called by module initialisation only, once for each static.
    pub fn set(&'static self, value: T) {
        // SAFETY: module initialisation holds the GIL and nothing has read the value yet.
        unsafe { (*self.0.get()).write(value) };
    }

    #[inline(always)]
    pub fn get(&'static self) -> &'static T {
        // SAFETY: the extension's types and functions exist only after module initialisation has set it.
        unsafe { (*self.0.get()).assume_init_ref() }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once::new()
    }
}
