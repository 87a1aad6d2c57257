//! `whimbreld`, the update service.

use std::process::ExitCode;

fn main() -> ExitCode {
    whimbrel_service::main_from_args(std::env::args_os())
}
