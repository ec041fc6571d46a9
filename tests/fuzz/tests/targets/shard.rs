//! The fold itself: golden inboxes in which records are damaged, missing, repeated, or come at another time.
//!
//! Whatever stands in an inbox: no panic, nobody else's transaction is touched, and what cannot be read becomes one
//! dead letter or one refusal.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use sagamore_decider::output::{Destination, Output, Record};
use sagamore_decider::restore::StateReader;
use sagamore_decider::shard::Shard;
use sagamore_fuzz::corpus::Corpus;
use sagamore_fuzz::mutate::{Damage, damage, damaged};
use sagamore_fuzz::{Target, root};
use sagamore_schemas::ids::{Birth, Time};
use sagamore_schemas::log::CHECKPOINT_KEY;
use sagamore_schemas::wire::{Answer, Asked, Input, OutcomeKind, read_asked, read_input, read_outcome};
use serde::Deserialize;

use crate::format::{Bytes, Golden, Head, In, Line, line};
use crate::state::seen;

const TARGET: Target = Target { name: "shard", cases: 3_000 };

/// Every golden of every level.
pub fn goldens() -> &'static [Golden] {
    static GOLDENS: OnceLock<Vec<Golden>> = OnceLock::new();
    GOLDENS.get_or_init(|| {
        let levels = std::fs::read_dir(root().join("orchestrator/decider/tests/golden")).unwrap();
        let levels = levels.map(|level| level.unwrap().path()).filter(|path| path.is_dir());
        let files = levels.flat_map(|level| std::fs::read_dir(level).unwrap());
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| Golden::read(&std::fs::read_to_string(file).unwrap())).collect()
    })
}

