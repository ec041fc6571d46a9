//! How long transactions and steps take, and which are stuck: read from what checkpoints have written to the journal.
//!
//! ```text
//!   lane ──draft──▶ checkpointer ──Kafka transaction──▶ journal
//!                        └── once it is committed ──▶ Observer ──▶ histograms, gauges
//! ```
//! The lane does nothing for it, and the fold knows nothing of it. What a checkpoint has not written is not counted, so a
//! takeover counts nothing twice: the successor begins with the open transactions of the state it has read, and sees the
//! entries behind it for the first time. Times are the log's: from the record that began something to the one that ended it.
//!
//! Deliberately absent: ids as labels, and anything that must be exact for ever; for that there is the journal itself.

mod labels;

use std::collections::BTreeMap;
use std::sync::Arc;

use sagamore_decider::definition::plan::{BranchIndex, Plan};
use sagamore_decider::shard::Shard;
use sagamore_decider::transaction::{BranchPhase, Phase};
use sagamore_schemas::definition::{Definition, DefinitionId};
use sagamore_schemas::ids::{Name, Time};
use sagamore_schemas::log::{EntryRef, entries_of};
use sagamore_schemas::wire::{Input, Operation, OutcomeKind, read_input};

use crate::definitions_tail::DefinitionsTail;
use crate::metrics;
use crate::predict::model::names;
use labels::{OTHER, Values};

static DEFINITIONS: Values = Values::new();
static PARTICIPANTS: Values = Values::new();

/// What a checkpointer thread knows of its shard's open transactions.
#[derive(Debug)]
pub struct Observer {
    partition: i32,
    next_offset: i64,
    open: BTreeMap<i64, Life>,
    places: BTreeMap<Box<str>, Place>,
    /// By the definition's id, as the journal writes it.
    definitions: BTreeMap<Box<str>, Arc<Known>>,
    tail: Arc<DefinitionsTail>,
    /// Transactions that are stuck, by the label of their definition: what this shard has added to the gauge.
    stuck: BTreeMap<Arc<str>, u64>,
}

/// A step, or a branch of one, by number: there are few, and many transactions.
type Place = u32;

/// What is needed of a definition.
#[derive(Debug)]
struct Known {
    label: Arc<str>,
    participants: BTreeMap<Place, Arc<str>>,
}

/// An open transaction.
#[derive(Debug)]
struct Life {
    born: Time,
    definition: Arc<Known>,
    calls: Vec<Call>,
    stuck: Vec<Place>,
}

/// An operation that is being asked.
#[derive(Debug)]
struct Call {
    place: Place,
    operation: Operation,
    since: Time,
}

impl Observer {
    /// Of a shard that was just taken over.
    pub fn new(partition: i32, shard: &Shard, tail: Arc<DefinitionsTail>) -> Self {
        let mut observer = Self {
            partition,
            next_offset: shard.next_offset(),
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            definitions: BTreeMap::new(),
            tail,
            stuck: BTreeMap::new(),
        };
        let is_under_way = |phase: Phase| !matches!(phase, Phase::Ended(_));
        for transaction in shard.open_transactions().filter(|open| is_under_way(open.phase)) {
            let plan = shard.definitions().plan(&transaction.definition);
            let definition = observer.known(&transaction.definition.to_string(), Some(&plan));
            let mut life = Life { born: transaction.born, definition, calls: Vec::new(), stuck: Vec::new() };
            for index in plan.branch_indexes() {
                let place = observer.place_of(&plan, index);
                let phase = &transaction.branch(index).phase;
                if let Some(call) = phase.call() {
                    life.calls.push(Call { place, operation: call.operation, since: call.issued });
                }
                if matches!(phase, BranchPhase::Stuck(_)) {
                    life.stuck.push(place);
                }
            }
            if !life.stuck.is_empty() {
                observer.add_stuck(&life.definition.label);
            }
            observer.open.insert(transaction.birth.offset, life);
        }
        observer
    }

