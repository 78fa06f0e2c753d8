//! What is asked: random tokens, with beginnings that several requests share if so wished.

use sinter_runtime::uniform;

/// How prompts look.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Those of them at the beginning that are shared.
    pub prefix: usize,
    /// Different beginnings.
    pub prefixes: usize,
    /// Token ids are below this.
    pub vocab: usize,
}

/// The prompt of request `at`. Requests take the beginnings in turn.
pub fn prompt(shape: &Shape, seed: u64, at: usize) -> Vec<u32> {
    let prefix = shape.prefix.min(shape.prompt);
    let group = (at % shape.prefixes.max(1)) as u64;
    // Odd seeds are beginnings, even ones the rest: they never meet.
    let shared = (0..prefix).map(|place| token(shape, seed.wrapping_mul(2) + 1, group, place));
    let own = (prefix..shape.prompt).map(|place| token(shape, seed.wrapping_mul(2), at as u64, place));
    shared.chain(own).collect()
}

fn token(shape: &Shape, seed: u64, row: u64, place: usize) -> u32 {
    (uniform(seed.wrapping_add(row << 32), place as u64) * shape.vocab as f64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_shared_and_ends_are_not() {
        let shape = Shape { prompt: 40, prefix: 30, prefixes: 2, vocab: 50_000 };
        let all: Vec<_> = (0..4).map(|at| prompt(&shape, 3, at)).collect();
        assert!(all.iter().all(|prompt| prompt.len() == 40 && prompt.iter().all(|token| *token < 50_000)));
        assert_eq!(all[0][..30], all[2][..30]);
        assert_ne!(all[0][..30], all[1][..30]);
        assert_ne!(all[0][30..], all[2][30..]);
        assert_eq!(all[1], prompt(&shape, 3, 1));
        assert_ne!(all[1], prompt(&shape, 4, 1));
    }

    #[test]
    fn a_prefix_is_no_longer_than_its_prompt() {
        let shape = Shape { prompt: 4, prefix: 9, prefixes: 1, vocab: 8 };
        assert_eq!(prompt(&shape, 0, 0), prompt(&shape, 0, 5));
    }
}
