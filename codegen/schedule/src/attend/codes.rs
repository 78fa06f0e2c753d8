//! Keys and values that are kept as codes, each row with a scale.

use crate::codes::Format;
use sinter_ir::{DType, Expr, ExprId, Index, Load, TileProgram};

/// Keys and values as codes that tensor cores multiply as numbers of bf16.
#[derive(Clone, PartialEq, Debug)]
pub struct Coded {
    /// What keys are made of.
    pub key: Format,
    /// What values are made of.
    pub value: Format,
    /// The expression in the score that loads the scale of a key, and where from.
    pub key_scale: (ExprId, Load),
    /// Where the scale of a value is loaded from: the factor.
    pub value_scale: Load,
}

impl Coded {
    /// The codes of a program's keys and values, if both are codes and each position has a scale where it has its row.
    pub(super) fn of(
        tile: &TileProgram,
        (key, value): (&Load, &Load),
        score: ExprId,
        factor: Option<ExprId>,
    ) -> Option<Coded> {
        let format = |load: &Load| Format::of(&tile.params[load.param]);
        let scale = |id: ExprId, row: &Load| match &tile.exprs[id] {
            Expr::Load(load) if is_beside(tile, load, row) => Some((id, load.clone())),
            _ => None,
        };
        let mut scales = tile.cone(score).into_iter().filter_map(|id| scale(id, key));
        let (key_scale, None) = (scales.next()?, scales.next()) else { return None };
        let value_scale = scale(factor?, value)?.1;
        Some(Coded { key: format(key)?, value: format(value)?, key_scale, value_scale })
    }
}

/// Whether a load is that of the one number that a position and head have beside their row.
fn is_beside(tile: &TileProgram, load: &Load, row: &Load) -> bool {
    let ([outer @ .., last], [others @ .., _]) = (&load.index[..], &row.index[..]) else { return false };
    tile.params[load.param].ty.dtype == DType::F32 && outer == others && *last == Index::constant(0)
}
