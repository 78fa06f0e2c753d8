//! Codes in the manner of AWQ (Lin et al. 2023): columns whose inputs are large are multiplied before they are rounded, so that
//! they lose less, and what computes the inputs is divided; then ranges are cut where that makes products better.
//!
//! Both searches minimise the change of the products, which the sum of x·xᵀ over the inputs tells without the inputs. The
//! factors are a power of the inputs' root mean square, where the paper has the mean magnitude.

use super::round::{Coded, Rounding, range};
use nalgebra::{DMatrix, DVector};
use sinter_ir::DType;

/// Powers that are tried: 0, 1/20, … 1. Power 0 leaves everything as it is.
const POWERS: usize = 20;
/// Rows of a matrix that tell how good a power is; they are spread over all.
const SAMPLED: usize = 512;
/// Shares of a range that are tried: 1, 0.95, … 0.5.
const CUTS: usize = 10;

/// A matrix of f32, row-major, and the type that its scales are stored in.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    pub(super) values: Vec<f32>,
    pub(super) columns: usize,
    pub(super) dtype: DType,
}

impl Matrix {
    /// At most so many rows, spread evenly.
    fn sample(&self, most: usize) -> Self {
        let rows = self.values.len() / self.columns.max(1);
        let step = rows.div_ceil(most).max(1);
        let values = self.values.chunks(self.columns).step_by(step).flatten().copied().collect();
        Self { values, columns: self.columns, dtype: self.dtype }
    }

    /// Each column multiplied by its factor.
    pub(super) fn times(&self, factors: &[f32]) -> Self {
        let rows = self.values.chunks_exact(self.columns);
        let values = rows.flat_map(|row| row.iter().zip(factors).map(|(x, factor)| x * factor)).collect();
        Self { values, columns: self.columns, dtype: self.dtype }
    }
}

/// The sum of x·xᵀ in f32, so scaled that the mean of its diagonal is 1. None without inputs.
pub(super) fn scaled(squares: &DMatrix<f64>) -> Option<DMatrix<f32>> {
    let mean = squares.diagonal().mean();
    (mean > 0.0 && mean.is_finite()).then(|| (squares / mean).cast::<f32>())
}

/// The power and the factors of columns with which the products of all matrices change least. `possible` gives the nearest
/// factors that can be stored.
pub(super) fn factors(
    squares: &DMatrix<f32>,
    matrices: &[Matrix],
    rounding: &Rounding,
    possible: &(dyn Fn(Vec<f32>) -> Vec<f32> + Sync),
) -> (f64, Vec<f32>) {
    let samples: Vec<Matrix> = matrices.iter().map(|matrix| matrix.sample(SAMPLED)).collect();
    let sizes: Vec<f64> =
        squares.diagonal().iter().map(|square| f64::from(*square).max(0.0).sqrt()).collect();
    let tried = |step: usize| {
        let power = step as f64 / POWERS as f64;
        let factors = possible(powers(&sizes, power));
        let loss: f64 = samples.iter().map(|matrix| loss(squares, matrix, (&factors, rounding))).sum();
        (loss, power, factors)
    };
    let (tried, threads) = (&tried, std::thread::available_parallelism().map_or(1, usize::from));
    let mut all = Vec::with_capacity(POWERS + 1);
    for first in (0..=POWERS).step_by(threads) {
        let steps = first..(first + threads).min(POWERS + 1);
        std::thread::scope(|scope| {
            let running: Vec<_> = steps.map(|step| scope.spawn(move || tried(step))).collect();
            let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            all.extend(joined.map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        });
    }
    let best = all.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or_else(|| (0.0, vec![1.0; sizes.len()]), |(_, power, factors)| (power, factors))
}

/// A power of each size, the greatest and the least as far from 1. Inputs that are always 0 count as the least of the others.
fn powers(sizes: &[f64], power: f64) -> Vec<f32> {
    let least = sizes.iter().copied().filter(|size| *size > 0.0).fold(f64::INFINITY, f64::min);
    let powers: Vec<f64> = sizes.iter().map(|size| size.max(least).powf(power)).collect();
    let (low, high) =
        powers.iter().fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(*x), high.max(*x)));
    let middle = (low * high).sqrt();
    powers
        .iter()
        .map(|x| if middle.is_finite() && middle > 0.0 { (x / middle) as f32 } else { 1.0 })
        .collect()
}

