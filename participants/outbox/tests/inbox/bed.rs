//! A schema of its own, a coordinator that sends what it is told, and a worker in SQL.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sagamore_local_postgres::LocalPostgres;
use sagamore_outbox::Counters;
pub(crate) use sagamore_outbox::inbox::{Inbox, Record};
use sagamore_outbox::schema::{Schema, migrate};
use sagamore_participant_postgres::{Connection, connector};
use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

pub(crate) static SERVER: LazyLock<LocalPostgres> =
    LazyLock::new(|| LocalPostgres::start(&[("fsync", "off")]).unwrap_or_else(|error| panic!("{error}")));
const PATIENCE: Duration = Duration::from_secs(20);
/// When everything is issued that is not told otherwise, in ms of the year 2026.
pub(crate) const ISSUED_MS: i64 = 1_000;

/// A connection with a few words for tests.
pub(crate) struct Sql(pub(crate) Connection);

impl Sql {
    pub(crate) fn connect() -> Self {
        Self(Connection::open(&connector(NoTls), &SERVER.url().parse().unwrap(), PATIENCE).unwrap())
    }

    pub(crate) fn run(&mut self, text: &str) {
        self.0.batch(text).unwrap();
    }

    pub(crate) fn rows(&mut self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.0.wait(async |client| client.query(query, parameters).await).unwrap()
    }

    pub(crate) fn number(&mut self, query: &str) -> i64 {
        self.rows(query, &[])[0].get(0)
    }

    /// What a statement is refused with.
    pub(crate) fn refusal(&mut self, text: &str) -> String {
        self.0.batch(text).unwrap_err().to_string()
    }
}

pub(crate) struct Bed {
    pub(crate) s: String,
    pub(crate) relay: Sql,
    pub(crate) service: Sql,
    pub(crate) inbox: Inbox,
    pub(crate) counters: Counters,
    attempt: u32,
    read: i64,
}

/// A command.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) subject: String,
    pub(crate) key: String,
    pub(crate) operation: String,
    pub(crate) issued_ms: i64,
    pub(crate) watermark_ms: i64,
    pub(crate) data: String,
}

