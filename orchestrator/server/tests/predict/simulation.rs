//! Transactions in virtual time: one shard, one clock, participants drawn from a model.

use std::collections::BTreeMap;

use fastrand::Rng;
use sagamore::predict::model::{Answers, Assumed};
use sagamore_decider::definition::plan::Plan;
use sagamore_decider::identity::Identity;
use sagamore_decider::output::{Destination, Output, Record};
use sagamore_decider::shard::Shard;
use sagamore_decider::transaction::Phase;
use sagamore_schemas::ids::{Partition, Span, Time, TransactionId};
use sagamore_schemas::wire::{
    Answer, DefinitionApplied, Operation, OutcomeKind, Payload, Reply, Start, read_command, read_outcome,
};

/// 2026-01-01T00:00:00Z.
const T0_MS: i64 = 1_767_225_600_000;
const SEED: u64 = 20_261_123;
/// A shard is replaced after so many transactions, so that its journal stays small.
const TRANSACTIONS_PER_SHARD: u32 = 500;

/// A mean of what was seen, and its standard deviation.
#[derive(Debug, Default)]
pub struct Seen {
    pub count: u32,
    pub mean: f64,
    pub deviation: f64,
}

/// What was seen of a definition.
#[derive(Debug)]
pub struct Observed {
    pub committed: Seen,
    pub compensated: Seen,
    pub aborted: Seen,
    pub stuck: Seen,
    pub commands: Seen,
    pub decision_ms: Seen,
    /// Of those that end.
    pub end_ms: Seen,
}

/// One transaction.
#[derive(Debug, Clone, Copy)]
struct Run {
    outcome: OutcomeKind,
    commands: u32,
    decision_ms: f64,
    end_ms: f64,
}

impl Seen {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = u32::try_from(values.clone().count()).unwrap();
        let number = f64::from(count.max(1));
        let mean = values.clone().sum::<f64>() / number;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / number;
        Self { count, mean, deviation: variance.sqrt() }
    }
}

/// So many transactions, one after the other.
pub fn simulate(text: &str, plan: &Plan, assumed: &[Assumed], transactions: u32) -> Observed {
    let mut rng = Rng::with_seed(SEED);
    let mut world = World::new(text, plan, assumed);
    let mut runs = Vec::new();
    for number in 0..transactions {
        let is_stuck = runs.last().is_some_and(|run: &Run| run.outcome == OutcomeKind::Stuck);
        if number % TRANSACTIONS_PER_SHARD == 0 || is_stuck {
            world = World::new(text, plan, assumed);
        }
        runs.push(world.run(number, &mut rng));
    }
    let part =
        |kind: OutcomeKind| Seen::of(runs.iter().map(move |run| if run.outcome == kind { 1.0 } else { 0.0 }));
    let ended = runs.iter().filter(|run| run.outcome != OutcomeKind::Stuck);
    Observed {
        committed: part(OutcomeKind::Committed),
        compensated: part(OutcomeKind::Compensated),
        aborted: part(OutcomeKind::Aborted),
        stuck: part(OutcomeKind::Stuck),
        commands: Seen::of(runs.iter().map(|run| f64::from(run.commands))),
        decision_ms: Seen::of(runs.iter().map(|run| run.decision_ms)),
        end_ms: Seen::of(ended.map(|run| run.end_ms)),
    }
}

/// What so many transactions leave in the journal: key and value of its records, in their order.
pub fn journal_of(
    text: &str,
    plan: &Plan,
    assumed: &[Assumed],
    transactions: u32,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rng = Rng::with_seed(SEED);
    let mut world = World::new(text, plan, assumed);
    let mut journal = Vec::new();
    let mut store = |world: &mut World<'_>| {
        let draft = world.shard.draft(0).unwrap();
        journal.extend(world.shard.complete(draft, &[]).journal);
    };
    for number in 0..transactions {
        let run = world.run(number, &mut rng);
        // In the middle of things, too: a transaction's entries stand in several records then.
        if number % 7 == 0 || run.outcome == OutcomeKind::Stuck {
            store(&mut world);
        }
        if run.outcome == OutcomeKind::Stuck {
            world = World::new(text, plan, assumed);
        }
    }
    store(&mut world);
    journal
}

struct World<'a> {
    shard: Shard,
    plan: &'a Plan,
    assumed: &'a [Assumed],
    /// By branch: to what is asked forward, and to what has been decided.
    answers: Vec<(Answers, Answers)>,
    next_offset: i64,
    now: Time,
    /// Replies on their way, by when they arrive and in which order they were sent.
    replies: BTreeMap<(Time, u64), Vec<u8>>,
    sent: u64,
}

