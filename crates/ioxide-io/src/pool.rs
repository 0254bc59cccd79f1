//! A bounded pool of threads for calls that block: the one place where ioxide starts threads.
//!
//! Jobs are whole operations and know no Python; who asked for one is told by the job itself. Threads start when there is
//! work for them, and end after [`IDLE_SECONDS`] without.
//!
//! Invariants:
//! P1. A job runs outside the lock, once, and a panic in it ends neither the thread nor the pool.
//! P2. `unfinished` counts what was submitted and has not ended; `wait_until_finished` returns when it was zero.
//! P3. A thread is woken or started only where none is on its way to the queue; who takes a job and leaves others calls the
//!     next, an idle one or a new one. So a flood of short jobs costs few wake-ups, and jobs that block still get all threads.
//! P4. A thread that is woken takes a free processor, and none from the thread that woke it: a flood of jobs would switch
//!     threads for each job otherwise, and the loop would wait for copies of its own files.
//! P5. After a fork the threads of the parent are gone: [`Pool::for_files`] and [`Pool::for_look_ups`] give the child a pool of its own.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread waits for another job.
const IDLE_SECONDS: u64 = 10;
/// Threads at most: what asyncio's default executor has, `min(32, processors + 4)`.
const MOST_THREADS: usize = 32;
/// Look-ups at a time: as many as asyncio's default executor gives a small machine.
const LOOK_UP_THREADS: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// A thread was woken or started and has not come to the queue yet: one at most (P3).
    on_its_way: bool,
    unfinished: usize,
}

struct Shared {
    /// What its threads are called.
    name: &'static str,
    most_threads: usize,
    state: Mutex<State>,
    submitted: Condvar,
    finished: Condvar,
}

/// A pool; clones are the same one.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// A pool that each process has for itself (P5).
struct OfProcess {
    name: &'static str,
    pool: Mutex<Option<(u32, Pool)>>,
}

static FILES: OfProcess = OfProcess { name: "ioxide-files", pool: Mutex::new(None) };
static LOOK_UPS: OfProcess = OfProcess { name: "ioxide-lookup", pool: Mutex::new(None) };

impl OfProcess {
    fn pool(&self, most_threads: impl FnOnce() -> usize) -> Pool {
        let mut known = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        match &*known {
            Some((owner, pool)) if *owner == process => pool.clone(),
            _ => {
                let pool = Pool::new(self.name, most_threads());
                // The parent's pool is not dropped here: its lock may be held by a thread that exists no more.
                std::mem::forget(known.replace((process, pool.clone())));
                pool
            }
        }
    }
}

impl Pool {
    /// A pool of at most `most_threads` threads. None is started yet.
    pub fn new(name: &'static str, most_threads: usize) -> Pool {
        let (submitted, finished) = (Condvar::new(), Condvar::new());
        let state = Mutex::default();
        Pool {
            shared: Arc::new(Shared { name, most_threads: most_threads.max(1), state, submitted, finished }),
        }
    }

    /// This process's pool for files.
    pub fn for_files() -> Pool {
        FILES.pool(|| {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            (processors + 4).min(MOST_THREADS)
        })
    }

    /// This process's pool for look-ups of names: slow name servers hold up no file.
    pub fn for_look_ups() -> Pool {
        LOOK_UPS.pool(|| LOOK_UP_THREADS)
    }

