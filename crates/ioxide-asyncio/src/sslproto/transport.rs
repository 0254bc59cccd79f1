//! `_SSLProtocolTransport`: the application's end of a TLS connection.
//!
//! Invariant:
//! A1. The second `close` makes the transport forget its protocol, as asyncio's does; methods raise AttributeError then.

use super::flow_control::limits;
use super::{SslProtocol, asyncio};
use crate::event_loop::EventLoop;
use ioxide_cpython::exception::type_name;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{
    Arguments, Definition, Receiver, Signature, attribute, documented, getter, method, method0, method1,
};
use ioxide_cpython::object::RawObject;
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::value::{integer, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, Slot, builtin, imports, names, none};
use std::cell::Cell;
use std::ops::Deref;

/// The transport as Python sees it.
#[repr(transparent)]
struct SslTransport(Any);

#[repr(C)]
struct TransportCore {
    head: Any,
    event_loop: Slot,
    protocol: Slot,
    closed: Cell<bool>,
}

/// What Python's asyncio says of a transport that nobody has closed.
const UNCLOSED: &str = "unclosed transport <asyncio._SSLProtocolTransport object>";

static TRANSPORT_CORE: Once<Class> = Once::new();
static SSL_TRANSPORT: Once<ShellClass> = Once::new();
/// `(bytes, bytearray, memoryview)`
static BYTES_LIKE: Once<Object> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for TransportCore {
    fn class() -> &'static Once<Class> {
        &TRANSPORT_CORE
    }
}

impl Deref for SslTransport {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.0
    }
}

impl Receiver for SslTransport {
    #[inline(always)]
    unsafe fn receive<'a>(this: *mut RawObject) -> Result<&'a SslTransport> {
        // SAFETY: the method descriptors of the class check that `this` is an instance.
        let shell = unsafe { Any::from_ptr(this) };
        SslTransport::from_any(shell).ok_or_else(|| Raised::runtime_error("the transport is not initialized"))
    }
}

/// Creates the classes.
pub(super) fn initialize() -> Result<()> {
    TRANSPORT_CORE.set(NativeClass::core::<TransportCore>(c"ioxide.TlsTransportCore")?);
    BYTES_LIKE.set(tuple(&[&imports().bytearray, &imports().memoryview])?);
    SSL_TRANSPORT.set(ShellClass::create(ShellDefinition {
        name: c"_SSLProtocolTransport",
        bases: vec![asyncio::asyncio().ssl_protocol_transport.clone()],
        doc: "The application's end of a TLS connection, as the transport that asyncio's own loop makes.",
        methods: methods().into_iter().chain(buffer_methods()).collect(),
        attributes: vec![
            getter(c"_loop", |this: &SslTransport| this.core().event_loop.get_or_none()),
            getter(c"_ssl_protocol", |this: &SslTransport| this.core().protocol.get_or_none()),
            getter(c"_protocol_paused", |this: &SslTransport| -> Result<bool> {
                Ok(this.protocol("_app_writing_paused")?.core().app_writing_paused.get())
            }),
            attribute(
                c"_closed",
                |this: &SslTransport| this.core().closed.get(),
                |this: &SslTransport, value: Option<&Any>| {
                    this.core().closed.set(value.map_or(Ok(false), Any::is_true)?);
                    Ok(())
                },
            ),
        ],
        new: Some(method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| -> Result<Object> {
            Err(Raised::type_error("cannot create 'ioxide._SSLProtocolTransport' instances"))
        })),
    })?);
    Ok(())
}

/// The transport of a new protocol.
pub(super) fn create(event_loop: &EventLoop, protocol: &SslProtocol) -> Result<Object> {
    let class = SSL_TRANSPORT.get();
    let core = allocate(TransportCore {
        head: head(),
        event_loop: Slot::filled(event_loop.to_object()),
        protocol: Slot::filled(protocol.to_object()),
        closed: Cell::new(false),
    })?;
    class.instantiate(class.class().as_any(), core)
}

/// `transport._closed = True`
pub(super) fn mark_closed(transport: &Any) {
    if let Some(transport) = SslTransport::from_any(transport) {
        transport.core().closed.set(true);
    }
}

