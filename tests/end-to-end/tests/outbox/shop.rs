//! Who orders: a few transactions at a time, each started by one call in SQL, repeated until it is answered.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use sagamore_end_to_end::http::RUNTIME;
use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::topics::Reader;
use serde_json::json;
use tokio_postgres::Client;

use crate::bank::{Bank, connect};

pub const DEFINITIONS: [&str; 2] = ["sql-prepared", "sql-saga"];
const AT_A_TIME: usize = 8;
/// Few, so that transfers meet.
const ACCOUNTS: u64 = 12;
/// One of so many asks for more than there is at the first bank, one of others is refused by the second.
const TOO_DEAR_EVERY: u64 = 7;
const UNKNOWN_EVERY: u64 = 5;
const LOOKS_EVERY: Duration = Duration::from_millis(30);
/// Outcomes that a transaction ends with.
const FINAL: [&str; 3] = ["committed", "compensated", "aborted"];

pub struct Order {
    pub definition: &'static str,
    pub cents: i64,
}

pub struct Shop {
    url: String,
    client: Option<Client>,
    outcomes: Reader,
    read: usize,
    /// The last one may have been placed, or not.
    is_uncertain: bool,
    pub asked: BTreeMap<String, Order>,
    pub ended: BTreeMap<String, (&'static str, String)>,
}

impl Shop {
    /// At this bank.
    pub fn begin(stage: &Stage, bank: &Bank) -> Self {
        Self {
            url: bank.database.url(),
            client: None,
            outcomes: Reader::new(stage.bootstrap(), &stage.topic("outcomes")),
            read: 0,
            is_uncertain: false,
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
            self.order_and_look();
        }
    }

    /// Goes on for so long.
    pub fn run_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.order_and_look();
        }
    }

    /// Orders no more, and waits for the last.
    pub fn finish(&mut self, patience: Duration) {
        let begun = Instant::now();
        while self.is_uncertain {
            self.order_and_look();
        }
        while self.ended.len() < self.asked.len() {
            let waits = self.asked.keys().filter(|id| !self.ended.contains_key(*id)).collect::<Vec<_>>();
            assert!(begun.elapsed() < patience, "not ended: {waits:?}");
            self.look();
        }
    }

    fn order_and_look(&mut self) {
        while self.asked.len() - self.ended.len() < AT_A_TIME {
            let number = u64::try_from(self.asked.len()).unwrap();
            let definition = DEFINITIONS[usize::try_from(number).unwrap() % DEFINITIONS.len()];
            let is_dear = number % TOO_DEAR_EVERY == 3;
            let cents = if is_dear { 10_000_000 } else { 100 + i64::try_from(number * 37 % 700).unwrap() };
            let is_unknown = number % UNKNOWN_EVERY == 4;
            let to = if is_unknown { "nobody".to_owned() } else { format!("a{}", number * 5 % ACCOUNTS) };
            let from = format!("a{}", number * 7 % ACCOUNTS);
            let input = json!({"from": from, "to": to, "debit": -cents, "credit": cents});
            let id = format!("{definition}-{number}");
            self.is_uncertain = !self.place(&id, definition, &input.to_string());
            if self.is_uncertain {
                break;
            }
            self.asked.insert(id, Order { definition, cents });
        }
        self.look();
    }

    /// Whether the database has said that it is done. Until it does, the same is asked again.
    fn place(&mut self, id: &str, definition: &str, input: &str) -> bool {
        if self.client.is_none() {
            self.client = connect(&self.url).ok().map(|(client, _)| client);
        }
        let Some(client) = &self.client else { return false };
        let done = RUNTIME
            .block_on(client.execute("SELECT place($1, $2, $3::text::jsonb)", &[&id, &definition, &input]));
        if done.is_err() {
            self.client = None;
        }
        done.is_ok()
    }

    fn look(&mut self) {
        self.outcomes.catch_up();
        for seen in &self.outcomes.records[self.read..] {
            let outcome = seen.json();
            let text = |name: &str| outcome[name].as_str().unwrap_or_default().to_owned();
            let (id, birth, said) = (text("subject"), text("birth"), text("outcome"));
            let Some(said) = FINAL.into_iter().find(|known| *known == said) else {
                panic!("{id}: {outcome}");
            };
            let told = (said, birth);
            if let Some(before) = self.ended.insert(id.clone(), told.clone()) {
                assert_eq!(before, told, "{id}: one life, and a told outcome never changes");
            }
        }
        self.read = self.outcomes.records.len();
        thread::sleep(LOOKS_EVERY);
    }
}
