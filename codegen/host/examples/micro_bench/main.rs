//! Measures the micro-kernels beside the machine: `cargo run --release -p sinter-codegen-host --example micro_bench`.
//!
//! Arguments choose the parts: `decode`, `prefill`, `attention`, `math`, `pack`, `quant` (all without any). Each figure is the median of
//! several runs, in processor time of the slowest thread, so that other processes on the machine count little; read
//! bandwidth and arithmetic peak are measured right beside what they judge, for a shared machine drifts all the same. Every product is checked against f64 on some outputs before its time is printed.
#![allow(unsafe_code, reason = "the kernels take pointers")]

mod measure;
mod quant;

use measure::{Memory, median, median_of, parallel, peak, random, read, widened};
use sinter_codegen_host::micro::*;
use std::hint::black_box;

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let table = kernels(Isa::detect()).expect("the detected instruction set");
    println!("{}", table.isa);
    if wanted("decode") {
        decode(table);
    }
    if wanted("prefill") {
        prefill(table);
    }
    if wanted("attention") {
        attention(table);
    }
    if wanted("math") {
        elementary(table);
    }
    if wanted("pack") {
        packing();
    }
    if wanted("quant") {
        quant::all();
    }
}

/// A packed weight, and rows for it.
struct Weight {
    n: usize,
    k: usize,
    bf16: bool,
    w: Memory,
    a: Memory,
}

impl Weight {
    fn new(n: usize, k: usize, rows: usize, bf16: bool) -> Self {
        let (source, rows) = (random(n * k), random(rows * k));
        let (w, a) = if bf16 {
            let mut w = vec![0u16; panel_bytes_bf16(n, k) / 2];
            pack_bf16(&source, n, k, 0, &mut w);
            (Memory::of(&w), Memory::of(&rows))
        } else {
            let mut w = vec![0f32; panel_bytes_f32(n, k) / 4];
            pack_f32(&widened(&source), n, k, 0, &mut w);
            (Memory::of(&w), Memory::of(&widened(&rows)))
        };
        Weight { n, k, bf16, w, a }
    }

    /// C on this many threads, each with its share of the panels; the time.
    fn multiply(&self, table: &Kernels, m: usize, threads: usize, c: &mut [f32]) -> f64 {
        let panels = self.n / PANEL;
        let panel = self.w.0.len() / panels;
        let c = c.as_mut_ptr() as usize;
        let gemm = if self.bf16 { table.gemm_bf16 } else { table.gemm_f32 };
        parallel(threads, |i| {
            let (from, to) = (panels * i / threads, panels * (i + 1) / threads);
            // SAFETY: the operands have m rows and these panels; threads write different columns.
            unsafe {
                let c = (c as *mut f32).add(from * PANEL);
                let w = self.w.0.as_ptr().add(from * panel);
                gemm(self.a.0.as_ptr(), self.k, m, w, to - from, self.k, c, self.n);
            }
        })
    }

    /// Compares some outputs with f64.
    fn check(&self, m: usize, c: &[f32]) {
        let get = |x: &[u8], at: usize| -> f64 {
            if self.bf16 {
                f64::from(f32::from_bits(u32::from(u16::from_le_bytes([x[2 * at], x[2 * at + 1]])) << 16))
            } else {
                f64::from(f32::from_le_bytes(x[4 * at..][..4].try_into().expect("four bytes")))
            }
        };
        let group = if self.bf16 { 2 } else { 1 };
        for probe in 0..64 {
            let (i, j) = (probe * 37 % m, probe * 997 % self.n);
            let at = |kk: usize| {
                j / PANEL * self.k * PANEL + kk / group * group * PANEL + j % PANEL * group + kk % group
            };
            let want: f64 =
                (0..self.k).map(|kk| get(self.a.0, i * self.k + kk) * get(self.w.0, at(kk))).sum();
            let got = f64::from(c[i * self.n + j]);
            assert!((got - want).abs() < 1e-3 * (self.k as f64).sqrt(), "({i}, {j}): {got} is not {want}");
        }
    }
}

