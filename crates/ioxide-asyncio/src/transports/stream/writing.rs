//! The side of a transport that sends. What is written in one turn of the loop leaves with one system call.
//!
//! asyncio sends inside `write`. Here whatever could tell the difference sends first: a look at the buffer, `close`,
//! `write_eof`, more buffered than the high-water mark, a caller on another thread, a loop that does not run.
//!
//! Invariants:
//! W1. While the state is `Held` or `Queued`, a flush will follow before the loop waits.
//! W2. A queued bytes object cannot change, so nothing a caller does to its buffer later changes what is sent.

use super::super::base::BaseTransport;
use super::super::flow_control::{FlowControlled, LATE_WRITES_BEFORE_WARNING};
use super::{Phase, SocketTransport, StreamCore, WriteEnd, Writing};
use crate::event_loop::{Direction, Watcher};
use ioxide_cpython::buffer::OwnedBytes;
use ioxide_cpython::call::import;
use ioxide_cpython::context::with_context;
use ioxide_cpython::exception::{raise_os_error, type_name};
use ioxide_cpython::value::{text, tuple};
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, imports, names, none, none_object};
use ioxide_io::Progress;

/// An answer of so many bytes can wait for the end of the turn.
const SENT_TOGETHER: usize = 16 * 1024;

const WRITE_ERROR: &str = "Fatal write error on socket transport";

/// What this Python's asyncio says and has.
struct Asyncio {
    /// How the TypeError of `write` begins.
    type_error: String,
    /// `(bytearray, memoryview)`
    bytes_like: Object,
    /// Whether the transport has a `writelines` of its own (3.12 and later).
    has_writelines: bool,
}

static ASYNCIO: Once<Asyncio> = Once::new();

/// Asks asyncio's own transport.
pub(super) fn initialize() -> Result<()> {
    let class = import(c"asyncio.selector_events")?.get_attribute_str(c"_SelectorSocketTransport")?;
    let type_error = Code::of_method(&class, "write")?.text_beginning("data argument must be")?;
    let own = class.get_attribute(&names().__dict__)?.call_method1(&names().get, &*text("writelines")?)?;
    ASYNCIO.set(Asyncio {
        type_error: type_error
            .unwrap_or_else(|| "data argument must be a bytes-like object, not ".to_string()),
        bytes_like: tuple(&[&imports().bytearray, &imports().memoryview])?,
        has_writelines: !own.is_none(),
    });
    Ok(())
}

pub(super) fn has_writelines() -> bool {
    ASYNCIO.get().has_writelines
}

impl SocketTransport {
    /// `transport.write(data)`
    pub fn write(&self, data: &Any) -> Result<()> {
        check_bytes_like(data)?;
        self.check_may_write(
            "Cannot call write() after write_eof()",
            "unable to write; sendfile is in progress",
        )?;
        if data.length()? == 0 || self.is_too_late()? {
            return Ok(());
        }
        match OwnedBytes::new(data) {
            Ok(owned) => self.core().queue.borrow_mut().push(owned),
            Err(raised) => return self.fail(raised, WRITE_ERROR),
        }
        self.on_written()
    }

    /// As `write`, for bytes that ioxide has made.
    pub fn write_owned(&self, data: OwnedBytes) -> Result<()> {
        self.check_may_write(
            "Cannot call write() after write_eof()",
            "unable to write; sendfile is in progress",
        )?;
        if data.as_ref().is_empty() || self.is_too_late()? {
            return Ok(());
        }
        self.core().queue.borrow_mut().push(data);
        self.on_written()
    }

    /// `transport.writelines(list_of_data)`
    pub(super) fn writelines(&self, list_of_data: &Any) -> Result<()> {
        self.check_may_write(
            "Cannot call writelines() after write_eof()",
            "unable to writelines; sendfile is in progress",
        )?;
        if !list_of_data.is_true()? || self.is_too_late()? {
            return Ok(());
        }
        let mut all = Vec::new();
        for data in list_of_data.iterate()? {
            let data = data?;
            if !data.is_true()? {
                continue;
            }
            match OwnedBytes::new(&data) {
                Ok(owned) => all.push(owned),
                Err(raised) => {
                    let exception = raised.take();
                    // asyncio keeps memoryviews: what none can be made of is the caller's error.
                    imports().memoryview.call1(&data)?;
                    return self.fail(Raised::exception(exception), WRITE_ERROR);
                }
            }
        }
        if all.is_empty() {
            return Ok(());
        }
        {
            let mut queue = self.core().queue.borrow_mut();
            all.into_iter().for_each(|owned| queue.push(owned));
        }
        self.on_written()
    }

