//! Which of the loop's hot methods somebody has replaced, in a subclass, on the class or on the instance.
//! Tracers and tests do that; the native short cuts past those methods stand aside then.
//!
//! Looked at when the loop is created, when an attribute of it is set or deleted, and when the class has changed.
//!
//! Invariants:
//! V1. `seen_class` is the version of the class that `overrides` tells about. Every change of the class or of a base
//!     gives it another one, so that one load and one compare notice it.

use super::EventLoop;
use ioxide_cpython::version::{class_version, has_instance_attributes};
use ioxide_cpython::{Any, Object, Once, Result, names};

/// True: the method is not ioxide's own.
#[derive(Clone, Copy, Default)]
pub struct Overrides {
    pub call_soon: bool,
    pub call_at: bool,
    pub time: bool,
    pub get_debug: bool,
    pub make_socket_transport: bool,
    pub create_task: bool,
    pub create_future: bool,
    pub call_later: bool,
    pub run_in_executor: bool,
}

/// No class has this version.
pub const NO_CLASS_SEEN: u32 = u32::MAX;

static OWN: Once<[(&'static Any, Object); 9]> = Once::new();

/// Notes what the class's own methods are.
pub fn initialize(class: &Any) -> Result<()> {
    let names = names();
    let own =
        |name: &'static Any| -> Result<(&'static Any, Object)> { Ok((name, class.get_attribute(name)?)) };
    OWN.set([
        own(&names.call_soon)?,
        own(&names.call_at)?,
        own(&names.time)?,
        own(&names.get_debug)?,
        own(&names._make_socket_transport)?,
        own(&names.create_task)?,
        own(&names.create_future)?,
        own(&names.call_later)?,
        own(&names.run_in_executor)?,
    ]);
    Ok(())
}

impl Overrides {
    /// Whether nothing that schedules is overridden.
    pub fn none(self) -> bool {
        !(self.call_soon
            || self.call_at
            || self.time
            || self.get_debug
            || self.call_later
            || self.create_future
            || self.create_task)
    }
}

impl EventLoop {
    /// Which methods are overridden now.
    #[inline(always)]
    pub(super) fn overrides(&self) -> Overrides {
        self.notice_class();
        self.core().overrides.get()
    }

    /// Looks at the class again where it has changed (V1).
    #[inline(always)]
    pub(super) fn notice_class(&self) {
        if class_version(self) != self.core().seen_class.get() {
            self.look_at_class_again();
        }
    }

    #[cold]
    fn look_at_class_again(&self) {
        if let Err(raised) = self.refresh_overrides() {
            // What cannot be looked up is not ioxide's own: calling it says what is wrong with it.
            drop(raised.take());
            let all = Overrides {
                call_soon: true,
                call_at: true,
                time: true,
                get_debug: true,
                make_socket_transport: true,
                create_task: true,
                create_future: true,
                call_later: true,
                run_in_executor: true,
            };
            self.core().overrides.set(all);
            self.refresh_fast();
        }
    }

    /// Compares what attribute lookup finds with what the class was born with.
    pub fn refresh_overrides(&self) -> Result<()> {
        // Asking for the dictionary makes it (see `attributes`).
        let instance = match has_instance_attributes(self) {
            true => Some(self.get_attribute(&names().__dict__)?),
            false => None,
        };
        let overridden = |index: usize| -> Result<bool> {
            let (name, own) = &OWN.get()[index];
            let on_instance = match &instance {
                Some(instance) => instance.dict_get(name)?.is_some(),
                None => false,
            };
            Ok(on_instance || !self.get_type().get_attribute(name)?.is(own))
        };
        self.core().overrides.set(Overrides {
            call_soon: overridden(0)?,
            call_at: overridden(1)?,
            time: overridden(2)?,
            get_debug: overridden(3)?,
            make_socket_transport: overridden(4)?,
            create_task: overridden(5)?,
            create_future: overridden(6)?,
            call_later: overridden(7)?,
            run_in_executor: overridden(8)?,
        });
        self.core().seen_class.set(match class_version(self) {
            // Python gives out no more versions to this class: it is looked at every time.
            0 => NO_CLASS_SEEN,
            version => version,
        });
        self.refresh_fast();
        Ok(())
    }
}
