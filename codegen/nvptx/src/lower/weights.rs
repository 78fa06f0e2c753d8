//! Codes as numbers: single elements of weights in codes wherever a program loads them, and codes of a register.

use super::{Scope, Val};
use crate::emit::{Cache, F32, Float, Global, I8, Int, K};
use sinter_ir::{CODE_PIECE, CODE_ROWS, Codes, Id, Load, Offset, ParamId};

/// `2²³`: a float whose lowest bits are a whole number below 2²³ more.
const WHOLE: i32 = 0x4b00_0000;
/// [`WHOLE`] as a number.
const WHOLE_FLOAT: f32 = 8_388_608.0;

/// What makes numbers of the codes of one row and group: `(code − zero) · scale`, or `code · scale + more`, each operation
/// rounded once, as the dequantise expression says.
#[derive(Clone, Copy)]
pub struct Numbers<'k> {
    /// The scale.
    pub scale: Float<'k>,
    /// 2²³ more than what is taken off codes.
    pub zero: Float<'k>,
    /// What is added to products, where nothing is taken off codes.
    pub more: Option<Float<'k>>,
}

impl<'k> Numbers<'k> {
    /// Of a row of a tile and a group: what `number` and `byte` load so many bytes behind the beginning of the group's record, the
    /// row's own number of four bytes, or of one.
    pub fn of_record(
        k: K<'k>,
        codes: &Codes,
        number: impl Fn(i32) -> Float<'k>,
        byte: impl Fn(i32) -> Int<'k>,
    ) -> Self {
        let behind = 4 * CODE_ROWS as i32;
        let zero = match codes.offset {
            Offset::Middle => k.float(WHOLE_FLOAT + f32::from(codes.middle())),
            Offset::Zeros => Numbers::lifted(byte(behind)),
            Offset::Lows => k.float(WHOLE_FLOAT),
        };
        let more = (codes.offset == Offset::Lows).then(|| number(behind));
        Numbers { scale: number(0), zero, more }
    }
    /// 2²³ more than a whole number from 0 to 255.
    pub fn lifted(whole: Int<'k>) -> Float<'k> {
        (whole | WHOLE).bits::<F32>()
    }
    /// The number of a code that is 2²³ too large.
    pub fn of(&self, lifted: Float<'k>) -> Float<'k> {
        let product = (lifted - self.zero) * self.scale;
        self.more.map_or(product, |more| product + more)
    }
}

impl<'k> Int<'k> {
    /// Byte `at` of this word as a whole number, 2²³ too large: one permutation.
    pub fn byte_lifted(self, at: u32) -> Float<'k> {
        self.bytes(WHOLE, 0x7440 | at as i32).bits::<F32>()
    }
    /// Four bits of this word from the bit `4·at` on as a whole number, 2²³ too large.
    pub fn nibble_lifted(self, at: u32) -> Float<'k> {
        let low = if at == 0 { self } else { self >> (4 * at) as i32 };
        Numbers::lifted(low & 15)
    }
}

impl<'k> Scope<'_, 'k> {
    /// Where a parameter begins.
    pub fn base(&self, param: ParamId) -> Global<'k> {
        self.bases[param.index()]
    }

    /// One element of a weight in codes, rounded to the parameter's type.
    pub(super) fn load_code(&self, load: &Load, codes: &Codes, cache: Cache) -> Val<'k> {
        let (k, param) = (self.k, &self.tile.params[load.param]);
        let [row, depth] = &load.index[..] else {
            k.fail(format!("{} of {} has codes and is no matrix", param.name, self.tile.name));
            return Val::Constant(0.0);
        };
        let inside = |at: Int<'k>, extent: usize| {
            let extent = self.dim(param.ty.shape[extent]);
            if self.careful { at.greatest(0).least(extent - 1) } else { at }
        };
        let (row, depth) = (inside(self.index(row), 0), inside(self.index(depth), 1));
        let extent = param.ty.shape[1].coeff as usize;
        let tile = (row >> CODE_ROWS.trailing_zeros() as i32).long() * codes.tile_bytes(extent) as i64;
        let (tile, row) = (self.base(load.param).at(tile), row & (CODE_ROWS as i32 - 1));
        let (byte, bit) = place(codes, row, depth);
        let code = k.load::<I8>(tile.at(byte), cache).int();
        let code = if codes.bits == 8 { code } else { (code >> bit) & 15 };
        let group = depth.divided(codes.group as i32) * codes.record_bytes() as i32;
        let record = tile.at(codes.tile_code_bytes(extent) as i32).at(group);
        let number = |behind: i32| k.load::<F32>(record.at(behind).at(row << 2), cache);
        let zero = |behind: i32| k.load::<I8>(record.at(behind).at(row), cache).int();
        let numbers = Numbers::of_record(k, codes, number, zero);
        self.cast(param.ty.dtype, Val::Number(numbers.of(Numbers::lifted(code))))
    }
}

/// Where the code of a row of a tile lies: the byte in the tile, and the number of its lowest bit
/// ([`Codes::place`](sinter_ir::Codes::place)).
fn place<'k>(codes: &Codes, row: Int<'k>, depth: Int<'k>) -> (Int<'k>, Int<'k>) {
    let deep = codes.piece_depth() as i32;
    let (piece, within) = (depth >> deep.trailing_zeros() as i32, depth & (deep - 1));
    let lane = (row & 7) * 4 + ((depth & 7) >> 1);
    let (column, eight, half) = (row >> 3, (within >> 3) & 1, within & 1);
    let first = piece * CODE_PIECE as i32 + lane * 16;
    match codes.bits {
        8 => (first + (within >> 4) * 8 + eight * 4 + column * 2 + half, row.kernel().int(0)),
        _ => (first + (within >> 4) * 4 + eight + half * 2, column << 2),
    }
}

/// The codes of a step of 16 as the fragment of the 16-row operand: `words` are those of the lane, one of 4 bits or two of 8, and
/// `numbers` those of its two rows.
pub fn fragment<'k>(words: &[Int<'k>], numbers: &[Numbers<'k>; 2]) -> [Int<'k>; 4] {
    [0, 1, 2, 3].map(|register: u32| {
        let number = |half: u32| {
            let lifted = match words {
                [word] => word.nibble_lifted(register + 4 * half),
                words => words[register as usize / 2].byte_lifted(register % 2 * 2 + half),
            };
            numbers[register as usize % 2].of(lifted)
        };
        number(0).to_bf16_pair(number(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_word() {
        assert_eq!(WHOLE_FLOAT.to_bits(), WHOLE as u32);
    }
}
