//! What the journal says was done, row by row of the saga's tables.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::log::{Decision, JournalEntry, Sealed, seal};
use sagamore_schemas::wire::{Answer, OutcomeKind};

/// One entry of the journal.
pub type Entry = JournalEntry;

/// Reads the journal of checkpoint after checkpoint, in the order of the log, and names the rows each entry took.
#[derive(Debug, Clone, Default)]
pub struct RowsTaken {
    phases: BTreeMap<(String, String), String>,
    chain: Option<sagamore_schemas::log::Digest256>,
    /// All rows so far.
    pub rows: BTreeSet<String>,
}

impl RowsTaken {
    /// The rows of the tables at the head of the saga.
    pub fn specified() -> BTreeSet<String> {
        let specified: BTreeSet<String> = include_str!("../../../src/protocol/saga.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter_map(|row| row.split(' ').next())
            .filter(|word| word.len() >= 2 && word[1..].bytes().all(|byte| byte.is_ascii_digit()))
            .map(str::to_owned)
            .collect();
        assert!(
            specified.contains("S21") && specified.contains("T7"),
            "the tables were found: {specified:?}"
        );
        specified
    }

    /// The entries of one checkpoint, in the order of the log; the chain is checked.
    pub fn read(&mut self, journal: &[(Vec<u8>, Vec<u8>)]) -> Vec<Entry> {
        let mut entries: Vec<(Entry, Sealed)> = Vec::new();
        for (key, value) in journal {
            for sealed in serde_json::from_slice::<Vec<Sealed>>(value).unwrap() {
                let entry: Entry = serde_json::from_str(sealed.entry.get()).unwrap();
                let id = entry.transaction.as_ref().map(ToString::to_string).unwrap_or_default();
                assert_eq!(key, id.as_bytes(), "an entry stands under its transaction");
                entries.push((entry, sealed));
            }
        }
        entries.sort_by_key(|(entry, _)| (entry.offset, entry.sequence));
        for (_, sealed) in &entries {
            let before = self.chain.unwrap_or(sagamore_schemas::log::Digest256([0; 32]));
            assert_eq!(seal(before, sealed.entry.get()), sealed.chain, "the chain holds");
            self.chain = Some(sealed.chain);
        }
        entries.into_iter().map(|(entry, _)| entry).collect()
    }

    /// The rows that this entry took.
    pub fn rows_of(&mut self, entry: &Entry) -> Vec<&'static str> {
        let Some(birth) = entry.birth else { return Vec::new() };
        let mut rows = Vec::new();
        for change in &entry.changes {
            let key = (birth.to_string(), change.step.to_string());
            let before = self.phases.insert(key, change.phase.clone()).unwrap_or_else(|| "waiting".into());
            let own = entry.step.as_deref() == Some(change.step.as_str());
            rows.push(step_row(entry, own, &before, &change.phase));
        }
        rows.extend(entry.decision.map(|decision| match (decision, entry.input.as_str()) {
            (Decision::Commit, _) => "T1",
            (Decision::Rollback, "cancel") => "T2",
            (Decision::Rollback, "timer") if entry.step.is_none() => "T2",
            (Decision::Rollback, _) => "T4",
        }));
        rows.extend(entry.outcome.map(|outcome| match outcome {
            OutcomeKind::Committed => "T5",
            OutcomeKind::Compensated | OutcomeKind::Aborted => "T6",
            OutcomeKind::Stuck => "T7",
            OutcomeKind::Refused => unreachable!("no transaction ends refused"),
        }));
        self.rows.extend(rows.iter().map(|row| (*row).to_owned()));
        rows
    }
}

fn step_row(entry: &Entry, own: bool, before: &str, after: &str) -> &'static str {
    let word = |phase: &str| phase.split(' ').next().unwrap_or_default().to_owned();
    let attempt = |phase: &str| -> u32 { phase.rsplit(' ').next().unwrap().parse().unwrap() };
    let undoing = before.contains("compensate") || after.contains("compensate");
    let expired = entry.reason.as_deref() == Some("expired");
    let answer = entry.answer.filter(|_| own);
    let row = match (word(before).as_str(), word(after).as_str()) {
        ("waiting", "asked") if !undoing && attempt(after) == 1 => "S1",
        ("waiting", "refused") if answer.is_none() => "S2",
        ("waiting", "stuck") if attempt(after) == 0 => "S2",
        ("waiting", "skipped") => "S3",
        ("asked" | "pausing" | "stuck", "done") if answer == Some(Answer::Ok) => "S4",
        ("asked" | "pausing", "unknown") => match answer {
            Some(Answer::Ok) => "S5",
            Some(Answer::Refused) if expired => "S8",
            Some(Answer::Error) => "S11",
            None if own => "S11",
            None => "S14",
            Some(Answer::Refused | Answer::Pending) => panic!("no row: {before} -> {after} by {entry:?}"),
        },
        ("asked" | "pausing", "stuck") if !undoing && answer == Some(Answer::Refused) => {
            if expired {
                "S9"
            } else {
                "S6"
            }
        }
        ("asked" | "pausing" | "stuck", "refused") if answer == Some(Answer::Refused) && !expired => "S7",
        ("asked", "pausing") if attempt(before) == attempt(after) => {
            if undoing {
                "S18"
            } else {
                "S10"
            }
        }
        ("asked", "asked") if before == after && answer == Some(Answer::Pending) => "S12",
        ("pausing", "asked") if attempt(after) == attempt(before) + 1 => "S13",
        ("done" | "unknown", "asked") if after == "asked compensate 1" => "S15",
        ("asked" | "pausing" | "stuck", "undone") if answer == Some(Answer::Ok) => "S16",
        ("asked" | "pausing", "stuck") if undoing && answer == Some(Answer::Refused) => "S17",
        ("asked", "stuck") if undoing => "S19",
        ("stuck", "asked") if entry.input == "retry" && attempt(after) == attempt(before) + 1 => "S20",
        // `retry` found that it still cannot be asked: it was stuck, and is.
        ("stuck", "stuck") if entry.input == "retry" && before == after => "S2",
        _ => panic!("no row: {before} -> {after} by {entry:?}"),
    };
    assert!(!row.is_empty());
    row
}
