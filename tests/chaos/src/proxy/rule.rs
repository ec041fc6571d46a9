//! What the proxy is to do to which frames, how often, and what came of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::frame::{Api, Head};

/// Frames one rule may hold at a time. A test holds a handful; past this the rule lets pass, and counts it.
const HELD_FRAMES_MAX: usize = 256;
/// The same in bytes: a few of the largest batches.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is done to a frame. The name says to which: of a request, or of the response to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The request reaches the broker later by this; what comes behind it on the connection waits its turn, what is
    /// delayed at the same time is delayed once.
    DelayRequest(Duration),
    /// The response reaches the client later by this.
    DelayResponse(Duration),
    /// The request stays here until [`super::Active::release`]; later requests pass. It then takes its own
    /// connection, or a fresh one when that has gone.
    HoldRequest,
    /// The same, and the connection is closed at once: the client believes its request lost, and may ask again.
    HoldRequestAndCut,
    /// The response stays here until released; it is lost when its connection has gone.
    HoldResponse,
    /// The connection is closed instead: the broker does not get the request.
    CutBeforeRequest,
    /// The request is passed on, then the connection is closed: the broker gets it, the client does not learn so.
    CutAfterRequest,
    /// The broker has done its work and answered; the connection is closed instead of passing the answer on.
    DropResponse,
    /// The request waits up to this for a later one of another kind on its connection, which goes first. For clients
    /// that find a response by its correlation id, as librdkafka does; the Java client insists on the order.
    LetOvertake(Duration),
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From a client to a broker.
    Request,
    /// From a broker to a client.
    Response,
}

impl Action {
    pub(super) fn direction(self) -> Direction {
        match self {
            Self::DelayRequest(_)
            | Self::HoldRequest
            | Self::HoldRequestAndCut
            | Self::CutBeforeRequest
            | Self::CutAfterRequest
            | Self::LetOvertake(_) => Direction::Request,
            Self::DelayResponse(_) | Self::HoldResponse | Self::DropResponse => Direction::Response,
        }
    }
}

/// An action, for which frames, and how often. Without conditions: for all, always.
///
/// ```
/// use sagamore_chaos::proxy::{Action, Api, Rule};
///
/// // The next commit of this transactional id arrives when its owner has long been another.
/// let rule = Rule::new(Action::HoldRequestAndCut).api(Api::END_TXN).transactional_id("sagamore-1-0").times(1);
/// ```
#[derive(Clone, Debug)]
pub struct Rule {
    action: Action,
    apis: Vec<Api>,
    client_id: Option<Text>,
    transactional_id: Option<Text>,
    broker: Option<usize>,
    times: Option<u64>,
    every: u64,
    lasting: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Text {
    Is(String),
    StartsWith(String),
}

impl Text {
    fn fits(&self, text: Option<&str>) -> bool {
        match self {
            Self::Is(whole) => text == Some(whole),
            Self::StartsWith(start) => text.is_some_and(|text| text.starts_with(start.as_str())),
        }
    }
}

impl Rule {
    /// For every frame of the action's direction.
    pub fn new(action: Action) -> Self {
        Self {
            action,
            apis: Vec::new(),
            client_id: None,
            transactional_id: None,
            broker: None,
            times: None,
            every: 1,
            lasting: None,
        }
    }

    /// Only for this kind of request, or the response to it; called again, for this kind as well.
    #[must_use]
    pub fn api(mut self, api: Api) -> Self {
        self.apis.push(api);
        self
    }

    /// Only for clients whose `client.id` starts so.
    #[must_use]
    pub fn client_id_prefix(mut self, start: &str) -> Self {
        self.client_id = Some(Text::StartsWith(start.to_owned()));
        self
    }

    /// Only for this transactional id, where a request names one: `InitProducerId`, `AddPartitionsToTxn`,
    /// `AddOffsetsToTxn`, `TxnOffsetCommit`, `EndTxn`, `Produce`.
    #[must_use]
    pub fn transactional_id(mut self, id: &str) -> Self {
        self.transactional_id = Some(Text::Is(id.to_owned()));
        self
    }

    /// The same, for transactional ids that start so.
    #[must_use]
    pub fn transactional_id_prefix(mut self, start: &str) -> Self {
        self.transactional_id = Some(Text::StartsWith(start.to_owned()));
        self
    }

    /// Only for frames to or from this broker, counted from 0.
    #[must_use]
    pub fn broker(mut self, broker: usize) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Only this often; then the rule is spent.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Only for the first, and then each `nth` of the frames it fits.
    #[must_use]
    pub fn every(mut self, nth: u64) -> Self {
        self.every = nth.max(1);
        self
    }