/// Few rows, weights in DRAM: as a share of the bandwidth.
fn decode(table: &Kernels) {
    for bf16 in [true, false] {
        let (n, k) = if bf16 { (131_072, 2048) } else { (65_536, 2048) };
        let weight = Weight::new(n, k, 16, bf16);
        let size = weight.w.0.len() as f64;
        let mut c = vec![0.0; 16 * n];
        for threads in [1, 2] {
            for m in [1, 2, 4, 8, 12, 16] {
                // Alternating, so that a drift of the machine falls on both.
                let (mut reads, mut products) = (Vec::new(), Vec::new());
                for _ in 0..7 {
                    let part = weight.w.0.len() / threads;
                    reads.push(parallel(threads, |i| {
                        // SAFETY: the machine of these figures has AVX2.
                        black_box(unsafe { read(&weight.w.0[part * i..][..part]) });
                    }));
                    products.push(weight.multiply(table, m, threads, &mut c));
                }
                weight.check(m, &c);
                let (read, product) = (size / median(reads) / 1e9, size / median(products) / 1e9);
                println!(
                    "decode bf16={bf16} {} MiB threads={threads} m={m:2}: {product:5.1} GB/s, read {read:5.1}, share {:.2}",
                    weight.w.0.len() >> 20,
                    product / read
                );
            }
        }
    }
}

/// Many rows: as a share of the arithmetic peak.
fn prefill(table: &Kernels) {
    for bf16 in [true, false] {
        for (m, k, n) in
            [(512, 2048, 8192), (512, 8192, 2048), (512, 576, 1536), (128, 2048, 2048), (37, 2048, 2048)]
        {
            let weight = Weight::new(n, k, m, bf16);
            let mut c = vec![0.0; m * n];
            for threads in [1, 2] {
                let rounds = 2_000_000;
                let (mut peaks, mut products) = (Vec::new(), Vec::new());
                for _ in 0..7 {
                    peaks.push(parallel(threads, |_| {
                        black_box(peak(bf16, rounds));
                    }));
                    products.push(weight.multiply(table, m, threads, &mut c));
                }
                let time = median(products);
                let top = (rounds * peak(bf16, 1) * threads) as f64 / median(peaks) / 1e9;
                weight.check(m, &c);
                let done = 2.0 * (m * k * n) as f64 / time / 1e9;
                println!(
                    "prefill bf16={bf16} {m} x {k} x {n} threads={threads}: {done:6.1} GFLOP/s, peak {top:6.1}, share {:.2}",
                    done / top
                );
            }
        }
    }
}

