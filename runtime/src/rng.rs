//! Random numbers that are a function of a seed and a counter, so that they do not depend on who drew before.

/// A number in [0, 1) with 53 random bits, the same for the same seed and counter on every machine.
pub fn uniform(seed: u64, counter: u64) -> f64 {
    let bits =
        mix(mix(seed ^ 0x5369_6e74_6572_0001).wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::uniform;

    #[test]
    fn numbers_are_spread_evenly_over_seeds_and_counters() {
        let mut buckets = [[0u32; 16]; 2];
        for at in 0..16_000 {
            buckets[0][(uniform(1, at) * 16.0) as usize] += 1;
            buckets[1][(uniform(at, 1) * 16.0) as usize] += 1;
        }
        // The chi-square of 15 degrees of freedom is below 37.7 with probability 0.999.
        for row in buckets {
            let chi: f64 = row.iter().map(|n| (f64::from(*n) - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi < 37.7, "{row:?}");
        }
        assert_eq!(uniform(3, 4), uniform(3, 4));
        assert_ne!(uniform(3, 4), uniform(4, 3));
    }
}
