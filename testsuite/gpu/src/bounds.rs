//! What a graph computes, and how far a device may be from it: an evaluation in double precision in which every number
//! carries a bound on the error of whoever computes it in f32, with values stored in narrower types where the graph says so.
//!
//! The bound follows from the operations alone (Higham, Accuracy and Stability of Numerical Algorithms, ch. 3): errors of
//! operands pass through an operation, and the operation adds its own. Nothing in it was measured.
//!
//! - An operation on f32 is within 2 units in the last place, 2⁻²² of its result: PTX's bound for approximate division,
//!   and more than an IEEE operation needs, which leaves room for the same terms in another order.
//! - A function adds 2⁻²¹ of its result, and rounds its argument: eˣ as 2 to a rounded power feels that.
//! - A sum of k terms adds k·2⁻²⁴ of the sum of magnitudes, in any order; on tensor cores, which cut off what they align,
//!   k·2⁻²². In products of matrices errors of different terms are taken as independent (Higham and Mary, A New Approach to
//!   Probabilistic Rounding Error Analysis): 3 times the root of the sum of squares, where that is less, which is more than
//!   5 standard deviations of errors that are evenly spread within their bounds; what the errors of a whole tensor may have
//!   in common goes with the result.
//! - A value stored in bf16 is rounded here as it is there, so it is exact unless a rounding boundary lies within its bound:
//!   then it may go either way. Attention may round its weights to the type of the values they are multiplied with, so a
//!   product of two types has one such rounding, 2⁻⁸, more.

use half::{bf16, f16};
use sinter_ir::{Binding, DType, Graph, Monoid, Op, Real, ScalarOp, Tensor, ValueId, evaluate_op};
use std::collections::BTreeMap;

/// An f32 operation's relative error.
const OPERATION: f64 = 1.0 / (1u64 << 22) as f64;
/// A function's.
const FUNCTION: f64 = 1.0 / (1u64 << 21) as f64;
/// That of a value's way into a function.
const ARGUMENT: f64 = 1.0 / (1u64 << 23) as f64;
/// A term's share in the error of a sum in f32.
const TERM: f64 = 1.0 / (1u64 << 24) as f64;
/// The same on tensor cores.
const TENSOR_TERM: f64 = 1.0 / (1u64 << 22) as f64;

/// A number and a bound on the error of a device's idea of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bounded {
    /// The number over the reals.
    pub value: f64,
    /// The bound.
    pub error: f64,
}

fn bounded(value: f64, error: f64) -> Bounded {
    // −∞ is a mask's: it is exact, and what is derived from it is so.
    Bounded { value, error: if value.is_finite() { error } else { 0.0 } }
}

/// Half a unit in the last place, relative.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 1.0 / 256.0,
        DType::F16 => 1.0 / 2048.0,
        DType::F8e4m3 => 1.0 / 16.0,
        DType::F8e5m2 => 1.0 / 8.0,
        DType::F8e8m0 => 1.0,
        DType::F32 | DType::U32 | DType::I32 | DType::U8 | DType::I8 | DType::Bool => 0.0,
    }
}