impl Ask {
    pub(crate) fn new(subject: &str, operation: &str) -> Self {
        Self {
            subject: subject.into(),
            key: subject.into(),
            operation: operation.into(),
            issued_ms: ISSUED_MS,
            watermark_ms: 0,
            data: r#"{"quantity":2}"#.into(),
        }
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let s = format!("bed_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (mut relay, mut service) = (Sql::connect(), Sql::connect());
        let schema: Schema = s.parse().unwrap();
        migrate(&mut relay.0, &schema).unwrap();
        migrate(&mut relay.0, &schema).unwrap();
        service.run(&format!("CREATE TABLE {s}.effects (subject TEXT NOT NULL, change BIGINT NOT NULL)"));
        let inbox = Inbox::new(&schema, "stock".parse().unwrap(), "sagamore.inbox");
        Self { s, relay, service, inbox, counters: Counters::default(), attempt: 0, read: 0 }
    }

    /// As a record, the next attempt.
    pub(crate) fn record(&mut self, ask: &Ask) -> Record {
        self.attempt += 1;
        let Ask { subject, key, operation, issued_ms, watermark_ms, data } = ask;
        let time =
            |ms: &i64| format!("2026-11-22T16:{:02}:{:02}.{:03}Z", ms / 60_000, ms / 1_000 % 60, ms % 1_000);
        let value = format!(
            r#"{{"specversion":"1.0","type":"sagamore.command.v1","id":"i","source":"/sagamore","subject":"{subject}",
            "birth":"0-7","step":"s","branch":"b","operation":"{operation}","attempt":{},"definition":"d@1",
            "instance":"00000000-0000-0000-0000-000000000000","replyto":"sagamore.inbox/0","replytoken":"t",
            "issued":"{}","watermark":"{}","deadline":"2026-11-22T17:00:00Z","data":{data}}}"#,
            self.attempt,
            time(issued_ms),
            time(watermark_ms),
        );
        Record { key: Some(key.clone().into_bytes()), value: value.into_bytes(), is_told: false }
    }

    pub(crate) fn verdict(subject: &str, decision: &str) -> Record {
        let value = format!(
            r#"{{"specversion":"1.0","type":"sagamore.decision.v1","id":"i","source":"/sagamore","subject":"{subject}",
            "birth":"0-7","step":"s","branch":"b","participant":"stock","decision":"{decision}",
            "instance":"00000000-0000-0000-0000-000000000000"}}"#
        );
        Record { key: Some(subject.as_bytes().to_vec()), value: value.into_bytes(), is_told: false }
    }

    /// What an operator says of a branch: `decided` or `repaired`.
    pub(crate) fn word(subject: &str, decision: &str, wish: &str) -> Record {
        let mut record = Self::verdict(subject, decision);
        let text = String::from_utf8(record.value).unwrap();
        let said = format!(
            r#","heuristic":"{wish}","actor":"anna","reason":"payroll","time":"2026-11-22T16:10:00Z"}}"#
        );
        record.value = (text.trim_end_matches('}').to_owned() + &said).into_bytes();
        record
    }

    /// Keeps records, all at once; which are to come again.
    pub(crate) fn absorb(&mut self, records: &[Record]) -> Vec<usize> {
        let records: Vec<&Record> = records.iter().collect();
        self.inbox.absorb(&mut self.relay.0, &records, &mut self.counters).unwrap()
    }

    pub(crate) fn ask(&mut self, asks: &[Ask]) -> Vec<usize> {
        let records: Vec<Record> = asks.iter().map(|ask| self.record(ask)).collect();
        self.absorb(&records)
    }

    /// Takes a command in an open transaction; its number and operation.
    pub(crate) fn take(&mut self) -> Option<(i64, String)> {
        let query = format!("SELECT number, operation FROM {}.take('stock')", self.s);
        self.service.run("BEGIN");
        let found = self.service.rows(&query, &[]);
        found.first().map(|row| (row.get(0), row.get(1)))
    }

    /// Effect and answer, in the transaction of `take`.
    pub(crate) fn reply(&mut self, (number, operation): &(i64, String), outcome: &str) {
        let s = &self.s;
        let change = match operation.as_str() {
            "execute" | "prepare" => 1,
            "compensate" | "abort" => -1,
            _ => 0,
        };
        if outcome == "ok" {
            self.service.run(&format!(
                "INSERT INTO {s}.effects SELECT subject, {change} FROM {s}.todo WHERE number = {number}"
            ));
        }
        let data = if outcome == "ok" && change == 1 { r#"'{"place": "A1"}'"# } else { "NULL" };
        let reason = if outcome == "refused" { "'none left'" } else { "NULL" };
        self.service.run(&format!("SELECT {s}.reply({number}, '{outcome}', {data}, {reason}); COMMIT"));
    }

    /// One command, if there is one.
    pub(crate) fn work(&mut self, outcome: &str) -> bool {
        let taken = self.take();
        match &taken {
            Some(taken) => self.reply(taken, outcome),
            None => self.service.run("COMMIT"),
        }
        taken.is_some()
    }

    /// Replies since the last look, as `operation outcome reason`.
    pub(crate) fn replies(&mut self) -> Vec<String> {
        let query = format!(
            "SELECT seq, payload::text FROM {}.outbox WHERE seq > $1 AND type = 'sagamore.reply.v1' ORDER BY seq",
            self.s
        );
        let found = self.relay.rows(&query, &[&self.read]);
        self.read = found.last().map_or(self.read, |row| row.get(0));
        found
            .iter()
            .map(|row| {
                let reply: Value = serde_json::from_str(row.get(1)).unwrap();
                assert_eq!(
                    (&reply["replytoken"], &reply["source"]),
                    (&"t".into(), &"/stock".into()),
                    "{reply}"
                );
                let text = |name: &str| reply[name].as_str().unwrap_or_default().to_owned();
                let data = if reply["data"].is_null() { String::new() } else { reply["data"].to_string() };
                [text("operation"), text("outcome"), text("reason"), data].join(" ").trim().to_owned()
            })
            .collect()
    }

    pub(crate) fn net(&mut self) -> i64 {
        let query = format!("SELECT coalesce(sum(change), 0)::bigint FROM {}.effects", self.s);
        self.service.number(&query)
    }
}
