//! The way to the decision: when it is reached, who says no and when, and what is then to be undone.
//!
//! A block is a part of the definition, begun at time 0 and left alone from outside. It is done at some time, or says no
//! at some time, or is still under way; what would have to be undone is known in each case (a [`Key`]), so it says how
//! probable each key is at each time. Blocks compose exactly, because different branches are independent:
//!
//! | | done at t | no at t | commands at t |
//! |---|---|---|---|
//! | A, then B | sum of the times | A's, or A done and then B's | A's, or A done and then B's |
//! | A beside B | the later one (distribution functions multiply) | A's while B has not said no, or B's while A has not | the same |
//!
//! Of two things at the very same time the one that stands earlier in the file is taken to be first.

use std::collections::{BTreeMap, BTreeSet};

use sagamore_decider::definition::plan::BranchIndex;

use super::PredictError;
use super::measure::Measure;
use super::operation::Asked;

/// Most sets of things to undo that are told apart: beyond it parallel chains would take hours.
pub const KEYS_MAX: usize = 2_000;

/// What a rollback asks of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undo {
    /// `compensate`.
    Compensate,
    /// `abort`.
    Abort,
    /// Nothing before its `commit`, which is on its way, has been answered; then `compensate`.
    CommitFirst,
    /// The same from `precommit` on.
    PrecommitFirst,
}

/// Everything that a rollback has to do.
pub type Key = BTreeSet<(BranchIndex, Undo)>;

/// How probable it is to be in some state: who has entered it, less who has left it.
#[derive(Debug, Clone, Default)]
pub struct Stay {
    enter: Measure,
    leave: Measure,
}

/// A part of the way to the decision.
#[derive(Debug, Clone)]
pub struct Block {
    /// When it is done.
    pub ok: Measure,
    /// When it says no, by what is then to be undone of it.
    pub no: BTreeMap<Key, Measure>,
    /// It is under way, by what would then have to be undone of it.
    pub live: BTreeMap<Key, Stay>,
    /// What is to be undone of it when it is done.
    pub done: Key,
    /// When commands leave.
    pub commands: Measure,
}

impl Stay {
    /// At a time, what happens then counted in.
    pub fn until(&self, at_ms: f64) -> f64 {
        (self.enter.until(at_ms) - self.leave.until(at_ms)).max(0.0)
    }

    /// Right before a time.
    fn before(&self, at_ms: f64) -> f64 {
        (self.enter.before(at_ms) - self.leave.before(at_ms)).max(0.0)
    }

    fn plus(&self, enter: &Measure, leave: &Measure) -> Self {
        Self { enter: self.enter.plus(enter), leave: self.leave.plus(leave) }
    }

    /// In both of two states of two independent blocks.
    fn and(&self, other: &Self) -> Self {
        let both = |mine: &Measure, its: &Measure| {
            mine.weighted(|at_ms| other.before(at_ms)).plus(&its.weighted(|at_ms| self.until(at_ms)))
        };
        Self { enter: both(&self.enter, &other.enter), leave: both(&self.leave, &other.leave) }
    }
}

