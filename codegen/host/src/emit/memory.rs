//! Indices, addresses, loads and stores.
//!
//! An address is summed up from what changes least to what changes most, so that Cranelift can move the first part of
//! the sum out of the inner loops.

use super::{
    Bound, Emitter, Key, plain,
    value::{Kind, Val},
};
use crate::access::{self, LANES, Lanes, flatten, natural};
use crate::facts::AxisSet;
use cranelift_codegen::ir::{self, InstBuilder, types};
use sinter_ir::{Atom, AxisId, DType, Index, Layout, Load, ParamId, Sym};

impl Emitter<'_> {
    /// The innermost frame whose loop runs one of these axes.
    pub(super) fn frame_of(&self, axes: AxisSet) -> usize {
        axes.iter().filter_map(|axis| self.axes[axis]).map(|bound| bound.frame).max().unwrap_or(0)
    }

    /// Where an axis stands; 0 if no loop runs it.
    pub(super) fn iteration(&mut self, axis: AxisId) -> ir::Value {
        match self.axes[axis] {
            Some(bound) => bound.value,
            None => self.int(0),
        }
    }

    /// An index at this point, as i64; that of the first lane in a vector.
    pub(super) fn index(&mut self, index: &Index, guarded: bool) -> ir::Value {
        let mut terms: Vec<&(Atom, i64)> = index.terms.iter().collect();
        terms.sort_by_key(|(atom, _)| self.frame_of(self.facts.atom(atom).axes));
        let mut sum = None;
        for (atom, factor) in terms {
            let value = self.atom(atom, guarded);
            let value = self.times(value, *factor);
            sum = Some(sum.map_or(value, |sum| self.b.ins().iadd(sum, value)));
        }
        match sum {
            Some(sum) => self.plus(sum, index.offset),
            None => self.int(index.offset),
        }
    }

    fn atom(&mut self, atom: &Atom, guarded: bool) -> ir::Value {
        match atom {
            Atom::Axis(axis) => self.iteration(*axis),
            Atom::Div(inner, by) => {
                let value = self.index(inner, guarded);
                self.floor_div(value, *by, natural(inner))
            }
            Atom::Mod(inner, by) => {
                let value = self.index(inner, guarded);
                self.floor_mod(value, *by, natural(inner))
            }
            Atom::Load(load) => self.index_load(load, guarded),
        }
    }

    /// A number of an index that is read from memory.
    pub(super) fn index_load(&mut self, load: &Load, guarded: bool) -> ir::Value {
        let fact = self.facts.load(load);
        let key = Key::Load(load.clone());
        if let Some(val) = self.known(&key, fact.axes) {
            return val.value;
        }
        let address = self.address(load.param, &load.index, guarded.then_some(1));
        let val = self.read(self.tile.params[load.param].ty.dtype, address, false);
        let whole = self.whole(val);
        self.remember(key, whole, fact);
        whole.value
    }

    /// The address of an element. Where `guard` is given, indices outside are moved inside, so that `guard` elements
    /// along the last axis lie inside too.
    pub(super) fn address(&mut self, param: ParamId, index: &[Index], guard: Option<i64>) -> ir::Value {
        let size = self.tile.params[param].ty.dtype.bytes() as i64;
        let base = self.bases[param.0 as usize];
        if self.tile.params[param].layout == Layout::Halves {
            let element = self.place_of(param, index, guard.is_some());
            let byte = self.floor_div(element, 2, true);
            return self.b.ins().iadd(base, byte);
        }
        if let Some(span) = guard {
            let offset = self.clamped(param, index, span);
            let offset = self.times(offset, size);
            return self.b.ins().iadd(base, offset);
        }
        let mut parts: Vec<(usize, Vec<Sym>, Index)> = Vec::new();
        for (syms, flat) in flatten(&self.tile.params[param], index) {
            for (atom, factor) in &flat.terms {
                let frame = self.frame_of(self.facts.atom(atom).axes);
                parts.push((frame, syms.clone(), Index::atom(atom.clone()).times(*factor)));
            }
            if flat.offset != 0 {
                parts.push((0, syms, Index::constant(flat.offset)));
            }
        }
        parts.sort_by_key(|(frame, ..)| *frame);
        let mut address = base;
        for (_, syms, part) in parts {
            let mut offset = self.index(&part.times(size), false);
            for sym in syms {
                offset = self.b.ins().imul(offset, self.symbols[sym.index()]);
            }
            address = self.b.ins().iadd(address, offset);
        }
        address
    }

    /// The number of an element in row-major order.
    pub(super) fn place_of(&mut self, param: ParamId, index: &[Index], guarded: bool) -> ir::Value {
        if guarded {
            return self.clamped(param, index, 1);
        }
        let mut sum = self.int(0);
        for (syms, flat) in flatten(&self.tile.params[param], index) {
            let mut offset = self.index(&flat, false);
            for sym in syms {
                offset = self.b.ins().imul(offset, self.symbols[sym.index()]);
            }
            sum = self.b.ins().iadd(sum, offset);
        }
        sum
    }

    /// The offset in elements of the nearest element inside.
    fn clamped(&mut self, param: ParamId, index: &[Index], span: i64) -> ir::Value {
        let shape = &self.tile.params[param].ty.shape;
        let inside = self.inside(param, index, span);
        if self.tile.params[param].layout == Layout::Panels {
            return self.panel_offset(param, &inside);
        }
        let mut offset = self.int(0);
        for (value, dim) in inside.into_iter().zip(shape) {
            let extent = self.dim(*dim);
            let scaled = self.b.ins().imul(offset, extent);
            offset = self.b.ins().iadd(scaled, value);
        }
        offset
    }

    /// The indices of the nearest element inside, so that `span` elements along the last axis lie inside too.
    pub(super) fn inside(&mut self, param: ParamId, index: &[Index], span: i64) -> Vec<ir::Value> {
        let shape = &self.tile.params[param].ty.shape;
        let mut inside = Vec::new();
        for (at, (index, dim)) in index.iter().zip(shape).enumerate() {
            let value = self.index(index, true);
            let extent = self.dim(*dim);
            let margin = if at + 1 == shape.len() { span } else { 1 };
            let last = self.plus(extent, -margin);
            let value = self.b.ins().smin(value, last);
            let zero = self.int(0);
            inside.push(self.b.ins().smax(value, zero));
        }
        inside
    }

    /// As `access::flatten` has it, of numbers that are at hand.
    fn panel_offset(&mut self, param: ParamId, index: &[ir::Value]) -> ir::Value {
        let [stack @ .., row, depth] = index else { return self.int(0) };
        let (row, depth, param) = (*row, *depth, &self.tile.params[param]);
        let k = param.ty.shape[index.len() - 1].coeff as i64;
        let pair = if param.ty.dtype == DType::Bf16 { 2 } else { 1 };
        let panel = self.floor_div(row, 32, true);
        let panel = self.times(panel, (k + pair - 1) / pair * 32 * pair);
        let column = self.floor_mod(row, 32, true);
        let column = self.times(column, pair);
        let step = self.floor_div(depth, pair as u64, true);
        let step = self.times(step, 32 * pair);
        let rest = self.floor_mod(depth, pair as u64, true);
        let sum = self.b.ins().iadd(panel, column);
        let sum = self.b.ins().iadd(sum, step);
        let sum = self.b.ins().iadd(sum, rest);
        stack.iter().fold(sum, |sum, matrix| {
            let start = self.times(*matrix, access::panel_elements(param));
            self.b.ins().iadd(sum, start)
        })
    }

    /// The element or the four elements that a load gives at this point.
    pub(super) fn load(&mut self, load: &Load, guarded: bool) -> Val {
        if let Layout::Codes(codes) = self.tile.params[load.param].layout {
            return self.load_codes(load, &codes, guarded);
        }
        if self.tile.params[load.param].layout == Layout::Halves {
            return self.load_half(load, guarded);
        }
        let dtype = self.tile.params[load.param].ty.dtype;
        let lanes = self.lane.map(|axis| (axis, access::load_access(self.tile, load, axis, guarded)));
        match lanes {
            None | Some((_, Lanes::Same)) => {
                let address = self.address(load.param, &load.index, guarded.then_some(1));
                self.read(dtype, address, false)
            }
            Some((_, Lanes::Step(1))) if dtype.bytes() > 1 => {
                let address = self.address(load.param, &load.index, guarded.then_some(LANES));
                self.read(dtype, address, true)
            }
            Some((_, Lanes::Step(step))) if !guarded => {
                let address = self.address(load.param, &load.index, None);
                let lanes = [0, 1, 2, 3].map(|at| {
                    let address = self.plus(address, at * step * dtype.bytes() as i64);
                    self.read(dtype, address, false)
                });
                self.gather(lanes)
            }
            Some((axis, _)) => {
                let lanes =
                    [0, 1, 2, 3].map(|at| self.at_lane(axis, at, |emitter| emitter.load(load, guarded)));
                self.gather(lanes)
            }
        }
    }

    /// What `body` emits for one lane of the vector's four.
    pub(super) fn at_lane<R>(&mut self, axis: AxisId, at: i64, body: impl FnOnce(&mut Self) -> R) -> R {
        let (lane, bound) = (self.lane.take(), self.axes[axis]);
        let first = self.iteration(axis);
        let value = self.plus(first, at);
        self.frames.push(Default::default());
        self.axes[axis] = Some(Bound { value, frame: self.frames.len() - 1 });
        let result = body(self);
        self.frames.pop();
        self.axes[axis] = bound;
        self.lane = lane;
        result
    }

    /// One element or four at an address.
    pub(super) fn read(&mut self, dtype: DType, address: ir::Value, wide: bool) -> Val {
        match (dtype, wide) {
            (DType::F32, false) => Val::number(self.b.ins().load(types::F32, plain(), address, 0), false),
            (DType::F32, true) => Val::number(self.b.ins().load(types::F32X4, plain(), address, 0), true),
            (DType::Bf16 | DType::F16, false) => {
                let low = self.b.ins().uload16(types::I32, plain(), address, 0);
                self.widen_format(dtype, low, false)
            }
            (DType::Bf16 | DType::F16, true) => {
                let low = self.b.ins().uload16x4(plain(), address, 0);
                self.widen_format(dtype, low, true)
            }
            (DType::U32, false) => Val::new(self.b.ins().uload32(plain(), address, 0), Kind::Whole, false),
            (DType::U32, true) => {
                let value = self.b.ins().load(types::I32X4, plain(), address, 0);
                let most = self.same(types::I32X4, i64::from(i32::MAX));
                Val::new(self.b.ins().umin(value, most), Kind::Whole, true)
            }
            (DType::I32, false) => Val::new(self.b.ins().sload32(plain(), address, 0), Kind::Whole, false),
            (DType::I32, true) => {
                Val::new(self.b.ins().load(types::I32X4, plain(), address, 0), Kind::Whole, true)
            }
            (DType::U8, _) => {
                Val::new(self.b.ins().uload8(types::I64, plain(), address, 0), Kind::Whole, false)
            }
            (DType::F8e4m3, _) => {
                let low = self.b.ins().uload8(types::I32, plain(), address, 0);
                self.widen_format(dtype, low, false)
            }
            // `facts::check` refuses the other floats of one byte.
            (DType::I8 | DType::F8e5m2 | DType::F8e8m0, _) => {
                Val::new(self.b.ins().sload8(types::I64, plain(), address, 0), Kind::Whole, false)
            }
            (DType::Bool, _) => {
                let byte = self.b.ins().load(types::I8, plain(), address, 0);
                let zero = self.b.ins().iconst(types::I8, 0);
                let value = self.b.ins().icmp(ir::condcodes::IntCC::NotEqual, byte, zero);
                Val::new(value, Kind::Truth, false)
            }
        }
    }

    /// Stores one whole number, or four side by side, each of which a byte holds.
    fn write_bytes(&mut self, (value, wide): (ir::Value, bool), address: ir::Value, signed: bool) {
        if !wide {
            self.b.ins().istore8(plain(), value, address, 0);
            return;
        }
        // Narrowing keeps the lowest byte of each number in range.
        let halves = self.b.ins().snarrow(value, value);
        let bytes = match signed {
            true => self.b.ins().snarrow(halves, halves),
            false => self.b.ins().unarrow(halves, halves),
        };
        let words = self.bits(types::I32X4, bytes);
        let word = self.b.ins().extractlane(words, 0);
        self.b.ins().store(plain(), word, address, 0);
    }

    /// Stores one value, or four numbers side by side.
    pub(super) fn write(&mut self, dtype: DType, address: ir::Value, val: Val) {
        match dtype {
            DType::F32 => {
                let number = self.number(val);
                self.b.ins().store(plain(), number.value, address, 0);
            }
            DType::Bf16 | DType::F16 => {
                let number = self.number(val);
                let low = self.narrow_format(dtype, number);
                if val.wide {
                    let packed = self.b.ins().unarrow(low, low);
                    let packed = self.bits(types::I64X2, packed);
                    let half = self.b.ins().extractlane(packed, 0);
                    self.b.ins().store(plain(), half, address, 0);
                } else {
                    self.b.ins().istore16(plain(), low, address, 0);
                }
            }
            DType::U32 | DType::I32 => {
                let whole = self.cast(dtype, val);
                self.b.ins().istore32(plain(), whole.value, address, 0);
            }
            DType::F8e4m3 => {
                let number = self.number(val);
                let low = self.narrow_format(dtype, number);
                self.write_bytes((low, val.wide), address, false);
            }
            // `facts::check` refuses the other floats of one byte.
            DType::U8 | DType::I8 | DType::F8e5m2 | DType::F8e8m0 => {
                let whole = self.cast(dtype, val);
                self.write_bytes((whole.value, val.wide), address, dtype != DType::U8);
            }
            DType::Bool => {
                let truth = self.truth(val);
                self.b.ins().store(plain(), truth.value, address, 0);
            }
        }
    }
}
