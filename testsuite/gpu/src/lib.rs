//! Tests of compiled GPU kernels: on the virtual GPU against the evaluator of tile programs, and through `ptxas`.

pub mod attention;
pub mod launch;
pub mod plans;
pub mod ptxas;
pub mod random;
