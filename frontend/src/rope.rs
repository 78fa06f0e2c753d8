//! Rotary position embedding: its fields in both spellings, and the frequencies they mean.
//!
//! Older files write `rope_theta` beside an optional `rope_scaling` object, newer ones a single
//! `rope_parameters` object. Both become one [`RopeSpec`]. The frequencies are computed in the precision in
//! which the reference computes them (single precision for tensors, double for scalars), because at position
//! 100,000 one rounding more is an angle of a hundredth.

use std::f64::consts::PI;

use crate::config::{ConfigError, RawConfig, Section};

/// A resolved rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// The base of the geometric row of frequencies.
    pub theta: f64,
    /// How many leading dimensions of a head are rotated; even.
    pub rotary_dim: usize,
    /// Whether neighbouring dimensions make a pair, instead of dimension d and d + rotary_dim / 2.
    pub interleaved: bool,
    /// How the frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// The known ways to stretch the frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth step between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths over `original_max_position / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths under `original_max_position / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context of the original training.
        original_max_position: usize,
    },
    /// Gemma 4: the first of the pairs are turned as if all of them were, and the rest is left alone.
    First {
        /// How many are turned.
        pairs: usize,
        /// The divisor of all frequencies.
        factor: f64,
    },
    /// Hunyuan: the base multiplied by alpha^(d / (d − 2)), d dimensions rotated.
    Alpha {
        /// What the base is stretched by.
        alpha: f64,
    },
    /// LongRoPE (Ding et al. 2024): each frequency divided by a factor of its own. Checkpoints hold two rows of factors, for
    /// texts up to the original context and for longer ones; the first is the one here, so the model is good for the
    /// original context.
    Each {
        /// The divisors.
        factors: Vec<f64>,
        /// What cosine and sine are multiplied by.
        attention_factor: f64,
        /// The longest text that they are for, where there are others for longer ones.
        limit: Option<usize>,
    },
    /// YaRN: a linear ramp over the dimensions between kept and divided, and a scale on cosine and sine.
    Yarn {
        /// The divisor.
        factor: f64,
        /// Rotations at the ramp's upper end.
        beta_fast: f64,
        /// Rotations at the ramp's lower end.
        beta_slow: f64,
        /// What cosine and sine are multiplied by.
        attention_factor: f64,
        /// What the scores of latent attention are multiplied by besides, twice (`mscale_all_dim`).
        score_magnitude: f64,
        /// The context of the original training.
        original_max_position: usize,
        /// Whether the ramp's ends are rounded to whole dimensions.
        truncate: bool,
    },
}

/// What the architecture knows about its rotary embedding before the fields are read.
#[derive(Clone, Copy, Debug)]
pub struct RopeContext {
    /// The width of a head; of one in a layer without a window where they differ.
    pub head_dim: usize,
    /// The width of a head in a layer with a window.
    pub local_head_dim: usize,
    /// The longest context, which stands in for a missing original length.
    pub max_position: usize,
    /// The base where no field gives one.
    pub default_theta: f64,
    /// The share of a head that is rotated where no field says it; `None` where the architecture always rotates
    /// all of it and a field that says otherwise is refused.
    pub default_partial: Option<f64>,
    /// The field with the number of rotated dimensions, where it is not given as a share.
    pub dim: Option<&'static str>,
    /// Whether neighbours make a pair.
    pub interleaved: bool,
}

const FACTOR: std::ops::RangeInclusive<f64> = 1e-6..=1e6;
const THETA: std::ops::RangeInclusive<f64> = 1.0 + 1e-9..=1e15;

impl RopeSpec {
    /// Reads the rotary fields of a configuration.
    pub fn from_config(root: Section<'_>, context: RopeContext) -> Result<Self, ConfigError> {
        Self::from_object(root, rope_object(root)?, context)
    }

    /// The table of layers without a window and that of layers with one. Newer files give each an object inside
    /// `rope_parameters`; older ones a base in the field `local.0`, or `local.1` where it is absent.
    pub fn by_window(
        root: Section<'_>,
        context: RopeContext,
        local: (&str, f64),
    ) -> Result<[Self; 2], ConfigError> {
        let objects = root.value("rope_parameters").and_then(serde_json::Value::as_object);
        let nested = |kind: &str| {
            let map = objects?.get(kind)?.as_object()?;
            Some(root.config().nested(&format!("rope_parameters.{kind}"), map))
        };
        let Some(global) = nested("full_attention") else {
            let theta = root.opt_f64(local.0, THETA)?.unwrap_or(local.1);
            let global = RopeSpec::from_config(root, context)?;
            return Ok([global.clone(), RopeSpec { theta, scaling: RopeScaling::None, ..global }]);
        };
        let of = |config: &RawConfig, context| -> Result<Self, ConfigError> {
            let spec = Self::from_object(root, Some(config.root()), context)?;
            config.finish().map(|_| spec)
        };
        let context_local =
            RopeContext { default_theta: local.1, head_dim: context.local_head_dim, ..context };
        let global = of(&global, context)?;
        let local = nested("sliding_attention").map(|config| of(&config, context_local)).transpose()?;
        let local = local.unwrap_or_else(|| RopeSpec { scaling: RopeScaling::None, ..global.clone() });
        Ok([global, local])
    }

