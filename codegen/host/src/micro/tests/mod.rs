//! Each kernel of each instruction set that the machine has, against f64 and against itself in another shape.
//!
//! Every buffer that a kernel sees ends at a page that cannot be touched ([`Guarded`]), so an access past an end is a
//! fault and not a chance.

mod attention;
mod gemm;
mod group;
mod math;
mod pack;
mod quant;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;

use super::{Isa, Kernels, kernels};

const PAGE: usize = 4096;

unsafe extern "C" {
    fn mprotect(address: *mut c_void, length: usize, protection: i32) -> i32;
}

/// A slice whose last element is followed by a page without access.
struct Guarded<T> {
    base: *mut u8,
    layout: Layout,
    start: *mut T,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    fn new(from: &[T]) -> Self {
        let bytes = size_of_val(from);
        let layout =
            Layout::from_size_align(bytes.next_multiple_of(PAGE) + PAGE, PAGE).expect("a small layout");
        // SAFETY: the layout is not empty; the last page becomes the guard; the slice ends where it begins.
        unsafe {
            let base = alloc_zeroed(layout);
            assert!(!base.is_null(), "out of memory");
            let guard = base.add(layout.size() - PAGE);
            assert_eq!(mprotect(guard.cast(), PAGE, 0), 0, "mprotect");
            let start = guard.sub(bytes).cast::<T>();
            std::ptr::copy_nonoverlapping(from.as_ptr(), start, from.len());
            Guarded { base, layout, start, len: from.len() }
        }
    }

    fn bytes(&self) -> *const u8 {
        self.start.cast()
    }
}

impl<T> std::ops::Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements were written at `start`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> std::ops::DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for Deref, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        const READ_WRITE: i32 = 3;
        // SAFETY: the guard is opened again before the allocator may use it.
        unsafe {
            let guard = self.base.add(self.layout.size() - PAGE);
            assert_eq!(mprotect(guard.cast(), PAGE, READ_WRITE), 0, "mprotect");
            dealloc(self.base, self.layout);
        }
    }
}

/// Numbers that look random and are the same in every run (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In [-1, 1).
    fn unit(&mut self) -> f32 {
        ((self.next() >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    /// In [low, high].
    fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    fn bf16(&mut self, n: usize) -> Vec<u16> {
        let mut out = vec![0; n];
        super::f32_to_bf16(&self.floats(n), &mut out);
        out
    }
}

/// The tables of this machine, the least first.
fn tables() -> Vec<&'static Kernels> {
    Isa::available().map(|isa| kernels(isa).expect("an available instruction set")).collect()
}

/// A bf16 as f64.
fn wide(x: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(x) << 16))
}

/// The bits of each element, all NaNs alike.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

#[test]
fn names_round_trip() {
    for isa in Isa::ALL {
        assert_eq!(isa.to_string().parse::<Isa>(), Ok(isa));
    }
    assert!("sse9".parse::<Isa>().unwrap_err().to_string().contains("wanted one of scalar"));
}

#[test]
fn a_missing_instruction_set_is_an_error() {
    for isa in Isa::ALL {
        match kernels(isa) {
            Ok(table) => assert_eq!(table.isa, isa),
            Err(error) => assert!(error.to_string().starts_with(&format!("this machine has no {isa}"))),
        }
    }
}
