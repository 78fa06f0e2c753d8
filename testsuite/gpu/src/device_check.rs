//! The kernels of the golden models on a device and on the virtual GPU, from the same tensors.
//!
//! Each distinct tile program of each model, in f32 and bf16, is a case. Of its kernels, one for each size of step that has
//! a kernel of its own, both devices run the same PTX, and what they leave is compared bit by bit.

use crate::drawn;
use crate::launch::{Stream, arguments, on_device, plan_of};
use serde_json::{Value, json};
use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_nvptx::{compile, draw};
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_frontend::source::ModelDir;
use sinter_ir::{Binding, DType, Expr, GpuDevice, GpuError, GpuProgram, PAGE, Target, Tensor, TileProgram};
use sinter_vgpu::VirtualGpu;
use std::path::{Path, PathBuf};

/// Tokens, sequences and pages of a step for each size that has launches of its own: a decode of a long context, more
/// decodes, and prompts.
const STEPS: [(u64, u64, u64); 5] = [(3, 2, 40), (11, 3, 4), (40, 2, 2), (100, 2, 4), (520, 3, 4)];

/// A distinct program of the golden models.
pub struct Subject {
    /// Its number among all.
    pub number: usize,
    /// The model where it was met first.
    pub model: String,
    /// What the model was compiled for.
    pub dtype: DType,
    /// The program.
    pub tile: TileProgram,
}

/// All distinct programs of the models in a folder, in a fixed order.
///
/// # Errors
/// If a model cannot be read or compiled.
pub fn subjects(goldens: &Path) -> Result<Vec<Subject>, String> {
    let mut found: Vec<Subject> = Vec::new();
    for path in models(goldens)? {
        for dtype in [DType::F32, DType::Bf16] {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let wrong = |reason: String| format!("{name}: {reason}");
            let model = ModelDir::open(&path).map_err(|error| wrong(error.to_string()))?;
            let model = Model::open(model).map_err(|error| wrong(error.to_string()))?;
            let graph = model.build(BuildOptions::new(dtype)).map_err(|error| wrong(error.to_string()))?;
            let compiled = sinter_passes::compile(&graph, &sinter_passes::Options::default());
            for tile in compiled.map_err(|error| wrong(error.to_string()))?.plan.kernels.values() {
                if found.iter().all(|known| known.tile != *tile) {
                    let (number, model) = (found.len(), name.clone());
                    found.push(Subject { number, model, dtype, tile: tile.clone() });
                }
            }
        }
    }
    Ok(found)
}

/// The folders that hold a model of their own.
fn models(goldens: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(goldens).map_err(|error| format!("{}: {error}", goldens.display()))?;
    let own = |path: &PathBuf| path.join("config.json").exists() && !path.join("same_weights_as").exists();
    let mut models: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(own).collect();
    models.sort();
    Ok(models)
}

/// What came of one step of a case.
struct Step<'a> {
    tile: &'a TileProgram,
    binding: Binding,
    before: Vec<Tensor<f32>>,
    found: Vec<Tensor<f32>>,
}

impl Subject {
    /// Runs the case; with a folder the program, its arguments and the device's results are written there for torch. The
    /// second value is whether the device can still be used.
    pub fn run(&self, gpu: &mut dyn GpuDevice, target: Target, dump: Option<&Path>) -> (Value, bool) {
        let head = json!({
            "number": self.number, "kernel": self.tile.name, "model": self.model, "dtype": self.dtype,
            "target": target,
        });
        let with = |more: Value| {
            let mut all = head.clone();
            for (key, value) in more.as_object().into_iter().flatten() {
                all[key] = value.clone();
            }
            all
        };
        let failed = |reason: String| with(json!({ "good": false, "error": reason }));
        let program = match compile(&plan_of(&self.tile), target) {
            Ok(program) => program,
            Err(error) => return (failed(error.to_string()), true),
        };
        let mut steps = Vec::new();
        for at in own_steps(&program) {
            match self.step((gpu, target), &program, at) {
                Ok((result, step)) => {
                    if let Some(Err(error)) = dump.map(|folder| self.dump(folder, at, &step)) {
                        return (failed(format!("writing for torch: {error}")), true);
                    }
                    steps.push(result);
                }
                Err((reason, usable)) => return (failed(reason), usable),
            }
        }
        let good = steps.iter().all(|step| step["good"] == true);
        (with(json!({ "good": good, "steps": steps })), true)
    }

