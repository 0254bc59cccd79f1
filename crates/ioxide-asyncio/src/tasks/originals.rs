//! asyncio's own functions, which run wherever something stands in the way of the native ones: a loop that is not ioxide's,
//! debug mode, a method that somebody has overridden, awaitables of other classes. So whatever happens there is exactly
//! what happens without ioxide.

use ioxide_cpython::call::import;
use ioxide_cpython::{Object, Once, Result};

pub struct Originals {
    pub all_tasks: Object,
    pub as_completed: Object,
    pub create_task: Object,
    pub ensure_future: Object,
    pub gather: Object,
    /// `inspect.isawaitable`
    pub isawaitable: Object,
    pub shield: Object,
    pub sleep: Object,
    pub wait: Object,
    pub wait_for: Object,
}

static ORIGINALS: Once<Originals> = Once::new();

pub(super) fn initialize() -> Result<()> {
    let tasks = import(c"asyncio.tasks")?;
    ORIGINALS.set(Originals {
        all_tasks: tasks.get_attribute_str(c"all_tasks")?,
        as_completed: tasks.get_attribute_str(c"as_completed")?,
        create_task: tasks.get_attribute_str(c"create_task")?,
        ensure_future: tasks.get_attribute_str(c"ensure_future")?,
        gather: tasks.get_attribute_str(c"gather")?,
        isawaitable: import(c"inspect")?.get_attribute_str(c"isawaitable")?,
        shield: tasks.get_attribute_str(c"shield")?,
        sleep: tasks.get_attribute_str(c"sleep")?,
        wait: tasks.get_attribute_str(c"wait")?,
        wait_for: tasks.get_attribute_str(c"wait_for")?,
    });
    Ok(())
}

#[inline(always)]
pub fn originals() -> &'static Originals {
    ORIGINALS.get()
}
