//! Graphs as e-graphs: the language, the facts that guards use, the way in and out.

mod convert;
mod extract;
mod facts;
mod language;

pub use convert::{ConvertError, to_expr, to_graph};
pub use extract::{Choice, extract_exact, extract_greedy, extract_random};
pub use facts::Facts;
pub use language::{Head, Node, op_name};

/// The e-graph over graph nodes with their facts.
pub type EGraph = egg::EGraph<Node, Facts>;
