//! What a worker has in its hands is not taken away from it; who undoes it waits, and nobody else does.

use crate::bed::{Ask, Bed, Record};

/// A worker has the `execute`; the `compensate` that comes meanwhile, and stays to be decided.
fn held() -> (Bed, (i64, String), Record) {
    let mut bed = Bed::new();
    bed.ask(&[Ask::new("t", "execute")]);
    let taken = bed.take().unwrap();
    let mut compensate = bed.record(&Ask::new("t", "compensate"));
    let other = bed.record(&Ask::new("other", "execute"));
    assert_eq!(bed.absorb(&[clone(&compensate), other]), [0], "it comes again, and the other does not wait");
    assert_eq!(bed.replies(), ["compensate pending"]);
    compensate.is_told = true;
    assert_eq!(bed.absorb(&[clone(&compensate)]), [0]);
    assert_eq!(bed.replies(), Vec::<String>::new(), "it is told once");
    (bed, taken, compensate)
}

fn clone(record: &Record) -> Record {
    Record { key: record.key.clone(), value: record.value.clone(), is_told: record.is_told }
}

#[test]
fn what_a_worker_does_is_undone_after_it() {
    let (mut bed, taken, compensate) = held();
    bed.reply(&taken, "ok");
    assert!(bed.absorb(&[compensate]).is_empty());
    assert!(bed.work("ok"), "the other one");
    assert!(bed.work("ok"), "the compensation");
    let replies = bed.replies();
    assert_eq!(replies.len(), 3);
    assert_eq!(replies[2], "compensate ok");
    assert_eq!(bed.net(), 1, "the other's");
}

#[test]
fn what_a_worker_refuses_needs_no_undoing() {
    let (mut bed, taken, compensate) = held();
    bed.reply(&taken, "refused");
    assert!(bed.absorb(&[compensate]).is_empty());
    assert_eq!(bed.replies(), ["execute refused none left", "compensate ok"]);
}

#[test]
fn what_a_worker_fails_to_do_is_never_done() {
    let (mut bed, taken, compensate) = held();
    bed.reply(&taken, "error");
    assert!(bed.absorb(&[compensate]).is_empty());
    bed.ask(&[Ask::new("t", "execute")]);
    assert_eq!(bed.replies(), ["execute error", "compensate ok", "execute refused cancelled"]);
}

#[test]
fn what_a_worker_lets_go_is_cancelled_and_cannot_be_answered_any_more() {
    let (mut bed, (number, _), compensate) = held();
    bed.service.run("ROLLBACK");
    assert!(bed.absorb(&[compensate]).is_empty());
    assert_eq!(bed.replies(), ["compensate ok"]);
    let s = bed.s.clone();
    // A worker that did its work without holding the command.
    bed.service.run("BEGIN");
    bed.service.run(&format!("INSERT INTO {s}.effects VALUES ('t', 1)"));
    let refusal = bed.service.refusal(&format!("SELECT {s}.reply({number}, 'ok')"));
    assert!(refusal.contains("is not open"), "{refusal}");
    bed.service.run("COMMIT");
    assert_eq!(bed.net(), 0, "its effect is gone with it");
}
