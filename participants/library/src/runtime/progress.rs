//! What is taken, begun and finished, per partition; and from it the offset that may be committed.
//!
//! ```text
//!   taken ──begin──▶ begun ──reply delivered──▶ finished        committed = lowest offset that is not finished
//!     └── the partition went elsewhere: dropped, its new owner takes it again
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::Position;

const OFFSET_BITS: u32 = 48;
/// The last offset of the last tenure: no partition gets there.
const NO_TOKEN: usize = usize::MAX;

/// One command that was taken: whose tenure of a partition, and the offset. Fits the pointer that a producer hands
/// back with each delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(usize);

impl Token {
    fn new(tenure: u16, offset: i64) -> Option<Self> {
        let offset = usize::try_from(offset).ok().filter(|offset| offset >> OFFSET_BITS == 0)?;
        Some(Self(usize::from(tenure) << OFFSET_BITS | offset))
    }

    /// `None` for what belongs to no command.
    pub(super) fn from_usize(token: usize) -> Option<Self> {
        (token != NO_TOKEN).then_some(Self(token))
    }

    pub(super) fn as_usize(token: Option<Self>) -> usize {
        token.map_or(NO_TOKEN, |token| token.0)
    }

    fn tenure(self) -> u16 {
        u16::try_from(self.0 >> OFFSET_BITS).unwrap_or(u16::MAX)
    }

    fn offset(self) -> i64 {
        i64::try_from(self.0 & ((1 << OFFSET_BITS) - 1)).unwrap_or(i64::MAX)
    }
}

/// What the group has committed of the partitions that are ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Floors {
    /// It changes with every partition that comes.
    pub epoch: u64,
    pub positions: Vec<Position>,
}

/// Shared by the polling thread, the workers and the delivery callbacks.
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tenures: BTreeMap<u16, Tenure>,
    next_tenure: u16,
    /// Taken, and neither finished nor dropped.
    in_flight: usize,
    /// Somebody waits until no more than this are in flight.
    awaited: Option<usize>,
    is_draining: bool,
    /// How many floors have been learnt.
    epoch: u64,
}

/// One owner's time with one partition: tokens of an earlier one change nothing.
struct Tenure {
    partition: i32,
    window: Window,
    begun: usize,
    is_lost: bool,
    committed: Option<i64>,
    floor: Floor,
}

