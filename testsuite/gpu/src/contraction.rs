//! Contractions to be tested: programs of the text form, their kernels by a given schedule, and tensors for them.

use crate::launch::{Stream, alone, arguments, on_device};
use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_nvptx::{Piece, contract};
use sinter_codegen_schedule::contract::Contract;
use sinter_ir::{
    Binding, DType, GpuError, GpuKernel, GpuProgram, Layout, Target, Tensor, TileProgram, verify_tile,
};
use sinter_vgpu::{Counters, VirtualGpu};

/// A program of the text form, with element types and extents filled in.
pub fn parsed(text: &str, facts: &[(&str, &str)]) -> TileProgram {
    let text = facts.iter().fold(text.to_string(), |text, (name, value)| text.replace(name, value));
    TileProgram::parse(&text).unwrap_or_else(|error| panic!("{error:?} in\n{text}"))
}

/// `x · wᵀ`, for a weight of `n` rows of `k` elements.
pub fn product((operands, result): (DType, DType), (n, k): (usize, usize)) -> TileProgram {
    let text = format!(
        "tile @contract {{
  p0: {operands}[T, {k}] read rows \"x\"
  p1: {operands}[{n}, {k}] read panels \"w\"
  p2: {result}[T, {n}] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..{n} \"n\"
  a2 = 0..{k} \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  e0 = s0
  s1 = store [] p2[a0, a1] = e0
}}"
    );
    parsed(&text, &[])
}

/// The kernel of a program by a schedule.
pub fn kernel(tile: &TileProgram, target: Target, schedule: &Contract) -> GpuKernel {
    let constant = tile.params.values().map(|param| param.layout != Layout::Rows).collect();
    let assembler = Assembler::new(target).expect("the target is known");
    let kernel = contract::kernel(&assembler, "contract".into(), &Piece { tile, constant }, schedule, None);
    kernel.unwrap_or_else(|error| panic!("{schedule}: {error}"))
}

/// A program with tensors for so many tokens.
pub struct Case {
    /// The program.
    pub tile: TileProgram,
    /// The values of its symbols.
    pub binding: Binding,
    /// Its parameters.
    pub params: Vec<Tensor<f32>>,
}

impl Case {
    /// Tensors for a sound program.
    pub fn new(tile: TileProgram, tokens: u64) -> Case {
        assert_eq!(verify_tile(&tile), vec![], "{tile}");
        let binding = Binding::new(tokens, 1, 1, 16);
        let params = arguments(&mut Stream(tokens), &tile, &binding);
        Case { tile, binding, params }
    }

    /// The program compiled by a schedule.
    pub fn program(&self, target: Target, schedule: &Contract) -> GpuProgram {
        alone(&self.tile, target, kernel(&self.tile, target, schedule))
    }

    /// What it leaves, and what was counted, on a virtual GPU so small that persistent blocks do several tiles each.
    ///
    /// # Errors
    /// What the virtual GPU finds wrong.
    pub fn run(&self, program: &GpuProgram) -> Result<(Vec<Tensor<f32>>, Counters), GpuError> {
        let mut device = VirtualGpu::new(program.target).with_multiprocessors(2);
        let out = on_device(&mut device, (&self.tile, program), &self.binding, &self.params)?;
        Ok((out, device.take_counters()[0].counters))
    }
}
