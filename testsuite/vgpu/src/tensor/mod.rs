//! Tensor cores: what a matrix instruction computes, bit for bit, and where its operands lie.
//!
//! [`arithmetic`] adds products the way the hardware does. [`fragments`] says which lane's register holds which element
//! of `mma.sync`, `ldmatrix` and `stmatrix`; [`wgmma`] does the same for a warpgroup, and [`descriptor`] finds operands
//! that lie in shared memory. Everything here is a plain function over plain data: no PTX text, no memory of its own.

pub mod arithmetic;
pub mod descriptor;
pub mod fragments;
pub mod wgmma;

pub use arithmetic::{Format, Model};
pub use descriptor::{Descriptor, Major};
