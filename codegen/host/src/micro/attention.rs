//! Attention over a block of up to [`POSITIONS`] positions whose keys and values lie anywhere: scores, and the step of the
//! online softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; the blocked form is
//! FlashAttention's, Dao et al. 2022).
//!
//! Invariant: what a row (a query of a head) gets does not depend on the rows beside it, nor on positions whose score
//! is -inf: those are not multiplied by zero but left out, so their values may be garbage.

use super::lanes::Wide;

/// The most positions in a block, and the elements between rows of scores.
pub const POSITIONS: usize = 64;
/// Score rows that share a pass over the values.
const ROWS: usize = 4;
/// Registers of a row's accumulator in a pass over the values.
const VECS: usize = 4;

/// How the elements of a key or value are stored.
///
/// # Safety
/// As [`Wide`]: the named elements can be read, and the machine has the instructions of `V`.
pub(super) trait Store {
    /// Elements `at..at + 16` of the vector at `row`.
    unsafe fn load<V: Wide>(row: *const u8, at: usize) -> V;
    /// Elements `at..at + n` of the vector at `row`, n <= 16; zero in the other lanes.
    unsafe fn load_part<V: Wide>(row: *const u8, at: usize, n: usize) -> V;
}

/// Elements in f32.
pub(super) enum InF32 {}

impl Store for InF32 {
    #[inline(always)]
    unsafe fn load<V: Wide>(row: *const u8, at: usize) -> V {
        // SAFETY: passed on.
        unsafe { V::load(row.cast::<f32>().add(at)) }
    }
    #[inline(always)]
    unsafe fn load_part<V: Wide>(row: *const u8, at: usize, n: usize) -> V {
        // SAFETY: passed on.
        unsafe { V::load_part(row.cast::<f32>().add(at), n) }
    }
}

/// Elements in bf16.
pub(super) enum InBf16 {}

impl Store for InBf16 {
    #[inline(always)]
    unsafe fn load<V: Wide>(row: *const u8, at: usize) -> V {
        // SAFETY: passed on.
        unsafe { V::load_bf16(row.cast::<u16>().add(at)) }
    }
    #[inline(always)]
    unsafe fn load_part<V: Wide>(row: *const u8, at: usize, n: usize) -> V {
        // SAFETY: passed on.
        unsafe { V::load_bf16_part(row.cast::<u16>().add(at), n) }
    }
}

/// Elements of a byte that [`Bytes::widen`] makes numbers.
pub(super) trait Bytes {
    /// Sixteen elements.
    ///
    /// # Safety
    /// As [`Wide`]: the elements can be read, and the machine has the instructions of `V`.
    unsafe fn widen<V: Wide>(p: *const u8) -> V;
}

/// Whole numbers from −128 to 127.
pub(super) enum InI8 {}

impl Bytes for InI8 {
    #[inline(always)]
    unsafe fn widen<V: Wide>(p: *const u8) -> V {
        // SAFETY: passed on.
        unsafe { V::load_i8(p) }
    }
}

/// 8-bit floats, E4M3.
pub(super) enum InE4m3 {}

impl Bytes for InE4m3 {
    #[inline(always)]
    unsafe fn widen<V: Wide>(p: *const u8) -> V {
        // SAFETY: passed on.
        unsafe { V::load_e4m3(p) }
    }
}

impl<B: Bytes> Store for B {
    #[inline(always)]
    unsafe fn load<V: Wide>(row: *const u8, at: usize) -> V {
        // SAFETY: passed on.
        unsafe { B::widen(row.add(at)) }
    }
    #[inline(always)]
    unsafe fn load_part<V: Wide>(row: *const u8, at: usize, n: usize) -> V {
        let mut whole = [0u8; 16];
        debug_assert!(n <= 16);
        // SAFETY: the caller lends n elements from `at` on, and n <= 16. A byte of zeros is the number zero.
        unsafe {
            std::ptr::copy_nonoverlapping(row.add(at), whole.as_mut_ptr(), n);
            B::widen(whole.as_ptr())
        }
    }
}

/// Whole numbers from −8 to 7, two to a byte: the first of a pair in the lower half, each plus 8.
pub(super) enum InI4 {}

