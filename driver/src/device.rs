//! Where a model runs, and what it is compiled for.

use sinter_ir::Target;
use sinter_runtime::CudaReport;
use std::fmt;

/// What a bundle has kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuildTarget {
    /// The CPU.
    Host,
    /// A GPU.
    Gpu(Target),
}

impl BuildTarget {
    /// All of them.
    pub fn all() -> impl Iterator<Item = BuildTarget> {
        std::iter::once(BuildTarget::Host).chain(Target::ALL.map(BuildTarget::Gpu))
    }
    /// The target of that name: `host`, `sm_80`, `sm_89` or `sm_90a`.
    pub fn parse(name: &str) -> Result<BuildTarget, String> {
        let found = BuildTarget::all().find(|target| target.to_string() == name);
        found.ok_or_else(|| format!("wanted {}", words(BuildTarget::all())))
    }
}

impl fmt::Display for BuildTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildTarget::Host => f.write_str("host"),
            BuildTarget::Gpu(target) => target.fmt(f),
        }
    }
}

/// Names in a row: `host, sm_80`.
pub fn words(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceArg {
    /// A GPU if there is one that the model can run on, else the host.
    Auto,
    /// The CPU.
    Host,
    /// The virtual GPU, for the code of a target.
    Vgpu(Option<Target>),
    /// An NVIDIA GPU by number.
    Cuda(u32),
}

impl DeviceArg {
    /// `auto`, `host`, `vgpu`, `vgpu:sm_90a`, `cuda` or `cuda:1`.
    pub fn parse(text: &str) -> Result<DeviceArg, String> {
        let wanted = || "wanted auto, host, vgpu, vgpu:TARGET, cuda or cuda:N".to_owned();
        match text.split_once(':') {
            None if text == "auto" => Ok(DeviceArg::Auto),
            None if text == "host" => Ok(DeviceArg::Host),
            None if text == "vgpu" => Ok(DeviceArg::Vgpu(None)),
            None if text == "cuda" => Ok(DeviceArg::Cuda(0)),
            Some(("vgpu", name)) => Target::parse(name)
                .map(|target| DeviceArg::Vgpu(Some(target)))
                .ok_or_else(|| format!("wanted vgpu:{}", words(Target::ALL))),
            Some(("cuda", number)) => number.parse().map(DeviceArg::Cuda).map_err(|_| wanted()),
            _ => Err(wanted()),
        }
    }
}

/// What kernels there are, or can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kernels<'a> {
    /// A model, which is compiled for whatever is wanted, as far as this build can.
    Compiled {
        /// Whether this build can compile for GPUs.
        gpu: bool,
    },
    /// A bundle with kernels for these targets.
    There(&'a [BuildTarget]),
}

impl Kernels<'_> {
    fn host(&self) -> bool {
        match self {
            Kernels::Compiled { .. } => true,
            Kernels::There(targets) => targets.contains(&BuildTarget::Host),
        }
    }
    /// The targets that are there, the newest first.
    fn gpus(&self) -> Vec<Target> {
        let has = |target: &Target| match self {
            Kernels::Compiled { gpu } => *gpu,
            Kernels::There(targets) => targets.contains(&BuildTarget::Gpu(*target)),
        };
        Target::ALL.into_iter().rev().filter(has).collect()
    }
    fn lack(&self, wanted: impl fmt::Display) -> String {
        match self {
            Kernels::Compiled { .. } => format!("{}; {wanted}", crate::gpu::HOW_TO_COMPILE),
            Kernels::There(targets) => {
                format!(
                    "the bundle has kernels for {}, none for {wanted}; compile it again with --target",
                    words(*targets)
                )
            }
        }
    }
}

/// Where a model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On the CPU.
    Host,
    /// On the virtual GPU, with the code of a target.
    Vgpu(Target),
    /// On an NVIDIA GPU, with the code of a target.
    Cuda {
        /// Its number.
        ordinal: u32,
        /// What its kernels are for.
        target: Target,
    },
}

impl Place {
    /// What it needs kernels for.
    pub fn target(&self) -> BuildTarget {
        match self {
            Place::Host => BuildTarget::Host,
            Place::Vgpu(target) | Place::Cuda { target, .. } => BuildTarget::Gpu(*target),
        }
    }
}

/// The place for a wish: pure, so that every case has a test. The second part is what the user should be told.
///
/// # Errors
/// The reason, if what is asked for cannot be had; `auto` gets the host, and the reason as a note.
pub fn choose(
    wish: DeviceArg,
    kernels: &Kernels<'_>,
    cuda: &dyn Fn() -> CudaReport,
) -> Result<(Place, Option<String>), String> {
    match wish {
        DeviceArg::Host if kernels.host() => Ok((Place::Host, None)),
        DeviceArg::Host => Err(kernels.lack("the host")),
        DeviceArg::Vgpu(wanted) => {
            let there = kernels.gpus();
            let target = wanted.or(there.last().copied()).unwrap_or(Target::Sm80);
            let known = there.contains(&target).then_some((Place::Vgpu(target), None));
            known.ok_or_else(|| kernels.lack(format!("the virtual GPU needs {target}")))
        }
        DeviceArg::Cuda(ordinal) => on_cuda(ordinal, kernels, &cuda()).map(|place| (place, None)),
        DeviceArg::Auto => match on_cuda(0, kernels, &cuda()) {
            Ok(place) => Ok((place, None)),
            Err(reason) if kernels.host() => {
                Ok((Place::Host, Some(format!("running on the host: {reason}"))))
            }
            Err(reason) => Err(format!("{}; and {reason}", kernels.lack("the host"))),
        },
    }
}

