//! Weights quantised while they are loaded: the tensors that a quantised copy would have, made when they are asked for.

use super::products::{Choice, choose_at_load};
use super::{Format, Rounding, module};
use crate::cli::QuantArg;
use anyhow::{Result, bail};
use sinter_frontend::model::Model;
use sinter_frontend::quant::{Codes, Scales, StoredMatrix, Zeros};
use sinter_frontend::weights::Weights;
use sinter_ir::DType;
use std::collections::BTreeMap;

/// Columns that share a scale of 4-bit codes.
const GROUP: usize = 64;

/// A tensor that is not in the checkpoint: type, shape and bytes.
pub type Made = (DType, Vec<usize>, Vec<u8>);

/// What becomes of a model's weights.
pub struct Quantised {
    /// How those that are quantised are stored.
    pub stored: BTreeMap<String, StoredMatrix>,
    /// Those that stay as they are, and why.
    pub left: Vec<(String, &'static str)>,
}

/// The matrices of a model that are quantised while they are loaded.
pub struct AtLoad {
    rounding: Rounding,
    /// The weight and the part of it that each made tensor is.
    parts: BTreeMap<String, (String, usize)>,
}

impl AtLoad {
    /// Every weight of a product, the head too. None for [`QuantArg::None`].
    ///
    /// # Errors
    /// If the model is quantised already, or nothing of it can be quantised.
    pub fn new(model: &Model, quant: QuantArg) -> Result<Option<(Self, Quantised)>> {
        let (format, group) = match quant {
            QuantArg::None => return Ok(None),
            QuantArg::Int8 => (Format::Int8, None),
            QuantArg::Int4 => (Format::Int4, Some(GROUP)),
        };
        if !model.spec.stored.is_empty() {
            bail!("the model is quantised already; leave out --quant");
        }
        let rounding = Rounding { format, group, asymmetric: false };
        let Choice { chosen, left } = choose_at_load(model, &rounding)?;
        if chosen.is_empty() {
            bail!("no weight of the model can be quantised: leave out --quant");
        }
        let (mut parts, mut stored) = (BTreeMap::new(), BTreeMap::new());
        for name in &chosen {
            let view = model.weights.get(name)?;
            let &[rows, columns] = view.shape else {
                bail!("tensor `{name}`: wanted a matrix, found shape {:?}", view.shape)
            };
            let (codes, scales) =
                (format!("{}.weight_packed", module(name)), format!("{}.weight_scale", module(name)));
            let groups = rounding.groups(columns);
            stored.insert(
                name.clone(),
                StoredMatrix {
                    rows,
                    columns,
                    codes: Codes::AlongInputs { name: codes.clone(), bits: rounding.bits() },
                    zeros: Zeros::Number(f64::from(1u32 << (rounding.bits() - 1))),
                    scales: Scales::Grouped {
                        name: scales.clone(),
                        shape: vec![rows, groups],
                        groups,
                        turned: false,
                        order: None,
                        factor: 1.0,
                    },
                    minima: None,
                },
            );
            parts.insert(codes, (name.clone(), 0));
            parts.insert(scales, (name.clone(), 1));
        }
        Ok(Some((Self { rounding, parts }, Quantised { stored, left: left.into_iter().collect() })))
    }

    /// Those of some tensors that are made, each matrix rounded once.
    pub fn made<'n>(&self, names: &[&'n str], weights: &Weights) -> Vec<(&'n str, Made)> {
        let mut rounded: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
        let mut made = Vec::new();
        for name in names {
            let Some((weight, part)) = self.parts.get(*name) else { continue };
            let Ok(view) = weights.get(weight) else { continue };
            let (rows, columns) = (view.shape[0], view.shape[1]);
            let parts = rounded
                .entry(weight)
                .or_insert_with(|| self.rounding.apply(&view.to_f32(), columns, view.dtype).parts);
            let bytes = std::mem::take(&mut parts[*part]);
            let made_of = match part {
                0 => (DType::I32, vec![rows, bytes.len() / 4 / rows.max(1)]),
                _ => (view.dtype, vec![rows, self.rounding.groups(columns)]),
            };
            made.push((*name, (made_of.0, made_of.1, bytes)));
        }
        made
    }
}
