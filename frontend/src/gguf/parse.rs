//! The head of a GGUF file: metadata by name, then where each tensor lies.
//!
//! [`parse`] is a pure function of the file's bytes. Nothing is allocated in proportion to a number that the file states
//! before the bytes that the number speaks of are known to be there.

use std::collections::BTreeMap;

use thiserror::Error;

use super::formats::{self, Format};
use crate::source::shorten;

/// The most entries of metadata, and the most tensors.
const COUNT_MAX: u64 = 1 << 20;
/// The longest name of an entry, as the format has it.
const KEY_MAX: u64 = 65535;
/// The longest name of a tensor, as the format has it.
const NAME_MAX: u64 = 64;
/// The most dimensions of a tensor, as the format has it.
const RANK_MAX: u32 = 4;
/// The alignment where no entry says another.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Other first bytes.
    #[error("it does not begin with the letters GGUF; this is not a GGUF file")]
    NotGguf,
    /// A version that is not read.
    #[error("its version is {found}, versions 2 and 3 are read; convert the model again")]
    Version {
        /// The number in the file, or what it seems to be.
        found: String,
    },
    /// The file ends too early.
    #[error("{what} reaches past the end of the file; the file is truncated, download it again")]
    Truncated {
        /// What was being read.
        what: String,
    },
    /// A number that no file may have.
    #[error("{what} is {found}, wanted {wanted}; the file is damaged or forged")]
    Limit {
        /// What the number is.
        what: String,
        /// The number.
        found: String,
        /// What it may be.
        wanted: String,
    },
    /// An entry of the metadata.
    #[error("metadata `{key}`: {reason}")]
    Entry {
        /// Its name.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}

/// An entry of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(i128),
    /// A number, as the shortest text that gives it in the width that it was stored with.
    Real(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Whole numbers.
    Wholes(Vec<i64>),
    /// Numbers.
    Reals(Vec<f32>),
    /// Yes or no, several times.
    Bools(Vec<bool>),
    /// Texts.
    Texts(Vec<Box<str>>),
}

/// A tensor of the file.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// How its elements are stored.
    pub(super) format: &'static Format,
    /// The extents, outermost first.
    pub(super) shape: Vec<usize>,
    /// The first byte, counted from the start of the file.
    pub(super) begin: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

/// A file's head that has been checked: each tensor lies inside the file and has the length that its shape asks for.
#[derive(Clone, Debug)]
pub struct Head {
    /// The metadata by name.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors by name.
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// Where the tensors' bytes begin.
    pub(super) data_start: usize,
}

/// Parses and checks the head of a file.
pub fn parse(bytes: &[u8]) -> Result<Head, FormatError> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4, || "the first word".into()).ok() != Some(b"GGUF".as_slice()) {
        return Err(FormatError::NotGguf);
    }
    let version = reader.u32("the version")?;
    if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
        return Err(FormatError::Version { found: format!("{} in big-endian order", version.swap_bytes()) });
    }
    if !(2..=3).contains(&version) {
        return Err(FormatError::Version { found: version.to_string() });
    }
    let tensors = reader.count("the number of tensors")?;
    let entries = reader.count("the number of entries of metadata")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = reader.text("the name of an entry of metadata", KEY_MAX)?.to_owned();
        let kind = reader.u32("the type of an entry of metadata")?;
        let value = reader.value(&key, kind)?;
        if metadata.contains_key(&key) {
            return Err(FormatError::Entry { key: shorten(&key), reason: "it is there twice".into() });
        }
        metadata.insert(key, value);
    }
    let mut listed = Vec::new();
    for _ in 0..tensors {
        listed.push(reader.tensor()?);
    }
    let alignment = alignment(&metadata)?;
    let data_start = (reader.at as u64).next_multiple_of(alignment);
    let tensors = place(listed, (data_start, alignment), bytes.len() as u64)?;
    Ok(Head { metadata, tensors, data_start: data_start.min(bytes.len() as u64) as usize })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, FormatError> {
    let key = "general.alignment";
    let given = match metadata.get(key) {
        None => return Ok(ALIGNMENT),
        Some(Value::Whole(number)) => u64::try_from(*number).ok(),
        Some(_) => None,
    };
    given.filter(|number| number.is_power_of_two() && (8..=ALIGNMENT_MAX).contains(number)).ok_or_else(|| {
        FormatError::Entry {
            key: key.into(),
            reason: format!("wanted a power of two from 8 to {ALIGNMENT_MAX}"),
        }
    })
}

