//! The verdict: one row for each promise. Its JSON is described by `participants/kit/report.schema.json`; fields may be
//! added, never renamed.

use std::fmt::Write as _;

use serde::Serialize;

use crate::catalogue::{self, Row};
use crate::error::Broken;

/// What a run comes to.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// Whose commands were sent.
    pub participant: String,
    /// The topics' prefix.
    pub prefix: String,
    /// `pass` if no row fails.
    pub verdict: Verdict,
    /// Rows that passed.
    pub passed: usize,
    /// Rows that failed.
    pub failed: usize,
    /// Rows that were not looked at.
    pub skipped: usize,
    /// Whether effects could be seen; without, answers alone were looked at.
    pub observed: bool,
    /// Commands, decisions and others that were sent.
    pub sent: u64,
    /// How often it was killed.
    pub kills: u32,
    /// Where its output is; none for one that the kit has not started.
    pub log: Option<String>,
    /// How long it took.
    pub took_ms: u64,
    /// Every promise, in the order of the groups.
    pub rows: Vec<Judged>,
}

/// One promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Judged {
    /// Its name, `<group>/<name>`: it never changes.
    pub id: &'static str,
    /// The group.
    pub group: &'static str,
    /// The promise.
    pub promise: &'static str,
    /// The rule of participants/README.md that asks for it.
    pub rule: u8,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it was skipped; of one that passed, what is worth knowing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Of one that failed: what was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// Of one that failed: what should have come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Of one that failed: what came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came: Option<String>,
    /// Of one that failed: what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// What came of a row, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It keeps the promise.
    Pass,
    /// It does not.
    Fail,
    /// Not looked at.
    Skipped,
}

impl Verdict {
    /// As it stands in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Skipped => "skipped",
        }
    }
}

impl Judged {
    pub(crate) fn passed(row: &Row, note: Option<String>) -> Self {
        Self::new(row, Verdict::Pass, note)
    }

    pub(crate) fn skipped(row: &Row, why: impl Into<String>) -> Self {
        Self::new(row, Verdict::Skipped, Some(why.into()))
    }

    pub(crate) fn failed(row: &Row, broken: Broken) -> Self {
        let Broken { sent, expected, came } = broken;
        Self {
            sent: Some(sent),
            expected: Some(expected),
            came: Some(came),
            remedy: Some(row.remedy),
            ..Self::new(row, Verdict::Fail, None)
        }
    }

    fn new(row: &Row, verdict: Verdict, note: Option<String>) -> Self {
        let Row { id, promise, rule, .. } = *row;
        Self {
            id,
            group: row.group(),
            promise,
            rule,
            verdict,
            note,
            sent: None,
            expected: None,
            came: None,
            remedy: None,
        }
    }

    fn place(&self) -> usize {
        catalogue::ROWS.iter().position(|row| row.id == self.id).unwrap_or(catalogue::ROWS.len())
    }
}

impl Report {
    /// Puts the rows in order, counts, and judges.
    pub(crate) fn finish(mut self) -> Self {
        self.rows.sort_by_key(Judged::place);
        let count = |verdict| self.rows.iter().filter(|row| row.verdict == verdict).count();
        (self.passed, self.failed, self.skipped) =
            (count(Verdict::Pass), count(Verdict::Fail), count(Verdict::Skipped));
        self.verdict = if self.failed == 0 { Verdict::Pass } else { Verdict::Fail };
        self
    }

    /// The ids of the rows that failed.
    pub fn failures(&self) -> Vec<&'static str> {
        self.rows.iter().filter(|row| row.verdict == Verdict::Fail).map(|row| row.id).collect()
    }

    /// What a person does next: each failed row with what was sent, what was expected and what came. Empty if none failed.
    pub fn advice(&self) -> String {
        let mut text = String::new();
        for row in self.rows.iter().filter(|row| row.verdict == Verdict::Fail) {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            // A String takes everything.
            let _ = writeln!(
                text,
                "{}: {}\n  sent      {}\n  expected  {}\n  came      {}\n  rule {}    {}\n",
                row.id,
                row.promise,
                part(&row.sent),
                part(&row.expected),
                part(&row.came),
                row.rule,
                row.remedy.unwrap_or_default(),
            );
        }
        text
    }

    /// One line.
    pub fn summary(&self) -> String {
        let Self { participant, passed, failed, skipped, sent, kills, took_ms, .. } = self;
        let word = if self.verdict == Verdict::Fail { "breaks rules" } else { "keeps the rules" };
        let seconds = took_ms.div_ceil(1000);
        format!(
            "{participant} {word}: {passed} passed, {failed} failed, {skipped} skipped; {sent} records sent, {kills} kills, \
             {seconds} s"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_what_is_written() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/report.schema.json");
        let mut schema = schemars::schema_for!(Report);
        schema.insert("$id".into(), "urn:sagamore:participant-check".into());
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            written, text,
            "run the test again with UPDATE_SCHEMA=1; a field that goes breaks its readers"
        );
    }

    #[test]
    fn rows_stand_in_the_order_of_the_catalogue_and_are_counted() {
        let row = |id| catalogue::by_id(id);
        let broken = Broken { sent: "s".into(), expected: "e".into(), came: "c".into() };
        let report = Report {
            participant: "shipping".into(),
            prefix: "check-1".into(),
            verdict: Verdict::Pass,
            passed: 0,
            failed: 0,
            skipped: 0,
            observed: false,
            sent: 3,
            kills: 0,
            log: None,
            took_ms: 1200,
            rows: vec![
                Judged::skipped(row("crash/once"), "no --command"),
                Judged::failed(row("saga/late"), broken),
                Judged::passed(row("answers/ok"), None),
            ],
        }
        .finish();
        assert_eq!(
            report.rows.iter().map(|row| row.id).collect::<Vec<_>>(),
            ["answers/ok", "saga/late", "crash/once"]
        );
        assert_eq!((report.passed, report.failed, report.skipped, report.verdict), (1, 1, 1, Verdict::Fail));
        assert_eq!(report.failures(), ["saga/late"]);
        assert!(report.advice().contains("expected  e"), "{}", report.advice());
        assert_eq!(
            report.summary(),
            "shipping breaks rules: 1 passed, 1 failed, 1 skipped; 3 records sent, 0 kills, 2 s"
        );
    }
}
