//! The schemes: one row each.

use serde_json::Value;
use sinter_ir::DType;

use super::QuantError;
use super::stored::{Codes, FP4, Nested, Scales, StoredMatrix, Zeros};
use crate::config::{ConfigError, RawConfig, Section};
use crate::source::shorten;
use crate::weights::Weights;

/// A scheme of the table.
pub(super) struct Row {
    /// `quant_method`.
    pub(super) name: &'static str,
    /// Fields that change nothing in what the tensors mean.
    pub(super) bookkeeping: &'static [&'static str],
    /// Reads the fields that mean something.
    pub(super) read: fn(&RawConfig) -> Read,
}

/// The scheme, and what the user should be told.
pub(super) type Read = Result<(Scheme, Vec<String>), ConfigError>;

/// All schemes.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "compressed-tensors",
        bookkeeping: &[
            "global_compression_ratio",
            "ignore",
            "quantization_status",
            "sparsity_config",
            "version",
        ],
        read: compressed,
    },
    Row {
        name: "gptq",
        bookkeeping: &[
            "backend",
            "batch_size",
            "block_name_to_quantize",
            "cache_block_outputs",
            "damp_percent",
            "dataset",
            "desc_act",
            "dynamic",
            "exllama_config",
            "is_marlin_format",
            "lm_head",
            "max_input_length",
            "meta",
            "model_file_base_name",
            "model_name_or_path",
            "model_seqlen",
            "module_name_preceding_first_block",
            "modules_in_block_to_quantize",
            "pad_token_id",
            "static_groups",
            "sym",
            "tokenizer",
            "true_sequential",
            "use_cuda_fp16",
            "use_exllama",
        ],
        read: gptq,
    },
    Row {
        name: "awq",
        bookkeeping: &[
            "backend",
            "do_fuse",
            "exllama_config",
            "fuse_max_seq_len",
            "modules_to_fuse",
            "modules_to_not_convert",
        ],
        read: awq,
    },
    Row {
        name: "bitsandbytes",
        bookkeeping: &[
            "bnb_4bit_compute_dtype",
            "bnb_4bit_quant_type",
            "bnb_4bit_use_double_quant",
            "llm_int8_enable_fp32_cpu_offload",
            "llm_int8_has_fp16_weight",
            "llm_int8_skip_modules",
            "llm_int8_threshold",
        ],
        read: bitsandbytes,
    },
    // Files of blocks say themselves how each matrix is stored.
    Row { name: "gguf", bookkeeping: &[], read: |_| Ok((Scheme::Blocks, Vec::new())) },
    Row { name: "fp8", bookkeeping: &["modules_to_not_convert", "ignored_layers"], read: fp8 },
    Row { name: "mxfp4", bookkeeping: &["dequantize", "modules_to_not_convert"], read: mxfp4 },
];

/// How the weights of modules are stored.
#[derive(Clone, Debug)]
pub(super) enum Scheme {
    /// Packed words of compressed-tensors.
    Packed {
        bits: usize,
        group: Group,
        symmetric: bool,
    },
    /// Signed bytes or 8-bit floats of compressed-tensors.
    Bytes {
        dtype: DType,
        group: Group,
        symmetric: bool,
    },
    Gptq {
        bits: usize,
        group: Option<usize>,
        less_one: bool,
    },
    Awq {
        group: Option<usize>,
    },
    /// bitsandbytes, a byte an element.
    Rows127,
    /// bitsandbytes, half a byte an element.
    Table,
    /// Blocks of codes and scales, a format for each matrix.
    Blocks,
    /// 8-bit floats with a scale a block, or one for all.
    Fp8 {
        block: Option<[usize; 2]>,
    },
    /// 4-bit floats with a power of two for each [`MX_RUN`] of a row; stacks of experts alone.
    Mxfp4,
}

/// The elements that share a scale (OCP Microscaling Formats 1.0, 5.2).
const MX_RUN: usize = 32;

