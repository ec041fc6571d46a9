//! A minute of the run, with the faults that cost little time: the harness works, and the promises hold. The hour is
//! `cargo chaos --minutes 60`.

use std::process::Command;

/// Each of them must happen, or the run is red.
const FAULTS: &str = "server-killed,server-paused-past-session,participant-killed,participant-paused,broker-killed,\
                      produce-cut-after,end-txn-dropped,garbage-to-inbox,garbage-to-commands,disk-full";

#[test]
fn a_minute_of_faults_breaks_no_promise() {
    let arguments = ["--seconds", "60", "--seed", "7", "--rate", "15", "--settle", "60", "--faults", FAULTS];
    let run = Command::new(env!("CARGO_BIN_EXE_sagamore-chaos")).args(arguments).status();
    assert_eq!(run.ok().and_then(|status| status.code()), Some(0), "the run is red");
}
