//! Quantised checkpoints: what `quantization_config` says, and which tensors a matrix is made of.
//!
//! A scheme is a row of [`schemes::ROWS`]: a name, what is read from the configuration, and the tensors that a module's
//! weight is stored as. What the tensors mean is written as an expression of primitives by
//! [`build`](crate::build::build); nothing after the front end knows a scheme.

mod schemes;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use sinter_ir::{Dim, Graph, Op, ValueId};
use thiserror::Error;

use crate::config::{ConfigError, RawConfig};
use crate::source::shorten;
use crate::weights::{Weights, WeightsError};
use schemes::Scheme;

pub(crate) use stored::tables;
pub use stored::{Codes, FP4, InBlocks, Minima, Nested, POWERS, Scales, StoredMatrix, Zeros};

/// Why quantised weights cannot be read.
#[derive(Debug, Error)]
pub enum QuantError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tensor.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A scheme that no row of the table describes.
    #[error("{place}: unknown quant_method `{found}`; this build reads {}", known.join(", "))]
    Unknown {
        /// The file.
        place: String,
        /// The value in the file.
        found: String,
        /// The schemes in the table.
        known: Vec<&'static str>,
    },
    /// A tensor that contradicts the configuration.
    #[error("tensor `{tensor}`: {reason}; quantization_config and the weights do not belong together")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What was wanted and what was found.
        reason: String,
    },
}

/// How the matrices of a checkpoint are quantised.
#[derive(Clone, Debug)]
pub struct Quantisation {
    scheme: Scheme,
    /// What the user should be told.
    pub notes: Vec<String>,
}

/// The fields of `config.json` that hold the configuration, the old name last.
const FIELDS: [&str; 2] = ["quantization_config", "compression_config"];

impl Quantisation {
    /// What `config.json` says; none if nothing is quantised.
    pub fn read(config: &RawConfig) -> Result<Option<Self>, QuantError> {
        let root = config.root();
        let given = FIELDS.iter().find_map(|field| Some((*field, root.value(field)?)));
        let Some((field, value)) = given else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| root.wrong(field, "an object"))?;
        let inner = config.nested(field, map);
        let method = inner.root().str("quant_method")?;
        let row = schemes::ROWS.iter().find(|row| row.name == method).ok_or_else(|| QuantError::Unknown {
            place: inner.place().to_owned(),
            found: shorten(method),
            known: schemes::ROWS.iter().map(|row| row.name).collect(),
        })?;
        row.bookkeeping.iter().for_each(|field| inner.root().skip(field));
        let (scheme, notes) = (row.read)(&inner)?;
        inner.finish()?;
        Ok(Some(Self { scheme, notes }))
    }

    /// Whether the checkpoint holds a weight, as it is or quantised.
    pub fn holds(&self, name: &str, weights: &Weights) -> bool {
        weights.contains(name) || weights.contains(&self.scheme.primary(name))
    }

    /// The matrices of a graph that are stored quantised.
    pub fn locate(
        &self,
        graph: &Graph,
        weights: &Weights,
    ) -> Result<BTreeMap<String, StoredMatrix>, QuantError> {
        let mut found = BTreeMap::new();
        let turned = inputs_first(graph);
        for (value, node) in graph.nodes.iter() {
            let Op::Param { name, shape, .. } = &node.op else { continue };
            let Some((rows, columns)) = rows_and_columns(shape, &self.scheme) else { continue };
            let (rows, columns) = if turned.contains(&value) { (columns, rows) } else { (rows, columns) };
            let plain = weights.stored(name).is_some_and(|(dtype, _)| crate::weights::is_plain(dtype));
            if plain || !weights.contains(&self.scheme.primary(name)) {
                continue;
            }
            found.insert(name.clone(), self.scheme.matrix(name, (rows, columns), weights)?);
        }
        Ok(found)
    }
}

/// The rows and columns of a parameter that may be stored quantised: outputs and inputs of a matrix, or of all matrices of
/// a stack `[E, K, N]`, of which some schemes store one tensor, outputs first.
fn rows_and_columns(shape: &[Dim], scheme: &Scheme) -> Option<(usize, usize)> {
    let extents: Vec<usize> = shape.iter().map(|dim| dim.coeff as usize).collect();
    match extents[..] {
        [rows, columns] => Some((rows, columns)),
        [count, n_in, n_out] if scheme.has_stacks() => Some((count * n_out, n_in)),
        _ => None,
    }
}

/// The matrices that products read inputs first; a quantised one lies outputs first all the same.
fn inputs_first(graph: &Graph) -> BTreeSet<ValueId> {
    let is_turned = |op: &Op| matches!(op, Op::Contract { spec } if spec.to_string() == "tk,kn->tn");
    graph.nodes.values().filter(|node| is_turned(&node.op)).map(|node| node.args[1]).collect()
}
