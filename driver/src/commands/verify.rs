//! `sinter verify`: every byte of a bundle against its manifest.

use crate::bundle;
use crate::cli::VerifyArgs;
use crate::output::{Output, bytes};
use anyhow::Result;
use serde_json::json;

pub(super) fn run(args: &VerifyArgs, output: &Output) -> Result<()> {
    let manifest = bundle::verify(&args.bundle, output)?;
    let (files, size) =
        (manifest.sections.len(), manifest.sections.iter().map(|section| section.bytes).sum());
    let value = json!({ "ok": true, "id": manifest.id, "files": files, "bytes": size });
    output.result(&value, || format!("good: {files} files, {}, id {}", bytes(size), manifest.id))
}
