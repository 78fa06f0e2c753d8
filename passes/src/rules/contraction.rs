//! Contractions: scales and norms moved through them, and the cascaded reduction that makes attention one pass.

use super::{Built, Card, Class::E, Class::R, Phase::Fold, Phase::Fuse, Phase::Normalise, Rule, Site};
use sinter_ir::{DType, Dim, Einsum, Op, ScalarOp, infer};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Card("weight-rows", Normalise, E, "Weights are stored by output column, whatever the checkpoint does.", WEIGHT_ROWS)
            .build(
                "(contract tk,kn->tn ?x ?w)",
                |site| {
                    if !site.weights_only("?w") {
                        return Err("the second operand is not a weight".into());
                    }
                    let (x, w) = (site.id("?x"), site.id("?w"));
                    let turned = site.add(Op::Transpose { perm: vec![1, 0] }, &[w]);
                    Ok(site.add(Op::Contract { spec: linear()? }, &[x, turned]))
                },
                Some(WEIGHT_ROWS_INPUT),
            ),
        Card("scale-before-contract", Fold, R, "A scale of the many scores moves to the few queries.", SCALE_CONTRACT).build(
            "(mul (contract ?s ?a ?b) (const ?c f32))",
            scale_before_contract,
            Some(SCALE_BF16),
        ),
        Card("scale-into-weight", Fold, R, "A scale of a product moves into the weight.", SCALE_WEIGHT).build(
            "(mul (contract tk,nk->tn ?x ?w) (const ?c f32))",
            |site| {
                let (x, c) = (site.id("?x"), site.constant("?c")?);
                let scale = site.number(c);
                let weight = scaled_weight(site, scale)?;
                Ok(site.add(Op::Contract { spec: linear()? }, &[x, weight]))
            },
            Some(SCALE_INPUT),
        ),
        Card("gamma-into-weight", Fold, R, "The norm's scale moves into the weight that follows.", GAMMA).build(
            "(contract tk,nk->tn (mul ?x ?g) ?w)",
            gamma_into_weight,
            Some(GAMMA_INPUT),
        ),
        Card("row-scale-after", Fold, R, "The norm's row factor moves behind the product, into its epilogue.", ROW_SCALE)
            .build(
                "(contract tk,nk->tn (mul ?x ?r) ?w)",
                |site| {
                    let (r, x) = (site.ty("?r")?, site.ty("?x")?);
                    if r.rank() != 2 || r.shape[1] != Dim::ONE || x.shape[1] == Dim::ONE {
                        return Err("the factor is not one number a row".into());
                    }
                    let (x, r, w) = (site.id("?x"), site.id("?r"), site.id("?w"));
                    let product = site.add(Op::Contract { spec: linear()? }, &[x, w]);
                    Ok(site.add(Op::Map(ScalarOp::Mul), &[product, r]))
                },
                Some(GAMMA),
            ),
        Card(
            "cascade",
            Fuse,
            R,
            "Max, sum of exponentials and weighted sum in one pass: the online softmax.",
            CASCADE,
        )
        .build(
            "(contract ?s (div (exp (sub ?x (reduce max ?a ?x))) (reduce sum ?a (exp (sub ?x (reduce max ?a ?x))))) ?v)",
            |site| cascade(site, None),
            Some(CASCADE_OTHER_AXIS),
        ),
        Card("cascade-from", Fuse, R, "One score more in the sum is where the online softmax starts.", CASCADE_FROM).build(
            "(contract ?s (div (exp (sub ?x (max (reduce max ?a ?x) ?k))) (add
                (reduce sum ?a (exp (sub ?x (max (reduce max ?a ?x) ?k))))
                (exp (sub ?k (max (reduce max ?a ?x) ?k))))) ?v)",
            |site| cascade(site, Some("?k")),
            Some(CASCADE_FROM_MANY),
        ),
    ]
}

