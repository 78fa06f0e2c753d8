//! The tensors of a file under the names that a checkpoint has for them, with what the conversion changed undone.
//!
//! A role in the family's row has one name in all GGUF files, so the two tables together give a checkpoint's name for each
//! tensor. What conversions change: the rows of queries and keys take turns, those of joined projections are parted, one
//! is added to norms' weights, experts lie in one tensor, and matrices with inputs first are turned.

use std::collections::{BTreeMap, btree_map};

use safetensors::Dtype;

use super::GgufError;
use super::config::{Described, ROPE_TENSORS};
use super::formats::{Blocks, Kind};
use super::parse::{Head, Tensor};
use crate::family::*;
use crate::header::{TENSORS_MAX, TensorEntry};
use crate::quant::{Codes, InBlocks, Minima, Scales, StoredMatrix, Zeros};
use crate::source::shorten;
use crate::spec::MatrixLayout;

/// A tensor under a checkpoint's name, or a field of one.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    tensor: Tensor,
    /// Whole rows of the tensor before the first one.
    first: usize,
    rows: usize,
    columns: usize,
    order: Order,
    field: Field,
}

/// In which order the rows of a tensor lie.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// As in the checkpoint.
    Same,
    /// The two halves of each head's rows take turns.
    Turns { heads: usize },
    /// All queries, all keys, all values, where the checkpoint has them by key head.
    Parted { heads: usize, kv_heads: usize },
}

/// What of a tensor is given out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    /// Its numbers, as they are.
    Numbers,
    /// Its numbers less one, in f32.
    LessOne,
    /// Its numbers, rows and columns exchanged.
    Turned,
    Codes,
    Scales,
    Minima,
    ScaleFactors,
    MinimumFactors,
}

/// All tensors of a file by the names of the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// What each name is, and where its bytes would lie: those of codes stand for the whole tensor.
    pub(crate) entries: BTreeMap<String, TensorEntry>,
    /// Those that are not a part of the file as they are.
    pub(crate) made: BTreeMap<String, Source>,
    /// The matrices in blocks by the names of the weights.
    pub(crate) matrices: BTreeMap<String, StoredMatrix>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
struct Role {
    /// The checkpoint's name without its ending; `{i}` stands for the layer and `{e}` for the expert.
    name: String,
    norm: bool,
    linear: bool,
    turns: Option<bool>,
    joined: bool,
}

/// Finds the checkpoint's name of each tensor.
pub(super) fn find(place: &str, head: &Head, described: &Described) -> Result<Sources, GgufError> {
    let roles = roles(described);
    let mut sources = Sources::default();
    for (name, tensor) in &head.tensors {
        if ROPE_TENSORS.contains(&name.as_str()) {
            continue;
        }
        let bad = |reason| GgufError::Tensor { place: place.to_owned(), tensor: name.clone(), reason };
        let (base, ending) = split(name);
        let (base, layer) = layered(base);
        let named = match roles.get(base.as_str()) {
            None => {
                // It is told to the user as one that nothing reads.
                sources.plain(name, tensor).map_err(bad)?;
                continue;
            }
            Some(role) => role,
        };
        let target = format!("{}{ending}", named.name.replace("{i}", &layer));
        sources.add(&target, tensor, named, described).map_err(bad)?;
    }
    Ok(sources)
}

/// A name and its ending.
fn split(name: &str) -> (&str, &str) {
    let at = [".weight", ".bias"]
        .iter()
        .find_map(|ending| Some(name.len() - name.strip_suffix(ending).map(|_| ending.len())?));
    name.split_at(at.unwrap_or(name.len()))
}

/// A name with `{i}` for the layer's number, and the number.
fn layered(base: &str) -> (String, String) {
    let parts = base.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    match parts {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (format!("blk.{{i}}.{rest}"), number.to_owned())
        }
        _ => (base.to_owned(), String::new()),
    }
}

