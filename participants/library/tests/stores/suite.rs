//! What every store keeps. Each function is a test of each store.

use std::sync::Barrier;

use sagamore_participant::barrier::{BranchKey, Home, Row, Stored};
use sagamore_participant::perform::Work;
use sagamore_participant::store::{LocalTransaction, Position, Store, StoreFault};
use sagamore_participant::{Operation, Payload};
use sagamore_schemas::ids::{Partition, Time};
use uuid::Uuid;

use crate::ask::{Ask, ISSUED_MS, ask_all, text, try_all};
use crate::bed::{Bed, Obedient};
pub(crate) use crate::doubt::{
    a_verdict_about_nothing_in_doubt_does_nothing, a_verdict_is_the_command_of_that_name,
    what_is_decided_by_hand_and_contradicted_is_mixed, what_is_decided_by_hand_is_done_once_and_agreed_with,
    what_is_mixed_is_repaired_by_hand_alone, who_is_in_doubt_is_known_until_he_is_told,
    whose_time_is_up_decides_by_what_he_knows,
};

/// `when`: operations on one branch, each in a local transaction of its own; `then`: the answers, and the net effect.
fn check<B: Bed>(when: &str, then: &str) {
    let bed = B::default();
    let store = bed.open();
    let mut said: Vec<String> = when
        .split_whitespace()
        .flat_map(|operation| ask_all(&Obedient::<B>::new(), &store, &[Ask::new("t", operation)]))
        .collect();
    said.push(bed.net("t").to_string());
    assert_eq!(said.join(", "), then, "{when}");
}

pub(crate) fn a_duplicate_repeats_the_first_answer<B: Bed>() {
    check::<B>("execute execute execute=refused", "ok, ok, ok, 1");
    check::<B>("execute execute compensate compensate", "ok, ok, ok, ok, 0");
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let mut session = store.session().unwrap();
    let twice = [Ask::new("t", "execute"), Ask::new("t", "execute")];
    let answers = try_all(&participant, &store, &mut session, &twice).unwrap();
    assert_eq!([answers[0].work, answers[1].work], [Work::Effect, Work::Repeated], "in one commit, too");
    assert_eq!(answers[1].data.as_ref().json(), Some("\"result\""));
}

pub(crate) fn an_undoing_that_comes_first_forbids_the_doing<B: Bed>() {
    check::<B>("compensate execute compensate execute", "ok, refused cancelled, ok, refused cancelled, 0");
    check::<B>("abort prepare abort", "ok, refused cancelled, ok, 0");
}

pub(crate) fn refusals_are_stored_and_their_effects_are_not<B: Bed>() {
    check::<B>("execute=refused execute", "refused told-to, refused told-to, 0");
    check::<B>("execute=refused compensate", "refused told-to, ok, 0");
    check::<B>("prepare=refused prepare abort", "refused told-to, refused told-to, ok, 0");
}

pub(crate) fn errors_are_never_stored<B: Bed>() {
    check::<B>("execute=fault execute", "error told to, ok, 1");
    check::<B>("execute=panic execute", "error the participant panicked, ok, 1");
    check::<B>("execute compensate=fault execute compensate", "ok, error told to, ok, ok, 0");
}

pub(crate) fn a_vote_is_kept_until_its_decision<B: Bed>() {
    check::<B>("prepare prepare commit commit", "ok, ok, ok, ok, 11");
    check::<B>("prepare abort abort commit", "ok, ok, ok, refused aborted, 0");
    check::<B>("prepare precommit commit=fault commit", "ok, ok, error told to, ok, 11");
    check::<B>("prepare compensate commit", "ok, error in-doubt, ok, 11");
}

pub(crate) fn a_failing_command_leaves_the_others_of_its_commit_alone<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let asks = [
        Ask::new("a", "execute"),
        Ask::new("b", "execute=fault"),
        Ask::new("c", "execute"),
        Ask::new("d", "execute=panic"),
        Ask::new("e", "execute=refused"),
        Ask::new("a", "compensate=fault"),
        Ask::new("f", "execute"),
    ];
    let said = ask_all(&participant, &store, &asks);
    let expected = [
        "ok",
        "error told to",
        "ok",
        "error the participant panicked",
        "refused told-to",
        "error told to",
        "ok",
    ];
    assert_eq!(said, expected);
    let net = ["a", "b", "c", "d", "e", "f"].map(|subject| bed.net(subject));
    assert_eq!(net, [1, 0, 1, 0, 0, 1]);
    assert_eq!(bed.branches(), 4, "the three that are done, and the refusal");
}

