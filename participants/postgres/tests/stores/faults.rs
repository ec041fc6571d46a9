//! Faults of a server, of a connection, of another instance and of business code: none of them leaves an effect without
//! its answer, and each says what it is.

use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::perform::{Work, perform};
use sagamore_participant::store::{LocalTransaction, Store, StoreFault};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
use sagamore_participant_postgres::tokio_postgres::Config;
use sagamore_participant_postgres::{Isolation, OpenError, PostgresOptions, PostgresStore, Tx};

use crate::ask::{Ask, ask_all, text, try_all};
use crate::bed::{Bed, Obedient};
use crate::beds::{Look, Place, Postgres, SERVER, Xa, add, server};

/// Writes one effect, and runs the SQL that its `data` contains, one statement after the other.
struct Careless {
    heeds_errors: bool,
}

impl Participant for Careless {
    type Store = PostgresStore;

    fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let sql: String = serde_json::from_str(command.data.json().unwrap())?;
        add(tx, command.address.subject.as_str(), 1)?;
        for statement in sql.split(';') {
            let done = tx.execute(statement, &[]);
            if self.heeds_errors {
                done?;
            }
        }
        Effect::done(&())
    }

    fn compensate(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

fn told(subject: &str, sql: &str) -> Ask {
    let told = Payload::from_json(serde_json::Value::from(sql).to_string()).unwrap();
    Ask { told, ..Ask::new(subject, "execute") }
}

#[test]
fn business_code_ends_no_local_transaction() {
    let bed = Postgres::default();
    let store = bed.open();
    for control in ["COMMIT", "ROLLBACK", "/* */ end", "SAVEPOINT mine", "PREPARE TRANSACTION 'mine'"] {
        let careless = Careless { heeds_errors: true };
        let said = ask_all(&careless, &store, &[Ask::new("other", "execute=SELECT 1"), told("t", control)]);
        assert_eq!(said[0], "ok");
        assert!(said[1].contains("is not for business code"), "{said:?}");
    }
    // Two in one text are not prepared.
    let said = ask_all(&Careless { heeds_errors: true }, &store, &[told("t", "SELECT 1")]);
    assert_eq!(said, ["ok"]);
    assert_eq!((bed.net("t"), bed.net("other")), (1, 1));
}

#[test]
fn an_error_that_business_code_overlooks_is_an_error() {
    let bed = Postgres::default();
    let store = bed.open();
    let asks = [told("a", "SELECT 1"), told("b", "SELECT nonsense"), told("c", "SELECT 1")];
    let said = ask_all(&Careless { heeds_errors: false }, &store, &asks);
    assert_eq!((said[0].as_str(), said[2].as_str()), ("ok", "ok"));
    assert!(said[1].starts_with("error the store failed: 25P02"), "{said:?}");
    assert_eq!((bed.net("a"), bed.net("b"), bed.net("c"), bed.branches()), (1, 0, 1, 2));
    // The last of a commit, too: its savepoint is rolled back by nobody but the commit.
    let said = ask_all(&Careless { heeds_errors: true }, &store, &asks[1..2]);
    assert!(said[0].starts_with("error 42703"), "{said:?}");
    assert_eq!((bed.net("b"), bed.branches()), (0, 2));
}

#[test]
fn a_lock_that_is_held_too_long_fails_one_command() {
    let bed = Postgres::default();
    let store = bed.0.open(PostgresOptions { lock_timeout: Duration::from_millis(50), ..bed.0.options() });
    let holder = bed.0.look();
    holder.run("CREATE TABLE held (a INT PRIMARY KEY); INSERT INTO held VALUES (1)");
    holder.run("BEGIN; UPDATE held SET a = 1");
    let asks = [told("a", "SELECT 1"), told("b", "UPDATE held SET a = 1"), told("c", "SELECT 1")];
    let said = ask_all(&Careless { heeds_errors: true }, &store, &asks);
    assert_eq!((said[0].as_str(), said[2].as_str()), ("ok", "ok"));
    assert!(said[1].starts_with("error 55P03"), "{said:?}");
    holder.run("COMMIT");
    assert_eq!(ask_all(&Careless { heeds_errors: true }, &store, &asks), ["ok"; 3]);
    assert_eq!((bed.net("a"), bed.net("b"), bed.net("c")), (1, 1, 1));
}

#[test]
fn a_statement_that_takes_too_long_fails_one_command() {
    let bed = Postgres::default();
    let timeout = Duration::from_millis(100);
    let store = bed.0.open(PostgresOptions { statement_timeout: timeout, ..bed.0.options() });
    let asks = [told("a", "SELECT pg_sleep(9)"), told("b", "SELECT 1")];
    let said = ask_all(&Careless { heeds_errors: true }, &store, &asks);
    assert!(said[0].starts_with("error 57014"), "{said:?}");
    assert_eq!((said[1].as_str(), bed.net("a"), bed.net("b")), ("ok", 0, 1));
}

#[test]
fn a_server_that_says_nothing_is_away() {
    let bed = Postgres::default();
    let options = PostgresOptions { statement_timeout: Duration::from_millis(100), ..bed.0.options() };
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let config: Config =
        format!("postgresql://postgres@127.0.0.1:{}/postgres", mute.local_addr().unwrap().port())
            .parse()
            .unwrap();
    let began = Instant::now();
    let opened = PostgresStore::open(config, options, "").map(|_| ()).unwrap_err();
    assert!(opened.to_string().starts_with("no answer within"), "{opened}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_server_that_is_away_is_said_to_be_and_comes_back() {
    let mut own = server(&[]);
    let place = Place::on(&own);
    let store = place.open(place.options());
    let participant = Obedient::<Postgres>::new();
    let mut session = store.session().unwrap();
    assert_eq!(try_all(&participant, &store, &mut session, &[Ask::new("a", "execute")]).unwrap().len(), 1);
    let mut open = store.begin(&mut session).unwrap();
    let answered = perform(&participant, &mut open, &Ask::new("b", "execute").command()).unwrap();
    assert_eq!(answered.work, Work::Effect);
    own.kill();
    assert!(matches!(open.commit(), Err(StoreFault::Unavailable(_))));
    assert!(matches!(
        try_all(&participant, &store, &mut session, &[Ask::new("b", "execute")]),
        Err(StoreFault::Unavailable(_))
    ));
    assert!(matches!(store.session().map(|_| ()), Err(StoreFault::Away(_))));
    own.restart().unwrap();
    let mut session = store.session().unwrap();
    let asks = [Ask::new("a", "execute"), Ask::new("b", "execute")];
    let answers = try_all(&participant, &store, &mut session, &asks).unwrap();
    assert_eq!([answers[0].work, answers[1].work], [Work::Repeated, Work::Effect]);
}

#[test]
fn a_killed_server_has_lost_nothing_that_was_answered() {
    // With fsync: what is committed is on the disk.
    let mut own = server(&[("fsync", "on")]);
    let place = Place::on(&own);
    let store = place.open(place.options());
    let participant = Obedient::<Postgres>::new();
    let mut answered = 0;
    for kill in 0..5 {
        let done = std::sync::atomic::AtomicUsize::new(answered);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Ok(mut session) = store.session() else { return };
                loop {
                    let from = done.load(std::sync::atomic::Ordering::Acquire);
                    let asks: Vec<Ask> = (from..from + 1 + from % 7)
                        .map(|turn| Ask::new(format!("t{turn}"), "execute").born(turn))
                        .collect();
                    if try_all(&participant, &store, &mut session, &asks).is_err() {
                        return;
                    }
                    done.fetch_add(asks.len(), std::sync::atomic::Ordering::Release);
                }
            });
            let goal = answered + 30 + kill * 17;
            let until = Instant::now() + Duration::from_secs(20);
            while done.load(std::sync::atomic::Ordering::Acquire) < goal && Instant::now() < until {
                std::thread::yield_now();
            }
            own.kill();
        });
        assert!(done.load(std::sync::atomic::Ordering::Acquire) > answered, "kill {kill}");
        own.restart().unwrap();
        answered = done.load(std::sync::atomic::Ordering::Acquire);
        let asks: Vec<Ask> =
            (0..answered).map(|turn| Ask::new(format!("t{turn}"), "execute").born(turn)).collect();
        let mut session = store.session().unwrap();
        let answers = try_all(&participant, &store, &mut session, &asks).unwrap();
        assert!(answers.iter().all(|answer| answer.work == Work::Repeated), "kill {kill}");
        let look = place.look();
        let of = |query| look.number(query, &[]);
        assert_eq!(of("SELECT count(*) FROM effects"), of("SELECT count(*) FROM sagamore_barrier"));
        assert_eq!(of("SELECT count(*) - count(DISTINCT subject) FROM effects"), 0);
        // What was committed and not answered any more counts as answered from here on.
        answered = usize::try_from(of("SELECT count(*) FROM effects")).unwrap();
    }
}

