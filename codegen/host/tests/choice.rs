//! The k greatest of a row: ties, infinities and what is no number.

mod launch;

use launch::*;
use sinter_ir::*;

/// The program of the file test of lowering: two of seven.
fn choice() -> TileProgram {
    let case = include_str!("../../../testsuite/files/tiles/choice.test");
    let (_, program) = case.split_once("----\n").expect("the case has a result");
    TileProgram::parse(program).expect("the program parses")
}

fn choose(rows: &[[f32; 7]]) -> Vec<f32> {
    let binding = Binding::new(rows.len() as u64, 1, 1, 16);
    let x = Tensor::new(vec![rows.len(), 7], rows.concat());
    let y = Tensor::new(vec![rows.len(), 2], vec![0.0; 2 * rows.len()]);
    check(&choice(), &binding, &[x, y], 0.0).remove(1).data
}

#[test]
fn the_greatest_come_first_and_ties_go_to_the_lower_index() {
    let low = f32::NEG_INFINITY;
    let cases = [
        ([3.0, 1.0, 4.0, 1.5, 5.0, 2.0, 6.0], [6.0, 4.0]),
        ([1.0; 7], [0.0, 1.0]),
        ([2.0, 7.0, 1.0, 7.0, 7.0, 0.0, 7.0], [1.0, 3.0]),
        ([-0.0, 0.0, -0.0, -1.0, -1.0, -1.0, -1.0], [0.0, 1.0]),
        ([low, low, low, -5.0, low, low, low], [3.0, 0.0]),
        ([low; 7], [0.0, 1.0]),
    ];
    let found = choose(&cases.map(|(row, _)| row));
    assert_eq!(found, cases.map(|(_, wanted)| wanted).concat());
}

#[test]
fn random_rows_are_sorted() {
    let mut stream = Stream(11);
    let rows: Vec<[f32; 7]> = (0..200).map(|_| [(); 7].map(|()| stream.below(9) as f32 - 4.0)).collect();
    let found = choose(&rows);
    for (row, found) in rows.iter().zip(found.chunks(2)) {
        let mut order: Vec<usize> = (0..7).collect();
        order.sort_by(|i, j| row[*j].total_cmp(&row[*i]).then(i.cmp(j)));
        assert_eq!(found, [order[0] as f32, order[1] as f32], "{row:?}");
    }
}

/// The index is used as an address: it must lie in the row even where the comparison of numbers means nothing.
#[test]
fn what_is_no_number_chooses_something_in_the_row() {
    let binding = Binding::new(1, 1, 1, 16);
    let kernel = sinter_codegen_host::compile(&choice(), sinter_codegen_host::micro::Isa::detect()).unwrap();
    for places in 1..128u32 {
        let row: Vec<f32> =
            (0..7).map(|at| if places >> at & 1 == 1 { f32::NAN } else { at as f32 }).collect();
        let params = [Tensor::new(vec![1, 7], row), Tensor::new(vec![1, 2], vec![9.0; 2])];
        let found = launch(&kernel, &choice(), &binding, &params, Split::Whole).remove(1).data;
        assert!(found.iter().all(|index| (0.0..7.0).contains(index)), "{places:b}: {found:?}");
    }
}
