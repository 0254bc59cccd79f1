//! `socket.getaddrinfo` without Python: its arguments as the C library's question, and the answers as its tuples.
//!
//! Invariants:
//! L1. Only while `socket.getaddrinfo` and `_socket.getaddrinfo` are the functions that Python brought: whoever replaces one
//!     is called.
//! L2. Arguments that need Python, such as names outside ASCII, or that are wrong are the function's own business.

use crate::addresses;
use crate::work;
use ioxide_cpython::call::import;
use ioxide_cpython::exception::raise_os_error;
use ioxide_cpython::value::{bytes, integer, list_from, text, tuple};
use ioxide_cpython::version::Code;
use ioxide_cpython::{Any, Object, Once, Raised, Result, names};
use ioxide_io::look_up::Failure;
use ioxide_io::{Answer, Pool, Question};
use std::ffi::CString;

/// The longest label of a name.
const LABEL: usize = 63;

/// What `socket` had when ioxide was imported.
struct Own {
    /// The function, unless somebody had replaced it by then.
    function: Option<Object>,
    /// `_socket` and its function.
    module: Object,
    native: Object,
    /// Number to enumeration member.
    families: Object,
    kinds: Object,
    audit: Object,
}

static OWN: Once<Own> = Once::new();

/// Looks at the socket module.
pub(super) fn initialize() -> Result<()> {
    let socket = import(c"socket")?;
    let module = import(c"_socket")?;
    let native = module.get_attribute_str(c"getaddrinfo")?;
    let function = socket.get_attribute_str(c"getaddrinfo")?;
    let is_own = Code::of(&function).and_then(|code| code.uses("_intenum_converter"));
    let is_own = is_own.map_err(|raised| drop(raised.take())).unwrap_or(false);
    let members = |name| socket.get_attribute_str(name)?.get_attribute_str(c"_value2member_map_");
    OWN.set(Own {
        function: is_own.then_some(function),
        module,
        native,
        families: members(c"AddressFamily")?,
        kinds: members(c"SocketKind")?,
        audit: import(c"sys")?.get_attribute_str(c"audit")?,
    });
    Ok(())
}

/// The question that `function(*values)` would ask the C library; `None` where Python has to be asked (L1, L2).
pub(super) fn question(function: &Any, values: [&Any; 6]) -> Result<Option<Question>> {
    let own = OWN.get();
    if !own.function.as_ref().is_some_and(|known| known.is(function))
        || !own.module.get_attribute(&names().getaddrinfo)?.is(&own.native)
    {
        return Ok(None);
    }
    let [host, port, numbers @ ..] = values;
    let (Some(host), Some(service)) = (host_name(host), service(port)) else { return Ok(None) };
    let [Some(family), Some(kind), Some(protocol), Some(flags)] = numbers.map(number) else {
        return Ok(None);
    };
    Ok(Some(Question { host, service, family, kind, protocol, flags }))
}

/// What `socket.getaddrinfo` tells an audit hook before it asks. Fails: what the hook raises.
pub(super) fn audit(values: [&Any; 6]) -> Result<()> {
    let [host, port, family, kind, protocol, _] = values;
    let event = text("socket.getaddrinfo")?;
    OWN.get().audit.call_slice(&[&*event, host, port, family, kind, protocol]).map(drop)
}

/// The list that `socket.getaddrinfo` returns, for a question that needs no waiting. Fails: gaierror, OSError.
pub(super) fn ask(question: &Question) -> Result<Object> {
    list(question.ask())
}

/// A future of the loop for that list.
pub(super) fn submit(event_loop: &Any, question: Question) -> Result<Object> {
    work::submit_to(&Pool::for_look_ups(), event_loop, move || question.ask(), list)
}

fn list(answers: std::result::Result<Vec<Answer>, Failure>) -> Result<Object> {
    match answers {
        Ok(answers) => list_from(answers.iter().map(shown).collect::<Result<_>>()?),
        Err(Failure::System(error)) => Err(raise_os_error(&error)),
        Err(Failure::Name { code, reason }) => {
            let class = OWN.get().module.get_attribute_str(c"gaierror")?;
            Err(Raised::exception(class.call(&[&*integer(i64::from(code))?, &*text(&reason)?])?))
        }
    }
}

/// `(family, kind, protocol, canonical name, address)`
fn shown(answer: &Answer) -> Result<Object> {
    let own = OWN.get();
    let member = |members: &Any, number: i32| {
        let number = integer(i64::from(number))?;
        Ok(members.dict_get(&number)?.unwrap_or(number))
    };
    let name = match std::str::from_utf8(&answer.canonical_name) {
        Ok(name) => text(name)?,
        Err(_) => bytes(&answer.canonical_name)?.call_method0(&*text("decode")?)?,
    };
    tuple(&[
        &*member(&own.families, answer.family)?,
        &*member(&own.kinds, answer.kind)?,
        &*integer(i64::from(answer.protocol))?,
        &*name,
        &*addresses::to_python(&answer.address)?,
    ])
}

/// `Some(None)` for no host, `None` for what is Python's business (L2): only ASCII names with proper labels are what the codec
/// for internationalised names leaves as they are.
fn host_name(host: &Any) -> Option<Option<CString>> {
    if host.is_none() {
        return Some(None);
    }
    if host.is_exact_bytes() {
        return CString::new(host.bytes()?).ok().map(Some);
    }
    let name = string(host)?;
    let labels = || name.split('.');
    let count = labels().count();
    let is_plain = name.is_ascii()
        && labels()
            .enumerate()
            .all(|(index, label)| label.len() <= LABEL && (!label.is_empty() || index + 1 == count));
    is_plain.then(|| CString::new(name).ok().map(Some)).flatten()
}

fn service(port: &Any) -> Option<Option<CString>> {
    if port.is_none() {
        return Some(None);
    }
    let text = if port.is_exact_bytes() {
        port.bytes()?.to_vec()
    } else if port.is_exact_integer() {
        quietly(port.to_i64())?.to_string().into_bytes()
    } else {
        string(port)?.into_bytes()
    };
    CString::new(text).ok().map(Some)
}

fn number(value: &Any) -> Option<i32> {
    value.is_integer().then(|| quietly(value.to_i32())).flatten()
}

/// The text of a str, unless it has surrogates. Runs no Python.
pub(super) fn string(value: &Any) -> Option<String> {
    value.is_string().then(|| quietly(value.to_text())).flatten().map(|text| text.as_str().to_owned())
}

fn quietly<T>(outcome: Result<T>) -> Option<T> {
    outcome.map_err(|raised| drop(raised.take())).ok()
}
