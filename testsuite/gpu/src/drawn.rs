//! Tokens drawn by the kernel that draws, and rows to draw them from.

use crate::launch::{Stream, shape};
use sinter_ir::draw::{DRAW_BYTES, Draw};
use sinter_ir::{Binding, GpuDevice, GpuError, GpuKernel, GpuParam, LaunchArg};
use sinter_runtime::{Sampler, SamplingParams};

/// The tokens of rows of equal width, from two launches with one scratch memory: a launch leaves it as the next wants it.
///
/// # Errors
/// What the device finds wrong.
pub fn twice(
    device: &mut dyn GpuDevice,
    kernel: &GpuKernel,
    rows: &[Vec<f32>],
    draws: &[Option<Draw>],
) -> Result<[Vec<u32>; 2], GpuError> {
    let put = |device: &mut dyn GpuDevice, bytes: &[u8]| {
        let at = device.alloc(bytes.len() as u64)?;
        device.write(at, bytes).map(|()| at)
    };
    assert_eq!((draws.len(), DRAW_BYTES), (rows.len(), 32));
    let logits = rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let logits = put(device, &logits)?;
    let wanted = draws.iter().flat_map(|draw| Draw::bytes(draw.as_ref())).collect::<Vec<u8>>();
    let wanted = put(device, &wanted)?;
    let tokens = device.alloc(rows.len() as u64 * 4)?;
    let binding = Binding::new(1, 1, 1, 16).with_rows(rows.len() as u64);
    let scratch = put(device, &vec![0; kernel.scratch_bytes(&binding) as usize])?;
    let arg = |param: &GpuParam| match param {
        GpuParam::Address(at) => LaunchArg::Address([logits, wanted, tokens][*at]),
        GpuParam::Scratch => LaunchArg::Address(scratch),
        other => panic!("the kernel wants {other:?}"),
    };
    let args: Vec<LaunchArg> = kernel.params.iter().map(arg).collect();
    let shape = shape(kernel, &binding, device);
    let function = device.load(&kernel.ptx, &kernel.name, kernel.shared_bytes)?;
    let mut once = || -> Result<Vec<u32>, GpuError> {
        device.write(tokens, &vec![0xaa; rows.len() * 4])?;
        device.launch(function, shape, &args)?;
        device.synchronize()?;
        let mut bytes = vec![0; rows.len() * 4];
        device.read(tokens, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    Ok([once()?, once()?])
}

/// So many rows of several shapes, and a draw by other parameters from each.
pub fn rows_with_draws(width: usize, count: usize) -> (Vec<Vec<f32>>, Vec<Option<Draw>>) {
    let mut stream = Stream(width as u64);
    let rows = (0..count).map(|at| row(at, width, &mut stream)).collect();
    let draw = |at: usize| Sampler::new(params(at)).ok()?.on_device(at as u64);
    (rows, (0..count).map(draw).collect())
}

/// Rows of several shapes: spread like a model's, peaked, flat, with equal logits, with logits that are ruled out.
pub fn row(kind: usize, width: usize, stream: &mut Stream) -> Vec<f32> {
    let bell = |stream: &mut Stream| (0..6).map(|_| stream.number()).sum::<f32>();
    (0..width)
        .map(|_| match kind % 6 {
            0 => bell(stream) * 3.0,
            1 => bell(stream).powi(3) * 4.0,
            2 => 1.0 + stream.number() * 0.01,
            3 => (bell(stream) * 4.0).round() / 2.0,
            4 if stream.below(4) == 0 => f32::NEG_INFINITY,
            4 => bell(stream) * 9.0 - 20.0,
            _ => stream.below(3) as f32 - 1.0,
        } * if stream.below(2) == 0 { 1.0 } else { -1.0 })
        .map(|x| if x == f32::INFINITY { f32::NEG_INFINITY } else { x })
        .collect()
}

/// Parameters that turn each filter on and off, alone and together.
pub fn params(at: usize) -> SamplingParams {
    let pick = |shift: usize, list: &[f32]| list[(at / shift) % list.len()];
    SamplingParams {
        temperature: pick(1, &[0.0, 1.0, 0.7, 0.1, 2.5, 1e-9, 1e4]),
        top_k: pick(2, &[0.0, 1.0, 40.0, 3.0, 5000.0]) as usize,
        top_p: pick(3, &[1.0, 0.9, 0.5, 0.0, 0.999]),
        min_p: pick(5, &[0.0, 0.0, 0.05, 1.0, 1e-6]),
        seed: at as u64 * 7 + 1,
        ..SamplingParams::greedy()
    }
}
