//! What sockets are called: the kernel's `sockaddr` with its length, and literal addresses in text.
//!
//! Names (hosts, services, interfaces) are resolved elsewhere; here is only what needs no look-up.
//!
//! Invariants:
//! A1. `length` is at most the size of `storage`, and what lies beyond it is zero.
//! A2. What an address is, is read from its family and length, never assumed: the kernel returns short,
//!     empty and foreign ones.

use std::ffi::c_void;
use std::io;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fmt, ptr, slice};

/// The longest `sun_path`; a path in the file system needs one byte of it for its end.
const UNIX_PATH_SIZE: usize = size_of::<libc::sockaddr_un>() - UNIX_PATH_OFFSET;
const UNIX_PATH_OFFSET: usize = offset_of!(libc::sockaddr_un, sun_path);

/// The address of a socket, of any family.
#[derive(Clone, Copy)]
pub struct SocketAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

/// An address taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind<'a> {
    /// The kernel gave no address, as for data from a connected or an unbound peer.
    Absent,
    Ipv4 {
        address: Ipv4Addr,
        port: u16,
    },
    /// `flow_info` and `scope_id` are numbers of this machine's byte order, as in Python's tuples.
    Ipv6 {
        address: Ipv6Addr,
        port: u16,
        flow_info: u32,
        scope_id: u32,
    },
    /// A Unix socket without a name.
    UnixUnnamed,
    /// A Unix socket in the file system; the bytes before the terminating NUL.
    UnixPath(&'a [u8]),
    /// A Unix socket in Linux's abstract namespace; its leading NUL included, as Python shows it.
    UnixAbstract(&'a [u8]),
    /// Another family; the bytes follow the family field.
    Other {
        family: i32,
        data: &'a [u8],
    },
}

impl SocketAddress {
    /// No address at all, with room for one.
    pub(crate) fn absent() -> Self {
        // SAFETY: `sockaddr_storage` is made of integers, for which zero is a value.
        Self { storage: unsafe { std::mem::zeroed() }, length: 0 }
    }

    /// An IPv4 address and port.
    pub fn ipv4(address: Ipv4Addr, port: u16) -> Self {
        // SAFETY: `sockaddr_in` is made of integers, for which zero is a value.
        let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = port.to_be();
        name.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
        // SAFETY: a `sockaddr_in` is a plain structure without padding.
        unsafe { Self::from_structure(&name) }
    }

    /// An IPv6 address and port; `flow_info` and `scope_id` are numbers, zero when there is none.
    pub fn ipv6(address: Ipv6Addr, port: u16, flow_info: u32, scope_id: u32) -> Self {
        // SAFETY: `sockaddr_in6` is made of integers, for which zero is a value.
        let mut name: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        name.sin6_port = port.to_be();
        name.sin6_flowinfo = flow_info.to_be();
        name.sin6_addr.s6_addr = address.octets();
        name.sin6_scope_id = scope_id;
        // SAFETY: a `sockaddr_in6` is a plain structure without padding.
        unsafe { Self::from_structure(&name) }
    }

    /// An IP address of either version, without flow information or scope.
    pub fn ip(address: IpAddr, port: u16) -> Self {
        match address {
            IpAddr::V4(address) => Self::ipv4(address, port),
            IpAddr::V6(address) => Self::ipv6(address, port, 0, 0),
        }
    }

    /// A Unix address from the bytes Python's `socket` takes: a path, or a name of the abstract
    /// namespace with its leading NUL, or nothing for a name of the kernel's choice.
    ///
    /// Fails with `ENAMETOOLONG` for a path of more than 107 bytes or a name of more than 108.
    pub fn unix(name: &[u8]) -> io::Result<Self> {
        let is_path = name.first().is_some_and(|first| *first != 0);
        // A path's terminating NUL is part of the address.
        let length = name.len() + usize::from(is_path);
        if length > UNIX_PATH_SIZE {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        let mut address = Self::absent();
        address.storage.ss_family = libc::AF_UNIX as libc::sa_family_t;
        // SAFETY: `storage` is larger than a `sockaddr_un`, whose path field `name` was seen to fit in,
        // and the two do not overlap.
        unsafe {
            let path = ptr::from_mut(&mut address.storage).cast::<u8>().add(UNIX_PATH_OFFSET);
            ptr::copy_nonoverlapping(name.as_ptr(), path, name.len());
        }
        address.length = (UNIX_PATH_OFFSET + length) as libc::socklen_t;
        Ok(address)
    }

    /// The bytes of a `sockaddr` of any family, as `getaddrinfo` gives them; `None` when there are more
    /// than any address has.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > size_of::<libc::sockaddr_storage>() {
            return None;
        }
        let mut address = Self::absent();
        // SAFETY: `bytes` fits into `storage`, which may hold any bytes, and the two do not overlap.
        unsafe {
            let storage = ptr::from_mut(&mut address.storage).cast::<u8>();
            ptr::copy_nonoverlapping(bytes.as_ptr(), storage, bytes.len());
        }
        address.length = bytes.len() as libc::socklen_t;
        Some(address)
    }

    /// # Safety
    /// `T` has no padding and is one of the system's `sockaddr` structures, hence fits into the storage.
    unsafe fn from_structure<T>(structure: &T) -> Self {
        let mut address = Self::absent();
        // SAFETY: the caller's promise: the structure fits, and all its bytes are initialised.
        unsafe {
            let storage = ptr::from_mut(&mut address.storage).cast::<u8>();
            ptr::copy_nonoverlapping(ptr::from_ref(structure).cast::<u8>(), storage, size_of::<T>());
        }
        address.length = size_of::<T>() as libc::socklen_t;
        address
    }

    /// Lets a system call fill in an address; returns its own answer with it.
    #[inline]
    pub(crate) fn filled_by<R>(
        fill: impl FnOnce(*mut libc::sockaddr, &mut libc::socklen_t) -> io::Result<R>,
    ) -> io::Result<(R, Self)> {
        let mut address = Self::absent();
        let capacity = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        address.length = capacity;
        let answer = fill(ptr::from_mut(&mut address.storage).cast(), &mut address.length)?;
        // A1: the kernel reports the length it would have liked.
        address.length = address.length.min(capacity);
        Ok((answer, address))
    }

    /// Pointer and length for a system call.
    #[inline]
    pub fn as_raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (ptr::from_ref(&self.storage).cast(), self.length)
    }

    /// Pointer and capacity for a system call that writes an address; `set_length` notes what it wrote.
    #[inline]
    pub(crate) fn as_raw_mut(&mut self) -> (*mut libc::sockaddr, libc::socklen_t) {
        let capacity = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // A1: what a longer address has left would lie beyond the new one.
        *self = Self::absent();
        (ptr::from_mut(&mut self.storage).cast(), capacity)
    }

    #[inline]
    pub(crate) fn set_length(&mut self, length: libc::socklen_t) {
        // A1: the kernel reports the length it would have liked.
        self.length = length.min(size_of::<libc::sockaddr_storage>() as libc::socklen_t);
    }

    /// The bytes of the `sockaddr`.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `storage` is initialised and `length` is within it (A1).
        unsafe { slice::from_raw_parts(ptr::from_ref(&self.storage).cast(), self.length as usize) }
    }

    /// The address family (`AF_INET`…); `AF_UNSPEC` when there is no address.
    #[inline]
    pub fn family(&self) -> i32 {
        // A1: without an address the field is zero, which is AF_UNSPEC.
        i32::from(self.storage.ss_family)
    }

    /// Takes the address apart.
    pub fn kind(&self) -> AddressKind<'_> {
        let length = self.length as usize;
        let family = self.family();
        if length < size_of::<libc::sa_family_t>() {
            return AddressKind::Absent;
        }
        match family {
            libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => self.ipv4_kind(),
            libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => self.ipv6_kind(),
            libc::AF_UNIX => self.unix_kind(),
            _ => AddressKind::Other { family, data: &self.as_bytes()[size_of::<libc::sa_family_t>()..] },
        }
    }

    fn ipv4_kind(&self) -> AddressKind<'_> {
        let storage: *const c_void = ptr::from_ref(&self.storage).cast();
        // SAFETY: `storage` is larger and more strictly aligned than a `sockaddr_in`, and initialised.
        let name = unsafe { &*storage.cast::<libc::sockaddr_in>() };
        AddressKind::Ipv4 {
            address: Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()),
            port: u16::from_be(name.sin_port),
        }
    }

    fn ipv6_kind(&self) -> AddressKind<'_> {
        let storage: *const c_void = ptr::from_ref(&self.storage).cast();
        // SAFETY: `storage` is larger and more strictly aligned than a `sockaddr_in6`, and initialised.
        let name = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
        AddressKind::Ipv6 {
            address: Ipv6Addr::from(name.sin6_addr.s6_addr),
            port: u16::from_be(name.sin6_port),
            flow_info: u32::from_be(name.sin6_flowinfo),
            scope_id: name.sin6_scope_id,
        }
    }

    fn unix_kind(&self) -> AddressKind<'_> {
        match self.as_bytes().get(UNIX_PATH_OFFSET..) {
            None | Some([]) => AddressKind::UnixUnnamed,
            Some(name @ [0, ..]) => AddressKind::UnixAbstract(name),
            // The length counts the terminating NUL, or not when a longest path has no room for it.
            Some(path) => AddressKind::UnixPath(path.split(|byte| *byte == 0).next().unwrap_or(path)),
        }
    }
}

