//! Latent attention: keys and values that are products of cached rows with a weight need not be computed. The weight moves to
//! the few queries and to the one result (DeepSeek-V2, arXiv 2405.04434, 2.1.2: "absorbed").

use super::{Built, Card, Class::R, Phase::Fold, Rule, Site};
use sinter_ir::{Attr, Einsum, Op};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Card("absorb-keys", Fold, R, "What makes keys of rows moves from the many rows to the few queries.", ABSORB_KEYS)
            .build(
                "(contract thd,tchd->thc ?q (contract tcl,hdl->tchd ?x ?w))",
                |site| {
                    let (q, x, w) = (site.id("?q"), site.id("?x"), site.id("?w"));
                    is_weight(site)?;
                    // By output column, as weights are stored.
                    let turned = site.add(Op::Transpose { perm: vec![0, 2, 1] }, &[w]);
                    let moved = contract(site, "thd,hld->thl", q, turned)?;
                    let moved = in_type_of(site, moved, "?x")?;
                    contract(site, "thl,tcl->thc", moved, x)
                },
                Some(ABSORB_KEYS_INPUT),
            ),
        Card("absorb-values", Fold, R, "What makes values of rows moves from the many rows to the one sum.", ABSORB_VALUES)
            .build(
                "(contract thc,tchd->thd ?p (contract tcl,hdl->tchd ?x ?w))",
                |site| {
                    let (p, x, w) = (site.id("?p"), site.id("?x"), site.id("?w"));
                    is_weight(site)?;
                    let sum = contract(site, "thc,tcl->thl", p, x)?;
                    let sum = in_type_of(site, sum, "?w")?;
                    contract(site, "thl,hdl->thd", sum, w)
                },
                Some(ABSORB_VALUES_INPUT),
            ),
        Card("join-scores", Fold, R, "Scores over two parts of the same rows are one product.", JOIN).build(
            "(add (contract thl,tcl->thc ?a (slice 2 ?s ?m ?x)) (contract thl,tcl->thc ?b (slice 2 ?t ?n ?x)))",
            join,
            Some(JOIN_GAP),
        ),
    ]
}

fn is_weight(site: &Site<'_>) -> Result<(), String> {
    if site.weights_only("?w") { Ok(()) } else { Err("the second operand is not a weight".into()) }
}

fn contract(site: &mut Site<'_>, spec: &str, a: egg::Id, b: egg::Id) -> Built {
    let spec = Einsum::parse(spec).ok_or("spec")?;
    Ok(site.add(Op::Contract { spec }, &[a, b]))
}

/// A result in f32 rounded to the type of what it is multiplied with.
fn in_type_of(site: &mut Site<'_>, value: egg::Id, var: &str) -> Built {
    let dtype = site.ty(var)?.dtype;
    Ok(if dtype == sinter_ir::DType::F32 { value } else { site.add(Op::Cast { dtype }, &[value]) })
}

fn number(site: &Site<'_>, var: &str) -> Result<u64, String> {
    match site.egraph[site.id(var)].data.attr {
        Some(Attr::Dim(dim)) => dim.as_const().ok_or_else(|| format!("{var} is not constant")),
        _ => Err(format!("{var} is no number")),
    }
}

/// One product of what stands side by side, if the parts are all of the rows and the queries have one type.
fn join(site: &mut Site<'_>) -> Built {
    let (s, m, t, n) = (number(site, "?s")?, number(site, "?m")?, number(site, "?t")?, number(site, "?n")?);
    let width = site.ty("?x")?.shape[2].as_const();
    if s != 0 || t != m || width != Some(m + n) {
        return Err("the parts are not all of the rows, in order".into());
    }
    if site.ty("?a")?.dtype != site.ty("?b")?.dtype {
        return Err("the queries of the parts differ in type".into());
    }
    let (a, b, x) = (site.id("?a"), site.id("?b"), site.id("?x"));
    let joined = site.add(Op::Concat { axis: 2 }, &[a, b]);
    contract(site, "thl,tcl->thc", joined, x)
}

const ABSORB_KEYS: &str = r#"graph @g {
  %0 = input["q", (T, 3, 4), f32]
  %1 = input["x", (T, 16P, 5), f32]
  %2 = param["w", (3, 4, 5), f32]
  %3 = contract["tcl,hdl->tchd"] %1, %2
  %4 = contract["thd,tchd->thc"] %0, %3
  return "y" %4
}"#;
const ABSORB_KEYS_INPUT: &str = r#"graph @g {
  %0 = input["q", (T, 3, 4), f32]
  %1 = input["x", (T, 16P, 5), f32]
  %2 = input["w", (3, 4, 5), f32]
  %3 = contract["tcl,hdl->tchd"] %1, %2
  %4 = contract["thd,tchd->thc"] %0, %3
  return "y" %4
}"#;
const ABSORB_VALUES: &str = r#"graph @g {
  %0 = input["p", (T, 3, 16P), f32]
  %1 = input["x", (T, 16P, 5), f32]
  %2 = param["w", (3, 4, 5), f32]
  %3 = contract["tcl,hdl->tchd"] %1, %2
  %4 = contract["thc,tchd->thd"] %0, %3
  return "y" %4
}"#;
const ABSORB_VALUES_INPUT: &str = r#"graph @g {
  %0 = input["p", (T, 3, 16P), f32]
  %1 = input["x", (T, 16P, 5), f32]
  %2 = input["w", (3, 4, 5), f32]
  %3 = contract["tcl,hdl->tchd"] %1, %2
  %4 = contract["thc,tchd->thd"] %0, %3
  return "y" %4
}"#;
const JOIN: &str = r#"graph @g {
  %0 = input["a", (T, 3, 5), f32]
  %1 = input["b", (T, 3, 2), f32]
  %2 = input["x", (T, 16P, 7), f32]
  %3 = slice[2, 0, 5] %2
  %4 = slice[2, 5, 2] %2
  %5 = contract["thl,tcl->thc"] %0, %3
  %6 = contract["thl,tcl->thc"] %1, %4
  %7 = add %5, %6
  return "y" %7
}"#;
const JOIN_GAP: &str = r#"graph @g {
  %0 = input["a", (T, 3, 4), f32]
  %1 = input["b", (T, 3, 2), f32]
  %2 = input["x", (T, 16P, 7), f32]
  %3 = slice[2, 0, 4] %2
  %4 = slice[2, 5, 2] %2
  %5 = contract["thl,tcl->thc"] %0, %3
  %6 = contract["thl,tcl->thc"] %1, %4
  %7 = add %5, %6
  return "y" %7
}"#;
