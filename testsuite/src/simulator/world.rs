//! What a seed stands for: the limits of the engine, and clients with their prompts, habits and moments of leaving.

use crate::machine::SchedulerConfig;
use sinter_runtime::uniform;

/// When in a step a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the step is decided.
    BeforePlan,
    /// While the model computes it.
    BeforeCommit,
}

/// How good the guesses of speculation are for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drafts {
    /// No speculation.
    None,
    /// So many guesses, all right.
    Right(usize),
    /// So many guesses, the first of them wrong.
    Wrong(usize),
    /// So many guesses, right for a while.
    Mixed(usize),
}

/// A client.
#[derive(Debug, Clone)]
pub struct Client {
    /// The step of its arrival.
    pub arrives: u64,
    /// Its prompt.
    pub prompt: Vec<u32>,
    /// The tokens that it waits for.
    pub answer: usize,
    /// Smaller is sooner.
    pub priority: i32,
    /// With whom it shares pages.
    pub salt: Vec<u8>,
    /// Whether it wants the logits of its whole prompt.
    pub all_rows: bool,
    /// Steps after its arrival at which it leaves, and when in the step.
    pub leaves: Option<(u64, Moment)>,
    /// The step in which the model fails for it.
    pub fails_at: Option<u64>,
    /// How speculation guesses.
    pub drafts: Drafts,
}

/// Everything that a run depends on.
#[derive(Debug, Clone)]
pub struct World {
    /// The limits.
    pub config: SchedulerConfig,
    /// Tokens are below this.
    pub vocab: u32,
    /// The clients.
    pub clients: Vec<Client>,
}

/// Random numbers of one seed.
struct Dice {
    seed: u64,
    rolls: u64,
}

impl Dice {
    /// A number from `low` to `high`, both included.
    fn roll(&mut self, low: usize, high: usize) -> usize {
        self.rolls += 1;
        low + (uniform(self.seed, self.rolls) * (high - low + 1) as f64) as usize
    }
    /// Whether something happens that happens once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.roll(1, times) == 1
    }
}

impl World {
    /// The world of a seed.
    pub fn from_seed(seed: u64) -> Self {
        let mut dice = Dice { seed, rolls: 0 };
        // In a storm short prompts want long answers on few pages, so that they are put back again and again.
        let storm = dice.once_in(3);
        let max_sequences = if storm { dice.roll(3, 6) } else { dice.roll(1, 6) };
        let pages = match (storm, dice.once_in(5)) {
            (true, _) => dice.roll(4, 8),
            (false, true) => 2,
            (false, false) => dice.roll(2, 24),
        };
        let config = SchedulerConfig {
            max_tokens: dice.roll(max_sequences, 40),
            max_sequences,
            max_rows: dice.roll(max_sequences, max_sequences + 12),
            pages,
            max_positions: if storm { 160 } else { dice.roll(20, 160) },
            patience: dice.roll(0, 20) as u64,
            prefix_cache: !dice.once_in(8),
        };
        let vocab = dice.roll(2, 5) as u32;
        let stems: Vec<Vec<u32>> = (0..3).map(|_| tokens(&mut dice, 60, vocab)).collect();
        let count = dice.roll(1, 9);
        let mut clients: Vec<Client> =
            (0..count).map(|_| client(&mut dice, &config, &stems, vocab)).collect();
        for client in clients.iter_mut().filter(|_| storm) {
            client.prompt.truncate(dice.roll(1, 20));
            client.answer = dice.roll(20, (config.capacity() - 20).min(60));
        }
        Self { config, vocab, clients }
    }

    /// Steps after which the run must be over: each computes a token that is never computed again, but for what is
    /// computed again after a sequence was put back.
    pub fn most_steps(&self) -> u64 {
        let tokens = |client: &Client| client.arrives + 4 * (client.prompt.len() + client.answer) as u64 + 8;
        self.clients.iter().map(tokens).sum()
    }
}

fn tokens(dice: &mut Dice, count: usize, vocab: u32) -> Vec<u32> {
    (0..count).map(|_| dice.roll(0, vocab as usize - 1) as u32).collect()
}

fn client(dice: &mut Dice, config: &SchedulerConfig, stems: &[Vec<u32>], vocab: u32) -> Client {
    let capacity = config.capacity();
    // Most prompts begin like others; some end with a page, where mistakes by one show.
    let stem = &stems[dice.roll(0, stems.len() - 1)];
    let common = if dice.once_in(3) { 16 * dice.roll(0, 3) } else { dice.roll(0, stem.len()) };
    let rest = if dice.once_in(3) { 0 } else { dice.roll(0, 20) };
    let mut prompt = [&stem[..common], &tokens(dice, rest, vocab)].concat();
    if dice.once_in(30) {
        prompt = tokens(dice, capacity + 1, vocab);
    } else if prompt.is_empty() || !dice.once_in(20) {
        prompt.truncate(capacity);
        prompt.extend(if prompt.is_empty() { Some(0) } else { None });
    }
    let room = (capacity + 1).saturating_sub(prompt.len()).max(1);
    let answer = if dice.once_in(4) { room.min(80) } else { dice.roll(1, room.min(24)) };
    let guesses = dice.roll(1, 5);
    Client {
        arrives: if dice.once_in(2) { 0 } else { dice.roll(0, 30) as u64 },
        answer,
        priority: dice.roll(0, 4) as i32 - 2,
        salt: if dice.once_in(4) { vec![1] } else { Vec::new() },
        all_rows: dice.once_in(8),
        leaves: dice.once_in(5).then(|| {
            let moment = if dice.once_in(2) { Moment::BeforePlan } else { Moment::BeforeCommit };
            (dice.roll(0, 20) as u64, moment)
        }),
        fails_at: dice.once_in(20).then(|| dice.roll(0, 40) as u64),
        drafts: match dice.roll(0, 5) {
            0 => Drafts::Right(guesses),
            1 => Drafts::Wrong(guesses),
            2 => Drafts::Mixed(guesses),
            _ => Drafts::None,
        },
        prompt,
    }
}
