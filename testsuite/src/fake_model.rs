//! A model without arithmetic: its "keys and values" are a fingerprint of all tokens up to a position, so a page that is
//! read too early, shared wrongly or given away too soon shows in what it says next.

use sinter_ir::PAGE;
use sinter_runtime::{Batch, BatchCheck, DeviceModel, KernelTime, Limits, RuntimeError};

/// A paged decoder whose logits are a function of the fingerprint of the tokens before.
#[derive(Debug)]
pub struct FakeModel {
    limits: Limits,
    check: BatchCheck,
    /// The fingerprint in each slot; 0 where nothing was written.
    slots: Vec<u64>,
    logits: Vec<f32>,
    /// Steps that were run.
    pub steps: u64,
}

/// The fingerprint of a row of tokens whose last is `token`, if that of the others is `before`.
fn fingerprint(before: u64, token: u32) -> u64 {
    let mixed = (before ^ u64::from(token).wrapping_add(0x9e37_79b9)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ (mixed >> 29)) | 1
}

impl FakeModel {
    /// A model with these limits and nothing in its cache.
    pub fn new(limits: Limits) -> Self {
        let slots = vec![0; limits.pages * PAGE as usize];
        Self { limits, check: BatchCheck::new(limits, true), slots, logits: Vec::new(), steps: 0 }
    }

    /// The row of logits after a row of tokens.
    pub fn logits_after(vocab: usize, tokens: &[u32]) -> Vec<f32> {
        let print = tokens.iter().fold(1, |print, token| fingerprint(print, *token));
        row(vocab, print).collect()
    }

    /// The fingerprint of positions 0 to `end`, read slot by slot: every one must follow from the one before it.
    fn read(&self, batch: &Batch, at: usize) -> Result<u64, String> {
        let (seq, end) = (batch.seq[at] as usize, batch.positions[at] as usize);
        let page = |position: usize| batch.table[seq * batch.table_width + position / PAGE as usize];
        match end.checked_sub(1) {
            None => Ok(1),
            Some(last) => match self.slots[page(last) as usize * PAGE as usize + last % PAGE as usize] {
                0 => Err(format!("position {last} of sequence {seq} is read before it is written")),
                print => Ok(print),
            },
        }
    }
}

/// Logits that follow from a fingerprint: a few tokens stand out, so that greedy answers repeat themselves now and then.
fn row(vocab: usize, print: u64) -> impl Iterator<Item = f32> {
    (0..vocab as u64).map(move |id| {
        let mixed = (print ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        ((mixed >> 40) as f32) / 4_194_304.0
    })
}

impl DeviceModel for FakeModel {
    fn device(&self) -> String {
        "none".into()
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn result_name(&self) -> &str {
        "logits"
    }
    fn width(&self) -> usize {
        self.limits.vocab
    }
    fn step(&mut self, batch: &Batch) -> Result<&[f32], RuntimeError> {
        self.check.check(batch)?;
        self.steps += 1;
        let mut prints = Vec::with_capacity(batch.tokens.len());
        // Tokens of one sequence stand in order, so the slot before is written when it is read.
        for (at, token) in batch.tokens.iter().enumerate() {
            let before = self.read(batch, at).map_err(RuntimeError::Batch)?;
            let print = fingerprint(before, *token);
            self.slots[batch.slots[at] as usize] = print;
            prints.push(print);
        }
        let vocab = self.limits.vocab;
        self.logits.clear();
        self.logits.extend(batch.rows.iter().flat_map(|at| row(vocab, prints[*at as usize])));
        Ok(&self.logits)
    }
    fn times(&self) -> Vec<KernelTime> {
        Vec::new()
    }
}