fn methods() -> Vec<Definition> {
    use SslTransport as T;
    vec![
        documented(method1(c"write", T::write), c"write($self, data)\n--\n\nEncrypts the bytes and sends them, now or soon."),
        documented(
            method1(c"writelines", T::writelines),
            c"writelines($self, list_of_data)\n--\n\nEncrypts and sends the items of a list of bytes-like objects.",
        ),
        documented(
            method0(c"write_eof", T::write_eof),
            c"write_eof($self)\n--\n\nRaises NotImplementedError: TLS has no half-closed connections.",
        ),
        documented(method0(c"can_write_eof", |_: &T| false), c"can_write_eof($self)\n--\n\n"),
        documented(
            method0(c"close", T::close),
            c"close($self)\n--\n\nSends what is buffered, then close_notify, and closes.",
        ),
        documented(method0(c"abort", T::abort), c"abort($self)\n--\n\nCloses at once."),
        method1(c"_force_close", T::force_close),
        documented(method0(c"is_closing", T::is_closing), c"is_closing($self)\n--\n\n"),
        documented(method0(c"is_reading", T::is_reading), c"is_reading($self)\n--\n\n"),
        documented(method0(c"pause_reading", T::pause_reading), c"pause_reading($self)\n--\n\n"),
        documented(method0(c"resume_reading", T::resume_reading), c"resume_reading($self)\n--\n\n"),
        documented(method1(c"set_protocol", T::set_protocol), c"set_protocol($self, protocol)\n--\n\n"),
        documented(method0(c"get_protocol", T::get_protocol), c"get_protocol($self)\n--\n\n"),
        documented(
            method(c"get_extra_info", T::get_extra_info),
            c"get_extra_info($self, name, default=None)\n--\n\n\
              sslcontext, peercert, cipher, compression, ssl_object, and what the transport below knows.",
        ),
        method0(c"__del__", T::finalize),
    ]
}

fn buffer_methods() -> Vec<Definition> {
    use SslTransport as T;
    vec![
        documented(
            method(c"set_write_buffer_limits", |this: &T, arguments: Arguments<'_>| {
                this.protocol("_set_write_buffer_limits")?.set_write_buffer_limits(arguments)
            }),
            c"set_write_buffer_limits($self, high=None, low=None)\n--\n\nLimits in bytes.",
        ),
        documented(
            method(c"set_read_buffer_limits", |this: &T, arguments: Arguments<'_>| {
                this.protocol("_set_read_buffer_limits")?.set_read_buffer_limits(arguments)
            }),
            c"set_read_buffer_limits($self, high=None, low=None)\n--\n\nLimits in bytes.",
        ),
        method0(c"get_write_buffer_limits", |this: &T| {
            let protocol = this.protocol("_outgoing_low_water")?;
            let core = protocol.core();
            limits(&core.outgoing_low, &core.outgoing_high)
        }),
        method0(c"get_read_buffer_limits", |this: &T| {
            let protocol = this.protocol("_incoming_low_water")?;
            let core = protocol.core();
            limits(&core.incoming_low, &core.incoming_high)
        }),
        method0(c"get_write_buffer_size", |this: &T| {
            integer(this.protocol("_get_write_buffer_size")?.write_buffer_size()? as i64)
        }),
        method0(c"get_read_buffer_size", |this: &T| {
            integer(this.protocol("_get_read_buffer_size")?.core().engine.incoming_pending()? as i64)
        }),
        method1(c"_test__append_write_backlog", |this: &T, data: &Any| {
            this.protocol("_write_backlog")?.append_to_backlog(data)
        }),
    ]
}

/// The protocol of a transport, held.
struct HeldProtocol(Object);

impl Deref for HeldProtocol {
    type Target = SslProtocol;
    #[inline(always)]
    fn deref(&self) -> &SslProtocol {
        match SslProtocol::from_any(&self.0) {
            Some(protocol) => protocol,
            None => unreachable!("`create` puts a TLS protocol into the field, and nothing else"),
        }
    }
}

impl SslTransport {
    #[inline(always)]
    fn from_any(object: &Any) -> Option<&SslTransport> {
        let shell = SSL_TRANSPORT.get();
        if !shell.class().is_exact(object) && !object.is_subtype_of(shell.class().as_any()) {
            return None;
        }
        // SAFETY: an instance of the class, and its core is there.
        unsafe {
            shell.core::<TransportCore>(object)?;
            Some(&*(object as *const Any).cast::<SslTransport>())
        }
    }

