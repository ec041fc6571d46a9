//! Who starts transactions: through either server and through Kafka, the same once more, something else under the same
//! id, and who wants some of them cancelled. Each wish is on disk before it leaves, each answer when it has come.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rdkafka::producer::FutureProducer;
use sagamore_end_to_end::http::{self, RUNTIME};
use sagamore_end_to_end::load::start_record;
use sagamore_end_to_end::topics;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::notes::Notes;
use crate::world::World;

/// Transactions whose client is still busy with them: what a standstill of a minute piles up, and no more.
const BUSY_MAX: u32 = 1_000;
const ANSWER_MAX: Duration = Duration::from_secs(13);
const WAIT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(300);
/// A record that is not in the log by then may still get there.
const WRITE_MAX: Duration = Duration::from_secs(20);

/// A client at work.
pub struct Client {
    shared: Arc<Shared>,
    starter: JoinHandle<()>,
}

struct Shared {
    addresses: Vec<String>,
    producer: FutureProducer,
    notes: Arc<Notes>,
    seed: u64,
    stop: AtomicBool,
    give_up: AtomicBool,
    started: AtomicU64,
    acknowledged: AtomicU64,
    busy: Arc<Semaphore>,
}

/// A start, the same each time it is sent.
#[derive(Clone)]
struct Start {
    id: String,
    definition: &'static str,
    input: Value,
    time: String,
}

/// What was said to a start.
#[derive(PartialEq, Eq)]
enum Said {
    Yes,
    No,
    Nothing,
}

impl Client {
    /// Begins to start so many transactions a second.
    pub fn begin(world: &World, notes: &Arc<Notes>, seed: u64, rate_per_second: u32) -> Self {
        let shared = Arc::new(Shared {
            addresses: world.addresses().to_vec(),
            producer: topics::producer(world.bootstrap()),
            notes: Arc::clone(notes),
            seed,
            stop: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
            started: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            busy: Arc::new(Semaphore::new(BUSY_MAX as usize)),
        });
        let starter = RUNTIME.spawn(start_many(Arc::clone(&shared), rate_per_second));
        Self { shared, starter }
    }

    /// How many transactions it has begun to start, and how many of these starts have been acknowledged.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.started.load(Ordering::Relaxed), self.shared.acknowledged.load(Ordering::Relaxed))
    }

    /// Starts no more.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Whether every start has been answered and everything else it wanted is done.
    pub fn is_done(&self) -> bool {
        self.starter.is_finished() && self.shared.busy.available_permits() == BUSY_MAX as usize
    }

    /// Asks no more: what is not known by now stays unknown.
    pub fn give_up(&self) {
        self.shared.give_up.store(true, Ordering::Relaxed);
    }

    /// Wants a stuck transaction to be tried again.
    pub fn retry(&self, id: &str) {
        RUNTIME.block_on(verb(&self.shared, id, "retry"));
    }
}

async fn start_many(shared: Arc<Shared>, rate_per_second: u32) {
    let pause = Duration::from_secs(1) / rate_per_second.max(1);
    for number in 0.. {
        let Ok(place) = Arc::clone(&shared.busy).acquire_owned().await else { return };
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let of_this = Arc::clone(&shared);
        RUNTIME.spawn(async move {
            live(&of_this, number).await;
            drop(place);
        });
        sleep(pause).await;
    }
}

