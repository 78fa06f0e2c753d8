//! Device memory: allocations with gaps between them. Addresses are never used twice, so that a use after `free` is seen.

use super::watch::{Foreign, Marks, Touch, learn};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

/// Where device memory begins.
const FIRST: u64 = 0x7e00_0000_0000;
/// Bytes between allocations, at least.
const GAP: u64 = 4096;
/// Allocations begin at multiples of this.
const ALIGN: u64 = 256;
/// The bytes that memory moves at least.
pub const SECTOR: u64 = 32;

/// A piece of device memory. Words are atomic, since blocks run on several threads.
pub struct Allocation {
    /// Its address.
    pub base: u64,
    /// Its size.
    pub bytes: u64,
    words: Vec<AtomicU32>,
    /// Four bits a word: which bytes were ever written.
    set: Vec<AtomicU8>,
    /// The launch that last read and last wrote each sector.
    read: Vec<AtomicU32>,
    written: Vec<AtomicU32>,
    marks: Marks,
}

fn zeros<T>(count: u64, zero: impl Fn() -> T) -> Vec<T> {
    (0..count).map(|_| zero()).collect()
}

/// The bits of a word for bytes `from..from + count` of it.
fn mask(from: u64, count: u64) -> u8 {
    (((1u32 << count) - 1) << from) as u8
}

impl Allocation {
    fn new(base: u64, bytes: u64) -> Allocation {
        let (words, sectors) = (bytes.div_ceil(4), bytes.div_ceil(SECTOR));
        Allocation {
            base,
            bytes,
            words: zeros(words, || AtomicU32::new(0)),
            set: zeros(words, || AtomicU8::new(0)),
            read: zeros(sectors, || AtomicU32::new(0)),
            written: zeros(sectors, || AtomicU32::new(0)),
            marks: Marks::new(words),
        }
    }

    /// The aligned word at a byte offset.
    #[inline(always)]
    pub(crate) fn word(&self, offset: u64) -> u32 {
        self.words[(offset / 4) as usize].load(Relaxed)
    }

    /// Sets an aligned word.
    #[inline(always)]
    pub(crate) fn set_word(&self, offset: u64, value: u32) {
        self.words[(offset / 4) as usize].store(value, Relaxed);
        self.set[(offset / 4) as usize].store(15, Relaxed);
    }

    /// One, two or four bytes at an offset that is a multiple of their number.
    #[inline(always)]
    pub(crate) fn load(&self, offset: u64, bytes: u64) -> u32 {
        let word = self.word(offset);
        match bytes {
            4 => word,
            2 => word >> (8 * (offset & 2)) & 0xffff,
            _ => word >> (8 * (offset & 3)) & 0xff,
        }
    }

    /// Stores one, two or four bytes at an offset that is a multiple of their number.
    #[inline(always)]
    pub(crate) fn store(&self, offset: u64, bytes: u64, value: u32) {
        if bytes == 4 {
            return self.set_word(offset, value);
        }
        let (at, shift) = ((offset / 4) as usize, 8 * (offset & 3) as u32);
        let part = if bytes == 2 { 0xffff } else { 0xff } << shift;
        let merge = |word: u32| Some(word & !part | (value << shift) & part);
        // Another thread may change the other bytes of the word meanwhile.
        let _ = self.words[at].fetch_update(Relaxed, Relaxed, merge);
        self.set[at].fetch_or(mask(offset & 3, bytes), Relaxed);
    }

    /// The first byte of a range within the allocation that was never written.
    #[inline(always)]
    pub(crate) fn unset(&self, offset: u64, bytes: u64) -> Option<u64> {
        if bytes >= 4 {
            let words = &self.set[(offset / 4) as usize..(offset + bytes).div_ceil(4) as usize];
            if words.iter().all(|word| word.load(Relaxed) == 15) {
                return None;
            }
        }
        (offset..offset + bytes).find(|at| self.set[(at / 4) as usize].load(Relaxed) & mask(at & 3, 1) == 0)
    }

    /// Replaces the word at an offset in one step and returns the old one.
    pub(crate) fn update(&self, offset: u64, change: impl Fn(u32) -> u32) -> u32 {
        let word = &self.words[(offset / 4) as usize];
        let old = word.fetch_update(Relaxed, Relaxed, |word| Some(change(word)));
        old.unwrap_or_else(|word| word)
    }

    /// Notes that a launch reads a sector; true if it had not touched it before.
    #[inline(always)]
    pub(crate) fn first_read(&self, sector: u64, launch: u32) -> bool {
        let at = sector as usize;
        if self.read[at].load(Relaxed) == launch || self.written[at].load(Relaxed) == launch {
            return false;
        }
        self.read[at].swap(launch, Relaxed) != launch
    }

    /// Notes that a launch writes a sector; true if it had not written it before.
    #[inline(always)]
    pub(crate) fn first_write(&self, sector: u64, launch: u32) -> bool {
        let at = sector as usize;
        self.written[at].load(Relaxed) != launch && self.written[at].swap(launch, Relaxed) != launch
    }

    /// Notes that someone reads bytes; an error if that is a race.
    #[inline(always)]
    pub(crate) fn note_read(&self, offset: u64, bytes: u64, touch: &Touch) -> Result<(), String> {
        self.marks.read(self.base, (offset, bytes), touch)
    }

    /// The same of a write.
    #[inline(always)]
    pub(crate) fn note_write(&self, offset: u64, bytes: u64, touch: &Touch) -> Result<(), String> {
        self.marks.write(self.base, (offset, bytes), touch)
    }

