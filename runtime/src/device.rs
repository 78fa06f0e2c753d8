//! What a device offers: a loaded model that runs steps.

use crate::{Batch, RuntimeError};
use sinter_ir::draw::Draw;

/// How large the steps of a model can be. Memory is set aside for these at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Token ids are below this.
    pub vocab: usize,
    /// Positions are below this: the longest context that the model can see.
    pub max_positions: usize,
    /// Tokens in a step.
    pub max_tokens: usize,
    /// Sequences in a step.
    pub max_sequences: usize,
    /// Pages of 16 tokens in the KV cache; 0 for encoders.
    pub pages: usize,
}

/// Time spent in one kernel since the model was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTime {
    /// The name of the tile program.
    pub name: String,
    /// How often it was launched.
    pub launches: u64,
    /// The sum of the launches' times in nanoseconds.
    pub nanos: u64,
}

/// What a step gave for one of the batch's rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Row<'m> {
    /// Its logits, from which the caller chooses.
    Logits(&'m [f32]),
    /// The token that was chosen on the device.
    Token(u32),
}

/// A model on a device, with its weights, its KV cache and the memory for its activations.
pub trait DeviceModel: Send {
    /// The device in words, for reports: `host, 2 threads`.
    fn device(&self) -> String;
    /// How large steps can be.
    fn limits(&self) -> Limits;
    /// The name of the result: `logits` for decoders, `hidden` for encoders.
    fn result_name(&self) -> &str;
    /// Numbers in one row of the result: the vocabulary for decoders, the width for encoders.
    fn width(&self) -> usize;
    /// Runs a step and gives its result: one row of logits for each of the batch's rows, or one row of hidden values for
    /// each token. The batch is checked before anything is launched.
    fn step(&mut self, batch: &Batch) -> Result<&[f32], RuntimeError>;
    /// Runs a step and chooses the tokens after those rows for which `draws` says how, one entry a row; a device that
    /// cannot choose gives their logits, as does one that finds a row from which nothing can be drawn.
    fn step_drawing(&mut self, batch: &Batch, draws: &[Option<Draw>]) -> Result<Vec<Row<'_>>, RuntimeError> {
        let _ = draws;
        let width = self.width().max(1);
        Ok(self.step(batch)?.chunks_exact(width).map(Row::Logits).collect())
    }
    /// The time spent in each kernel, if the model was loaded with profiling; empty otherwise.
    fn times(&self) -> Vec<KernelTime>;
}
