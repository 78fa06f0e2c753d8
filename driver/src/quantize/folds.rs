//! Where factors of a product's inputs can go: into what computes these inputs, so that nothing is computed more.
//!
//! The graph says it: a norm's γ and β, or the rows of a matrix whose product, perhaps times something, is the input.

use sinter_ir::{Graph, IdVec, Op, ScalarOp, ValueId};
use std::collections::BTreeSet;

/// What is divided by the factors, so that a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A vector; 1 more than it says if `one_plus` is set.
    Vector {
        /// The tensor.
        name: String,
        /// Whether 1 is added to it.
        one_plus: bool,
    },
    /// The rows of a matrix.
    Rows(String),
}

/// What is divided so that the products with some weights stay as they are while the columns of these are multiplied. The error
/// says why there is nothing.
pub(super) fn targets(
    (graph, uses): (&Graph, &IdVec<ValueId, u32>),
    (operand, products): (ValueId, usize),
    matrices: &BTreeSet<&str>,
) -> Result<Vec<Target>, &'static str> {
    if uses[operand] as usize != products {
        return Err("its inputs are read elsewhere too");
    }
    let Some(width) = extent(graph, operand) else { return Err("its inputs have no fixed width") };
    let search = Search { graph, uses, width, matrices };
    search.of(operand).ok_or("its inputs come from no norm or matrix that could take factors")
}

/// The last extent of a value.
fn extent(graph: &Graph, value: ValueId) -> Option<u64> {
    graph.ty(value).shape.last().and_then(|dim| dim.as_const())
}

struct Search<'a> {
    graph: &'a Graph,
    uses: &'a IdVec<ValueId, u32>,
    width: u64,
    matrices: &'a BTreeSet<&'a str>,
}

