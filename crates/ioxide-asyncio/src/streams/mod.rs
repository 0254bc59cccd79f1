//! asyncio.streams: readers and writers over transports.
//!
//! | file | room |
//! |---|---|
//! | mod | what this Python's asyncio says and has |
//! | reader | `StreamReader`: the class, and the side that is fed |
//! | reading | the side that reads: read, readline, readexactly, readuntil |
//! | buffer | the bytes between the two |
//! | protocol | `StreamReaderProtocol`: what a transport tells |
//! | writer | `StreamWriter` |
//! | open | open_connection, start_server and their Unix kin |
//!
//! The classes derive from asyncio's. What happens once a connection and is not written here is inherited: it works on the
//! same attributes.
//!
//! Invariants:
//! R1. An attribute of asyncio's instances is a slot of the core: it can be assigned, and is missing until `__init__`.
//! R2. A method that asyncio calls on `self` is called natively only while nobody has replaced it (`OwnMethods`).

mod buffer;
mod open;
mod protocol;
mod reader;
mod reading;
mod writer;

use crate::transports::NativeReceiver;

use ioxide_cpython::call::import;
use ioxide_cpython::module::Module;
use ioxide_cpython::version::Code;
use ioxide_cpython::{Builtin, Object, Once, Raised, Result, builtin};

/// asyncio's objects, and where its versions differ.
struct Asyncio {
    stream_reader: Object,
    stream_writer: Object,
    protocol: Object,
    sleep: Object,
    deque: Object,
    incomplete_read_error: Object,
    limit_overrun_error: Object,
    extract_stack: Object,
    /// Whether a protocol holds the writer that it gave to a server's callback (until 3.12).
    protocol_keeps_writer: bool,
    /// Whether a connection is closed when the task of its callback is cancelled (3.13 and later).
    cancelled_callbacks_close: bool,
    /// Whether what a plain callback raises is reported and closes the connection (3.14 and later).
    callback_errors_are_reported: bool,
    /// Whether `assert` statements are run: not with `python -O`.
    asserts: bool,
}

static ASYNCIO: Once<Asyncio> = Once::new();

/// Creates the classes and adds the names to the module.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    let streams = import(c"asyncio.streams")?;
    let exceptions = import(c"asyncio.exceptions")?;
    let stream_reader = streams.get_attribute_str(c"StreamReader")?;
    let protocol = streams.get_attribute_str(c"StreamReaderProtocol")?;
    let connection_made = Code::of_method(&protocol, "connection_made")?;
    let mut cancelled_callbacks_close = false;
    for function in connection_made.nested()? {
        cancelled_callbacks_close |= function.uses("cancelled")?;
    }
    let optimize = import(c"sys")?.get_attribute_str(c"flags")?.get_attribute_str(c"optimize")?;
    ASYNCIO.set(Asyncio {
        protocol_keeps_writer: connection_made.uses("_stream_writer")?,
        cancelled_callbacks_close,
        callback_errors_are_reported: connection_made.uses("Exception")?,
        stream_reader,
        stream_writer: streams.get_attribute_str(c"StreamWriter")?,
        protocol,
        sleep: import(c"asyncio.tasks")?.get_attribute_str(c"sleep")?,
        deque: import(c"collections")?.get_attribute_str(c"deque")?,
        incomplete_read_error: exceptions.get_attribute_str(c"IncompleteReadError")?,
        limit_overrun_error: exceptions.get_attribute_str(c"LimitOverrunError")?,
        extract_stack: import(c"asyncio.format_helpers")?.get_attribute_str(c"extract_stack")?,
        asserts: !optimize.is_true()?,
    });
    reader::initialize()?;
    writer::initialize()?;
    protocol::initialize()?;
    module.add(c"StreamReader", reader::class())?;
    module.add(c"StreamReaderProtocol", protocol::class())?;
    module.add(c"StreamWriter", writer::class())?;
    open::add_to(module)
}

/// How a StreamReaderProtocol takes what a transport of ioxide's receives.
pub static RECEIVER: NativeReceiver = NativeReceiver {
    accepts: protocol::is_exact,
    receive: protocol::receive,
    failure: "Fatal error: protocol.data_received() call failed.",
};

/// `assert condition, message`
fn assert_that(condition: bool, message: &str) -> Result<()> {
    if condition || !ASYNCIO.get().asserts {
        return Ok(());
    }
    Err(Raised::new(builtin(Builtin::AssertionError), message))
}