    /// Copies bytes in.
    pub(crate) fn write(&self, mut offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if offset.is_multiple_of(4) && rest.len() >= 4 {
                self.set_word(offset, u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]));
                (offset, rest) = (offset + 4, &rest[4..]);
            } else {
                self.store(offset, 1, u32::from(rest[0]));
                (offset, rest) = (offset + 1, &rest[1..]);
            }
        }
    }

    /// Sets bytes to zero.
    pub(crate) fn clear(&self, from: u64, bytes: u64) {
        for word in from.div_ceil(4)..(from + bytes) / 4 {
            self.set_word(4 * word, 0);
        }
        let ends = (from..from.next_multiple_of(4)).chain((from + bytes) / 4 * 4..from + bytes);
        for at in ends.filter(|at| (from..from + bytes).contains(at)) {
            self.store(at, 1, 0);
        }
    }

    /// Copies bytes out.
    pub(crate) fn copy_to(&self, offset: u64, bytes: &mut [u8]) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = self.load(offset + at as u64, 1) as u8;
        }
    }
}

/// All of device memory.
pub struct GlobalMemory {
    /// In the order of addresses.
    live: Vec<Allocation>,
    /// Ranges that were given back.
    freed: Vec<(u64, u64)>,
    next: u64,
    used: u64,
    capacity: u64,
    /// What those knew of other clusters who released at an address, and the launch. Held by atomic operations.
    released: Mutex<BTreeMap<u64, (u32, Foreign)>>,
}

impl GlobalMemory {
    /// Empty memory of so many bytes.
    pub fn new(capacity: u64) -> GlobalMemory {
        GlobalMemory {
            live: Vec::new(),
            freed: Vec::new(),
            next: FIRST,
            used: 0,
            capacity,
            released: Mutex::default(),
        }
    }

    /// Bytes that are allocated.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Memory of so many bytes, or the reason why not.
    pub fn alloc(&mut self, bytes: u64) -> Result<u64, String> {
        let left = self.capacity - self.used;
        if bytes > left {
            return Err(format!("{left} of {} bytes are free", self.capacity));
        }
        let base = self.next;
        self.next = (base + bytes + GAP).next_multiple_of(ALIGN);
        self.used += bytes;
        self.live.push(Allocation::new(base, bytes));
        Ok(base)
    }

    /// Gives an allocation back.
    pub fn free(&mut self, base: u64) -> Result<(), String> {
        let Ok(at) = self.live.binary_search_by_key(&base, |allocation| allocation.base) else {
            return Err(format!("{base:#x} is not the start of an allocation{}", self.about(base)));
        };
        let allocation = self.live.remove(at);
        self.used -= allocation.bytes;
        self.freed.push((base, allocation.bytes));
        Ok(())
    }

    /// The allocation that holds a range, where it is not the one of `last`.
    #[inline(always)]
    pub(crate) fn find(&self, address: u64, bytes: u64, last: &mut usize) -> Result<&Allocation, String> {
        let inside = |allocation: &Allocation| {
            let offset = address.wrapping_sub(allocation.base);
            offset < allocation.bytes && bytes <= allocation.bytes - offset
        };
        if let Some(allocation) = self.live.get(*last).filter(|allocation| inside(allocation)) {
            return Ok(allocation);
        }
        let at = self.live.partition_point(|allocation| allocation.base <= address);
        match at.checked_sub(1).map(|at| (at, &self.live[at])) {
            Some((at, allocation)) if inside(allocation) => {
                *last = at;
                Ok(allocation)
            }
            _ => Err(format!("{bytes} bytes at {address:#x} lie in no allocation{}", self.about(address))),
        }
    }

    /// Does something to an address, with nobody else at one meanwhile. `known` learns what those knew who came here
    /// before in the launch, and those who come later learn `told`.
    pub(crate) fn meet<R>(
        &self,
        (address, launch): (u64, u32),
        (known, told): (&mut Foreign, &Foreign),
        act: impl FnOnce() -> R,
    ) -> R {
        let mut all = self.released.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((at, left)) = all.get(&address)
            && *at == launch
        {
            learn(known, left);
        }
        if !told.is_empty() {
            let left = all.entry(address).or_default();
            if left.0 != launch {
                *left = (launch, Foreign::new());
            }
            learn(&mut left.1, told);
        }
        act()
    }

    /// Forgets who touched what, before the numbers of launches come again.
    pub(crate) fn forget_marks(&mut self) {
        self.live.iter_mut().for_each(|allocation| allocation.marks.clear());
    }

    /// Replaces eight bytes and returns the old ones.
    pub(crate) fn update_long(&self, at: &Allocation, offset: u64, change: impl Fn(u64) -> u64) -> u64 {
        let old = u64::from(at.word(offset)) | u64::from(at.word(offset + 4)) << 32;
        let new = change(old);
        at.set_word(offset, new as u32);
        at.set_word(offset + 4, (new >> 32) as u32);
        old
    }

    /// What is near an address, in words.
    fn about(&self, address: u64) -> String {
        if let Some((base, bytes)) =
            self.freed.iter().find(|(base, bytes)| address >= *base && address < base + (*bytes).max(1))
        {
            return format!("; {} into {bytes} bytes that were freed", address - base);
        }
        let at = self.live.partition_point(|allocation| allocation.base <= address);
        match at.checked_sub(1).map(|at| &self.live[at]) {
            Some(near) if address - near.base <= near.bytes => {
                let past = address - near.base;
                format!("; {past} bytes into an allocation of {} bytes", near.bytes)
            }
            Some(near) if address < near.base + near.bytes + GAP => {
                let past = address - near.base - near.bytes;
                format!("; {past} bytes after the end of an allocation of {} bytes", near.bytes)
            }
            _ => match self.live.get(at) {
                Some(next) if next.base - address <= GAP => {
                    let before = next.base - address;
                    format!("; {before} bytes before an allocation of {} bytes", next.bytes)
                }
                _ => String::new(),
            },
        }
    }
}
