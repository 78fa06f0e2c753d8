//! The micro-kernels as callees of generated code: their names, signatures and addresses.

use crate::micro::quant::QuantKernels;
use crate::micro::{Kernels, sort_by_group};
use cranelift_codegen::ir::{self, AbiParam, FuncRef, Signature, types};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_jit::JITModule;
use cranelift_module::{FuncId, Linkage, Module, ModuleError};
use std::collections::BTreeMap;

/// A micro-kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Callee {
    GemmF32,
    GemmBf16,
    GemmCodes,
    SumCodes,
    UnpackF32,
    UnpackBf16,
    ScoresF32,
    ScoresBf16,
    ScoresI8,
    ScoresI4,
    ScoresE4m3,
    OnlineF32,
    OnlineBf16,
    OnlineI8,
    OnlineI4,
    OnlineE4m3,
    Exp4,
    Tanh4,
    Erf4,
    Log4,
    Sin4,
    Cos4,
    Exp,
    Tanh,
    Erf,
    Log,
    SortByGroup,
}

impl Callee {
    const ALL: [Callee; 27] = [
        Self::GemmF32,
        Self::GemmBf16,
        Self::GemmCodes,
        Self::SumCodes,
        Self::UnpackF32,
        Self::UnpackBf16,
        Self::ScoresF32,
        Self::ScoresBf16,
        Self::ScoresI8,
        Self::ScoresI4,
        Self::ScoresE4m3,
        Self::OnlineF32,
        Self::OnlineBf16,
        Self::OnlineI8,
        Self::OnlineI4,
        Self::OnlineE4m3,
        Self::Exp4,
        Self::Tanh4,
        Self::Erf4,
        Self::Log4,
        Self::Sin4,
        Self::Cos4,
        Self::Exp,
        Self::Tanh,
        Self::Erf,
        Self::Log,
        Self::SortByGroup,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::GemmF32 => "gemm_f32",
            Self::GemmBf16 => "gemm_bf16",
            Self::GemmCodes => "gemm_codes",
            Self::SumCodes => "sum_codes",
            Self::UnpackF32 => "unpack_f32",
            Self::UnpackBf16 => "unpack_bf16",
            Self::ScoresF32 => "scores_f32",
            Self::ScoresBf16 => "scores_bf16",
            Self::ScoresI8 => "scores_i8",
            Self::ScoresI4 => "scores_i4",
            Self::ScoresE4m3 => "scores_e4m3",
            Self::OnlineF32 => "online_f32",
            Self::OnlineBf16 => "online_bf16",
            Self::OnlineI8 => "online_i8",
            Self::OnlineI4 => "online_i4",
            Self::OnlineE4m3 => "online_e4m3",
            Self::Exp4 => "exp4",
            Self::Tanh4 => "tanh4",
            Self::Erf4 => "erf4",
            Self::Log4 => "log4",
            Self::Sin4 => "sin4",
            Self::Cos4 => "cos4",
            Self::Exp => "exp",
            Self::Tanh => "tanh",
            Self::Erf => "erf",
            Self::Log => "log",
            Self::SortByGroup => "sort_by_group",
        }
    }

    fn address(self, kernels: &Kernels, quant: &QuantKernels) -> *const u8 {
        match self {
            Self::GemmF32 => kernels.gemm_f32 as *const u8,
            Self::GemmBf16 => kernels.gemm_bf16 as *const u8,
            Self::GemmCodes => quant.gemm_codes as *const u8,
            Self::SumCodes => quant.sums as *const u8,
            Self::UnpackF32 => quant.unpack_f32 as *const u8,
            Self::UnpackBf16 => quant.unpack_bf16 as *const u8,
            Self::ScoresF32 => kernels.scores_f32 as *const u8,
            Self::ScoresBf16 => kernels.scores_bf16 as *const u8,
            Self::ScoresI8 => kernels.scores_i8 as *const u8,
            Self::ScoresI4 => kernels.scores_i4 as *const u8,
            Self::ScoresE4m3 => kernels.scores_e4m3 as *const u8,
            Self::OnlineF32 => kernels.online_f32 as *const u8,
            Self::OnlineBf16 => kernels.online_bf16 as *const u8,
            Self::OnlineI8 => kernels.online_i8 as *const u8,
            Self::OnlineI4 => kernels.online_i4 as *const u8,
            Self::OnlineE4m3 => kernels.online_e4m3 as *const u8,
            Self::Exp4 => kernels.exp4 as *const u8,
            Self::Tanh4 => kernels.tanh4 as *const u8,
            Self::Erf4 => kernels.erf4 as *const u8,
            Self::Log4 => kernels.log4 as *const u8,
            Self::Sin4 => kernels.sin4 as *const u8,
            Self::Cos4 => kernels.cos4 as *const u8,
            Self::Exp => kernels.exp as *const u8,
            Self::Tanh => kernels.tanh as *const u8,
            Self::Erf => kernels.erf as *const u8,
            Self::Log => kernels.log as *const u8,
            Self::SortByGroup => sort_by_group as *const u8,
        }
    }

    /// Pointers and sizes are all 64 bits wide; functions of four lanes return them.
    fn signature(self, mut signature: Signature) -> Signature {
        let words = match self {
            Self::GemmF32 | Self::GemmBf16 => 8,
            Self::ScoresF32 | Self::ScoresBf16 | Self::ScoresI8 | Self::ScoresI4 | Self::ScoresE4m3 => 7,
            Self::OnlineF32 | Self::OnlineBf16 | Self::OnlineI8 | Self::OnlineI4 | Self::OnlineE4m3 => 9,
            Self::GemmCodes => 9,
            Self::SumCodes => 6,
            Self::SortByGroup | Self::UnpackF32 | Self::UnpackBf16 => 5,
            Self::Exp | Self::Tanh | Self::Erf | Self::Log => 3,
            _ => {
                signature.params.push(AbiParam::new(types::F32X4));
                signature.returns.push(AbiParam::new(types::F32X4));
                return signature;
            }
        };
        signature.params.extend([AbiParam::new(types::I64)].into_iter().cycle().take(words));
        signature
    }
}

