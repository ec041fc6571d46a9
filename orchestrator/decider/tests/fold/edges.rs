//! What scripts cannot say: headers, homes, tokens, texts without end, jitter, skipped records.

use sagamore_decider::identity::{Identity, ReplySecret};
use sagamore_decider::output::{Destination, Notice, Output, Record};
use sagamore_decider::shard::Shard;
use sagamore_decider::transaction::BranchPhase;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::wire::{
    Answer, Authority, DefinitionApplied, Payload, PayloadRef, Reply, ShardVerb, ShardWish, Start, Verb,
    Wish, read_command, read_outcome,
};

use crate::harness::{T0_MS, definition, identity, state_of};

struct Inbox {
    shard: Shard,
    now: Time,
}

impl Inbox {
    fn new(identity: Identity, given: &str) -> Self {
        let mut inbox = Self { shard: Shard::new(identity), now: Time::from_epoch_ms(T0_MS) };
        let data = Payload::from_json(definition(given)).unwrap();
        inbox.apply(&DefinitionApplied { offset: 0, data: data.as_ref() }.to_json());
        inbox
    }

    fn apply(&mut self, value: &[u8]) -> (Vec<Output>, Notice) {
        let mut outputs = Vec::new();
        let offset = self.shard.next_offset();
        let record = Record { offset, timestamp: self.now, key: None, value: Some(value), headers: &[] };
        let notice = self.shard.apply(&record, &mut outputs);
        (outputs, notice)
    }

    fn start(&mut self, id: &str, traceparent: Option<&str>) -> (Vec<Output>, Notice) {
        let data = Payload::from_json("{}".to_owned()).unwrap();
        let start = Start {
            subject: id.parse().unwrap(),
            time: self.now,
            definition: "t".parse().unwrap(),
            traceparent: traceparent.map(Into::into),
            data: data.as_ref(),
        };
        self.apply(&start.to_json("/edges"))
    }

    fn settings(&mut self, json: String) -> Notice {
        let data = Payload::from_json(json).unwrap();
        let verb =
            ShardVerb { wish: ShardWish::Settings { data: data.as_ref() }, authority: authority("why") };
        self.apply(&verb.to_json(Partition(0))).1
    }
}

fn authority(reason: &str) -> Authority<'_> {
    Authority { id: "v".into(), actor: "edges".into(), reason: reason.into(), revision: None }
}

fn reply(command: &[u8], outcome: Answer, reason: Option<&str>, token: Option<&str>) -> Vec<u8> {
    let command = read_command(Some(command)).unwrap();
    Reply {
        address: command.address,
        instance: command.instance,
        source: "/edges".into(),
        outcome,
        reason: reason.map(Into::into),
        replytoken: token.map(Into::into),
        data: PayloadRef::Absent,
    }
    .to_json()
}

#[test]
fn a_dead_letter_is_the_record_itself_with_its_place_and_cause_in_headers() {
    let mut shard = Shard::new(identity());
    let record = Record {
        offset: 41,
        timestamp: Time::from_epoch_ms(T0_MS),
        key: Some(b"\xff\0key"),
        value: Some(b"\xfe not json"),
        headers: &[("content-type", b"text/plain"), ("x", b"\xff")],
    };
    let mut outputs = Vec::new();
    assert_eq!(shard.apply(&record, &mut outputs), Notice::None);
    let [letter] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(letter.destination, Destination::DeadLetters);
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (record.key, record.value));
    let headers: Vec<(&str, &[u8])> =
        letter.headers.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
    assert_eq!(headers[..2], *record.headers);
    assert_eq!(
        headers[2..6],
        [
            ("__dlq.errors.topic", &b"sagamore.inbox"[..]),
            ("__dlq.errors.partition", b"0"),
            ("__dlq.errors.offset", b"41"),
            ("__dlq.errors.timestamp", b"1767225600000"),
        ]
    );
    assert_eq!(headers[6].0, "__dlq.errors.message");
    assert!(headers[6].1.starts_with(b"not a CloudEvents document"));
    let tombstone = Record { offset: 42, value: None, ..record };
    shard.apply(&tombstone, &mut outputs);
    assert_eq!(outputs[1].value, None, "verbatim");
}

