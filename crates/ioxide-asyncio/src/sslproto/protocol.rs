//! `SSLProtocol` as Python sees it: what a transport calls, and asyncio's private attributes.

use super::{Delivery, SslProtocol, TlsCore, asyncio};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, Signature, documented, getter, method, method0, method1,
};
use ioxide_cpython::types::{ShellClass, ShellDefinition};
use ioxide_cpython::value::{integer, list_of, text};
use ioxide_cpython::{Any, Object, Raised, Result, Slot, none};

/// Creates the class over asyncio's own, so that it is one for whoever looks.
pub(super) fn create_class() -> Result<ShellClass> {
    ShellClass::create(ShellDefinition {
        name: c"SSLProtocol",
        bases: vec![asyncio::asyncio().ssl_protocol.clone()],
        doc: "The protocol that speaks TLS on the transport of a connection.",
        methods: methods(),
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| -> Result<Object> {
            Err(Raised::type_error("cannot create 'ioxide.SSLProtocol' instances"))
        })),
    })
}

fn methods() -> Vec<Definition> {
    use SslProtocol as T;
    vec![
        method1(c"connection_made", T::connection_made),
        method1(c"connection_lost", T::connection_lost),
        documented(
            method1(c"get_buffer", |this: &T, _hint: &Any| this.lend_buffer()),
            c"get_buffer($self, n)\n--\n\nA buffer of 256 KiB that the protocol keeps.",
        ),
        method1(c"buffer_updated", T::on_buffer_updated),
        method0(c"eof_received", T::eof_received),
        method0(c"pause_writing", T::pause_writing),
        method0(c"resume_writing", T::resume_writing),
        method(c"_get_extra_info", T::python_extra_info),
        method1(c"_set_app_protocol", T::set_app_protocol),
        method0(c"_get_app_transport", |this: &T| this.core().app_transport.get_or_none()),
        method0(c"_check_handshake_timeout", T::check_handshake_timeout),
        method0(c"_check_shutdown_timeout", T::check_shutdown_timeout),
        method0(c"_start_shutdown", T::start_shutdown),
        method0(c"_do_read", T::do_read),
        method0(c"_do_write", T::do_write),
        method0(c"_do_flush", T::do_flush),
        method0(c"_do_shutdown", T::do_shutdown),
        method0(c"_process_outgoing", T::process_outgoing),
        method0(c"_resume_tls_reading", T::on_resumed),
        method1(c"_write_appdata", T::write_list),
        method(c"_abort", |this: &T, arguments: Arguments<'_>| {
            this.abort(arguments.positional().first().copied().filter(|exception| !exception.is_none()))
        }),
        method(c"_fatal_error", T::python_fatal_error),
        method0(c"_get_write_buffer_size", |this: &T| integer(this.write_buffer_size()? as i64)),
        method0(c"_get_read_buffer_size", |this: &T| integer(this.core().engine.incoming_pending()? as i64)),
    ]
}

/// An attribute that shows what a slot of the core holds.
macro_rules! shown {
    ($($name:literal: $slot:expr),* $(,)?) => {
        vec![$(getter($name, |this: &SslProtocol| {
            let slot: fn(&TlsCore) -> &Slot = $slot;
            slot(this.core()).get_or_none()
        })),*]
    };
}

fn attributes() -> Vec<Attribute> {
    use SslProtocol as T;
    let mut attributes = shown![
        c"_loop": |core| &core.event_loop,
        c"_app_protocol": |core| &core.app_protocol,
        c"_app_transport": |core| &core.app_transport,
        c"_transport": |core| &core.transport,
        c"_waiter": |core| &core.waiter,
        c"_sslcontext": |core| &core.context,
        c"_extra": |core| &core.extra,
        c"_server_hostname": |core| &core.server_hostname,
        c"_ssl_handshake_timeout": |core| &core.handshake_timeout,
        c"_ssl_shutdown_timeout": |core| &core.shutdown_timeout,
        c"_handshake_timeout_handle": |core| &core.handshake_timer,
        c"_shutdown_timeout_handle": |core| &core.shutdown_timer,
        c"_sslobj": |core| &core.engine.object,
        c"_incoming": |core| &core.engine.incoming,
        c"_outgoing": |core| &core.engine.outgoing,
    ];
    attributes.extend([
        getter(c"_server_side", |this: &T| this.core().is_server.get()),
        getter(c"_eof_received", |this: &T| this.core().eof_received.get()),
        getter(c"_app_reading_paused", |this: &T| this.core().app_reading_paused.get()),
        getter(c"_app_writing_paused", |this: &T| this.core().app_writing_paused.get()),
        getter(c"_ssl_reading_paused", |this: &T| this.core().ssl_reading_paused.get()),
        getter(c"_ssl_writing_paused", |this: &T| this.core().ssl_writing_paused.get()),
        getter(c"_app_protocol_is_buffer", |this: &T| matches!(this.core().delivery.get(), Delivery::Buffer)),
        getter(c"_is_direct", |this: &T| this.core().engine.is_direct()),
        getter(c"_conn_lost", |this: &T| integer(i64::from(this.core().lost_count.get()))),
        getter(c"_write_backlog", T::backlog),
        getter(c"_write_buffer_size", |this: &T| integer(this.core().backlog.borrow().bytes() as i64)),
        getter(c"_outgoing_high_water", |this: &T| this.core().outgoing_high.get()),
        getter(c"_outgoing_low_water", |this: &T| this.core().outgoing_low.get()),
        getter(c"_incoming_high_water", |this: &T| this.core().incoming_high.get()),
        getter(c"_incoming_low_water", |this: &T| this.core().incoming_low.get()),
        getter(c"_state", |this: &T| {
            asyncio::asyncio().protocol_state.get_item(&*text(this.core().state.get().name())?)
        }),
        getter(c"_app_state", |this: &T| {
            asyncio::asyncio().app_protocol_state.get_item(&*text(this.core().app_state.get().name())?)
        }),
    ]);
    attributes
}

impl SslProtocol {
    /// `_write_backlog`: a list of what is not encrypted.
    fn backlog(&self) -> Result<Object> {
        let objects = self.core().backlog.borrow().objects();
        list_of(objects)
    }

    fn python_extra_info(&self, arguments: Arguments<'_>) -> Result<Object> {
        const SIGNATURE: Signature<2> =
            Signature { function: "_get_extra_info", names: ["name", "default"], required: 1, positional: 2 };
        let [name, default] = SIGNATURE.bind(arguments)?;
        self.extra_info(name.unwrap_or(none()), default.unwrap_or(none()))
    }

    fn python_fatal_error(&self, arguments: Arguments<'_>) -> Result<()> {
        const SIGNATURE: Signature<2> =
            Signature { function: "_fatal_error", names: ["exc", "message"], required: 1, positional: 2 };
        let [exception, message] = SIGNATURE.bind(arguments)?;
        let message = match message {
            Some(message) => message.to_text()?.into_string(),
            None => String::from("Fatal error on transport"),
        };
        self.fatal_error(exception.unwrap_or(none()), &message)
    }
}
