//! Typed values and their arithmetic.

use super::body::K;
use melior::Context;
use melior::dialect::llvm::r#type as llvm;
use melior::ir::r#type::IntegerType;
use melior::ir::{Type, Value};
use std::marker::PhantomData;
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Neg, Not, Shl, Shr, Sub};

/// The type of a value in a register.
pub trait Scalar: Copy + 'static {
    /// Bytes in memory.
    const BYTES: u32;
    /// The type in MLIR.
    fn mlir(context: &Context) -> Type<'_>;
}

macro_rules! scalars {
    ($($(#[$doc:meta])* $name:ident $bytes:literal $context:ident $mlir:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {}
        impl Scalar for $name {
            const BYTES: u32 = $bytes;
            fn mlir($context: &Context) -> Type<'_> { $mlir }
        }
    )*};
}

scalars! {
    /// A truth value.
    I1 1 c IntegerType::new(c, 1).into();
    /// Eight bits.
    I8 1 c IntegerType::new(c, 8).into();
    /// Sixteen bits: mostly those of a bf16.
    I16 2 c IntegerType::new(c, 16).into();
    /// A 32-bit integer, or a pair of 16-bit floats.
    I32 4 c IntegerType::new(c, 32).into();
    /// A 64-bit integer.
    I64 8 c IntegerType::new(c, 64).into();
    /// IEEE 754 binary32.
    F32 4 c Type::float32(c);
    /// IEEE 754 binary64.
    F64 8 c Type::float64(c);
}

/// A pointer into an address space of NVPTX: 0 generic, 1 global, 3 shared, 7 the shared memory of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ptr<const SPACE: u32> {}

impl<const SPACE: u32> Scalar for Ptr<SPACE> {
    const BYTES: u32 = 8;
    fn mlir(context: &Context) -> Type<'_> {
        llvm::pointer(context, SPACE)
    }
}

/// A value of type `T` in the kernel that `'k` stands for.
pub struct V<'k, T> {
    pub(super) k: K<'k>,
    pub(super) raw: Value<'k, 'k>,
    ty: PhantomData<T>,
}

/// A truth value.
pub type Bit<'k> = V<'k, I1>;
/// Sixteen bits.
pub type Short<'k> = V<'k, I16>;
/// A 32-bit integer. Sums, differences and products must not overflow as signed numbers.
pub type Int<'k> = V<'k, I32>;
/// A 64-bit integer, with the same rule.
pub type Long<'k> = V<'k, I64>;
/// A 32-bit float. Operators round to nearest even and are never contracted; [`V::fma`] is.
pub type Float<'k> = V<'k, F32>;
/// A 64-bit float, under the same rule.
pub type Double<'k> = V<'k, F64>;
/// An address in global memory.
pub type Global<'k> = V<'k, Ptr<1>>;
/// An address in shared memory.
pub type Shared<'k> = V<'k, Ptr<3>>;
/// The generic address of a tensor map among the parameters.
pub type Param<'k> = V<'k, Ptr<0>>;

impl<T> Clone for V<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for V<'_, T> {}

impl<'k, T: Scalar> V<'k, T> {
    pub(super) fn new(k: K<'k>, raw: Value<'k, 'k>) -> Self {
        Self { k, raw, ty: PhantomData }
    }
    /// The value without its type, as an operand of [`Body::call`](super::Body::call).
    pub fn raw(self) -> Value<'k, 'k> {
        self.raw
    }
    /// The kernel it belongs to.
    pub fn kernel(self) -> K<'k> {
        self.k
    }
    fn binary(self, op: &str, other: Self, flags: Option<&'static str>) -> Self {
        let name = if op == "llvm.fadd" || op == "llvm.fsub" { "fastmathFlags" } else { "overflowFlags" };
        let flags = flags.map(|text| (name, self.k.attribute(text)));
        Self::new(self.k, self.k.op(op, &[self.raw, other.raw], T::mlir(self.k.context()), flags.as_slice()))
    }
    pub(super) fn convert<U: Scalar>(self, op: &str) -> V<'k, U> {
        V::new(self.k, self.k.op(op, &[self.raw], U::mlir(self.k.context()), &[]))
    }
    fn compare(self, op: &str, predicate: i64, other: Self) -> Bit<'k> {
        let predicate = [("predicate", self.k.integer::<I64>(predicate))];
        V::new(self.k, self.k.op(op, &[self.raw, other.raw], I1::mlir(self.k.context()), &predicate))
    }
    /// The same bits as another type of the same width.
    pub fn bits<U: Scalar>(self) -> V<'k, U> {
        self.convert("llvm.bitcast")
    }
}

