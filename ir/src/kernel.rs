//! The contract between a host kernel and whoever launches it.

use crate::Dim;
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
    /// The machine code.
    pub entry: KernelEntry,
    /// The number of work units: the product of these extents.
    pub units: Vec<Dim>,
    /// Bytes of scratch memory that each thread needs.
    pub scratch_bytes: usize,
    /// What keeps the machine code alive.
    pub code: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for HostKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKernel({}, units {:?}, scratch {})", self.name, self.units, self.scratch_bytes)
    }
}
