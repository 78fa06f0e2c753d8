//! What the tests share: a reference runner for plans, and the way to a checkpoint's values.

pub mod compiled;
pub mod fake_model;
pub mod files;
pub mod fuzz;
pub mod golden;
pub mod host;
pub mod reference;
pub mod reference_device;
pub mod simulator;

/// What the simulator simulates.
mod machine {
    pub use sinter_runtime::engine::*;
}
