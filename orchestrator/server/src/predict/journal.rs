//! What participants have answered so far, read from the journal: per branch how probable each answer to an attempt is,
//! and how long it takes.
//!
//! ```text
//! entry: changes "asked execute 1" ─▶ an attempt is out ─▶ reply to it: ok, refused, error   its timer: silence
//!                                                      └─▶ the transaction turned back: not counted
//! ```
//! An attempt begins with the input that asked it and ends with the record that answered it, by the broker's clock: Kafka
//! and coordinator are counted in. An answer to an attempt that had timed out has been counted as silence, as the model
//! takes it. `pending` goes on. `expired` is no answer of the business, and not counted.
//!
//! Of `n` attempts of which `k` went so, the rate is `k/n`, and where it may lie with 95 %: E. B. Wilson, "Probable
//! inference, the law of succession, and statistical inference", JASA 22, 1927.
//!
//! Deliberately absent: guesses. What was never seen has no number, and what was hardly seen is said to be.

use std::collections::{BTreeMap, HashMap};

use sagamore_decider::definition::plan::{BranchIndex, Plan};
use sagamore_schemas::ids::{Birth, Name, Span, Time};
use sagamore_schemas::log::{JournalEntry, Sealed};
use sagamore_schemas::wire::{Answer, Operation, REASON_EXPIRED};
use serde::Serialize;

use super::model::{Latency, Numbers, names};

/// Attempts from which on a rate is taken without a word: it is known to ten percent then, more or less.
pub const ATTEMPTS_ENOUGH: u32 = 100;
/// Two-sided 95 % of a normal distribution.
const QUANTILE: f64 = 1.959_963_984_540_054;

/// Reads entries, transaction by transaction in the order of the log.
#[derive(Debug)]
pub struct Observer<'a> {
    plan: &'a Plan,
    definition: String,
    open: HashMap<Birth, Life>,
    /// Lives whose birth has come again, in another journal.
    before: Vec<Life>,
}

/// One transaction.
#[derive(Debug)]
struct Life {
    born: Time,
    asked: BTreeMap<BranchIndex, Asked>,
    seen: Vec<Attempt>,
}

/// An attempt that is out.
#[derive(Debug, Clone, Copy)]
struct Asked {
    operation: Operation,
    attempt: u32,
    at: Time,
}

/// An attempt that is over.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    branch: BranchIndex,
    is_forward: bool,
    came_to: CameTo,
    /// Until it was answered.
    took: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CameTo {
    Ok,
    Refused,
    Error,
    Silence,
}

/// What was seen of a definition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// How many transactions.
    pub transactions: usize,
    /// Each branch by itself.
    pub branches: Vec<MeasuredBranch>,
}

/// What was seen of one branch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredBranch {
    /// Its name, `step/branch` in a group.
    pub name: String,
    /// Attempts of `execute` or `prepare`.
    pub attempts: u32,
    /// Answered `ok`.
    pub p: Rate,
    /// Answered `refused`.
    pub refused: Rate,
    /// Answered `error`, or not to be delivered. The rest is silence.
    pub error: Rate,
    /// Attempts of what had been decided.
    pub undo_attempts: u32,
    /// Of these, answered `ok`.
    pub undo: Rate,
    /// From command to answer; none without an answer.
    pub latency: Option<Latency>,
}

/// Of so many attempts, so many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// Which part; none of none.
    pub rate: Option<f64>,
    /// Where it may lie, with 95 %.
    pub least: f64,
    /// The same.
    pub most: f64,
}

