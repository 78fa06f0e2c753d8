//! Why a tile program cannot be compiled.

use crate::micro::IsaError;

/// Why there is no kernel.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodegenError {
    /// The tile program breaks a rule of its form: a bug in whoever made it.
    #[error("tile program {kernel} is malformed: {reason}")]
    Malformed {
        /// The program's name.
        kernel: String,
        /// The broken rules.
        reason: String,
    },
    /// The program cannot be run as it was chosen.
    #[error("{kernel} cannot be run as `{choice}`: its structure is another")]
    Unfit {
        /// The program's name.
        kernel: String,
        /// What was chosen.
        choice: String,
    },
    /// The machine lacks the instruction set that was asked for.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Cranelift refuses the machine or the code: a bug in this crate.
    #[error("compiling {kernel}: {reason}; please report this")]
    Cranelift {
        /// The program's name.
        kernel: String,
        /// What Cranelift says.
        reason: String,
    },
}
