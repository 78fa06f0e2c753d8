//! What goes into the products of a model, layer by layer, on a calibration text.
//!
//! The graph is cut off where the inputs of a layer's products are known, they become its result, and it goes the way of all
//! graphs: compiled, loaded, run. The weights of the layers before are those that were quantised already, so each layer
//! makes up for what the ones before it lost (Frantar et al. 2022, section 3).

use super::products::{Form, products};
use crate::checkpoint::{Aligned, Checkpoint, Tensors, raw};
use crate::pipeline;
use anyhow::{Context, Result, ensure};
use nalgebra::DMatrix;
use sinter_ir::{DType, Dim, Graph, PAGE, Plan, Sym, ValueId, WeightDef};
use sinter_runtime::{HostConfig, HostModel, Limits, Rows, Session, WeightBytes};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A value that products take.
#[derive(Debug)]
pub(super) struct Operand {
    /// `[T, K]`, or `[T, k, K]` where each of a token's experts has a row of its own.
    pub(super) value: ValueId,
    /// The experts that a token takes, `u32[T, k]`, if the weights are those of experts.
    experts: Option<ValueId>,
    /// The weights that it is multiplied by, each with the number of its expert, or 0.
    pub(super) weights: Vec<(String, usize)>,
}

impl Operand {
    /// Whether the weights are those of experts.
    pub(super) fn experts(&self) -> bool {
        self.experts.is_some()
    }
}

/// Operands that are looked at together.
pub(super) type Stage = Vec<Operand>;

/// The matrices of f32 that stand in for tensors of the checkpoint, row-major, with their shapes.
pub(super) type Changed = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The products with the chosen weights, those of one layer together, in the order of the graph.
pub(super) fn stages(graph: &Graph, chosen: &BTreeSet<String>) -> Vec<Stage> {
    let mut stages: Vec<(Option<usize>, Stage)> = Vec::new();
    for product in products(graph) {
        let numbered = product.weights.into_iter().enumerate().map(|(expert, name)| (name, expert));
        let weights: Vec<_> = numbered.filter(|(name, _)| chosen.contains(name)).collect();
        let Some((first, _)) = weights.first() else { continue };
        let layer = first.split('.').find_map(|word| word.parse().ok());
        if stages.last().is_none_or(|(last, _)| layer.is_none() || *last != layer) {
            stages.push((layer, Stage::new()));
        }
        let Some((_, stage)) = stages.last_mut() else { continue };
        let experts = match product.form {
            Form::Experts(experts) => Some(experts),
            Form::Dense | Form::InputsFirst | Form::Stacked => None,
        };
        let known = |operand: &&mut Operand| (operand.value, operand.experts) == (product.operand, experts);
        match stage.iter_mut().find(known) {
            Some(operand) => operand.weights.extend(weights),
            None => stage.push(Operand { value: product.operand, experts, weights }),
        }
    }
    stages.into_iter().map(|(_, stage)| stage).collect()
}

/// The sums of x·xᵀ over the inputs x of an operand, `[K, K]`, by the number of the expert that takes them.
pub(super) type Squares = BTreeMap<usize, DMatrix<f64>>;

/// The sums for each operand of a stage. An expert that no token takes has none.
pub(super) fn squares(
    checkpoint: &Checkpoint,
    (graph, stage): (&Graph, &Stage),
    changed: &Changed,
    texts: &[&[u32]],
) -> Result<Vec<Squares>> {
    let cut = cut_off(graph, stage)?;
    let mut model = load(checkpoint, &cut, changed, texts.iter().map(|text| text.len()).max().unwrap_or(1))?;
    let parts: Vec<Part> = stage.iter().map(|operand| Part::new(graph, operand)).collect();
    let all: usize = parts.iter().map(Part::width).sum();
    let mut sums: Vec<Squares> = stage.iter().map(|_| Squares::new()).collect();
    for text in texts {
        let rows = if checkpoint.info.decoder {
            Session::new(&mut model).feed(text, Rows::None)?.to_vec()
        } else {
            sinter_runtime::encode(&mut model, text)?.to_vec()
        };
        ensure!(rows.len() == text.len() * all, "{} numbers, wanted {all} for each token", rows.len());
        let found = rows.iter().position(|x| !x.is_finite());
        ensure!(found.is_none(), "the model's numbers are not finite on the calibration text");
        let mut from = 0;
        for (sums, part) in sums.iter_mut().zip(&parts) {
            part.add(rows.chunks_exact(all).map(|row| &row[from..from + part.width()]), sums);
            from += part.width();
        }
    }
    Ok(sums)
}

/// What one operand contributes to the result of a cut graph.
struct Part {
    /// K.
    columns: usize,
    /// Rows of a token in the operand: one, or one for each of its experts.
    rows: usize,
    /// Experts of a token; none for a dense product.
    experts: usize,
}

impl Part {
    fn new(graph: &Graph, operand: &Operand) -> Self {
        let extent = |value, axis: usize| {
            graph.ty(value).shape.get(axis).and_then(|dim: &Dim| dim.as_const()).unwrap_or(1) as usize
        };
        let rank = graph.ty(operand.value).rank();
        Self {
            columns: extent(operand.value, rank.saturating_sub(1)),
            rows: if rank > 2 { extent(operand.value, 1) } else { 1 },
            experts: operand.experts.map_or(0, |experts| extent(experts, 1)),
        }
    }

    fn width(&self) -> usize {
        self.rows * self.columns + self.experts
    }

