//! Bounds of everything but the fold at one below, at, and one beyond them; and the table that names the case of every
//! limit in the sources. The fold's cases are in the decider's own `tests/fold/limits.rs`.

#![expect(clippy::unwrap_used, reason = "the harness belongs to the tests")]

mod http;
mod table;

use std::num::NonZeroU16;

use sagamore_decider::definition::check::ProblemCode;
use sagamore_decider::definition::source::{SHAPE_FAULTS_MAX, TEXT_DEPTH_MAX, read};
use sagamore_participant::perform::perform;
use sagamore_participant::store::memory::{Cell, MemoryStore, State, Undo};
use sagamore_participant::store::{LocalTransaction as _, Store as _};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
use sagamore_schemas::definition::DEFINITION_MAX_BYTES;
use sagamore_schemas::ids::{
    Birth, NAME_MAX_CHARS, Name, Span, TRANSACTION_ID_MAX_CHARS, Time, TransactionId,
};
use sagamore_schemas::snapshot::{PART_BYTES_MAX, pieces};
use sagamore_schemas::topics::{
    DEAD_LETTER_BYTES_MAX, IN_SYNC_LEAST, MIN_IN_SYNC, PREFIX_CHARACTERS_MAX, Prefix, RECORD_BYTES_MAX,
    REPLICATION_LEAST, STATE_SEGMENT_BYTES_MAX, STATE_SEGMENT_BYTES_MIN, STATE_TOMBSTONE_RETENTION_LEAST_MS,
    Topic,
};
use sagamore_schemas::wire::{Answer, DefinitionRef, read_command};

/// One below, at, one beyond.
pub fn around(limit: usize) -> [usize; 3] {
    [limit - 1, limit, limit + 1]
}

#[test]
fn names_have_so_many_characters() {
    let x = |count: usize| "x".repeat(count);
    for (count, then) in around(TRANSACTION_ID_MAX_CHARS).into_iter().zip([true, true, false]) {
        assert_eq!(x(count).parse::<TransactionId>().is_ok(), then, "{count}");
    }
    for (count, then) in around(NAME_MAX_CHARS).into_iter().zip([true, true, false]) {
        assert_eq!(x(count).parse::<Name>().is_ok(), then, "{count}");
        assert_eq!(format!("{}@1", x(count)).parse::<DefinitionRef>().is_ok(), then, "{count}");
    }
    for (count, then) in around(PREFIX_CHARACTERS_MAX).into_iter().zip([true, true, false]) {
        assert_eq!(x(count).parse::<Prefix>().is_ok(), then, "{count}");
    }
    assert!(
        "".parse::<TransactionId>().is_err() && "".parse::<Name>().is_err() && "".parse::<Prefix>().is_err()
    );
}

#[test]
fn errors_quote_so_many_characters() {
    const MAX_CHARS: usize = 60;
    for (count, then) in around(MAX_CHARS).into_iter().zip([true, true, false]) {
        let text = "Ä".repeat(count);
        let told = text.parse::<Name>().unwrap_err().to_string();
        assert_eq!(told.contains(&text), then, "{count}");
        assert_eq!(told.contains('…'), !then, "{count}");
    }
}

#[test]
fn numbers_of_the_wire_stop_at_their_types() {
    let check = |text: &str, then: bool| assert_eq!(text.parse::<Birth>().is_ok(), then, "{text}");
    check("2147483647-9223372036854775807", true);
    check("2147483648-1", false);
    check("1-9223372036854775808", false);
    for (version, then) in [("0", false), ("1", true), ("4294967295", true), ("4294967296", false)] {
        assert_eq!(format!("t@{version}").parse::<DefinitionRef>().is_ok(), then, "{version}");
    }
    let most = Span::MAX.as_ms();
    for (ms, then) in [(most - 1, true), (most, true), (most + 1, false)] {
        assert_eq!(format!("{ms}ms").parse::<Span>().is_ok(), then, "{ms}");
        assert_eq!(Span::from_ms(ms).as_ms(), ms.min(most));
    }
    let most = Time::MAX.epoch_ms();
    for ms in [most - 1, most, most + 1, i64::MAX] {
        let time = Time::from_epoch_ms(ms);
        assert_eq!(time.epoch_ms(), ms.min(most));
        assert_eq!(time.to_string().parse::<Time>(), Ok(time));
    }
    assert_eq!(Time::MAX.after(Span::from_ms(1)), Time::MAX);
    assert_eq!(Time::default().before(Span::from_ms(1)), Time::default());
}

