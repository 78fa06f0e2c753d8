//! Tests of compiled GPU kernels: on the virtual GPU against the evaluator of tile programs, and through `ptxas`.

pub mod agree;
pub mod attention;
pub mod bounds;
pub mod coded;
pub mod contraction;
pub mod counted;
pub mod device_check;
pub mod device_speed;
pub mod drawn;
pub mod graphs;
pub mod launch;
pub mod mutate;
pub mod pieces;
pub mod plans;
pub mod ptxas;
pub mod random;