/// What each name stands for in the files of an architecture.
fn roles(described: &Described) -> BTreeMap<String, Role> {
    let (family, row) = (described.family, described.row);
    let prefix = family.prefixes.first().copied().unwrap_or_default();
    let mut roles = BTreeMap::new();
    let mut add = |gguf: &str, name: Option<&str>, kind: fn(&mut Role)| {
        let Some(name) = name else { return };
        let mut role =
            Role { name: format!("{prefix}{name}"), norm: false, linear: false, turns: None, joined: false };
        kind(&mut role);
        roles.insert(gguf.to_owned(), role);
    };
    let (embedding, norms, attention) = (&family.embedding, &family.norms, &family.attention);
    add("token_embd", Some(embedding.tokens), |_| ());
    add("position_embd", embedding.positions.map(|row| row.table), |_| ());
    add("token_types", embedding.token_types.map(|(name, _)| name), |_| ());
    let norm: fn(&mut Role) = |role| role.norm = true;
    add("token_embd_norm", embedding.norm, norm);
    add("output_norm", norms.last, norm);
    add("blk.{i}.attn_norm", norms.attention.before, norm);
    add("blk.{i}.post_attention_norm", norms.attention.after, norm);
    add("blk.{i}.attn_output_norm", norms.attention.after_sum, norm);
    add("blk.{i}.ffn_norm", norms.mlp.before, norm);
    add("blk.{i}.post_ffw_norm", norms.mlp.after, norm);
    add("blk.{i}.layer_output_norm", norms.mlp.after_sum, norm);
    add("blk.{i}.attn_q_norm", attention.head_norms.map(|row| row.q), norm);
    add("blk.{i}.attn_k_norm", attention.head_norms.map(|row| row.k), norm);
    row.names.iter().for_each(|(gguf, name)| add(gguf, Some(name), norm));
    let linear: fn(&mut Role) = |role| role.linear = true;
    match attention.qkv {
        QkvRow::Separate(q, k, v) => {
            add("blk.{i}.attn_q", Some(q), |role| (role.linear, role.turns) = (true, Some(true)));
            add("blk.{i}.attn_k", Some(k), |role| (role.linear, role.turns) = (true, Some(false)));
            add("blk.{i}.attn_v", Some(v), linear);
        }
        QkvRow::Stacked(name) => add("blk.{i}.attn_qkv", Some(name), linear),
        QkvRow::Grouped(name) => {
            add("blk.{i}.attn_qkv", Some(name), |role| (role.linear, role.joined) = (true, true));
        }
        QkvRow::Latent(_) => {}
    }
    add("blk.{i}.attn_output", Some(attention.out), linear);
    match family.mlp.input {
        MlpInputRow::Gated(gate, up) => {
            add("blk.{i}.ffn_gate", Some(gate), linear);
            add("blk.{i}.ffn_up", Some(up), linear);
        }
        MlpInputRow::GatedStacked(up) | MlpInputRow::Plain(up) => add("blk.{i}.ffn_up", Some(up), linear),
    }
    add("blk.{i}.ffn_down", Some(family.mlp.down), linear);
    if let Some(moe) = &family.moe {
        add("blk.{i}.ffn_gate_inp", Some(moe.router), |_| ());
        if let ExpertsRow::Each([gate, up, down]) = moe.experts {
            add("blk.{i}.ffn_gate_exps", Some(gate), |_| ());
            add("blk.{i}.ffn_up_exps", Some(up), |_| ());
            add("blk.{i}.ffn_down_exps", Some(down), |_| ());
        }
    }
    if let Some(head) = family.head {
        // The head's name stands without prefix.
        add("output", Some(head.name), |_| ());
        roles.entry("output".to_owned()).and_modify(|role| role.name = head.name.to_owned());
    }
    roles
}

impl Sources {
    fn add(
        &mut self,
        target: &str,
        tensor: &Tensor,
        role: &Role,
        described: &Described,
    ) -> Result<(), String> {
        let family = described.family;
        if !role.name.contains("{e}") {
            let order = order(role, described);
            let less_one = role.norm && family.norm.one_plus && target.ends_with(".weight");
            let turned = role.linear && family.attention.layout == MatrixLayout::InOut;
            let rows = tensor.shape[..tensor.shape.len().max(2) - 1].iter().product();
            let turned = turned && tensor.shape.len() == 2;
            return self.part(target, (tensor, tensor.shape.clone(), (0, rows)), order, (less_one, turned));
        }
        let [experts, rows, columns] = tensor.shape[..] else {
            return Err(format!("wanted a matrix for each expert, found shape {:?}", tensor.shape));
        };
        for expert in 0..experts {
            let target = target.replace("{e}", &expert.to_string());
            let part = (tensor, vec![rows, columns], (expert * rows, rows));
            self.part(&target, part, Order::Same, (false, false))?;
        }
        Ok(())
    }

