//! Reading a bundle: everything is checked before it is used.

use super::*;
use crate::atomic_file::hex;
use crate::output::Output;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use sinter_ir::{GpuProgram, Plan, Target};
use sinter_runtime::{MappedFile, WeightBytes};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The largest manifest that is read.
const MANIFEST_MAX: u64 = 16 << 20;
/// The largest file besides the weights that is read.
const SECTION_MAX: u64 = 512 << 20;

/// A bundle, checked and mapped.
#[derive(Debug)]
pub struct Bundle {
    /// What it says about itself.
    pub manifest: Manifest,
    /// The plan.
    pub plan: Plan,
    /// What it has kernels for.
    pub targets: Vec<BuildTarget>,
    /// The programs of its GPU targets.
    pub programs: Vec<GpuProgram>,
    /// The weights in the plan's order, mapped, in the manifest's layout.
    pub weights: Vec<WeightBytes>,
    /// The directory with the model's own small files.
    pub model: PathBuf,
}

/// Whether a directory holds something that wants to be a bundle.
pub fn is_bundle(path: &Path) -> bool {
    path.join(MANIFEST).is_file()
}

/// Opens a bundle: checks the manifest and the hashes of all files but the weights, whose size is checked.
pub fn open(path: &Path) -> Result<Bundle> {
    let refused = || format!("the bundle {} is refused", path.display());
    let manifest = manifest(path).with_context(refused)?;
    load(path, manifest).with_context(refused)
}

/// Checks every byte of a bundle.
pub fn verify(path: &Path, output: &Output) -> Result<Manifest> {
    let bundle = open(path)?;
    let check = || -> Result<()> {
        let section = section(&bundle.manifest, WEIGHTS)?;
        let bar = output.progress("hashing", section.bytes);
        let mut file = regular(&path.join(WEIGHTS), section.bytes)?;
        let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            let count = file.read(&mut block).with_context(|| format!("cannot read {WEIGHTS}"))?;
            if count == 0 {
                break;
            }
            hash.update(&block[..count]);
            bar.inc(count as u64);
        }
        bar.finish_and_clear();
        same_hash(section, &hex(&hash.finalize()))
    };
    check().with_context(|| format!("the bundle {} is refused", path.display()))?;
    Ok(bundle.manifest)
}

fn manifest(path: &Path) -> Result<Manifest> {
    let mut bytes = Vec::new();
    let file = File::open(path.join(MANIFEST)).with_context(|| format!("cannot open {MANIFEST}"))?;
    file.take(MANIFEST_MAX).read_to_end(&mut bytes).with_context(|| format!("cannot read {MANIFEST}"))?;
    let head: serde_json::Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{MANIFEST} is no JSON, or not whole"))?;
    // The versions come first: another version may have other fields.
    let is = |field: &str, wanted: &str, advice: &str| {
        let found = head.get(field).map_or("nothing".to_owned(), |value| value.to_string());
        ensure!(found == wanted, "{MANIFEST} says {field} is {found}, wanted {wanted}; {advice}");
        Ok(())
    };
    is("format", &format!("{FORMAT:?}"), "is it a bundle?")?;
    is("format_version", &FORMAT_VERSION.to_string(), "compile the model again with this version")?;
    is("sinter", &format!("{:?}", env!("CARGO_PKG_VERSION")), "compile the model again with this version")?;
    let named =
        head.get("targets").and_then(|targets| serde_json::from_value::<Vec<String>>(targets.clone()).ok());
    let named = named.with_context(|| format!("{MANIFEST} says not what the bundle is for"))?;
    targets(&named)?;
    is("compatibility", &format!("{:?}", compatibility(&named)), "compile the model again")?;
    let manifest: Manifest = serde_json::from_value(head)
        .with_context(|| format!("{MANIFEST} has not the fields of a manifest"))?;
    let id = manifest.computed_id()?;
    ensure!(id == manifest.id, "{MANIFEST} was changed: its id is {}, its content gives {id}", manifest.id);
    for section in &manifest.sections {
        let plain = Path::new(&section.path).components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(
            plain && !section.path.is_empty(),
            "{MANIFEST} names a file {:?} outside the bundle",
            section.path
        );
    }
    Ok(manifest)
}

/// The targets by their names: at least one, sorted, all known to this version.
fn targets(names: &[String]) -> Result<Vec<BuildTarget>> {
    let parse = |name: &String| {
        let found = BuildTarget::parse(name);
        found.map_err(|wanted| {
            anyhow::anyhow!("{MANIFEST} names the target {name}, which this version does not know: {wanted}")
        })
    };
    let targets: Vec<BuildTarget> = names.iter().map(parse).collect::<Result<_>>()?;
    let sorted = targets.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(
        sorted && !targets.is_empty(),
        "{MANIFEST} names the targets {names:?}, wanted them sorted and some"
    );
    Ok(targets)
}

