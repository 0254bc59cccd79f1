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

/// Runs `body` with the GIL on a thread that the interpreter may not know yet.
pub fn with_gil<T>(body: impl FnOnce() -> T) -> T {
    struct Release(ffi::PyGILState_STATE);
    impl Drop for Release {
        fn drop(&mut self) {
            // SAFETY: paired with the call below, on the same thread.
            unsafe { ffi::PyGILState_Release(self.0) }
        }
    }
    // SAFETY: the interpreter is initialised: it loaded this extension.
    let _release = Release(unsafe { ffi::PyGILState_Ensure() });
    body()
}
