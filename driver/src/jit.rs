//! GPU kernels when they are needed: those of the first steps before a model runs, others on a thread of their own while
//! it runs.
//!
//! Kernels are kept in the compile cache one by one, by a hash of all that their code depends on, so that commands, models
//! and sizes of steps share what they have in common, and a process that is killed loses the kernel that it worked on.
//! Whoever compiles comes as a function, so that this works, and is tested, without LLVM.

use crate::atomic_file::sha256;
use crate::cache::{self, Cache};
use crate::output::Output;
use anyhow::{Result, bail};
use sinter_ir::{GpuKernel, GpuProgram, Plan, Target};
use sinter_runtime::{KernelSource, Limits, RuntimeError};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Gives the kernel of a description: one that was kept, or what the function makes.
pub type Keeper<'k> = dyn FnMut(&str, &dyn Fn() -> Result<GpuKernel>) -> Result<GpuKernel> + 'k;

/// Compiles a plan for steps of some sizes.
pub type Compile = fn(&Plan, Target, &[Option<u64>], &mut Keeper<'_>) -> Result<GpuProgram>;

/// Who compiles, and for which sizes of steps.
#[derive(Debug, Clone, Copy)]
pub struct Compiler {
    /// Compiles for some of the sizes.
    pub compile: Compile,
    /// All sizes, smallest first; the last has no limit.
    pub sizes: &'static [Option<u64>],
}

/// The kernels of a plan for a target.
#[derive(Debug)]
pub struct Jit {
    plan: Arc<Plan>,
    target: Target,
    compiler: Compiler,
    cache: Cache,
    /// Kernels by their key in the cache: sizes of steps share some.
    made: Mutex<BTreeMap<String, GpuKernel>>,
    output: Output,
}

impl Jit {
    /// The kernels of a plan, kept below a cache directory if there is one. Nothing is compiled yet.
    pub fn new(
        plan: Arc<Plan>,
        target: Target,
        compiler: Compiler,
        (cache, output): (Option<&Path>, &Output),
    ) -> Self {
        let cache = Cache::new(cache, "kernels");
        Self { plan, target, compiler, cache, made: Mutex::default(), output: *output }
    }

    /// The program for steps of every size.
    pub fn all(&self) -> Result<GpuProgram> {
        self.program(self.compiler.sizes, &AtomicBool::new(false))
    }

    /// The program for steps of one token and for the largest steps, which can do every step within these limits.
    pub fn first(&self, limits: &Limits) -> Result<GpuProgram> {
        let holding = |tokens: usize| {
            let holds = |size: &&Option<u64>| size.is_none_or(|most| tokens as u64 <= most);
            self.compiler.sizes.iter().copied().find(|size| holds(&size))
        };
        let mut sizes: Vec<_> = [1, limits.max_tokens].into_iter().filter_map(holding).collect();
        sizes.dedup();
        self.program(&sizes, &AtomicBool::new(false))
    }

    /// The program for steps of these sizes; `stop` ends the work before the next kernel.
    fn program(&self, sizes: &[Option<u64>], stop: &AtomicBool) -> Result<GpuProgram> {
        let mut keeper = |description: &str, make: &dyn Fn() -> Result<GpuKernel>| {
            if stop.load(Relaxed) {
                bail!("nobody waits for it any more");
            }
            self.kernel(description, make)
        };
        (self.compiler.compile)(&self.plan, self.target, sizes, &mut keeper)
    }

    fn kernel(&self, description: &str, make: &dyn Fn() -> Result<GpuKernel>) -> Result<GpuKernel> {
        let key = cache::key(&sha256(description.as_bytes()), self.target.name());
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = made().get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = self.cache.get_or((&key, &self.output), |_| Ok(()), make)?;
        made().insert(key, kernel.clone());
        Ok(kernel)
    }
}

/// Makes the launches that a running model asks for, one size after the other, on a thread that starts with the first.
pub struct Background {
    jit: Arc<Jit>,
    stop: Arc<AtomicBool>,
    ready: Option<Receiver<GpuProgram>>,
    work: Option<(Sender<Option<u64>>, JoinHandle<()>)>,
}

impl Background {
    /// Makes what `jit` can compile.
    pub fn new(jit: Arc<Jit>) -> Self {
        Self { jit, stop: Arc::default(), ready: None, work: None }
    }

    fn start(&mut self) -> std::io::Result<Sender<Option<u64>>> {
        let (wants, wanted) = channel();
        let (done, ready) = channel();
        let (jit, stop) = (self.jit.clone(), self.stop.clone());
        let thread = std::thread::Builder::new().name("sinter-jit".into());
        let thread = thread.spawn(move || {
            for size in wanted {
                let made = catch_unwind(AssertUnwindSafe(|| jit.program(&[size], &stop)));
                let made = made.unwrap_or_else(|_| bail!("the compiler gave up; this is a bug in sinter"));
                match made {
                    // The model may be gone.
                    Ok(program) => drop(done.send(program)),
                    Err(_) if stop.load(Relaxed) => return,
                    Err(reason) => jit.output.note(lost(size, &format!("{reason:#}"))),
                }
            }
        })?;
        self.ready = Some(ready);
        self.work = Some((wants.clone(), thread));
        Ok(wants)
    }
}

/// What the user is told of launches that there will not be.
fn lost(size: Option<u64>, reason: &str) -> String {
    let steps = size.map_or("large steps".into(), |most| format!("steps of up to {most} tokens"));
    format!("{steps} are done by the kernels of larger ones, with the same results: {reason}")
}

impl KernelSource for Background {
    fn sizes(&self) -> &[Option<u64>] {
        self.jit.compiler.sizes
    }

    fn want(&mut self, size: Option<u64>) {
        let wants = match &self.work {
            Some((wants, _)) => Ok(wants.clone()),
            None => self.start(),
        };
        // A thread that is gone takes nothing, and has told why.
        match wants {
            Ok(wants) => drop(wants.send(size)),
            Err(error) => self.jit.output.note(lost(size, &error.to_string())),
        }
    }

    fn ready(&mut self) -> Option<GpuProgram> {
        self.ready.as_ref()?.try_recv().ok()
    }

    fn refused(&mut self, reason: &RuntimeError) {
        self.jit
            .output
            .note(format!("kernels that were compiled are not used, others do their work: {reason}"));
    }
}

impl Drop for Background {
    /// Waits for the kernel that is being compiled: a process must not end while LLVM works.
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some((wants, thread)) = self.work.take() {
            drop(wants);
            // Panics are caught where they happen.
            let _ = thread.join();
        }
    }
}
