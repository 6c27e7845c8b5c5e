//! The `cistern` program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cistern::cli::run(std::env::args_os())
}
