//! The store, fed with entries as the fold writes them, and asked as the API asks it.

use std::time::Duration;

use rusqlite::Connection;
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::entries_of;
use serde_json::{Value, json};
use uuid::Uuid;

use super::query::{self, By, Cursor, Filter};
use super::store::{Batch, HELD_MAX, Store};
use super::{Status, ViewError, schema};

const ORDER: &str = r#"{"name":"order","version":1,"deadline":"5m","steps":[
    {"name":"reserve","participant":"inventory"},
    {"name":"charge","participant":"payment"},
    {"name":"ship","participant":"shipping","kind":"pivot"}]}"#;
const INSTANCE: Uuid = Uuid::from_u128(7);

/// A view, and the journal it is fed from: one partition per call of `on`.
struct Stage {
    folder: tempfile::TempDir,
    store: Store,
    batch: Batch,
    partition: i32,
    offset: i64,
    at_s: i64,
    /// Offsets that are read.
    from: i64,
    upto: i64,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("view"), INSTANCE).unwrap();
        store.define(ORDER).unwrap();
        Self {
            folder,
            store,
            batch: Batch::default(),
            partition: 0,
            offset: 0,
            at_s: 0,
            from: 0,
            upto: i64::MAX,
        }
    }

    /// The next entry of a transaction, an hour-long journal's second later; more fields as JSON.
    fn tell(&mut self, id: &str, birth: i64, mut entry: Value) {
        self.at_s += 1;
        self.offset += 1;
        let at = Time::from_epoch_ms(1_790_000_000_000 + self.at_s * 1_000);
        entry["offset"] = json!(self.offset);
        entry["sequence"] = json!(0);
        entry["at"] = json!(at);
        entry["transaction"] = json!(id);
        entry["birth"] = json!(format!("{}-{birth}", self.partition));
        self.record(&entry);
    }

    fn record(&mut self, entry: &Value) {
        if !(self.from..=self.upto).contains(&self.offset) {
            return;
        }
        let record = json!([{"entry": entry, "chain": "00"}]).to_string();
        for entry in entries_of(record.as_bytes()).unwrap() {
            self.store.take(&mut self.batch, self.partition, self.offset, &entry).unwrap();
        }
        self.batch.passed(self.partition, self.offset, Time::from_epoch_ms(1_790_000_000_000));
    }

    fn start(&mut self, id: &str, birth: i64) {
        let changes = json!([{"step": "reserve", "phase": "asked execute 1"}]);
        self.tell(
            id,
            birth,
            json!({"input": "start", "definition": "order@1", "revision": 1, "changes": changes}),
        );
    }

    fn commit(&mut self) {
        self.store.commit(&mut self.batch, None).unwrap();
    }

    fn view(&self) -> Connection {
        schema::read(&self.folder.path().join("view")).unwrap()
    }

    fn listed(&self, filter: &Filter) -> Vec<String> {
        let page = query::list(&self.view(), filter, None, 100).unwrap();
        page.transactions.into_iter().map(|shown| shown.id).collect()
    }

    fn one(&self, id: &str) -> Value {
        json!(query::one(&self.view(), &id.parse().unwrap()).unwrap())
    }
}

/// A reservation that was compensated without success: stuck.
fn stick(stage: &mut Stage, id: &str, birth: i64, reason: &str) {
    stage.start(id, birth);
    let changes =
        json!([{"step": "reserve", "phase": "done"}, {"step": "charge", "phase": "asked execute 1"}]);
    stage.tell(
        id,
        birth,
        json!({"input": "reply", "step": "reserve", "operation": "execute", "attempt": 1,
        "answer": "ok", "revision": 2, "changes": changes}),
    );
    let changes = json!([{"step": "charge", "phase": "refused"}, {"step": "ship", "phase": "skipped"},
        {"step": "reserve", "phase": "asked compensate 1"}]);
    stage.tell(id, birth, json!({"input": "reply", "step": "charge", "operation": "execute", "attempt": 1,
        "answer": "refused", "reason": "no-money: anna", "revision": 3, "changes": changes, "decision": "rollback"}));
    let changes = json!([{"step": "reserve", "phase": "stuck compensate 1"}]);
    stage.tell(
        id,
        birth,
        json!({"input": "reply", "step": "reserve", "operation": "compensate", "attempt": 1,
        "answer": "refused", "reason": reason, "revision": 4, "changes": changes, "outcome": "stuck"}),
    );
}

