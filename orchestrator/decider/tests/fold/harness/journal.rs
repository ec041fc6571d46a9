//! What the journal says was done, row by row of the saga's tables.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::log::{Decision, JournalEntry, Sealed, seal};
use sagamore_schemas::wire::{Answer, OutcomeKind};

/// One entry of the journal.
pub type Entry = JournalEntry;

/// Reads the journal of checkpoint after checkpoint, in the order of the log, and names the rows each entry took.
#[derive(Debug, Clone, Default)]
pub struct RowsTaken {
    phases: BTreeMap<(String, String, Option<String>), String>,
    /// Steps under a protocol, by name: their rows are others.
    pub committing: BTreeSet<String>,
    /// Steps that start a definition, by name.
    pub children: BTreeSet<String>,
    chain: Option<sagamore_schemas::log::Digest256>,
    /// All rows so far.
    pub rows: BTreeSet<String>,
}

impl RowsTaken {
    /// The rows of the tables at the heads of the protocols.
    pub fn specified() -> BTreeSet<String> {
        let tables = [
            include_str!("../../../src/protocol/saga.rs"),
            include_str!("../../../src/protocol/two_phase.rs"),
            include_str!("../../../src/protocol/three_phase.rs"),
            include_str!("../../../src/protocol/child.rs"),
            include_str!("../../../src/protocol/decision.rs"),
        ];
        let specified: BTreeSet<String> = tables
            .iter()
            .flat_map(|table| table.lines())
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter_map(|row| row.split(' ').next())
            .filter(|word| word.len() >= 2 && word[1..].bytes().all(|byte| byte.is_ascii_digit()))
            .map(str::to_owned)
            .collect();
        let last = ["S21", "P22", "H5", "C20", "T9"];
        assert!(last.iter().all(|row| specified.contains(*row)), "the tables were found: {specified:?}");
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
            let branch = change.branch.as_ref().map(ToString::to_string);
            let own = entry.step.as_ref() == Some(&change.step) && entry.branch == change.branch;
            let key = (birth.to_string(), change.step.to_string(), branch);
            let before =
                self.phases.insert(key, change.phase.to_string()).unwrap_or_else(|| "waiting".into());
            let commits = self.committing.contains(change.step.as_str());
            if self.children.contains(change.step.as_str()) {
                rows.push(child_row(entry, &before, &change.phase));
                continue;
            }
            let row = commits.then(|| committing_row(entry, own, &before, &change.phase)).flatten();
            rows.push(row.unwrap_or_else(|| saga_row(entry, own, &before, &change.phase)));
        }
        rows.extend(entry.decision.map(|decision| match (decision, &*entry.input) {
            (Decision::Commit, _) => "T1",
            (Decision::Rollback, "cancel" | "call-off") => "T2",
            (Decision::Rollback, "timer") if entry.step.is_none() => "T2",
            (Decision::Rollback, _) => "T4",
        }));
        rows.extend(match &*entry.input {
            "pause" => Some("T8"),
            "resume" => Some("T9"),
            _ => None,
        });
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

/// The row of a step under a protocol; `None` where the rows of the saga go on.
fn committing_row(entry: &Entry, own: bool, before: &str, after: &str) -> Option<&'static str> {
    let word = |phase: &str| phase.split(' ').next().unwrap_or_default().to_owned();
    let is = |operation: &str| before.contains(operation) || after.contains(operation);
    let pausing = before.starts_with("pausing");
    let expired = entry.reason.as_deref() == Some("expired");
    let answer = entry.answer.filter(|_| own);
    if is("compensate") {
        return before.starts_with("done").then_some("P21");
    }
    Some(match (word(before).as_str(), word(after).as_str()) {
        ("waiting", "asked") if after == "asked prepare 1" => "P1",
        ("waiting", "refused") if answer.is_none() => "P2",
        ("waiting", "skipped") => "P3",
        ("asked" | "pausing", "prepared") if answer == Some(Answer::Ok) => "P4",
        ("asked" | "pausing", "unknown") => match answer {
            Some(Answer::Ok) => "P5",
            Some(Answer::Refused) if expired => "P7",
            Some(Answer::Error) => "P9",
            None if own => "P9",
            None => "P10",
            Some(Answer::Refused | Answer::Pending) => panic!("no row: {before} -> {after} by {entry:?}"),
        },
        ("asked" | "pausing", "refused") if answer == Some(Answer::Refused) && !expired => "P6",
        ("asked", "pausing") if is("prepare") => "P8",
        ("asked", "pausing") if is("precommit") => "H4",
        ("asked", "pausing") => "P16",
        ("prepared", "asked") if after == "asked precommit 1" => "H1",
        ("prepared", "asked") if after == "asked commit 1" => "P11",
        ("prepared" | "unknown", "asked") if after == "asked abort 1" => "P12",
        ("precommitted", "asked") if after == "asked commit 1" => "H5",
        ("asked" | "pausing" | "stuck", "done") if answer == Some(Answer::Ok) => "P13",
        ("asked" | "pausing" | "stuck", "aborted") if answer == Some(Answer::Ok) => "P14",
        ("asked" | "pausing" | "stuck", "precommitted") if answer == Some(Answer::Ok) => "H2",
        ("asked" | "pausing", "stuck") if answer == Some(Answer::Refused) && is("precommit") => "H3",
        ("asked" | "pausing", "stuck") if answer == Some(Answer::Refused) => "P15",
        ("asked", "asked") if before == after && answer == Some(Answer::Pending) => "P17",
        ("pausing", "asked") if pausing && answer == Some(Answer::Ok) => "P19",
        ("pausing", "asked") => "P18",
        ("stuck", "asked") if entry.input == "retry" => "P20",
        _ => panic!("no row: {before} -> {after} by {entry:?}"),
    })
}