    /// Only as long as this after it was set.
    #[must_use]
    pub fn lasting(mut self, lasting: Duration) -> Self {
        self.lasting = Some(lasting);
        self
    }

    fn fits(&self, direction: Direction, broker: usize, head: &Head) -> bool {
        let fits = |text: &Option<Text>, found: &Option<String>| {
            text.as_ref().is_none_or(|text| text.fits(found.as_deref()))
        };
        self.action.direction() == direction
            && self.broker.is_none_or(|only| only == broker)
            && (self.apis.is_empty() || self.apis.contains(&head.api))
            && fits(&self.client_id, &head.client_id)
            && fits(&self.transactional_id, &head.transactional_id)
    }
}

/// What a rule has really done, in frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed on later.
    pub delayed: u64,
    /// Taken and kept.
    pub held: u64,
    /// Released, and passed on where they came from.
    pub released: u64,
    /// Released, and sent to the broker on a fresh connection, since their own had gone.
    pub released_late: u64,
    /// Released, and not delivered: the broker did not take it, or the client of a response had gone.
    pub undelivered: u64,
    /// What brokers answered to requests that were released, by error code; 0 is success.
    pub answers: BTreeMap<i16, u64>,
    /// Answers to such requests of a kind whose error code is not read here.
    pub answers_unread: u64,
    /// Such requests that were delivered and never answered.
    pub unanswered: u64,
    /// Connections closed by a cut, or by a hold that cuts.
    pub cut: u64,
    /// Responses dropped, with their connections.
    pub dropped: u64,
    /// Requests that a later one overtook.
    pub overtaken: u64,
    /// Requests that waited to be overtaken, and were not.
    pub not_overtaken: u64,
    /// Passed on because too much was held already.
    pub not_held: u64,
}

impl Counts {
    /// How often a fault really happened: 0 when the rule changed nothing.
    pub fn faults(&self) -> u64 {
        self.delayed + self.held + self.cut + self.dropped + self.overtaken
    }
}

/// A rule that is, or was, in force.
pub(super) struct InForce {
    rule: Rule,
    set: Instant,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    fitting: u64,
    taken: u64,
    removed: bool,
    held: Vec<Held>,
    held_bytes: usize,
    counts: Counts,
}

/// A frame that a rule holds, and the way back to its connection.
pub(super) struct Held {
    pub(super) released: Released,
    pub(super) route: UnboundedSender<Released>,
}

/// A frame on its way after it was held.
pub(super) struct Released {
    pub(super) broker: usize,
    pub(super) head: Head,
    pub(super) frame: Bytes,
    pub(super) rule: Arc<InForce>,
}

