//! Taking rows early: logits are wanted of few tokens, so everything row-wise before them runs on those rows only.

use super::{Built, Card, Class::E, Phase::Fold, Rule, Site};
use sinter_ir::{Dim, Op, ScalarOp};

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = vec![
        Card("gather-before-contract", Fold, E, "Rows that nobody wants are not multiplied.", CONTRACT)
            .rewrite("(gather (contract tk,nk->tn ?x ?w) ?i)", "(contract tk,nk->tn (gather ?x ?i) ?w)"),
        Card("gather-before-cast", Fold, E, "Rows that nobody wants are not rounded.", CAST).build(
            "(gather (cast ?d ?x) ?i)",
            |site| {
                no_codes(site, &["?x"])?;
                let op = site.op("cast", &["?d"])?;
                let (x, i) = (site.id("?x"), site.id("?i"));
                let rows = site.add(Op::Gather {}, &[x, i]);
                Ok(site.add(op, &[rows]))
            },
            Some(CAST_CODES),
        ),
        Card("gather-before-reduce", Fold, E, "Rows that nobody wants are not reduced.", REDUCE).build(
            "(gather (reduce ?m ?a ?x) ?i)",
            |site| {
                let op = site.op("reduce", &["?m", "?a"])?;
                if matches!(op, Op::Reduce { axis: 0, .. }) || site.ty("?i")?.rank() != 1 {
                    return Err("the reduction runs across the rows".into());
                }
                let (x, i) = (site.id("?x"), site.id("?i"));
                let rows = site.add(Op::Gather {}, &[x, i]);
                Ok(site.add(op, &[rows]))
            },
            Some(REDUCE_ROWS),
        ),
    ];
    rules.extend(UNARY.iter().map(|(name, from, to, case)| {
        Card(name, Fold, E, "Rows that nobody wants are not computed.", case).rewrite(from, to)
    }));
    rules.extend(BINARY.iter().map(|(op, name, from, [case, counter])| {
        Card(name, Fold, E, "Rows that nobody wants are not computed.", case).build(
            from,
            |site| gather_binary(site, *op),
            Some(counter),
        )
    }));
    rules
}

type Unary = (&'static str, &'static str, &'static str, &'static str);

macro_rules! unary {
    ($($op:literal),*) => {
        &[$((
            concat!("gather-before-", $op),
            concat!("(gather (", $op, " ?x) ?i)"),
            concat!("(", $op, " (gather ?x ?i))"),
            concat!("graph @g {\n %0 = input[\"x\", (9, 4), f32]\n %1 = abs %0\n %2 = ", $op,
                " %1\n %3 = input[\"i\", (R), u32]\n %4 = gather %2, %3\n return \"y\" %4\n}"),
        )),*]
    };
}

const UNARY: &[Unary] = unary!("neg", "abs", "floor", "exp", "sqrt", "rsqrt", "recip", "tanh", "erf");

macro_rules! binary {
    ($($op:literal $scalar:ident),*) => {
        &[$((
            ScalarOp::$scalar,
            concat!("gather-before-", $op),
            concat!("(gather (", $op, " ?x ?y) ?i)"),
            [
                concat!("graph @g {\n %0 = input[\"x\", (9, 4), f32]\n %1 = input[\"z\", (9, 1), f32]\n %2 = ", $op,
                    " %0, %1\n %3 = input[\"i\", (R), u32]\n %4 = gather %2, %3\n return \"y\" %4\n}"),
                // A table whose rows are codes with scales.
                concat!("graph @g {\n %0 = param[\"q\", (9, 8), i8]\n %1 = cast[f32] %0\n %2 = param[\"s\", (9, 1), f32]\n %3 = ",
                    $op, " %1, %2\n %4 = input[\"i\", (R), u32]\n %5 = gather %3, %4\n return \"y\" %5\n}"),
            ],
        )),*]
    };
}

/// Op, name, pattern, and the case with the one that the guard refuses.
type Binary = (ScalarOp, &'static str, &'static str, [&'static str; 2]);

const BINARY: &[Binary] = binary!("add" Add, "sub" Sub, "mul" Mul, "div" Div, "max" Max);

/// Refuses a quantised table: its rows are dequantised as they are read, from the codes that the head multiplies by too.
fn no_codes(site: &Site<'_>, operands: &[&str]) -> Result<(), String> {
    let data = |var: &str| &site.egraph[site.id(var)].data;
    let table =
        operands.iter().all(|var| data(var).weights_only) && operands.iter().any(|var| data(var).from_bytes);
    if table { Err("the table is quantised, its rows are read as codes".into()) } else { Ok(()) }
}

/// Rows of an operand that has them; an operand that is the same for all rows stays.
fn gather_binary(site: &mut Site<'_>, op: ScalarOp) -> Built {
    no_codes(site, &["?x", "?y"])?;
    let operands = [site.id("?x"), site.id("?y")];
    let i = site.id("?i");
    if site.ty_of(i)?.rank() != 1 {
        return Err("the rows are not one list".into());
    }
    let mut rows = Vec::new();
    for operand in operands {
        let ty = site.ty_of(operand)?;
        let shared = ty.rank() == 0 || ty.shape[0] == Dim::ONE;
        rows.push(if shared { operand } else { site.add(Op::Gather {}, &[operand, i]) });
    }
    Ok(site.add(Op::Map(op), &rows))
}

const CONTRACT: &str = r#"graph @g {
  %0 = input["x", (9, 5), f32]
  %1 = param["w", (7, 5), f32]
  %2 = contract["tk,nk->tn"] %0, %1
  %3 = input["i", (R), u32]
  %4 = gather %2, %3
  return "y" %4
}"#;
const CAST: &str = r#"graph @g {
  %0 = input["x", (9, 5), f32]
  %1 = cast[bf16] %0
  %2 = input["i", (R), u32]
  %3 = gather %1, %2
  return "y" %3
}"#;
const CAST_CODES: &str = r#"graph @g {
  %0 = param["q", (9, 8), i8]
  %1 = cast[f32] %0
  %2 = input["i", (R), u32]
  %3 = gather %1, %2
  return "y" %3
}"#;
const REDUCE: &str = r#"graph @g {
  %0 = input["x", (9, 5), f32]
  %1 = reduce[sum, 1] %0
  %2 = input["i", (R), u32]
  %3 = gather %1, %2
  return "y" %3
}"#;
const REDUCE_ROWS: &str = r#"graph @g {
  %0 = input["x", (9, 5), f32]
  %1 = reduce[sum, 0] %0
  %2 = input["i", (R), u32]
  %3 = gather %1, %2
  return "y" %3
}"#;
