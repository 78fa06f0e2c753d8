//! The contract between a host kernel and whoever launches it.

use crate::{Binding, Dim};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The entry of a host kernel.
///
/// `args` points to one base address for each parameter of the tile program, `symbols` to the values of
/// [`Sym::ALL`](crate::Sym::ALL), and `scratch` to [`HostKernel::scratch_bytes`] bytes, 64-byte aligned, that no other
/// thread uses during the call. The call does the work units `begin..end`. Units may run in any order and on any
/// thread; the result does not depend on how they are divided.
pub type KernelEntry =
    unsafe extern "C" fn(args: *const *mut u8, symbols: *const u64, begin: u64, end: u64, scratch: *mut u8);

/// A kernel for the host, ready to be called.
#[derive(Clone)]
pub struct HostKernel {
    /// The name of the tile program.
    pub name: String,
    /// How it is run.
    pub any: HostForm,
    /// How it is run in launches of few rows, where that is another way.
    pub few: Option<FewRows>,
    /// Bytes of scratch memory that each thread needs.
    pub scratch_bytes: usize,
    /// What keeps the machine code alive.
    pub code: Arc<dyn Any + Send + Sync>,
}

/// One way to run a kernel. All ways give the same bits.
#[derive(Clone, Debug)]
pub struct HostForm {
    /// The machine code.
    pub entry: KernelEntry,
    /// The number of work units: the product of these extents.
    pub units: Vec<Dim>,
    /// Whether one thread does all units: waking others would take longer than the work.
    pub alone: bool,
}

/// How a kernel is run in launches of few rows.
#[derive(Clone, Debug)]
pub struct FewRows {
    /// The rows of a launch.
    pub rows: Dim,
    /// How many are few.
    pub at_most: u64,
    /// How it is run then.
    pub form: HostForm,
}

impl HostKernel {
    /// How it is run in a launch.
    pub fn form(&self, binding: &Binding) -> &HostForm {
        match &self.few {
            Some(few) if few.rows.eval(binding) <= few.at_most => &few.form,
            _ => &self.any,
        }
    }
}

impl HostForm {
    /// The work units of a launch.
    pub fn count(&self, binding: &Binding) -> u64 {
        self.units.iter().fold(1, |units, dim| units.saturating_mul(dim.eval(binding)))
    }
}

impl fmt::Debug for HostKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKernel({}, units {:?}, scratch {})", self.name, self.any.units, self.scratch_bytes)
    }
}