impl InForce {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, set: Instant::now(), progress: Mutex::default() }
    }

    pub(super) fn action(&self) -> Action {
        self.rule.action
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock().counts);
    }

    pub(super) fn remove(&self) {
        self.lock().removed = true;
    }

    /// Keeps it, unless too much is kept already.
    pub(super) fn hold(&self, held: Held) -> Result<(), Released> {
        let mut progress = self.lock();
        let bytes = progress.held_bytes + held.released.frame.len();
        if progress.held.len() >= HELD_FRAMES_MAX || bytes > HELD_BYTES_MAX {
            progress.counts.not_held += 1;
            return Err(held.released);
        }
        progress.held_bytes = bytes;
        progress.counts.held += 1;
        progress.held.push(held);
        Ok(())
    }

    /// Everything it holds, in the order in which it came.
    pub(super) fn take_held(&self) -> Vec<Held> {
        let mut progress = self.lock();
        progress.held_bytes = 0;
        std::mem::take(&mut progress.held)
    }

    /// The broker's answer to a request that was released.
    pub(super) fn count_answer(&self, code: Option<i16>) {
        self.count(|counts| match code {
            Some(code) => *counts.answers.entry(code).or_default() += 1,
            None => counts.answers_unread += 1,
        });
    }

    /// Whether this frame is one of those it is for; if so, it has been spent on it.
    fn takes(&self, direction: Direction, broker: usize, head: &Head) -> bool {
        if !self.rule.fits(direction, broker, head) {
            return false;
        }
        let mut progress = self.lock();
        if self.is_spent(&progress) {
            return false;
        }
        let takes = progress.fitting.is_multiple_of(self.rule.every);
        progress.fitting += 1;
        progress.taken += u64::from(takes);
        takes
    }

    fn is_spent(&self, progress: &Progress) -> bool {
        progress.removed
            || self.rule.times.is_some_and(|times| progress.taken >= times)
            || self.rule.lasting.is_some_and(|lasting| self.set.elapsed() >= lasting)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules in force, in the order in which they were set: the first that takes a frame has it.
#[derive(Default)]
pub(super) struct Book(RwLock<Vec<Arc<InForce>>>);

impl Book {
    pub(super) fn add(&self, rule: Rule) -> Arc<InForce> {
        let rule = Arc::new(InForce::new(rule));
        let mut rules = self.0.write().unwrap_or_else(PoisonError::into_inner);
        rules.retain(|rule| !rule.is_spent(&rule.lock()));
        rules.push(Arc::clone(&rule));
        rule
    }

    pub(super) fn clear(&self) {
        let mut rules = self.0.write().unwrap_or_else(PoisonError::into_inner);
        rules.drain(..).for_each(|rule| rule.remove());
    }

    pub(super) fn find(&self, direction: Direction, broker: usize, head: &Head) -> Option<Arc<InForce>> {
        let rules = self.0.read().unwrap_or_else(PoisonError::into_inner);
        rules.iter().find(|rule| rule.takes(direction, broker, head)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(api: Api, client_id: &str, transactional_id: Option<&str>) -> Head {
        let transactional_id = transactional_id.map(str::to_owned);
        Head { api, version: 1, correlation: 1, client_id: Some(client_id.to_owned()), transactional_id }
    }

    #[test]
    fn a_rule_takes_what_it_is_for_and_nothing_else() {
        let end = head(Api::END_TXN, "lane-1", Some("t-1"));
        let rule = Rule::new(Action::HoldRequest);
        let check = |rule: Rule, broker, expected| {
            assert_eq!(rule.fits(Direction::Request, broker, &end), expected, "{rule:?} {broker}");
        };
        check(rule.clone(), 2, true);
        check(rule.clone().api(Api::PRODUCE), 0, false);
        check(rule.clone().api(Api::PRODUCE).api(Api::END_TXN), 0, true);
        check(rule.clone().client_id_prefix("lane"), 0, true);
        check(rule.clone().client_id_prefix("1"), 0, false);
        check(rule.clone().transactional_id("t-1"), 0, true);
        check(rule.clone().transactional_id("t"), 0, false);
        check(rule.clone().transactional_id_prefix("t"), 0, true);
        check(rule.clone().broker(1), 1, true);
        check(rule.clone().broker(1), 2, false);
        check(Rule::new(Action::DropResponse), 0, false);
        let fetch = head(Api::FETCH, "lane-1", None);
        assert!(!rule.transactional_id_prefix("").fits(Direction::Request, 0, &fetch), "it names none");
    }

    #[test]
    fn limits_end_a_rule_and_the_next_has_its_turn() {
        let book = Book::default();
        let once = book.add(Rule::new(Action::CutBeforeRequest).times(1));
        let over = book.add(Rule::new(Action::CutAfterRequest).lasting(Duration::ZERO));
        let third = book.add(Rule::new(Action::HoldRequest).every(3));
        let request = head(Api::FETCH, "c", None);
        let found = || {
            let rule = book.find(Direction::Request, 0, &request)?;
            [&once, &over, &third].iter().position(|known| Arc::ptr_eq(known, &rule))
        };
        let found: Vec<_> = (0..6).map(|_| found()).collect();
        assert_eq!(found, [Some(0), Some(2), None, None, Some(2), None]);
        book.clear();
        assert!(book.find(Direction::Request, 0, &request).is_none());
    }

    #[test]
    fn what_is_held_is_bounded() {
        let book = Book::default();
        let rule = book.add(Rule::new(Action::HoldRequest));
        let (route, _connection) = tokio::sync::mpsc::unbounded_channel();
        let released = || Released {
            broker: 0,
            head: head(Api::FETCH, "c", None),
            frame: Bytes::from_static(b"frame"),
            rule: Arc::clone(&rule),
        };
        for _ in 0..HELD_FRAMES_MAX {
            assert!(rule.hold(Held { released: released(), route: route.clone() }).is_ok());
        }
        assert!(rule.hold(Held { released: released(), route }).is_err());
        let counts = rule.counts();
        assert_eq!((counts.held, counts.not_held), (HELD_FRAMES_MAX as u64, 1));
        assert_eq!(rule.take_held().len(), HELD_FRAMES_MAX);
    }
}
