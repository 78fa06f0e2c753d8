//! The `sinter` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(sinter_driver::main_with(std::env::args_os()))
}
