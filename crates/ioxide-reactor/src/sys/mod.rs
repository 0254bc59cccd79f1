//! The operating system's way of waiting. One file per mechanism, all with the same methods in the
//! same order; the rest of the crate knows only the names exported here.

mod epoll;

pub use epoll::{Event, Mode, Poller, Registrar};
