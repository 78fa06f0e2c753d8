//! The memory map: the one `unsafe` call of this crate.
#![allow(unsafe_code, reason = "mapping a file has no safe form; the contract is written below")]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// Maps the first `len` bytes of `file` for reading. The caller has checked `len` against the file's size.
///
/// The bytes are read as plain bytes and never as references to anything with an invalid pattern, so a file
/// that another process rewrites gives wrong weights but no undefined value here. A file that another process
/// *shortens* while it is mapped ends this process with SIGBUS: nothing in user space can turn that into an
/// error, so a model directory must not be changed while it is in use.
pub(crate) fn map(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: the map is private to this process and read-only, `len` was checked against the size of the open
    // file, and the only hazard left, another process changing the file, is the documented contract above.
    unsafe { MmapOptions::new().len(len).map(file) }
}
