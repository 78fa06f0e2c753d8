//! GPTQ (Frantar et al. 2022): codes are chosen column by column, and what a column's rounding does to the products is made
//! up for by the columns after it.
//!
//! With H the sum of x·xᵀ over the inputs and R upper triangular with H⁻¹ = RᵀR, rounding column i by an error e changes the
//! columns j behind it by −e / R[i, i] · R[i, j]. The rows of a matrix do not depend on one another.

use super::round::{Coded, Rounding, range};
use anyhow::{Context, Result};
use nalgebra::{Cholesky, DMatrix};
use sinter_ir::DType;

/// The share of H's mean diagonal that is added to its diagonal, as in the paper's program.
const DAMPING: f64 = 0.01;
/// Columns whose changes reach the columns behind them together.
const BLOCK: usize = 128;

/// The order in which columns are rounded, and the factor R in that order.
pub(super) struct Factor {
    order: Vec<usize>,
    /// Row-major.
    upper: Vec<f32>,
}

impl Factor {
    /// From the sum of x·xᵀ. Where `by_size` is set, the columns with the largest inputs come first.
    pub(super) fn new(squares: &DMatrix<f64>, by_size: bool) -> Result<Self> {
        let k = squares.nrows();
        let mean = squares.diagonal().sum() / k.max(1) as f64;
        let mut order: Vec<usize> = (0..k).collect();
        if by_size {
            order.sort_by(|a, b| squares[(*b, *b)].total_cmp(&squares[(*a, *a)]).then(a.cmp(b)));
        }
        // In reverse, so that the lower factor becomes an upper one: H = U·Uᵀ, and R = U⁻¹.
        let at = |i: usize| order[k - 1 - i];
        let damped = DMatrix::from_fn(k, k, |i, j| {
            let diagonal = if i == j { DAMPING * mean.max(f64::MIN_POSITIVE) } else { 0.0 };
            squares[(at(i), at(j))] + diagonal
        });
        let lower =
            Cholesky::new(damped).context("the calibration text gives no positive matrix of squares")?.l();
        let inverse = lower.solve_lower_triangular(&DMatrix::identity(k, k));
        let inverse = inverse.context("the calibration text gives a singular matrix of squares")?;
        let upper = (0..k * k).map(|i| inverse[(k - 1 - i / k, k - 1 - i % k)] as f32).collect();
        Ok(Self { order, upper })
    }

    /// The codes of a matrix, row-major. Scales of whole groups are chosen when their first column is reached, or before
    /// everything where columns do not come in order.
    pub(super) fn codes(&self, rounding: &Rounding, values: &[f32], weights: DType) -> Coded {
        let k = self.order.len();
        let groups = rounding.groups(k);
        let rows = values.len() / k.max(1);
        let mut coded = Coded::empty(rounding, (rows, k));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let each = rows.div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let parts = values.chunks(each * k).zip(coded.codes.chunks_mut(each * k));
            let parts =
                parts.zip(coded.scales.chunks_mut(each * groups)).zip(coded.zeros.chunks_mut(each * groups));
            for (((values, codes), scales), zeros) in parts {
                scope.spawn(move || {
                    Part { factor: self, rounding, weights, codes, scales, zeros }.run(values);
                });
            }
        });
        coded
    }
}

/// Some rows of a matrix.
struct Part<'a> {
    factor: &'a Factor,
    rounding: &'a Rounding,
    weights: DType,
    codes: &'a mut [u8],
    scales: &'a mut [f32],
    zeros: &'a mut [u8],
}

