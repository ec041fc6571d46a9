//! One run to its end, many runs, and the smallest run that still fails.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use sagamore_decider::invariants as inv;
use sagamore_decider::planted;
use sagamore_schemas::ids::Birth;
use sagamore_schemas::log::{JournalEntry, Sealed};
use sagamore_schemas::wire::{Asked, Input, OutcomeKind, read_input};

use crate::defects::Defect;
use crate::desk::Standing;
use crate::faults::Fault;
use crate::kafka::{Bytes, Place};
use crate::rows::RowsTaken;
use crate::server::{caught, place_of_output};
use crate::witness::Violation;
use crate::workload::{PARTICIPANTS, moves_money};
use crate::world::{Plan, World};

/// Rows that only a person takes who has done in the world what the participants have not. Their cases are in the fold's
/// tests; here nobody's hands are simulated.
const BY_HAND: [&str; 1] = ["C19"];

/// What came of one run.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// What must not be, if it was.
    pub violation: Option<Violation>,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<Fault, u64>,
    /// Rows of transition tables that were taken.
    pub rows: BTreeSet<String>,
    /// Transactions by how they ended; `open` is stuck for good, or in a shard that an injected fault has halted.
    pub ended: BTreeMap<String, u64>,
    /// Inbox records folded by the witness.
    pub records: u64,
    /// Halts that are accepted although no fault was meant to cause them, with the evidence.
    pub accepted: Vec<String>,
}

/// Runs a plan, with a defect or none.
pub fn run(plan: &Plan, defect: Option<Defect>) -> Told {
    run_with(plan, defect, None).0
}

/// The same, and what happened, line by line.
pub fn run_with(plan: &Plan, defect: Option<Defect>, story: Option<Vec<String>>) -> (Told, Vec<String>) {
    crate::defects::plant(defect);
    let mut world = World::new(plan.clone());
    world.story = story;
    let mut rows = BTreeSet::new();
    let violation = match caught(|| world.run()) {
        Ok(violation) => violation,
        Err(text) => {
            world.witness.panicked(&text);
            world.witness.violation.clone()
        }
    };
    if violation.is_none() {
        rows = std::mem::take(&mut world.rows);
    }
    let mut told = Told { violation, rows, records: world.witness.records, ..Told::default() };
    told.accepted = std::mem::take(&mut world.accepted)
        .into_values()
        .map(|evidence| format!("seed {}, {evidence}", plan.seed))
        .collect();
    for (fault, count) in world.faults.fired() {
        told.faults.insert(fault, count);
    }
    for (_, fold) in world.witness.folds() {
        told.rows.extend(fold.rows.iter().map(|row| (*row).to_owned()));
        for seen in fold.born.values() {
            let how = seen.ended.map_or_else(|| "open".to_owned(), |kind| kind.to_string());
            *told.ended.entry(how).or_default() += 1;
        }
    }
    crate::defects::plant(None);
    planted::set_level_max(1);
    (told, world.story.take().unwrap_or_default())
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Plans that failed, with what they violated; the first few.
    pub failures: Vec<(Plan, Violation)>,
    /// The sums.
    pub told: Told,
}

impl Summary {
    fn add(&mut self, plan: &Plan, told: Told) {
        self.runs += 1;
        if let Some(violation) = &told.violation {
            self.failures.push((plan.clone(), violation.clone()));
        }
        self.told.add(told);
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.failures.extend(other.failures);
        self.told.add(other.told);
    }
}

impl Told {
    /// Rows of transition tables that were not taken.
    pub fn rows_untaken(&self) -> Vec<String> {
        let untaken = RowsTaken::specified();
        untaken.difference(&self.rows).filter(|row| !BY_HAND.contains(&row.as_str())).cloned().collect()
    }

    /// Sums up; what was violated stays with its run.
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.rows.extend(other.rows);
        self.accepted.extend(other.accepted);
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (how, count) in other.ended {
            *self.ended.entry(how).or_default() += count;
        }
    }
}

