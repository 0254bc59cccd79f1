//! Starting child processes: `subprocess_exec`, `subprocess_shell`. The child itself is a `subprocess.Popen`, with every
//! keyword it has; who replaces Popen is heard.
//!
//! Leaves to others: how a child begins (`transports/process/popen`) and is spoken to (`transports/process`), how its end is
//! noticed (`children`).
//!
//! Invariants:
//! S1. At most `UNDER_WAY` children have been started and not begun their programs: a swarm of them would take the
//!     processor from the loop. Whoever else wants one waits.
//! S2. A Popen that is not ioxide's business holds the thread until its child has begun. One such is made in a turn.
//! S3. While somebody waits, a child is under way, or `pass_turn` is in the ready queue; both wake the next one.
//! S4. A coroutine holds what it waits for nowhere but in its `Waiting`, so that the collector sees all owners.

use super::children::ChildWatcher;
use super::{EventLoop, Ready};
use crate::futures;
use crate::handles::Handle;
use crate::transports::{Begun, ProcessTransport, begin, wait_until_begun};
use ioxide_cpython::call::import;
use ioxide_cpython::coroutine::{Waiting, coroutine, wait_for};
use ioxide_cpython::exception::handling;
use ioxide_cpython::gc::Visitor;
use ioxide_cpython::methods::{Arguments, Signature, method0, missing_argument, multiple_values, name_is};
use ioxide_cpython::types::FunctionDefinition;
use ioxide_cpython::value::{dict, integer, text, tuple};
use ioxide_cpython::version::EXIT_WAIT_IS_SHIELDED;
use ioxide_cpython::{Any, Object, Once, Raised, Result, boolean, imports, names};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

static PASS_TURN: Once<FunctionDefinition> = Once::new();

/// How many children may be between their start and the beginning of their program (S1).
const UNDER_WAY: usize = 2;

/// Who waits for a start (S1, S2).
#[derive(Default)]
pub struct Starts {
    under_way: Cell<usize>,
    /// A Popen has held the thread in this turn.
    stood_still: Cell<bool>,
    waiting: RefCell<VecDeque<Object>>,
}

impl Starts {
    pub fn traverse(&self, visitor: &mut Visitor) {
        if let Ok(waiting) = self.waiting.try_borrow() {
            for future in waiting.iter() {
                visitor.object(future);
            }
        }
    }

    pub fn clear(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        drop(waiting);
    }
}

/// Makes the functions that are bound to loops.
pub fn initialize() {
    PASS_TURN.set(FunctionDefinition::new(method0(c"_pass_turn", EventLoop::pass_turn)));
}

/// The parameters of both methods, the keywords that are Popen's alone apart.
const PARAMETERS: [&str; 11] = [
    "protocol_factory",
    "",
    "stdin",
    "stdout",
    "stderr",
    "universal_newlines",
    "shell",
    "bufsize",
    "encoding",
    "errors",
    "text",
];

const MAKE: Signature<8> = Signature {
    function: "_make_subprocess_transport",
    names: ["protocol", "args", "shell", "stdin", "stdout", "stderr", "bufsize", "extra"],
    required: 7,
    positional: 8,
};

/// A child that is wanted.
struct Child {
    protocol: Object,
    command: Object,
    streams: [Object; 3],
    extra: Object,
    /// Popen's.
    keywords: Object,
}

/// What a caller asked for.
struct Request {
    protocol_factory: Object,
    /// The arguments for the program, or the command for the shell.
    command: Object,
    stdin: Object,
    stdout: Object,
    stderr: Object,
    bufsize: Object,
    keywords: Object,
}

impl EventLoop {
    /// `await loop.subprocess_exec(protocol_factory, program, *args, stdin=PIPE, stdout=PIPE, stderr=PIPE, **kwargs)`
    pub fn subprocess_exec(&self, arguments: Arguments<'_>) -> Result<Object> {
        let (given, keywords) = bind(arguments, "subprocess_exec", "program")?;
        let positional = arguments.positional();
        let mut command = vec![given[1].unwrap_or(ioxide_cpython::none())];
        command.extend_from_slice(positional.get(2..).unwrap_or_default());
        let request = Request::new(&given, tuple(&command)?, keywords)?;
        let refused = refused_options(&given, false)?;
        self.start(request, "subprocess_exec", refused)
    }

