//! Looking names up as the C library does. A look-up waits for files and name servers: it is work for a thread.
//!
//! Invariant:
//! L1. The C library's list is freed once, after everything has been copied out of it.

use crate::address::SocketAddress;
use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

/// What `getaddrinfo` is asked. Zero leaves family, kind, protocol and flags open.
#[derive(Debug)]
pub struct Question {
    pub host: Option<CString>,
    pub service: Option<CString>,
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    pub flags: i32,
}

/// One line of what it answers.
#[derive(Debug)]
pub struct Answer {
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    /// Empty where none was asked for.
    pub canonical_name: Vec<u8>,
    pub address: SocketAddress,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// A code of `netdb.h`, `EAI_NONAME`, and what the C library says about it.
    Name {
        code: i32,
        reason: String,
    },
    System(io::Error),
}

impl Question {
    /// The answers, in the C library's order. Blocks.
    pub fn ask(&self) -> Result<Vec<Answer>, Failure> {
        // SAFETY: `addrinfo` is made of integers and pointers, for which zero is a value.
        let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
        hints.ai_family = self.family;
        hints.ai_socktype = self.kind;
        hints.ai_protocol = self.protocol;
        hints.ai_flags = self.flags;
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let mut list = ptr::null_mut();
        // SAFETY: C strings or null, and a place for the list.
        match unsafe { libc::getaddrinfo(pointer(&self.host), pointer(&self.service), &hints, &mut list) } {
            0 => Ok(List(list).answers()),
            libc::EAI_SYSTEM => Err(Failure::System(io::Error::last_os_error())),
            code => Err(Failure::Name { code, reason: reason(code) }),
        }
    }
}

fn reason(code: i32) -> String {
    // SAFETY: a C string that is never freed, for any number.
    unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned()
}

/// L1
struct List(*mut libc::addrinfo);

impl List {
    fn answers(&self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut next = self.0;
        // SAFETY: a list of the C library's: each item is valid until it is freed, and its address has the length beside it.
        while let Some(item) = unsafe { next.as_ref() } {
            // SAFETY: as above; a canonical name is a C string that belongs to the list.
            let (address, name) = unsafe {
                let bytes = std::slice::from_raw_parts(item.ai_addr.cast::<u8>(), item.ai_addrlen as usize);
                let name = item.ai_canonname;
                (SocketAddress::from_bytes(bytes), (!name.is_null()).then(|| CStr::from_ptr(name)))
            };
            answers.extend(address.map(|address| Answer {
                family: item.ai_family,
                kind: item.ai_socktype,
                protocol: item.ai_protocol,
                canonical_name: name.map_or_else(Vec::new, |name| name.to_bytes().to_vec()),
                address,
            }));
            next = item.ai_next;
        }
        answers
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: L1.
        unsafe { libc::freeaddrinfo(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(host: &str, service: &str, flags: i32) -> Question {
        let text = |text: &str| Some(CString::new(text).unwrap());
        let (host, service) = (text(host), text(service));
        Question { host, service, family: 0, kind: libc::SOCK_STREAM, protocol: 0, flags }
    }

    #[test]
    fn a_literal_address_is_its_own_answer() {
        let answers = question("127.0.0.1", "80", libc::AI_CANONNAME).ask().unwrap();
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].family, answers[0].kind), (libc::AF_INET, libc::SOCK_STREAM));
        assert_eq!(answers[0].address, SocketAddress::ip("127.0.0.1".parse().unwrap(), 80));
        assert_eq!(answers[0].canonical_name, b"127.0.0.1");
    }

    #[test]
    fn a_service_that_nobody_knows_has_a_code_and_a_reason() {
        match question("127.0.0.1", "no such service", 0).ask() {
            Err(Failure::Name { code: libc::EAI_SERVICE, reason }) => assert!(!reason.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}