/// A tensor as it is listed: its name, and its place counted from the first tensor's.
type Listed = (String, &'static Format, Vec<usize>, u64);

/// Checks that the tensors follow one another from the beginning of the data to the end of the file, each at a multiple of
/// the alignment.
fn place(
    mut listed: Vec<Listed>,
    (data_start, alignment): (u64, u64),
    file_len: u64,
) -> Result<BTreeMap<String, Tensor>, FormatError> {
    listed.sort_by_key(|(.., offset)| *offset);
    let mut tensors = BTreeMap::new();
    let mut expected = 0u64;
    for (name, format, shape, offset) in listed {
        let bad = |reason: String| FormatError::Tensor { tensor: shorten(&name), reason };
        if offset != expected {
            return Err(bad(format!("it begins at byte {offset} of the data, wanted {expected}")));
        }
        let size = size(format, &shape).map_err(bad)?;
        let begin = data_start.checked_add(offset);
        let end = begin.and_then(|begin| begin.checked_add(size)).filter(|end| *end <= file_len);
        let (Some(begin), Some(end)) = (begin, end) else {
            let what = format!("tensor `{}`", shorten(&name));
            return Err(FormatError::Truncated { what });
        };
        expected = (offset + size).next_multiple_of(alignment);
        let tensor = Tensor { format, shape, begin: begin as usize, end: end as usize };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(FormatError::Tensor { tensor: shorten(&name), reason: "it is there twice".into() });
        }
    }
    let end = data_start.saturating_add(expected);
    if file_len > end {
        return Err(FormatError::Limit {
            what: "the file's length".into(),
            found: file_len.to_string(),
            wanted: format!("at most {end}, where the last tensor ends"),
        });
    }
    Ok(tensors)
}

