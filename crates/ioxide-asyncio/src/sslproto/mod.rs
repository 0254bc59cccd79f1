//! TLS: asyncio.sslproto over the user's own `ssl.SSLContext`, with the data path in Rust.
//!
//! | file | room |
//! |---|---|
//! | mod | `SSLProtocol`, its state and transitions |
//! | opening | `_make_ssl_transport` and what a connection is made of |
//! | start_tls | `loop.start_tls` |
//! | handshake, shutdown, reading, writing, flow_control | what the names say |
//! | engine | the `SSLObject` and its BIOs, through Python or directly |
//! | protocol | what the transport below and Python see of the protocol |
//! | transport | `_SSLProtocolTransport`, what the application sees |
//! | asyncio | what this Python's asyncio and ssl have |
//!
//! Invariants:
//! S1. Every exception of TLS is raised by Python's own `ssl`; nothing here makes one up.
//! S2. No borrow of the backlog is held while Python runs.
//! S3. `connection_lost` of the application is scheduled once, by the connection_lost of the transport below.
//! S4. The protocol and its transport hold each other until connection_lost.

mod asyncio;
mod engine;
mod flow_control;
mod handshake;
mod opening;
mod protocol;
mod reading;
mod shutdown;
mod start_tls;
mod transport;
mod writing;

pub use reading::RECEIVER;

use self::engine::Engine;
use self::writing::Backlog;
use crate::event_loop::EventLoop;
use crate::transports::{Limit, NativeReceiver};
use ioxide_cpython::functions::coroutine_method;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Definition, Receiver, documented, method};
use ioxide_cpython::object::RawObject;
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, head};
use ioxide_cpython::value::{dict, text, tuple};
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, Slot, builtin, imports, names, none};
use std::cell::{Cell, RefCell};
use std::ops::Deref;

/// The protocol of a TLS connection as the transport below sees it. Derefs to the object; `core` is the state.
#[repr(transparent)]
pub struct SslProtocol(Any);

/// asyncio.sslproto.SSLProtocolState
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unwrapped,
    Handshake,
    Wrapped,
    Flushing,
    Shutdown,
}

/// asyncio.sslproto.AppProtocolState: what the application's protocol has been told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AppState {
    Initial,
    ConnectionMade,
    Eof,
    ConnectionLost,
}

/// How decrypted bytes reach the application's protocol.
#[derive(Clone, Copy)]
enum Delivery {
    /// `data_received(bytes)`
    Data,
    /// `get_buffer(hint)`, `buffer_updated(count)`
    Buffer,
    /// The bytes themselves.
    Native(&'static NativeReceiver),
}

/// The native state behind a protocol.
#[repr(C)]
struct TlsCore {
    head: Any,
    event_loop: Slot,
    app_protocol: Slot,
    /// The protocol's methods as they were when it was set, as asyncio takes them.
    app_get_buffer: Slot,
    app_buffer_updated: Slot,
    app_transport: Slot,
    /// The transport below, between its connection_made and its connection_lost.
    transport: Slot,
    waiter: Slot,
    context: Slot,
    extra: Slot,
    server_hostname: Slot,
    handshake_timeout: Slot,
    shutdown_timeout: Slot,
    handshake_timer: Slot,
    shutdown_timer: Slot,
    /// The buffer lent to a foreign transport.
    lent_buffer: Slot,
    engine: Engine,
    backlog: RefCell<Backlog>,
    state: Cell<State>,
    app_state: Cell<AppState>,
    delivery: Cell<Delivery>,
    is_server: Cell<bool>,
    eof_received: Cell<bool>,
    /// Counts the writes that came too late, and the loss of the connection as one.
    lost_count: Cell<u32>,
    handshake_began: Cell<f64>,
    app_reading_paused: Cell<bool>,
    app_writing_paused: Cell<bool>,
    ssl_reading_paused: Cell<bool>,
    ssl_writing_paused: Cell<bool>,
    outgoing_high: Limit,
    outgoing_low: Limit,
    incoming_high: Limit,
    incoming_low: Limit,
}

static TLS_CORE: Once<Class> = Once::new();
static SSL_PROTOCOL: Once<ShellClass> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for TlsCore {
    fn class() -> &'static Once<Class> {
        &TLS_CORE
    }
}

/// Creates the classes.
pub fn initialize() -> Result<()> {
    TLS_CORE.set(NativeClass::core::<TlsCore>(c"ioxide.TlsCore")?);
    asyncio::initialize()?;
    SSL_PROTOCOL.set(protocol::create_class()?);
    transport::initialize()
}