    fn from_object(
        root: Section<'_>,
        inner: Option<Section<'_>>,
        context: RopeContext,
    ) -> Result<Self, ConfigError> {
        let theta = in_either(inner, root, &["rope_theta", "global_rope_theta", "rotary_emb_base"], THETA)?;
        let partial = in_either(inner, root, &["partial_rotary_factor", "rotary_pct"], 0.0..=1.0)?;
        let first = inner.filter(|inner| {
            ["rope_type", "type"].iter().any(|key| inner.peek(key).is_some_and(|kind| kind == PROPORTIONAL))
        });
        if let Some(inner) = first {
            return proportional(inner, context, (theta, partial));
        }
        let rotary_dim = rotary_dim(root, context, partial)?;
        let scaling = match inner {
            None => {
                root.skip("original_max_position_embeddings");
                RopeScaling::None
            }
            Some(inner) => scaling(inner, root, (context, rotary_dim))?,
        };
        let theta = theta.unwrap_or(context.default_theta);
        Ok(RopeSpec { theta, rotary_dim, interleaved: context.interleaved, scaling })
    }

    /// The frequency of each rotated pair, `rotary_dim / 2` of them, and the factor on cosine and sine.
    pub fn inverse_frequencies(&self) -> (Vec<f32>, f32) {
        let pairs = self.rotary_dim / 2;
        let theta = match self.scaling {
            RopeScaling::Alpha { alpha } => {
                let dim = self.rotary_dim as f64;
                self.theta * alpha.powf(dim / (dim - 2.0))
            }
            _ => self.theta,
        };
        // Exponents are single precision in the reference, and so is the power that is taken.
        let powers: Vec<f32> = (0..pairs)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / self.rotary_dim as f32;
                (theta as f32 as f64).powf(f64::from(exponent)) as f32
            })
            .collect();
        let plain = powers.iter().map(|power| 1.0 / power);
        match &self.scaling {
            RopeScaling::None | RopeScaling::Alpha { .. } => (plain.collect(), 1.0),
            RopeScaling::Each { factors, attention_factor, .. } => {
                let divided =
                    factors.iter().zip(&powers).map(|(factor, power)| 1.0 / (*factor as f32 * power));
                (divided.collect(), *attention_factor as f32)
            }
            RopeScaling::First { pairs, factor } => {
                let turned = |(pair, f): (usize, f32)| if pair < *pairs { f / *factor as f32 } else { 0.0 };
                (plain.enumerate().map(turned).collect(), 1.0)
            }
            RopeScaling::Linear { factor } => (plain.map(|f| f / *factor as f32).collect(), 1.0),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let steps = Llama3Steps {
                    factor: *factor as f32,
                    low: *low_freq_factor,
                    high: *high_freq_factor,
                    context: *original_max_position as f64,
                };
                (plain.map(|f| steps.stretch(f)).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, attention_factor, .. } => {
                let (low, high) = self.yarn_range();
                let stretch = |(pair, power): (usize, &f32)| {
                    let ramp = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    (1.0 / (*factor as f32 * power)) * (1.0 - kept) + (1.0 / power) * kept
                };
                (powers.iter().enumerate().map(stretch).collect(), *attention_factor as f32)
            }
        }
    }

    /// The longest sequence that the frequencies are for, where it is shorter than the model's.
    pub fn limit(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::Each { limit, .. } => limit,
            _ => None,
        }
    }

    /// The pairs between which YaRN's ramp climbs.
    fn yarn_range(&self) -> (f64, f64) {
        let RopeScaling::Yarn { beta_fast, beta_slow, original_max_position, truncate, .. } = self.scaling
        else {
            return (0.0, 0.0);
        };
        let dim = self.rotary_dim as f64;
        let turns_at = |rotations: f64| {
            dim * (original_max_position as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (turns_at(beta_fast), turns_at(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // A ramp of no width would divide by zero.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }
}

struct Llama3Steps {
    factor: f32,
    low: f64,
    high: f64,
    context: f64,
}

impl Llama3Steps {
    fn stretch(&self, frequency: f32) -> f32 {
        // The reference divides a number by a tensor as a reciprocal and a product.
        let wavelength = (1.0 / frequency) * (2.0 * PI) as f32;
        if wavelength > (self.context / self.low) as f32 {
            return frequency / self.factor;
        }
        if wavelength < (self.context / self.high) as f32 {
            return frequency;
        }
        let smooth =
            ((1.0 / wavelength) * self.context as f32 - self.low as f32) / (self.high - self.low) as f32;
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }
}

/// The object with the rotary fields: `rope_parameters`, or `rope_scaling` in older files.
fn rope_object(root: Section<'_>) -> Result<Option<Section<'_>>, ConfigError> {
    let newer = root.opt_section("rope_parameters")?;
    let older = root.opt_section("rope_scaling")?;
    let inner = match (newer, older) {
        (Some(newer), Some(older)) => {
            if root.peek("rope_parameters") != root.peek("rope_scaling") {
                return Err(root.wrong("rope_scaling", "the same object as in `rope_parameters`, or neither"));
            }
            older.keys().for_each(|key| older.skip(key));
            Some(newer)
        }
        (newer, older) => newer.or(older),
    };
    // A value that is itself an object gives each kind of layer its own frequencies.
    let Some(section) = inner else { return Ok(None) };
    match section.keys().find(|key| section.peek(key).is_some_and(serde_json::Value::is_object)) {
        Some(key) => Err(root.config().unsupported(
            &section.path(key),
            "an object (a rotary embedding of its own for each kind of layer is not supported yet)",
        )),
        None => Ok(Some(section)),
    }
}

/// The type of [`RopeScaling::First`].
const PROPORTIONAL: &str = "proportional";

/// A whole head of pairs, of which a share is turned.
fn proportional(
    inner: Section<'_>,
    context: RopeContext,
    (theta, partial): (Option<f64>, Option<f64>),
) -> Result<RopeSpec, ConfigError> {
    ["rope_type", "type"].iter().for_each(|key| inner.skip(key));
    if !context.head_dim.is_multiple_of(2) {
        return Err(inner.wrong("rope_type", format!("another: heads of {} are no pairs", context.head_dim)));
    }
    // Rounded down, as the reference does.
    let pairs = (partial.unwrap_or(1.0) * context.head_dim as f64 / 2.0) as usize;
    let factor = inner.opt_f64("factor", FACTOR)?.unwrap_or(1.0);
    Ok(RopeSpec {
        theta: theta.unwrap_or(context.default_theta),
        rotary_dim: context.head_dim,
        interleaved: context.interleaved,
        scaling: RopeScaling::First { pairs, factor },
    })
}

/// A number that stands in the rotary object or, in older files, beside it; the object wins.
fn in_either(
    inner: Option<Section<'_>>,
    root: Section<'_>,
    keys: &[&str],
    range: std::ops::RangeInclusive<f64>,
) -> Result<Option<f64>, ConfigError> {
    let mut found = None;
    for section in [inner, Some(root)].into_iter().flatten() {
        for key in keys {
            let value = section.opt_f64(key, range.clone())?;
            found = found.or(value);
        }
    }
    Ok(found)
}

fn rotary_dim(root: Section<'_>, context: RopeContext, partial: Option<f64>) -> Result<usize, ConfigError> {
    // A share has the last word where there are both.
    if let Some(key) = context.dim.filter(|key| partial.is_none() && root.has(key)) {
        let dim = root.usize(key, 2..=context.head_dim)?;
        return if dim.is_multiple_of(2) { Ok(dim) } else { Err(root.wrong(key, "an even number")) };
    }
    context.dim.into_iter().for_each(|key| root.skip(key));
    let key = ["partial_rotary_factor", "rotary_pct"].into_iter().find(|key| root.has(key));
    let key = key.unwrap_or("partial_rotary_factor");
    let share = match (context.default_partial, partial) {
        (None, None) => 1.0,
        (None, Some(1.0)) => 1.0,
        (None, Some(share)) => {
            return Err(root
                .config()
                .unsupported(key, &format!("{share} (this architecture rotates whole heads)")));
        }
        (Some(default), partial) => partial.unwrap_or(default),
    };
    // Rounded down, as the reference does.
    let dim = (context.head_dim as f64 * share) as usize;
    if dim >= 2 && dim.is_multiple_of(2) && dim <= context.head_dim {
        return Ok(dim);
    }
    let found = format!("{share} of a head of {} = {dim} dimensions, which are not pairs", context.head_dim);
    Err(root.config().unsupported(key, &found))
}

fn scaling(
    inner: Section<'_>,
    root: Section<'_>,
    (context, rotary_dim): (RopeContext, usize),
) -> Result<RopeScaling, ConfigError> {
    let older = inner.opt_str("type")?;
    let kind = inner.opt_str("rope_type")?.or(older).unwrap_or("default");
    let outer_original =
        root.opt_usize("original_max_position_embeddings", crate::config::limits::POSITIONS)?;
    let inner_original =
        inner.opt_usize("original_max_position_embeddings", crate::config::limits::POSITIONS)?;
    let original_max_position = outer_original.or(inner_original).unwrap_or(context.max_position);
    match kind {
        "default" | "mrope" => {
            // Files written by tools keep a factor beside the plain type; it means nothing there. Sections are for tokens that
            // have three positions; those of a text are alike.
            ["factor", "mrope_section", "mrope_interleaved"].iter().for_each(|key| inner.skip(key));
            Ok(RopeScaling::None)
        }
        "dynamic" => match inner.opt_f64("alpha", FACTOR)? {
            Some(alpha) if rotary_dim > 2 => {
                // Left over from another scaling; the reference reads none of them beside alpha.
                ["factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"]
                    .iter()
                    .for_each(|key| inner.skip(key));
                Ok(RopeScaling::Alpha { alpha })
            }
            Some(_) => Err(inner.wrong("alpha", "none for heads of which one pair is rotated")),
            None => {
                // The base grows with sequences beyond the longest one only, and those are refused.
                inner.f64("factor", FACTOR)?;
                Ok(RopeScaling::None)
            }
        },
        "longrope" | "su" => long(inner, (context, rotary_dim), original_max_position),
        "linear" => Ok(RopeScaling::Linear { factor: inner.f64("factor", FACTOR)? }),
        "llama3" => {
            let scaling = RopeScaling::Llama3 {
                factor: inner.f64("factor", FACTOR)?,
                low_freq_factor: inner.f64("low_freq_factor", FACTOR)?,
                high_freq_factor: inner.f64("high_freq_factor", FACTOR)?,
                original_max_position,
            };
            match scaling {
                RopeScaling::Llama3 { low_freq_factor: low, high_freq_factor: high, .. } if high <= low => {
                    Err(inner.wrong("high_freq_factor", format!("more than low_freq_factor, which is {low}")))
                }
                _ => Ok(scaling),
            }
        }
        "yarn" => yarn(inner, context, original_max_position),
        other => Err(root.config().unsupported(&inner.path("rope_type"), other)),
    }
}

/// The short factors of LongRoPE.
fn long(
    inner: Section<'_>,
    (context, rotary_dim): (RopeContext, usize),
    original: usize,
) -> Result<RopeScaling, ConfigError> {
    let factors = |key: &str| {
        let numbers = inner.value(key).and_then(serde_json::Value::as_array);
        let numbers =
            numbers.and_then(|all| all.iter().map(serde_json::Value::as_f64).collect::<Option<Vec<_>>>());
        let good = |all: &Vec<f64>| all.len() == rotary_dim / 2 && all.iter().all(|x| FACTOR.contains(x));
        let wanted = || format!("{} numbers, one for each rotated pair", rotary_dim / 2);
        numbers.filter(good).ok_or_else(|| inner.wrong(key, wanted()))
    };
    let (short, long) = (factors("short_factor")?, factors("long_factor")?);
    let given = inner.opt_f64("factor", FACTOR)?;
    let factor = given.unwrap_or(context.max_position as f64 / original as f64);
    let inferred = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() };
    Ok(RopeScaling::Each {
        limit: (short != long).then_some(original),
        factors: short,
        attention_factor: inner.opt_f64("attention_factor", 1e-6..=1e6)?.unwrap_or(inferred),
    })
}

fn yarn(inner: Section<'_>, context: RopeContext, original: usize) -> Result<RopeScaling, ConfigError> {
    let given = inner.opt_f64("factor", FACTOR)?;
    let factor = given.unwrap_or(context.max_position as f64 / original as f64);
    // Zero means "not given" for these, as in the reference.
    let or_default = |key: &str, default: f64| -> Result<f64, ConfigError> {
        Ok(inner.opt_f64(key, 0.0..=1e6)?.filter(|x| *x != 0.0).unwrap_or(default))
    };
    let (beta_fast, beta_slow) = (or_default("beta_fast", 32.0)?, or_default("beta_slow", 1.0)?);
    let (mscale, mscale_all_dim) = (or_default("mscale", 0.0)?, or_default("mscale_all_dim", 0.0)?);
    let magnitude = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    let inferred = if mscale != 0.0 && mscale_all_dim != 0.0 {
        magnitude(mscale) / magnitude(mscale_all_dim)
    } else {
        magnitude(1.0)
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast,
        beta_slow,
        attention_factor: inner.opt_f64("attention_factor", 1e-6..=1e6)?.unwrap_or(inferred),
        score_magnitude: if mscale_all_dim == 0.0 { 1.0 } else { magnitude(mscale_all_dim) },
        original_max_position: original,
        truncate: inner.bool_or("truncate", true)?,
    })
}
