//! The formats that [`gemm`](super::gemm) multiplies, and the register tiles of each instruction set.
//!
//! A tile wants at least as many accumulators as a fused multiply-add is cycles long (4 on Zen 4, 6 for `vdpbf16ps`), and
//! many rows, for each of which a weight is used once more.

use std::marker::PhantomData;

use super::gemm::{Format, Tile, tile};
use super::lanes::{Array, Wide, Y16, Z16, ZPairs};

/// The register tiles of an instruction set.
pub(super) trait Tiles {
    /// The most rows in a tile.
    const MAX_ROWS: usize;
    /// See [`Format::PREFETCH_ROWS`].
    const PREFETCH_ROWS: usize;
    /// See [`Format::FEW_STEPS`].
    const FEW_STEPS: usize;
    /// Half panels at a time for a tile of `rows`: a power of two.
    fn halves(rows: usize) -> usize;
    /// See [`Format::run`].
    ///
    /// # Safety
    /// As [`tile`].
    unsafe fn run<F: Format>(rows: usize, halves: usize, t: &Tile);
}

/// Implements [`Tiles`] for a type with a function a shape, each compiled for the features.
macro_rules! tiles {
    ($set:ident, $doc:literal, $features:literal, $max:literal rows, $prefetch:expr, $few:expr, $halves:expr,
        $($rows:literal x $nv:literal),+) => {
        #[doc = $doc]
        pub(super) enum $set {}

        impl Tiles for $set {
            const MAX_ROWS: usize = $max;
            const PREFETCH_ROWS: usize = $prefetch;
            const FEW_STEPS: usize = $few;

            fn halves(rows: usize) -> usize {
                const HALVES: fn(usize) -> usize = $halves;
                HALVES(rows)
            }

            unsafe fn run<F: Format>(rows: usize, halves: usize, t: &Tile) {
                /// One shape.
                ///
                /// # Safety
                /// As [`tile`].
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn shape<F: Format, const MR: usize, const NV: usize>(t: &Tile) {
                    // SAFETY: passed on.
                    unsafe { tile::<F, MR, NV>(t) }
                }
                // SAFETY: passed on; the caller promises the features with the instructions of F.
                unsafe {
                    match (rows, halves) {
                        $(($rows, $nv) => shape::<F, $rows, $nv>(t),)+
                        _ => unreachable!("no register tile of {rows} rows and {halves} half panels"),
                    }
                }
            }
        }
    };
}

/// Half panels of two registers each: two panels for one row, one for up to three, half of one beyond.
const fn narrow_halves(rows: usize) -> usize {
    match rows {
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    }
}

// Asking for what comes next: on Zen 4 tiles of up to six rows pass so quickly that the memory's own reading ahead does better
// alone. On Zen 3 with AVX2 it pays from two rows on, and short blocks pay where few tiles share weights that come from memory.
// A tile of six rows by half a panel spills there, which costs a tenth.
// One panel at a time: more would fit, but one stream is what the memory reads ahead best. Measured on Zen 4 with weights in
// huge pages, one row by two panels takes a tenth longer than by one, 4 rows as well.
tiles!(Avx512Tiles, "32 registers of 16 lanes.", "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", 12 rows, 7, usize::MAX, |_| 2,
    1 x 2, 2 x 2, 3 x 2, 4 x 2, 5 x 2, 6 x 2, 7 x 2, 8 x 2, 9 x 2, 10 x 2, 11 x 2, 12 x 2);
tiles!(Bf16Tiles, "32 registers of 16 lanes, with dot products.",
    "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", 12 rows, 7, usize::MAX, |_| 2,
    1 x 2, 2 x 2, 3 x 2, 4 x 2, 5 x 2, 6 x 2, 7 x 2, 8 x 2, 9 x 2, 10 x 2, 11 x 2, 12 x 2);
tiles!(Avx2Tiles, "16 registers of 8 lanes.", "avx2,fma", 5 rows, 2, 256, narrow_halves,
    1 x 4, 1 x 2, 2 x 2, 3 x 2, 4 x 1, 5 x 1);
tiles!(ArrayTiles, "Whatever the compiler makes of arrays.", "sse2", 2 rows, usize::MAX, usize::MAX, |_| 1, 1 x 1, 2 x 1);
tiles!(FmaArrayTiles, "Arrays, where the compiler has fused multiply-adds.", "fma", 2 rows, usize::MAX, usize::MAX, |_| 1, 1 x 1, 2 x 1);

/// A and W in f32.
pub(super) struct F32<V, T>(PhantomData<(V, T)>);

impl<V: Wide, T: Tiles> Format for F32<V, T> {
    type V = V;
    type Act = V;
    type Weight = V;
    const ELEMENT: usize = 4;
    const PARTS: usize = 1;
    const ACT: usize = 4;
    const MAX_ROWS: usize = T::MAX_ROWS;
    const PREFETCH_ROWS: usize = T::PREFETCH_ROWS;
    const FEW_STEPS: usize = T::FEW_STEPS;

