//! What must hold of every checkpoint, takeover and zombie, and what must be possible.

use stateright::Property;

use super::{Checkpoint, END, Head, INBOX, Input, KEYS, Key, Owner, Phase, Record, Run, State, Value, fold};

/// Every output of every input stands in its topic, or the next owner sends it.
pub(super) const NOTHING_LOST: &str = "every output of every input gets out";
/// No takeover finds less than its checkpoint counts.
pub(super) const NO_HALT: &str = "every takeover finds what its checkpoint counts";
/// What an owner holds at X is what the inputs below X make of nothing.
pub(super) const STATE_IS_THE_FOLD: &str = "the state at X is the fold at X";
/// An owner that has passed the end of a transaction does not hold it.
pub(super) const ENDED_STAYS_ENDED: &str = "no ended transaction comes back";
/// Two owners never send different outputs for one input.
pub(super) const SAME_OUTPUTS: &str = "the outputs of one input are always the same";

pub(super) fn properties() -> Vec<Property<Checkpoint>> {
    vec![
        Property::always(NOTHING_LOST, |model: &Checkpoint, state: &State| {
            let Some(mut run) = state.successor(model) else { return true };
            while run.next < END {
                run.apply();
            }
            let (_, outputs) = fold(END);
            outputs.iter().all(|output| state.told[usize::from(output.input)] || run.sent.contains(output))
        }),
        Property::always(NO_HALT, |model: &Checkpoint, state: &State| {
            !state.halted && state.successor(model).is_some()
        }),
        Property::always(STATE_IS_THE_FOLD, |model: &Checkpoint, state: &State| {
            let successor = state.successor(model);
            state.runs().chain(&successor).all(|run| run.open == fold(run.next).0)
        }),
        Property::always(ENDED_STAYS_ENDED, |model: &Checkpoint, state: &State| {
            let successor = state.successor(model);
            let has_ended = |run: &Run, key: Key| INBOX[..usize::from(run.next)].contains(&(Input::End, key));
            state
                .runs()
                .chain(&successor)
                .all(|run| (0..KEYS).all(|key| !has_ended(run, key) || run.open[key].is_none()))
        }),
        Property::always(SAME_OUTPUTS, |_, state: &State| state.contradiction.is_none()),
        Property::sometimes("a part of a checkpoint is committed", |_, state: &State| {
            let next = state.last_head().map_or(0, |head| head.next);
            let is_ahead = |record: &Record| matches!(record, Record::Version(v) if v.as_of > next);
            state.log.iter().any(is_ahead)
        }),
        Property::sometimes("a part of what is written again is committed", |_, state: &State| {
            let is_cut = |phase: &Phase| matches!(phase, Phase::WritingAgain(restored) if restored.is_cut);
            state.owners.iter().any(|owner| is_cut(&owner.phase))
        }),
        Property::sometimes("what is written again is all there is of its key", |_, state: &State| {
            let of_b = |record: &&Record| matches!(record, Record::Version(version) if version.key == 1);
            let is_tombstone = |record: &Record| matches!(record, Record::Version(version) if version.value == Value::Tombstone);
            let mut all = state.log.iter().filter(of_b);
            all.next().is_some_and(is_tombstone) && all.next().is_none()
        }),
        Property::sometimes("an output is owed at a takeover", |_, state: &State| {
            let is_reading = |owner: &Owner| owner.phase == Phase::Reading;
            let owes = |head: &Head| !head.owed.is_empty();
            state.owners.iter().any(is_reading) && state.last_head().is_some_and(owes)
        }),
        Property::sometimes("an ended transaction leaves no trace in the state", |_, state: &State| {
            let of_a = |record: &Record| matches!(record, Record::Version(version) if version.key == 0);
            state.last_head().is_some_and(|head| head.next == END) && !state.log.iter().any(of_a)
        }),
        Property::sometimes("two owners run at the same time", |_, state: &State| state.runs().count() == 2),
        Property::sometimes("all is told after the last takeover", |model: &Checkpoint, state: &State| {
            state.epoch == model.takeovers && state.told == [true; END as usize]
        }),
    ]
}