fn of(status: Status) -> Filter {
    Filter { statuses: [status].into(), ..Filter::default() }
}

#[test]
fn a_transaction_is_told_from_its_start_to_its_end() {
    let mut stage = Stage::new();
    stage.start("o-1", 1);
    stage.commit();
    let running = stage.one("o-1");
    assert_eq!((&running["status"], &running["definition"]), (&json!("running"), &json!("order@1")));
    assert_eq!(running["deadline"], json!(Time::from_epoch_ms(1_790_000_301_000)));
    assert_eq!(running["steps"][2]["phase"], "waiting");
    assert_eq!(running["steps"][0]["participant"], "inventory");
    for (revision, step, next) in [(2, "reserve", "charge"), (3, "charge", "ship")] {
        let changes = json!([{"step": step, "phase": "done"}, {"step": next, "phase": "asked execute 1"}]);
        stage.tell(
            "o-1",
            1,
            json!({"input": "reply", "step": step, "operation": "execute", "attempt": 1,
            "answer": "ok", "revision": revision, "changes": changes}),
        );
    }
    stage.tell(
        "o-1",
        1,
        json!({"input": "timer", "step": "ship", "revision": 4,
        "changes": [{"step": "ship", "phase": "pausing execute 1"}]}),
    );
    stage.tell(
        "o-1",
        1,
        json!({"input": "timer", "step": "ship", "revision": 5,
        "changes": [{"step": "ship", "phase": "asked execute 2"}]}),
    );
    stage.commit();
    let waiting = stage.one("o-1");
    assert_eq!(
        (&waiting["steps"][2]["reason"], &waiting["steps"][2]["attempt"]),
        (&json!("timeout"), &json!(2))
    );
    stage.tell("o-1", 1, json!({"input": "reply", "step": "ship", "operation": "execute", "attempt": 2, "answer": "ok",
        "revision": 6, "changes": [{"step": "ship", "phase": "done"}], "decision": "commit", "outcome": "committed"}));
    stage.commit();
    let ended = stage.one("o-1");
    assert_eq!((&ended["status"], &ended["revision"]), (&json!("committed"), &json!(6)));
    let attempts = &ended["steps"][2]["attempts"];
    assert_eq!((&attempts[0]["came_to"], &attempts[0]["took_ms"]), (&json!("timeout"), &json!(1_000)));
    assert_eq!((&attempts[1]["came_to"], &attempts[1]["attempt"]), (&json!("ok"), &json!(2)));
    assert_eq!(stage.listed(&Filter::default()), Vec::<String>::new(), "no open branch is left behind");
    assert_eq!(stage.listed(&of(Status::Committed)), ["o-1"]);
}

#[test]
fn what_comes_twice_changes_nothing() {
    let mut stage = Stage::new();
    stick(&mut stage, "o-1", 1, "no-account: anna");
    let before = stage.batch.entries();
    stage.commit();
    let told = stage.one("o-1");
    let entry = json!({"offset": 1, "sequence": 0, "at": "2026-11-22T16:00:00Z", "input": "start", "transaction": "o-1",
        "birth": "0-1", "definition": "order@1", "revision": 1, "changes": [{"step": "reserve", "phase": "asked execute 1"}]});
    stage.record(&entry);
    stage.commit();
    assert_eq!((before, stage.one("o-1")), (4, told));
}

