//! Codes that are chosen with a calibration text.

use super::awq::{self, Matrix};
use super::capture::{Changed, Operand, Squares, Stage, squares, stages};
use super::folds::{Target, targets};
use super::gptq::Factor;
use super::round::{Coded, Rounded, Rounding, distance};
use crate::checkpoint::Checkpoint;
use crate::output::Output;
use anyhow::{Context, Result, ensure};
use nalgebra::DMatrix;
use sinter_frontend::build::BuildOptions;
use sinter_frontend::weights::Weights;
use sinter_ir::{DType, Graph, IdVec, Real, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How codes are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The nearest ones.
    Nearest,
    /// Column by column, the others making up for each (GPTQ).
    Gptq {
        /// Whether the columns with the largest inputs come first.
        by_size: bool,
    },
    /// Columns with large inputs multiplied first, and ranges cut (AWQ).
    Awq,
}

/// A text that stands for those that the model will see.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// How codes are chosen.
    pub method: Method,
    /// The tokens, in pieces that the model sees one by one.
    pub texts: Vec<Vec<u32>>,
}

impl Calibration {
    /// Cuts a text of a file into pieces of so many tokens; what is left at the end is one more if it is half as long.
    ///
    /// # Errors
    /// If there is no whole piece.
    pub fn new(method: Method, (file, tokens): (&Path, &[u32]), length: usize) -> Result<Self> {
        let (found, place) = (tokens.len(), file.display());
        ensure!(
            found >= length,
            "{place}: {found} tokens are too few to calibrate with; wanted {length} or more"
        );
        let pieces = tokens.chunks(length).filter(|piece| piece.len() * 2 >= length);
        Ok(Self { method, texts: pieces.map(<[u32]>::to_vec).collect() })
    }
}

/// A matrix with its codes.
pub(super) struct Found {
    pub(super) rounded: Rounded,
    /// The relative error of its products; none if nothing reached it.
    pub(super) products: Option<f64>,
    /// What the method could not do for it.
    pub(super) note: Option<&'static str>,
    /// The power of its inputs' sizes by which its columns were multiplied.
    pub(super) power: Option<f64>,
}

/// What came of a calibration.
#[derive(Default)]
pub(super) struct Calibrated {
    /// The quantised matrices.
    pub(super) matrices: BTreeMap<String, Found>,
    /// Vectors that took factors of columns.
    pub(super) vectors: BTreeMap<String, Vec<f32>>,
}

/// Chooses the codes of all matrices, layer by layer: each layer's inputs are those that the quantised layers before it give.
pub(super) fn calibrate(
    checkpoint: &Checkpoint,
    (rounding, calibration): (&Rounding, &Calibration),
    chosen: &BTreeSet<String>,
    output: &Output,
) -> Result<Calibrated> {
    let graph = checkpoint.model.build(BuildOptions::new(DType::F32))?;
    let stages = stages(&graph, chosen);
    let texts: Vec<&[u32]> = calibration.texts.iter().map(Vec::as_slice).collect();
    let mut run = Run {
        graph: &graph,
        uses: graph.uses(),
        weights: &checkpoint.model.weights,
        rounding,
        method: calibration.method,
        rows: BTreeMap::new(),
        changed: Changed::new(),
        calibrated: Calibrated::default(),
    };
    let bar = output.progress("calibrating", stages.len() as u64);
    for stage in &stages {
        let sums = squares(checkpoint, (&graph, stage), &run.changed, &texts)?;
        run.stage(stage, &sums)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(run.calibrated)
}

/// A calibration on its way through the layers.
struct Run<'a> {
    graph: &'a Graph,
    uses: IdVec<ValueId, u32>,
    weights: &'a Weights,
    rounding: &'a Rounding,
    method: Method,
    /// What the rows of matrices are divided by.
    rows: BTreeMap<String, Vec<f32>>,
    changed: Changed,
    calibrated: Calibrated,
}

/// What is done to the matrices that one operand is multiplied by.
#[derive(Default)]
struct Plan {
    /// The sum of x·xᵀ over its inputs, as [`awq::scaled`] gives it.
    squares: Option<DMatrix<f32>>,
    factor: Option<Factor>,
    /// The power and the factors of columns.
    columns: Option<(f64, Vec<f32>)>,
    note: Option<&'static str>,
}

