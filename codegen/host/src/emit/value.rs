//! Values of scalar expressions, in one lane or four.
//!
//! | kind | one lane | four lanes |
//! | --- | --- | --- |
//! | number | `f32` | `f32x4` |
//! | whole number | `i64` | `i32x4`, saturated |
//! | truth | `i8`, 0 or 1 | `i32x4`, 0 or −1 |

use super::Emitter;
use cranelift_codegen::ir::{self, Endianness, InstBuilder, MemFlagsData, condcodes::FloatCC, types};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Number,
    Whole,
    Truth,
}

/// A value; a constant also knows its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Val {
    pub(super) value: ir::Value,
    pub(super) kind: Kind,
    pub(super) wide: bool,
    pub(super) constant: Option<f64>,
}

impl Val {
    pub(super) fn new(value: ir::Value, kind: Kind, wide: bool) -> Self {
        Self { value, kind, wide, constant: None }
    }
    pub(super) fn number(value: ir::Value, wide: bool) -> Self {
        Self::new(value, Kind::Number, wide)
    }
    /// Whether it can be seen as a whole number without loss.
    pub(super) fn is_whole(&self) -> bool {
        self.kind != Kind::Number
            || self.constant.is_some_and(|number| number.fract() == 0.0 && number.abs() < 9e15)
    }
}

impl Emitter<'_> {
    pub(super) fn constant(&mut self, number: f64) -> Val {
        let value = self.b.ins().f32const(number as f32);
        Val { constant: Some(number), ..Val::number(value, false) }
    }

    /// Bits of a value seen as another type of the same size.
    pub(super) fn bits(&mut self, ty: ir::Type, value: ir::Value) -> ir::Value {
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        if self.b.func.dfg.value_type(value) == ty { value } else { self.b.ins().bitcast(ty, flags, value) }
    }

    /// An integer constant of the type of `like`, in every lane.
    pub(super) fn same(&mut self, like: ir::Type, number: i64) -> ir::Value {
        let lane = like.lane_type();
        let number = if lane == types::I64 { number } else { number & ((1 << lane.bits()) - 1) };
        let value = self.b.ins().iconst(lane, number);
        if like.is_vector() { self.b.ins().splat(like, value) } else { value }
    }

    pub(super) fn number(&mut self, val: Val) -> Val {
        let ty = if val.wide { types::F32X4 } else { types::F32 };
        let value = match val.kind {
            Kind::Number => return val,
            Kind::Whole => self.b.ins().fcvt_from_sint(ty, val.value),
            Kind::Truth if val.wide => {
                let one = self.b.ins().f32const(1.0);
                let one = self.b.ins().splat(types::F32X4, one);
                let one = self.bits(types::I32X4, one);
                let value = self.b.ins().band(val.value, one);
                self.bits(types::F32X4, value)
            }
            Kind::Truth => {
                let (one, zero) = (self.b.ins().f32const(1.0), self.b.ins().f32const(0.0));
                self.b.ins().select(val.value, one, zero)
            }
        };
        Val::number(value, val.wide)
    }

    /// As a whole number: truncated, NaN to 0.
    pub(super) fn whole(&mut self, val: Val) -> Val {
        let value = match (val.kind, val.constant, val.wide) {
            (Kind::Whole, ..) => return val,
            (Kind::Number, Some(number), false) if val.is_whole() => self.int(number as i64),
            (Kind::Number, _, false) => self.b.ins().fcvt_to_sint_sat(types::I64, val.value),
            (Kind::Number, _, true) => self.b.ins().fcvt_to_sint_sat(types::I32X4, val.value),
            (Kind::Truth, _, false) => self.b.ins().uextend(types::I64, val.value),
            (Kind::Truth, _, true) => {
                let one = self.same(types::I32X4, 1);
                self.b.ins().band(val.value, one)
            }
        };
        Val { constant: val.constant, ..Val::new(value, Kind::Whole, val.wide) }
    }

    pub(super) fn truth(&mut self, val: Val) -> Val {
        use cranelift_codegen::ir::condcodes::IntCC;
        let value = match val.kind {
            Kind::Truth => return val,
            Kind::Number => {
                let zero = self.b.ins().f32const(0.0);
                let zero = if val.wide { self.b.ins().splat(types::F32X4, zero) } else { zero };
                self.b.ins().fcmp(FloatCC::NotEqual, val.value, zero)
            }
            Kind::Whole => {
                let ty = self.b.func.dfg.value_type(val.value);
                let zero = self.same(ty, 0);
                self.b.ins().icmp(IntCC::NotEqual, val.value, zero)
            }
        };
        Val::new(value, Kind::Truth, val.wide)
    }

    pub(super) fn as_kind(&mut self, val: Val, kind: Kind) -> Val {
        match kind {
            Kind::Number => self.number(val),
            Kind::Whole => self.whole(val),
            Kind::Truth => self.truth(val),
        }
    }

    /// The same value in four lanes.
    pub(super) fn widen(&mut self, val: Val) -> Val {
        if val.wide {
            return val;
        }
        let value = match val.kind {
            Kind::Number => self.b.ins().splat(types::F32X4, val.value),
            Kind::Whole => {
                let lane = self.saturate(val.value);
                self.b.ins().splat(types::I32X4, lane)
            }
            Kind::Truth => {
                let lane = self.b.ins().bmask(types::I32, val.value);
                self.b.ins().splat(types::I32X4, lane)
            }
        };
        Val { constant: val.constant, ..Val::new(value, val.kind, true) }
    }

    /// An i64 as the nearest i32.
    fn saturate(&mut self, value: ir::Value) -> ir::Value {
        let (low, high) = (self.int(i64::from(i32::MIN)), self.int(i64::from(i32::MAX)));
        let value = self.b.ins().smax(value, low);
        let value = self.b.ins().smin(value, high);
        self.b.ins().ireduce(types::I32, value)
    }

    /// Four values of one kind as the lanes of one.
    pub(super) fn gather(&mut self, lanes: [Val; 4]) -> Val {
        let kind = lanes[0].kind;
        let ty = if kind == Kind::Number { types::F32X4 } else { types::I32X4 };
        let lanes = lanes.map(|lane| match kind {
            Kind::Number => lane.value,
            Kind::Whole => self.saturate(lane.value),
            Kind::Truth => self.b.ins().bmask(types::I32, lane.value),
        });
        let mut value = self.b.ins().splat(ty, lanes[0]);
        for (at, lane) in lanes.into_iter().enumerate().skip(1) {
            value = self.b.ins().insertlane(value, lane, at as u8);
        }
        Val::new(value, kind, true)
    }

    /// One lane of four.
    pub(super) fn lane(&mut self, val: Val, at: usize) -> Val {
        let lane = self.b.ins().extractlane(val.value, at as u8);
        let value = match val.kind {
            Kind::Number => lane,
            Kind::Whole => self.b.ins().sextend(types::I64, lane),
            Kind::Truth => {
                let zero = self.b.ins().iconst(types::I32, 0);
                self.b.ins().icmp(ir::condcodes::IntCC::NotEqual, lane, zero)
            }
        };
        Val::new(value, val.kind, false)
    }
}
