//! What can go wrong with prepared transactions, each on the real server.

use std::time::Duration;

use sagamore_participant::perform::{Work, perform};
use sagamore_participant::store::{LocalTransaction, Store, StoreFault};
use sagamore_participant_postgres::{Hold, Isolation, OpenError, PostgresOptions, PostgresStore};

use crate::ask::{Ask, ask_all, text, try_all};
use crate::bed::{Bed, Obedient};
use crate::beds::{Place, Xa, server};

const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";

fn obedient() -> Obedient<Xa> {
    Obedient::new()
}

fn ask(store: &PostgresStore, asked: &str) -> String {
    ask_all(&obedient(), store, &[Ask::new("t", asked)]).remove(0)
}

/// As a worker sees it: an answer, or the failure of the local transaction.
fn try_one(store: &PostgresStore, ask: Ask) -> Result<String, StoreFault> {
    let mut session = store.session()?;
    try_all(&obedient(), store, &mut session, &[ask]).map(|answers| text(&answers[0]))
}

fn gid(bed: &Xa, subject: &str) -> String {
    format!("{}/{}/{subject}/0-7/s/b", bed.0.options().gid_prefix, "0".repeat(32))
}

/// Of this bed: other tests have theirs on the same server.
fn prepared(store: &PostgresStore, bed: &Place) -> Vec<Hold> {
    let own = format!("{}/", bed.options().gid_prefix);
    let is_own = |hold: &Hold| hold.locks.as_ref().is_some_and(|locks| locks.gid.starts_with(&own));
    store.held(100).unwrap().into_iter().filter(is_own).collect()
}

#[test]
fn slots_that_are_taken_are_waited_for() {
    let own = server(&[("max_prepared_transactions", "1")]);
    let place = Place::on(&own);
    let store = place.open(place.xa());
    assert_eq!(ask(&store, "prepare"), "ok");
    let second = || try_one(&store, Ask::new("u", "prepare"));
    let Err(StoreFault::Unavailable(said)) = second() else { panic!("there is one slot") };
    assert!(said.contains("maximum number of prepared transactions"), "{said}");
    assert_eq!(prepared(&store, &place).len(), 1);
    assert_eq!(ask(&store, "commit"), "ok");
    assert_eq!(second(), Ok("ok".into()));
}

#[test]
fn without_slots_there_is_no_xa() {
    let own = server(&[("max_prepared_transactions", "0")]);
    let place = Place::on(&own);
    let opened = PostgresStore::open(place.config.clone(), place.xa(), "").map(|_| ()).unwrap_err();
    assert!(matches!(opened, OpenError::NoPreparedTransactions), "{opened}");
    let wrong = PostgresOptions { gid_prefix: "it's".into(), ..place.xa() };
    let opened = PostgresStore::open(place.config.clone(), wrong, "").map(|_| ()).unwrap_err();
    assert!(matches!(opened, OpenError::GidPrefix), "{opened}");
    place.open(place.options());
}

#[test]
fn a_gid_that_somebody_else_uses_is_an_error_until_it_is_free() {
    let bed = Xa::default();
    let store = bed.open();
    let gid = gid(&bed, "t");
    let look = bed.0.look();
    look.run(&format!("BEGIN; CREATE TABLE strange (a INT); PREPARE TRANSACTION '{gid}'"));
    let Err(StoreFault::Unavailable(said)) = try_one(&store, Ask::new("t", "prepare")) else {
        panic!("the gid is taken")
    };
    assert!(said.contains("already in use"), "{said}");
    look.run(&format!("ROLLBACK PREPARED '{gid}'"));
    assert_eq!((ask(&store, "prepare"), ask(&store, "commit")), ("ok".into(), "ok".into()));
    assert_eq!(bed.net("t"), 11);
}

