//! Transfers, started at the pace of their outcomes; and what must be true of each in the end.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::FutureProducer;
use sagamore_end_to_end::http::RUNTIME;
use sagamore_end_to_end::load::start_record;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics::{self, Reader};
use serde_json::json;

use crate::bank::OPENING_CENTS;
use crate::books::Books;

pub const DEFINITIONS: [&str; 3] = ["prepared", "holds", "saga"];
const AT_A_TIME: usize = 9;
/// Few, so that transfers meet.
const ACCOUNTS: u64 = 12;
/// One of so many asks for more than there is. With what the banks refuse by themselves that is three of ten.
const TOO_DEAR_EVERY: u64 = 10;
const LOOKS_EVERY: Duration = Duration::from_millis(30);
/// Outcomes that a transaction ends with.
const FINAL: [&str; 3] = ["committed", "compensated", "aborted"];

struct Transfer {
    definition: &'static str,
    cents: i64,
}

/// How many of each definition ended how.
pub type Tally = BTreeMap<(&'static str, &'static str), u64>;

pub struct Transfers {
    producer: FutureProducer,
    inbox: String,
    outcomes: Reader,
    read: usize,
    asked: BTreeMap<String, Transfer>,
    ended: BTreeMap<String, &'static str>,
}

impl Transfers {
    pub fn new(stage: &Stage) -> Self {
        Self {
            producer: topics::producer(stage.bootstrap()),
            inbox: stage.topic("inbox"),
            outcomes: Reader::new(stage.bootstrap(), &stage.topic("outcomes")),
            read: 0,
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Goes on until so many more have ended.
    pub fn run_until_ended(&mut self, more: u64, patience: Duration) {
        let goal = self.ended() + usize::try_from(more).unwrap();
        let begun = Instant::now();
        while self.ended() < goal {
            assert!(begun.elapsed() < patience, "{more} more of {} ended", self.asked.len());
            self.start_and_look();
        }
    }

    /// Goes on for so long.
    pub fn run_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.start_and_look();
        }
    }

    /// Starts no more, and waits for the last.
    pub fn finish(&mut self, patience: Duration) {
        let begun = Instant::now();
        while self.ended() < self.asked.len() {
            let waits = self.asked.keys().filter(|id| !self.ended.contains_key(*id)).collect::<Vec<_>>();
            assert!(begun.elapsed() < patience, "not ended: {waits:?}");
            self.look();
        }
    }

    fn start_and_look(&mut self) {
        while self.asked.len() - self.ended.len() < AT_A_TIME {
            self.start();
        }
        self.look();
    }

    fn start(&mut self) {
        let number = u64::try_from(self.asked.len()).unwrap();
        let definition = DEFINITIONS[self.asked.len() % DEFINITIONS.len()];
        let is_dear = number % TOO_DEAR_EVERY == 0;
        let cents = if is_dear { 2 * OPENING_CENTS } else { 100 + number * 37 % 700 };
        let cents = i64::try_from(cents).unwrap();
        let (from, to) = (number * 7 % ACCOUNTS, number * 5 % ACCOUNTS);
        let input = json!({"from": format!("f{from}"), "to": format!("t{to}"), "cents": cents});
        let id = format!("{definition}-{number}");
        let start = start_record(&id, definition, &input, &jiff::Timestamp::now().to_string());
        let written =
            topics::write(&self.producer, &self.inbox, None, Some(id.as_bytes()), Some(start.as_bytes()));
        RUNTIME.block_on(written).unwrap();
        self.asked.insert(id, Transfer { definition, cents });
    }

    fn look(&mut self) {
        self.outcomes.catch_up();
        for seen in &self.outcomes.records[self.read..] {
            let outcome = seen.json();
            let id = outcome["subject"].as_str().unwrap().to_owned();
            let said = outcome["outcome"].as_str().unwrap();
            let Some(said) = FINAL.into_iter().find(|known| *known == said) else {
                panic!("{id}: {outcome}");
            };
            let first = *self.ended.entry(id.clone()).or_insert(said);
            assert_eq!(first, said, "{id}: a told outcome never changes");
        }
        self.read = self.outcomes.records.len();
        thread::sleep(LOOKS_EVERY);
    }

    /// Every transfer is on both sides or on none, once; and the sums are what they were.
    pub fn judge(&self, [from, to]: &[Books; 2]) -> Tally {
        let (taken, brought) = (from.moved(), to.moved());
        let mut tally = Tally::new();
        for (id, transfer) in &self.asked {
            let outcome = self.ended[id];
            let moved = |side: &BTreeMap<String, (i64, i64)>| side.get(id).copied().unwrap_or_default();
            if outcome == "committed" {
                assert_eq!(moved(&taken), (-transfer.cents, 1), "{id}");
                assert_eq!(moved(&brought), (transfer.cents, 1), "{id}");
            } else {
                assert_eq!((moved(&taken).0, moved(&brought).0), (0, 0), "{id} {outcome}");
            }
            *tally.entry((transfer.definition, outcome)).or_default() += 1;
        }
        for side in [from, to] {
            assert_eq!(side.wrong_accounts(), Vec::<String>::new());
        }
        assert_eq!(from.change() + to.change(), 0, "money is neither made nor lost");
        assert!(from.change() < 0, "and it has moved");
        tally
    }
}