impl Search<'_> {
    /// The targets for a value that nothing else reads.
    fn alone(&self, value: ValueId) -> Option<Vec<Target>> {
        let fits = self.uses[value] == 1 && extent(self.graph, value) == Some(self.width);
        if fits { self.of(value) } else { None }
    }

    fn of(&self, value: ValueId) -> Option<Vec<Target>> {
        if let Some(vector) = self.vector(value) {
            return Some(vec![vector]);
        }
        let node = self.graph.node(value);
        let &[a, b] = &node.args[..] else { return None };
        if let Op::Contract { spec } = &node.op {
            let name = self.graph.node(b).op.leaf_name()?;
            let own = self.uses[b] == 1 && self.matrices.contains(name) && spec.to_string() == "tk,nk->tn";
            return own.then(|| vec![Target::Rows(name.to_owned())]);
        }
        let Op::Map(scalar) = node.op else { return None };
        match scalar {
            // One factor of a product is divided, the norm's own if it has one; both terms of a sum.
            ScalarOp::Mul => self.alone(b).or_else(|| self.alone(a)),
            ScalarOp::Add => Some([self.alone(a)?, self.alone(b)?].concat()),
            ScalarOp::Max if self.number(b) == Some(0.0) => self.alone(a),
            _ => None,
        }
    }

    /// A vector of the checkpoint, or 1 more.
    fn vector(&self, value: ValueId) -> Option<Target> {
        let node = self.graph.node(value);
        if let Op::Param { name, shape, .. } = &node.op {
            let fits = shape.len() == 1 && extent(self.graph, value) == Some(self.width);
            return fits.then(|| Target::Vector { name: name.clone(), one_plus: false });
        }
        let inner = *node.args.first()?;
        let vector = if self.uses[inner] == 1 { self.vector(inner) } else { None };
        if matches!(node.op, Op::Reshape { .. }) {
            return vector;
        }
        let one_more = node.op == Op::Map(ScalarOp::Add) && self.number(*node.args.last()?) == Some(1.0);
        match vector? {
            Target::Vector { name, one_plus: false } if one_more => {
                Some(Target::Vector { name, one_plus: true })
            }
            Target::Vector { .. } | Target::Rows(_) => None,
        }
    }

    fn number(&self, value: ValueId) -> Option<f64> {
        if let Op::Const { value, .. } = self.graph.node(value).op { Some(value.get()) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What there is for the operand of the last product of a graph.
    fn found(statements: &[&str]) -> Result<Vec<Target>, &'static str> {
        let text = format!("graph @g {{\n{}\n}}\n", statements.join("\n"));
        let graph = Graph::parse(&text).unwrap();
        let contracts = || graph.nodes.values().filter(|node| matches!(node.op, Op::Contract { .. }));
        let operand = contracts().next_back().unwrap().args[0];
        let products = contracts().filter(|node| node.args[0] == operand).count();
        targets((&graph, &graph.uses()), (operand, products), &BTreeSet::from(["up"]))
    }

    fn vector(name: &str, one_plus: bool) -> Target {
        Target::Vector { name: name.into(), one_plus }
    }

    const NORM: [&str; 5] = [
        "%0 = input[\"x\", (T, 4), f32]",
        "%1 = input[\"r\", (T, 1), f32]",
        "%2 = mul %0, %1",
        "%3 = param[\"gamma\", (4), f32]",
        "%4 = reshape[(1, 4)] %3",
    ];

    #[test]
    fn norms_take_factors() {
        let plain = [
            "%5 = mul %2, %4",
            "%6 = param[\"q\", (6, 4), f32]",
            "%7 = contract[\"tk,nk->tn\"] %5, %6",
            "%8 = param[\"k\", (2, 4), f32]",
            "%9 = contract[\"tk,nk->tn\"] %5, %8",
            "return \"y\" %7",
            "return \"z\" %9",
        ];
        assert_eq!(found(&[&NORM[..], &plain].concat()), Ok(vec![vector("gamma", false)]));
        let shifted = [
            "%5 = const[1.0, f32]",
            "%6 = add %4, %5",
            "%7 = mul %2, %6",
            "%8 = param[\"beta\", (4), f32]",
            "%9 = reshape[(1, 4)] %8",
            "%10 = add %7, %9",
            "%11 = param[\"q\", (6, 4), f32]",
            "%12 = contract[\"tk,nk->tn\"] %10, %11",
            "return \"y\" %12",
        ];
        let both = vec![vector("gamma", true), vector("beta", false)];
        assert_eq!(found(&[&NORM[..], &shifted].concat()), Ok(both));
    }

    #[test]
    fn rows_of_a_matrix_take_factors_through_a_product() {
        let gated = [
            "%0 = input[\"gate\", (T, 4), f32]",
            "%1 = input[\"x\", (T, 3), f32]",
            "%2 = param[\"up\", (4, 3), f32]",
            "%3 = contract[\"tk,nk->tn\"] %1, %2",
            "%4 = mul %0, %3",
            "%5 = param[\"down\", (6, 4), f32]",
            "%6 = contract[\"tk,nk->tn\"] %4, %5",
            "return \"y\" %6",
        ];
        assert_eq!(found(&gated), Ok(vec![Target::Rows("up".into())]));
        // Not those of a matrix that stays as it is.
        let other = gated.map(|line| line.replace("\"up\"", "\"other\""));
        assert!(found(&other.each_ref().map(String::as_str)).is_err());
    }

    #[test]
    fn what_else_is_read_takes_none() {
        let read = [
            "%5 = mul %2, %4",
            "%6 = param[\"q\", (6, 4), f32]",
            "%7 = contract[\"tk,nk->tn\"] %5, %6",
            "return \"y\" %7",
            "return \"z\" %5",
        ];
        assert_eq!(found(&[&NORM[..], &read].concat()), Err("its inputs are read elsewhere too"));
        // A factor of each token is no factor of each column, and the residual stream has none.
        let residual = [
            "%5 = add %2, %0",
            "%6 = param[\"q\", (6, 4), f32]",
            "%7 = contract[\"tk,nk->tn\"] %5, %6",
            "return \"y\" %7",
        ];
        assert!(found(&[&NORM[..3], &["%3 = add %0, %0", "%4 = add %2, %3"], &residual].concat()).is_err());
    }
}