impl fmt::Debug for SocketAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(formatter)
    }
}

impl PartialEq for SocketAddress {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for SocketAddress {}

/// A host given as a literal address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiteralAddress<'a> {
    Ipv4(Ipv4Addr),
    /// `zone` is the text after `%`, never empty: an interface's name or number, not looked up yet.
    Ipv6 {
        address: Ipv6Addr,
        zone: Option<&'a [u8]>,
    },
}

/// Reads a host that is a literal address; `None` for everything that `inet_pton` refuses, such as a
/// name, `127.1` or an address with white space. A zone, which `inet_pton` refuses as well, is split off.
pub fn parse_literal(host: &[u8]) -> Option<LiteralAddress<'_>> {
    // Names are the common case: an address holds only these, up to its zone.
    if !host.iter().any(|byte| matches!(byte, b'.' | b':')) {
        return None;
    }
    match host.iter().position(|byte| *byte == b'%') {
        None => match std::str::from_utf8(host).ok()?.parse().ok()? {
            IpAddr::V4(address) => Some(LiteralAddress::Ipv4(address)),
            IpAddr::V6(address) => Some(LiteralAddress::Ipv6 { address, zone: None }),
        },
        Some(percent) => {
            let zone = host.get(percent + 1..).filter(|zone| !zone.is_empty())?;
            let address = std::str::from_utf8(host.get(..percent)?).ok()?.parse().ok()?;
            Some(LiteralAddress::Ipv6 { address, zone: Some(zone) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::ffi::CString;

    unsafe extern "C" {
        fn inet_pton(
            family: libc::c_int,
            source: *const libc::c_char,
            destination: *mut c_void,
        ) -> libc::c_int;
    }

    /// The C library's own reading, the oracle of `parse_literal`.
    fn system_literal(host: &[u8]) -> Option<LiteralAddress<'static>> {
        let text = CString::new(host).ok()?;
        let mut octets = [0u8; 16];
        // SAFETY: `text` ends with NUL and `octets` has room for an address of either family.
        if unsafe { inet_pton(libc::AF_INET, text.as_ptr(), octets.as_mut_ptr().cast()) } == 1 {
            let [a, b, c, d, ..] = octets;
            return Some(LiteralAddress::Ipv4(Ipv4Addr::new(a, b, c, d)));
        }
        // SAFETY: as above.
        if unsafe { inet_pton(libc::AF_INET6, text.as_ptr(), octets.as_mut_ptr().cast()) } == 1 {
            return Some(LiteralAddress::Ipv6 { address: octets.into(), zone: None });
        }
        None
    }

    #[test]
    fn literals_agree_with_the_c_library() {
        let listed: [&[u8]; 34] = [
            b"",
            b".",
            b":",
            b"::",
            b"::1",
            b"1::",
            b"1.2.3.4",
            b"1.2.3",
            b"127.1",
            b"01.2.3.4",
            b"1.2.3.04",
            b"0.0.0.0",
            b"00.0.0.0",
            b"255.255.255.255",
            b"256.1.1.1",
            b"1.2.3.4.5",
            b" 1.2.3.4",
            b"1.2.3.4 ",
            b"1.2.3.4\0",
            b"::1.2.3.4",
            b"::ffff:1.2.3.4",
            b"::1.2.3",
            b"1.2.3.4::",
            b"1:2:3:4:5:6:7:8",
            b"1:2:3:4:5:6:7::",
            b"::2:3:4:5:6:7:8",
            b"1:2:3:4:5:6:7:8::",
            b"1::2::3",
            b"12345::",
            b"0001::",
            b"1:2:3:4:5:6:1.2.3.4",
            b"localhost",
            b"fe80::1",
            b"\xff::1",
        ];
        for host in listed {
            assert_eq!(parse_literal(host), system_literal(host), "{:?}", host.escape_ascii().to_string());
        }
    }

    #[test]
    fn random_literals_agree_with_the_c_library() {
        let pieces: [&[u8]; 14] =
            [b":", b":", b"::", b".", b".", b"0", b"1", b"9", b"25", b"255", b"00", b"ab", b"FFFF", b"g"];
        let mut random = Random::new(6);
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut host = Vec::new();
            for _ in 0..random.below(17) {
                host.extend_from_slice(pieces[random.below(pieces.len() as u64) as usize]);
            }
            let expected = system_literal(&host);
            accepted += u32::from(expected.is_some());
            assert_eq!(parse_literal(&host), expected, "{}", host.escape_ascii());
        }
        assert!(accepted > 100, "only {accepted} of the random texts were addresses");
    }

    #[test]
    fn a_zone_is_split_off_ipv6_only() {
        let link_local = "fe80::1".parse().unwrap();
        let with_zone = |zone| Some(LiteralAddress::Ipv6 { address: link_local, zone: Some(zone) });
        assert_eq!(parse_literal(b"fe80::1%eth0"), with_zone(b"eth0".as_slice()));
        assert_eq!(parse_literal(b"fe80::1%2%3"), with_zone(b"2%3".as_slice()));
        assert_eq!(parse_literal(b"fe80::1%"), None);
        assert_eq!(parse_literal(b"1.2.3.4%eth0"), None);
        assert_eq!(parse_literal(b"%a.b"), None);
    }

    #[test]
    fn ip_addresses_come_apart_as_they_were_put_together() {
        let ipv4 = SocketAddress::ipv4(Ipv4Addr::new(127, 0, 0, 1), 8080);
        assert_eq!(ipv4.kind(), AddressKind::Ipv4 { address: Ipv4Addr::LOCALHOST, port: 8080 });
        assert_eq!(ipv4.family(), libc::AF_INET);
        let address = "2001:db8::7".parse().unwrap();
        let ipv6 = SocketAddress::ipv6(address, 65_535, 0x0001_2345, 9);
        let parts = AddressKind::Ipv6 { address, port: 65_535, flow_info: 0x0001_2345, scope_id: 9 };
        assert_eq!(ipv6.kind(), parts);
        assert_eq!(ipv6.family(), libc::AF_INET6);
        assert_eq!(SocketAddress::ip(Ipv4Addr::LOCALHOST.into(), 8080), ipv4);
        assert_ne!(SocketAddress::ip(IpAddr::V6(address), 65_535), ipv6);
        for original in [ipv4, ipv6] {
            let copy = SocketAddress::from_bytes(original.as_bytes()).unwrap();
            assert_eq!((copy, copy.kind()), (original, original.kind()));
        }
    }

    #[test]
    fn unix_names_come_apart_as_they_were_put_together() {
        assert_eq!(SocketAddress::unix(b"").unwrap().kind(), AddressKind::UnixUnnamed);
        let path = SocketAddress::unix(b"/tmp/x").unwrap();
        assert_eq!(path.kind(), AddressKind::UnixPath(b"/tmp/x"));
        assert_eq!(path.as_bytes().last(), Some(&0));
        let hidden = SocketAddress::unix(b"\0name\0with").unwrap();
        assert_eq!(hidden.kind(), AddressKind::UnixAbstract(b"\0name\0with"));
        let longest = [b'a'; 107];
        assert_eq!(SocketAddress::unix(&longest).unwrap().kind(), AddressKind::UnixPath(&longest));
        let too_long = |name: &[u8]| SocketAddress::unix(name).unwrap_err().raw_os_error();
        assert_eq!(too_long(&[b'a'; 108]), Some(libc::ENAMETOOLONG));
        assert_eq!(SocketAddress::unix(&[0; 108]).unwrap().kind(), AddressKind::UnixAbstract(&[0; 108]));
        assert_eq!(too_long(&[0; 109]), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn short_and_foreign_addresses_are_not_misread() {
        let from = |bytes: &[u8]| SocketAddress::from_bytes(bytes).unwrap();
        assert_eq!(from(&[]).kind(), AddressKind::Absent);
        assert_eq!(from(&[]).family(), libc::AF_UNSPEC);
        assert_eq!(from(&[1]).kind(), AddressKind::Absent);
        let family = (libc::AF_INET as u16).to_ne_bytes();
        let short = from(&[family[0], family[1], 9]);
        assert_eq!(short.kind(), AddressKind::Other { family: libc::AF_INET, data: &[9] });
        let netlink = (libc::AF_NETLINK as u16).to_ne_bytes();
        assert_eq!(from(&netlink).kind(), AddressKind::Other { family: libc::AF_NETLINK, data: &[] });
        assert_eq!(SocketAddress::from_bytes(&[0; 129]), None);
    }
}
