//! How a future that is done ended, read from its struct: the rules of `Future.result()`.

use crate::imports::imports;
use crate::object::{Object, Raised, Result};
use crate::version::{FutureObject, FutureState};

/// How a future that is done ended.
pub enum Outcome {
    /// With a result, which stays in the future.
    Result,
    Exception(Object),
}

/// `future.result()`, with the exception as a value. Fails: InvalidStateError.
#[inline]
pub fn outcome(future: &FutureObject) -> Result<Outcome> {
    match future.state() {
        FutureState::Pending => Err(Raised::new(&imports().InvalidStateError, "Result is not set.")),
        FutureState::Cancelled => cancelled_error(future).map(Outcome::Exception),
        FutureState::Finished => {
            future.set_log_traceback(false);
            let Some(exception) = future.exception.get_object() else {
                return Ok(Outcome::Result);
            };
            let traceback = future.exception_traceback.take();
            crate::exception::set_traceback(&exception, traceback.as_deref());
            Ok(Outcome::Exception(exception))
        }
    }
}

/// The CancelledError of a cancelled future, with its message; a stored one is handed out once.
pub fn cancelled_error(future: &FutureObject) -> Result<Object> {
    if let Some(exception) = future.cancelled_exception.take() {
        return Ok(exception);
    }
    match future.cancel_message.get_object().filter(|message| !message.is_none()) {
        Some(message) => imports().CancelledError.call1(&message),
        None => imports().CancelledError.call0(),
    }
}