    #[inline(always)]
    fn core(&self) -> &TransportCore {
        // SAFETY: an instance of the class, whose core was there when the reference was made; only the collector
        // takes it away, and then nobody holds the transport.
        match unsafe { SSL_TRANSPORT.get().core::<TransportCore>(&self.0) } {
            Some(core) => core,
            None => unreachable!("a transport that is in use has its core"),
        }
    }

    /// The protocol. Fails: AttributeError for the attribute that asyncio would look up (A1).
    #[inline]
    fn protocol(&self, attribute: &str) -> Result<HeldProtocol> {
        let protocol =
            self.core().protocol.get_object().filter(|object| SslProtocol::from_any(object).is_some());
        protocol.map(HeldProtocol).ok_or_else(|| {
            let message = format!("'NoneType' object has no attribute '{attribute}'");
            Raised::new(builtin(Builtin::AttributeError), &message)
        })
    }

    /// `transport.write(data)`
    fn write(&self, data: &Any) -> Result<()> {
        if !data.is_bytes() && !data.is_instance(BYTES_LIKE.get())? {
            let name = type_name(data);
            return Err(Raised::type_error(&format!("data: expecting a bytes-like instance, got {name}")));
        }
        if data.length()? == 0 {
            return Ok(());
        }
        self.protocol("_write_appdata")?.write_application_data(data)
    }

    /// `transport.writelines(list_of_data)`
    fn writelines(&self, list_of_data: &Any) -> Result<()> {
        self.protocol("_write_appdata")?.write_list(list_of_data)
    }

    fn write_eof(&self) -> Result<()> {
        Err(Raised::empty(builtin(Builtin::NotImplementedError)))
    }

    /// `transport.close()`
    fn close(&self) -> Result<()> {
        if self.core().closed.replace(true) {
            self.core().protocol.clear();
            return Ok(());
        }
        self.protocol("_start_shutdown")?.start_shutdown()
    }

    /// `transport.abort()`
    fn abort(&self) -> Result<()> {
        self.force_close(none())
    }

    /// `transport._force_close(exc)`
    fn force_close(&self, exception: &Any) -> Result<()> {
        self.core().closed.set(true);
        if self.core().protocol.is_empty() {
            return Ok(());
        }
        self.protocol("_abort")?.abort(Some(exception).filter(|exception| !exception.is_none()))
    }

    /// `transport.is_closing()`; from 3.14 on also true when the transport below is closing.
    fn is_closing(&self) -> Result<bool> {
        if self.core().closed.get() || !asyncio::asyncio().asks_transport_below {
            return Ok(self.core().closed.get());
        }
        match self.protocol("_is_transport_closing")?.core().transport.get_object() {
            Some(transport) => transport.call_method0(&names().is_closing)?.is_true(),
            None => Ok(false),
        }
    }

    fn is_reading(&self) -> Result<bool> {
        Ok(!self.protocol("_app_reading_paused")?.core().app_reading_paused.get())
    }

    fn pause_reading(&self) -> Result<()> {
        self.protocol("_pause_reading")?.core().app_reading_paused.set(true);
        Ok(())
    }

    fn resume_reading(&self) -> Result<()> {
        self.protocol("_resume_reading")?.resume_application_reading()
    }

    fn set_protocol(&self, protocol: &Any) -> Result<()> {
        self.protocol("_set_app_protocol")?.set_app_protocol(protocol)
    }

    fn get_protocol(&self) -> Result<Object> {
        Ok(self.protocol("_app_protocol")?.core().app_protocol.get_or_none())
    }

    /// `transport.get_extra_info(name, default=None)`
    fn get_extra_info(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<2> =
            Signature { function: "get_extra_info", names: ["name", "default"], required: 1, positional: 2 };
        let [name, default] = SIGNATURE.bind(arguments)?;
        self.protocol("_get_extra_info")?.extra_info(name.unwrap_or(none()), default.unwrap_or(none()))
    }

    /// `transport.__del__()`
    fn finalize(&self) -> Result<()> {
        if self.core().closed.replace(true) {
            return Ok(());
        }
        imports().warn.call(&[&*text(UNCLOSED)?, builtin(Builtin::ResourceWarning)]).map(drop)
    }
}

impl Traverse for TransportCore {
    fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.event_loop);
        visitor.slot(&self.protocol);
    }

    fn clear(&self) {
        self.event_loop.clear();
        self.protocol.clear();
    }
}
