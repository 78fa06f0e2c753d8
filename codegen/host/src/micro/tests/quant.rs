//! Products of quantised weights, bit for bit against plain loops over the codes.

use super::super::quant::{
    QuantKernels, QuantRows, QuantShape, pack_codes, quant_kernels, without_dot_products,
};
use super::super::{Isa, PANEL};
use super::Guarded;
use sinter_ir::Offset;

/// Numbers that look random.
fn numbers(seed: u32) -> impl FnMut() -> u32 {
    let mut x = seed.wrapping_mul(2_654_435_761) | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x
    }
}

/// Every set of kernels that the machine has.
fn tables() -> Vec<&'static QuantKernels> {
    let of = |isa| quant_kernels(isa).expect("an available instruction set");
    Isa::available().map(of).chain(without_dot_products()).collect()
}

/// A weight as codes, scales and zeros.
struct Weight {
    shape: QuantShape,
    n: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Option<Vec<u8>>,
}

impl Weight {
    fn random(shape: QuantShape, n: usize, seed: u32) -> Self {
        let mut next = numbers(seed);
        let mask = if shape.bits == 8 { 255 } else { 15 };
        let mut code = || (next() & mask) as u8;
        let codes = (0..n * shape.k).map(|_| code()).collect();
        let zeros =
            (shape.offset == Offset::Zeros).then(|| (0..n * shape.groups()).map(|_| code()).collect());
        let mut next = numbers(seed + 1);
        let scales = (0..n * shape.groups()).map(|_| (next() % 1000) as f32 * 1e-4 - 0.03).collect();
        Self { shape, n, codes, scales, zeros }
    }

    fn packed(&self) -> Guarded<u8> {
        let mut panels = vec![0; self.shape.bytes(self.n)];
        // In two pieces, as joined weights are.
        let (cut, groups) = (self.n / 2, self.shape.groups());
        for (from, to) in [(0, cut), (cut, self.n)] {
            let zeros = self.zeros.as_ref().map(|zeros| &zeros[from * groups..to * groups]);
            let codes = &self.codes[from * self.shape.k..to * self.shape.k];
            pack_codes(
                &self.shape,
                (codes, &self.scales[from * groups..to * groups], zeros),
                from,
                &mut panels,
            );
        }
        Guarded::new(&panels)
    }

    /// The product of a column with a row of codes.
    fn product(&self, column: usize, row: &[i8], scale: f32) -> f32 {
        let shape = &self.shape;
        let mut out = 0f32;
        for g in 0..shape.groups() {
            let at = column * shape.groups() + g;
            let zero = self.zeros.as_ref().map_or(if shape.bits == 8 { 128 } else { 8 }, |zeros| zeros[at]);
            let depth = g * shape.group..shape.k.min((g + 1) * shape.group);
            let code = |d: usize| i32::from(self.codes[column * shape.k + d]) - i32::from(zero);
            let sum: i32 = depth.map(|d| code(d) * i32::from(row[d])).sum();
            out = (sum as f32).mul_add(self.scales[at], out);
        }
        out * scale
    }
}

/// Quantised rows in memory that ends with them.
struct Rows {
    codes: Guarded<i8>,
    scales: Guarded<f32>,
    sums: Guarded<i32>,
    stride: usize,
}

impl Rows {
    fn random(table: &QuantKernels, shape: &QuantShape, m: usize, seed: u32) -> Self {
        let mut next = numbers(seed);
        let (padded, groups) = (shape.groups() * shape.group, shape.groups());
        let stride = shape.row_bytes();
        let mut codes = vec![0; (m - 1) * stride + padded];
        let (mut scales, mut sums) = (vec![0f32; m], vec![0; m * groups]);
        for r in 0..m {
            let x: Vec<f32> = (0..shape.k).map(|_| (next() % 2001) as f32 / 1000.0 - 1.0).collect();
            let (x, codes) = (Guarded::new(&x), &mut codes[r * stride..]);
            // SAFETY: the row has k numbers, and there is room for its codes, sums and scale.
            unsafe {
                let sums = sums.as_mut_ptr().add(r * groups);
                (table.quantize)(
                    x.bytes().cast(),
                    shape.k,
                    shape.group,
                    codes.as_mut_ptr(),
                    sums,
                    &mut scales[r],
                );
            }
        }
        let (codes, scales, sums) = (Guarded::new(&codes), Guarded::new(&scales), Guarded::new(&sums));
        Self { codes, scales, sums, stride }
    }

    /// The product by a table's kernel.
    fn times(&self, table: &QuantKernels, weight: &Weight, m: usize) -> Vec<f32> {
        let panels = weight.n.div_ceil(PANEL);
        let (w, c) = (weight.packed(), Guarded::new(&vec![f32::NAN; m * panels * PANEL]));
        let rows = QuantRows {
            codes: self.codes.bytes().cast(),
            stride: self.stride,
            scales: self.scales.bytes().cast(),
            sums: self.sums.bytes().cast(),
        };
        let gemm = if weight.shape.bits == 8 { table.gemm_u8 } else { table.gemm_u4 };
        // SAFETY: the rows, panels and outputs are as many as said.
        unsafe {
            gemm(&rows, m, w.bytes(), panels, &weight.shape, c.bytes().cast_mut().cast(), panels * PANEL)
        };
        c.to_vec()
    }
}

