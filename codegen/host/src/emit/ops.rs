//! The scalar functions, in one lane or four. They mean what [`ScalarOp::eval`] says.

use super::{
    Emitter,
    value::{Kind, Val},
};
use crate::calls::Callee;
use cranelift_codegen::ir::{
    self, InstBuilder,
    condcodes::{FloatCC, IntCC},
    types,
};
use sinter_ir::{DType, ScalarOp};

impl Emitter<'_> {
    pub(super) fn apply(&mut self, op: ScalarOp, args: &[Val]) -> Val {
        use ScalarOp::*;
        match op {
            Exp | Log | Sin | Cos | Tanh | Erf => self.elementary(op, args[0]),
            Neg | Abs | Sqrt | Rsqrt | Recip | Floor | Not => self.unary(op, args[0]),
            Select => self.select(args),
            And | Or => {
                let args = [self.truth(args[0]), self.truth(args[1])];
                let (x, y) = self.level(args[0], args[1]);
                let value = if op == And {
                    self.b.ins().band(x.value, y.value)
                } else {
                    self.b.ins().bor(x.value, y.value)
                };
                Val::new(value, Kind::Truth, x.wide)
            }
            Div => {
                let (x, y) = (self.number(args[0]), self.number(args[1]));
                let (x, y) = self.level(x, y);
                Val::number(self.b.ins().fdiv(x.value, y.value), x.wide)
            }
            Shr | Bitand => {
                let (x, y) = (self.cast(DType::U32, args[0]), self.cast(DType::U32, args[1]));
                let (x, y) = self.level(x, y);
                self.of_bits(op, x, y)
            }
            Add | Sub | Mul | Idiv | Mod | Max | Min | Lt | Le | Eq => {
                let (x, y) = self.unify(args[0], args[1]);
                if x.kind == Kind::Whole { self.whole_binary(op, x, y) } else { self.number_binary(op, x, y) }
            }
        }
    }

    /// A value converted to an element type, as the evaluator stores it.
    pub(super) fn cast(&mut self, dtype: DType, val: Val) -> Val {
        match dtype {
            DType::F32 => self.number(val),
            DType::Bf16 | DType::F16 | DType::F8e4m3 => {
                let number = self.number(val);
                self.rounded(dtype, number)
            }
            DType::Bool => self.truth(val),
            DType::U32 => {
                let whole = self.whole(val);
                let ty = self.b.func.dfg.value_type(whole.value);
                let zero = self.same(ty, 0);
                let value = self.b.ins().smax(whole.value, zero);
                Val { constant: whole.constant, ..Val::new(value, Kind::Whole, whole.wide) }
            }
            DType::U8 => self.kept_within(val, (0, 255)),
            DType::I8 => self.kept_within(val, (-128, 127)),
            DType::I32 => self.kept_within(val, (i64::from(i32::MIN), i64::from(i32::MAX))),
            // `facts::check` refuses programs with them.
            DType::F8e5m2 | DType::F8e8m0 => self.number(val),
        }
    }

    /// As a whole number in a range.
    fn kept_within(&mut self, val: Val, (low, high): (i64, i64)) -> Val {
        let whole = self.whole(val);
        let ty = self.b.func.dfg.value_type(whole.value);
        let (low, high) = (self.same(ty, low), self.same(ty, high));
        let value = self.b.ins().smax(whole.value, low);
        Val::new(self.b.ins().smin(value, high), Kind::Whole, whole.wide)
    }

    /// A shift or the common bits of whole numbers that are not negative.
    fn of_bits(&mut self, op: ScalarOp, x: Val, y: Val) -> Val {
        if op == ScalarOp::Bitand {
            return Val::new(self.b.ins().band(x.value, y.value), Kind::Whole, x.wide);
        }
        if x.wide {
            // Vectors shift all lanes by one amount only.
            let lanes = [0, 1, 2, 3].map(|at| {
                let (x, y) = (self.lane(x, at), self.lane(y, at));
                self.of_bits(op, x, y)
            });
            return self.gather(lanes);
        }
        let most = self.int(63);
        let by = self.b.ins().smin(y.value, most);
        Val::new(self.b.ins().ushr(x.value, by), Kind::Whole, false)
    }

    /// Both with one lane or both with four.
    fn level(&mut self, x: Val, y: Val) -> (Val, Val) {
        if x.wide || y.wide { (self.widen(x), self.widen(y)) } else { (x, y) }
    }

    /// Both whole numbers if that loses nothing, else both numbers; with equal lanes.
    fn unify(&mut self, x: Val, y: Val) -> (Val, Val) {
        let constants = x.kind == Kind::Number && y.kind == Kind::Number;
        let kind = if x.is_whole() && y.is_whole() && !constants { Kind::Whole } else { Kind::Number };
        let (x, y) = (self.as_kind(x, kind), self.as_kind(y, kind));
        self.level(x, y)
    }

    fn elementary(&mut self, op: ScalarOp, arg: Val) -> Val {
        let callee = match op {
            ScalarOp::Exp => Callee::Exp4,
            ScalarOp::Log => Callee::Log4,
            ScalarOp::Sin => Callee::Sin4,
            ScalarOp::Cos => Callee::Cos4,
            ScalarOp::Tanh => Callee::Tanh4,
            _ => Callee::Erf4,
        };
        let number = self.number(arg);
        let wide = self.widen(number);
        let result = self.call_for(callee, &[wide.value]);
        let result = Val::number(result.unwrap_or(wide.value), true);
        if arg.wide { result } else { self.lane(result, 0) }
    }

    fn unary(&mut self, op: ScalarOp, arg: Val) -> Val {
        if op == ScalarOp::Not {
            let truth = self.truth(arg);
            let ty = self.b.func.dfg.value_type(truth.value);
            let ones = self.same(ty, if truth.wide { -1 } else { 1 });
            return Val::new(self.b.ins().bxor(truth.value, ones), Kind::Truth, truth.wide);
        }
        if op == ScalarOp::Neg {
            let zero = self.constant(0.0);
            return self.apply(ScalarOp::Sub, &[zero, arg]);
        }
        if op == ScalarOp::Floor && arg.kind == Kind::Whole {
            return arg;
        }
        let x = self.number(arg);
        let value = match op {
            ScalarOp::Abs => self.b.ins().fabs(x.value),
            ScalarOp::Floor => self.b.ins().floor(x.value),
            ScalarOp::Sqrt => self.b.ins().sqrt(x.value),
            ScalarOp::Rsqrt => {
                let root = self.b.ins().sqrt(x.value);
                self.reciprocal(root)
            }
            _ => self.reciprocal(x.value),
        };
        Val::number(value, x.wide)
    }

    fn reciprocal(&mut self, value: ir::Value) -> ir::Value {
        let one = self.b.ins().f32const(1.0);
        let ty = self.b.func.dfg.value_type(value);
        let one = if ty.is_vector() { self.b.ins().splat(ty, one) } else { one };
        self.b.ins().fdiv(one, value)
    }

    fn select(&mut self, args: &[Val]) -> Val {
        let condition = self.truth(args[0]);
        let (x, y) = match (args[1].kind, args[2].kind) {
            (a, b) if a == b => self.level(args[1], args[2]),
            _ => self.unify(args[1], args[2]),
        };
        self.choose(condition, x, y)
    }

    /// `condition ? x : y`; x and y have one kind and equal lanes.
    pub(super) fn choose(&mut self, condition: Val, x: Val, y: Val) -> Val {
        if !condition.wide {
            return Val::new(self.b.ins().select(condition.value, x.value, y.value), x.kind, x.wide);
        }
        let (x, y) = (self.widen(x), self.widen(y));
        let ty = self.b.func.dfg.value_type(x.value);
        let mask = self.bits(ty, condition.value);
        Val::new(self.b.ins().bitselect(mask, x.value, y.value), x.kind, true)
    }

    fn number_binary(&mut self, op: ScalarOp, x: Val, y: Val) -> Val {
        let compare =
            |this: &mut Self, code| Val::new(this.b.ins().fcmp(code, x.value, y.value), Kind::Truth, x.wide);
        let (a, c) = (x.value, y.value);
        let value = match op {
            ScalarOp::Add => self.b.ins().fadd(a, c),
            ScalarOp::Sub => self.b.ins().fsub(a, c),
            ScalarOp::Mul => self.b.ins().fmul(a, c),
            ScalarOp::Max | ScalarOp::Min => {
                let first = op == ScalarOp::Max;
                let code = if first { FloatCC::GreaterThanOrEqual } else { FloatCC::LessThanOrEqual };
                let keep = compare(self, code);
                return self.choose(keep, x, y);
            }
            ScalarOp::Lt => return compare(self, FloatCC::LessThan),
            ScalarOp::Le => return compare(self, FloatCC::LessThanOrEqual),
            ScalarOp::Eq => return compare(self, FloatCC::Equal),
            ScalarOp::Idiv | ScalarOp::Mod => {
                // A remainder is never negative, whatever the sign of the divisor.
                let c = if op == ScalarOp::Mod { self.b.ins().fabs(c) } else { c };
                let quotient = self.b.ins().fdiv(a, c);
                let floor = self.b.ins().floor(quotient);
                if op == ScalarOp::Idiv {
                    floor
                } else {
                    let whole = self.b.ins().fmul(floor, c);
                    self.b.ins().fsub(a, whole)
                }
            }
            _ => unreachable!("{op:?} is not a function of two numbers"),
        };
        Val::number(value, x.wide)
    }

    fn whole_binary(&mut self, op: ScalarOp, x: Val, y: Val) -> Val {
        let (a, c) = (x.value, y.value);
        let code = match op {
            ScalarOp::Lt => Some(IntCC::SignedLessThan),
            ScalarOp::Le => Some(IntCC::SignedLessThanOrEqual),
            ScalarOp::Eq => Some(IntCC::Equal),
            _ => None,
        };
        if let Some(code) = code {
            return Val::new(self.b.ins().icmp(code, a, c), Kind::Truth, x.wide);
        }
        let value = match op {
            ScalarOp::Add => self.b.ins().iadd(a, c),
            ScalarOp::Sub => self.b.ins().isub(a, c),
            ScalarOp::Mul => self.b.ins().imul(a, c),
            ScalarOp::Max => self.b.ins().smax(a, c),
            ScalarOp::Min => self.b.ins().smin(a, c),
            _ => return self.divide(op, x, y),
        };
        Val::new(value, Kind::Whole, x.wide)
    }

    /// ⌊x / y⌋ or x mod y. A divisor of 0 is taken as 1: the evaluator's result is no whole number then.
    fn divide(&mut self, op: ScalarOp, x: Val, y: Val) -> Val {
        if x.wide && y.constant.is_none_or(|by| by < 1.0 || (by as u64).count_ones() != 1) {
            let lanes = [0, 1, 2, 3].map(|at| {
                let (x, y) = (self.lane(x, at), self.lane(y, at));
                self.divide(op, x, Val { constant: None, ..y })
            });
            return self.gather(lanes);
        }
        let value = match y.constant {
            Some(by) if by >= 1.0 && op == ScalarOp::Idiv => self.floor_div(x.value, by as u64, false),
            Some(by) if by >= 1.0 => self.floor_mod(x.value, by as u64, false),
            _ => self.divide_by_any(op, x.value, y.value),
        };
        Val::new(value, Kind::Whole, x.wide)
    }

    fn divide_by_any(&mut self, op: ScalarOp, x: ir::Value, y: ir::Value) -> ir::Value {
        let (zero, one) = (self.int(0), self.int(1));
        let none = self.b.ins().icmp(IntCC::Equal, y, zero);
        let y = self.b.ins().select(none, one, y);
        let quotient = self.b.ins().sdiv(x, y);
        let back = self.b.ins().imul(quotient, y);
        let rest = self.b.ins().isub(x, back);
        let negative = self.b.ins().icmp(IntCC::SignedLessThan, rest, zero);
        if op == ScalarOp::Mod {
            let size = self.b.ins().ineg(y);
            let size = self.b.ins().smax(size, y);
            let above = self.b.ins().iadd(rest, size);
            return self.b.ins().select(negative, above, rest);
        }
        let sides = self.b.ins().bxor(rest, y);
        let apart = self.b.ins().icmp(IntCC::SignedLessThan, sides, zero);
        let uneven = self.b.ins().icmp(IntCC::NotEqual, rest, zero);
        let below = self.b.ins().band(apart, uneven);
        let less = self.b.ins().isub(quotient, one);
        self.b.ins().select(below, less, quotient)
    }

    /// ⌊x / by⌋ of an i64, or of i32 lanes if `by` is a power of two.
    pub(super) fn floor_div(&mut self, x: ir::Value, by: u64, natural: bool) -> ir::Value {
        if by.is_power_of_two() {
            return self.b.ins().sshr_imm_u(x, i64::from(by.trailing_zeros()));
        }
        // A division rounds down if its operand is moved up to where it is positive.
        let shift = if natural { 0 } else { (1 << 62) / by as i64 };
        let moved = self.plus(x, shift * by as i64);
        let quotient = self.b.ins().udiv_imm_u(moved, by as i64);
        self.plus(quotient, -shift)
    }

    /// x mod by, of an i64, or of i32 lanes if `by` is a power of two.
    pub(super) fn floor_mod(&mut self, x: ir::Value, by: u64, natural: bool) -> ir::Value {
        if by.is_power_of_two() {
            let ty = self.b.func.dfg.value_type(x);
            let mask = self.same(ty, by as i64 - 1);
            return self.b.ins().band(x, mask);
        }
        let quotient = self.floor_div(x, by, natural);
        let whole = self.b.ins().imul_imm_s(quotient, by as i64);
        self.b.ins().isub(x, whole)
    }
}

/// The type of a vector register of numbers.
pub(super) const WIDE: ir::Type = types::F32X4;
