//! Faults of a file, of a disk, of another process and of business code: none of them leaves an effect without its
//! answer, and each says what it is.

use std::time::Duration;

use proptest::prelude::*;
use sagamore_participant::perform::Work;
use sagamore_participant::store::sqlite::rusqlite::Transaction;
use sagamore_participant::store::sqlite::{OpenError, SqliteStore};
use sagamore_participant::store::{LocalTransaction, Store, StoreFault};
use sagamore_participant::{Command, Effect, Fault, Open, Participant, Payload};

use crate::ask::{Ask, ask_all, try_all};
use crate::bed::{Bed, Obedient};
use crate::beds::{Memory, Sqlite};

/// Writes one effect, and runs the SQL that its `data` contains.
struct Careless;

impl Participant for Careless {
    type Store = SqliteStore;

    fn execute(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        let sql: String = serde_json::from_str(command.data.json().unwrap())?;
        Sqlite::add(tx, command.address.subject.as_str(), 1)?;
        for statement in sql.split(';') {
            // The carelessness.
            let _ = tx.execute_batch(statement);
        }
        Effect::done(&())
    }

    fn compensate(&self, _: &mut Open<'_, Self>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

const NOTHING: &str = "execute=SELECT 1";

fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreFault>) -> String {
    match result.unwrap_err() {
        StoreFault::Unavailable(cause) => cause,
        other => panic!("not a failure of the store: {other:?}"),
    }
}

/// A commit of three commands, of which the second one's business code runs `sql`, fails as a whole and leaves
/// nothing; the same commands work afterwards.
fn fails_as_a_whole(sql: &str) {
    let bed = Sqlite::default();
    let store = bed.open();
    let commit = |sql: &str| {
        let second = Ask::new("b", &format!("execute={sql}"));
        let asks = [Ask::new("a", NOTHING), second, Ask::new("c", NOTHING)];
        let mut session = store.session().unwrap();
        let answers = try_all(&Careless, &store, &mut session, &asks)?;
        Ok(answers.iter().map(|answered| answered.work).collect::<Vec<_>>())
    };
    let cause = unavailable(commit(sql));
    assert!(cause.contains("ended by a failed statement") || cause.contains("no such savepoint"), "{cause}");
    assert_eq!(bed.count("SELECT count(*) FROM effects"), 0, "{sql}");
    assert_eq!(bed.branches(), 0, "{sql}");
    assert_eq!(commit("SELECT 1"), Ok(vec![Work::Effect; 3]), "{sql}");
}

#[test]
fn nothing_but_the_store_commits() {
    fails_as_a_whole("COMMIT");
    fails_as_a_whole("COMMIT; INSERT INTO effects VALUES ('x', 1)");
    fails_as_a_whole("COMMIT; BEGIN IMMEDIATE; INSERT INTO effects VALUES ('x', 1)");
    fails_as_a_whole("RELEASE sagamore_command; COMMIT");
}

#[test]
fn a_rollback_by_business_code_takes_no_answer_of_others_with_it() {
    fails_as_a_whole("ROLLBACK");
    fails_as_a_whole("ROLLBACK; INSERT INTO effects VALUES ('x', 1)");
    fails_as_a_whole("ROLLBACK; BEGIN; INSERT INTO effects VALUES ('x', 1)");
    fails_as_a_whole("ROLLBACK TO sagamore_command; RELEASE sagamore_command");
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_half_done() {
    let bed = Sqlite::default();
    let store = bed.open();
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    // A small cache, so that the pages have to be written before the commit.
    tx.business().execute_batch("PRAGMA cache_size = 2").unwrap();
    drop(tx);
    let mut tx = store.begin(&mut session).unwrap();
    tx.business().execute_batch("PRAGMA max_page_count = 1").unwrap();
    drop(tx);
    let pages = bed.count("SELECT page_count FROM pragma_page_count");
    let asks: Vec<Ask> = (0..100)
        .map(|turn| Ask { step: "a-step-with-a-long-name", ..Ask::new(format!("t{turn}"), "execute") })
        .collect();
    let result = try_all(&Obedient::<Sqlite>::new(), &store, &mut session, &asks);
    // Whether SQLite ends the local transaction is up to the statement. If it does not, commands are answered alone.
    match result {
        Ok(answers) => {
            let reasons: Vec<_> = answers.iter().filter_map(|answered| answered.reason.as_deref()).collect();
            assert!(!reasons.is_empty());
            assert!(reasons.iter().all(|reason| reason.contains("database or disk is full")), "{reasons:?}");
        }
        Err(fault) => {
            assert!(fault.to_string().contains("full") || fault.to_string().contains("ended"), "{fault}");
        }
    }
    assert_eq!(bed.count("SELECT page_count FROM pragma_page_count"), pages);
    let effects = bed.count("SELECT count(*) FROM effects WHERE net = 1");
    assert_eq!(usize::try_from(effects).unwrap(), bed.branches(), "each effect has its answer");
    let mut session = store.session().unwrap();
    assert_eq!(try_all(&Obedient::<Sqlite>::new(), &store, &mut session, &asks).unwrap().len(), asks.len());
    assert_eq!(bed.branches(), asks.len());
}

#[test]
fn a_file_that_cannot_be_written_is_told() {
    let bed = Sqlite::default();
    let store = bed.open();
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    tx.business().execute_batch("PRAGMA query_only = ON").unwrap();
    drop(tx);
    let answers = try_all(&Obedient::<Sqlite>::new(), &store, &mut session, &[Ask::new("t", "compensate")]);
    let said = match &answers {
        Ok(answers) => answers[0].reason.as_deref().unwrap().to_owned(),
        Err(fault) => fault.to_string(),
    };
    assert_eq!(said, "the store failed: attempt to write a readonly database");
}

#[test]
fn another_process_is_waited_for_but_not_for_ever() {
    let bed = Sqlite::default();
    let holder = bed.open();
    let patient = bed.open();
    let waiting = bed.open().with_busy_timeout(Duration::from_millis(50));
    let mut of_holder = holder.session().unwrap();
    let mut of_waiting = waiting.session().unwrap();
    let held = holder.begin(&mut of_holder).unwrap();
    let refused = waiting.begin(&mut of_waiting).map(|_| ());
    assert_eq!(unavailable(refused), "database is locked");
    std::thread::scope(|scope| {
        let waited =
            scope.spawn(|| ask_all(&Obedient::<Sqlite>::new(), &patient, &[Ask::new("t", "execute")]));
        held.commit().unwrap();
        assert_eq!(waited.join().unwrap(), ["ok"]);
    });
}

#[test]
fn what_is_no_store_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| SqliteStore::open(folder.path().join(name), |_| Ok(())).map(|_| ());
    assert!(matches!(open("no-such-folder/file"), Err(OpenError::Sqlite(_))));
    std::fs::write(
        folder.path().join("letter"),
        "Dear Sir or Madam, this is longer than a header.".repeat(9),
    )
    .unwrap();
    assert_eq!(open("letter").unwrap_err().to_string(), "file is not a database");
    let in_memory = SqliteStore::open(":memory:", |_| Ok(())).unwrap_err();
    assert!(matches!(in_memory, OpenError::NoWal { mode } if mode == "memory"));
}

#[test]
fn a_file_that_has_gone_is_no_empty_memory() {
    let bed = Sqlite::default();
    let store = bed.open();
    std::fs::remove_file(bed.path()).unwrap();
    assert!(unavailable(store.session().map(|_| ())).contains("unable to open database file"));
}

#[test]
fn a_newer_schema_stops_an_older_release() {
    let bed = Sqlite::default();
    let store = bed.open();
    let mut session = store.session().unwrap();
    bed.connection().execute_batch("UPDATE sagamore_schema SET version = 9").unwrap();
    assert!(unavailable(store.begin(&mut session).map(|_| ())).contains("schema 9 now"));
    let error = SqliteStore::open(bed.path(), |_| Ok(())).unwrap_err();
    assert!(matches!(error, OpenError::NewerSchema { found: 9, known: 3 }), "{error}");
}

#[test]
fn a_file_of_the_first_release_is_brought_up_to_date() {
    let bed = Sqlite::default();
    let participant = Obedient::<Sqlite>::new();
    let asks = [Ask::new("done", "execute"), Ask::new("voted", "prepare")];
    assert_eq!(ask_all(&participant, &bed.open(), &asks), ["ok", "ok"]);
    bed.connection()
        .execute_batch(
            "DROP TABLE sagamore_vote; DROP TABLE sagamore_heuristic; DROP TABLE sagamore_position;
             UPDATE sagamore_schema SET version = 1",
        )
        .unwrap();
    assert!(unavailable(SqliteStore::existing(bed.path()).map(|_| ())).contains("schema 1 now"));
    let store = bed.open();
    assert_eq!(bed.count("SELECT version FROM sagamore_schema"), 3);
    let mut session = store.session().unwrap();
    assert_eq!(store.in_doubt(&mut session, None, 9), Ok(vec![]), "what it asks with was not kept");
    assert_eq!(ask_all(&participant, &store, &asks), ["ok", "ok"]);
    assert_eq!(ask_all(&participant, &store, &[Ask::new("voted", "commit")]), ["ok"]);
    assert_eq!((bed.net("done"), bed.net("voted")), (1, 11));
    assert_eq!(ask_all(&participant, &store, &[Ask::new("new", "prepare")]), ["ok"]);
    assert_eq!(store.in_doubt(&mut session, None, 9).unwrap().len(), 1);
}

#[test]
fn many_may_open_a_new_file_at_once() {
    for _ in 0..40 {
        let bed = Sqlite::default();
        std::thread::scope(|scope| {
            for instance in 0..8 {
                let bed = &bed;
                scope.spawn(move || {
                    let asks = [Ask::new(format!("t{instance}"), "execute")];
                    let store = bed.open().with_busy_timeout(Duration::from_mins(1));
                    assert_eq!(ask_all(&Obedient::<Sqlite>::new(), &store, &asks), ["ok"]);
                });
            }
        });
        assert_eq!(bed.branches(), 8);
    }
}

#[test]
fn business_tables_and_ours_are_made_together_or_not_at_all() {
    let bed = Sqlite::default();
    SqliteStore::open(bed.path(), |tx| tx.execute_batch("CREATE TABLE first (a); CREATE nonsense"))
        .unwrap_err();
    assert_eq!(bed.count("SELECT count(*) FROM sqlite_schema"), 0);
}

#[test]
fn a_commit_waits_for_the_disk() {
    let bed = Sqlite::default();
    let store = bed.open();
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    let setting = |tx: &Transaction<'_>, name: &str| -> String {
        tx.query_row(&format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"), [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(setting(tx.business(), "synchronous"), "2");
    assert_eq!(setting(tx.business(), "journal_mode"), "wal");
}

#[test]
fn the_file_stays_small_while_the_horizon_moves() {
    let bed = Sqlite::default();
    let store = bed.open();
    let mut session = store.session().unwrap();
    let mut live = |from: usize| {
        for born in (from..from + 5_000).step_by(50) {
            let asks: Vec<Ask> = (born..born + 50)
                .map(|born| {
                    let now_ms = i64::try_from(born).unwrap();
                    let subject = format!("t{born}");
                    // What is 500 branches old may go.
                    Ask::new(subject, "execute=refused").born(born).issued(now_ms).watermark(now_ms - 500)
                })
                .collect();
            try_all(&Obedient::<Sqlite>::new(), &store, &mut session, &asks).unwrap();
        }
        bed.count("SELECT page_count FROM pragma_page_count")
    };
    let pages = live(1_000);
    assert!((400..700).contains(&bed.branches()), "{} branches", bed.branches());
    let more = live(6_000);
    assert!(more <= pages + 5, "{pages} pages became {more}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn both_stores_answer_the_same(commits in prop::collection::vec(prop::collection::vec((
        prop::sample::select(vec!["a", "b"]),
        prop::sample::select(vec!["execute", "compensate", "prepare", "precommit", "commit", "abort"]),
        prop::sample::select(vec!["done", "done", "refused", "fault"]),
    ), 1..6), 1..6)) {
        let (memory, sqlite) = (Memory::default(), Sqlite::default());
        let (in_memory, in_sqlite) = (memory.open(), sqlite.open());
        for commit in commits {
            let asks: Vec<Ask> = commit
                .iter()
                .map(|(subject, operation, told)| Ask::new(*subject, &format!("{operation}={told}")))
                .collect();
            prop_assert_eq!(
                ask_all(&Obedient::<Sqlite>::new(), &in_sqlite, &asks),
                ask_all(&Obedient::<Memory>::new(), &in_memory, &asks)
            );
        }
        for subject in ["a", "b"] {
            prop_assert_eq!(sqlite.net(subject), memory.net(subject));
        }
        prop_assert_eq!(sqlite.branches(), memory.branches());
        let in_doubt = in_sqlite.in_doubt(&mut in_sqlite.session().unwrap(), None, 9).unwrap();
        prop_assert_eq!(in_doubt, in_memory.in_doubt(&mut (), None, 9).unwrap());
    }
}