#[test]
fn many_may_open_a_new_schema_at_once() {
    for _ in 0..5 {
        let place = Place::on(&SERVER);
        std::thread::scope(|scope| {
            for instance in 0..8 {
                let place = &place;
                scope.spawn(move || {
                    let store = place.open(place.options());
                    let asks = [Ask::new(format!("t{instance}"), "execute")];
                    assert_eq!(ask_all(&Obedient::<Postgres>::new(), &store, &asks), ["ok"]);
                });
            }
        });
        assert_eq!(place.look().number("SELECT count(*) FROM effects", &[]), 8);
    }
}

#[test]
fn a_newer_schema_stops_an_older_release() {
    let bed = Postgres::default();
    let store = bed.open();
    bed.0.look().run("UPDATE sagamore_schema SET version = 9");
    let Err(StoreFault::Unavailable(said)) = store.session().map(|_| ()) else { panic!("it is refused") };
    assert!(said.contains("schema 9 now"), "{said}");
    let opened = PostgresStore::open(bed.0.config.clone(), bed.0.options(), "").map(|_| ()).unwrap_err();
    assert!(matches!(opened, OpenError::NewerSchema { found: 9, known: 2 }), "{opened}");
}

#[test]
fn business_tables_and_ours_are_made_together_or_not_at_all() {
    let place = Place::on(&SERVER);
    let nonsense = "CREATE TABLE first (a INT); CREATE nonsense";
    PostgresStore::open(place.config.clone(), place.options(), nonsense).map(|_| ()).unwrap_err();
    let query = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    assert_eq!(place.look().number(query, &[&place.schema]), 0);
}

