//! The static gate: NVIDIA's assembler must accept a kernel for its target, without spills, stack, or a note about lost
//! performance.

use sinter_ir::{GpuKernel, Target};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The assembler that the environment names. There is no test without one.
pub fn assembler() -> PathBuf {
    let path = std::env::var_os("SINTER_PTXAS");
    path.map(PathBuf::from)
        .expect("SINTER_PTXAS names ptxas; `make ptxas` installs it and `make test` sets it")
}

/// What the assembler says of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Registers of a thread.
    pub registers: u32,
}

/// Assembles a kernel for its target; an error is all that is wrong with it.
pub fn assemble(assembler: &Path, kernel: &GpuKernel, target: Target) -> Result<Usage, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (ptx, cubin) = (folder.path().join("kernel.ptx"), folder.path().join("kernel.cubin"));
    std::fs::write(&ptx, &kernel.ptx).map_err(|error| error.to_string())?;
    let output = Command::new(assembler)
        .args(["-arch", target.name(), "-v", "-O3"])
        .arg(&ptx)
        .arg("-o")
        .arg(&cubin)
        .output()
        .map_err(|error| format!("{}: {error}", assembler.display()))?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let wrong = |reason: &str| Err(format!("{} for {target}: {reason}\n{said}\n{}", kernel.name, kernel.ptx));
    if !output.status.success() {
        return wrong("not accepted");
    }
    if said.contains("Potential Performance Loss") {
        return wrong("loses performance");
    }
    if !said.contains("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") {
        return wrong("spills or uses the stack");
    }
    let used = said.split("Used ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    used.map_or_else(|| wrong("says no number of registers"), |registers| Ok(Usage { registers }))
}
