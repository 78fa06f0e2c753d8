//! Every form of arithmetic against a scalar reference of its own, on awkward values.

mod floats;
mod halves;
mod integers;
mod run;

use run::{Case, check};
use sinter_vgpu::forms;
use std::collections::BTreeSet;

#[test]
fn whole_numbers() {
    integers::cases().iter().for_each(check);
}

#[test]
fn floating_point() {
    floats::cases().iter().for_each(check);
}

#[test]
fn numbers_of_16_bits_and_conversions() {
    halves::cases().iter().for_each(check);
}

/// A row of the table without a reference would be a form that nobody has tried.
#[test]
fn every_form_of_arithmetic_has_a_reference() {
    let all = [integers::cases(), floats::cases(), halves::cases()].concat();
    let tried: BTreeSet<String> = all.iter().flat_map(|case: &Case| forms::expand(case.pattern)).collect();
    let simple = |form: &&forms::Form| form.signature.chars().all(|letter| "hwdpxyz".contains(letter));
    let mut missing = Vec::new();
    for form in forms::table().iter().filter(simple) {
        // Votes and reductions need all lanes; they are tried with the other instructions of warps.
        let elsewhere = ["vote.", "redux.", "activemask", "mapa", "createpolicy", "mov.pred"];
        for name in forms::expand(form.pattern) {
            if !tried.contains(&name) && !elsewhere.iter().any(|head| name.starts_with(head)) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "no reference for {missing:?}");
}

/// A mnemonic with two rows would mean what the later one says.
#[test]
fn no_mnemonic_has_two_rows() {
    let mut seen = BTreeSet::new();
    let names = forms::table().iter().flat_map(|form| forms::expand(form.pattern));
    let twice: Vec<String> = names.filter(|name| !seen.insert(name.clone())).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