/// Which elements share a scale.
#[derive(Clone, Copy, Debug)]
pub(super) enum Group {
    Tensor,
    Row,
    /// So many columns of a row.
    Columns(usize),
    Block([usize; 2]),
}

/// The note where activations are to be quantised too.
const UNQUANTISED: &str = "the checkpoint asks for quantised activations; they are computed unquantised here";

fn compressed(config: &RawConfig) -> Read {
    let root = config.root();
    let transforms = root.value("transform_config").and_then(|value| value.get("config_groups")?.as_object());
    if transforms.is_some_and(|groups| !groups.is_empty()) {
        return Err(config.unsupported("transform_config", "weights between transforms"));
    }
    if root.value("kv_cache_scheme").is_some() {
        return Err(config.unsupported("kv_cache_scheme", "a quantised KV cache"));
    }
    let groups = root.value("config_groups").and_then(Value::as_object);
    let groups = groups.ok_or_else(|| root.wrong("config_groups", "an object of groups"))?;
    let [(name, group)] = &groups.iter().collect::<Vec<_>>()[..] else {
        return Err(root.wrong("config_groups", "one group of modules"));
    };
    let group = group.as_object().ok_or_else(|| root.wrong("config_groups", "objects"))?;
    let group = config.nested(&format!("config_groups.{name}"), group);
    let section = group.root();
    ["targets", "output_activations"].iter().for_each(|field| section.skip(field));
    let format =
        root.opt_str("format")?.or(section.opt_str("format")?).unwrap_or("pack-quantized").to_owned();
    section.skip("format");
    let weights = section.value("weights").and_then(Value::as_object);
    let weights = weights.ok_or_else(|| section.wrong("weights", "an object"))?;
    let weights = group.nested("weights", weights);
    let scheme = compressed_weights(&weights.root(), &format)?;
    weights.finish()?;
    let mut notes = Vec::new();
    if section.value("input_activations").is_some() {
        notes.push(UNQUANTISED.into());
    }
    group.finish()?;
    Ok((scheme, notes))
}

fn compressed_weights(weights: &Section<'_>, format: &str) -> Result<Scheme, ConfigError> {
    for field in ["actorder", "dynamic", "observer", "observer_kwargs", "scale_dtype", "zp_dtype"] {
        weights.skip(field);
    }
    let bits = weights.usize("num_bits", 1..=16)?;
    let float = weights.word("type", &[("int", false), ("float", true)])?;
    let symmetric = weights.bool_or("symmetric", true)?;
    let size = weights.value("group_size").and_then(Value::as_i64).filter(|size| *size > 0);
    let block = weights.value("block_structure").and_then(Value::as_array);
    let block = block.and_then(|block| {
        let extent =
            |at: usize| block.get(at)?.as_u64().filter(|extent| *extent > 0).map(|extent| extent as usize);
        Some([extent(0)?, extent(1)?])
    });
    let group = match weights.opt_str("strategy")?.unwrap_or(if size.is_some() { "group" } else { "tensor" })
    {
        "tensor" => Group::Tensor,
        "channel" => Group::Row,
        "group" => {
            Group::Columns(size.ok_or_else(|| weights.wrong("group_size", "a number above 0"))? as usize)
        }
        "block" => Group::Block(block.ok_or_else(|| weights.wrong("block_structure", "two extents"))?),
        _ => return Err(weights.wrong("strategy", "tensor, channel, group or block")),
    };
    // Zeros are read where a row or a group has its own, and codes that are floats have none.
    if !symmetric && (float || matches!(group, Group::Tensor | Group::Block(_))) {
        return Err(weights.wrong("symmetric", "true, or whole numbers with a scale for each row or group"));
    }
    if format == "pack-quantized" && matches!(group, Group::Block(_)) {
        return Err(weights.wrong("strategy", format!("tensor, channel or group, as {format} has them")));
    }
    match (format, bits, float) {
        ("pack-quantized", 4 | 8, false) => Ok(Scheme::Packed { bits, group, symmetric }),
        ("int-quantized" | "naive-quantized", 8, false) => {
            Ok(Scheme::Bytes { dtype: DType::I8, group, symmetric })
        }
        ("float-quantized" | "naive-quantized", 8, true) => {
            Ok(Scheme::Bytes { dtype: DType::F8e4m3, group, symmetric })
        }
        ("pack-quantized" | "int-quantized" | "naive-quantized" | "float-quantized", ..) => {
            Err(weights.wrong("num_bits", format!("4 or 8 bits as {format} has them")))
        }
        _ => Err(weights.config().unsupported("format", format)),
    }
}

