//! The side of a StreamReader that reads: coroutines that look into the buffer and wait for more.
//!
//! Leaves to others: what arrives (`reader`), the bytes (`buffer`).
//!
//! Invariants:
//! G1. What is wanted and already there is read without suspending, as by asyncio; the body runs when it is awaited.
//! G2. Nobody is left as the reader's waiter when its coroutine ends, however it ends.

use super::ASYNCIO;
use super::reader::{
    StreamReader, assigned, is_own, maybe_resume_transport, present, raise, resume_transport,
};
use crate::futures;
use ioxide_cpython::coroutine::{Owner, coroutine_of, wait_for};
use ioxide_cpython::exception::set_context;
use ioxide_cpython::fields::missing_attribute;
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::methods::{Arguments, Definition, Signature, documented};
use ioxide_cpython::value::{bytes, integer, text};
use ioxide_cpython::version::STREAM_READER_TAKES_BYTES;
use ioxide_cpython::{Any, Builtin, Object, Raised, Result, builtin, names, none_object};
use std::future::Future;
use std::ops::Deref;

pub(super) fn methods() -> Vec<Definition> {
    vec![
        documented(
            coroutine_method(c"read", read_method),
            c"read($self, n=-1)\n--\n\nAt most `n` bytes, as soon as there are any; all until the end of the stream if negative. Empty at the end.",
        ),
        documented(
            coroutine_method(c"readexactly", readexactly_method),
            c"readexactly($self, n)\n--\n\nExactly `n` bytes. Fails with IncompleteReadError at the end of the stream, ValueError for a negative `n`.",
        ),
        documented(
            coroutine_method0(c"readline", |this: &StreamReader| {
                reader_coroutine("StreamReader.readline", this, async move |reader: HeldReader| readline(&reader).await)
            }),
            c"readline($self)\n--\n\nOne line with its newline; what is left at the end of the stream. Fails with ValueError beyond the limit.",
        ),
        documented(
            coroutine_method(c"readuntil", readuntil_method),
            c"readuntil($self, separator=b'\\n')\n--\n\nEverything up to and with the separator (of a tuple of them, the nearest).\n\
              Fails with IncompleteReadError at the end of the stream, with LimitOverrunError beyond the limit.",
        ),
        coroutine_method0(c"__anext__", |this: &StreamReader| {
            reader_coroutine("StreamReader.__anext__", this, async move |reader: HeldReader| {
                let line = if is_own(&reader)? {
                    readline(&reader).await?
                } else {
                    wait_for(&*reader.call_method0(&names().readline)?).await?
                };
                match line.bytes() {
                    Some([]) => Err(Raised::empty(builtin(Builtin::StopAsyncIteration))),
                    _ => Ok(line),
                }
            })
        }),
        coroutine_method(c"_wait_for_data", |this: &StreamReader, arguments: Arguments<'_>| {
            let function = arguments.only("_wait_for_data", "func_name")?.to_object();
            reader_coroutine("StreamReader._wait_for_data", this, async move |reader: HeldReader| {
                let function = function.str()?.to_text()?;
                wait(&reader, function.as_str()).await.map(|()| none_object())
            })
        }),
    ]
}

/// The reader of a coroutine.
struct HeldReader(Owner);

impl Deref for HeldReader {
    type Target = StreamReader;
    #[inline(always)]
    fn deref(&self) -> &StreamReader {
        match StreamReader::from_any(&self.0) {
            Some(reader) => reader,
            None => unreachable!("the method's receiver is a reader, and held"),
        }
    }
}

fn reader_coroutine<F>(
    name: &'static str,
    reader: &StreamReader,
    body: impl FnOnce(HeldReader) -> F + 'static,
) -> Result<Object>
where
    F: Future<Output = Result<Object>> + 'static,
{
    coroutine_of(name, reader.to_object(), |reader| body(HeldReader(reader)))
}

const NO_COUNT: &str = if STREAM_READER_TAKES_BYTES {
    "n must be an integer or None"
} else {
    "slice indices must be integers or None or have an __index__ method"
};

/// A number of bytes as the caller gave it.
struct Count {
    given: Object,
    /// `None` for what is no whole number.
    whole: Option<i64>,
}

