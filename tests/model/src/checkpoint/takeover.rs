//! An owner that runs: what it takes over, what it writes.

use super::apply;
use super::{Checkpoint, Head, INBOX, KEYS, Key, Offset, Open, Output, Record, Value, Version, Without};

/// What an owner holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Run {
    /// The next input to apply.
    pub(super) next: Offset,
    pub(super) open: Open,
    /// Outputs that have left and are not acknowledged.
    pub(super) sent: Vec<Output>,
    /// X of the last checkpoint.
    pub(super) since: Offset,
    pub(super) draft: Option<Draft>,
    touched: [bool; KEYS],
    /// As of when each key is stored, and whether as ended.
    stored: [Option<Stored>; KEYS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stored {
    as_of: Offset,
    is_ended: bool,
}

/// What a takeover makes of the state, and what it writes again before it runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Restored {
    pub(super) run: Run,
    /// Of each key of which a version is ignored: what counts, as of when it did.
    pub(super) due: Vec<Version>,
    /// Its Kafka transaction was ended by something else: the rest is refused.
    pub(super) is_cut: bool,
}

/// A checkpoint on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Draft {
    /// X.
    pub(super) next: Offset,
    /// Not written yet.
    pub(super) due: Vec<Version>,
    pub(super) has_head: bool,
    /// Its Kafka transaction was ended by something else: the rest is refused.
    pub(super) is_cut: bool,
}

impl Run {
    pub(super) fn apply(&mut self) -> Output {
        let output = apply(&mut self.open, self.next);
        self.sent.push(output);
        self.touched[INBOX[usize::from(self.next)].1] = true;
        self.next += 1;
        output
    }

    /// Its writes are refused from now on, so what it would write does not matter. Its outputs may get out or not:
    /// what is not counted on cannot hide a loss.
    pub(super) fn depose(&mut self) {
        *self = Self { next: self.next, open: self.open, ..Self::default() };
    }

    pub(super) fn draft(&mut self) {
        let as_of = self.next;
        let mut due = Vec::new();
        for key in 0..KEYS {
            let ended = self.stored[key].is_some_and(|stored| stored.is_ended);
            let touched = std::mem::take(&mut self.touched[key]);
            let value = match (self.open[key], self.stored[key]) {
                (Some(taken), _) if touched => Some(Value::Open(taken)),
                (None, Some(_)) if ended => Some(Value::Tombstone),
                (None, Some(_)) if touched => Some(Value::Ended),
                (_, None | Some(_)) => None,
            };
            let Some(value) = value else { continue };
            self.stored[key] = match value {
                Value::Open(_) => Some(Stored { as_of, is_ended: false }),
                Value::Ended => Some(Stored { as_of, is_ended: true }),
                Value::Tombstone => None,
            };
            due.push(Version { key, as_of, value });
        }
        self.draft = Some(Draft { next: as_of, due, has_head: false, is_cut: false });
    }

    pub(super) fn take_due(&mut self, key: Key) -> Option<Version> {
        let due = &mut self.draft.as_mut()?.due;
        let at = due.iter().position(|version| version.key == key)?;
        Some(due.remove(at))
    }

    pub(super) fn head(&mut self, model: &Checkpoint) -> Option<Head> {
        let draft = self.draft.as_mut()?;
        draft.has_head = true;
        let next = draft.next;
        let mut owed = self.sent.clone();
        owed.retain(|output| output.input < next && !model.lacks(Without::Acknowledgement));
        Some(Head { next, stored: self.stored.map(|stored| stored.map(|stored| stored.as_of)), owed })
    }
}

/// The rules of a takeover. `None`: it finds less than the checkpoint counts, or something else.
pub(super) fn restore(log: &[Record], model: &Checkpoint) -> Option<Restored> {
    let head = log.iter().rev().find_map(|record| match record {
        Record::Checkpoint(head) => Some(head.clone()),
        Record::Version(_) | Record::Barrier { .. } | Record::Covered => None,
    });
    let head = head.unwrap_or_default();
    let mut run = Run { next: head.next, since: head.next, ..Run::default() };
    let mut due = Vec::new();
    for key in 0..KEYS {
        let versions = log.iter().filter_map(|record| match record {
            Record::Version(version) if version.key == key => Some(*version),
            Record::Version(_) | Record::Checkpoint(_) | Record::Barrier { .. } | Record::Covered => None,
        });
        let counts = |version: &Version| {
            version.as_of <= head.next
                || model.lacks(Without::AsOf)
                || version.value == Value::Tombstone && model.lacks(Without::TombstoneAsOf)
        };
        let newest = versions.clone().rfind(counts);
        let stored = newest.filter(|version| version.value != Value::Tombstone);
        if versions.clone().next_back().is_some_and(|version| !counts(&version)) {
            let nothing = Version { key, as_of: head.next, value: Value::Tombstone };
            let again = stored.unwrap_or(nothing);
            let as_of = if model.lacks(Without::AsOfBefore) { head.next } else { again.as_of };
            due.push(Version { as_of, ..again });
        }
        run.stored[key] =
            stored.map(|version| Stored { as_of: version.as_of, is_ended: version.value == Value::Ended });
        run.open[key] = match stored.map(|version| version.value) {
            Some(Value::Open(taken)) => Some(taken),
            Some(Value::Ended | Value::Tombstone) | None => None,
        };
        let found = stored.map(|version| version.as_of);
        // Who knows no as-of counts keys.
        let is_complete = if model.lacks(Without::AsOf) {
            found.is_some() == head.stored[key].is_some()
        } else {
            found == head.stored[key]
        };
        if !is_complete {
            return None;
        }
    }
    if !model.lacks(Without::SendingOwed) {
        run.sent = head.owed;
    }
    if model.lacks(Without::WritingAgain) {
        due.clear();
    }
    Some(Restored { run, due, is_cut: false })
}
