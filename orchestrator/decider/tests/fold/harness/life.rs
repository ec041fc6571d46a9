//! A generated life of a shard: definitions, starts, replies good and bad, duplicates, silence, verbs, garbage; then
//! friendly answers until everything has ended.

use proptest::prelude::*;
use sagamore_decider::output::{Destination, Notice, Output, Record};
use sagamore_decider::shard::Shard;
use sagamore_decider::transaction::{BranchPhase, Phase, Transaction};
use sagamore_schemas::ids::{Span, Time, TransactionId};
use sagamore_schemas::wire::{
    Answer, Authority, DefinitionApplied, Payload, REASON_EXPIRED, Reply, ShardVerb, ShardWish, Start,
    Undeliverable, Verb, Wish, read_command,
};

use super::world::{T0_MS, identity};

/// The ids that a life uses: few, so that they meet themselves again.
pub const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One record of the inbox, with what the fold said to it.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The broker's timestamp.
    pub timestamp: Time,
    /// The value.
    pub value: Vec<u8>,
}

impl Logged {
    /// As the record at `offset`.
    pub fn record(&self, offset: usize) -> Record<'_> {
        Record {
            offset: i64::try_from(offset).unwrap(),
            timestamp: self.timestamp,
            key: None,
            value: Some(&self.value),
            headers: &[],
        }
    }
}

/// One thing that happens; the number chooses among what is possible then.
#[derive(Debug, Clone, Copy)]
pub enum Happening {
    /// A start, new or repeated.
    Start(u8),
    /// An answer to some command, new or old.
    Answer(Said, u8),
    /// The next timer rings.
    Ring,
    /// Time passes, unseen by the owner.
    Pass(u16),
    /// Somebody wants something.
    Wish(bool, u8),
    /// A record stands in the inbox again.
    Again(u8),
    /// The settings change.
    Window(u8),
    /// Nobody can read it.
    Garbage,
}

/// What a participant, or the want of one, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Ok,
    Refused,
    Error,
    Pending,
    Expired,
    Lost,
}

/// Any happening, answers most of all.
pub fn happening() -> impl Strategy<Value = Happening> {
    let said = prop_oneof![
        8 => Just(Said::Ok), 2 => Just(Said::Refused), 2 => Just(Said::Error), 1 => Just(Said::Pending),
        1 => Just(Said::Expired), 1 => Just(Said::Lost)
    ];
    prop_oneof![
        4 => any::<u8>().prop_map(Happening::Start),
        10 => (said, any::<u8>()).prop_map(|(said, which)| Happening::Answer(said, which)),
        4 => Just(Happening::Ring),
        2 => (0u16..3_000).prop_map(Happening::Pass),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(cancel, which)| Happening::Wish(cancel, which)),
        1 => any::<u8>().prop_map(Happening::Again),
        1 => (1u8..5).prop_map(Happening::Window),
        1 => Just(Happening::Garbage),
    ]
}

