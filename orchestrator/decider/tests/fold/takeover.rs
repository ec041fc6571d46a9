//! Takeover at any record, from checkpoints taken at any moment, also when only a part of the next one was committed and
//! the topic has been compacted: the successor says the very same, and comes to the very same state. What a part has hidden
//! is written again before anything is applied, and from then on nobody needs the cleaner's patience.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sagamore_decider::checkpoint::{Draft, StateRecord};
use sagamore_decider::output::Output;
use sagamore_decider::rebuild::{StateImage, contradiction};
use sagamore_decider::restore::{Proved, Restored, StateReader};
use sagamore_decider::shard::Shard;
use sagamore_decider::snapshot;
use sagamore_schemas::log::{CHECKPOINT_KEY, CheckpointRecord};

use crate::harness::{Happening, IDS, Life, StateTopic, definition_json, happening, identity, state_of};

/// What befalls the owner between two records.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Nothing,
    /// It begins a checkpoint.
    Draft,
    /// It commits the checkpoint it has begun, with so many outputs owed.
    Commit {
        owed: u8,
    },
    /// Of the checkpoint it has begun only so many records get committed, in some order; then it dies.
    Part {
        records: u8,
        order: u8,
    },
    /// It dies. Who takes over writes again what counts; of the first attempt only so many records get committed.
    Crash {
        again: u8,
    },
    /// The cleaner comes by, and gets so far.
    Compact {
        percent: u8,
        tombstones: bool,
    },
    /// It dies, and somebody deletes some of the state; it is rebuilt from the inbox, by checkpoints of other inputs.
    Rebuild {
        lost: u8,
        every: u8,
    },
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        4 => Just(Blow::Nothing),
        4 => Just(Blow::Draft),
        4 => (0u8..4).prop_map(|owed| Blow::Commit { owed }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(records, order)| Blow::Part { records, order }),
        1 => any::<u8>().prop_map(|again| Blow::Crash { again }),
        1 => (any::<u8>(), 1u8..9).prop_map(|(lost, every)| Blow::Rebuild { lost, every }),
        1 => (0u8..=100, any::<bool>()).prop_map(|(percent, tombstones)| Blow::Compact { percent, tombstones }),
    ]
}

/// Everything that can be seen of a shard.
fn seen(shard: &Shard) -> String {
    let mut text = state_of(shard);
    for id in IDS {
        text += &serde_json::to_string(&shard.view(&id.parse().unwrap())).unwrap();
    }
    text
}

struct Owner {
    shard: Shard,
    since: i64,
    draft: Option<Draft>,
}

struct Succession<'a> {
    life: &'a Life,
    states: &'a [String],
    topic: StateTopic,
    /// Records at its end that hide what counts, until somebody has taken over.
    hiding: usize,
    owed: Vec<Output>,
}

