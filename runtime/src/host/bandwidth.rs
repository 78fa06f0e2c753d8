//! How fast the memory can be read: the yardstick of a decode, measured in the same run.

use super::{HugeMemory, ThreadPool};
use crate::RuntimeError;
use std::hint::black_box;
use std::time::Instant;

/// Larger than the caches of a server.
const BYTES: usize = 512 << 20;
/// Bytes that one call reads.
const BLOCK: usize = 1 << 20;

/// Bytes a second that all threads together read, the best of several passes.
///
/// # Errors
/// If there is no memory for it, or a thread panics.
pub fn read_bandwidth(threads: usize) -> Result<f64, RuntimeError> {
    let mut memory = HugeMemory::zeroed(BYTES)?;
    // It lies as weights do. Untouched pages all are the one zero page, which lies in the cache.
    memory.bytes_mut().fill(1);
    let mut pool = ThreadPool::new(threads);
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let started = Instant::now();
        let read = |range: std::ops::Range<u64>, _: usize| {
            for block in range {
                black_box(sum(&memory.bytes()[block as usize * BLOCK..(block as usize + 1) * BLOCK]));
            }
        };
        pool.parallel((BYTES / BLOCK) as u64, read).map_err(|panic| RuntimeError::Panic(panic.0))?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(BYTES as f64 / best)
}

/// A sum in sixteen lanes, which the compiler turns into vector loads.
fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 16];
    for chunk in bytes.chunks_exact(128) {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
            *lane = lane.wrapping_add(u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_is_read() {
        assert_eq!(super::sum(&[1; 256]), 32 * 0x0101_0101_0101_0101);
    }
}
