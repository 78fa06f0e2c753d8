//! Fragments: every element once, and products through them are plain products.

use crate::random::Random;
use sinter_ir::Target;
use sinter_vgpu::tensor::Format;
use sinter_vgpu::tensor::arithmetic::{Lane, Model, Operand, WIDTH};
use sinter_vgpu::tensor::fragments::{
    MmaForm, Warp, a_element, b_element, c_element, matrix_half, multiply_i8,
};

const FORMS: [(usize, Format); 7] = [
    (8, Format::Bf16),
    (16, Format::Bf16),
    (16, Format::F16),
    (4, Format::Tf32),
    (8, Format::Tf32),
    (16, Format::E4m3),
    (32, Format::E5m2),
];

/// Every (lane, register, element), with what `at` says of it.
fn places(
    registers: usize,
    per: usize,
    at: impl Fn(usize, usize, usize) -> (usize, usize),
) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for lane in 0..32 {
        for register in 0..registers {
            places.extend((0..per).map(|element| at(register, element, lane)));
        }
    }
    places
}

/// Whether each place of a matrix occurs once.
fn covers(mut places: Vec<(usize, usize)>, rows: usize, columns: usize) {
    places.sort_unstable();
    let wanted: Vec<_> = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).collect();
    assert_eq!(places, wanted);
}

#[test]
fn every_element_lies_in_one_register() {
    for (k, format) in FORMS {
        let form = MmaForm::new(k, format, format).expect("a form");
        let per = (32 / format.bits()) as usize;
        covers(places(form.a_registers(), per, |r, e, lane| a_element(per, r, e, lane)), 16, k);
        covers(places(form.b_registers(), per, |r, e, lane| b_element(per, r, e, lane)), k, 8);
    }
    covers(places(4, 1, |register, _, lane| c_element(register, lane)), 16, 8);
}

/// The tables of the PTX ISA, a few entries read off by hand.
#[test]
fn elements_lie_where_the_manual_says() {
    // m16n8k16, 16-bit: a0 a1 of lane 5 are (1, 2) and (1, 3), a2 is 8 rows below, a4 is 8 columns on.
    assert_eq!([a_element(2, 0, 0, 5), a_element(2, 0, 1, 5)], [(1, 2), (1, 3)]);
    assert_eq!([a_element(2, 1, 0, 5), a_element(2, 2, 0, 5)], [(9, 2), (1, 10)]);
    assert_eq!([b_element(2, 0, 0, 5), b_element(2, 1, 1, 5)], [(2, 1), (11, 1)]);
    assert_eq!([c_element(0, 5), c_element(1, 5), c_element(2, 5)], [(1, 2), (1, 3), (9, 2)]);
    // m16n8k8, tf32: a1 is 8 rows below a0, a2 is 4 columns on.
    assert_eq!([a_element(1, 1, 0, 6), a_element(1, 2, 0, 6)], [(9, 2), (1, 6)]);
    // m16n8k32, 8-bit: a register holds four neighbours, registers 2 and 3 lie 16 columns on.
    assert_eq!([a_element(4, 0, 3, 6), a_element(4, 3, 0, 6)], [(1, 11), (9, 24)]);
    assert_eq!(b_element(4, 1, 2, 6), (26, 1));
}

/// Puts a matrix into registers.
fn spread(per: usize, registers: usize, bits: u32, at: impl Fn(usize, usize, usize) -> u32) -> Vec<Warp> {
    let mut warps = vec![[0; 32]; registers];
    for (register, warp) in warps.iter_mut().enumerate() {
        for (lane, word) in warp.iter_mut().enumerate() {
            *word = (0..per).fold(0, |word, e| word | at(register, e, lane) << (bits * e as u32));
        }
    }
    warps
}