#[test]
fn what_is_stuck_is_grouped_by_its_cause() {
    let mut stage = Stage::new();
    for number in 0..5 {
        stick(&mut stage, &format!("a-{number}"), 100 * number + 1, "no-account: anna");
    }
    stick(&mut stage, "b-0", 900, "closed");
    stage.commit();
    let causes = query::stuck(&stage.view(), &Filter::default()).unwrap();
    let told: Vec<_> = causes.iter().map(|cause| (cause.count, &*cause.error, &*cause.operation)).collect();
    assert_eq!(told, [(5, "no-account", "compensate"), (1, "closed", "compensate")]);
    let first = &causes[0];
    assert_eq!(
        (first.definition.as_deref(), first.participant.as_deref()),
        (Some("order@1"), Some("inventory"))
    );
    assert_eq!((&*first.sample, first.verb), ("a-0", "retry"));
    assert_eq!(first.last_seen.since(first.first_seen).as_ms(), 16_000);
    let only = Filter { error: Some("closed".to_owned()), ..Filter::default() };
    assert_eq!(query::stuck(&stage.view(), &only).unwrap().len(), 1);
    // What a person does is told, and with the retry they are no longer stuck.
    stage.tell(
        "b-0",
        900,
        json!({"input": "retry", "actor": "eve", "reason": "mended", "revision": 5,
        "changes": [{"step": "reserve", "phase": "asked compensate 2"}]}),
    );
    stage.commit();
    let one = stage.one("b-0");
    assert_eq!((&one["status"], &one["decisions"][0]["actor"]), (&json!("rolling-back"), &json!("eve")));
    assert_eq!((&one["reason"], &one["error"]), (&json!("charge: no-money: anna"), &json!("no-money")));
    assert_eq!(query::stuck(&stage.view(), &Filter::default()).unwrap().len(), 1);
}

#[test]
fn who_is_held_is_paused_until_let_go_or_decided() {
    let mut stage = Stage::new();
    stage.start("o-1", 1);
    let verb = |input: &str, revision: u64| json!({"input": input, "actor": "eve", "reason": "looks first", "revision": revision});
    for (input, revision, then) in [("pause", 2, "paused"), ("resume", 3, "running"), ("pause", 4, "paused")]
    {
        stage.tell("o-1", 1, verb(input, revision));
        stage.commit();
        assert_eq!(stage.one("o-1")["status"], json!(then));
    }
    let mut cancelled = verb("cancel", 5);
    cancelled["decision"] = json!("rollback");
    cancelled["changes"] = json!([{"step": "reserve", "phase": "asked compensate 1"}]);
    stage.tell("o-1", 1, cancelled);
    stage.commit();
    assert_eq!(stage.one("o-1")["status"], json!("rolling-back"));
}

#[test]
fn filters_and_counts_agree() {
    let mut stage = Stage::new();
    stage.start("run-1", 1);
    stick(&mut stage, "stuck-1", 10, "no-account: anna");
    stage.partition = 1;
    stage.start("run-2", 1);
    stage.commit();
    let check = |filter: Filter, expected: &[&str]| {
        assert_eq!(stage.listed(&filter), expected, "{filter:?}");
        let count = query::count(&stage.view(), &filter, &[]).unwrap();
        assert_eq!(count[0].transactions, i64::try_from(expected.len()).unwrap(), "{filter:?}");
    };
    let all = Filter::default;
    check(all(), &["run-1", "stuck-1", "run-2"]);
    check(of(Status::Stuck), &["stuck-1"]);
    check(Filter { participant: Some("inventory".to_owned()), ..all() }, &["run-1", "stuck-1", "run-2"]);
    check(Filter { participant: Some("payment".to_owned()), ..all() }, &[]);
    check(Filter { step: Some("reserve".to_owned()), ..of(Status::Stuck) }, &["stuck-1"]);
    check(Filter { step: Some("ship".to_owned()), ..all() }, &[]);
    check(Filter { error: Some("no-account".to_owned()), ..all() }, &["stuck-1"]);
    check(Filter { id_prefix: Some("run-".to_owned()), ..all() }, &["run-1", "run-2"]);
    check(Filter { definition: Some(("order".to_owned(), None)), ..all() }, &["run-1", "stuck-1", "run-2"]);
    check(Filter { definition: Some(("order".to_owned(), Some(2))), ..all() }, &[]);
    let middle = Time::from_epoch_ms(1_790_000_002_000);
    check(Filter { from: Some(middle), ..all() }, &["stuck-1", "run-2"]);
    check(Filter { until: Some(middle), ..all() }, &["run-1"]);
    let by = query::count(&stage.view(), &all(), &[By::Participant, By::Status]).unwrap();
    assert_eq!(
        json!(by),
        json!([{"participant": "inventory", "status": "running", "transactions": 2},
               {"participant": "inventory", "status": "stuck", "transactions": 1}])
    );
    let by = query::count(&stage.view(), &all(), &[By::Definition]).unwrap();
    assert_eq!(json!(by), json!([{"definition": "order@1", "transactions": 3}]));
}