impl Run<'_> {
    /// The operands of a stage, the last first: what they are divided by changes matrices before them.
    fn stage(&mut self, stage: &Stage, sums: &[Squares]) -> Result<()> {
        for (at, operand) in stage.iter().enumerate().rev() {
            let before: BTreeSet<&str> = stage[..at]
                .iter()
                .filter(|operand| !operand.experts())
                .flat_map(|operand| operand.weights.iter().map(|(name, _)| name.as_str()))
                .collect();
            let experts: BTreeSet<usize> = operand.weights.iter().map(|(_, expert)| *expert).collect();
            for expert in experts {
                let own: Vec<&str> = operand
                    .weights
                    .iter()
                    .filter(|(_, of)| *of == expert)
                    .map(|(name, _)| name.as_str())
                    .collect();
                self.matrices((operand, &before), &own, sums[at].get(&expert))?;
            }
        }
        Ok(())
    }

    /// The matrices that take the same inputs.
    fn matrices(
        &mut self,
        (operand, before): (&Operand, &BTreeSet<&str>),
        names: &[&str],
        sum: Option<&DMatrix<f64>>,
    ) -> Result<()> {
        let matrices: Vec<Matrix> = names.iter().map(|name| self.matrix(name)).collect::<Result<_>>()?;
        let plan = self.plan((operand, before), &matrices, sum).with_context(|| names.join(", "))?;
        for (name, matrix) in names.iter().zip(&matrices) {
            if self.calibrated.matrices.contains_key(*name) {
                // Several products share it; the first one has chosen.
                continue;
            }
            let (coded, values) = self.code(name, matrix, &plan);
            let found = Found {
                rounded: Rounded {
                    parts: self.rounding.packed(&coded, matrix.columns, matrix.dtype),
                    error: distance(&matrix.values, &values),
                },
                products: plan.squares.as_ref().and_then(|own| product_error(own, matrix, &values)),
                note: plan.note,
                power: plan.columns.as_ref().map(|(power, _)| *power),
            };
            self.calibrated.matrices.insert((*name).to_owned(), found);
            let shape = vec![values.len() / matrix.columns.max(1), matrix.columns];
            self.changed.insert((*name).to_owned(), (shape, values));
        }
        Ok(())
    }

    fn matrix(&self, name: &str) -> Result<Matrix> {
        let view = self.weights.get(name)?;
        let columns = *view.shape.last().context("a matrix without columns")?;
        Ok(Matrix { values: view.to_f32(), columns, dtype: view.dtype })
    }

    fn plan(
        &mut self,
        (operand, before): (&Operand, &BTreeSet<&str>),
        matrices: &[Matrix],
        sum: Option<&DMatrix<f64>>,
    ) -> Result<Plan> {
        let mut plan = Plan::default();
        let (Some(sum), Some(scaled)) = (sum, sum.and_then(awq::scaled)) else {
            plan.note = Some("no token of the calibration text reaches it: its codes are the nearest");
            return Ok(plan);
        };
        match self.method {
            Method::Nearest => {}
            Method::Gptq { by_size } => plan.factor = Some(Factor::new(sum, by_size)?),
            Method::Awq => match self.targets(operand, before) {
                Err(reason) => plan.note = Some(reason),
                Ok(targets) => {
                    let possible = |wanted: Vec<f32>| possible(&targets, self.weights, wanted);
                    let (power, factors) = awq::factors(&scaled, matrices, self.rounding, &possible);
                    self.divide(&targets, &factors)?;
                    plan.columns = Some((power, factors));
                }
            },
        }
        plan.squares = Some(scaled);
        Ok(plan)
    }

    /// Where factors of an operand's columns can go. Rows take them before their matrix is rounded alone.
    fn targets(&self, operand: &Operand, before: &BTreeSet<&str>) -> Result<Vec<Target>, &'static str> {
        if operand.experts() {
            return Err("experts choose their inputs, which take no factors");
        }
        if operand.weights.iter().any(|(name, _)| self.calibrated.matrices.contains_key(name)) {
            return Err("several products share it");
        }
        let found = targets((self.graph, &self.uses), (operand.value, operand.weights.len()), before)?;
        let readable = |target: &Target| match target {
            Target::Vector { name, .. } | Target::Rows(name) => self.weights.get(name).is_ok(),
        };
        let free = |target: &Target| match target {
            Target::Vector { name, .. } => !self.calibrated.vectors.contains_key(name),
            Target::Rows(name) => !self.rows.contains_key(name),
        };
        let usable = found.iter().all(|target| readable(target) && free(target));
        if usable { Ok(found) } else { Err("what its inputs come from takes no factors") }
    }

    /// Divides what an operand comes from by the factors of its columns.
    fn divide(&mut self, targets: &[Target], factors: &[f32]) -> Result<()> {
        for target in targets {
            match target {
                Target::Rows(name) => drop(self.rows.insert(name.clone(), factors.to_vec())),
                Target::Vector { name, one_plus } => {
                    let view = self.weights.get(name)?;
                    let divided = divided((&view.to_f32(), *one_plus), factors, view.dtype);
                    self.calibrated.vectors.insert(name.clone(), divided);
                }
            }
        }
        Ok(())
    }

    /// The codes of a matrix, and the numbers that they stand for in the place of its own.
    fn code(&self, name: &str, matrix: &Matrix, plan: &Plan) -> (Coded, Vec<f32>) {
        let k = matrix.columns;
        let ones = || vec![1.0; k];
        let columns = plan.columns.as_ref().map_or_else(ones, |(_, factors)| factors.clone());
        let mut times = matrix.times(&columns);
        let rows = self.rows.get(name);
        for (row, factor) in times.values.chunks_exact_mut(k).zip(rows.into_iter().flatten()) {
            row.iter_mut().for_each(|x| *x /= factor);
        }
        let coded = match (&plan.factor, &plan.squares) {
            (Some(factor), _) => factor.codes(self.rounding, &times.values, matrix.dtype),
            (None, Some(squares)) if self.method == Method::Awq => {
                awq::cut(squares, &times, (&columns, self.rounding))
            }
            (None, _) => self.rounding.nearest(&times.values, k, matrix.dtype),
        };
        let mut values = self.rounding.values(&coded, k);
        for (at, row) in values.chunks_exact_mut(k).enumerate() {
            let factor = rows.and_then(|rows| rows.get(at)).copied().unwrap_or(1.0);
            row.iter_mut().zip(&columns).for_each(|(x, column)| *x = *x * factor / column);
        }
        (coded, values)
    }
}

