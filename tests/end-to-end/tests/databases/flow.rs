//! Transactions, a few at a time, started at the pace of their outcomes.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::FutureProducer;
use sagamore_end_to_end::http::RUNTIME;
use sagamore_end_to_end::load::start_record;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics::{self, Reader};
use serde_json::Value;

const LOOKS_EVERY: Duration = Duration::from_millis(30);
/// Outcomes that a transaction ends with.
const FINAL: [&str; 3] = ["committed", "compensated", "aborted"];

/// What is asked for, one after the other.
pub trait Next {
    /// A transaction.
    type Asked;
    /// The next one: its id, its definition, its input; none for now.
    fn next(&mut self, number: u64) -> Option<(String, &'static str, Value, Self::Asked)>;
    /// It has ended so.
    fn ended(&mut self, asked: &Self::Asked, outcome: &'static str);
}

pub struct Flow<N: Next> {
    pub next: N,
    at_a_time: usize,
    producer: FutureProducer,
    inbox: String,
    outcomes: Reader,
    read: usize,
    pub asked: BTreeMap<String, N::Asked>,
    pub ended: BTreeMap<String, &'static str>,
}

impl<N: Next> Flow<N> {
    pub fn new(stage: &Stage, next: N, at_a_time: usize) -> Self {
        Self {
            next,
            at_a_time,
            producer: topics::producer(stage.bootstrap()),
            inbox: stage.topic("inbox"),
            outcomes: Reader::new(stage.bootstrap(), &stage.topic("outcomes")),
            read: 0,
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Goes on until so many more have ended.
    pub fn run_until_ended(&mut self, more: u64, patience: Duration) {
        let goal = self.ended.len() + usize::try_from(more).unwrap();
        let begun = Instant::now();
        while self.ended.len() < goal {
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
        while self.ended.len() < self.asked.len() {
            let waits = self.asked.keys().filter(|id| !self.ended.contains_key(*id)).collect::<Vec<_>>();
            assert!(begun.elapsed() < patience, "not ended: {waits:?}");
            self.look();
        }
    }

    fn start_and_look(&mut self) {
        while self.asked.len() - self.ended.len() < self.at_a_time {
            let number = u64::try_from(self.asked.len()).unwrap();
            let Some((id, definition, input, asked)) = self.next.next(number) else { break };
            let start = start_record(&id, definition, &input, &jiff::Timestamp::now().to_string());
            let written =
                topics::write(&self.producer, &self.inbox, None, Some(id.as_bytes()), Some(start.as_bytes()));
            RUNTIME.block_on(written).unwrap();
            self.asked.insert(id, asked);
        }
        self.look();
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
            match self.ended.insert(id.clone(), said) {
                None => self.next.ended(&self.asked[&id], said),
                Some(before) => assert_eq!(before, said, "{id}: a told outcome never changes"),
            }
        }
        self.read = self.outcomes.records.len();
        thread::sleep(LOOKS_EVERY);
    }
}
