//! Indices as integers.

use super::Scope;
use crate::emit::{Global, Int, Long};
use sinter_codegen_schedule::access::{dim_strides, may_be_negative};
use sinter_ir::{Atom, Dim, Id, Index, Layout, ParamId};

impl<'k> Scope<'_, 'k> {
    /// The value of an index. Every axis it mentions must be known.
    pub fn index(&self, index: &Index) -> Int<'k> {
        if let Some((_, known)) = self.indices.iter().find(|(known, _)| known == index) {
            return *known;
        }
        let mut sum: Option<Int<'k>> = None;
        for (atom, factor) in &index.terms {
            let atom = self.atom(atom);
            let term = if *factor == 1 { atom } else { atom * *factor as i32 };
            sum = Some(sum.map_or(term, |sum| sum + term));
        }
        match sum {
            None => self.k.int(index.offset as i32),
            Some(sum) if index.offset == 0 => sum,
            Some(sum) => sum + index.offset as i32,
        }
    }

    fn atom(&self, atom: &Atom) -> Int<'k> {
        match atom {
            Atom::Axis(axis) => self.at(*axis),
            Atom::Div(index, by) => self.floor(index, *by).0,
            Atom::Mod(index, by) => self.floor(index, *by).1,
            Atom::Load(load) => self.load(load).whole(self.k),
        }
    }

    /// ⌊index / by⌋ and index mod by. A remainder is never negative.
    fn floor(&self, index: &Index, by: u64) -> (Int<'k>, Int<'k>) {
        let (value, by) = (self.index(index), by as i32);
        if !may_be_negative(index) {
            return (value.divided(by), value.modulo(by));
        }
        let quotient = value.signed_divided(by);
        let rest = value - quotient * by;
        let negative = rest.lt(0);
        (quotient - negative.int(), negative.select(rest + by, rest))
    }

    /// The address of an element.
    pub fn address(&self, param: ParamId, index: &[Index]) -> Global<'k> {
        let known = &self.tile.params[param];
        let Some(strides) = dim_strides(known) else {
            self.k.fail(format!("{} of {} has a stride of two symbols", known.name, self.tile.name));
            return self.bases[param.index()];
        };
        let (mut offset, mut constant): (Option<Long<'k>>, i64) = (None, 0);
        for ((axis, (index, stride)), extent) in index.iter().zip(strides).enumerate().zip(&known.ty.shape) {
            // Two numbers share a byte.
            let shared = known.layout == Layout::Halves && axis + 1 == known.ty.shape.len();
            if let (Some(at), None, false) = (index.as_constant(), stride.sym, shared) {
                constant += at * stride.coeff as i64;
                continue;
            }
            let mut at = self.index(index);
            if self.careful {
                at = at.greatest(0).least(self.dim(*extent) - 1);
            }
            if shared {
                at = at >> 1;
            }
            let bytes = self.scaled(at, stride);
            offset = Some(offset.map_or(bytes, |sum| sum + bytes));
        }
        let base = self.bases[param.index()];
        let base = offset.map_or(base, |offset| base.at(offset));
        if constant == 0 { base } else { base.at(self.k.long(constant)) }
    }

    fn scaled(&self, at: Int<'k>, stride: Dim) -> Long<'k> {
        let at = at.long();
        let at = stride.sym.map_or(at, |sym| at * self.k.symbol(sym).long());
        if stride.coeff == 1 { at } else { at * stride.coeff as i64 }
    }
}