impl Count {
    fn new(given: &Any) -> Count {
        let whole = match given.to_i64() {
            Ok(whole) => Some(whole),
            Err(raised) => {
                let is_too_big = raised.matches(builtin(Builtin::OverflowError));
                drop(raised.take());
                is_too_big.then_some(i64::MAX)
            }
        };
        Count { given: given.to_object(), whole }
    }

    fn is_negative(&self) -> Result<bool> {
        match self.whole {
            Some(i64::MAX) | None => self.given.is_less_than(&*integer(0)?),
            Some(whole) => Ok(whole < 0),
        }
    }

    fn is_zero(&self) -> Result<bool> {
        match self.whole {
            Some(whole) => Ok(whole == 0),
            None => self.given.equals(&*integer(0)?),
        }
    }

    fn is_above(&self, length: usize) -> Result<bool> {
        match self.whole {
            Some(whole) => Ok((length as i64) < whole),
            None => integer(length as i64)?.is_less_than(&self.given),
        }
    }

    /// Fails: TypeError for what is no whole number, as asyncio's way of taking so many bytes does.
    fn bytes(&self) -> Result<usize> {
        let whole = self.whole.ok_or_else(|| Raised::type_error(NO_COUNT))?;
        Ok(usize::try_from(whole).unwrap_or(0))
    }

    /// As `bytes`, where that many or more are all of `length`.
    fn bytes_of(&self, length: usize) -> Result<usize> {
        if STREAM_READER_TAKES_BYTES && !self.given.is_less_than(&*integer(length as i64)?)? {
            return Ok(length);
        }
        self.bytes()
    }
}

/// What a reader fails with from now on.
fn check_exception(reader: &StreamReader) -> Result<()> {
    match present(&reader.core().exception) {
        Some(exception) => Err(raise(&exception)),
        None => Ok(()),
    }
}

/// `reader._maybe_resume_transport()`, after something was read.
fn on_read(reader: &StreamReader) -> Result<()> {
    if is_own(reader)? {
        return maybe_resume_transport(reader);
    }
    reader.call_method0(&names()._maybe_resume_transport).map(drop)
}

/// `await reader._wait_for_data(function)`
async fn wait_for_data(reader: &StreamReader, function: &str) -> Result<()> {
    if is_own(reader)? {
        return wait(reader, function).await;
    }
    let waiting = reader.call_method1(&names()._wait_for_data, &*text(function)?)?;
    wait_for(&waiting).await.map(drop)
}

async fn wait(reader: &StreamReader, function: &str) -> Result<()> {
    let core = reader.core();
    if present(&core.waiter).is_some() {
        return Err(Raised::runtime_error(&format!(
            "{function}() called while another coroutine is already waiting for incoming data"
        )));
    }
    super::assert_that(!core.eof.get(), "_wait_for_data after EOF")?;
    if core.paused.get() {
        // Who waits for more than the limit would wait for ever.
        resume_transport(reader)?;
    }
    let event_loop = core.event_loop.get_object().ok_or_else(|| missing_attribute(reader, c"_loop"))?;
    let waiter = futures::create_any(&event_loop)?;
    let arrival = wait_for(&waiter);
    core.waiter.set(waiter);
    drop(event_loop);
    let waiting = Waiting(reader);
    let outcome = arrival.await.map(drop);
    drop(waiting);
    outcome
}

/// Ends the waiting (G2).
struct Waiting<'a>(&'a StreamReader);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.core().waiter.set(none_object());
    }
}

fn read_method(this: &StreamReader, arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<1> = Signature { function: "read", names: ["n"], required: 0, positional: 1 };
    let [count] = SIGNATURE.bind(arguments)?;
    let count = match count {
        Some(count) => Count::new(count),
        None => Count { given: none_object(), whole: Some(-1) },
    };
    reader_coroutine("StreamReader.read", this, async move |reader: HeldReader| {
        check_exception(&reader)?;
        if count.is_zero()? {
            return bytes(&[]);
        }
        if count.is_negative()? {
            return read_to_end(&reader).await;
        }
        read_some(&reader, &count).await
    })
}

async fn read_some(reader: &StreamReader, count: &Count) -> Result<Object> {
    let core = reader.core();
    if core.buffer.is_empty() && !core.eof.get() {
        wait_for_data(reader, "read").await?;
    }
    let data = core.buffer.take(count.bytes_of(core.buffer.len())?)?;
    on_read(reader)?;
    Ok(data)
}

