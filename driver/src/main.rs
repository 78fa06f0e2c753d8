//! The `sinter` command.

use std::process::ExitCode;

/// A server that has answered a thousand requests at once should give their memory back, also what threads allocated that
/// are gone since. This allocator returns within some seconds what is free, from a thread of its own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(sinter_driver::main_with(std::env::args_os()))
}
