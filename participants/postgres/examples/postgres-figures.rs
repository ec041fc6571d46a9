//! What a command costs on PostgreSQL, beside the same business transaction without this library:
//! `cargo run --release -p sagamore-participant-postgres --example postgres-figures`.
//!
//! A command changes a balance and writes a posting. Server and clients share this machine; `fsync` is on.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sagamore_local_postgres::LocalPostgres;
use sagamore_participant::barrier::BranchKey;
use sagamore_participant::perform::{Work, perform};
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_participant::{Command, Effect, Fault, Operation, Participant, Payload};
use sagamore_participant_postgres::tokio_postgres::{Config, NoTls, connect};
use sagamore_participant_postgres::{PostgresOptions, PostgresStore, Tx};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::Address;
use uuid::Uuid;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MEASURED: Duration = Duration::from_secs(3);
const ACCOUNTS: usize = 100_000;
const TABLES: &str = "CREATE TABLE IF NOT EXISTS accounts (account INT PRIMARY KEY, cents BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS postings (id BIGINT PRIMARY KEY, account INT NOT NULL, cents BIGINT NOT NULL)";
const UPDATE: &str = "UPDATE accounts SET cents = cents + $2 WHERE account = $1";
const INSERT: &str = "INSERT INTO postings (id, account, cents) VALUES ($1, $2, $3)";

/// Numbers of commands, no two alike.
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn main() -> Result<(), Failure> {
    let postgres = LocalPostgres::start(&[("max_prepared_transactions", "64"), ("shared_buffers", "256MB")])?;
    let config: Config = postgres.url().parse()?;
    let store = |xa| {
        PostgresStore::open(config.clone(), PostgresOptions { xa, ..PostgresOptions::default() }, TABLES)
    };
    let (plain, xa) = (store(false)?, store(true)?);
    fill(&postgres.url())?;
    println!("| on PostgreSQL, commands/s | 1 connection | 4 connections |");
    println!("|---|---|---|");
    for per_commit in [1, 10, 100] {
        let url = postgres.url();
        row(&format!("without Sagamore, {per_commit} per commit"), |until| bare(&url, per_commit, until))?;
    }
    for per_commit in [1, 10, 100, 500] {
        row(&format!("`execute`, {per_commit} per commit"), |until| {
            library(&plain, Operation::Execute, per_commit, until)
        })?;
    }
    row("`prepare` and `commit`, 100 per commit", |until| both(&plain, 100, until))?;
    row("XA: `prepare` and `commit`", |until| both(&xa, 1, until))?;
    Ok(())
}

/// Commands per second, with one worker and with four.
fn row(what: &str, work: impl Fn(Instant) -> Result<usize, Failure> + Sync) -> Result<(), Failure> {
    let mut line = format!("| {what} |");
    for workers in [1, 4] {
        let begun = Instant::now();
        let done = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(begun + MEASURED))).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no worker panics"))
                .sum::<Result<usize, _>>()
        })?;
        let ms = usize::try_from(begun.elapsed().as_millis())?.max(1);
        write!(line, " {} |", done * 1_000 / ms)?;
    }
    println!("{line}");
    Ok(())
}

fn fill(url: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = connect(url, NoTls).await?;
        tokio::spawn(connection);
        let accounts = format!("INSERT INTO accounts SELECT n, 0 FROM generate_series(0, {ACCOUNTS}) n");
        Ok(client.batch_execute(&accounts).await?)
    })
}

fn account(number: usize) -> Result<i32, Failure> {
    Ok(i32::try_from(number * 7_919 % ACCOUNTS)?)
}

/// The business alone, as one would write it by hand, pipelined: two round trips a commit, and one for each further command.
fn bare(url: &str, per_commit: usize, until: Instant) -> Result<usize, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = connect(url, NoTls).await?;
        tokio::spawn(connection);
        let (update, insert) = (client.prepare(UPDATE).await?, client.prepare(INSERT).await?);
        let mut done = 0;
        while Instant::now() < until {
            // In the order of accounts, so that nobody waits for whom he holds up.
            let mut numbers: Vec<usize> =
                (0..per_commit).map(|_| NEXT.fetch_add(1, Ordering::Relaxed)).collect();
            numbers.sort_by_key(|number| number * 7_919 % ACCOUNTS);
            for (nth, number) in numbers.into_iter().enumerate() {
                let (id, account, cents) = (i64::try_from(number)?, account(number)?, 1_i64);
                let opened = async { if nth == 0 { client.batch_execute("BEGIN").await } else { Ok(()) } };
                let changed = async { client.execute(&update, &[&account, &cents]).await };
                let written = async { client.execute(&insert, &[&id, &account, &cents]).await };
                let (first, updated, inserted) = tokio::join!(biased; opened, changed, written);
                first?;
                updated?;
                inserted?;
            }
            client.batch_execute("COMMIT").await?;
            done += per_commit;
        }
        Ok(done)
    })
}

