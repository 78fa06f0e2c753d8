//! Loads of single elements of weights in codes, rows that are gathered from a table that is also the head, and of halves of
//! bytes.

use super::value::{Kind, Val};
use super::{Emitter, plain};
use crate::micro::PANEL;
use cranelift_codegen::ir::{self, InstBuilder, types};
use sinter_ir::{Codes, Load, Offset, ScalarOp};

impl Emitter<'_> {
    /// The element or the four elements that a load of codes gives at this point, rounded to the parameter's type.
    pub(super) fn load_codes(&mut self, load: &Load, codes: &Codes, guarded: bool) -> Val {
        let moves = |axis| load.axes().contains(&axis);
        if let Some(axis) = self.lane.filter(|axis| moves(*axis)) {
            let lanes = [0, 1, 2, 3]
                .map(|at| self.at_lane(axis, at, |emitter| emitter.load_codes(load, codes, guarded)));
            return self.gather(lanes);
        }
        let param = &self.tile.params[load.param];
        let (dtype, k) = (param.ty.dtype, param.ty.shape[1].coeff as usize);
        let index = match guarded {
            true => self.inside(load.param, &load.index, 1),
            false => load.index.iter().map(|index| self.index(index, false)).collect(),
        };
        let [row, depth] = index[..] else { unreachable!("the check wants matrices") };
        let base = self.bases[load.param.0 as usize];
        let panel = self.floor_div(row, PANEL as u64, true);
        let panel = self.times(panel, codes.panel_bytes(k) as i64);
        let base = self.b.ins().iadd(base, panel);
        let group = self.floor_div(depth, u64::from(codes.group), true);
        let group = self.times(group, codes.group_bytes() as i64);
        let base = self.b.ins().iadd(base, group);
        let column = self.floor_mod(row, PANEL as u64, true);
        let depth = self.floor_mod(depth, u64::from(codes.group), true);
        let code = self.code((base, column, depth), codes);
        let product = self.dequantised((base, column), code, codes);
        self.cast(dtype, product)
    }

    /// The element or the four elements that a load of halves of bytes gives at this point.
    pub(super) fn load_half(&mut self, load: &Load, guarded: bool) -> Val {
        let moves = |axis| load.axes().contains(&axis);
        if let Some(axis) = self.lane.filter(|axis| moves(*axis)) {
            let lanes =
                [0, 1, 2, 3].map(|at| self.at_lane(axis, at, |emitter| emitter.load_half(load, guarded)));
            return self.gather(lanes);
        }
        let element = self.place_of(load.param, &load.index, guarded);
        let byte = self.floor_div(element, 2, true);
        let address = self.b.ins().iadd(self.bases[load.param.0 as usize], byte);
        let byte = self.b.ins().uload8(types::I64, plain(), address, 0);
        let upper = self.floor_mod(element, 2, true);
        let shift = self.times(upper, 4);
        let half = self.b.ins().ushr(byte, shift);
        let half = self.b.ins().band_imm_s(half, 15);
        let number = self.plus(half, -8);
        Val::new(number, Kind::Whole, false)
    }

    /// The code of a column at a depth of the group at an address, as a whole number.
    fn code(
        &mut self,
        (group, column, depth): (ir::Value, ir::Value, ir::Value),
        codes: &Codes,
    ) -> ir::Value {
        let byte = self.floor_mod(depth, 4, true);
        let four = codes.bits == 4;
        let step = self.floor_div(depth, if four { 8 } else { 4 }, true);
        let mut address = self.b.ins().iadd(group, byte);
        for (part, bytes) in [(step, 4 * PANEL as i64), (column, 4)] {
            let offset = self.times(part, bytes);
            address = self.b.ins().iadd(address, offset);
        }
        let code = self.b.ins().uload8(types::I64, plain(), address, 0);
        if !four {
            return code;
        }
        let high = self.floor_mod(depth, 8, true);
        let high = self.floor_div(high, 4, true);
        let shift = self.times(high, 4);
        let code = self.b.ins().ushr(code, shift);
        self.b.ins().band_imm_s(code, 15)
    }

    /// What a code stands for.
    fn dequantised(
        &mut self,
        (group, column): (ir::Value, ir::Value),
        code: ir::Value,
        codes: &Codes,
    ) -> Val {
        let at = codes.code_bytes() as i64;
        let (single, byte) = (self.times(column, 4), column);
        let single = self.b.ins().iadd(group, single);
        let read = |emitter: &mut Self, at: i64| {
            let value = emitter.b.ins().load(types::F32, plain(), single, at as i32);
            Val::number(value, false)
        };
        let scale = read(self, at);
        let code = match codes.offset {
            Offset::Middle => self.plus(code, -i64::from(codes.middle())),
            Offset::Zeros => {
                let address = self.b.ins().iadd(group, byte);
                let zero = self.b.ins().uload8(types::I64, plain(), address, (at + 4 * PANEL as i64) as i32);
                self.b.ins().isub(code, zero)
            }
            Offset::Lows => code,
        };
        let number = Val::number(self.b.ins().fcvt_from_sint(types::F32, code), false);
        let product = self.apply(ScalarOp::Mul, &[number, scale]);
        if codes.offset != Offset::Lows {
            return product;
        }
        let low = read(self, at + 4 * PANEL as i64);
        self.apply(ScalarOp::Add, &[product, low])
    }
}