/// A group size of −1 means a scale for each whole row.
fn group_size(section: &Section<'_>, key: &str) -> Result<Option<usize>, ConfigError> {
    match section.value(key).and_then(Value::as_i64) {
        Some(-1) => Ok(None),
        Some(size) if (1..=1 << 20).contains(&size) => Ok(Some(size as usize)),
        _ => Err(section.wrong(key, "a group size from 1 to 1048576, or -1")),
    }
}

fn gptq(config: &RawConfig) -> Read {
    let root = config.root();
    let bits = root.usize("bits", 2..=8)?;
    if !matches!(bits, 2 | 4 | 8) {
        return Err(root.wrong("bits", "2, 4 or 8"));
    }
    root.opt_word("pack_dtype", &[("int32", ())])?;
    let formats = [("gptq", true), ("gptq_v2", false)];
    let named = root.opt_word("checkpoint_format", &formats)?.or(root.opt_word("format", &formats)?);
    Ok((
        Scheme::Gptq { bits, group: group_size(&root, "group_size")?, less_one: named.unwrap_or(true) },
        Vec::new(),
    ))
}

fn awq(config: &RawConfig) -> Read {
    let root = config.root();
    let key = |names: [&'static str; 2]| if root.has(names[0]) { names[0] } else { names[1] };
    if root.usize(key(["bits", "w_bit"]), 1..=8)? != 4 {
        return Err(root.wrong(key(["bits", "w_bit"]), "4"));
    }
    if !root.bool_or("zero_point", true)? {
        return Err(root.wrong("zero_point", "true"));
    }
    root.opt_word("version", &[("gemm", ()), ("GEMM", ())])?;
    Ok((Scheme::Awq { group: group_size(&root, key(["group_size", "q_group_size"]))? }, Vec::new()))
}

fn bitsandbytes(config: &RawConfig) -> Read {
    let root = config.root();
    let (eight, four) = (root.bool_or("load_in_8bit", false)?, root.bool_or("load_in_4bit", false)?);
    root.opt_word("bnb_4bit_quant_storage", &[("uint8", ())])?;
    match (eight, four) {
        (true, false) => Ok((Scheme::Rows127, Vec::new())),
        (false, true) => Ok((Scheme::Table, Vec::new())),
        _ => Err(root.wrong("load_in_4bit", "true, or load_in_8bit true")),
    }
}

fn fp8(config: &RawConfig) -> Read {
    let root = config.root();
    root.opt_word("fmt", &[("e4m3", ())])?;
    root.opt_word("weight_format", &[("e4m3", ())])?;
    let block = match root.value("weight_block_size") {
        None => None,
        Some(value) => {
            let extents = value.as_array().filter(|extents| extents.len() == 2);
            let extent = |value: &Value| value.as_u64().filter(|extent| (1..=1 << 20).contains(extent));
            let extents: Option<Vec<u64>> = extents.and_then(|both| both.iter().map(extent).collect());
            match extents.as_deref() {
                Some([rows, columns]) => Some([*rows as usize, *columns as usize]),
                _ => return Err(root.wrong("weight_block_size", "two extents")),
            }
        }
    };
    let notes = root.opt_str("activation_scheme")?.map(|_| UNQUANTISED.into());
    Ok((Scheme::Fp8 { block }, notes.into_iter().collect()))
}

/// What stands in a file of MXFP4 says nothing but which modules are not quantised; those are seen from their tensors.
fn mxfp4(_: &RawConfig) -> Read {
    Ok((Scheme::Mxfp4, Vec::new()))
}

/// A matrix that is being put together.
struct Place<'a> {
    /// The name of the module: that of the weight without its ending.
    base: &'a str,
    shape: (usize, usize),
    weights: &'a Weights,
}