    /// `await loop.subprocess_shell(protocol_factory, cmd, *, stdin=PIPE, stdout=PIPE, stderr=PIPE, **kwargs)`
    pub fn subprocess_shell(&self, arguments: Arguments<'_>) -> Result<Object> {
        let (given, keywords) = bind(arguments, "subprocess_shell", "cmd")?;
        let count = arguments.positional().len();
        if count > 2 {
            return Err(Raised::type_error(&format!(
                "BaseEventLoop.subprocess_shell() takes 3 positional arguments but {} were given",
                count + 1
            )));
        }
        let command = given[1].unwrap_or(ioxide_cpython::none()).to_object();
        let refused = match command.is_string() || command.is_bytes() {
            true => refused_options(&given, true)?,
            false => Some("cmd must be a string"),
        };
        let request = Request::new(&given, command, keywords)?;
        self.start(request, "subprocess_shell", refused)
    }

    /// The coroutine of both: checks, makes the protocol, then the transport, and returns both.
    fn start(
        &self,
        request: Request,
        function: &'static str,
        refused: Option<&'static str>,
    ) -> Result<Object> {
        let event_loop = self.to_object();
        let is_shell = function == "subprocess_shell";
        let name = if is_shell { "BaseEventLoop.subprocess_shell" } else { "BaseEventLoop.subprocess_exec" };
        coroutine(name, async move {
            if let Some(message) = refused {
                return Err(Raised::value_error(message));
            }
            let protocol = request.protocol_factory.call0()?;
            let debug_log = match EventLoop::from_any(&event_loop) {
                Some(native) if native.is_debug() => Some(native.log_start(&request, is_shell)?),
                _ => None,
            };
            let making = wait_for(&*request.make_transport(&event_loop, &protocol, is_shell)?);
            let transport = making.await?;
            let is_debug = EventLoop::from_any(&event_loop).is_some_and(EventLoop::is_debug);
            if let Some(message) = debug_log.filter(|_| is_debug) {
                let arguments = [&*text("%s: %r")?, &*message, &*transport];
                imports().logger.call_method(&names().info, &arguments)?;
            }
            tuple(&[&transport, &protocol])
        })
    }

    /// Debug mode: says what is started, without its arguments, which may be secret.
    fn log_start(&self, request: &Request, is_shell: bool) -> Result<Object> {
        let message = match request.command.tuple_items() {
            [program, ..] if !is_shell => format!("execute program {}", program.repr()?.to_text()?.as_str()),
            _ => format!("run shell command {}", request.command.repr()?.to_text()?.as_str()),
        };
        let message = text(&message)?;
        let arguments = [&*message, &*request.stdin, &*request.stdout, &*request.stderr];
        self.call_method(&names()._log_subprocess, &arguments)?;
        Ok(message)
    }

    /// `loop._log_subprocess(msg, stdin, stdout, stderr)`
    pub fn log_subprocess(&self, arguments: Arguments<'_>) -> Result<()> {
        let [message, stdin, stdout, stderr] = arguments.positional() else {
            return Err(Raised::type_error("_log_subprocess expected 4 arguments"));
        };
        let mut line = message.str()?.to_text()?.into_string();
        let mut add = |name: &str, stream: &Any| -> Result<()> {
            if !stream.is_none() {
                line.push_str(&format!(" {name}={}", shown_stream(stream)?));
            }
            Ok(())
        };
        add("stdin", stdin)?;
        if !stdout.is_none() && stderr.equals(&*subprocess(c"STDOUT")?)? {
            add("stdout=stderr", stdout)?;
        } else {
            add("stdout", stdout)?;
            add("stderr", stderr)?;
        }
        imports().logger.call_method1(&names().debug, &*text(&line)?).map(drop)
    }

    /// `await loop._make_subprocess_transport(protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None, **kwargs)`
    pub fn make_subprocess_transport(&self, arguments: Arguments<'_>) -> Result<Object> {
        let keywords = dict()?;
        let named: Vec<(&Any, &Any)> = arguments.keywords().collect();
        let bound =
            MAKE.bind_with(arguments, |name| match named.iter().find(|(given, _)| given.is(name)) {
                Some((_, value)) => keywords.dict_set(name, value),
                None => Ok(()),
            })?;
        let [protocol, command, shell, stdin, stdout, stderr, bufsize, extra] =
            bound.map(|value| value.unwrap_or(ioxide_cpython::none()).to_object());
        for (name, value) in ["shell", "stdin", "stdout", "stderr", "universal_newlines", "bufsize"]
            .iter()
            .zip([&*shell, &*stdin, &*stdout, &*stderr, &*boolean(false), &*bufsize])
        {
            keywords.dict_set(&*text(name)?, value)?;
        }
        let event_loop = self.to_object();
        let child = Child { protocol, command, streams: [stdin, stdout, stderr], extra, keywords };
        coroutine("_UnixSelectorEventLoop._make_subprocess_transport", async move {
            let Some(native) = EventLoop::from_any(&event_loop) else {
                return Err(Raised::runtime_error("the loop is not initialized"));
            };
            native.wait_for_turn().await?;
            let watcher = ChildWatcher::of(native).and_then(|watcher| watcher.enter().map(|()| watcher));
            let watcher = match watcher {
                Ok(watcher) => watcher,
                Err(raised) => return Err(native.start_is_over(raised)),
            };
            let made = native.make_transport(&watcher, &child).await;
            watcher.leave(made)
        })
    }