    #[inline(always)]
    unsafe fn copy(from: *const u8, bytes: usize, to: *mut u8) {
        // SAFETY: the caller lends both.
        unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) }
    }
    #[inline(always)]
    unsafe fn act(p: *const u8) -> V {
        // SAFETY: the caller lends the step.
        unsafe { V::splat(p.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weight(p: *const u8, _part: usize) -> V {
        // SAFETY: the caller lends the half panel's step.
        unsafe { V::load(p.cast()) }
    }
    #[inline(always)]
    fn mac(acc: V, a: V, w: V) -> V {
        a.fma(w, acc)
    }
    fn halves(rows: usize) -> usize {
        T::halves(rows)
    }
    #[inline(always)]
    unsafe fn run(rows: usize, halves: usize, t: &Tile) {
        // SAFETY: passed on.
        unsafe { T::run::<Self>(rows, halves, t) }
    }
}

/// A and W in bf16, widened to f32 and multiplied one after the other. Rows are widened as they are copied.
pub(super) struct Bf16<V, T>(PhantomData<(V, T)>);

impl<V: Wide, T: Tiles> Format for Bf16<V, T> {
    type V = V;
    type Act = V;
    type Weight = V;
    const ELEMENT: usize = 2;
    const PARTS: usize = 2;
    const ACT: usize = 4;
    const MAX_ROWS: usize = T::MAX_ROWS;
    const PREFETCH_ROWS: usize = T::PREFETCH_ROWS;
    const FEW_STEPS: usize = T::FEW_STEPS;

    #[inline(always)]
    unsafe fn copy(from: *const u8, bytes: usize, to: *mut u8) {
        let (from, to, n) = (from.cast::<u16>(), to.cast::<u32>(), bytes / 2);
        // SAFETY: the caller lends both.
        unsafe {
            for i in 0..n {
                to.add(i).write_unaligned(u32::from(from.add(i).read_unaligned()) << 16);
            }
            if n % 2 == 1 {
                to.add(n).write_unaligned(0);
            }
        }
    }
    #[inline(always)]
    unsafe fn act(p: *const u8) -> V {
        // SAFETY: the caller lends the step.
        unsafe { V::splat(p.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weight(p: *const u8, part: usize) -> V {
        // SAFETY: the caller lends the half panel's step.
        unsafe { V::load_of_pairs(p, part == 1) }
    }
    #[inline(always)]
    fn mac(acc: V, a: V, w: V) -> V {
        a.fma(w, acc)
    }
    fn halves(rows: usize) -> usize {
        T::halves(rows)
    }
    #[inline(always)]
    unsafe fn run(rows: usize, halves: usize, t: &Tile) {
        // SAFETY: passed on.
        unsafe { T::run::<Self>(rows, halves, t) }
    }
}

/// A and W in bf16, multiplied in pairs by `vdpbf16ps`.
pub(super) enum Bf16Dot {}

impl Format for Bf16Dot {
    type V = Z16;
    type Act = ZPairs;
    type Weight = ZPairs;
    const ELEMENT: usize = 2;
    const PARTS: usize = 1;
    const ACT: usize = 4;
    const MAX_ROWS: usize = Bf16Tiles::MAX_ROWS;
    const PREFETCH_ROWS: usize = Bf16Tiles::PREFETCH_ROWS;
    const FEW_STEPS: usize = Bf16Tiles::FEW_STEPS;

    #[inline(always)]
    unsafe fn copy(from: *const u8, bytes: usize, to: *mut u8) {
        // SAFETY: the caller lends both; where half a step ends the row, the other half is a zero.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, bytes);
            if !bytes.is_multiple_of(4) {
                to.add(bytes).cast::<u16>().write_unaligned(0);
            }
        }
    }
    #[inline(always)]
    unsafe fn act(p: *const u8) -> ZPairs {
        // SAFETY: the caller lends the step.
        unsafe { ZPairs::splat(p) }
    }
    #[inline(always)]
    unsafe fn weight(p: *const u8, _part: usize) -> ZPairs {
        // SAFETY: the caller lends the half panel's step.
        unsafe { ZPairs::load(p) }
    }
    #[inline(always)]
    fn mac(acc: Z16, a: ZPairs, w: ZPairs) -> Z16 {
        acc.dot_pairs(a, w)
    }
    fn halves(rows: usize) -> usize {
        Bf16Tiles::halves(rows)
    }
    #[inline(always)]
    unsafe fn run(rows: usize, halves: usize, t: &Tile) {
        // SAFETY: passed on.
        unsafe { Bf16Tiles::run::<Self>(rows, halves, t) }
    }
}

/// The scalar form's accumulators.
pub(super) type Plain = Array<16>;
/// The formats of each instruction set.
pub(super) mod of {
    use super::*;
    pub(in super::super) type ArrayF32 = F32<Plain, ArrayTiles>;
    pub(in super::super) type ArrayBf16 = Bf16<Plain, ArrayTiles>;
    pub(in super::super) type FmaArrayF32 = F32<Plain, FmaArrayTiles>;
    pub(in super::super) type FmaArrayBf16 = Bf16<Plain, FmaArrayTiles>;
    pub(in super::super) type Avx2F32 = F32<Y16, Avx2Tiles>;
    pub(in super::super) type Avx2Bf16 = Bf16<Y16, Avx2Tiles>;
    pub(in super::super) type Avx512F32 = F32<Z16, Avx512Tiles>;
    pub(in super::super) type Avx512Bf16 = Bf16<Z16, Avx512Tiles>;
}
