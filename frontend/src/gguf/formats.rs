//! How GGUF stores elements: the plain types, and blocks that hold codes beside their scales.
//!
//! A format of blocks is a row of [`FORMATS`]. The fields of its blocks are given out as tensors of their own, in the
//! layouts that other quantised checkpoints have: codes row by row, scales and minima a group. What they mean is written as
//! an expression of primitives, as for every scheme; here bytes only change places.

/// How the elements of a tensor are stored.
#[derive(Debug)]
pub(super) struct Format {
    /// The number in the file.
    pub(super) number: u32,
    /// The name that the format's own documents have for it.
    pub(super) name: &'static str,
    /// Elements of a block.
    pub(super) elements: usize,
    /// Bytes of a block.
    pub(super) bytes: usize,
    /// What the bytes are.
    pub(super) kind: Kind,
}

/// What the bytes of a block are.
#[derive(Debug)]
pub(super) enum Kind {
    /// One number.
    Plain(safetensors::Dtype),
    /// Codes and scales.
    Blocks(Blocks),
}

/// The fields of a block. An element is (code − zero) · scale, plus or less a minimum.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Bits that a code has among the codes that are given out: 2, 4 or 8.
    pub(super) bits: usize,
    /// Whether codes of 8 bits are signed.
    pub(super) signed: bool,
    /// What is subtracted from each code.
    pub(super) zero: usize,
    /// The codes of a block, a byte each.
    pub(super) codes: fn(&[u8], &mut [u8]),
    /// Where the block's scale lies, two bytes of f16.
    pub(super) scale: usize,
    /// Where the block's minimum lies, and whether it is added.
    pub(super) minimum: Option<(usize, bool)>,
    /// The whole numbers by which scale and minimum are multiplied, for each group of elements.
    pub(super) groups: Option<Groups>,
}

/// Scales of parts of a block.
#[derive(Debug)]
pub(super) struct Groups {
    /// Elements of a group.
    pub(super) size: usize,
    /// The factor of a group on the block's scale, and that on its minimum.
    pub(super) factors: fn(&[u8], usize) -> (i8, i8),
}

const fn plain(number: u32, name: &'static str, dtype: safetensors::Dtype, bytes: usize) -> Format {
    Format { number, name, elements: 1, bytes, kind: Kind::Plain(dtype) }
}

const SIGNED: Blocks =
    Blocks { bits: 8, signed: true, zero: 0, codes: q8_0, scale: 0, minimum: None, groups: None };

const fn blocks(
    number: u32,
    name: &'static str,
    (elements, bytes): (usize, usize),
    blocks: Blocks,
) -> Format {
    Format { number, name, elements, bytes, kind: Kind::Blocks(blocks) }
}

/// The formats that are read.
pub(super) const FORMATS: &[Format] = &[
    plain(0, "F32", safetensors::Dtype::F32, 4),
    plain(1, "F16", safetensors::Dtype::F16, 2),
    plain(30, "BF16", safetensors::Dtype::BF16, 2),
    blocks(2, "Q4_0", (32, 18), Blocks { bits: 4, signed: false, zero: 8, codes: q4_0, ..SIGNED }),
    blocks(
        3,
        "Q4_1",
        (32, 20),
        Blocks { bits: 4, signed: false, codes: q4_1, minimum: Some((2, true)), ..SIGNED },
    ),
    blocks(6, "Q5_0", (32, 22), Blocks { codes: q5_0, ..SIGNED }),
    blocks(7, "Q5_1", (32, 24), Blocks { signed: false, codes: q5_1, minimum: Some((2, true)), ..SIGNED }),
    blocks(8, "Q8_0", (32, 34), SIGNED),
    blocks(
        10,
        "Q2_K",
        (256, 84),
        Blocks {
            bits: 2,
            signed: false,
            codes: q2_k,
            scale: 80,
            minimum: Some((82, false)),
            groups: Some(Groups { size: 16, factors: q2_k_factors }),
            ..SIGNED
        },
    ),
    blocks(
        11,
        "Q3_K",
        (256, 110),
        Blocks {
            codes: q3_k,
            scale: 108,
            groups: Some(Groups { size: 16, factors: q3_k_factors }),
            ..SIGNED
        },
    ),
    blocks(
        12,
        "Q4_K",
        (256, 144),
        Blocks {
            bits: 4,
            signed: false,
            codes: q4_k,
            minimum: Some((2, false)),
            groups: Some(Groups { size: 32, factors: q4_k_factors }),
            ..SIGNED
        },
    ),
    blocks(
        13,
        "Q5_K",
        (256, 176),
        Blocks {
            signed: false,
            codes: q5_k,
            minimum: Some((2, false)),
            groups: Some(Groups { size: 32, factors: q4_k_factors }),
            ..SIGNED
        },
    ),
    blocks(
        14,
        "Q6_K",
        (256, 210),
        Blocks {
            codes: q6_k,
            scale: 208,
            groups: Some(Groups { size: 16, factors: q6_k_factors }),
            ..SIGNED
        },
    ),
    blocks(20, "IQ4_NL", (32, 18), Blocks { codes: iq4_nl, ..SIGNED }),
    blocks(
        23,
        "IQ4_XS",
        (256, 136),
        Blocks { codes: iq4_xs, groups: Some(Groups { size: 32, factors: iq4_xs_factors }), ..SIGNED },
    ),
];