/// Attention of some rows to 512 positions in blocks of 64.
fn attention(table: &Kernels) {
    let rounds = 1_000_000;
    let top = (rounds * peak(false, 1)) as f64 / median_of(5, || _ = black_box(peak(false, rounds))) / 1e9;
    for bf16 in [false, true] {
        for d in [64, 128, 256] {
            for rows in [1, 2, 4, 8] {
                let (keys, values) = (random(512 * d * 2), random(512 * d * 2));
                let (keys_f32, values_f32) = (widened(&keys), widened(&values));
                let at = |x16: &[u16], x32: &[f32], j: usize| -> *const u8 {
                    if bf16 { x16[j * d..].as_ptr().cast() } else { x32[j * d..].as_ptr().cast() }
                };
                let k_rows: Vec<_> = (0..512).map(|j| at(&keys, &keys_f32, j)).collect();
                let v_rows: Vec<_> = (0..512).map(|j| at(&values, &values_f32, j)).collect();
                let q = widened(&random(rows * d)).iter().map(|x| x * 0.1).collect::<Vec<_>>();
                let (mut s, mut acc) = (vec![0.0; rows * POSITIONS], vec![0.0; rows * d]);
                let (mut m, mut l) = (vec![0.0; rows], vec![0.0; rows]);
                let (scores, online) = match bf16 {
                    true => (table.scores_bf16, table.online_bf16),
                    false => (table.scores_f32, table.online_f32),
                };
                let mut run = |which: u8| {
                    m.fill(f32::NEG_INFINITY);
                    l.fill(0.0);
                    acc.fill(0.0);
                    for b in (0..512).step_by(POSITIONS) {
                        // SAFETY: the keys, values, scores and sums are as many as said.
                        unsafe {
                            if which & 1 != 0 {
                                scores(
                                    q.as_ptr(),
                                    d,
                                    rows,
                                    k_rows[b..].as_ptr(),
                                    POSITIONS,
                                    d,
                                    s.as_mut_ptr(),
                                );
                            }
                            if which & 2 != 0 {
                                online(
                                    s.as_mut_ptr(),
                                    rows,
                                    POSITIONS,
                                    v_rows[b..].as_ptr(),
                                    d,
                                    m.as_mut_ptr(),
                                    l.as_mut_ptr(),
                                    acc.as_mut_ptr(),
                                    std::ptr::null(),
                                );
                            }
                        }
                    }
                };
                let mut share = |which: u8, flops: f64| {
                    let time = median_of(9, || (0..200).for_each(|_| run(which))) / 200.0;
                    flops * (rows * 512 * d) as f64 / time / 1e9 / top
                };
                println!(
                    "attention bf16={bf16} d={d} rows={rows}: share of f32 peak {top:.0}: scores {:.2}, online {:.2}, both {:.2}",
                    share(1, 2.0),
                    share(2, 2.0),
                    share(3, 4.0)
                );
            }
        }
    }
}

/// The elementary functions, elements a second in L1.
fn elementary(table: &Kernels) {
    let x: Vec<f32> = (0..2048).map(|i| (i as f32 + 1.0) / 300.0).collect();
    let mut y = vec![0.0; x.len()];
    for (name, f) in
        [("exp", table.exp), ("log", table.log), ("tanh", table.tanh), ("erf", table.erf), ("sin", table.sin)]
    {
        // SAFETY: both have the same length.
        let time =
            median_of(9, || (0..200).for_each(|_| unsafe { f(x.as_ptr(), y.as_mut_ptr(), x.len()) })) / 200.0;
        println!("{name}: {:.2} G/s", x.len() as f64 / time / 1e9);
    }
}

/// Packing and conversion, source bytes a second.
fn packing() {
    let (n, k) = (8192, 2048);
    let source = random(n * k);
    let mut w = vec![0u16; panel_bytes_bf16(n, k) / 2];
    let mut f = vec![0f32; n * k];
    let mut wf = vec![0f32; panel_bytes_f32(n, k) / 4];
    let bytes = (2 * n * k) as f64 / 1e9;
    println!("pack_bf16: {:.2} GB/s", bytes / median_of(5, || pack_bf16(&source, n, k, 0, &mut w)));
    println!("pack_bf16_t: {:.2} GB/s", bytes / median_of(5, || pack_bf16_t(&source, n, k, 0, &mut w)));
    println!("bf16_to_f32: {:.2} GB/s", bytes / median_of(5, || bf16_to_f32(&source, &mut f)));
    println!("f16_to_f32: {:.2} GB/s", bytes / median_of(5, || f16_to_f32(&source, &mut f)));
    println!("f32_to_bf16: {:.2} GB/s", 2.0 * bytes / median_of(5, || f32_to_bf16(&f, &mut w[..n * k])));
    println!("pack_f32: {:.2} GB/s", 2.0 * bytes / median_of(5, || pack_f32(&f, n, k, 0, &mut wf)));
    println!("pack_f32_t: {:.2} GB/s", 2.0 * bytes / median_of(5, || pack_f32_t(&f, n, k, 0, &mut wf)));
}