impl Block {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self {
            ok: Measure::now(),
            no: BTreeMap::new(),
            live: BTreeMap::new(),
            done: Key::new(),
            commands: Measure::default(),
        }
    }

    /// One operation of a branch: what a rollback asks of it when it has been asked or is unknown, and when it is done.
    pub fn operation(branch: BranchIndex, asked: Asked, begun: Undo, done: Undo) -> Self {
        let key = |undo| Key::from([(branch, undo)]);
        let left = asked.ok.plus(&asked.refused).plus(&asked.unknown);
        let no = [(Key::new(), asked.refused), (key(begun), asked.unknown)];
        Self {
            ok: asked.ok,
            no: no.into_iter().filter(|(_, when)| when.mass() > 0.0).collect(),
            live: [(key(begun), Stay { enter: Measure::now(), leave: left })].into(),
            done: key(done),
            commands: asked.commands,
        }
    }

    /// This one, then another.
    pub fn then(mut self, next: &Self) -> Self {
        let with = |key: &Key| key.union(&self.done).copied().collect::<Key>();
        for (key, when) in &next.no {
            add(&mut self.no, with(key), &self.ok.then(when));
        }
        for (key, stay) in &next.live {
            let (enter, leave) = (self.ok.then(&stay.enter), self.ok.then(&stay.leave));
            let entry = self.live.entry(with(key)).or_default();
            *entry = entry.plus(&enter, &leave);
        }
        self.commands = self.commands.plus(&self.ok.then(&next.commands));
        self.ok = self.ok.then(&next.ok);
        self.done.extend(next.done.iter().copied());
        self
    }

    /// This one, and another beside it.
    pub fn beside(&self, other: &Self) -> Result<Self, PredictError> {
        let (mine, its) = (self.states(), other.states());
        let keys = mine.len().max(self.no.len()) * its.len().max(other.no.len());
        if keys > KEYS_MAX {
            return Err(PredictError::TooManyWays(keys));
        }
        let with = |one: &Key, two: &Key| one.union(two).copied().collect::<Key>();
        let ok = self.ok.later(&other.ok);
        let done = with(&self.done, &other.done);
        let mut no = BTreeMap::new();
        for (key, when) in &self.no {
            for (beside, stay) in &its {
                add(&mut no, with(key, beside), &when.weighted(|at_ms| stay.before(at_ms)));
            }
        }
        for (key, when) in &other.no {
            for (beside, stay) in &mine {
                add(&mut no, with(key, beside), &when.weighted(|at_ms| stay.until(at_ms)));
            }
        }
        let mut live: BTreeMap<Key, Stay> = BTreeMap::new();
        for (one, stay) in &mine {
            for (two, beside) in &its {
                let both = stay.and(beside);
                let entry = live.entry(with(one, two)).or_default();
                *entry = entry.plus(&both.enter, &both.leave);
            }
        }
        // Both done is among these: from then on it is not under way.
        let entry = live.entry(done.clone()).or_default();
        *entry = entry.plus(&Measure::default(), &ok);
        let says_no = |block: &Self, at_ms: f64| block.no.values().map(|when| when.until(at_ms)).sum::<f64>();
        let said_no =
            |block: &Self, at_ms: f64| block.no.values().map(|when| when.before(at_ms)).sum::<f64>();
        let commands = self
            .commands
            .weighted(|at_ms| 1.0 - said_no(other, at_ms))
            .plus(&other.commands.weighted(|at_ms| 1.0 - says_no(self, at_ms)));
        Ok(Self { ok, no, live, done, commands })
    }

    /// Under way or done.
    fn states(&self) -> BTreeMap<Key, Stay> {
        let mut states = self.live.clone();
        let entry = states.entry(self.done.clone()).or_default();
        *entry = entry.plus(&self.ok, &Measure::default());
        states
    }
}

fn add(no: &mut BTreeMap<Key, Measure>, key: Key, when: &Measure) {
    if when.mass() > 0.0 {
        let entry = no.entry(key).or_default();
        *entry = entry.plus(when);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(branch: u16, ok: f64, refused: f64, at_ms: f64) -> Block {
        let asked = Asked {
            ok: Measure::at(at_ms, ok),
            refused: Measure::at(at_ms, refused),
            unknown: Measure::at(2.0 * at_ms, 1.0 - ok - refused),
            commands: Measure::now(),
        };
        Block::operation(BranchIndex(branch), asked, Undo::Compensate, Undo::Compensate)
    }

    fn same(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-12, "{left} and {right}");
    }

    fn no_of(block: &Block, keys: &[u16]) -> f64 {
        let key: Key = keys.iter().map(|branch| (BranchIndex(*branch), Undo::Compensate)).collect();
        block.no.get(&key).map_or(0.0, Measure::mass)
    }

    #[test]
    fn a_chain_is_a_product() {
        let chain = block(0, 0.9, 0.06, 10.0).then(&block(1, 0.8, 0.2, 20.0)).then(&block(2, 0.7, 0.1, 5.0));
        same(chain.ok.mass(), 0.9 * 0.8 * 0.7);
        same(chain.ok.mean(), 35.0);
        same(chain.commands.mass(), 1.0 + 0.9 + 0.9 * 0.8);
        same(no_of(&chain, &[]), 0.06);
        same(no_of(&chain, &[0]), 0.04 + 0.9 * 0.2);
        same(no_of(&chain, &[0, 1]), 0.9 * 0.8 * 0.1);
        same(no_of(&chain, &[0, 1, 2]), 0.9 * 0.8 * 0.2);
    }

    #[test]
    fn the_first_no_counts() {
        let both = block(0, 0.9, 0.1, 10.0).beside(&block(1, 0.7, 0.3, 20.0)).unwrap();
        same(both.ok.mass(), 0.63);
        same(both.ok.mean(), 20.0);
        same(no_of(&both, &[1]), 0.1);
        same(no_of(&both, &[0]), 0.9 * 0.3);
        same(both.commands.mass(), 2.0);
        let under_way = |at_ms: f64| both.live.values().map(|stay| stay.until(at_ms)).sum::<f64>();
        same(under_way(5.0), 1.0);
        same(under_way(15.0), 0.9);
        same(under_way(25.0), 0.0);
    }

    #[test]
    fn everything_ends_once() {
        let left = block(0, 0.5, 0.2, 10.0).then(&block(1, 0.6, 0.3, 7.0));
        let right = block(2, 0.8, 0.1, 12.0).then(&block(3, 0.9, 0.05, 3.0));
        let all = left.beside(&right).unwrap();
        same(all.ok.mass() + all.no.values().map(Measure::mass).sum::<f64>(), 1.0);
        same(all.ok.mass(), 0.5 * 0.6 * 0.8 * 0.9);
    }
}
