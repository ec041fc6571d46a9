//! What an example has done, so that somebody else can check it to the unit and to the cent.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use sagamore_participant::memory::Undo;
use sagamore_participant::{Command, Operation};
use serde::Serialize;
use tracing::error;

/// Branches whose effects are counted one by one; about 100 bytes each. What comes later is only totalled.
pub const WATCHED_MAX: usize = 1_000_000;

/// The books of one participant: units, cents or parcels.
///
/// `opening + added = closing + standing`, and `taken = returned + standing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Whose books.
    pub participant: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// There at the beginning: stock, credit, room for parcels.
    pub opening: u64,
    /// Came in since: deliveries.
    pub added: u64,
    /// Taken by effects: reserved, charged, booked.
    pub taken: u64,
    /// Given back by undoing effects.
    pub returned: u64,
    /// Taken for good, as the business state says it: what has left with committed orders and open ones.
    pub standing: u64,
    /// There at the end.
    pub closing: u64,
    /// Effects applied.
    pub effects: u64,
    /// Effects undone.
    pub undone: u64,
    /// Effects applied twice, undone twice, or undone without having been applied. Any is a defect.
    pub duplicates: u64,
    /// Effects beyond [`WATCHED_MAX`], which are in the totals and not watched for duplicates.
    pub unwatched: u64,
}

impl Books {
    /// Whether nothing is lost and nothing was done twice.
    pub fn balance(&self) -> bool {
        self.opening + self.added == self.closing + self.standing
            && self.taken == self.returned + self.standing
            && self.duplicates == 0
    }
}

/// Every effect as it happens; rolled back with the command that fails.
#[derive(Default)]
pub struct Ledger {
    kept: Totals,
    pending: Vec<Entry>,
    watched: HashMap<Box<str>, Marks>,
    journal: Option<File>,
}

/// Running totals of a ledger.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Taken by effects.
    pub taken: u64,
    /// Given back.
    pub returned: u64,
    /// Effects applied.
    pub effects: u64,
    /// Effects undone.
    pub undone: u64,
    /// Effects that should not have happened.
    pub duplicates: u64,
    /// Effects not watched.
    pub unwatched: u64,
}

/// What the business state says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stock {
    pub(crate) opening: u64,
    pub(crate) added: u64,
    pub(crate) standing: u64,
    pub(crate) closing: u64,
}

impl Totals {
    /// As books, beside what the business state says.
    pub(crate) fn with(self, participant: &'static str, unit: &'static str, stock: Stock) -> Books {
        let Self { taken, returned, effects, undone, duplicates, unwatched } = self;
        let Stock { opening, added, standing, closing } = stock;
        Books {
            participant,
            unit,
            opening,
            added,
            taken,
            returned,
            standing,
            closing,
            effects,
            undone,
            duplicates,
            unwatched,
        }
    }
}

/// One line of the journal of effects.
#[derive(Serialize)]
struct Entry {
    participant: &'static str,
    effect: Direction,
    operation: Operation,
    key: Box<str>,
    attempt: u32,
    amount: u64,
    /// What of it is taken or given back; the rest comes in, and is in the business state.
    #[serde(skip)]
    counted: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Applied,
    Undone,
    Held,
    Confirmed,
    Released,
}

/// How often each has happened to one branch.
#[derive(Default)]
struct Marks {
    applied: u8,
    undone: u8,
    held: u8,
    confirmed: u8,
    released: u8,
}

impl Marks {
    /// Counts one; says whether it should not have happened.
    fn count(&mut self, effect: Direction) -> bool {
        let count = match effect {
            Direction::Applied => &mut self.applied,
            Direction::Undone => &mut self.undone,
            Direction::Held => &mut self.held,
            Direction::Confirmed => &mut self.confirmed,
            Direction::Released => &mut self.released,
        };
        *count = count.saturating_add(1);
        let is_repeated = *count > 1;
        let done = self.applied.saturating_add(self.confirmed);
        let decided = self.confirmed.saturating_add(self.released);
        is_repeated || done > 1 || self.undone > done || decided > self.held
    }
}