/// What the loop has of TLS.
pub fn loop_methods() -> Vec<Definition> {
    vec![
        method(c"_make_ssl_transport", opening::make_ssl_transport),
        documented(
            coroutine_method(c"start_tls", start_tls::start_tls),
            c"start_tls($self, transport, protocol, sslcontext, *, server_side=False, server_hostname=None, \
              ssl_handshake_timeout=None, ssl_shutdown_timeout=None)\n--\n\n\
              Speaks TLS on a connected transport from now on; returns the transport to go on with. \
              Timeouts in seconds.",
        ),
    ]
}

impl Deref for SslProtocol {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.0
    }
}

impl Receiver for SslProtocol {
    #[inline(always)]
    unsafe fn receive<'a>(this: *mut RawObject) -> Result<&'a SslProtocol> {
        // SAFETY: the method descriptors of the class check that `this` is an instance.
        let shell = unsafe { Any::from_ptr(this) };
        SslProtocol::from_any(shell).ok_or_else(|| Raised::runtime_error("the protocol is not initialized"))
    }
}

impl SslProtocol {
    /// The object as a TLS protocol of ioxide's, if it is one.
    #[inline(always)]
    fn from_any(object: &Any) -> Option<&SslProtocol> {
        let shell = SSL_PROTOCOL.get();
        if !shell.class().is_exact(object) {
            return None;
        }
        // SAFETY: an instance of the class, and its core is there.
        unsafe {
            shell.core::<TlsCore>(object)?;
            Some(&*(object as *const Any).cast::<SslProtocol>())
        }
    }

    #[inline(always)]
    fn core(&self) -> &TlsCore {
        // SAFETY: an instance of the class, whose core was there when the reference was made; only the collector
        // takes it away, and then nobody holds the protocol.
        match unsafe { SSL_PROTOCOL.get().core::<TlsCore>(&self.0) } {
            Some(core) => core,
            None => unreachable!("a protocol that is in use has its core"),
        }
    }

    /// The loop; None, which has no methods, where the collector has taken it.
    fn event_loop(&self) -> Object {
        self.core().event_loop.get_or_none()
    }

    fn is_debug(&self) -> Result<bool> {
        crate::event_loop::is_debug(&self.event_loop())
    }

    /// `loop.call_soon(callback, *arguments)`
    fn call_soon(&self, callback: &Any, arguments: &[&Any]) -> Result<()> {
        let mut all = vec![callback];
        all.extend_from_slice(arguments);
        self.event_loop().call_method(&names().call_soon, &all).map(drop)
    }

    /// `loop.call_later(delay, callback)`: the handle.
    fn call_later(&self, delay: &Any, callback: &Any) -> Result<Object> {
        self.event_loop().call_method(&names().call_later, &[delay, callback])
    }

    /// Calls a method of the transport below, which is None when there is none.
    fn call_transport(&self, method: &Any, arguments: &[&Any]) -> Result<Object> {
        self.core().transport.get_or_none().call_method(method, arguments)
    }

    /// Fails: RuntimeError for a change that cannot be, as when the application aborts while its last data is read.
    fn set_state(&self, next: State) -> Result<()> {
        let now = self.core().state.get();
        let allowed = matches!(
            (now, next),
            (_, State::Unwrapped)
                | (State::Unwrapped, State::Handshake)
                | (State::Handshake, State::Wrapped)
                | (State::Wrapped, State::Flushing)
                | (State::Flushing, State::Shutdown)
        );
        if !allowed {
            return Err(Raised::runtime_error(&format!(
                "cannot switch state from SSLProtocolState.{} to SSLProtocolState.{}",
                now.name(),
                next.name()
            )));
        }
        self.core().state.set(next);
        Ok(())
    }

    /// A line about the protocol, in debug mode.
    fn log_debug(&self, line: &str) -> Result<()> {
        if !self.is_debug()? {
            return Ok(());
        }
        imports().logger.call_method(&names().debug, &[&*text(line)?, self]).map(drop)
    }