/// Piece by piece, so that the transport goes on although more than the limit arrives.
async fn read_to_end(reader: &StreamReader) -> Result<Object> {
    let mut all = Vec::new();
    loop {
        let limit = reader.get_attribute_str(c"_limit")?;
        let piece = if is_own(reader)? {
            check_exception(reader)?;
            read_some(reader, &Count::new(&limit)).await?
        } else {
            wait_for(&*reader.call_method1(&names().read, &limit)?).await?
        };
        match piece.bytes() {
            Some(piece) if !piece.is_empty() => all.extend_from_slice(piece),
            _ => return bytes(&all),
        }
    }
}

fn readexactly_method(this: &StreamReader, arguments: Arguments<'_>) -> Result<Object> {
    let count = Count::new(arguments.only("readexactly", "n")?);
    reader_coroutine("StreamReader.readexactly", this, async move |reader: HeldReader| {
        if count.is_negative()? {
            return Err(Raised::value_error("readexactly size can not be less than zero"));
        }
        check_exception(&reader)?;
        if count.is_zero()? {
            return bytes(&[]);
        }
        let core = reader.core();
        while count.is_above(core.buffer.len())? {
            if core.eof.get() {
                let partial = core.buffer.take_all()?;
                return Err(incomplete_read(&partial, &count.given));
            }
            wait_for_data(&reader, "readexactly").await?;
        }
        let length = core.buffer.len();
        let data = match count.whole {
            // A float will do where all of the buffer is wanted: then asyncio takes no slice.
            None if !STREAM_READER_TAKES_BYTES && integer(length as i64)?.equals(&count.given)? => {
                core.buffer.take(length)?
            }
            _ => core.buffer.take(count.bytes()?)?,
        };
        on_read(&reader)?;
        Ok(data)
    })
}

#[cold]
fn incomplete_read(partial: &Any, expected: &Any) -> Raised {
    match ASYNCIO.get().incomplete_read_error.call(&[partial, expected]) {
        Ok(error) => Raised::exception(error),
        Err(raised) => raised,
    }
}

/// How looking for a separator ends.
enum Found {
    Line(Object),
    /// The stream ended before; what was left.
    Incomplete(Object),
    Overrun(Overrun),
}

/// More than the limit before the separator: what LimitOverrunError says.
struct Overrun {
    message: &'static str,
    consumed: usize,
}

impl Overrun {
    fn error(&self) -> Result<Object> {
        let consumed = integer(self.consumed as i64)?;
        ASYNCIO.get().limit_overrun_error.call(&[&*text(self.message)?, &*consumed])
    }
}

/// What `readuntil` looks for: with its length, shortest first.
struct Separators(Vec<(Object, usize)>);

impl Separators {
    /// Fails: ValueError where there is nothing to look for, TypeError where it has no length.
    fn new(given: &Any) -> Result<Separators> {
        let mut separators = Vec::new();
        if given.is_tuple() {
            for separator in given.tuple_items() {
                separators.push((separator.to_object(), separator.length()?));
            }
            separators.sort_by_key(|(_, length)| *length);
        } else {
            separators.push((given.to_object(), given.length()?));
        }
        match separators.first() {
            None => Err(Raised::value_error("Separator should contain at least one element")),
            Some((_, 0)) => Err(Raised::value_error("Separator should be at least one-byte string")),
            Some(_) => Ok(Separators(separators)),
        }
    }

    fn shortest(&self) -> usize {
        self.0.first().map_or(0, |(_, length)| *length)
    }

    fn longest(&self) -> usize {
        self.0.last().map_or(0, |(_, length)| *length)
    }

    /// Begin and end of the separator that ends first.
    fn find(&self, reader: &StreamReader, from: usize) -> Result<Option<(usize, usize)>> {
        let mut nearest: Option<(usize, usize)> = None;
        for (separator, length) in &self.0 {
            if let Some(begin) = reader.core().buffer.find_object(separator, from)? {
                let end = begin + length;
                if nearest.is_none_or(|(_, nearest)| end < nearest) {
                    nearest = Some((begin, end));
                }
            }
        }
        Ok(nearest)
    }
}