/// The row of a step that starts a definition.
fn child_row(entry: &Entry, before: &str, after: &str) -> &'static str {
    let word = |phase: &str| phase.split(' ').next().unwrap_or_default().to_owned();
    let is = |operation: &str| before.contains(operation) || after.contains(operation);
    let refused = entry.answer == Some(Answer::Refused);
    match (word(before).as_str(), word(after).as_str()) {
        ("waiting", "asked") if after == "asked execute 1" => "C1",
        ("waiting" | "stuck", "skipped" | "refused" | "stuck") => "C2",
        ("asked" | "pausing", "done") if is("abort") => "C14",
        ("asked" | "pausing", "done") if entry.decision == Some(Decision::Rollback) => "C4",
        ("asked" | "pausing", "done") => "C3",
        ("asked" | "pausing", "stuck") if is("execute") && refused => "C5",
        ("asked" | "pausing", "refused") if refused => "C6",
        ("asked", "asked") if before == after && entry.answer == Some(Answer::Pending) => "C7",
        ("asked", "pausing") => "C8",
        ("pausing", "asked") => "C9",
        ("asked" | "pausing", "unknown") if is("execute") => "C10",
        ("unknown", "asked") if after == "asked abort 1" => "C11",
        ("asked" | "pausing", "aborted") if is("abort") => "C12",
        ("asked" | "pausing", "undone") if is("abort") => "C13",
        ("done", "asked") if after == "asked compensate 1" => "C15",
        ("asked" | "pausing", "undone") if is("compensate") => "C16",
        ("asked" | "pausing", "stuck") if is("compensate") && refused => "C17",
        ("stuck", "asked") if entry.input == "retry" => "C18",
        ("stuck", "done" | "undone") if entry.input == "resolve" => "C19",
        _ => panic!("no row: {before} -> {after} by {entry:?}"),
    }
}

fn saga_row(entry: &Entry, own: bool, before: &str, after: &str) -> &'static str {
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
