//! The user's TLS connection: an `SSLObject` over two memory BIOs, driven through Python or directly.
//!
//! Leaves to others: when to read and write (`reading`, `writing`), what an exception means.
//!
//! Invariants:
//! D1. Both paths work on the same objects, so each call may take either; what is not plain success goes through Python.
//! D2. `direct` is there only while `socket` holds the object it drives.
//! D3. A write offers no more than one record, so that a repeated write offers the same bytes on either path.

use super::asyncio::Ssl;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::ssl::{DirectSsl, Outcome, Parts};
use ioxide_cpython::value::{bytes, integer};
use ioxide_cpython::{Object, Result, Slot, names, none};
use std::cell::Cell;
use std::mem::MaybeUninit;

/// The most plain text that fits into a record (D3).
const RECORD: usize = 16 * 1024;
/// So many encrypted bytes are decrypted in the place where they stay.
const MUCH: usize = 4 * 1024;
/// What asyncio asks for in one read.
const READ_SIZE: i64 = 256 * 1024;

/// What a read or a write came to.
pub(super) enum Progress<T> {
    Made(T),
    /// Nothing more until more has arrived.
    Again,
}

/// One read: what was decrypted, empty at the end of the stream.
pub(super) enum Plain {
    /// So many bytes behind what was there.
    Appended(usize),
    /// A bytes object of Python's.
    Object(Object),
}

pub(super) struct Engine {
    pub(super) object: Slot,
    pub(super) incoming: Slot,
    pub(super) outgoing: Slot,
    /// The `_ssl._SSLSocket` inside the object, while it is driven directly.
    socket: Slot,
    direct: Cell<Option<DirectSsl>>,
    /// Whether the object is of `ssl.SSLObject` itself, whose `pending` says whether a read can bring anything.
    is_plain: Cell<bool>,
}

impl Engine {
    pub(super) fn empty() -> Engine {
        Engine {
            object: Slot::empty(),
            incoming: Slot::empty(),
            outgoing: Slot::empty(),
            socket: Slot::empty(),
            direct: Cell::new(None),
            is_plain: Cell::new(false),
        }
    }

    /// The handshake is done: from now on records pass without Python, where that is verified to be the same.
    pub(super) fn become_direct(&self, ssl: &Ssl) -> Result<()> {
        let object = self.object.get_or_none();
        if !object.get_type().is(&ssl.ssl_object) {
            return Ok(());
        }
        self.is_plain.set(true);
        if std::env::var_os("IOXIDE_TLS_THROUGH_PYTHON").is_some_and(|value| value == "1") {
            return Ok(());
        }
        let Some(socket) = object.get_attribute_optional(&names()._sslobj)? else { return Ok(()) };
        let context = object.get_attribute(&names().context)?;
        if let Some(callback) = context.get_attribute_optional(&names()._msg_callback)?
            && !callback.is_none()
        {
            // What it raises is kept for the method that Python has called.
            return Ok(());
        }
        let (incoming, outgoing) = (self.incoming.get_or_none(), self.outgoing.get_or_none());
        let parts = Parts { socket: &socket, context: &context, incoming: &incoming, outgoing: &outgoing };
        let direct = DirectSsl::new(&parts)?;
        self.socket.set(socket);
        self.direct.set(direct);
        Ok(())
    }

