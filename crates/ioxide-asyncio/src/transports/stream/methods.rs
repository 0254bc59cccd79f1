//! What Python sees of a transport: its methods, the attributes that asyncio's own Python code reads, its repr.

use super::super::base::{BaseTransport, Shown};
use super::super::flow_control::{self, FlowControlled, assigned};
use super::{Phase, Reading, SocketTransport, WriteEnd, writing};
use ioxide_cpython::call::import;
use ioxide_cpython::methods::{
    Arguments, Definition, attribute, documented, getter, method, method0, method1,
};
use ioxide_cpython::types::{ShellClass, ShellDefinition};
use ioxide_cpython::value::{integer, list_of, text};
use ioxide_cpython::{Any, Object, Raised, Result, boolean, imports, names};

/// Creates the class over asyncio's flow control mixin, which `loop.sendfile` asks for; that is an asyncio.Transport.
pub(super) fn create_class() -> Result<ShellClass> {
    let mut definition = ShellDefinition {
        name: c"SocketTransport",
        bases: vec![imports().FlowControlMixin.clone()],
        doc: "A connected stream socket, as the transport that asyncio's own loop makes.",
        methods: methods(),
        attributes: Vec::new(),
        new: Some(method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| -> Result<Object> {
            Err(Raised::type_error("cannot create 'ioxide.SocketTransport' instances"))
        })),
    };
    add_attributes(&mut definition);
    let class = ShellClass::create(definition)?;
    let object = class.class().as_any();
    object.set_attribute(&names()._start_tls_compatible, &boolean(true))?;
    let modes = import(c"asyncio.constants")?.get_attribute_str(c"_SendfileMode")?;
    object.set_attribute(&names()._sendfile_compatible, &*modes.get_attribute_str(c"TRY_NATIVE")?)?;
    Ok(class)
}

fn methods() -> Vec<Definition> {
    use SocketTransport as T;
    let mut methods = vec![
        documented(method1(c"write", T::write), c"write($self, data)\n--\n\nSends the bytes, now or soon."),
        documented(method0(c"write_eof", T::write_eof), c"write_eof($self)\n--\n\nCloses the writing half."),
        documented(method0(c"can_write_eof", |_: &T| true), c"can_write_eof($self)\n--\n\n"),
        documented(method0(c"close", T::close), c"close($self)\n--\n\nSends what is buffered and closes."),
        documented(method0(c"abort", T::abort), c"abort($self)\n--\n\nCloses at once."),
        documented(method0(c"is_closing", T::is_closing), c"is_closing($self)\n--\n\n"),
        documented(method0(c"is_reading", T::is_reading), c"is_reading($self)\n--\n\n"),
        documented(method0(c"pause_reading", T::pause_reading), c"pause_reading($self)\n--\n\n"),
        documented(method0(c"resume_reading", T::resume_reading), c"resume_reading($self)\n--\n\n"),
        documented(method1(c"set_protocol", T::set_protocol), c"set_protocol($self, protocol)\n--\n\n"),
        documented(method0(c"get_protocol", T::get_protocol), c"get_protocol($self)\n--\n\n"),
        method0(c"_make_empty_waiter", T::make_empty_waiter),
        method0(c"_reset_empty_waiter", T::reset_empty_waiter),
        method(c"_fatal_error", T::fatal_error),
        method1(c"_force_close", T::force_close),
        method1(c"_call_connection_lost", T::call_connection_lost),
        method0(c"_start_reading", T::start_reading),
        method0(c"__repr__", T::show),
        method0(c"__del__", T::finalize),
    ];
    methods.extend(flow_control::methods::<T>());
    if writing::has_writelines() {
        let doc = c"writelines($self, list_of_data)\n--\n\nSends the items of a list of bytes-like objects.";
        methods.push(documented(method1(c"writelines", T::writelines), doc));
    }
    methods
}

fn add_attributes(definition: &mut ShellDefinition) {
    use SocketTransport as T;
    definition.attributes.extend(flow_control::attributes::<T>());
    definition.attributes.extend([
        attribute(c"_extra", T::extra, |this: &T, value: Option<&Any>| {
            this.core().extra.set(assigned(value)?);
            Ok(())
        }),
        getter(c"_sock", |this: &T| this.core().socket.get_or_none()),
        getter(c"_sock_fd", |this: &T| integer(i64::from(this.core().fd.get()))),
        getter(c"_loop", |this: &T| this.core().event_loop.get_or_none()),
        getter(c"_protocol", T::get_protocol),
        getter(c"_server", |this: &T| this.core().server.get_or_none()),
        getter(c"_paused", |this: &T| this.core().reading.get() == Reading::Paused),
        getter(c"_closing", |this: &T| this.core().is_closing()),
        getter(c"_eof", |this: &T| this.core().write_end.get() != WriteEnd::Open),
        getter(c"_conn_lost", |this: &T| match this.core().phase.get() {
            Phase::Lost(count) => integer(i64::from(count)),
            Phase::Open | Phase::Closing => integer(0),
        }),
        getter(c"_empty_waiter", |this: &T| this.core().empty_waiter.get_or_none()),
        getter(c"_buffer", T::buffered),
        attribute(
            c"max_size",
            |this: &T| integer(this.core().max_size.get() as i64),
            |this: &T, value: Option<&Any>| this.set_max_size(assigned(value)?),
        ),
    ]);
}

impl SocketTransport {
    /// Fails: ValueError where nothing could be received.
    fn set_max_size(&self, value: &Any) -> Result<()> {
        match usize::try_from(value.to_i64()?) {
            Ok(size) if size > 0 => self.core().max_size.set(size),
            _ => return Err(Raised::value_error("max_size must be positive")),
        }
        Ok(())
    }

    /// `transport._buffer`: a list of what waits for the kernel.
    fn buffered(&self) -> Result<Object> {
        self.send_pending()?;
        let buffers: Vec<Object> =
            self.core().queue.borrow().buffers().map(|buffer| buffer.object().to_object()).collect();
        list_of(buffers)
    }

    /// `repr(transport)`, with what asyncio's shows.
    fn show(&self) -> Result<Object> {
        let core = self.core();
        text(&self.shown_socket(&Shown {
            is_closed: core.socket.is_empty(),
            is_closing: core.is_closing(),
            fd: core.fd.get(),
            is_watching_reads: core.reading.get() == Reading::Watching,
            is_watching_writes: core.is_watching_writes(),
            pending_bytes: self.pending_bytes(),
        }))
    }
}