    fn check_may_write(&self, after_end: &str, during_sendfile: &str) -> Result<()> {
        let core = self.core();
        if core.write_end.get() != WriteEnd::Open {
            return Err(Raised::runtime_error(after_end));
        }
        if !core.empty_waiter.is_empty() {
            return Err(Raised::runtime_error(during_sendfile));
        }
        Ok(())
    }

    /// Writes after the end are dropped; the fifth and later ones are worth a warning.
    fn is_too_late(&self) -> Result<bool> {
        let core = self.core();
        let Phase::Lost(count) = core.phase.get() else { return Ok(false) };
        core.phase.set(Phase::Lost(count.saturating_add(1)));
        if count >= LATE_WRITES_BEFORE_WARNING {
            imports().logger.call_method1(&names().warning, &*text("socket.send() raised exception.")?)?;
        }
        Ok(true)
    }

    /// The queue has grown: decides when it is sent.
    #[inline]
    fn on_written(&self) -> Result<()> {
        let core = self.core();
        if core.writing.get() == Writing::Watching {
            return self.maybe_pause_protocol();
        }
        if self.is_worth_sending_now() {
            return self.send_pending();
        }
        match core.writing.get() {
            Writing::Idle => {
                core.writer_context.set(self.callback_context()?);
                self.queue_flush()
            }
            // W1
            Writing::Held | Writing::Queued | Writing::Watching => Ok(()),
        }
    }

    fn queue_flush(&self) -> Result<()> {
        let Some(event_loop) = self.event_loop().filter(|event_loop| event_loop.in_own_thread()) else {
            return self.send_pending();
        };
        self.core().writing.set(Writing::Queued);
        event_loop.flush_later(self.to_object(), self.pending_bytes());
        Ok(())
    }

    /// `FlowControlled::send_pending`
    pub(super) fn send_written(&self) -> Result<()> {
        let core = self.core();
        if core.writing.get() == Writing::Watching || core.queue.borrow().is_empty() {
            return Ok(());
        }
        match self.flush_queue() {
            Ok(Progress::Drained) => {
                self.leave_queued();
                Ok(())
            }
            Ok(Progress::Partial) => {
                self.watch_writable()?;
                self.maybe_pause_protocol()
            }
            Err(raised) => self.on_write_error(raised),
        }
    }

    /// The loop's call at the end of a turn. Fails: KeyboardInterrupt, SystemExit.
    pub fn on_end_of_turn(&self) -> Result<()> {
        let core = self.core();
        if core.writing.get() != Writing::Queued {
            return Ok(());
        }
        let outcome = match self.flush_queue() {
            Ok(Progress::Drained) => {
                self.leave_queued();
                return Ok(());
            }
            Ok(Progress::Partial) => {
                // The protocol is called in the context of the write, as by asyncio's `write`.
                let writer_context =
                    [&core.writer_context, &core.reader_context].into_iter().find_map(Slot::get_object);
                let watch = || self.watch_writable().and_then(|()| self.maybe_pause_protocol());
                match writer_context {
                    Some(writer_context) => with_context(&writer_context, watch),
                    None => watch(),
                }
            }
            Err(raised) => self.on_write_error(raised),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(raised) => self.fail(raised, WRITE_ERROR),
        }
    }

    /// After a call of the protocol that was made with the state `Held`. A short answer leaves at the end of the turn,
    /// one right after another: a peer that sleeps is woken once for many of them.
    pub(super) fn end_hold(&self) -> Result<()> {
        let core = self.core();
        if core.writing.get() != Writing::Held {
            return Ok(());
        }
        core.writing.set(Writing::Idle);
        match self.pending_bytes() {
            0 => Ok(()),
            1..=SENT_TOGETHER => {
                // The reader's context is the one of this write.
                core.writer_context.clear();
                self.queue_flush()
            }
            _ => self.send_pending(),
        }
    }

    /// The queue is drained: the loop, if it still holds the transport for a flush, will find nothing to do.
    fn leave_queued(&self) {
        let core = self.core();
        if core.writing.get() == Writing::Queued {
            core.writing.set(Writing::Idle);
        }
    }

    /// One gathered write, or as many as the kernel takes whole. Dropping sent bytes runs no Python (T5).
    pub(super) fn flush_queue(&self) -> Result<Progress> {
        let mut socket = self.socket()?;
        let flushed = self.core().queue.borrow_mut().flush(&mut socket, &mut drop);
        flushed.map_err(|error| raise_os_error(&error))
    }

