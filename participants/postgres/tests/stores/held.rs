//! What branches in doubt hold is seen, with who waits for it; and what an operator ends by hand outlives a crash.

use std::time::{Duration, Instant};

use sagamore_participant::perform::perform;
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
use sagamore_participant_postgres::{Hold, PostgresStore, Tx};
use sagamore_schemas::wire::HeuristicWish;

use crate::ask::{Ask, ask_all};
use crate::bed::{Bed, Obedient};
use crate::beds::{Look, Place, Postgres, SERVER, Xa};
use crate::doubt::{branch, by_hand, kept};

/// Long enough for a machine that does other work.
const SOON: Duration = Duration::from_secs(30);

/// Whose vote is a changed row of an account.
struct Teller;

impl Participant for Teller {
    type Store = PostgresStore;

    fn execute(&self, _: &mut Tx<'_>, _: &Command<'_>) -> Result<Effect, Fault> {
        Ok(Effect::refused("it votes"))
    }

    fn compensate(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }

    fn prepare(&self, tx: &mut Tx<'_>, _: &Command<'_>) -> Result<Effect, Fault> {
        tx.execute("UPDATE accounts SET cents = cents - 5 WHERE id = 1", &[])?;
        Effect::done(&())
    }

    fn abort(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn who_holds_what_and_who_waits_is_seen() {
    let place = Place::on(&SERVER);
    place.open(place.xa());
    let look = place.look();
    look.run(
        "CREATE TABLE accounts (id INT PRIMARY KEY, cents BIGINT); INSERT INTO accounts VALUES (1, 100)",
    );
    // As somebody else looks at it, who makes nothing.
    let store = PostgresStore::existing(place.config.clone(), place.xa()).unwrap();
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    perform(&Teller, &mut tx, &Ask::new("t", "prepare").command()).unwrap();
    tx.commit().unwrap();

    let own = |hold: &Hold| hold.branch.as_ref() == Some(&branch("t"));
    let held = || store.held(9).unwrap().into_iter().find(own).unwrap();
    let waiters = ["first", "second"].map(|name| {
        let mut config = place.config.clone();
        config.application_name(name);
        std::thread::spawn(move || {
            Look::at(&config).run("UPDATE accounts SET cents = cents + 1 WHERE id = 1");
        })
    });
    let until = Instant::now() + SOON;
    let found = loop {
        let found = held();
        if found.locks.as_ref().is_some_and(|locks| locks.waiters.len() == 2) {
            break found;
        }
        assert!(Instant::now() < until, "{found:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(found.vote.unwrap().prepare().unwrap().definition, "d@1");
    let locks = found.locks.unwrap();
    assert_eq!((locks.owner.as_str(), locks.count > 2), ("postgres", true), "{locks:?}");
    assert!(locks.relations.iter().any(|name| name.ends_with("accounts")), "{locks:?}");
    let mut names: Vec<&str> = locks.waiters.iter().map(|waiter| waiter.application.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["first", "second"], "the second one waits behind the first one");

    assert_eq!(by_hand(&Teller, &store, HeuristicWish::Decided, "abort"), "told ok");
    for waiter in waiters {
        waiter.join().unwrap();
    }
    assert!(!store.held(9).unwrap().iter().any(own));
    assert_eq!(look.number("SELECT cents FROM accounts", &[]), 102);
}

#[test]
fn a_vote_in_a_row_is_seen_and_holds_no_lock() {
    let bed = Postgres::default();
    let store = bed.open();
    assert_eq!(ask_all(&Obedient::<Postgres>::new(), &store, &[Ask::new("t", "prepare")]), ["ok"]);
    let found: Vec<Hold> = store.held(9).unwrap().into_iter().filter(|hold| hold.vote.is_some()).collect();
    let [Hold { branch: Some(of), vote: Some(_), locks: None }] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(*of, branch("t"));
    let wrong = PostgresStore::existing(bed.0.config.clone(), Place::on(&SERVER).options()).unwrap();
    assert!(wrong.held(9).unwrap_err().to_string().contains("schema 0 now"), "nothing is made");
}

fn xa() -> Obedient<Xa> {
    Obedient::new()
}

#[test]
fn a_crash_after_the_end_of_a_prepared_transaction_forgets_no_decision_by_hand() {
    let ask = |store: &PostgresStore, asked: &str| ask_all(&xa(), store, &[Ask::new("t", asked)]).remove(0);
    let ended = |operation: &str, lost: &str| {
        let bed = Xa::default();
        let store = bed.open();
        assert_eq!(ask(&store, "prepare"), "ok");
        assert_eq!(by_hand(&xa(), &store, HeuristicWish::Decided, operation), "told ok");
        bed.0.look().run(lost);
        (bed, store)
    };
    // What stood in the local transaction that followed `COMMIT PREPARED`.
    let lost = "DELETE FROM sagamore_barrier WHERE operation = 'commit'";
    let (bed, store) = ended("commit", lost);
    assert_eq!(ask(&store, "abort"), "refused heuristic-mixed");
    assert_eq!(kept(&bed), "commit by hand, mixed");
    let (bed, store) = ended("commit", lost);
    assert_eq!(ask(&store, "commit"), "ok");
    assert_eq!((kept(&bed).as_str(), bed.net("t")), ("commit by hand, agreed", 11));
    // And that which followed `ROLLBACK PREPARED`; the record comes again.
    let (bed, store) = ended("abort", "DELETE FROM sagamore_barrier");
    assert_eq!(by_hand(&xa(), &store, HeuristicWish::Decided, "abort"), "not in doubt");
    assert_eq!(ask(&store, "commit"), "refused heuristic-mixed");
    assert_eq!((kept(&bed).as_str(), bed.net("t")), ("abort by hand, mixed", 0));
    let (_, store) = ended("abort", "DELETE FROM sagamore_barrier");
    assert_eq!(ask(&store, "commit"), "refused not-prepared", "before it comes again");
    assert_eq!(ask(&store, "abort"), "ok");
}