pub(crate) fn what_is_not_committed_has_not_happened<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let mut session = store.session().unwrap();
    {
        let mut tx = store.begin(&mut session).unwrap();
        for subject in ["a", "b"] {
            let ask = Ask::new(subject, "execute");
            let answered =
                sagamore_participant::perform::perform(&participant, &mut tx, &ask.command()).unwrap();
            assert_eq!(answered.work, Work::Effect);
        }
    }
    // In memory, a savepoint makes the commands before it final: a local transaction is dropped there only when the
    // process ends. What counts is the last command.
    assert_eq!(bed.net("b"), 0);
    let answers = try_all(&participant, &store, &mut session, &[Ask::new("b", "execute")]).unwrap();
    assert_eq!(answers[0].work, Work::Effect, "it is done now");
}

pub(crate) fn answers_come_back_as_they_were_given<B: Bed>() {
    let bed = B::default();
    let store = bed.open();
    let given = [
        Stored::Done(Payload::from_json("{ \"b\": 1.50, \"a\" : \"\u{e9}\\u0000\" }".into()).unwrap()),
        Stored::Done(Payload::from_json("null".into()).unwrap()),
        Stored::Done(Payload::Base64("AP8=".into())),
        Stored::Done(Payload::Absent),
        Stored::Refused("out-of-stock: \u{1f6b2}\0".into()),
        Stored::Cancelled,
    ];
    let ask = Ask::new("t", "execute");
    let command = ask.command();
    let key = BranchKey::of(&command);
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    for ((operation, answer), issued_ms) in Operation::ALL.into_iter().zip(given.clone()).zip(0..) {
        tx.insert(&key, Row { operation, issued: Time::from_epoch_ms(issued_ms), answer }).unwrap();
    }
    tx.commit().unwrap();
    let other = bed.open();
    let mut session = other.session().unwrap();
    let mut tx = other.begin(&mut session).unwrap();
    let rows = tx.rows(&key).unwrap();
    assert_eq!(rows.len(), given.len());
    for ((operation, answer), issued_ms) in Operation::ALL.into_iter().zip(&given).zip(0..) {
        let row = rows.iter().find(|row| row.operation == operation).unwrap();
        assert_eq!(row.issued, Time::from_epoch_ms(issued_ms));
        assert_eq!(format!("{:?}", row.answer), format!("{answer:?}"));
    }
}

pub(crate) fn each_part_of_a_key_counts<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let one = || Ask::new("t", "execute");
    let asks = [
        one(),
        Ask { instance: Uuid::from_u128(1), ..one() },
        Ask { subject: "u".into(), ..one() },
        Ask { birth: "1-7".into(), ..one() },
        Ask { birth: "0-8".into(), ..one() },
        Ask { step: "s2", ..one() },
        Ask { branch: "b2", ..one() },
        // The same letters, cut elsewhere.
        Ask { step: "sb", branch: "", ..one() },
        Ask { step: "", branch: "sb", ..one() },
    ];
    assert_eq!(ask_all(&participant, &store, &asks), vec!["ok"; asks.len()]);
    assert_eq!(ask_all(&participant, &store, &asks), vec!["ok"; asks.len()]);
    assert_eq!((bed.net("t"), bed.net("u"), bed.branches()), (8, 1, 9));
}

pub(crate) fn a_row_is_inserted_once<B: Bed>() {
    let bed = B::default();
    let store = bed.open();
    let ask = Ask::new("t", "execute");
    let command = ask.command();
    let key = BranchKey::of(&command);
    let row = |operation| Row { operation, issued: command.issued, answer: Stored::Cancelled };
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    tx.savepoint().unwrap();
    tx.insert(&key, row(Operation::Execute)).unwrap();
    tx.savepoint().unwrap();
    assert_eq!(tx.insert(&key, row(Operation::Execute)), Err(StoreFault::Conflict));
    tx.roll_back().unwrap();
    tx.insert(&key, row(Operation::Compensate)).unwrap();
    tx.commit().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    assert_eq!(tx.rows(&key).unwrap().len(), 2, "what was there, and what was written after the conflict");
}

pub(crate) fn another_instance_sees_what_the_first_has_answered<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let (first, second) = (bed.open(), bed.open());
    let (mut of_first, mut of_second) = (first.session().unwrap(), second.session().unwrap());
    for round in 0..20 {
        let ask = [Ask::new(format!("t{round}"), "execute")];
        let done = try_all(&participant, &first, &mut of_first, &ask).unwrap();
        let again = try_all(&participant, &second, &mut of_second, &ask).unwrap();
        assert_eq!((done[0].work, again[0].work), (Work::Effect, Work::Repeated));
        let undone = [Ask::new(format!("t{round}"), "compensate")];
        assert_eq!(text(&try_all(&participant, &second, &mut of_second, &undone).unwrap()[0]), "ok");
        assert_eq!(bed.net(&format!("t{round}")), 0);
    }
}

