//! The bounds check of a batch. A kernel trusts every index that it loads, so none may be out of range.

use crate::{Batch, Limits, RuntimeError};
use sinter_ir::{Binding, PAGE};

/// Checks batches against the limits of one model.
///
/// Rules: the step has 1 to `max_tokens` tokens of 1 to `max_sequences` sequences; all lists of the step have the length
/// of the tokens; tokens are below the vocabulary, positions below the longest context, sequence indices below S, rows
/// below T; where the model has a KV cache, pages are below the pool, each token's slot is the one that the block table
/// gives its position, and no two tokens write the same slot.
#[derive(Debug)]
pub struct BatchCheck {
    limits: Limits,
    paged: bool,
    /// For each slot, the number of the last step that wrote it.
    written: Vec<u64>,
    step: u64,
}

impl BatchCheck {
    /// A check for a model with these limits; `paged` if it has a KV cache.
    pub fn new(limits: Limits, paged: bool) -> Self {
        let slots = if paged { limits.pages * PAGE as usize } else { 0 };
        Self { limits, paged, written: vec![0; slots], step: 0 }
    }

    /// The values of the symbols, if every index is in range.
    pub fn check(&mut self, batch: &Batch) -> Result<Binding, RuntimeError> {
        self.counts(batch).map_err(RuntimeError::Batch)?;
        self.indices(batch).map_err(RuntimeError::Batch)?;
        if self.paged {
            self.paging(batch).map_err(RuntimeError::Batch)?;
        }
        Ok(batch.binding(self.limits.pages))
    }

    fn counts(&self, batch: &Batch) -> Result<(), String> {
        let tokens = batch.tokens.len();
        within("tokens in the step", tokens, 1, self.limits.max_tokens)?;
        within("sequences in the step", batch.sequences, 1, self.limits.max_sequences)?;
        same("positions", batch.positions.len(), tokens)?;
        same("sequence indices", batch.seq.len(), tokens)?;
        same("token types", batch.types.len(), tokens)?;
        if self.paged {
            same("slots", batch.slots.len(), tokens)?;
            let pages = batch.sequences.saturating_mul(batch.table_width);
            same("block table entries", batch.table.len(), pages)?;
            within("pages of a sequence", batch.table_width, 1, self.limits.pages)?;
        }
        Ok(())
    }

    fn indices(&self, batch: &Batch) -> Result<(), String> {
        below("token", &batch.tokens, self.limits.vocab)?;
        below("position", &batch.positions, self.limits.max_positions)?;
        below("sequence index", &batch.seq, batch.sequences)?;
        below("token type", &batch.types, TOKEN_TYPES)?;
        below("row", &batch.rows, batch.tokens.len())
    }

    fn paging(&mut self, batch: &Batch) -> Result<(), String> {
        below("page", &batch.table, self.limits.pages)?;
        below("slot", &batch.slots, self.written.len())?;
        self.step += 1;
        for (at, slot) in batch.slots.iter().enumerate() {
            let (position, seq) = (u64::from(batch.positions[at]), batch.seq[at] as usize);
            let column = (position / PAGE) as usize;
            if column >= batch.table_width {
                let width = batch.table_width;
                return Err(format!(
                    "position {position} of row {at} is beyond a block table of {width} pages"
                ));
            }
            let page = u64::from(batch.table[seq * batch.table_width + column]);
            let wanted = page * PAGE + position % PAGE;
            if wanted != u64::from(*slot) {
                return Err(format!("row {at} writes slot {slot}, its block table says {wanted}"));
            }
            let last = &mut self.written[*slot as usize];
            if *last == self.step {
                return Err(format!("two tokens of the step write slot {slot}"));
            }
            *last = self.step;
        }
        Ok(())
    }
}

fn within(what: &str, found: usize, least: usize, most: usize) -> Result<(), String> {
    match found {
        found if found < least || found > most => Err(format!("{found} {what}, wanted {least} to {most}")),
        _ => Ok(()),
    }
}