impl Rate {
    /// `k` of `n`, with Wilson's interval.
    ///
    /// ```
    /// use sagamore::predict::journal::Rate;
    /// let rate = Rate::of(9, 10);
    /// assert_eq!(rate.rate, Some(0.9));
    /// assert!((rate.least - 0.596).abs() < 1e-3 && (rate.most - 0.982).abs() < 1e-3);
    /// ```
    pub fn of(k: u32, n: u32) -> Self {
        if n == 0 {
            return Self { count: 0, rate: None, least: 0.0, most: 1.0 };
        }
        let (count, n) = (k, f64::from(n));
        let p = f64::from(k) / n;
        let z2 = QUANTILE * QUANTILE;
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = QUANTILE / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Self { count, rate: Some(p), least: (middle - half).max(0.0), most: (middle + half).min(1.0) }
    }
}

impl<'a> Observer<'a> {
    /// Looks at the transactions of this very version.
    pub fn new(plan: &'a Plan) -> Self {
        let definition = format!("{}@{}", plan.name, plan.version);
        Self { plan, definition, open: HashMap::new(), before: Vec::new() }
    }

    /// How many transactions have been seen from their start on.
    pub fn transactions(&self) -> usize {
        self.open.len() + self.before.len()
    }

    /// A record of the journal.
    pub fn read(&mut self, value: &[u8]) -> Result<(), serde_json::Error> {
        // A takeover's barrier stands there too.
        let Ok(sealed) = serde_json::from_slice::<Vec<Sealed>>(value) else { return Ok(()) };
        for sealed in sealed {
            self.see(&serde_json::from_str(sealed.entry.get())?);
        }
        Ok(())
    }

    /// An entry.
    pub fn see(&mut self, entry: &JournalEntry) {
        let Some(birth) = entry.birth else { return };
        if entry.input == "start" {
            if entry.definition.as_deref() != Some(self.definition.as_str()) {
                return;
            }
            let life = Life { born: entry.at, asked: BTreeMap::new(), seen: Vec::new() };
            self.before.extend(self.open.insert(birth, life));
        }
        // Begun before what is read here, or of another definition.
        let Some(life) = self.open.get_mut(&birth) else { return };
        let index = |step: &str, branch: Option<&str>| {
            let mut all = self.plan.branch_indexes();
            all.find(|index| {
                let (planned, own) = self.plan.branch(*index);
                planned.name.as_str() == step && branch.is_none_or(|branch| own.name.as_str() == branch)
            })
        };
        let own = entry
            .step
            .as_ref()
            .and_then(|step| index(step.as_str(), entry.branch.as_ref().map(Name::as_str)));
        if let Some(own) = own
            && let Some(asked) = life.asked.get(&own).copied()
        {
            life.seen.extend(ended(entry, own, asked));
        }
        for change in &entry.changes {
            let Some(index) = index(change.step.as_str(), change.branch.as_ref().map(Name::as_str)) else {
                continue;
            };
            match asked(&change.phase) {
                Some((operation, attempt)) => {
                    let is_same = |asked: &Asked| (asked.operation, asked.attempt) == (operation, attempt);
                    if !life.asked.get(&index).is_some_and(is_same) {
                        life.asked.insert(index, Asked { operation, attempt, at: entry.at });
                    }
                }
                None => drop(life.asked.remove(&index)),
            }
        }
    }

    /// What the newest so many transactions say.
    pub fn measured(self, newest: usize) -> Measured {
        let mut lives: Vec<Life> = self.open.into_values().chain(self.before).collect();
        lives.sort_by_key(|life| std::cmp::Reverse(life.born));
        lives.truncate(newest);
        let branches = self.plan.branch_indexes().map(|index| {
            let attempts = lives.iter().flat_map(|life| &life.seen).filter(|one| one.branch == index);
            branch(names(self.plan, index).1, &attempts.copied().collect::<Vec<_>>())
        });
        Measured { branches: branches.collect(), transactions: lives.len() }
    }
}

