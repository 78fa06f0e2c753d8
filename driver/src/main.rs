//! The `sinter` command.

use std::process::ExitCode;

/// A server that has answered a thousand requests at once should give their memory back. The allocator of the C library keeps
/// it in one arena a thread, so that memory grows for as long as bursts meet new threads; this one returns what is free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(sinter_driver::main_with(std::env::args_os()))
}
