//! What a participant promises, as the conformance kit would ask it.

use crate::bed::{Ask, Bed};

/// `when`: commands by their operation (`commit!` is a verdict, `commit?` an operator's, `commit=` his repair), and what the worker says to the one it takes
/// (`ok`, `no`, `error`, or `-` when there must be none). `then`: the replies, and the net effect. Once with each command
/// in a batch of its own, and once with all that come together in one.
fn check(when: &str, then: &str) {
    for is_together in [false, true] {
        let mut bed = Bed::new();
        let mut waiting = Vec::new();
        for word in when.split_whitespace() {
            let says = match word {
                "ok" => Some("ok"),
                "no" => Some("refused"),
                "error" => Some("error"),
                "-" => Some("nothing"),
                _ => None,
            };
            if let Some(says) = says {
                bed.absorb(&std::mem::take(&mut waiting));
                assert_eq!(bed.work(says), says != "nothing", "{when}: {word}");
                continue;
            }
            waiting.push(match word.split_at(word.len() - 1) {
                (decision, "!") => Bed::verdict("t", decision),
                (decision, "?") => Bed::word("t", decision, "decided"),
                (decision, "=") => Bed::word("t", decision, "repaired"),
                _ => bed.record(&Ask::new("t", word)),
            });
            if !is_together {
                bed.absorb(&std::mem::take(&mut waiting));
            }
        }
        bed.absorb(&waiting);
        let mut told = bed.replies();
        told.push(bed.net().to_string());
        assert_eq!(told.join(", "), then, "{when} (together: {is_together})");
    }
}

const DONE: &str = r#"ok  {"place":"A1"}"#;

#[test]
fn each_effect_is_once_and_its_answer_is_repeated() {
    check("execute ok - execute -", &format!("execute {DONE}, execute {DONE}, 1"));
    check("execute execute ok -", &format!("execute pending, execute {DONE}, 1"));
    check("execute no execute -", "execute refused none left, execute refused none left, 0");
    check("execute error - execute ok", &format!("execute error, execute {DONE}, 1"));
    check(
        "execute ok compensate ok compensate -",
        &format!("execute {DONE}, compensate ok, compensate ok, 0"),
    );
}

#[test]
fn an_undoing_that_comes_first_forbids_the_doing() {
    check("compensate execute compensate -", "compensate ok, execute refused cancelled, compensate ok, 0");
    check("execute compensate execute -", "compensate ok, execute refused cancelled, 0");
    check("abort prepare -", "abort ok, prepare refused cancelled, 0");
    check("prepare abort prepare -", "abort ok, prepare refused cancelled, 0");
    check("execute no compensate -", "execute refused none left, compensate ok, 0");
}

#[test]
fn a_vote_is_decided_once_by_command_or_by_verdict() {
    check(
        "commit prepare ok commit ok commit -",
        &format!("commit refused not-prepared, prepare {DONE}, commit ok, commit ok, 1"),
    );
    check("prepare ok precommit ok commit ok -", &format!("prepare {DONE}, precommit ok, commit ok, 1"));
    check(
        "prepare ok abort ok abort prepare -",
        &format!("prepare {DONE}, abort ok, abort ok, prepare {DONE}, 0"),
    );
    check("prepare ok commit ok abort -", &format!("prepare {DONE}, commit ok, abort refused committed, 1"));
    check("prepare ok commit! ok commit -", &format!("prepare {DONE}, commit ok, 1"));
    check("prepare ok abort! commit ok -", &format!("prepare {DONE}, commit refused aborted, 0"));
    check("prepare ok commit! commit ok -", &format!("prepare {DONE}, commit pending, commit ok, 1"));
    check("prepare ok commit! commit! ok - commit!", &format!("prepare {DONE}, 1"));
    check("prepare ok undecided! forgotten! -", &format!("prepare {DONE}, 1"));
    check("commit! execute ok", &format!("execute {DONE}, 1"));
    check("prepare ok compensate -", &format!("prepare {DONE}, compensate error in-doubt, 1"));
    check("prepare ok commit ok compensate ok", &format!("prepare {DONE}, commit ok, compensate ok, 0"));
}

#[test]
fn what_an_operator_decides_is_done_and_what_is_mixed_is_refused_until_it_is_repaired() {
    let aborted = format!("prepare {DONE}, 0");
    check("prepare ok abort? ok - abort?", &aborted);
    check("prepare ok abort? ok abort", &format!("prepare {DONE}, abort ok, 0"));
    check("prepare ok abort? ok commit", &format!("prepare {DONE}, commit refused heuristic-mixed, 0"));
    check("prepare ok abort? commit", &format!("prepare {DONE}, commit refused heuristic-mixed, 1"));
    check(
        "prepare ok abort? ok commit commit= commit -",
        &format!("prepare {DONE}, commit refused heuristic-mixed, commit ok, 0"),
    );
    check("prepare ok commit? abort? ok -", &format!("prepare {DONE}, 1"));
    check("prepare ok commit ok abort? commit= -", &format!("prepare {DONE}, commit ok, 1"));
    check("abort? -", "0");
}

