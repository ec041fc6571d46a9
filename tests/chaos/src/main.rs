//! `cargo chaos`; under other names the processes that it runs, so that one build has them all.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use sagamore_chaos::{participant, run, world};

/// A check is negative.
const NEGATIVE: u8 = 10;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some(world::SAGAMORE) => sagamore_end_to_end::sagamore_main(),
        Some(world::PARTICIPANT) => participant::main(),
        _ => match run::run(&run::Options::parse()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => NEGATIVE.into(),
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        },
    }
}
