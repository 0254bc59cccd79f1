//! What Python sees of a server: its methods, and the attributes that programs have come to read.

use super::{Server, ServerCore};
use ioxide_cpython::call::import;
use ioxide_cpython::context::copy_current;
use ioxide_cpython::exception::type_name;
use ioxide_cpython::functions::coroutine_method0;
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, Signature, attribute, documented, getter, method, method0, method1,
};
use ioxide_cpython::types::ShellDefinition;
use ioxide_cpython::value::{integer, list_of, text, tuple};
use ioxide_cpython::version::{CONNECTIONS_HAVE_CONTEXT, SERVERS_KNOW_CLIENTS};
use ioxide_cpython::{Any, Object, Raised, Result, Slot, imports, names, none, none_object};
use std::ffi::CStr;

const INIT: Signature<7> = Signature {
    function: "__init__",
    names: [
        "loop",
        "sockets",
        "protocol_factory",
        "ssl_context",
        "backlog",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
    ],
    required: 6,
    positional: 7,
};

/// Over asyncio's own class, so that a server is an instance of it and of asyncio.AbstractServer.
pub(super) fn definition() -> Result<ShellDefinition> {
    let base = import(c"asyncio.base_events")?.get_attribute_str(c"Server")?;
    Ok(ShellDefinition {
        name: c"Server",
        bases: vec![base],
        doc: "Listening sockets whose connections a loop accepts, as asyncio.Server.",
        methods: methods(),
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, arguments: Arguments<'_>| {
            match arguments.positional() {
                [class, ..] => super::SERVER.get().instantiate(class, ServerCore::create()?),
                [] => Err(Raised::type_error("Server.__new__(): not enough arguments")),
            }
        })),
    })
}

fn methods() -> Vec<Definition> {
    use Server as S;
    let mut methods = vec![
        method(c"__init__", S::initialize),
        method0(c"__repr__", S::show),
        documented(method0(c"get_loop", S::get_loop), c"get_loop($self)\n--\n\nThe loop that accepts."),
        documented(
            method0(c"is_serving", |this: &S| this.core().serving.get()),
            c"is_serving($self)\n--\n\nWhether connections are accepted.",
        ),
        documented(
            coroutine_method0(c"start_serving", S::start_serving),
            c"start_serving($self)\n--\n\nBegins to accept connections; does nothing if it has begun.",
        ),
        documented(
            coroutine_method0(c"serve_forever", S::serve_forever),
            c"serve_forever($self)\n--\n\nAccepts connections until it is cancelled, which closes the server.",
        ),
        documented(
            method0(c"close", S::close),
            c"close($self)\n--\n\nStops accepting and closes the listening sockets; connections stay.",
        ),
        documented(
            coroutine_method0(c"wait_closed", S::wait_closed),
            c"wait_closed($self)\n--\n\nWaits until the server is closed and its connections are over.",
        ),
        documented(
            method0(c"close_clients", S::close_clients),
            c"close_clients($self)\n--\n\nCloses every connection, after sending what is buffered.",
        ),
        documented(
            method0(c"abort_clients", S::abort_clients),
            c"abort_clients($self)\n--\n\nCloses every connection at once.",
        ),
        method0(c"_start_serving", S::begin_serving),
        method0(c"_wakeup", S::wake_up),
    ];
    if SERVERS_KNOW_CLIENTS {
        methods.extend([method1(c"_attach", S::attach), method1(c"_detach", S::detach)]);
    } else {
        methods.extend([
            method0(c"_attach", |this: &S| this.attach(none())),
            method0(c"_detach", |this: &S| this.detach(none())),
        ]);
    }
    methods
}

fn attributes() -> Vec<Attribute> {
    use Server as S;
    let mut attributes = vec![
        getter(c"sockets", S::sockets),
        getter(c"_sockets", |this: &S| this.core().sockets.get_or_none()),
        getter(c"_waiters", S::waiters),
        getter(c"_serving", |this: &S| this.core().serving.get()),
        getter(c"_serving_forever_fut", |this: &S| this.core().serving_forever.get_or_none()),
        slot(c"_loop", |core| &core.event_loop),
        slot(c"_protocol_factory", |core| &core.protocol_factory),
        slot(c"_backlog", |core| &core.backlog),
        slot(c"_ssl_context", |core| &core.ssl_context),
        slot(c"_ssl_handshake_timeout", |core| &core.ssl_handshake_timeout),
        slot(c"_ssl_shutdown_timeout", |core| &core.ssl_shutdown_timeout),
    ];
    if CONNECTIONS_HAVE_CONTEXT {
        attributes.push(slot(c"_context", |core| &core.context));
    }
    if SERVERS_KNOW_CLIENTS {
        attributes.push(getter(c"_clients", S::clients));
    } else {
        attributes.push(getter(c"_active_count", |this: &S| integer(this.core().active_count.get() as i64)));
    }
    attributes
}

/// An attribute that a program may assign to before the server begins to serve.
fn slot<F>(name: &'static CStr, slot: F) -> Attribute
where
    F: Fn(&ServerCore) -> &Slot + Copy + 'static,
{
    attribute(
        name,
        move |this: &Server| slot(this.core()).get_or_none(),
        move |this: &Server, value: Option<&Any>| {
            let value = value.ok_or_else(|| Raised::type_error("cannot delete attribute"))?;
            slot(this.core()).set(value.to_object());
            Ok(())
        },
    )
}

impl Server {
    fn initialize(&self, arguments: Arguments<'_>) -> Result<()> {
        let values = INIT.bind(arguments)?.map(|value| value.unwrap_or(none()));
        let core = self.core();
        let places = [
            &core.event_loop,
            &core.sockets,
            &core.protocol_factory,
            &core.ssl_context,
            &core.backlog,
            &core.ssl_handshake_timeout,
            &core.ssl_shutdown_timeout,
        ];
        for (place, value) in places.into_iter().zip(values) {
            place.set(value.to_object());
        }
        if values[1].is_none() {
            core.sockets.clear();
        }
        if CONNECTIONS_HAVE_CONTEXT {
            core.context.set(copy_current()?);
        }
        Ok(())
    }

    fn get_loop(&self) -> Object {
        self.core().event_loop.get_or_none()
    }

    /// `server.sockets`: a tuple of TransportSocket, empty once the server is closed.
    fn sockets(&self) -> Result<Object> {
        let Some(sockets) = self.core().sockets.get_object() else { return tuple(&[]) };
        let mut shown = Vec::new();
        for socket in sockets.iterate()? {
            shown.push(imports().TransportSocket.call1(&*socket?)?);
        }
        tuple(&shown.iter().map(|socket| &**socket).collect::<Vec<&Any>>())
    }

    fn waiters(&self) -> Result<Object> {
        let waiters = self.core().waiters.borrow().clone();
        match waiters {
            Some(waiters) => list_of(waiters),
            None => Ok(none_object()),
        }
    }

    /// `server._clients`: a WeakSet of the connections there are now.
    fn clients(&self) -> Result<Object> {
        let clients = imports().WeakSet.call0()?;
        for transport in self.live_clients()? {
            clients.call_method1(&names().add, &transport)?;
        }
        Ok(clients)
    }

    fn show(&self) -> Result<Object> {
        let sockets = self.get_attribute_str(c"sockets")?.repr()?.to_text()?;
        text(&format!("<{} sockets={}>", type_name(self), sockets.as_str()))
    }
}
