//! Raising, taking, chaining and reporting exceptions. Kernel errors keep `errno` and `filename`.
//!
//! Leaves to others: which exception asyncio raises where.

use crate::imports::imports;
use crate::object::{Any, Object, Raised, Result};
use crate::value::{Text, integer, text};
use pyo3_ffi as ffi;
use std::io;

impl Raised {
    /// Raises `class(message)`.
    #[cold]
    pub fn new(class: &Any, message: &str) -> Raised {
        if let Ok(message) = text(message) {
            // SAFETY: O1, O2.
            unsafe { ffi::PyErr_SetObject(class.as_ptr(), message.as_ptr()) };
        }
        Raised::from_indicator()
    }

    /// Raises `class()`.
    #[cold]
    pub fn empty(class: &Any) -> Raised {
        // SAFETY: O1, O2.
        unsafe { ffi::PyErr_SetNone(class.as_ptr()) };
        Raised::from_indicator()
    }

    #[cold]
    pub fn type_error(message: &str) -> Raised {
        Raised::new(builtin(Builtin::TypeError), message)
    }

    #[cold]
    pub fn value_error(message: &str) -> Raised {
        Raised::new(builtin(Builtin::ValueError), message)
    }

    #[cold]
    pub fn runtime_error(message: &str) -> Raised {
        Raised::new(builtin(Builtin::RuntimeError), message)
    }

    /// Raises an exception instance.
    #[cold]
    pub fn exception(instance: Object) -> Raised {
        restore(instance);
        Raised::from_indicator()
    }

    /// `raise class() from cause`; the exception being handled becomes the context.
    #[cold]
    pub fn from_cause(class: &Any, cause: &Any) -> Raised {
        let exception = Raised::empty(class).take();
        set_cause(&exception, cause);
        Raised::exception(exception)
    }

    /// `raise instance`: as `exception`, and the exception being handled becomes the context.
    #[cold]
    pub fn raise(instance: &Any) -> Raised {
        // SAFETY: O1, O2; an exception instance, by the caller.
        unsafe { ffi::PyErr_SetObject(instance.get_type().as_ptr(), instance.as_ptr()) };
        Raised::from_indicator()
    }

    /// The error of a call that has set the indicator.
    fn from_indicator() -> Raised {
        // SAFETY: every caller has just set the indicator (O3).
        unsafe { Raised::assume() }
    }

    /// Takes the exception out of the interpreter.
    pub fn take(self) -> Object {
        take().unwrap_or_else(crate::none_object)
    }

    /// Whether the pending exception is an instance of `class` (or of one of a tuple of classes).
    pub fn matches(&self, class: &Any) -> bool {
        // SAFETY: O1, O2.
        unsafe { ffi::PyErr_ExceptionMatches(class.as_ptr()) == 1 }
    }

    /// Prints "Exception ignored in: context" through `sys.unraisablehook` and clears the exception.
    pub fn write_unraisable(self, context: &Any) {
        // SAFETY: O1, O2, O3.
        unsafe { ffi::PyErr_WriteUnraisable(context.as_ptr()) }
    }

    /// KeyboardInterrupt and SystemExit leave the loop; every other exception stays in it.
    pub fn leaves_the_loop(&self) -> bool {
        self.matches(builtin(Builtin::KeyboardInterrupt)) || self.matches(builtin(Builtin::SystemExit))
    }
}

/// The exceptions of the interpreter that this project raises or tells apart.
#[derive(Clone, Copy)]
pub enum Builtin {
    BaseException,
    Exception,
    TypeError,
    ValueError,
    RuntimeError,
    MemoryError,
    OSError,
    AttributeError,
    KeyboardInterrupt,
    SystemExit,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    ConnectionAbortedError,
    ConnectionResetError,
    BrokenPipeError,
    BlockingIOError,
    PermissionError,
    ProcessLookupError,
    InterruptedError,
    FileNotFoundError,
    NotImplementedError,
    OverflowError,
    AssertionError,
    TimeoutError,
    ResourceWarning,
    RuntimeWarning,
    DeprecationWarning,
    KeyError,
}

/// The class object of a built-in exception.
pub fn builtin(which: Builtin) -> &'static Any {
    use Builtin as B;
    // SAFETY: the interpreter never frees these classes.
    unsafe {
        Any::from_ptr(match which {
            B::BaseException => ffi::PyExc_BaseException,
            B::Exception => ffi::PyExc_Exception,
            B::TypeError => ffi::PyExc_TypeError,
            B::ValueError => ffi::PyExc_ValueError,
            B::RuntimeError => ffi::PyExc_RuntimeError,
            B::MemoryError => ffi::PyExc_MemoryError,
            B::OSError => ffi::PyExc_OSError,
            B::AttributeError => ffi::PyExc_AttributeError,
            B::KeyboardInterrupt => ffi::PyExc_KeyboardInterrupt,
            B::SystemExit => ffi::PyExc_SystemExit,
            B::StopIteration => ffi::PyExc_StopIteration,
            B::StopAsyncIteration => ffi::PyExc_StopAsyncIteration,
            B::GeneratorExit => ffi::PyExc_GeneratorExit,
            B::ConnectionAbortedError => ffi::PyExc_ConnectionAbortedError,
            B::ConnectionResetError => ffi::PyExc_ConnectionResetError,
            B::BrokenPipeError => ffi::PyExc_BrokenPipeError,
            B::BlockingIOError => ffi::PyExc_BlockingIOError,
            B::PermissionError => ffi::PyExc_PermissionError,
            B::ProcessLookupError => ffi::PyExc_ProcessLookupError,
            B::InterruptedError => ffi::PyExc_InterruptedError,
            B::FileNotFoundError => ffi::PyExc_FileNotFoundError,
            B::NotImplementedError => ffi::PyExc_NotImplementedError,
            B::OverflowError => ffi::PyExc_OverflowError,
            B::AssertionError => ffi::PyExc_AssertionError,
            B::TimeoutError => ffi::PyExc_TimeoutError,
            B::ResourceWarning => ffi::PyExc_ResourceWarning,
            B::RuntimeWarning => ffi::PyExc_RuntimeWarning,
            B::DeprecationWarning => ffi::PyExc_DeprecationWarning,
            B::KeyError => ffi::PyExc_KeyError,
        })
    }
}

