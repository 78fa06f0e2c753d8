//! The online softmax on fragments of `mma.sync.m16n8k16` (PTX ISA, matrix fragments for mma.m16n8k16).
//!
//! A warp holds 16 rows by 64 positions as eight fragments of four numbers: lane `4g + q` has rows `g` and `g + 8` at
//! positions `8n + 2q` and `8n + 2q + 1`. Weights become the first operand of the product with values where they are:
//! fragments `2i` and `2i + 1` are the two halves of step `i`.

use super::Job;
use super::rows::{Range, Row};
use crate::emit::{Bit, Cache, F32, Float, Int, K, Shared};
use crate::lower::{Scope, Val};
use sinter_codegen_schedule::attend::POSITIONS;
use sinter_ir::{Atom, Expr, ExprId, Index, ScalarOp};

/// Fragments of a block of positions.
pub(super) const FRAGMENTS: usize = POSITIONS as usize / 8;

/// Scores of a block.
pub(super) type Scores<'k> = Vec<[Float<'k>; 4]>;
/// Weights of a block in bf16, one operand for each 16 positions.
pub(super) type Weights<'k> = [[Int<'k>; 4]; FRAGMENTS / 2];
/// The maxima and sums of two rows, and the weighted sums.
pub(super) type State<'k> = ([Float<'k>; 2], [Float<'k>; 2], Vec<[Float<'k>; 4]>);

/// Products of queries and keys, eight positions a fragment.
#[derive(Clone)]
pub(super) struct Products<'k> {
    pub(super) sums: Vec<[Float<'k>; 4]>,
    /// The scales of keys that are codes, where [`Stages::scales`](super::stage::Stages::scales) says.
    pub(super) scales: Option<Shared<'k>>,
}

/// The scales of a lane's two positions of a fragment.
fn scales_of(scales: Shared<'_>, fragment: usize) -> [Float<'_>; 2] {
    scales.kernel().load_vector::<F32, 2>(scales.at(32 * fragment as i32), Cache::Any)
}

impl<'k> Products<'k> {
    /// The scope in which a product of a fragment is known, and the scale of its key.
    fn within<'a>(&self, job: &Job<'_>, scope: &Scope<'a, 'k>, (n, at): (usize, usize)) -> Scope<'a, 'k> {
        let scope = scope.with_result(job.attend.dot, self.sums[n][at]);
        match (self.scales, &job.attend.coded) {
            (Some(scales), Some(coded)) => {
                scope.with_value(coded.key_scale.0, Val::Number(scales_of(scales, n)[at % 2]))
            }
            _ => scope,
        }
    }
}

/// Nothing added up yet.
pub(super) fn nothing<'k>(k: K<'k>, fragments: usize) -> State<'k> {
    let zero = k.float(0.0);
    ([k.float(f32::NEG_INFINITY); 2], [zero; 2], vec![[zero; 4]; fragments])
}

/// Nothing added up yet but what the rows' softmax starts with; the sums are those of whole rows.
pub(super) fn beginning<'k>(job: &Job<'_>, rows: &[Row<'_, 'k>; 2], fragments: usize) -> State<'k> {
    let k = rows[0].scope.k;
    let starts = [0, 1].map(|at| rows[at].scope.softmax_start(job.attend.start));
    (starts.map(|start| start.0), starts.map(|start| start.1), nothing(k, fragments).2)
}

/// The scores of two rows at a part of a block's positions that begins at `start`, eight positions a fragment. Where the
/// mask hides none of them from any row of the warp, it is not asked of each.
pub(super) fn score<'k>(
    job: &Job<'_>,
    rows: &[Row<'_, 'k>; 2],
    range: Range<'k>,
    start: Int<'k>,
    products: Products<'k>,
) -> Vec<[Float<'k>; 4]> {
    let k = start.kernel();
    let Some(mask) = monotone_mask(job) else { return masked(job, rows, range, start, products) };
    let last = start + (8 * products.sums.len() as i32 - 1);
    let mut open = start.ge(range.from) & last.lt(range.to);
    for row in rows {
        for end in [start, last] {
            open = open & row.scope.with_axis(job.attend.context, end).value(mask).truth(k);
        }
    }
    let first = start + ((k.lane() & 3) << 1);
    k.choose(
        k.all_lanes(open),
        || {
            let shown = [0, 1].map(|half: usize| rows[half].scope.with_value(mask, Val::Truth(k.bit(true))));
            let one = |n: usize, at: usize| {
                let scope = shown[at / 2].with_axis(job.attend.context, first + (8 * n + at % 2) as i32);
                products.within(job, &scope, (n, at)).value(job.attend.score).number(k)
            };
            (0..products.sums.len()).map(|n| std::array::from_fn(|at| one(n, at))).collect()
        },
        || masked(job, rows, range, start, products.clone()),
    )
}

