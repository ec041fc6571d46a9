//! A participant that keeps all rules, but for those that it is told to break: what the kit has to find.
//!
//! It knows the wire from participants/README.md, and keeps effects and answers in a file, a line for both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::process::abort;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};

/// What it breaks, with commas between.
pub const DEFECTS: &str = "KIT_DEFECTS";
/// Its file.
pub const FILE: &str = "KIT_FILE";
const ASKS_AFTER: Duration = Duration::from_millis(500);
/// Between the two halves of what should be one.
const HALF_TIME: Duration = Duration::from_millis(250);
const SOON: Duration = Duration::from_secs(10);
const BATCH_MAX: usize = 100;
const BATCH_WITHIN: Duration = Duration::from_millis(60);
const BRANCH: [&str; 5] = ["instance", "subject", "birth", "step", "branch"];
const KNOWN: [&str; 20] = [
    "specversion",
    "type",
    "id",
    "source",
    "time",
    "instance",
    "subject",
    "birth",
    "step",
    "branch",
    "operation",
    "attempt",
    "issued",
    "watermark",
    "deadline",
    "definition",
    "replyto",
    "replytoken",
    "data",
    "data_base64",
];

/// Takes commands until it is killed.
pub fn run() -> ! {
    let defects = std::env::var(DEFECTS).unwrap_or_default();
    let mut naive =
        Naive::open(defects.split(',').map(str::to_owned).collect(), &std::env::var(FILE).unwrap());
    naive.serve()
}

struct Naive {
    defects: BTreeSet<String>,
    name: String,
    inbox: String,
    file: File,
    branches: HashMap<String, Rows>,
    horizons: HashMap<String, String>,
    consumer: BaseConsumer,
    producer: ThreadedProducer<DefaultProducerContext>,
}

#[derive(Default)]
struct Rows {
    answers: BTreeMap<String, Value>,
    vote: Option<Value>,
    asked: Option<Instant>,
}

impl Rows {
    fn is_done(&self, operation: &str) -> bool {
        self.answers.get(operation).is_some_and(|answer| answer["outcome"] == "ok")
    }

    fn has(&self, operation: &str) -> bool {
        self.answers.contains_key(operation)
    }

    fn is_in_doubt(&self) -> bool {
        self.is_done("prepare") && !self.has("commit") && !self.has("abort")
    }
}

/// What is to be kept of a command.
#[derive(Default)]
struct Kept {
    subject: Value,
    lines: Vec<Value>,
    effect: i64,
    reply: Option<(i32, String, Value)>,
    topic: Option<String>,
}

