//! How fast the view takes the journal in: `cargo run --release -p sagamore --example view-figures [TRANSACTIONS]`.
//!
//! Four entries a transaction, as the fold writes them for an order of three steps, read from their text and committed as
//! the feed does it; nine in ten end within their batch, as they do under load. No Kafka: this is the store's own pace.
//! Then the questions, each once from a connection of its own, as the API asks them.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sagamore::view::store::{Batch, Store};
use sagamore::view::{By, Filter, query};
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::entries_of;
use uuid::Uuid;

const PARTITIONS: i32 = 4;
const BATCH: usize = 4_000;
/// As the feed does it in a crowd.
const HELD_FOR: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn Error>> {
    let transactions: i64 = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("view.sqlite");
    let mut store = Store::open(&file, Uuid::from_u128(1))?;
    store.define(
        r#"{"name":"order","version":1,"steps":[{"name":"reserve","participant":"inventory"},
            {"name":"charge","participant":"payment"},{"name":"book","participant":"ledger"}]}"#,
    )?;
    let records: Vec<(i32, Vec<u8>)> = (0..transactions).map(record).collect();
    let begun = Instant::now();
    let mut batch = Batch::default();
    let mut entries = 0;
    for (offset, (partition, record)) in (0..).zip(&records) {
        for entry in entries_of(record)? {
            store.take(&mut batch, *partition, offset, &entry)?;
            entries += 1;
        }
        batch.passed(*partition, offset, Time::from_epoch_ms(1_790_000_000_000));
        if batch.entries() >= BATCH {
            store.commit(&mut batch, Some(HELD_FOR))?;
        }
    }
    store.commit(&mut batch, None)?;
    let took = begun.elapsed();
    let bytes = std::fs::metadata(&file)?.len();
    println!(
        "{transactions} transactions, {entries} entries in {:.2} s: {:.0} entries/s; {} MiB in the file",
        took.as_secs_f64(),
        f64::from(entries) / took.as_secs_f64(),
        bytes >> 20
    );
    let all = Filter { statuses: Filter::statuses_of("all")?, ..Filter::default() };
    ask(&file, "100 open", |view| {
        Ok(query::list(view, &Filter::default(), None, 100)?.transactions.len().to_string())
    })?;
    ask(&file, "all, by status and definition", |view| {
        Ok(format!("{} groups", query::count(view, &all, &[By::Status, By::Definition])?.len()))
    })?;
    ask(&file, "stuck, by cause", |view| {
        Ok(format!("{} causes", query::stuck(view, &Filter::default())?.len()))
    })?;
    ask(&file, "one", |view| {
        Ok(format!("{:?}", query::one(view, &"order-77".parse()?)?.map(|shown| shown.status)))
    })?;
    Ok(())
}

fn ask(
    file: &Path,
    name: &str,
    question: impl FnOnce(&Connection) -> Result<String, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let answer = question(&Connection::open(file)?)?;
    println!("{name}: {answer}, {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// One transaction's entries; one in ten is still open, one in a hundred stuck.
fn record(number: i64) -> (i32, Vec<u8>) {
    let partition = i32::try_from(number % i64::from(PARTITIONS)).unwrap_or_default();
    let at = Time::from_epoch_ms(1_790_000_000_000 + number);
    let mut text = String::from("[");
    let mut add = |sequence: i64, rest: String| {
        let offset = number * 4 + sequence;
        let comma = if sequence == 0 { "" } else { "," };
        let revision = sequence + 1;
        let written = write!(
            text,
            r#"{comma}{{"entry":{{"offset":{offset},"sequence":0,"at":"{at}",{rest},"transaction":"order-{number}","birth":"{partition}-{}","revision":{revision}}},"chain":"{offset:064x}"}}"#,
            number * 4,
        );
        written.unwrap_or_else(|_| unreachable!("a String takes everything"));
    };
    let payload = format!(r#""payload":"{number:064x}""#);
    add(
        0,
        format!(
            r#""input":"start","definition":"order@1",{payload},"changes":[{{"step":"reserve","phase":"asked execute 1"}}]"#
        ),
    );
    add(
        1,
        reply(
            "reserve",
            &payload,
            r#""changes":[{"step":"reserve","phase":"done"},{"step":"charge","phase":"asked execute 1"}]"#,
        ),
    );
    let last = match number {
        _ if number % 100 == 0 => reply(
            "charge",
            &payload,
            r#""reason":"timeout","changes":[{"step":"charge","phase":"stuck compensate 3"}],"decision":"rollback","outcome":"stuck""#,
        ),
        _ => reply(
            "charge",
            &payload,
            r#""changes":[{"step":"charge","phase":"done"},{"step":"book","phase":"asked execute 1"}]"#,
        ),
    };
    add(2, last);
    if number % 10 != 0 {
        add(
            3,
            reply(
                "book",
                &payload,
                r#""changes":[{"step":"book","phase":"done"}],"decision":"commit","outcome":"committed""#,
            ),
        );
    }
    text.push(']');
    (partition, text.into_bytes())
}

fn reply(step: &str, payload: &str, rest: &str) -> String {
    format!(
        r#""input":"reply","step":"{step}","operation":"execute","attempt":1,"answer":"ok",{payload},{rest}"#
    )
}
