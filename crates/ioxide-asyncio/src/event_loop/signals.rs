//! Signal handlers. Python writes the number of a signal to one end of a socket pair, the loop reads the other end.
//!
//! Invariants:
//! N1. The pair is made when somebody first needs it, since most loops have no signal handler, and goes with the loop.
//!     It stays watched between two runs, so that no signal is lost.
//! N2. The functions are those of the `signal` module as `asyncio.unix_events` sees it: who replaces it there is heard.

use super::{EventLoop, Ready};
use ioxide_cpython::call::import;
use ioxide_cpython::exception::{handling, warn_resource};
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{Arguments, Leading};
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, Slot, boolean, builtin, imports, names};

/// What one read takes; more signals than this wait for the next read.
const SIGNALS_AT_ONCE: i64 = 4096;

/// The two ends: signals are read from one and written to the other (N1).
pub struct SignalSockets {
    read: Slot,
    write: Slot,
}

impl SignalSockets {
    pub const fn none() -> SignalSockets {
        SignalSockets { read: Slot::empty(), write: Slot::empty() }
    }

    pub fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.read);
        visitor.slot(&self.write);
    }

    pub fn clear(&self) {
        self.read.clear();
        self.write.clear();
    }
}

impl EventLoop {
    /// `loop.add_signal_handler(sig, callback, *args)`
    pub fn add_signal_handler(&self, arguments: Arguments<'_>) -> Result<()> {
        let Leading { parameters: [signal, callback], rest, .. } =
            arguments.leading("add_signal_handler", ["sig", "callback"], false)?;
        super::schedule::refuse_coroutine(callback, "add_signal_handler")?;
        self.check_signal(signal)?;
        self.check_closed()?;
        let functions = signal_functions()?;
        let descriptor = self.signal_writer()?.call_method0(&names().fileno)?;
        // Refused outside of the main thread, before anything else has changed.
        functions.call_method1(&names().set_wakeup_fd, &descriptor).map_err(as_runtime_error)?;
        let handle = crate::handles::Handle::create(self, callback, rest, None)?;
        let handlers = self.get_attribute(&names()._signal_handlers)?;
        handlers.dict_set(signal, &handle)?;
        match install(&functions, signal) {
            Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
                let error = raised.take();
                handling(&error, || {
                    handlers.dict_delete(signal)?;
                    give_wakeups_back(&functions, &handlers)?;
                    Err(refused(signal, &error))
                })
            }
            installed => installed,
        }
    }

    /// `loop.remove_signal_handler(sig)`: whether there was one.
    pub fn remove_signal_handler(&self, signal: &Any) -> Result<bool> {
        self.check_signal(signal)?;
        let handlers = self.get_attribute(&names()._signal_handlers)?;
        if handlers.dict_get(signal)?.is_none() {
            return Ok(false);
        }
        handlers.dict_delete(signal)?;
        let functions = signal_functions()?;
        let is_interrupt = signal.equals(&*functions.get_attribute_str(c"SIGINT")?)?;
        let default = match is_interrupt {
            true => functions.get_attribute_str(c"default_int_handler")?,
            false => functions.get_attribute_str(c"SIG_DFL")?,
        };
        match functions.call_method(&names().signal, &[signal, &default]) {
            Err(raised) if raised.matches(builtin(Builtin::OSError)) => {
                let error = raised.take();
                return handling(&error, || Err(refused(signal, &error)));
            }
            reset => drop(reset?),
        }
        give_wakeups_back(&functions, &handlers)?;
        Ok(true)
    }

    /// `loop._check_signal(sig)`. Fails: TypeError, ValueError.
    pub fn check_signal(&self, signal: &Any) -> Result<()> {
        if !signal.is_integer() {
            let shown = signal.repr()?.to_text()?;
            return Err(Raised::type_error(&format!("sig must be an int, not {}", shown.as_str())));
        }
        let valid = signal_functions()?.call_method0(&*text("valid_signals")?)?;
        if !valid.call_method1(&*text("__contains__")?, signal)?.is_true()? {
            let shown = signal.str()?.to_text()?;
            return Err(Raised::value_error(&format!("invalid signal number {}", shown.as_str())));
        }
        Ok(())
    }

    /// `loop._handle_signal(sig)`: the handler is called in the next turn, unless it was cancelled.
    pub fn handle_signal(&self, signal: &Any) -> Result<()> {
        let handlers = self.get_attribute(&names()._signal_handlers)?;
        let Some(handle) = handlers.dict_get(signal)? else { return Ok(()) };
        if handle.get_attribute_str(c"_cancelled")?.is_true()? {
            return self.call_method1(&names().remove_signal_handler, signal).map(drop);
        }
        self.call_method1(&*text("_add_callback_signalsafe")?, &handle).map(drop)
    }

    /// `loop._add_callback_signalsafe(handle)`
    pub fn add_callback_signalsafe(&self, handle: &Any) -> Result<()> {
        self.add_callback(handle)?;
        self.wake()
    }

    /// `loop._add_callback(handle)`
    pub fn add_callback(&self, handle: &Any) -> Result<()> {
        let cancelled = handle.call_method0(&names().cancelled)?.is_true()?;
        if !cancelled {
            self.push_ready(Ready::Handle(handle.to_object()));
        }
        Ok(())
    }

    /// `loop._read_from_self()`: takes all signals that have arrived.
    pub fn read_signals(&self) -> Result<()> {
        loop {
            let Some(socket) = self.core().signal_sockets.read.get_object() else { return Ok(()) };
            match socket.call_method1(&*text("recv")?, &*integer(SIGNALS_AT_ONCE)?) {
                Ok(data) if data.is_true()? => {
                    self.call_method1(&*text("_process_self_data")?, &data)?;
                }
                Ok(_) => return Ok(()),
                Err(raised) if raised.matches(builtin(Builtin::InterruptedError)) => drop(raised.take()),
                Err(raised) if raised.matches(builtin(Builtin::BlockingIOError)) => {
                    drop(raised.take());
                    return Ok(());
                }
                Err(raised) => return Err(raised),
            }
        }
    }

    /// `loop._process_self_data(data)`: a byte is the number of a signal; a zero only wakes the loop.
    pub fn process_signals(&self, data: &Any) -> Result<()> {
        for &number in data.bytes().unwrap_or_default() {
            if number != 0 {
                self.call_method1(&*text("_handle_signal")?, &*integer(i64::from(number))?)?;
            }
        }
        Ok(())
    }

    /// `loop._csock`: the end that signals are written to, None after `close`.
    pub fn signal_writer(&self) -> Result<Object> {
        self.make_signal_sockets()?;
        Ok(self.core().signal_sockets.write.get_or_none())
    }

    /// `loop._ssock`: the end that signals are read from, None after `close`.
    pub fn signal_reader(&self) -> Result<Object> {
        self.make_signal_sockets()?;
        Ok(self.core().signal_sockets.read.get_or_none())
    }

    /// `loop._internal_fds`: asyncio counts its pair of sockets as one.
    pub fn count_internal_descriptors(&self) -> Result<Object> {
        integer(i64::from(!self.is_closed()))
    }

    fn make_signal_sockets(&self) -> Result<()> {
        let sockets = &self.core().signal_sockets;
        if self.is_closed() || !sockets.write.is_empty() {
            return Ok(());
        }
        let pair = import(c"socket")?.call_method0(&*text("socketpair")?)?;
        let [read, write] = pair.tuple_items() else {
            return Err(Raised::type_error("socketpair() returned no pair"));
        };
        for socket in [read, write] {
            socket.call_method1(&names().setblocking, &boolean(false))?;
        }
        sockets.read.set(read.to_object());
        sockets.write.set(write.to_object());
        let callback = self.get_attribute_str(c"_read_from_self")?;
        let descriptor = read.call_method0(&names().fileno)?;
        self.call_method(&*text("_add_reader")?, &[&descriptor, &callback]).map(drop)
    }

    /// What `close` does about signals: no handler stays, the wake-up descriptor is given back, the pair is closed.
    pub(super) fn remove_all_signal_handlers(&self) -> Result<()> {
        let handlers = self.get_attribute(&names()._signal_handlers)?;
        if handlers.is_true()? {
            let finalizing = import(c"asyncio.unix_events")?.get_attribute_str(c"sys")?;
            if finalizing.call_method0(&*text("is_finalizing")?)?.is_true()? {
                self.skip_signal_handlers(&handlers)?;
            } else {
                for signal in handlers.iterate()?.collect::<Result<Vec<_>>>()? {
                    self.call_method1(&names().remove_signal_handler, &signal)?;
                }
            }
        }
        self.close_signal_sockets()
    }

    fn skip_signal_handlers(&self, handlers: &Any) -> Result<()> {
        let shown = self.repr()?.to_text()?;
        let message = format!(
            "Closing the loop {} on interpreter shutdown stage, skipping signal handlers removal",
            shown.as_str()
        );
        warn_resource(&message, self)?;
        handlers.call_method0(&*text("clear")?).map(drop)
    }

    fn close_signal_sockets(&self) -> Result<()> {
        let sockets = &self.core().signal_sockets;
        let (read, write) = (sockets.read.take(), sockets.write.take());
        if let Some(read) = read {
            self.remove_reader_unchecked(&*read.call_method0(&names().fileno)?)?;
            read.call_method0(&names().close)?;
        }
        match write {
            Some(write) => write.call_method0(&names().close).map(drop),
            None => Ok(()),
        }
    }
}