/// Everything that a client does about one transaction.
async fn live(shared: &Shared, number: u64) {
    let mut random = Rng::with_seed(shared.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
    let definition = ["order", "order", "transfer", "transfer", "trip"][random.usize(0..5)];
    let input = json!({
        "customer": format!("c-{}", random.u32(0..50)), "units": random.u32(1..20), "cents": random.u32(100..50_000),
    });
    let id = format!("{definition}-{number}");
    let start = Start { id, definition, input, time: jiff::Timestamp::now().to_string() };
    let by_record = random.u8(0..100) < 35;
    let (twice, conflict, cancel, retry, look) = (
        random.u8(0..100) < 10,
        random.u8(0..100) < 4,
        random.u8(0..100) < 5,
        random.u8(0..100) < 2,
        random.u8(0..100) < 10,
    );
    shared.started.fetch_add(1, Ordering::Relaxed);
    let Start { id, input, time, .. } = &start;
    shared
        .notes
        .write(&json!({"note": "start", "id": id, "definition": definition, "input": input, "time": time}));
    let mut servers = random.fork();
    if twice && random.bool() {
        // Two at once, before anything is known.
        let (one, _) = tokio::join!(
            insist(shared, &start, by_record, &mut servers),
            once(shared, &start, !by_record, 1)
        );
        acknowledge(shared, &one);
    } else {
        acknowledge(shared, &insist(shared, &start, by_record, &mut servers).await);
    }
    if cancel {
        sleep(Duration::from_millis(random.u64(0..1_000))).await;
        verb(shared, id, "cancel").await;
    }
    if retry {
        verb(shared, id, "retry").await;
    }
    if twice {
        sleep(Duration::from_millis(random.u64(0..8_000))).await;
        once(shared, &start, random.bool(), random.usize(0..2)).await;
    }
    if conflict {
        sleep(Duration::from_millis(random.u64(0..8_000))).await;
        contradict(shared, &start, random.bool(), random.usize(0..2)).await;
    }
    if look {
        sleep(Duration::from_millis(random.u64(0..4_000))).await;
        let url = format!("{}/v1/transactions/{id}", shared.addresses[random.usize(0..2)]);
        if let Ok(answer) = http::fetch(&url, ANSWER_MAX).await {
            note_answer(shared, "look", id, &answer);
        }
    }
}

fn acknowledge(shared: &Shared, said: &Said) {
    if *said == Said::Yes {
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends a start until something is known of it: the same, to anybody.
async fn insist(shared: &Shared, start: &Start, by_record: bool, random: &mut Rng) -> Said {
    let mut server = random.usize(0..2);
    while !shared.give_up.load(Ordering::Relaxed) {
        match once(shared, start, by_record, server).await {
            Said::Nothing => sleep(AGAIN).await,
            said => return said,
        }
        server += 1;
    }
    Said::Nothing
}

async fn once(shared: &Shared, start: &Start, by_record: bool, server: usize) -> Said {
    let Start { id, definition, input, time } = start;
    if by_record {
        return write(shared, "start", id, &start_record(id, definition, input, time)).await;
    }
    let body = json!({"id": id, "definition": definition, "input": input, "time": time}).to_string();
    let waits = crate::fate::die(&[id, "waits"]).is_multiple_of(4);
    let (query, patience) = if waits { ("?wait=5s", ANSWER_MAX + WAIT) } else { ("", ANSWER_MAX) };
    let url = format!("{}/v1/transactions{query}", shared.addresses[server % shared.addresses.len()]);
    match http::send(&url, body, patience).await {
        Ok(answer) => {
            note_answer(shared, "start", id, &answer);
            match answer.status {
                200 | 202 => Said::Yes,
                429 | 500.. => Said::Nothing,
                _ => Said::No,
            }
        }
        Err(_) => Said::Nothing,
    }
}

/// Other data under the same id: whoever says yes to this has lost the first.
async fn contradict(shared: &Shared, start: &Start, by_record: bool, server: usize) {
    let Start { id, definition, time, .. } = start;
    let input = json!({"customer": "c-other", "units": 999, "cents": 99_999});
    shared.notes.write(&json!({"note": "conflict", "id": id}));
    if by_record {
        write(shared, "conflict", id, &start_record(id, definition, &input, time)).await;
        return;
    }
    let body = json!({"id": id, "definition": definition, "input": input, "time": time}).to_string();
    let url = format!("{}/v1/transactions", shared.addresses[server]);
    if let Ok(answer) = http::send(&url, body, ANSWER_MAX).await {
        note_answer(shared, "conflict", id, &answer);
    }
}

async fn verb(shared: &Shared, id: &str, verb: &str) {
    shared.notes.write(&json!({"note": verb, "id": id}));
    let server = crate::fate::die(&[id, verb]) % 2;
    let address = &shared.addresses[usize::try_from(server).unwrap_or(0)];
    let body = json!({"reason": "chaos", "actor": "chaos"}).to_string();
    if let Ok(answer) = http::send(&format!("{address}/v1/transactions/{id}/{verb}"), body, ANSWER_MAX).await
    {
        note_answer(shared, verb, id, &answer);
    }
}

async fn write(shared: &Shared, what: &str, id: &str, record: &str) -> Said {
    let inbox = World::topic("inbox");
    let (key, value) = (Some(id.as_bytes()), Some(record.as_bytes()));
    let written = topics::write(&shared.producer, &inbox, None, key, value);
    match tokio::time::timeout(WRITE_MAX, written).await {
        Ok(Ok((partition, offset))) => {
            let note =
                json!({"note": "written", "of": what, "id": id, "partition": partition, "offset": offset});
            shared.notes.write(&note);
            Said::Yes
        }
        Ok(Err(_)) | Err(_) => Said::Nothing,
    }
}

fn note_answer(shared: &Shared, of: &str, id: &str, answer: &http::Answer) {
    let body = &answer.body;
    shared.notes.write(&json!({"note": "answer", "of": of, "id": id, "status": answer.status, "body": body}));
}

/// Where the notes of a run are.
pub fn notes_of(folder: &Path) -> std::path::PathBuf {
    folder.join("client.jsonl")
}
