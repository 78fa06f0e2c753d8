//! Pointers, loads and stores.

use super::body::{Body, SHARED};
use super::value::{I8, I32, I64, Int, Long, Ptr, Scalar, Shared, V};
use melior::ir::{Attribute, Type, Value};

/// How a load may be cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cache {
    /// As any memory.
    Any,
    /// Through the read-only path, `ld.global.nc`, and free to be moved: for memory that nothing writes from the start
    /// of the previous launch on, that is for weights.
    Constant,
}

/// An offset in bytes: an [`Int`], a [`Long`] or a literal.
pub trait Offset<'k> {
    /// The index operand.
    fn index(self, k: super::K<'k>) -> Value<'k, 'k>;
}

impl<'k> Offset<'k> for Int<'k> {
    fn index(self, _: super::K<'k>) -> Value<'k, 'k> {
        self.raw
    }
}
impl<'k> Offset<'k> for Long<'k> {
    fn index(self, _: super::K<'k>) -> Value<'k, 'k> {
        self.raw
    }
}
impl<'k> Offset<'k> for i32 {
    fn index(self, k: super::K<'k>) -> Value<'k, 'k> {
        k.int(self).raw
    }
}

impl<'k, const SPACE: u32> V<'k, Ptr<SPACE>> {
    /// So many bytes further, as a signed number. The result must lie in the same piece of memory.
    pub fn at(self, bytes: impl Offset<'k>) -> Self {
        let (k, ty) = (self.k, Ptr::<SPACE>::mlir(self.k.context()));
        let attributes = [
            ("rawConstantIndices", k.segments(&[i32::MIN])),
            ("elem_type", k.ty_attribute(I8::mlir(k.context()))),
            // inbounds
            ("noWrapFlags", k.integer::<I32>(3)),
        ];
        V::new(k, k.op("llvm.getelementptr", &[self.raw, bytes.index(k)], ty, &attributes))
    }
    /// The address as a number.
    pub fn address(self) -> Long<'k> {
        self.convert::<I64>("llvm.ptrtoint")
    }
    /// The same memory in another address space.
    pub fn space<const TO: u32>(self) -> V<'k, Ptr<TO>> {
        self.convert("llvm.addrspacecast")
    }
}

/// `N` values that lie side by side in memory.
pub type Vector<'k, T, const N: usize> = [V<'k, T>; N];

impl<'k> Body<'k> {
    /// One value. The address must be a multiple of its size.
    pub fn load<T: Scalar>(&'k self, from: V<'k, impl Address>, cache: Cache) -> V<'k, T> {
        V::new(self, self.raw_load(from.raw(), T::mlir(self.context()), T::BYTES, cache))
    }

    /// `N` values side by side in one access; `N` times the size is at most 16, and the address a multiple of that.
    pub fn load_vector<T: Scalar, const N: usize>(
        &'k self,
        from: V<'k, impl Address>,
        cache: Cache,
    ) -> Vector<'k, T, N> {
        if N == 1 {
            return [self.load(from, cache); N];
        }
        let element = T::mlir(self.context());
        let vector =
            self.raw_load(from.raw(), Type::vector(&[N as u64], element), T::BYTES * N as u32, cache);
        std::array::from_fn(|at| {
            let at = self.int(at as i32).raw;
            V::new(self, self.op("llvm.extractelement", &[vector, at], element, &[]))
        })
    }

    fn raw_load(&'k self, from: Value<'k, 'k>, ty: Type<'k>, align: u32, cache: Cache) -> Value<'k, 'k> {
        let mut attributes = vec![("alignment", self.alignment(align))];
        if cache == Cache::Constant {
            attributes.push(("invariant", self.unit()));
        }
        self.op("llvm.load", &[from], ty, &attributes)
    }

    /// Stores one value. The address must be a multiple of its size.
    pub fn store<T: Scalar>(&'k self, to: V<'k, impl Address>, value: V<'k, T>) {
        self.effect("llvm.store", &[value.raw, to.raw()], &[("alignment", self.alignment(T::BYTES))]);
    }

    /// Stores `N` values side by side in one access, under the rule of [`Body::load_vector`].
    pub fn store_vector<T: Scalar, const N: usize>(
        &'k self,
        to: V<'k, impl Address>,
        values: Vector<'k, T, N>,
    ) {
        if N == 1 {
            return self.store(to, values[0]);
        }
        let ty = Type::vector(&[N as u64], T::mlir(self.context()));
        let mut vector = self.op("llvm.mlir.poison", &[], ty, &[]);
        for (at, value) in values.iter().enumerate() {
            let at = self.int(at as i32).raw;
            vector = self.op("llvm.insertelement", &[vector, value.raw, at], ty, &[]);
        }
        let alignment = [("alignment", self.alignment(T::BYTES * N as u32))];
        self.effect("llvm.store", &[vector, to.raw()], &alignment);
    }

    fn alignment(&self, bytes: u32) -> Attribute<'k> {
        self.integer::<I64>(i64::from(bytes))
    }

    /// So many bytes of shared memory of this block, which nothing else uses; `align` is a power of two up to 1,024.
    pub fn shared(&'k self, bytes: u32, align: u32) -> Shared<'k> {
        let offset = self.shared_bytes.get().next_multiple_of(align);
        self.shared_bytes.set(offset + bytes);
        let name = [("global_name", self.symbol_name(SHARED))];
        let base = self.op("llvm.mlir.addressof", &[], Ptr::<3>::mlir(self.context()), &name);
        V::<Ptr<3>>::new(self, base).at(offset as i32)
    }
}

/// Types that are addresses.
pub trait Address: Scalar {}
impl<const SPACE: u32> Address for Ptr<SPACE> {}
