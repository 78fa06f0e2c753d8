//! Matrix products: against f64, alone against together, and across instruction sets.

use super::{Guarded, Random, bits, tables, wide};
use crate::micro::{Isa, Kernels, PANEL, pack_bf16, pack_f32, panel_bytes_bf16, panel_bytes_f32};

/// A product in both formats, its operands before guards.
struct Case {
    m: usize,
    panels: usize,
    k: usize,
    lda: usize,
    a: Guarded<f32>,
    a16: Guarded<u16>,
    w: Guarded<f32>,
    w16: Guarded<u16>,
}

impl Case {
    /// Rows of A are `gap` elements longer than the depth, and the gap is NaN. The last panel is partly padding.
    fn new(m: usize, panels: usize, k: usize, gap: usize, random: &mut Random) -> Self {
        let (lda, n) = (k + gap, panels * PANEL - 5);
        let (rows, rows16) = (random.floats(m * lda), random.bf16(m * lda));
        let used = |i: usize| i % lda < k;
        let a: Vec<f32> =
            rows.into_iter().enumerate().map(|(i, x)| if used(i) { x } else { f32::NAN }).collect();
        let a16: Vec<u16> =
            rows16.into_iter().enumerate().map(|(i, x)| if used(i) { x } else { 0x7fc0 }).collect();
        let mut w = vec![0.0; panel_bytes_f32(n, k) / 4];
        pack_f32(&random.floats(n * k), n, k, 0, &mut w);
        let mut w16 = vec![0; panel_bytes_bf16(n, k) / 2];
        pack_bf16(&random.bf16(n * k), n, k, 0, &mut w16);
        // The last row ends with its last element: the gap lies only between rows.
        let end = m * lda - gap;
        Case {
            m,
            panels,
            k,
            lda,
            a: Guarded::new(&a[..end]),
            a16: Guarded::new(&a16[..end]),
            w: Guarded::new(&w),
            w16: Guarded::new(&w16),
        }
    }

    /// Rows and panels of the product, with three elements between rows of C that must stay as they are.
    fn run(
        &self,
        t: &Kernels,
        bf16: bool,
        rows: std::ops::Range<usize>,
        panels: std::ops::Range<usize>,
    ) -> Vec<f32> {
        let (n, m) = (panels.len() * PANEL, rows.len());
        let ldc = n + 3;
        let mut c = Guarded::new(&vec![f32::NAN; m * ldc - 3]);
        let (a, w, gemm) = if bf16 {
            let panel = self.k.div_ceil(2) * 2 * PANEL;
            (
                self.a16[rows.start * self.lda..].as_ptr().cast(),
                self.w16[panels.start * panel..].as_ptr().cast(),
                t.gemm_bf16,
            )
        } else {
            let panel = self.k * PANEL;
            (
                self.a[rows.start * self.lda..].as_ptr().cast(),
                self.w[panels.start * panel..].as_ptr().cast(),
                t.gemm_f32,
            )
        };
        // SAFETY: the operands hold the rows and panels.
        unsafe { gemm(a, self.lda, m, w, panels.len(), self.k, c.as_mut_ptr(), ldc) };
        for (i, x) in c.iter().enumerate().filter(|(i, _)| i % ldc >= n) {
            assert!(x.is_nan(), "element {i} between rows of C was written");
        }
        c.chunks(ldc).flat_map(|row| row[..n].to_vec()).collect()
    }

    /// The product in f64, and for each output the sum of magnitudes.
    fn reference(&self, bf16: bool) -> (Vec<f64>, Vec<f64>) {
        let n = self.panels * PANEL;
        let (mut c, mut size) = (vec![0.0; self.m * n], vec![0.0; self.m * n]);
        for i in 0..self.m {
            for j in 0..n {
                for kk in 0..self.k {
                    let x = if bf16 {
                        let at =
                            (j / PANEL * self.k.div_ceil(2) + kk / 2) * PANEL * 2 + j % PANEL * 2 + kk % 2;
                        wide(self.a16[i * self.lda + kk]) * wide(self.w16[at])
                    } else {
                        let at = (j / PANEL * self.k + kk) * PANEL + j % PANEL;
                        f64::from(self.a[i * self.lda + kk]) * f64::from(self.w[at])
                    };
                    c[i * n + j] += x;
                    size[i * n + j] += x.abs();
                }
            }
        }
        (c, size)
    }
}

