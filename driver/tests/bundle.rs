//! Bundles: what is written can be opened, is the same every time, and nothing damaged is ever loaded.

use sinter_driver::bundle::{self, Contents, Destination, Identity, Manifest, Packed, WeightLayout};
use sinter_driver::device::BuildTarget;
use sinter_driver::info::ModelInfo;
use sinter_driver::output::Output;
use sinter_ir::{
    DType, Dim, GpuBucket, GpuKernel, GpuProgram, Graph, Layout, Plan, Target, TileProgram, Type, WeightDef,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A plan with one kernel that does nothing and two weights of 12 and 40 bytes.
fn plan() -> Plan {
    let weight = |extent: usize| {
        let mut source = Graph::new("w");
        let value = source.param("t", DType::F32, &[Dim::of(extent)]).unwrap();
        source.output("w", value);
        WeightDef { source, ty: Type::new(DType::F32, [Dim::of(extent)]), layout: Layout::Rows }
    };
    Plan {
        name: "nothing".into(),
        kernels: [TileProgram { name: "map0".into(), ..TileProgram::default() }].into_iter().collect(),
        weights: [weight(3), weight(10)].into_iter().collect(),
        ..Plan::default()
    }
}

fn info() -> ModelInfo {
    ModelInfo {
        architecture: "llama".into(),
        decoder: true,
        vocab: 8,
        context: 64,
        layers: 1,
        hidden: 4,
        parameters: 13,
        stored: DType::F32,
    }
}

fn write(destination: Destination<'_>) -> anyhow::Result<(PathBuf, Manifest)> {
    write_for(&[BuildTarget::Gpu(Target::Sm80), BuildTarget::Host], destination)
}

/// A program of one kernel.
fn program(target: Target) -> GpuProgram {
    let kernel = GpuKernel {
        name: "rows_0".into(),
        ptx: format!(
            ".version 8.0\n.target {target}\n.address_size 64\n.visible .entry rows_0()\n{{\n\tret;\n}}\n"
        ),
        params: vec![],
        grid: vec![],
        persistent: None,
        threads: 32,
        shared_bytes: 0,
        cluster: 1,
        dependent_launch: false,
        scratch: vec![],
    };
    GpuProgram {
        target,
        kernels: vec![kernel],
        buckets: vec![GpuBucket { max_tokens: None, launches: vec![] }],
        draw: None,
    }
}

fn write_for(targets: &[BuildTarget], destination: Destination<'_>) -> anyhow::Result<(PathBuf, Manifest)> {
    let (plan, info) = (plan(), info());
    let pack = |weight: &WeightDef, _: WeightLayout| -> anyhow::Result<Packed> {
        let count = weight.ty.shape[0].coeff as u8 * 4;
        Ok(Arc::new((0..count).collect::<Vec<u8>>()))
    };
    let contents = Contents {
        plan: &plan,
        targets,
        programs: &Target::ALL.map(program),
        dtype: DType::F32,
        model: Identity { name: "org/name".into(), content: "00".into() },
        info: &info,
        files: &[("config.json".into(), b"{}".to_vec()), ("1_Pooling/config.json".into(), b"{}".to_vec())],
        pack: &pack,
    };
    bundle::write(&contents, destination, &Output::new(false))
}

/// A folder that ends with the test, and a bundle in it.
fn fresh() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(Destination::At(&folder.path().join("b"))).unwrap();
    (folder, path)
}

