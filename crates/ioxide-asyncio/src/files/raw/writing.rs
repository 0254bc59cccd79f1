//! Writing: bytes are taken at once and given to the kernel after the operation, on the pool.

use super::super::ring::submit_operation;
use super::{Access, RawFile};
use crate::work::submit;
use ioxide_cpython::buffer::Buffer;
use ioxide_cpython::detach::without_gil;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::methods::{Arguments, Receiver, Signature};
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Result, none, none_object};
use ioxide_io::operation::{Pending, Syncing, Writing};
use ioxide_io::{Operation, Storage};
use std::io;

impl RawFile {
    /// Takes the bytes; `_settle` writes them.
    pub(super) fn write(&self, data: &Any) -> Result<Object> {
        let core = self.core();
        let file = self.file()?;
        self.check_writable()?;
        let view = Buffer::readable(data)?;
        let (count, seekable) = (view.len(), core.seekable.get());
        if core.appends.get() && seekable {
            let (length, _) = file.length_and_device().map_err(|error| raise_os_error(&error))?;
            let pending: usize = core.pending.borrow().iter().map(|pending| pending.data.len()).sum();
            core.window.borrow_mut().seek(length + pending as u64);
        }
        let mut window = core.window.borrow_mut();
        window.clear();
        let offset = seekable.then(|| window.position());
        let mut pending = core.pending.borrow_mut();
        match pending.last_mut() {
            Some(last) if last.offset.map(|begun| begun + last.data.len() as u64) == offset => {
                last.data.extend_from_slice(view.as_slice());
            }
            _ => pending.push(Pending { offset, data: view.as_slice().to_vec() }),
        }
        window.advance(count);
        drop((window, pending));
        integer(count as i64)
    }

    /// Sends what was written to the kernel on the pool.
    pub(super) fn settle(&self) -> Result<Object> {
        let core = self.core();
        if core.pending.borrow().is_empty() {
            return Ok(none_object());
        }
        if self.writes_at_once()? {
            return self.write_pending().map(|()| none_object());
        }
        let file = self.file()?;
        let pending = std::mem::take(&mut *core.pending.borrow_mut());
        let this = self.to_object();
        let writing = Writing::new(file, pending);
        let finish = move |outcome| {
            // SAFETY: an instance of the class; `self` was one.
            let this = unsafe { RawFile::receive(this.as_ptr()) }?;
            this.after_writing(outcome).map(|()| none_object())
        };
        match core.seekable.get() {
            true => submit_operation(writing, finish),
            false => submit(move || writing.run(), finish),
        }
    }

    pub(super) fn writes_at_once(&self) -> Result<bool> {
        Ok(self.core().access.get() == Access::Resident || self.is_in_memory()?)
    }

    /// Asked once, when the first bytes leave: who only reads need not know.
    fn is_in_memory(&self) -> Result<bool> {
        let core = self.core();
        if core.storage_is_known.replace(true) || core.access.get() != Access::Cached {
            return Ok(false);
        }
        let in_memory = self.file()?.storage() == Storage::Memory;
        if in_memory {
            core.access.set(Access::Resident);
        }
        Ok(in_memory)
    }

    /// Sends what was written to the kernel, waiting.
    pub(super) fn write_pending(&self) -> Result<()> {
        let pending = std::mem::take(&mut *self.core().pending.borrow_mut());
        if pending.is_empty() {
            return Ok(());
        }
        let file = self.file()?;
        self.after_writing(without_gil(move || Writing::new(file, pending).run()))
    }

    /// What could not be written is kept for the next attempt, as a buffered file does.
    pub(super) fn after_writing(
        &self,
        outcome: std::result::Result<(), (Vec<Pending>, io::Error)>,
    ) -> Result<()> {
        let core = self.core();
        let Err((mut rest, error)) = outcome else { return Ok(()) };
        let mut pending = core.pending.borrow_mut();
        rest.append(&mut pending);
        *pending = rest;
        drop(pending);
        Err(raise_os_error(&error))
    }

    pub(super) fn pwrite(&self, arguments: Arguments<'_>) -> Result<Object> {
        const PWRITE: Signature<2> =
            Signature { function: "pwrite", names: ["data", "offset"], required: 2, positional: 2 };
        let [data, offset] = PWRITE.bind(arguments)?;
        let file = self.file()?;
        let data = Buffer::readable(data.unwrap_or(none()))?.as_slice().to_vec();
        let offset = u64::try_from(offset.map_or(Ok(0), Any::to_i64)?)
            .map_err(|_| raise_os_error(&io::Error::from_raw_os_error(22)))?;
        self.core().window.borrow_mut().clear();
        let count = data.len();
        let writing = Writing::new(file, vec![Pending { offset: Some(offset), data }]);
        submit_operation(writing, move |outcome| {
            outcome.map_err(|(_, error)| raise_os_error(&error))?;
            integer(count as i64)
        })
    }

    pub(super) fn sync(&self, data_only: &Any) -> Result<Object> {
        let (file, data_only) = (self.file()?, data_only.is_true()?);
        submit_operation(Syncing { file, data_only }, |outcome| {
            outcome.map(|()| none_object()).map_err(|error| raise_os_error(&error))
        })
    }
}