    /// Runs the job on a thread of the pool as soon as one is free.
    /// Fails: where no thread can be started and none runs.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.jobs.push_back(Box::new(job));
        state.unfinished += 1;
        self.shared.call_another(state)
    }

    /// Blocks until every job has ended (P2): what was written must not be lost with the process.
    pub fn wait_until_finished(&self) {
        let mut state = self.shared.lock();
        while state.unfinished > 0 {
            state = self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// Nothing that can panic happens under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(self: &Arc<Self>) {
        give_way();
        let mut state = self.lock();
        state.on_its_way = false;
        while let Some(job) = self.next_job(state) {
            // P1: the job's own channel is dropped with it, which tells the one who waits.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = self.lock();
            state.unfinished -= 1;
            if state.unfinished == 0 {
                self.finished.notify_all();
            }
        }
    }

    /// Has a thread come for what is in the queue, unless one comes already (P3) or all are at work.
    /// Fails: where a new thread is needed and cannot be started.
    fn call_another(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        if state.on_its_way || state.jobs.is_empty() {
            return Ok(());
        }
        if state.idle > 0 {
            state.on_its_way = true;
            drop(state);
            self.submitted.notify_one();
        } else if state.threads < self.most_threads {
            state.on_its_way = true;
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(self);
            let started = thread::Builder::new().name(self.name.to_owned()).spawn(move || shared.work());
            return started.map(drop).or_else(|error| self.without_thread(error));
        }
        Ok(())
    }

    /// A thread could not be started: the others will come to the jobs. Where there is none, the jobs end here: each tells
    /// the one who waits for it by being dropped.
    fn without_thread(&self, error: io::Error) -> io::Result<()> {
        let mut state = self.lock();
        state.on_its_way = false;
        state.threads -= 1;
        if state.threads > 0 {
            return Ok(());
        }
        let ended = std::mem::take(&mut state.jobs);
        state.unfinished -= ended.len();
        if state.unfinished == 0 {
            self.finished.notify_all();
        }
        drop(state);
        drop(ended);
        Err(error)
    }

    /// `None` ends the thread.
    fn next_job<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> Option<Job> {
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // Where no other thread can be started, this one comes to the rest.
                let _ = self.call_another(state);
                return Some(job);
            }
            state.idle += 1;
            let patience = Duration::from_secs(IDLE_SECONDS);
            let (guard, waited) =
                self.submitted.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            state.on_its_way = false;
            if waited.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

/// Makes this thread one that preempts nobody when it is woken (P4); its share of the processor stays the same. What
/// somebody has chosen for the whole program is left alone.
fn give_way() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: zero is the calling thread; the structure is read during the call only. A refusal changes nothing.
    unsafe {
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            let _ = libc::sched_setscheduler(0, libc::SCHED_BATCH, &priority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn all_jobs_run_once_on_at_most_so_many_threads() {
        let pool = Pool::new("test", 3);
        let (sender, receiver) = mpsc::channel();
        for number in 0..1000 {
            let sender = sender.clone();
            pool.submit(move || sender.send((number, thread::current().id())).unwrap()).unwrap();
        }
        pool.wait_until_finished();
        drop(sender);
        let (mut numbers, threads): (Vec<_>, Vec<_>) = receiver.into_iter().unzip();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
        assert!(threads.into_iter().collect::<std::collections::HashSet<_>>().len() <= 3);
    }

    #[test]
    fn a_panic_ends_neither_thread_nor_pool() {
        let pool = Pool::new("test", 1);
        pool.submit(|| panic!("expected by the test")).unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&ran);
        pool.submit(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        pool.wait_until_finished();
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    }

    /// Submits two jobs that each wait for the other, and tells whether they met.
    fn meet(pool: &Pool) -> bool {
        let (to_second, from_first) = mpsc::channel();
        let (to_first, from_second) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        pool.submit(move || {
            to_second.send(()).unwrap();
            tell.send(from_second.recv_timeout(PATIENCE).is_ok()).unwrap();
        })
        .unwrap();
        pool.submit(move || {
            let _ = from_first.recv_timeout(PATIENCE);
            let _ = to_first.send(());
        })
        .unwrap();
        told.recv().unwrap()
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn jobs_that_wait_for_each_other_run_at_the_same_time() {
        assert!(meet(&Pool::new("test", 2)));
    }

    #[test]
    fn a_job_that_comes_while_the_only_idle_thread_wakes_up_for_another_gets_a_thread() {
        let pool = Pool::new("test", 2);
        pool.submit(|| ()).unwrap();
        while pool.shared.lock().idle == 0 {
            thread::yield_now();
        }
        assert!(meet(&pool));
    }
}