    /// What a checkpoint has written; `next_offset` is what it has folded in.
    pub fn see(&mut self, journal: &[(Vec<u8>, Vec<u8>)], next_offset: i64) {
        let mut entered: Vec<i64> = Vec::new();
        for (_, value) in journal {
            // Anything that is no list of entries is a takeover's barrier, and nothing.
            for entry in entries_of(value).iter().flatten() {
                entered.push(entry.offset);
                self.see_entry(entry);
            }
        }
        entered.sort_unstable();
        entered.dedup();
        let folded = u64::try_from(next_offset - self.next_offset).unwrap_or_default();
        self.next_offset = next_offset;
        metrics::without_trace(self.partition, folded.saturating_sub(entered.len() as u64));
    }

    fn see_entry(&mut self, entry: &EntryRef<'_>) {
        let Some(birth) = entry.birth.filter(|birth| birth.partition.0 == self.partition) else { return };
        if birth.offset == entry.offset
            && let Some(definition) = &entry.definition
        {
            let definition = self.known(definition, None);
            let life = Life { born: entry.at, definition, calls: Vec::new(), stuck: Vec::new() };
            self.open.insert(birth.offset, life);
        }
        let Some(mut life) = self.open.remove(&birth.offset) else { return };
        let was_stuck = !life.stuck.is_empty();
        for change in &entry.changes {
            let place = match &change.branch {
                None => self.place(&change.step),
                Some(branch) => self.place(&format!("{}/{branch}", change.step)),
            };
            life.see(place, &change.phase, entry.at);
        }
        let ended = entry.outcome.filter(|outcome| {
            matches!(outcome, OutcomeKind::Committed | OutcomeKind::Compensated | OutcomeKind::Aborted)
        });
        let is_stuck = !life.stuck.is_empty() && ended.is_none();
        match (was_stuck, is_stuck) {
            (false, true) => self.add_stuck(&life.definition.label),
            (true, false) => self.remove_stuck(&life.definition.label),
            (false, false) | (true, true) => {}
        }
        match ended {
            Some(outcome) => {
                let took = entry.at.since(life.born);
                metrics::transaction(&life.definition.label, outcome.as_str(), took.as_ms());
            }
            None => {
                self.open.insert(birth.offset, life);
            }
        }
    }

    fn add_stuck(&mut self, label: &Arc<str>) {
        *self.stuck.entry(Arc::clone(label)).or_default() += 1;
        metrics::stuck(label, 1.0);
    }

    fn remove_stuck(&mut self, label: &Arc<str>) {
        if let Some(count) = self.stuck.get_mut(label).filter(|count| **count > 0) {
            *count -= 1;
            metrics::stuck(label, -1.0);
        }
    }

    fn place(&mut self, name: &str) -> Place {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = Place::try_from(self.places.len()).unwrap_or(Place::MAX);
        self.places.insert(name.into(), place);
        place
    }

    fn place_of(&mut self, plan: &Plan, index: BranchIndex) -> Place {
        let (_, name) = names(plan, index);
        self.place(&name)
    }

    /// The definition of this id; of one that nobody knows, only its name.
    fn known(&mut self, id: &str, plan: Option<&Plan>) -> Arc<Known> {
        if let Some(known) = self.definitions.get(id) {
            return Arc::clone(known);
        }
        let name = id.split('@').next().unwrap_or_default();
        let mut participants = BTreeMap::new();
        if let Some(plan) = plan {
            for index in plan.branch_indexes() {
                if let Some(participant) = plan.branch(index).1.by.participant() {
                    participants.insert(self.place_of(plan, index), PARTICIPANTS.value(participant.as_str()));
                }
            }
        } else if let Some(definition) = self.defined(id) {
            for (place, participant) in asked(&definition) {
                participants.insert(self.place(&place), PARTICIPANTS.value(participant.as_str()));
            }
        }
        let known = Arc::new(Known { label: DEFINITIONS.value(name), participants });
        self.definitions.insert(id.into(), Arc::clone(&known));
        known
    }

