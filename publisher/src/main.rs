//! The binary `whimbrel`.

use std::process::ExitCode;

fn main() -> ExitCode {
    whimbrel_publisher::cli::main(std::env::args_os())
}