/// What an input made of the attempt that was out.
fn ended(entry: &JournalEntry, branch: BranchIndex, asked: Asked) -> Option<Attempt> {
    let is_answer = (entry.operation, entry.attempt) == (Some(asked.operation), Some(asked.attempt));
    let took = entry.at.since(asked.at);
    let is_expired = entry.reason.as_deref() == Some(REASON_EXPIRED);
    let (came_to, took) = match (entry.answer, &*entry.input) {
        (Some(Answer::Ok), _) if is_answer => (CameTo::Ok, Some(took)),
        (Some(Answer::Refused), _) if is_answer && !is_expired => (CameTo::Refused, Some(took)),
        (Some(Answer::Error), _) if is_answer => (CameTo::Error, Some(took)),
        (None, "timer") => (CameTo::Silence, None),
        (None, "undeliverable") => (CameTo::Error, None),
        _ => return None,
    };
    let is_forward = matches!(asked.operation, Operation::Execute | Operation::Prepare);
    Some(Attempt { branch, is_forward, came_to, took })
}

/// `asked execute 2`
fn asked(phase: &str) -> Option<(Operation, u32)> {
    let mut words = phase.strip_prefix("asked ")?.split(' ');
    let operation = words.next()?;
    let all = [
        Operation::Execute,
        Operation::Compensate,
        Operation::Prepare,
        Operation::Precommit,
        Operation::Commit,
        Operation::Abort,
    ];
    let operation = all.into_iter().find(|one| one.to_string() == operation)?;
    Some((operation, words.next()?.parse().ok()?))
}

fn branch(name: String, attempts: &[Attempt]) -> MeasuredBranch {
    let count = |is_forward: bool, came_to: Option<CameTo>| {
        let of = attempts.iter().filter(|one| one.is_forward == is_forward);
        let count = of.filter(|one| came_to.is_none_or(|came_to| one.came_to == came_to)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let (forward, decided) = (count(true, None), count(false, None));
    let mut took_ms: Vec<u64> = attempts.iter().filter_map(|one| one.took).map(Span::as_ms).collect();
    took_ms.sort_unstable();
    // The nearest rank: the least that so many percent do not exceed.
    let percentile = |percent: usize| {
        let rank = (took_ms.len() * percent).div_ceil(100).max(1);
        took_ms.get(rank - 1).map(|ms| Span::from_ms((*ms).max(1)))
    };
    let latency = percentile(50).zip(percentile(99)).map(|(p50, p99)| Latency { p50, p99 });
    MeasuredBranch {
        name,
        attempts: forward,
        p: Rate::of(count(true, Some(CameTo::Ok)), forward),
        refused: Rate::of(count(true, Some(CameTo::Refused)), forward),
        error: Rate::of(count(true, Some(CameTo::Error)), forward),
        undo_attempts: decided,
        undo: Rate::of(count(false, Some(CameTo::Ok)), decided),
        latency,
    }
}

impl MeasuredBranch {
    /// As if they had been given by hand; what was never seen is left open.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            p: self.p.rate,
            refused: self.refused.rate,
            error: self.error.rate,
            undo: self.undo.rate,
            latency: self.latency,
            replicas: None,
        }
    }

    /// What is to be said of a number that few attempts stand behind.
    pub fn doubts(&self) -> Option<String> {
        let Self { name, attempts, p, .. } = self;
        (*attempts < ATTEMPTS_ENOUGH).then(|| match p.rate {
            None => format!("{name}: no attempt was seen"),
            Some(rate) => format!(
                "{name}: {attempts} attempts are few: p = {rate:.4} may be anything from {:.4} to {:.4}",
                p.least, p.most
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_where_the_normal_one_fails() {
        let check = |k, n, least: f64, most: f64| {
            let rate = Rate::of(k, n);
            assert!((rate.least - least).abs() < 5e-4 && (rate.most - most).abs() < 5e-4, "{rate:?}");
        };
        check(0, 10, 0.0, 0.2775);
        check(10, 10, 0.7225, 1.0);
        check(50, 100, 0.4038, 0.5962);
        check(0, 0, 0.0, 1.0);
        assert_eq!(Rate::of(0, 0).rate, None);
    }
}