#[test]
fn a_text_of_a_definition_has_so_many_bytes_and_levels() {
    let text = |bytes: usize| {
        let begin = "name: t\nversion: 1\nsteps: [{name: a, participant: p}]\n#";
        format!("{begin}{}", "x".repeat(bytes - begin.len()))
    };
    for (bytes, then) in around(DEFINITION_MAX_BYTES).into_iter().zip([true, true, false]) {
        assert_eq!(read(&text(bytes)).result.is_ok(), then, "{bytes}");
    }
    // Three levels stand around an input, which has a bound of its own: what is too deep for the text is told as such.
    let deep = |levels: usize| {
        let levels = levels - 3;
        format!(
            "name: t\nversion: 1\nsteps: [{{name: a, participant: p, input: {}{}}}]",
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    for (levels, then) in around(TEXT_DEPTH_MAX).into_iter().zip([false, false, true]) {
        let problems = read(&deep(levels)).result.unwrap_err();
        let is_of_text = problems.iter().any(|problem| problem.message.contains("deeper than 32"));
        assert_eq!(is_of_text, then, "{levels}: {problems:?}");
    }
}

#[test]
fn so_many_faults_of_shape_are_told() {
    for (count, then) in around(SHAPE_FAULTS_MAX).into_iter().zip([false, false, true]) {
        let steps: Vec<String> =
            (0..count).map(|at| format!("{{name: s{at}, participant: p, x: 1}}")).collect();
        let text = format!("{{name: t, version: 1, steps: [{}]}}", steps.join(", "));
        let problems = read(&text).result.unwrap_err();
        let told = problems.iter().filter(|problem| problem.code == ProblemCode::UnknownField).count();
        assert_eq!(told, count.min(SHAPE_FAULTS_MAX), "{count}");
        assert_eq!(
            problems.iter().any(|problem| problem.message.contains("more than")),
            then,
            "{count}: {problems:?}"
        );
    }
}

#[test]
fn settings_of_topics_are_good_from_their_bound_on() {
    let setting = |topic: Topic, key: &str| {
        topic
            .settings()
            .into_iter()
            .find(|setting| setting.key == key)
            .unwrap_or_else(|| panic!("{key}"))
            .accepts
    };
    for (topic, key, least) in [
        (Topic::Inbox, "max.message.bytes", RECORD_BYTES_MAX),
        (Topic::State, "max.message.bytes", RECORD_BYTES_MAX),
        (Topic::Outcomes, "max.message.bytes", RECORD_BYTES_MAX),
        (Topic::DeadLetters, "max.message.bytes", DEAD_LETTER_BYTES_MAX),
        (Topic::State, "delete.retention.ms", STATE_TOMBSTONE_RETENTION_LEAST_MS),
        (Topic::Inbox, MIN_IN_SYNC, i64::from(IN_SYNC_LEAST)),
    ] {
        let accepts = setting(topic, key);
        for (value, then) in [(least - 1, false), (least, true), (least + 1, true)] {
            assert_eq!(accepts.allows(&value.to_string()), then, "{key} {value}");
        }
    }
    let segment = setting(Topic::State, "segment.bytes");
    for (value, then) in [
        (STATE_SEGMENT_BYTES_MIN - 1, false),
        (STATE_SEGMENT_BYTES_MIN, true),
        (STATE_SEGMENT_BYTES_MAX, true),
        (STATE_SEGMENT_BYTES_MAX + 1, false),
    ] {
        assert_eq!(segment.allows(&value.to_string()), then, "{value}");
    }
    let in_sync = |replication: u16| {
        let settings = Topic::Inbox.settings();
        let setting = settings.iter().find(|setting| setting.key == MIN_IN_SYNC).unwrap();
        setting.value_for(NonZeroU16::new(replication).unwrap())
    };
    let found =
        [REPLICATION_LEAST - 2, REPLICATION_LEAST - 1, REPLICATION_LEAST, REPLICATION_LEAST + 1].map(in_sync);
    assert_eq!(found, ["1", "1", "2", "2"], "as many as can be met");
}

struct Nothing(Cell<u8>);

impl State for Nothing {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(&mut self.0);
    }
}

struct Willing;

impl Participant for Willing {
    type Store = MemoryStore<Nothing>;

    fn execute(&self, _: &mut Nothing, _: &Command<'_>) -> Result<Effect, Fault> {
        Effect::done(&1)
    }

    fn compensate(&self, _: &mut Nothing, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn a_snapshot_is_cut_into_pieces_of_so_many_bytes() {
    let sizes = |body: usize| pieces(&vec![7; body]).map(<[u8]>::len).collect::<Vec<_>>();
    assert_eq!(sizes(PART_BYTES_MAX), [PART_BYTES_MAX]);
    assert_eq!(sizes(PART_BYTES_MAX + 1), [PART_BYTES_MAX, 1]);
    assert!(
        i64::try_from(PART_BYTES_MAX).unwrap() < RECORD_BYTES_MAX / 2,
        "with its header it fits into a record"
    );
}

#[test]
fn a_store_in_memory_remembers_so_many_branches() {
    const BRANCHES_MAX: usize = 100;
    let command =
        std::fs::read(sagamore_fuzz::root().join("tests/fuzz/corpus/participant/op-execute")).unwrap();
    let store = MemoryStore::with_branches_max(Nothing(Cell::new(0)), BRANCHES_MAX);
    for number in 1..=BRANCHES_MAX + 1 {
        let mut command = read_command(Some(&command)).unwrap();
        command.address.subject = format!("t-{number}").parse().unwrap();
        command.watermark = Time::default();
        let mut session = ();
        let mut tx = store.begin(&mut session).unwrap();
        let answered = perform(&Willing, &mut tx, &command).unwrap();
        tx.commit().unwrap();
        let then = if number <= BRANCHES_MAX { Answer::Ok } else { Answer::Error };
        assert_eq!(answered.outcome, then, "{number}");
    }
}
