//! Half a minute of the run, with the faults that cost little time, one soon after the other: the harness works, and the
//! promises hold. The hour is `cargo chaos --minutes 60`.

use std::process::Command;

/// Each of them must happen, or the run is red.
const FAULTS: &str = "server-killed,server-paused-past-session,participant-killed,participant-paused,broker-killed,\
                      produce-cut-after,end-txn-dropped,garbage-to-inbox,garbage-to-commands,disk-full";

#[test]
fn half_a_minute_of_faults_breaks_no_promise() {
    let length = ["--seconds", "26", "--dense", "--seed", "7", "--rate", "15", "--settle", "60"];
    let run =
        Command::new(env!("CARGO_BIN_EXE_sagamore-chaos")).args(length).args(["--faults", FAULTS]).status();
    assert_eq!(run.ok().and_then(|status| status.code()), Some(0), "the run is red");
}