/// What the group has committed, by whomever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Floor {
    /// Not asked yet.
    Unknown,
    /// Nothing: the offsets begin anew, and the store's position with them.
    Anew,
    At(i64),
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    /// These partitions are ours from now on.
    pub(super) fn assign(&self, partitions: impl IntoIterator<Item = i32>) {
        let mut state = self.state();
        for partition in partitions {
            while state.tenures.contains_key(&state.next_tenure) {
                state.next_tenure = state.next_tenure.wrapping_add(1);
            }
            let tenure = Tenure {
                partition,
                window: Window::default(),
                begun: 0,
                is_lost: false,
                committed: None,
                floor: Floor::Unknown,
            };
            let next = state.next_tenure;
            state.tenures.insert(next, tenure);
            state.next_tenure = next.wrapping_add(1);
        }
    }

    /// A command was taken. `None` when its partition is not ours, or it was taken before.
    pub(super) fn take(&self, partition: i32, offset: i64) -> Option<Token> {
        let mut state = self.state();
        let (id, tenure) =
            state.tenures.iter_mut().find(|(_, tenure)| tenure.partition == partition && !tenure.is_lost)?;
        let token = Token::new(*id, offset)?;
        tenure.window.take(offset).then(|| {
            state.in_flight += 1;
            token
        })
    }

    /// Work begins. Keeps what is still ours, drops the rest.
    pub(super) fn begin<W>(&self, works: &mut Vec<W>, token: impl Fn(&W) -> Token) {
        let mut state = self.state();
        let mut dropped = 0;
        works.retain(|work| {
            let is_draining = state.is_draining;
            let tenure = state.tenures.get_mut(&token(work).tenure());
            let ours = tenure.filter(|tenure| !tenure.is_lost && !is_draining);
            let is_ours = ours.is_some();
            match ours {
                Some(tenure) => tenure.begun += 1,
                None => dropped += 1,
            }
            is_ours
        });
        state.in_flight -= dropped;
        self.tell(&state);
    }

    /// Its reply is delivered, or there is none to deliver.
    pub(super) fn finish(&self, token: Token) {
        let mut state = self.state();
        state.in_flight -= 1;
        if let Some(tenure) = state.tenures.get_mut(&token.tenure()) {
            tenure.begun -= 1;
            tenure.window.finish(token.offset());
        }
        self.tell(&state);
    }

    /// Whether the partition is still ours that this was taken from, in the same tenure.
    pub(super) fn is_ours(&self, token: Token) -> bool {
        let state = self.state();
        !state.is_draining && state.tenures.get(&token.tenure()).is_some_and(|tenure| !tenure.is_lost)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// Waits until at most `limit` are in flight; whether that came true.
    pub(super) fn wait_until_in_flight(&self, limit: usize, timeout: Duration) -> bool {
        let mut state = self.state();
        state.awaited = Some(limit);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, timeout, |state| state.in_flight > limit)
            .unwrap_or_else(PoisonError::into_inner);
        state.awaited = None;
        state.in_flight <= limit
    }

    /// Nothing new begins from now on.
    pub(super) fn drain(&self) {
        self.state().is_draining = true;
    }

    /// Offsets that have moved since they were asked for last.
    pub(super) fn take_moved(&self) -> Vec<Position> {
        self.state().tenures.values_mut().filter_map(Tenure::take_moved).collect()
    }

    /// A commit has failed: everything is to be committed again.
    pub(super) fn forget_commits(&self) {
        self.state().tenures.values_mut().for_each(|tenure| tenure.committed = None);
    }

    /// All offsets.
    pub(super) fn positions(&self) -> Vec<Position> {
        self.state().tenures.values().filter_map(Tenure::position).collect()
    }

    /// Partitions of which it is not known what the group has committed.
    pub(super) fn unknown_floors(&self) -> Vec<i32> {
        self.with_floor(Floor::Unknown)
    }

    /// Partitions of which nothing had been committed when they came, nor since.
    pub(super) fn begun_anew(&self) -> Vec<i32> {
        self.with_floor(Floor::Anew)
    }

    /// What the group has committed of a partition that has come.
    pub(super) fn learn_floor(&self, partition: i32, committed: Option<i64>) {
        let mut state = self.state();
        state.epoch += 1;
        for tenure in state.tenures.values_mut().filter(|tenure| tenure.partition == partition) {
            tenure.floor = committed.map_or(Floor::Anew, Floor::At);
        }
    }

    /// These are going to be committed.
    pub(super) fn raise_floors(&self, positions: &[Position]) {
        let mut state = self.state();
        for tenure in state.tenures.values_mut() {
            let raised = positions.iter().find(|position| position.partition == tenure.partition);
            if let Some(Position { offset, .. }) = raised {
                tenure.floor = match tenure.floor {
                    Floor::At(floor) => Floor::At(floor.max(*offset)),
                    Floor::Unknown | Floor::Anew => Floor::At(*offset),
                };
            }
        }
    }

    /// What the group has committed, as far as it is known.
    pub(super) fn floors(&self) -> Floors {
        let state = self.state();
        let floor = |tenure: &Tenure| match tenure.floor {
            Floor::At(offset) => Some(Position { partition: tenure.partition, offset }),
            Floor::Unknown | Floor::Anew => None,
        };
        Floors { epoch: state.epoch, positions: state.tenures.values().filter_map(floor).collect() }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.state().epoch
    }

    fn with_floor(&self, floor: Floor) -> Vec<i32> {
        let state = self.state();
        let such = state.tenures.values().filter(|tenure| !tenure.is_lost && tenure.floor == floor);
        such.map(|tenure| tenure.partition).collect()
    }

    /// These partitions go elsewhere: nothing of theirs begins any more; what has begun may finish within `timeout`.
    /// Returns what is to be committed for them.
    pub(super) fn revoke(&self, partitions: &[i32], timeout: Duration) -> Vec<Position> {
        let is_revoked = |tenure: &Tenure| partitions.contains(&tenure.partition);
        let mut state = self.state();
        for tenure in state.tenures.values_mut().filter(|tenure| is_revoked(tenure)) {
            tenure.is_lost = true;
        }
        state.awaited = Some(usize::MAX);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, timeout, |state| {
                state.tenures.values().any(|tenure| is_revoked(tenure) && tenure.begun > 0)
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.awaited = None;
        let mut positions = Vec::new();
        state.tenures.retain(|_, tenure| {
            if is_revoked(tenure) {
                positions.extend(tenure.position());
            }
            !is_revoked(tenure)
        });
        positions
    }

    fn tell(&self, state: &State) {
        if state.awaited.is_some_and(|limit| state.in_flight <= limit) {
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenure {
    fn position(&self) -> Option<Position> {
        Some(Position { partition: self.partition, offset: self.window.position()? })
    }

    fn take_moved(&mut self) -> Option<Position> {
        let position = self.position()?;
        (self.committed.replace(position.offset) != Some(position.offset)).then_some(position)
    }
}

/// Offsets taken in rising order and finished in any.
#[derive(Default)]
struct Window {
    open: VecDeque<(i64, IsFinished)>,
    next: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IsFinished {
    Yes,
    No,
}

impl Window {
    fn take(&mut self, offset: i64) -> bool {
        if self.next.is_some_and(|next| offset < next) {
            return false;
        }
        self.open.push_back((offset, IsFinished::No));
        self.next = Some(offset + 1);
        true
    }

    fn finish(&mut self, offset: i64) {
        if let Ok(place) = self.open.binary_search_by_key(&offset, |(offset, _)| *offset) {
            self.open[place].1 = IsFinished::Yes;
        }
        while self.open.front().is_some_and(|(_, is_finished)| *is_finished == IsFinished::Yes) {
            self.open.pop_front();
        }
    }

    fn position(&self) -> Option<i64> {
        self.open.front().map(|(offset, _)| *offset).or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `when`: `+offset` taken, `-offset` finished; `then`: the position after each.
    fn check(when: &str, then: &str) {
        let mut window = Window::default();
        let positions: Vec<String> = when
            .split_whitespace()
            .map(|step| {
                let (sign, offset) = step.split_at(1);
                let offset = offset.parse().unwrap();
                match sign {
                    "+" => assert!(window.take(offset)),
                    "-" => window.finish(offset),
                    other => panic!("{other}"),
                }
                window.position().unwrap().to_string()
            })
            .collect();
        assert_eq!(positions.join(" "), then, "{when}");
    }

    #[test]
    fn what_is_committed_has_nothing_open_below() {
        check("+5 -5", "5 6");
        check("+5 +6 +9 -9 -5 -6", "5 5 5 5 6 10");
        check("+5 +7 -7 +8 -5 -8", "5 5 5 5 8 9");
    }

    #[test]
    fn a_record_is_taken_once() {
        let mut window = Window::default();
        assert!(window.take(5));
        assert!(!window.take(5) && !window.take(4));
    }

    #[test]
    fn a_lost_partition_keeps_what_has_begun_and_drops_the_rest() {
        let progress = Progress::new();
        progress.assign([0, 1]);
        let begun = progress.take(0, 7).unwrap();
        progress.begin(&mut vec![begun], |token| *token);
        let waiting = progress.take(0, 8).unwrap();
        let other = progress.take(1, 3).unwrap();
        progress.finish(begun);
        assert_eq!(progress.revoke(&[0], Duration::ZERO), [Position { partition: 0, offset: 8 }]);
        let mut works = vec![waiting, other];
        progress.begin(&mut works, |token| *token);
        assert_eq!(works, [other]);
        assert_eq!((progress.in_flight(), progress.take(0, 9)), (1, None));
        progress.assign([0]);
        assert!(progress.take(0, 8).is_some(), "a new tenure begins where it is told to");
    }

    #[test]
    fn a_floor_is_what_was_committed_when_a_partition_came_and_since() {
        let progress = Progress::new();
        progress.assign([0, 1]);
        assert_eq!((progress.unknown_floors(), progress.floors().positions), (vec![0, 1], vec![]));
        progress.learn_floor(0, Some(7));
        progress.learn_floor(1, None);
        assert_eq!((progress.unknown_floors(), progress.begun_anew()), (vec![], vec![1]));
        let at = |partition, offset| Position { partition, offset };
        assert_eq!(progress.floors(), Floors { epoch: 2, positions: vec![at(0, 7)] });
        progress.raise_floors(&[at(0, 5), at(1, 3)]);
        assert_eq!(progress.floors(), Floors { epoch: 2, positions: vec![at(0, 7), at(1, 3)] });
        assert_eq!(progress.begun_anew(), [0; 0]);
        progress.revoke(&[0], Duration::ZERO);
        progress.assign([0]);
        assert_eq!(progress.unknown_floors(), [0], "what others commit meanwhile is asked for again");
    }

    #[test]
    fn an_offset_is_told_once() {
        let progress = Progress::new();
        progress.assign([4]);
        assert_eq!(progress.take_moved(), []);
        let token = progress.take(4, 2).unwrap();
        progress.begin(&mut vec![token], |token| *token);
        progress.finish(token);
        assert_eq!(progress.take_moved(), [Position { partition: 4, offset: 3 }]);
        assert_eq!(progress.take_moved(), []);
    }
}
