//! Native protocols: a protocol of ioxide's own is handed the received bytes themselves, with no bytes object made.
//!
//! Leaves to others: everything else a protocol is told (connection_made, eof_received, pause_writing …), which a native
//! protocol hears by its Python methods like any other.
//!
//! Invariants:
//! N1. A native protocol also has the Python methods (data_received, or get_buffer and buffer_updated), for foreign transports.
//! N2. While `receive` runs, the loop is without its scratch buffer: what receives meanwhile takes a fresh one.

use super::SocketTransport;
use ioxide_cpython::{Any, Result};

/// How one kind of native protocol takes bytes.
pub struct NativeReceiver {
    /// Whether the protocol wants its bytes this way; asked when it is set. Runs no Python.
    pub accepts: fn(protocol: &Any) -> bool,
    /// Takes the bytes, which are good until it returns. May run Python.
    pub receive: fn(protocol: &Any, data: &[u8]) -> Result<()>,
    /// What is reported where `receive` fails: asyncio's message for the method it stands for.
    pub failure: &'static str,
}

/// The native protocols there are.
static RECEIVERS: [&NativeReceiver; 2] = [&crate::sslproto::RECEIVER, &crate::streams::RECEIVER];

/// How `protocol` takes bytes, if it is a native one.
pub fn receiver_of(protocol: &Any) -> Option<&'static NativeReceiver> {
    RECEIVERS.iter().copied().find(|receiver| (receiver.accepts)(protocol))
}

impl SocketTransport {
    /// Hands over what is in the loop's buffer, or one `bytes` object.
    pub(super) fn deliver_native(&self, receiver: &NativeReceiver, data: &[u8]) -> Result<()> {
        self.deliver(|protocol| (receiver.receive)(protocol, data), receiver.failure).map(drop)
    }
}
