//! asyncio's own functions, which run wherever something stands in the way of the native ones: a loop that is not ioxide's,
//! debug mode, a method that somebody has overridden, awaitables of other classes. So whatever happens there is exactly
//! what happens without ioxide.

use ioxide_cpython::call::import;
use ioxide_cpython::{Object, Once, Result};

pub struct Originals {
    pub create_task: Object,
    pub ensure_future: Object,
    pub gather: Object,
    pub sleep: Object,
    pub wait_for: Object,
}

static ORIGINALS: Once<Originals> = Once::new();

pub(super) fn initialize() -> Result<()> {
    let tasks = import(c"asyncio.tasks")?;
    ORIGINALS.set(Originals {
        create_task: tasks.get_attribute_str(c"create_task")?,
        ensure_future: tasks.get_attribute_str(c"ensure_future")?,
        gather: tasks.get_attribute_str(c"gather")?,
        sleep: tasks.get_attribute_str(c"sleep")?,
        wait_for: tasks.get_attribute_str(c"wait_for")?,
    });
    Ok(())
}

#[inline(always)]
pub fn originals() -> &'static Originals {
    ORIGINALS.get()
}