/// A value, or a number that becomes a constant.
pub trait Operand<'k, T> {
    /// The value in the kernel.
    fn value(self, k: K<'k>) -> V<'k, T>;
}

impl<'k, T: Scalar> Operand<'k, T> for V<'k, T> {
    fn value(self, _: K<'k>) -> V<'k, T> {
        self
    }
}

macro_rules! literals {
    ($($number:ty => $($ty:ident)*;)*) => {$($(
        impl<'k> Operand<'k, $ty> for $number {
            fn value(self, k: K<'k>) -> V<'k, $ty> {
                k.constant(k.integer::<$ty>(i64::from(self)))
            }
        }
    )*)*};
}
literals! { i32 => I8 I16 I32 I64; i64 => I64; bool => I1; }

impl<'k> Operand<'k, F32> for f32 {
    fn value(self, k: K<'k>) -> V<'k, F32> {
        k.constant(k.number(self))
    }
}

impl<'k> Operand<'k, F64> for f64 {
    fn value(self, k: K<'k>) -> V<'k, F64> {
        k.constant(k.wide_number(self))
    }
}

macro_rules! operators {
    ($($ty:ident: $($trait:ident $method:ident $op:literal $flags:expr),*;)*) => {$($(
        impl<'k, O: Operand<'k, $ty>> $trait<O> for V<'k, $ty> {
            type Output = Self;
            fn $method(self, other: O) -> Self {
                self.binary($op, other.value(self.k), $flags)
            }
        }
    )*)*};
}

const NSW: Option<&str> = Some("#llvm.overflow<nsw>");

operators! {
    I1: BitAnd bitand "llvm.and" None, BitOr bitor "llvm.or" None, BitXor bitxor "llvm.xor" None;
    I16: BitAnd bitand "llvm.and" None, BitOr bitor "llvm.or" None, Shl shl "llvm.shl" None, Shr shr "llvm.lshr" None;
    I32: Add add "llvm.add" NSW, Sub sub "llvm.sub" NSW, Mul mul "llvm.mul" NSW, BitAnd bitand "llvm.and" None,
        BitOr bitor "llvm.or" None, BitXor bitxor "llvm.xor" None, Shl shl "llvm.shl" None, Shr shr "llvm.lshr" None;
    I64: Add add "llvm.add" NSW, Sub sub "llvm.sub" NSW, Mul mul "llvm.mul" NSW, BitAnd bitand "llvm.and" None,
        BitOr bitor "llvm.or" None, BitXor bitxor "llvm.xor" None, Shl shl "llvm.shl" None, Shr shr "llvm.lshr" None;
    F32: Add add "llvm.fadd" None, Sub sub "llvm.fsub" None, Mul mul "llvm.fmul" None;
    F64: Add add "llvm.fadd" None, Sub sub "llvm.fsub" None, Mul mul "llvm.fmul" None;
}

impl Not for Bit<'_> {
    type Output = Self;
    fn not(self) -> Self {
        self ^ true
    }
}

impl Neg for Float<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        self.convert("llvm.fneg")
    }
}

