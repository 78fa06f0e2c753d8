//! Conflicts of the banks of shared memory.

use super::memory::lanes_of;
use crate::forms::D;

/// The turns that a request takes beyond those that its bytes need. Words of a bank take a turn each unless they are the
/// same; lanes with 8 bytes go in two halves of the warp, those with 16 in four quarters.
pub(super) fn conflicts(addresses: &D, lanes: u32, bytes: u32) -> u64 {
    // The common cases: lanes side by side, and all on one place.
    if side_by_side(addresses, u64::from(bytes.max(4))) || side_by_side(addresses, 0) {
        return 0;
    }
    let words = bytes.div_ceil(4).max(1) as usize;
    let group = (32 / words).max(1);
    let mut extra = 0;
    for first in (0..32).step_by(group) {
        let part = lanes & (((1u64 << group) - 1) << first) as u32;
        if part != 0 {
            extra += turns(addresses, part, words).saturating_sub(1);
        }
    }
    extra as u64
}

/// Whether each lane's address is a step after that of the lane before it.
#[inline(always)]
pub(super) fn side_by_side(addresses: &D, step: u64) -> bool {
    let base = addresses[0];
    let differs = |(lane, address): (usize, &u64)| address ^ base.wrapping_add(lane as u64 * step);
    addresses.iter().enumerate().map(differs).fold(0, |all, bits| all | bits) == 0
}

/// The most distinct words in one bank.
fn turns(addresses: &D, lanes: u32, words: usize) -> usize {
    let (mut known, mut count) = ([[0u32; 32]; 32], [0usize; 32]);
    for lane in lanes_of(lanes) {
        for word in 0..words as u64 {
            let at = (addresses[lane] / 4 + word) as u32;
            let (known, count) = (&mut known[at as usize % 32], &mut count[at as usize % 32]);
            // A group has at most 32 words, so a bank has no more.
            if !known[..*count].contains(&at) {
                known[*count % 32] = at;
                *count += 1;
            }
        }
    }
    count.iter().copied().max().unwrap_or(0)
}