impl Store for InI4 {
    #[inline(always)]
    unsafe fn load<V: Wide>(row: *const u8, at: usize) -> V {
        debug_assert!(at.is_multiple_of(2));
        // SAFETY: sixteen elements are eight bytes.
        unsafe { V::load_i4(row.add(at / 2)) }
    }
    #[inline(always)]
    unsafe fn load_part<V: Wide>(row: *const u8, at: usize, n: usize) -> V {
        // A half of 8 is the number zero.
        let mut whole = [0x88u8; 8];
        debug_assert!(n <= 16 && n.is_multiple_of(2));
        // SAFETY: the caller lends n elements from `at` on, and n <= 16.
        unsafe {
            std::ptr::copy_nonoverlapping(row.add(at / 2), whole.as_mut_ptr(), n / 2);
            V::load_i4(whole.as_ptr())
        }
    }
}

/// Queries and keys of a block; see [`super::ScoresFn`].
#[derive(Clone, Copy)]
pub(super) struct Queries {
    pub(super) q: *const f32,
    pub(super) ldq: usize,
    pub(super) keys: *const *const u8,
    pub(super) n: usize,
    pub(super) d: usize,
    pub(super) s: *mut f32,
}

/// `s[g][j] = q[g] . keys[j]`: each sum runs down the depth in sixteen lanes, which are then added as a tree.
///
/// # Safety
/// The contract of [`super::ScoresFn`].
#[inline(always)]
pub(super) unsafe fn scores<V: Wide, S: Store>(t: Queries, rows: usize) {
    if t.n == 0 {
        return;
    }
    let mut row = 0;
    while row < rows {
        // SAFETY: `row` and as many rows after it as each case takes are within those the caller lends.
        unsafe {
            let t = Queries { q: t.q.add(row * t.ldq), s: t.s.add(row * POSITIONS), ..t };
            row += match rows - row {
                // Five are three and two: two alone would read each key twice as often.
                3 | 5 => score_rows::<V, S, 3, 5>(&t),
                4.. => score_rows::<V, S, 4, 4>(&t),
                2 => score_rows::<V, S, 2, 8>(&t),
                _ => score_rows::<V, S, 1, 16>(&t),
            };
        }
    }
}

/// `R` queries times all keys, `J` at a time; returns `R`.
///
/// # Safety
/// As [`scores`], for `R` rows.
#[inline(always)]
unsafe fn score_rows<V: Wide, S: Store, const R: usize, const J: usize>(t: &Queries) -> usize {
    for j in (0..t.n).step_by(J) {
        // SAFETY: passed on.
        unsafe { score_tile::<V, S, R, J>(t, j) };
    }
    R
}

/// `R` queries times the `J` keys from `j`, `R J <= 16`: up to sixteen accumulators, reduced together.
///
/// # Safety
/// As [`scores`], for `R` rows; `j < n`.
#[inline(always)]
unsafe fn score_tile<V: Wide, S: Store, const R: usize, const J: usize>(t: &Queries, j: usize) {
    const { assert!(R * J <= 16) };
    // SAFETY: key pointers past the block repeat the last one; whole and partial loads stay within d elements.
    unsafe {
        let mut keys = [std::ptr::null(); J];
        for (i, key) in keys.iter_mut().enumerate() {
            *key = *t.keys.add((j + i).min(t.n - 1));
        }
        let mut acc = [V::splat(0.0); 16];
        let whole = t.d / 16 * 16;
        let mut at = 0;
        while at < whole {
            let mut q = [V::load(t.q.add(at)); R];
            for r in 1..R {
                q[r] = V::load(t.q.add(r * t.ldq + at));
            }
            for i in 0..J {
                let key: V = S::load(keys[i], at);
                for r in 0..R {
                    acc[r * J + i] = q[r].fma(key, acc[r * J + i]);
                }
            }
            at += 16;
        }
        if whole < t.d {
            for i in 0..J {
                let key: V = S::load_part(keys[i], whole, t.d - whole);
                for r in 0..R {
                    let q = V::load_part(t.q.add(r * t.ldq + whole), t.d - whole);
                    acc[r * J + i] = q.fma(key, acc[r * J + i]);
                }
            }
        }
        let sums = V::sums(acc).to_array();
        let n = J.min(t.n - j);
        for r in 0..R {
            std::ptr::copy_nonoverlapping(sums.as_ptr().add(r * J), t.s.add(r * POSITIONS + j), n);
        }
    }
}