/// Runs `body` as the block of `except ... as exception` runs: `sys.exc_info()` shows the exception, and what is raised
/// meanwhile has it as its `__context__`.
pub fn handling<T>(exception: &Any, body: impl FnOnce() -> T) -> T {
    // SAFETY: O1; the getter returns an owned reference or null, the setter takes its own and allows null.
    unsafe {
        let outer = Object::from_owned_or_none(ffi::PyErr_GetHandledException());
        ffi::PyErr_SetHandledException(exception.as_ptr());
        let outcome = body();
        ffi::PyErr_SetHandledException(outer.as_deref().map_or(std::ptr::null_mut(), Any::as_ptr));
        outcome
    }
}

/// Whether an exception instance belongs to a built-in class.
pub fn exception_is(exception: &Any, which: Builtin) -> bool {
    exception_matches(exception, builtin(which))
}

/// Whether an exception instance belongs to `class` (or to one of a tuple of classes).
pub fn exception_matches(exception: &Any, class: &Any) -> bool {
    // SAFETY: O1, O2.
    unsafe { ffi::PyErr_GivenExceptionMatches(exception.as_ptr(), class.as_ptr()) == 1 }
}

/// Takes the pending exception, if there is one, with its traceback in place.
pub fn take() -> Option<Object> {
    crate::version::take_raised_exception()
}

/// Puts an exception instance back. Refs: steals.
pub fn restore(exception: Object) {
    crate::version::restore_raised_exception(exception);
}

/// `OSError(errno, strerror)`, of the subclass that the errno stands for.
pub fn os_error(error: &io::Error) -> Result<Object> {
    let number = error.raw_os_error().unwrap_or(libc::EIO);
    builtin(Builtin::OSError).call(&[&*integer(i64::from(number))?, &*strerror(number)?])
}

/// `os.strerror(number)`
pub fn strerror(number: i32) -> Result<Object> {
    // SAFETY: strerror answers every number with a string that stands until the next call on this thread.
    let message = unsafe { std::ffi::CStr::from_ptr(libc::strerror(number)) };
    text(&message.to_string_lossy())
}

/// Raises what [`os_error`] builds.
#[cold]
pub fn raise_os_error(error: &io::Error) -> Raised {
    match os_error(error) {
        Ok(instance) => Raised::exception(instance),
        Err(raised) => raised,
    }
}

/// Raises `OSError(errno, strerror, filename)`.
#[cold]
pub fn raise_os_error_with_path(error: &io::Error, path: &Any) -> Raised {
    let number = error.raw_os_error().unwrap_or(libc::EIO);
    let built = (|| {
        let (number, message) = (crate::value::integer(i64::from(number))?, strerror(number)?);
        builtin(Builtin::OSError).call(&[&*number, &*message, path])
    })();
    match built {
        Ok(instance) => Raised::exception(instance),
        Err(raised) => raised,
    }
}

/// `warnings.warn(message, category, source=source)`. Fails: when a filter turns the warning into an error.
pub fn warn_resource(message: &str, source: &Any) -> Result<()> {
    let arguments = [&*text(message)?, builtin(Builtin::ResourceWarning), source];
    imports().warn.call_keywords(&arguments, &imports().names_source, 2).map(drop)
}

/// The name of an object's class, for messages.
pub fn type_name(object: &Any) -> String {
    type_name_of_class(object.get_type())
}

/// The name of a class, for messages.
pub(crate) fn type_name_of_class(class: &Any) -> String {
    class
        .get_attribute_str(c"__name__")
        .and_then(|name| name.to_text().map(Text::into_string))
        .unwrap_or_else(|raised| {
            drop(raised.take());
            String::from("?")
        })
}

/// `exception.__cause__ = cause`, which also suppresses the context.
pub fn set_cause(exception: &Any, cause: &Any) {
    // SAFETY: O1, O2; steals a reference to the cause.
    unsafe { ffi::PyException_SetCause(exception.as_ptr(), cause.to_object().into_ptr()) }
}

/// `exception.__context__`
pub fn context(exception: &Any) -> Option<Object> {
    // SAFETY: O1, O2; a new reference or null.
    unsafe { Object::from_owned_or_none(ffi::PyException_GetContext(exception.as_ptr())) }
}

/// `exception.__context__ = context`
pub fn set_context(exception: &Any, context: &Any) {
    // SAFETY: O1, O2; steals a reference to the context.
    unsafe { ffi::PyException_SetContext(exception.as_ptr(), context.to_object().into_ptr()) }
}

/// `exception.__traceback__ = traceback`, None where there is none.
pub fn set_traceback(exception: &Any, traceback: Option<&Any>) {
    // SAFETY: O1, O2; an exception instance and a traceback or None, by the caller: it cannot fail then.
    unsafe {
        ffi::PyException_SetTraceback(exception.as_ptr(), traceback.unwrap_or(crate::none()).as_ptr());
    }
}
