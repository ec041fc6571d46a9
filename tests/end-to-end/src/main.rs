//! The binary `sagamore`, built beside the tests that run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagamore::cli::main()
}