/// A definition: a random graph of steps of every shape, perhaps a pivot or a group in its place after all of them,
/// retriable steps after that. In three bits of `edges` per step: which of the three before it in the file it waits for.
pub fn definition_json() -> impl Strategy<Value = String> {
    let forward = proptest::collection::vec((0u8..8, 0u8..7), 1..5);
    (forward, 0u8..5, proptest::collection::vec(0u8..8, 0..3)).prop_map(|(forward, pivot, retriable)| {
        const LIMITS: &str = r#""timeout":"2s","retry":{"backoff":"500ms","attempts":2}"#;
        const UNBOUNDED: &str = r#""timeout":"2s","retry":{"backoff":"500ms"}"#;
        let mut steps: Vec<String> = Vec::new();
        let list = |edges: u8, position: usize, least: usize| {
            let before = (1..=3).filter(|back| edges & (1 << (back - 1)) != 0 && position >= least + back);
            let names: Vec<String> = before.map(|back| format!("\"s{}\"", position - back)).collect();
            names.join(",")
        };
        let group = |protocol: &str, more: &str| {
            format!(
                r#""protocol":"{protocol}","branches":[{{"participant":"p0"{more}}},{{"participant":"p1"{more}}}]"#
            )
        };
        for (edges, shape) in &forward {
            let position = steps.len();
            let after = list(*edges, position, 0);
            let shape = match shape {
                0..3 => format!(r#""participant":"p{}""#, position % 2),
                3 => r#""participant":"r","kind":"reserved""#.to_owned(),
                4 => format!(r#"{},"commit":"at-end""#, group("two-phase", "")),
                5 => group("two-phase", r#","compensate":true"#),
                _ => group("three-phase", r#","compensate":true"#),
            };
            steps.push(format!(r#"{{"name":"s{position}","after":[{after}],{shape},{LIMITS}}}"#));
        }
        let first = steps.len();
        let every: Vec<String> = (0..first).map(|position| format!("\"s{position}\"")).collect();
        let pivot = match pivot {
            0 => None,
            1 | 2 => Some(format!(r#""participant":"pivot","kind":"pivot",{UNBOUNDED}"#)),
            3 => Some(format!("{},{LIMITS}", group("two-phase", ""))),
            _ => Some(format!("{},{LIMITS}", group("three-phase", ""))),
        };
        if let Some(shape) = pivot {
            steps.push(format!(r#"{{"name":"s{first}","after":[{}],{shape}}}"#, every.join(",")));
        }
        for edges in &retriable {
            let position = steps.len();
            let after = list(*edges, position, first);
            steps.push(format!(
                r#"{{"name":"s{position}","participant":"r","kind":"retriable","after":[{after}],{UNBOUNDED}}}"#
            ));
        }
        format!(r#"{{"name":"d","version":1,"deadline":"8s","steps":[{}]}}"#, steps.join(","))
    })
}

/// The inbox, and the fold that made it.
#[derive(Debug)]
pub struct Life {
    /// The inbox.
    pub log: Vec<Logged>,
    /// What the fold said to each record.
    pub said: Vec<Vec<Output>>,
    /// The fold, uninterrupted.
    pub shard: Shard,
    now: Time,
    commands: Vec<Vec<u8>>,
    starts: Vec<Vec<u8>>,
}

impl Life {
    /// Lives through what happens, and then through friendly answers. `seen` looks at the shard after every record.
    pub fn live(
        definition: &str,
        happenings: &[Happening],
        mut seen: impl FnMut(&Shard, usize, &Logged, &[Output], &Notice),
    ) -> Self {
        let mut life = Self {
            log: Vec::new(),
            said: Vec::new(),
            shard: Shard::new(identity()),
            now: Time::from_epoch_ms(T0_MS),
            commands: Vec::new(),
            starts: Vec::new(),
        };
        let data = Payload::from_json(definition.to_owned()).unwrap();
        life.append(DefinitionApplied { offset: 0, data: data.as_ref() }.to_json(), &mut seen);
        life.settings("2s", &mut seen);
        assert_eq!(life.shard.definitions().last_offset(), 0, "{definition}");
        for happening in happenings {
            if let Some(value) = life.value_of(*happening) {
                life.append(value, &mut seen);
            }
        }
        life.end_well(&mut seen);
        life
    }

    fn settings(&mut self, window: &str, seen: &mut impl FnMut(&Shard, usize, &Logged, &[Output], &Notice)) {
        self.append(settings(window), seen);
    }

    fn append(&mut self, value: Vec<u8>, seen: &mut impl FnMut(&Shard, usize, &Logged, &[Output], &Notice)) {
        let logged = Logged { timestamp: self.now, value };
        let offset = self.log.len();
        let mut outputs = Vec::new();
        let notice = self.shard.apply(&logged.record(offset), &mut outputs);
        for output in &outputs {
            if matches!(output.destination, Destination::Commands(_)) {
                self.commands.push(output.value.as_deref().unwrap().to_vec());
            }
        }
        seen(&self.shard, offset, &logged, &outputs, &notice);
        self.log.push(logged);
        self.said.push(outputs);
    }

    fn value_of(&mut self, happening: Happening) -> Option<Vec<u8>> {
        match happening {
            Happening::Start(which) => {
                let again = (which >= 200).then(|| chosen(&self.starts, which)).flatten();
                let start = again.cloned().unwrap_or_else(|| {
                    let id: TransactionId = IDS[usize::from(which) % IDS.len()].parse().unwrap();
                    start(id, self.now)
                });
                self.starts.push(start.clone());
                Some(start)
            }
            Happening::Answer(said, which) => {
                let recent = self.commands.len().saturating_sub(8);
                let command = chosen(self.commands.get(recent..)?, which)?;
                Some(answer(command, said))
            }
            Happening::Ring => self.ring(),
            Happening::Pass(ms) => {
                self.now = self.now.after(Span::from_ms(ms.into()));
                None
            }
            Happening::Wish(cancel, which) => {
                let wish = match (cancel, which / 64) {
                    (true, 0) => Wish::Pause,
                    (false, 0) => Wish::Resume,
                    (true, _) => Wish::Cancel,
                    (false, _) => Wish::Retry,
                };
                Some(verb(IDS[usize::from(which) % IDS.len()].parse().unwrap(), wish))
            }
            Happening::Again(which) => {
                let at = self.log.len().checked_sub(1 + usize::from(which) % 16)?;
                Some(self.log.get(at)?.value.clone())
            }
            Happening::Window(seconds) => Some(settings(&format!("{seconds}s"))),
            Happening::Garbage => Some(b"{\"specversion\":\"1.0\",\"type\":\"sagamore.reply.v1\"}".to_vec()),
        }
    }

    fn ring(&mut self) -> Option<Vec<u8>> {
        let due = self.shard.timers().next_due()?;
        self.now = self.now.max(due);
        let entry = self.shard.timers().due(self.now).next()?;
        Some(self.shard.timer_of(entry)?.to_json())
    }

    fn end_well(&mut self, seen: &mut impl FnMut(&Shard, usize, &Logged, &[Output], &Notice)) {
        for _ in 0..200 {
            let Some(transaction) = self.shard.open_transactions().next().cloned() else { return };
            let value = match waiting_for(&transaction) {
                _ if transaction.phase == Phase::Paused => verb(transaction.id.clone(), Wish::Resume),
                Some(BranchPhase::Stuck(_)) => verb(transaction.id.clone(), Wish::Retry),
                Some(BranchPhase::Asked(_)) => {
                    let of_it = self.commands.iter().rev().find(|command| {
                        let address = read_command(Some(command)).unwrap().address;
                        address.birth == transaction.birth && is_asked(&self.shard, &transaction, &address)
                    });
                    answer(of_it.unwrap(), Said::Ok)
                }
                _ => match self.ring() {
                    Some(value) => value,
                    None => return,
                },
            };
            self.append(value, seen);
        }
    }
}

fn waiting_for(transaction: &Transaction) -> Option<BranchPhase> {
    let phases = transaction.branches.iter().map(|step| &step.phase);
    let asked = phases.clone().find(|phase| matches!(phase, BranchPhase::Asked(_)));
    asked.or_else(|| phases.clone().find(|phase| matches!(phase, BranchPhase::Stuck(_)))).cloned()
}

fn is_asked(shard: &Shard, transaction: &Transaction, address: &sagamore_schemas::wire::Address<'_>) -> bool {
    let (_, plan, _) = shard.definitions().iter().next().unwrap();
    let index = plan.branch_named(&address.step, &address.branch).unwrap();
    match transaction.branch(index).phase {
        BranchPhase::Asked(call) => call.operation == address.operation && call.attempt == address.attempt,
        _ => false,
    }
}

fn chosen<T>(all: &[T], which: u8) -> Option<&T> {
    all.get(usize::from(which) % all.len().max(1))
}

fn start(subject: TransactionId, time: Time) -> Vec<u8> {
    let data = Payload::from_json(format!(r#"{{"n":"{subject}"}}"#)).unwrap();
    let definition = "d".parse().unwrap();
    Start { subject, time, definition, traceparent: None, data: data.as_ref() }.to_json("/life")
}

fn authority() -> Authority<'static> {
    Authority { id: "v".into(), actor: "life".into(), reason: "why not".into(), revision: None }
}

fn verb(subject: TransactionId, wish: Wish<'_>) -> Vec<u8> {
    Verb { subject, wish, authority: authority() }.to_json()
}

fn settings(window: &str) -> Vec<u8> {
    let data = Payload::from_json(format!(r#"{{"dedupe_window":"{window}"}}"#)).unwrap();
    let wish = ShardWish::Settings { data: data.as_ref() };
    ShardVerb { wish, authority: authority() }.to_json(identity().partition)
}

fn answer(command: &[u8], said: Said) -> Vec<u8> {
    let command = read_command(Some(command)).unwrap();
    let (outcome, reason) = match said {
        Said::Ok => (Answer::Ok, None),
        Said::Refused => (Answer::Refused, Some("no")),
        Said::Error => (Answer::Error, Some("down")),
        Said::Pending => (Answer::Pending, None),
        Said::Expired => (Answer::Refused, Some(REASON_EXPIRED)),
        Said::Lost => {
            return Undeliverable { address: command.address, reason: "no topic".into() }.to_json();
        }
    };
    let data = match said {
        Said::Ok => Payload::from_json(format!(r#"{{"did":"{}"}}"#, command.address.step)).unwrap(),
        Said::Refused | Said::Error | Said::Pending | Said::Expired | Said::Lost => Payload::Absent,
    };
    Reply {
        address: command.address,
        instance: command.instance,
        source: "/life".into(),
        outcome,
        reason: reason.map(Into::into),
        replytoken: None,
        data: data.as_ref(),
    }
    .to_json()
}