/// The sum of squared changes of a matrix's products where its columns are rounded times their factors.
fn loss(squares: &DMatrix<f32>, matrix: &Matrix, (factors, rounding): (&[f32], &Rounding)) -> f64 {
    let times = matrix.times(factors);
    let coded = rounding.nearest(&times.values, matrix.columns, matrix.dtype);
    let back = rounding.values(&coded, matrix.columns);
    let apart =
        back.iter().zip(&times.values).zip(factors.iter().cycle()).map(|((x, y), factor)| (x - y) / factor);
    size(squares, apart)
}

/// The sum of the squares of a matrix's products, its numbers in row-major order.
pub(super) fn size(squares: &DMatrix<f32>, numbers: impl Iterator<Item = f32>) -> f64 {
    // Columns are rows of the matrix: what nalgebra keeps together is one row here.
    let numbers: Vec<f32> = numbers.collect();
    let columns = squares.nrows().max(1);
    let matrix = DMatrix::from_vec(columns, numbers.len() / columns, numbers);
    (squares * &matrix).iter().zip(&matrix).map(|(x, y)| f64::from(x * y)).sum()
}

/// The codes of a matrix whose columns are multiplied already, with the range of each group cut so that the products of the
/// group alone change least.
pub(super) fn cut(
    squares: &DMatrix<f32>,
    matrix: &Matrix,
    (factors, rounding): (&[f32], &Rounding),
) -> Coded {
    let (k, width) = (matrix.columns, rounding.width(matrix.columns));
    let mut best = rounding.nearest(&matrix.values, k, matrix.dtype);
    for group in 0..rounding.groups(k) {
        let from = group * width;
        let own = squares.view((from, from), (width, width));
        let own =
            DMatrix::from_fn(width, width, |i, j| own[(i, j)] / (factors[from + i] * factors[from + j]));
        let whole = Trial::new((matrix, rounding), (from, 1.0));
        let mut least = whole.losses(&own);
        for step in 1..=CUTS {
            let share = 1.0 - 0.5 * step as f32 / CUTS as f32;
            let trial = Trial::new((matrix, rounding), (from, share));
            for (row, loss) in trial.losses(&own).iter().copied().enumerate() {
                if loss >= least[row] {
                    continue;
                }
                least[row] = loss;
                trial.take(row, (from, rounding.groups(k)), &mut best);
            }
        }
    }
    best
}

/// All rows of a group, rounded within a share of their range.
struct Trial {
    width: usize,
    columns: usize,
    codes: Vec<u8>,
    scales: Vec<(f32, u8)>,
    apart: DMatrix<f32>,
}

impl Trial {
    fn new((matrix, rounding): (&Matrix, &Rounding), (from, share): (usize, f32)) -> Self {
        let width = rounding.width(matrix.columns);
        let rows = matrix.values.len() / matrix.columns.max(1);
        let (mut codes, mut scales) = (Vec::with_capacity(rows * width), Vec::with_capacity(rows));
        let mut apart = Vec::with_capacity(rows * width);
        for row in matrix.values.chunks_exact(matrix.columns) {
            let numbers = &row[from..from + width];
            let (low, high) = range(numbers);
            let (scale, zero) = rounding.scale((low * share, high * share), matrix.dtype);
            for number in numbers {
                let code = rounding.code(*number, scale, zero);
                codes.push(code);
                apart.push(rounding.number(code, scale, zero) - number);
            }
            scales.push((scale, zero));
        }
        let apart = DMatrix::from_row_iterator(rows, width, apart);
        Self { width, columns: matrix.columns, codes, scales, apart }
    }