    /// As it was applied.
    fn defined(&self, id: &str) -> Option<Definition> {
        let read = |value: &[u8]| {
            let Ok(Input::Definition(applied)) = read_input(Some(value)) else { return None };
            let definition: Definition = serde_json::from_str(applied.data.json()?).ok()?;
            let is_it = DefinitionId { name: definition.name.clone(), version: definition.version };
            (is_it.to_string() == id).then_some(definition)
        };
        self.tail.after(-1).iter().find_map(|(_, value)| read(value))
    }
}

impl Drop for Observer {
    /// Whoever runs the shard next counts its stuck transactions.
    fn drop(&mut self) {
        for (label, count) in &self.stuck {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge is a float, and counts stay far below 2^52"
            )]
            metrics::stuck(label, -(*count as f64));
        }
    }
}

impl Life {
    fn see(&mut self, place: Place, phase: &str, at: Time) {
        let mut words = phase.split(' ');
        let word = words.next().unwrap_or_default();
        let asked = words.next();
        if word == "stuck" {
            if !self.stuck.contains(&place) {
                self.stuck.push(place);
            }
        } else {
            self.stuck.retain(|stuck| *stuck != place);
        }
        if matches!(word, "asked" | "pausing" | "stuck") {
            let operation = Operation::ALL.into_iter().find(|known| Some(known.as_str()) == asked);
            let Some(operation) = operation else { return };
            if !self.calls.iter().any(|call| call.place == place && call.operation == operation) {
                self.calls.retain(|call| call.place != place);
                self.calls.push(Call { place, operation, since: at });
            }
        } else if let Some(over) = self.calls.iter().position(|call| call.place == place) {
            let call = self.calls.swap_remove(over);
            let participant = self.definition.participants.get(&place).map_or(OTHER, |label| &**label);
            metrics::step(participant, call.operation.as_str(), at.since(call.since).as_ms());
        }
    }
}