impl Real for Bounded {
    fn from_f64(value: f64) -> Self {
        bounded(value, 0.0)
    }
    fn to_f64(self) -> f64 {
        self.value
    }
    fn add(self, other: Self) -> Self {
        let value = self.value + other.value;
        bounded(value, self.error + other.error + OPERATION * value.abs())
    }
    fn sub(self, other: Self) -> Self {
        let value = self.value - other.value;
        bounded(value, self.error + other.error + OPERATION * value.abs())
    }
    fn mul(self, other: Self) -> Self {
        let value = self.value * other.value;
        let crossed = self.value.abs() * other.error + (other.value.abs() + other.error) * self.error;
        bounded(value, crossed + OPERATION * value.abs())
    }
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        let least = other.value.abs() - other.error;
        let passed =
            if least > 0.0 { (self.error + value.abs() * other.error) / least } else { f64::INFINITY };
        bounded(value, passed + OPERATION * value.abs())
    }
    /// All functions here are monotone but for sine and cosine, whose second derivative is at most 1.
    fn apply(self, f: fn(f64) -> f64) -> Self {
        let value = f(self.value);
        let error = self.error + ARGUMENT * self.value.abs();
        if self.value.is_infinite() || error == 0.0 {
            return bounded(value, FUNCTION * value.abs());
        }
        let ends = [f(self.value - error), f(self.value + error)].map(|end| (end - value).abs());
        bounded(value, ends[0].max(ends[1]) + error * error + FUNCTION * value.abs())
    }
    fn stored(self, dtype: DType) -> Self {
        let round: fn(f64) -> f64 = match dtype {
            DType::F32 | DType::Bool => return self,
            DType::U32 => return bounded(self.value.trunc().max(0.0), self.error),
            DType::Bf16 => |x| bf16::from_f64(x).to_f64(),
            DType::F16 => |x| f16::from_f64(x).to_f64(),
            DType::U8 => |x| f64::from(x as u8),
            DType::I8 => |x| f64::from(x as i8),
            DType::I32 => |x| f64::from(x as i32),
            DType::F8e4m3 => |x| f64::from((x as f32).stored(DType::F8e4m3)),
            DType::F8e5m2 => |x| f64::from((x as f32).stored(DType::F8e5m2)),
            DType::F8e8m0 => |x| f64::from((x as f32).stored(DType::F8e8m0)),
        };
        let value = round(self.value);
        let (low, high) = (round(self.value - self.error), round(self.value + self.error));
        bounded(value, (high - value).max(value - low))
    }
}

/// Tensors by name.
pub type Leaves = BTreeMap<String, Tensor<Bounded>>;

/// A tensor of what it holds.
pub fn exact(tensor: &Tensor<f32>) -> Tensor<Bounded> {
    let data = tensor.data.iter().map(|x| bounded(f64::from(*x), 0.0)).collect();
    Tensor::new(tensor.shape.clone(), data)
}

/// Evaluates a graph's outputs. None if a choice of the greatest is too close to be called.
pub fn outputs(graph: &Graph, binding: &Binding, leaves: &Leaves) -> Option<Leaves> {
    let mut values: Vec<Tensor<Bounded>> = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter() {
        let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
        let value = match node.op.leaf_name() {
            Some(name) => leaves[name].clone(),
            None => {
                let args: Vec<&Tensor<Bounded>> =
                    node.args.iter().map(|arg| &values[arg.0 as usize]).collect();
                let narrow = node.args.iter().map(|arg| graph.ty(*arg).dtype).collect::<Vec<_>>();
                if let Op::TopK { k } = node.op
                    && !clear(k, args[0])
                {
                    return None;
                }
                let plain = evaluate_op(&node.op, &args, &shape, id).expect("indices are in range");
                corrected(&node.op, plain, (&args, &narrow), id)
            }
        };
        values.push(value);
    }
    Some(graph.outputs.iter().map(|(name, value)| (name.clone(), values[value.0 as usize].clone())).collect())
}

/// Whether the k greatest of each row and their order are the same for all numbers within the bounds.
fn clear(k: usize, x: &Tensor<Bounded>) -> bool {
    let width = x.shape.last().copied().unwrap_or(1).max(1);
    x.data.chunks(width).all(|row| {
        let mut row = row.to_vec();
        row.sort_by(|a, b| b.value.total_cmp(&a.value));
        let apart = |pair: &[Bounded]| {
            let exact = pair[0].error + pair[1].error == 0.0;
            exact || pair[0].value - pair[1].value > pair[0].error + pair[1].error
        };
        row.windows(2).take(k).all(apart)
    })
}

