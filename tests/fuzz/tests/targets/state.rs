//! A state partition with records that are damaged, missing, repeated, out of order.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::Index;
use sagamore_decider::identity::Identity;
use sagamore_decider::output::Output;
use sagamore_decider::restore::{RestoreError, Restored, StateReader};
use sagamore_decider::shard::Shard;
use sagamore_fuzz::Target;
use sagamore_fuzz::corpus::Corpus;
use sagamore_fuzz::mutate::{Damage, damage, damaged};
use sagamore_schemas::log::CHECKPOINT_KEY;

use crate::format::{Bytes, Line, State, line};
use crate::shard::goldens;

const TARGET: Target = Target { name: "state", cases: 12_000 };

/// What befalls the topic.
#[derive(Debug, Clone)]
enum Harm {
    Value(Index, Vec<Damage>),
    Key(Index, Vec<Damage>),
    AsOf(Index, i64),
    Without(Index),
    Twice(Index, Index),
    Swap(Index, Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    let damages = || proptest::collection::vec(damage(), 1..4);
    let at = any::<Index>;
    prop_oneof![
        6 => (at(), damages()).prop_map(|(at, damages)| Harm::Value(at, damages)),
        1 => (at(), damages()).prop_map(|(at, damages)| Harm::Key(at, damages)),
        1 => (at(), -2i64..40).prop_map(|(at, as_of)| Harm::AsOf(at, as_of)),
        1 => at().prop_map(Harm::Without),
        1 => (at(), at()).prop_map(|(at, to)| Harm::Twice(at, to)),
        1 => (at(), at()).prop_map(|(one, other)| Harm::Swap(one, other)),
    ]
}

#[test]
fn a_state_is_restored_and_stored_again_or_refused_with_its_cause() {
    let corpus = Corpus::of(TARGET.name);
    corpus.seeds.iter().for_each(|(_, seed)| property(seed));
    let topics: Vec<Vec<State>> = goldens().iter().map(|golden| states(&golden.print())).collect();
    let values: Vec<Vec<u8>> = topics
        .iter()
        .flatten()
        .filter_map(|state| state.value.as_ref().map(|value| value.0.clone()))
        .collect();
    let texts: Vec<String> = topics.iter().map(|topic| print(topic)).collect();
    let strategy = (any::<Index>(), any::<Index>(), proptest::collection::vec(harm(), 0..4)).prop_map(
        move |(topic, end, harms)| {
            let mut topic = states(&texts[topic.index(texts.len())]);
            // Up to some checkpoint: what stands in the topic is rarely the end of a life.
            let ends: Vec<usize> =
                (0..topic.len()).filter(|at| topic[*at].key.0 == CHECKPOINT_KEY).map(|at| at + 1).collect();
            topic.truncate(*end.get(&ends));
            for harm in &harms {
                befall(&mut topic, harm, &values);
            }
            print(&topic)
        },
    );
    TARGET.explore(strategy, |text| property(text.as_bytes()), |text| corpus.keep(text.as_bytes()));
}

fn befall(topic: &mut Vec<State>, harm: &Harm, values: &[Vec<u8>]) {
    if topic.is_empty() {
        return;
    }
    let count = topic.len();
    match harm {
        Harm::Value(at, damages) => {
            let value = &mut topic[at.index(count)].value;
            let before = value.take().unwrap_or(Bytes(Vec::new()));
            *value = Some(Bytes(damaged(before.0, damages, values)));
        }
        Harm::Key(at, damages) => {
            let key = &mut topic[at.index(count)].key;
            *key = Bytes(damaged(key.0.clone(), damages, values));
        }
        Harm::AsOf(at, as_of) => topic[at.index(count)].as_of = *as_of,
        Harm::Without(at) => drop(topic.remove(at.index(count))),
        Harm::Twice(at, to) => {
            let again = states(&line(&topic[at.index(count)])).remove(0);
            topic.insert(to.index(count), again);
        }
        Harm::Swap(one, other) => topic.swap(one.index(count), other.index(count)),
    }
}

pub fn states(text: &str) -> Vec<State> {
    text.lines()
        .filter(|line| line.starts_with("{\"state\""))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn print(topic: &[State]) -> String {
    topic.iter().fold(String::new(), |mut text, state| {
        writeln!(text, "{}", line(state)).unwrap();
        text
    })
}

fn property(bytes: &[u8]) {
    let topic = states(&String::from_utf8_lossy(bytes));
    let restored = match restored(&topic) {
        Ok(restored) => restored,
        Err(error) => {
            let told = error.to_string();
            assert!(told.len() > 20 && told.len() < 200_000, "{told}");
            if let RestoreError::Damaged { key, cause } = error {
                assert!(!key.is_empty() || topic.iter().any(|state| state.key.0.is_empty()), "{cause}");
                assert!(!cause.is_empty());
            }
            return;
        }
    };
    let before = seen(&restored.shard);
    let Restored { mut shard, owed, .. } = restored;
    // Nothing may have been applied, and then there is nothing to store.
    let Some(draft) = shard.draft(i64::MIN) else { return };
    let checkpoint = shard.complete(draft, &owed.iter().collect::<Vec<&Output>>());
    let mut topic = topic;
    for record in checkpoint.state.into_iter().chain([checkpoint.last]) {
        topic.push(State { key: Bytes(record.key), as_of: record.as_of, value: record.value.map(Bytes) });
    }
    let again = self::restored(&topic).unwrap_or_else(|error| panic!("stored again: {error}"));
    assert_eq!(seen(&again.shard), before, "stored again");
    assert_eq!(again.owed, owed, "stored again");
}

fn restored(topic: &[State]) -> Result<Restored, RestoreError> {
    let mut reader = StateReader::default();
    for State { key, as_of, value } in topic {
        let as_of = as_of.to_string();
        let header = (key.0 != CHECKPOINT_KEY).then_some(as_of.as_bytes());
        reader.read(&key.0, header, value.as_ref().map(|value| value.0.as_slice()));
    }
    reader.finish(identity())
}

pub fn identity() -> Identity {
    let golden = goldens().iter().find(|golden| golden.head.partitions == 1);
    golden.unwrap().head.identity()
}

/// Everything of a shard that can be seen.
pub fn seen(shard: &Shard) -> String {
    let mut text = format!(
        "next {} clock {} level {} settings {:?} chain {:?} timers {:?} finished {} definitions {}\n",
        shard.next_offset(),
        shard.clock(),
        shard.level(),
        shard.settings(),
        shard.journal().head(),
        shard.timers(),
        shard.finished_count(),
        shard.definitions().last_offset(),
    );
    for (id, _, json) in shard.definitions().iter() {
        writeln!(text, "{id} {json}").unwrap();
    }
    for transaction in shard.open_transactions() {
        writeln!(text, "{}", serde_json::to_string(transaction).unwrap()).unwrap();
    }
    text
}

/// The state lines of a golden, and all others, are read.
#[test]
fn goldens_have_states() {
    for golden in goldens() {
        let count = golden.read_lines().filter(|(_, line)| matches!(line, Line::State(_))).count();
        assert!(count > 2, "{}", golden.head.golden);
    }
}
