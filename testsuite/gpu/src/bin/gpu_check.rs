//! The kernels of the golden models on a real GPU and on the virtual GPU, from the same tensors: `run.sh` calls it.
//!
//! ```text
//! gpu_check --goldens DIR --out FILE [--dump DIR] [--virtual sm_80]
//! ```
//!
//! Each distinct tile program of each model, in f32 and bf16, is one case: both devices run the same PTX, and what they
//! leave is compared bit by bit. With `--dump` the program, its arguments and the GPU's results are written for torch.
//! `--virtual` takes the virtual GPU in the GPU's place, which checks nothing but this tool and what comes after it.

use serde_json::{Value, json};
use sinter_codegen_nvptx::compile;
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_frontend::source::ModelDir;
use sinter_gpu_tests::launch::{Stream, arguments, on_device, plan_of};
use sinter_ir::{Binding, DType, GpuDevice, Target, Tensor, TileProgram};
use sinter_runtime::CudaDevice;
use sinter_vgpu::VirtualGpu;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

struct Arguments {
    goldens: PathBuf,
    out: PathBuf,
    dump: Option<PathBuf>,
    instead: Option<Target>,
}

fn main() -> ExitCode {
    match read_arguments().and_then(|arguments| check_all(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

fn read_arguments() -> Result<Arguments, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let find = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).map(PathBuf::from)
    };
    let name = find("--virtual").map(|name| name.display().to_string());
    let parse = |name: String| Target::parse(&name).ok_or_else(|| format!("there is no target {name}"));
    let instead = name.map(parse).transpose()?;
    let wanted = |flag: &str| find(flag).ok_or_else(|| format!("{flag} is missing"));
    Ok(Arguments { goldens: wanted("--goldens")?, out: wanted("--out")?, dump: find("--dump"), instead })
}

/// Runs all cases and writes the results; whether all were good.
fn check_all(arguments: &Arguments) -> Result<bool, String> {
    let mut gpu: Box<dyn GpuDevice> = match arguments.instead {
        Some(target) => Box::new(VirtualGpu::new(target)),
        None => Box::new(CudaDevice::open(0).map_err(|error| error.to_string())?),
    };
    let (major, minor) = gpu.capability();
    let target = Target::ALL.into_iter().rev().find(|target| target.runs_on(major, minor));
    let target = target.ok_or_else(|| format!("{} of {major}.{minor} is too old", gpu.name()))?;
    if let Some(dump) = &arguments.dump {
        std::fs::create_dir_all(dump).map_err(|error| error.to_string())?;
    }
    let (mut seen, mut results) = (Vec::<TileProgram>::new(), Vec::new());
    for path in models(&arguments.goldens)? {
        for dtype in [DType::F32, DType::Bf16] {
            let model = ModelDir::open(&path).map_err(|error| error.to_string())?;
            let model = Model::open(model).map_err(|error| error.to_string())?;
            let graph = model.build(BuildOptions::new(dtype)).map_err(|error| error.to_string())?;
            let plan = sinter_passes::compile(&graph, &sinter_passes::Options::default());
            let plan = plan.map_err(|error| error.to_string())?.plan;
            for tile in plan.kernels.values() {
                if seen.contains(tile) {
                    continue;
                }
                let case = Case { tile, target, seed: seen.len() as u64 + 1 };
                let model = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let mut result = case.run(&mut *gpu, arguments.dump.as_deref());
                result["model"] = json!(model);
                result["dtype"] = json!(dtype);
                println!("{result}");
                results.push(result);
                seen.push(tile.clone());
            }
        }
    }
    let good = !results.is_empty() && results.iter().all(|result| result["good"] == true);
    let text = serde_json::to_string_pretty(&results).map_err(|error| error.to_string())?;
    std::fs::write(&arguments.out, text).map_err(|error| error.to_string())?;
    Ok(good)
}

/// The folders that hold a model of their own.
fn models(goldens: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(goldens).map_err(|error| format!("{}: {error}", goldens.display()))?;
    let own = |path: &PathBuf| path.join("config.json").exists() && !path.join("same_weights_as").exists();
    let mut models: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(own).collect();
    models.sort();
    Ok(models)
}

/// One tile program.
struct Case<'a> {
    tile: &'a TileProgram,
    target: Target,
    seed: u64,
}

impl Case<'_> {
    fn run(&self, gpu: &mut dyn GpuDevice, dump: Option<&Path>) -> Value {
        let tile = self.tile;
        let binding = Binding::new(5, 2, 2, 64).with_rows(3);
        let before = arguments(&mut Stream(self.seed), tile, &binding);
        let failed = |reason: String| json!({ "kernel": tile.name, "good": false, "error": reason });
        let program = match compile(&plan_of(tile), self.target) {
            Ok(program) => program,
            Err(error) => return failed(error.to_string()),
        };
        let found = match on_device(gpu, (tile, &program), &binding, &before) {
            Ok(found) => found,
            Err(error) => return failed(format!("on the GPU: {error}")),
        };
        let mut vgpu = VirtualGpu::new(self.target);
        let wanted = match on_device(&mut vgpu, (tile, &program), &binding, &before) {
            Ok(wanted) => wanted,
            Err(error) => return failed(format!("on the virtual GPU: {error}")),
        };
        let pairs = found.iter().zip(&wanted).flat_map(|(a, b)| a.data.iter().zip(&b.data));
        let (mut different, mut worst) = (0, 0f32);
        for (a, b) in pairs {
            if a.to_bits() != b.to_bits() {
                different += 1;
                worst = worst.max((a - b).abs() / b.abs().max(1.0));
            }
        }
        let mut result = json!({
            "kernel": tile.name,
            "target": self.target,
            "different_bits": different,
            "worst": worst,
            // Where the instructions are only specified up to an error, the last bits may differ.
            "good": worst <= 1e-5,
        });
        if let Some(dump) = dump
            && let Err(error) = self.dump(dump, &binding, (&before, &found))
        {
            result["dump"] = json!(error.to_string());
        }
        result
    }

    /// Writes the case for torch: the program as text, and all tensors before and after as f32.
    fn dump(
        &self,
        folder: &Path,
        binding: &Binding,
        (before, after): (&[Tensor<f32>], &[Tensor<f32>]),
    ) -> std::io::Result<()> {
        let name = format!("{:04}-{}", self.seed, self.tile.name);
        let shapes: Vec<_> = before.iter().map(|tensor| &tensor.shape).collect();
        let head = json!({ "tile": self.tile.to_string(), "symbols": binding.values, "shapes": shapes });
        std::fs::write(folder.join(format!("{name}.json")), head.to_string())?;
        let all = before.iter().chain(after).flat_map(|tensor| &tensor.data);
        let bytes: Vec<u8> = all.flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(folder.join(format!("{name}.bin")), bytes)
    }
}