macro_rules! integers {
    ($($ty:ident)*) => {$(
        impl<'k> V<'k, $ty> {
            /// Whether both are equal.
            pub fn equals(self, other: impl Operand<'k, $ty>) -> Bit<'k> {
                self.compare("llvm.icmp", 0, other.value(self.k))
            }
            /// Whether they differ.
            pub fn differs(self, other: impl Operand<'k, $ty>) -> Bit<'k> {
                self.compare("llvm.icmp", 1, other.value(self.k))
            }
            /// Less, as signed numbers.
            pub fn lt(self, other: impl Operand<'k, $ty>) -> Bit<'k> {
                self.compare("llvm.icmp", 2, other.value(self.k))
            }
            /// At most, as signed numbers.
            pub fn le(self, other: impl Operand<'k, $ty>) -> Bit<'k> {
                self.compare("llvm.icmp", 3, other.value(self.k))
            }
            /// At least, as signed numbers.
            pub fn ge(self, other: impl Operand<'k, $ty>) -> Bit<'k> {
                self.compare("llvm.icmp", 5, other.value(self.k))
            }
            /// Less, as unsigned numbers.
            pub fn below(self, other: impl Operand<'k, $ty>) -> Bit<'k> {
                self.compare("llvm.icmp", 6, other.value(self.k))
            }
            /// The quotient of unsigned numbers. The divisor must not be 0.
            pub fn divided(self, other: impl Operand<'k, $ty>) -> Self {
                self.binary("llvm.udiv", other.value(self.k), None)
            }
            /// The remainder of unsigned numbers. The divisor must not be 0.
            pub fn modulo(self, other: impl Operand<'k, $ty>) -> Self {
                self.binary("llvm.urem", other.value(self.k), None)
            }
            /// The quotient of signed numbers, towards zero. The divisor must not be 0.
            pub fn signed_divided(self, other: impl Operand<'k, $ty>) -> Self {
                self.binary("llvm.sdiv", other.value(self.k), None)
            }
            /// The lesser, as signed numbers.
            pub fn least(self, other: impl Operand<'k, $ty>) -> Self {
                let other = other.value(self.k);
                self.lt(other).select(self, other)
            }
            /// The greater, as signed numbers.
            pub fn greatest(self, other: impl Operand<'k, $ty>) -> Self {
                let other = other.value(self.k);
                self.lt(other).select(other, self)
            }
        }
    )*};
}
integers! { I32 I64 }

impl<'k> Bit<'k> {
    /// `yes` where true, else `no`.
    pub fn select<T: Scalar>(self, yes: V<'k, T>, no: V<'k, T>) -> V<'k, T> {
        let ty = T::mlir(self.k.context());
        V::new(self.k, self.k.op("llvm.select", &[self.raw, yes.raw, no.raw], ty, &[]))
    }
    /// 1 where true, else 0.
    pub fn int(self) -> Int<'k> {
        self.convert("llvm.zext")
    }
}

impl<'k> Int<'k> {
    /// With its sign, in 64 bits.
    pub fn long(self) -> Long<'k> {
        self.convert("llvm.sext")
    }
    /// Without sign, in 64 bits.
    pub fn unsigned_long(self) -> Long<'k> {
        self.convert("llvm.zext")
    }
    /// The nearest float of a signed number.
    pub fn float(self) -> Float<'k> {
        self.convert("llvm.sitofp")
    }
    /// The nearest float of an unsigned number.
    pub fn unsigned_float(self) -> Float<'k> {
        self.convert("llvm.uitofp")
    }
    /// How many bits are set.
    pub fn ones(self) -> Self {
        self.k.call("llvm.ctpop.i32", &[self.raw])
    }
    /// The lower 16 bits.
    pub fn short(self) -> Short<'k> {
        self.convert("llvm.trunc")
    }
    /// The lower 8 bits.
    pub fn low_byte(self) -> V<'k, I8> {
        self.convert("llvm.trunc")
    }
}

impl<'k> Long<'k> {
    /// The lower 32 bits.
    pub fn int(self) -> Int<'k> {
        self.convert("llvm.trunc")
    }
    /// The nearest 64-bit float of a signed number.
    pub fn double(self) -> Double<'k> {
        self.convert("llvm.sitofp")
    }
}

