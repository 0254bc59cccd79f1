//! placeholder
use crate::event_loop::{Direction, EventLoop};
use ioxide_cpython::methods::Arguments;
use ioxide_cpython::{Object, Raised, Result};
pub fn initialize() -> Result<()> { Ok(()) }
pub fn on_ready(_core: &Object, _direction: Direction) -> Result<()> { Ok(()) }
pub fn flush(_core: &Object) -> Result<()> { Ok(()) }
pub fn owner_of(_event_loop: &EventLoop, _fd: i32) -> Result<Option<Object>> { Ok(None) }
pub fn make_socket_transport(_event_loop: &EventLoop, _arguments: Arguments<'_>) -> Result<Object> { Err(Raised::runtime_error("x")) }
