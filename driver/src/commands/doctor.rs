//! `sinter doctor`: what this machine offers, and what could be better.

use crate::environment::Environment;
use crate::gpu;
use crate::output::{Output, bytes, rows};
use anyhow::Result;
use serde_json::{Value, json};
use sinter_codegen_host::micro::Isa;
use sinter_runtime::CudaInfo;
use std::path::Path;

pub(super) fn run(env: &Environment, output: &Output) -> Result<()> {
    let isa = Isa::detect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").ok();
    let memory = |field: &str| memory.as_deref().and_then(|text| meminfo(text, field));
    let (total, free) = (memory("MemTotal"), memory("MemAvailable"));
    let hub = env.hub_cache.as_ref().map(|hub| hub.root.clone());
    let models = hub.as_deref().map_or(0, cached_models);
    let cuda = sinter_runtime::cuda_report();
    let cache = env.cache.clone();
    let writable = cache.as_deref().is_some_and(writable);
    let mut advice = Vec::new();
    if isa < Isa::Avx512Bf16 {
        advice.push(format!("the processor has {isa} and no bf16 dot product; --dtype auto uses f32"));
    }
    if !writable {
        advice
            .push("no cache directory can be written; set SINTER_CACHE, or every start compiles anew".into());
    }
    if models == 0 {
        advice.push("the hub cache has no models; download some, or name a model's directory".into());
    }
    if free.zip(total).is_some_and(|(free, total)| free < total / 10) {
        advice.push("less than a tenth of the memory is free".into());
    }
    if cuda.driver.is_some()
        && let Some(problem) = &cuda.problem
    {
        advice.push(format!("the CUDA driver cannot be used: {problem}"));
    }
    if !cuda.devices.is_empty() && !gpu::CAN_COMPILE {
        advice.push(gpu::HOW_TO_COMPILE.into());
    }
    let value = json!({
        "sinter": env!("CARGO_PKG_VERSION"),
        "isa": isa.to_string(),
        "threads": cores,
        "memory_bytes": total,
        "memory_free_bytes": free,
        "cache": cache,
        "cache_writable": writable,
        "hub_cache": hub,
        "hub_models": models,
        "cuda_driver": cuda.driver.map(|(major, minor)| format!("{major}.{minor}")),
        "cuda_devices": cuda.devices.iter().map(device).collect::<Vec<_>>(),
        "cuda_problem": cuda.problem,
        "ptx_compiler": gpu::CAN_COMPILE,
        "advice": advice,
    });
    output.result(&value, || {
        let size = |count: Option<u64>| count.map_or("unknown".into(), bytes);
        let place =
            |path: Option<&std::path::PathBuf>| path.map_or("none".into(), |path| path.display().to_string());
        let table = rows(&[
            ("sinter", env!("CARGO_PKG_VERSION").into()),
            ("processor", format!("{isa}, {cores} threads")),
            ("memory", format!("{}, {} free", size(total), size(free))),
            ("cache", format!("{}{}", place(cache.as_ref()), if writable { "" } else { " (not writable)" })),
            ("hub cache", format!("{}, {models} models", place(hub.as_ref()))),
            (
                "CUDA driver",
                match cuda.driver {
                    Some((major, minor)) => format!("for CUDA {major}.{minor}"),
                    None => cuda.problem.clone().unwrap_or("none".into()),
                },
            ),
            ("PTX compiler", if gpu::CAN_COMPILE { "built in" } else { "not built in" }.into()),
        ]);
        let devices: String = cuda
            .devices
            .iter()
            .enumerate()
            .map(|(at, info)| format!("cuda:{at}  {}\n", in_words(info)))
            .collect();
        let advice: String = advice.iter().map(|line| format!("advice: {line}\n")).collect();
        table + &devices + &advice
    })
}

fn device(info: &CudaInfo) -> Value {
    let (major, minor) = info.capability;
    json!({
        "name": info.name,
        "capability": format!("{major}.{minor}"),
        "multiprocessors": info.multiprocessors,
        "memory_bytes": info.memory,
    })
}

fn in_words(info: &CudaInfo) -> String {
    let ((major, minor), memory) = (info.capability, bytes(info.memory));
    format!(
        "{}, compute capability {major}.{minor}, {} multiprocessors, {memory}",
        info.name, info.multiprocessors
    )
}

/// A field of /proc/meminfo in bytes.
/// A field of the system's account of its memory, in bytes.
pub(crate) fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn cached_models(hub: &Path) -> usize {
    let entries = std::fs::read_dir(hub).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("models--")).count()
}

/// Whether a file can be made in the directory, or where it would be made.
fn writable(cache: &Path) -> bool {
    let there = cache.ancestors().find(|path| path.exists());
    let Some(there) = there else { return false };
    let probe = there.join(format!(".sinter-probe-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe).is_ok();
    // The probe is empty; if it cannot be removed, nothing is lost.
    let _ = std::fs::remove_file(&probe);
    made
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_of_meminfo_are_bytes() {
        let text = "MemTotal:       16 kB\nMemTotalX: 3 kB\nMemAvailable:   2 kB\n";
        assert_eq!(super::meminfo(text, "MemTotal"), Some(16384));
        assert_eq!(super::meminfo(text, "MemAvailable"), Some(2048));
        assert_eq!(super::meminfo(text, "SwapTotal"), None);
    }
}