/// The result with bounds that hold whatever the order of a sum and whichever operand is the greater.
fn corrected(
    op: &Op,
    plain: Tensor<Bounded>,
    (args, dtypes): (&[&Tensor<Bounded>], &[DType]),
    id: ValueId,
) -> Tensor<Bounded> {
    let of = |op: &Op, args: &[&Tensor<f64>]| {
        evaluate_op(op, args, &plain.shape, id).expect("indices are in range").data
    };
    let part = |at: usize, f: &dyn Fn(&Bounded) -> f64| {
        Tensor::new(args[at].shape.clone(), args[at].data.iter().map(f).collect::<Vec<f64>>())
    };
    let errors: Vec<f64> = match op {
        Op::Contract { .. } => contracted(op, &plain, (args, dtypes), id),
        Op::Reduce { monoid: Monoid::Sum, axis } => {
            let sum = Op::Reduce { monoid: Monoid::Sum, axis: *axis };
            let passed = of(&sum, &[&part(0, &|x| x.error)]);
            let all = of(&sum, &[&part(0, &|x| x.value.abs() + x.error)]);
            let own = args[0].shape[*axis] as f64 * TERM;
            passed.iter().zip(all).map(|(passed, all)| passed + own * all).collect()
        }
        Op::Reduce { monoid: Monoid::Max, axis } => {
            of(&Op::Reduce { monoid: Monoid::Max, axis: *axis }, &[&part(0, &|x| x.error)])
        }
        Op::Map(ScalarOp::Max | ScalarOp::Min) => {
            of(&Op::Map(ScalarOp::Max), &[&part(0, &|x| x.error), &part(1, &|x| x.error)])
        }
        _ => return plain,
    };
    let data = plain.data.iter().zip(errors).map(|(x, error)| bounded(x.value, error)).collect();
    Tensor::new(plain.shape, data)
}

/// Bounds on the errors of a product of matrices.
fn contracted(
    op: &Op,
    plain: &Tensor<Bounded>,
    (args, dtypes): (&[&Tensor<Bounded>], &[DType]),
    id: ValueId,
) -> Vec<f64> {
    let Op::Contract { spec } = op else { return Vec::new() };
    let mixed = if dtypes[0] == dtypes[1] { 0.0 } else { rounding(dtypes[0]).max(rounding(dtypes[1])) };
    let own = |at: usize| if dtypes[at] == DType::F32 { mixed } else { 0.0 };
    let part = |at: usize, f: &dyn Fn(f64, f64) -> f64| {
        let (own, x) = (own(at), args[at]);
        let each = |x: &Bounded| f(x.value.abs(), x.error + own * (x.value.abs() + x.error));
        Tensor::new(x.shape.clone(), x.data.iter().map(each).collect::<Vec<f64>>())
    };
    let product = |a: &Tensor<f64>, b: &Tensor<f64>| -> Vec<f64> {
        if a.data.iter().all(|x| *x == 0.0) || b.data.iter().all(|x| *x == 0.0) {
            return vec![0.0; plain.data.len()];
        }
        evaluate_op(op, &[a, b], &plain.shape, id).expect("shapes agree").data
    };
    let (most, error) = (|x: f64, e: f64| x + e, |_: f64, e: f64| e);
    let all = product(&part(0, &most), &part(1, &most));
    let linear: Vec<f64> = product(&part(0, &most), &part(1, &error))
        .into_iter()
        .zip(product(&part(0, &error), &part(1, &|x, _| x)))
        .map(|(x, y)| x + y)
        .collect();
    let squares: Vec<f64> = product(&part(0, &|x, e| (x + e) * (x + e)), &part(1, &|_, e| e * e))
        .into_iter()
        .zip(product(&part(0, &|_, e| e * e), &part(1, &|x, _| x * x)))
        .map(|(x, y)| x + y)
        .collect();
    // What the errors of a whole operand are in relation to it.
    let shared = |at: usize| {
        let square = |x: Tensor<f64>| x.data.iter().map(|x| x * x).sum::<f64>();
        (square(part(at, &error)) / square(part(at, &|x, _| x)).max(f64::MIN_POSITIVE)).sqrt()
    };
    let shared = shared(0) + shared(1);
    let extent = |label| spec.a.find(label).map_or(1, |axis| args[0].shape[axis]);
    let terms = spec.summed().chars().map(extent).product::<usize>() as f64 + 1.0;
    let each = if dtypes.contains(&DType::F32) && mixed == 0.0 { TERM } else { TENSOR_TERM };
    let bound = |at: usize| {
        let passed = linear[at].min(3.0 * squares[at].sqrt() + shared * plain.data[at].value.abs());
        passed + (2.0 * terms).min(3.0 * terms.sqrt()) * each * all[at]
    };
    (0..plain.data.len()).map(bound).collect()
}
