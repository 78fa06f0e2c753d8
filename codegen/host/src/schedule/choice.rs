//! What is free in how a program is run.
//!
//! Invariant: no choice changes a bit of a result. Every output is accumulated in one order, which depends on the summed
//! extent alone; a choice says only which outputs are computed together, and by whom.

use crate::micro::quant;
use std::fmt;
use std::str::FromStr;

/// The rows of a launch up to which a kernel may be run in another way than launches of more: their time goes into reading
/// weights, whereas that of more rows goes into arithmetic.
pub const FEW_ROWS: u64 = 24;

/// The most panels of one call of a micro-kernel: results lie so many columns apart.
pub(crate) const MOST_PANELS: usize = 4;

/// How a kernel is run in launches of few rows and of many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choices {
    /// Of at most [`FEW_ROWS`].
    pub few: Choice,
    /// Of more.
    pub many: Choice,
}

/// How a kernel is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Choice {
    /// What a unit is.
    pub way: Way,
    /// Whether one thread does all units.
    pub alone: bool,
}

/// What a work unit is, and how much of it is done at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Way {
    /// A grid point; where the last grid axis can be a loop inside it and is, the axis runs in vectors.
    Points {
        /// Whether that axis is such a loop, if it can be.
        inner: bool,
    },
    /// Panels of a product, all rows.
    Contract {
        /// Panels of a unit.
        panels: usize,
        /// Units that one call of the micro-kernel does.
        together: usize,
        /// Rows that are computed at a time.
        block: usize,
    },
    /// Panels of a product whose rows are sorted by their weights.
    Grouped {
        /// Panels of a unit.
        panels: usize,
        /// Rows that are computed at a time.
        block: usize,
    },
    /// Rows of attention that share keys and values.
    Attend {
        /// Rows of a unit.
        rows: usize,
    },
}

impl Way {
    /// The rows that are computed at a time.
    pub(crate) fn block(self) -> Option<usize> {
        match self {
            Way::Contract { block, .. } | Way::Grouped { block, .. } => Some(block),
            Way::Points { .. } | Way::Attend { .. } => None,
        }
    }

    /// Whether the numbers are such that the micro-kernels take them.
    pub(crate) fn is_possible(self) -> bool {
        let panels = |panels: usize, together: usize| {
            panels > 0 && together > 0 && panels.checked_mul(together).is_some_and(|all| all <= MOST_PANELS)
        };
        let rows = |block: usize| (1..=quant::ROWS).contains(&block);
        match self {
            Way::Points { .. } => true,
            Way::Contract { panels: each, together, block } => panels(each, together) && rows(block),
            Way::Grouped { panels: each, block } => panels(each, 1) && rows(block),
            Way::Attend { rows } => rows > 0,
        }
    }
}

/// Panels of a unit, and units together, that one call has room for.
pub(super) const PANELS: [(usize, usize); 6] = [(2, 1), (2, 2), (1, 1), (1, 2), (1, 4), (4, 1)];
/// Rows that are computed at a time: tiles are of up to twelve rows.
pub(super) const BLOCKS: [usize; 3] = [48, 36, 24];

/// Why a text is no choice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host schedule; wanted such as `contract 2x1 panels 48 rows` or `attend 4 rows alone`")]
pub struct ChoiceError(String);

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::Points { inner: true } => f.write_str("points")?,
            Way::Points { inner: false } => f.write_str("points singly")?,
            Way::Contract { panels, together, block } => {
                write!(f, "contract {panels}x{together} panels {block} rows")?;
            }
            Way::Grouped { panels, block } => write!(f, "grouped {panels} panels {block} rows")?,
            Way::Attend { rows } => write!(f, "attend {rows} rows")?,
        }
        f.write_str(if self.alone { " alone" } else { "" })
    }
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let wrong = || ChoiceError(text.to_owned());
        let mut words: Vec<&str> = text.split(' ').collect();
        let alone = words.last() == Some(&"alone");
        words.truncate(words.len() - usize::from(alone));
        let number = |word: &str| word.parse::<usize>().map_err(|_| wrong());
        let way = match words[..] {
            ["points"] => Way::Points { inner: true },
            ["points", "singly"] => Way::Points { inner: false },
            ["contract", panels, "panels", block, "rows"] => {
                let (panels, together) = panels.split_once('x').ok_or_else(wrong)?;
                let (panels, together) = (number(panels)?, number(together)?);
                Way::Contract { panels, together, block: number(block)? }
            }
            ["grouped", panels, "panels", block, "rows"] => {
                Way::Grouped { panels: number(panels)?, block: number(block)? }
            }
            ["attend", rows, "rows"] => Way::Attend { rows: number(rows)? },
            _ => return Err(wrong()),
        };
        way.is_possible().then_some(Choice { way, alone }).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        let mut ways =
            vec![Way::Points { inner: true }, Way::Points { inner: false }, Way::Attend { rows: 7 }];
        for (panels, together) in PANELS {
            ways.extend(BLOCKS.map(|block| Way::Contract { panels, together, block }));
            ways.extend(BLOCKS.map(|block| Way::Grouped { panels, block }));
        }
        for way in ways {
            for alone in [false, true] {
                let choice = Choice { way, alone };
                assert_eq!(choice.to_string().parse(), Ok(choice));
            }
        }
    }

    #[test]
    fn what_the_micro_kernels_do_not_take_is_refused() {
        for wrong in [
            "",
            "alone",
            "points alone alone",
            "contract 2x4 panels 48 rows",
            "contract 0x1 panels 48 rows",
            "contract 2x1 panels 49 rows",
            "contract 2 panels 48 rows",
            "contract 4294967296x4294967296 panels 1 rows",
            "grouped 8 panels 48 rows",
            "attend 0 rows",
            "attend -1 rows",
        ] {
            assert_eq!(wrong.parse::<Choice>(), Err(ChoiceError(wrong.into())), "{wrong}");
        }
    }
}
