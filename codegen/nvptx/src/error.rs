//! What can go wrong.

/// Why a program was not compiled for a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A structure that no skeleton covers.
    #[error("kernel {kernel}: {reason}")]
    Unsupported {
        /// The tile program.
        kernel: String,
        /// What was found, and what is covered.
        reason: String,
    },
    /// MLIR refused what was built: a fault of the compiler.
    #[error("kernel {kernel}: MLIR does not accept it: {reason}")]
    Mlir {
        /// The kernel.
        kernel: String,
        /// MLIR's words.
        reason: String,
    },
    /// LLVM refused what was built: a fault of the compiler.
    #[error("kernel {kernel}: LLVM does not accept it: {reason}")]
    Llvm {
        /// The kernel.
        kernel: String,
        /// LLVM's words.
        reason: String,
    },
}
