//! The correctness gate before any number: everything started ended, exactly the planned ids turned back, each effect
//! once, nothing in flight. Pure: it is told what was seen and says what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use sagamore_schemas::wire::OutcomeKind;

use crate::roles::{EffectCount, EffectKey};
use sagamore_bench::workload::{Fate, Place, Workload};

/// Violations printed; there may be one for each id.
const PRINTED_MAX: usize = 10;

/// What was seen of one run.
pub(crate) struct Evidence<'a> {
    pub run: u32,
    pub workload: Workload,
    /// Outcome of each id that was started, by index.
    pub outcomes: &'a [Option<OutcomeKind>],
    /// Outcomes that contradict the first of their id, or are of ids that nobody started.
    pub contradictions: &'a [String],
    /// What the participants say they have done.
    pub ledger: &'a BTreeMap<EffectKey, EffectCount>,
    /// What the server says is open.
    pub open: u64,
}

/// A run that must not have a number.
#[derive(Debug, thiserror::Error)]
pub(crate) struct GateError {
    violations: Vec<String>,
}

impl fmt::Display for GateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the gate does not open, so there is no number: {} wrong", self.violations.len())?;
        for violation in self.violations.iter().take(PRINTED_MAX) {
            write!(formatter, "\n  {violation}")?;
        }
        Ok(())
    }
}

pub(crate) fn check(evidence: &Evidence<'_>) -> Result<(), GateError> {
    let mut violations = evidence.contradictions.to_vec();
    if evidence.outcomes.is_empty() {
        violations.push("nothing was started".to_owned());
    }
    if evidence.open > 0 {
        violations.push(format!("{} transactions are still open", evidence.open));
    }
    for (index, outcome) in (0_u64..).zip(evidence.outcomes) {
        match outcome {
            None => violations.push(format!("{index} was started and has not ended")),
            Some(told) if !evidence.workload.allows(index, *told) => {
                let fate = evidence.workload.fate(index);
                violations.push(format!("{index} ended {told}, planned was {fate:?}"));
            }
            Some(_) => {}
        }
        for place in 0..evidence.workload.places().len() {
            violations.extend(look_at_place(evidence, index, place));
        }
    }
    let started = u64::try_from(evidence.outcomes.len()).unwrap_or(u64::MAX);
    let unasked = evidence.ledger.keys().filter(|key| key.index >= started || key.run != evidence.run);
    violations
        .extend(unasked.map(|key| format!("an effect for {} of run {}: never started", key.index, key.run)));
    if violations.is_empty() { Ok(()) } else { Err(GateError { violations }) }
}

