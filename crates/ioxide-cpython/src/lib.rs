//! Speaks C to CPython. Every `unsafe` of the foreign function interface and every difference between Python
//! versions is in this crate and nowhere else; what it gives to the crates above is safe to use.
//!
//! | file | room |
//! |---|---|
//! | object | `Any`, `Object`, `Slot`, `Raised`: references, fields, errors |
//! | call, value, buffer, bytearray | calling Python, converting values, bytes-like objects |
//! | exception | raising, taking, reporting |
//! | methods, functions | Rust functions as methods, as coroutine functions and as functions of a module |
//! | fields | slots as attributes |
//! | types, freelist, spare_integers, gc | Rust structs as classes, memory that is used again, garbage collection |
//! | coroutine, outcome | awaiting both ways, how futures ended |
//! | context, current | contextvars, the running loop and the current task |
//! | names, imports, once | interned names, imported objects, set once |
//! | detach | the GIL given back and taken |
//! | socket | the descriptor inside a socket |
//! | ssl | the TLS connection inside the objects of `_ssl` |
//! | task_registry | behind `all_tasks` |
//! | version | what differs between Python versions |
//! | module | the entry point of the extension module |

pub mod buffer;
pub mod bytearray;
pub mod call;
pub mod context;
pub mod coroutine;
pub mod current;
pub mod detach;
pub mod exception;
pub mod fields;
pub mod freelist;
pub mod functions;
pub mod gc;
pub mod imports;
pub mod methods;
pub mod module;
pub mod names;
pub mod object;
pub mod once;
pub mod outcome;
pub mod socket;
pub mod spare_integers;
pub mod ssl;
pub mod task_registry;
pub mod types;
pub mod value;
pub mod version;

pub use exception::{Builtin, builtin};
pub use imports::imports;
pub use names::names;
pub use object::{Any, Object, Raised, Result, Slot, boolean, none, none_object};
pub use once::Once;

pub(crate) fn exception_pending() -> bool {
    // SAFETY: O1.
    !unsafe { pyo3_ffi::PyErr_Occurred() }.is_null()
}
