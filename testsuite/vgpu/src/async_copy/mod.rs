//! Asynchronous copies: what they move, and how a kernel learns that they are done.
//!
//! [`tensor_map`] says which bytes a TMA copy moves, [`mbarrier`] is the barrier that counts them, [`groups`] the older
//! way of waiting. As everywhere in these modules: plain functions over plain data, no PTX text, no memory of its own.

pub mod groups;
pub mod mbarrier;
pub mod tensor_map;

pub use groups::Groups;
pub use mbarrier::{Mbarrier, MbarrierError};
pub use tensor_map::{Piece, TensorMapError};
