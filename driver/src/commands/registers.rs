//! The registers of GPU kernels, as CUDA's assembler gives them out.

use anyhow::{Context, Result, ensure};
use sinter_ir::{GpuKernel, Target};
use std::path::Path;
use std::process::Command;

/// The registers that the assembler gives a thread.
pub(super) fn of(ptxas: &Path, target: Target, kernel: &GpuKernel) -> Result<u32> {
    // A kernel's name comes from a bundle, and is no part of a path.
    let name = format!("sinter-{}.ptx", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, &kernel.ptx).with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new(ptxas)
        .arg(format!("-arch={target}"))
        .args(["-v", "-o", "/dev/null"])
        .arg(&file)
        .output();
    // The file is of no use any more, whatever happened.
    let _ = std::fs::remove_file(&file);
    let output = output.with_context(|| format!("cannot run {}", ptxas.display()))?;
    let words =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{} refuses {}: {words}", ptxas.display(), kernel.name);
    used(&words).with_context(|| format!("{} says nothing of registers: {words}", ptxas.display()))
}

/// `ptxas info    : Used 40 registers, used 1 barriers`
fn used(words: &str) -> Option<u32> {
    words.split("Used ").nth(1)?.split_once(" registers")?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn registers_are_read_from_the_words_of_the_assembler() {
        let words = "ptxas info    : Compiling entry function 'k' for 'sm_80'\nptxas info    : Used 40 registers, used 1 barriers\n";
        assert_eq!(super::used(words), Some(40));
        assert_eq!(super::used("nothing"), None);
    }
}