impl<'k> Double<'k> {
    /// The nearest 32-bit float.
    pub fn float(self) -> Float<'k> {
        self.convert("llvm.fptrunc")
    }
    /// The greatest integer that is not above x.
    pub fn floor(self) -> Self {
        self.k.call::<F64>("llvm.floor.f64", &[self.raw])
    }
    /// The signed integer towards zero; the nearest one where it does not fit, 0 for no number.
    pub fn long(self) -> Long<'k> {
        self.k.call::<I64>("llvm.fptosi.sat.i64.f64", &[self.raw])
    }
    /// Less; false where one is no number.
    pub fn lt(self, other: impl Operand<'k, F64>) -> Bit<'k> {
        self.compare("llvm.fcmp", 4, other.value(self.k))
    }
    /// At most; false where one is no number.
    pub fn le(self, other: impl Operand<'k, F64>) -> Bit<'k> {
        self.compare("llvm.fcmp", 5, other.value(self.k))
    }
    /// Equal; false where one is no number.
    pub fn equals(self, other: impl Operand<'k, F64>) -> Bit<'k> {
        self.compare("llvm.fcmp", 1, other.value(self.k))
    }
}

impl<'k> Short<'k> {
    /// Without sign, in 32 bits.
    pub fn int(self) -> Int<'k> {
        self.convert("llvm.zext")
    }
}

impl<'k> V<'k, I8> {
    /// With its sign, in 32 bits.
    pub fn signed_int(self) -> Int<'k> {
        self.convert("llvm.sext")
    }
    /// Without sign, in 32 bits.
    pub fn int(self) -> Int<'k> {
        self.convert("llvm.zext")
    }
}

impl<'k> Float<'k> {
    /// The same number in 64 bits.
    pub fn double(self) -> Double<'k> {
        self.convert("llvm.fpext")
    }
    /// The quotient, rounded to nearest even.
    pub fn over(self, other: impl Operand<'k, F32>) -> Self {
        self.binary("llvm.fdiv", other.value(self.k), None)
    }
    /// `self · y + z`, rounded once.
    pub fn fma(self, y: impl Operand<'k, F32>, z: impl Operand<'k, F32>) -> Self {
        let (y, z) = (y.value(self.k), z.value(self.k));
        V::new(
            self.k,
            self.k.op("llvm.intr.fma", &[self.raw, y.raw, z.raw], F32::mlir(self.k.context()), &[]),
        )
    }
    /// Less; false where one is no number.
    pub fn lt(self, other: impl Operand<'k, F32>) -> Bit<'k> {
        self.compare("llvm.fcmp", 4, other.value(self.k))
    }
    /// At most; false where one is no number.
    pub fn le(self, other: impl Operand<'k, F32>) -> Bit<'k> {
        self.compare("llvm.fcmp", 5, other.value(self.k))
    }
    /// Equal; false where one is no number.
    pub fn equals(self, other: impl Operand<'k, F32>) -> Bit<'k> {
        self.compare("llvm.fcmp", 1, other.value(self.k))
    }
    /// Unequal; true where one is no number.
    pub fn differs(self, other: impl Operand<'k, F32>) -> Bit<'k> {
        self.compare("llvm.fcmp", 13, other.value(self.k))
    }
    /// The signed integer towards zero; the nearest one where it does not fit, 0 for no number.
    pub fn int(self) -> Int<'k> {
        let ty = I32::mlir(self.k.context());
        V::new(self.k, self.k.intrinsic("llvm.fptosi.sat.i32.f32", &[self.raw], Some(ty)))
    }
    /// The greater, `max.f32`: a number wins over no number.
    pub fn greatest(self, other: impl Operand<'k, F32>) -> Self {
        let other = other.value(self.k);
        self.k.call::<F32>("llvm.nvvm.fmax.f", &[self.raw, other.raw])
    }
}
