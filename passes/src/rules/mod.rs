//! The rewrite rules: directed, each a line with a guard, a class and a case that the twin test evaluates on both sides.
//!
//! There is no general associativity and no pairwise merging of siblings: one layer would reach hundreds of thousands
//! of nodes. Merging of siblings is one n-ary step of its own ([`crate::merge`]).

mod arithmetic;
mod choice;
mod contraction;
mod gather;
mod latent;
mod views;

use crate::egraph::{EGraph, Facts, Head, Node};
use egg::{Applier, ENodeOrVar, Id, Language, Pattern, PatternAst, Rewrite, Subst, Symbol, Var};
use sinter_ir::{Attr, Op, Type};

/// When a rule runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub enum Phase {
    /// One spelling for the same thing.
    Normalise,
    /// Constants and scales moved to where they cost nothing.
    Fold,
    /// Reductions and contractions joined.
    Fuse,
}

/// What a rule does to the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Class {
    /// Exact over the reals and in rounding: the bits stay.
    E,
    /// Exact over the reals; rounding changes by a few units in the last place.
    R,
}

/// One rewrite rule.
pub struct Rule {
    /// The name, as reports and proofs show it.
    pub name: &'static str,
    /// When it runs.
    pub phase: Phase,
    /// What it does to rounding.
    pub class: Class,
    /// What it is good for, in one sentence.
    pub why: &'static str,
    /// The rule itself.
    pub rewrite: Rewrite<Node, Facts>,
    /// A graph on which it fires.
    pub case: &'static str,
    /// A graph that the pattern matches and the guard refuses, if the rule has a guard.
    pub counter: Option<&'static str>,
}

/// All rules in the order of the phases.
pub fn all() -> Vec<Rule> {
    let mut rules = [
        views::rules(),
        arithmetic::rules(),
        contraction::rules(),
        gather::rules(),
        choice::rules(),
        latent::rules(),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    rules.sort_by_key(|rule| rule.phase);
    rules
}

/// What a guarded right-hand side gives: a class, or why the rule does not apply here.
type Built = Result<Id, String>;

/// A right-hand side that is computed: shapes and specs cannot be written as a pattern.
struct Build {
    build: Box<dyn Fn(&mut Site<'_>) -> Built + Send + Sync>,
}

impl Applier<Node, Facts> for Build {
    fn apply_one(
        &self,
        egraph: &mut EGraph,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<Node>>,
        rule: Symbol,
    ) -> Vec<Id> {
        let built = (self.build)(&mut Site { egraph: &mut *egraph, subst, class });
        let same = |id: &Id| egraph[*id].data.ty == egraph[class].data.ty;
        match built.and_then(|id| if same(&id) { Ok(id) } else { Err("the type would change".into()) }) {
            Ok(id) if egraph.union_trusted(class, id, rule) => vec![class],
            Ok(_) => Vec::new(),
            Err(reason) => {
                egraph.analysis.refuse(rule.as_str(), reason);
                Vec::new()
            }
        }
    }
}

/// Where a pattern matched: access to the bound variables and to the facts about them.
struct Site<'a> {
    egraph: &'a mut EGraph,
    subst: &'a Subst,
    class: Id,
}

impl Site<'_> {
    fn id(&self, var: &str) -> Id {
        let var: Var = var.parse().unwrap_or_else(|_| panic!("{var} is not a variable"));
        self.egraph.find(self.subst[var])
    }
    fn ty_of(&self, id: Id) -> Result<Type, String> {
        self.egraph[id].data.ty.clone().ok_or_else(|| "an operand has no type".into())
    }
    fn ty(&self, var: &str) -> Result<Type, String> {
        self.ty_of(self.id(var))
    }
    fn constant(&self, var: &str) -> Result<f64, String> {
        match &self.egraph[self.id(var)].data.attr {
            Some(Attr::Float(value)) => Ok(value.get()),
            _ => self.egraph[self.id(var)].data.constant.ok_or_else(|| format!("{var} is not a number")),
        }
    }
    fn weights_only(&self, var: &str) -> bool {
        self.egraph[self.id(var)].data.weights_only
    }
    /// The attributes bound to variables, as the op of that name.
    fn op(&self, name: &str, vars: &[&str]) -> Result<Op, String> {
        let attrs: Option<Vec<Attr>> =
            vars.iter().map(|var| self.egraph[self.id(var)].data.attr.clone()).collect();
        attrs
            .and_then(|attrs| Op::from_parts(name, &attrs))
            .ok_or_else(|| format!("{name} has no such attributes"))
    }
    /// Adds an operation.
    fn add(&mut self, op: Op, operands: &[Id]) -> Id {
        let mut children: Vec<Id> = Vec::new();
        for attr in op.attrs() {
            children.push(self.egraph.add(Node { head: Head::Attr(attr), children: vec![] }));
        }
        children.extend(operands);
        let name = crate::egraph::op_name(op.name()).unwrap_or("op");
        self.egraph.add(Node { head: Head::Op(name), children })
    }
    /// The instance of a pattern under the match.
    fn instance(&mut self, pattern: &Pattern<Node>) -> Id {
        let mut ids: Vec<Id> = Vec::new();
        for node in pattern.ast.as_ref() {
            let id = match node {
                ENodeOrVar::Var(var) => self.subst[*var],
                ENodeOrVar::ENode(node) => {
                    self.egraph.add(node.clone().map_children(|child| ids[usize::from(child)]))
                }
            };
            ids.push(id);
        }
        ids[ids.len() - 1]
    }
    fn number(&mut self, value: f64) -> Id {
        self.add(Op::Const { value: sinter_ir::Float::new(value), dtype: sinter_ir::DType::F32 }, &[])
    }
}

fn pattern(text: &str) -> Pattern<Node> {
    text.parse().unwrap_or_else(|error| panic!("pattern {text}: {error}"))
}

/// Name, phase, class, reason and case of a rule, before its two sides.
struct Card(&'static str, Phase, Class, &'static str, &'static str);

impl Card {
    /// A rule between two patterns.
    fn rewrite(self, from: &str, to: &str) -> Rule {
        let to = pattern(to);
        self.build(from, move |site| Ok(site.instance(&to)), None)
    }
    /// A rule whose right-hand side is computed, with a case that its guard refuses.
    fn build(
        self,
        from: &str,
        build: impl Fn(&mut Site<'_>) -> Built + Send + Sync + 'static,
        counter: Option<&'static str>,
    ) -> Rule {
        let Card(name, phase, class, why, case) = self;
        let rewrite = Rewrite::new(name, pattern(from), Build { build: Box::new(build) });
        let rewrite = rewrite.unwrap_or_else(|error| panic!("rule {name}: {error}"));
        Rule { name, phase, class, why, rewrite, case, counter }
    }
}
