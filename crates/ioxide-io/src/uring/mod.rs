//! io_uring: file operations that the kernel does while the program goes on, without a thread of ours.
//!
//! | file | room |
//! |---|---|
//! | kernel | the system calls and structures, and what is supported here |
//! | ring | the two queues in shared memory |
//! | queue | what is in flight, and whose buffers the kernel may write to |

mod kernel;
mod queue;
mod ring;
#[cfg(test)]
mod tests;

pub use kernel::{Opcode, supports};
pub use queue::{Entry, Job, Queue};
