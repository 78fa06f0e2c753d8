//! Choices: what keeps the order of a row keeps its k greatest, so the router's softmax need not run over all experts.

use super::{Built, Card, Class::R, Phase::Fuse, Rule, Site, pattern};
use sinter_ir::{Attr, Dim, Monoid, Op, ScalarOp};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Card(
            "choice-of-softmax",
            Fuse,
            R,
            "A softmax keeps the order of a row; what it rounds to equal numbers is told apart again.",
            CHOICE_SOFTMAX,
        )
        .build(
            "(topk ?k (div (exp (sub ?x (reduce max ?a ?x))) (reduce sum ?a (exp (sub ?x (reduce max ?a ?x))))))",
            |site| {
                if axis(site, "?a")? + 1 != site.ty("?x")?.rank() {
                    return Err("the softmax runs across the rows of the choice".into());
                }
                let (op, x) = (site.op("topk", &["?k"])?, site.id("?x"));
                Ok(site.add(op, &[x]))
            },
            Some(CHOICE_SOFTMAX_ACROSS),
        ),
        Card(
            "choice-of-sigmoid",
            Fuse,
            R,
            "A sigmoid keeps the order; what it rounds to equal numbers is told apart again.",
            CHOICE_SIGMOID,
        )
        .rewrite("(topk ?k (recip (add (exp (neg ?x)) (const 1.0 f32))))", "(topk ?k ?x)"),
        Card(
            "softmax-of-chosen",
            Fuse,
            R,
            "Chosen parts of a softmax over their sum are a softmax of the chosen: the sum over all cancels.",
            SOFTMAX_CHOSEN,
        )
        .build(
            "(div
                (gather
                    (reshape ?s (div (exp (sub ?x (reduce max ?a ?x))) (reduce sum ?a (exp (sub ?x (reduce max ?a ?x))))))
                    (add (mul (reshape ?r (iota ?n)) (const ?e u32)) (topk ?k ?y)))
                (reduce sum ?b (gather
                    (reshape ?s (div (exp (sub ?x (reduce max ?a ?x))) (reduce sum ?a (exp (sub ?x (reduce max ?a ?x))))))
                    (add (mul (reshape ?r (iota ?n)) (const ?e u32)) (topk ?k ?y)))))",
            softmax_of_chosen,
            Some(SOFTMAX_CHOSEN_ACROSS),
        ),
    ]
}

fn axis(site: &Site<'_>, var: &str) -> Result<usize, String> {
    match dim(site, var)?.as_const() {
        Some(axis) => Ok(axis as usize),
        None => Err(format!("{var} is no axis")),
    }
}

fn dim(site: &Site<'_>, var: &str) -> Result<Dim, String> {
    match site.egraph[site.id(var)].data.attr {
        Some(Attr::Dim(dim)) => Ok(dim),
        _ => Err(format!("{var} is no extent")),
    }
}

/// The elements of `x` that a choice by `y` picks from each row.
const CHOSEN_LOGITS: &str =
    "(gather (reshape ?s ?x) (add (mul (reshape ?r (iota ?n)) (const ?e u32)) (topk ?k ?y)))";

/// The chosen logits and their softmax, if each choice stays in the row whose softmax it is.
fn softmax_of_chosen(site: &mut Site<'_>) -> Built {
    let (x, y) = (site.ty("?x")?, site.ty("?y")?);
    let [rows, width] = x.shape[..] else { return Err("the rows are no matrix".into()) };
    if axis(site, "?a")? != 1 || axis(site, "?b")? != 1 {
        return Err("the softmax runs across the rows of the choice".into());
    }
    let Op::Reshape { shape } = site.op("reshape", &["?r"])? else { return Err("no reshape".into()) };
    let in_row = shape == [rows, Dim::ONE]
        && dim(site, "?n")? == rows
        && y.shape == x.shape
        && width.as_const().is_some_and(|width| site.constant("?e") == Ok(width as f64));
    if !in_row {
        return Err("it is not proved that the chosen elements lie in one row".into());
    }
    let logits = site.instance(&pattern(CHOSEN_LOGITS));
    let greatest = site.add(Op::Reduce { monoid: Monoid::Max, axis: 1 }, &[logits]);
    let less = site.add(Op::Map(ScalarOp::Sub), &[logits, greatest]);
    let part = site.add(Op::Map(ScalarOp::Exp), &[less]);
    let sum = site.add(Op::Reduce { monoid: Monoid::Sum, axis: 1 }, &[part]);
    Ok(site.add(Op::Map(ScalarOp::Div), &[part, sum]))
}

const CHOICE_SOFTMAX: &str = r#"graph @g {
  %0 = input["x", (T, 7), f32]
  %1 = reduce[max, 1] %0
  %2 = sub %0, %1
  %3 = exp %2
  %4 = reduce[sum, 1] %3
  %5 = div %3, %4
  %6 = topk[3] %5
  return "y" %6
}"#;
const CHOICE_SOFTMAX_ACROSS: &str = r#"graph @g {
  %0 = input["x", (4, 7), f32]
  %1 = reduce[max, 0] %0
  %2 = sub %0, %1
  %3 = exp %2
  %4 = reduce[sum, 0] %3
  %5 = div %3, %4
  %6 = topk[3] %5
  return "y" %6
}"#;
const CHOICE_SIGMOID: &str = r#"graph @g {
  %0 = input["x", (T, 7), f32]
  %1 = neg %0
  %2 = exp %1
  %3 = const[1.0, f32]
  %4 = add %2, %3
  %5 = recip %4
  %6 = topk[3] %5
  return "y" %6
}"#;
const SOFTMAX_CHOSEN: &str = r#"graph @g {
  %0 = input["x", (T, 7), f32]
  %1 = reduce[max, 1] %0
  %2 = sub %0, %1
  %3 = exp %2
  %4 = reduce[sum, 1] %3
  %5 = div %3, %4
  %6 = topk[3] %0
  %7 = iota[T]
  %8 = reshape[(T, 1)] %7
  %9 = const[7.0, u32]
  %10 = mul %8, %9
  %11 = add %10, %6
  %12 = reshape[(7T)] %5
  %13 = gather %12, %11
  %14 = reduce[sum, 1] %13
  %15 = div %13, %14
  return "y" %15
}"#;
/// Indices that lie in the tensor, but two of which may be of two rows.
const SOFTMAX_CHOSEN_ACROSS: &str = r#"graph @g {
  %0 = input["x", (4, 7), f32]
  %1 = reduce[max, 1] %0
  %2 = sub %0, %1
  %3 = exp %2
  %4 = reduce[sum, 1] %3
  %5 = div %3, %4
  %6 = topk[3] %0
  %7 = iota[4]
  %8 = reshape[(4, 1)] %7
  %9 = const[4.0, u32]
  %10 = mul %8, %9
  %11 = add %10, %6
  %12 = reshape[(28)] %5
  %13 = gather %12, %11
  %14 = reduce[sum, 1] %13
  %15 = div %13, %14
  return "y" %15
}"#;