fn shapes() -> Vec<QuantShape> {
    let mut shapes = vec![];
    for k in [1, 8, 40, 136, 200, 513] {
        for mut shape in
            [QuantShape::int8(k), QuantShape::int4(k, 32), QuantShape::int4(k, 64), QuantShape::int4(k, 128)]
        {
            for offset in [Offset::Middle, Offset::Zeros] {
                shape.offset = offset;
                shapes.push(shape);
            }
        }
    }
    shapes.push(QuantShape { k: 136, group: 64, bits: 8, offset: Offset::Zeros });
    shapes
}

#[test]
fn products_are_those_of_plain_loops_bit_for_bit() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        let (seed, n) = (seed as u32 + 7, [1, 45, 64][seed % 3]);
        let weight = Weight::random(shape, n, seed);
        for table in tables() {
            let rows = Rows::random(table, &shape, 25, seed);
            for m in [1, 2, 5, 7, 13, 25] {
                let c = rows.times(table, &weight, m);
                let width = n.div_ceil(PANEL) * PANEL;
                for (r, row) in c.chunks(width).enumerate() {
                    let codes = &rows.codes[r * rows.stride..][..shape.k];
                    for (column, got) in row.iter().enumerate() {
                        let padding = column >= n;
                        let want = if padding { 0.0 } else { weight.product(column, codes, rows.scales[r]) };
                        let same = got.to_bits() == want.to_bits() || (padding && *got == 0.0);
                        assert!(same, "{shape:?}, {m} rows: ({r}, {column}) is {got}, wanted {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_greatest_codes_do_not_overflow() {
    let shape = QuantShape::int8(4096);
    let scales = vec![1.0; 32];
    for (code, each) in [(255u8, 127), (0, -128)] {
        let weight =
            Weight { shape, n: 32, codes: vec![code; 32 * 4096], scales: scales.clone(), zeros: None };
        for table in tables() {
            let mut codes = vec![0i8; 4096];
            let (mut sum, mut scale) = (0, 0f32);
            let x = vec![-3.0f32; 4096];
            // SAFETY: one row of one group.
            unsafe { (table.quantize)(x.as_ptr(), 4096, 4096, codes.as_mut_ptr(), &mut sum, &mut scale) };
            assert_eq!((codes[7], sum), (-127, -127 * 4096));
            let one = |x| Guarded::new(&[x]);
            let rows = Rows {
                codes: Guarded::new(&codes),
                scales: one(1.0),
                sums: Guarded::new(&[sum]),
                stride: 4096,
            };
            let want = (each * -127 * 4096) as f32;
            assert!(rows.times(table, &weight, 1).iter().all(|c| *c == want));
        }
    }
}

#[test]
fn rows_are_rounded_to_the_nearest_code() {
    let k = 77;
    let mut next = numbers(3);
    let x: Vec<f32> = (0..k).map(|_| (next() % 20001) as f32 / 1000.0 - 10.0).collect();
    let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
    for table in tables() {
        let (x, codes) = (Guarded::new(&x), Guarded::new(&[99i8; 96]));
        let (mut sums, mut scale) = ([0; 3], 0f32);
        // SAFETY: three groups of 32.
        unsafe {
            let to = codes.bytes().cast_mut().cast();
            (table.quantize)(x.bytes().cast(), k, 32, to, sums.as_mut_ptr(), &mut scale);
        }
        assert_eq!(scale, most / 127.0);
        for (x, code) in x.iter().zip(codes.iter()) {
            assert!(
                (x - f32::from(*code) * scale).abs() <= 0.5001 * scale,
                "{x} is not {code} times {scale}"
            );
        }
        assert!(codes[k..].iter().all(|code| *code == 0));
        let sum = |codes: &[i8]| codes.iter().map(|code| i32::from(*code)).sum::<i32>();
        assert_eq!(sums.to_vec(), codes.chunks(32).map(sum).collect::<Vec<_>>());
    }
}

#[test]
fn odd_rows_have_codes_too() {
    let (tiny, huge) = (f32::from_bits(1), f32::INFINITY);
    let cases: [([f32; 4], [i8; 4]); 4] = [
        ([0.0, -0.0, 0.0, 0.0], [0; 4]),
        ([f32::NAN, 2.0, -1.0, 0.0], [0, 127, -64, 0]),
        ([huge, -huge, 5.0, -7.0], [127, -127, 0, 0]),
        ([tiny, -tiny, 0.0, 0.0], [0, 0, 0, 0]),
    ];
    for table in tables() {
        for (x, want) in &cases {
            let (mut codes, mut sum, mut scale) = ([9i8; 8], 0, -1f32);
            // SAFETY: one group of eight.
            unsafe { (table.quantize)(x.as_ptr(), 4, 8, codes.as_mut_ptr(), &mut sum, &mut scale) };
            assert_eq!((&codes[..4], &codes[4..]), (&want[..], &[0; 4][..]), "{x:?}");
            assert_eq!(sum, want.iter().map(|code| i32::from(*code)).sum::<i32>());
        }
    }
}
