//! The bytes that a StreamReader has received and nobody has read. What arrives in one piece leaves as the very object it
//! came in, if it is read whole.
//!
//! Invariants:
//! B1. Once somebody has seen the bytearray behind `reader._buffer`, it is the storage: what they do to it counts.
//! B2. No borrow is held while Python runs: making and dropping bytes objects runs none, a bytearray is taken out first.

use ioxide_cpython::bytearray::bytearray;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::value::{bytes, integer};
use ioxide_cpython::{Any, Object, Result, names};
use std::cell::RefCell;

/// More room than this is given back when the buffer is empty.
const KEEP_ROOM: usize = 16 * 1024;

enum Storage {
    /// A bytes object, read up to the index.
    Piece(Object, usize),
    /// Several pieces, read up to the index.
    Gathered(Vec<u8>, usize),
    /// The bytearray of B1.
    Shared(Object),
}

pub(super) struct Buffer(RefCell<Storage>);

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer(RefCell::new(Storage::Gathered(Vec::new(), 0)))
    }

    pub(super) fn len(&self) -> usize {
        self.look(<[u8]>::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `look` makes of the unread bytes. `look` runs no Python (B2).
    fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        match &*self.0.borrow() {
            Storage::Piece(piece, start) => {
                look(piece.bytes().and_then(|all| all.get(*start..)).unwrap_or(&[]))
            }
            Storage::Gathered(all, start) => look(all.get(*start..).unwrap_or(&[])),
            Storage::Shared(array) => array.with_bytearray(look),
        }
    }

    fn shared(&self) -> Option<Object> {
        match &*self.0.borrow() {
            Storage::Shared(array) => Some(array.clone()),
            _ => None,
        }
    }

    /// `reader._buffer`
    pub(super) fn share(&self) -> Result<Object> {
        if let Some(array) = self.shared() {
            return Ok(array);
        }
        let array = self.look(bytearray)?;
        self.set_shared(array.clone());
        Ok(array)
    }

    /// `reader._buffer = array`
    pub(super) fn set_shared(&self, array: Object) {
        drop(self.0.replace(Storage::Shared(array)));
    }

    /// Appends a bytes object. Fails: BufferError while somebody has a view of the shared bytearray.
    pub(super) fn push(&self, piece: &Any) -> Result<()> {
        self.append(piece.bytes().unwrap_or(&[]), || Ok(piece.to_object()))
    }

    /// Appends bytes that are no object yet. Fails: as `push`; MemoryError.
    pub(super) fn push_copy(&self, added: &[u8]) -> Result<()> {
        self.append(added, || bytes(added))
    }

    /// `piece` makes the object of the bytes, if it is needed.
    fn append(&self, added: &[u8], piece: impl FnOnce() -> Result<Object>) -> Result<()> {
        if let Some(array) = self.shared() {
            return array.bytearray_append(added);
        }
        if self.is_empty() {
            drop(self.0.replace(Storage::Piece(piece()?, 0)));
            return Ok(());
        }
        let mut storage = self.0.borrow_mut();
        if let Storage::Piece(first, start) = &*storage {
            let rest = first.bytes().and_then(|all| all.get(*start..)).unwrap_or(&[]);
            let mut all = Vec::with_capacity(2 * (rest.len() + added.len()));
            all.extend_from_slice(rest);
            *storage = Storage::Gathered(all, 0);
        }
        if let Storage::Gathered(all, start) = &mut *storage {
            if *start * 2 >= all.len() {
                all.drain(..std::mem::take(start));
            }
            all.extend_from_slice(added);
        }
        Ok(())
    }

    /// `bytearray.extend(data)`: bytes-like objects and iterables of numbers. Fails: as that does.
    pub(super) fn extend(&self, data: &Any) -> Result<()> {
        if let Some(array) = self.shared() {
            return array.call_method1(&names().extend, data).map(drop);
        }
        let array = bytearray(&[])?;
        array.call_method1(&names().extend, data)?;
        let piece = array.with_bytearray(bytes)?;
        self.push(&piece)
    }

    /// At most `count` bytes off the front. Fails: BufferError while somebody has a view of the shared bytearray.
    pub(super) fn take(&self, count: usize) -> Result<Object> {
        if let Some(array) = self.shared() {
            let taken = array.with_bytearray(|all| bytes(all.get(..count).unwrap_or(all)))?;
            array.bytearray_delete_front(count)?;
            return Ok(taken);
        }
        if let Some(piece) = self.take_whole_piece(count) {
            return Ok(piece);
        }
        let taken = self.look(|all| bytes(all.get(..count).unwrap_or(all)))?;
        self.skip(count);
        Ok(taken)
    }

    /// A piece that nothing has been read of, if all of it is wanted.
    fn take_whole_piece(&self, count: usize) -> Option<Object> {
        let mut storage = self.0.borrow_mut();
        match &*storage {
            Storage::Piece(piece, 0) if piece.bytes().is_some_and(|all| all.len() <= count) => {}
            _ => return None,
        }
        match std::mem::replace(&mut *storage, Storage::Gathered(Vec::new(), 0)) {
            Storage::Piece(piece, _) => Some(piece),
            Storage::Gathered(..) | Storage::Shared(_) => None,
        }
    }

    /// Everything. Fails: BufferError while somebody has a view of the shared bytearray.
    pub(super) fn take_all(&self) -> Result<Object> {
        self.take(self.len())
    }

    /// `del buffer[:count]`. Fails: BufferError while somebody has a view of the shared bytearray.
    pub(super) fn discard(&self, count: usize) -> Result<()> {
        match self.shared() {
            Some(array) => array.bytearray_delete_front(count),
            None => {
                self.skip(count);
                Ok(())
            }
        }
    }

    /// Of storage that is not shared.
    fn skip(&self, count: usize) {
        let mut storage = self.0.borrow_mut();
        let is_read = match &mut *storage {
            Storage::Piece(piece, start) => {
                *start = start.saturating_add(count);
                piece.bytes().is_none_or(|all| all.len() <= *start)
            }
            Storage::Gathered(all, start) => {
                *start = start.saturating_add(count);
                if all.len() <= *start && all.capacity() <= KEEP_ROOM {
                    all.clear();
                    *start = 0;
                }
                all.len() <= *start && *start > 0
            }
            Storage::Shared(_) => false,
        };
        if is_read {
            *storage = Storage::Gathered(Vec::new(), 0);
        }
    }

    /// Where `needle` (not empty) begins, `from` this index on.
    pub(super) fn find(&self, needle: &[u8], from: usize) -> Option<usize> {
        self.look(|all| ioxide_io::search::find(all.get(from..)?, needle).map(|found| found + from))
    }

    /// As `find`, for whatever `bytearray.find` takes. Fails: TypeError as that does.
    pub(super) fn find_object(&self, needle: &Any, from: usize) -> Result<Option<usize>> {
        if let Some(needle) = needle.bytes() {
            return Ok(self.find(needle, from));
        }
        let array = match self.shared() {
            Some(array) => array,
            None => self.look(bytearray)?,
        };
        let found = array.call_method(&names().find, &[needle, &*integer(from as i64)?])?.to_i64()?;
        Ok(usize::try_from(found).ok())
    }

    /// Whether `part` stands at the index.
    pub(super) fn has_at(&self, part: &[u8], index: usize) -> bool {
        self.look(|all| all.get(index..).is_some_and(|rest| rest.starts_with(part)))
    }

    pub(super) fn traverse(&self, visitor: &mut Visitor) {
        if let Ok(storage) = self.0.try_borrow()
            && let Storage::Shared(array) = &*storage
        {
            visitor.object(array);
        }
    }

    pub(super) fn clear(&self) {
        drop(self.0.replace(Storage::Gathered(Vec::new(), 0)));
    }
}