    /// An exception that ends the connection: `except Exception`. Others are the caller's.
    fn fail(&self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(raised) if raised.matches(builtin(Builtin::Exception)) => {
                self.fatal_error(&raised.take(), "Fatal error on SSL protocol")
            }
            outcome => outcome,
        }
    }

    /// `_fatal_error(exc, message)`: errors of the kernel and of TLS are everyday and only logged in debug mode.
    fn fatal_error(&self, exception: &Any, message: &str) -> Result<()> {
        use ioxide_cpython::exception::{exception_is, exception_matches};
        let transport = self.core().transport.get_object();
        if let Some(transport) = &transport
            && transport.is_true()?
        {
            transport.call_method1(&names()._force_close, exception)?;
        }
        if exception_is(exception, Builtin::OSError) {
            if self.is_debug()? {
                let keywords = tuple(&[&names().exc_info])?;
                let arguments = [&*text("%r: %s")?, self, &*text(message)?, exception];
                imports().logger.call_method_keywords(&names().debug, &arguments, &keywords)?;
            }
            return Ok(());
        }
        if exception_matches(exception, &imports().CancelledError) {
            return Ok(());
        }
        self.report(message, exception, self.core().transport.get_object().as_deref())
    }

    /// Calls the loop's exception handler.
    fn report(&self, message: &str, exception: &Any, transport: Option<&Any>) -> Result<()> {
        let report = dict()?;
        report.dict_set(&names().message, &*text(message)?)?;
        report.dict_set(&names().exception, exception)?;
        report.dict_set(&names().transport, transport.unwrap_or(none()))?;
        report.dict_set(&names().protocol, self)?;
        self.event_loop().call_method1(&names().call_exception_handler, &report).map(drop)
    }
}

impl State {
    /// The name of asyncio's member.
    fn name(self) -> &'static str {
        match self {
            State::Unwrapped => "UNWRAPPED",
            State::Handshake => "DO_HANDSHAKE",
            State::Wrapped => "WRAPPED",
            State::Flushing => "FLUSHING",
            State::Shutdown => "SHUTDOWN",
        }
    }
}

impl AppState {
    /// The name of asyncio's member.
    fn name(self) -> &'static str {
        match self {
            AppState::Initial => "STATE_INIT",
            AppState::ConnectionMade => "STATE_CON_MADE",
            AppState::Eof => "STATE_EOF",
            AppState::ConnectionLost => "STATE_CON_LOST",
        }
    }
}

impl TlsCore {
    fn new(event_loop: &EventLoop) -> TlsCore {
        TlsCore {
            head: head(),
            event_loop: Slot::filled(event_loop.to_object()),
            app_protocol: Slot::empty(),
            app_get_buffer: Slot::empty(),
            app_buffer_updated: Slot::empty(),
            app_transport: Slot::empty(),
            transport: Slot::empty(),
            waiter: Slot::empty(),
            context: Slot::empty(),
            extra: Slot::empty(),
            server_hostname: Slot::empty(),
            handshake_timeout: Slot::empty(),
            shutdown_timeout: Slot::empty(),
            handshake_timer: Slot::empty(),
            shutdown_timer: Slot::empty(),
            lent_buffer: Slot::empty(),
            engine: Engine::empty(),
            backlog: RefCell::new(Backlog::default()),
            state: Cell::new(State::Unwrapped),
            app_state: Cell::new(AppState::Initial),
            delivery: Cell::new(Delivery::Data),
            is_server: Cell::new(false),
            eof_received: Cell::new(false),
            lost_count: Cell::new(0),
            handshake_began: Cell::new(0.0),
            app_reading_paused: Cell::new(false),
            app_writing_paused: Cell::new(false),
            ssl_reading_paused: Cell::new(false),
            ssl_writing_paused: Cell::new(false),
            outgoing_high: Limit::new(flow_control::WRITE_HIGH_WATER),
            outgoing_low: Limit::new(flow_control::WRITE_HIGH_WATER / 4),
            incoming_high: Limit::new(flow_control::READ_HIGH_WATER),
            incoming_low: Limit::new(flow_control::READ_HIGH_WATER / 4),
        }
    }

    fn slots(&self) -> [&Slot; 15] {
        [
            &self.event_loop,
            &self.app_protocol,
            &self.app_get_buffer,
            &self.app_buffer_updated,
            &self.app_transport,
            &self.transport,
            &self.waiter,
            &self.context,
            &self.extra,
            &self.server_hostname,
            &self.handshake_timeout,
            &self.shutdown_timeout,
            &self.handshake_timer,
            &self.shutdown_timer,
            &self.lent_buffer,
        ]
    }
}

impl Traverse for TlsCore {
    /// The backlog's bytes objects refer to nothing and are not shown.
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
        for limit in [&self.outgoing_high, &self.outgoing_low, &self.incoming_high, &self.incoming_low] {
            limit.traverse(visitor);
        }
        self.engine.traverse(visitor);
    }

    fn clear(&self) {
        self.slots().clear();
        self.engine.clear();
    }
}
