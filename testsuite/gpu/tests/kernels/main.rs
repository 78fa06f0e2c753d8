//! Compiled kernels on the virtual GPU and through NVIDIA's assembler. They are one binary because each links all of MLIR.

mod arguments;
mod arrivals;
mod attend_costs;
mod attend_models;
mod attend_virtual;
mod codes;
mod compiles;
mod contract_assembles;
mod contract_boxes;
mod contract_codes;
mod contract_virtual;
mod costs;
mod draw;
mod draw_engine;
mod fold;
mod graphs;
mod models;
mod mutants;
mod mutants_kernels;
mod reader;
mod rows;
mod work;
