//! Every Python object that ioxide imports, in one table.

use crate::call::import;
use crate::names::names;
use crate::object::{Object, Result};
use crate::once::Once;
use crate::value::tuple;
use std::ffi::CStr;

macro_rules! imports {
    ($($field:ident = $module:literal . $attribute:literal),* $(,)?) => {
        /// The imported objects. Fields are named after what they hold.
        #[allow(non_snake_case)]
        pub struct Imports {
            $(pub $field: Object,)*
            /// `("context",)`
            pub names_context: Object,
            /// `("source",)`
            pub names_source: Object,
            /// `("msg",)`
            pub names_message: Object,
            pub empty_tuple: Object,
        }

        impl Imports {
            fn import_all() -> Result<Imports> {
                Ok(Imports {
                    $($field: imported($module, $attribute)?,)*
                    names_context: tuple(&[&names().context])?,
                    names_source: tuple(&[&names().source])?,
                    names_message: tuple(&[&names().msg])?,
                    empty_tuple: tuple(&[])?,
                })
            }
        }
    };
}

imports! {
    Future = c"asyncio.futures" . c"Future",
    Task = c"asyncio.tasks" . c"Task",
    Handle = c"asyncio.events" . c"Handle",
    TimerHandle = c"asyncio.events" . c"TimerHandle",
    AbstractEventLoop = c"asyncio.events" . c"AbstractEventLoop",
    FlowControlMixin = c"asyncio.transports" . c"_FlowControlMixin",
    BufferedProtocol = c"asyncio.protocols" . c"BufferedProtocol",
    TransportSocket = c"asyncio.trsock" . c"TransportSocket",
    CancelledError = c"asyncio.exceptions" . c"CancelledError",
    InvalidStateError = c"asyncio.exceptions" . c"InvalidStateError",
    TimeoutError = c"builtins" . c"TimeoutError",
    BaseExceptionGroup = c"builtins" . c"BaseExceptionGroup",
    ExceptionGroup = c"builtins" . c"ExceptionGroup",
    iscoroutine = c"asyncio.coroutines" . c"iscoroutine",
    logger = c"asyncio.log" . c"logger",
    extract_stack = c"traceback" . c"extract_stack",
    format_callback_source = c"asyncio.format_helpers" . c"_format_callback_source",
    run_until_complete_callback = c"asyncio.base_events" . c"_run_until_complete_cb",
    format_handle = c"asyncio.base_events" . c"_format_handle",
    ensure_future = c"asyncio.tasks" . c"ensure_future",
    isfuture = c"asyncio.futures" . c"isfuture",
    set_result_unless_cancelled = c"asyncio.futures" . c"_set_result_unless_cancelled",
    get_event_loop = c"asyncio.events" . c"get_event_loop",
    get_running_loop = c"asyncio.events" . c"_get_running_loop",
    set_running_loop = c"asyncio.events" . c"_set_running_loop",
    ConcurrentFuture = c"concurrent.futures" . c"Future",
    socket = c"socket" . c"socket",
    get_asyncgen_hooks = c"sys" . c"get_asyncgen_hooks",
    set_asyncgen_hooks = c"sys" . c"set_asyncgen_hooks",
    get_coroutine_origin_tracking_depth = c"sys" . c"get_coroutine_origin_tracking_depth",
    set_coroutine_origin_tracking_depth = c"sys" . c"set_coroutine_origin_tracking_depth",
    WeakSet = c"weakref" . c"WeakSet",
    WeakValueDictionary = c"weakref" . c"WeakValueDictionary",
    warn = c"warnings" . c"warn",
    bytearray = c"builtins" . c"bytearray",
    memoryview = c"builtins" . c"memoryview",
    ConnectionError = c"builtins" . c"ConnectionError",
    partial = c"functools" . c"partial",
    asyncio_c_module = c"" . c"_asyncio",
}

static IMPORTS: Once<Imports> = Once::new();

/// The table of imported objects.
#[inline(always)]
pub fn imports() -> &'static Imports {
    IMPORTS.get()
}

/// `module.attribute`; an empty module name means the module called `attribute` itself.
fn imported(module: &CStr, attribute: &CStr) -> Result<Object> {
    if module.is_empty() {
        return import(attribute);
    }
    import(module)?.get_attribute_str(attribute)
}

pub(crate) fn initialize() -> Result<()> {
    IMPORTS.set(Imports::import_all()?);
    let table = imports();
    crate::version::verify_layout(&table.Future, &table.Task, &table.Handle, &table.TimerHandle)
}