/// The name and address of every micro-kernel.
pub(crate) fn symbols(
    kernels: &Kernels,
    quant: &QuantKernels,
) -> impl Iterator<Item = (&'static str, *const u8)> {
    Callee::ALL.into_iter().map(|callee| (callee.name(), callee.address(kernels, quant)))
}

/// The micro-kernels as declared in a module.
pub(crate) struct Imports {
    functions: BTreeMap<Callee, FuncId>,
}

impl Imports {
    pub(crate) fn declare(module: &mut JITModule) -> Result<Self, Box<ModuleError>> {
        let mut functions = BTreeMap::new();
        for callee in Callee::ALL {
            let signature = callee.signature(module.make_signature());
            functions.insert(callee, module.declare_function(callee.name(), Linkage::Import, &signature)?);
        }
        Ok(Self { functions })
    }
}

/// The micro-kernels that one function calls.
pub(crate) struct Calls<'a> {
    module: &'a mut JITModule,
    imports: &'a Imports,
    known: BTreeMap<Callee, FuncRef>,
}

impl<'a> Calls<'a> {
    pub(crate) fn new(module: &'a mut JITModule, imports: &'a Imports) -> Self {
        Self { module, imports, known: BTreeMap::new() }
    }

    pub(crate) fn frontend(&self) -> TargetFrontendConfig {
        self.module.isa().frontend_config()
    }

    pub(crate) fn reference(&mut self, callee: Callee, func: &mut ir::Function) -> FuncRef {
        let (module, id) = (&mut *self.module, self.imports.functions[&callee]);
        *self.known.entry(callee).or_insert_with(|| module.declare_func_in_func(id, func))
    }
}