    /// A tensor, or the matrix of one expert in it: its shape, its first row and its number of rows.
    fn part(
        &mut self,
        target: &str,
        (tensor, shape, (first, rows)): (&Tensor, Vec<usize>, (usize, usize)),
        order: Order,
        (less_one, turned): (bool, bool),
    ) -> Result<(), String> {
        let vector = shape.len() < 2;
        // The elements of a vector are rows of one column.
        let (rows, columns) = if vector { (shape[0], 1) } else { (rows, shape[shape.len() - 1]) };
        order.check(rows)?;
        let source = Source { tensor: tensor.clone(), first, rows, columns, order, field: Field::Numbers };
        match &tensor.format.kind {
            Kind::Blocks(_) if vector => Err(format!("a vector is stored as {}", tensor.format.name)),
            Kind::Blocks(blocks) => {
                // Matrices in blocks lie outputs first, which is how all quantised ones are read.
                self.blocks(target, source, blocks)
            }
            Kind::Plain(dtype) => {
                let (mut dtype, mut shape, mut source) = (*dtype, shape, source);
                if less_one {
                    (dtype, source.field) = (Dtype::F32, Field::LessOne);
                }
                if turned {
                    shape.reverse();
                    source.field = Field::Turned;
                }
                self.numbers(target, (dtype, shape), source)
            }
        }
    }

    /// A tensor as it lies in the file, under the name that it has there.
    fn plain(&mut self, name: &str, tensor: &Tensor) -> Result<(), String> {
        let (begin, end) = (tensor.begin as u64, tensor.end as u64);
        let (dtype, shape) = match tensor.format.kind {
            Kind::Plain(dtype) => (dtype, tensor.shape.clone()),
            Kind::Blocks(_) => (Dtype::U8, vec![tensor.end - tensor.begin]),
        };
        self.entry(name.to_owned(), TensorEntry { dtype, shape: shape.into(), begin, end })
    }

    /// Enters a tensor. A file that spells a tensor in two ways, or has more than any model, is not one that was converted.
    fn entry(&mut self, name: String, entry: TensorEntry) -> Result<(), String> {
        if self.entries.len() >= TENSORS_MAX {
            return Err(format!("it makes more than {TENSORS_MAX} tensors"));
        }
        match self.entries.entry(name) {
            btree_map::Entry::Occupied(other) => {
                Err(format!("it stands for {}, and so does another tensor", shorten(other.key())))
            }
            btree_map::Entry::Vacant(place) => {
                place.insert(entry);
                Ok(())
            }
        }
    }

    fn numbers(
        &mut self,
        target: &str,
        (dtype, shape): (Dtype, Vec<usize>),
        source: Source,
    ) -> Result<(), String> {
        let row = source.row_bytes();
        let begin = source.tensor.begin + source.first * row;
        let (begin, end) = (begin as u64, (begin + source.rows * row) as u64);
        self.entry(target.to_owned(), TensorEntry { dtype, shape: shape.into(), begin, end })?;
        if source.field != Field::Numbers || source.order != Order::Same {
            self.made.insert(target.to_owned(), source);
        }
        Ok(())
    }