#[test]
fn a_start_is_refused_away_from_home() {
    let mut inbox = Inbox::new(Identity { partitions: 3, ..identity() }, "a");
    for id in ["one", "two", "three", "four", "five", "six"] {
        let (outputs, notice) = inbox.start(id, None);
        let is_home = home(&id.parse().unwrap(), 3) == Partition(0);
        assert_eq!(notice == Notice::Accepted, is_home, "{id}: {notice:?}");
        if !is_home {
            let outcome = read_outcome(outputs[0].value.as_deref()).unwrap();
            assert!(outcome.reason.unwrap().starts_with("wrong-home: "));
        }
    }
    assert!((1..6).contains(&inbox.shard.open_count()), "the ids have different homes");
}

#[test]
fn tokens_are_a_matter_of_the_settings_not_of_what_a_process_knows() {
    let secret = ReplySecret::new(b"0123456789abcdef".to_vec()).unwrap();
    let fingerprint = secret.fingerprint();
    let knowing = || Inbox::new(Identity { secret: Some(secret.clone()), ..identity() }, "a; b");
    let (mut knows, mut knows_not) = (knowing(), Inbox::new(identity(), "a; b"));
    let (told, _) = knows.start("one", None);
    assert_eq!(told, knows_not.start("one", None).0, "no setting, no token");
    knows.settings(format!(r#"{{"reply_token":"{fingerprint}"}}"#));
    let command = told[0].value.as_deref().unwrap();
    let (set_aside, _) = knows.apply(&reply(command, Answer::Ok, None, None));
    assert_eq!(set_aside[0].destination, Destination::DeadLetters);
    let (told, _) = knows.start("two", None);
    let command = told[0].value.as_deref().unwrap();
    let token = read_command(Some(command)).unwrap().replytoken.unwrap();
    assert_eq!(token.len(), 64);
    let forged = "0".repeat(64);
    let (set_aside, _) = knows.apply(&reply(command, Answer::Ok, None, Some(&forged)));
    assert_eq!(set_aside[0].destination, Destination::DeadLetters);
    let (told, _) = knows.apply(&reply(command, Answer::Ok, None, Some(&token)));
    assert_eq!(told[0].destination, Destination::Commands("b".parse().unwrap()));
}

#[test]
fn texts_of_others_never_make_a_checkpoint_too_large() {
    let endless = "é\u{1}".repeat(100_000);
    let mut inbox = Inbox::new(identity(), "a after=; b after=; c after=a+b");
    let (told, _) = inbox.start("one", Some(&endless));
    assert!(told.iter().all(|output| output.size_bytes() < 2_000), "a trace context has 55 characters");
    inbox.apply(&reply(told[0].value.as_deref().unwrap(), Answer::Error, Some(&endless), None));
    inbox.apply(&reply(told[1].value.as_deref().unwrap(), Answer::Refused, Some(&endless), None));
    let verb = |wish| Verb { subject: "one".parse().unwrap(), wish, authority: authority(&endless) };
    inbox.apply(&verb(Wish::Retry).to_json());
    inbox.start("two", None);
    let cancel = Verb { subject: "two".parse().unwrap(), ..verb(Wish::Cancel) };
    inbox.apply(&cancel.to_json());
    let garbage = format!(
        r#"{{"specversion":"1.0","type":"sagamore.reply.v1","operation":"{}"}}"#,
        "x".repeat(500_000)
    );
    let (letters, _) = inbox.apply(garbage.as_bytes());
    assert!(letters[0].headers.iter().all(|(_, value)| value.len() < 1_100));
    let record = Record { offset: 100, timestamp: inbox.now, key: None, value: None, headers: &[] };
    inbox.shard.skip(&record, &authority(&endless));
    let draft = inbox.shard.draft(0).unwrap();
    let checkpoint = inbox.shard.complete(draft, &[]);
    let state = checkpoint.state.iter().map(|record| record.value.as_ref().map_or(0, Vec::len));
    assert!(state.max().unwrap() < 5_000, "{checkpoint:?}");
    let journal = checkpoint.journal.iter().map(|(_, value)| value.len());
    assert!(journal.max().unwrap() < 20_000);
}

#[test]
fn pauses_are_jittered_between_half_and_all_of_the_delay() {
    let mut inbox = Inbox::new(identity(), "a attempts=100 backoff=1s factor=2 max=8s");
    let mut rolls = Vec::new();
    for id in 0..200 {
        let (told, _) = inbox.start(&format!("t-{id}"), None);
        let mut command = told[0].value.as_deref().unwrap().to_vec();
        for delay_ms in [1_000, 2_000, 4_000, 8_000, 8_000] {
            inbox.apply(&reply(&command, Answer::Error, None, None));
            let transaction = inbox.shard.open_transactions().last().unwrap();
            let BranchPhase::Pausing(call) = &transaction.branches[0].phase else { panic!("it pauses") };
            let pause_ms = call.due.since(inbox.now).as_ms();
            assert!((delay_ms / 2..=delay_ms).contains(&pause_ms), "{pause_ms} of {delay_ms}");
            rolls.push(pause_ms * 1000 / delay_ms);
            let retry =
                Verb { subject: transaction.id.clone(), wish: Wish::Retry, authority: authority("next") };
            let (told, _) = inbox.apply(&retry.to_json());
            command = told[0].value.as_deref().unwrap().to_vec();
        }
    }
    let average = rolls.iter().sum::<u64>() / rolls.len() as u64;
    assert!((700..800).contains(&average), "the jitter is spread evenly: {average}");
    assert!(rolls.iter().min() < Some(&520) && rolls.iter().max() > Some(&980));
}

#[test]
fn a_command_is_as_old_as_its_first_attempt_and_the_watermark_is_behind_all_that_is_open() {
    let mut inbox = Inbox::new(identity(), "a timeout=1s; b");
    inbox.settings(r#"{"watermark_age":"1m"}"#.to_owned());
    let born = inbox.now;
    let (told, _) = inbox.start("one", None);
    let command = told[0].value.clone().unwrap();
    inbox.now = inbox.now.after("5m".parse().unwrap());
    inbox.apply(&reply(&command, Answer::Error, None, None));
    inbox.now = inbox.now.after("5m".parse().unwrap());
    let retry = Verb { subject: "one".parse().unwrap(), wish: Wish::Retry, authority: authority("now") };
    let (told, _) = inbox.apply(&retry.to_json());
    let again = told[0].value.clone().unwrap();
    let read = read_command(Some(&again)).unwrap();
    assert_eq!(
        (read.address.attempt, read.issued, read.watermark),
        (2, born, born),
        "the oldest that is open"
    );
    let (told, _) = inbox.apply(&reply(&again, Answer::Ok, None, None));
    let next = read_command(told[0].value.as_deref()).unwrap();
    assert_eq!((next.issued, next.watermark), (inbox.now, born));
    inbox.apply(&reply(told[0].value.as_deref().unwrap(), Answer::Ok, None, None));
    let (told, _) = inbox.start("two", None);
    let fresh = read_command(told[0].value.as_deref()).unwrap();
    assert_eq!(fresh.watermark, inbox.now.before("1m".parse().unwrap()), "or the age");
}

#[test]
fn a_skipped_record_leaves_a_note_and_nothing_else() {
    let mut inbox = Inbox::new(identity(), "a");
    inbox.start("one", None);
    let mut skipped = inbox.shard.clone();
    let record = Record { offset: 2, timestamp: inbox.now, key: None, value: Some(b"poison"), headers: &[] };
    skipped.skip(&record, &authority("it panics"));
    assert_eq!(skipped.next_offset(), 3);
    assert_ne!(skipped.journal().head(), inbox.shard.journal().head());
    let but_for = |text: String| text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(but_for(state_of(&skipped)), but_for(state_of(&inbox.shard)));
}

#[test]
fn one_level_is_known_and_the_level_rises_by_record() {
    let mut inbox = Inbox::new(identity(), "a");
    let verb = ShardVerb { wish: ShardWish::Level { level: 2 }, authority: authority("rolled out") };
    assert_eq!(inbox.apply(&verb.to_json(Partition(0))).1, Notice::VerbTaken);
    assert_eq!(inbox.shard.level(), 2, "the owner halts at it");
}

#[test]
#[should_panic(expected = "SAG-INV-3")]
fn offsets_rise() {
    let mut shard = Shard::new(identity());
    let record = Record { offset: 5, timestamp: Time::default(), key: None, value: None, headers: &[] };
    shard.apply(&record, &mut Vec::new());
    shard.apply(&record, &mut Vec::new());
}