/// A vector of the checkpoint divided by factors, as it is stored.
fn divided((values, one_plus): (&[f32], bool), factors: &[f32], dtype: DType) -> Vec<f32> {
    let more = if one_plus { 1.0 } else { 0.0 };
    values.iter().zip(factors).map(|(x, factor)| ((x + more) / factor - more).stored(dtype)).collect()
}

/// The factors that the first vector among some targets has when it is stored: its own numbers over those divided. All factors
/// if there is none.
fn possible(targets: &[Target], weights: &Weights, wanted: Vec<f32>) -> Vec<f32> {
    for target in targets {
        let Target::Vector { name, one_plus } = target else { continue };
        let Ok(view) = weights.get(name) else { continue };
        let (before, more) = (view.to_f32(), if *one_plus { 1.0 } else { 0.0 });
        let after = divided((&before, *one_plus), &wanted, view.dtype);
        let factor = |(x, y): (&f32, &f32)| {
            Some((x + more) / (y + more)).filter(|factor| factor.is_finite() && *factor > 0.0)
        };
        return before.iter().zip(&after).map(|pair| factor(pair).unwrap_or(1.0)).collect();
    }
    wanted
}

/// The root of the squared differences' sum of the products over that of their squares; none if all products are 0.
fn product_error(squares: &DMatrix<f32>, wanted: &Matrix, found: &[f32]) -> Option<f64> {
    let whole = awq::size(squares, wanted.values.iter().copied());
    let apart = awq::size(squares, wanted.values.iter().zip(found).map(|(x, y)| x - y));
    (whole > 0.0).then(|| (apart.max(0.0) / whole).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_pieces() {
        let pieces = |count: u32| {
            let tokens: Vec<u32> = (0..count).collect();
            let calibration = Calibration::new(Method::Nearest, (Path::new("text"), &tokens), 8);
            calibration.map(|calibration| calibration.texts.iter().map(Vec::len).collect::<Vec<_>>())
        };
        assert_eq!(pieces(19).unwrap(), [8, 8]);
        assert_eq!(pieces(20).unwrap(), [8, 8, 4]);
        let error = pieces(7).unwrap_err().to_string();
        assert_eq!(error, "text: 7 tokens are too few to calibrate with; wanted 8 or more");
    }

    #[test]
    fn divided_vectors_are_those_that_are_stored() {
        let factors = [1.0, 3.0, 0.7];
        let found = divided((&[0.5, -1.0, 0.0], true), &factors, DType::Bf16);
        for ((x, factor), y) in [0.5f32, -1.0, 0.0].iter().zip(factors).zip(found) {
            let exact = (x + 1.0) / factor - 1.0;
            assert!((exact - y).abs() <= exact.abs() / 256.0 && y == y.stored(DType::Bf16), "{exact} {y}");
        }
    }
}