struct Bank;

impl Bank {
    fn post(tx: &mut Tx<'_>, command: &Command<'_>, cents: i64) -> Result<Effect, Fault> {
        let number: usize = serde_json::from_str(command.data.json().unwrap_or_default())?;
        let account = account(number).map_err(|error| Fault::new(error.to_string()))?;
        let id = i64::try_from(number)?;
        tx.execute_all(&[(UPDATE, &[&account, &cents]), (INSERT, &[&id, &account, &cents])])?;
        Effect::done(&number)
    }
}

impl Participant for Bank {
    type Store = PostgresStore;

    fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::post(tx, command, 1)
    }

    fn compensate(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Err(Fault::new("it is not measured"))
    }

    fn prepare(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::post(tx, command, 1)
    }

    fn commit(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

fn command(number: usize, data: &Payload, operation: Operation) -> Result<Command<'_>, Failure> {
    let now_ms = i64::try_from(number)?;
    Ok(Command {
        address: Address {
            subject: format!("order-{number}").parse()?,
            birth: format!("0-{number}").parse()?,
            step: "charge".into(),
            branch: "payment".into(),
            operation,
            attempt: 1,
        },
        instance: Uuid::nil(),
        issued: Time::from_epoch_ms(now_ms),
        // What is older than this goes meanwhile, as it does in the long run.
        watermark: Time::from_epoch_ms(now_ms - 20_000),
        deadline: Time::MAX,
        definition: "order@1".into(),
        replyto: "sagamore.inbox/0".into(),
        traceparent: None,
        replytoken: None,
        unilateral_after: None,
        data: data.as_ref(),
    })
}

/// In the order of accounts, so that nobody waits for whom he holds up; each with its `data`.
fn take(many: usize) -> Result<Vec<(usize, Payload)>, Failure> {
    let mut numbers: Vec<usize> = (0..many).map(|_| NEXT.fetch_add(1, Ordering::Relaxed)).collect();
    numbers.sort_by_key(|number| number * 7_919 % ACCOUNTS);
    numbers.into_iter().map(|number| Ok((number, Payload::from_json(number.to_string())?))).collect()
}

fn commands(taken: &[(usize, Payload)], operation: Operation) -> Result<Vec<Command<'_>>, Failure> {
    taken.iter().map(|(number, data)| command(*number, data, operation)).collect()
}

fn commit_all(
    store: &PostgresStore,
    session: &mut <PostgresStore as Store>::Session,
    commands: &[Command<'_>],
) -> Result<(), Failure> {
    let mut tx = store.begin(session)?;
    tx.foresee(&commands.iter().map(BranchKey::of).collect::<Vec<_>>())?;
    for command in commands {
        let answered = perform(&Bank, &mut tx, command)?;
        if answered.work != Work::Effect {
            return Err(format!("{}: {answered:?}", command.address.subject).into());
        }
    }
    Ok(tx.commit()?)
}

fn library(
    store: &PostgresStore,
    operation: Operation,
    per_commit: usize,
    until: Instant,
) -> Result<usize, Failure> {
    let mut session = store.session()?;
    let mut done = 0;
    while Instant::now() < until {
        let taken = take(per_commit)?;
        commit_all(store, &mut session, &commands(&taken, operation)?)?;
        done += per_commit;
    }
    Ok(done)
}

/// Two commands each.
fn both(store: &PostgresStore, per_commit: usize, until: Instant) -> Result<usize, Failure> {
    let mut session = store.session()?;
    let mut done = 0;
    while Instant::now() < until {
        let taken = take(per_commit)?;
        for operation in [Operation::Prepare, Operation::Commit] {
            commit_all(store, &mut session, &commands(&taken, operation)?)?;
        }
        done += 2 * per_commit;
    }
    Ok(done)
}
