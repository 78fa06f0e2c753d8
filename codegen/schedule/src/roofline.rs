//! The shortest time of some work on a GPU, by its maker's figures: memory or arithmetic, whichever takes longer.
//!
//! It is a bound, not a forecast: launches, waits and caches are not in it. What a kernel should be held against is how
//! near it comes.

use crate::work::Work;
use sinter_ir::Target;
use std::fmt;

/// A GPU's figures: dense, without sparsity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpu {
    /// The GPU.
    pub name: &'static str,
    /// The code that is written for it.
    pub target: Target,
    /// Bytes of memory that it moves in a second.
    pub bandwidth: f64,
    /// bf16 multiplications and additions in a second on tensor cores, summed in f32.
    pub matrix: f64,
    /// f32 multiplications and additions in a second.
    pub float: f64,
}

/// After NVIDIA's data sheets of the A100 (SXM, 80 GB), L40S, H100 (SXM) and H200 (SXM), and the whitepaper of the Ada GPU
/// architecture for the RTX 4090.
pub const GPUS: [Gpu; 5] = [
    Gpu { name: "A100", target: Target::Sm80, bandwidth: 2.039e12, matrix: 312e12, float: 19.5e12 },
    Gpu { name: "L40S", target: Target::Sm89, bandwidth: 0.864e12, matrix: 362e12, float: 91.6e12 },
    Gpu { name: "RTX 4090", target: Target::Sm89, bandwidth: 1.008e12, matrix: 165.2e12, float: 82.6e12 },
    Gpu { name: "H100", target: Target::Sm90a, bandwidth: 3.35e12, matrix: 989e12, float: 67e12 },
    Gpu { name: "H200", target: Target::Sm90a, bandwidth: 4.8e12, matrix: 989e12, float: 67e12 },
];

/// What work waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// DRAM.
    Memory,
    /// Tensor cores, or the units that multiply single numbers.
    Arithmetic,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Memory => "memory",
            Bound::Arithmetic => "arithmetic",
        })
    }
}

/// The shortest time of some work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// In microseconds.
    pub microseconds: f64,
    /// What it waits for.
    pub bound: Bound,
}

impl Gpu {
    /// The GPU of that name, whatever the case of its letters and the spaces in it.
    pub fn named(name: &str) -> Option<Gpu> {
        let plain = |name: &str| name.to_lowercase().replace([' ', '-', '_'], "");
        GPUS.into_iter().find(|gpu| plain(gpu.name) == plain(name))
    }
    /// Whether it runs code for a target.
    pub fn runs(&self, target: Target) -> bool {
        match self.target {
            Target::Sm80 => target == Target::Sm80,
            Target::Sm89 => target <= Target::Sm89,
            Target::Sm90a => true,
        }
    }
    /// The shortest time of some work: of one launch, for of several each has a bound of its own.
    pub fn estimate(&self, work: &Work) -> Estimate {
        let rate = if work.matrix { self.matrix } else { self.float };
        let (memory, arithmetic) =
            (work.moved() as f64 / self.bandwidth * 1e6, work.operations as f64 / rate * 1e6);
        let bound = if arithmetic > memory { Bound::Arithmetic } else { Bound::Memory };
        Estimate { microseconds: memory.max(arithmetic), bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_memory_and_arithmetic_counts() {
        let time = |name: &str, work: Work| Gpu::named(name).unwrap().estimate(&work);
        let memory = Work { read: 4_800_000_000, operations: 1, matrix: true, ..Work::default() };
        let found = time("H200", memory);
        assert!((found.microseconds - 1000.0).abs() < 1e-6 && found.bound == Bound::Memory);
        assert!(time("rtx4090", memory).microseconds > time("a100", memory).microseconds);
        let products = Work { written: 1, operations: 989_000_000_000, matrix: true, ..Work::default() };
        let found = time("H100", products);
        assert!((found.microseconds - 1000.0).abs() < 1e-6 && found.bound == Bound::Arithmetic);
        let single = Work { matrix: false, ..products };
        assert!(time("H100", single).microseconds > found.microseconds);
    }

    #[test]
    fn a_gpu_runs_code_of_its_own_generation_and_older() {
        let runs = |name: &str| Target::ALL.map(|target| Gpu::named(name).unwrap().runs(target));
        assert_eq!(runs("A100"), [true, false, false]);
        assert_eq!(runs("L40S"), [true, true, false]);
        assert_eq!(runs("H200"), [true, true, true]);
        for gpu in GPUS {
            let (major, minor) = [(8, 0), (8, 9), (9, 0)][gpu.target as usize];
            for target in Target::ALL {
                assert_eq!(gpu.runs(target), target.runs_on(major, minor), "{} {target}", gpu.name);
            }
        }
        assert_eq!(Gpu::named("H300"), None);
    }
}