    /// The sum of squared changes of each row's products.
    fn losses(&self, squares: &DMatrix<f32>) -> DVector<f32> {
        (&self.apart * squares).component_mul(&self.apart).column_sum()
    }

    /// Puts a row's codes, scale and zero into those of the matrix, at the group that begins with a column.
    fn take(&self, row: usize, (from, groups): (usize, usize), coded: &mut Coded) {
        let own = &self.codes[row * self.width..(row + 1) * self.width];
        coded.codes[row * self.columns + from..][..self.width].copy_from_slice(own);
        let place = row * groups + from / self.width;
        (coded.scales[place], coded.zeros[place]) = self.scales[row];
    }
}

#[cfg(test)]
mod tests {
    use super::super::round::{Format, numbers};
    use super::*;

    const ROUNDING: Rounding = Rounding { format: Format::Int4, group: Some(32), asymmetric: false };

    /// Inputs of which every sixteenth is thirty times the others, as in the paper's models, and a matrix.
    fn uneven() -> (DMatrix<f32>, Matrix) {
        let (k, rows, tokens) = (64, 48, 300);
        let size = |column: usize| if column.is_multiple_of(16) { 30.0 } else { 1.0 };
        let inputs = numbers(k * tokens, 3);
        let inputs = DMatrix::from_fn(k, tokens, |column, token| inputs[token * k + column] * size(column));
        let squares = (&inputs * inputs.transpose()).cast::<f64>();
        let matrix = Matrix { values: numbers(rows * k, 4), columns: k, dtype: DType::F32 };
        (scaled(&squares).unwrap(), matrix)
    }

    #[test]
    fn large_inputs_are_kept_better() {
        let (squares, matrix) = uneven();
        let (power, found) = factors(&squares, std::slice::from_ref(&matrix), &ROUNDING, &|factors| factors);
        assert!(power > 0.2 && found[0] > 2.0 * found[1], "{power} {found:?}");
        let ones = vec![1.0; matrix.columns];
        let loss = |factors: &[f32]| loss(&squares, &matrix, (factors, &ROUNDING));
        assert!(loss(&found) < 0.5 * loss(&ones), "{} {}", loss(&found), loss(&ones));
        // Even inputs need none.
        let even = DMatrix::identity(64, 64);
        let (_, none) = factors(&even, std::slice::from_ref(&matrix), &ROUNDING, &|factors| factors);
        assert!(none.iter().all(|factor| *factor == 1.0), "{none:?}");
    }

    #[test]
    fn factors_that_cannot_be_stored_are_not_counted_on() {
        let (squares, matrix) = uneven();
        let ones = |factors: Vec<f32>| vec![1.0; factors.len()];
        let (_, found) = factors(&squares, &[matrix], &ROUNDING, &ones);
        assert!(found.iter().all(|factor| *factor == 1.0));
    }

    #[test]
    fn cut_ranges_never_lose_to_whole_ones() {
        let (squares, mut matrix) = uneven();
        // One number far out in each group of each row.
        matrix.values.iter_mut().skip(5).step_by(32).for_each(|x| *x *= 4.0);
        let ones = vec![1.0; matrix.columns];
        let size = |coded: &Coded, from: usize| {
            let back = ROUNDING.values(coded, 64);
            let apart = back.iter().zip(&matrix.values).map(|(x, y)| x - y);
            let apart = DMatrix::from_row_iterator(48, 64, apart).columns(from, 32).into_owned();
            let own = squares.view((from, from), (32, 32)).into_owned();
            (&apart * own).component_mul(&apart).column_sum()
        };
        let nearest = ROUNDING.nearest(&matrix.values, 64, DType::F32);
        let cut = cut(&squares, &matrix, (&ones, &ROUNDING));
        for from in [0, 32] {
            let (found, whole) = (size(&cut, from), size(&nearest, from));
            assert!(found.iter().zip(&whole).all(|(x, y)| *x <= y * 1.0001), "{found} {whole}");
            assert!(found.sum() < 0.9 * whole.sum(), "{} {}", found.sum(), whole.sum());
        }
    }
}
