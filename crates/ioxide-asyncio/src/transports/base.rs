//! What every transport of ioxide's has, whatever it is made over: a loop, a protocol, callbacks in a context, reports.
//!
//! Leaves to others: when any of it happens.
//!
//! Invariants:
//! B1. The loop's field holds a loop of ioxide's, or nothing once connection_lost has been called.

use crate::event_loop::{EventLoop, Ready};
use crate::handles::Handle;
use ioxide_cpython::context::copy_current;
use ioxide_cpython::exception::type_name;
use ioxide_cpython::value::{dict, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, Slot, builtin, imports, names, none_object};
use std::ops::Deref;
use std::os::fd::RawFd;

/// The loop of a transport, held.
pub(super) struct HeldLoop(Object);

impl Deref for HeldLoop {
    type Target = EventLoop;
    #[inline(always)]
    fn deref(&self) -> &EventLoop {
        match EventLoop::from_any(&self.0) {
            Some(event_loop) => event_loop,
            None => unreachable!("opening puts ioxide's loops into the field, and nothing else (B1)"),
        }
    }
}

/// What the repr of a transport over a socket tells.
pub(super) struct Shown {
    pub is_closed: bool,
    pub is_closing: bool,
    pub fd: RawFd,
    pub is_watching_reads: bool,
    pub is_watching_writes: bool,
    pub pending_bytes: usize,
}

/// The Rust side of a shell class: the object, its core, and what a method of Python's receives.
macro_rules! transport_object {
    ($transport:ident, $core:ident, $shell:ident) => {
        impl std::ops::Deref for $transport {
            type Target = ioxide_cpython::Any;
            #[inline(always)]
            fn deref(&self) -> &ioxide_cpython::Any {
                &self.0
            }
        }

        impl ioxide_cpython::methods::Receiver for $transport {
            #[inline(always)]
            unsafe fn receive<'a>(
                this: *mut ioxide_cpython::object::RawObject,
            ) -> ioxide_cpython::Result<&'a $transport> {
                // SAFETY: the method descriptors of the class check that `this` is an instance.
                unsafe {
                    let shell = ioxide_cpython::Any::from_ptr(this);
                    match $shell.get().core::<$core>(shell) {
                        Some(_) => Ok(&*(shell as *const ioxide_cpython::Any).cast::<$transport>()),
                        None => {
                            Err(ioxide_cpython::Raised::runtime_error("the transport is not initialized"))
                        }
                    }
                }
            }
        }

        impl $transport {
            /// The object as a transport of this kind, if it is one.
            #[inline(always)]
            pub fn from_any(object: &ioxide_cpython::Any) -> Option<&$transport> {
                let shell = $shell.get();
                if !shell.class().is_exact(object) && !object.is_subtype_of(shell.class().as_any()) {
                    return None;
                }
                // SAFETY: an instance of the class, and its core is there.
                unsafe {
                    shell.core::<$core>(object)?;
                    Some(&*(object as *const ioxide_cpython::Any).cast::<$transport>())
                }
            }

            #[inline(always)]
            fn core(&self) -> &$core {
                // SAFETY: an instance of the class, whose core was there when the reference was made; only the
                // collector takes it away, and then nobody holds the transport.
                match unsafe { $shell.get().core::<$core>(&self.0) } {
                    Some(core) => core,
                    None => unreachable!("a transport that is in use has its core"),
                }
            }
        }
    };
}

pub(super) use transport_object;

/// asyncio.transports.BaseTransport, as ioxide's transports see themselves.
pub(super) trait BaseTransport: Deref<Target = Any> {
    /// See B1.
    fn loop_slot(&self) -> &Slot;

    fn protocol_slot(&self) -> &Slot;

    /// The context that the creator gave for all callbacks; none as a rule.
    fn given_context(&self) -> Option<Object> {
        None
    }

    /// `None` after connection_lost.
    #[inline]
    fn event_loop(&self) -> Option<HeldLoop> {
        self.loop_slot().get_object().filter(|event_loop| EventLoop::is_native(event_loop)).map(HeldLoop)
    }

    fn is_debug(&self) -> Result<bool> {
        match self.event_loop() {
            Some(event_loop) => crate::event_loop::is_debug(&event_loop),
            None => Ok(false),
        }
    }

    /// `transport.get_protocol()`
    fn get_protocol(&self) -> Object {
        self.protocol_slot().get_or_none()
    }

