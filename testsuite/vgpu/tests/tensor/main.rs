//! Tensor cores against scalar references.

mod arithmetic;
mod fragments;
mod random;
mod wgmma;
