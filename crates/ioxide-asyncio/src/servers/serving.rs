//! A server's life: listening, serving for ever, closing, and waiting for the end.

use super::Server;
use ioxide_cpython::coroutine::{coroutine, wait_for, yield_once};
use ioxide_cpython::version::{CONNECTIONS_HAVE_CONTEXT, WaitClosed, rules};
use ioxide_cpython::{Any, Object, Raised, Result, imports, names};

impl Server {
    /// `server._start_serving()`: listens, and lets the loop accept.
    pub(super) fn begin_serving(&self) -> Result<()> {
        let core = self.core();
        if core.serving.replace(true) {
            return Ok(());
        }
        let (sockets, backlog) = (core.sockets.get_or_none(), core.backlog.get_or_none());
        for socket in sockets.iterate()? {
            let socket = socket?;
            socket.call_method1(&names().listen, &backlog)?;
            self.let_loop_accept(&socket, &backlog)?;
        }
        Ok(())
    }

    fn let_loop_accept(&self, socket: &Any, backlog: &Any) -> Result<()> {
        let core = self.core();
        let event_loop = core.event_loop.get_or_none();
        let (factory, ssl_context) = (core.protocol_factory.get_or_none(), core.ssl_context.get_or_none());
        let handshake_timeout = core.ssl_handshake_timeout.get_or_none();
        let shutdown_timeout = core.ssl_shutdown_timeout.get_or_none();
        let context = core.context.get_or_none();
        let arguments: [&Any; 8] =
            [&factory, socket, &ssl_context, self, backlog, &handshake_timeout, &shutdown_timeout, &context];
        if CONNECTIONS_HAVE_CONTEXT {
            event_loop.call_method_keywords(&names()._start_serving, &arguments, &imports().names_context)?;
        } else {
            event_loop.call_method(&names()._start_serving, &arguments[..7])?;
        }
        Ok(())
    }

    /// `await server.start_serving()`
    pub(super) fn start_serving(&self) -> Result<Object> {
        let server = self.to_object();
        coroutine("Server.start_serving", async move {
            server.call_method0(&names()._start_serving)?;
            // So that the loop has begun to accept.
            yield_once().await?;
            Ok(ioxide_cpython::none_object())
        })
    }

    /// `await server.serve_forever()`: until it is cancelled, which closes the server.
    pub(super) fn serve_forever(&self) -> Result<Object> {
        let held = Held(self.to_object());
        coroutine("Server.serve_forever", async move {
            let server = held.server()?;
            if !server.core().serving_forever.is_empty() {
                return Err(server.refusal("is already being awaited on serve_forever()"));
            }
            if server.is_closed() {
                return Err(server.refusal("is closed"));
            }
            server.call_method0(&names()._start_serving)?;
            let future = server.core().event_loop.get_or_none().call_method0(&names().create_future)?;
            server.core().serving_forever.set(future.clone());
            let _forever = Forever(server);
            match wait_for(&future).await {
                Err(raised) if raised.matches(&imports().CancelledError) => {
                    let exception = raised.take();
                    server.end_serving_forever().await?;
                    Err(Raised::exception(exception))
                }
                outcome => outcome.map(|_| ioxide_cpython::none_object()),
            }
        })
    }

    fn refusal(&self, reason: &str) -> Raised {
        match self.repr().and_then(|shown| shown.to_text()) {
            Ok(shown) => Raised::runtime_error(&format!("server {} {reason}", shown.as_str())),
            Err(raised) => raised,
        }
    }

    async fn end_serving_forever(&self) -> Result<()> {
        self.call_method0(&names().close)?;
        if rules().serve_forever_closes_clients {
            self.call_method0(&names().close_clients)?;
        }
        wait_for(&*self.call_method0(&names().wait_closed)?).await.map(drop)
    }

    /// `server.close()`: stops accepting; connections that exist stay.
    pub(super) fn close(&self) -> Result<()> {
        let core = self.core();
        let Some(sockets) = core.sockets.take() else { return Ok(()) };
        let event_loop = core.event_loop.get_or_none();
        for socket in sockets.iterate()? {
            event_loop.call_method1(&names()._stop_serving, &*socket?)?;
        }
        core.serving.set(false);
        let forever = core.serving_forever.get_object();
        if let Some(future) = forever
            && !future.call_method0(&names().done)?.is_true()?
        {
            future.call_method0(&names().cancel)?;
            core.serving_forever.clear();
        }
        if !self.has_clients()? {
            self.wake_up()?;
        }
        Ok(())
    }

    /// `await server.wait_closed()`: until the server is closed and its connections are over.
    pub(super) fn wait_closed(&self) -> Result<Object> {
        let held = Held(self.to_object());
        coroutine("Server.wait_closed", async move {
            let server = held.server()?;
            let core = server.core();
            let is_over = core.waiters.borrow().is_none()
                || match rules().wait_closed {
                    WaitClosed::Closed => server.is_closed(),
                    WaitClosed::NoConnections => !server.has_clients()?,
                    WaitClosed::ClosedWithoutConnections => false,
                };
            if is_over {
                return Ok(ioxide_cpython::none_object());
            }
            let waiter = core.event_loop.get_or_none().call_method0(&names().create_future)?;
            if let Some(waiters) = core.waiters.borrow_mut().as_mut() {
                waiters.push(waiter.clone());
            }
            wait_for(&waiter).await.map(|_| ioxide_cpython::none_object())
        })
    }

    /// `server.close_clients()`: closes every connection, after sending what it has buffered.
    pub(super) fn close_clients(&self) -> Result<()> {
        for transport in self.live_clients()? {
            transport.call_method0(&names().close)?;
        }
        Ok(())
    }

    /// `server.abort_clients()`: closes every connection at once.
    pub(super) fn abort_clients(&self) -> Result<()> {
        for transport in self.live_clients()? {
            transport.call_method0(&names().abort)?;
        }
        Ok(())
    }
}

/// A server that the body of a coroutine holds.
struct Held(Object);

impl Held {
    fn server(&self) -> Result<&Server> {
        Server::from_any(&self.0).ok_or_else(|| Raised::runtime_error("the server is gone"))
    }
}

/// While serve_forever waits; its end, however it comes, lets another call begin.
struct Forever<'a>(&'a Server);

impl Drop for Forever<'_> {
    fn drop(&mut self) {
        self.0.core().serving_forever.clear();
    }
}
