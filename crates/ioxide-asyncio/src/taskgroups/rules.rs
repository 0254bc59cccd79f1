//! What the TaskGroup of the running asyncio does, where that changed within and between Python versions. asyncio's own
//! class is asked, because corrections also came with releases such as 3.13.1.

use ioxide_cpython::value::text;
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Object, Result};

#[allow(clippy::struct_excessive_bools)] // each is a correction of its own
pub struct Rules {
    /// The group's own request to cancel its parent is taken back before it waits for its tasks, not after (3.11, 3.12).
    pub uncancels_before_waiting: bool,
    /// Classes derived from CancelledError count as it (3.13).
    pub matches_derived: bool,
    /// A parent that others want cancelled stays so when the group raises its own errors (3.13).
    pub keeps_cancel_count: bool,
    /// A coroutine that is refused is closed (3.13).
    pub closes_refused: bool,
    /// A task that is already done is dealt with at once, not by its callback (3.12.0 to 3.13.1).
    pub settles_at_once: bool,
    /// `create_task` hands all keywords to the loop's (3.13.3).
    pub forwards_keywords: bool,
    /// `create_task` names the task afterwards, not by the loop's `create_task` (3.11, 3.12).
    pub names_afterwards: bool,
    /// Parent and errors are forgotten when the group is left (3.13.1).
    pub forgets_on_exit: bool,
    /// A cancellation by somebody else that comes while the group's own is under way is not lost (3.15).
    pub keeps_other_cancellation: bool,
    /// A GeneratorExit of the body, if it is the only error, leaves as it is (3.15).
    pub lets_generator_exit_out: bool,
    /// A task that cancels the group in its eager start is cancelled, too (3.15).
    pub cancels_eager_tasks: bool,
    /// `__aexit__` answers True whenever it raises nothing (3.15).
    pub always_suppresses: bool,
}

impl Rules {
    /// Asks asyncio's own class.
    pub fn of(class: &Any) -> Result<Rules> {
        let outer_exit = class.get_attribute_str(c"__aexit__")?;
        let inner_exit: Option<Object> = class.get_attribute_optional(&*text("_aexit")?)?;
        let exit = Code::of(inner_exit.as_ref().unwrap_or(&outer_exit))?.names_and_variables()?;
        let create = Code::of_method(class, "create_task")?.names_and_variables()?;
        let uses = |names: &[String], name: &str| names.iter().any(|used| used == name);
        let place = |name: &str| exit.iter().position(|used| used == name);
        let cancels_eager_tasks = uses(&create, "cancel");
        Ok(Rules {
            uncancels_before_waiting: place("uncancel") < place("_on_completed_fut"),
            matches_derived: uses(&exit, "issubclass"),
            keeps_cancel_count: uses(&exit, "cancelling"),
            closes_refused: uses(&create, "close"),
            settles_at_once: uses(&create, "done") && !cancels_eager_tasks,
            forwards_keywords: uses(&create, "kwargs"),
            names_afterwards: uses(&create, "_set_task_name"),
            forgets_on_exit: inner_exit.is_some(),
            keeps_other_cancellation: uses(&exit, "pending_cancellation_error"),
            lets_generator_exit_out: uses(&exit, "GeneratorExit"),
            cancels_eager_tasks,
            always_suppresses: class.get_attribute_optional(&*text("cancel")?)?.is_some(),
        })
    }
}
