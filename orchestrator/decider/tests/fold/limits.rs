//! Every bound of the fold at one below, at, and one beyond it. `tests/fuzz/tests/limits` demands that each limit with a
//! name has a case, here or there.

mod owner;

use sagamore_decider::definition::check::{ATTEMPTS_MAX, BRANCHES_MAX, FACTOR_MAX, FAN_OUT_MAX, compile};
use sagamore_decider::definition::template::{
    KEY_MAX_BYTES, PATH_SEGMENTS_MAX, PATHS_MAX, RENDERED_MAX_BYTES,
};
use sagamore_decider::finished::{Ending, Finished, PACKED_BYTES, PACKED_RECORD_MAX};
use sagamore_decider::identity::ReplySecret;
use sagamore_decider::outbox::{CREDIT, OWED_BYTES_MAX, OWED_MAX, Outbox, Sent, Way};
use sagamore_decider::output::{Destination, Notice, Output, Record};
use sagamore_decider::restore::{RestoreError, StateReader};
use sagamore_decider::settings::{LEVEL_MAX, Settings};
use sagamore_decider::shard::Shard;
use sagamore_decider::timers::{Alarm, TimerEntry, TimerOwner, Timers};
use sagamore_schemas::definition::{Definition, INPUT_DEPTH_MAX, STEPS_MAX};
use sagamore_schemas::ids::{Partition, Span, Time};
use sagamore_schemas::log::CHECKPOINT_KEY;
use sagamore_schemas::wire::{
    Address, Answer, Authority, Command, DefinitionApplied, Operation, OutcomeKind, Payload, PayloadRef,
    Reply, ShardVerb, ShardWish, Start, Timer, Verb, Wish, read_command, read_outcome,
};

use crate::harness::{T0_MS, definition, identity};

/// A shard, its inbox, and a clock moved by hand.
struct Inbox {
    shard: Shard,
    now: Time,
}

impl Inbox {
    fn new(given: &str) -> Self {
        let mut inbox = Self { shard: Shard::new(identity()), now: Time::from_epoch_ms(T0_MS) };
        inbox.define(&definition(given));
        inbox
    }

    fn apply(&mut self, value: &[u8]) -> (Vec<Output>, Notice) {
        let mut outputs = Vec::new();
        let offset = self.shard.next_offset();
        let record = Record { offset, timestamp: self.now, key: None, value: Some(value), headers: &[] };
        let notice = self.shard.apply(&record, &mut outputs);
        (outputs, notice)
    }

    /// Whether it was taken.
    fn define(&mut self, json: &str) -> bool {
        let offset = self.shard.definitions().last_offset() + 1;
        let data = Payload::from_json(json.to_owned()).unwrap();
        self.apply(&DefinitionApplied { offset, data: data.as_ref() }.to_json()).0.is_empty()
    }

    fn settings(&mut self, json: &str) -> bool {
        let data = Payload::from_json(json.to_owned()).unwrap();
        let wish = ShardWish::Settings { data: data.as_ref() };
        let (_, notice) = self.apply(&ShardVerb { wish, authority: authority("why") }.to_json(Partition(0)));
        notice == Notice::VerbTaken
    }

    fn start(&mut self, id: &str, json: &str, time: Time) -> (Vec<Output>, Notice) {
        let data = Payload::from_json(json.to_owned()).unwrap();
        let (subject, definition) = (id.parse().unwrap(), "t".parse().unwrap());
        let start = Start { subject, time, definition, traceparent: None, data: data.as_ref() };
        self.apply(&start.to_json("/limits"))
    }

    /// `accepted`, or the word of the refusal.
    fn started(&mut self, id: &str, json: &str) -> String {
        self.started_at(id, json, self.now)
    }

    fn started_at(&mut self, id: &str, json: &str, time: Time) -> String {
        match self.start(id, json, time).1 {
            Notice::Accepted => "accepted".to_owned(),
            Notice::Refused { reason } => reason.split(':').next().unwrap().to_owned(),
            other => panic!("a start is accepted or refused, not {other:?}"),
        }
    }