impl Scheme {
    /// The tensor that is there if a weight is quantised.
    pub(super) fn primary(&self, name: &str) -> String {
        let base = name.strip_suffix(".weight").unwrap_or(name);
        match self {
            Scheme::Packed { .. } => format!("{base}.weight_packed"),
            Scheme::Gptq { .. } | Scheme::Awq { .. } => format!("{base}.qweight"),
            Scheme::Mxfp4 => format!("{base}_blocks"),
            Scheme::Blocks => format!("{name}#codes"),
            Scheme::Bytes { .. } | Scheme::Rows127 | Scheme::Table | Scheme::Fp8 { .. } => name.to_owned(),
        }
    }

    /// Whether the scheme has one tensor for all matrices of a stack.
    pub(super) fn has_stacks(&self) -> bool {
        matches!(self, Scheme::Mxfp4)
    }

    /// The tensors of a weight, which is there.
    pub(super) fn matrix(
        &self,
        name: &str,
        shape: (usize, usize),
        weights: &Weights,
    ) -> Result<StoredMatrix, QuantError> {
        let base = name.strip_suffix(".weight").unwrap_or(name);
        let place = Place { base, shape, weights };
        let (rows, columns) = shape;
        let (codes, zeros, scales) = match self {
            Scheme::Blocks => return place.in_blocks(name),
            Scheme::Packed { bits, group, symmetric } => place.packed(*bits, *group, *symmetric)?,
            Scheme::Bytes { dtype, group, symmetric } => place.bytes(*dtype, *group, *symmetric)?,
            Scheme::Gptq { bits, group, less_one } => place.gptq(*bits, *group, *less_one)?,
            Scheme::Awq { group } => {
                place.divides(rows, 8)?;
                let codes = Codes::Interleaved { name: place.tensor("qweight") };
                let zeros = Zeros::Interleaved { name: place.tensor("qzeros") };
                (codes, zeros, place.turned_scales(*group, None)?)
            }
            Scheme::Rows127 => {
                let scales = Scales::Grouped {
                    name: place.tensor("SCB"),
                    shape: vec![rows],
                    groups: 1,
                    turned: false,
                    order: None,
                    // What bitsandbytes multiplies by: 1/127 as f32.
                    factor: f64::from(1.0f32 / 127.0),
                };
                (Codes::Plain { name: place.tensor("weight"), dtype: DType::I8 }, Zeros::None, scales)
            }
            Scheme::Table => place.table()?,
            Scheme::Mxfp4 => place.microscaled()?,
            Scheme::Fp8 { block } => {
                let codes = Codes::Plain { name: place.tensor("weight"), dtype: DType::F8e4m3 };
                let scales = match block {
                    Some([rows, columns]) => Scales::Blocks {
                        name: place.tensor("weight_scale_inv"),
                        rows: *rows,
                        columns: *columns,
                    },
                    None => place.single("weight_scale")?,
                };
                (codes, Zeros::None, scales)
            }
        };
        Ok(StoredMatrix { rows, columns, codes, zeros, scales, minima: None })
    }
}

type Parts = (Codes, Zeros, Scales);

