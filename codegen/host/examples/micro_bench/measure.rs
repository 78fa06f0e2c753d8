//! Clocks, threads, memory, and what the machine can do.

use sinter_codegen_host::micro::bf16_to_f32;
use std::arch::x86_64::*;
use std::hint::black_box;

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    fn madvise(address: *mut u8, length: usize, advice: i32) -> i32;
}

/// Processor time of this thread, seconds.
fn processor_time() -> f64 {
    const THREAD: i32 = 3;
    let mut time = [0; 2];
    // SAFETY: a timespec is two 64-bit numbers.
    unsafe { clock_gettime(THREAD, &mut time) };
    time[0] as f64 + time[1] as f64 * 1e-9
}

/// The time of `f`, seconds.
fn timed(f: impl FnOnce()) -> f64 {
    let start = processor_time();
    f();
    processor_time() - start
}

/// The median.
pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The median time of `runs` runs after one.
pub(crate) fn median_of(runs: usize, mut f: impl FnMut()) -> f64 {
    f();
    median((0..runs).map(|_| timed(&mut f)).collect())
}

/// `f(i)` on that many threads; the time of the slowest.
pub(crate) fn parallel(threads: usize, f: impl Fn(usize) + Sync) -> f64 {
    let f = &f;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|i| scope.spawn(move || timed(|| f(i)))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a bench thread")).fold(0.0, f64::max)
    })
}

/// Memory in huge pages, where a weight belongs: page walks cost a sixth of the bandwidth otherwise.
pub(crate) struct Memory(pub(crate) &'static mut [u8]);

impl Memory {
    pub(crate) fn of<T>(from: &[T]) -> Self {
        const HUGE: usize = 2 << 20;
        const MADV_HUGEPAGE: i32 = 14;
        let bytes = size_of_val(from);
        let layout =
            std::alloc::Layout::from_size_align(bytes.next_multiple_of(HUGE), HUGE).expect("a layout");
        // SAFETY: the memory is as long as the layout says; plain numbers are plain bytes.
        Memory(unsafe {
            let base = std::alloc::alloc(layout);
            assert!(!base.is_null(), "out of memory");
            madvise(base, layout.size(), MADV_HUGEPAGE);
            std::ptr::copy_nonoverlapping(from.as_ptr().cast(), base, bytes);
            std::slice::from_raw_parts_mut(base, bytes)
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let layout = std::alloc::Layout::from_size_align(self.0.len().next_multiple_of(2 << 20), 2 << 20);
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.0.as_mut_ptr(), layout.expect("a layout")) };
    }
}

pub(crate) fn random(n: usize) -> Vec<u16> {
    let mut x = 0x9e37_79b9_u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // In +-[0.5, 1).
        0x3f00 | ((x >> 16) & 0x807f) as u16
    };
    (0..n).map(|_| next()).collect()
}

/// bf16 as f32.
pub(crate) fn widened(x: &[u16]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    bf16_to_f32(x, &mut y);
    y
}

/// The sum of a buffer, eight registers at a time: what reading costs. The machine has AVX2.
#[target_feature(enable = "avx2")]
pub(crate) fn read(p: &[u8]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 8];
    for block in p.chunks_exact(256) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: eight times 32 bytes in a block.
            let x = unsafe { _mm256_loadu_ps(block.as_ptr().add(32 * i).cast()) };
            *sum = _mm256_add_ps(*sum, x);
        }
    }
    black_box(sums);
    0.0
}

/// Multiply-adds on registers alone, many chains: what the arithmetic can do. The operations of a round.
pub(crate) fn peak(bf16: bool, rounds: usize) -> usize {
    // SAFETY: only what the machine has is called.
    unsafe {
        match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx512bf16")) {
            (true, true) => peak_avx512(bf16, rounds),
            _ => peak_avx2(rounds),
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn peak_avx2(rounds: usize) -> usize {
    let mut acc = [_mm256_setzero_ps(); 12];
    let x = black_box(_mm256_set1_ps(1e-9));
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = _mm256_fmadd_ps(*acc, x, x);
        }
    }
    black_box(acc);
    12 * 16
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn peak_avx512(bf16: bool, rounds: usize) -> usize {
    let mut acc = [_mm512_setzero_ps(); 24];
    let x = black_box(_mm512_set1_ps(1e-9));
    // SAFETY: both are 512 plain bits.
    let pair = unsafe { std::mem::transmute::<__m512, __m512bh>(x) };
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = if bf16 { _mm512_dpbf16_ps(*acc, pair, pair) } else { _mm512_fmadd_ps(*acc, x, x) };
        }
    }
    black_box(acc);
    24 * if bf16 { 64 } else { 32 }
}

/// Multiply-adds of bytes on registers alone, 24 chains. Returns operations done.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(crate) fn peak_bytes(rounds: usize) -> f64 {
    let mut acc = [_mm512_setzero_si512(); 24];
    let x = black_box(_mm512_set1_epi8(1));
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, x, x);
        }
    }
    for acc in acc {
        black_box(acc);
    }
    (rounds * 24 * 128) as f64
}
