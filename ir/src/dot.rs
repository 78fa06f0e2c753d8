//! Graphs as Graphviz DOT, for the eye.

use crate::{Graph, Op};
use std::fmt::Write;

/// The graph in the DOT language: boxes for operations, ellipses for leaves, edges by data flow.
pub fn to_dot(graph: &Graph) -> String {
    let mut out = format!("digraph {:?} {{\n  rankdir=TB;\n", graph.name);
    for (value, node) in graph.nodes.iter() {
        let shape = match node.op {
            Op::Input { .. } | Op::Param { .. } | Op::State { .. } | Op::Const { .. } => "ellipse",
            _ => "box",
        };
        let label = format!("{value} {}\n{}", node.op, node.ty);
        let _ = writeln!(out, "  n{} [shape={shape}, label={label:?}];", value.0);
        for arg in &node.args {
            let _ = writeln!(out, "  n{} -> n{};", arg.0, value.0);
        }
    }
    for (name, value) in &graph.outputs {
        let _ = writeln!(out, "  n{} -> {name:?};", value.0);
    }
    out + "}\n"
}