/// The same where each position may be hidden from each row.
fn masked<'k>(
    job: &Job<'_>,
    rows: &[Row<'_, 'k>; 2],
    range: Range<'k>,
    start: Int<'k>,
    products: Products<'k>,
) -> Vec<[Float<'k>; 4]> {
    let k = start.kernel();
    let first = start + ((k.lane() & 3) << 1);
    let mut scores = products.sums.clone();
    for (n, scores) in scores.iter_mut().enumerate() {
        for column in 0..2 {
            let position = first + (8 * n + column) as i32;
            let inside = position.ge(range.from) & position.lt(range.to);
            let position = position.least(range.to - 1).greatest(range.from);
            for (half, row) in rows.iter().enumerate() {
                let at = 2 * half + column;
                let scope = row.scope.with_axis(job.attend.context, position);
                let score = products.within(job, &scope, (n, at)).value(job.attend.score).number(k);
                scores[at] = inside.select(score, k.float(f32::NEG_INFINITY));
            }
        }
    }
    scores
}

/// The condition of the score's outermost selection against −∞, if it holds for all positions between two for which it
/// holds: comparisons of whole numbers that are linear in the position, and all of several such.
fn monotone_mask(job: &Job<'_>) -> Option<ExprId> {
    let tile = job.tile;
    let Expr::Apply(ScalarOp::Select, args) = &tile.exprs[job.attend.score] else { return None };
    let never = matches!(&tile.exprs[args[2]], Expr::Const(value) if value.get() == f64::NEG_INFINITY);
    let linear = |id: &ExprId| match &tile.exprs[*id] {
        Expr::Index(index) => index.terms.iter().all(|(atom, _)| {
            let still = !Index::atom(atom.clone()).axes().contains(&job.attend.context);
            still || *atom == Atom::Axis(job.attend.context)
        }),
        _ => false,
    };
    let mut open = vec![args[0]];
    while let Some(id) = open.pop() {
        match &tile.exprs[id] {
            Expr::Apply(ScalarOp::And, args) => open.extend(args),
            Expr::Apply(ScalarOp::Lt | ScalarOp::Le, args) if args.iter().all(linear) => {}
            _ => return None,
        }
    }
    never.then_some(args[0])
}

/// Two of bf16's ones.
const ONES: i32 = 0x3f80_3f80;

/// One block of the online softmax: the weights of its scores, and the state with their sums in it. The weighted sums are
/// scaled, the values not yet added. What is summed up are the weights as they are multiplied, rounded to bf16, so the
/// result is an average whose weights come to 1; the tensor cores do it, as if a lane of the values were all ones. Where
/// values are codes, a weight is multiplied times the scale of its value, and that product is rounded.
pub(super) fn step<'k>(
    scores: &Scores<'k>,
    state: State<'k>,
    scales: Option<Shared<'k>>,
) -> (Weights<'k>, State<'k>) {
    let (mut max, mut sum, mut acc) = state;
    let mut weights = scores.clone();
    for half in 0..2 {
        let own = scores.iter().flat_map(|score| &score[2 * half..2 * half + 2]);
        let own = own.copied().reduce(Float::greatest).unwrap_or(max[half]);
        let own = own.greatest(own.of_lane_xor(1));
        let own = own.greatest(own.of_lane_xor(2));
        let greater = max[half].greatest(own);
        let (repair, shift) = (grown(max[half], greater), finite(greater) * -std::f32::consts::LOG2_E);
        for weight in &mut weights {
            for weight in &mut weight[2 * half..2 * half + 2] {
                *weight = weight.fma(std::f32::consts::LOG2_E, shift).exp2();
            }
        }
        max[half] = greater;
        sum[half] = sum[half] * repair;
        for acc in &mut acc {
            acc[2 * half] = acc[2 * half] * repair;
            acc[2 * half + 1] = acc[2 * half + 1] * repair;
        }
    }
    let operands = rounded(&weights);
    let k = max[0].kernel();
    let sums = operands
        .iter()
        .fold([sum[0], sum[0], sum[1], sum[1]], |sums, weights| k.mma_bf16(*weights, [k.int(ONES); 2], sums));
    let state = (max, [sums[0], sums[2]], acc);
    let Some(scales) = scales else { return (operands, state) };
    for (n, weights) in weights.iter_mut().enumerate() {
        let scales = scales_of(scales, n);
        for (at, weight) in weights.iter_mut().enumerate() {
            *weight = *weight * scales[at % 2];
        }
    }
    (rounded(&weights), state)
}

/// Weights as first operands.
fn rounded<'k>(weights: &Scores<'k>) -> Weights<'k> {
    let pair = |n: usize, half: usize| weights[n][2 * half].to_bf16_pair(weights[n][2 * half + 1]);
    std::array::from_fn(|i| [pair(2 * i, 0), pair(2 * i, 1), pair(2 * i + 1, 0), pair(2 * i + 1, 1)])
}

