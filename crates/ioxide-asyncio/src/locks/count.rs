//! `Count`: the number that a semaphore counts with, and that a barrier waits for. An int as a rule; asyncio takes anything that behaves like a number
//! (`math.inf`, say), and so does this.
//!
//! Invariants:
//! N1. `other` is empty where the number is an int that fits; `integer` is it then.

use ioxide_cpython::gc::Visitor;
use ioxide_cpython::value::integer;
use ioxide_cpython::{Any, Object, Result, Slot};
use std::cell::Cell;

pub struct Count {
    integer: Cell<i64>,
    other: Slot,
}

impl Count {
    pub const fn new(value: i64) -> Count {
        Count { integer: Cell::new(value), other: Slot::empty() }
    }

    /// The number, where it is an int that fits.
    #[inline(always)]
    pub fn as_integer(&self) -> Option<i64> {
        self.other.is_empty().then(|| self.integer.get())
    }

    pub fn set_integer(&self, value: i64) {
        self.integer.set(value);
        self.other.clear();
    }

    pub fn set(&self, value: &Any) -> Result<()> {
        if value.is_exact_integer() {
            match value.to_i64() {
                Ok(value) => {
                    self.set_integer(value);
                    return Ok(());
                }
                // It does not fit: Python counts.
                Err(raised) => drop(raised.take()),
            }
        }
        self.other.set(value.to_object());
        Ok(())
    }

    pub fn shown(&self) -> Result<Object> {
        match self.other.get_object() {
            Some(value) => Ok(value),
            None => integer(self.integer.get()),
        }
    }

    /// `self == number`
    #[inline]
    pub fn is(&self, number: i64) -> Result<bool> {
        match self.other.get_object() {
            Some(value) => value.equals(&*integer(number)?),
            None => Ok(self.integer.get() == number),
        }
    }

    #[inline]
    pub fn is_positive(&self) -> Result<bool> {
        match self.other.get_object() {
            Some(value) => integer(0)?.is_less_than(&value),
            None => Ok(self.integer.get() > 0),
        }
    }

    /// `self >= bound`
    #[inline]
    pub fn is_at_least(&self, bound: &Count) -> Result<bool> {
        match (self.as_integer(), bound.as_integer()) {
            (Some(own), Some(bound)) => Ok(own >= bound),
            _ => self.shown()?.is_at_least(&*bound.shown()?),
        }
    }

    #[inline]
    pub fn add(&self, difference: i64) -> Result<()> {
        let sum = self.as_integer().and_then(|value| value.checked_add(difference));
        match sum {
            Some(sum) => {
                self.integer.set(sum);
                Ok(())
            }
            None => self.set(&*self.shown()?.add(&*integer(difference)?)?),
        }
    }

    pub fn traverse(&self, visitor: &mut Visitor) {
        visitor.slot(&self.other);
    }

    pub fn clear(&self) {
        self.other.clear();
    }
}
