//! When requests come in an open loop: a renewal process with gaps of a gamma distribution, a Poisson process where its
//! shape is 1.

use sinter_runtime::uniform;

/// Seconds from the start, in order, of so many requests that come `rate` a second on average.
pub fn arrivals(count: usize, rate: f64, burstiness: f64, seed: u64) -> Vec<f64> {
    let mut random = Random { seed, drawn: 0 };
    let mut now = 0.0;
    let next = |_| {
        let at = now;
        now += random.gamma(burstiness) / (burstiness * rate);
        at
    };
    (0..count).map(next).collect()
}

struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    /// In (0, 1).
    fn unit(&mut self) -> f64 {
        self.drawn += 1;
        uniform(self.seed, self.drawn).max(f64::MIN_POSITIVE)
    }

    /// Box and Muller, 1958.
    fn normal(&mut self) -> f64 {
        let (a, b) = (self.unit(), self.unit());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// Of scale 1 (Marsaglia, Tsang: A simple method for generating gamma variables, 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let power = self.unit().powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(burstiness: f64) -> (f64, f64) {
        let at = arrivals(20_001, 10.0, burstiness, 7);
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance / (mean * mean))
    }

    #[test]
    fn gaps_have_the_mean_of_the_rate_and_the_spread_of_the_burstiness() {
        // A gamma distribution of shape k has a squared coefficient of variation of 1/k.
        for burstiness in [0.5, 1.0, 4.0] {
            let (mean, spread) = gaps(burstiness);
            assert!((mean - 0.1).abs() < 0.004, "{burstiness}: {mean}");
            assert!((spread * burstiness - 1.0).abs() < 0.08, "{burstiness}: {spread}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_times() {
        assert_eq!(arrivals(50, 3.0, 1.0, 4), arrivals(50, 3.0, 1.0, 4));
        assert_ne!(arrivals(50, 3.0, 1.0, 4), arrivals(50, 3.0, 1.0, 5));
        assert_eq!(arrivals(1, 3.0, 1.0, 4), [0.0]);
    }
}
