//! A file sent by hand: read in a thread of the executor, sent as a coroutine of the loop sends.

use super::sendfile::Request;
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::wait_for;
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::version::SENDFILE_ALWAYS_SEEKS;
use ioxide_cpython::{Any, Object, Result, imports, names, none, none_object};

/// A file that is read piece by piece.
pub(super) struct Pieces {
    buffer: Object,
    size: i64,
    limit: Option<i64>,
    pub(super) sent: i64,
}

impl Pieces {
    pub(super) fn begin(request: &Request, most: i64) -> Result<Pieces> {
        let has_position = request.file.get_attribute_optional(&names().seek)?.is_some();
        let seeks = if SENDFILE_ALWAYS_SEEKS { has_position } else { request.offset.is_true()? };
        if seeks {
            request.file.call_method1(&names().seek, &request.offset)?;
        }
        let limit = request.limit()?;
        let size = limit.map_or(most, |limit| limit.min(most));
        Ok(Pieces { buffer: imports().bytearray.call1(&*integer(size)?)?, size, limit, sent: 0 })
    }

    /// The next piece, `None` at the end. A file's `readinto` may take its time, so a thread calls it.
    async fn next(&mut self, request: &Request) -> Result<Option<Object>> {
        if let Some(limit) = self.limit {
            self.size = self.size.min(limit - self.sent);
            if self.size <= 0 {
                return Ok(None);
            }
        }
        let view = beginning(&*imports().memoryview.call1(&self.buffer)?, &*integer(self.size)?)?;
        let read = request.file.get_attribute(&names().readinto)?;
        let reading = request.event_loop.call_method(&names().run_in_executor, &[none(), &*read, &*view])?;
        let count = wait_for(&reading).await?;
        if !count.is_true()? {
            return Ok(None);
        }
        beginning(&view, &count).map(Some)
    }

    fn note_sent(&mut self, piece: &Any) -> Result<()> {
        self.sent += piece.length()? as i64;
        Ok(())
    }

    /// Leaves the file's position where the sending ended.
    pub(super) fn end(&self, request: &Request) -> Result<()> {
        if self.sent == 0 {
            return Ok(());
        }
        match request.file.get_attribute_optional(&names().seek)? {
            Some(seek) => seek.call1(&*integer(request.offset.to_i64()? + self.sent)?).map(drop),
            None => Ok(()),
        }
    }
}

/// `view[:count]`
fn beginning(view: &Any, count: &Any) -> Result<Object> {
    view.get_item(&*import(c"builtins")?.get_attribute_str(c"slice")?.call1(count)?)
}

pub(super) async fn send_to_socket(request: &Request, pieces: &mut Pieces) -> Result<Object> {
    while let Some(piece) = pieces.next(request).await? {
        let sending = request.event_loop.call_method(&names().sock_sendall, &[&*request.target, &*piece])?;
        wait_for(&sending).await?;
        pieces.note_sent(&piece)?;
    }
    Ok(none_object())
}

pub(super) async fn send_to_transport(
    request: &Request,
    pieces: &mut Pieces,
    protocol: &Any,
) -> Result<Object> {
    let drain = text("drain")?;
    while let Some(piece) = pieces.next(request).await? {
        if SENDFILE_ALWAYS_SEEKS {
            request.target.call_method1(&names().write, &piece)?;
            wait_for(&*protocol.call_method0(&drain)?).await?;
        } else {
            wait_for(&*protocol.call_method0(&drain)?).await?;
            request.target.call_method1(&names().write, &piece)?;
        }
        pieces.note_sent(&piece)?;
    }
    Ok(none_object())
}
