//! Scalar identities.

use super::{Built, Card, Class::E, Class::R, Phase::Fold, Phase::Normalise, Rule, Site};
use sinter_ir::{Op, ScalarOp};

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Card("mul-one", Normalise, E, "Times one is nothing.", MUL_ONE).build(
            "(mul ?x (const 1.0 f32))",
            |site| same_type(site, "?x"),
            None,
        ),
        Card("add-zero", Normalise, E, "Plus zero is nothing.", ADD_ZERO).build(
            "(add ?x (const 0.0 f32))",
            |site| same_type(site, "?x"),
            None,
        ),
        Card("recip-sqrt", Normalise, R, "One spelling of the inverse root.", RECIP_SQRT)
            .rewrite("(recip (sqrt ?x))", "(rsqrt ?x)"),
        Card("one-over", Normalise, E, "One spelling of the inverse.", ONE_OVER)
            .rewrite("(div (const 1.0 f32) ?x)", "(recip ?x)"),
        Card("div-by-power", Normalise, E, "Division by a power of two is an exact product.", DIV_POWER)
            .build(
                "(div ?x (const ?c f32))",
                |site| {
                    let c = site.constant("?c")?;
                    if !is_power_of_two(c) {
                        return Err(format!(
                            "{c} is not a power of two, so the product would round differently"
                        ));
                    }
                    let (x, inverse) = (site.id("?x"), site.number(1.0 / c));
                    Ok(site.add(Op::Map(ScalarOp::Mul), &[x, inverse]))
                },
                Some(DIV_THREE),
            ),
        Card("scale-scale", Fold, R, "Two scales are one.", SCALE_SCALE).build(
            "(mul (mul ?x (const ?c f32)) (const ?d f32))",
            |site| {
                let product = site.constant("?c")? * site.constant("?d")?;
                let (x, scale) = (site.id("?x"), site.number(product));
                Ok(site.add(Op::Map(ScalarOp::Mul), &[x, scale]))
            },
            None,
        ),
    ]
}

fn same_type(site: &mut Site<'_>, var: &str) -> Built {
    if site.ty(var)? == site.ty_of(site.class)? { Ok(site.id(var)) } else { Err("the shape changes".into()) }
}

pub(super) fn is_power_of_two(value: f64) -> bool {
    value.is_normal() && value.abs().log2().fract() == 0.0 && value.abs().log2().abs() < 100.0
}

const MUL_ONE: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = const[1.0, f32]
  %2 = mul %0, %1
  return "y" %2
}"#;
const ADD_ZERO: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = const[0.0, f32]
  %2 = add %0, %1
  return "y" %2
}"#;
const RECIP_SQRT: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = abs %0
  %2 = sqrt %1
  %3 = recip %2
  return "y" %3
}"#;
const ONE_OVER: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = const[1.0, f32]
  %2 = div %1, %0
  return "y" %2
}"#;
const DIV_POWER: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = const[8.0, f32]
  %2 = div %0, %1
  return "y" %2
}"#;
const DIV_THREE: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = const[3.0, f32]
  %2 = div %0, %1
  return "y" %2
}"#;
const SCALE_SCALE: &str = r#"graph @g {
  %0 = input["x", (T, 4), f32]
  %1 = const[0.3, f32]
  %2 = const[1.7, f32]
  %3 = mul %0, %1
  %4 = mul %3, %2
  return "y" %4
}"#;
