//! `open_connection`, `start_server` and their Unix kin: a reader, a protocol and a writer for each connection that the loop makes.
//!
//! Leaves to others: connecting and listening, which is the loop's `create_connection` and its kin, whatever loop it is.

use super::reader::DEFAULT_LIMIT;
use super::{protocol, reader, writer};
use ioxide_cpython::coroutine::{coroutine, wait_for};
use ioxide_cpython::functions::coroutine_function;
use ioxide_cpython::methods::{Arguments, Signature, documented, method0};
use ioxide_cpython::module::Module;
use ioxide_cpython::types::FunctionDefinition;
use ioxide_cpython::value::{dict, integer, tuple};
use ioxide_cpython::{Any, Object, Once, Raised, Result, imports, names, none};

static THE_PROTOCOL: Once<FunctionDefinition> = Once::new();
static NEW_PROTOCOL: Once<FunctionDefinition> = Once::new();

/// Adds the functions to the module.
pub(super) fn add_to(module: &Module<'_>) -> Result<()> {
    THE_PROTOCOL.set(FunctionDefinition::new(method0(c"factory", |protocol: &Any| protocol.to_object())));
    NEW_PROTOCOL.set(FunctionDefinition::new(method0(c"factory", new_protocol)));
    module.add_function(documented(
        coroutine_function(c"open_connection", open_connection),
        c"open_connection(host=None, port=None, *, limit=65536, **kwds)\n--\n\n\
          Connects and returns a StreamReader and a StreamWriter; `limit` is the reader's, in bytes. \
          The rest is the loop's create_connection()'s, without the protocol factory.",
    ))?;
    module.add_function(documented(
        coroutine_function(c"start_server", start_server),
        c"start_server(client_connected_cb, host=None, port=None, *, limit=65536, **kwds)\n--\n\n\
          Listens and calls the callback with a StreamReader and a StreamWriter for each connection; a coroutine that it \
          returns becomes a task. The rest is the loop's create_server()'s, and so is the server that is returned.",
    ))?;
    module.add_function(documented(
        coroutine_function(c"open_unix_connection", open_unix_connection),
        c"open_unix_connection(path=None, *, limit=65536, **kwds)\n--\n\nopen_connection() for Unix sockets.",
    ))?;
    module.add_function(documented(
        coroutine_function(c"start_unix_server", start_unix_server),
        c"start_unix_server(client_connected_cb, path=None, *, limit=65536, **kwds)\n--\n\nstart_server() for Unix sockets.",
    ))
}

/// What goes on to the loop: the arguments behind the protocol factory, and the keywords.
struct Passed {
    arguments: Vec<Object>,
    keywords: Object,
    limit: Object,
}

impl Passed {
    /// `known` are the values of the parameters that have a name here, the reader's limit among them at last.
    fn new(known: &[Option<&Any>], limit: Option<&Any>, keywords: Object) -> Result<Passed> {
        let arguments = known.iter().map(|value| value.unwrap_or(none()).to_object()).collect();
        let limit = match limit {
            Some(limit) => limit.to_object(),
            None => integer(DEFAULT_LIMIT)?,
        };
        Ok(Passed { arguments, keywords, limit })
    }

    /// `await event_loop.method(factory, *arguments, **keywords)`
    async fn call(&self, event_loop: &Any, method: &Any, factory: &Any) -> Result<Object> {
        let mut all = vec![factory];
        all.extend(self.arguments.iter().map(|argument| &**argument));
        let creating = event_loop.get_attribute(method)?.call_tuple(&*tuple(&all)?, Some(&self.keywords))?;
        wait_for(&creating).await
    }
}

/// Binds what has a name; other keywords go on as they are.
fn bind<'a, const N: usize>(
    signature: &Signature<N>,
    arguments: Arguments<'a>,
) -> Result<([Option<&'a Any>; N], Object)> {
    let others = dict()?;
    let mut unknown = Vec::new();
    let bound = signature.bind_with(arguments, |name| {
        unknown.push(name);
        Ok(())
    })?;
    for (name, value) in arguments.keywords() {
        if unknown.iter().any(|other| other.is(name)) {
            others.dict_set(name, value)?;
        }
    }
    Ok((bound, others))
}

/// `asyncio.get_running_loop()`
fn running_loop() -> Result<Object> {
    let event_loop = imports().get_running_loop.call0()?;
    if event_loop.is_none() {
        return Err(Raised::runtime_error("no running event loop"));
    }
    Ok(event_loop)
}

fn open_connection(arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<3> = Signature {
        function: "open_connection",
        names: ["host", "port", "limit"],
        required: 0,
        positional: 2,
    };
    let ([host, port, limit], keywords) = bind(&SIGNATURE, arguments)?;
    let passed = Passed::new(&[host, port], limit, keywords)?;
    coroutine("open_connection", connect(passed, &names().create_connection))
}

fn open_unix_connection(arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<2> =
        Signature { function: "open_unix_connection", names: ["path", "limit"], required: 0, positional: 1 };
    let ([path, limit], keywords) = bind(&SIGNATURE, arguments)?;
    let passed = Passed::new(&[path], limit, keywords)?;
    coroutine("open_unix_connection", connect(passed, &names().create_unix_connection))
}

async fn connect(passed: Passed, method: &'static Any) -> Result<Object> {
    let event_loop = running_loop()?;
    let reader = reader::create(&passed.limit, &event_loop)?;
    let protocol = protocol::create(&reader, None, &event_loop)?;
    let factory = THE_PROTOCOL.get().bind(&protocol)?;
    let connection = passed.call(&event_loop, method, &factory).await?;
    let transport = connection.get_item(&*integer(0)?)?;
    let writer = writer::create(&transport, &protocol, &reader, &event_loop)?;
    tuple(&[&*reader, &*writer])
}

fn start_server(arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<4> = Signature {
        function: "start_server",
        names: ["client_connected_cb", "host", "port", "limit"],
        required: 1,
        positional: 3,
    };
    let ([callback, host, port, limit], keywords) = bind(&SIGNATURE, arguments)?;
    let passed = Passed::new(&[host, port], limit, keywords)?;
    let callback = callback.unwrap_or(none()).to_object();
    coroutine("start_server", listen(passed, callback, &names().create_server))
}

fn start_unix_server(arguments: Arguments<'_>) -> Result<Object> {
    const SIGNATURE: Signature<3> = Signature {
        function: "start_unix_server",
        names: ["client_connected_cb", "path", "limit"],
        required: 1,
        positional: 2,
    };
    let ([callback, path, limit], keywords) = bind(&SIGNATURE, arguments)?;
    let passed = Passed::new(&[path], limit, keywords)?;
    let callback = callback.unwrap_or(none()).to_object();
    coroutine("start_unix_server", listen(passed, callback, &names().create_unix_server))
}

async fn listen(passed: Passed, callback: Object, method: &'static Any) -> Result<Object> {
    let event_loop = running_loop()?;
    let factory = NEW_PROTOCOL.get().bind(&*tuple(&[&*callback, &*passed.limit, &*event_loop])?)?;
    passed.call(&event_loop, method, &factory).await
}

/// The factory of a server; `state` is its callback, limit and loop.
fn new_protocol(state: &Any) -> Result<Object> {
    let &[callback, limit, event_loop] = state.tuple_items() else {
        return Err(Raised::runtime_error("the server's protocol factory has lost its state"));
    };
    let reader = reader::create(limit, event_loop)?;
    let callback = Some(callback).filter(|callback| !callback.is_none());
    protocol::create(&reader, callback, event_loop)
}