#[test]
fn pages_go_on_where_the_last_one_ended() {
    let mut stage = Stage::new();
    for number in 0..25 {
        stage.partition = number % 3;
        // Many begin within one millisecond.
        stage.at_s = 0;
        stage.start(&format!("o-{number:02}"), i64::from(number));
    }
    stage.commit();
    let mut seen = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = query::list(&stage.view(), &Filter::default(), after, 10).unwrap();
        seen.extend(page.transactions.into_iter().map(|shown| shown.id));
        let Some(next) = page.next else { break };
        after = Some(next.parse().unwrap());
    }
    assert_eq!(seen.len(), 25);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
    for wrong in ["", "1", "x.y", "-1.2"] {
        assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
    }
}

#[test]
fn what_the_journal_no_longer_has_is_forgotten_unless_it_is_open() {
    let mut stage = Stage::new();
    stage.start("open", 1);
    stage.start("ended", 2);
    stage.tell(
        "ended",
        2,
        json!({"input": "cancel", "actor": "eve", "reason": "no", "revision": 2,
        "decision": "rollback", "outcome": "aborted"}),
    );
    stage.start("newer", 3);
    stage.tell(
        "newer",
        3,
        json!({"input": "cancel", "actor": "eve", "reason": "no", "revision": 2,
        "decision": "rollback", "outcome": "aborted"}),
    );
    stage.commit();
    assert_eq!(stage.store.forget(0, 4).unwrap(), 1);
    assert_eq!(stage.listed(&of(Status::Aborted)), ["newer"]);
    assert_eq!(stage.listed(&Filter::default()), ["open"]);
}

#[test]
fn a_refused_start_is_no_life_of_its_id() {
    let mut stage = Stage::new();
    stage.start("o-1", 1);
    stage.offset += 1;
    let entry = json!({"offset": 9, "sequence": 0, "at": "2026-11-22T16:00:00Z", "input": "start", "transaction": "o-1",
        "definition": "order@1", "reason": "conflict: other data", "outcome": "refused"});
    stage.record(&entry);
    stage.commit();
    assert_eq!(stage.one("o-1")["status"], "running");
    let other = json!({"offset": 10, "sequence": 0, "at": "2026-11-22T16:00:00Z", "input": "start",
        "transaction": "o-2", "definition": "order@1", "reason": "too-old: x", "outcome": "refused"});
    stage.record(&other);
    stage.commit();
    assert_eq!(stage.one("o-2"), Value::Null);
    assert_eq!(stage.listed(&Filter { id_prefix: Some("o-1".to_owned()), ..of(Status::Refused) }), ["o-1"]);
    assert_eq!(stage.listed(&of(Status::Refused)), ["o-1", "o-2"]);
    let counted = query::count(&stage.view(), &of(Status::Refused), &[By::Error]).unwrap();
    assert_eq!(
        json!(counted),
        json!([{"error": "conflict", "transactions": 1}, {"error": "too-old", "transactions": 1}])
    );
}

#[test]
fn the_place_in_the_journal_is_kept_with_the_rows_and_another_instance_begins_anew() {
    let mut stage = Stage::new();
    stage.start("o-1", 1);
    // Not committed: neither the row nor the place is there.
    let file = stage.folder.path().join("view");
    assert!(query::positions(&stage.view()).unwrap().is_empty());
    stage.commit();
    drop(stage.store);
    let again = Store::open(&file, INSTANCE).unwrap();
    assert_eq!(again.positions().unwrap(), [(0, 2)].into());
    drop(again);
    let other = Store::open(&file, Uuid::from_u128(8)).unwrap();
    assert!(other.positions().unwrap().is_empty());
    drop(other);
    std::fs::write(&file, "this is no database, and was never one").unwrap();
    let damaged = Store::open(&file, INSTANCE).unwrap();
    assert!(damaged.positions().unwrap().is_empty());
}