#[test]
fn what_ended_without_its_row_is_known_all_the_same() {
    // A process that dies after COMMIT PREPARED, or an operator.
    let by_hand = |verb: &str| {
        let bed = Xa::default();
        let store = bed.open();
        assert_eq!(ask(&store, "prepare"), "ok");
        bed.0.look().run(&format!("{verb} PREPARED '{}'", gid(&bed, "t")));
        assert_eq!(store.in_doubt(&mut store.session().unwrap(), None, 9).unwrap(), []);
        (bed, store)
    };
    let (bed, store) = by_hand("COMMIT");
    assert_eq!(ask(&store, "abort"), "refused committed");
    assert_eq!(["prepare", "commit", "commit", "precommit"].map(|asked| ask(&store, asked)), ["ok"; 4]);
    assert_eq!(bed.net("t"), 1, "and no business code of commit: it was done");
    let (bed, store) = by_hand("COMMIT");
    assert_eq!(ask(&store, "compensate"), "ok");
    assert_eq!(bed.net("t"), 0);
    let (bed, store) = by_hand("ROLLBACK");
    assert_eq!(ask(&store, "commit"), "refused not-prepared");
    assert_eq!(["abort", "abort"].map(|asked| ask(&store, asked)), ["ok"; 2]);
    assert_eq!(ask(&store, "prepare"), "refused cancelled");
    assert_eq!(bed.net("t"), 0);
    let (bed, store) = by_hand("ROLLBACK");
    assert_eq!(["prepare", "prepare", "commit"].map(|asked| ask(&store, asked)), ["ok"; 3]);
    assert_eq!((bed.net("t"), prepared(&store, &bed.0).len()), (11, 0));
}

#[test]
fn another_role_may_not_end_it() {
    let own = server(&[]);
    let place = Place::on(&own);
    let store = place.open(place.xa());
    let look = place.look();
    let schema = place.schema.replace('"', "\"\"");
    look.run(&format!(
        "CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA \"{schema}\" TO clerk;
         GRANT ALL ON ALL TABLES IN SCHEMA \"{schema}\" TO clerk"
    ));
    assert_eq!(ask(&store, "prepare"), "ok");
    let mut config = place.config.clone();
    config.user("clerk");
    let of_clerk = PostgresStore::open(config, place.xa(), "").unwrap();
    for asked in ["commit", "abort"] {
        let said = ask(&of_clerk, asked);
        assert!(
            said.contains("42501") && said.contains("PREPARED sagamore") || said.contains("42501"),
            "{said}"
        );
    }
    assert_eq!(prepared(&of_clerk, &place)[0].locks.as_ref().unwrap().owner, "postgres");
    // He has voted, whoever asks.
    assert_eq!(ask(&of_clerk, "prepare"), "ok");
    assert_eq!(ask(&store, "commit"), "ok");
    assert_eq!(prepared(&store, &place), []);
}

#[test]
fn an_abort_that_meets_a_late_prepare_comes_again() {
    let bed = Xa::default();
    let options = PostgresOptions { lock_timeout: Duration::from_millis(100), ..bed.0.xa() };
    let store = bed.0.open(options);
    let mut session = store.session().unwrap();
    let mut late = store.begin(&mut session).unwrap();
    assert_eq!(text(&perform(&obedient(), &mut late, &Ask::new("t", "prepare").command()).unwrap()), "ok");
    // It holds its row, and is not on the server yet.
    assert!(ask(&store, "abort").starts_with("error another instance"));
    late.commit().unwrap();
    assert_eq!(prepared(&store, &bed.0).len(), 1);
    assert_eq!(ask(&store, "abort"), "ok");
    assert_eq!((prepared(&store, &bed.0), bed.net("t")), (vec![], 0));
    assert_eq!(ask(&store, "commit"), "refused aborted");
    // The other order: it finds itself cancelled.
    assert_eq!(text(&ask_one(&store, "u", "abort")), "ok");
    assert_eq!(text(&ask_one(&store, "u", "prepare")), "refused cancelled");
}

fn ask_one(store: &PostgresStore, subject: &str, asked: &str) -> sagamore_participant::perform::Answered {
    let mut session = store.session().unwrap();
    try_all(&obedient(), store, &mut session, &[Ask::new(subject, asked)]).unwrap().remove(0)
}

#[test]
fn two_instances_prepare_once() {
    let bed = Xa::default();
    let options = || PostgresOptions { lock_timeout: Duration::from_millis(100), ..bed.0.xa() };
    let (first, second) = (bed.0.open(options()), bed.0.open(options()));
    let mut session = first.session().unwrap();
    let mut slow = first.begin(&mut session).unwrap();
    assert_eq!(text(&perform(&obedient(), &mut slow, &Ask::new("t", "prepare").command()).unwrap()), "ok");
    assert!(ask(&second, "prepare").starts_with("error another instance"), "its row waits");
    slow.commit().unwrap();
    assert_eq!(ask_one(&second, "t", "prepare").work, Work::Repeated);
    assert_eq!(ask_one(&second, "t", "commit").work, Work::Effect);
    assert_eq!(ask_one(&first, "t", "commit").work, Work::Repeated);
    assert_eq!(bed.net("t"), 11);
}

