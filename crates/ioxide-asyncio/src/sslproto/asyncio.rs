//! What this Python's asyncio and ssl have: classes, constants, and the rules that differ from version to version.

use ioxide_cpython::call::import;
use ioxide_cpython::value::tuple;
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Object, Once, Raised, Result};

/// asyncio's own classes and functions, and how its versions differ.
pub(super) struct Asyncio {
    pub(super) ssl_protocol: Object,
    pub(super) ssl_protocol_transport: Object,
    pub(super) protocol_state: Object,
    pub(super) app_protocol_state: Object,
    /// `_create_transport_context(server_side, server_hostname)`
    pub(super) create_transport_context: Object,
    /// `add_flowcontrol_defaults(high, low, kilobytes)`
    pub(super) add_flowcontrol_defaults: Object,
    pub(super) stream_reader_protocol: Object,
    pub(super) handshake_timeout: Object,
    pub(super) shutdown_timeout: Object,
    /// 3.13 and later: `abort()` closes the transport below with `_force_close(exc)`, before with `abort()`.
    pub(super) aborts_with_exception: bool,
    /// 3.14 and later: a transport is closing too when the one below it is.
    pub(super) asks_transport_below: bool,
    /// 3.14 and later: the shutdown timeout holds until the transport below has sent everything.
    pub(super) times_last_flush: bool,
    /// 3.14 and later: `start_tls` moves what a server's stream reader has received already into the TLS connection.
    pub(super) moves_buffered_data: bool,
    pub(super) ssl: Option<Ssl>,
}

/// The module `ssl`, which a Python may lack.
pub(super) struct Ssl {
    pub(super) memory_bio: Object,
    pub(super) ssl_object: Object,
    pub(super) ssl_context: Object,
    pub(super) ssl_error: Object,
    pub(super) certificate_error: Object,
    /// `(SSLWantReadError, SSLSyscallError)`: the errors after which more has to arrive.
    pub(super) again: Object,
}

static ASYNCIO: Once<Asyncio> = Once::new();

pub(super) fn asyncio() -> &'static Asyncio {
    ASYNCIO.get()
}

/// Fails: RuntimeError where this Python has no ssl.
pub(super) fn ssl() -> Result<&'static Ssl> {
    asyncio().ssl.as_ref().ok_or_else(|| Raised::runtime_error("stdlib ssl module not available"))
}

/// Asks asyncio's own code.
pub(super) fn initialize() -> Result<()> {
    let module = import(c"asyncio.sslproto")?;
    let constants = import(c"asyncio.constants")?;
    let protocol = module.get_attribute_str(c"SSLProtocol")?;
    let base_loop = import(c"asyncio.base_events")?.get_attribute_str(c"BaseEventLoop")?;
    let abort = protocol.get_attribute_str(c"_abort")?.get_attribute_str(c"__code__")?;
    let abort_arguments = abort.get_attribute_str(c"co_argcount")?.to_i64()?;
    let below = ioxide_cpython::names::intern("_is_transport_closing")?;
    ASYNCIO.set(Asyncio {
        ssl_protocol_transport: module.get_attribute_str(c"_SSLProtocolTransport")?,
        protocol_state: module.get_attribute_str(c"SSLProtocolState")?,
        app_protocol_state: module.get_attribute_str(c"AppProtocolState")?,
        create_transport_context: module.get_attribute_str(c"_create_transport_context")?,
        add_flowcontrol_defaults: module.get_attribute_str(c"add_flowcontrol_defaults")?,
        stream_reader_protocol: import(c"asyncio.streams")?.get_attribute_str(c"StreamReaderProtocol")?,
        handshake_timeout: constants.get_attribute_str(c"SSL_HANDSHAKE_TIMEOUT")?,
        shutdown_timeout: constants.get_attribute_str(c"SSL_SHUTDOWN_TIMEOUT")?,
        aborts_with_exception: abort_arguments == 2,
        asks_transport_below: protocol.get_attribute_optional(&below)?.is_some(),
        times_last_flush: Code::of_method(&protocol, "_on_shutdown_complete")?.uses("call_later")?,
        moves_buffered_data: Code::of_method(&base_loop, "start_tls")?.uses("StreamReaderProtocol")?,
        ssl: ssl_module(&module)?,
        ssl_protocol: protocol,
    });
    Ok(())
}

fn ssl_module(module: &Any) -> Result<Option<Ssl>> {
    let ssl = module.get_attribute_str(c"ssl")?;
    if ssl.is_none() {
        return Ok(None);
    }
    let again = [&*ssl.get_attribute_str(c"SSLWantReadError")?, &*ssl.get_attribute_str(c"SSLSyscallError")?];
    Ok(Some(Ssl {
        memory_bio: ssl.get_attribute_str(c"MemoryBIO")?,
        ssl_object: ssl.get_attribute_str(c"SSLObject")?,
        ssl_context: ssl.get_attribute_str(c"SSLContext")?,
        ssl_error: ssl.get_attribute_str(c"SSLError")?,
        certificate_error: ssl.get_attribute_str(c"CertificateError")?,
        again: tuple(&again)?,
    }))
}
