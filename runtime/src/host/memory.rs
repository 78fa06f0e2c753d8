//! Zeroed memory at 64-byte boundaries, and weights that someone else owns.

use crate::RuntimeError;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// The boundary at which every piece of memory for kernels starts: a cache line, and the widest vector.
const BOUNDARY: usize = 64;

/// A piece of zeroed memory that starts at a 64-byte boundary.
///
/// Pages that were never touched cost nothing: the memory is asked for with a small alignment, so that the allocator
/// takes fresh zero pages from the system instead of writing zeros.
pub struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    len: usize,
}

// SAFETY: the memory is owned; nothing else points into it.
unsafe impl Send for Memory {}
// SAFETY: shared references only read.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` zero bytes, and up to 64 more that nobody counts, so that a vector load at the end stays inside.
    pub fn zeroed(len: usize) -> Result<Self, RuntimeError> {
        let layout = len.checked_add(2 * BOUNDARY).and_then(|size| Layout::from_size_align(size, 8).ok());
        // SAFETY: the size is at least 128.
        let base = layout.and_then(|layout| NonNull::new(unsafe { alloc_zeroed(layout) }).zip(Some(layout)));
        let (base, layout) = base.ok_or(RuntimeError::Memory(len))?;
        Ok(Self { base, layout, len })
    }
    /// A copy of some bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RuntimeError> {
        let mut memory = Self::zeroed(bytes.len())?;
        memory.bytes_mut().copy_from_slice(bytes);
        Ok(memory)
    }
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes after the boundary are ours and initialised.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len) }
    }
    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` keeps others away.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len) }
    }
    /// The address of the first byte.
    pub fn pointer(&self) -> *mut u8 {
        let offset = self.base.as_ptr().align_offset(BOUNDARY);
        // SAFETY: the allocation has two boundaries more than `len`, and the offset is below one.
        unsafe { self.base.as_ptr().add(offset.min(BOUNDARY)) }
    }
    /// The first `count` numbers, as far as there are so many.
    pub fn floats(&self, count: usize) -> &[f32] {
        let count = count.min(self.len / 4);
        // SAFETY: the memory is aligned to 64, initialised, and any four bytes are a number.
        unsafe { std::slice::from_raw_parts(self.pointer().cast(), count) }
    }
    /// Makes room for `len` bytes; what was there is lost if there was too little. Returns whether it moved.
    pub fn reserve(&mut self, len: usize) -> Result<bool, RuntimeError> {
        let grows = len > self.len;
        if grows {
            *self = Self::zeroed(len)?;
        }
        Ok(grows)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `base` was allocated with this layout and is not used again.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.len)
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// A large piece of zeroed memory that the system backs with huge pages where it can.
///
/// A walk through the page tables for every 4 KiB costs a tenth of the read bandwidth, and the memory's own reading ahead
/// stops at the end of each page; weights are read once a token from the first byte to the last, so they lie here.
#[derive(Debug)]
pub struct HugeMemory(memmap2::MmapMut);

impl HugeMemory {
    /// `len` zero bytes that begin at a page.
    pub fn zeroed(len: usize) -> Result<Self, RuntimeError> {
        let map = memmap2::MmapOptions::new().len(len.max(1)).map_anon();
        let map = map.map_err(|_| RuntimeError::Memory(len))?;
        // Without huge pages, or on a system that has none, the memory is only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self(map))
    }
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for HugeMemory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes of one packed weight: a range of something that is shared, such as a mapped file.
#[derive(Clone)]
pub struct WeightBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl WeightBytes {
    /// All bytes of an owner.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let range = 0..(*owner).as_ref().len();
        Self { owner, range }
    }
    /// A range of an owner's bytes, if it has so many.
    pub fn part(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for WeightBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightBytes({:?})", self.range)
    }
}

/// A file mapped into memory for reading: it costs no memory of its own and is read when it is touched.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps a whole file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(file: &std::fs::File) -> std::io::Result<Self> {
        // SAFETY: the bytes are read only, and any bytes are a valid `[u8]`. Whoever changes the file while it is mapped
        // changes what is computed; whoever cuts it off ends the process, as with every mapped file.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        // File systems that keep large folios map them whole; the others ignore it.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_grows() {
        let mut memory = Memory::zeroed(100).unwrap();
        assert_eq!(memory.pointer() as usize % 64, 0);
        assert!(memory.bytes().iter().all(|byte| *byte == 0) && memory.bytes().len() == 100);
        memory.bytes_mut()[..4].copy_from_slice(&1.5f32.to_ne_bytes());
        assert_eq!(memory.floats(1), [1.5]);
        assert_eq!(memory.floats(1000).len(), 25);
        assert!(!memory.reserve(50).unwrap());
        assert!(memory.reserve(101).unwrap());
        assert_eq!(Memory::zeroed(0).unwrap().bytes(), []);
    }

    #[test]
    fn too_much_memory_is_an_error() {
        for len in [usize::MAX, isize::MAX as usize, 1 << 60] {
            assert_eq!(Memory::zeroed(len).unwrap_err(), RuntimeError::Memory(len));
        }
    }

    #[test]
    fn huge_memory_is_zeroed_aligned_and_written() {
        let mut memory = HugeMemory::zeroed(5 << 20).unwrap();
        assert_eq!(memory.bytes().as_ptr() as usize % 4096, 0);
        assert!(memory.bytes().len() == 5 << 20 && memory.bytes().iter().all(|byte| *byte == 0));
        memory.bytes_mut()[(5 << 20) - 1] = 7;
        assert_eq!(memory.as_ref().last(), Some(&7));
        assert!(!HugeMemory::zeroed(0).unwrap().bytes().is_empty());
        assert_eq!(HugeMemory::zeroed(1 << 60).unwrap_err(), RuntimeError::Memory(1 << 60));
    }

    #[test]
    fn weights_are_ranges_of_an_owner() {
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(vec![1u8, 2, 3]);
        assert_eq!(WeightBytes::new(owner.clone()).bytes(), [1, 2, 3]);
        assert_eq!(WeightBytes::part(owner.clone(), 1..3).unwrap().bytes(), [2, 3]);
        assert!(WeightBytes::part(owner, 1..4).is_none());
    }
}