    fn watch_writable(&self) -> Result<()> {
        let core = self.core();
        let Some(event_loop) = self.event_loop() else { return Ok(()) };
        event_loop.check_closed()?;
        drop(event_loop.watch(core.fd.get(), Direction::Write, Watcher::Transport(self.to_object()))?);
        // A queued flush has noted the context of the write.
        if core.writing.get() != Writing::Queued || core.writer_context.is_empty() {
            core.writer_context.set(self.callback_context()?);
        }
        core.writing.set(Writing::Watching);
        Ok(())
    }

    /// Nothing is written any more, or everything is.
    pub(super) fn stop_writing(&self) {
        let core = self.core();
        if core.writing.replace(Writing::Idle) == Writing::Watching
            && let Some(event_loop) = self.event_loop()
        {
            drop(event_loop.unwatch(core.fd.get(), Direction::Write));
        }
        core.writer_context.clear();
    }

    fn on_write_error(&self, raised: Raised) -> Result<()> {
        if raised.leaves_the_loop() {
            return Err(raised);
        }
        let exception = raised.take();
        self.drop_queue();
        self.on_fatal_error(&exception, WRITE_ERROR)?;
        match self.core().empty_waiter.get_object() {
            Some(waiter) => waiter.call_method1(&names().set_exception, &exception).map(drop),
            None => Ok(()),
        }
    }

    pub(super) fn drop_queue(&self) {
        self.stop_writing();
        self.core().queue.borrow_mut().clear(&mut drop);
    }

    pub(super) fn on_writable(&self) -> Result<()> {
        let core = self.core();
        let mut progress = match self.flush_queue() {
            Ok(progress) => progress,
            Err(raised) => return self.on_write_error(raised),
        };
        self.maybe_resume_protocol()?;
        if progress == Progress::Drained && !core.queue.borrow().is_empty() {
            // The protocol has written more.
            progress = match self.flush_queue() {
                Ok(progress) => progress,
                Err(raised) => return self.on_write_error(raised),
            };
        }
        if progress == Progress::Partial || core.writing.get() != Writing::Watching {
            return Ok(());
        }
        self.stop_writing();
        self.on_drained()
    }

    /// What waited for the end of the writing: sendfile, `close`, `write_eof`.
    fn on_drained(&self) -> Result<()> {
        let core = self.core();
        if let Some(waiter) = core.empty_waiter.get_object() {
            waiter.call_method1(&names().set_result, none())?;
        }
        match core.phase.get() {
            Phase::Closing => {
                core.phase.set(Phase::Lost(1));
                self.call_connection_lost(none())
            }
            Phase::Open => self.send_end(),
            Phase::Lost(_) => Ok(()),
        }
    }

    /// `transport.write_eof()`
    pub(super) fn write_eof(&self) -> Result<()> {
        let core = self.core();
        if core.is_closing() || core.write_end.get() != WriteEnd::Open {
            return Ok(());
        }
        self.send_pending()?;
        if core.is_closing() {
            return Ok(());
        }
        core.write_end.set(WriteEnd::Requested);
        if core.queue.borrow().is_empty() { self.send_end() } else { Ok(()) }
    }

    /// `transport._make_empty_waiter()`: a future that is done when everything written is in the kernel.
    pub(super) fn make_empty_waiter(&self) -> Result<Object> {
        let core = self.core();
        if !core.empty_waiter.is_empty() {
            return Err(Raised::runtime_error("Empty waiter is already set"));
        }
        self.send_pending()?;
        let Some(event_loop) = self.event_loop() else {
            return Err(Raised::runtime_error("the transport is closed"));
        };
        let waiter = event_loop.create_future()?;
        core.empty_waiter.set(waiter.clone());
        if core.queue.borrow().is_empty() {
            waiter.call_method1(&names().set_result, none())?;
        }
        Ok(waiter)
    }

    /// `transport._reset_empty_waiter()`
    pub(super) fn reset_empty_waiter(&self) -> Object {
        self.core().empty_waiter.clear();
        none_object()
    }

    fn send_end(&self) -> Result<()> {
        let core = self.core();
        if core.write_end.get() != WriteEnd::Requested {
            return Ok(());
        }
        core.write_end.set(WriteEnd::Sent);
        self.socket()?.shutdown_write().map_err(|error| raise_os_error(&error))
    }
}

impl StreamCore {
    /// For `repr`, which changes nothing.
    pub(super) fn is_watching_writes(&self) -> bool {
        self.writing.get() == Writing::Watching
    }
}

#[inline]
fn check_bytes_like(data: &Any) -> Result<()> {
    if data.is_bytes() || data.is_instance(&ASYNCIO.get().bytes_like)? {
        return Ok(());
    }
    Err(Raised::type_error(&format!("{}'{}'", ASYNCIO.get().type_error, type_name(data))))
}
