//! A small pool of threads for loops of a few microseconds.
//!
//! A decode step is one to three hundred launches, so waking and joining must cost less than the loops themselves.
//! Workers spin for a while after each job before they sleep; the caller takes part; and nobody waits for a worker that
//! has not begun: each thread owns a contiguous share of the units, takes it in halves from the front, and when it has
//! none left takes halves from the back of the others' shares. A worker that the system has put aside delays nothing.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a worker spins before it sleeps: longer than the pause between two steps of a decode.
const SPIN: Duration = Duration::from_micros(150);
/// Units of one job; a loop with more is several jobs.
const MOST: u64 = u32::MAX as u64;

/// A panic of a worker or of the caller's own share, as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PoolPanic(pub String);

type Job<'a> = dyn Fn(Range<u64>, usize) + Sync + 'a;

/// Threads that run loops together.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    names: Vec<Thread>,
}

/// A share of the units on its own cache line: begin in the upper half, end in the lower.
#[derive(Debug)]
#[repr(align(64))]
struct Share(AtomicU64);

#[derive(Debug)]
struct Shared {
    /// The number of the job above bit 16, whether it is open at bit 15, and the workers inside below.
    state: AtomicU64,
    shares: Box<[Share]>,
    /// The job, valid while it is open or a worker is inside.
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Fewest units to take at once.
    grain: AtomicU64,
    asleep: Box<[AtomicBool]>,
    stop: AtomicBool,
    panic: Mutex<Option<String>>,
}

const OPEN: u64 = 1 << 15;
const JOB: u64 = 1 << 16;

// SAFETY: `job` is written by the caller only while the job is closed and no worker is inside, and read by workers only
// after they entered an open job; `state` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed under the same rule.
unsafe impl Send for Shared {}

