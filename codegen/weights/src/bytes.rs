//! Memory for weights.
#![allow(unsafe_code, reason = "bytes are seen as numbers")]

use std::ops::{Deref, DerefMut};

/// The alignment that kernels may count on: a cache line, and the widest vector.
const ALIGNMENT: usize = 64;

/// Bytes that begin at a multiple of 64.
pub struct AlignedBytes {
    /// Zeroed by the system, page by page as they are first touched.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, len }
    }
}

/// Bytes as numbers, if they are aligned.
pub fn as_f32(bytes: &[u8]) -> Option<&[f32]> {
    // SAFETY: any bits are an f32.
    let (before, numbers, after) = unsafe { bytes.align_to() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

/// Bytes as halves of numbers, if they are aligned.
pub fn as_u16(bytes: &[u8]) -> Option<&[u16]> {
    // SAFETY: any bits are a u16.
    let (before, numbers, after) = unsafe { bytes.align_to() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

/// Bytes to be written as numbers, if they are aligned.
pub fn as_f32_mut(bytes: &mut [u8]) -> Option<&mut [f32]> {
    // SAFETY: any bits are an f32, and any f32 is four bytes.
    let (before, numbers, after) = unsafe { bytes.align_to_mut() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

/// Bytes to be written as halves of numbers, if they are aligned.
pub fn as_u16_mut(bytes: &mut [u8]) -> Option<&mut [u16]> {
    // SAFETY: any bits are a u16, and any u16 is two bytes.
    let (before, numbers, after) = unsafe { bytes.align_to_mut() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

impl Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({})", self.len)
    }
}
