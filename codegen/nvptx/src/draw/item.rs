//! Logits as they are compared and weighed.

use super::{EACH, PIECE, THREADS};
use crate::emit::{Cache, Double, F32, Float, Global, I32, Int, K, Long};
use sinter_ir::draw::{EXP2, MASS, MOST_MASS};

/// Bits of a token's id.
pub(super) const ID_BITS: u32 = 20;
/// The ids, all bits set.
pub(super) const IDS: i64 = (1 << ID_BITS) - 1;
/// Bits of a sum of masses in a sum that also counts, above them, what was summed.
pub(super) const MASS_BITS: i64 = 42;
/// What stands above every key.
pub(super) const NO_KEY: i64 = 1 << (32 + ID_BITS);
/// The key of −∞ and id 0, the least of a row from which nothing can be drawn is not above it.
pub(super) const NOTHING: i64 = (0x007f_ffff << ID_BITS) | IDS;

/// A row of logits.
pub(super) struct Row<'k> {
    pub(super) k: K<'k>,
    pub(super) logits: Global<'k>,
    pub(super) width: u32,
    pub(super) scale: Double<'k>,
}

impl<'k> Row<'k> {
    /// A thread's logits of a piece, with their ids; −∞ beyond the last.
    pub(super) fn of_thread(&self, piece: Int<'k>) -> Vec<(Float<'k>, Int<'k>)> {
        let (k, width) = (self.k, self.width as i32);
        let first = piece * PIECE as i32;
        let wide = self.width.is_multiple_of(4);
        let (step, lanes) = if wide { (THREADS * 4, 4) } else { (THREADS, 1) };
        let mut all = Vec::with_capacity(EACH as usize);
        for at in 0..EACH / lanes {
            let id = first + k.thread() * lanes as i32 + (at * step) as i32;
            let from = self.logits.at(id.least(width - lanes as i32) << 2);
            let values = if wide {
                k.load_vector::<F32, 4>(from, Cache::Any).to_vec()
            } else {
                vec![k.load(from, Cache::Any)]
            };
            for (lane, value) in values.into_iter().enumerate() {
                // A negative zero becomes a positive one, to which it is equal.
                let value = id.lt(width).select(value + 0.0, k.float(f32::NEG_INFINITY));
                all.push((value, id + lane as i32));
            }
        }
        all
    }

    /// The exponent of a logit's weight, rounded down, and its mass: `sinter_ir::draw::weight`.
    pub(super) fn weight(&self, logit: Float<'k>) -> (Double<'k>, Int<'k>) {
        let y = logit.double() * self.scale;
        let exponent = y.floor();
        let rest = (y - exponent).float();
        let first = self.k.float(EXP2[0]);
        let power = EXP2[1..].iter().fold(first, |sum, c| sum * rest + *c);
        (exponent, (power * MASS as f32 + 0.5).int().greatest(0).least(MOST_MASS as i32))
    }
}

/// A number that is greater for a greater logit and, among equal ones, for a lower id.
pub(super) fn key<'k>(logit: Float<'k>, id: Int<'k>) -> Long<'k> {
    let bits = logit.bits::<I32>();
    let ordered = bits.lt(0).select(bits ^ -1, bits ^ i32::MIN);
    (ordered.unsigned_long() << i64::from(ID_BITS)) | (id ^ IDS as i32).unsigned_long()
}

/// The logit of a key.
pub(super) fn logit(key: Long<'_>) -> Float<'_> {
    let ordered = (key >> i64::from(ID_BITS)).int();
    ordered.lt(0).select(ordered ^ i32::MIN, ordered ^ -1).bits()
}

/// The id of a key.
pub(super) fn id(key: Long<'_>) -> Int<'_> {
    (key & IDS).int() ^ IDS as i32
}
