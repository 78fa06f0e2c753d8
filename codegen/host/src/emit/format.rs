//! bf16, f16 and f8e4m3 in memory, f32 in registers: conversions that are exact or round to nearest even, in one lane or four.

use super::{Emitter, value::Val};
use cranelift_codegen::ir::{self, InstBuilder, condcodes::FloatCC, condcodes::IntCC, types};
use sinter_ir::DType;

fn bits_type(wide: bool) -> ir::Type {
    if wide { types::I32X4 } else { types::I32 }
}

fn float_type(wide: bool) -> ir::Type {
    if wide { types::F32X4 } else { types::F32 }
}

impl Emitter<'_> {
    /// The lowest bits of each i32, as many as the format has, as numbers; the others are zero.
    pub(super) fn widen_format(&mut self, dtype: DType, low: ir::Value, wide: bool) -> Val {
        let value = match dtype {
            DType::F16 => self.widened_f16(low, wide),
            DType::F8e4m3 => self.widened_e4m3(low, wide),
            _ => {
                let high = self.b.ins().ishl_imm_u(low, 16);
                self.bits(float_type(wide), high)
            }
        };
        Val::number(value, wide)
    }

    /// Numbers as the lowest bits of each i32, as many as the format has; the others are zero.
    pub(super) fn narrow_format(&mut self, dtype: DType, val: Val) -> ir::Value {
        match dtype {
            DType::F16 => self.narrowed_f16(val),
            DType::F8e4m3 => self.narrowed_e4m3(val),
            _ => self.narrowed_bf16(val),
        }
    }

    /// Numbers rounded to a format and widened again.
    pub(super) fn rounded(&mut self, dtype: DType, val: Val) -> Val {
        let low = self.narrow_format(dtype, val);
        self.widen_format(dtype, low, val.wide)
    }

    /// `condition ? x : y` of bits, where a comparison gave the condition.
    fn pick(&mut self, condition: ir::Value, x: ir::Value, y: ir::Value) -> ir::Value {
        let ty = self.b.func.dfg.value_type(x);
        if ty.is_vector() {
            self.b.ins().bitselect(condition, x, y)
        } else {
            self.b.ins().select(condition, x, y)
        }
    }

    fn narrowed_bf16(&mut self, val: Val) -> ir::Value {
        let ty = bits_type(val.wide);
        let bits = self.bits(ty, val.value);
        let one = self.same(ty, 1);
        let half = self.same(ty, 0x7fff);
        let high = self.b.ins().ushr_imm_u(bits, 16);
        let odd = self.b.ins().band(high, one);
        let sum = self.b.ins().iadd(bits, half);
        let sum = self.b.ins().iadd(sum, odd);
        let rounded = self.b.ins().ushr_imm_u(sum, 16);
        let quiet = self.same(ty, 0x40);
        let nan = self.b.ins().bor(high, quiet);
        let is_nan = self.b.ins().fcmp(FloatCC::Unordered, val.value, val.value);
        self.pick(is_nan, nan, rounded)
    }

    /// The exponent is moved by a multiplication, which also makes subnormals normal (F. Giesen, "half to float done quic").
    fn widened_f16(&mut self, low: ir::Value, wide: bool) -> ir::Value {
        let (ty, float) = (bits_type(wide), float_type(wide));
        let mask = self.same(ty, 0x7fff);
        let magnitude = self.b.ins().band(low, mask);
        let shifted = self.b.ins().ishl_imm_u(magnitude, 13);
        let scale = self.same(ty, (254 - 15) << 23);
        let (x, scale) = (self.bits(float, shifted), self.bits(float, scale));
        let scaled = self.b.ins().fmul(x, scale);
        let scaled = self.bits(ty, scaled);
        let limit = self.same(ty, 0x7bff);
        let special = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, limit);
        let ones = self.same(ty, 0x7f80_0000);
        let infinite = self.b.ins().bor(shifted, ones);
        let value = self.pick(special, infinite, scaled);
        let sign = self.b.ins().bxor(low, magnitude);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let value = self.b.ins().bor(value, sign);
        self.bits(float, value)
    }

    /// As of f16; there is no infinity.
    fn widened_e4m3(&mut self, low: ir::Value, wide: bool) -> ir::Value {
        let (ty, float) = (bits_type(wide), float_type(wide));
        let mask = self.same(ty, 0x7f);
        let magnitude = self.b.ins().band(low, mask);
        let shifted = self.b.ins().ishl_imm_u(magnitude, 20);
        let scale = self.same(ty, (254 - 7) << 23);
        let (x, scale) = (self.bits(float, shifted), self.bits(float, scale));
        let scaled = self.b.ins().fmul(x, scale);
        let scaled = self.bits(ty, scaled);
        let is_nan = self.b.ins().icmp(IntCC::Equal, magnitude, mask);
        let nan = self.same(ty, 0x7fc0_0000);
        let value = self.pick(is_nan, nan, scaled);
        let sign = self.b.ins().bxor(low, magnitude);
        let sign = self.b.ins().ishl_imm_u(sign, 24);
        let value = self.b.ins().bor(value, sign);
        self.bits(float, value)
    }

    /// As of f16; what is too great becomes the greatest number.
    fn narrowed_e4m3(&mut self, val: Val) -> ir::Value {
        let (ty, float) = (bits_type(val.wide), float_type(val.wide));
        let bits = self.bits(ty, val.value);
        let mask = self.same(ty, 0x7fff_ffff);
        let magnitude = self.b.ins().band(bits, mask);
        let sign = self.b.ins().bxor(bits, magnitude);
        let sign = self.b.ins().ushr_imm_u(sign, 24);
        // Numbers of this size lie 2⁻⁹ apart in f32, as the subnormals do.
        let magic = self.same(ty, (14 + 127) << 23);
        let (x, shift) = (self.bits(float, magnitude), self.bits(float, magic));
        let small = self.b.ins().fadd(x, shift);
        let small = self.bits(ty, small);
        let small = self.b.ins().isub(small, magic);
        let odd = self.b.ins().ushr_imm_u(magnitude, 20);
        let one = self.same(ty, 1);
        let odd = self.b.ins().band(odd, one);
        let bias = self.same(ty, ((7 - 127) << 23) + 0x7_ffff);
        let normal = self.b.ins().iadd(magnitude, bias);
        let normal = self.b.ins().iadd(normal, odd);
        let normal = self.b.ins().ushr_imm_u(normal, 20);
        let most = self.same(ty, 0x7e);
        let limit = self.same(ty, 0x43e0_0000);
        let is_large = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, limit);
        let normal = self.pick(is_large, most, normal);
        let least = self.same(ty, (127 - 6) << 23);
        let is_small = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, least);
        let value = self.pick(is_small, small, normal);
        let is_nan = self.b.ins().fcmp(FloatCC::Unordered, val.value, val.value);
        let nan = self.same(ty, 0x7f);
        let value = self.pick(is_nan, nan, value);
        self.b.ins().bor(value, sign)
    }

    /// Subnormals are rounded by an addition, normals by a carry (F. Giesen, "float_to_half_fast3_rtne").
    fn narrowed_f16(&mut self, val: Val) -> ir::Value {
        let (ty, float) = (bits_type(val.wide), float_type(val.wide));
        let bits = self.bits(ty, val.value);
        let mask = self.same(ty, 0x7fff_ffff);
        let magnitude = self.b.ins().band(bits, mask);
        let sign = self.b.ins().bxor(bits, magnitude);
        let sign = self.b.ins().ushr_imm_u(sign, 16);
        let magic = self.same(ty, 126 << 23);
        let (x, shift) = (self.bits(float, magnitude), self.bits(float, magic));
        let small = self.b.ins().fadd(x, shift);
        let small = self.bits(ty, small);
        let small = self.b.ins().isub(small, magic);
        let odd = self.b.ins().ushr_imm_u(magnitude, 13);
        let one = self.same(ty, 1);
        let odd = self.b.ins().band(odd, one);
        let bias = self.same(ty, ((15 - 127) << 23) + 0xfff);
        let normal = self.b.ins().iadd(magnitude, bias);
        let normal = self.b.ins().iadd(normal, odd);
        let normal = self.b.ins().ushr_imm_u(normal, 13);
        let least = self.same(ty, 113 << 23);
        let is_small = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, least);
        let finite = self.pick(is_small, small, normal);
        let limit = self.same(ty, (143 << 23) - 1);
        let is_large = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, limit);
        let infinite = self.same(ty, 0x7c00);
        let value = self.pick(is_large, infinite, finite);
        let is_nan = self.b.ins().fcmp(FloatCC::Unordered, val.value, val.value);
        let nan = self.same(ty, 0x7e00);
        let value = self.pick(is_nan, nan, value);
        self.b.ins().bor(value, sign)
    }
}