/// Why the bundle is refused; the command must agree.
fn refusal(path: &Path) -> String {
    let output = Output::new(false);
    let error = bundle::verify(path, &output).expect_err("a damaged bundle was taken for good");
    let command = Command::new(env!("CARGO_BIN_EXE_sinter")).arg("verify").arg(path).output().unwrap();
    assert_eq!(command.status.code(), Some(1));
    assert!(command.stdout.is_empty());
    assert!(String::from_utf8_lossy(&command.stderr).starts_with("error: the bundle "));
    format!("{error:#}")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

#[test]
fn a_bundle_opens_as_it_was_written() {
    let (_folder, path) = fresh();
    let bundle = bundle::open(&path).unwrap();
    assert_eq!(serde_json::to_value(&bundle.plan).unwrap(), serde_json::to_value(plan()).unwrap());
    assert_eq!(bundle.manifest.info, info());
    let weights: Vec<_> = bundle.weights.iter().map(|weight| weight.bytes().to_vec()).collect();
    assert_eq!(weights, [(0..12).collect::<Vec<u8>>(), (0..40).collect()]);
    assert!(bundle.weights.iter().all(|weight| (weight.bytes().as_ptr() as usize).is_multiple_of(64)));
    assert_eq!(fs::read(bundle.model.join("1_Pooling/config.json")).unwrap(), b"{}");
    assert_eq!(bundle::verify(&path, &Output::new(false)).unwrap(), bundle.manifest);
}

#[test]
fn two_writings_are_the_same_byte_for_byte() {
    let ((_one, a), (_two, b)) = (fresh(), fresh());
    let names = |path: &Path| {
        files(path).iter().map(|file| file.strip_prefix(path).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&a), names(&b));
    for name in names(&a) {
        assert_eq!(fs::read(a.join(&name)).unwrap(), fs::read(b.join(&name)).unwrap(), "{name:?}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let (_folder, path) = fresh();
    for file in files(&path) {
        let good = fs::read(&file).unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, bad).unwrap();
            // The manifest's last line end means nothing.
            if !(file.ends_with("manifest.json") && at == good.len() - 1) {
                refusal(&path);
            }
        }
        for length in [0, good.len() / 2, good.len() - 1] {
            fs::write(&file, &good[..length]).unwrap();
            if !(file.ends_with("manifest.json") && length == good.len() - 1) {
                refusal(&path);
            }
        }
        fs::write(&file, [&good[..], b" x"].concat()).unwrap();
        refusal(&path);
        fs::remove_file(&file).unwrap();
        refusal(&path);
        fs::write(&file, good).unwrap();
    }
    bundle::verify(&path, &Output::new(false)).unwrap();
}

#[test]
fn loading_finds_a_cut_in_the_weights_without_reading_them() {
    let (_folder, path) = fresh();
    let file = path.join("weights.bin");
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    let error = format!("{:#}", bundle::open(&path).unwrap_err());
    assert!(error.contains("weights.bin has 103 bytes, manifest.json says 104"), "{error}");
}

/// A bundle whose manifest was changed and given the right id again.
fn forged(change: impl Fn(&mut Manifest)) -> String {
    let (_folder, path) = fresh();
    let mut manifest = bundle::open(&path).unwrap().manifest;
    change(&mut manifest);
    manifest.seal().unwrap();
    fs::write(path.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    refusal(&path)
}

#[test]
fn what_is_made_for_something_else_is_refused_with_the_reason() {
    assert!(forged(|m| m.format_version = 1).contains("format_version is 1, wanted 2"));
    assert!(forged(|m| m.sinter = "9.9.9".into()).contains("sinter is \"9.9.9\""));
    assert!(
        forged(|m| m.targets = vec!["sm_70".into()])
            .contains("the target sm_70, which this version does not know")
    );
    assert!(forged(|m| m.targets.reverse()).contains("wanted them sorted"));
    assert!(forged(|m| m.targets.clear()).contains("wanted them sorted and some"));
    assert!(forged(|m| m.targets[1] = "sm_90a".into()).contains("compatibility"));
    assert!(forged(|m| m.format = "zip".into()).contains("is it a bundle?"));
    assert!(forged(|m| m.compatibility.push('0')).contains("compatibility"));
    assert!(forged(|m| m.sections[0].path = "../x".into()).contains("outside the bundle"));
    assert!(forged(|m| m.sections.retain(|s| s.path != "plan.json")).contains("names no plan.json"));
}

/// A bundle whose files were changed and whose manifest was made to fit.
fn refitted(change: impl Fn(&Path), file: &str) -> String {
    let (_folder, path) = fresh();
    let mut manifest = bundle::open(&path).unwrap().manifest;
    change(&path);
    let bytes = fs::read(path.join(file)).unwrap();
    let section = manifest.sections.iter_mut().find(|section| section.path == file).unwrap();
    use sha2::Digest;
    let hash = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    (section.bytes, section.sha256) = (bytes.len() as u64, hash);
    manifest.seal().unwrap();
    fs::write(path.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    refusal(&path)
}

#[test]
fn a_program_of_another_target_is_refused_even_if_every_hash_fits() {
    let file = "kernels/sm_80/program.json";
    let other = |path: &Path| {
        let text = fs::read_to_string(path.join(file)).unwrap();
        fs::write(path.join(file), text.replace("Sm80", "Sm90a")).unwrap();
    };
    assert!(refitted(other, file).contains("is for sm_90a, its folder for sm_80"));
    let empty = |path: &Path| fs::write(path.join(file), "{}").unwrap();
    assert!(refitted(empty, file).contains("no program of this version"));
    let renamed = |path: &Path| {
        let text = fs::read_to_string(path.join(file)).unwrap();
        fs::write(path.join(file), text.replace("rows_0", "rows_9")).unwrap();
    };
    assert!(refitted(renamed, file).contains("names no kernels/sm_80/000-rows_9.ptx"));
}

#[test]
fn gpu_kernels_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let gpus = [BuildTarget::Gpu(Target::Sm90a), BuildTarget::Gpu(Target::Sm80)];
    let (path, manifest) = write_for(&gpus, Destination::At(&folder.path().join("b"))).unwrap();
    assert_eq!(
        (manifest.targets, manifest.weights),
        (vec!["sm_80".into(), "sm_90a".into()], WeightLayout::Rows)
    );
    let bundle = bundle::open(&path).unwrap();
    assert_eq!(bundle.programs, [program(Target::Sm80), program(Target::Sm90a)]);
    let ptx = fs::read_to_string(path.join("kernels/sm_90a/000-rows_0.ptx")).unwrap();
    assert_eq!(ptx, program(Target::Sm90a).kernels[0].ptx);
    assert!(!path.join("kernels/host").exists());
    let (_folder, both) = fresh();
    assert_eq!(bundle::open(&both).unwrap().manifest.weights, WeightLayout::Panels);
}

#[test]
fn links_are_not_followed() {
    let (folder, path) = fresh();
    let file = path.join("plan.json");
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert!(refusal(&path).contains("no regular file"));
}

#[test]
fn only_a_bundle_is_replaced_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    for _ in 0..2 {
        write(Destination::At(&path)).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let stranger = folder.path().join("photos");
    fs::create_dir(&stranger).unwrap();
    fs::write(stranger.join("a.jpg"), "x").unwrap();
    let error = write(Destination::At(&stranger)).unwrap_err().to_string();
    assert!(error.contains("is no bundle; it is not overwritten"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_cache_names_a_bundle_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("bundles");
    let (path, manifest) = write(Destination::Cache(&cache)).unwrap();
    assert_eq!(path, cache.join(&manifest.id[..32]));
    assert_eq!(write(Destination::Cache(&cache)).unwrap().0, path);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_bundle_can_be_inspected() {
    let (_folder, path) = fresh();
    let sinter = |args: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_sinter")).args(args).arg(&path).output().unwrap();
        assert_eq!(command.status.code(), Some(0));
        String::from_utf8(command.stdout).unwrap()
    };
    let value: serde_json::Value = serde_json::from_str(&sinter(&["--json", "inspect"])).unwrap();
    assert_eq!((&value["kind"], &value["weights"]), (&"bundle".into(), &2.into()));
    let kernel = &value["gpu"][0]["kernels"][0];
    assert_eq!((&kernel["static_instructions"]["branch"], &kernel["registers"]), (&1.into(), &().into()));
    assert!(sinter(&["inspect"]).contains("org/name"));
    let words = "32 threads, 0 bytes of shared memory, registers unknown (needs --ptxas)";
    assert!(sinter(&["inspect"]).contains(words));
    assert!(sinter(&["verify"]).starts_with("good: "));
    for (flags, words) in [
        (["--target", "sm_80"], "a bundle shows the kernels that it has"),
        (["--gpu", "H300"], "wanted A100"),
    ] {
        let command = Command::new(env!("CARGO_BIN_EXE_sinter"))
            .arg("inspect")
            .arg(&path)
            .args(flags)
            .output()
            .unwrap();
        assert_eq!(command.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&command.stderr).contains(words));
    }
}
