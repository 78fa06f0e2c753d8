//! Views: fewer and simpler index maps.

use super::{Card, Class::E, Phase::Normalise, Rule};
use sinter_ir::Op;

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Card("reshape-reshape", Normalise, E, "One reshape does the work of two.", RESHAPES)
            .rewrite("(reshape ?s (reshape ?r ?x))", "(reshape ?s ?x)"),
        Card("reshape-same", Normalise, E, "A reshape to the same shape is nothing.", RESHAPE_SAME).build(
            "(reshape ?s ?x)",
            |site| {
                let (from, to) = (site.ty("?x")?, site.ty_of(site.class)?);
                if from == to { Ok(site.id("?x")) } else { Err("the shape changes".into()) }
            },
            Some(RESHAPES),
        ),
        Card("transpose-transpose", Normalise, E, "Two orders of axes compose.", TRANSPOSES).build(
            "(transpose ?p (transpose ?q ?x))",
            |site| {
                let (Op::Transpose { perm: outer }, Op::Transpose { perm: inner }) =
                    (site.op("transpose", &["?p"])?, site.op("transpose", &["?q"])?)
                else {
                    return Err("no permutation".into());
                };
                let perm: Vec<usize> = outer.iter().map(|axis| inner[*axis]).collect();
                let x = site.id("?x");
                let identity = perm.iter().enumerate().all(|(at, axis)| at == *axis);
                Ok(if identity { x } else { site.add(Op::Transpose { perm }, &[x]) })
            },
            None,
        ),
        Card("slice-all", Normalise, E, "A slice of everything is nothing.", SLICE_ALL).build(
            "(slice ?a ?s ?l ?x)",
            |site| {
                let (from, to) = (site.ty("?x")?, site.ty_of(site.class)?);
                if from == to { Ok(site.id("?x")) } else { Err("something is left out".into()) }
            },
            Some(SLICES),
        ),
        Card("slice-slice", Normalise, E, "Two slices along one axis are one.", SLICES).build(
            "(slice ?a ?s ?l (slice ?a ?t ?m ?x))",
            |site| {
                let (Op::Slice { axis, start: s, len }, Op::Slice { start: t, .. }) =
                    (site.op("slice", &["?a", "?s", "?l"])?, site.op("slice", &["?a", "?t", "?m"])?)
                else {
                    return Err("no slices".into());
                };
                let x = site.id("?x");
                Ok(site.add(Op::Slice { axis, start: s + t, len }, &[x]))
            },
            None,
        ),
        Card(
            "slice-of-contract",
            Normalise,
            E,
            "A part of a product needs a part of the weight only.",
            SLICE_CONTRACT,
        )
        .build("(slice ?a ?s ?l (contract tk,nk->tn ?x ?w))", slice_of_contract, Some(SLICE_TOKENS)),
    ]
}

fn slice_of_contract(site: &mut super::Site<'_>) -> super::Built {
    let Op::Slice { axis, start, len } = site.op("slice", &["?a", "?s", "?l"])? else {
        return Err("no slice".into());
    };
    if axis != 1 || !site.weights_only("?w") {
        return Err("only output columns of a product with a weight can be taken apart".into());
    }
    let (x, w) = (site.id("?x"), site.id("?w"));
    let part = site.add(Op::Slice { axis: 0, start, len }, &[w]);
    let spec = sinter_ir::Einsum::parse("tk,nk->tn").ok_or("spec")?;
    Ok(site.add(Op::Contract { spec }, &[x, part]))
}

const RESHAPES: &str = r#"graph @g {
  %0 = input["x", (T, 4, 6), f32]
  %1 = reshape[(T, 24)] %0
  %2 = reshape[(T, 3, 8)] %1
  return "y" %2
}"#;
const RESHAPE_SAME: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = reshape[(T, 4)] %0
  return "y" %1
}"#;
const TRANSPOSES: &str = r#"graph @g {
  %0 = input["x", (T, 4, 6), f32]
  %1 = transpose[(1, 2, 0)] %0
  %2 = transpose[(2, 1, 0)] %1
  return "y" %2
}"#;
const SLICE_ALL: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = slice[1, 0, 4] %0
  return "y" %1
}"#;
const SLICES: &str = r#"graph @g {
  %0 = input["x", (T, 9), f32]
  %1 = slice[1, 2, 6] %0
  %2 = slice[1, 1, 3] %1
  return "y" %2
}"#;
const SLICE_CONTRACT: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = param["w", (9, 5), f32]
  %2 = contract["tk,nk->tn"] %0, %1
  %3 = slice[1, 2, 6] %2
  return "y" %3
}"#;
const SLICE_TOKENS: &str = r#"graph @g {
  %0 = param["x", (7, 5), f32]
  %1 = param["w", (9, 5), f32]
  %2 = contract["tk,nk->tn"] %0, %1
  %3 = slice[0, 2, 4] %2
  return "y" %3
}"#;
