//! Plays a script and writes down what becomes of it: only how new goldens come about. What stands in a file is folded
//! again from the file, so a script may be changed or removed without touching what was recorded.

use std::collections::BTreeMap;

use sagamore_decider::output::{Destination, Output, Record};
use sagamore_decider::settings::LEVEL_MAX;
use sagamore_decider::shard::Shard;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Partition, Span, Time, TransactionId};
use sagamore_schemas::wire::{
    Answer, Asked, Authority, Command, DefinitionApplied, Inquiry, Payload, REASON_EXPIRED, Reply, ShardVerb,
    ShardWish, Start, Undeliverable, Verb, Wish, read_asked, read_command,
};

use super::definition::definition;
use super::format::{Bytes, Golden, Head, In, checkpoint_lines, end_line, line, out_line};

/// When every script begins: 2026-01-01T00:00:00Z.
const T0_MS: i64 = 1_767_225_600_000;
/// Under which reply tokens are made, where a script wants them.
pub const SECRET: &str = "a secret that only this golden has";

/// What the head of a golden says.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    pub name: &'static str,
    pub shows: &'static str,
    /// Inbox partitions; the shard is the first.
    pub partitions: i32,
    pub play: fn(&mut Scribe),
}

/// An inbox being written, and the fold that reads it.
pub struct Scribe {
    head: Head,
    shard: Shard,
    lines: Vec<String>,
    said: Vec<Output>,
    /// How many of them have been passed on where they were said to this very shard.
    passed_on: usize,
    stored_offset: i64,
    next_offset: i64,
    now: Time,
    /// By transaction and branch, every command so far.
    commands: BTreeMap<(String, String), Vec<Vec<u8>>>,
}

/// Plays a script to its end.
pub fn write(script: &Script) -> Golden {
    let head = Head {
        golden: script.name.to_owned(),
        level: LEVEL_MAX,
        shows: script.shows.to_owned(),
        instance: uuid::Uuid::from_u128(7),
        partition: 0,
        partitions: script.partitions,
        inbox: "sagamore.inbox".to_owned(),
        secret: Some(SECRET.to_owned()),
    };
    let mut scribe = Scribe {
        shard: Shard::new(head.identity()),
        head,
        lines: Vec::new(),
        said: Vec::new(),
        passed_on: 0,
        stored_offset: 0,
        next_offset: 0,
        now: Time::from_epoch_ms(T0_MS),
        commands: BTreeMap::new(),
    };
    // Every shard begins at level 1.
    if LEVEL_MAX > 1 {
        scribe.shard_verb(ShardWish::Level { level: LEVEL_MAX });
    }
    (script.play)(&mut scribe);
    scribe.checkpoint(0);
    scribe.lines.push(end_line(&scribe.shard));
    Golden { head: scribe.head, lines: scribe.lines }
}

impl Scribe {
    /// A definition in one line, as in the other tests of the fold.
    pub fn define(&mut self, line: &str) {
        self.define_json(&definition(line));
    }

    pub fn define_json(&mut self, json: &str) {
        let offset = self.shard.definitions().last_offset() + 1;
        let data = Payload::from_json(json.to_owned()).unwrap();
        self.append(&DefinitionApplied { offset, data: data.as_ref() }.to_json());
    }

    /// A start of `t`, now.
    pub fn start(&mut self, id: &str, json: &str) {
        self.start_of(id, json, "t", self.now);
    }

    /// A start of a definition, first issued at `time`.
    pub fn start_of(&mut self, id: &str, json: &str, definition: &str, time: Time) {
        let data = Payload::from_json(json.to_owned()).unwrap();
        let start = Start {
            subject: id.parse().unwrap(),
            time,
            definition: definition.parse().unwrap(),
            traceparent: None,
            data: data.as_ref(),
        };
        self.append(&start.to_json("/golden"));
    }