/// Scores, values and running sums of a block; see [`super::OnlineFn`].
#[derive(Clone, Copy)]
pub(super) struct Online {
    pub(super) s: *mut f32,
    pub(super) n: usize,
    pub(super) values: *const *const u8,
    pub(super) dv: usize,
    pub(super) m: *mut f32,
    pub(super) l: *mut f32,
    pub(super) acc: *mut f32,
    /// What the values of each position are multiplied by; null for 1.
    pub(super) factors: *const f32,
}

/// What a row does to its accumulator.
#[derive(Clone, Copy)]
struct Row {
    /// The factor on what was there.
    scale: f32,
    /// Bit j: position j takes part.
    live: u64,
}

/// One step of the online softmax for each row.
///
/// # Safety
/// The contract of [`super::OnlineFn`].
#[inline(always)]
pub(super) unsafe fn online<V: Wide, S: Store>(t: Online, rows: usize) {
    let mut row = 0;
    while row < rows {
        // SAFETY: `row` and as many rows after it as each case takes are within those the caller lends.
        unsafe {
            let t = Online {
                s: t.s.add(row * POSITIONS),
                m: t.m.add(row),
                l: t.l.add(row),
                acc: t.acc.add(row * t.dv),
                ..t
            };
            row += match rows - row {
                3 | 5 => online_rows::<V, S, 3>(&t),
                ROWS.. => online_rows::<V, S, ROWS>(&t),
                2.. => online_rows::<V, S, 2>(&t),
                _ => online_rows::<V, S, 1>(&t),
            };
        }
    }
}

/// The step for `R` rows; returns `R`. The positions that all of them use from the start are added together, the rest
/// row by row; either way a row adds its positions in order.
///
/// # Safety
/// As [`online`], for `R` rows.
#[inline(always)]
unsafe fn online_rows<V: Wide, S: Store, const R: usize>(t: &Online) -> usize {
    // SAFETY: passed on.
    unsafe {
        let (mut rows, mut scale, mut shared) = ([None; R], [1.0; R], POSITIONS);
        for r in 0..R {
            rows[r] = soften::<V>(t, r);
            match rows[r] {
                Some(row) => (scale[r], shared) = (row.scale, shared.min(row.live.trailing_ones() as usize)),
                None => shared = 0,
            }
        }
        if shared > 0 {
            accumulate::<V, S, R>(&Mix { values: t.values, n: shared, p: t.s, scale, acc: t.acc, dv: t.dv });
        }
        for (r, row) in rows.into_iter().enumerate() {
            let Some(row) = row else { continue };
            let scale = if shared > 0 { 1.0 } else { row.scale };
            let rest = row.live & !((1u128 << shared) - 1) as u64;
            if rest != 0 {
                let (s, acc) = (t.s.add(r * POSITIONS), t.acc.add(r * t.dv));
                accumulate_some::<V, S>(t, rest, s, scale, acc);
            }
        }
    }
    R
}

/// Turns row `r` of the scores into probabilities relative to its new maximum, times the factors, and brings its `m` and `l` up
/// to date.
/// None where every score is -inf: then nothing but the scores changes.
///
/// # Safety
/// As [`online`], for row `r`.
#[inline(always)]
unsafe fn soften<V: Wide>(t: &Online, r: usize) -> Option<Row> {
    // SAFETY: the row has n scores, of which no more are touched; m and l have row r.
    unsafe {
        let s = t.s.add(r * POSITIONS);
        let (mut x, mut live) = ([V::splat(f32::NEG_INFINITY); 4], 0u64);
        for (v, x) in x.iter_mut().enumerate().take(t.n.div_ceil(16)) {
            let n = (t.n - 16 * v).min(16);
            *x = V::load_or(s.add(16 * v), n, f32::NEG_INFINITY);
            live |= u64::from(x.differ(V::splat(f32::NEG_INFINITY))) << (16 * v);
        }
        let zero = V::splat(0.0);
        if live == 0 {
            for j in (0..t.n).step_by(16) {
                zero.store_part(s.add(j), (t.n - j).min(16));
            }
            return None;
        }
        let block = x[0].max(x[1]).max(x[2].max(x[3])).largest();
        let old = *t.m.add(r);
        let new = if block > old { block } else { old };
        let mut total = zero;
        for (v, x) in x.into_iter().enumerate().take(t.n.div_ceil(16)) {
            let n = (t.n - 16 * v).min(16);
            let p = super::math::exp(x.sub(V::splat(new)));
            total = total.add(p);
            let p = if t.factors.is_null() { p } else { p.mul(V::load_part(t.factors.add(16 * v), n)) };
            p.store_part(s.add(16 * v), n);
        }
        let scale = super::math::exp(super::lanes::Array([old - new])).0[0];
        *t.m.add(r) = new;
        *t.l.add(r) = (*t.l.add(r)).mul_add(scale, total.sum());
        Some(Row { scale, live })
    }
}