/// The names of formats that exist and are not read, for messages.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// The format with a number, or why there is none.
pub(super) fn find(number: u32) -> Result<&'static Format, String> {
    FORMATS.iter().find(|format| format.number == number).ok_or_else(|| {
        let name = OTHERS.iter().find(|(other, _)| *other == number).map(|(_, name)| *name);
        let found = name.map_or_else(|| format!("type {number}"), str::to_owned);
        let read: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
        format!("it is stored as {found}; this build reads {}", read.join(", "))
    })
}

/// Halves of bytes, the low ones first and then the high ones.
fn halves(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    low.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte & 15);
    high.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> 4);
}

fn q8_0(block: &[u8], codes: &mut [u8]) {
    codes.copy_from_slice(&block[2..34]);
}

fn q4_0(block: &[u8], codes: &mut [u8]) {
    halves(&block[2..18], codes);
}

fn q4_1(block: &[u8], codes: &mut [u8]) {
    halves(&block[4..20], codes);
}

/// The fifth bits of 32 codes.
fn fifth_bits(bits: &[u8], codes: &mut [u8]) {
    codes.iter_mut().enumerate().for_each(|(at, code)| *code |= (bits[at / 8] >> (at % 8) & 1) << 4);
}

fn q5_0(block: &[u8], codes: &mut [u8]) {
    halves(&block[6..22], codes);
    fifth_bits(&block[2..6], codes);
    codes.iter_mut().for_each(|code| *code = code.wrapping_sub(16));
}

fn q5_1(block: &[u8], codes: &mut [u8]) {
    halves(&block[8..24], codes);
    fifth_bits(&block[4..8], codes);
}

/// Codes of two bits: of 128 elements the first 32 in the lowest bits of 32 bytes, and so on.
fn quarters(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
        for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
            codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> (2 * part) & 3);
        }
    }
}

fn q2_k(block: &[u8], codes: &mut [u8]) {
    quarters(&block[16..80], codes);
}

fn q2_k_factors(block: &[u8], group: usize) -> (i8, i8) {
    ((block[group] & 15) as i8, (block[group] >> 4) as i8)
}

fn q3_k(block: &[u8], codes: &mut [u8]) {
    quarters(&block[32..96], codes);
    // Where the third bit is not set, 4 is subtracted.
    for (at, code) in codes.iter_mut().enumerate() {
        let set = block[at % 32] >> (at / 32) & 1;
        *code = code.wrapping_sub(4 * (1 - set));
    }
}

fn q3_k_factors(block: &[u8], group: usize) -> (i8, i8) {
    let scales = &block[96..108];
    let low = scales[group % 8] >> (4 * (group / 8)) & 15;
    let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
    ((low | high << 4) as i8 - 32, 0)
}

fn q4_k(block: &[u8], codes: &mut [u8]) {
    let bytes = block[16..144].chunks_exact(32);
    bytes.zip(codes.chunks_exact_mut(64)).for_each(|(bytes, codes)| halves(bytes, codes));
}

fn q4_k_factors(block: &[u8], group: usize) -> (i8, i8) {
    let packed = &block[4..16];
    if group < 4 {
        return ((packed[group] & 63) as i8, (packed[group + 4] & 63) as i8);
    }
    let (low, scale, minimum) = (packed[group + 4], packed[group - 4] >> 6, packed[group] >> 6);
    ((low & 15 | scale << 4) as i8, (low >> 4 | minimum << 4) as i8)
}

fn q5_k(block: &[u8], codes: &mut [u8]) {
    let bytes = block[48..176].chunks_exact(32);
    bytes.zip(codes.chunks_exact_mut(64)).for_each(|(bytes, codes)| halves(bytes, codes));
    for (at, code) in codes.iter_mut().enumerate() {
        *code |= (block[16 + at % 32] >> (at / 32) & 1) << 4;
    }
}

fn q6_k(block: &[u8], codes: &mut [u8]) {
    for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&block[64 * half..][..64], &block[128 + 32 * half..][..32]);
        for (at, code) in codes.iter_mut().enumerate() {
            let four = low[at % 64] >> (4 * (at / 64)) & 15;
            let two = high[at % 32] >> (2 * (at / 32)) & 3;
            *code = (four | two << 4).wrapping_sub(32);
        }
    }
}

fn q6_k_factors(block: &[u8], group: usize) -> (i8, i8) {
    (block[192 + group] as i8, 0)
}

/// The values of the sixteen codes that lie at unequal steps.
const UNEQUAL: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn unequal(bytes: &[u8], codes: &mut [u8]) {
    halves(bytes, codes);
    codes.iter_mut().for_each(|code| *code = UNEQUAL[usize::from(*code)] as u8);
}

fn iq4_nl(block: &[u8], codes: &mut [u8]) {
    unequal(&block[2..18], codes);
}

fn iq4_xs(block: &[u8], codes: &mut [u8]) {
    let bytes = block[8..136].chunks_exact(16);
    bytes.zip(codes.chunks_exact_mut(32)).for_each(|(bytes, codes)| unequal(bytes, codes));
}

fn iq4_xs_factors(block: &[u8], group: usize) -> (i8, i8) {
    let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
    let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * group) & 3;
    ((low | (high as u8) << 4) as i8 - 32, 0)
}
