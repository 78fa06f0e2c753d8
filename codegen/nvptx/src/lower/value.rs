//! Expressions as values. They mean what [`ScalarOp::eval`] says.

use super::Scope;
use super::codes::{of_e4m3, to_e4m3};
use crate::emit::{Bit, Float, Int, K};
use sinter_codegen_schedule::access;
use sinter_ir::{AxisId, DType, Expr, ExprId, Id, ScalarOp};

/// The value of an expression.
#[derive(Clone, Copy)]
pub enum Val<'k> {
    /// A number that is known now.
    Constant(f64),
    /// A float.
    Number(Float<'k>),
    /// A whole number, signed.
    Whole(Int<'k>),
    /// A truth value.
    Truth(Bit<'k>),
}

impl<'k> Val<'k> {
    /// As a float.
    pub fn number(self, k: K<'k>) -> Float<'k> {
        match self {
            Val::Constant(value) => k.float(value as f32),
            Val::Number(value) => value,
            Val::Whole(value) => value.float(),
            Val::Truth(value) => value.select(k.float(1.0), k.float(0.0)),
        }
    }
    /// As a whole number: towards zero, no number to 0.
    pub fn whole(self, k: K<'k>) -> Int<'k> {
        match self {
            Val::Constant(value) => k.int(value as i32),
            Val::Number(value) => value.int(),
            Val::Whole(value) => value,
            Val::Truth(value) => value.int(),
        }
    }
    /// Whether it is not zero.
    pub fn truth(self, k: K<'k>) -> Bit<'k> {
        match self {
            Val::Constant(value) => k.bit(value != 0.0),
            Val::Number(value) => value.differs(0.0),
            Val::Whole(value) => value.differs(0),
            Val::Truth(value) => value,
        }
    }
    fn is_whole(self) -> bool {
        match self {
            Val::Constant(value) => value.fract() == 0.0 && value.abs() < f64::from(1 << 30),
            Val::Whole(_) => true,
            Val::Number(_) | Val::Truth(_) => false,
        }
    }
}

/// Values of the lanes: one for all, or one each.
#[derive(Clone)]
enum Lanes<'k> {
    Same(Val<'k>),
    Each(Vec<Val<'k>>),
}

impl<'k> Lanes<'k> {
    fn at(&self, lane: usize) -> Val<'k> {
        match self {
            Lanes::Same(value) => *value,
            Lanes::Each(values) => values[lane],
        }
    }
}

impl<'k> Scope<'_, 'k> {
    /// The value of an expression. Every axis it needs must be known.
    pub fn value(&self, root: ExprId) -> Val<'k> {
        self.evaluate(root, None).at(0)
    }

    /// The values of an expression at `width` iterations of `lane`, which is known and a multiple of `width`.
    pub fn values(&self, root: ExprId, lane: AxisId, width: u32) -> Vec<Val<'k>> {
        let values = self.evaluate(root, Some((lane, width)));
        (0..width as usize).map(|at| values.at(at)).collect()
    }

    /// Operands come first in a cone, so one pass suffices; what two expressions share is computed once.
    fn evaluate(&self, root: ExprId, lanes: Option<(AxisId, u32)>) -> Lanes<'k> {
        let guarded = access::guarded(self.tile, root);
        let depends = lanes.map(|(lane, _)| access::depending(self.tile, lane));
        let careful = self.careful();
        let mut known: Vec<Option<Lanes<'k>>> = vec![None; root.index() + 1];
        for id in self.tile.cone(root) {
            if let Some((_, value)) = self.values.iter().find(|(known, _)| *known == id) {
                known[id.index()] = Some(Lanes::Same(*value));
                continue;
            }
            let lanes = lanes.filter(|_| depends.as_ref().is_some_and(|depends| depends[id.index()]));
            let scope = if guarded[id.index()] { &careful } else { self };
            known[id.index()] = Some(scope.expression(id, &known, lanes));
        }
        known[root.index()].take().unwrap_or(Lanes::Same(Val::Constant(0.0)))
    }

    fn expression(&self, id: ExprId, known: &[Option<Lanes<'k>>], lanes: Option<(AxisId, u32)>) -> Lanes<'k> {
        let arg = |id: ExprId, at| known[id.index()].as_ref().map_or(Val::Constant(0.0), |v| v.at(at));
        if let (Expr::Load(load), Some((lane, width))) = (&self.tile.exprs[id], lanes) {
            return Lanes::Each(self.load_lanes(load, lane, width));
        }
        let one = |scope: &Self, at: usize| match &self.tile.exprs[id] {
            Expr::Const(number) => Val::Constant(number.get()),
            Expr::Index(index) => Val::Whole(scope.index(index)),
            Expr::Load(load) => scope.load(load),
            Expr::Stage(stage) => Val::Number(scope.result_of_lane(*stage, at)),
            Expr::Cast(dtype, x) => scope.cast(*dtype, arg(*x, at)),
            Expr::Apply(op, args) => {
                let args: Vec<_> = args.iter().map(|x| arg(*x, at)).collect();
                scope.apply(*op, &args)
            }
        };
        let Some((lane, width)) = lanes else { return Lanes::Same(one(self, 0)) };
        let first = self.at(lane);
        let each = |at: u32| one(&self.with_axis(lane, first + at as i32), at as usize);
        Lanes::Each((0..width).map(each).collect())
    }

    /// A value as an element type stores it.
    pub(super) fn cast(&self, dtype: DType, value: Val<'k>) -> Val<'k> {
        let k = self.k;
        match dtype {
            DType::F32 => Val::Number(value.number(k)),
            DType::Bf16 => Val::Number(value.number(k).to_bf16().from_bf16()),
            DType::F16 => Val::Number(value.number(k).to_f16().from_f16()),
            DType::U32 => Val::Whole(value.whole(k).greatest(0)),
            DType::Bool => Val::Truth(value.truth(k)),
            DType::U8 => Val::Whole(value.whole(k).greatest(0).least(255)),
            DType::I8 => Val::Whole(value.whole(k).greatest(-128).least(127)),
            DType::I32 => Val::Whole(value.whole(k)),
            DType::F8e4m3 => Val::Number(of_e4m3(to_e4m3(value.number(k)))),
            DType::F8e5m2 | DType::F8e8m0 => {
                k.fail(format!("numbers are rounded to {dtype} nowhere yet"));
                value
            }
        }
    }

    /// A scalar function.
    pub fn apply(&self, op: ScalarOp, args: &[Val<'k>]) -> Val<'k> {
        use ScalarOp::*;
        let k = self.k;
        let number = |at: usize| args[at].number(k);
        match op {
            Not => Val::Truth(!args[0].truth(k)),
            And => Val::Truth(args[0].truth(k) & args[1].truth(k)),
            Or => Val::Truth(args[0].truth(k) | args[1].truth(k)),
            Select => self.select(args),
            Div => Val::Number(number(0).over(number(1))),
            Neg => self.apply(Sub, &[Val::Constant(0.0), args[0]]),
            Floor if args[0].is_whole() => args[0],
            Shr => {
                let (x, by) = (args[0].whole(k).greatest(0), args[1].whole(k).greatest(0));
                Val::Whole(by.lt(32).select(x >> by.least(31), k.int(0)))
            }
            Bitand => Val::Whole(args[0].whole(k).greatest(0) & args[1].whole(k).greatest(0)),
            Add | Sub | Mul | Idiv | Mod | Max | Min | Lt | Le | Eq => {
                let constants = args.iter().all(|arg| matches!(arg, Val::Constant(_)));
                if !constants && args.iter().all(|arg| arg.is_whole()) {
                    self.of_wholes(op, args[0].whole(k), args[1].whole(k))
                } else {
                    self.of_numbers(op, number(0), number(1))
                }
            }
            Abs | Exp | Log | Sqrt | Rsqrt | Recip | Sin | Cos | Tanh | Erf | Floor => {
                Val::Number(of_number(op, number(0)))
            }
        }
    }

    fn select(&self, args: &[Val<'k>]) -> Val<'k> {
        let (k, condition) = (self.k, args[0].truth(self.k));
        match (args[1], args[2]) {
            (Val::Truth(x), Val::Truth(y)) => Val::Truth(condition.select(x, y)),
            (x, y) if x.is_whole() && y.is_whole() => Val::Whole(condition.select(x.whole(k), y.whole(k))),
            (x, y) => Val::Number(condition.select(x.number(k), y.number(k))),
        }
    }

    fn of_numbers(&self, op: ScalarOp, x: Float<'k>, y: Float<'k>) -> Val<'k> {
        use ScalarOp::*;
        Val::Number(match op {
            Add => x + y,
            Sub => x - y,
            Mul => x * y,
            Max => y.le(x).select(x, y),
            Min => x.le(y).select(x, y),
            Lt => return Val::Truth(x.lt(y)),
            Le => return Val::Truth(x.le(y)),
            Eq => return Val::Truth(x.equals(y)),
            Idiv => x.over(y).floor(),
            // A remainder is never negative, whatever the sign of the divisor.
            _ => x - x.over(y.abs()).floor() * y.abs(),
        })
    }

    /// A divisor of 0 is taken as 1: the evaluator's result is no whole number then.
    fn of_wholes(&self, op: ScalarOp, x: Int<'k>, y: Int<'k>) -> Val<'k> {
        use ScalarOp::*;
        Val::Whole(match op {
            Add => x + y,
            Sub => x - y,
            Mul => x * y,
            Max => x.greatest(y),
            Min => x.least(y),
            Lt => return Val::Truth(x.lt(y)),
            Le => return Val::Truth(x.le(y)),
            Eq => return Val::Truth(x.equals(y)),
            _ => {
                let y = y.equals(0).select(self.k.int(1), y);
                let quotient = x.signed_divided(y);
                let rest = x - quotient * y;
                if op == Mod {
                    let size = y.greatest(self.k.int(0) - y);
                    rest.lt(0).select(rest + size, rest)
                } else {
                    let uneven = rest.differs(0) & (rest ^ y).lt(0);
                    quotient - uneven.int()
                }
            }
        })
    }
}

fn of_number<'k>(op: ScalarOp, x: Float<'k>) -> Float<'k> {
    match op {
        ScalarOp::Abs => x.abs(),
        ScalarOp::Exp => x.exp(),
        ScalarOp::Log => x.log(),
        ScalarOp::Sqrt => x.sqrt(),
        ScalarOp::Rsqrt => x.rsqrt(),
        ScalarOp::Recip => x.recip(),
        ScalarOp::Sin => x.sin(),
        ScalarOp::Cos => x.cos(),
        ScalarOp::Tanh => x.tanh(),
        ScalarOp::Erf => x.erf(),
        _ => x.floor(),
    }
}
