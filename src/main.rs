//! The `cistern` program. Everything is in the library.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// How it gives memory back is set in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cistern::cli::run(std::env::args_os())
}
