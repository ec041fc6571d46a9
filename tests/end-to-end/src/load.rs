//! Orders, started at the pace of their answers, with a record of what was asked and what was answered.
//!
//! Of three orders one is started by a record in the inbox, one over HTTP, one over HTTP waiting for its outcome. A start
//! that is not answered is sent again, the same, to the next server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::FutureProducer;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::http::{self, RUNTIME};
use crate::stage::Stage;
use crate::topics;

/// Countries of the orders: none that the example shipping refuses by itself.
const COUNTRIES: [&str; 5] = ["France", "Germany", "Brazil", "Canada", "Spain"];
/// How long a server may take to answer, besides a wait it was asked for.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// What the server is asked to wait.
const WAIT: Duration = Duration::from_secs(3);
/// Pause before a start is sent again.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// How long one start may take until it is answered, retries included.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(90);

/// An order that was to be started, and what was said to that.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The order.
    pub input: Value,
    /// The branches of its definition: `step`, or in a group `step/branch`.
    pub branches: &'static [&'static str],
    /// Whether it is in the inbox for certain: acknowledged by the server or by the broker.
    pub accepted: bool,
    /// Outcomes told over HTTP.
    pub told: Vec<Value>,
    /// Answers that no server should give.
    pub wrong: Vec<String>,
}

impl Intent {
    /// An order of three steps.
    pub fn new(input: Value, accepted: bool) -> Self {
        Self::of("order", input, accepted)
    }

    /// A transaction of one of the definitions in this crate's folder.
    pub fn of(definition: &str, input: Value, accepted: bool) -> Self {
        let branches: &[&str] = match definition {
            "mixed" => &["reserve", "hold", "insure", "pay/bank-a", "pay/bank-b", "ship"],
            "two-phase" | "three-phase" => &["pay/bank-a", "pay/bank-b"],
            _ => &["reserve", "charge", "ship"],
        };
        Self { input, branches, accepted, told: Vec::new(), wrong: Vec::new() }
    }
}

/// Everything that was asked, by transaction id.
pub type Intents = BTreeMap<String, Intent>;

/// An order with three steps, the same for the same number.
pub fn order(number: u64) -> Value {
    let line =
        |nth: u64| json!({"product": 1 + (number * 7 + nth * 13) % 77, "quantity": 1 + (number + nth) % 30});
    json!({
        "order": number,
        "customer": format!("C{}", number % 89),
        "ship_country": COUNTRIES[usize::try_from(number % 5).unwrap_or(0)],
        "total_cents": 1_000 + number * 37 % 90_000,
        "lines": (0..=number % 3).map(line).collect::<Vec<_>>(),
    })
}

/// Orders under way.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    stage: Stage,
    producer: FutureProducer,
    name: &'static str,
    definition: &'static str,
    count_max: u64,
    next: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
    intents: Mutex<Intents>,
}

impl Load {
    /// Begins to start orders of a definition, ids `<name>-<number>`, so many at a time and in all.
    pub fn begin(
        stage: &Stage,
        name: &'static str,
        definition: &'static str,
        at_a_time: usize,
        count_max: u64,
    ) -> Self {
        let shared = Arc::new(Shared {
            stage: stage.clone(),
            producer: topics::producer(stage.bootstrap()),
            name,
            definition,
            count_max,
            next: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            intents: Mutex::default(),
        });
        let worker = |_| RUNTIME.spawn(work(Arc::clone(&shared)));
        let workers = (0..at_a_time).map(worker).collect();
        Self { shared, workers }
    }

    /// How many starts have been answered.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Acquire)
    }

    /// Waits until every order has been started and answered.
    pub fn finish(self) -> Intents {
        for worker in self.workers {
            RUNTIME.block_on(worker).expect("a worker of the load does not panic");
        }
        self.shared.intents().clone()
    }

    /// Starts no more orders, and waits for the answers to those that are on the way.
    pub fn stop(self) -> Intents {
        self.shared.stop.store(true, Ordering::Release);
        self.finish()
    }
}

impl Shared {
    fn intents(&self) -> MutexGuard<'_, Intents> {
        self.intents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: &str, change: impl FnOnce(&mut Intent)) {
        if let Some(intent) = self.intents().get_mut(id) {
            change(intent);
        }
    }
}

async fn work(shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Acquire) {
        let number = shared.next.fetch_add(1, Ordering::AcqRel);
        if number >= shared.count_max {
            return;
        }
        let id = format!("{}-{number}", shared.name);
        let input = order(number);
        shared.intents().insert(id.clone(), Intent::of(shared.definition, input.clone(), false));
        match number % 3 {
            0 => start_by_record(&shared, &id, &input).await,
            1 => start_by_request(&shared, &id, &input, number, None).await,
            _ => start_by_request(&shared, &id, &input, number, Some(WAIT)).await,
        }
        shared.answered.fetch_add(1, Ordering::AcqRel);
    }
}

async fn start_by_record(shared: &Shared, id: &str, input: &Value) {
    let start = start_record(id, shared.definition, input, &jiff::Timestamp::now().to_string());
    let inbox = shared.stage.topic("inbox");
    let written =
        topics::write(&shared.producer, &inbox, None, Some(id.as_bytes()), Some(start.as_bytes())).await;
    shared.note(id, |intent| match written {
        Ok(_) => intent.accepted = true,
        Err(error) => intent.wrong.push(format!("the inbox takes no start: {error}")),
    });
}

async fn start_by_request(shared: &Shared, id: &str, input: &Value, number: u64, wait: Option<Duration>) {
    let time = jiff::Timestamp::now().to_string();
    let body = json!({"id": id, "definition": shared.definition, "input": input, "time": time}).to_string();
    let (query, patience) = match wait {
        Some(wait) => (format!("?wait={}s", wait.as_secs()), ANSWER_MAX + wait),
        None => (String::new(), ANSWER_MAX),
    };
    let begun = Instant::now();
    let mut last = String::new();
    for attempt in 0.. {
        if begun.elapsed() > ACCEPTED_WITHIN {
            shared.note(id, |intent| intent.wrong.push(format!("never accepted; at last: {last}")));
            return;
        }
        let url = format!("{}/v1/transactions{query}", shared.stage.some_address(number + attempt));
        match http::send(&url, body.clone(), patience).await {
            Ok(answer) if answer.status == 202 => return shared.note(id, |intent| intent.accepted = true),
            Ok(answer) if answer.status == 200 => {
                return shared.note(id, |intent| {
                    intent.accepted = true;
                    intent.told.push(answer.body);
                });
            }
            // The same start again: it says itself that this is the thing to do.
            Ok(answer) if answer.status == 503 => last = answer.body.to_string(),
            Ok(answer) => {
                let wrong = format!("{}: {}", answer.status, answer.body);
                return shared.note(id, |intent| intent.wrong.push(wrong));
            }
            Err(error) => last = error,
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// A start as the design's page has it.
pub fn start_record(id: &str, definition: &str, input: &Value, time: &str) -> String {
    json!({
        "specversion": "1.0", "type": "sagamore.start.v1", "id": format!("{id}/start"), "source": "/end-to-end",
        "time": time, "subject": id, "definition": definition, "data": input,
    })
    .to_string()
}
