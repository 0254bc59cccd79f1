//! `DoneCallback`: a callback of futures that is written in Rust. Python sees a callable with the name that asyncio's has;
//! ioxide's own loop runs it without a call, a handle or a context.

use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, getter};
use ioxide_cpython::types::{Class, Native, NativeClass, allocate, head};
use ioxide_cpython::value::text;
use ioxide_cpython::{Any, Object, Once, Result, Slot, none_object};

/// What the callback does with the future that is done.
pub type Run = fn(&DoneCallback, &Any) -> Result<()>;

#[repr(C)]
pub struct DoneCallback {
    head: Any,
    run: Run,
    qualified_name: &'static str,
    /// What the callback is about.
    pub owner: Slot,
}

static DONE_CALLBACK: Once<Class> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for DoneCallback {
    fn class() -> &'static Once<Class> {
        &DONE_CALLBACK
    }
}

pub(super) fn initialize() -> Result<()> {
    DONE_CALLBACK.set(
        NativeClass::new::<DoneCallback>(c"ioxide.DoneCallback")
            .doc(c"A callback of futures that is written in Rust.")
            .not_instantiable()
            .collected::<DoneCallback>()
            .dropped::<DoneCallback>()
            .callable::<DoneCallback, _>(DoneCallback::call)
            .attributes(vec![
                getter(c"__qualname__", |this: &DoneCallback| text(this.qualified_name)),
                getter(c"__name__", |this: &DoneCallback| {
                    text(this.qualified_name.rsplit('.').next().unwrap_or_default())
                }),
            ])
            .create(&[])?,
    );
    Ok(())
}

impl DoneCallback {
    pub fn create(qualified_name: &'static str, run: Run, owner: &Any) -> Result<Object> {
        allocate(DoneCallback { head: head(), run, qualified_name, owner: Slot::filled(owner.to_object()) })
    }

    /// Fails: with what setting results and exceptions of futures fails with.
    #[inline]
    pub fn run(&self, future: &Any) -> Result<()> {
        (self.run)(self, future)
    }

    fn call(&self, arguments: Arguments<'_>) -> Result<Object> {
        self.run(arguments.only(self.qualified_name, "fut")?)?;
        Ok(none_object())
    }
}

impl Traverse for DoneCallback {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.owner);
    }

    fn clear(&self) {
        self.owner.clear();
    }
}
