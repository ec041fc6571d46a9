//! An inbox as a crowd of order sagas fills it, recorded once from the real fold, to be folded again and again.

use std::collections::BTreeMap;

use sagamore_decider::identity::Identity;
use sagamore_decider::output::{Destination, Output, Record};
use sagamore_decider::shard::Shard;
use sagamore_schemas::definition::Definition;
use sagamore_schemas::ids::{Partition, Time, TransactionId};
use sagamore_schemas::wire::{Answer, DefinitionApplied, DefinitionRef, Payload, Reply, Start, read_command};
use uuid::Uuid;

use crate::workload::{Fate, Workload, order_data};

/// 2026-01-01T00:00:00Z.
const BEGIN_MS: i64 = 1_767_225_600_000;

/// One record of it.
#[derive(Debug, Clone)]
pub struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Inputs of one shard, in their order; the first is the definition.
#[derive(Debug, Clone)]
pub struct Inbox {
    entries: Vec<Entry>,
    transactions: u64,
}

/// A shard that has read nothing.
pub fn empty_shard() -> Shard {
    Shard::new(Identity {
        instance: Uuid::from_u128(7),
        partition: Partition(0),
        partitions: 1,
        replyto: "sagamore.inbox/0".to_owned(),
        inbox: "sagamore.inbox".to_owned(),
        secret: None,
    })
}

impl Inbox {
    /// Of so many transactions, all open at once: what each is asked is answered, as its plan says, after all others
    /// of its age.
    pub fn record(workload: Workload, transactions: u64) -> Self {
        let definition = Definition::from_json(workload.definition()).expect("a definition of the bench");
        let canonical = serde_json::to_string(&definition).expect("a definition is JSON");
        let canonical = Payload::from_json(canonical).expect("a definition is JSON");
        let applied = DefinitionApplied { offset: 0, data: canonical.as_ref() }.to_json();
        let mut inbox = Self { entries: vec![Entry { key: Vec::new(), value: applied }], transactions };
        let mut shard = empty_shard();
        let mut outputs = Vec::new();
        inbox.fold_from(&mut shard, 0, &mut outputs);
        inbox.entries.extend((0..transactions).map(|index| start(workload, index)));
        let mut ended: BTreeMap<Vec<u8>, Output> = BTreeMap::new();
        let mut folded = 1;
        while folded < inbox.entries.len() {
            let next = inbox.entries.len();
            inbox.fold_from(&mut shard, folded, &mut outputs);
            folded = next;
            for output in outputs.drain(..) {
                match output.destination {
                    Destination::Commands(_) => inbox.entries.push(reply(workload, &output)),
                    Destination::Outcomes => {
                        ended.insert(output.key.clone().unwrap_or_default(), output);
                    }
                    Destination::Inbox(_) => panic!("no definition of the bench has children"),
                    Destination::DeadLetters => panic!("a dead letter in the inbox of the bench"),
                }
            }
        }
        assert_eq!(u64::try_from(ended.len()), Ok(transactions), "every transaction has ended");
        assert_eq!(shard.open_count(), 0, "none is open");
        inbox
    }

    /// How many inputs it has.
    pub fn inputs(&self) -> usize {
        self.entries.len()
    }

    /// Of how many transactions.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Folds all of it into an empty shard, dropping what is sent; returns how many outputs there were.
    pub fn fold(&self, shard: &mut Shard) -> usize {
        let mut outputs = Vec::new();
        self.fold_from(shard, 0, &mut outputs)
    }

    /// Folds the definition and the starts: all transactions are open then.
    pub fn fold_starts(&self, shard: &mut Shard) {
        let starts = usize::try_from(self.transactions).expect("transactions that fit in memory");
        let mut outputs = Vec::new();
        for (offset, entry) in (0..).zip(&self.entries[..=starts]) {
            shard.apply(&entry.record(offset), &mut outputs);
            outputs.clear();
        }
    }

    /// Folds what stands at `from` and behind. A caller that wants the outputs hands over an empty list.
    fn fold_from(&self, shard: &mut Shard, from: usize, outputs: &mut Vec<Output>) -> usize {
        let keeps = from > 0;
        let mut count = 0;
        for (offset, entry) in self.entries.iter().enumerate().skip(from) {
            let offset = i64::try_from(offset).expect("an inbox that fits in memory");
            let before = outputs.len();
            shard.apply(&entry.record(offset), outputs);
            count += outputs.len() - before;
            if !keeps {
                outputs.clear();
            }
        }
        count
    }
}

impl Entry {
    fn record(&self, offset: i64) -> Record<'_> {
        Record {
            offset,
            // A record a microsecond: so fast it should be.
            timestamp: Time::from_epoch_ms(BEGIN_MS + offset / 1_000),
            key: Some(&self.key),
            value: Some(&self.value),
            headers: &[],
        }
    }
}

fn start(workload: Workload, index: u64) -> Entry {
    let subject: TransactionId = format!("r1-{index}").parse().expect("an id");
    let data = Payload::from_json(order_data()).expect("an order is JSON");
    let value = Start {
        subject: subject.clone(),
        time: Time::from_epoch_ms(BEGIN_MS),
        definition: DefinitionRef { name: workload.as_str().parse().expect("a name"), version: None },
        traceparent: None,
        data: data.as_ref(),
    }
    .to_json("/bench");
    Entry { key: subject.as_str().into(), value }
}

fn reply(workload: Workload, command: &Output) -> Entry {
    let command = read_command(command.value.as_deref()).expect("a command of the fold");
    let address = command.address;
    let index = address.subject.as_str().split_once('-').and_then(|(_, index)| index.parse().ok());
    let fate = workload.fate(index.expect("an id of this inbox"));
    let place = workload.place_of(&address.step, &address.branch).expect("a place of the workload");
    let is_forward = matches!(address.operation.as_str(), "execute" | "prepare");
    let refuses = is_forward && fate == Fate::Refused(place);
    let reply = Reply {
        instance: command.instance,
        source: format!("/{}", address.branch).into(),
        outcome: if refuses { Answer::Refused } else { Answer::Ok },
        reason: refuses.then_some("planned".into()),
        replytoken: None,
        data: Payload::Absent.as_ref(),
        address,
    };
    Entry { key: reply.address.subject.as_str().into(), value: reply.to_json() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_orders_are_128_inputs() {
        let inbox = Inbox::record(Workload::Order, 30);
        // The definition; 27 starts with 3 replies; 2 with 2 and 1 compensation; 1 with 3 and 2.
        assert_eq!(inbox.inputs(), 1 + 27 * 4 + 2 * 4 + 6);
        let mut shard = empty_shard();
        // A command for each reply, an outcome for each transaction.
        assert_eq!(inbox.fold(&mut shard), inbox.inputs() - 1);
        assert_eq!(shard.open_count(), 0);
    }

    #[test]
    fn every_workload_ends() {
        for workload in [Workload::TwoPhase, Workload::Mixed, Workload::Graph] {
            assert_eq!(Inbox::record(workload, 30).transactions(), 30);
        }
    }
}
