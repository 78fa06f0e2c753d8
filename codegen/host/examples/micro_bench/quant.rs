//! Quantised products beside the machine.

use crate::measure::{Memory, median, parallel, peak_bytes, read};
use sinter_codegen_host::micro::quant::{QuantKernels, QuantRows, QuantShape, pack_codes, quant_kernels};
use sinter_codegen_host::micro::{Isa, PANEL};
use std::hint::black_box;

/// Few rows of a weight in DRAM as a share of the bandwidth, many rows as a share of the arithmetic peak.
pub(crate) fn all() {
    let table = quant_kernels(Isa::detect()).expect("the detected instruction set");
    println!("quantised, dot products of bytes: {}", table.dot_products);
    for (name, k, n) in [("many columns", 2048, 131_072), ("deep", 8192, 16_384), ("shallow", 576, 131_072)] {
        for shape in shapes(k) {
            let case = Case::new(shape, n, 16);
            for m in [1, 4, 16] {
                case.bandwidth(table, m, name);
            }
        }
    }
    for (k, n) in [(2048, 8192), (8192, 2048), (576, 1536)] {
        for shape in shapes(k) {
            Case::new(shape, n, 512).arithmetic(table, 512);
        }
    }
}

fn shapes(k: usize) -> [QuantShape; 4] {
    [QuantShape::int8(k), QuantShape::int4(k, 32), QuantShape::int4(k, 64), QuantShape::int4(k, 128)]
}

/// A packed weight, and quantised rows for it.
struct Case {
    shape: QuantShape,
    n: usize,
    codes: Vec<u8>,
    w: Memory,
    rows: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Case {
    fn new(shape: QuantShape, n: usize, m: usize) -> Self {
        let (k, groups, mask) = (shape.k, shape.groups(), if shape.bits == 8 { 255 } else { 15 });
        let codes: Vec<u8> = (0..n * k).map(|at| ((at * 2_654_435_761) >> 13) as u8 & mask).collect();
        let mut panels = vec![0; shape.bytes(n)];
        pack_codes(&shape, (&codes, &vec![0.01; n * groups], None), 0, &mut panels);
        let stride = shape.row_bytes();
        let (mut rows, mut scales, mut sums) = (vec![0; m * stride], vec![0.0; m], vec![0; m * groups]);
        let table = quant_kernels(Isa::detect()).expect("the detected instruction set");
        for (r, scale) in scales.iter_mut().enumerate() {
            let x: Vec<f32> = (0..k).map(|at| ((at * 37 + r * 11) % 201) as f32 / 100.0 - 1.0).collect();
            // SAFETY: a row of k numbers; its codes, sums and scale have room.
            unsafe {
                let (to, sums) = (rows.as_mut_ptr().add(r * stride), sums.as_mut_ptr().add(r * groups));
                (table.quantize)(x.as_ptr(), k, shape.group, to, sums, scale);
            }
        }
        Self { shape, n, codes, w: Memory::of(&panels), rows, scales, sums }
    }

    /// C on this many threads, each with its share of the panels; the time.
    fn multiply(&self, table: &QuantKernels, m: usize, threads: usize, c: &mut [f32]) -> f64 {
        let panels = self.n / PANEL;
        let c = c.as_mut_ptr() as usize;
        let gemm = if self.shape.bits == 8 { table.gemm_u8 } else { table.gemm_u4 };
        parallel(threads, |i| {
            let (from, to) = (panels * i / threads, panels * (i + 1) / threads);
            let (codes, stride) = (self.rows.as_ptr(), self.shape.row_bytes());
            let rows = QuantRows { codes, stride, scales: self.scales.as_ptr(), sums: self.sums.as_ptr() };
            // SAFETY: the operands have m rows and these panels; threads write different columns.
            unsafe {
                let w = self.w.0.as_ptr().add(from * self.shape.panel_bytes());
                gemm(&rows, m, w, to - from, &self.shape, (c as *mut f32).add(from * PANEL), self.n);
            }
        })
    }

    /// Compares some outputs with f64.
    fn check(&self, m: usize, c: &[f32]) {
        let zero = if self.shape.bits == 8 { 128 } else { 8 };
        for probe in 0..64 {
            let (i, j) = (probe * 37 % m, probe * 997 % self.n);
            let (w, row) = (&self.codes[j * self.shape.k..], &self.rows[i * self.shape.row_bytes()..]);
            let product = |d: usize| (i64::from(w[d]) - zero) * i64::from(row[d]);
            let sum: i64 = (0..self.shape.k).map(product).sum();
            let want = sum as f64 * 0.01 * f64::from(self.scales[i]);
            let got = f64::from(c[i * self.n + j]);
            assert!((got - want).abs() < 1e-3 * want.abs().max(1.0), "({i}, {j}): {got} is not {want}");
        }
    }

    fn bandwidth(&self, table: &QuantKernels, m: usize, name: &str) {
        let (size, threads) = (self.shape.bytes(self.n) as f64, 2);
        let mut c = vec![0.0; m * self.n];
        let (mut reads, mut products) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            let part = self.shape.bytes(self.n) / threads;
            reads.push(parallel(threads, |i| {
                // SAFETY: the machine of these figures has AVX2.
                black_box(unsafe { read(&self.w.0[part * i..][..part]) });
            }));
            products.push(self.multiply(table, m, threads, &mut c));
        }
        self.check(m, &c);
        let time = median(products);
        let (read, product) = (size / median(reads) / 1e9, size / time / 1e9);
        println!(
            "{name} {} k={} m={m:2} {:4} MiB: {product:5.1} GB/s, read {read:5.1}, share {:.2}; {:6.1} GOP/s",
            format(&self.shape),
            self.shape.k,
            size as usize >> 20,
            product / read,
            2.0 * (m * self.n * self.shape.k) as f64 / time / 1e9
        );
    }

    fn arithmetic(&self, table: &QuantKernels, m: usize) {
        let mut c = vec![0.0; m * self.n];
        for threads in [1, 2] {
            let rounds = 1_000_000;
            let (mut peaks, mut products) = (Vec::new(), Vec::new());
            for _ in 0..7 {
                peaks.push(parallel(threads, |_| {
                    // SAFETY: the machine of these figures has avx512vnni.
                    black_box(unsafe { peak_bytes(rounds) });
                }));
                products.push(self.multiply(table, m, threads, &mut c));
            }
            self.check(m, &c);
            let top = (rounds * 24 * 128 * threads) as f64 / median(peaks) / 1e9;
            let done = 2.0 * (m * self.n * self.shape.k) as f64 / median(products) / 1e9;
            println!(
                "prefill {} {m} x {} x {} threads={threads}: {done:6.1} GOP/s, peak {top:6.1}, share {:.2}",
                format(&self.shape),
                self.shape.k,
                self.n,
                done / top
            );
        }
    }
}

fn format(shape: &QuantShape) -> String {
    if shape.bits == 8 { "int8   ".into() } else { format!("int4/{:<3}", shape.group) }
}
