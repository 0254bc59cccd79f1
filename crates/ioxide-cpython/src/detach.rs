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

/// Runs `body` with the GIL, on a thread that Python may not know. `None` where the interpreter is shutting down: then the
/// GIL cannot be had any more.
pub fn with_gil<T>(body: impl FnOnce() -> T) -> Option<T> {
    struct Release(ffi::PyGILState_STATE);
    impl Drop for Release {
        fn drop(&mut self) {
            // SAFETY: the state of the matching PyGILState_Ensure, on the same thread; also when `body` unwinds.
            unsafe { ffi::PyGILState_Release(self.0) }
        }
    }
    if crate::module::is_finalizing() {
        return None;
    }
    // SAFETY: the interpreter is initialized, or there would be no object to call this for.
    let _release = Release(unsafe { ffi::PyGILState_Ensure() });
    Some(body())
}