#[test]
fn products_through_fragments_are_plain_products() {
    let mut random = Random(11);
    for (k, format) in FORMS {
        let form = MmaForm::new(k, format, format).expect("a form");
        let (per, bits) = ((32 / format.bits()) as usize, format.bits());
        let a: Vec<Vec<u32>> = (0..16).map(|_| (0..k).map(|_| random.near_one(format)).collect()).collect();
        let b: Vec<Vec<u32>> = (0..k).map(|_| (0..8).map(|_| random.near_one(format)).collect()).collect();
        let c: Vec<Vec<u32>> =
            (0..16).map(|_| (0..8).map(|_| random.near_one(Format::Tf32)).collect()).collect();
        let in_a = spread(per, form.a_registers(), bits, |r, e, lane| {
            let (row, k) = a_element(per, r, e, lane);
            a[row][k]
        });
        let in_b = spread(per, form.b_registers(), bits, |r, e, lane| {
            let (k, column) = b_element(per, r, e, lane);
            b[k][column]
        });
        let in_c: [Warp; 4] = std::array::from_fn(|register| {
            std::array::from_fn(|lane| {
                let (row, column) = c_element(register, lane);
                c[row][column]
            })
        });
        for target in Target::ALL {
            let found = form.multiply(target, &in_a, &in_b, &in_c);
            for row in 0..16 {
                let operands: Vec<Operand> = a[row].iter().map(|&bits| format.decode(bits)).collect();
                let mut lanes = vec![Lane::ZERO; k];
                for (k, lane) in lanes.iter_mut().enumerate() {
                    (0..WIDTH).for_each(|column| lane.set(column, format.decode(b[k][column])));
                }
                let mut wanted: [u32; WIDTH] = std::array::from_fn(|column| c[row][column]);
                Model::mma(target, format).accumulate(&operands, &lanes, &mut wanted);
                for register in 0..4 {
                    for lane in (0..32).filter(|&lane| c_element(register, lane).0 == row) {
                        assert_eq!(
                            found[register][lane],
                            wanted[c_element(register, lane).1],
                            "{form:?} {target}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn integer_products_through_fragments_are_plain_products() {
    let mut random = Random(12);
    let a: Vec<Vec<i8>> = (0..16).map(|_| (0..32).map(|_| random.bits() as i8).collect()).collect();
    let b: Vec<Vec<i8>> = (0..32).map(|_| (0..8).map(|_| random.bits() as i8).collect()).collect();
    let in_a = spread(4, 4, 8, |r, e, lane| {
        let (row, k) = a_element(4, r, e, lane);
        u32::from(a[row][k] as u8)
    });
    let in_b = spread(4, 2, 8, |r, e, lane| {
        let (k, column) = b_element(4, r, e, lane);
        u32::from(b[k][column] as u8)
    });
    let in_c: [Warp; 4] = std::array::from_fn(|_| std::array::from_fn(|_| random.bits() as u32));
    let found = multiply_i8(&[in_a[0], in_a[1], in_a[2], in_a[3]], &[in_b[0], in_b[1]], &in_c, false);
    for register in 0..4 {
        for lane in 0..32 {
            let (row, column) = c_element(register, lane);
            let product: i32 = (0..32).map(|k| i32::from(a[row][k]) * i32::from(b[k][column])).sum();
            assert_eq!(found[register][lane] as i32, (in_c[register][lane] as i32).wrapping_add(product));
        }
    }
}

/// `ldmatrix.x4` on a row-major 16 × 16 tile, whose four matrices are the quarters in the order of `A`'s registers,
/// gives the fragment of `A`; `.trans` on a row-major K × 8 tile gives the fragment of `B`.
#[test]
fn loaded_matrices_are_fragments() {
    let tile = |row: usize, column: usize| (16 * row + column) as u32;
    for (register, half, lane) in
        (0..4).flat_map(|r| (0..2).flat_map(move |h| (0..32).map(move |l| (r, h, l))))
    {
        let from = matrix_half(false, register, half, lane);
        // Lane i holds the address of row i % 16, at column 0 or 8.
        let (row, column) = (from.address_lane % 16, from.address_lane / 16 * 8 + from.byte / 2);
        let (wanted_row, wanted_column) = a_element(2, register, half, lane);
        assert_eq!(tile(row, column), tile(wanted_row, wanted_column));
    }
    for (register, half, lane) in
        (0..2).flat_map(|r| (0..2).flat_map(move |h| (0..32).map(move |l| (r, h, l))))
    {
        let from = matrix_half(true, register, half, lane);
        assert_eq!((from.address_lane, from.byte / 2), b_element(2, register, half, lane));
    }
}

#[test]
fn matrix_loads_and_stores_touch_every_half_once() {
    for transposed in [false, true] {
        for registers in [1, 2, 4] {
            let at = |register, half, lane| {
                let half = matrix_half(transposed, register, half, lane);
                (half.address_lane, half.byte / 2)
            };
            covers(places(registers, 2, at), 8 * registers, 8);
        }
    }
}
