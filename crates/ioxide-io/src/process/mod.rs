//! Child processes: how one begins without holding up who wants it, and how its end is seen.
//!
//! | file | room |
//! |---|---|
//! | order | what the child has to do before its program, as C strings and numbers |
//! | start | the child's birth, and hearing that its program has begun or could not |
//! | child | what runs in the child before its program |
//! | kernel | the system calls of both |
//! | end | the end, seen through a pidfd |
//!
//! Leaves to others: which program, where it is looked for, and what a failure is called.

mod child;
mod end;
mod kernel;
mod order;
mod start;

pub use end::{open_process, reap, reap_at_end};
pub use order::{Order, environment};
pub use start::{Failure, Started, Starting, can_start};
