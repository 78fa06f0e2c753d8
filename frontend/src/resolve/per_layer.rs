//! The branch behind the MLP that mixes in an embedding of the token for each layer.

use super::Resolver;
use crate::config::{ConfigError, limits};
use crate::family::*;
use crate::spec::*;

/// The part of a tensor of all layers that belongs to one, by the name that it has in the graph.
fn part_name(tensor: &str, layer: usize) -> String {
    format!("{tensor}[{layer}]")
}

impl Resolver<'_> {
    /// The row of the table and the width of the branch, if there is one.
    fn per_layer_row(&self) -> Result<Option<(&'static PerLayerRow, usize)>, ConfigError> {
        let Some(row) = &self.family.per_layer else { return Ok(None) };
        let width = self.root.opt_usize(row.width, 0..=*limits::WIDTH.end())?.unwrap_or(0);
        // Without the branch there is no table.
        self.root.skip(row.vocab);
        Ok((width > 0).then_some((row, width)))
    }

    fn per_layer_rows(&self, row: &PerLayerRow) -> Result<usize, ConfigError> {
        // Every token looks up a row.
        self.root.usize(row.vocab, self.dims.vocab..=*limits::VOCABULARY.end())
    }

    /// The branch of a layer.
    pub(super) fn per_layer(&self, i: usize) -> Result<Option<PerLayerSpec>, ConfigError> {
        let Some((row, width)) = self.per_layer_row()? else { return Ok(None) };
        let hidden = self.dims.hidden;
        let weight = |name: &str| format!("{}.weight", self.name(name, i));
        let norm = |name: &str, width| NormSpec {
            kind: self.family.norm.kind,
            weight: Some(weight(name)),
            one_plus: self.family.norm.one_plus,
            bias: None,
            width,
            eps: self.dims.eps,
        };
        let [tokens, project, project_norm] = row.tables;
        let [gate, up, after] = row.branch;
        let linear = |name: &str, widths| self.linear(self.name(name, i), false, widths);
        Ok(Some(PerLayerSpec {
            tokens: part_name(&weight(tokens), i),
            rows: self.per_layer_rows(row)?,
            tokens_scale: (width as f64).sqrt(),
            project: LinearSpec {
                weight: part_name(&weight(project), i),
                ..linear(project, (hidden, width))
            },
            project_scale: 1.0 / (hidden as f64).sqrt(),
            norm: norm(project_norm, width),
            scale: std::f64::consts::FRAC_1_SQRT_2,
            gate: linear(gate, (hidden, width)),
            activation: self.activation()?,
            up: linear(up, (width, hidden)),
            after: norm(after, hidden),
        }))
    }

    /// What the graph calls the layers' parts of the tensors of all layers.
    pub(super) fn parts(&self) -> Result<std::collections::BTreeMap<String, PartSpec>, ConfigError> {
        let Some((row, width)) = self.per_layer_row()? else { return Ok(Default::default()) };
        let (layers, hidden) = (self.dims.layers, self.dims.hidden);
        let all = layers * width;
        let tensors =
            [(row.tables[0], [self.per_layer_rows(row)?, all], 1), (row.tables[1], [all, hidden], 0)];
        let parts = tensors.into_iter().flat_map(|(name, shape, axis)| {
            let tensor = format!("{}.weight", self.name(name, 0));
            (0..layers).map(move |i| {
                let part = PartSpec { tensor: tensor.clone(), shape, axis, start: i * width, len: width };
                (part_name(&tensor, i), part)
            })
        });
        Ok(parts.collect())
    }
}