#[test]
fn what_a_crowd_has_held_back_is_read_again_after_a_crash() {
    const HOUR: Option<Duration> = Some(Duration::from_hours(1));
    let tell_all = |stage: &mut Stage, from: i64, upto: i64| {
        let journal: [&dyn Fn(&mut Stage); 5] = [
            &|stage| stage.start("open", 1),
            &|stage| stage.start("ends", 2),
            &|stage| stick(stage, "stuck", 3, "closed"),
            &|stage| stage.tell("ends", 2, json!({"input": "reply", "revision": 2, "outcome": "committed"})),
            &|stage| stage.tell("open", 1, json!({"input": "reply", "revision": 2})),
        ];
        (stage.at_s, stage.offset) = (0, 0);
        (stage.from, stage.upto) = (from, upto);
        for tell in journal {
            tell(stage);
        }
    };
    let mut expected = Stage::new();
    tell_all(&mut expected, 0, i64::MAX);
    expected.commit();
    let last = expected.offset;
    for crashes_after in 1..=last {
        let mut stage = Stage::new();
        tell_all(&mut stage, 0, crashes_after);
        stage.store.commit(&mut stage.batch, HOUR).unwrap();
        assert_eq!(stage.listed(&Filter::default()), [""; 0], "what is open is held back");
        let standing = stage.batch.standing()[&0];
        assert!(
            standing.is_behind && standing.next == 1,
            "the first entry is of one that is open: {standing:?}"
        );
        assert_eq!(stage.store.positions().unwrap(), [(0, 1)].into());

        stage.batch = Batch::default();
        stage.store = Store::open(&stage.folder.path().join("view"), INSTANCE).unwrap();
        tell_all(&mut stage, 1, i64::MAX);
        stage.commit();
        for id in ["open", "ends", "stuck"] {
            assert_eq!(stage.one(id), expected.one(id), "{id} after {crashes_after} entries and a crash");
        }
        assert_eq!(stage.store.positions().unwrap(), [(0, last + 1)].into());
    }
}

#[test]
fn so_many_are_held_back_and_no_more() {
    let held = i64::try_from(HELD_MAX).unwrap();
    for (open, written) in [(held, 0), (held + 1, held + 1)] {
        let mut stage = Stage::new();
        (1..=open).for_each(|birth| stage.start(&format!("o-{birth}"), birth));
        stage.store.commit(&mut stage.batch, Some(Duration::from_hours(1))).unwrap();
        let rows =
            stage.view().query_row("SELECT count(*) FROM transactions", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows.unwrap(), written, "{open} open");
    }
}

#[test]
fn what_is_open_for_long_is_written_all_the_same() {
    let mut stage = Stage::new();
    stage.start("o-1", 1);
    stage.store.commit(&mut stage.batch, Some(Duration::ZERO)).unwrap();
    assert_eq!(stage.listed(&Filter::default()), ["o-1"]);
    assert!(!stage.batch.standing()[&0].is_behind);
}

#[test]
fn words_that_are_not_known_are_answered_with_those_that_come_near() {
    let stage = Stage::new();
    let near = query::unknown_definition(&stage.view(), "ordre").unwrap();
    assert_eq!(near, Some(Some("order".to_owned())));
    assert_eq!(query::unknown_definition(&stage.view(), "order").unwrap(), None);
    assert!(Filter::statuses_of("stuck,comitted").unwrap_err().contains("did you mean committed?"));
    assert_eq!(Filter::statuses_of("ended").unwrap().len(), 4);
    assert!("defintion".parse::<By>().unwrap_err().contains("did you mean definition?"));
    assert!(Filter::definition_of("order@x").is_err());
    let closed = schema::read(&stage.folder.path().join("nowhere"));
    assert!(matches!(closed, Err(ViewError::Store(_))));
}