/// Long enough for any store to purge what it may.
const LATER: usize = 400;

/// Commands on branches of their own, of a later time, some in each commit.
fn live_on<B: Bed>(store: &B::Store, born_from: usize, issued_ms: i64, watermark_ms: i64) {
    let asks: Vec<Ask> = (0..LATER)
        .map(|turn| {
            let born = born_from + turn;
            Ask::new(format!("later-{born}"), "execute").born(born).issued(issued_ms).watermark(watermark_ms)
        })
        .collect();
    for (turn, commit) in asks.chunks(10).enumerate() {
        assert_eq!(ask_all(&Obedient::<B>::new(), store, commit), vec!["ok"; commit.len()], "commit {turn}");
    }
}

pub(crate) fn what_was_purged_is_expired<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let old: Vec<Ask> = (0..300).map(|turn| Ask::new(format!("old-{turn}"), "execute").born(turn)).collect();
    assert_eq!(ask_all(&participant, &store, &old), vec!["ok"; old.len()]);
    live_on::<B>(&store, 1_000, ISSUED_MS + 1, ISSUED_MS);
    assert_eq!(bed.branches(), 300 + LATER, "issued at the horizon is not before it");
    live_on::<B>(&store, 2_000, ISSUED_MS + 2, ISSUED_MS + 1);
    assert_eq!(bed.branches(), 2 * LATER, "all that is behind the horizon has gone, and nothing else");
    assert_eq!(ask_all(&participant, &store, &old[..1]), ["refused expired"]);
    let undoing = Ask::new("old-0", "compensate").born(0);
    assert_eq!(ask_all(&participant, &store, &[undoing]), ["refused expired"]);
    assert_eq!(bed.net("old-0"), 1, "what was done stays, what remembers it goes");
    let elsewhere = Ask { birth: "1-0".into(), ..Ask::new("old-0", "execute") };
    assert_eq!(ask_all(&participant, &store, &[elsewhere]), ["ok"], "a horizon is of one home");
}

pub(crate) fn a_branch_goes_as_a_whole<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let execute = |subject: &str| Ask::new(subject, "execute").born(1);
    ask_all(&participant, &store, &[execute("done"), execute("undone-late")]);
    let late = Ask::new("undone-late", "compensate").born(1).issued(ISSUED_MS + 9);
    assert_eq!(ask_all(&participant, &store, &[late]), ["ok"]);
    live_on::<B>(&store, 1_000, ISSUED_MS + 10, ISSUED_MS + 9);
    assert_eq!(
        ask_all(&participant, &store, &[execute("undone-late"), execute("done")]),
        ["ok", "refused expired"]
    );
    live_on::<B>(&store, 2_000, ISSUED_MS + 20, ISSUED_MS + 10);
    assert_eq!(ask_all(&participant, &store, &[execute("undone-late")]), ["refused expired"]);
    // Several rows each, the late one last, so many that any store meets the middle of one with each portion.
    let bed = B::default();
    let (store, subjects) = (bed.open(), (0..20).map(|turn| format!("t{turn:02}")));
    let early: Vec<Ask> = subjects.map(|subject| Ask::new(subject, "compensate")).collect();
    let late = |told: &str| -> Vec<Ask> {
        let prepare = |ask: &Ask| Ask::new(&ask.subject, &format!("prepare={told}")).issued(ISSUED_MS + 9);
        early.iter().map(prepare).collect()
    };
    assert_eq!(ask_all(&participant, &store, &early), vec!["ok"; 20]);
    assert_eq!(ask_all(&participant, &store, &late("refused")), vec!["refused told-to"; 20]);
    live_on::<B>(&store, 1_000, ISSUED_MS + 10, ISSUED_MS + 9);
    assert_eq!(ask_all(&participant, &store, &late("done")), vec!["refused told-to"; 20]);
    assert_eq!(ask_all(&participant, &store, &early), vec!["ok"; 20]);
}