impl Place<'_> {
    fn tensor(&self, ending: &str) -> String {
        format!("{}.{ending}", self.base)
    }

    fn fault(&self, ending: &str, reason: String) -> QuantError {
        QuantError::Tensor { tensor: shorten(&self.tensor(ending)), reason }
    }

    /// A matrix of a file of blocks, which must have the shape that the model asks for.
    fn in_blocks(&self, name: &str) -> Result<StoredMatrix, QuantError> {
        let fault = |reason| QuantError::Tensor { tensor: shorten(name), reason };
        let matrix = self.weights.in_blocks(name).ok_or_else(|| fault("its format is not known".into()))?;
        let found = (matrix.rows, matrix.columns);
        if found != self.shape {
            return Err(fault(format!("wanted shape {:?}, found {found:?}", self.shape)));
        }
        Ok(matrix.clone())
    }

    fn divides(&self, extent: usize, by: usize) -> Result<usize, QuantError> {
        if by > 0 && extent.is_multiple_of(by) {
            return Ok(extent / by);
        }
        Err(self.fault("weight", format!("an extent of {extent} is no multiple of {by}")))
    }

    fn groups(&self, group: Option<usize>) -> Result<usize, QuantError> {
        group.map_or(Ok(1), |size| self.divides(self.shape.1, size))
    }

    fn single(&self, ending: &str) -> Result<Scales, QuantError> {
        let name = self.tensor(ending);
        let shape = self.weights.described(&name)?.1.to_vec();
        if shape.iter().product::<usize>() != 1 || shape.len() > 1 {
            return Err(self.fault(ending, format!("wanted one number, found shape {shape:?}")));
        }
        Ok(Scales::Single { name, shape })
    }

    fn scales(&self, group: Group, order: Option<String>) -> Result<Scales, QuantError> {
        let name = self.tensor("weight_scale");
        let groups = match group {
            Group::Tensor => return self.single("weight_scale"),
            Group::Block([rows, columns]) => return Ok(Scales::Blocks { name, rows, columns }),
            Group::Row => 1,
            Group::Columns(size) => self.groups(Some(size))?,
        };
        let shape = vec![self.shape.0, groups];
        Ok(Scales::Grouped { name, shape, groups, turned: false, order, factor: 1.0 })
    }

    fn packed(&self, bits: usize, group: Group, symmetric: bool) -> Result<Parts, QuantError> {
        let order =
            self.order("weight_g_idx", if let Group::Columns(size) = group { Some(size) } else { None })?;
        let zeros = match symmetric {
            true => Zeros::Number((1 << (bits - 1)) as f64),
            false => Zeros::AlongOutputs { name: self.tensor("weight_zero_point"), bits },
        };
        let codes = Codes::AlongInputs { name: self.tensor("weight_packed"), bits };
        Ok((codes, zeros, self.scales(group, order)?))
    }

    fn bytes(&self, dtype: DType, group: Group, symmetric: bool) -> Result<Parts, QuantError> {
        let zeros = match symmetric {
            true => Zeros::None,
            false => Zeros::Plain { name: self.tensor("weight_zero_point") },
        };
        Ok((Codes::Plain { name: self.tensor("weight"), dtype }, zeros, self.scales(group, None)?))
    }

    fn gptq(&self, bits: usize, group: Option<usize>, less_one: bool) -> Result<Parts, QuantError> {
        self.divides(self.shape.1 * bits, 32)?;
        self.divides(self.shape.0 * bits, 32)?;
        let order = self.order("g_idx", group)?;
        let codes = Codes::Columns { name: self.tensor("qweight"), bits };
        let zeros = Zeros::Columns { name: self.tensor("qzeros"), bits, less_one };
        Ok((codes, zeros, self.turned_scales(group, order)?))
    }

    fn turned_scales(&self, group: Option<usize>, order: Option<String>) -> Result<Scales, QuantError> {
        let groups = self.groups(group)?;
        let shape = vec![groups, self.shape.0];
        Ok(Scales::Grouped { name: self.tensor("scales"), shape, groups, turned: true, order, factor: 1.0 })
    }

    /// The tensor that orders the columns, if it says anything else than that groups follow one another.
    fn order(&self, ending: &str, group: Option<usize>) -> Result<Option<String>, QuantError> {
        let name = self.tensor(ending);
        let Some(size) = group.filter(|_| self.weights.contains(&name)) else { return Ok(None) };
        let view = self.weights.require(&name, &[self.shape.1])?;
        let indices: Vec<f64> =
            view.bytes.chunks_exact(view.dtype.bytes()).map(|b| view.dtype.read(b)).collect();
        let groups = self.groups(group)? as f64;
        // −1 everywhere stands for no order.
        if indices.iter().all(|index| *index == -1.0) {
            return Ok(None);
        }
        if let Some(index) = indices.iter().find(|index| !(0.0..groups).contains(*index)) {
            return Err(self.fault(ending, format!("wanted groups below {groups}, found {index}")));
        }
        let follows = indices.iter().enumerate().all(|(at, index)| (at / size) as f64 == *index);
        Ok((!follows).then_some(name))
    }

    /// Half bytes of bitsandbytes: the state beside the tensor is JSON in bytes.
    fn table(&self) -> Result<Parts, QuantError> {
        let ending = ["nf4", "fp4"].map(|kind| format!("weight.quant_state.bitsandbytes__{kind}"));
        let ending =
            ending.iter().find(|ending| self.weights.contains(&self.tensor(ending))).unwrap_or(&ending[0]);
        let view = self.weights.get(&self.tensor(ending))?;
        let state = RawConfig::parse_at(&view.bytes, shorten(&self.tensor(ending)))?;
        let root = state.root();
        ["quant_type", "dtype", "shape", "nested_dtype"].iter().for_each(|field| root.skip(field));
        let run = root.usize("blocksize", 1..=1 << 20)?;
        let nested_run = root.opt_usize("nested_blocksize", 1..=1 << 20)?;
        let offset = root.opt_f64("nested_offset", f64::MIN..=f64::MAX)?;
        state.finish()?;
        self.divides(self.shape.0 * self.shape.1, run)?;
        self.divides(self.shape.0 * self.shape.1, 2)?;
        let nested = nested_run.map(|run| Nested {
            table: self.tensor("weight.nested_quant_map"),
            factors: self.tensor("weight.nested_absmax"),
            run,
            offset: offset.unwrap_or(0.0),
        });
        let scales = Scales::Runs { name: self.tensor("weight.absmax"), run, nested };
        let codes = Codes::Table {
            name: self.tensor("weight"),
            shape: vec![self.shape.0 * self.shape.1 / 2, 1],
            table: self.tensor("weight.quant_map"),
            high_first: true,
        };
        Ok((codes, Zeros::None, scales))
    }

    /// Half bytes in runs with a power of two for each: `[E, N, K/32, 16]` and `[E, N, K/32]`.
    fn microscaled(&self) -> Result<Parts, QuantError> {
        let runs = self.divides(self.shape.1, MX_RUN)?;
        let [blocks, scales] = ["blocks", "scales"].map(|ending| format!("{}_{ending}", self.base));
        let found = self.weights.get(&blocks)?.shape;
        let [count, rows, ..] = found[..] else {
            let reason = format!("wanted experts, rows, runs, bytes, found shape {found:?}");
            return Err(QuantError::Tensor { tensor: shorten(&blocks), reason });
        };
        if count.checked_mul(rows) != Some(self.shape.0) {
            let reason = format!("wanted {} rows of all experts, found shape {found:?}", self.shape.0);
            return Err(QuantError::Tensor { tensor: shorten(&blocks), reason });
        }
        let shape = vec![count, rows, runs];
        let codes = Codes::Table {
            name: blocks,
            shape: [&shape[..], &[MX_RUN / 2]].concat(),
            table: FP4.into(),
            high_first: false,
        };
        Ok((codes, Zeros::None, Scales::Exponents { name: scales, shape, run: MX_RUN }))
    }
}