fn look_at_place(evidence: &Evidence<'_>, index: u64, place: usize) -> Option<String> {
    let Place { step, branch, votes } = evidence.workload.places()[place];
    let key = EffectKey { run: evidence.run, index, place: u16::try_from(place).unwrap_or(u16::MAX) };
    let count = evidence.ledger.get(&key).copied().unwrap_or_default();
    let is_right = match evidence.workload.fate(index) {
        Fate::Commits => count == EffectCount { done: 1, undone: 0, committed: u16::from(votes) },
        Fate::Refused(refusing) if refusing == place => count == EffectCount::default(),
        // Whether the others were asked before the refusal came is a matter of timing in a graph; in a chain it is not.
        Fate::Refused(refusing) if evidence.workload == Workload::Order => {
            let asked = u16::from(place < refusing);
            count == EffectCount { done: asked, undone: asked, committed: 0 }
        }
        Fate::Refused(_) => count.done == count.undone && count.done <= 1 && count.committed == 0,
    };
    (!is_right).then(|| format!("{index} at {step}/{branch}: {count:?} is not its plan's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a flawless run of thirty orders leaves behind.
    struct Seen {
        outcomes: Vec<Option<OutcomeKind>>,
        contradictions: Vec<String>,
        ledger: BTreeMap<EffectKey, EffectCount>,
        open: u64,
    }

    fn flawless(workload: Workload) -> Seen {
        let mut ledger = BTreeMap::new();
        let mut outcomes = Vec::new();
        for index in 0..30 {
            let fate = workload.fate(index);
            outcomes.push(Some(match fate {
                Fate::Commits => OutcomeKind::Committed,
                Fate::Refused(_) => OutcomeKind::Compensated,
            }));
            for (place, Place { votes, .. }) in (0_u16..).zip(workload.places()) {
                let count = match fate {
                    Fate::Commits => EffectCount { done: 1, undone: 0, committed: u16::from(*votes) },
                    Fate::Refused(refusing) if usize::from(place) < refusing => {
                        EffectCount { done: 1, undone: 1, committed: 0 }
                    }
                    Fate::Refused(_) => continue,
                };
                ledger.insert(EffectKey { run: 3, index, place }, count);
            }
        }
        Seen { outcomes, contradictions: Vec::new(), ledger, open: 0 }
    }

    fn judge(workload: Workload, plant: impl FnOnce(&mut Seen)) -> Result<(), String> {
        let mut seen = flawless(workload);
        plant(&mut seen);
        let evidence = Evidence {
            run: 3,
            workload,
            outcomes: &seen.outcomes,
            contradictions: &seen.contradictions,
            ledger: &seen.ledger,
            open: seen.open,
        };
        check(&evidence).map_err(|error| error.to_string())
    }

    fn effect(seen: &mut Seen, index: u64, place: u16) -> &mut EffectCount {
        seen.ledger.entry(EffectKey { run: 3, index, place }).or_default()
    }

    #[test]
    fn a_flawless_run_passes() {
        for workload in [Workload::Order, Workload::TwoPhase, Workload::Mixed, Workload::Graph] {
            judge(workload, |_| ()).expect("flawless");
        }
    }

    #[test]
    fn what_is_planted_is_found() {
        type Plant = fn(&mut Seen);
        let planted: [(&str, Plant); 13] = [
            ("4 was started and has not ended", |seen| seen.outcomes[4] = None),
            ("2 transactions are still open", |seen| seen.open = 2),
            ("4 ended compensated", |seen| seen.outcomes[4] = Some(OutcomeKind::Compensated)),
            ("9 ended committed", |seen| seen.outcomes[9] = Some(OutcomeKind::Committed)),
            ("29 ended aborted", |seen| seen.outcomes[29] = Some(OutcomeKind::Aborted)),
            ("4 ended stuck", |seen| seen.outcomes[4] = Some(OutcomeKind::Stuck)),
            ("told twice", |seen| seen.contradictions.push("4: told twice".to_owned())),
            ("4 at reserve/reserve", |seen| effect(seen, 4, 0).done = 2),
            ("4 at book/book", |seen| *effect(seen, 4, 2) = EffectCount::default()),
            ("9 at reserve/reserve", |seen| effect(seen, 9, 0).undone = 0),
            ("29 at charge/charge", |seen| effect(seen, 29, 1).undone = 2),
            ("9 at charge/charge", |seen| effect(seen, 9, 1).done = 1),
            ("never started", |seen| effect(seen, 30, 0).done = 1),
        ];
        for (expected, plant) in planted {
            let told = judge(Workload::Order, plant).expect_err(expected);
            assert!(told.contains(expected) && told.contains("no number"), "{expected}: {told}");
        }
    }

    #[test]
    fn a_branch_that_prepared_must_hear() {
        let told = judge(Workload::TwoPhase, |seen| effect(seen, 4, 0).committed = 0).expect_err("in doubt");
        assert!(told.contains("4 at pay/reserve"), "{told}");
        let told = judge(Workload::TwoPhase, |seen| effect(seen, 29, 1).undone = 0).expect_err("held");
        assert!(told.contains("29 at pay/charge"), "{told}");
        let told = judge(Workload::Mixed, |seen| effect(seen, 29, 3).committed = 1).expect_err("split");
        assert!(told.contains("29 at pay/reserve"), "{told}");
    }

    #[test]
    fn nothing_started_is_no_success() {
        let told = judge(Workload::Order, |seen| {
            seen.outcomes.clear();
            seen.ledger.clear();
        });
        assert!(told.expect_err("empty").contains("nothing was started"));
    }
}
