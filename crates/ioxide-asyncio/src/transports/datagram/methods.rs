//! What Python sees of a transport: its methods, the attributes that asyncio's has, its repr.

use super::super::base::{BaseTransport, Shown};
use super::super::flow_control::{self, FlowControlled, assigned};
use super::{DatagramTransport, Reading};
use ioxide_cpython::call::import;
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, attribute, documented, getter, method, method0, method1,
};
use ioxide_cpython::types::{ShellClass, ShellDefinition};
use ioxide_cpython::value::{integer, text};
use ioxide_cpython::{Any, Object, Raised, Result, imports};

/// Creates the class, which is an asyncio.DatagramTransport and, as asyncio's own, an asyncio.Transport too.
pub(super) fn create_class() -> Result<ShellClass> {
    ShellClass::create(ShellDefinition {
        name: c"DatagramTransport",
        bases: vec![
            imports().FlowControlMixin.clone(),
            import(c"asyncio.transports")?.get_attribute_str(c"DatagramTransport")?,
        ],
        doc: "A socket of datagrams, as the transport that asyncio's own loop makes.",
        methods: methods(),
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| -> Result<Object> {
            Err(Raised::type_error("cannot create 'ioxide.DatagramTransport' instances"))
        })),
    })
}

fn methods() -> Vec<Definition> {
    use DatagramTransport as T;
    let mut methods = flow_control::methods::<T>();
    methods.extend([
        documented(
            method(c"sendto", T::sendto),
            c"sendto($self, data, addr=None)\n--\n\n\
              Sends one datagram, or buffers it. TypeError for what is no bytes, ValueError for an address that is not \
              the one the endpoint was given; errors of the kernel go to error_received().",
        ),
        documented(method0(c"close", T::close), c"close($self)\n--\n\nSends what is buffered and closes."),
        documented(method0(c"abort", T::abort), c"abort($self)\n--\n\nCloses at once."),
        documented(method0(c"is_closing", |this: &T| this.core().is_closing()), c"is_closing($self)\n--\n\n"),
        documented(method0(c"is_reading", T::is_reading), c"is_reading($self)\n--\n\n"),
        documented(method0(c"pause_reading", T::pause_reading), c"pause_reading($self)\n--\n\n"),
        documented(method0(c"resume_reading", T::resume_reading), c"resume_reading($self)\n--\n\n"),
        documented(
            method1(c"set_protocol", |this: &T, protocol: &Any| {
                this.core().protocol.set(protocol.to_object());
            }),
            c"set_protocol($self, protocol)\n--\n\n",
        ),
        documented(method0(c"get_protocol", T::get_protocol), c"get_protocol($self)\n--\n\n"),
        method(c"_fatal_error", T::fatal_error),
        method1(c"_force_close", T::force_close),
        method1(c"_call_connection_lost", T::call_connection_lost),
        method0(c"_start_reading", T::start_reading),
        method0(c"__repr__", T::show),
        method0(c"__del__", T::finalize),
    ]);
    methods
}

fn attributes() -> Vec<Attribute> {
    use DatagramTransport as T;
    let mut attributes = flow_control::attributes::<T>();
    attributes.extend([
        getter(c"_sock", |this: &T| this.core().socket.get_or_none()),
        getter(c"_sock_fd", |this: &T| integer(i64::from(this.core().fd.get()))),
        getter(c"_loop", |this: &T| this.core().event_loop.get_or_none()),
        getter(c"_protocol", T::get_protocol),
        getter(c"_address", |this: &T| this.core().address.get_or_none()),
        getter(c"_paused", |this: &T| this.core().reading.get() == Reading::Paused),
        getter(c"_closing", |this: &T| this.core().is_closing()),
        getter(c"_conn_lost", |this: &T| integer(i64::from(this.core().late_writes.get()))),
        getter(c"_buffer_size", |this: &T| integer(this.pending_bytes() as i64)),
        attribute(
            c"max_size",
            |this: &T| integer(this.core().max_size.get() as i64),
            |this: &T, value: Option<&Any>| this.set_max_size(assigned(value)?),
        ),
    ]);
    attributes
}

impl DatagramTransport {
    /// Fails: ValueError for a negative size.
    fn set_max_size(&self, value: &Any) -> Result<()> {
        match usize::try_from(value.to_i64()?) {
            Ok(size) => self.core().max_size.set(size),
            Err(_) => return Err(Raised::value_error("max_size must not be negative")),
        }
        Ok(())
    }

    /// `repr(transport)`, with what asyncio's shows.
    fn show(&self) -> Result<Object> {
        let core = self.core();
        text(&self.shown_socket(&Shown {
            is_closed: core.socket.is_empty(),
            is_closing: core.is_closing(),
            fd: core.fd.get(),
            is_watching_reads: core.reading.get() == Reading::Watching,
            is_watching_writes: core.is_watching_writes.get(),
            pending_bytes: self.pending_bytes(),
        }))
    }
}
