//! `Server`: what `create_server` returns, a real subclass of asyncio.base_events.Server.
//!
//! | file | room |
//! |---|---|
//! | mod | the class, its native state, attaching and detaching connections |
//! | methods | what Python sees of it |
//! | serving | start_serving, serve_forever, close, wait_closed |
//!
//! Leaves to others: making listening sockets (`event_loop/serve`), accepting (`event_loop/accept`).
//!
//! Invariants:
//! R1. A server is closed when its `sockets` slot is empty; it never opens again.
//! R2. `waiters` is `None` once the server is closed and without connections: then nobody waits any more.
//! R3. Connections are held weakly, by address: a transport that nobody else holds can be collected and warn. An entry
//!     whose transport is gone counts as none.
//! R4. No borrow of `waiters` or `clients` is held while Python runs.

mod methods;
mod serving;

use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::Receiver;
use ioxide_cpython::object::RawObject;
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, allocate, head};
use ioxide_cpython::value::weak_reference;
use ioxide_cpython::version::SERVERS_KNOW_CLIENTS;
use ioxide_cpython::{Any, Builtin, Object, Once, Raised, Result, Slot, builtin, names};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Deref;

/// The server as Python sees it. Derefs to the object; `core` is the state.
#[repr(transparent)]
pub struct Server(Any);

/// The native state behind a server.
#[repr(C)]
struct ServerCore {
    head: Any,
    event_loop: Slot,
    sockets: Slot,
    protocol_factory: Slot,
    ssl_context: Slot,
    backlog: Slot,
    ssl_handshake_timeout: Slot,
    ssl_shutdown_timeout: Slot,
    serving_forever: Slot,
    /// The context in which connections are accepted, from 3.15 on.
    context: Slot,
    serving: Cell<bool>,
    /// How many connections there are, up to 3.12.
    active_count: Cell<usize>,
    clients: RefCell<HashMap<usize, Object>>,
    waiters: RefCell<Option<Vec<Object>>>,
}

static SERVER_CORE: Once<Class> = Once::new();
static SERVER: Once<ShellClass> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for ServerCore {
    fn class() -> &'static Once<Class> {
        &SERVER_CORE
    }
}

/// Creates the classes.
pub fn initialize() -> Result<()> {
    SERVER_CORE.set(NativeClass::core::<ServerCore>(c"ioxide.ServerCore")?);
    SERVER.set(ShellClass::create(methods::definition()?)?);
    Ok(())
}

impl Deref for Server {
    type Target = Any;
    #[inline(always)]
    fn deref(&self) -> &Any {
        &self.0
    }
}

impl Receiver for Server {
    unsafe fn receive<'a>(this: *mut RawObject) -> Result<&'a Server> {
        // SAFETY: the method descriptors of the class check that `this` is an instance.
        unsafe {
            let shell = Any::from_ptr(this);
            match SERVER.get().core::<ServerCore>(shell) {
                Some(_) => Ok(&*(shell as *const Any).cast::<Server>()),
                None => Err(Raised::runtime_error("the server is not initialized")),
            }
        }
    }
}

/// Tells a server of a new connection. Fails: AssertionError where the server is closed.
pub fn attach(server: &Any, transport: &Any) -> Result<()> {
    match Server::from_exact(server) {
        Some(server) => server.attach(transport),
        None if SERVERS_KNOW_CLIENTS => server.call_method1(&names()._attach, transport).map(drop),
        None => server.call_method0(&names()._attach).map(drop),
    }
}

/// Tells a server that a connection is over.
pub fn detach(server: &Any, transport: &Any) -> Result<()> {
    match Server::from_exact(server) {
        Some(server) => server.detach(transport),
        None if SERVERS_KNOW_CLIENTS => server.call_method1(&names()._detach, transport).map(drop),
        None => server.call_method0(&names()._detach).map(drop),
    }
}

