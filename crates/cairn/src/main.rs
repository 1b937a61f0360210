//! The `cairn` binary. What it does is in the library beside it, where tests and fuzzers reach it too.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cairn::main()
}
