//! What the application writes: the backlog, its encryption, and handing the records to the transport below.

use super::engine::Progress;
use super::{SslProtocol, State, asyncio};
use crate::transports::SocketTransport;
use ioxide_cpython::buffer::OwnedBytes;
use ioxide_cpython::value::text;
use ioxide_cpython::{Any, Object, Result, imports, names};
use std::collections::VecDeque;

/// `asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES`
const LATE_WRITES_BEFORE_WARNING: u32 = 5;

/// What is not encrypted yet, in the order it was written.
#[derive(Default)]
pub(super) struct Backlog {
    chunks: VecDeque<OwnedBytes>,
    /// How many bytes of the first chunk are encrypted already.
    begun: usize,
    bytes: usize,
}

impl Backlog {
    fn push(&mut self, chunk: OwnedBytes) {
        self.bytes += chunk.as_ref().len();
        self.chunks.push_back(chunk);
    }

    /// The first chunk and where its rest begins.
    fn first(&self) -> Option<(Object, usize)> {
        Some((self.chunks.front()?.object().to_object(), self.begun))
    }

    /// So many more bytes are encrypted; returns the first chunk when nothing remains of it.
    fn advance(&mut self, count: usize) -> Option<OwnedBytes> {
        let length = self.chunks.front()?.as_ref().len();
        self.begun += count;
        self.bytes = self.bytes.saturating_sub(count);
        if self.begun < length {
            return None;
        }
        self.begun = 0;
        self.chunks.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is in it, oldest first.
    pub(super) fn objects(&self) -> Vec<Object> {
        self.chunks.iter().map(|chunk| chunk.object().to_object()).collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Backlog::default();
    }
}

impl SslProtocol {
    /// `_write_appdata(list_of_data)` for one buffer that is not empty.
    pub(super) fn write_application_data(&self, data: &Any) -> Result<()> {
        if self.is_too_late()? {
            return Ok(());
        }
        let chunk = OwnedBytes::new(data)?;
        self.core().backlog.borrow_mut().push(chunk);
        self.write_if_wrapped()
    }

    /// `_write_appdata(list_of_data)`
    pub(super) fn write_list(&self, list_of_data: &Any) -> Result<()> {
        if self.is_too_late()? {
            return Ok(());
        }
        for data in list_of_data.iterate()? {
            let data = data?;
            match OwnedBytes::new(&data) {
                Ok(chunk) => self.core().backlog.borrow_mut().push(chunk),
                Err(raised) => {
                    // What has no length is the caller's error; the rest is one of writing.
                    let exception = raised.take();
                    data.length()?;
                    self.write_if_wrapped()?;
                    return self.fatal_error(&exception, "Fatal error on SSL protocol");
                }
            }
        }
        self.write_if_wrapped()
    }

    fn write_if_wrapped(&self) -> Result<()> {
        if self.core().state.get() != State::Wrapped {
            return Ok(());
        }
        self.fail(self.do_write())
    }

    /// Writes after the end are dropped; the fifth and later ones are worth a warning.
    fn is_too_late(&self) -> Result<bool> {
        let core = self.core();
        if !matches!(core.state.get(), State::Flushing | State::Shutdown | State::Unwrapped) {
            return Ok(false);
        }
        let count = core.lost_count.get();
        core.lost_count.set(count.saturating_add(1));
        if count >= LATE_WRITES_BEFORE_WARNING {
            imports().logger.call_method1(&names().warning, &*text("SSL connection is closed")?)?;
        }
        Ok(true)
    }

    /// Encrypts the backlog and hands over the records.
    pub(super) fn do_write(&self) -> Result<()> {
        let core = self.core();
        let ssl = asyncio::ssl()?;
        loop {
            let first = core.backlog.borrow().first();
            let Some((chunk, begun)) = first else { break };
            let rest = chunk.bytes().and_then(|bytes| bytes.get(begun..)).unwrap_or(&[]);
            let count = match rest {
                [] => 0,
                rest => match core.engine.write(ssl, rest)? {
                    Progress::Made(count) => count,
                    Progress::Again => break,
                },
            };
            let sent = core.backlog.borrow_mut().advance(count);
            drop(sent);
        }
        self.process_outgoing()
    }

    /// Hands the records to the transport below, unless that has asked for a pause.
    pub(super) fn process_outgoing(&self) -> Result<()> {
        let core = self.core();
        if !core.ssl_writing_paused.get()
            && let Some(data) = core.engine.take_outgoing()?
        {
            let transport = core.transport.get_or_none();
            match SocketTransport::from_any(&transport) {
                Some(transport) => transport.write_owned(OwnedBytes::new(&data)?)?,
                None => drop(transport.call_method1(&names().write, &data)?),
            }
        }
        self.control_application_writing()
    }

    /// `get_write_buffer_size()`
    pub(super) fn write_buffer_size(&self) -> Result<usize> {
        let backlog = self.core().backlog.borrow().bytes();
        Ok(self.core().engine.outgoing_pending()? + backlog)
    }

    /// `_test__append_write_backlog(data)`, for CPython's own test of a backlog that is written late.
    pub(super) fn append_to_backlog(&self, data: &Any) -> Result<()> {
        let chunk = OwnedBytes::new(data)?;
        self.core().backlog.borrow_mut().push(chunk);
        Ok(())
    }
}