/// See N2.
fn signal_functions() -> Result<Object> {
    import(c"asyncio.unix_events")?.get_attribute(&names().signal)
}

/// A handler that does nothing makes Python write the number to the wake-up descriptor; system calls go on.
fn install(functions: &Any, signal: &Any) -> Result<()> {
    let nothing = import(c"asyncio.unix_events")?.get_attribute_str(c"_sighandler_noop")?;
    functions.call_method(&names().signal, &[signal, &nothing])?;
    functions.call_method(&*text("siginterrupt")?, &[signal, &boolean(false)]).map(drop)
}

/// The last handler is gone: signals wake nobody any more.
fn give_wakeups_back(functions: &Any, handlers: &Any) -> Result<()> {
    if handlers.is_true()? {
        return Ok(());
    }
    match functions.call_method1(&names().set_wakeup_fd, &*integer(-1)?) {
        Err(raised)
            if raised.matches(builtin(Builtin::ValueError)) || raised.matches(builtin(Builtin::OSError)) =>
        {
            let error = raised.take();
            let message = text("set_wakeup_fd(-1) failed: %s")?;
            imports().logger.call_method(&*text("info")?, &[&*message, &*error]).map(drop)
        }
        given_back => given_back.map(drop),
    }
}

/// asyncio raises what `set_wakeup_fd` refuses as a RuntimeError with its text.
fn as_runtime_error(raised: Raised) -> Raised {
    if !raised.matches(builtin(Builtin::ValueError)) && !raised.matches(builtin(Builtin::OSError)) {
        return raised;
    }
    let error = raised.take();
    let shown = error.str().and_then(|shown| shown.to_text());
    match shown {
        Ok(shown) => handling(&error, || Raised::runtime_error(shown.as_str())),
        Err(second) => second,
    }
}

/// What becomes of an OSError: EINVAL says that the signal cannot be caught.
fn refused(signal: &Any, error: &Object) -> Raised {
    let describe = || -> Result<Option<String>> {
        let number = error.get_attribute_str(c"errno")?;
        if !number.equals(&*integer(i64::from(libc::EINVAL))?)? {
            return Ok(None);
        }
        Ok(Some(format!("sig {} cannot be caught", signal.str()?.to_text()?.as_str())))
    };
    match describe() {
        Ok(Some(message)) => Raised::runtime_error(&message),
        Ok(None) => Raised::exception(error.clone()),
        Err(raised) => raised,
    }
}