impl Succession<'_> {
    fn prove(&self) -> Proved {
        let mut reader = StateReader::default();
        for (key, as_of, value) in &self.topic {
            let as_of = as_of.to_string();
            let header = (key != CHECKPOINT_KEY).then_some(as_of.as_bytes());
            reader.read(key, header, value.as_deref());
        }
        reader.prove(&identity()).unwrap()
    }

    fn write_again(&mut self, records: &[StateRecord]) {
        let own = |record: &StateRecord| (record.key.clone(), record.as_of, record.value.clone());
        self.topic.extend(records.iter().map(own));
    }

    /// Of the first attempt to write again only so many records get committed; then somebody else takes over.
    fn take_over(&mut self, again: u8) -> Owner {
        let proved = self.prove();
        let part = usize::from(again) % (proved.again().len() + 1);
        self.write_again(&proved.again()[..part]);
        self.hiding += part;

        let proved = self.prove();
        self.write_again(proved.again());
        self.hiding = 0;
        assert_eq!(self.prove().again(), [], "nothing is hidden any more");
        let restored = proved.restore(identity()).unwrap();
        assert_eq!(restored.owed, self.owed);
        let next = usize::try_from(restored.shard.next_offset()).unwrap();
        if next > 0 {
            assert_eq!(seen(&restored.shard), self.states[next - 1], "restored as of {next}");
        }
        if again.is_multiple_of(4) {
            self.begin_at_a_snapshot(&restored, again);
        }
        let since = restored.applied.map_or(0, |_| restored.shard.next_offset());
        Owner { shard: restored.shard, since, draft: None }
    }

    /// A snapshot made now is the same shard, and what the fold says; damaged it is none, or another one.
    fn begin_at_a_snapshot(&self, restored: &Restored, damage: u8) {
        let Some(body) = snapshot::encode(self.prove()) else { return };
        let mut records = snapshot::decode(&body.bytes).unwrap();
        assert_eq!((body.records, body.next_offset), (records.len(), restored.shard.next_offset()));
        let again = snapshot::restore(&records, identity()).unwrap();
        assert_eq!((seen(&again.shard), &again.owed), (seen(&restored.shard), &restored.owed));
        let mut folded = Shard::new(identity());
        let inputs = self.life.log.iter().enumerate().take(usize::try_from(body.next_offset).unwrap());
        inputs.for_each(|(offset, logged)| drop(folded.apply(&logged.record(offset), &mut Vec::new())));
        assert_eq!(snapshot::difference(&folded, &again.shard), None);
        let head = records.iter().find(|record| record.key == CHECKPOINT_KEY).unwrap();
        let before: CheckpointRecord = serde_json::from_slice(head.value.as_ref().unwrap()).unwrap();
        let mut shard = again.shard;
        let rebuilt = StateImage::default().finish(&mut shard, [], &[]);
        assert_eq!(contradiction(&before, &rebuilt), None, "rebuilt where it was taken");

        let cut = usize::from(damage) * body.bytes.len() / 256;
        let torn = snapshot::decode(&body.bytes[..cut]);
        assert!(torn.is_err() || snapshot::restore(&torn.unwrap(), identity()).is_err() || cut == 0);
        let open = folded.open_transactions().next().map(|open| open.id.clone());
        let Some(record) = records
            .iter_mut()
            .find(|record| open.as_ref().is_some_and(|id| record.key == id.as_str().as_bytes()))
        else {
            return;
        };
        let text = String::from_utf8(record.value.take().unwrap()).unwrap();
        record.value = Some(text.replace("\"revision\":", "\"revision\":9").into_bytes());
        let altered = snapshot::restore(&records, identity()).unwrap();
        let told = open.map(|id| format!("transaction {id}"));
        assert_eq!(snapshot::difference(&folded, &altered.shard), told);
    }

    fn commit(&mut self, owner: &mut Owner, owed: u8) {
        let Some(draft) = owner.draft.take() else { return };
        let outputs = self.not_delivered(owner, owed);
        let checkpoint = owner.shard.complete(draft, &outputs.iter().collect::<Vec<_>>());
        for record in checkpoint.state.into_iter().chain([checkpoint.last]) {
            self.topic.push((record.key, record.as_of, record.value));
        }
        self.hiding = 0;
        owner.since = checkpoint.next_offset;
        self.owed = outputs;
    }

    fn commit_part(&mut self, mut owner: Owner, records: u8, order: u8) {
        let Some(draft) = owner.draft.take() else { return };
        let mut state = owner.shard.complete(draft, &[]).state;
        let turned = usize::from(order) % state.len().max(1);
        state.rotate_left(turned);
        state.truncate(usize::from(records) % (state.len() + 1));
        self.hiding += state.len();
        self.topic.extend(state.into_iter().map(|record| (record.key, record.as_of, record.value)));
    }

    /// Some of the latest outputs before the checkpoint: of these nobody has heard that they arrived.
    fn not_delivered(&self, owner: &Owner, count: u8) -> Vec<Output> {
        let next = usize::try_from(owner.since).unwrap();
        let all: Vec<&Output> = self.life.said[..next].iter().flatten().collect();
        all.iter().rev().take(count.into()).rev().map(|output| (*output).clone()).collect()
    }

    /// Every so manieth record is lost, `\0checkpoint` as well.
    fn lose_and_rebuild(&mut self, lost: u8, every: u8) {
        let head = self.topic.iter().rev().find(|(key, _, _)| key == CHECKPOINT_KEY);
        let Some((_, x, head)) = head.cloned() else { return };
        let before: CheckpointRecord = serde_json::from_slice(&head.unwrap()).unwrap();
        let mut number = 0;
        self.topic.retain(|_| {
            number += 1;
            number % (usize::from(lost) + 2) > 0
        });
        let mut shard = Shard::new(identity());
        let mut image = StateImage::default();
        let mut since = 0;
        for (offset, logged) in self.life.log.iter().enumerate().take(usize::try_from(x).unwrap()) {
            shard.apply(&logged.record(offset), &mut Vec::new());
            if offset % usize::from(every) == 0
                && let Some(draft) = shard.draft(since)
            {
                since = shard.next_offset();
                image.write(shard.complete(draft, &[]).state);
            }
        }
        let present: Vec<Vec<u8>> = self.topic.iter().map(|(key, _, _)| key.clone()).collect();
        let rebuilt = image.finish(&mut shard, &present, &self.owed.iter().collect::<Vec<_>>());
        assert_eq!(contradiction(&before, &rebuilt), None);
        for record in rebuilt.state.into_iter().chain([rebuilt.last]) {
            self.topic.push((record.key, record.as_of, record.value));
        }
        self.hiding = 0;
    }

    /// What the cleaner leaves of a part that is older than the lag; what hides something is younger than that.
    fn compact(&mut self, percent: u8, tombstones: bool) {
        let old = self.topic.len() - self.hiding;
        let rest = self.topic.split_off(old * usize::from(percent) / 100);
        let mut newer = BTreeSet::new();
        self.topic.reverse();
        self.topic.retain(|(key, _, value)| newer.insert(key.clone()) && (value.is_some() || !tombstones));
        self.topic.reverse();
        self.topic.extend(rest);
    }
}

