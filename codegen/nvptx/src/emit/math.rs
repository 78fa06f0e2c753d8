//! Scalar functions on floats and conversions between element types.
//!
//! Sums, products, quotients and roots are rounded to nearest even. `exp` and `log` go through `ex2.approx.ftz` and
//! `lg2.approx.ftz` (PTX ISA: 2 ulp over the full range; absolute error 2⁻²² near 1). The rest are polynomials with
//! fused multiply-adds. All of them are the same in every kernel, so a fusion never changes a value.

use super::value::{F32, Float, I16, I32, Int, Short, V};

/// `1.5 · 2²³`: adding it rounds to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

impl<'k> Float<'k> {
    fn unary(self, intrinsic: &str) -> Self {
        self.k.call(intrinsic, &[self.raw])
    }
    /// 2ˣ: `ex2.approx.ftz`.
    pub fn exp2(self) -> Self {
        self.unary("llvm.nvvm.ex2.approx.ftz.f32")
    }
    /// eˣ, relative error about (2 + |x|) · 2⁻²³.
    pub fn exp(self) -> Self {
        (self * std::f32::consts::LOG2_E).exp2()
    }
    /// ln x.
    pub fn log(self) -> Self {
        self.unary("llvm.nvvm.lg2.approx.ftz.f") * std::f32::consts::LN_2
    }
    /// √x, rounded.
    pub fn sqrt(self) -> Self {
        self.unary("llvm.nvvm.sqrt.rn.f")
    }
    /// 1/x, rounded.
    pub fn recip(self) -> Self {
        self.k.float(1.0).over(self)
    }
    /// 1/√x: two roundings.
    pub fn rsqrt(self) -> Self {
        self.sqrt().recip()
    }
    /// |x|
    pub fn abs(self) -> Self {
        self.unary("llvm.fabs.f32")
    }
    /// The greatest integer that is not above x.
    pub fn floor(self) -> Self {
        self.unary("llvm.floor.f32")
    }
    /// The magnitude of x with the sign of another.
    fn with_sign_of(self, other: Self) -> Self {
        let magnitude = self.bits::<I32>() & i32::MAX;
        (magnitude | (other.bits::<I32>() & i32::MIN)).bits()
    }
    /// The polynomial with these coefficients, the highest power first.
    fn poly(self, coefficients: &[f32]) -> Self {
        let first = self.k.float(coefficients[0]);
        coefficients[1..].iter().fold(first, |sum, c| sum.fma(self, *c))
    }

    /// sin x, absolute error about 1e-7 up to |x| = 10⁵.
    pub fn sin(self) -> Self {
        self.turned(0)
    }
    /// cos x, absolute error about 1e-7 up to |x| = 10⁵.
    pub fn cos(self) -> Self {
        self.turned(1)
    }
    /// sin (x + quarters · π/2): π/2 in three parts whose multiples are subtracted one by one (W. Cody and W. Waite,
    /// Software Manual for the Elementary Functions, 1980), then a polynomial within π/4.
    fn turned(self, quarters: i32) -> Self {
        let shifted = self.fma(std::f32::consts::FRAC_2_PI, ROUND);
        let n = shifted - ROUND;
        // The low bits of the shifted number count quarters.
        let quarter = shifted.bits::<I32>() + quarters;
        let r = n.fma(-f32::from_bits(0x3fc9_0fd8), self);
        let r = n.fma(-f32::from_bits(0x34a8_885a), r);
        let r = n.fma(-f32::from_bits(0x27c2_34c5), r);
        let s = r * r;
        let sine = s.poly(&[2.865_679_6e-6, -1.985_599_2e-4, 8.333_386e-3, -1.666_666_7e-1]);
        let sine = (sine * s).fma(r, r);
        let cosine = s.poly(&[2.446_770_7e-5, -1.388_773e-3, 4.166_665_7e-2, -0.5, 1.0]);
        let value = (quarter & 1).equals(0).select(sine, cosine);
        (quarter & 2).equals(0).select(value, -value)
    }

