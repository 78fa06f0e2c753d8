//! Schedules of GPU kernels: how a tile program is divided among blocks, warps and stages.
//!
//! Pure functions between small printable structs: tile program → structure → schedule. Nothing here knows MLIR or LLVM,
//! so a machine without them can list, print and compare schedules.
