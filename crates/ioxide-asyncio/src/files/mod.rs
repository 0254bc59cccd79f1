//! Files without blocking the loop: what the page cache has is answered at once, the rest is a whole operation on a thread.
//!
//! | file | room |
//! |---|---|
//! | ring | operations that the kernel makes without a thread, joined to ioxide's loop |
//! | work | a job on the pool and the future its caller awaits, on ioxide's loop and on any other |
//! | raw | `RawFile`, the raw layer under Python's own buffered and text files |
//! | window | the bytes of a file that are at hand |
//! | fairness | when an operation that need not wait lets others run |
//! | open | opening by name, without waiting or on the pool |
//!
//! Buffering, text and line ends are Python's own `io` classes over `RawFile`, and what they do when the bytes are there is what
//! they always do. The public classes are Python: `ioxide.file`, `ioxide.path`, `ioxide.fs`.

mod fairness;
mod open;
mod raw;
mod ring;
mod window;

pub use ring::close as close_ring;

use ioxide_cpython::module::Module;
use ioxide_cpython::{Raised, Result};
use ioxide_io::operation::SMALL_READ;
use ioxide_io::uring::{Opcode, supports};
use std::sync::atomic::{AtomicU8, Ordering};

/// How files are worked on: `IOXIDE_FILES`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// At once where the page cache has it, by the kernel or on the pool otherwise.
    Automatic,
    /// Everything that has a position on the loop's thread, blocking: for files known to be in memory.
    Inline,
    /// Everything that the kernel can do without a thread by io_uring, the rest on the pool.
    Uring,
    /// Everything on the pool.
    Threads,
}

/// Creates the classes and adds the names.
pub fn add_to(module: &Module<'_>) -> Result<()> {
    ring::initialize()?;
    raw::initialize()?;
    fairness::add_to(module)?;
    open::add_to(module)?;
    raw::add_to(module)
}

/// The choice of this process; none of `Backend`'s numbers before the first file.
static CHOSEN: AtomicU8 = AtomicU8::new(u8::MAX);

impl Backend {
    const ALL: [Backend; 4] = [Backend::Automatic, Backend::Inline, Backend::Uring, Backend::Threads];

    /// The one of this process, from its first file on. Fails: ValueError for an unknown name in `IOXIDE_FILES`.
    pub fn of_process() -> Result<Backend> {
        match Backend::ALL.get(usize::from(CHOSEN.load(Ordering::Relaxed))) {
            Some(chosen) => Ok(*chosen),
            None => Backend::choose(),
        }
    }

    /// Reads `IOXIDE_FILES` again.
    pub fn choose() -> Result<Backend> {
        let chosen = Backend::of_environment()?;
        CHOSEN.store(chosen as u8, Ordering::Relaxed);
        Ok(chosen)
    }

    fn of_environment() -> Result<Backend> {
        match std::env::var("IOXIDE_FILES").as_deref() {
            Err(_) | Ok("" | "auto") => Ok(Backend::Automatic),
            Ok("inline") => Ok(Backend::Inline),
            // Where io_uring is forbidden or unknown, threads take its place.
            Ok("uring") if ring::is_available() => Ok(Backend::Uring),
            Ok("uring" | "threads") => Ok(Backend::Threads),
            Ok(other) => Err(Raised::value_error(&format!(
                "IOXIDE_FILES must be auto, inline, uring or threads, not {other:?}"
            ))),
        }
    }

    /// Whether an operation of this kind is the kernel's. Buffered writes, and reads of much, are the kernel's workers' in
    /// a ring too, and slower there than on a thread of the pool (benches/files.py).
    pub fn uses_ring(self, opcode: Opcode, bytes: impl FnOnce() -> usize) -> bool {
        match self {
            Backend::Automatic => supports(opcode) && opcode != Opcode::Write && bytes() <= SMALL_READ,
            Backend::Uring => supports(opcode),
            Backend::Inline | Backend::Threads => false,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Backend::Automatic => "auto",
            Backend::Inline => "inline",
            Backend::Uring => "uring",
            Backend::Threads => "threads",
        }
    }
}