    /// The hyperbolic tangent, within 5e-7: Cephes' polynomial near zero, 1 − 2 / (e²ᵗ + 1) beyond.
    pub fn tanh(self) -> Self {
        let (k, t, s) = (self.k, self.abs(), self * self);
        let p = s.poly(&[-0.005_704_988_7, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
        let near = (p * s).fma(self, self);
        // The exponential overflows to infinity and leaves 1.
        let far = k.float(1.0) - k.float(2.0).over((t + t).exp() + 1.0);
        // The sign comes last: the polynomial loses that of -0.
        t.lt(0.625).select(near, far).with_sign_of(self)
    }

    /// The error function, within 5e-7, with the approximation of N. Juffa (Stack Overflow, question 35148198).
    pub fn erf(self) -> Self {
        let (k, t, s) = (self.k, self.abs(), self * self);
        let near =
            [-5.967_617e-4, 4.991_194e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1];
        let near = s.poly(&near).fma(self, self);
        let t4 = t.lt(4.0).select(t, k.float(4.0));
        let g = t4.poly(&[
            -1.728_534_7e-5,
            3.831_972_6e-4,
            -3.883_964_4e-3,
            2.425_462_2e-2,
            -1.067_778_8e-1,
            -6.348_467e-1,
            -1.287_175_1e-1,
        ]);
        let g = g.fma(t4, -t4);
        let far = (k.float(1.0) - g.exp()).with_sign_of(self);
        t.lt(0.927_734_4).select(near, far)
    }

    /// The nearest bf16, ties to even, as bits.
    pub fn to_bf16(self) -> Short<'k> {
        self.k.call_bf16(self)
    }
    /// The nearest f16, ties to even, as bits.
    pub fn to_f16(self) -> Short<'k> {
        self.k.call::<I16>("llvm.convert.to.fp16.f32", &[self.raw])
    }
    /// `self` and `high` as bf16, `self` in the lower half: `cvt.rn.bf16x2.f32`.
    pub fn to_bf16_pair(self, high: Self) -> Int<'k> {
        self.k.call_bf16_pair(self, high)
    }
}

impl<'k> Short<'k> {
    /// The float of a bf16.
    pub fn from_bf16(self) -> Float<'k> {
        (self.int() << 16).bits::<F32>()
    }
    /// The float of an f16.
    pub fn from_f16(self) -> Float<'k> {
        self.k.call::<F32>("llvm.convert.from.fp16.f32", &[self.raw])
    }
}

impl<'k> V<'k, I32> {
    /// The floats of two bf16, the lower half first.
    pub fn from_bf16_pair(self) -> [Float<'k>; 2] {
        [(self << 16).bits(), (self & -65_536).bits()]
    }
    /// The difference of two pairs of bf16: one instruction, of which Ampere has the fused one alone.
    pub fn minus_bf16_pair(self, other: Self) -> Self {
        self.on_bf16_pairs("llvm.fsub", other)
    }
    /// The product of two pairs of bf16, in the same way.
    pub fn times_bf16_pair(self, other: Self) -> Self {
        self.on_bf16_pairs("llvm.fmul", other)
    }
    fn on_bf16_pairs(self, op: &str, other: Self) -> Self {
        let k = self.k;
        let ty = melior::ir::Type::vector(&[2], melior::ir::Type::bfloat16(k.context()));
        let [x, y] = [self, other].map(|pair| k.op("llvm.bitcast", &[pair.raw], ty, &[]));
        let result = k.op(op, &[x, y], ty, &[]);
        V::new(k, k.op("llvm.bitcast", &[result], <I32 as super::Scalar>::mlir(k.context()), &[]))
    }
}

impl<'k> super::Body<'k> {
    fn call_bf16(&'k self, value: Float<'k>) -> Short<'k> {
        let ty = melior::ir::Type::bfloat16(self.context());
        let value = self.op("llvm.fptrunc", &[value.raw], ty, &[]);
        let ty = <I16 as super::Scalar>::mlir(self.context());
        V::new(self, self.op("llvm.bitcast", &[value], ty, &[]))
    }

    fn call_bf16_pair(&'k self, low: Float<'k>, high: Float<'k>) -> Int<'k> {
        let ty = melior::ir::Type::vector(&[2], melior::ir::Type::bfloat16(self.context()));
        // The first operand goes to the upper half.
        let pair = self.intrinsic("llvm.nvvm.ff2bf16x2.rn", &[high.raw, low.raw], Some(ty));
        let ty = <I32 as super::Scalar>::mlir(self.context());
        V::new(self, self.op("llvm.bitcast", &[pair], ty, &[]))
    }
}