impl Part<'_> {
    fn run(mut self, values: &[f32]) {
        let order = &self.factor.order;
        let k = order.len();
        let width = self.rounding.width(k);
        let in_order = order.iter().enumerate().all(|(at, column)| at == *column);
        if !in_order {
            (0..k / width).for_each(|group| self.choose(group, values));
        }
        let mut left: Vec<f32> =
            values.chunks_exact(k).flat_map(|row| order.iter().map(|column| row[*column])).collect();
        for block in (0..k).step_by(BLOCK) {
            let end = (block + BLOCK).min(k);
            let mut errors = Vec::with_capacity((end - block) * values.len() / k);
            for at in block..end {
                if in_order && at % width == 0 {
                    self.choose(at / width, &left);
                }
                errors.extend(self.round((at, end), &mut left));
            }
            self.behind((block, end), &errors, &mut left);
        }
    }

    /// Rounds a column in all rows, and changes those behind it up to `end`. Gives the error of each row.
    fn round(&mut self, (at, end): (usize, usize), left: &mut [f32]) -> Vec<f32> {
        let factor = self.factor;
        let (k, column) = (factor.order.len(), factor.order[at]);
        let (own, behind) = factor.upper[at * k + at..at * k + end].split_at(1);
        let groups = self.rounding.groups(k);
        let mut errors = Vec::with_capacity(left.len() / k);
        for (row, left) in left.chunks_exact_mut(k).enumerate() {
            let group = row * groups + column / self.rounding.width(k);
            let (scale, zero) = (self.scales[group], self.zeros[group]);
            let code = self.rounding.code(left[at], scale, zero);
            self.codes[row * k + column] = code;
            let error = (left[at] - self.rounding.number(code, scale, zero)) / own[0];
            subtract(&mut left[at + 1..end], behind, error);
            errors.push(error);
        }
        errors
    }

    /// Changes the columns behind a block, for each of which there is the error of each row.
    fn behind(&self, (block, end): (usize, usize), errors: &[f32], left: &mut [f32]) {
        let k = self.factor.order.len();
        let rows = left.len() / k;
        for (at, errors) in (block..end).zip(errors.chunks_exact(rows.max(1))) {
            let behind = &self.factor.upper[at * k + end..(at + 1) * k];
            for (left, error) in left.chunks_exact_mut(k).zip(errors) {
                subtract(&mut left[end..], behind, *error);
            }
        }
    }

    /// Chooses the scale and the zero of a group in each row, from numbers whose columns lie in order.
    fn choose(&mut self, group: usize, values: &[f32]) {
        let k = self.factor.order.len();
        let (width, groups) = (self.rounding.width(k), self.rounding.groups(k));
        for (row, values) in values.chunks_exact(k).enumerate() {
            let numbers = range(&values[group * width..(group + 1) * width]);
            let place = row * groups + group;
            (self.scales[place], self.zeros[place]) = self.rounding.scale(numbers, self.weights);
        }
    }
}

fn subtract(values: &mut [f32], factors: &[f32], times: f32) {
    values.iter_mut().zip(factors).for_each(|(value, factor)| *value -= times * factor);
}

#[cfg(test)]
mod tests {
    use super::super::round::{Format, numbers};
    use super::*;

    /// The sum of squares of what a change of a matrix does to its products.
    fn loss(squares: &DMatrix<f64>, wanted: &[f32], found: &[f32]) -> f64 {
        let k = squares.nrows();
        let change = wanted.iter().zip(found).map(|(x, y)| f64::from(x - y));
        let change = DMatrix::from_row_iterator(wanted.len() / k, k, change);
        (&change * squares).component_mul(&change).sum()
    }

    #[test]
    fn products_suffer_less_than_from_the_nearest_codes() {
        let (k, rows, tokens) = (160, 24, 400);
        // Inputs that go together: each is mostly a mixture of few.
        let few = DMatrix::from_vec(20, tokens, numbers(20 * tokens, 1));
        let mixture = DMatrix::from_vec(k, 20, numbers(k * 20, 2));
        let noise = DMatrix::from_vec(k, tokens, numbers(k * tokens, 3)) * 0.2f32;
        let inputs = (mixture * few + noise).cast::<f64>();
        let squares = &inputs * inputs.transpose();
        let values = numbers(rows * k, 4);
        for (group, asymmetric) in [(Some(32), false), (None, true)] {
            let rounding = Rounding { format: Format::Int4, group, asymmetric };
            let nearest =
                loss(&squares, &values, &rounding.values(&rounding.nearest(&values, k, DType::F32), k));
            for by_size in [false, true] {
                let coded = Factor::new(&squares, by_size).unwrap().codes(&rounding, &values, DType::F32);
                let found = loss(&squares, &values, &rounding.values(&coded, k));
                assert!(found < 0.5 * nearest, "{group:?} {by_size}: {found} against {nearest}");
            }
        }
    }

