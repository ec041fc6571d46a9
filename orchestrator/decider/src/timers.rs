//! Timers are part of the state. This index says which is due next; nothing here reads a clock.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_schemas::ids::{Span, Time};

use crate::definition::plan::BranchIndex;

/// What a timer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerOwner {
    /// The transaction: its deadline.
    Deadline,
    /// A branch: timeout of a call, or the pause before the next.
    Branch(BranchIndex),
}

/// One timer that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerEntry {
    /// When it is due, by the log's clock.
    pub due: Time,
    /// The transaction, by the inbox offset of its start.
    pub birth_offset: i64,
    /// What it belongs to.
    pub owner: TimerOwner,
}

/// All timers that stand in a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timers(BTreeSet<TimerEntry>);

impl Timers {
    /// Arms a timer.
    pub fn arm(&mut self, entry: TimerEntry) {
        self.0.insert(entry);
    }

    /// Disarms a timer.
    pub fn disarm(&mut self, entry: TimerEntry) {
        self.0.remove(&entry);
    }

    /// Whether this very timer stands.
    pub fn stands(&self, entry: TimerEntry) -> bool {
        self.0.contains(&entry)
    }

    /// Timers due at `now`, earliest first.
    pub fn due(&self, now: Time) -> impl Iterator<Item = TimerEntry> {
        self.0.iter().copied().take_while(move |entry| entry.due <= now)
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Time> {
        self.0.first().map(|entry| entry.due)
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none stands.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How long the owner waits for a firing it appended to be accepted before it appends another; then twice as long each
/// time, so that an inbox that has fallen behind is not filled with repeats.
const REPEAT_AFTER: Span = Span::from_ms(1_000);
/// Longest wait.
const REPEAT_AFTER_MAX: Span = Span::from_ms(60_000);
/// Timer records appended at once: a takeover after a long pause must not flood its own inbox.
const BURST_MAX: usize = 1_000;

/// The owner's side: which due timers have been appended to the inbox and not yet been accepted.
///
/// A timer that was accepted does not stand any more; one that came too early, by a slow broker clock, still does and
/// is appended again.
#[derive(Debug, Default)]
pub struct Alarm {
    appended: BTreeMap<TimerEntry, Appended>,
}

#[derive(Debug)]
struct Appended {
    repeat: Time,
    pause: Span,
}

impl Alarm {
    /// Timers to append to the inbox now.
    pub fn poll(&mut self, timers: &Timers, now: Time) -> Vec<TimerEntry> {
        if timers.next_due().is_none_or(|due| due > now) {
            self.appended.clear();
            return Vec::new();
        }
        self.appended.retain(|entry, _| timers.stands(*entry));
        let ring: Vec<TimerEntry> = timers
            .due(now)
            .filter(|entry| self.appended.get(entry).is_none_or(|appended| appended.repeat <= now))
            .take(BURST_MAX)
            .collect();
        for entry in &ring {
            let before = self.appended.get(entry).map(|appended| appended.pause);
            let pause =
                before.map_or(REPEAT_AFTER, |pause| Span::from_ms(pause.as_ms() * 2).min(REPEAT_AFTER_MAX));
            self.appended.insert(*entry, Appended { repeat: now.after(pause), pause });
        }
        ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_appended_until_it_is_accepted() {
        let at = Time::from_epoch_ms;
        let entry = TimerEntry { due: at(100), birth_offset: 1, owner: TimerOwner::Deadline };
        let mut timers = Timers::default();
        timers.arm(entry);
        let mut alarm = Alarm::default();
        assert!(alarm.poll(&timers, at(99)).is_empty());
        assert_eq!(alarm.poll(&timers, at(100)), [entry]);
        assert!(alarm.poll(&timers, at(101)).is_empty(), "it is on its way");
        assert_eq!(alarm.poll(&timers, at(1_100)), [entry], "it was lost, or came too early");
        assert!(alarm.poll(&timers, at(3_099)).is_empty(), "or the inbox has fallen behind");
        assert_eq!(alarm.poll(&timers, at(3_100)), [entry]);
        timers.disarm(entry);
        assert!(alarm.poll(&timers, at(5_000)).is_empty());
        assert!(alarm.appended.is_empty());
    }
}