fn on_cuda(ordinal: u32, kernels: &Kernels<'_>, report: &CudaReport) -> Result<Place, String> {
    let Some(device) = report.devices.get(ordinal as usize) else {
        let count = report.devices.len();
        let none = || format!("there is no cuda:{ordinal}, the driver has {count} devices");
        return Err(report.problem.clone().unwrap_or_else(none));
    };
    let (major, minor) = device.capability;
    let target = kernels.gpus().into_iter().find(|target| target.runs_on(major, minor));
    target.map(|target| Place::Cuda { ordinal, target }).ok_or_else(|| {
        kernels.lack(format!("cuda:{ordinal} is a {} of compute capability {major}.{minor}", device.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_runtime::CudaInfo;

    fn report(capabilities: &[(u32, u32)]) -> CudaReport {
        let info = |capability: &(u32, u32)| CudaInfo {
            name: "GPU".into(),
            capability: *capability,
            multiprocessors: 132,
            memory: 80 << 30,
        };
        let problem = capabilities.is_empty().then(|| "there is no CUDA driver".to_owned());
        CudaReport { driver: Some((12, 8)), devices: capabilities.iter().map(info).collect(), problem }
    }

    fn chosen(wish: &str, kernels: &Kernels<'_>, gpus: &[(u32, u32)]) -> Result<(Place, bool), String> {
        let place = choose(DeviceArg::parse(wish).unwrap(), kernels, &|| report(gpus))?;
        Ok((place.0, place.1.is_some()))
    }

    #[test]
    fn devices_have_one_spelling_each() {
        assert_eq!(DeviceArg::parse("vgpu:sm_90a"), Ok(DeviceArg::Vgpu(Some(Target::Sm90a))));
        assert_eq!(DeviceArg::parse("cuda:3"), Ok(DeviceArg::Cuda(3)));
        for wrong in ["", "tpu", "cuda:", "cuda:x", "vgpu:sm_70", "host:1", "auto:0"] {
            assert!(DeviceArg::parse(wrong).unwrap_err().starts_with("wanted"), "{wrong}");
        }
        for target in BuildTarget::all() {
            assert_eq!(BuildTarget::parse(&target.to_string()), Ok(target));
        }
        assert_eq!(BuildTarget::parse("sm_70").unwrap_err(), "wanted host, sm_80, sm_89, sm_90a");
    }

    #[test]
    fn auto_takes_a_gpu_that_it_can_use_and_says_why_not() {
        let (can, cannot) = (Kernels::Compiled { gpu: true }, Kernels::Compiled { gpu: false });
        let cuda = |target| Place::Cuda { ordinal: 0, target };
        assert_eq!(chosen("auto", &can, &[(9, 0)]), Ok((cuda(Target::Sm90a), false)));
        assert_eq!(chosen("auto", &can, &[(8, 6)]), Ok((cuda(Target::Sm80), false)));
        assert_eq!(chosen("auto", &can, &[(12, 0)]), Ok((cuda(Target::Sm89), false)));
        assert_eq!(chosen("auto", &can, &[(7, 5)]), Ok((Place::Host, true)));
        assert_eq!(chosen("auto", &cannot, &[(9, 0)]), Ok((Place::Host, true)));
        assert_eq!(chosen("auto", &can, &[]), Ok((Place::Host, true)));
    }

    #[test]
    fn a_bundle_runs_where_it_has_kernels_for() {
        let both = [BuildTarget::Host, BuildTarget::Gpu(Target::Sm80)];
        let gpu = [BuildTarget::Gpu(Target::Sm90a)];
        let (both, gpu) = (Kernels::There(&both), Kernels::There(&gpu));
        assert_eq!(
            chosen("auto", &both, &[(9, 0)]),
            Ok((Place::Cuda { ordinal: 0, target: Target::Sm80 }, false))
        );
        assert_eq!(chosen("auto", &both, &[]), Ok((Place::Host, true)));
        assert_eq!(chosen("host", &both, &[]), Ok((Place::Host, false)));
        assert_eq!(chosen("vgpu", &both, &[]), Ok((Place::Vgpu(Target::Sm80), false)));
        assert_eq!(chosen("vgpu", &gpu, &[]), Ok((Place::Vgpu(Target::Sm90a), false)));
        assert!(chosen("host", &gpu, &[]).unwrap_err().contains("kernels for sm_90a, none for the host"));
        assert!(chosen("auto", &gpu, &[]).unwrap_err().contains("no CUDA driver"));
        assert!(chosen("vgpu:sm_80", &gpu, &[]).unwrap_err().contains("needs sm_80"));
        assert!(chosen("cuda", &gpu, &[(8, 0)]).unwrap_err().contains("compute capability 8.0"));
        assert!(chosen("cuda:1", &both, &[(8, 0)]).unwrap_err().contains("no cuda:1"));
    }

    #[test]
    fn a_model_that_cannot_be_compiled_says_how_it_could() {
        let cannot = Kernels::Compiled { gpu: false };
        assert_eq!(chosen("host", &cannot, &[]), Ok((Place::Host, false)));
        assert!(chosen("vgpu", &cannot, &[]).unwrap_err().contains("--features nvptx"));
        assert!(chosen("cuda", &cannot, &[(9, 0)]).unwrap_err().contains("--features nvptx"));
        assert_eq!(
            chosen("vgpu", &Kernels::Compiled { gpu: true }, &[]),
            Ok((Place::Vgpu(Target::Sm80), false))
        );
    }
}
