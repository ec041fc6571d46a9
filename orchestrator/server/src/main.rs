//! The binary `sagamore`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagamore::cli::main()
}