    fn reply(
        &mut self,
        command: &Output,
        outcome: Answer,
        reason: Option<&str>,
        data: &Payload,
    ) -> Vec<Output> {
        let command = read_command(command.value.as_deref()).unwrap();
        let reply = Reply {
            address: command.address,
            instance: command.instance,
            source: "/limits".into(),
            outcome,
            reason: reason.map(Into::into),
            replytoken: None,
            data: data.as_ref(),
        };
        self.apply(&reply.to_json()).0
    }
}

fn authority(reason: &str) -> Authority<'_> {
    Authority { id: "v".into(), actor: "limits".into(), reason: reason.into(), revision: None }
}

/// A JSON string of so many bytes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// One below, at, one beyond.
fn around(limit: usize) -> [usize; 3] {
    [limit - 1, limit, limit + 1]
}

fn reason_of(outputs: &[Output]) -> String {
    let outcome = outputs.iter().find(|output| output.destination == Destination::Outcomes).unwrap();
    read_outcome(outcome.value.as_deref()).unwrap().reason.unwrap().into_owned()
}

#[test]
fn reasons_are_cut_at_their_bound() {
    const REASON_BYTES_MAX: usize = 256;
    for (at, bytes) in around(REASON_BYTES_MAX).into_iter().enumerate() {
        let whole = "y".repeat(bytes);
        let mut inbox = Inbox::new("a; b");
        let (told, _) = inbox.start("t", "{}", inbox.now);
        let told = inbox.reply(&told[0], Answer::Refused, Some(&whole), &Payload::Absent);
        let kept = if at < 2 { whole } else { format!("{}…", "y".repeat(REASON_BYTES_MAX)) };
        assert_eq!(reason_of(&told), format!("a: {kept}"), "{bytes}");
    }
}

#[test]
fn causes_of_dead_letters_are_cut_at_their_bound() {
    const CAUSE_BYTES_MAX: usize = 1024;
    let cause = |more: usize| {
        let garbage = format!(
            r#"{{"specversion":"1.0","type":"sagamore.reply.v1","operation":"{}"}}"#,
            "x".repeat(more)
        );
        let (letters, _) = Inbox::new("a").apply(garbage.as_bytes());
        let message = letters[0].headers.iter().find(|(name, _)| name == "__dlq.errors.message").unwrap();
        String::from_utf8(message.1.clone()).unwrap()
    };
    let frame = cause(600).len() - 600;
    // The message ends with a column, which has four digits here as there.
    let at = |bytes: usize| cause(bytes - frame);
    assert_eq!(at(CAUSE_BYTES_MAX - 1).len(), CAUSE_BYTES_MAX - 1);
    assert_eq!(at(CAUSE_BYTES_MAX).len(), CAUSE_BYTES_MAX);
    let cut = at(CAUSE_BYTES_MAX + 1);
    assert!(cut.ends_with('…') && cut.len() == CAUSE_BYTES_MAX + '…'.len_utf8(), "{cut}");
}

#[test]
fn a_trace_context_beyond_its_bound_is_none() {
    const TRACEPARENT_BYTES_MAX: usize = 128;
    for (bytes, kept) in around(TRACEPARENT_BYTES_MAX).into_iter().zip([true, true, false]) {
        let traceparent = "0".repeat(bytes);
        let mut inbox = Inbox::new("a");
        let start = Start {
            subject: "t".parse().unwrap(),
            time: inbox.now,
            definition: "t".parse().unwrap(),
            traceparent: Some(traceparent.as_str().into()),
            data: PayloadRef::Absent,
        };
        let (told, _) = inbox.apply(&start.to_json("/limits"));
        let command = read_command(told[0].value.as_deref()).unwrap();
        assert_eq!(command.traceparent.as_deref(), kept.then_some(traceparent.as_str()), "{bytes}");
    }
}