    /// The fields of a matrix in blocks.
    fn blocks(&mut self, target: &str, source: Source, blocks: &Blocks) -> Result<(), String> {
        let (rows, columns, elements) = (source.rows, source.columns, source.tensor.format.elements);
        let count = columns / elements;
        let groups = blocks.groups.as_ref().map(|groups| columns / groups.size);
        let name = |field: &str| format!("{target}#{field}");
        let code = if blocks.signed { Dtype::I8 } else { Dtype::U8 };
        let mut fields = vec![
            ("codes", code, columns * blocks.bits / 8, Field::Codes),
            ("scales", Dtype::F16, count, Field::Scales),
        ];
        fields.extend(blocks.minimum.map(|_| ("minima", Dtype::F16, count, Field::Minima)));
        if let Some(groups) = groups {
            fields.push(("scale_factors", Dtype::I8, groups, Field::ScaleFactors));
            fields.extend(
                blocks.minimum.map(|_| ("minimum_factors", Dtype::I8, groups, Field::MinimumFactors)),
            );
        }
        let (begin, row) = (source.tensor.begin + source.first * source.row_bytes(), source.row_bytes());
        for (ending, dtype, width, field) in fields {
            // The codes stand for all bytes of the tensor where bytes are counted.
            let bytes = if field == Field::Codes { rows * row } else { 0 };
            let (begin, end) = (begin as u64, (begin + bytes) as u64);
            let entry = TensorEntry { dtype, shape: [rows, width].into(), begin, end };
            self.entry(name(ending), entry)?;
            self.made.insert(name(ending), Source { field, ..source.clone() });
        }
        let values = |values: &str, factors: &str| InBlocks {
            name: name(values),
            blocks: count,
            factors: groups.map(|groups| (name(factors), groups)),
        };
        let scales = match groups {
            None if blocks.minimum.is_none() => Scales::Grouped {
                name: name("scales"),
                shape: vec![rows, count],
                groups: count,
                turned: false,
                order: None,
                factor: 1.0,
            },
            _ => Scales::InBlocks(values("scales", "scale_factors")),
        };
        let codes = match (blocks.bits, blocks.signed) {
            (8, true) => Codes::Plain { name: name("codes"), dtype: sinter_ir::DType::I8 },
            (8, false) => Codes::Plain { name: name("codes"), dtype: sinter_ir::DType::U8 },
            (bits, _) => Codes::AlongInputs { name: name("codes"), bits },
        };
        let zeros = if blocks.zero == 0 { Zeros::None } else { Zeros::Number(blocks.zero as f64) };
        let minimum = |(_, added)| Minima { values: values("minima", "minimum_factors"), added };
        let minima = blocks.minimum.map(minimum);
        let matrix = StoredMatrix { rows, columns, codes, zeros, scales, minima };
        self.matrices.insert(target.to_owned(), matrix);
        Ok(())
    }
}

fn order(role: &Role, described: &Described) -> Order {
    let (heads, kv_heads) = described.heads;
    match (role.turns.filter(|_| described.row.turns), role.joined) {
        (Some(queries), _) => Order::Turns { heads: if queries { heads } else { kv_heads } },
        (None, true) => Order::Parted { heads, kv_heads },
        (None, false) => Order::Same,
    }
}

impl Order {
    fn check(self, rows: usize) -> Result<(), String> {
        let (fits, what) = match self {
            Order::Same => (true, String::new()),
            Order::Turns { heads } => {
                let fits = heads.checked_mul(2).is_some_and(|halves| rows.is_multiple_of(halves));
                (fits, format!("heads of an even number of rows, {heads} of them"))
            }
            Order::Parted { heads, kv_heads } => {
                let parts = kv_heads.checked_mul(2).and_then(|others| heads.checked_add(others));
                let fits = parts.is_some_and(|parts| rows.is_multiple_of(parts));
                let fits = fits && heads.is_multiple_of(kv_heads);
                (fits, format!("{heads} queries and {kv_heads} keys and values"))
            }
        };
        if fits { Ok(()) } else { Err(format!("{rows} rows are not those of {what}")) }
    }

    /// Where in the file the row lies that is number `row` of the checkpoint's tensor.
    fn stored(self, row: usize, rows: usize) -> usize {
        match self {
            Order::Same => row,
            Order::Turns { heads } => {
                let width = rows / heads;
                let (head, within) = (row / width, row % width);
                let (half, pair) = (within / (width / 2), within % (width / 2));
                head * width + 2 * pair + half
            }
            Order::Parted { heads, kv_heads } => {
                let (width, each) = (rows / (heads + 2 * kv_heads), heads / kv_heads);
                let (group, within) = (row / ((each + 2) * width), row % ((each + 2) * width));
                let (part, at) = (within / width, within % width);
                let head = match part {
                    part if part < each => group * each + part,
                    part => heads + (part - each) * kv_heads + group,
                };
                head * width + at
            }
        }
    }
}

