//! `Shell`: an instance of a shell class as a Rust value, for primitives. (The loop and the transports have their own.)

use ioxide_cpython::methods::Receiver;
use ioxide_cpython::object::RawObject;
use ioxide_cpython::types::{Native, ShellClass};
use ioxide_cpython::{Any, Once, Raised, Result};
use std::marker::PhantomData;
use std::ops::Deref;

/// The core of a shell class of which there is one.
pub trait Core: Native {
    fn shell() -> &'static Once<ShellClass>;
}

/// An instance of the shell class of `C`, whose core is there.
#[repr(transparent)]
pub struct Shell<C>(Any, PhantomData<C>);

impl<C> Deref for Shell<C> {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.0
    }
}

impl<C: Core> Shell<C> {
    /// The object as a shell, if it is one and has its core.
    #[inline(always)]
    pub fn from_any(object: &Any) -> Option<&Shell<C>> {
        let shell = C::shell().get();
        if !shell.class().is_exact(object) && !object.is_subtype_of(shell.class().as_any()) {
            return None;
        }
        // SAFETY: an instance of the class, and its core is there; a transparent view of the object.
        unsafe {
            shell.core::<C>(object)?;
            Some(&*(object as *const Any).cast::<Shell<C>>())
        }
    }

    #[inline(always)]
    pub fn core(&self) -> &C {
        // SAFETY: an instance of the class, whose core was there when the reference was made; only the collector
        // takes it away, and then nobody holds the shell.
        match unsafe { C::shell().get().core::<C>(&self.0) } {
            Some(core) => core,
            None => unreachable!("a shell that is in use has its core"),
        }
    }
}

impl<C: Core> Receiver for Shell<C> {
    #[inline(always)]
    unsafe fn receive<'a>(this: *mut RawObject) -> Result<&'a Shell<C>> {
        // SAFETY: the method descriptors of the class check that `this` is an instance.
        unsafe {
            let shell = Any::from_ptr(this);
            match C::shell().get().core::<C>(shell) {
                Some(_) => Ok(&*(shell as *const Any).cast::<Shell<C>>()),
                None => Err(Raised::runtime_error("the object is not initialized")),
            }
        }
    }
}
