//! `sagamore-chaos-participant NAME --store FILE`: a ledger. Every effect is a row, an undone one a second row with the
//! opposite amount; balances are sums. No key forbids a second row for one operation: that is what the check looks for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord};
use sagamore_kafka::client::ClientSettings;
use sagamore_participant::store::sqlite::{SqliteStore, rusqlite};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload, Runtime, Settings};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::fate;

/// Pause before a store that cannot be opened is tried again: a full disk, or the other instance is quicker.
const OPEN_AGAIN: Duration = Duration::from_millis(500);
/// How long a slow answer takes: shorter than any timeout, long enough to be overtaken.
const SLOW: Duration = Duration::from_millis(400);

/// What is older is read again, a hundred thousand of them perhaps: that is work enough.
const FRESH: jiff::SignedDuration = jiff::SignedDuration::from_mins(2);

/// The table that the check reads.
pub const LEDGER: &str = "
CREATE TABLE IF NOT EXISTS ledger (
    effect INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL, birth TEXT NOT NULL, step TEXT NOT NULL, operation TEXT NOT NULL,
    amount INTEGER NOT NULL
) STRICT";

/// What it is told.
#[derive(Debug, Parser)]
#[command(name = "sagamore-chaos-participant")]
struct Arguments {
    /// Whose commands it takes.
    name: String,
    /// The file of its store.
    #[arg(long)]
    store: PathBuf,
    /// The brokers.
    #[arg(long)]
    kafka: String,
    /// What the names of topics begin with.
    #[arg(long)]
    prefix: String,
    /// Which attempts fail, are slow, or are answered `pending` first.
    #[arg(long)]
    seed: u64,
}

/// Runs until it is killed.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let store = loop {
        match SqliteStore::open(&arguments.store, |tx| tx.execute_batch(LEDGER)) {
            Ok(store) => break store,
            Err(error) => eprintln!("{}: {error}; tried again", arguments.store.display()),
        }
        thread::sleep(OPEN_AGAIN);
    };
    let clients = ClientSettings::new(arguments.kafka.clone());
    let mut settings = Settings::new(clients, arguments.prefix.parse()?, arguments.name.parse()?);
    settings.workers = std::num::NonZeroUsize::MIN.saturating_add(1);
    settings.batch_max = std::num::NonZeroUsize::MIN.saturating_add(19);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &arguments.kafka).set("linger.ms", "0");
    let ledger = Ledger {
        name: arguments.name.clone(),
        seed: arguments.seed.to_string(),
        pending: Mutex::new(config.create()?),
    };
    let handle = Runtime::spawn(ledger, store, &settings)?;
    handle.join()?;
    Ok(())
}

struct Ledger {
    name: String,
    seed: String,
    /// Our own: the library answers when it is done, and says nothing before.
    pending: Mutex<BaseProducer>,
}

#[derive(Deserialize)]
struct Wish {
    amount: i64,
}

#[derive(Serialize, Deserialize)]
struct Done {
    effect: i64,
    amount: i64,
}

impl Participant for Ledger {
    type Store = SqliteStore;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        let issued: jiff::Timestamp = command.issued.to_string().parse()?;
        if issued.duration_until(jiff::Timestamp::now()) > FRESH {
            return Ok(());
        }
        let address = &command.address;
        let attempt = address.attempt.to_string();
        let words =
            [&self.seed, address.subject.as_str(), &*address.step, address.operation.as_str(), &attempt];
        match fate::die(&words) % 100 {
            0..3 => Err(Fault::new("chaos: an error")),
            3..5 => {
                thread::sleep(SLOW);
                Ok(())
            }
            5..8 => {
                self.say_pending(command);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn execute(&self, tx: &mut rusqlite::Transaction<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let address = &command.address;
        if fate::is_refused(address.subject.as_str(), &address.step) {
            return Ok(Effect::refused("chaos: foretold"));
        }
        let Wish { amount } = serde_json::from_str(command.data.json().unwrap_or_default())?;
        let amount = fate::signed(&address.step, amount);
        let effect = enter(tx, command, amount)?;
        Effect::done(&Done { effect, amount })
    }

    fn compensate(
        &self,
        tx: &mut rusqlite::Transaction<'_>,
        command: &Command<'_>,
        done: &Payload,
    ) -> Result<(), Fault> {
        let done: Done = serde_json::from_str(done.as_ref().json().unwrap_or_default())?;
        enter(tx, command, -done.amount)?;
        Ok(())
    }
}

impl Ledger {
    /// It may be lost: then the answer itself comes, or the timeout.
    fn say_pending(&self, command: &Command<'_>) {
        let address = &command.address;
        let Some((topic, Ok(partition))) =
            command.replyto.rsplit_once('/').map(|(topic, partition)| (topic, partition.parse::<i32>()))
        else {
            return;
        };
        let (subject, operation) = (address.subject.as_str(), address.operation.as_str());
        let reply = json!({
            "specversion": "1.0", "type": "sagamore.reply.v1", "id": format!("{subject}/pending"),
            "source": format!("/{}", self.name), "instance": command.instance.to_string(), "subject": subject,
            "birth": address.birth.to_string(), "step": address.step, "branch": address.branch,
            "operation": operation, "attempt": address.attempt, "outcome": "pending",
        })
        .to_string();
        if let Ok(producer) = self.pending.lock() {
            let record = BaseRecord::to(topic).partition(partition).key(subject).payload(&reply);
            if producer.send(record).is_ok() {
                producer.poll(Duration::ZERO);
            }
        }
    }
}

fn enter(tx: &rusqlite::Transaction<'_>, command: &Command<'_>, amount: i64) -> rusqlite::Result<i64> {
    let address = &command.address;
    tx.execute(
        "INSERT INTO ledger (subject, birth, step, operation, amount) VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            address.subject.as_str(),
            address.birth.to_string(),
            &*address.step,
            address.operation.as_str(),
            amount,
        ),
    )?;
    Ok(tx.last_insert_rowid())
}
