//! What is proved about every e-class: its type, its value if constant, whether it depends on weights alone. Guards use
//! these facts and nothing else.

use super::{Head, Node};
use egg::{Analysis, DidMerge, EGraph, Id};
use sinter_ir::{Attr, DType, Float, Op, Type, infer};

/// The facts about one e-class.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Fact {
    /// The attribute, if the class is one.
    pub attr: Option<Attr>,
    /// The type, if the class is a value.
    pub ty: Option<Type>,
    /// The number, if it is a rank-0 constant.
    pub constant: Option<f64>,
    /// Whether it depends on weights and constants only, so that it can be computed before the first step.
    pub weights_only: bool,
    /// Whether bytes of a checkpoint go into it: a weight that may stay codes in memory.
    pub from_bytes: bool,
}

/// The analysis that keeps the facts, and what guards refused, for the report.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Rule and reason, each pair once.
    pub refusals: std::collections::BTreeSet<(String, String)>,
}

impl Facts {
    /// Notes that a guard refused a match.
    pub fn refuse(&mut self, rule: &str, reason: String) {
        self.refusals.insert((rule.into(), reason));
    }

    /// The op of a node, with its attributes read from the child classes, and its operands.
    pub fn op_of(egraph: &EGraph<Node, Facts>, node: &Node) -> Option<(Op, Vec<Id>)> {
        let Head::Op(name) = node.head else { return None };
        let attrs: Vec<Attr> =
            node.children.iter().map_while(|child| egraph[*child].data.attr.clone()).collect();
        let operands = node.children[attrs.len()..].to_vec();
        Some((Op::from_parts(name, &attrs)?, operands))
    }
}

impl Analysis<Node> for Facts {
    type Data = Fact;

    fn make(egraph: &mut EGraph<Node, Self>, node: &Node, _: Id) -> Fact {
        if let Head::Attr(attr) = &node.head {
            return Fact { attr: Some(attr.clone()), ..Fact::default() };
        }
        let Some((op, operands)) = Facts::op_of(egraph, node) else { return Fact::default() };
        let facts: Vec<&Fact> = operands.iter().map(|operand| &egraph[*operand].data).collect();
        let types: Option<Vec<&Type>> = facts.iter().map(|fact| fact.ty.as_ref()).collect();
        let constants: Option<Vec<f64>> = facts.iter().map(|fact| fact.constant).collect();
        let constant = match (&op, constants) {
            (Op::Const { value, .. }, _) => Some(value.get()),
            (Op::Map(scalar), Some(operands)) if !operands.is_empty() => Some(scalar.eval(&operands)),
            _ => None,
        };
        let weights_only = match op {
            Op::Param { .. } | Op::Const { .. } => true,
            Op::Input { .. } | Op::State { .. } | Op::Iota { .. } => false,
            _ => facts.iter().all(|fact| fact.weights_only),
        };
        let from_bytes = match op {
            Op::Param { dtype, .. } => matches!(dtype, DType::U8 | DType::I8),
            _ => facts.iter().any(|fact| fact.from_bytes),
        };
        let ty = types.and_then(|types| infer(&op, &types).ok());
        Fact { attr: None, ty, constant, weights_only, from_bytes }
    }

    fn merge(&mut self, a: &mut Fact, b: Fact) -> DidMerge {
        assert_eq!(a.ty, b.ty, "a rule made values of different types equal");
        assert_eq!(a.attr, b.attr, "a rule made different attributes equal");
        let (before_a, before_b) = (a.clone(), b.clone());
        a.constant = a.constant.or(b.constant);
        a.weights_only |= b.weights_only;
        a.from_bytes |= b.from_bytes;
        DidMerge(*a != before_a, *a != before_b)
    }

    /// A class that is known to be a number gets the number as a node.
    fn modify(egraph: &mut EGraph<Node, Self>, id: Id) {
        let fact = &egraph[id].data;
        let (Some(value), Some(ty)) = (fact.constant, &fact.ty) else { return };
        if !value.is_finite() || ty.rank() > 0 || !matches!(ty.dtype, DType::F32 | DType::U32) {
            return;
        }
        let dtype = Attr::Word(ty.dtype.name().into());
        let mut leaf = |attr| egraph.add(Node { head: Head::Attr(attr), children: vec![] });
        let children = vec![leaf(Attr::Float(Float::new(value))), leaf(dtype)];
        let folded = egraph.add(Node { head: Head::Op("const"), children });
        egraph.union(id, folded);
    }
}