impl Ledger {
    /// A ledger that also appends one JSON line per effect to `journal`, if there is one.
    pub fn new(journal: Option<&Path>) -> io::Result<Self> {
        let journal =
            journal.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { journal, ..Self::default() })
    }

    /// An effect of this command took `amount`.
    pub fn applied(&mut self, participant: &'static str, command: &Command<'_>, amount: u64) {
        self.pending.push(Entry::of(participant, Direction::Applied, command, amount, amount));
    }

    /// An effect of this command brought `amount` in.
    pub fn brought(&mut self, participant: &'static str, command: &Command<'_>, amount: u64) {
        self.pending.push(Entry::of(participant, Direction::Applied, command, amount, 0));
    }

    /// This command undid an effect and gave back `amount`.
    pub fn undone(&mut self, participant: &'static str, command: &Command<'_>, amount: u64) {
        self.pending.push(Entry::of(participant, Direction::Undone, command, amount, amount));
    }

    /// This command undid an effect that had brought `amount` in.
    pub fn taken_back(&mut self, participant: &'static str, command: &Command<'_>, amount: u64) {
        self.pending.push(Entry::of(participant, Direction::Undone, command, amount, 0));
    }

    /// A vote: `amount` is taken, and waits for the decision.
    pub fn held(&mut self, participant: &'static str, command: &Command<'_>, amount: u64) {
        self.pending.push(Entry::of(participant, Direction::Held, command, amount, amount));
    }

    /// The decision is commit: the effect of `amount` is there.
    pub fn confirmed(&mut self, participant: &'static str, command: &Command<'_>, amount: u64) {
        self.pending.push(Entry::of(participant, Direction::Confirmed, command, amount, 0));
    }

    /// The decision is abort: `amount` is given back, and nobody has seen an effect.
    pub fn released(&mut self, participant: &'static str, command: &Command<'_>, amount: u64) {
        self.pending.push(Entry::of(participant, Direction::Released, command, amount, amount));
    }

    /// What has happened so far.
    pub fn totals(&self) -> Totals {
        self.kept
    }

    fn book(&mut self, entry: Entry) {
        match entry.effect {
            Direction::Applied => {
                self.kept.taken += entry.counted;
                self.kept.effects += 1;
            }
            Direction::Undone => {
                self.kept.returned += entry.counted;
                self.kept.undone += 1;
            }
            Direction::Held => self.kept.taken += entry.counted,
            Direction::Confirmed => self.kept.effects += 1,
            Direction::Released => self.kept.returned += entry.counted,
        }
        self.write(&entry);
        if self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(&entry.key) {
            self.kept.unwatched += 1;
            return;
        }
        let is_wrong = self.watched.entry(entry.key).or_default().count(entry.effect);
        self.kept.duplicates += u64::from(is_wrong);
    }

    fn write(&mut self, entry: &Entry) {
        let Some(file) = &mut self.journal else { return };
        let written = serde_json::to_string(entry)
            .map_err(io::Error::from)
            .and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(failure) = written {
            error!(%failure, "the journal of effects ends here: it cannot be written");
            self.journal = None;
        }
    }
}

impl Undo for Ledger {
    fn keep(&mut self) {
        while let Some(entry) = self.pending.pop() {
            self.book(entry);
        }
    }

    fn undo(&mut self) {
        self.pending.clear();
    }
}

impl Entry {
    fn of(
        participant: &'static str,
        effect: Direction,
        command: &Command<'_>,
        amount: u64,
        counted: u64,
    ) -> Self {
        let address = &command.address;
        let key = format!(
            "{}/{}/{}/{}/{}",
            command.instance, address.subject, address.birth, address.step, address.branch
        );
        let (operation, attempt) = (address.operation, address.attempt);
        Self { participant, effect, operation, key: key.into(), attempt, amount, counted }
    }
}
