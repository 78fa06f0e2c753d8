//! Memory with what is known about every byte of it.

mod global;
mod shared;
mod watch;

pub use global::{GlobalMemory, SECTOR as SECTOR_BYTES};
pub use shared::{MOST_AGENTS, SEVERAL, Shared, Who};
pub use watch::{Foreign, LAUNCHES, Touch, learn};

/// Where shared memory begins: the hardware keeps the first bytes of it for itself.
pub const SHARED_BASE: u32 = 1024;
/// Added to an address of shared memory to make it generic.
pub const SHARED_WINDOW: u64 = 0x7000_0000_0000;
/// Where parameters lie for instructions that take their address.
pub const PARAM_WINDOW: u64 = 0x6000_0000_0000;
/// Shared addresses of a cluster's block `r` have `r + 1` in the bits from here on; those of the block itself, 0.
pub const RANK_SHIFT: u32 = 24;

/// The same place in another block of the cluster.
pub(crate) fn in_block(address: u64, rank: u32) -> u64 {
    let low = (1u64 << RANK_SHIFT) - 1;
    address & !0xffff_ffff | address & low | u64::from(rank + 1) << RANK_SHIFT
}

/// A variable with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its address in shared memory.
    pub address: u32,
}

/// The addresses of shared variables, and the bytes of those with a size; the dynamic part begins after them.
pub(crate) fn shared_layout(variables: &[crate::ptx::SharedVar]) -> (Vec<Place>, u32) {
    let (mut places, mut end) = (Vec::new(), SHARED_BASE);
    for variable in variables.iter().filter(|variable| variable.bytes > 0) {
        let address = end.next_multiple_of(variable.align.max(1));
        places.push(Place { name: variable.name.clone(), address });
        end = address + variable.bytes;
    }
    let dynamic: Vec<_> = variables.iter().filter(|variable| variable.bytes == 0).collect();
    let align = dynamic.iter().map(|variable| variable.align).max().unwrap_or(1);
    if !dynamic.is_empty() {
        end = end.next_multiple_of(align.max(1));
    }
    places.extend(dynamic.iter().map(|variable| Place { name: variable.name.clone(), address: end }));
    (places, end - SHARED_BASE)
}
