//! Loads and stores of elements, one or several side by side.

use super::codes::{byte_of, of_e4m3, of_half, signed, to_e4m3};
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
        let (param, cache) = (&self.tile.params[load.param], self.cache(load.param));
        match (param.layout, load.index.last()) {
            (Layout::Halves, Some(last)) => {
                Val::Whole(of_half(self.k.load::<I8>(from, cache).int(), self.index(last)))
            }
            _ => self.element(from, param.ty.dtype, cache),
        }
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
            DType::U8 | DType::I8 | DType::F8e4m3 => self.code(k.load::<I8>(from, cache).int(), dtype),
            DType::F8e5m2 | DType::F8e8m0 => {
                k.fail(format!("{dtype} is read from memory by no kernel yet"));
                Val::Whole(k.int(0))
            }
        }
    }

    /// What a byte stands for.
    fn code(&self, byte: Int<'k>, dtype: DType) -> Val<'k> {
        match dtype {
            DType::I8 => Val::Whole(signed(byte)),
            DType::F8e4m3 => Val::Number(of_e4m3(byte)),
            _ => Val::Whole(byte),
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
        let (k, param) = (self.k, &self.tile.params[load.param]);
        let (from, cache) = (self.address(load.param, &load.index), self.cache(load.param));
        let (dtype, halves) = (param.ty.dtype, param.layout == Layout::Halves);
        let bytes = if halves { width / 2 } else { dtype.bytes() as u32 * width };
        if bytes < 4 {
            let each = |at| self.element(from.at((at * dtype.bytes() as u32) as i32), dtype, cache);
            let half = |at: u32| {
                let byte = k.load::<I8>(from.at((at / 2) as i32), cache).int();
                Val::Whole(of_half(byte, k.int(at as i32)))
            };
            return (0..width).map(|at| if halves { half(at) } else { each(at) }).collect();
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
        let shorts = |word: &Int<'k>| [word.short(), (*word >> 16).short()];
        let bytes = |word: &Int<'k>| [0, 1, 2, 3].map(|at| byte_of(*word, at));
        match dtype {
            _ if halves => {
                let pair = |byte| [0, 1].map(|at| Val::Whole(of_half(byte, k.int(at))));
                words.iter().flat_map(bytes).flat_map(pair).collect()
            }
            DType::F32 => words.iter().map(|word| Val::Number(word.bits())).collect(),
            DType::U32 | DType::I32 => words.iter().map(|word| Val::Whole(*word)).collect(),
            DType::F16 => words.iter().flat_map(shorts).map(|half| Val::Number(half.from_f16())).collect(),
            DType::U8 | DType::I8 | DType::F8e4m3 => {
                words.iter().flat_map(bytes).map(|byte| self.code(byte, dtype)).collect()
            }
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
            dtype @ (DType::U8 | DType::I8 | DType::F8e4m3) => {
                k.store(to, self.byte(dtype, value).low_byte());
            }
            dtype @ (DType::F8e5m2 | DType::F8e8m0) => {
                k.fail(format!("{dtype} is written to memory by no kernel yet"));
            }
            DType::Bool => {
                let (one, zero) = (k.byte(1), k.byte(0));
                k.store(to, value.truth(k).select(one, zero));
            }
        }
    }

    /// A value as the lower byte of a word, the rest of which is anything.
    fn byte(&self, dtype: DType, value: Val<'k>) -> Int<'k> {
        match dtype {
            DType::F8e4m3 => to_e4m3(value.number(self.k)),
            DType::I8 => value.whole(self.k).greatest(-128).least(127),
            _ => value.whole(self.k).greatest(0).least(255),
        }
    }

    /// Stores the elements of iterations of `lane`, which is known and a multiple of their number.
    pub fn store_lanes(&self, param: ParamId, index: &[Index], lane: AxisId, values: &[Val<'k>]) {
        let (width, dtype) = (values.len() as u32, self.tile.params[param].ty.dtype);
        let aligned = access::index_lanes(self.tile, param, index, lane, width) == access::Lanes::Aligned;
        let whole = dtype.bytes() > 1 || matches!(dtype, DType::U8 | DType::I8 | DType::F8e4m3);
        if aligned && dtype.bytes() as u32 * width >= 4 && whole {
            return self.store_side_by_side(self.address(param, index), dtype, values);
        }
        let at = self.at(lane);
        for (offset, value) in values.iter().enumerate() {
            self.with_axis(lane, at + offset as i32).store(param, index, *value);
        }
    }

    /// Values side by side as the words that an element type stores; they fill whole words.
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
            DType::U8 | DType::I8 | DType::F8e4m3 => {
                let byte = |at: usize, value: &Val<'k>| (self.byte(dtype, *value) & 0xff) << (8 * at as i32);
                let word = |four: &[Val<'k>]| {
                    (1..four.len()).fold(byte(0, &four[0]), |word, at| word | byte(at, &four[at]))
                };
                values.chunks(4).map(word).collect()
            }
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
