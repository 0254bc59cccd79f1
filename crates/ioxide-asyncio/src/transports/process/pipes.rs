//! The protocols of a child's pipes, as asyncio.base_subprocess's: they hand to the process transport what happens.

use super::ProcessTransport;
use super::events::number;
use crate::shells::{Core, Shell};
use ioxide_cpython::call::import;
use ioxide_cpython::exception::type_name;
use ioxide_cpython::gc::{Traverse, Visitor};
use ioxide_cpython::methods::{Arguments, getter, method, method0, method1};
use ioxide_cpython::types::{Class, Native, NativeClass, ShellClass, ShellDefinition, allocate, head};
use ioxide_cpython::value::text;
use ioxide_cpython::{Any, Object, Once, Raised, Result, Slot, names};
use std::cell::Cell;

pub(super) type PipeProtocol = Shell<PipeCore>;

/// The native state of a pipe's protocol.
#[repr(C)]
pub struct PipeCore {
    head: Any,
    /// The process transport, until the connection is lost.
    owner: Slot,
    /// 0, 1 or 2.
    fd: Slot,
    /// The pipe's transport, from connection_made on.
    pipe: Slot,
    is_disconnected: Cell<bool>,
}

static CORE: Once<Class> = Once::new();
static WRITE: Once<ShellClass> = Once::new();
static READ: Once<ShellClass> = Once::new();

// SAFETY: repr(C) with the head first; created by `allocate` only.
unsafe impl Native for PipeCore {
    fn class() -> &'static Once<Class> {
        &CORE
    }
}

impl Core for PipeCore {
    /// The class of the writing end, over which that of the reading end is made.
    fn shell() -> &'static Once<ShellClass> {
        &WRITE
    }
}

pub(super) fn initialize() -> Result<()> {
    use PipeProtocol as P;
    CORE.set(NativeClass::core::<PipeCore>(c"ioxide.SubprocessPipeCore")?);
    let module = import(c"asyncio.base_subprocess")?;
    let refuse = method(c"__new__", |_owner: &Any, _arguments: Arguments<'_>| -> Result<Object> {
        Err(Raised::type_error("cannot create instances"))
    });
    WRITE.set(ShellClass::create(ShellDefinition {
        name: c"WriteSubprocessPipeProto",
        bases: vec![module.get_attribute_str(c"WriteSubprocessPipeProto")?],
        doc: "The protocol of a child's standard input.",
        methods: vec![
            method1(c"connection_made", |this: &P, transport: &Any| {
                this.core().pipe.set(transport.to_object());
            }),
            method1(c"connection_lost", P::connection_lost),
            method0(c"pause_writing", |this: &P| this.tell_writer(&names().pause_writing)),
            method0(c"resume_writing", |this: &P| this.tell_writer(&names().resume_writing)),
            method0(c"__repr__", P::show),
        ],
        attributes: vec![
            getter(c"proc", |this: &P| this.core().owner.get_or_none()),
            getter(c"fd", |this: &P| this.core().fd.get_or_none()),
            getter(c"pipe", P::pipe),
            getter(c"disconnected", P::is_disconnected),
        ],
        new: Some(refuse),
    })?);
    READ.set(WRITE.get().derive(ShellDefinition {
        name: c"ReadSubprocessPipeProto",
        bases: vec![module.get_attribute_str(c"ReadSubprocessPipeProto")?],
        doc: "The protocol of a child's standard output or error.",
        methods: vec![method1(c"data_received", P::data_received)],
        attributes: Vec::new(),
        new: None,
    })?);
    Ok(())
}

impl PipeProtocol {
    /// The protocol of one of the child's pipes; the first is the child's input.
    pub(super) fn create(owner: &ProcessTransport, index: usize) -> Result<Object> {
        let core = allocate(PipeCore {
            head: head(),
            owner: Slot::filled(owner.to_object()),
            fd: Slot::filled(number(index)?),
            pipe: Slot::empty(),
            is_disconnected: Cell::new(false),
        })?;
        let shell = if index == 0 { WRITE.get() } else { READ.get() };
        shell.instantiate(shell.class().as_any(), core)
    }

    /// The pipe's transport, or None.
    pub(super) fn pipe(&self) -> Object {
        self.core().pipe.get_or_none()
    }

    pub(super) fn is_disconnected(&self) -> bool {
        self.core().is_disconnected.get()
    }

    fn data_received(&self, data: &Any) -> Result<()> {
        let (owner, fd) = (self.core().owner.get_or_none(), self.core().fd.get_or_none());
        match ProcessTransport::from_any(&owner) {
            Some(owner) => owner.pipe_data_received(&fd, data),
            None => Ok(()),
        }
    }

    fn connection_lost(&self, exception: &Any) -> Result<()> {
        let core = self.core();
        core.is_disconnected.set(true);
        let (owner, fd) = (core.owner.get_or_none(), core.fd.get_or_none());
        if let Some(owner) = ProcessTransport::from_any(&owner) {
            owner.pipe_connection_lost(&fd, exception)?;
        }
        core.owner.clear();
        Ok(())
    }

    /// The child does not read fast enough, or does again: its protocol's business.
    fn tell_writer(&self, method: &Any) -> Result<()> {
        let owner = self.core().owner.get_or_none();
        match ProcessTransport::from_any(&owner) {
            Some(owner) => owner.core().protocol.get_or_none().call_method0(method).map(drop),
            None => Ok(()),
        }
    }

    fn show(&self) -> Result<Object> {
        let core = self.core();
        let (fd, pipe) = (core.fd.get_or_none().str()?.to_text()?, self.pipe().repr()?.to_text()?);
        text(&format!("<{} fd={} pipe={}>", type_name(self), fd.as_str(), pipe.as_str()))
    }
}

/// The transport of a connected pipe, whoever made its protocol.
pub(super) fn pipe_of(protocol: &Any) -> Result<Object> {
    match PipeProtocol::from_any(protocol) {
        Some(native) => Ok(native.pipe()),
        None => protocol.get_attribute(&names().pipe),
    }
}

/// Whether a pipe's connection is lost, whoever made its protocol.
pub(super) fn is_disconnected(protocol: &Any) -> Result<bool> {
    match PipeProtocol::from_any(protocol) {
        Some(native) => Ok(native.is_disconnected()),
        None => protocol.get_attribute(&names().disconnected)?.is_true(),
    }
}

impl Traverse for PipeCore {
    fn traverse(&self, visitor: &mut Visitor) {
        for slot in [&self.owner, &self.fd, &self.pipe] {
            visitor.slot(slot);
        }
    }

    fn clear(&self) {
        self.owner.clear();
        self.pipe.clear();
    }
}
