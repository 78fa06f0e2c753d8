//! Writing a bundle.

use super::*;
use crate::atomic_file::{self, hex, parent, private_directory, sync_directory, temporary, write_synced};
use crate::output::Output;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use sinter_ir::{GpuProgram, Plan, WeightDef, gpu_twins};
use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The bytes of one packed weight.
pub type Packed = std::sync::Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What goes into a bundle.
pub struct Contents<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What it is for.
    pub targets: &'a [BuildTarget],
    /// The programs of its GPU targets.
    pub programs: &'a [GpuProgram],
    /// The element type.
    pub dtype: DType,
    /// Where the model came from.
    pub model: Identity,
    /// The facts of the model.
    pub info: &'a ModelInfo,
    /// The model's small files: path inside the model's directory, and bytes.
    pub files: &'a [(String, Vec<u8>)],
    /// Packs one weight.
    pub pack: &'a dyn Fn(&WeightDef, WeightLayout) -> Result<Packed>,
}

/// Writes a bundle and returns its directory and id: `place`, or a directory named by the id below `cache`.
///
/// # Errors
/// If something else than a bundle is at `place`, or the disk refuses.
pub fn write(
    contents: &Contents<'_>,
    place: Destination<'_>,
    output: &Output,
) -> Result<(PathBuf, Manifest)> {
    let near = match place {
        Destination::At(path) => {
            refuse_stranger(path)?;
            fs::create_dir_all(parent(path))
                .with_context(|| format!("cannot make {}", parent(path).display()))?;
            path.to_path_buf()
        }
        Destination::Cache(cache) => {
            private_directory(cache)?;
            cache.join("new")
        }
    };
    let folder = temporary(&near);
    let written = fill(&folder, contents, output).and_then(|manifest| {
        let path = match place {
            Destination::At(path) => path.to_path_buf(),
            Destination::Cache(cache) => cache.join(&manifest.id[..32]),
        };
        settle(&folder, &path)?;
        Ok((path, manifest))
    });
    if written.is_err() {
        // The reason why it was not written matters more than what is left of it.
        let _ = fs::remove_dir_all(&folder);
    }
    written
}

/// Where a bundle goes.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// To this path.
    At(&'a Path),
    /// Below this directory, under its id.
    Cache(&'a Path),
}

/// Only a bundle or an empty directory is replaced.
fn refuse_stranger(path: &Path) -> Result<()> {
    let empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    match path.symlink_metadata() {
        Ok(_) if is_bundle(path) || empty() => Ok(()),
        Ok(_) => bail!("{} is there already and is no bundle; it is not overwritten", path.display()),
        Err(_) => Ok(()),
    }
}

/// Gives the finished folder its name, in place of an older bundle if there is one.
fn settle(folder: &Path, path: &Path) -> Result<()> {
    let old = temporary(path);
    let replaced = path.exists();
    let rename = |from: &Path, to: &Path| {
        fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
    };
    if replaced {
        rename(path, &old)?;
    }
    rename(folder, path)?;
    sync_directory(parent(path))?;
    if replaced {
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(())
}

fn fill(folder: &Path, contents: &Contents<'_>, output: &Output) -> Result<Manifest> {
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut sections = Vec::new();
    let mut add = |path: String, bytes: &[u8]| -> Result<()> {
        let file = folder.join(&path);
        fs::create_dir_all(parent(&file))
            .with_context(|| format!("cannot make {}", parent(&file).display()))?;
        write_synced(&file, bytes)?;
        sections.push(Section { path, bytes: bytes.len() as u64, sha256: atomic_file::sha256(bytes) });
        Ok(())
    };
    add(PLAN.into(), &serde_json::to_vec(contents.plan)?)?;
    let mut targets = contents.targets.to_vec();
    targets.sort_unstable();
    targets.dedup();
    if targets.contains(&BuildTarget::Host) {
        for (id, tile) in contents.plan.kernels.iter() {
            let path = format!("{}/{id}-{}.tile", kernel_folder(BuildTarget::Host), file_name(&tile.name));
            add(path, tile.to_string().as_bytes())?;
        }
    }
    for target in &targets {
        let BuildTarget::Gpu(target) = *target else { continue };
        let program = contents.programs.iter().find(|program| program.target == target);
        let mut program = program.with_context(|| format!("there are no kernels for {target}"))?.clone();
        for (number, kernel) in program.kernels.iter_mut().enumerate() {
            add(ptx_file(target, number, &kernel.name), std::mem::take(&mut kernel.ptx).as_bytes())?;
        }
        add(program_file(target), &serde_json::to_vec(&program)?)?;
    }
    let layout = WeightLayout::of(&targets);
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    for (path, bytes) in contents.files {
        add(format!("{MODEL}/{path}"), bytes)?;
    }
    let (weights, index) = write_weights(&folder.join(WEIGHTS), contents, (layout, output))?;
    add(INDEX.into(), &serde_json::to_vec(&index)?)?;
    sections.push(weights);
    sections.sort_by(|a, b| a.path.cmp(&b.path));
    let mut manifest = Manifest {
        format: FORMAT.into(),
        format_version: FORMAT_VERSION,
        sinter: env!("CARGO_PKG_VERSION").into(),
        compatibility: compatibility(&targets),
        targets,
        weights: layout,
        dtype: contents.dtype,
        model: contents.model.clone(),
        info: contents.info.clone(),
        sections,
        id: String::new(),
    };
    manifest.seal()?;
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    write_synced(&folder.join(MANIFEST), &text)?;
    let below = manifest.targets.iter().map(|target| folder.join(KERNELS).join(target));
    let inner = [KERNELS, MODEL].map(|inner| folder.join(inner)).into_iter().chain(below);
    inner.filter(|inner| inner.is_dir()).try_for_each(|inner| sync_directory(&inner))?;
    sync_directory(folder)?;
    Ok(manifest)
}

/// Packs the weights one by one into one file, each at its boundary.
fn write_weights(
    path: &Path,
    contents: &Contents<'_>,
    (layout, output): (WeightLayout, &Output),
) -> Result<(Section, Vec<Place>)> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let (mut hash, mut index, mut offset) = (Sha256::new(), Vec::<Place>::new(), 0u64);
    let twins = gpu_twins(contents.plan);
    let bar = output.progress("packing", contents.plan.weights.len() as u64);
    for (at, (id, weight)) in contents.plan.weights.iter().enumerate() {
        // In rows, what two weights have in common is there once.
        if layout == WeightLayout::Rows && twins[at] < at {
            index.push(index[twins[at]]);
            bar.inc(1);
            continue;
        }
        let packed = (contents.pack)(weight, layout).with_context(|| format!("packing {id}"))?;
        let bytes = (*packed).as_ref();
        let wanted = layout.bytes(weight);
        ensure!(
            wanted == Some(bytes.len() as u64),
            "{id} was packed to {} bytes, wanted {wanted:?}",
            bytes.len()
        );
        let padding = vec![0; (offset.next_multiple_of(BOUNDARY) - offset) as usize];
        for part in [&padding, bytes] {
            writer.write_all(part).with_context(|| format!("cannot write {}", path.display()))?;
            hash.update(part);
        }
        offset = offset.next_multiple_of(BOUNDARY);
        index.push(Place { offset, bytes: bytes.len() as u64 });
        offset += bytes.len() as u64;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let synced = writer.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all());
    synced.with_context(|| format!("cannot write {}", path.display()))?;
    Ok((Section { path: WEIGHTS.into(), bytes: offset, sha256: hex(&hash.finalize()) }, index))
}