/// What befalls the inbox.
#[derive(Debug, Clone)]
enum Harm {
    Value(Index, Vec<Damage>),
    /// A record is replaced by another one.
    Other(Index, Index),
    Without(Index),
    /// The broker's clock leaps from here on.
    Leap(Index, i64),
    /// Only this record has that timestamp.
    Timestamp(Index, i64),
    Nothing(Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<Index>;
    let leap = prop_oneof![
        Just(-3_600_000i64),
        Just(1),
        Just(60_001),
        Just(16 * 60_000),
        Just(86_400_000),
        // Within the century: beyond 2106 seconds do not fit in an ending, and no owner follows such a clock.
        Just(315_360_000_000),
        -5_000i64..100_000
    ];
    prop_oneof![
        10 => (at(), proptest::collection::vec(damage(), 1..4)).prop_map(|(at, damages)| Harm::Value(at, damages)),
        4 => (at(), at()).prop_map(|(at, other)| Harm::Other(at, other)),
        1 => at().prop_map(Harm::Without),
        1 => (at(), leap.clone()).prop_map(|(at, ms)| Harm::Leap(at, ms)),
        1 => (at(), leap).prop_map(|(at, ms)| Harm::Timestamp(at, ms)),
        1 => at().prop_map(Harm::Nothing),
    ]
}

#[test]
fn whatever_stands_in_an_inbox_harms_nobody_else() {
    let corpus = Corpus::of(TARGET.name);
    corpus.seeds.iter().for_each(|(_, seed)| property(seed));
    let inboxes: Vec<(Head, Vec<In>)> = goldens()
        .iter()
        .map(|golden| {
            let inputs = golden.read_lines().filter_map(|(_, line)| match line {
                Line::In(input) if input.skipped.is_none() => Some(input),
                _ => None,
            });
            (golden.head.clone(), inputs.collect())
        })
        .collect();
    let values: Vec<Vec<u8>> = inboxes
        .iter()
        .flat_map(|(_, inputs)| inputs.iter().filter_map(|input| Some(input.value.as_ref()?.0.clone())))
        .collect();
    let strategy =
        (any::<Index>(), proptest::collection::vec(harm(), 1..6)).prop_map(move |(inbox, harms)| {
            let (head, mut inputs) = inbox.get(&inboxes).clone();
            for harm in &harms {
                befall(&mut inputs, harm, &values);
            }
            let lines = inputs.iter().map(line).collect();
            Golden { head, lines }.print()
        });
    TARGET.explore(strategy, |text| property(text.as_bytes()), |text| corpus.keep(text.as_bytes()));
}

fn befall(inputs: &mut Vec<In>, harm: &Harm, values: &[Vec<u8>]) {
    if inputs.is_empty() {
        return;
    }
    let count = inputs.len();
    let shifted = |input: &In, ms: i64| {
        Time::from_epoch_ms(input.timestamp().epoch_ms().saturating_add(ms)).to_string()
    };
    match harm {
        Harm::Value(at, damages) => {
            let input = &mut inputs[at.index(count)];
            let before = input.value.take().unwrap_or(Bytes(Vec::new()));
            input.value = Some(Bytes(damaged(before.0, damages, values)));
        }
        Harm::Other(at, other) => inputs[at.index(count)].value = Some(Bytes(other.get(values).clone())),
        Harm::Without(at) => drop(inputs.remove(at.index(count))),
        Harm::Leap(at, ms) => {
            for input in &mut inputs[at.index(count)..] {
                input.at = shifted(input, *ms);
            }
        }
        Harm::Timestamp(at, ms) => {
            let input = &mut inputs[at.index(count)];
            input.at = shifted(input, *ms);
        }
        Harm::Nothing(at) => inputs[at.index(count)].value = None,
    }
}

fn property(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    let golden = Golden::read(text);
    let mut shard = Shard::new(golden.head.identity());
    let mut told: BTreeMap<String, Output> = BTreeMap::new();
    for (_, line) in golden.read_lines() {
        let Line::In(input) = line else { continue };
        let value = input.value.as_ref().map(|value| value.0.as_slice());
        let key = input.key.as_ref().map(|key| key.0.as_slice());
        let record = Record { offset: input.offset, timestamp: input.timestamp(), key, value, headers: &[] };
        let before = transactions(&shard);
        let mut outputs = Vec::new();
        shard.apply(&record, &mut outputs);
        let after = transactions(&shard);
        is_nobody_elses(&input, value, &before, &after, &outputs);
        for output in &outputs {
            is_said_once(&mut told, output);
        }
    }
    is_stored_whole(&golden, shard);
}

/// Every open transaction by its birth.
fn transactions(shard: &Shard) -> BTreeMap<i64, String> {
    shard.open_transactions().map(|t| (t.birth.offset, serde_json::to_string(t).unwrap())).collect()
}

/// Whom an input may touch: by subject, and by birth.
fn addressed(value: Option<&[u8]>) -> Option<(String, Option<Birth>)> {
    Some(match read_input(value) {
        Ok(Input::Start(start)) => (start.subject.to_string(), None),
        Ok(Input::Reply(reply)) => (reply.address.subject.to_string(), Some(reply.address.birth)),
        Ok(Input::Timer(timer)) => (timer.subject.to_string(), Some(timer.birth)),
        Ok(Input::Undeliverable(lost)) => (lost.address.subject.to_string(), Some(lost.address.birth)),
        Ok(Input::Inquiry(inquiry)) => (inquiry.subject.to_string(), Some(inquiry.birth)),
        Ok(Input::Child(said)) => (said.subject.to_string(), Some(said.parent.birth)),
        Ok(Input::Verb(verb)) => (verb.subject.to_string(), None),
        Ok(Input::Shard(_) | Input::Definition(_)) => return None,
        Err(error) => (error.start?.to_string(), None),
    })
}

fn is_nobody_elses(
    input: &In,
    value: Option<&[u8]>,
    before: &BTreeMap<i64, String>,
    after: &BTreeMap<i64, String>,
    outputs: &[Output],
) {
    let whom = addressed(value);
    let births = before.keys().chain(after.keys());
    let changed: Vec<i64> = births.filter(|birth| before.get(birth) != after.get(birth)).copied().collect();
    assert!(changed.iter().all(|birth| changed[0] == *birth), "one record, two transactions: {changed:?}");
    for birth in changed {
        let json = after.get(&birth).or(before.get(&birth)).unwrap();
        let id = serde_json::from_str::<Id>(json).unwrap().id;
        let Some((subject, named)) = &whom else { panic!("record {} touches {id}", input.offset) };
        assert!(*subject == id || named.is_some_and(|named| named.offset == birth), "{subject} touches {id}");
    }
    if let Err(error) = read_input(value) {
        assert_eq!(before, after, "{error}");
        let [output] = outputs else { panic!("{error}: one output, not {outputs:?}") };
        match (&output.destination, error.start.clone()) {
            (Destination::DeadLetters, None) => assert_eq!(output.value.as_deref(), value),
            (Destination::Outcomes, Some(subject)) => {
                let outcome = read_outcome(output.value.as_deref()).unwrap();
                assert_eq!((outcome.outcome, outcome.subject), (OutcomeKind::Refused, subject));
            }
            (destination, start) => panic!("{error}: {start:?} goes to {destination:?}"),
        }
    }
    for output in outputs {
        let (id, birth) = match &output.destination {
            Destination::DeadLetters => continue,
            Destination::Outcomes => (read_outcome(output.value.as_deref()).unwrap().subject, None),
            Destination::Inbox(_) => match read_input(output.value.as_deref()).unwrap() {
                Input::Child(said) => (said.parent.subject, Some(said.parent.birth)),
                // A child has ended, by whatever its own cause was.
                _ => continue,
            },
            Destination::Commands(_) => match read_asked(output.value.as_deref()).unwrap() {
                Asked::Command(command) => (command.address.subject, Some(command.address.birth)),
                Asked::Verdict(verdict) => (verdict.inquiry.subject, Some(verdict.inquiry.birth)),
            },
        };
        let Some((subject, named)) = &whom else { panic!("record {} has {id} told", input.offset) };
        let by_birth = named.is_some() && (birth.is_none() || birth == *named);
        assert!(subject == id.as_str() || by_birth, "{subject} has {id} told");
    }
}

/// The rest may hold numbers and depths that no tree of values takes.
#[derive(Deserialize)]
struct Id {
    id: String,
}

/// One id, one content; a repeated outcome leaves data and reason out.
fn is_said_once(told: &mut BTreeMap<String, Output>, output: &Output) {
    let is_no = |output: &Output| match read_input(output.value.as_deref()) {
        Ok(Input::Reply(reply)) => reply.outcome != Answer::Ok,
        _ => false,
    };
    // Why a child is not begun may change from one damaged request to the next.
    if output.destination == Destination::DeadLetters || is_no(output) {
        return;
    }
    let Id { id } = serde_json::from_slice(output.value.as_deref().unwrap()).unwrap();
    let is_outcome = output.destination == Destination::Outcomes;
    if let Some(before) = told.insert(id, output.clone()) {
        if is_outcome {
            let kind = |output: &Output| read_outcome(output.value.as_deref()).unwrap().outcome;
            assert_eq!(kind(&before), kind(output), "a told outcome never changes");
        } else {
            assert_eq!(before, *output, "one id, two contents");
        }
    }
}

/// A checkpoint now holds everything.
fn is_stored_whole(golden: &Golden, mut shard: Shard) {
    let before = seen(&shard);
    let Some(draft) = shard.draft(0) else { return };
    let checkpoint = shard.complete(draft, &[]);
    let mut reader = StateReader::default();
    for record in checkpoint.state.iter().chain([&checkpoint.last]) {
        let as_of = record.as_of.to_string();
        let header = (record.key != CHECKPOINT_KEY).then_some(as_of.as_bytes());
        reader.read(&record.key, header, record.value.as_deref());
    }
    match reader.finish(golden.head.identity()) {
        Ok(restored) => assert_eq!(seen(&restored.shard), before, "restored"),
        // Somebody has raised the level beyond what is known: the owner halts at it.
        Err(error @ sagamore_decider::restore::RestoreError::Level { .. }) => {
            assert!(shard.level() > 1, "{error}");
        }
        Err(error) => panic!("{error}"),
    }
}
