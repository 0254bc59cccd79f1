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
    Ok(())
}

/// Raises the StopIteration that carries `value`.
#[inline]
pub(super) fn raise_returned(value: Object) -> Raised {
    match FREE_RETURNED.allocate() {
        Ok(exception) => {
            if let Some(returned) = Returned::from_exact(&exception) {
                returned.0.arguments.initialize(Some(imports().empty_tuple.clone()));
                returned.0.value.initialize(Some(value));
            }
            Raised::exception(exception)
        }
        Err(raised) => raised,
    }
}
