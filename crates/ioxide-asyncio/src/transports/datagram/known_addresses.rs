//! Addresses that were converted before, both ways: the same peers send again, and are answered with the very object.
//!
//! Invariants:
//! K1. An object in the table is a tuple, a string or bytes that nobody can change.
//! K2. A place holds the kernel's and Python's form of one and the same address.

use crate::addresses;
use ioxide_cpython::{Any, Object, Result};
use ioxide_io::SocketAddress;

/// Places for a socket that hears from more than one peer; a power of two.
const PLACES: usize = 64;

struct Known {
    address: SocketAddress,
    object: Object,
}

/// A table with one place for the first peer and `PLACES` from the second on.
#[derive(Default)]
pub(super) struct KnownAddresses {
    places: Vec<Option<Known>>,
}

/// What [`KnownAddresses::note`] has pushed out, to be dropped by the caller without a borrow.
pub(super) struct Replaced(#[expect(dead_code, reason = "held to be dropped")] Option<Object>);

impl KnownAddresses {
    fn place_of(&self, address: &SocketAddress) -> usize {
        if self.places.len() < PLACES {
            return 0;
        }
        let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let hash = address.as_bytes().iter().fold(0x811c_9dc5, mix);
        (hash ^ hash >> 15) as usize % PLACES
    }

    /// Python's form of an address, and its place, if it is known.
    pub(super) fn object_of(&self, address: &SocketAddress) -> Option<(Object, usize)> {
        let place = self.place_of(address);
        match self.places.get(place) {
            Some(Some(known)) if known.address == *address => Some((known.object.clone(), place)),
            _ => None,
        }
    }

    /// The kernel's form of the object in a place, if it is this one.
    pub(super) fn address_of(&self, object: &Any, place: usize) -> Option<&SocketAddress> {
        match self.places.get(place) {
            Some(Some(known)) if known.object.is(object) => Some(&known.address),
            _ => None,
        }
    }

    /// Notes both forms and returns their place.
    pub(super) fn note(&mut self, address: &SocketAddress, object: Object) -> (usize, Replaced) {
        match self.places.len() {
            0 => self.places.push(None),
            1 => {
                let first = self.places.pop().flatten();
                self.places.resize_with(PLACES, || None);
                if let Some(first) = first {
                    let place = self.place_of(&first.address);
                    self.places[place] = Some(first);
                }
            }
            _ => {}
        }
        let place = self.place_of(address);
        let replaced = self.places[place].replace(Known { address: *address, object });
        (place, Replaced(replaced.map(|known| known.object)))
    }
}

/// Python's form of the address a datagram came from. Runs no Python but for Unix paths, which are decoded.
pub(super) fn convert(address: &SocketAddress) -> Result<Object> {
    addresses::to_python(address)
}