/// The program of a GPU target, with the PTX of its kernels.
fn program(path: &Path, manifest: &Manifest, target: Target) -> Result<GpuProgram> {
    let name = program_file(target);
    let mut program: GpuProgram = serde_json::from_slice(&read(path, section(manifest, &name)?)?)
        .with_context(|| format!("{name} is no program of this version"))?;
    ensure!(program.target == target, "{name} is for {}, its folder for {target}", program.target);
    for (number, kernel) in program.kernels.iter_mut().enumerate() {
        let name = ptx_file(target, number, &kernel.name);
        let ptx = String::from_utf8(read(path, section(manifest, &name)?)?);
        kernel.ptx = ptx.with_context(|| format!("{name} is no text"))?;
    }
    Ok(program)
}

/// A weight of a bundle as it lies in GPU memory.
pub(crate) fn rows_of(
    layout: WeightLayout,
    weight: &sinter_ir::WeightDef,
    bytes: &WeightBytes,
) -> Result<WeightBytes> {
    match layout {
        WeightLayout::Rows => Ok(bytes.clone()),
        WeightLayout::Panels => {
            let rows = sinter_codegen_host::rows_of_packed(weight, bytes.bytes());
            let rows =
                rows.with_context(|| format!("a weight of {} has other bytes than its type", weight.ty))?;
            Ok(WeightBytes::new(Arc::new(crate::checkpoint::Aligned(rows))))
        }
    }
}

fn load(path: &Path, manifest: Manifest) -> Result<Bundle> {
    for section in manifest.sections.iter().filter(|section| section.path != WEIGHTS) {
        read(path, section)?;
    }
    let plan: Plan = serde_json::from_slice(&read(path, section(&manifest, PLAN)?)?)
        .with_context(|| format!("{PLAN} is no plan of this version"))?;
    plan.verify().with_context(|| format!("{PLAN} contradicts itself"))?;
    for tile in plan.kernels.values() {
        if let Some(violation) = sinter_ir::verify_tile(tile).into_iter().next() {
            bail!("{PLAN}, kernel {}: {violation}", tile.name);
        }
    }
    let index: Vec<Place> = serde_json::from_slice(&read(path, section(&manifest, INDEX)?)?)
        .with_context(|| format!("{INDEX} is no index of weights"))?;
    let weights = map_weights(path, &manifest, &index)?;
    ensure!(
        weights.len() == plan.weights.len(),
        "{INDEX} has {} weights, {PLAN} {}",
        weights.len(),
        plan.weights.len()
    );
    let targets = targets(&manifest.targets)?;
    let gpus = targets
        .iter()
        .filter_map(|target| if let BuildTarget::Gpu(gpu) = target { Some(*gpu) } else { None });
    let programs = gpus.map(|gpu| program(path, &manifest, gpu)).collect::<Result<_>>()?;
    Ok(Bundle { manifest, plan, targets, programs, weights, model: path.join(MODEL) })
}

fn map_weights(path: &Path, manifest: &Manifest, index: &[Place]) -> Result<Vec<WeightBytes>> {
    let section = section(manifest, WEIGHTS)?;
    let file = regular(&path.join(WEIGHTS), section.bytes)?;
    if section.bytes == 0 {
        ensure!(index.is_empty(), "{WEIGHTS} is empty, but {INDEX} is not");
        return Ok(Vec::new());
    }
    let map = MappedFile::open(&file).with_context(|| format!("cannot map {WEIGHTS}"))?;
    let map: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(map);
    let part = |place: &Place| {
        let end = place.offset.checked_add(place.bytes)?;
        let range = usize::try_from(place.offset).ok()?..usize::try_from(end).ok()?;
        WeightBytes::part(map.clone(), range).filter(|_| place.offset.is_multiple_of(BOUNDARY))
    };
    let parts: Option<Vec<_>> = index.iter().map(part).collect();
    parts.with_context(|| format!("{INDEX} names bytes that {WEIGHTS} does not have"))
}

/// A section that the manifest must name.
fn section<'m>(manifest: &'m Manifest, path: &str) -> Result<&'m Section> {
    let section = manifest.sections.iter().find(|section| section.path == path);
    section.with_context(|| format!("{MANIFEST} names no {path}"))
}

/// Opens a regular file that must have so many bytes.
fn regular(path: &Path, bytes: u64) -> Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kind = path.symlink_metadata().with_context(|| format!("{name} is missing"))?;
    ensure!(kind.is_file(), "{name} is no regular file");
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let found = file.metadata().with_context(|| format!("cannot look at {name}"))?.len();
    ensure!(found == bytes, "{name} has {found} bytes, {MANIFEST} says {bytes}: it was cut off or changed");
    Ok(file)
}

/// Reads a small file and checks its hash.
fn read(path: &Path, section: &Section) -> Result<Vec<u8>> {
    let cap = SECTION_MAX;
    ensure!(section.bytes <= cap, "{} has {} bytes, at most {cap} are read", section.path, section.bytes);
    let file = regular(&path.join(&section.path), section.bytes)?;
    let mut bytes = Vec::new();
    file.take(cap).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", section.path))?;
    same_hash(section, &crate::atomic_file::sha256(&bytes))?;
    Ok(bytes)
}

fn same_hash(section: &Section, found: &str) -> Result<()> {
    let Section { path, sha256, .. } = section;
    ensure!(found == sha256, "{path} was changed: its SHA-256 is {found}, {MANIFEST} says {sha256}");
    Ok(())
}