    /// Whether records pass without Python.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.get().is_some()
    }

    /// Gives received bytes to the connection.
    pub(super) fn feed(&self, data: &[u8]) -> Result<()> {
        if let Some(direct) = self.direct.get()
            && direct.feed(data)
        {
            return Ok(());
        }
        self.incoming.get_or_none().call_method1(&names().write, &*bytes(data)?).map(drop)
    }

    /// `incoming.pending`
    pub(super) fn incoming_pending(&self) -> Result<usize> {
        match self.direct.get() {
            Some(direct) => Ok(direct.incoming_pending()),
            None => pending(&self.incoming),
        }
    }

    /// `outgoing.pending`
    pub(super) fn outgoing_pending(&self) -> Result<usize> {
        match self.direct.get() {
            Some(direct) => Ok(direct.outgoing_pending()),
            None => pending(&self.outgoing),
        }
    }

    /// Decrypts some bytes, behind those in `plain` on the direct path. Fails: with what `SSLObject.read` raises.
    pub(super) fn read(&self, ssl: &Ssl, plain: &mut Vec<u8>) -> Result<Progress<Plain>> {
        let outcome = match self.direct.get() {
            Some(direct) => direct.read_append(plain),
            None if self.may_bring_something()? => Outcome::AskPython,
            None => Outcome::Again,
        };
        self.progress(ssl, outcome)
    }

    /// Decrypts all that has arrived into an object of its own, which saves a copy, and tells what ended that, for `progress`.
    /// Does nothing where it is so little that a copy is cheaper than cutting the object to its length.
    pub(super) fn read_much(&self) -> Result<(Option<Object>, Option<Outcome>)> {
        match self.direct.get() {
            Some(direct) if direct.incoming_pending() >= MUCH => direct.read_all(),
            _ => Ok((None, None)),
        }
    }

    /// What a read on the direct path came to. Fails: with what `SSLObject.read` raises.
    pub(super) fn progress(&self, ssl: &Ssl, outcome: Outcome) -> Result<Progress<Plain>> {
        match outcome {
            Outcome::Count(count) => Ok(Progress::Made(Plain::Appended(count))),
            Outcome::EndOfStream => Ok(Progress::Made(Plain::Appended(0))),
            Outcome::Again => Ok(Progress::Again),
            Outcome::AskPython => {
                let read = self.object.get_or_none().call_method1(&names().read, &*integer(READ_SIZE)?);
                unless_again(ssl, read.map(Plain::Object))
            }
        }
    }

    /// Decrypts some bytes into a buffer of the application's, of which `room` shows the memory from `offset` on.
    /// Fails: with what `SSLObject.read` raises.
    pub(super) fn read_into(
        &self,
        ssl: &Ssl,
        room: &mut [MaybeUninit<u8>],
        buffer: impl FnOnce() -> Result<Object>,
    ) -> Result<Progress<usize>> {
        if let Some(direct) = self.direct.get()
            && !room.is_empty()
        {
            match direct.read(room) {
                Outcome::Count(count) => return Ok(Progress::Made(count)),
                Outcome::EndOfStream => return Ok(Progress::Made(0)),
                Outcome::Again => return Ok(Progress::Again),
                Outcome::AskPython => {}
            }
        } else if !room.is_empty() && !self.may_bring_something()? {
            return Ok(Progress::Again);
        }
        let arguments = [&*integer(room.len() as i64)?, &*buffer()?];
        let count = self.object.get_or_none().call_method(&names().read, &arguments);
        match unless_again(ssl, count)? {
            Progress::Made(count) => Ok(Progress::Made(usize::try_from(count.to_i64()?).unwrap_or(0))),
            Progress::Again => Ok(Progress::Again),
        }
    }

    /// Whether a read through Python can come to anything but SSLWantReadError, which is dear.
    fn may_bring_something(&self) -> Result<bool> {
        if !self.is_plain.get() || pending(&self.incoming)? > 0 {
            return Ok(true);
        }
        Ok(self.object.get_or_none().call_method0(&names().pending)?.to_i64()? > 0)
    }

    /// Encrypts the first bytes of `data`; how many. Fails: with what `SSLObject.write` raises.
    pub(super) fn write(&self, ssl: &Ssl, data: &[u8]) -> Result<Progress<usize>> {
        let record = &data[..data.len().min(RECORD)];
        if let Some(direct) = self.direct.get() {
            match direct.write(record) {
                Outcome::Count(count) => return Ok(Progress::Made(count)),
                Outcome::Again => return Ok(Progress::Again),
                Outcome::EndOfStream | Outcome::AskPython => {}
            }
        }
        let count = self.object.get_or_none().call_method1(&names().write, &*bytes(record)?);
        match unless_again(ssl, count)? {
            Progress::Made(count) => Ok(Progress::Made(usize::try_from(count.to_i64()?).unwrap_or(0))),
            Progress::Again => Ok(Progress::Again),
        }
    }

    /// Everything that is to be sent, `None` where there is nothing.
    pub(super) fn take_outgoing(&self) -> Result<Option<Object>> {
        if let Some(direct) = self.direct.get() {
            return direct.take_outgoing();
        }
        let data = self.outgoing.get_or_none().call_method0(&names().read)?;
        Ok(if data.length()? == 0 { None } else { Some(data) })
    }

    pub(super) fn traverse(&self, visitor: &mut Visitor) {
        for slot in [&self.object, &self.incoming, &self.outgoing, &self.socket] {
            visitor.slot(slot);
        }
    }

    /// D2
    pub(super) fn clear(&self) {
        self.direct.set(None);
        for slot in [&self.object, &self.incoming, &self.outgoing, &self.socket] {
            slot.clear();
        }
    }
}

/// `bio.pending`
fn pending(bio: &Slot) -> Result<usize> {
    let pending = bio.get().unwrap_or(none()).to_object().get_attribute(&names().pending)?.to_i64()?;
    Ok(usize::try_from(pending).unwrap_or(0))
}

/// The errors that only mean that more has to arrive are none.
pub(super) fn unless_again<T>(ssl: &Ssl, outcome: Result<T>) -> Result<Progress<T>> {
    match outcome {
        Ok(value) => Ok(Progress::Made(value)),
        Err(raised) if raised.matches(&ssl.again) => {
            drop(raised.take());
            Ok(Progress::Again)
        }
        Err(raised) => Err(raised),
    }
}