    /// Waits until a child may be started (S1, S2).
    async fn wait_for_turn(&self) -> Result<()> {
        let starts = &self.core().starts;
        while starts.stood_still.get() || starts.under_way.get() >= UNDER_WAY {
            let waiting = self.queue_for_turn()?;
            if let Err(raised) = waiting.await {
                // It may have been this one's turn already.
                let exception = raised.take();
                self.wake_next()?;
                return Err(Raised::exception(exception));
            }
        }
        starts.under_way.set(starts.under_way.get() + 1);
        Ok(())
    }

    fn queue_for_turn(&self) -> Result<Waiting> {
        let future = futures::create(self)?;
        let waiting = wait_for(&future);
        self.core().starts.waiting.borrow_mut().push_back(future);
        Ok(waiting)
    }

    /// A child has begun its program, or failed to: the next one may start (S3).
    pub fn child_has_begun(&self) -> Result<()> {
        let under_way = &self.core().starts.under_way;
        under_way.set(under_way.get().saturating_sub(1));
        self.wake_next()
    }

    /// A start that has held the thread is over: the next one may start in the next turn (S2).
    fn pass_turn_later(&self) -> Result<()> {
        self.core().starts.stood_still.set(true);
        let handle = Handle::create(self, &*PASS_TURN.get().bind(self)?, &[], None)?;
        self.push_ready(Ready::Handle(handle));
        Ok(())
    }

    fn pass_turn(&self) -> Result<()> {
        self.core().starts.stood_still.set(false);
        self.child_has_begun()
    }

    fn wake_next(&self) -> Result<()> {
        let starts = &self.core().starts;
        if starts.stood_still.get() || starts.under_way.get() >= UNDER_WAY {
            return Ok(());
        }
        loop {
            let next = starts.waiting.borrow_mut().pop_front();
            let Some(next) = next else { return Ok(()) };
            if futures::set_result_unless_done(&next, ioxide_cpython::none())? {
                return Ok(());
            }
        }
    }

    /// A start has failed before there was a child. Returns what it failed with.
    fn start_is_over(&self, raised: Raised) -> Raised {
        let exception = raised.take();
        match self.pass_turn_later() {
            Ok(()) => Raised::exception(exception),
            Err(raised) => raised,
        }
    }

    /// Starts the child and waits until its pipes are connected. What fails after the start ends the child.
    async fn make_transport(&self, watcher: &ChildWatcher, child: &Child) -> Result<Object> {
        let opened = watcher.check_active().and_then(|()| self.start_child(child));
        let (transport, begun) = match opened {
            Ok(opened) => opened,
            Err(raised) => return Err(self.start_is_over(raised)),
        };
        let Some(native) = ProcessTransport::from_any(&transport) else { return Ok(transport) };
        let cancelled = match wait_until_begun(&begun, self).await {
            Ok(cancelled) => cancelled,
            Err(raised) if raised.leaves_the_loop() => return Err(raised),
            Err(raised) => {
                let exception = raised.take();
                handling(&exception, || native.close())?;
                return Err(Raised::exception(exception));
            }
        };
        let waiter = self.call_method0(&names().create_future)?;
        native.open(&begun.popen, &child.command, &waiter)?;
        let connected = wait_for(&waiter);
        drop(waiter);
        watcher.add_child(self, &transport, begun.take_process())?;
        let connected = match cancelled {
            Some(exception) => Err(Raised::exception(exception)),
            None => connected.await,
        };
        match connected {
            Ok(_) => Ok(transport),
            Err(raised) if raised.leaves_the_loop() => Err(raised),
            Err(raised) => {
                let exception = raised.take();
                let exit = handling(&exception, || {
                    transport.call_method0(&names().close)?;
                    let exit = transport.call_method0(&names()._wait)?;
                    match EXIT_WAIT_IS_SHIELDED {
                        true => import(c"asyncio.tasks")?.get_attribute_str(c"shield")?.call1(&exit),
                        false => Ok(exit),
                    }
                    .map(|exit| wait_for(&exit))
                })?;
                exit.await?;
                Err(Raised::exception(exception))
            }
        }
    }

