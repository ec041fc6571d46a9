//! `kill -9` in the middle of the work: what was acknowledged is there, and no effect is there without its answer.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use sagamore_participant::perform::Work;
use sagamore_participant::store::Store;

use crate::ask::{Ask, try_all};
use crate::bed::{Bed, Obedient};
use crate::beds::{Sqlite, open_at};

/// Set for the process that is to be killed: the file.
const FILE: &str = "SAGAMORE_TEST_FILE";
/// Set for it, too: its first command.
const FROM: &str = "SAGAMORE_TEST_FROM";
const ACKNOWLEDGED: &str = "acknowledged below ";
const KILLS: usize = 12;

#[test]
fn a_killed_process_has_lost_nothing_it_has_answered() {
    if let Some(file) = env::var_os(FILE) {
        let from = env::var(FROM).unwrap().parse().unwrap();
        answer_until_killed(file.into(), from);
    }
    let bed = Sqlite::default();
    let mut from = 0;
    for kill in 0..KILLS {
        let child = child(&bed, from);
        let below = kill_after(child, from + 3 + kill * 29);
        assert!(below > from, "kill {kill}: the process has answered something");
        let store = bed.open();
        let mut session = store.session().unwrap();
        for turn in from..below {
            let answers = try_all(&Obedient::<Sqlite>::new(), &store, &mut session, &[ask(turn)]).unwrap();
            assert_eq!(answers[0].work, Work::Repeated, "kill {kill}: {turn} had been answered");
        }
        // What was committed and not acknowledged any more is answered once, too.
        let next = bed.count("SELECT count(*) FROM effects");
        assert_eq!(bed.count("SELECT count(*) FROM sagamore_barrier"), next, "kill {kill}");
        assert_eq!(bed.count("SELECT count(*) FROM effects WHERE net <> 1"), 0, "kill {kill}");
        let integrity: String =
            bed.connection().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(integrity, "ok");
        from = usize::try_from(next).unwrap();
    }
}

fn ask(turn: usize) -> Ask {
    Ask::new(format!("t{turn}"), "execute").born(turn)
}

/// Commits one to seven commands at a time, says so, and goes on.
fn answer_until_killed(file: PathBuf, mut from: usize) -> ! {
    let store = open_at(file);
    let mut session = store.session().unwrap();
    loop {
        let below = from + 1 + from % 7;
        let asks: Vec<Ask> = (from..below).map(ask).collect();
        try_all(&Obedient::<Sqlite>::new(), &store, &mut session, &asks).unwrap();
        println!("{ACKNOWLEDGED}{below}");
        from = below;
    }
}

fn child(bed: &Sqlite, from: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "sqlite::killed::a_killed_process_has_lost_nothing_it_has_answered"])
        .env(FILE, bed.path())
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills it when it has acknowledged so many. Returns below which all were acknowledged.
fn kill_after(mut child: Child, many: usize) -> usize {
    let mut below = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The harness may have begun the line.
        let Some((_, number)) = line.split_once(ACKNOWLEDGED) else { continue };
        below = number.parse().unwrap();
        if below >= many {
            // SIGKILL. What it has said until then is still read.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    below
}
