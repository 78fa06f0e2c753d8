//! Vectors of texts: what becomes of the rows that a model gives for a text's tokens.

use crate::pipeline::Program;
use anyhow::Result;
use sinter_frontend::pooling::{Pooling, PoolingMode};
use sinter_frontend::tokenizer::Tokenizer;
use sinter_runtime::Rows;

/// What the files of sentence-transformers say; where there are none the plain mean, as sentence-transformers does it,
/// and a note for the user.
pub fn pooling(program: &Program) -> Result<(Pooling, Option<&'static str>)> {
    Ok(match Pooling::load(&program.dir)? {
        Some(pooling) => (pooling, None),
        None => (
            Pooling { mode: PoolingMode::Mean, normalize: false, max_len: None },
            Some("the model has no modules.json; the vectors are plain means over all tokens"),
        ),
    })
}

/// The rows that a pooling reads.
pub fn rows(mode: PoolingMode) -> Rows {
    match mode {
        PoolingMode::Mean => Rows::All,
        PoolingMode::Cls => Rows::First,
        PoolingMode::LastToken => Rows::Last,
    }
}

/// Cuts a text to `most` tokens; a special token at its end stays.
pub fn cut(ids: &mut Vec<u32>, most: usize, tokenizer: &Tokenizer) {
    if ids.len() > most
        && let Some(last) = ids.last().copied()
    {
        ids.truncate(most);
        if let Some(end) = ids.last_mut().filter(|_| tokenizer.is_special(last)) {
            *end = last;
        }
    }
}

/// One vector on its way. Rows may come in pieces of any size; sums run over them in order, in f64.
#[derive(Debug, Clone)]
pub struct Pooled {
    mode: PoolingMode,
    width: usize,
    /// The sum, or the row; empty before the first.
    values: Vec<f64>,
    rows: usize,
}

impl Pooled {
    /// A vector of no rows yet.
    pub fn new(mode: PoolingMode, width: usize) -> Self {
        Self { mode, width, values: Vec::new(), rows: 0 }
    }

    /// Takes the next rows.
    pub fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.width.max(1)) {
            self.rows += 1;
            let numbers = row.iter().map(|x| f64::from(*x));
            match self.mode {
                PoolingMode::Cls if self.rows > 1 => {}
                PoolingMode::Cls | PoolingMode::LastToken => {
                    self.values.clear();
                    self.values.extend(numbers);
                }
                PoolingMode::Mean => {
                    self.values.resize(self.width, 0.0);
                    self.values.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += x);
                }
            }
        }
    }

    /// The vector: its first `dimensions` numbers if that is said, and then scaled to length one if `normalize`.
    pub fn vector(self, normalize: bool, dimensions: Option<usize>) -> Vec<f32> {
        let mut vector = self.values;
        if self.mode == PoolingMode::Mean {
            let count = self.rows.max(1) as f64;
            vector.iter_mut().for_each(|x| *x /= count);
        }
        vector.truncate(dimensions.unwrap_or(self.width));
        if normalize {
            let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
            vector.iter_mut().for_each(|x| *x /= length);
        }
        vector.into_iter().map(|x| x as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: [f32; 6] = [3.0, 0.0, 1.0, 8.0, 2.0, -2.0];

    fn run(mode: PoolingMode, normalize: bool, dimensions: Option<usize>) -> Vec<f32> {
        let pool = |pieces: &[&[f32]]| {
            let mut pooled = Pooled::new(mode, 2);
            pieces.iter().for_each(|piece| pooled.add(piece));
            pooled.vector(normalize, dimensions)
        };
        let whole = pool(&[&HIDDEN]);
        assert_eq!(pool(&[&HIDDEN[..2], &HIDDEN[2..]]), whole, "rows may come in pieces");
        whole
    }

    #[test]
    fn rows_become_one_vector() {
        assert_eq!(run(PoolingMode::Cls, false, None), [3.0, 0.0]);
        assert_eq!(run(PoolingMode::LastToken, false, None), [2.0, -2.0]);
        assert_eq!(run(PoolingMode::Mean, false, None), [2.0, 2.0]);
        assert_eq!(run(PoolingMode::Cls, true, None), [1.0, 0.0]);
        let mean = run(PoolingMode::Mean, true, None);
        assert!(mean.iter().all(|x| (x - 0.5f32.sqrt()).abs() < 1e-6));
    }

    #[test]
    fn a_shorter_vector_is_scaled_anew() {
        assert_eq!(run(PoolingMode::Mean, true, Some(1)), [1.0]);
        assert_eq!(run(PoolingMode::Mean, false, Some(1)), [2.0]);
        assert_eq!(run(PoolingMode::Mean, true, Some(2)), run(PoolingMode::Mean, true, None));
    }
}