#[test]
fn a_verdict_brings_what_its_command_would_have_brought() {
    let mut bed = Bed::new();
    bed.ask(&[Ask::new("t", "prepare")]);
    bed.work("ok");
    bed.absorb(&[Bed::verdict("t", "commit"), Bed::verdict("t", "abort")]);
    assert_eq!((bed.counters.verdicts, bed.counters.alarms), (1, 1), "the second contradicts the first");
    let query = format!("SELECT operation, data::text FROM {}.todo", bed.s);
    let found = bed.relay.rows(&query, &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].get::<_, &str>(0), "commit");
    assert_eq!(found[0].get::<_, &str>(1), r#"{"input": {"quantity": 2}, "result": {"place": "A1"}}"#);
}

#[test]
fn what_may_have_been_purged_is_expired_and_never_done() {
    let mut bed = Bed::new();
    let late = |subject: &str, operation: &str| Ask {
        issued_ms: 5_000,
        watermark_ms: 4_000,
        ..Ask::new(subject, operation)
    };
    bed.ask(&[Ask::new("known", "execute"), late("new", "execute"), Ask::new("old", "execute")]);
    assert_eq!(bed.replies(), ["execute refused expired"]);
    // The horizon outlives the batch, and what is known is no less known.
    bed.ask(&[Ask::new("old", "compensate"), Ask::new("known", "compensate"), Ask::new("known", "execute")]);
    assert_eq!(bed.replies(), ["compensate refused expired", "compensate ok", "execute refused cancelled"]);
}

#[test]
fn commands_of_one_key_are_handed_out_one_after_the_other() {
    let mut bed = Bed::new();
    let of = |subject: &str, key: &str| Ask { key: key.into(), ..Ask::new(subject, "execute") };
    bed.ask(&[of("a1", "a"), of("a2", "a"), of("b1", "b")]);
    let first = bed.take().unwrap();
    let mut other = crate::bed::Sql::connect();
    let query = format!("SELECT subject FROM {}.take('stock')", bed.s);
    let mut taken_beside = || -> Vec<String> {
        other.run("BEGIN");
        let found = other.rows(&query, &[]).iter().map(|row| row.get(0)).collect();
        other.run("ROLLBACK");
        found
    };
    assert_eq!(taken_beside(), ["b1"], "not a2, which comes after a1");
    bed.reply(&first, "ok");
    assert_eq!(taken_beside(), ["a2"]);
    let nobody = format!("SELECT subject FROM {}.take('somebody-else')", bed.s);
    assert!(bed.relay.rows(&nobody, &[]).is_empty());
}

#[test]
fn a_poison_command_stops_no_other() {
    let mut bed = Bed::new();
    let poison = |subject: &str, operation: &str, data: &str| Ask {
        data: data.into(),
        ..Ask::new(subject, operation)
    };
    let deep = "[".repeat(40_000) + &"]".repeat(40_000);
    let records = [
        bed.record(&Ask::new("good", "execute")),
        crate::bed::Record { key: None, value: b"\0\0\x07binary".to_vec(), is_told: false },
        bed.record(&poison("zero", "execute", r#""\u0000""#)),
        bed.record(&poison("huge", "execute", "1e999999999")),
        bed.record(&poison("deep", "execute", &deep)),
        bed.record(&Ask::new("fine", "execute")),
    ];
    bed.absorb(&records);
    assert_eq!((bed.counters.opened, bed.counters.passed_over), (2, 1));
    let told = bed.replies();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|reply| reply.starts_with("execute refused bad-input:")), "{told:?}");
    bed.ask(&[poison("zero", "compensate", r#"{"input":"\u0000"}"#)]);
    assert_eq!(bed.replies(), ["compensate ok"], "it was refused, so nothing is undone");
}

#[test]
fn so_many_may_be_open_and_what_undoes_passes() {
    let mut bed = Bed::new();
    bed.inbox = sagamore_outbox::inbox::Inbox::new(
        &bed.s.parse().unwrap(),
        "stock".parse().unwrap(),
        "sagamore.inbox",
    )
    .with_open_max(2);
    let executes: Vec<Ask> = (0..3).map(|n| Ask::new(&format!("t{n}"), "execute")).collect();
    bed.ask(&executes);
    assert_eq!(bed.replies(), ["execute error too many commands are open: 2"]);
    bed.ask(&executes[2..]);
    assert_eq!(bed.replies(), ["execute error too many commands are open: 2"], "nothing is kept of it");
    bed.ask(&[Ask::new("t0", "compensate"), Ask::new("t2", "execute")]);
    assert_eq!(bed.replies()[0], "compensate ok");
    bed.ask(&executes[2..]);
    assert_eq!(bed.counters.opened, 3, "there was room again");
}