/// Runs seeds `from..from + count` on so many threads, each run in one of them; stops after a few failures.
pub fn many(
    from: u64,
    count: u64,
    transactions: usize,
    threads: usize,
    progress: &(dyn Fn() + Sync),
) -> Summary {
    const FAILURES_MAX: usize = 5;
    let next = AtomicU64::new(from);
    let failures = AtomicU64::new(0);
    let parts = std::thread::scope(|scope| {
        let work = || {
            quietly();
            let mut summary = Summary::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + count || failures.load(Ordering::Relaxed) >= FAILURES_MAX as u64 {
                    return summary;
                }
                let plan = Plan { seed, transactions, ..Plan::default() };
                let told = run(&plan, None);
                if told.violation.is_some() {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
                summary.add(&plan, told);
                progress();
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
    });
    let mut all = Summary::default();
    for part in parts {
        all.merge(part);
    }
    all.failures.sort_by_key(|(plan, _)| plan.seed);
    all
}

/// The first seed of `0..most` that shows a planted defect, and what it violates.
pub fn hunt(defect: Defect, most: u64, transactions: usize) -> Option<(u64, Violation)> {
    quietly();
    (0..most).find_map(|seed| {
        let plan = Plan { seed, transactions, ..Plan::default() };
        Some((seed, run(&plan, Some(defect)).violation?))
    })
}

/// Panics are caught and reported as violations: they need not be printed, too.
pub fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !crate::server::is_catching() {
                before(info);
            }
        }));
    });
}

/// Leaves out orders and kinds of faults while the same invariant is still violated.
pub fn shrink(plan: &Plan, defect: Option<Defect>, violation: &Violation) -> Plan {
    let mut smallest = plan.clone();
    let fails = |plan: &Plan| {
        run(plan, defect).violation.is_some_and(|found| found.invariant.id == violation.invariant.id)
    };
    for number in 0..plan.transactions {
        let mut smaller = smallest.clone();
        smaller.without_orders.push(number);
        if fails(&smaller) {
            smallest = smaller;
        }
    }
    for fault in Fault::ALL {
        let mut smaller = smallest.clone();
        smaller.without_faults.push(*fault);
        if fails(&smaller) {
            smallest = smaller;
        }
    }
    smallest
}

/// A record where it arrived: place, key, value.
type Arrived = (Place, Option<Bytes>, Option<Bytes>);

impl World {
    /// Whether there is nothing left to wait for.
    pub(crate) fn is_over(&mut self) -> bool {
        if !self.is_quiet() {
            return false;
        }
        let states = self.shard_states();
        (0..self.partitions).all(|partition| {
            let doomed = self.doomed.contains_key(&partition);
            let states = states.get(&partition).map(Vec::as_slice).unwrap_or_default();
            if doomed && states.contains(&"halted") {
                return true;
            }
            let at_rest = states == ["at rest"];
            let fold = self.witness.folds().find(|(number, _)| *number == partition).map(|(_, fold)| fold);
            at_rest
                && fold.is_some_and(|fold| {
                    fold.held.is_none() && fold.shard.open_transactions().all(|open| self.rests(fold, open))
                })
        })
    }

    /// What must hold when everything has ended.
    pub(crate) fn check_the_end(&mut self) {
        let arrived = self.arrived();
        for partition in 0..self.partitions {
            if self.doomed.get(&partition) == Some(&Fault::InboxCut) {
                continue;
            }
            self.check_journal(partition);
            self.check_outputs(partition, &arrived);
            self.check_effects(partition);
        }
        self.check_families();
    }

    fn arrived(&mut self) -> BTreeSet<Arrived> {
        let inboxes = (0..self.partitions).filter(|_| self.has_children).map(Place::Inbox);
        let places = (0..PARTICIPANTS).map(Place::Commands).chain([Place::Outcomes, Place::DeadLetters]);
        let mut there = BTreeSet::new();
        for place in places.chain(inboxes) {
            let entries = self.kafka.at(place).visible();
            there.extend(entries.map(|entry| (place, entry.record.key.clone(), entry.record.value.clone())));
        }
        there
    }

