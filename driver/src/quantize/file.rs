//! A safetensors file written tensor by tensor, so that no more than one is in memory.

use anyhow::{Context, Result, bail};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Where the bytes of a tensor come from.
pub(super) enum Content {
    /// A tensor of the model as it is.
    Kept(String),
    /// What is known already.
    Bytes(Vec<u8>),
    /// A part of a quantised matrix: the matrix, and the number of the part.
    Part(String, usize),
}

/// A tensor that will be written.
pub(super) struct Planned {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    content: Content,
}

impl Planned {
    pub(super) fn new(name: String, dtype: Dtype, shape: Vec<usize>, content: Content) -> Self {
        Self { name, dtype, shape, content }
    }

    /// Bits of one element.
    pub(super) fn width(&self) -> usize {
        self.dtype.bitsize()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// Writes the header and then each tensor in order.
pub(super) fn write(
    path: &Path,
    planned: &[Planned],
    mut content: impl FnMut(&Content) -> Result<Vec<u8>>,
) -> Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut at = 0;
    for tensor in planned {
        let end = at + tensor.bytes();
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut header = serde_json::to_vec(&Value::Object(header))?;
    // The tensors begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = BufWriter::new(file);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in planned {
        let bytes = content(&tensor.content)?;
        if bytes.len() as u64 != tensor.bytes() {
            bail!("tensor `{}`: {} bytes, wanted {}", tensor.name, bytes.len(), tensor.bytes());
        }
        out.write_all(&bytes)?;
    }
    let file = out.into_inner().map_err(|error| error.into_error())?;
    file.sync_all().with_context(|| format!("cannot write {}", path.display()))
}
