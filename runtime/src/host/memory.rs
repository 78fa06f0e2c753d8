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
        unsafe { memmap2::Mmap::map(file) }.map(Self)
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
    fn weights_are_ranges_of_an_owner() {
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(vec![1u8, 2, 3]);
        assert_eq!(WeightBytes::new(owner.clone()).bytes(), [1, 2, 3]);
        assert_eq!(WeightBytes::part(owner.clone(), 1..3).unwrap().bytes(), [2, 3]);
        assert!(WeightBytes::part(owner, 1..4).is_none());
    }
}
