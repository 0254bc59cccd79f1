//! asyncio in Rust: the extension module `ioxide._ioxide`. Where asyncio's names live: `asyncio.x` is `x.rs` or `x/`.

mod addresses;
mod coroutines;
mod event_loop;
mod files;
mod futures;
mod handles;
mod locks;
mod mixins;
mod procedures;
mod queues;
mod reprs;
mod servers;
mod shells;
mod sslproto;
mod staggered;
mod streams;
mod taskgroups;
mod tasks;
mod threads;
mod timeouts;
mod transports;
mod work;

use ioxide_cpython::module::{Module, definition};
use ioxide_cpython::object::RawObject;
use ioxide_cpython::types::Native;
use ioxide_cpython::{Result, value};

fn fill(module: &Module<'_>) -> Result<()> {
    handles::initialize()?;
    futures::initialize()?;
    tasks::initialize()?;
    event_loop::initialize()?;
    servers::initialize()?;
    transports::initialize()?;
    sslproto::initialize()?;
    streams::add_to(module)?;
    procedures::initialize()?;
    module.add(c"EventLoop", event_loop::EventLoop::class())?;
    module.add(c"Future", futures::Future::class().get().as_any())?;
    module.add(c"Handle", handles::Handle::class().get().as_any())?;
    module.add(c"TimerHandle", handles::TimerHandle::class().get().as_any())?;
    module.add(c"Server", servers::Server::class())?;
    coroutines::add_to(module)?;
    futures::chain::add_to(module)?;
    work::add_to(module)?;
    files::add_to(module)?;
    locks::add_to(module)?;
    queues::add_to(module)?;
    taskgroups::add_to(module)?;
    staggered::add_to(module)?;
    tasks::add_to(module)?;
    threads::add_to(module)?;
    timeouts::add_to(module)?;
    module.add(c"__version__", &*value::text(env!("CARGO_PKG_VERSION"))?)
}

/// The entry point that the interpreter calls on `import ioxide._ioxide`.
#[unsafe(no_mangle)]
pub extern "C" fn PyInit__ioxide() -> *mut RawObject {
    definition(c"_ioxide", fill)
}
