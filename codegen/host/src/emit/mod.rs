//! From a schedule to Cranelift's intermediate form.
//!
//! One [`Emitter`] walks a tile program and appends instructions: it knows where each axis stands, which values are at
//! hand, and where the results of stages lie. Four skeletons drive it: [`points`] goes from grid point to grid point,
//! [`contract`], [`grouped`] and [`attend`] hand blocks to the micro-kernels. What the expressions mean is the same in all.
//!
//! Values are at hand in *frames*, one for each open loop. What does not depend on a loop is computed before it
//! ([`Emitter::hoist`]); a value of an outer frame serves the inner ones, unless an inner loop runs one of its axes anew.

mod value;

mod format;
mod ops;

mod codes;
mod memory;

mod expr;
mod fold;
mod loops;

mod attend;
mod contract;
mod grouped;
mod points;

use crate::calls::{Callee, Calls};
use crate::facts::Facts;
use crate::schedule::{Schedule, Skeleton};
use cranelift_codegen::ir::{self, InstBuilder, MemFlagsData, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use sinter_ir::{AxisId, Dim, ExprId, IdVec, Load, Sym, TileProgram};
use std::collections::{BTreeMap, HashMap};
use value::Val;

/// Emits the body of `func`, whose signature is that of [`sinter_ir::KernelEntry`].
pub(crate) fn emit(program: Program<'_>, calls: Calls<'_>, func: &mut ir::Function) {
    let mut context = FunctionBuilderContext::new();
    let builder = FunctionBuilder::new(func, &mut context);
    let (mut emitter, range) = Emitter::new(program, calls, builder);
    match &program.schedule.skeleton {
        Skeleton::Points => emitter.points(range),
        Skeleton::Contract(plan) => emitter.contract(plan, range),
        Skeleton::Grouped(plan) => emitter.grouped(plan, range),
        Skeleton::Attend(plan) => emitter.attend(plan, range),
    }
    emitter.finish();
}

/// What is emitted.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) tile: &'a TileProgram,
    pub(crate) facts: &'a Facts,
    pub(crate) schedule: &'a Schedule,
}

/// An axis in a loop: its iteration, and the frame of the loop.
#[derive(Clone, Copy)]
struct Bound {
    value: ir::Value,
    frame: usize,
}

/// Where the results of a stage lie: element `axis − origin` of a row of f32.
#[derive(Clone, Copy)]
struct Row {
    address: ir::Value,
    axis: AxisId,
    origin: ir::Value,
}

/// A value that may be at hand: an expression, with one lane or four, or a load of an index.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Expr(ExprId, bool),
    Load(Load),
}

/// A value at hand, and whether a store may change it.
#[derive(Clone, Copy)]
struct Known {
    value: Val,
    mutable: bool,
}

struct Emitter<'a> {
    b: FunctionBuilder<'a>,
    tile: &'a TileProgram,
    facts: &'a Facts,
    calls: Calls<'a>,
    bases: Vec<ir::Value>,
    symbols: Vec<ir::Value>,
    scratch: ir::Value,
    axes: IdVec<AxisId, Option<Bound>>,
    frames: Vec<HashMap<Key, Known>>,
    rows: BTreeMap<u32, Row>,
    /// Expressions that were computed for a whole row.
    strips: BTreeMap<ExprId, Row>,
    /// The axis whose four iterations a vector holds.
    lane: Option<AxisId>,
}

/// The work units of a call.
#[derive(Clone, Copy)]
struct Units {
    begin: ir::Value,
    end: ir::Value,
}

/// Flags of accesses that never trap, at any alignment.
fn plain() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl<'a> Emitter<'a> {
    fn new(program: Program<'a>, calls: Calls<'a>, mut b: FunctionBuilder<'a>) -> (Self, Units) {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let params = b.block_params(entry).to_vec();
        let mut word = |base: ir::Value, at: usize| b.ins().load(types::I64, plain(), base, 8 * at as i32);
        let bases = (0..program.tile.params.len()).map(|at| word(params[0], at)).collect();
        let symbols = Sym::ALL.iter().map(|sym| word(params[1], sym.index())).collect();
        let emitter = Self {
            b,
            tile: program.tile,
            facts: program.facts,
            calls,
            bases,
            symbols,
            scratch: params[4],
            axes: program.tile.axes.values().map(|_| None).collect(),
            frames: vec![HashMap::new()],
            rows: BTreeMap::new(),
            strips: BTreeMap::new(),
            lane: None,
        };
        (emitter, Units { begin: params[2], end: params[3] })
    }

    fn finish(mut self) {
        self.b.ins().return_(&[]);
        self.b.seal_all_blocks();
        self.b.finalize(self.calls.frontend());
    }

    fn int(&mut self, value: i64) -> ir::Value {
        self.b.ins().iconst(types::I64, value)
    }

    fn dim(&mut self, dim: Dim) -> ir::Value {
        match dim.sym {
            None => self.int(dim.coeff as i64),
            Some(sym) => self.times(self.symbols[sym.index()], dim.coeff as i64),
        }
    }

    /// The extent of an axis.
    fn extent(&mut self, axis: AxisId) -> ir::Value {
        self.dim(self.tile.axes[axis].extent)
    }

    fn times(&mut self, value: ir::Value, factor: i64) -> ir::Value {
        match factor {
            1 => value,
            _ if factor > 0 && factor.count_ones() == 1 => {
                self.b.ins().ishl_imm_u(value, i64::from(factor.trailing_zeros()))
            }
            _ => self.b.ins().imul_imm_s(value, factor),
        }
    }

    fn plus(&mut self, value: ir::Value, addend: i64) -> ir::Value {
        if addend == 0 { value } else { self.b.ins().iadd_imm_s(value, addend) }
    }

    /// The address of byte `offset` of the scratch memory.
    fn scratch(&mut self, offset: usize) -> ir::Value {
        self.plus(self.scratch, offset as i64)
    }
    /// Calls a micro-kernel; its result, if it has one.
    fn call_for(&mut self, callee: Callee, args: &[ir::Value]) -> Option<ir::Value> {
        let reference = self.calls.reference(callee, self.b.func);
        let call = self.b.ins().call(reference, args);
        self.b.inst_results(call).first().copied()
    }
}