fn check(definition: &str, happenings: &[Happening], blows: &[Blow]) {
    let mut states = Vec::new();
    let life = Life::live(definition, happenings, |shard, _, _, _, _| states.push(seen(shard)));
    let mut succession =
        Succession { life: &life, states: &states, topic: Vec::new(), hiding: 0, owed: Vec::new() };
    let mut owner = succession.take_over(0);
    let mut blows = blows.iter();
    while let Some(offset) = usize::try_from(owner.shard.next_offset()).ok().filter(|at| *at < life.log.len())
    {
        match blows.next().copied().unwrap_or(Blow::Nothing) {
            Blow::Draft if owner.draft.is_none() => owner.draft = owner.shard.draft(owner.since),
            Blow::Nothing | Blow::Draft => {}
            Blow::Commit { owed } => succession.commit(&mut owner, owed),
            Blow::Part { records, order } => {
                succession.commit_part(owner, records, order);
                owner = succession.take_over(order);
                continue;
            }
            Blow::Crash { again } => {
                owner = succession.take_over(again);
                continue;
            }
            Blow::Compact { percent, tombstones } => succession.compact(percent, tombstones),
            Blow::Rebuild { lost, every } => {
                succession.lose_and_rebuild(lost, every);
                owner = succession.take_over(lost);
                continue;
            }
        }
        let mut outputs = Vec::new();
        owner.shard.apply(&life.log[offset].record(offset), &mut outputs);
        assert_eq!(outputs, life.said[offset], "record {offset} says the same again");
        assert_eq!(seen(&owner.shard), states[offset], "after record {offset}");
    }
    owner.draft = owner.draft.take().or_else(|| owner.shard.draft(owner.since));
    succession.commit(&mut owner, 0);
    succession.compact(100, true);
    succession.take_over(0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_successor_says_and_becomes_the_very_same(
        definition in definition_json(),
        happenings in proptest::collection::vec(happening(), 5..120),
        blows in proptest::collection::vec(blow(), 5..160),
    ) {
        check(&definition, &happenings, &blows);
    }
}