    /// Adds what some tokens have.
    fn add<'a>(&self, tokens: impl Iterator<Item = &'a [f32]>, sums: &mut Squares) {
        let mut inputs: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for token in tokens {
            let (numbers, experts) = token.split_at(self.rows * self.columns);
            match self.experts {
                0 => inputs.entry(0).or_default().extend(numbers),
                _ => experts.iter().enumerate().for_each(|(at, expert)| {
                    let row = if self.rows > 1 { at * self.columns } else { 0 };
                    inputs.entry(*expert as usize).or_default().extend(&numbers[row..row + self.columns]);
                }),
            }
        }
        for (expert, inputs) in inputs {
            // Columns are tokens: what nalgebra keeps together is one row here.
            let inputs = DMatrix::from_vec(self.columns, inputs.len() / self.columns.max(1), inputs);
            let sum = (&inputs * inputs.transpose()).cast::<f64>();
            *sums.entry(expert).or_insert_with(|| DMatrix::zeros(self.columns, self.columns)) += sum;
        }
    }
}

/// The part of a graph that a stage's operands need, with them and the numbers of their experts, one after the other, as the
/// result.
fn cut_off(graph: &Graph, stage: &Stage) -> Result<Graph> {
    let wanted: Vec<ValueId> =
        stage.iter().flat_map(|operand| std::iter::once(operand.value).chain(operand.experts)).collect();
    let mut needed = BTreeSet::new();
    let mut open = wanted.clone();
    while let Some(value) = open.pop() {
        if needed.insert(value) {
            open.extend(&graph.node(value).args);
        }
    }
    let mut cut = Graph::new(&graph.name);
    let mut new = BTreeMap::new();
    for value in graph.nodes.ids().filter(|value| needed.contains(value)) {
        let node = graph.node(value);
        let args: Vec<ValueId> = node.args.iter().map(|arg| new[arg]).collect();
        new.insert(value, cut.push(node.op.clone(), &args)?);
    }
    let mut rows = Vec::with_capacity(wanted.len());
    for value in &wanted {
        let numbers = cut.cast(new[value], DType::F32)?;
        let width: u64 = graph.ty(*value).shape.iter().skip(1).filter_map(|dim| dim.as_const()).product();
        rows.push(cut.reshape(numbers, &[Sym::T.into(), Dim::of(width as usize)])?);
    }
    let result = match rows[..] {
        [only] => only,
        _ => cut.concat(1, &rows)?,
    };
    cut.output("hidden", result);
    for (name, value) in graph.outputs.iter().filter(|(_, value)| needed.contains(value)) {
        cut.output(name, new[value]);
    }
    Ok(cut)
}

/// Loads a graph for one text at a time.
fn load(checkpoint: &Checkpoint, graph: &Graph, changed: &Changed, longest: usize) -> Result<HostModel> {
    let plan = sinter_passes::compile(graph, &sinter_passes::Options::default())?.plan;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let kernels = pipeline::compile_untuned(&plan, threads)?;
    let weights = weights(checkpoint, &plan, changed)?;
    let pages = if checkpoint.info.decoder { longest.div_ceil(PAGE as usize) } else { 0 };
    let limits = Limits {
        vocab: checkpoint.info.vocab,
        max_positions: longest,
        max_tokens: longest,
        max_sequences: 1,
        pages,
    };
    let config = HostConfig { threads, limits, profile: false };
    HostModel::new(Arc::new(plan), kernels, weights, config).context("the part of the model up to a layer")
}

fn weights(checkpoint: &Checkpoint, plan: &Plan, changed: &Changed) -> Result<Vec<WeightBytes>> {
    let one = |weight: &WeightDef| -> Result<WeightBytes> {
        let leaves = weight.source.nodes.values().filter_map(|node| node.op.leaf_name());
        let tensor = |name: &str| match changed.get(name) {
            Some((shape, values)) => {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Some((DType::F32, shape.clone(), Cow::Owned(bytes)))
            }
            None => checkpoint.model.tensor(name),
        };
        let tensors: Tensors<'_> = leaves.filter_map(|name| Some((name, tensor(name)?))).collect();
        let packed = sinter_codegen_host::pack(weight, &|name: &str| raw(&tensors, name))?;
        Ok(WeightBytes::new(Arc::new(Aligned(packed.bytes))))
    };
    plan.weights.values().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_for_the_experts_that_take_them() {
        // Two columns, two experts of three a token, a row for each.
        let (own, mut sums) = (Part { columns: 2, rows: 2, experts: 2 }, Squares::new());
        let tokens = [[1.0f32, 2.0, 3.0, 4.0, 0.0, 2.0], [5.0, 6.0, 7.0, 8.0, 2.0, 0.0]];
        own.add(tokens.iter().map(|token| &token[..]), &mut sums);
        assert_eq!(sums.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(sums[&0].as_slice(), [1.0 + 49.0, 2.0 + 56.0, 2.0 + 56.0, 4.0 + 64.0]);
        assert_eq!(sums[&2].as_slice(), [9.0 + 25.0, 12.0 + 30.0, 12.0 + 30.0, 16.0 + 36.0]);
        // One row that both experts take.
        let (same, mut sums) = (Part { columns: 1, rows: 1, experts: 2 }, Squares::new());
        same.add([&[3.0f32, 1.0, 0.0][..]].into_iter(), &mut sums);
        assert_eq!((sums[&0][(0, 0)], sums[&1][(0, 0)]), (9.0, 9.0));
    }
}
