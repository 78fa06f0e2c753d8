//! The instruction sets that the kernels come in, and which of them this machine has.

use std::fmt;
use std::str::FromStr;

/// Instruction set chosen at run time. Later ones include earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// No vector instructions beyond those of every x86-64.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// AVX-512 with BF16 dot products.
    Avx512Bf16,
}

/// Why an instruction set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The machine lacks it.
    #[error("this machine has no {wanted}; the best it has is {found}: ask for that or leave the choice out")]
    Missing {
        /// What was asked for.
        wanted: Isa,
        /// What [`Isa::detect`] found.
        found: Isa,
    },
    /// There is none of this name.
    #[error("unknown instruction set `{0}`; wanted one of scalar, avx2, avx512, avx512bf16")]
    Unknown(String),
}

impl Isa {
    /// Every instruction set, the least first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    /// The greatest instruction set that this machine has.
    pub fn detect() -> Isa {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        match (avx2, avx512, is_x86_feature_detected!("avx512bf16")) {
            (_, true, true) => Isa::Avx512Bf16,
            (_, true, false) => Isa::Avx512,
            (true, false, _) => Isa::Avx2,
            (false, false, _) => Isa::Scalar,
        }
    }

    /// The instruction sets that this machine has, the least first.
    pub fn available() -> impl Iterator<Item = Isa> {
        let best = Isa::detect();
        Isa::ALL.into_iter().filter(move |&isa| isa <= best)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        })
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| IsaError::Unknown(name.to_owned()))
    }
}
