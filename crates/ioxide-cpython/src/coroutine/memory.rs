//! The memory of coroutine objects: one block for the object and its body, from free lists by size.
//!
//! Invariants:
//! M1. A block's room, in bytes behind the object, is its `ob_size` and one of `ROOMS`, or larger than all of them.
//! M2. A block on a free list is dead as freelist, L1 says; all fields but the head are written before it is used again.
//! M3. While `table` is there, the body lies at `body_of` and is of the type that the table was made for. It is never
//!     moved: the object stays where it is.

use super::object::Coroutine;
use crate::gc::Visitor;
use crate::object::{Any, Object, Raised, Result};
use crate::types::{Native, free_memory};
use pyo3_ffi as ffi;
use std::cell::UnsafeCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The sizes of bodies, in bytes, that blocks are kept for, and how many: two megabytes a size at most.
const ROOMS: [usize; 5] = [32, 96, 224, 480, 992];
const KEPT: [usize; 5] = [8192, 8192, 4096, 2048, 512];

/// What is done to a body whose type is known to nobody else.
pub struct BodyTable {
    pub traverse: Option<unsafe fn(*mut u8, &mut Visitor)>,
    pub poll: unsafe fn(*mut u8, &mut Context<'_>) -> Poll<Result<Object>>,
    pub drop: unsafe fn(*mut u8),
}

struct TableOf<F>(PhantomData<F>);

impl<F: Future<Output = Result<Object>>> TableOf<F> {
    const TABLE: BodyTable = BodyTable { traverse: None, poll: poll::<F>, drop: drop_body::<F> };
}

impl<F: Body> TableOf<F> {
    const TRACED: BodyTable =
        BodyTable { traverse: Some(traverse::<F>), poll: poll::<F>, drop: drop_body::<F> };
}

/// A body that shows the collector what it holds. An `async fn` cannot: what it holds is never part of a cycle that is
/// found.
pub trait Body: Future<Output = Result<Object>> + 'static {
    /// Visits exactly the references that the body owns, once each.
    fn traverse(&self, visitor: &mut Visitor);
}

unsafe fn traverse<F: Body>(body: *mut u8, visitor: &mut Visitor) {
    // SAFETY: M3: a live F that is not being polled.
    unsafe { (*body.cast::<F>()).traverse(visitor) }
}

unsafe fn poll<F: Future<Output = Result<Object>>>(
    body: *mut u8,
    context: &mut Context<'_>,
) -> Poll<Result<Object>> {
    // SAFETY: M3: a live F that is never moved.
    unsafe { Pin::new_unchecked(&mut *body.cast::<F>()).poll(context) }
}

unsafe fn drop_body<F>(body: *mut u8) {
    // SAFETY: M3: a live F, which nobody uses afterwards.
    unsafe { body.cast::<F>().drop_in_place() }
}

struct FreeBlocks(UnsafeCell<[Vec<*mut Coroutine>; ROOMS.len()]>);

// SAFETY: touched under the GIL only (O1).
unsafe impl Sync for FreeBlocks {}

static FREE_BLOCKS: FreeBlocks = FreeBlocks(UnsafeCell::new([const { Vec::new() }; ROOMS.len()]));

/// Where the body of a coroutine object lies.
#[inline(always)]
pub fn body_of(this: *mut Coroutine) -> *mut u8 {
    const { assert!(size_of::<Coroutine>() % 16 == 0) };
    // SAFETY: every block has room behind the object (M1).
    unsafe { this.cast::<u8>().add(size_of::<Coroutine>()) }
}

const fn size_class(room: usize) -> Option<usize> {
    let mut index = 0;
    while index < ROOMS.len() {
        if room <= ROOMS[index] {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// A coroutine object around `body`; `make` gives the fields, whose head and room are ignored.
#[inline]
pub fn create<F: Future<Output = Result<Object>> + 'static>(
    body: F,
    make: impl FnOnce(&'static BodyTable) -> Coroutine,
) -> Result<Object> {
    create_with(body, &TableOf::<F>::TABLE, make)
}

/// As `create`, for a body that the collector sees into.
#[inline]
pub fn create_traced<F: Body>(body: F, make: impl FnOnce(&'static BodyTable) -> Coroutine) -> Result<Object> {
    create_with(body, &TableOf::<F>::TRACED, make)
}

#[inline(always)]
fn create_with<F>(
    body: F,
    table: &'static BodyTable,
    make: impl FnOnce(&'static BodyTable) -> Coroutine,
) -> Result<Object> {
    const { assert!(align_of::<F>() <= 16) };
    let this = block(size_of::<F>())?;
    // SAFETY: M2: a block with a valid head and room for the body; its fields are written here, without being read.
    unsafe {
        let fields = std::mem::ManuallyDrop::new(make(table));
        let head_size = size_of::<ffi::PyVarObject>();
        std::ptr::copy_nonoverlapping(
            (&raw const fields).cast::<u8>().add(head_size),
            this.cast::<u8>().add(head_size),
            size_of::<Coroutine>() - head_size,
        );
        body_of(this).cast::<F>().write(body);
        ffi::PyObject_GC_Track(this.cast());
        Object::from_owned(this.cast())
    }
}

/// An untracked block with a head, from a free list where there is one.
#[inline]
fn block(room: usize) -> Result<*mut Coroutine> {
    let class = Coroutine::class().get().as_type_ptr();
    let size = size_class(room);
    // SAFETY: O1; nothing below touches the lists while they are borrowed here; M2.
    unsafe {
        if let Some(this) = size.and_then(|size| (*FREE_BLOCKS.0.get())[size].pop()) {
            ffi::Py_INCREF(class.cast());
            crate::freelist::_Py_NewReference(this.cast());
            return Ok(this);
        }
        let room = size.map_or(room, |size| ROOMS[size]);
        let Some(alloc) = (*class).tp_alloc else {
            return Err(Raised::type_error("class cannot be instantiated"));
        };
        let this = Object::from_owned(alloc(class, room as _))?.into_ptr();
        // Fields are written before the collector may look again.
        ffi::PyObject_GC_UnTrack(this.cast());
        Ok(this.cast())
    }
}

/// The tp_dealloc of coroutines.
pub unsafe extern "C" fn deallocate(this: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone; CPython's order for tp_dealloc.
    unsafe {
        let coroutine = &*this.cast::<Coroutine>();
        if coroutine.wants_finalizer() && ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(this.cast());
        crate::methods::guard((), || {
            coroutine.release();
            Ok(())
        });
        let room = (*this.cast::<ffi::PyVarObject>()).ob_size as usize;
        let size = size_class(room).filter(|size| ROOMS[*size] == room);
        if let Some(size) = size
            && ffi::PyObject_GC_IsFinalized(this) == 0
        {
            let blocks = &mut (*FREE_BLOCKS.0.get())[size];
            if blocks.len() < KEPT[size] {
                blocks.push(this.cast());
                return ffi::Py_DECREF(Coroutine::class().get().as_type_ptr().cast());
            }
        }
        free_memory(this);
    }
}

/// Drops a body in place; an exception on its way survives that, though dropping may run Python.
pub fn drop_body_of(coroutine: &Any, table: &'static BodyTable) {
    let pending = crate::exception::take();
    // SAFETY: M3; the caller took the table out of the object.
    unsafe { (table.drop)(body_of(coroutine.as_ptr().cast())) };
    if let Some(pending) = pending {
        crate::exception::restore(pending);
    }
}
