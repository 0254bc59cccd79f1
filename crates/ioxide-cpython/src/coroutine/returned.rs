//! The StopIteration by which a native coroutine returns a value to `await` in Python code.
//!
//! Making one costs more than many a coroutine does. This one comes from a free list, and nobody sees it: `await` takes
//! the value out and drops it. Who calls `send()` gets StopIteration itself.

use crate::freelist::{FreeList, Recycled};
use crate::imports::imports;
use crate::object::{Object, Raised, Result};
use crate::once::Once;
use crate::types::{Class, Native, NativeClass};
use crate::version::StopIterationObject;
use pyo3_ffi as ffi;

/// An exception that carries a returned value.
#[repr(transparent)]
struct Returned(StopIterationObject);

static RETURNED: Once<Class> = Once::new();
static FREE_RETURNED: FreeList<Returned> = FreeList::new(16);

// SAFETY: transparent over the struct of StopIteration, which the class derives from.
unsafe impl Native for Returned {
    fn class() -> &'static Once<Class> {
        &RETURNED
    }
}

impl Recycled for Returned {
    fn free_list() -> &'static FreeList<Returned> {
        &FREE_RETURNED
    }

    fn wants_finalizer(&self) -> bool {
        false
    }

    fn release(&self) {
        self.0.clear_fields();
    }
}

pub(super) fn initialize() -> Result<()> {
    let base = crate::builtin(crate::Builtin::StopIteration);
    crate::version::verify_stop_iteration(base)?;
    RETURNED.set(
        NativeClass::new::<Returned>(c"ioxide.StopIteration")
            .not_instantiable()
            .collected_by_base(base)
            .recycled::<Returned>()
            .create(&[base])?,
    );
    RETURNED_TRUE.set(create(crate::boolean(true))?);
    Ok(())
}

/// The one that carries True, as locks and events return it: it is used again and again, and holds nothing that dies.
static RETURNED_TRUE: Once<Object> = Once::new();

/// Nobody has it at the moment, and nobody has put anything into it.
#[inline]
fn is_unused(exception: &Object) -> bool {
    // SAFETY: O1.
    let references = unsafe { ffi::Py_REFCNT(exception.as_ptr()) };
    references == 1 && Returned::from_exact(exception).is_some_and(|returned| returned.0.is_bare())
}

fn create(value: Object) -> Result<Object> {
    let exception = FREE_RETURNED.allocate()?;
    if let Some(returned) = Returned::from_exact(&exception) {
        returned.0.arguments.initialize(Some(imports().empty_tuple.clone()));
        returned.0.value.initialize(Some(value));
    }
    Ok(exception)
}

/// Raises the StopIteration that carries `value`.
#[inline]
pub(super) fn raise_returned(value: Object) -> Raised {
    let kept = RETURNED_TRUE.get();
    if value.is(&crate::boolean(true)) && is_unused(kept) {
        return Raised::exception(kept.clone());
    }
    match create(value) {
        Ok(exception) => Raised::exception(exception),
        Err(raised) => raised,
    }
}
