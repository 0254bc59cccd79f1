//! What Python sees of the transport: its methods, the attributes that asyncio's class has, its repr.

use super::super::base::BaseTransport;
use super::ProcessTransport;
use super::pipes::pipe_of;
use ioxide_cpython::call::import;
use ioxide_cpython::exception::type_name;
use ioxide_cpython::functions::{coroutine_method, coroutine_method0};
use ioxide_cpython::methods::{
    Arguments, Attribute, Definition, documented, getter, method, method0, method1,
};
use ioxide_cpython::types::{ShellClass, ShellDefinition};
use ioxide_cpython::value::{dict, integer, list_of, text};
use ioxide_cpython::{Any, Object, Raised, Result, none_object};

pub(super) fn create_class() -> Result<ShellClass> {
    ShellClass::create(ShellDefinition {
        name: c"SubprocessTransport",
        bases: vec![import(c"asyncio.unix_events")?.get_attribute_str(c"_UnixSubprocessTransport")?],
        doc: "A child process, as the transport that asyncio's own loop makes.",
        methods: methods(),
        attributes: attributes(),
        new: Some(method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| -> Result<Object> {
            Err(Raised::type_error("cannot create 'ioxide.SubprocessTransport' instances"))
        })),
    })
}

fn methods() -> Vec<Definition> {
    use ProcessTransport as T;
    vec![
        documented(method0(c"get_pid", T::get_pid), c"get_pid($self)\n--\n\nThe number of the process."),
        documented(
            method0(c"get_returncode", T::get_returncode),
            c"get_returncode($self)\n--\n\nThe exit status, the negative number of a signal, or None.",
        ),
        documented(
            method1(c"get_pipe_transport", T::get_pipe_transport),
            c"get_pipe_transport($self, fd)\n--\n\nThe transport of standard input (0), output (1) or error (2), or None.",
        ),
        documented(
            method1(c"send_signal", T::send_signal),
            c"send_signal($self, signal)\n--\n\nProcessLookupError after the connection is lost.",
        ),
        documented(method0(c"terminate", T::terminate), c"terminate($self)\n--\n\nSends SIGTERM."),
        documented(method0(c"kill", T::kill), c"kill($self)\n--\n\nSends SIGKILL."),
        documented(
            method0(c"close", T::close),
            c"close($self)\n--\n\nCloses the pipes and kills the process if it is running.",
        ),
        documented(method0(c"is_closing", |this: &T| this.core().is_closed.get()), c"is_closing($self)\n--\n\n"),
        documented(method1(c"set_protocol", T::set_protocol), c"set_protocol($self, protocol)\n--\n\n"),
        documented(method0(c"get_protocol", T::get_protocol), c"get_protocol($self)\n--\n\n"),
        documented(
            coroutine_method0(c"_wait", T::wait),
            c"_wait($self)\n--\n\nWaits until the process has ended and returns its return code.",
        ),
        coroutine_method(c"_connect_pipes", |this: &T, arguments: Arguments<'_>| {
            this.connect_pipes(arguments.only("_connect_pipes", "waiter")?)
        }),
        method(c"_call", T::call_protocol),
        method(c"_pipe_connection_lost", T::pipe_connection_lost_method),
        method(c"_pipe_data_received", T::pipe_data_received_method),
        method1(c"_process_exited", T::process_exited),
        method0(c"_try_finish", T::try_finish),
        method1(c"_call_connection_lost", T::call_connection_lost),
        method0(c"_check_proc", |this: &T| this.process().map(drop)),
        method0(c"__repr__", T::show),
        method0(c"__del__", T::finalize),
    ]
}

fn attributes() -> Vec<Attribute> {
    use ProcessTransport as T;
    vec![
        getter(c"_loop", |this: &T| this.core().event_loop.get_or_none()),
        getter(c"_protocol", T::get_protocol),
        getter(c"_proc", |this: &T| this.core().process.get_or_none()),
        getter(c"_pid", T::get_pid),
        getter(c"_returncode", T::get_returncode),
        getter(c"_closed", |this: &T| this.core().is_closed.get()),
        getter(c"_finished", |this: &T| this.core().is_finished.get()),
        getter(c"_pipes", T::shown_pipes),
        getter(c"_exit_waiters", T::shown_waiters),
    ]
}

impl ProcessTransport {
    fn get_pid(&self) -> Object {
        self.core().id.get_or_none()
    }

    fn get_returncode(&self) -> Object {
        self.core().returncode.get_or_none()
    }

    fn set_protocol(&self, protocol: &Any) {
        self.core().protocol.set(protocol.to_object());
    }

    /// Fails: AttributeError, as asyncio's, for a pipe that is not connected yet.
    fn get_pipe_transport(&self, fd: &Any) -> Result<Object> {
        for (index, pipe) in self.core().pipes.iter().enumerate() {
            if pipe.is_wanted.get() && fd.equals(&*integer(index as i64)?)? {
                return pipe_of(&pipe.protocol.get_or_none());
            }
        }
        Ok(none_object())
    }

    /// A copy of what asyncio keeps: the pipes by their numbers in the child.
    fn shown_pipes(&self) -> Result<Object> {
        let pipes = dict()?;
        for (index, pipe) in self.core().pipes.iter().enumerate() {
            if pipe.is_wanted.get() {
                pipes.dict_set(&*integer(index as i64)?, &pipe.protocol.get_or_none())?;
            }
        }
        Ok(pipes)
    }

    fn shown_waiters(&self) -> Result<Object> {
        let waiters = self.core().exit_waiters.borrow().as_ref().cloned();
        waiters.map_or_else(|| Ok(none_object()), list_of)
    }

    fn show(&self) -> Result<Object> {
        let core = self.core();
        let mut shown = vec![type_name(self)];
        if core.is_closed.get() {
            shown.push(String::from("closed"));
        }
        let mut add = |name: &str, value: &Any| -> Result<()> {
            shown.push(format!("{name}{}", value.str()?.to_text()?.as_str()));
            Ok(())
        };
        let id = core.id.get_object();
        if let Some(id) = &id {
            add("pid=", id)?;
        }
        match (core.returncode.get_object(), &id) {
            (Some(returncode), _) => add("returncode=", &returncode)?,
            (None, Some(_)) => add("running", &*text("")?)?,
            (None, None) => add("not started", &*text("")?)?,
        }
        for (index, name) in ["stdin=", "stdout=", "stderr="].into_iter().enumerate() {
            if let Some(protocol) = self.pipe(index) {
                add(name, &*pipe_of(&protocol)?)?;
            }
        }
        text(&format!("<{}>", shown.join(" ")))
    }
}