/// Adds one to a number that it has read; somebody else may add one in between.
#[derive(Default)]
struct Counting {
    disturber: Option<Mutex<Look>>,
}

const ONE_MORE: &str = "UPDATE effects SET change = change + 1 WHERE subject = 'n'";

impl Participant for Counting {
    type Store = PostgresStore;

    fn execute(&self, tx: &mut Tx<'_>, _: &Command<'_>) -> Result<Effect, Fault> {
        let number: i64 = tx.query_one("SELECT change FROM effects WHERE subject = 'n'", &[])?.get(0);
        if let Some(disturber) = &self.disturber {
            disturber.lock().unwrap().run(ONE_MORE);
        }
        tx.execute("UPDATE effects SET change = $1 WHERE subject = 'n'", &[&(number + 1)])?;
        Effect::done(&number)
    }

    fn compensate(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn what_fails_to_serialize_is_said_to_be_worth_another_try() {
    for isolation in [Isolation::RepeatableRead, Isolation::Serializable] {
        let bed = Postgres::default();
        let store = bed.0.open(PostgresOptions { isolation, ..bed.0.options() });
        bed.0.look().run("INSERT INTO effects VALUES ('n', 0)");
        // It is tried a few times by itself, and each time somebody is faster.
        let disturbed = Counting { disturber: Some(Mutex::new(bed.0.look())) };
        let mut session = store.session().unwrap();
        let ask = [Ask::new("t", "execute")];
        let told = try_all(&disturbed, &store, &mut session, &ask);
        assert!(matches!(told, Err(StoreFault::Conflict)), "{isolation:?}: {told:?}");
        let disturbances = bed.net("n");
        assert!(disturbances > 1, "{isolation:?}: {disturbances}");
        std::thread::scope(|scope| {
            let count = |worker: usize| {
                let store = &store;
                move || {
                    let mut session = store.session().unwrap();
                    for turn in 0..30 {
                        let ask = [Ask::new(format!("{worker}-{turn}"), "execute")];
                        loop {
                            match try_all(&Counting::default(), store, &mut session, &ask) {
                                Ok(answers) if text(&answers[0]) == "ok" => break,
                                Err(StoreFault::Conflict) => {}
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                }
            };
            let workers = [scope.spawn(count(0)), scope.spawn(count(1))];
            for worker in workers {
                worker.join().unwrap();
            }
        });
        assert_eq!((bed.net("n"), bed.branches()), (disturbances + 60, 60), "{isolation:?}");
    }
}

#[test]
fn a_commit_and_an_abort_that_meet_do_not_both_happen() {
    let bed = Postgres::default();
    let store = bed.open();
    let participant = Obedient::<Postgres>::new();
    assert_eq!(ask_all(&participant, &store, &[Ask::new("t", "prepare")]), ["ok"]);
    let (mut one, mut other) = (store.session().unwrap(), store.session().unwrap());
    let mut commits = store.begin(&mut one).unwrap();
    let commit = Ask::new("t", "commit");
    assert_eq!(text(&perform(&participant, &mut commits, &commit.command()).unwrap()), "ok");
    std::thread::scope(|scope| {
        let aborts =
            scope.spawn(|| try_all(&participant, &store, &mut other, &[Ask::new("t", "abort")]).unwrap());
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND query LIKE '%sagamore_vote%' AND query LIKE '%' || $1 || '%'";
        let (look, until) = (bed.0.look(), Instant::now() + Duration::from_secs(10));
        let name = bed.0.schema.replace('"', "\"\"");
        while look.number(waiting, &[&name]) == 0 {
            assert!(Instant::now() < until, "it waits for the vote");
        }
        commits.commit().unwrap();
        assert_eq!(text(&aborts.join().unwrap()[0]), "refused committed");
    });
    assert_eq!(bed.net("t"), 11);
}

#[test]
fn a_branch_that_somebody_adds_to_is_not_purged() {
    let bed = Postgres::default();
    let store = bed.open();
    let participant = Obedient::<Postgres>::new();
    let old = Ask::new("old", "execute").born(1);
    assert_eq!(ask_all(&participant, &store, std::slice::from_ref(&old)), ["ok"]);
    let mut session = store.session().unwrap();
    let mut adds = store.begin(&mut session).unwrap();
    let late = Ask::new("old", "compensate").born(1).issued(9_000);
    assert_eq!(text(&perform(&participant, &mut adds, &late.command()).unwrap()), "ok");
    let others: Vec<Ask> = (10..210)
        .map(|born| Ask::new(format!("t{born}"), "execute").born(born).issued(5_000).watermark(4_000))
        .collect();
    assert_eq!(ask_all(&participant, &store, &others), vec!["ok"; others.len()]);
    adds.commit().unwrap();
    let answers = try_all(&participant, &store, &mut session, &[old]).unwrap();
    assert_eq!(answers[0].work, Work::Repeated, "it is there as a whole");
    assert_eq!(bed.net("old"), 0);
}

type Memory = MemoryStore<Table<String, i64>>;

struct InMemory(Memory);

impl Default for InMemory {
    fn default() -> Self {
        Self(MemoryStore::new(Table::default()))
    }
}

impl Bed for InMemory {
    type Store = Memory;

    fn open(&self) -> Memory {
        self.0.clone()
    }

    fn add(business: &mut Table<String, i64>, subject: &str, change: i64) -> Result<(), Fault> {
        let net = business.get(&subject.to_owned()).copied().unwrap_or_default();
        business.put(subject.to_owned(), net + change);
        Ok(())
    }

    fn net(&self, subject: &str) -> i64 {
        self.0.read(|effects| effects.get(&subject.to_owned()).copied().unwrap_or_default())
    }

    fn branches(&self) -> usize {
        self.0.branches()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_stores_answer_the_same(commits in prop::collection::vec(prop::collection::vec((
        prop::sample::select(vec!["a", "b"]),
        prop::sample::select(vec!["execute", "compensate", "prepare", "precommit", "commit", "abort"]),
        prop::sample::select(vec!["done", "done", "refused", "fault"]),
    ), 1..6), 1..6)) {
        let (memory, postgres, xa) = (InMemory::default(), Postgres::default(), Xa::default());
        let (in_memory, in_postgres, in_xa) = (memory.open(), postgres.open(), xa.open());
        for commit in commits {
            let asks: Vec<Ask> = commit
                .iter()
                .map(|(subject, operation, told)| Ask::new(*subject, &format!("{operation}={told}")))
                .collect();
            let expected = ask_all(&Obedient::<InMemory>::new(), &in_memory, &asks);
            prop_assert_eq!(&ask_all(&Obedient::<Postgres>::new(), &in_postgres, &asks), &expected);
            prop_assert_eq!(&ask_all(&Obedient::<Xa>::new(), &in_xa, &asks), &expected);
        }
        let in_doubt = in_memory.in_doubt(&mut (), None, 9).unwrap();
        let of = |store: &PostgresStore| store.in_doubt(&mut store.session().unwrap(), None, 9).unwrap();
        prop_assert_eq!(&of(&in_postgres), &in_doubt);
        prop_assert_eq!(&of(&in_xa), &in_doubt);
        for subject in ["a", "b"] {
            prop_assert_eq!(postgres.net(subject), memory.net(subject));
            let is_held = in_doubt.iter().any(|one| one.branch.subject.as_str() == subject);
            prop_assert_eq!(xa.net(subject), memory.net(subject) - i64::from(is_held));
        }
        prop_assert_eq!(postgres.branches(), memory.branches());
        prop_assert_eq!(xa.branches(), memory.branches());
    }
}