    /// `ID STEP[/BRANCH][:OPERATION][@ATTEMPT] ANSWER [JSON | WHY]`: to its latest command, or to the one named.
    pub fn answer(&mut self, line: &str) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (id, step, said, rest) = (word(), word(), word(), word());
        let command = self.command(id, step);
        let mut command = read_command(Some(&command)).unwrap();
        let reason = Some(rest).filter(|rest| !rest.is_empty());
        let (outcome, reason) = match said {
            "ok" => (Answer::Ok, None),
            "refused" => (Answer::Refused, reason),
            "expired" => (Answer::Refused, Some(REASON_EXPIRED)),
            "error" => (Answer::Error, reason),
            "pending" => (Answer::Pending, reason),
            "lost" => {
                let lost = Undeliverable { address: command.address, reason: "no such topic".into() };
                return self.append(&lost.to_json());
            }
            _ => panic!("{line}: what does {said} mean?"),
        };
        if said == "ok" && rest == "forged" {
            command.replytoken = Some("0".repeat(64).into());
        }
        let data = match said {
            "ok" if rest.starts_with(['{', '[', '"']) => Payload::from_json(rest.to_owned()).unwrap(),
            "ok" if rest.starts_with("base64:") => Payload::Base64(rest["base64:".len()..].into()),
            _ => Payload::Absent,
        };
        let reply = Reply {
            address: command.address,
            instance: command.instance,
            source: "/golden".into(),
            outcome,
            reason: reason.map(Into::into),
            replytoken: command.replytoken,
            data: data.as_ref(),
        };
        self.append(&reply.to_json());
    }

    /// Whoever got the latest command of `ID STEP[/BRANCH]` asks what has been decided.
    pub fn inquire(&mut self, line: &str) {
        self.inquire_as(line, None);
    }

    /// The same, in the name of another participant.
    pub fn inquire_as(&mut self, line: &str, asker: Option<&str>) {
        let (id, step) = line.split_once(' ').unwrap();
        let command = self.command(id, step);
        let command = read_command(Some(&command)).unwrap();
        let address = command.address;
        let participant = asker.unwrap_or(&address.branch).parse().unwrap();
        let inquiry = Inquiry {
            instance: command.instance,
            subject: address.subject,
            birth: address.birth,
            step: address.step,
            branch: address.branch,
            participant,
        };
        self.append(&inquiry.to_json());
    }

    fn command(&self, id: &str, step: &str) -> Vec<u8> {
        let (step, attempt) = step.split_once('@').unwrap_or((step, ""));
        let (step, operation) = step.split_once(':').unwrap_or((step, ""));
        let of_step = self.commands.get(&(id.to_owned(), step.to_owned()));
        let of_step = of_step.unwrap_or_else(|| panic!("{id} has never asked {step}"));
        let named = of_step.iter().rev().find(|command| {
            let address = read_command(Some(command)).unwrap().address;
            (operation.is_empty() || operation == address.operation.as_str())
                && (attempt.is_empty() || attempt == address.attempt.to_string())
        });
        named.unwrap_or_else(|| panic!("{id} has never asked {step} {operation} {attempt}")).clone()
    }

    /// Who has an answer to give, as `ID STEP[/BRANCH]`, in the order they were first asked.
    pub fn asked(&self) -> Vec<String> {
        self.commands.keys().map(|(id, step)| format!("{id} {step}")).collect()
    }

    pub fn now(&self) -> Time {
        self.now
    }

    /// Time passes, and nobody notices.
    pub fn pass(&mut self, span: &str) {
        self.now = self.now.after(span.parse::<Span>().unwrap());
    }

    /// Time passes up to the next timer, and it rings.
    pub fn ring(&mut self) {
        let Some(due) = self.shard.timers().next_due() else { return };
        self.now = self.now.max(due);
        let entry = self.shard.timers().due(self.now).next().unwrap();
        let value = self.shard.timer_of(entry).unwrap().to_json();
        self.append(&value);
    }

    pub fn cancel(&mut self, id: &str, reason: &str, revision: Option<u64>) {
        self.verb(id, Wish::Cancel, reason, revision);
    }

    pub fn retry(&mut self, id: &str, reason: &str) {
        self.verb(id, Wish::Retry, reason, None);
    }

    pub fn pause(&mut self, id: &str, reason: &str) {
        self.verb(id, Wish::Pause, reason, None);
    }

    pub fn resume(&mut self, id: &str, reason: &str) {
        self.verb(id, Wish::Resume, reason, None);
    }

    fn verb(&mut self, id: &str, wish: Wish<'_>, reason: &str, revision: Option<u64>) {
        let authority = Authority { reason: reason.into(), revision, ..authority() };
        self.append(&Verb { subject: id.parse().unwrap(), wish, authority }.to_json());
    }

    pub fn settings(&mut self, json: &str) {
        let data = Payload::from_json(json.to_owned()).unwrap();
        self.shard_verb(ShardWish::Settings { data: data.as_ref() });
    }

    pub fn level(&mut self, level: u32) {
        self.shard_verb(ShardWish::Level { level });
    }

    fn shard_verb(&mut self, wish: ShardWish<'_>) {
        let partition = Partition(self.head.partition);
        self.append(&ShardVerb { wish, authority: authority() }.to_json(partition));
    }

    /// The first id of this beginning whose home is this shard, or is not.
    pub fn id(&self, beginning: &str, at_home: bool) -> String {
        let mut ids = (0..).map(|number| format!("{beginning}-{number}"));
        let here = |id: &TransactionId| home(id, self.head.partitions).0 == self.head.partition;
        ids.find(|id| here(&id.parse().unwrap()) == at_home).unwrap()
    }

    /// A record with this value, and the transaction's id for a key, as everybody writes them.
    pub fn append(&mut self, value: &[u8]) {
        let document: Option<serde_json::Value> = serde_json::from_slice(value).ok();
        let key = document.and_then(|document| Some(document.get("subject")?.as_str()?.as_bytes().to_vec()));
        self.record(key.as_deref(), Some(value), &[]);
    }

    /// Any record.
    pub fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        self.read(key, value, headers, None);
    }

    /// A record that is passed over.
    pub fn skip(&mut self, value: &[u8], reason: &str) {
        self.read(None, Some(value), &[], Some(reason));
    }

    fn read(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
        skipped: Option<&str>,
    ) {
        let offset = self.next_offset;
        self.next_offset += 1;
        self.lines.push(line(&In {
            offset,
            at: self.now.to_string(),
            key: key.map(|key| Bytes(key.to_vec())),
            value: value.map(|value| Bytes(value.to_vec())),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Bytes(value.to_vec())))
                .collect(),
            skipped: skipped.map(|reason| (authority().actor.into_owned(), reason.to_owned())),
        }));
        let record = Record { offset, timestamp: self.now, key, value, headers };
        if let Some(reason) = skipped {
            return self.shard.skip(&record, &Authority { reason: reason.into(), ..authority() });
        }
        let mut outputs = Vec::new();
        self.shard.apply(&record, &mut outputs);
        for output in &outputs {
            self.lines.push(out_line(output));
            if matches!(output.destination, Destination::Commands(_)) {
                let value = output.value.clone().unwrap();
                let Asked::Command(command) = read_asked(Some(&value)).unwrap() else { continue };
                let name = self.name_of(&command);
                let key = (command.address.subject.to_string(), name);
                self.commands.entry(key).or_default().push(value);
            }
        }
        self.said.extend(outputs);
    }

    /// `STEP`, or `STEP/BRANCH` of a group.
    fn name_of(&self, command: &Command<'_>) -> String {
        let address = &command.address;
        let mut all = self.shard.definitions().iter();
        let (_, plan, _) = all.find(|(id, _, _)| id.to_string() == command.definition).unwrap();
        let step = plan.steps.iter().find(|step| step.name.as_str() == address.step).unwrap();
        if step.is_group { format!("{}/{}", step.name, address.branch) } else { step.name.to_string() }
    }

    /// What shards have said to each other since the last time arrives, in its order; each `times` times.
    pub fn pass_on(&mut self, times: usize) {
        while let Some(output) = self.said.get(self.passed_on).cloned() {
            self.passed_on += 1;
            if output.destination == Destination::Inbox(Partition(0)) {
                let value = output.value.unwrap();
                (0..times).for_each(|_| self.append(&value));
            }
        }
    }

    /// What they have said since the last time never arrives.
    pub fn lose(&mut self) {
        self.passed_on = self.said.len();
    }

    /// The latest child of a step that was asked for something.
    pub fn child_of(&self, step: &str) -> String {
        let of_step = |said: &&Output| {
            let key = said.key.as_deref().unwrap_or_default();
            said.destination != Destination::DeadLetters && key.starts_with(format!("{step}.").as_bytes())
        };
        let latest = self.said.iter().rev().find(of_step).unwrap();
        String::from_utf8(latest.key.clone().unwrap()).unwrap()
    }

    /// The offset of the next record leaps, as after an aborted Kafka transaction of somebody else.
    pub fn leap(&mut self) {
        self.next_offset += 3;
    }

    /// A checkpoint that owes the latest outputs.
    pub fn checkpoint(&mut self, owed: usize) {
        let Some(draft) = self.shard.draft(self.stored_offset) else { return };
        let latest: Vec<&Output> = self.said[self.said.len() - owed..].iter().collect();
        let checkpoint = self.shard.complete(draft, &latest);
        self.stored_offset = checkpoint.next_offset;
        self.lines.extend(checkpoint_lines(&checkpoint, owed));
    }
}

fn authority() -> Authority<'static> {
    Authority { id: "v".into(), actor: "ann".into(), reason: "because".into(), revision: None }
}
