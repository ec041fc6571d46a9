//! What there is to judge by: every topic read once more, the ledgers, the notes. Documents are read by name, as the
//! design's page writes them; no type of what is checked is used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rdkafka::message::{BorrowedMessage, Message};
use sagamore_participant::store::sqlite::rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::fate::{PARTICIPANTS, die};
use crate::journal::Journal;
use crate::notes;
use crate::state::State;
use crate::tail::{Isolation, header, read_all};

/// A start in the inbox.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The transaction's id; empty when there is none.
    pub subject: String,
    /// The definition it asks for.
    pub definition: String,
    /// Its input.
    pub input: Value,
    /// A number that follows from its input.
    pub input_hash: u64,
    /// Whether it is none of those that nobody can read.
    pub is_whole: bool,
}

/// An outcome told in the topic, once for each id.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// `committed` and so on.
    pub outcome: String,
    /// Which life.
    pub birth: String,
    /// Which input.
    pub revision: u64,
    /// Why.
    pub reason: String,
    /// Of a refused start, its place.
    pub cause: String,
    /// How often.
    pub times: u64,
}

/// A row of a ledger.
#[derive(Debug, Clone)]
pub struct Row {
    /// Whose.
    pub participant: &'static str,
    /// Which life.
    pub birth: String,
    /// Which transaction.
    pub subject: String,
    /// Which step.
    pub step: String,
    /// `execute` or `compensate`.
    pub operation: String,
    /// How much.
    pub amount: i64,
}

/// What a client was told.
#[derive(Debug, Clone)]
pub struct Answer {
    /// To what.
    pub of: String,
    /// The status.
    pub status: u64,
    /// The body.
    pub body: Value,
    /// Whether a server had acknowledged the start before.
    pub is_known: bool,
}

/// What a client wanted, and was told.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The definition.
    pub definition: String,
    /// The input.
    pub input: Value,
    /// Whether its start is in the log for certain.
    pub acknowledged: bool,
    /// Whether a server has said so, which had it applied by then.
    pub is_applied: bool,
    /// Whether it wanted it cancelled.
    pub cancels: bool,
    /// All answers.
    pub answers: Vec<Answer>,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it stood.
    pub place: String,
    /// Why.
    pub cause: String,
    /// What it is.
    pub value: String,
}

/// Everything.
#[derive(Default)]
pub struct Evidence {
    /// By id.
    pub wishes: BTreeMap<String, Wish>,
    /// Texts of garbage that may have been written.
    pub garbage: BTreeSet<String>,
    /// Places (`partition-offset`) of garbage in the inbox.
    pub garbage_places: BTreeSet<String>,
    /// Starts by their place.
    pub starts: BTreeMap<(i32, i64), Begun>,
    /// Records of the inbox, by type.
    pub inbox: BTreeMap<String, u64>,
    /// Outcomes by subject.
    pub outcomes: BTreeMap<String, Vec<Told>>,
    /// Outcomes that contradict another of the same id.
    pub contradictions: Vec<String>,
    /// Commands that stand in a topic, by `birth/step/operation`, each once.
    pub commands: BTreeMap<String, u64>,
    /// How many commands, repeated ones too.
    pub commands_all: u64,
    /// The ledgers.
    pub rows: Vec<Row>,
    /// Dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The journal.
    pub journal: Journal,
    /// The state topic.
    pub state: State,
    /// Ends of the inbox.
    pub inbox_ends: BTreeMap<i32, i64>,
}

