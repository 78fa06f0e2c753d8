//! One sequence on one model: fed in chunks of any size.

use crate::{BatchBuilder, BlockPool, Chunk, DeviceModel, Rows, RuntimeError, Sequence};

/// A sequence, its pages and the model that computes it.
pub struct Session<'m> {
    model: &'m mut dyn DeviceModel,
    pool: BlockPool,
    sequence: Sequence,
}

impl<'m> Session<'m> {
    /// An empty sequence that may use the whole KV cache of the model.
    pub fn new(model: &'m mut dyn DeviceModel) -> Self {
        let pool = BlockPool::new(model.limits().pages);
        Self { model, pool, sequence: Sequence::new() }
    }
    /// The tokens that were fed.
    pub fn tokens(&self) -> &[u32] {
        self.sequence.tokens()
    }
    /// Tokens that fit the model's context and its KV cache.
    pub fn capacity(&self) -> usize {
        let limits = self.model.limits();
        limits.max_positions.min(limits.pages * sinter_ir::PAGE as usize)
    }
    /// Feeds tokens in one step and gives the wanted rows of logits. On an error the sequence is as before.
    pub fn feed(&mut self, tokens: &[u32], rows: Rows) -> Result<&[f32], RuntimeError> {
        let start = self.sequence.len();
        let most = self.capacity();
        if start + tokens.len() > most {
            let count = tokens.len();
            return Err(RuntimeError::Parameter(format!(
                "{count} tokens after {start} are more than the context of {most} tokens"
            )));
        }
        self.sequence.extend(tokens, &mut self.pool)?;
        let mut builder = BatchBuilder::new();
        builder.push(Chunk { tokens, start, pages: self.sequence.pages(), rows });
        let batch = builder.finish();
        match self.model.step(&batch) {
            Ok(result) => Ok(result),
            Err(error) => {
                self.sequence.truncate(start, &mut self.pool)?;
                Err(error)
            }
        }
    }
}

/// What an encoder gives for one text: the hidden values of each token, or one row of scores if it scores sequences.
pub fn encode<'m>(model: &'m mut dyn DeviceModel, tokens: &[u32]) -> Result<&'m [f32], RuntimeError> {
    let mut builder = BatchBuilder::new();
    builder.push(Chunk { tokens, start: 0, pages: &[], rows: encoder_rows(model) });
    model.step(&builder.finish())
}

/// The same with the type of each token: 0 in a text, 1 in the one after it.
pub fn encode_typed<'m>(
    model: &'m mut dyn DeviceModel,
    tokens: &[u32],
    types: &[u32],
) -> Result<&'m [f32], RuntimeError> {
    let mut builder = BatchBuilder::new();
    builder.push(Chunk { tokens, start: 0, pages: &[], rows: encoder_rows(model) });
    let mut batch = builder.finish();
    batch.types = types.to_vec();
    model.step(&batch)
}

/// The rows that an encoder takes: a head that scores sequences reads the first token.
fn encoder_rows(model: &dyn DeviceModel) -> Rows {
    if model.result_name() == "scores" { Rows::First } else { Rows::None }
}