/// The bytes of a tensor.
fn size(format: &Format, shape: &[usize]) -> Result<u64, String> {
    let elements = shape.iter().try_fold(1u64, |count, extent| count.checked_mul(*extent as u64));
    let elements = elements.ok_or_else(|| format!("{shape:?} has too many elements"))?;
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(format.elements) {
        let (name, block) = (format.name, format.elements);
        return Err(format!("a row of {row} elements is no whole number of {name} blocks of {block}"));
    }
    let blocks = elements / format.elements as u64;
    blocks.checked_mul(format.bytes as u64).ok_or_else(|| format!("{shape:?} has too many bytes"))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64, what: impl Fn() -> String) -> Result<&'a [u8], FormatError> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let part = end.and_then(|end| Some((end, self.bytes.get(self.at..end)?)));
        let (end, part) = part.ok_or_else(|| FormatError::Truncated { what: what() })?;
        self.at = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        let part = self.take(N as u64, || what.to_owned())?;
        Ok(part.first_chunk().copied().unwrap_or([0; N]))
    }

    fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn count(&mut self, what: &str) -> Result<u64, FormatError> {
        let found = self.u64(what)?;
        self.limit(what, found, COUNT_MAX)
    }

    fn limit(&self, what: &str, found: u64, most: u64) -> Result<u64, FormatError> {
        if found <= most {
            return Ok(found);
        }
        let wanted = format!("at most {most}");
        Err(FormatError::Limit { what: what.into(), found: found.to_string(), wanted })
    }

    fn text(&mut self, what: &str, most: u64) -> Result<&'a str, FormatError> {
        let length = self.u64(what)?;
        let length = self.limit(&format!("the length of {what}"), length, most)?;
        let bytes = self.take(length, || what.to_owned())?;
        std::str::from_utf8(bytes).map_err(|_| FormatError::Limit {
            what: what.into(),
            found: shorten(&String::from_utf8_lossy(bytes)),
            wanted: "UTF-8 text".into(),
        })
    }

    fn tensor(&mut self) -> Result<Listed, FormatError> {
        let name = self.text("the name of a tensor", NAME_MAX)?.to_owned();
        let bad = |reason: String| FormatError::Tensor { tensor: shorten(&name), reason };
        let what = format!("tensor `{}`", shorten(&name));
        let rank = self.u32(&what)?;
        if !(1..=RANK_MAX).contains(&rank) {
            return Err(bad(format!("it has {rank} dimensions, wanted 1 to {RANK_MAX}")));
        }
        let mut shape = Vec::with_capacity(rank as usize);
        for _ in 0..rank {
            let extent = self.u64(&what)?;
            let extent = usize::try_from(extent).ok().filter(|extent| (1..=1usize << 40).contains(extent));
            shape.push(extent.ok_or_else(|| bad("an extent is 0 or beyond all models".into()))?);
        }
        // The file lists the innermost first.
        shape.reverse();
        let number = self.u32(&what)?;
        let format = formats::find(number).map_err(bad)?;
        let offset = self.u64(&what)?;
        Ok((name, format, shape, offset))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, FormatError> {
        let what = || format!("metadata `{}`", shorten(key));
        let bad = |reason: String| FormatError::Entry { key: shorten(key), reason };
        match kind {
            STRING => {
                let text = self.text(&what(), u64::MAX)?;
                Ok(Value::Text(text.to_owned()))
            }
            ARRAY => {
                let kind = self.u32(&what())?;
                let count = self.u64(&what())?;
                self.list(key, (kind, count))
            }
            _ => {
                let width = width(kind).ok_or_else(|| bad(format!("type {kind} is not known")))?;
                let bytes = self.take(width, what)?;
                let number = number(kind, bytes);
                match (kind, number) {
                    (BOOL, _) => match bytes {
                        [0] => Ok(Value::Bool(false)),
                        [1] => Ok(Value::Bool(true)),
                        _ => Err(bad("a truth value is neither 0 nor 1".into())),
                    },
                    (_, Number::Whole(number)) => Ok(Value::Whole(number)),
                    (_, Number::Real(number)) => Ok(Value::Real(number)),
                }
            }
        }
    }

    /// The elements of an array. Each takes a byte or more, so what is kept is in proportion to what is there.
    fn list(&mut self, key: &str, (kind, count): (u32, u64)) -> Result<Value, FormatError> {
        let what = || format!("metadata `{}`", shorten(key));
        let bad = |reason: String| FormatError::Entry { key: shorten(key), reason };
        if kind == STRING {
            let mut texts = Vec::new();
            for _ in 0..count {
                texts.push(self.text(&what(), u64::MAX)?.into());
            }
            return Ok(Value::Texts(texts));
        }
        let each = width(kind).ok_or_else(|| bad(format!("an array of type {kind} is not known")))?;
        let bytes = count.checked_mul(each).ok_or_else(|| FormatError::Truncated { what: what() })?;
        let bytes = self.take(bytes, what)?;
        let elements = bytes.chunks_exact(each as usize);
        match kind {
            BOOL if bytes.iter().all(|byte| *byte < 2) => {
                Ok(Value::Bools(bytes.iter().map(|byte| *byte == 1).collect()))
            }
            BOOL => Err(bad("a truth value is neither 0 nor 1".into())),
            FLOAT32 | FLOAT64 => {
                let real = |bytes| match number(kind, bytes) {
                    Number::Real(number) => number as f32,
                    Number::Whole(_) => 0.0,
                };
                Ok(Value::Reals(elements.map(real).collect()))
            }
            _ => {
                let whole = |bytes| match number(kind, bytes) {
                    Number::Whole(number) => i64::try_from(number).ok(),
                    Number::Real(_) => None,
                };
                let wholes = elements.map(whole).collect::<Option<_>>();
                wholes.map(Value::Wholes).ok_or_else(|| bad("a number is beyond 63 bits".into()))
            }
        }
    }
}

const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const FLOAT64: u32 = 12;

/// The bytes of a value of fixed length; none for types that are not known.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | BOOL => Some(1),
        2 | 3 => Some(2),
        4 | 5 | FLOAT32 => Some(4),
        10 | 11 | FLOAT64 => Some(8),
        _ => None,
    }
}

enum Number {
    Whole(i128),
    Real(f64),
}

fn number(kind: u32, bytes: &[u8]) -> Number {
    let mut wide = [0u8; 8];
    wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let whole = u64::from_le_bytes(wide);
    Number::Whole(match kind {
        1 => i128::from(whole as i8),
        3 => i128::from(whole as i16),
        5 => i128::from(whole as i32),
        11 => i128::from(whole as i64),
        FLOAT32 => return Number::Real(decimal(f32::from_bits(whole as u32))),
        FLOAT64 => return Number::Real(f64::from_bits(whole)),
        _ => i128::from(whole),
    })
}

/// The number that the shortest decimal text of a stored one means: files of other formats say 1e-5 in double precision.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}