fn same(what: &str, found: usize, wanted: usize) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found} {what}, wanted {wanted}")) }
}

fn below(what: &str, found: &[u32], limit: usize) -> Result<(), String> {
    match found.iter().position(|index| *index as usize >= limit) {
        Some(at) => Err(format!("{what} {} at {at} is not below {limit}", found[at])),
        None => Ok(()),
    }
}

/// A text and the one after it.
const TOKEN_TYPES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, Chunk, Rows};

    fn limits() -> Limits {
        Limits { vocab: 10, max_positions: 40, max_tokens: 4, max_sequences: 2, pages: 3 }
    }

    fn good() -> Batch {
        let mut builder = BatchBuilder::new();
        builder.push(Chunk { tokens: &[1, 2], start: 15, pages: &[2, 0], rows: Rows::Last });
        builder.push(Chunk { tokens: &[9], start: 0, pages: &[1], rows: Rows::Last });
        builder.finish()
    }

    fn refusal(change: impl Fn(&mut Batch)) -> String {
        let mut batch = good();
        change(&mut batch);
        BatchCheck::new(limits(), true).check(&batch).unwrap_err().to_string()
    }

    #[test]
    fn a_good_batch_binds_the_symbols() {
        let mut check = BatchCheck::new(limits(), true);
        for _ in 0..3 {
            assert_eq!(check.check(&good()).unwrap().values, [3, 2, 2, 48, 2]);
        }
    }

    #[test]
    fn every_index_is_bounded() {
        assert!(refusal(|b| b.tokens[1] = 10).contains("token 10 at 1 is not below 10"));
        assert!(refusal(|b| b.positions[0] = 40).contains("position 40"));
        assert!(refusal(|b| b.positions[2] = 33).contains("beyond a block table"));
        assert!(refusal(|b| b.seq[2] = 2).contains("sequence index 2"));
        assert!(refusal(|b| b.rows[0] = 3).contains("row 3"));
        assert!(refusal(|b| b.table[3] = 3).contains("page 3"));
        assert!(refusal(|b| b.slots[0] = 48).contains("slot 48"));
        assert!(refusal(|b| b.slots[0] = 46).contains("its block table says 47"));
        assert!(refusal(|b| b.slots[0] = u32::MAX).contains("slot 4294967295"));
    }

    #[test]
    fn every_count_is_bounded() {
        assert!(refusal(|b| *b = Batch::default()).contains("0 tokens"));
        assert!(refusal(|b| b.tokens = vec![0; 5]).contains("5 tokens"));
        assert!(refusal(|b| b.sequences = 3).contains("3 sequences"));
        assert!(refusal(|b| b.positions.truncate(2)).contains("2 positions, wanted 3"));
        assert!(refusal(|b| b.seq.clear()).contains("0 sequence indices"));
        assert!(refusal(|b| b.slots.push(0)).contains("4 slots"));
        assert!(refusal(|b| b.table.truncate(3)).contains("3 block table entries, wanted 4"));
        assert!(refusal(|b| b.table_width = usize::MAX).contains("block table entries"));
    }

    #[test]
    fn two_tokens_cannot_write_one_slot() {
        let mut builder = BatchBuilder::new();
        for _ in 0..2 {
            builder.push(Chunk { tokens: &[1], start: 0, pages: &[1], rows: Rows::Last });
        }
        let error = BatchCheck::new(limits(), true).check(&builder.finish()).unwrap_err();
        assert!(error.to_string().contains("two tokens of the step write slot 16"));
    }

    #[test]
    fn encoders_need_no_slots() {
        let mut builder = BatchBuilder::new();
        builder.push(Chunk { tokens: &[1, 2, 3], start: 0, pages: &[], rows: Rows::None });
        BatchCheck::new(limits(), false).check(&builder.finish()).unwrap();
    }
}
