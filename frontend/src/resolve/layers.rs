//! What differs from layer to layer: windows, heads, which rotary table turns queries and keys, and whose are read.

use serde_json::Value;

use super::{Place, Resolver};
use crate::config::{ConfigError, limits};
use crate::family::{RopeLayers, UsedWindow, WindowRow};
use crate::rope::{RopeContext, RopeSpec};

/// The heads of a layer.
pub(super) struct HeadDims {
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Whether values are what keys are made of.
    pub(super) keys_are_values: bool,
}

/// Key heads and the width of a head, where they are not the usual ones.
type OwnHeads = (Option<usize>, Option<usize>);

impl Resolver<'_> {
    /// The heads of layers with or without a window.
    pub(super) fn head_dims(&self, window: Option<usize>) -> Result<HeadDims, ConfigError> {
        let dims = &self.dims;
        let usual = HeadDims { kv_heads: dims.kv_heads, head_dim: dims.head_dim, keys_are_values: false };
        let Some(row) = self.family.attention.global.filter(|_| window.is_none()) else { return Ok(usual) };
        let keys_are_values = self.root.bool_or(row.keys_are_values, false)?;
        let own = match self.own_heads()? {
            Some(own) => own,
            None => {
                let kv_heads = self.root.opt_usize(row.kv_heads, limits::HEADS)?.filter(|_| keys_are_values);
                let head_dim = self.root.opt_usize(row.head_dim.0, limits::WIDTH)?;
                (kv_heads, Some(head_dim.unwrap_or(row.head_dim.1)))
            }
        };
        let (kv_heads, head_dim) = (own.0.unwrap_or(dims.kv_heads), own.1.unwrap_or(dims.head_dim));
        if !dims.heads.is_multiple_of(kv_heads) {
            return Err(self.root.wrong(row.kv_heads, format!("a divisor of {} heads", dims.heads)));
        }
        Ok(HeadDims { kv_heads, head_dim, keys_are_values })
    }

    /// The key heads and the width of a head of layers without a window, as newer files list them by layer: each such layer
    /// has the same and no other layer has any.
    fn own_heads(&self) -> Result<Option<OwnHeads>, ConfigError> {
        const LIST: &str = "per_layer_config";
        let Some(list) = self.root.value(LIST) else { return Ok(None) };
        let wrong =
            || self.root.wrong(LIST, "the same heads for each layer without a window, and for no other");
        let list = list.as_object().ok_or_else(wrong)?;
        let whole: Vec<usize> =
            self.windows()?.iter().enumerate().filter(|(_, w)| w.is_none()).map(|(i, _)| i).collect();
        let mut found = Vec::with_capacity(whole.len());
        for i in &whole {
            let entry = list.get(&i.to_string()).and_then(Value::as_object).ok_or_else(wrong)?;
            let entry = self.root.config().nested(&format!("{LIST}.{i}"), entry);
            let section = entry.root();
            let kv_heads = section.opt_usize("num_key_value_heads", limits::HEADS)?;
            found.push((kv_heads, section.opt_usize("head_dim", limits::WIDTH)?));
            entry.finish()?;
        }
        let same = found.windows(2).all(|pair| pair[0] == pair[1]) && list.len() == whole.len();
        if same { Ok(found.first().copied()) } else { Err(wrong()) }
    }

    /// The layer whose keys and values each layer reads, if they are not its own.
    pub(super) fn shared_layers(&self, windows: &[Option<usize>]) -> Result<Vec<Option<usize>>, ConfigError> {
        let n = windows.len();
        let Some(row) = self.family.attention.shared else { return Ok(vec![None; n]) };
        let first = n - self.root.opt_usize(row.count, 0..=n)?.unwrap_or(0);
        let source = |i: usize| {
            let alike = |j: &usize| windows[*j].is_some() == windows[i].is_some();
            let wanted = || "fewer: a layer of each kind must have keys and values of its own";
            (0..first).rev().find(alike).ok_or_else(|| self.root.wrong(row.count, wanted()))
        };
        (0..n).map(|i| if i < first { Ok(None) } else { source(i).map(Some) }).collect()
    }

    /// How many times as wide as usual the MLP of a layer is.
    pub(super) fn widening(&self, place: Place) -> Result<usize, ConfigError> {
        let Some(row) = self.family.attention.shared else { return Ok(1) };
        let wide = self.root.bool_or(row.wide, false)?;
        Ok(if wide && place.shared.is_some() { 2 } else { 1 })
    }

    /// The rotary tables: one for all layers, or one for layers without and one for layers with a window.
    pub(super) fn ropes(&self) -> Result<Vec<RopeSpec>, ConfigError> {
        let Some(row) = self.family.attention.rope else { return Ok(Vec::new()) };
        let context = RopeContext {
            head_dim: self.head_dims(None)?.head_dim,
            local_head_dim: self.dims.head_dim,
            max_position: self.dims.max_position,
            default_theta: row.theta,
            default_partial: row.partial,
            dim: row.dim,
            interleaved: row.interleaved,
        };
        match row.local {
            None => Ok(vec![RopeSpec::from_config(self.root, context)?]),
            Some(local) => RopeSpec::by_window(self.root, context, local).map(Vec::from),
        }
    }

    /// Which rotary table turns each layer.
    pub(super) fn turned(&self, windows: &[Option<usize>]) -> Result<Vec<Option<usize>>, ConfigError> {
        let Some(row) = self.family.attention.rope else { return Ok(vec![None; windows.len()]) };
        let sliding = windows.iter().any(Option::is_some);
        let on: Vec<bool> = match row.layers {
            RopeLayers::All => vec![true; windows.len()],
            RopeLayers::SlidingOrAll if !sliding => vec![true; windows.len()],
            RopeLayers::Sliding | RopeLayers::SlidingOrAll => windows.iter().map(Option::is_some).collect(),
            RopeLayers::Listed(key, (period_key, absent)) => {
                let period = self.root.opt_usize(period_key, limits::LAYERS)?.unwrap_or(absent);
                match self.root.opt_flags(key)? {
                    None => (0..windows.len()).map(|i| (i + 1) % period != 0).collect(),
                    Some(list) if list.len() >= windows.len() => list,
                    Some(_) => {
                        return Err(self
                            .root
                            .wrong(key, format!("a 0 or 1 for each of {} layers", windows.len())));
                    }
                }
            }
        };
        let table = |window: &Option<usize>| usize::from(row.local.is_some() && window.is_some());
        Ok(windows.iter().zip(on).map(|(window, on)| on.then(|| table(window))).collect())
    }

    /// The window of each layer.
    pub(super) fn windows(&self) -> Result<Vec<Option<usize>>, ConfigError> {
        let (root, n_layers) = (self.root, self.dims.layers);
        let width = |absent: Option<usize>| -> Result<Option<usize>, ConfigError> {
            let given = root.opt_usize("sliding_window", limits::POSITIONS)?;
            Ok(if root.is_null("sliding_window") { None } else { given.or(absent) })
        };
        // The width, and which layers have it where no list says so.
        let (width, rule): (_, Box<dyn Fn(usize) -> bool>) = match self.family.attention.window {
            WindowRow::Never => return Ok(vec![None; n_layers]),
            WindowRow::AllLayers(absent) => (width(absent)?, Box::new(|_| true)),
            WindowRow::FromLayer(first) => {
                let first = root.opt_usize(first, 0..=*limits::POSITIONS.end())?.unwrap_or(0);
                (width(None)?, Box::new(move |i| i >= first))
            }
            WindowRow::AllButEvery { period, period_field, absent } => {
                // A list of layers has the last word; what stands beside it may even be no number.
                let period = match root.has("layer_types") {
                    true => period,
                    false => root.opt_usize(period_field, limits::LAYERS)?.unwrap_or(period),
                };
                root.skip(period_field);
                (width(Some(absent))?, Box::new(move |i| (i + 1) % period != 0))
            }
            WindowRow::Listed { absent } => {
                let whole_at_last = self.layer_types()?.is_some_and(|list| list.last() == Some(&false));
                if !whole_at_last {
                    return Err(root.wrong("layer_types", "a list that ends with full_attention"));
                }
                (width(Some(absent))?, Box::new(|_| false))
            }
            WindowRow::BothSides { width, period } => {
                let width = root.opt_usize(width.0, limits::POSITIONS)?.unwrap_or(width.1);
                let period = root.opt_usize(period.0, limits::LAYERS)?.unwrap_or(period.1);
                (Some(width / 2 + 1), Box::new(move |i| i % period != 0))
            }
            WindowRow::IfUsed(used) => {
                let on = root.bool_or("use_sliding_window", false)?;
                // A width that is not in use may be anything; newer files say 0.
                let width = if on { width(Some(4096))? } else { None };
                root.skip("sliding_window");
                let first = root.opt_usize("max_window_layers", 0..=*limits::POSITIONS.end())?.unwrap_or(28);
                let rule = move |i: usize| match used {
                    UsedWindow::All => true,
                    UsedWindow::FromLayer => i >= first,
                    UsedWindow::EverySecondBefore => i.is_multiple_of(2) && i < first,
                };
                (width, Box::new(rule))
            }
        };
        match self.layer_types()? {
            None => Ok((0..n_layers).map(|i| width.filter(|_| rule(i))).collect()),
            Some(sliding) if width.is_none() && sliding.contains(&true) => Err(root
                .wrong("layer_types", "full_attention for every layer, since no sliding window is in use")),
            Some(sliding) => Ok(sliding.iter().map(|on| width.filter(|_| *on)).collect()),
        }
    }

    /// Which layers slide, if `layer_types` says it.
    fn layer_types(&self) -> Result<Option<Vec<bool>>, ConfigError> {
        let Some(list) = self.root.value("layer_types") else { return Ok(None) };
        let word = |value: &Value| match value.as_str() {
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            _ => None,
        };
        let sliding: Option<Vec<bool>> = list.as_array().and_then(|list| list.iter().map(word).collect());
        let wanted = || format!("a list of {} words full_attention or sliding_attention", self.dims.layers);
        sliding
            .filter(|list| list.len() == self.dims.layers)
            .map(Some)
            .ok_or_else(|| self.root.wrong("layer_types", wanted()))
    }
}