impl Naive {
    fn open(defects: BTreeSet<String>, path: &str) -> Self {
        let variable = |name: &str| std::env::var(format!("SAGAMORE_{name}")).unwrap();
        let (kafka, prefix, name) = (variable("KAFKA"), variable("PREFIX"), variable("NAME"));
        let is = |defect: &str| defects.contains(defect);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka);
        let mut producing = config.clone();
        producing.set("enable.idempotence", "true").set("linger.ms", "0");
        if is("in-a-kafka-transaction") {
            producing.set("transactional.id", format!("{prefix}.{name}"));
        }
        let producer: ThreadedProducer<_> = producing.create().unwrap();
        if is("in-a-kafka-transaction") {
            producer.init_transactions(SOON).unwrap();
        }
        let isolation = if is("dirty-reads") { "read_uncommitted" } else { "read_committed" };
        config.set("group.id", format!("{prefix}.{name}")).set("group.instance.id", &name);
        config
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation);
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[&format!("{prefix}.commands.{name}")]).unwrap();
        let mut branches: HashMap<String, Rows> = HashMap::new();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let rows = branches.entry(line["branch"].to_string()).or_default();
            rows.answers.extend(
                line["operation"].as_str().map(|operation| (operation.to_owned(), line["answer"].clone())),
            );
            if !line["vote"].is_null() {
                rows.vote = Some(line["vote"].clone());
            }
        }
        branches.remove("null");
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let inbox = format!("{prefix}.inbox");
        Self { defects, name, inbox, file, branches, horizons: HashMap::new(), consumer, producer }
    }

    fn is(&self, defect: &str) -> bool {
        self.defects.contains(defect)
    }

    fn serve(&mut self) -> ! {
        loop {
            let mut values = self.poll();
            if self.is("overtakes") {
                values.reverse();
            }
            if self.is("commits-early") && !values.is_empty() {
                self.commit();
                thread::sleep(HALF_TIME);
            }
            let kept: Vec<Kept> = values.iter().filter_map(|value| self.take(value.as_deref())).collect();
            if self.is("keeps-late") {
                self.send_all(&kept);
                self.commit();
                thread::sleep(HALF_TIME);
                self.write(&kept);
            } else {
                self.write(&kept);
                self.send_all(&kept);
                self.commit();
            }
            self.inquire();
        }
    }

    /// What there is.
    fn poll(&self) -> Vec<Option<Vec<u8>>> {
        let mut values = Vec::new();
        let until = Instant::now() + BATCH_WITHIN;
        while values.len() < BATCH_MAX && Instant::now() < until {
            let patience =
                if values.is_empty() || self.is("overtakes") { BATCH_WITHIN / 2 } else { Duration::ZERO };
            match self.consumer.poll(patience) {
                Some(Ok(message)) => values.push(message.payload().map(<[u8]>::to_vec)),
                Some(Err(error)) => eprintln!("{error}"),
                None if values.is_empty() => {}
                None => break,
            }
        }
        values
    }

    fn commit(&self) {
        // Without a position yet there is nothing to commit, and that is no harm.
        let _ = self.consumer.commit_consumer_state(CommitMode::Sync);
    }

    fn take(&mut self, value: Option<&[u8]>) -> Option<Kept> {
        if value.is_none() && self.is("dies-at-a-tombstone") {
            abort();
        }
        let read =
            value.and_then(|value| serde_json::from_slice::<Value>(value).ok()).filter(Value::is_object);
        if read.is_none() && value.is_some() && self.is("stops-at-garbage") {
            stop();
        }
        self.handle(&read?)
    }

    /// Effects and rows in one piece.
    fn write(&mut self, kept: &[Kept]) {
        let mut effects = Vec::new();
        let mut lines: Vec<Value> = kept.iter().flat_map(|kept| kept.lines.clone()).collect();
        if self.is("votes-in-memory") {
            lines.retain(|line| line["operation"] != "prepare");
        }
        for Kept { effect, subject, .. } in kept {
            let word = if *effect > 0 { "did" } else { "undid" };
            effects.extend((0..effect.abs()).map(|_| json!({ word: subject })));
        }
        if self.is("effect-apart") && !effects.is_empty() {
            self.append(&effects);
            thread::sleep(HALF_TIME);
            self.append(&lines);
        } else {
            self.append(&[effects, lines].concat());
        }
    }

    fn append(&mut self, lines: &[Value]) {
        if lines.is_empty() {
            return;
        }
        let text = lines.iter().map(|line| line.to_string() + "\n").collect::<String>();
        self.file.write_all(text.as_bytes()).unwrap();
        self.file.sync_data().unwrap();
    }

    fn send_all(&self, kept: &[Kept]) {
        let is_in_a_transaction = self.is("in-a-kafka-transaction") && !kept.is_empty();
        if is_in_a_transaction {
            self.producer.begin_transaction().unwrap();
        }
        for kept in kept {
            self.send(kept);
        }
        self.producer.flush(SOON).unwrap();
        if is_in_a_transaction {
            self.producer.commit_transaction(SOON).unwrap();
        }
    }

    fn send(&self, Kept { reply, topic, .. }: &Kept) {
        let Some((mut home, subject, mut reply)) = reply.clone() else { return };
        if self.is("drops-token") {
            reply.as_object_mut().unwrap().remove("replytoken");
        }
        if self.is("first-attempt") {
            reply["attempt"] = 1.into();
        }
        if self.is("any-partition") {
            home = (home + 1) % 3;
        }
        let key = if self.is("no-key") { String::new() } else { subject };
        let value = reply.to_string();
        let record =
            BaseRecord::to(topic.as_deref().unwrap_or(&self.inbox)).partition(home).key(&key).payload(&value);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// What to do with it; `None`: nothing.
    fn handle(&mut self, asked: &Value) -> Option<Kept> {
        let text = |field: &str| asked[field].as_str().map(str::to_owned);
        if text("type")? == "sagamore.decision.v1" {
            return self.decide(asked);
        }
        let is_a_command = text("type")? == "sagamore.command.v1" && text("specversion")? == "1.0";
        let is_unknown =
            |fields: &serde_json::Map<_, _>| fields.keys().any(|key| !KNOWN.contains(&key.as_str()));
        if !is_a_command && !self.is("any-type")
            || self.is("no-unknown") && asked.as_object().is_some_and(is_unknown)
        {
            return None;
        }
        let (topic, home) = asked["replyto"].as_str()?.rsplit_once('/')?;
        if topic != self.inbox && !self.is("replies-anywhere") {
            return None;
        }
        let home: i32 = home.parse().ok()?;
        let (operation, issued, watermark) = (text("operation")?, text("issued")?, text("watermark")?);
        asked["attempt"].as_u64()?;
        let is_a_time = |text: &str| text.parse::<jiff::Timestamp>().is_ok();
        let operations = ["execute", "compensate", "prepare", "precommit", "commit", "abort"];
        if !operations.contains(&operation.as_str()) || !is_a_time(&issued) || !is_a_time(&watermark) {
            return None;
        }
        let branch = self.branch(asked)?;
        let topic = (topic != self.inbox).then(|| topic.to_owned());
        let mut kept = Kept { topic, subject: asked["subject"].clone(), ..Kept::default() };
        let answer = self.answer(asked, &branch, &operation, [&issued, &watermark], &mut kept)?;
        let mut reply = json!({"specversion": "1.0", "type": "sagamore.reply.v1", "id": format!("{}/reply", text("id")?),
            "source": format!("/{}", self.name)});
        for field in BRANCH.into_iter().chain(["operation", "attempt", "replytoken"]) {
            if !asked[field].is_null() {
                reply[field] = asked[field].clone();
            }
        }
        for (field, value) in answer.as_object().unwrap() {
            reply[field] = value.clone();
        }
        kept.reply = Some((home, text("subject")?, reply));
        Some(kept)
    }

    fn branch(&self, asked: &Value) -> Option<Value> {
        let mut branch = Vec::new();
        for field in BRANCH {
            let is_ignored = match field {
                "birth" => self.is("ignores-birth"),
                "step" | "branch" => self.is("ignores-branch"),
                "instance" => self.is("ignores-instance"),
                _ => false,
            };
            branch.push(if is_ignored { "" } else { asked[field].as_str()? });
        }
        Some(json!(branch))
    }

    fn answer(
        &mut self,
        asked: &Value,
        branch: &Value,
        operation: &str,
        [issued, watermark]: [&str; 2],
        kept: &mut Kept,
    ) -> Option<Value> {
        let mut home = format!("{}/{}", asked["instance"], asked["birth"].as_str()?.split('-').next()?);
        if self.is("one-watermark") {
            home.clear();
        }
        let horizon = self.horizons.entry(home).or_default();
        // In this form times are in the order of their texts.
        *horizon = watermark.min(issued).to_owned().max(horizon.clone());
        let horizon = horizon.clone();
        let is_behind = *issued < *horizon;
        if is_behind && self.is("forgets-behind") {
            self.branches.remove(&branch.to_string());
        }
        let rows = self.branches.entry(branch.to_string()).or_default();
        if let Some(answer) = rows.answers.get(operation).cloned() {
            if self.is("does-it-again") && operation == "execute" && answer["outcome"] == "ok" {
                kept.effect = 1;
            }
            if self.is("commits-twice") && operation == "commit" {
                kept.effect = 1;
            }
            if self.is("says-duplicate") {
                return Some(json!({"outcome": "refused", "reason": "duplicate"}));
            }
            return Some(answer);
        }
        if rows.answers.is_empty() && is_behind && !self.is("does-the-expired") {
            return Some(json!({"outcome": "refused", "reason": "expired"}));
        }
        self.perform(asked, branch, operation, kept)
    }

    fn perform(&mut self, asked: &Value, branch: &Value, operation: &str, kept: &mut Kept) -> Option<Value> {
        let ok = json!({"outcome": "ok"});
        let cancelled = json!({"outcome": "refused", "reason": "cancelled"});
        let no = |reason: &str| Some(json!({"outcome": "refused", "reason": reason}));
        let rows = self.branches.entry(branch.to_string()).or_default();
        let (has_executed, has_prepared) = (rows.is_done("execute"), rows.is_done("prepare"));
        let is_refused = rows.has("execute") && !has_executed;
        let is_known = rows.has("execute") || rows.has("prepare");
        let has_ended = [rows.has("commit"), rows.has("abort")];
        match operation {
            "execute" | "prepare" => {
                let answer = self.business(asked)?;
                kept.effect = i64::from(operation == "execute" && answer["outcome"] == "ok");
                self.keep(branch, operation, &answer, asked, kept);
                return Some(answer);
            }
            "compensate" => {
                if !is_known && self.is("refuses-unknown") {
                    return no("unknown");
                }
                if !is_known && !self.is("forgets-cancelled") {
                    self.keep(branch, "execute", &cancelled, asked, kept);
                }
                let undoes = has_executed
                    || !is_known && self.is("undoes-nothing")
                    || is_refused && self.is("undoes-refused");
                kept.effect = -i64::from(undoes);
            }
            "abort" => {
                if !is_known && !self.is("forgets-cancelled") {
                    self.keep(branch, "prepare", &cancelled, asked, kept);
                }
            }
            _ => {
                if !has_prepared && !self.is("commits-unprepared") {
                    return no("not-prepared");
                }
                if has_ended[1] {
                    return no("aborted");
                }
                kept.effect = i64::from(operation == "commit");
            }
        }
        self.keep(branch, operation, &ok, asked, kept);
        Some(ok)
    }

    fn keep(&mut self, branch: &Value, operation: &str, answer: &Value, asked: &Value, kept: &mut Kept) {
        if answer["reason"] == "told-to" && self.is("asks-business-again") {
            return;
        }
        let mut line = json!({"branch": branch, "operation": operation, "answer": answer});
        let rows = self.branches.entry(branch.to_string()).or_default();
        if operation == "prepare" && answer["outcome"] == "ok" {
            line["vote"] = asked.clone();
            rows.vote = Some(asked.clone());
            rows.asked = Some(Instant::now());
        }
        rows.answers.insert(operation.to_owned(), answer.clone());
        kept.lines.push(line);
    }

    /// The business: it is refused when it is told to be.
    fn business(&self, asked: &Value) -> Option<Value> {
        let number = asked["data"]["number"].as_u64();
        match (number, asked["data"]["refuse"].as_bool()) {
            (_, Some(true)) => Some(json!({"outcome": "refused", "reason": "told-to"})),
            (Some(number), _) => Some(json!({"outcome": "ok", "data": {"number": number}})),
            (None, _) if self.is("blocks-on-shape") => stop(),
            (None, _) if self.is("silent-on-shape") => None,
            (None, _) => Some(json!({"outcome": "refused", "reason": "bad-input"})),
        }
    }

    fn decide(&mut self, verdict: &Value) -> Option<Kept> {
        let branch = self.branch(verdict)?;
        let mut decision = verdict["decision"].as_str()?.to_owned();
        if decision == "undecided" && self.is("decides-alone") {
            "abort".clone_into(&mut decision);
        }
        let vote = self.branches.get(&branch.to_string()).filter(|rows| rows.is_in_doubt())?.vote.clone()?;
        let is_ours = verdict["participant"] == self.name.as_str();
        if !is_ours || !["commit", "abort"].contains(&decision.as_str()) || self.is("ignores-decisions") {
            return None;
        }
        let mut kept = Kept { subject: vote["subject"].clone(), ..Kept::default() };
        let answer = self.perform(&vote, &branch, &decision, &mut kept)?;
        if self.is("answers-decisions") {
            let (_, home) = vote["replyto"].as_str()?.rsplit_once('/')?;
            let mut reply = json!({"specversion": "1.0", "type": "sagamore.reply.v1", "id": "r", "source": "/naive",
                "operation": decision, "attempt": 1, "outcome": answer["outcome"]});
            for field in BRANCH {
                reply[field] = vote[field].clone();
            }
            kept.reply = Some((home.parse().ok()?, vote["subject"].as_str()?.to_owned(), reply));
        }
        Some(kept)
    }

    fn inquire(&mut self) {
        if self.is("never-asks") {
            return;
        }
        let waiting = self.branches.values_mut().filter(|rows| rows.is_in_doubt());
        let due = waiting.filter(|rows| rows.asked.is_none_or(|asked| asked.elapsed() > ASKS_AFTER));
        let mut votes = Vec::new();
        for rows in due {
            rows.asked = Some(Instant::now());
            votes.extend(rows.vote.clone());
        }
        for vote in votes {
            let mut inquiry = json!({"specversion": "1.0", "type": "sagamore.inquiry.v1", "id": "i", "source": "/naive",
                "participant": self.name});
            for field in BRANCH {
                inquiry[field] = vote[field].clone();
            }
            let home = vote["replyto"]
                .as_str()
                .and_then(|replyto| replyto.rsplit_once('/'))
                .unwrap()
                .1
                .parse()
                .unwrap();
            let (value, key) = (inquiry.to_string(), vote["subject"].as_str().unwrap());
            let record = BaseRecord::to(&self.inbox).partition(home).key(key).payload(&value);
            if self.is("in-a-kafka-transaction") {
                self.producer.begin_transaction().unwrap();
            }
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
            if self.is("in-a-kafka-transaction") {
                self.producer.flush(SOON).unwrap();
                self.producer.commit_transaction(SOON).unwrap();
            }
        }
    }
}

/// Never gets any further.
fn stop() -> ! {
    loop {
        thread::sleep(SOON);
    }
}
