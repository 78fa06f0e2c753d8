//! A kernel made ready to run.

use super::op::Inst;
use crate::ptx::Param;

/// A register of a warp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reg {
    /// Up to 32 bits.
    Word(u32),
    /// 64 bits.
    Long(u32),
    /// A predicate.
    Predicate(u32),
    /// Nothing: a result that is dropped.
    Sink,
}

/// An operand of an instruction that has many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A register.
    Reg(Reg),
    /// An address: a long register and bytes added.
    Address(u32, i64),
    /// A tensor map's address with coordinates.
    Tensor(u32, i64, Vec<Reg>),
    /// A vector.
    Vector(Vec<Reg>),
}

/// A value that the hardware provides in a register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Special {
    /// `%tid`
    Thread(u8),
    /// `%ntid`
    Threads(u8),
    /// `%ctaid`
    Block(u8),
    /// `%nctaid`
    Blocks(u8),
    /// `%laneid`
    Lane,
    /// `%warpid`
    Warp,
    /// `%lanemask_lt` and so on: 0 eq, 1 lt, 2 le, 3 gt, 4 ge.
    LaneMask(u8),
    /// `%cluster_ctarank`
    ClusterRank,
    /// `%cluster_nctarank`
    ClusterSize,
    /// `%clusterid.x`
    Cluster,
    /// `%nclusterid.x`
    Clusters,
    /// `%dynamic_smem_size`
    DynamicShared,
}

impl Special {
    /// The register of that name.
    pub(super) fn parse(name: &str) -> Option<Special> {
        let axis = |rest: &str| ["x", "y", "z"].iter().position(|axis| *axis == rest).map(|at| at as u8);
        if let Some((head, rest)) = name.strip_prefix('%')?.split_once('.') {
            let at = axis(rest)?;
            return match head {
                "tid" => Some(Special::Thread(at)),
                "ntid" => Some(Special::Threads(at)),
                "ctaid" => Some(Special::Block(at)),
                "nctaid" => Some(Special::Blocks(at)),
                "cluster_ctaid" if at == 0 => Some(Special::ClusterRank),
                "cluster_nctaid" if at == 0 => Some(Special::ClusterSize),
                "clusterid" if at == 0 => Some(Special::Cluster),
                "nclusterid" if at == 0 => Some(Special::Clusters),
                _ => None,
            };
        }
        match name {
            "%laneid" => Some(Special::Lane),
            "%warpid" => Some(Special::Warp),
            "%lanemask_eq" => Some(Special::LaneMask(0)),
            "%lanemask_lt" => Some(Special::LaneMask(1)),
            "%lanemask_le" => Some(Special::LaneMask(2)),
            "%lanemask_gt" => Some(Special::LaneMask(3)),
            "%lanemask_ge" => Some(Special::LaneMask(4)),
            "%cluster_ctarank" => Some(Special::ClusterRank),
            "%cluster_nctarank" => Some(Special::ClusterSize),
            "%dynamic_smem_size" => Some(Special::DynamicShared),
            _ => None,
        }
    }
}

/// A kernel, ready to run.
pub struct Program {
    /// The entry's name.
    pub name: String,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Threads of a block as the entry demands.
    pub required_threads: Option<[u32; 3]>,
    /// The most threads of a block.
    pub max_threads: Option<[u32; 3]>,
    /// The instructions.
    pub(super) code: Vec<Inst>,
    /// Operands of instructions that have many.
    pub(super) lists: Vec<Vec<Arg>>,
    /// Registers of each width, with constants and special ones.
    pub(super) words: u32,
    /// See `words`.
    pub(super) longs: u32,
    /// See `words`.
    pub(super) predicates: u32,
    /// Words with a value of their own.
    pub(super) word_constants: Vec<(u32, u32)>,
    /// Long words with a value of their own.
    pub(super) long_constants: Vec<(u32, u64)>,
    /// Predicates with a value of their own.
    pub(super) predicate_constants: Vec<(u32, bool)>,
    /// Words that the hardware provides.
    pub(super) specials: Vec<(u32, Special)>,
    /// Bytes of shared memory that the kernel declares.
    pub static_shared: u32,
    /// The PTX text by lines.
    pub(super) lines: Vec<String>,
}

impl Program {
    /// Bytes of all parameters.
    pub fn param_bytes(&self) -> usize {
        self.params.iter().map(|param| (param.offset + param.bytes) as usize).max().unwrap_or(0)
    }
    /// The text of a line, counted from 1.
    pub fn line(&self, line: u32) -> &str {
        self.lines.get((line as usize).wrapping_sub(1)).map_or("", |text| text.trim())
    }
}