#[test]
fn votes_outlive_a_killed_server() {
    let mut own = server(&[("fsync", "on")]);
    let place = Place::on(&own);
    let store = place.open(place.xa());
    let asks: Vec<Ask> = (0..12).map(|turn| Ask::new(format!("t{turn}"), "prepare")).collect();
    assert_eq!(ask_all(&obedient(), &store, &asks), vec!["ok"; 12]);
    let in_doubt = |store: &PostgresStore| store.in_doubt(&mut store.session().unwrap(), None, 99).unwrap();
    let before = in_doubt(&store);
    assert_eq!(before.len(), 12);
    own.kill();
    own.restart().unwrap();
    let again = place.open(place.xa());
    assert_eq!(in_doubt(&again), before);
    assert_eq!(prepared(&again, &place).iter().filter(|one| one.branch.is_some()).count(), 12);
    let of = |operation: &str, turns: std::ops::Range<usize>| -> Vec<Ask> {
        turns.map(|turn| Ask::new(format!("t{turn}"), operation)).collect()
    };
    assert_eq!(ask_all(&obedient(), &again, &of("prepare", 0..12)), vec!["ok"; 12]);
    assert_eq!(ask_all(&obedient(), &again, &of("commit", 0..6)), vec!["ok"; 6]);
    assert_eq!(ask_all(&obedient(), &again, &of("abort", 6..12)), vec!["ok"; 6]);
    let look = place.look();
    assert_eq!(look.texts(PREPARED), Vec::<String>::new());
    let query = "SELECT count(*) FROM (SELECT FROM effects GROUP BY subject HAVING sum(change) = 11) e";
    assert_eq!(look.number(query, &[]), 6);
    let query = "SELECT count(*) FROM (SELECT FROM effects GROUP BY subject HAVING sum(change) <> 0) e";
    assert_eq!(look.number(query, &[]), 6);
    assert_eq!(look.number("SELECT count(*) FROM sagamore_xa", &[]), 0);
}

#[test]
fn a_vote_that_nobody_knows_is_seen() {
    let bed = Xa::default();
    let store = bed.open();
    assert_eq!(ask(&store, "prepare"), "ok");
    let look = bed.0.look();
    look.run("DELETE FROM sagamore_xa");
    let found = prepared(&store, &bed.0);
    let [Hold { branch: None, vote: None, locks: Some(locks) }] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(locks.gid, gid(&bed, "t"));
    look.run(&format!("ROLLBACK PREPARED '{}'", locks.gid));
}

#[test]
fn votes_that_cannot_both_be_true_are_not_both_given() {
    let bed = Xa::default();
    let store = bed.0.open(PostgresOptions { isolation: Isolation::Serializable, ..bed.0.xa() });
    bed.0.look().run("INSERT INTO effects VALUES ('x', 1)");
    let (mut one, mut other) = (store.session().unwrap(), store.session().unwrap());
    let (mut first, mut second) = (store.begin(&mut one).unwrap(), store.begin(&mut other).unwrap());
    // Each reads what the other writes.
    let sum = "SELECT sum(change)::bigint FROM effects";
    first.business().query(sum, &[]).unwrap();
    second.business().query(sum, &[]).unwrap();
    let vote = |tx: &mut sagamore_participant_postgres::PostgresTransaction<'_>, subject: &str| {
        perform(&obedient(), tx, &Ask::new(subject, "prepare").command()).map(|answered| text(&answered))
    };
    assert_eq!(vote(&mut first, "t"), Ok("ok".into()));
    let voted = vote(&mut second, "u");
    first.commit().unwrap();
    let second = match voted {
        Ok(said) if said == "ok" => second.commit().unwrap_err(),
        Ok(said) => panic!("{said}"),
        Err(fault) => fault,
    };
    assert_eq!(second, StoreFault::Conflict);
    assert_eq!(prepared(&store, &bed.0).len(), 1);
    // As a worker does it.
    let ask = |subject: &str, asked: &str| {
        let tries = (0..5).map(|_| try_one(&store, Ask::new(subject, asked)));
        tries.into_iter().find(|tried| *tried != Err(StoreFault::Conflict))
    };
    assert_eq!(ask("t", "commit"), Some(Ok("ok".into())));
    assert_eq!(ask("u", "prepare"), Some(Ok("ok".into())), "another try");
    assert_eq!(ask("u", "abort"), Some(Ok("ok".into())));
}
