//! The header of a safetensors file: eight bytes of length, then JSON, then the tensors' bytes.
//!
//! [`parse_header`] is a pure function of the first bytes and the file's length, so it can be tried on millions
//! of inputs without a file. It accepts exactly what the format allows: the tensors lie one after another
//! without gap or overlap, and the last one ends where the file ends. Everything is checked before memory is
//! taken in proportion to a number that the file states.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use safetensors::Dtype;
use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::source::shorten;

/// The longest header, as in the reference implementation.
pub const HEADER_MAX: u64 = 100_000_000;
/// The most tensors in one file.
pub const TENSORS_MAX: usize = 1 << 20;
/// The most dimensions of a tensor.
pub const RANK_MAX: usize = 16;
const LENGTH_BYTES: u64 = 8;

/// One tensor of a file: its type, its shape and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// The element type as stored.
    pub dtype: Dtype,
    /// The extent of each dimension.
    pub shape: Box<[usize]>,
    /// The first byte, counted from the start of the file.
    pub begin: u64,
    /// One past the last byte, counted from the start of the file.
    pub end: u64,
}

/// A header that has been checked: every entry lies inside the file and has the length its shape asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the tensors' bytes begin.
    pub data_start: u64,
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorEntry>,
}

/// What is wrong with a header.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The file ends within the length field.
    #[error("the file has {found} bytes, wanted at least 8 for the header's length; download it again")]
    NoLength {
        /// The file's size in bytes.
        found: u64,
    },
    /// What Git keeps where the file itself lies elsewhere.
    #[error("the file is a pointer of Git LFS; fetch the file itself with `git lfs pull`")]
    Pointer,
    /// The length field says more than any header has.
    #[error("the header claims {found} bytes, at most 100000000 are allowed; this is not a safetensors file")]
    TooLong {
        /// The stated length.
        found: u64,
    },
    /// The header reaches past the end of the file.
    #[error("the header claims {wanted} bytes, the file has {found} after the length; download it again")]
    Truncated {
        /// The stated length.
        wanted: u64,
        /// The bytes that are there.
        found: u64,
    },
    /// Not the JSON object that the format asks for.
    #[error("the header is not a table of tensors: {reason}; this is not a valid safetensors file")]
    Malformed {
        /// The parser's words.
        reason: String,
    },
    /// An entry whose numbers contradict each other.
    #[error("tensor `{tensor}`: {reason}; the file is damaged or forged")]
    BadEntry {
        /// The tensor.
        tensor: String,
        /// The contradiction.
        reason: String,
    },
    /// The tensors' bytes and the file's length differ.
    #[error("the header describes a file of {wanted} bytes, found {found}; {}", advice(.wanted, .found))]
    WrongLength {
        /// The length that the header describes.
        wanted: u64,
        /// The file's length.
        found: u64,
    },
}

fn advice(wanted: &u64, found: &u64) -> &'static str {
    if found < wanted {
        "the file is truncated, download it again"
    } else {
        "there are stray bytes after the last tensor, the file is damaged or forged"
    }
}

/// How a pointer of Git LFS begins.
const POINTER: &[u8] = b"version https://git-lfs";

/// Parses and checks the header of a file of `file_len` bytes. `bytes` are the file's first bytes: all of the
/// header, and as much of the rest as the caller likes.
pub fn parse_header(bytes: &[u8], file_len: u64) -> Result<Header, HeaderError> {
    let length: [u8; 8] = bytes.first_chunk().copied().ok_or(HeaderError::NoLength { found: file_len })?;
    if bytes.starts_with(POINTER) {
        return Err(HeaderError::Pointer);
    }
    let length = u64::from_le_bytes(length);
    if length > HEADER_MAX {
        return Err(HeaderError::TooLong { found: length });
    }
    let available = file_len.saturating_sub(LENGTH_BYTES);
    if length > available {
        return Err(HeaderError::Truncated { wanted: length, found: available });
    }
    let data_start = LENGTH_BYTES.saturating_add(length);
    let json = usize::try_from(data_start).ok().and_then(|end| bytes.get(LENGTH_BYTES as usize..end));
    let json = json.ok_or(HeaderError::Truncated {
        wanted: length,
        found: (bytes.len() as u64).saturating_sub(LENGTH_BYTES),
    })?;
    // The format fixes the first byte, which keeps a file from being two formats at once.
    if json.first() != Some(&b'{') {
        return Err(HeaderError::Malformed { reason: "it does not begin with `{`".to_owned() });
    }
    let raw: RawHeader = serde_json::from_slice(json)
        .map_err(|e| HeaderError::Malformed { reason: shorten(&e.to_string()) })?;
    place_tensors(raw.tensors, data_start, file_len)
}