/// As [`accumulate`] for one row and the positions of `live`.
///
/// # Safety
/// As [`accumulate`].
#[inline(always)]
unsafe fn accumulate_some<V: Wide, S: Store>(
    t: &Online,
    mut live: u64,
    s: *const f32,
    scale: f32,
    acc: *mut f32,
) {
    let (mut p, mut values, mut n) = ([0.0; POSITIONS], [std::ptr::null(); POSITIONS], 0);
    while live != 0 {
        let j = live.trailing_zeros() as usize;
        // SAFETY: j < n of the block.
        unsafe { (p[n], values[n]) = (*s.add(j), *t.values.add(j)) };
        n += 1;
        live &= live - 1;
    }
    let mix = Mix { values: values.as_ptr(), n, p: p.as_ptr(), scale: [scale], acc, dv: t.dv };
    // SAFETY: n probabilities and values were gathered.
    unsafe { accumulate::<V, S, 1>(&mix) }
}

/// Values to be mixed into the accumulators of `R` rows.
struct Mix<const R: usize> {
    /// `n` values of `dv` elements.
    values: *const *const u8,
    n: usize,
    /// Rows of `n` probabilities, [`POSITIONS`] apart.
    p: *const f32,
    /// The factor on what each row had.
    scale: [f32; R],
    /// `[R][dv]`.
    acc: *mut f32,
    dv: usize,
}

/// `acc[r] = acc[r] * scale[r] + sum over j < n of p[r][j] * values[j]`, j in order.
///
/// # Safety
/// What `t` describes can be read and, for the accumulators, written.
#[inline(always)]
unsafe fn accumulate<V: Wide, S: Store, const R: usize>(t: &Mix<R>) {
    let mut at = 0;
    // SAFETY: every chunk lies within dv elements.
    unsafe {
        while at + 16 * VECS <= t.dv {
            chunk::<V, S, R, VECS>(t, at, 16);
            at += 16 * VECS;
        }
        while at < t.dv {
            chunk::<V, S, R, 1>(t, at, 16.min(t.dv - at));
            at += 16;
        }
    }
}

/// [`accumulate`] over `NV` registers of every row, from element `at`; with `NV == 1` only `width` lanes are used.
///
/// # Safety
/// As [`accumulate`]; the elements lie within `dv`.
#[inline(always)]
unsafe fn chunk<V: Wide, S: Store, const R: usize, const NV: usize>(t: &Mix<R>, at: usize, width: usize) {
    let partial = NV == 1 && width < 16;
    // SAFETY: as the caller promised; a partial register touches `width` elements.
    unsafe {
        let mut sums = [[V::splat(0.0); NV]; R];
        for r in 0..R {
            for v in 0..NV {
                let from = t.acc.add(r * t.dv + at + 16 * v);
                let old = if partial { V::load_part(from, width) } else { V::load(from) };
                sums[r][v] = old.mul(V::splat(t.scale[r]));
            }
        }
        for j in 0..t.n {
            let row = *t.values.add(j);
            let mut value = [V::splat(0.0); NV];
            for v in 0..NV {
                value[v] = if partial { S::load_part(row, at, width) } else { S::load(row, at + 16 * v) };
            }
            for r in 0..R {
                let p = V::splat(*t.p.add(r * POSITIONS + j));
                for v in 0..NV {
                    sums[r][v] = p.fma(value[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..NV {
                let to = t.acc.add(r * t.dv + at + 16 * v);
                if partial { sums[r][v].store_part(to, width) } else { sums[r][v].store(to) }
            }
        }
    }
}