    /// A shard that has halted for good may have parts of a checkpoint in its journal, as readers of a live one may for
    /// a moment: there the journal holds up to the last whole checkpoint.
    fn check_journal(&mut self, partition: i32) {
        let doomed = self.doomed.contains_key(&partition);
        let stored = self.last_checkpoint(partition).map(|(_, head)| head);
        let until = if doomed { stored.as_ref().map_or(0, |head| head.next_offset) } else { i64::MAX };
        let (entries, _) = self.kafka.read_committed(Place::Journal(partition), 0, i64::MAX);
        let mut sealed: BTreeMap<(i64, u32), (String, Sealed)> = BTreeMap::new();
        for entry in &entries {
            let key = entry.record.key.as_deref().unwrap_or_default();
            if key == sagamore_schemas::log::BARRIER_KEY {
                continue;
            }
            let read: Result<Vec<Sealed>, _> =
                serde_json::from_slice(entry.record.value.as_deref().unwrap_or_default());
            let Ok(read) = read else {
                return self.witness.violated(&inv::JOURNAL_IS_THE_FOLD, "a record that is no journal");
            };
            for one in read {
                let Ok(parsed) = serde_json::from_str::<JournalEntry>(one.entry.get()) else {
                    return self.witness.violated(&inv::JOURNAL_IS_THE_FOLD, "an entry that cannot be read");
                };
                let place = (parsed.offset, parsed.sequence);
                if parsed.offset >= until {
                    continue;
                }
                let text = one.entry.get().to_owned();
                if let Some((known, _)) = sealed.get(&place)
                    && *known != text
                {
                    let seen = format!("shard {partition}, entry {place:?} is there twice, and differs");
                    return self.witness.violated(&inv::JOURNAL_IS_THE_FOLD, seen);
                }
                sealed.insert(place, (text, one));
            }
        }
        let plans = self.witness.fold(partition).shard.definitions().iter();
        let committing = plans.flat_map(|(_, plan, _)| &plan.steps).filter(|step| step.protocol.is_some());
        let committing = committing.map(|step| step.name.to_string()).collect();
        let mut rows = RowsTaken::default();
        rows.committing = committing;
        let plans = self.witness.fold(partition).shard.definitions().iter();
        let children = plans.flat_map(|(_, plan, _)| &plan.steps).filter(|step| step.is_child());
        rows.children = children.map(|step| step.name.to_string()).collect();
        let records: Vec<(Vec<u8>, Vec<u8>)> = sealed
            .into_values()
            .map(|(text, one)| {
                let entry: Option<JournalEntry> = serde_json::from_str(&text).ok();
                let id = entry.and_then(|entry| Some(entry.transaction?.to_string())).unwrap_or_default();
                let value = format!(r#"[{{"entry":{text},"chain":"{}"}}]"#, one.chain);
                (id.into_bytes(), value.into_bytes())
            })
            .collect();
        let head = match stored {
            Some(stored) if doomed => stored.chain,
            _ => self.witness.fold(partition).shard.journal().head().clone(),
        };
        let found = caught(|| {
            let entries = rows.read(&records);
            for entry in &entries {
                rows.rows_of(entry);
            }
            entries.last().map(|entry| (entry.offset, entry.sequence))
        });
        match found {
            Err(text) => {
                self.witness.violated(&inv::JOURNAL_IS_THE_FOLD, format!("shard {partition}: {text}"));
            }
            Ok(last) => {
                let last = last.unwrap_or((-1, 0));
                if last != (head.offset, head.sequence) {
                    let seen =
                        format!("shard {partition}: the journal ends at {last:?}, the fold at {head:?}");
                    self.witness.violated(&inv::JOURNAL_IS_THE_FOLD, seen);
                }
                self.rows.append(&mut rows.rows);
            }
        }
    }

    fn check_outputs(&mut self, partition: i32, there: &BTreeSet<Arrived>) {
        let is_cut = |place| {
            let Place::Inbox(partition) = place else { return false };
            self.doomed.get(&partition) == Some(&Fault::InboxCut)
        };
        let cut: Vec<Place> = (0..self.partitions).map(Place::Inbox).filter(|place| is_cut(*place)).collect();
        let undeliverable: BTreeSet<String> = self
            .kafka
            .at(Place::Inbox(partition))
            .visible()
            .filter_map(|entry| match read_input(entry.record.value.as_deref()) {
                Ok(Input::Undeliverable(lost)) => Some(lost.address.command_id()),
                _ => None,
            })
            .collect();
        let doomed = self.doomed.contains_key(&partition);
        let drops = |fault: Fault| [Fault::Undeliverable, Fault::DeadTopic].contains(&fault);
        let has_dropped = self.faults.fired().any(|(fault, count)| count > 0 && drops(fault));
        let mut missing = None;
        for output in self.witness.fold(partition).said.iter().flatten() {
            let place = place_of_output(output);
            let key = (place, output.key.as_deref().map(Rc::from), output.value.as_deref().map(Rc::from));
            if there.contains(&key) || doomed || cut.contains(&place) {
                continue;
            }
            match sagamore_schemas::wire::read_asked(output.value.as_deref()) {
                Ok(Asked::Command(lost)) if undeliverable.contains(&lost.address.command_id()) => continue,
                // Whoever is in doubt asks again.
                Ok(Asked::Verdict(_)) if has_dropped => continue,
                Ok(Asked::Command(_) | Asked::Verdict(_)) | Err(_) => {}
            }
            missing = Some(String::from_utf8_lossy(output.value.as_deref().unwrap_or_default()).into_owned());
            break;
        }
        if let Some(missing) = missing {
            self.witness.violated(&inv::OUTPUTS_ARRIVE, format!("shard {partition}: nowhere is {missing}"));
        }
    }

    fn check_effects(&mut self, partition: i32) {
        let doomed = self.doomed.contains_key(&partition);
        let born = self.witness.fold(partition).born.clone();
        let mut stands: BTreeMap<&Birth, BTreeMap<String, Standing>> = BTreeMap::new();
        for desk in &self.desks {
            desk.read(|ledger| {
                for (key, standing) in ledger.effects.iter() {
                    let Some((birth, branch)) = key.split_once('/') else { continue };
                    let Some((birth, _)) = birth.parse().ok().and_then(|birth| born.get_key_value(&birth))
                    else {
                        continue;
                    };
                    let sum = stands.entry(birth).or_default().entry(branch.to_owned()).or_default();
                    sum.held += standing.held;
                    sum.count += standing.count;
                    sum.delta += standing.count * standing.delta;
                }
            });
        }
        for (birth, seen) in &born {
            let Some(ended) = seen.ended.filter(|_| !doomed) else { continue };
            let all = stands.remove(birth).unwrap_or_default();
            let wanted = match ended {
                OutcomeKind::Committed => seen.begun(),
                OutcomeKind::Compensated | OutcomeKind::Aborted => BTreeSet::new(),
                OutcomeKind::Refused | OutcomeKind::Stuck => unreachable!("no end: {ended}"),
            };
            let missing = wanted.iter().any(|branch| !all.contains_key(branch));
            let wrong = all.iter().any(|(branch, standing)| {
                standing.held != 0 || standing.count != i64::from(wanted.contains(branch))
            });
            if missing || wrong {
                let text =
                    format!("{} ({birth}) ended {ended}, and its branches stand {all:?}", seen.subject);
                return self.witness.violated(&inv::EFFECTS_AGREE, text);
            }
            let money: i64 = all.values().map(|standing| standing.delta).sum();
            if moves_money(&seen.definition) && money != 0 {
                let text = format!("{} ({birth}) ended {ended}, and {money} is left over", seen.subject);
                return self.witness.violated(&inv::MONEY_STAYS, text);
            }
        }
    }
}