impl Server {
    /// The class object.
    pub fn class() -> &'static Any {
        SERVER.get().class().as_any()
    }

    /// The object as a server of exactly this class, whose methods nobody has overridden.
    fn from_exact(object: &Any) -> Option<&Server> {
        let shell = SERVER.get();
        if !shell.class().is_exact(object) {
            return None;
        }
        // SAFETY: an instance of the class, and its core is there.
        unsafe {
            shell.core::<ServerCore>(object)?;
            Some(&*(object as *const Any).cast::<Server>())
        }
    }

    /// The object as a server of ioxide's, or of a class derived from it.
    pub fn from_any(object: &Any) -> Option<&Server> {
        if !object.is_subtype_of(Server::class()) {
            return None;
        }
        // SAFETY: an instance of the class or of a derived one, and its core is there.
        unsafe {
            SERVER.get().core::<ServerCore>(object)?;
            Some(&*(object as *const Any).cast::<Server>())
        }
    }

    fn core(&self) -> &ServerCore {
        // SAFETY: an instance of the class, whose core was there when the reference was made; only the collector
        // takes it away, and then nobody holds the server.
        match unsafe { SERVER.get().core::<ServerCore>(&self.0) } {
            Some(core) => core,
            None => unreachable!("a server that is in use has its core"),
        }
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.core().sockets.is_empty()
    }

    fn attach(&self, transport: &Any) -> Result<()> {
        if self.is_closed() {
            return Err(Raised::empty(builtin(Builtin::AssertionError)));
        }
        self.count_connection();
        // Up to 3.12 `_attach()` does not say whose connection it is; ioxide's own transports do.
        if !transport.is_none() {
            let reference = weak_reference(transport)?;
            let previous = self.core().clients.borrow_mut().insert(address_of(transport), reference);
            drop(previous);
        }
        Ok(())
    }

    fn count_connection(&self) {
        let core = self.core();
        if !SERVERS_KNOW_CLIENTS {
            core.active_count.set(core.active_count.get() + 1);
        }
    }

    fn detach(&self, transport: &Any) -> Result<()> {
        let core = self.core();
        let reference = core.clients.borrow_mut().remove(&address_of(transport));
        drop(reference);
        if !SERVERS_KNOW_CLIENTS {
            self.uncount_connection()?;
        }
        if self.is_closed() && !self.has_clients()? {
            self.wake_up()?;
        }
        Ok(())
    }

    fn uncount_connection(&self) -> Result<()> {
        let core = self.core();
        match core.active_count.get().checked_sub(1) {
            Some(count) => core.active_count.set(count),
            None => return Err(Raised::empty(builtin(Builtin::AssertionError))),
        }
        Ok(())
    }

    /// Whether any connection is left. Entries whose transport is gone are removed on the way (R3).
    fn has_clients(&self) -> Result<bool> {
        let core = self.core();
        if !SERVERS_KNOW_CLIENTS {
            return Ok(core.active_count.get() > 0);
        }
        loop {
            let entry = core.clients.borrow().iter().next().map(|(key, entry)| (*key, entry.clone()));
            let Some((key, reference)) = entry else { return Ok(false) };
            if !reference.call0()?.is_none() {
                return Ok(true);
            }
            let dead = core.clients.borrow_mut().remove(&key);
            drop(dead);
        }
    }

    /// The connections that are still there.
    fn live_clients(&self) -> Result<Vec<Object>> {
        let references: Vec<Object> = self.core().clients.borrow().values().cloned().collect();
        let mut live = Vec::with_capacity(references.len());
        for reference in references {
            let transport = reference.call0()?;
            if !transport.is_none() {
                live.push(transport);
            }
        }
        Ok(live)
    }

    /// `server._wakeup()`: nobody has to wait any more (R2).
    fn wake_up(&self) -> Result<()> {
        let waiters = self.core().waiters.borrow_mut().take();
        for waiter in waiters.into_iter().flatten() {
            if !waiter.call_method0(&names().done)?.is_true()? {
                waiter.call_method1(&names().set_result, ioxide_cpython::none())?;
            }
        }
        Ok(())
    }
}

fn address_of(transport: &Any) -> usize {
    transport.as_ptr() as usize
}

impl ServerCore {
    fn create() -> Result<Object> {
        allocate(ServerCore {
            head: head(),
            event_loop: Slot::empty(),
            sockets: Slot::empty(),
            protocol_factory: Slot::empty(),
            ssl_context: Slot::empty(),
            backlog: Slot::empty(),
            ssl_handshake_timeout: Slot::empty(),
            ssl_shutdown_timeout: Slot::empty(),
            serving_forever: Slot::empty(),
            context: Slot::empty(),
            serving: Cell::new(false),
            active_count: Cell::new(0),
            clients: RefCell::new(HashMap::new()),
            waiters: RefCell::new(Some(Vec::new())),
        })
    }

    fn slots(&self) -> [&Slot; 9] {
        [
            &self.event_loop,
            &self.sockets,
            &self.protocol_factory,
            &self.ssl_context,
            &self.backlog,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
            &self.serving_forever,
            &self.context,
        ]
    }
}

impl Traverse for ServerCore {
    /// Weak references hold nothing and are not shown.
    fn traverse(&self, visitor: &mut Visitor) {
        self.slots().traverse(visitor);
        if let Ok(waiters) = self.waiters.try_borrow() {
            for waiter in waiters.iter().flatten() {
                visitor.object(waiter);
            }
        }
    }

    fn clear(&self) {
        self.slots().clear();
        let waiters = self.waiters.borrow_mut().take();
        drop(waiters);
    }
}
