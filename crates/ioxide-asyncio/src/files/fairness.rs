//! What is answered at once suspends nobody: who reads one cached file after the other would keep the loop for itself.
//!
//! Invariants:
//! Y1. Of the operations on a thread, one in each millisecond lets the other tasks run before it begins; before, because a
//!     cancellation meanwhile must not lose what was read.

use ioxide_cpython::methods::{documented, method0};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::FunctionDefinition;
use ioxide_cpython::{Any, Result, none};
use ioxide_reactor::MonotonicTime;
use std::cell::Cell;

const MOST_NANOSECONDS: u64 = 1_000_000;

thread_local! {
    /// When an operation of this thread has last let others run.
    static YIELDED: Cell<u64> = const { Cell::new(0) };
}

pub fn add_to(module: &Module<'_>) -> Result<()> {
    let due = FunctionDefinition::new(documented(
        method0(c"due_to_yield", |_: &Any| is_due()),
        c"due_to_yield()\n--\n\nWhether other tasks have a right to run now: true at most once in a millisecond.",
    ));
    module.add(c"_due_to_yield", &*due.bind(none())?)
}

/// True at most once in a millisecond.
fn is_due() -> bool {
    let now = MonotonicTime::now().as_nanoseconds();
    let due = is_overdue_at(now);
    if due {
        YIELDED.set(now);
    }
    due
}

/// Whether `is_due` would say so, without having asked it.
pub fn is_overdue() -> bool {
    is_overdue_at(MonotonicTime::now().as_nanoseconds())
}

fn is_overdue_at(now: u64) -> bool {
    now.saturating_sub(YIELDED.get()) > MOST_NANOSECONDS
}
