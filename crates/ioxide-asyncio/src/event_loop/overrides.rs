//! Which of the loop's hot methods somebody has replaced, in a subclass, on the class or on the instance.
//! Tracers and tests do that; the native short cuts past those methods stand aside then.
//!
//! Looked at when the loop is created, when an attribute of it is set or deleted, and whenever it begins to run.

use super::EventLoop;
use ioxide_cpython::{Any, Object, Once, Result, names};

/// True: the method is not ioxide's own.
#[derive(Clone, Copy, Default)]
pub struct Overrides {
    pub call_soon: bool,
    pub call_at: bool,
    pub time: bool,
    pub get_debug: bool,
}

static OWN: Once<[(&'static Any, Object); 4]> = Once::new();

/// Notes what the class's own methods are.
pub fn initialize(class: &Any) -> Result<()> {
    let names = names();
    let own =
        |name: &'static Any| -> Result<(&'static Any, Object)> { Ok((name, class.get_attribute(name)?)) };
    OWN.set([own(&names.call_soon)?, own(&names.call_at)?, own(&names.time)?, own(&names.get_debug)?]);
    Ok(())
}

impl EventLoop {
    /// Compares what attribute lookup finds with what the class was born with.
    pub fn refresh_overrides(&self) -> Result<()> {
        let instance = self.get_attribute(&names().__dict__)?;
        let overridden = |index: usize| -> Result<bool> {
            let (name, own) = &OWN.get()[index];
            Ok(instance.dict_get(name)?.is_some() || !self.get_type().get_attribute(name)?.is(own))
        };
        self.core().overrides.set(Overrides {
            call_soon: overridden(0)?,
            call_at: overridden(1)?,
            time: overridden(2)?,
            get_debug: overridden(3)?,
        });
        self.refresh_fast();
        Ok(())
    }
}