/// Checks that the tensors tile the rest of the file, in the order of their offsets.
fn place_tensors(
    mut raw: Vec<(String, RawEntry)>,
    data_start: u64,
    file_len: u64,
) -> Result<Header, HeaderError> {
    raw.sort_by_key(|(_, entry)| (entry.begin, entry.end));
    let mut tensors = BTreeMap::new();
    let mut expected = 0u64;
    for (name, entry) in raw {
        let bad = |reason: String| HeaderError::BadEntry { tensor: shorten(&name), reason };
        if entry.begin != expected {
            let fault = if entry.begin > expected { "leaves a gap" } else { "overlaps the one before" };
            return Err(bad(format!("it begins at byte {}, wanted {expected}: it {fault}", entry.begin)));
        }
        let wanted = byte_length(entry.dtype, &entry.shape)
            .ok_or_else(|| bad(format!("{:?} {:?} has no byte length", entry.dtype, entry.shape)))?;
        let found =
            entry.end.checked_sub(entry.begin).ok_or_else(|| bad("it ends before it begins".into()))?;
        if wanted != found {
            let what = format!("{:?} {:?}", entry.dtype, entry.shape);
            return Err(bad(format!("{what} wants {wanted} bytes, its offsets give {found}")));
        }
        expected = entry.end;
        let (begin, end) = (data_start.checked_add(entry.begin), data_start.checked_add(entry.end));
        let (Some(begin), Some(end)) = (begin, end) else {
            return Err(bad("its offsets overflow".into()));
        };
        let entry = TensorEntry { dtype: entry.dtype, shape: entry.shape, begin, end };
        if tensors.contains_key(&name) {
            return Err(bad("it is listed twice".into()));
        }
        tensors.insert(name, entry);
    }
    let wanted = data_start.saturating_add(expected);
    if wanted != file_len {
        return Err(HeaderError::WrongLength { wanted, found: file_len });
    }
    Ok(Header { data_start, tensors })
}

/// Bytes of a dense tensor; `None` where the count overflows or does not fill whole bytes.
fn byte_length(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent as u64))?;
    let bits = elements.checked_mul(dtype.bitsize() as u64)?;
    (bits % 8 == 0).then_some(bits / 8)
}

struct RawHeader {
    tensors: Vec<(String, RawEntry)>,
}

/// Free texts about the file, which must have the right form but are not kept.
struct Metadata;

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                while map.next_entry::<String, String>()?.is_some() {}
                Ok(Metadata)
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

struct RawEntry {
    dtype: Dtype,
    shape: Box<[usize]>,
    begin: u64,
    end: u64,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut tensors = Vec::new();
                let mut seen = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<Option<Metadata>>()?;
                        if std::mem::replace(&mut seen, true) {
                            return Err(serde::de::Error::duplicate_field("__metadata__"));
                        }
                        continue;
                    }
                    if tensors.len() >= TENSORS_MAX {
                        return Err(serde::de::Error::custom("more than 1048576 tensors"));
                    }
                    let entry = map.next_value::<RawEntry>()?;
                    tensors.push((name, entry));
                }
                Ok(RawHeader { tensors })
            }
        }
        deserializer.deserialize_map(Table)
    }
}

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `dtype`, `shape` and `data_offsets`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntry, A::Error> {
                use serde::de::Error;
                let (mut dtype, mut shape, mut offsets) = (None, None, None);
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let repeated = match key.as_ref() {
                        "dtype" => {
                            let name = map.next_value::<Cow<'de, str>>()?;
                            let known = Dtype::deserialize(StrDeserializer::<A::Error>::new(&name))?;
                            dtype.replace(known).is_some()
                        }
                        "shape" => shape.replace(map.next_value::<Shape>()?).is_some(),
                        "data_offsets" => offsets.replace(map.next_value::<(u64, u64)>()?).is_some(),
                        unknown => {
                            return Err(Error::unknown_field(unknown, &["dtype", "shape", "data_offsets"]));
                        }
                    };
                    if repeated {
                        return Err(Error::custom(format_args!("`{key}` is given twice")));
                    }
                }
                let dtype = dtype.ok_or_else(|| Error::missing_field("dtype"))?;
                let shape = shape.ok_or_else(|| Error::missing_field("shape"))?.0;
                let (begin, end) = offsets.ok_or_else(|| Error::missing_field("data_offsets"))?;
                Ok(RawEntry { dtype, shape, begin, end })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

struct Shape(Box<[usize]>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Extents;
        impl<'de> Visitor<'de> for Extents {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of extents")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut extents = Vec::new();
                while let Some(extent) = seq.next_element::<usize>()? {
                    if extents.len() >= RANK_MAX {
                        return Err(serde::de::Error::custom("more than 16 dimensions"));
                    }
                    extents.push(extent);
                }
                Ok(Shape(extents.into_boxed_slice()))
            }
        }
        deserializer.deserialize_seq(Extents)
    }
}