    /// `get_extra_info` of the base class reads `_extra`, the creator's dictionary if there is one.
    fn set_socket_extra(&self, socket: &Any, extra: Option<&Any>) -> Result<Object> {
        let extra = match extra {
            Some(extra) => extra.to_object(),
            None => dict()?,
        };
        self.set_attribute(&names()._extra, &extra)?;
        extra.dict_set(&names().socket, &*imports().TransportSocket.call1(socket)?)?;
        extra.dict_set(&names().sockname, &*unless_os_error(socket.call_method0(&names().getsockname))?)?;
        if extra.dict_get(&names().peername)?.is_none() {
            extra
                .dict_set(&names().peername, &*unless_os_error(socket.call_method0(&names().getpeername))?)?;
        }
        Ok(extra)
    }

    /// The repr of a transport over a socket.
    fn shown_socket(&self, state: &Shown) -> String {
        let mut shown = format!("<{}", type_name(self));
        if state.is_closed {
            shown.push_str(" closed");
        } else if state.is_closing {
            shown.push_str(" closing");
        }
        shown.push_str(&format!(" fd={}", state.fd));
        if self.event_loop().is_some_and(|event_loop| !event_loop.is_closed()) {
            let polling = |is_watching: bool| if is_watching { "polling" } else { "idle" };
            shown.push_str(&format!(
                " read={} write=<{}, bufsize={}>",
                polling(state.is_watching_reads),
                polling(state.is_watching_writes),
                state.pending_bytes,
            ));
        }
        shown.push('>');
        shown
    }

    /// The context in which a watched descriptor's callbacks run: as asyncio's reader and writer handles take it.
    fn callback_context(&self) -> Result<Object> {
        match self.given_context() {
            Some(given) => Ok(given),
            None => copy_current(),
        }
    }

    /// `loop.call_soon`, in the transport's context if it was given one.
    fn call_soon(&self, callback: &Any, arguments: &[&Any]) -> Result<()> {
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        let given = self.given_context();
        if let Some(fast) = EventLoop::fast(&event_loop) {
            let handle = Handle::create(fast, callback, arguments, given.as_deref())?;
            fast.push_ready(Ready::Handle(handle));
            return Ok(());
        }
        let mut all = vec![callback];
        all.extend_from_slice(arguments);
        match &given {
            Some(given) => {
                all.push(given);
                event_loop.call_method_keywords(&names().call_soon, &all, &imports().names_context)?;
            }
            None => drop(event_loop.call_method(&names().call_soon, &all)?),
        }
        Ok(())
    }

    /// Calls the transport's `_call_connection_lost` in the next turn.
    fn schedule_connection_lost(&self, exception: &Any) -> Result<()> {
        let callback = self.get_attribute(&names()._call_connection_lost)?;
        self.call_soon(&callback, &[exception])
    }

    /// Calls the loop's exception handler.
    fn report(&self, message: &str, exception: &Any) -> Result<()> {
        match self.event_loop() {
            Some(event_loop) => self.report_to(&event_loop, message, exception),
            None => Err(Raised::exception(exception.to_object())),
        }
    }

    fn report_to(&self, event_loop: &Any, message: &str, exception: &Any) -> Result<()> {
        let report = dict()?;
        report.dict_set(&names().message, &*text(message)?)?;
        report.dict_set(&names().exception, exception)?;
        report.dict_set(&names().transport, self)?;
        report.dict_set(&names().protocol, &self.get_protocol())?;
        event_loop.call_method1(&names().call_exception_handler, &report).map(drop)
    }

    /// Exceptions that leave the loop pass, others are reported as those of a callback.
    fn keep_in_loop(&self, event_loop: &EventLoop, outcome: Result<()>, callback: &str) -> Result<()> {
        let Err(raised) = outcome else { return Ok(()) };
        if raised.leaves_the_loop() {
            return Err(raised);
        }
        let name = type_name(self);
        self.report_to(event_loop, &format!("Exception in callback {name}.{callback}()"), &raised.take())
    }

    /// A line about the transport, in debug mode; `level` is the name of a method of the logger.
    fn log_in_debug_mode(&self, level: &Any, line: &str) -> Result<()> {
        if !self.is_debug()? {
            return Ok(());
        }
        imports().logger.call_method(level, &[&*text(line)?, self]).map(drop)
    }

    /// An error of the kernel's, which is everyday: one line and the traceback, in debug mode.
    fn log_everyday_error(&self, message: &str, exception: &Any) -> Result<()> {
        if !self.is_debug()? {
            return Ok(());
        }
        let keywords = tuple(&[&names().exc_info])?;
        let arguments = [&*text("%r: %s")?, self, &*text(message)?, exception];
        imports().logger.call_method_keywords(&names().debug, &arguments, &keywords).map(drop)
    }
}

/// None where the kernel has no such name.
pub(super) fn unless_os_error(name: Result<Object>) -> Result<Object> {
    match name {
        Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
            drop(raised.take());
            Ok(none_object())
        }
        name => name,
    }
}
