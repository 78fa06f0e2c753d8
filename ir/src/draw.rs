//! The arithmetic by which a token is drawn from a row of logits: the same on the host and on a GPU, bit for bit.
//!
//! A logit `s` weighs 2^y with y = s · log₂e / temperature, a product in f64. The whole part of y says in which octave it
//! is, counted downwards from that of the largest logit; the rest gives its mass, a whole number from 2²⁰ to 2²¹. So the
//! sums within an octave are exact in any order, whoever adds them up, and the few sums of octaves are added in f64, the
//! largest octave first. What is 64 octaves below the largest logit is never drawn.

/// Octaves that count.
pub const OCTAVES: usize = 64;
/// The mass of a logit at the lower end of its octave.
pub const MASS: u32 = 1 << 20;
/// The largest mass.
pub const MOST_MASS: u32 = 2 * MASS - 1;
/// A polynomial of 2^f for f from 0 to 1, the highest power first, to be evaluated by products and sums in f32, each
/// rounded: the interpolation at Chebyshev's points, relative error below 1e-7, 1 at 0 and 2 at 1.
pub const EXP2: [f32; 7] =
    [0.000_218_657_85, 0.001_239_133_2, 0.009_684_186, 0.055_480_63, 0.240_230_46, 0.693_146_94, 1.0];
/// The bytes of a [`Draw`] on a device.
pub const DRAW_BYTES: usize = 32;
/// The greatest number of logits in a row from which a GPU draws.
pub const MOST_LOGITS: u64 = 1 << 20;
/// What a GPU gives instead of a token where a logit is no number or none is possible.
pub const NO_TOKEN: u32 = u32::MAX;

/// How one token is drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Draw {
    /// log₂e over the temperature; 0 takes the first of the largest logits.
    pub scale: f64,
    /// Where in the distribution the token lies, 0 to 1.
    pub uniform: f64,
    /// Only so many largest logits, and those equal to the last of them; 0 keeps all.
    pub top_k: u32,
    /// Only the largest logits that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Only logits at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
}

impl Draw {
    /// As a device reads it: scale, uniform, top-k, top-p, min-p and 4 zeros, little-endian. None, a scale of −1, means
    /// that nothing is drawn.
    pub fn bytes(draw: Option<&Draw>) -> [u8; DRAW_BYTES] {
        let mut bytes = [0; DRAW_BYTES];
        let Some(draw) = draw else {
            bytes[..8].copy_from_slice(&(-1.0f64).to_le_bytes());
            return bytes;
        };
        bytes[..8].copy_from_slice(&draw.scale.to_le_bytes());
        bytes[8..16].copy_from_slice(&draw.uniform.to_le_bytes());
        bytes[16..20].copy_from_slice(&draw.top_k.to_le_bytes());
        bytes[20..24].copy_from_slice(&draw.top_p.to_le_bytes());
        bytes[24..28].copy_from_slice(&draw.min_p.to_le_bytes());
        bytes
    }
}

/// The exponent of a logit's weight, rounded down, and its mass.
pub fn weight(logit: f32, scale: f64) -> (f64, u32) {
    let y = f64::from(logit) * scale;
    let exponent = y.floor();
    let rest = (y - exponent) as f32;
    let power = EXP2[1..].iter().fold(EXP2[0], |sum, c| sum * rest + c);
    (exponent, ((power * MASS as f32 + 0.5) as u32).min(MOST_MASS))
}

/// The sum of the masses of octaves, each worth half of the one before.
pub fn total(masses: &[u64; OCTAVES]) -> f64 {
    (0..).zip(masses).fold(0.0, |sum, (octave, mass)| sum + *mass as f64 * power_of_two(-octave))
}

/// Where the sum of the masses, the largest octave first, reaches `wanted`: the octave, and how much of its mass it takes,
/// at least 1. The last that has a mass, and all of it, if it is not reached.
pub fn reach(masses: &[u64; OCTAVES], wanted: f64) -> (usize, u64) {
    let (mut before, mut last) = (0.0, 0);
    for octave in (0..OCTAVES).filter(|octave| masses[*octave] > 0) {
        let after = before + masses[octave] as f64 * power_of_two(-(octave as i32));
        if after >= wanted {
            let need = ((wanted - before) * power_of_two(octave as i32)).ceil();
            return (octave, (need as u64).clamp(1, masses[octave]));
        }
        (before, last) = (after, octave);
    }
    (last, masses[last])
}

/// 2ⁿ.
pub fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_powers_of_two() {
        for at in -3000..3000 {
            let logit = at as f32 * 0.013;
            let (exponent, mass) = weight(logit, std::f64::consts::LOG2_E / 0.7);
            let found = f64::from(mass) / f64::from(MASS) * exponent.exp2();
            let wanted = (f64::from(logit) / 0.7).exp();
            assert!((found / wanted - 1.0).abs() < 1e-6, "{logit}: {found} is not {wanted}");
        }
        assert_eq!(weight(0.0, 1.0), (0.0, MASS));
        assert_eq!(weight(-3.0, 1.0), (-3.0, MASS));
    }

    #[test]
    fn sums_are_reached_where_they_should_be() {
        let mut masses = [0; OCTAVES];
        (masses[0], masses[2], masses[63]) = (8, 16, 1);
        assert_eq!(total(&masses), 12.0 + power_of_two(-63));
        assert_eq!(reach(&masses, 0.0), (0, 1));
        assert_eq!(reach(&masses, 7.5), (0, 8));
        assert_eq!(reach(&masses, 8.0), (0, 8));
        assert_eq!(reach(&masses, 8.3), (2, 2));
        assert_eq!(reach(&masses, 12.0), (2, 16));
        assert_eq!(reach(&masses, 13.0), (63, 1));
    }
}