fn readuntil_method(this: &StreamReader, arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<1> =
        Signature { function: "readuntil", names: ["separator"], required: 0, positional: 1 };
    let [separator] = SIGNATURE.bind(arguments)?;
    let separator = match separator {
        Some(separator) => separator.to_object(),
        None => bytes(b"\n")?,
    };
    reader_coroutine("StreamReader.readuntil", this, async move |reader: HeldReader| {
        let separators = Separators::new(&separator)?;
        match read_until(
            &reader,
            |from| separators.find(&reader, from),
            separators.shortest(),
            separators.longest(),
        )
        .await?
        {
            Found::Line(line) => Ok(line),
            Found::Incomplete(partial) => Err(incomplete_read(&partial, &none_object())),
            Found::Overrun(overrun) => Err(Raised::exception(overrun.error()?)),
        }
    })
}

/// Reads up to the end of what `find` finds (begin and end) from an index on. `shortest` and `longest` bound its length.
async fn read_until(
    reader: &StreamReader,
    find: impl Fn(usize) -> Result<Option<(usize, usize)>>,
    shortest: usize,
    longest: usize,
) -> Result<Found> {
    check_exception(reader)?;
    let core = reader.core();
    // Before this index nothing begins.
    let mut offset = 0;
    let (begin, end) = loop {
        let buffered = core.buffer.len();
        if buffered.saturating_sub(offset) >= shortest {
            if let Some(found) = find(offset)? {
                break found;
            }
            offset = (buffered + 1).saturating_sub(longest);
            if offset > core.limit() {
                let message = "Separator is not found, and chunk exceed the limit";
                return Ok(Found::Overrun(Overrun { message, consumed: offset }));
            }
        }
        if core.eof.get() {
            return core.buffer.take_all().map(Found::Incomplete);
        }
        wait_for_data(reader, "readuntil").await?;
    };
    if begin > core.limit() {
        let message = "Separator is found, but chunk is longer than limit";
        return Ok(Found::Overrun(Overrun { message, consumed: begin }));
    }
    let line = core.buffer.take(end)?;
    on_read(reader)?;
    Ok(Found::Line(line))
}

async fn readline(reader: &StreamReader) -> Result<Object> {
    if !is_own(reader)? {
        return readline_by_readuntil(reader).await;
    }
    let find = |from| Ok(reader.core().buffer.find(b"\n", from).map(|begin| (begin, begin + 1)));
    match read_until(reader, find, 1, 1).await? {
        Found::Line(line) | Found::Incomplete(line) => Ok(line),
        Found::Overrun(overrun) => {
            let error = overrun.error()?;
            Err(line_too_long(reader, error, overrun.consumed))
        }
    }
}

/// Somebody has replaced a method that `readline` uses.
async fn readline_by_readuntil(reader: &StreamReader) -> Result<Object> {
    let reading = reader.call_method1(&names().readuntil, &*bytes(b"\n")?)?;
    let raised = match wait_for(&reading).await {
        Ok(line) => return Ok(line),
        Err(raised) => raised,
    };
    if raised.matches(&ASYNCIO.get().incomplete_read_error) {
        return raised.take().get_attribute_str(c"partial");
    }
    if !raised.matches(&ASYNCIO.get().limit_overrun_error) {
        return Err(raised);
    }
    let error = raised.take();
    let consumed = error.get_attribute_str(c"consumed")?.to_i64()?;
    Err(line_too_long(reader, error, usize::try_from(consumed).unwrap_or(0)))
}

/// Drops the line, or what there is of it, and raises ValueError in place of the LimitOverrunError.
fn line_too_long(reader: &StreamReader, error: Object, consumed: usize) -> Raised {
    let raise = || {
        let buffer = &reader.core().buffer;
        let dropped = if buffer.has_at(b"\n", consumed) { consumed + 1 } else { buffer.len() };
        buffer.discard(dropped)?;
        on_read(reader)?;
        let arguments = error.get_attribute_str(c"args")?;
        let message = assigned(arguments.tuple_items().first().copied())?;
        builtin(Builtin::ValueError).call1(message)
    };
    match raise() {
        Ok(raised) => {
            set_context(&raised, &error);
            Raised::exception(raised)
        }
        Err(raised) => raised,
    }
}
