//! Letting other threads run Python while this one waits in the kernel.

use pyo3_ffi as ffi;

/// Runs `body` without the GIL. `body` is `Send`, so it captures no Python object (O1).
#[inline]
pub fn without_gil<T, F: Send + FnOnce() -> T>(body: F) -> T {
    struct Reattach(*mut ffi::PyThreadState);
    impl Drop for Reattach {
        fn drop(&mut self) {
            // SAFETY: the state that PyEval_SaveThread returned on this thread; also when `body` unwinds.
            unsafe { ffi::PyEval_RestoreThread(self.0) }
        }
    }
    // SAFETY: the GIL is held (O1).
    let _reattach = Reattach(unsafe { ffi::PyEval_SaveThread() });
    body()
}