#[test]
fn every_setting_has_a_range_and_keeps_it() {
    const DAY_MS: u64 = 86_400_000;
    let ranges: &[(&str, u64, u64)] = &[
        ("dedupe_window", 1_000, 30 * DAY_MS),
        ("start_ahead", 1_000, 3_600_000),
        ("watermark_age", 60_000, 6 * DAY_MS),
        ("open_max", 1, 10_000_000),
        ("open_bytes_max", 1_024, 64 << 30),
        ("transaction_bytes_max", 1_024, 1 << 20),
        ("finished_max", 1, 100_000_000),
        ("definitions_max", 1, 100_000),
    ];
    let whole = serde_json::to_value(Settings::default()).unwrap();
    let mut named: Vec<&str> = ranges.iter().map(|(name, ..)| *name).collect();
    // A fingerprint has no range.
    named.push("reply_token");
    let fields: Vec<&String> = whole.as_object().unwrap().keys().collect();
    assert!(fields.iter().all(|field| named.contains(&field.as_str())), "{fields:?}");
    let mut inbox = Inbox::new("a");
    for (name, least, most) in ranges {
        let is_span = whole[name].is_string();
        let taken = |inbox: &mut Inbox, value: u64| {
            let value = if is_span { format!("\"{value}ms\"") } else { value.to_string() };
            inbox.settings(&format!(r#"{{"{name}":{value}}}"#))
        };
        for (value, then) in [
            (least - 1, false),
            (*least, true),
            (least + 1, true),
            (most - 1, true),
            (*most, true),
            (most + 1, false),
        ] {
            assert_eq!(taken(&mut inbox, value), then, "{name} {value}");
        }
    }
}

#[test]
fn a_shard_holds_so_many_open_transactions() {
    let mut inbox = Inbox::new("a");
    assert!(inbox.settings(r#"{"open_max":3}"#));
    let answers = ["1", "2", "3", "4"].map(|id| inbox.started(id, "{}"));
    assert_eq!(answers, ["accepted", "accepted", "accepted", "overloaded"]);
}

#[test]
fn a_shard_holds_so_many_bytes() {
    for (last, then) in [(99, "accepted"), (100, "accepted"), (101, "overloaded")] {
        let mut inbox = Inbox::new("a");
        assert!(inbox.settings(r#"{"open_bytes_max":1024}"#));
        assert_eq!(inbox.started("1", &text(924)), "accepted");
        assert_eq!(inbox.started("2", &text(last)), then, "{last}");
    }
}

#[test]
fn a_shard_remembers_so_many_ended_ones() {
    let mut inbox = Inbox::new("a");
    assert!(inbox.settings(r#"{"finished_max":3}"#));
    let mut answers = Vec::new();
    for id in ["1", "2", "3", "4"] {
        let (told, _) = inbox.start(id, "{}", inbox.now);
        answers.push(matches!(told[0].destination, Destination::Commands(_)));
        if answers.last() == Some(&true) {
            inbox.reply(&told[0], Answer::Ok, None, &Payload::Absent);
        }
    }
    assert_eq!(answers, [true, true, true, false]);
}

#[test]
fn a_shard_knows_so_many_definitions() {
    let mut inbox = Inbox::new("version=1; a");
    assert!(inbox.settings(r#"{"definitions_max":3}"#));
    let taken = ["2", "3", "4"].map(|version| inbox.define(&definition(&format!("version={version}; a"))));
    assert_eq!(taken, [true, true, false]);
}

#[test]
fn a_transaction_has_so_many_bytes_at_its_start_and_with_its_results() {
    for (bytes, then) in around(1024).into_iter().zip(["accepted", "accepted", "too-large"]) {
        let mut inbox = Inbox::new("a");
        assert!(inbox.settings(r#"{"transaction_bytes_max":1024}"#));
        assert_eq!(inbox.started("t", &text(bytes)), then, "{bytes}");
    }
    for (bytes, fits) in around(1024 - 100).into_iter().zip([true, true, false]) {
        let mut inbox = Inbox::new("a; b");
        assert!(inbox.settings(r#"{"transaction_bytes_max":1024}"#));
        let (told, _) = inbox.start("t", &text(100), inbox.now);
        let told = inbox.reply(&told[0], Answer::Ok, None, &Payload::from_json(text(bytes)).unwrap());
        let next = read_command(told[0].value.as_deref()).unwrap().address;
        let then = if fits { ("b", Operation::Execute) } else { ("a", Operation::Compensate) };
        assert_eq!((&*next.step, next.operation), then, "{bytes}");
    }
}

#[test]
fn a_start_is_neither_older_nor_newer_than_the_windows() {
    let window = Settings::default().dedupe_window;
    let ahead = Settings::default().start_ahead;
    let ms = Span::from_ms(1);
    let mut inbox = Inbox::new("a");
    let now = inbox.now;
    for (time, then) in [
        (now.before(window).after(ms), "accepted"),
        (now.before(window), "accepted"),
        (now.before(window).before(ms), "too-old"),
        (now.after(ahead).before(ms), "accepted"),
        (now.after(ahead), "accepted"),
        (now.after(ahead).after(ms), "too-early"),
    ] {
        let id = format!("t-{}", time.epoch_ms());
        assert_eq!(inbox.started_at(&id, "{}", time), then, "{time}");
    }
}

#[test]
fn an_ended_transaction_is_remembered_for_its_window() {
    let window = Settings::default().dedupe_window;
    // Kept in whole seconds, rounded up.
    for (later, known) in [
        (Span::from_ms(window.as_ms() - 1), true),
        (window, true),
        (Span::from_ms(window.as_ms() + 1), false),
    ] {
        let mut inbox = Inbox::new("a");
        let begun = inbox.now;
        let (told, _) = inbox.start("t", "{}", begun);
        inbox.reply(&told[0], Answer::Ok, None, &Payload::Absent);
        inbox.now = begun.after(later);
        let then = if known { "accepted" } else { "too-old" };
        assert_eq!(inbox.started_at("t", "{}", begun), then, "{}", later.as_ms());
    }
}

#[test]
fn a_timer_falls_due_to_the_millisecond() {
    let mut inbox = Inbox::new("a timeout=5s attempts=1");
    let (told, _) = inbox.start("t", "{}", inbox.now);
    let address = read_command(told[0].value.as_deref()).unwrap().address;
    let due = inbox.now.after("5s".parse().unwrap());
    let branch = Some((address.step.clone(), address.branch.clone()));
    let ring =
        |due| Timer { subject: address.subject.clone(), birth: address.birth, branch: branch.clone(), due };
    for (now, timer, heeded) in [
        (due.before(Span::from_ms(1)), due, false),
        (due, due.before(Span::from_ms(1)), false),
        (due, due.after(Span::from_ms(1)), false),
        (due, due, true),
        (due, due, false),
    ] {
        inbox.now = inbox.now.max(now);
        let (told, _) = inbox.apply(&ring(timer).to_json());
        assert_eq!(!told.is_empty(), heeded, "{now} {timer}");
    }
}

#[test]
fn a_watermark_is_as_old_as_its_setting() {
    let mut inbox = Inbox::new("a");
    assert!(inbox.settings(r#"{"watermark_age":"60000ms"}"#));
    let (told, _) = inbox.start("t", "{}", inbox.now);
    let command = read_command(told[0].value.as_deref()).unwrap();
    assert_eq!(command.watermark, inbox.now.before(Span::from_secs(60)));
}

#[test]
fn a_step_is_tried_as_often_as_it_says() {
    for attempts in [1u32, 2, 7] {
        let mut inbox = Inbox::new(&format!("a attempts={attempts}"));
        let (mut told, _) = inbox.start("t", "{}", inbox.now);
        let mut asked = 0;
        loop {
            let command = told.remove(0);
            let address = read_command(command.value.as_deref()).unwrap().address;
            if address.operation == Operation::Compensate {
                break;
            }
            asked += 1;
            told = inbox.reply(&command, Answer::Error, None, &Payload::Absent);
            if told.is_empty() {
                let due = inbox.shard.timers().next_due().unwrap();
                inbox.now = due;
                let branch = Some((address.step, address.branch));
                let timer = Timer { subject: address.subject, birth: address.birth, branch, due };
                told = inbox.apply(&timer.to_json()).0;
            }
        }
        assert_eq!(asked, attempts);
    }
}

/// Whether a definition with these steps compiles.
fn compiles(steps: &[String]) -> bool {
    let json = format!(r#"{{"name":"t","version":1,"steps":[{}]}}"#, steps.join(","));
    Definition::from_json(&json).is_ok_and(|definition| compile(&definition).is_ok())
}

fn step(name: &str, more: &str) -> String {
    format!(r#"{{"name":"{name}","participant":"p"{more}}}"#)
}

#[test]
fn the_numbers_of_a_definition_keep_their_ranges() {
    let check = |more: &str, then: bool| assert_eq!(compiles(&[step("a", more)]), then, "{more}");
    for (attempts, then) in
        [(0, false), (1, true), (ATTEMPTS_MAX - 1, true), (ATTEMPTS_MAX, true), (ATTEMPTS_MAX + 1, false)]
    {
        check(&format!(r#","retry":{{"attempts":{attempts}}}"#), then);
    }
    for (factor, then) in
        [(0, false), (1, true), (FACTOR_MAX - 1, true), (FACTOR_MAX, true), (FACTOR_MAX + 1, false)]
    {
        check(&format!(r#","retry":{{"factor":{factor}}}"#), then);
    }
    for (ms, then) in [
        (0, false),
        (1, true),
        (Span::MAX.as_ms() - 1, true),
        (Span::MAX.as_ms(), true),
        (Span::MAX.as_ms() + 1, false),
    ] {
        check(&format!(r#","timeout":"{ms}ms""#), then);
    }
    for (backoff, then) in [(9, true), (10, true), (11, false)] {
        check(&format!(r#","retry":{{"backoff":"{backoff}ms","max":"10ms"}}"#), then);
    }
    for (version, then) in [(0u64, false), (1, true), (u64::from(u32::MAX), true), (1 << 32, false)] {
        let json = format!(r#"{{"name":"t","version":{version},"steps":[{}]}}"#, step("a", ""));
        let compiled = Definition::from_json(&json).is_ok_and(|definition| compile(&definition).is_ok());
        assert_eq!(compiled, then, "{version}");
    }
}

#[test]
fn a_definition_has_so_many_steps() {
    let steps: Vec<String> = (0..=STEPS_MAX).map(|at| step(&format!("s{at}"), "")).collect();
    for (count, then) in
        [(0, false), (1, true), (STEPS_MAX - 1, true), (STEPS_MAX, true), (STEPS_MAX + 1, false)]
    {
        assert_eq!(compiles(&steps[..count]), then, "{count}");
    }
}

#[test]
fn a_definition_has_so_many_branches_and_a_group() {
    let group = |name: usize, count: usize| {
        let branch = |at: usize| format!(r#"{{"participant":"p","name":"b{at}"}}"#);
        let branches: Vec<String> = (0..count).map(branch).collect();
        format!(
            r#"{{"name":"g{name}","protocol":"two-phase","commit":"at-end","branches":[{}]}}"#,
            branches.join(",")
        )
    };
    for (count, then) in
        [(0, false), (1, true), (FAN_OUT_MAX - 1, true), (FAN_OUT_MAX, true), (FAN_OUT_MAX + 1, false)]
    {
        assert_eq!(compiles(&[group(0, count)]), then, "{count} in one group");
    }
    for (count, then) in around(BRANCHES_MAX).into_iter().zip([true, true, false]) {
        let full = count / FAN_OUT_MAX;
        let mut steps: Vec<String> = (0..full).map(|at| group(at, FAN_OUT_MAX)).collect();
        steps.push(group(full, count - full * FAN_OUT_MAX));
        assert_eq!(compiles(&steps), then, "{count} branches");
    }
}

#[test]
fn so_many_steps_wait_for_one_and_one_for_so_many() {
    for (count, then) in around(FAN_OUT_MAX).into_iter().zip([true, true, false]) {
        let mut steps: Vec<String> =
            (0..count).map(|at| step(&format!("s{at}"), r#","after":["first"]"#)).collect();
        steps.insert(0, step("first", ""));
        assert_eq!(compiles(&steps), then, "{count} wait for one");
        let names: Vec<String> = (0..count).map(|at| format!("\"s{at}\"")).collect();
        let mut steps: Vec<String> = (0..count).map(|at| step(&format!("s{at}"), r#","after":[]"#)).collect();
        steps.push(step("last", &format!(r#","after":[{}]"#, names.join(","))));
        assert_eq!(compiles(&steps), then, "one waits for {count}");
    }
}

#[test]
fn an_input_is_so_deep_and_has_so_many_paths() {
    for (depth, then) in around(INPUT_DEPTH_MAX).into_iter().zip([true, true, false]) {
        let input = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(compiles(&[step("a", &format!(r#","input":{input}"#))]), then, "{depth} levels");
    }
    for (count, then) in around(PATHS_MAX).into_iter().zip([true, true, false]) {
        let paths = vec![r#""${input}""#; count].join(",");
        assert_eq!(compiles(&[step("a", &format!(r#","input":[{paths}]"#))]), then, "{count} paths");
    }
    for (count, then) in around(PATH_SEGMENTS_MAX).into_iter().zip([true, true, false]) {
        let path = format!("${{input{}}}", ".x".repeat(count));
        assert_eq!(compiles(&[step("a", &format!(r#","input":"{path}""#))]), then, "{count} segments");
    }
}

#[test]
fn what_is_rendered_has_so_many_bytes() {
    for (bytes, then) in around(RENDERED_MAX_BYTES).into_iter().zip(["commands", "commands", "aborted"]) {
        let mut inbox = Inbox::new(r#"a input="${input.x}""#);
        assert!(inbox.settings(r#"{"transaction_bytes_max":1048576}"#));
        let (told, _) = inbox.start("t", &format!(r#"{{"x":{}}}"#, text(bytes)), inbox.now);
        assert_eq!(sent_to(&told[0]), then, "{bytes}");
    }
    for (bytes, then) in around(KEY_MAX_BYTES).into_iter().zip(["commands", "commands", "aborted"]) {
        let mut inbox = Inbox::new("a key=${input.x}");
        let (told, _) = inbox.start("t", &format!(r#"{{"x":{}}}"#, text(bytes + 2)), inbox.now);
        assert_eq!(sent_to(&told[0]), then, "{bytes}");
    }
}

fn sent_to(output: &Output) -> &'static str {
    match output.destination {
        Destination::Commands(_) => "commands",
        Destination::Outcomes => read_outcome(output.value.as_deref()).unwrap().outcome.as_str(),
        Destination::Inbox(_) => "inbox",
        Destination::DeadLetters => "dead-letters",
    }
}

#[test]
fn endings_are_packed_so_many_to_a_record() {
    let ending = Ending {
        birth_offset: 1,
        fingerprint: 2,
        version: 3,
        outcome: OutcomeKind::Aborted,
        revision: 4,
        since_s: 5,
    };
    for (count, records) in around(PACKED_RECORD_MAX).into_iter().zip([1, 1, 2]) {
        let mut finished = Finished::default();
        for id in 0..count {
            finished.insert(&format!("t-{id}").parse().unwrap(), ending);
        }
        let packed = finished.take_unstored();
        assert_eq!(packed.len(), records, "{count}");
        assert_eq!(packed.iter().map(|(bytes, _)| bytes.len()).sum::<usize>(), count * PACKED_BYTES);
        let (whole, _) = &packed[0];
        for (bytes, then) in around(PACKED_BYTES).into_iter().zip([false, true, false]) {
            assert_eq!(Finished::default().load(&whole[..bytes]).is_some(), then, "{bytes} bytes");
        }
    }
}

fn command(more: usize) -> Output {
    let address = Address {
        subject: "t".parse().unwrap(),
        birth: "0-1".parse().unwrap(),
        step: "a".into(),
        branch: "a".into(),
        operation: Operation::Execute,
        attempt: 1,
    };
    let data = Payload::from_json(text(more + 2)).unwrap();
    let command = Command {
        address,
        instance: uuid::Uuid::nil(),
        issued: Time::default(),
        watermark: Time::default(),
        deadline: Time::default(),
        definition: "d@1".into(),
        replyto: "sagamore.inbox/0".into(),
        traceparent: None,
        replytoken: None,
        unilateral_after: None,
        data: data.as_ref(),
    };
    let destination = Destination::Commands("a".parse().unwrap());
    Output { destination, key: None, value: Some(command.to_json()), headers: Vec::new() }
}

#[test]
fn a_destination_has_so_much_credit_and_is_owed_so_much() {
    for (count, sent) in around(CREDIT).into_iter().zip([CREDIT - 1, CREDIT, CREDIT]) {
        let mut outbox = Outbox::default();
        (0..count).for_each(|_| outbox.push(command(0)));
        let mut handed = 0;
        outbox.send(Time::default(), Way::AtOnce, |_, _, _, _| {
            handed += 1;
            Sent::Queued
        });
        assert_eq!(handed, sent, "{count}");
    }
    for (count, then) in around(OWED_MAX).into_iter().zip([true, true, false]) {
        let mut outbox = Outbox::default();
        (0..count).for_each(|_| outbox.push(command(0)));
        let before = outbox.next_ticket();
        assert_eq!(outbox.owe_before(before).is_some(), then, "{count}");
    }
    let frame = command(0).size_bytes();
    for (bytes, then) in around(OWED_BYTES_MAX).into_iter().zip([true, true, false]) {
        let mut outbox = Outbox::default();
        outbox.push(command(bytes / 2 - frame));
        outbox.push(command(bytes - bytes / 2 - frame));
        assert_eq!(outbox.bytes(), bytes);
        let before = outbox.next_ticket();
        assert_eq!(outbox.owe_before(before).is_some(), then, "{bytes}");
    }
}

#[test]
fn owed_outputs_are_stored_so_many_bytes_to_a_record() {
    const OWED_RECORD_BYTES_MAX: usize = 512 * 1024;
    let frame = command(0).size_bytes();
    for (bytes, records) in around(OWED_RECORD_BYTES_MAX).into_iter().zip([1, 1, 2]) {
        let owed = [command(bytes / 2 - frame), command(bytes - bytes / 2 - frame)];
        let mut inbox = Inbox::new("a");
        let draft = inbox.shard.draft(0).unwrap();
        let checkpoint = inbox.shard.complete(draft, &owed.iter().collect::<Vec<_>>());
        let of_owed = checkpoint.state.iter().filter(|record| record.key.starts_with(b"\0owed/"));
        assert_eq!(of_owed.count(), records, "{bytes}");
    }
}

#[test]
fn timers_ring_so_many_at_once_and_again_after_so_long() {
    const BURST_MAX: usize = 1_000;
    const REPEAT_AFTER_MAX_MS: i64 = 60_000;
    let at = Time::from_epoch_ms;
    let entry = |offset| TimerEntry { due: at(0), birth_offset: offset, owner: TimerOwner::Deadline };
    for (count, rung) in around(BURST_MAX).into_iter().zip([BURST_MAX - 1, BURST_MAX, BURST_MAX]) {
        let mut timers = Timers::default();
        (0..count).for_each(|offset| timers.arm(entry(i64::try_from(offset).unwrap())));
        let mut alarm = Alarm::default();
        assert_eq!(alarm.poll(&timers, at(0)).len(), rung, "{count}");
        assert_eq!(alarm.poll(&timers, at(0)).len(), count - rung, "the rest");
    }
    let mut timers = Timers::default();
    timers.arm(entry(0));
    let (mut alarm, mut now, mut pauses) = (Alarm::default(), 0, Vec::new());
    let mut last = None;
    while pauses.len() < 9 {
        if !alarm.poll(&timers, at(now)).is_empty() {
            pauses.extend(last.map(|last| now - last));
            last = Some(now);
        }
        now += 500;
    }
    assert_eq!(pauses[..3], [1_000, 2_000, 4_000]);
    assert_eq!(pauses[6..], [REPEAT_AFTER_MAX_MS; 3]);
}

#[test]
fn no_level_beyond_the_highest_is_restored() {
    for (level, then) in [(LEVEL_MAX, true), (LEVEL_MAX + 1, false), (u32::MAX, false)] {
        let mut inbox = Inbox::new("a");
        if level > 1 {
            let verb = ShardVerb { wish: ShardWish::Level { level }, authority: authority("raised") };
            inbox.apply(&verb.to_json(Partition(0)));
        }
        let draft = inbox.shard.draft(0).unwrap();
        let checkpoint = inbox.shard.complete(draft, &[]);
        let mut reader = StateReader::default();
        for record in checkpoint.state.iter().chain([&checkpoint.last]) {
            let as_of = record.as_of.to_string();
            let header = (record.key != CHECKPOINT_KEY).then_some(as_of.as_bytes());
            reader.read(&record.key, header, record.value.as_deref());
        }
        let restored = reader.finish(identity());
        assert_eq!(restored.is_ok(), then, "{level}");
        if let Err(error) = restored {
            assert_eq!(error, RestoreError::Level { level, known: LEVEL_MAX });
        }
    }
}

#[test]
fn a_definition_at_the_last_offset_there_is_does_not_forget_the_others() {
    for offset in [i64::MAX - 1, i64::MAX] {
        let mut inbox = Inbox::new("a");
        assert_eq!(inbox.started("t", "{}"), "accepted");
        inbox.apply(&DefinitionApplied { offset, data: PayloadRef::Absent }.to_json());
        let draft = inbox.shard.draft(0).unwrap();
        let checkpoint = inbox.shard.complete(draft, &[]);
        let mut reader = StateReader::default();
        for record in checkpoint.state.iter().chain([&checkpoint.last]) {
            let as_of = record.as_of.to_string();
            let header = (record.key != CHECKPOINT_KEY).then_some(as_of.as_bytes());
            reader.read(&record.key, header, record.value.as_deref());
        }
        let shard = reader.finish(identity()).unwrap().shard;
        assert_eq!((shard.open_count(), shard.definitions().last_offset()), (1, offset));
    }
}

#[test]
fn a_record_of_the_journal_ends_with_the_entry_that_is_beyond_its_bound() {
    const RECORD_BYTES_MAX: usize = 256 * 1024;
    let mut inbox = Inbox::new("a attempts=1000 backoff=1s; b");
    let (mut told, _) = inbox.start("t", "{}", inbox.now);
    for _ in 0..900 {
        inbox.reply(&told[0], Answer::Error, Some(&"é".repeat(128)), &Payload::Absent);
        let verb = Verb { subject: "t".parse().unwrap(), wish: Wish::Retry, authority: authority("again") };
        told = inbox.apply(&verb.to_json()).0;
    }
    let draft = inbox.shard.draft(0).unwrap();
    let checkpoint = inbox.shard.complete(draft, &[]);
    let of_it: Vec<usize> =
        checkpoint.journal.iter().filter(|(key, _)| key == b"t").map(|(_, value)| value.len()).collect();
    assert!(of_it.len() > 2, "{of_it:?}");
    let longest_entry = 1_500;
    for (at, bytes) in of_it.iter().enumerate() {
        let is_last = at + 1 == of_it.len();
        assert!(*bytes <= RECORD_BYTES_MAX + longest_entry, "{of_it:?}");
        assert!(is_last || *bytes > RECORD_BYTES_MAX, "{of_it:?}");
    }
}

#[test]
fn a_reply_secret_has_so_many_bytes_at_least() {
    const BYTES_MIN: usize = 16;
    for (bytes, then) in around(BYTES_MIN).into_iter().zip([false, true, true]) {
        assert_eq!(ReplySecret::new(vec![7; bytes]).is_some(), then, "{bytes}");
    }
}