    /// A transport and its child, which may not have begun its program yet.
    fn start_child(&self, child: &Child) -> Result<(Object, Begun)> {
        let [stdin, stdout, stderr] = &child.streams;
        let extra = (!child.extra.is_none()).then_some(&*child.extra);
        let transport = ProcessTransport::create(self, &child.protocol, [stdin, stdout, stderr], extra)?;
        let Some(native) = ProcessTransport::from_any(&transport) else {
            return Err(Raised::runtime_error("the transport is not initialized"));
        };
        let begun = begin(&child.command, &child.keywords).map_err(Raised::take);
        let begun = match begun {
            Ok(begun) => begun,
            Err(exception) => {
                handling(&exception, || native.close())?;
                return Err(Raised::exception(exception));
            }
        };
        native.adopt(&begun.popen)?;
        match begun.is_under_way() {
            true => begun.watch(self)?,
            false => self.pass_turn_later()?,
        }
        Ok((transport, begun))
    }
}

impl Request {
    fn new(given: &[Option<&Any>; 11], command: Object, keywords: Object) -> Result<Request> {
        let pipe = subprocess(c"PIPE")?;
        let stream = |index: usize| given[index].map_or_else(|| pipe.clone(), Any::to_object);
        Ok(Request {
            protocol_factory: given[0].unwrap_or(ioxide_cpython::none()).to_object(),
            command,
            stdin: stream(2),
            stdout: stream(3),
            stderr: stream(4),
            bufsize: integer(0)?,
            keywords,
        })
    }

    /// `loop._make_subprocess_transport(...)`, by the loop's own method.
    fn make_transport(&self, event_loop: &Any, protocol: &Any, is_shell: bool) -> Result<Object> {
        let is_shell = boolean(is_shell);
        let positional = tuple(&[
            protocol,
            &self.command,
            &is_shell,
            &self.stdin,
            &self.stdout,
            &self.stderr,
            &self.bufsize,
        ])?;
        let make = event_loop.get_attribute(&names()._make_subprocess_transport)?;
        make.call_tuple(&positional, Some(&self.keywords))
    }
}

/// The values of PARAMETERS, and a dictionary of all other keywords.
fn bind<'a>(
    arguments: Arguments<'a>,
    function: &str,
    second: &'static str,
) -> Result<([Option<&'a Any>; 11], Object)> {
    let mut given = [None; 11];
    for (place, value) in given.iter_mut().zip(arguments.positional().iter().take(2)) {
        *place = Some(*value);
    }
    let others = dict()?;
    let parameter = |index: usize| if index == 1 { second } else { PARAMETERS[index] };
    for (name, value) in arguments.keywords() {
        match (0..PARAMETERS.len()).find(|&index| name_is(name, parameter(index))) {
            Some(index) if given[index].is_some() => return Err(multiple_values(function, parameter(index))),
            Some(index) => given[index] = Some(value),
            None => others.dict_set(name, value)?,
        }
    }
    for (index, value) in given.iter().enumerate().take(2) {
        if value.is_none() {
            return Err(missing_argument(function, parameter(index)));
        }
    }
    Ok((given, others))
}

/// Why an option of Popen's about text is refused: pipes of the loop carry bytes.
fn refused_options(given: &[Option<&Any>; 11], is_shell: bool) -> Result<Option<&'static str>> {
    let is_true = |index: usize, default: bool| given[index].map_or(Ok(default), Any::is_true);
    let is_given = |index: usize| given[index].is_some_and(|value| !value.is_none());
    if is_true(5, false)? {
        return Ok(Some("universal_newlines must be False"));
    }
    if is_true(6, is_shell)? != is_shell {
        return Ok(Some(if is_shell { "shell must be True" } else { "shell must be False" }));
    }
    let zero = integer(0)?;
    if !given[7].map_or(Ok(true), |bufsize| bufsize.equals(&zero))? {
        return Ok(Some("bufsize must be 0"));
    }
    if is_true(10, false)? {
        return Ok(Some("text must be False"));
    }
    if is_given(8) {
        return Ok(Some("encoding must be None"));
    }
    Ok(is_given(9).then_some("errors must be None"))
}

fn subprocess(name: &std::ffi::CStr) -> Result<Object> {
    import(c"subprocess")?.get_attribute_str(name)
}

/// How a stream is logged.
fn shown_stream(stream: &Any) -> Result<String> {
    if stream.equals(&*subprocess(c"PIPE")?)? {
        return Ok(String::from("<pipe>"));
    }
    if stream.equals(&*subprocess(c"STDOUT")?)? {
        return Ok(String::from("<stdout>"));
    }
    Ok(stream.repr()?.to_text()?.into_string())
}
