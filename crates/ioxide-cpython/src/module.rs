//! The entry point of the extension module: fills the tables, then lets `ioxide-asyncio` add its classes.
//!
//! One interpreter a process: the tables are statics. A second interpreter that imports ioxide gets an ImportError.

use crate::methods::{Definition, conjure, guard};
use crate::object::{Any, Result};
use pyo3_ffi as ffi;
use std::ffi::{CStr, c_int, c_void};

/// The module object while it is being filled.
pub struct Module<'a>(&'a Any);

impl Module<'_> {
    pub fn add(&self, name: &CStr, value: &Any) -> Result<()> {
        self.0.set_attribute(&*crate::names::intern(&name.to_string_lossy())?, value)
    }

    /// Adds a function that `functions::function` or `functions::coroutine_function` declares.
    pub fn add_function(&self, definition: Definition) -> Result<()> {
        // SAFETY: names of definitions are literals.
        let name = unsafe { CStr::from_ptr(definition.ml_name) };
        self.add(name, &*crate::functions::create_function(definition)?)
    }
}

/// What `PyInit__ioxide` returns: a module definition whose execution calls `fill`.
///
/// Called once a process, by the interpreter, with the GIL.
pub fn definition<F: Fn(&Module<'_>) -> Result<()> + Copy>(
    name: &'static CStr,
    _fill: F,
) -> *mut ffi::PyObject {
    unsafe extern "C" fn execute<F: Fn(&Module<'_>) -> Result<()> + Copy>(
        module: *mut ffi::PyObject,
    ) -> c_int {
        guard(-1, || {
            initialize()?;
            // SAFETY: the interpreter passes the module; F is zero-sized, checked below.
            unsafe {
                conjure::<F>()(&Module(Any::from_ptr(module)))?;
            }
            Ok(0)
        })
    }
    let slots = vec![
        ffi::PyModuleDef_Slot { slot: ffi::Py_mod_exec, value: execute::<F> as *mut c_void },
        #[cfg(Py_3_12)]
        ffi::PyModuleDef_Slot {
            slot: ffi::Py_mod_multiple_interpreters,
            value: ffi::Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED,
        },
        ffi::PyModuleDef_Slot { slot: 0, value: std::ptr::null_mut() },
    ];
    let definition = ffi::PyModuleDef {
        m_base: ffi::PyModuleDef_HEAD_INIT,
        m_name: name.as_ptr(),
        m_doc: std::ptr::null(),
        m_size: 0,
        m_methods: std::ptr::null_mut(),
        m_slots: Box::leak(slots.into_boxed_slice()).as_mut_ptr(),
        m_traverse: None,
        m_clear: None,
        m_free: None,
    };
    // SAFETY: the definition lives forever.
    unsafe { ffi::PyModuleDef_Init(Box::leak(Box::new(definition))) }
}

fn initialize() -> Result<()> {
    crate::names::initialize()?;
    crate::imports::initialize()?;
    crate::version::initialize_rules()?;
    crate::functions::initialize()?;
    crate::current::initialize()?;
    crate::socket::initialize()?;
    crate::spare_integers::verify()?;
    crate::task_registry::initialize()?;
    crate::coroutine::initialize()
}

/// Whether the interpreter is shutting down.
pub fn is_finalizing() -> bool {
    // SAFETY: may be asked at any time.
    unsafe { crate::version::is_finalizing() }
}