impl Source {
    fn row_bytes(&self) -> usize {
        self.columns / self.tensor.format.elements * self.tensor.format.bytes
    }

    /// The bytes of the field, from those of the file.
    pub(crate) fn read(&self, file: &[u8]) -> Vec<u8> {
        let width = self.row_bytes();
        let start = self.tensor.begin + self.first * width;
        let row = |row: usize| {
            let at = start + self.order.stored(row, self.rows) * width;
            file.get(at..at + width).unwrap_or_default()
        };
        let mut out = Vec::new();
        match (&self.tensor.format.kind, self.field) {
            (Kind::Plain(dtype), Field::LessOne) => {
                let less = |x: f32| (x - 1.0).to_le_bytes();
                (0..self.rows).for_each(|at| out.extend(floats(*dtype, row(at)).flat_map(less)));
            }
            (Kind::Plain(_), Field::Turned) => {
                let size = self.tensor.format.bytes;
                for column in 0..self.columns {
                    (0..self.rows).for_each(|at| out.extend_from_slice(&row(at)[column * size..][..size]));
                }
            }
            (Kind::Plain(_), _) => (0..self.rows).for_each(|at| out.extend_from_slice(row(at))),
            (Kind::Blocks(blocks), field) => {
                for at in 0..self.rows {
                    let blocks_of_row = row(at).chunks_exact(self.tensor.format.bytes);
                    blocks_of_row.for_each(|block| self.block(block, (blocks, field), &mut out));
                }
            }
        }
        out
    }

    /// The field of one block.
    fn block(&self, block: &[u8], (blocks, field): (&Blocks, Field), out: &mut Vec<u8>) {
        let factors = |chosen: fn((i8, i8)) -> i8, out: &mut Vec<u8>| {
            let Some(groups) = &blocks.groups else { return };
            let count = self.tensor.format.elements / groups.size;
            out.extend((0..count).map(|group| chosen((groups.factors)(block, group)) as u8));
        };
        match field {
            Field::Codes => {
                let mut codes = [0u8; 256];
                let codes = &mut codes[..self.tensor.format.elements];
                (blocks.codes)(block, codes);
                match blocks.bits {
                    4 => out.extend(codes.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4)),
                    2 => out.extend(codes.chunks_exact(4).map(|c| c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6)),
                    _ => out.extend_from_slice(codes),
                }
            }
            Field::Scales => out.extend_from_slice(&block[blocks.scale..][..2]),
            Field::Minima => {
                blocks.minimum.iter().for_each(|(at, _)| out.extend_from_slice(&block[*at..][..2]));
            }
            Field::ScaleFactors => factors(|(scale, _)| scale, out),
            Field::MinimumFactors => factors(|(_, minimum)| minimum, out),
            Field::Numbers | Field::LessOne | Field::Turned => {}
        }
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> impl Iterator<Item = f32> {
    let dtype = match dtype {
        Dtype::F16 => sinter_ir::DType::F16,
        Dtype::BF16 => sinter_ir::DType::Bf16,
        _ => sinter_ir::DType::F32,
    };
    bytes.chunks_exact(dtype.bytes()).map(move |bytes| dtype.read(bytes) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file may give any number of heads: one whose double is 2 again fits no rows.
    #[test]
    fn numbers_of_heads_beyond_all_fit_no_rows() {
        let beyond = usize::MAX / 2 + 2;
        for order in [
            Order::Turns { heads: beyond },
            Order::Turns { heads: 0 },
            Order::Parted { heads: beyond, kv_heads: beyond },
            Order::Parted { heads: usize::MAX, kv_heads: 1 },
            Order::Parted { heads: 2, kv_heads: 0 },
        ] {
            assert!(order.check(2).is_err(), "{order:?}");
        }
        assert!(Order::Turns { heads: 2 }.check(8).is_ok());
        assert!(Order::Parted { heads: 4, kv_heads: 2 }.check(8).is_ok());
    }
}