/// Who is asked in each place.
fn asked(definition: &Definition) -> Vec<(String, &Name)> {
    let mut asked = Vec::new();
    for step in &definition.steps {
        if let Some(participant) = &step.participant {
            asked.push((step.name.to_string(), participant));
        }
        for branch in step.branches.iter().flatten() {
            let name = branch.name.as_ref().unwrap_or(&branch.participant);
            asked.push((format!("{}/{name}", step.name), &branch.participant));
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use sagamore_decider::identity::Identity;
    use sagamore_schemas::ids::Partition;
    use sagamore_schemas::wire::{DefinitionApplied, Payload};
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    const DEFINITION: &str = r#"{"name":"order","version":1,"steps":[{"name":"charge","participant":"payment"},
        {"name":"pay","protocol":"two-phase","branches":[{"participant":"bank"},{"name":"b","participant":"bank"}]}]}"#;

    fn tail() -> Arc<DefinitionsTail> {
        let data = Payload::from_json(DEFINITION.to_owned()).unwrap();
        let value = DefinitionApplied { offset: 0, data: data.as_ref() }.to_json();
        Arc::new(DefinitionsTail::of(vec![(0, value.into())]))
    }

    fn shard() -> Shard {
        Shard::new(Identity {
            instance: Uuid::nil(),
            partition: Partition(3),
            partitions: 4,
            replyto: "s.inbox/3".into(),
            inbox: "s.inbox".into(),
            secret: None,
        })
    }

    fn entry(offset: i64, seconds: u32, birth: i64, more: &Value) -> Value {
        let mut entry = json!({"offset": offset, "sequence": 0, "at": format!("2026-11-22T16:00:{seconds:02}.500Z"),
            "input": "x", "birth": format!("3-{birth}")});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    }

    fn change(step: &str, branch: Option<&str>, phase: &str) -> Value {
        match branch {
            Some(branch) => json!({"step": step, "branch": branch, "phase": phase}),
            None => json!({"step": step, "phase": phase}),
        }
    }

    /// Lines of the metrics, after these entries of one checkpoint; and when the shard has gone.
    fn told(entries: &[Value], next_offset: i64) -> (String, String) {
        let recorder = metrics::builder().unwrap().build_recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            let mut observer = Observer::new(3, &shard(), tail());
            let chain = "00".repeat(32);
            let sealed: Vec<Value> =
                entries.iter().map(|entry| json!({"entry": entry, "chain": chain})).collect();
            let barrier = (b"barrier".to_vec(), b"{}".to_vec());
            observer.see(&[barrier, (Vec::new(), serde_json::to_vec(&sealed).unwrap())], next_offset);
            let running = handle.render();
            drop(observer);
            (running, handle.render())
        })
    }

    #[test]
    fn durations_are_of_the_log() {
        let start = json!({"definition": "order@1", "changes": [change("charge", None, "asked execute 1")]});
        let charged = json!({"changes": [change("charge", None, "done"),
            change("pay", Some("bank"), "asked prepare 1"), change("pay", Some("b"), "asked prepare 1")]});
        let again = json!({"changes": [change("pay", Some("b"), "pausing prepare 1")]});
        let third = json!({"changes": [change("pay", Some("b"), "asked prepare 2")]});
        let voted = json!({"changes": [change("pay", Some("b"), "prepared")]});
        let ended = json!({"outcome": "committed", "changes": []});
        let entries = [
            entry(10, 0, 10, &start),
            entry(11, 2, 10, &charged),
            entry(12, 3, 10, &again),
            entry(13, 4, 10, &third),
            entry(14, 9, 10, &voted),
            entry(15, 30, 10, &ended),
            entry(16, 31, 7, &ended),
            json!({"offset": 17, "sequence": 0, "at": "2026-11-22T16:00:31Z", "input": "definition"}),
        ];
        let (told, _) = told(&entries, 20);
        for line in [
            r#"sagamore_transaction_seconds_count{definition="order",outcome="committed"} 1"#,
            r#"sagamore_transaction_seconds_sum{definition="order",outcome="committed"} 30"#,
            r#"sagamore_step_seconds_sum{participant="payment",operation="execute"} 2"#,
            r#"sagamore_step_seconds_sum{participant="bank",operation="prepare"} 7"#,
            r#"sagamore_inputs_without_trace_total{shard="3"} 12"#,
        ] {
            assert!(told.contains(line), "{line} in\n{told}");
        }
    }

    #[test]
    fn what_is_stuck_is_counted_while_it_is_and_here() {
        let start = json!({"definition": "order@1", "changes": [change("charge", None, "asked execute 1")]});
        let stuck = json!({"outcome": "stuck", "changes": [change("charge", None, "stuck compensate 3")]});
        let retried = json!({"changes": [change("charge", None, "asked compensate 4")]});
        let gauge = |entries: &[Value]| {
            let (running, gone) = told(entries, 9);
            let line = |told: &str| {
                let line = told.lines().find(|line| line.starts_with("sagamore_stuck_transactions{"));
                line.and_then(|line| line.split(' ').next_back()).unwrap_or("none").to_owned()
            };
            (line(&running), line(&gone))
        };
        let two =
            [entry(1, 0, 1, &start), entry(2, 0, 2, &start), entry(3, 1, 1, &stuck), entry(4, 1, 2, &stuck)];
        assert_eq!(gauge(&two), ("2".into(), "0".into()), "whoever has the shard next counts them");
        let one = [&two[..], &[entry(5, 2, 1, &retried)]].concat();
        assert_eq!(gauge(&one).0, "1");
        let ended = [&one[..], &[entry(6, 3, 2, &json!({"outcome": "compensated"}))]].concat();
        assert_eq!(gauge(&ended).0, "0");
    }
}