/// One pass in place of three, if the softmax runs along the label that the product sums over. `start` is the score that
/// a row has besides.
fn cascade(site: &mut Site<'_>, start: Option<&str>) -> Built {
    let (Op::Contract { spec }, Op::Reduce { axis, .. }) =
        (site.op("contract", &["?s"])?, Op::Reduce { axis: axis_of(site)?, monoid: sinter_ir::Monoid::Max })
    else {
        return Err("no contraction".into());
    };
    let summed = spec.summed();
    if summed.len() != 1 || spec.a.find(&summed) != Some(axis) {
        return Err(format!("the softmax runs along axis {axis}, but the product sums over {summed:?}"));
    }
    if spec.out.len() != 3 {
        // The few weights of a token's experts are such a softmax; one pass over them would save nothing.
        return Err(format!("{spec} is no attention of tokens, heads, lanes"));
    }
    let vars: Vec<&str> = ["?x", "?v"].into_iter().chain(start).collect();
    let types = vars.iter().map(|var| site.ty(var)).collect::<Result<Vec<_>, _>>()?;
    let op = Op::Attend { spec };
    infer(&op, &types.iter().collect::<Vec<_>>())?;
    let operands: Vec<_> = vars.iter().map(|var| site.id(var)).collect();
    Ok(site.add(op, &operands))
}

/// The weight times the row of factors, if the factors are one row of weights.
fn gamma_into_weight(site: &mut Site<'_>) -> Built {
    let gamma = site.ty("?g")?;
    if !site.weights_only("?g") || gamma.rank() != 2 || gamma.shape[0] != Dim::ONE {
        return Err("the factor is not one row of weights".into());
    }
    let (x, g) = (site.id("?x"), site.id("?g"));
    if site.ty("?x")? != site.ty_of(x)? || site.ty("?x")?.shape[1] != gamma.shape[1] {
        return Err("the factor widens the operand".into());
    }
    let weight = scaled_weight(site, g)?;
    Ok(site.add(Op::Contract { spec: linear()? }, &[x, weight]))
}

/// The scale on the first operand, if that is not rounded already.
fn scale_before_contract(site: &mut Site<'_>) -> Built {
    let (a, b, c) = (site.id("?a"), site.id("?b"), site.constant("?c")?);
    if site.ty("?a")?.dtype != DType::F32 {
        return Err("the first operand is rounded already, scaling it would round twice".into());
    }
    let op = site.op("contract", &["?s"])?;
    let scale = site.number(c);
    let scaled = site.add(Op::Map(ScalarOp::Mul), &[a, scale]);
    Ok(site.add(op, &[scaled, b]))
}

fn linear() -> Result<Einsum, String> {
    Einsum::parse("tk,nk->tn").ok_or_else(|| "spec".into())
}

fn axis_of(site: &Site<'_>) -> Result<usize, String> {
    match site.egraph[site.id("?a")].data.attr {
        Some(sinter_ir::Attr::Dim(dim)) => {
            dim.as_const().map(|axis| axis as usize).ok_or_else(|| "axis".into())
        }
        _ => Err("axis".into()),
    }
}

/// The weight `?w` times a factor, rounded back to the weight's type.
fn scaled_weight(site: &mut Site<'_>, factor: egg::Id) -> Built {
    if !site.weights_only("?w") {
        return Err("the second operand is not a weight".into());
    }
    if site.egraph[site.id("?w")].data.from_bytes {
        return Err("the weight is quantised: times a factor it would be codes no more".into());
    }
    let (w, dtype) = (site.id("?w"), site.ty("?w")?.dtype);
    if dtype == DType::F32 {
        return Ok(site.add(Op::Map(ScalarOp::Mul), &[w, factor]));
    }
    let wide = site.add(Op::Cast { dtype: DType::F32 }, &[w]);
    let scaled = site.add(Op::Map(ScalarOp::Mul), &[wide, factor]);
    Ok(site.add(Op::Cast { dtype }, &[scaled]))
}