/// Shapes: every row count of a tile, panels that leave a rest, depths around blocks and odd.
fn cases() -> Vec<Case> {
    let mut random = Random::new(1);
    let mut shapes: Vec<[usize; 4]> = (1..=14).map(|m| [m, 1 + m % 5, 3 + 2 * m, m % 4]).collect();
    shapes.extend([
        [1, 9, 1, 0],
        [2, 1, 2, 3],
        [25, 2, 64, 0],
        [1, 3, 1101, 1],
        [13, 2, 1101, 5],
        [3, 8, 2049, 0],
    ]);
    shapes.extend(
        (0..6).map(|_| [random.range(1, 40), random.range(1, 10), random.range(1, 70), random.range(0, 9)]),
    );
    shapes.into_iter().map(|[m, panels, k, gap]| Case::new(m, panels, k, gap, &mut random)).collect()
}

#[test]
fn products_are_close_to_f64() {
    for case in cases() {
        for bf16 in [false, true] {
            let (want, size) = case.reference(bf16);
            for t in tables() {
                let got = case.run(t, bf16, 0..case.m, 0..case.panels);
                // Each of k roundings is at most half an ulp of a partial sum.
                let bound = case.k as f64 * f64::from(f32::EPSILON);
                for (i, x) in got.iter().enumerate() {
                    let error = (f64::from(*x) - want[i]).abs();
                    assert!(
                        error <= bound * size[i] + 1e-30,
                        "{} bf16={bf16} {} x {} x {} element {i}: {x} is not {}",
                        t.isa,
                        case.m,
                        case.panels,
                        case.k,
                        want[i]
                    );
                }
            }
        }
    }
}

#[test]
fn instruction_sets_agree_bit_for_bit() {
    for case in cases() {
        for bf16 in [false, true] {
            let all: Vec<_> = tables()
                .into_iter()
                .filter(|t| !(bf16 && t.isa == Isa::Avx512Bf16))
                .map(|t| (t.isa, bits(&case.run(t, bf16, 0..case.m, 0..case.panels))))
                .collect();
            for pair in all.windows(2) {
                assert!(pair[0].1 == pair[1].1, "bf16={bf16}: {} differs from {}", pair[0].0, pair[1].0);
            }
        }
    }
}

#[test]
fn a_row_and_a_panel_alone_get_what_they_get_together() {
    for case in cases() {
        for bf16 in [false, true] {
            for t in tables() {
                let n = case.panels * PANEL;
                let all = bits(&case.run(t, bf16, 0..case.m, 0..case.panels));
                for i in 0..case.m {
                    let row = bits(&case.run(t, bf16, i..i + 1, 0..case.panels));
                    assert!(row == all[i * n..(i + 1) * n], "{} bf16={bf16}: row {i} of {}", t.isa, case.m);
                }
                for p in 0..case.panels {
                    let panel = bits(&case.run(t, bf16, 0..case.m, p..p + 1));
                    let want: Vec<u32> =
                        all.chunks(n).flat_map(|row| row[p * PANEL..][..PANEL].to_vec()).collect();
                    assert!(panel == want, "{} bf16={bf16}: panel {p} of {}", t.isa, case.panels);
                }
            }
        }
    }
}

#[test]
fn blocks_of_rows_that_cut_the_depth_elsewhere_agree() {
    // One row takes the depth in longer blocks than twelve do; both must give the same bits.
    let case = Case::new(24, 1, 3001, 1, &mut Random::new(2));
    for t in tables() {
        for bf16 in [false, true] {
            let all = bits(&case.run(t, bf16, 0..24, 0..1));
            for rows in [0..1, 3..5, 5..12, 7..20] {
                let some = bits(&case.run(t, bf16, rows.clone(), 0..1));
                assert!(
                    some == all[rows.start * PANEL..rows.end * PANEL],
                    "{} bf16={bf16}: rows {rows:?}",
                    t.isa
                );
            }
        }
    }
}

#[test]
fn no_rows_no_panels_and_no_depth() {
    for t in tables() {
        for gemm in [t.gemm_f32, t.gemm_bf16] {
            let mut c = [f32::NAN; 2 * PANEL];
            let (a, w) = ([0u8; 0], [0u8; 0]);
            // SAFETY: without rows or panels nothing is touched; without depth only C is.
            unsafe {
                gemm(a.as_ptr(), 0, 0, w.as_ptr(), 1, 3, c.as_mut_ptr(), PANEL);
                gemm(a.as_ptr(), 0, 2, w.as_ptr(), 0, 3, c.as_mut_ptr(), PANEL);
                assert!(c.iter().all(|x| x.is_nan()));
                gemm(a.as_ptr(), 0, 2, w.as_ptr(), 1, 0, c.as_mut_ptr(), PANEL);
            }
            assert_eq!(c, [0.0; 2 * PANEL], "{}", t.isa);
        }
    }
}