pub(crate) fn what_is_in_doubt_is_never_purged<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    // More of them than any store looks at together, before others that may go.
    let of = |operation: &str| -> Vec<Ask> {
        (0..60).map(|turn| Ask::new(format!("voted-{turn}"), operation).born(turn)).collect()
    };
    assert_eq!(ask_all(&participant, &store, &of("prepare")), vec!["ok"; 60]);
    let others: Vec<Ask> =
        (100..200).map(|turn| Ask::new(format!("o-{turn}"), "execute").born(turn)).collect();
    ask_all(&participant, &store, &others);
    live_on::<B>(&store, 1_000, ISSUED_MS + 10, ISSUED_MS + 9);
    assert_eq!(bed.branches(), 60 + LATER);
    assert_eq!(
        ask_all(&participant, &store, &of("commit")),
        vec!["ok"; 60],
        "though issued before the horizon"
    );
    assert_eq!(bed.net("voted-59"), 11);
    live_on::<B>(&store, 2_000, ISSUED_MS + 20, ISSUED_MS + 15);
    assert_eq!(bed.branches(), LATER, "decided, they go like all others");
}

pub(crate) fn a_horizon_never_goes_back<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let failing = Ask::new("a", "execute=fault").issued(ISSUED_MS + 10).watermark(ISSUED_MS + 5);
    assert_eq!(ask_all(&participant, &bed.open(), &[failing]), ["error told to"]);
    let store = bed.open();
    let late = Ask::new("b", "execute");
    assert_eq!(ask_all(&participant, &store, &[late]), ["refused expired"], "its watermark is 0");
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    let home = Home { instance: Uuid::nil(), partition: Partition(0) };
    let horizon = tx.horizon(home, Time::from_epoch_ms(ISSUED_MS)).unwrap();
    assert_eq!(horizon, Time::from_epoch_ms(ISSUED_MS + 5));
    assert_eq!(
        tx.horizon(Home { partition: Partition(1), ..home }, Time::default()).unwrap(),
        Time::default()
    );
}

const ROUNDS: usize = 200;

pub(crate) fn execute_and_compensate_race_and_nothing_is_left<B: Bed>() {
    let bed = B::default();
    let stores = [bed.open(), bed.open()];
    let together = Barrier::new(2);
    let asked = |store: &B::Store, operation: &str| -> Vec<Result<(String, Work), StoreFault>> {
        let mut session = store.session().unwrap();
        (0..ROUNDS)
            .map(|round| {
                let ask = [Ask::new(format!("t{round}"), operation)];
                together.wait();
                // Looked at afterwards: who panics here leaves the other one waiting.
                let answers = try_all(&Obedient::<B>::new(), store, &mut session, &ask)?;
                Ok((text(&answers[0]), answers[0].work))
            })
            .collect()
    };
    let (executed, compensated) = std::thread::scope(|scope| {
        let execute = scope.spawn(|| asked(&stores[0], "execute"));
        let compensate = scope.spawn(|| asked(&stores[1], "compensate"));
        (execute.join().unwrap(), compensate.join().unwrap())
    });
    for (round, (execute, compensate)) in executed.into_iter().zip(compensated).enumerate() {
        let (execute, compensate) = (execute.unwrap(), compensate.unwrap());
        assert_eq!(compensate.0, "ok", "round {round}");
        let expected = match compensate.1 {
            Work::Effect => "ok",
            _ => "refused cancelled",
        };
        assert_eq!(execute.0, expected, "round {round}");
        assert_eq!(bed.net(&format!("t{round}")), 0, "round {round}");
    }
    assert_eq!(bed.branches(), ROUNDS);
}

pub(crate) fn a_position_rises_and_stays_until_it_begins_anew<B: Bed>() {
    let bed = B::default();
    let known = |topic: &str| -> Vec<(i32, i64)> {
        let store = bed.open();
        let mut session = store.session().unwrap();
        store.positions(&mut session, topic).unwrap().into_iter().collect()
    };
    let store = bed.open();
    let mut session = store.session().unwrap();
    let mut keep = |topic: &str, positions: &[(i32, i64)]| {
        let position = |(partition, offset): &(i32, i64)| Position { partition: *partition, offset: *offset };
        let positions: Vec<Position> = positions.iter().map(position).collect();
        store.keep_positions(&mut session, topic, &positions).unwrap();
    };
    keep("one", &[(0, 7), (3, 9)]);
    keep("two", &[(0, 70)]);
    keep("one", &[(3, 8), (0, 8)]);
    keep("one", &[]);
    let is_kept = <B::Store as Store>::KEEPS_POSITIONS;
    let then = |positions: &[(i32, i64)]| if is_kept { positions.to_vec() } else { Vec::new() };
    assert_eq!((known("one"), known("two")), (then(&[(0, 8), (3, 9)]), then(&[(0, 70)])));
    store.forget_position(&mut session, "one", 3).unwrap();
    assert_eq!((known("one"), known("two")), (then(&[(0, 8)]), then(&[(0, 70)])));
}