const WEIGHT_ROWS: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = param["w", (5, 3), f32]
  %2 = contract["tk,kn->tn"] %0, %1
  return "y" %2
}"#;
const WEIGHT_ROWS_INPUT: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = input["w", (5, 3), f32]
  %2 = contract["tk,kn->tn"] %0, %1
  return "y" %2
}"#;
const SCALE_CONTRACT: &str = r#"graph @g {
  %0 = input["q", (T, 3, 4), f32]
  %1 = input["k", (16P, 3, 4), f32]
  %2 = contract["thd,chd->thc"] %0, %1
  %3 = const[0.3, f32]
  %4 = mul %2, %3
  return "y" %4
}"#;
const SCALE_BF16: &str = r#"graph @g {
  %0 = input["q", (T, 3, 4), bf16]
  %1 = input["k", (16P, 3, 4), f32]
  %2 = contract["thd,chd->thc"] %0, %1
  %3 = const[0.3, f32]
  %4 = mul %2, %3
  return "y" %4
}"#;
const SCALE_WEIGHT: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = param["w", (7, 5), f32]
  %2 = contract["tk,nk->tn"] %0, %1
  %3 = const[0.3, f32]
  %4 = mul %2, %3
  return "y" %4
}"#;
const SCALE_INPUT: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = input["w", (7, 5), f32]
  %2 = contract["tk,nk->tn"] %0, %1
  %3 = const[0.3, f32]
  %4 = mul %2, %3
  return "y" %4
}"#;
const GAMMA: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = param["g", (1, 5), f32]
  %2 = param["w", (7, 5), f32]
  %3 = mul %0, %1
  %4 = contract["tk,nk->tn"] %3, %2
  return "y" %4
}"#;
const GAMMA_INPUT: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = input["g", (1, 5), f32]
  %2 = param["w", (7, 5), f32]
  %3 = mul %0, %1
  %4 = contract["tk,nk->tn"] %3, %2
  return "y" %4
}"#;
const ROW_SCALE: &str = r#"graph @g {
  %0 = input["x", (T, 5), f32]
  %1 = input["r", (T, 1), f32]
  %2 = param["w", (7, 5), f32]
  %3 = mul %0, %1
  %4 = contract["tk,nk->tn"] %3, %2
  return "y" %4
}"#;
const CASCADE: &str = r#"graph @g {
  %0 = input["x", (T, 3, 16P), f32]
  %1 = input["v", (16P, 3, 4), f32]
  %2 = reduce[max, 2] %0
  %3 = sub %0, %2
  %4 = exp %3
  %5 = reduce[sum, 2] %4
  %6 = div %4, %5
  %7 = contract["thc,chd->thd"] %6, %1
  return "y" %7
}"#;
const CASCADE_FROM: &str = r#"graph @g {
  %0 = input["x", (T, 3, 16P), f32]
  %1 = input["v", (16P, 3, 4), f32]
  %2 = param["sink", (1, 3, 1), f32]
  %3 = reduce[max, 2] %0
  %4 = max %3, %2
  %5 = sub %0, %4
  %6 = exp %5
  %7 = reduce[sum, 2] %6
  %8 = sub %2, %4
  %9 = exp %8
  %10 = add %7, %9
  %11 = div %6, %10
  %12 = contract["thc,chd->thd"] %11, %1
  return "y" %12
}"#;
const CASCADE_FROM_MANY: &str = r#"graph @g {
  %0 = input["x", (T, 3, 5), f32]
  %1 = input["v", (5, 3, 4), f32]
  %2 = param["sink", (1, 3, 5), f32]
  %3 = reduce[max, 2] %0
  %4 = max %3, %2
  %5 = sub %0, %4
  %6 = exp %5
  %7 = reduce[sum, 2] %6
  %8 = sub %2, %4
  %9 = exp %8
  %10 = add %7, %9
  %11 = div %6, %10
  %12 = contract["thc,chd->thd"] %11, %1
  return "y" %12
}"#;
const CASCADE_OTHER_AXIS: &str = r#"graph @g {
  %0 = input["x", (T, 3, 16P), f32]
  %1 = input["v", (16P, 3, 4), f32]
  %2 = reduce[max, 1] %0
  %3 = sub %0, %2
  %4 = exp %3
  %5 = reduce[sum, 1] %4
  %6 = div %4, %5
  %7 = contract["thc,chd->thd"] %6, %1
  return "y" %7
}"#;