    /// One size of step on both devices; an error says whether the device can still be used.
    fn step(
        &self,
        (gpu, target): (&mut dyn GpuDevice, Target),
        program: &GpuProgram,
        at: usize,
    ) -> Result<(Value, Step<'_>), (String, bool)> {
        let tile = &self.tile;
        let (tokens, sequences, pages) = STEPS[at];
        let binding = Binding::new(tokens, sequences, pages, sequences * pages * PAGE).with_rows(sequences);
        let before = arguments(&mut Stream(self.number as u64 + 1), tile, &binding);
        let wrong = |device: &str, error: &GpuError| format!("{tokens} tokens {device}: {error}");
        let found = on_device(gpu, (tile, program), &binding, &before);
        let found = found.map_err(|error| (wrong("on the GPU", &error), false))?;
        let wanted = on_device(&mut VirtualGpu::new(target), (tile, program), &binding, &before);
        let wanted = wanted.map_err(|error| (wrong("on the virtual GPU", &error), true))?;
        let (mut different, mut all, mut share) = (0, 0, 0f64);
        for ((param, found), wanted) in tile.params.values().zip(&found).zip(&wanted) {
            let bound = bound(tile, param.ty.dtype);
            for (a, b) in found.data.iter().zip(&wanted.data) {
                all += 1;
                if a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan() {
                    continue;
                }
                different += 1;
                let off = (f64::from(*a) - f64::from(*b)).abs() / f64::from(b.abs()).max(1.0);
                share = share.max(if off.is_nan() { f64::INFINITY } else { off / bound });
            }
        }
        let result = json!({
            "tokens": tokens, "kernel": program.kernels[program.buckets[at].launches[0].kernel].name,
            "numbers": all, "different_bits": different, "worst_share_of_bound": share, "good": share <= 1.0,
        });
        Ok((result, Step { tile, binding, before, found }))
    }

    /// Writes the case for torch: the program as text, and all tensors before and after as f32.
    fn dump(&self, folder: &Path, at: usize, step: &Step<'_>) -> std::io::Result<()> {
        let name = format!("{:04}-{}-{}", self.number, self.tile.name, STEPS[at].0);
        let shapes: Vec<_> = step.before.iter().map(|tensor| &tensor.shape).collect();
        let head = json!({ "tile": step.tile.to_string(), "symbols": step.binding.values, "shapes": shapes });
        std::fs::write(folder.join(format!("{name}.json")), head.to_string())?;
        let all = step.before.iter().chain(&step.found).flat_map(|tensor| &tensor.data);
        let bytes: Vec<u8> = all.flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(folder.join(format!("{name}.bin")), bytes)
    }
}

/// The kernel that draws, on rows of one piece and of several: both devices must give the same tokens. The second value is
/// whether the device can still be used.
pub fn check_draw(gpu: &mut dyn GpuDevice, target: Target, number: usize) -> (Value, bool) {
    let mut steps = Vec::new();
    for (width, count) in [(200, 60), (8195, 40), (128_256, 6)] {
        match drawn_alike(gpu, target, (width, count)) {
            Ok(same) => steps.push(json!({ "width": width, "rows": count, "good": same })),
            Err((reason, usable)) => {
                let failed = json!({ "number": number, "kernel": "draw", "good": false, "error": reason });
                return (failed, usable);
            }
        }
    }
    let good = steps.iter().all(|step| step["good"] == true);
    (json!({ "number": number, "kernel": "draw", "target": target, "good": good, "steps": steps }), true)
}

fn drawn_alike(
    gpu: &mut dyn GpuDevice,
    target: Target,
    (width, count): (usize, usize),
) -> Result<bool, (String, bool)> {
    let assembler = Assembler::new(target).map_err(|error| (error.to_string(), true))?;
    let kernel = draw::kernel(&assembler, "draw".into(), width as u32);
    let kernel = kernel.map_err(|error| (error.to_string(), true))?;
    let (rows, draws) = drawn::rows_with_draws(width, count);
    let wrong = |device: &str, error: GpuError| format!("width {width} {device}: {error}");
    let found = drawn::twice(gpu, &kernel, &rows, &draws);
    let found = found.map_err(|error| (wrong("on the GPU", error), false))?;
    let wanted = drawn::twice(&mut VirtualGpu::new(target), &kernel, &rows, &draws);
    Ok(found == wanted.map_err(|error| (wrong("on the virtual GPU", error), true))?)
}

/// The sizes of steps that have a kernel of their own.
fn own_steps(program: &GpuProgram) -> Vec<usize> {
    let kernel = |at: usize| program.buckets[at].launches.first().map(|launch| launch.kernel);
    let all = 0..program.buckets.len().min(STEPS.len());
    all.filter(|at| kernel(*at).is_some() && (0..*at).all(|before| kernel(before) != kernel(*at))).collect()
}

/// How far a GPU may be from the virtual GPU, relative to the greater of 1 and the number. Exponentials, roots and
/// quotients are only specified up to an error, and where their results are rounded to 16 bits, one may be rounded the other
/// way.
fn bound(tile: &TileProgram, stored: DType) -> f64 {
    let narrow = |dtype: DType| matches!(dtype, DType::Bf16 | DType::F16);
    let rounds = tile.exprs.values().any(|expr| matches!(expr, Expr::Cast(dtype, _) if narrow(*dtype)));
    let read = tile.params.values().any(|param| narrow(param.ty.dtype));
    match stored {
        DType::Bf16 => 2f64.powi(-7),
        DType::F16 => 2f64.powi(-9),
        DType::F32 if rounds || read => 2f64.powi(-8),
        DType::F32 => 1e-5,
        // Whole numbers are what they are.
        _ => f64::MIN_POSITIVE,
    }
}
