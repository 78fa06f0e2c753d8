//! Loads and stores of elements, one or several side by side.

use super::{Scope, Val};
use crate::emit::{Cache, F32, Float, Global, I8, I16, I32, Int};
use sinter_codegen_schedule::access;
use sinter_ir::{AxisId, DType, Id, Index, Layout, Load, ParamId};

impl<'k> Scope<'_, 'k> {
    fn cache(&self, param: ParamId) -> Cache {
        if self.constant.get(param.index()) == Some(&true) { Cache::Constant } else { Cache::Any }
    }

    /// One element.
    pub fn load(&self, load: &Load) -> Val<'k> {
        if let Layout::Codes(codes) = &self.tile.params[load.param].layout {
            return self.load_code(load, codes, self.cache(load.param));
        }
        let from = self.address(load.param, &load.index);
        self.element(from, self.tile.params[load.param].ty.dtype, self.cache(load.param))
    }

    fn element(&self, from: Global<'k>, dtype: DType, cache: Cache) -> Val<'k> {
        let k = self.k;
        match dtype {
            DType::F32 => Val::Number(k.load::<F32>(from, cache)),
            DType::Bf16 => Val::Number(k.load::<I16>(from, cache).from_bf16()),
            DType::F16 => Val::Number(k.load::<I16>(from, cache).from_f16()),
            DType::U32 => Val::Whole(k.load::<I32>(from, cache)),
            DType::Bool => Val::Truth(k.load::<I8>(from, cache).int().differs(0)),
            DType::I32 => Val::Whole(k.load::<I32>(from, cache)),
            DType::U8 | DType::I8 | DType::F8e4m3 | DType::F8e5m2 | DType::F8e8m0 => {
                k.fail(format!("{dtype} is read from memory by no kernel yet"));
                Val::Whole(k.int(0))
            }
        }
    }

    /// The elements of `width` iterations of `lane`, which is known and a multiple of `width`: vector loads where they lie
    /// side by side and aligned, one load if they are one, single loads otherwise.
    pub fn load_lanes(&self, load: &Load, lane: AxisId, width: u32) -> Vec<Val<'k>> {
        let at = self.at(lane);
        let single = |offset| self.with_axis(lane, at + offset).load(load);
        match access::load_lanes(self.tile, load, lane, width) {
            access::Lanes::Same => vec![self.load(load); width as usize],
            access::Lanes::Aligned if !self.careful => self.side_by_side(load, width),
            _ => (0..width as i32).map(single).collect(),
        }
    }

    fn side_by_side(&self, load: &Load, width: u32) -> Vec<Val<'k>> {
        let (k, dtype) = (self.k, self.tile.params[load.param].ty.dtype);
        let (from, cache) = (self.address(load.param, &load.index), self.cache(load.param));
        let bytes = dtype.bytes() as u32 * width;
        if bytes < 4 || dtype.bytes() == 1 {
            let each = |at| self.element(from.at((at * dtype.bytes() as u32) as i32), dtype, cache);
            return (0..width).map(each).collect();
        }
        let mut words: Vec<Int<'k>> = Vec::new();
        while (words.len() as u32) < bytes / 4 {
            let here = from.at(words.len() as i32 * 4);
            match bytes / 4 - words.len() as u32 {
                4.. => words.extend(k.load_vector::<I32, 4>(here, cache)),
                2.. => words.extend(k.load_vector::<I32, 2>(here, cache)),
                _ => words.push(k.load(here, cache)),
            }
        }
        let halves = |word: &Int<'k>| [word.short(), (*word >> 16).short()];
        match dtype {
            DType::F32 => words.iter().map(|word| Val::Number(word.bits())).collect(),
            DType::U32 | DType::I32 => words.iter().map(|word| Val::Whole(*word)).collect(),
            DType::F16 => words.iter().flat_map(halves).map(|half| Val::Number(half.from_f16())).collect(),
            _ => words.iter().flat_map(|word| word.from_bf16_pair()).map(Val::Number).collect(),
        }
    }

    /// Stores one element, rounded to the parameter's type.
    pub fn store(&self, param: ParamId, index: &[Index], value: Val<'k>) {
        let k = self.k;
        let to = self.address(param, index);
        match self.tile.params[param].ty.dtype {
            DType::F32 => k.store(to, value.number(k)),
            DType::Bf16 => k.store(to, value.number(k).to_bf16()),
            DType::F16 => k.store(to, value.number(k).to_f16()),
            DType::U32 => k.store(to, value.whole(k).greatest(0)),
            DType::I32 => k.store(to, value.whole(k)),
            dtype @ (DType::U8 | DType::I8 | DType::F8e4m3 | DType::F8e5m2 | DType::F8e8m0) => {
                k.fail(format!("{dtype} is written to memory by no kernel yet"));
            }
            DType::Bool => {
                let (one, zero) = (k.byte(1), k.byte(0));
                k.store(to, value.truth(k).select(one, zero));
            }
        }
    }

    /// Stores the elements of iterations of `lane`, which is known and a multiple of their number.
    pub fn store_lanes(&self, param: ParamId, index: &[Index], lane: AxisId, values: &[Val<'k>]) {
        let (width, dtype) = (values.len() as u32, self.tile.params[param].ty.dtype);
        let aligned = access::index_lanes(self.tile, param, index, lane, width) == access::Lanes::Aligned;
        if aligned && dtype.bytes() as u32 * width >= 4 && dtype.bytes() > 1 {
            return self.store_side_by_side(self.address(param, index), dtype, values);
        }
        let at = self.at(lane);
        for (offset, value) in values.iter().enumerate() {
            self.with_axis(lane, at + offset as i32).store(param, index, *value);
        }
    }

    /// Values side by side as the words that an element type of two or four bytes stores; of two bytes they are even in
    /// number.
    pub fn words(&self, dtype: DType, values: &[Val<'k>]) -> Vec<Int<'k>> {
        let k = self.k;
        let number = |value: &Val<'k>| -> Float<'k> { value.number(k) };
        match dtype {
            DType::F32 => values.iter().map(|value| number(value).bits()).collect(),
            DType::F16 => {
                let half = |value| number(value).to_f16().int();
                values.chunks(2).map(|pair| half(&pair[0]) | (half(&pair[1]) << 16)).collect()
            }
            DType::Bf16 => {
                values.chunks(2).map(|pair| number(&pair[0]).to_bf16_pair(number(&pair[1]))).collect()
            }
            DType::U32 => values.iter().map(|value| value.whole(k).greatest(0)).collect(),
            _ => values.iter().map(|value| value.whole(k)).collect(),
        }
    }

    fn store_side_by_side(&self, to: Global<'k>, dtype: DType, values: &[Val<'k>]) {
        let k = self.k;
        let words = self.words(dtype, values);
        let mut rest = &words[..];
        while !rest.is_empty() {
            let here = to.at((words.len() - rest.len()) as i32 * 4);
            rest = match *rest {
                [a, b, c, d, ref rest @ ..] => {
                    k.store_vector(here, [a, b, c, d]);
                    rest
                }
                [a, b, ref rest @ ..] => {
                    k.store_vector(here, [a, b]);
                    rest
                }
                [a, ref rest @ ..] => {
                    k.store(here, a);
                    rest
                }
                [] => rest,
            };
        }
    }
}