/// How two consecutive parts of the context become one.
pub(super) struct Merger<'k> {
    pub(super) max: [Float<'k>; 2],
    pub(super) sum: [Float<'k>; 2],
    factors: [[Float<'k>; 2]; 2],
}

impl<'k> Merger<'k> {
    /// From the maxima and sums of both.
    pub(super) fn new(one: [[Float<'k>; 2]; 2], next: [[Float<'k>; 2]; 2]) -> Self {
        let (mut max, mut sum, mut factors) = (one[0], one[1], one);
        for half in 0..2 {
            let greater = one[0][half].greatest(next[0][half]);
            let [first, second] = [grown(one[0][half], greater), grown(next[0][half], greater)];
            max[half] = greater;
            sum[half] = one[1][half].fma(first, next[1][half] * second);
            factors[half] = [first, second];
        }
        Merger { max, sum, factors }
    }

    /// A fragment of the weighted sums.
    pub(super) fn fragment(&self, one: [Float<'k>; 4], next: [Float<'k>; 4]) -> [Float<'k>; 4] {
        std::array::from_fn(|at| {
            let [first, second] = self.factors[at / 2];
            one[at].fma(first, next[at] * second)
        })
    }
}

/// Two consecutive parts of the context as one.
pub(super) fn merged<'k>(one: &State<'k>, next: &State<'k>) -> State<'k> {
    let merger = Merger::new([one.0, one.1], [next.0, next.1]);
    let acc = one.2.iter().zip(&next.2).map(|(one, next)| merger.fragment(*one, *next)).collect();
    (merger.max, merger.sum, acc)
}

/// What sums relative to a maximum are multiplied with when it grows: exactly 1 if it does not, 0 for −∞.
pub(super) fn grown<'k>(from: Float<'k>, to: Float<'k>) -> Float<'k> {
    ((from - finite(to)) * std::f32::consts::LOG2_E).exp2()
}

/// The number itself, and 0 for −∞: where nothing is visible, weights are 0 and no difference is taken of infinities.
pub(super) fn finite(max: Float<'_>) -> Float<'_> {
    let k = max.kernel();
    max.equals(f32::NEG_INFINITY).select(k.float(0.0), max)
}

/// What weighted sums are multiplied with in the end: 1 over the sum of the weights, and 0 where nothing was visible.
pub(super) fn share(sum: Float<'_>) -> Float<'_> {
    let k = sum.kernel();
    sum.equals(0.0).select(k.float(0.0), sum.recip())
}

/// Stores a fragment of the result, of which the first lane is `first`, in the rows that are to be stored.
pub(super) fn store<'k>(
    job: &Job<'_>,
    rows: &[Row<'_, 'k>; 2],
    stored: [Bit<'k>; 2],
    (first, values): (Int<'k>, [Float<'k>; 4]),
) {
    let k = first.kernel();
    let (lanes, whole) = (job.attend.sizes.lanes as i32, job.attend.sizes.lanes.is_multiple_of(8));
    let lane = first + ((k.lane() & 3) << 1);
    for (half, row) in rows.iter().enumerate() {
        let pair = [values[2 * half], values[2 * half + 1]];
        if whole {
            k.when(stored[half] & lane.lt(lanes), || store_pair(job, row, lane, pair));
            continue;
        }
        for (at, value) in pair.into_iter().enumerate() {
            let lane = lane + at as i32;
            k.when(stored[half] & lane.lt(lanes), || store_one(job, row, lane, value));
        }
    }
}

/// Stores the result at one iteration of the lanes.
pub(super) fn store_one<'k>(job: &Job<'_>, row: &Row<'_, 'k>, lane: Int<'k>, value: Float<'k>) {
    for stage in &job.attend.stores {
        let sinter_ir::Stage::Store { param, index, value: stored, .. } = &job.tile.stages[stage.0 as usize]
        else {
            continue;
        };
        let scope = row.scope.with_axis(job.attend.lanes, lane).with_result(job.attend.online, value);
        scope.store(*param, index, scope.value(*stored));
    }
}

fn store_pair<'k>(job: &Job<'_>, row: &Row<'_, 'k>, lane: Int<'k>, values: [Float<'k>; 2]) {
    for stage in &job.attend.stores {
        let sinter_ir::Stage::Store { param, index, value: stored, .. } = &job.tile.stages[stage.0 as usize]
        else {
            continue;
        };
        let value = |at: usize| {
            let scope = row.scope.with_axis(job.attend.lanes, lane + at as i32);
            scope.with_result(job.attend.online, values[at]).value(*stored)
        };
        let values = [value(0), value(1)];
        let scope = row.scope.with_axis(job.attend.lanes, lane);
        scope.store_lanes(*param, index, job.attend.lanes, &values);
    }
}