impl Evidence {
    /// Reads everything.
    pub fn collect(
        bootstrap: &str,
        prefix: &str,
        notes: &Path,
        stores: &[(&'static str, PathBuf)],
    ) -> Result<Self, String> {
        let mut evidence = Self::default();
        notes::read(notes, |note| evidence.note(&note)).map_err(|error| format!("the notes: {error}"))?;
        let topic = |name: &str| format!("{prefix}.{name}");
        let all = Isolation::Uncommitted;
        read_all(bootstrap, &topic("inbox"), all, |record| evidence.inbox(record))?;
        read_all(bootstrap, &topic("outcomes"), all, |record| evidence.outcome(record))?;
        read_all(bootstrap, &topic("dead-letters"), all, |record| evidence.dead_letter(record))?;
        for participant in PARTICIPANTS {
            let mut seen: BTreeMap<String, u64> = BTreeMap::new();
            let name = topic(&format!("commands.{participant}"));
            read_all(bootstrap, &name, all, |record| evidence.command(record, &mut seen))?;
        }
        let committed = Isolation::Committed;
        read_all(bootstrap, &topic("journal"), committed, |record| {
            evidence.journal.take(record.partition(), record.payload().unwrap_or_default());
        })?;
        read_all(bootstrap, &topic("state"), committed, |record| {
            let as_of = header(record, "as-of").and_then(|text| text.parse().ok());
            evidence.state.take(
                record.partition(),
                record.key().unwrap_or_default(),
                record.payload(),
                as_of,
            );
        })?;
        for (participant, file) in stores {
            evidence.ledger(participant, file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(evidence)
    }

    fn note(&mut self, note: &Value) {
        let id = text(note, "id").to_owned();
        match text(note, "note") {
            "start" => {
                let wish = self.wishes.entry(id).or_default();
                text(note, "definition").clone_into(&mut wish.definition);
                wish.input = note["input"].clone();
            }
            "written" if note["of"] == "start" => self.wishes.entry(id).or_default().acknowledged = true,
            "cancel" => self.wishes.entry(id).or_default().cancels = true,
            "answer" => {
                let wish = self.wishes.entry(id).or_default();
                let status = note["status"].as_u64().unwrap_or_default();
                let of = text(note, "of").to_owned();
                wish.answers.push(Answer {
                    of,
                    status,
                    body: note["body"].clone(),
                    is_known: wish.is_applied,
                });
                wish.is_applied |= note["of"] == "start" && matches!(status, 200 | 202);
                wish.acknowledged |= wish.is_applied;
            }
            "garbage" => drop(self.garbage.insert(text(note, "value").to_owned())),
            "garbage-written" if text(note, "topic").split('.').next_back() == Some("inbox") => {
                self.garbage_places.insert(format!("{}-{}", note["partition"], note["offset"]));
            }
            _ => {}
        }
    }

    fn inbox(&mut self, record: &BorrowedMessage<'_>) {
        self.inbox_ends.insert(record.partition(), record.offset() + 1);
        let value = record.payload().unwrap_or_default();
        let document: Value = serde_json::from_slice(value).unwrap_or_default();
        let kind = document["type"].as_str().unwrap_or("unreadable").to_owned();
        if kind == "sagamore.start.v1" && document["specversion"] == "1.0" {
            let begun = Begun {
                subject: text(&document, "subject").to_owned(),
                definition: text(&document, "definition").to_owned(),
                input: document["data"].clone(),
                input_hash: die(&[text(&document, "definition"), &document["data"].to_string()]),
                is_whole: !text(&document, "subject").starts_with("garbage-"),
            };
            self.starts.insert((record.partition(), record.offset()), begun);
        }
        *self.inbox.entry(kind).or_default() += 1;
    }

    fn outcome(&mut self, record: &BorrowedMessage<'_>) {
        let document: Value =
            serde_json::from_slice(record.payload().unwrap_or_default()).unwrap_or_default();
        let told = Told {
            id: text(&document, "id").to_owned(),
            outcome: text(&document, "outcome").to_owned(),
            birth: text(&document, "birth").to_owned(),
            revision: document["revision"].as_u64().unwrap_or_default(),
            reason: text(&document, "reason").to_owned(),
            cause: text(&document, "cause").to_owned(),
            times: 1,
        };
        let of_subject = self.outcomes.entry(text(&document, "subject").to_owned()).or_default();
        match of_subject.iter_mut().find(|other| other.id == told.id) {
            Some(first) => {
                first.times += 1;
                let same = (&first.outcome, &first.birth, first.revision, &first.cause)
                    == (&told.outcome, &told.birth, told.revision, &told.cause);
                if !same {
                    self.contradictions.push(format!("{} told {first:?} and {told:?}", told.id));
                }
            }
            None => of_subject.push(told),
        }
    }

    fn dead_letter(&mut self, record: &BorrowedMessage<'_>) {
        let at = |name: &str| header(record, &format!("__dlq.errors.{name}")).unwrap_or_default();
        self.dead_letters.push(DeadLetter {
            place: format!("{}-{}", at("partition"), at("offset")),
            cause: at("message"),
            value: String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned(),
        });
    }

    /// The same command, sent again after a takeover, is the same to the letter.
    fn command(&mut self, record: &BorrowedMessage<'_>, seen: &mut BTreeMap<String, u64>) {
        let value = record.payload().unwrap_or_default();
        let document: Value = serde_json::from_slice(value).unwrap_or_default();
        let (birth, step, operation) =
            (text(&document, "birth"), text(&document, "step"), text(&document, "operation"));
        if document["type"] != "sagamore.command.v1" || document["replyto"].is_null() {
            return;
        }
        self.commands_all += 1;
        let hash = die(&[&document.to_string()]);
        let id = text(&document, "id");
        if *seen.entry(id.to_owned()).or_insert(hash) != hash {
            self.contradictions.push(format!("{id} was sent with other content"));
        }
        *self.commands.entry(format!("{birth}/{step}/{operation}")).or_default() += 1;
    }

    fn ledger(&mut self, participant: &'static str, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let fit: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if fit != "ok" {
            return Err(fit.into());
        }
        let mut statement = connection
            .prepare("SELECT subject, birth, step, operation, amount FROM ledger ORDER BY effect")?;
        let rows = statement.query_map([], |row| {
            Ok(Row {
                participant,
                subject: row.get(0)?,
                birth: row.get(1)?,
                step: row.get(2)?,
                operation: row.get(3)?,
                amount: row.get(4)?,
            })
        })?;
        for row in rows {
            self.rows.push(row?);
        }
        Ok(())
    }
}

/// A field as text.
pub fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}