impl ThreadPool {
    /// A pool of `threads` threads, the caller's included; at least one. A worker that cannot be started is left out.
    pub fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, 1024);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            shares: (0..threads).map(|_| Share(AtomicU64::new(0))).collect(),
            job: UnsafeCell::new(None),
            grain: AtomicU64::new(1),
            asleep: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let start = |thread: usize| {
            let shared = shared.clone();
            let name = format!("sinter-{thread}");
            std::thread::Builder::new().name(name).spawn(move || shared.work(thread)).ok()
        };
        let workers: Vec<_> = (1..threads).map_while(start).collect();
        let names = workers.iter().map(|worker| worker.thread().clone()).collect();
        Self { shared, workers, names }
    }

    /// The number of threads, the caller's included; thread numbers are below it.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` with ranges that cover `0..units` once, and the number of the thread that runs it. Two calls with
    /// the same thread number never overlap in time.
    pub fn parallel(&mut self, units: u64, body: impl Fn(Range<u64>, usize) + Sync) -> Result<(), PoolPanic> {
        let mut done = 0;
        while done < units {
            let now = (units - done).min(MOST);
            if self.workers.is_empty() || now == 1 {
                Self::alone(|| body(done..done + now, 0))?;
            } else {
                self.job(now, &|range, thread| body(done + range.start..done + range.end, thread))?;
            }
            done += now;
        }
        Ok(())
    }

    /// Calls `body` on this thread, for work that is done before another would have woken.
    pub fn alone(body: impl FnOnce()) -> Result<(), PoolPanic> {
        catch_unwind(AssertUnwindSafe(body)).map_err(|panic| PoolPanic(panic_text(&*panic)))
    }

    fn job(&mut self, units: u64, body: &Job<'_>) -> Result<(), PoolPanic> {
        let shared = &*self.shared;
        let threads = self.threads() as u64;
        for (share, at) in shared.shares[..threads as usize].iter().zip(0..) {
            let (begin, end) = (units * at / threads, units * (at + 1) / threads);
            share.0.store(begin << 32 | end, Ordering::Relaxed);
        }
        shared.grain.store(units.div_ceil(16 * threads), Ordering::Relaxed);
        // SAFETY: the job is closed and nobody is inside, so no one reads this; the lifetime is erased, but this
        // function does not return before every worker has left and the job is closed again.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(body)) };
        let job = (shared.state.load(Ordering::Relaxed) / JOB + 1) * JOB;
        shared.state.store(job | OPEN, Ordering::SeqCst);
        for (asleep, thread) in shared.asleep[1..].iter().zip(&self.names) {
            if asleep.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        shared.run(0, body);
        shared.close();
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        panic.map_or(Ok(()), |panic| Err(PoolPanic(panic)))
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its panics, so there is no error to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Forbids entry and waits for the workers inside.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut turns = 0u32;
        while !self.state.load(Ordering::Acquire).is_multiple_of(OPEN) {
            turns += 1;
            if turns.is_multiple_of(4096) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    /// The life of a worker.
    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(job) = self.enter(thread, seen) {
            seen = job;
            // SAFETY: this worker is inside an open job, so the caller is still in `job()` and the closure lives.
            if let Some(body) = unsafe { *self.job.get() } {
                // SAFETY: as above.
                self.run(thread, unsafe { &*body });
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a job after `seen` and enters it; none when the pool stops.
    fn enter(&self, thread: usize, seen: u64) -> Option<u64> {
        let mut since = Instant::now();
        let mut turns = 0u32;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let state = self.state.load(Ordering::Relaxed);
            if state & OPEN != 0 && state / JOB != seen {
                let entered =
                    self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed);
                if entered.is_ok() {
                    return Some(state / JOB);
                }
                continue;
            }
            std::hint::spin_loop();
            turns += 1;
            if turns.is_multiple_of(64) && since.elapsed() > SPIN {
                self.sleep(thread, seen);
                since = Instant::now();
            }
        }
    }

    /// Sleeps until a job is opened or the pool stops. The flag is set before the last look, and the caller opens the
    /// job before it looks at the flag, so one of the two sees the other.
    fn sleep(&self, thread: usize, seen: u64) {
        self.asleep[thread].store(true, Ordering::SeqCst);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if (state & OPEN != 0 && state / JOB != seen) || self.stop.load(Ordering::SeqCst) {
                break;
            }
            std::thread::park();
        }
        self.asleep[thread].store(false, Ordering::SeqCst);
    }

    /// Takes and runs units until none is left; a panic takes all that are left and is kept as text.
    fn run(&self, thread: usize, body: &Job<'_>) {
        let grain = self.grain.load(Ordering::Relaxed);
        let all = || {
            while let Some(range) = self.take(thread, grain) {
                body(range, thread);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(all)) {
            self.shares.iter().for_each(|share| share.0.store(0, Ordering::Relaxed));
            self.panic
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| panic_text(&*panic));
        }
    }

    /// Half of the own share from the front, else half of another's from the back.
    fn take(&self, thread: usize, grain: u64) -> Option<Range<u64>> {
        let split = |begin: u64, end: u64| (end - begin).div_ceil(2).max(grain).min(end - begin);
        let own = self.shares[thread].take(|begin, end| {
            let count = split(begin, end);
            (begin..begin + count, begin + count..end)
        });
        let steal = |other: usize| {
            self.shares[other].take(|begin, end| {
                let count = split(begin, end);
                (end - count..end, begin..end - count)
            })
        };
        let count = self.shares.len();
        own.or_else(|| (1..count).find_map(|next| steal((thread + next) % count)))
    }
}

impl Share {
    /// Splits the share by a rule into what is taken and what is left; none if it is empty.
    fn take(&self, rule: impl Fn(u64, u64) -> (Range<u64>, Range<u64>)) -> Option<Range<u64>> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (begin, end) = (word >> 32, word & MOST);
            if begin >= end {
                return None;
            }
            let (taken, left) = rule(begin, end);
            let next = left.start << 32 | left.end;
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(taken),
                Err(now) => word = now,
            }
        }
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let known = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    known.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