    #[test]
    fn inputs_that_do_not_go_together_leave_the_nearest_codes() {
        let squares = DMatrix::from_diagonal_element(32, 32, 2.0);
        let (rounding, values) =
            (Rounding { format: Format::Int4, group: Some(32), asymmetric: true }, numbers(64, 9));
        let coded = Factor::new(&squares, false).unwrap().codes(&rounding, &values, DType::F32);
        assert_eq!(coded.codes, rounding.nearest(&values, 32, DType::F32).codes);
    }

    /// The codes as the paper derives them, with the whole inverse, which loses each column once it is rounded.
    fn naive(squares: &DMatrix<f64>, by_size: bool, rounding: &Rounding, values: &[f32]) -> Vec<u8> {
        let k = squares.nrows();
        let width = rounding.width(k);
        let mut order: Vec<usize> = (0..k).collect();
        if by_size {
            order.sort_by(|a, b| squares[(*b, *b)].total_cmp(&squares[(*a, *a)]).then(a.cmp(b)));
        }
        let damping = DMatrix::identity(k, k) * (DAMPING * squares.diagonal().mean());
        let start = (squares + damping).try_inverse().unwrap();
        let mut codes = vec![0; values.len()];
        for (row, codes) in values.chunks(k).zip(codes.chunks_mut(k)) {
            let mut inverse = start.clone();
            let mut left: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let numbers = |left: &[f64], group: usize| -> Vec<f32> {
                left[group * width..(group + 1) * width].iter().map(|x| *x as f32).collect()
            };
            let scale = |left: &[f64], group| rounding.scale(range(&numbers(left, group)), DType::F32);
            let mut scales: Vec<(f32, u8)> = (0..k / width).map(|group| scale(&left, group)).collect();
            for (at, column) in order.iter().copied().enumerate() {
                if !by_size && column % width == 0 {
                    scales[column / width] = scale(&left, column / width);
                }
                let (step, zero) = scales[column / width];
                codes[column] = rounding.code(left[column] as f32, step, zero);
                let back = rounding.number(codes[column], step, zero);
                let error = (left[column] - f64::from(back)) / inverse[(column, column)];
                for behind in &order[at + 1..] {
                    left[*behind] -= error * inverse[(column, *behind)];
                }
                let (down, across) = (inverse.column(column).into_owned(), inverse.row(column).into_owned());
                inverse -= &down * across / down[column];
            }
        }
        codes
    }

    #[test]
    fn codes_are_those_of_the_whole_inverse() {
        // More columns than a block has.
        let (k, rows, tokens) = (BLOCK + 32, 4, 400);
        let inputs = DMatrix::from_vec(k, tokens, numbers(k * tokens, 5)).cast::<f64>();
        let mixture = DMatrix::from_vec(k, k, numbers(k * k, 6)).cast::<f64>();
        let inputs = mixture * inputs;
        let squares = &inputs * inputs.transpose();
        let values = numbers(rows * k, 7);
        for (group, asymmetric) in [(Some(32), false), (None, true)] {
            let rounding = Rounding { format: Format::Int4, group, asymmetric };
            for by_size in [false, true] {
                let coded = Factor::new(&squares, by_size).unwrap().codes(&rounding, &values, DType::F32);
                assert_eq!(coded.codes, naive(&squares, by_size, &rounding, &values), "{group:?} {by_size}");
            }
        }
    }
}