impl<'a> World<'a> {
    fn new(text: &str, plan: &'a Plan, assumed: &'a [Assumed]) -> Self {
        let identity = Identity {
            instance: uuid::Uuid::from_u128(7),
            partition: Partition(0),
            partitions: 1,
            replyto: "sagamore.inbox/0".into(),
            inbox: "sagamore.inbox".into(),
            secret: None,
        };
        let (definition, _) = sagamore_decider::definition::source::read(text).result.unwrap();
        let mut world = Self {
            shard: Shard::new(identity),
            plan,
            assumed,
            answers: assumed.iter().map(|assumed| (assumed.forward(), assumed.decided())).collect(),
            next_offset: 0,
            now: Time::from_epoch_ms(T0_MS),
            replies: BTreeMap::new(),
            sent: 0,
        };
        let data = Payload::from_json(serde_json::to_string(&definition).unwrap()).unwrap();
        world.apply(&DefinitionApplied { offset: 0, data: data.as_ref() }.to_json());
        world
    }

    fn apply(&mut self, value: &[u8]) -> Vec<Output> {
        let record = Record {
            offset: self.next_offset,
            timestamp: self.now,
            key: None,
            value: Some(value),
            headers: &[],
        };
        self.next_offset += 1;
        let mut outputs = Vec::new();
        self.shard.apply(&record, &mut outputs);
        outputs
    }

    fn run(&mut self, number: u32, rng: &mut Rng) -> Run {
        let id: TransactionId = format!("t{number}").parse().unwrap();
        let data = Payload::from_json("{}".to_owned()).unwrap();
        let definition = self.plan.name.as_str().parse().unwrap();
        let born = self.now;
        let start =
            Start { subject: id.clone(), time: born, definition, traceparent: None, data: data.as_ref() };
        let mut next = Some(start.to_json("/simulation"));
        let mut run = Run { outcome: OutcomeKind::Stuck, commands: 0, decision_ms: -1.0, end_ms: 0.0 };
        self.replies.clear();
        while let Some(value) = next {
            for output in self.apply(&value) {
                match output.destination {
                    Destination::Commands(_) => {
                        run.commands += 1;
                        self.answer(output.value.as_deref().unwrap(), rng);
                    }
                    Destination::Outcomes => {
                        run.outcome = read_outcome(output.value.as_deref()).unwrap().outcome;
                        run.end_ms = self.since(born);
                    }
                    Destination::Inbox(_) | Destination::DeadLetters => panic!("a dead letter: {output:?}"),
                }
            }
            let phase = self.shard.open_transactions().find(|open| open.id == id).map(|open| open.phase);
            if run.decision_ms < 0.0 && phase != Some(Phase::Forward) {
                run.decision_ms = self.since(born);
            }
            next = if phase.is_some() { self.next_input() } else { None };
        }
        run
    }

    fn since(&self, born: Time) -> f64 {
        f64::from(u32::try_from(self.now.since(born).as_ms()).unwrap())
    }

    /// What stands next in the inbox: a reply, or a timer that is due before it.
    fn next_input(&mut self) -> Option<Vec<u8>> {
        let due = self.shard.timers().next_due();
        let arrives = self.replies.first_key_value().map(|((at, _), _)| *at);
        if let Some(at) = arrives.filter(|at| due.is_none_or(|due| *at <= due)) {
            self.now = at;
            return self.replies.pop_first().map(|(_, value)| value);
        }
        self.now = due?;
        let entry = self.shard.timers().due(self.now).next()?;
        Some(self.shard.timer_of(entry)?.to_json())
    }

    /// What a participant makes of a command, and when.
    fn answer(&mut self, command: &[u8], rng: &mut Rng) {
        let command = read_command(Some(command)).unwrap();
        let address = command.address;
        let index = self.plan.branch_named(&address.step, &address.branch).unwrap();
        let (forward, decided) = &self.answers[usize::from(index.0)];
        let answers = match address.operation {
            Operation::Execute | Operation::Prepare => forward,
            Operation::Precommit | Operation::Commit | Operation::Compensate | Operation::Abort => decided,
        };
        let roll = rng.f64();
        let (outcome, reason) = if roll < answers.ok {
            (Answer::Ok, None)
        } else if roll < answers.ok + answers.refused {
            (Answer::Refused, Some("no"))
        } else if roll < answers.ok + answers.refused + answers.error {
            (Answer::Error, Some("down"))
        } else {
            return;
        };
        let reply = Reply {
            address,
            instance: command.instance,
            source: "/simulation".into(),
            outcome,
            reason: reason.map(Into::into),
            replytoken: None,
            data: Payload::Absent.as_ref(),
        };
        // Box and Muller.
        let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
        let latency = self.assumed[usize::from(index.0)].latency;
        let median_ms = f64::from(u32::try_from(latency.p50.as_ms()).unwrap());
        let latency_ms = format!("{:.0}", median_ms * (latency.sigma() * normal).exp()).parse().unwrap();
        self.sent += 1;
        self.replies.insert((self.now.after(Span::from_ms(latency_ms)), self.sent), reply.to_json());
    }
}
