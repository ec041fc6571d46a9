//! A script is played in the world, and prints itself as a tree: each input, and under it what it led to.
//!
//! ```text
//! start [ID] [JSON] [DEFINITION] [@TIME]   a client starts
//! on ID                      from here on answers and verbs are about that one
//! STEP ANSWER [WHY | JSON]   a participant answers the latest command of that step, of a group STEP/BRANCH;
//!                            STEP:OPERATION@ATTEMPT names another.
//!                            ok, refused, error, pending; expired (refused for that reason); lost (undeliverable)
//! +30s                       time passes, due timers ring one by one
//! ring                       time passes up to the next timer
//! inquire STEP/BRANCH        a branch in doubt asks; of another birth with @OFFSET at the end
//! cancel WHY, retry WHY,     verbs, about the latest id; @REVISION at the end of WHY is compare and set
//! pause WHY, resume WHY
//! settings JSON, level N     verbs about the shard
//! post LABEL                 what one shard said to another arrives: the latest of that label, again if it is
//!                            named again
//! define LINE                another definition
//! raw JSON                   anything
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sagamore_decider::output::{Destination, Notice, Output};
use sagamore_schemas::ids::{Span, Time, TransactionId};
use sagamore_schemas::wire::{
    Address, Answer, Asked, Authority, ChildWish, Input, Inquiry, Occasion, OutcomeKind, Payload, PayloadRef,
    REASON_EXPIRED, Reply, Resolution, Resolved, ShardVerb, ShardWish, Start, Undeliverable, Verb, Verdict,
    Wish, read_asked, read_command, read_input, read_outcome,
};

use super::definition::definition;
use super::world::{Effect, Fault, World, identity};

/// One transaction as data.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// The definition, as one line.
    pub given: &'static str,
    /// The script.
    pub when: &'static str,
    /// The tree.
    pub then: &'static str,
}

/// Plays the case, plainly, with every record twice, and with a takeover after every record.
pub fn check(case: &Case) {
    let plain = play(case, Fault::None);
    let expected = unindented(case.then);
    assert!(plain.tree == expected, "{}\n--- expected\n{expected}\n--- found\n{}", case.name, plain.tree);
    let resumed = play(case, Fault::Takeover);
    assert_eq!(resumed.tree, plain.tree, "{}: with a takeover after every record", case.name);
    assert_eq!(resumed.world.told, plain.world.told, "{}: with a takeover after every record", case.name);
    let twice = play(case, Fault::Twice);
    let ids = |played: &Played| played.commands_and_outcomes();
    assert_eq!(ids(&twice), ids(&plain), "{}: every record twice", case.name);
}

/// What a case printed, and the world as it was left.
pub struct Played {
    /// The tree.
    pub tree: String,
    /// The world.
    pub world: World,
}

impl Played {
    /// What was told to whom, without the offsets, which differ where records stand twice.
    fn commands_and_outcomes(&self) -> Vec<String> {
        let told = self.world.told.values().filter_map(|output| match &output.destination {
            Destination::DeadLetters | Destination::Inbox(_) => None,
            Destination::Commands(_) => {
                let Ok(Asked::Command(command)) = read_asked(output.value.as_deref()) else { return None };
                let address = command.address;
                Some(format!(
                    "{} {} {} {}",
                    unhashed(&address.subject),
                    called(&address),
                    address.operation,
                    address.attempt
                ))
            }
            Destination::Outcomes => {
                let outcome = read_outcome(output.value.as_deref()).unwrap();
                let refused = outcome.outcome == OutcomeKind::Refused;
                (!refused).then(|| format!("{} {}", unhashed(&outcome.subject), outcome.outcome))
            }
        });
        let mut told: Vec<String> = told.collect();
        told.sort();
        told.dedup();
        told
    }
}

/// The id of a child holds a hash of its parent's birth, which differs where records stand twice.
fn unhashed(id: &TransactionId) -> &str {
    id.as_str().split('.').next().unwrap_or_default()
}

/// Plays the case.
pub fn play(case: &Case, fault: Fault) -> Played {
    let mut player = Player {
        world: World::new(fault),
        latest: "t".parse().unwrap(),
        commands: BTreeMap::new(),
        mail: BTreeMap::new(),
        children: Vec::new(),
        tree: String::new(),
    };
    let given = player.world.define(&definition(case.given));
    assert!(given.outputs.is_empty(), "{}: {:?}", case.name, given.outputs);
    for line in case.when.lines().map(str::trim).filter(|line| !line.is_empty()) {
        player.line(line);
    }
    Played { tree: player.tree, world: player.world }
}

struct Player {
    world: World,
    latest: TransactionId,
    commands: BTreeMap<String, Vec<Vec<u8>>>,
    /// What shards said to each other, by label.
    mail: BTreeMap<String, Vec<u8>>,
    /// Ids of children, in the order of their appearance.
    children: Vec<TransactionId>,
    tree: String,
}

impl Player {
    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        if let Some(span) = word.strip_prefix('+') {
            let then = self.world.now.after(span.parse::<Span>().unwrap());
            return self.pass_until(then);
        }
        match word {
            "ring" => {
                let due = self.world.next_due().expect("a timer stands");
                self.ring(due);
            }
            "start" => self.start(line, rest),
            "on" => self.latest = self.id_of(rest),
            "post" => {
                let Some(value) = self.mail.get(rest).cloned() else {
                    panic!("{line}: there are {:?}", self.mail.keys())
                };
                let effect = self.world.apply(&value);
                self.print(line, effect);
            }
            "cancel" => self.verb(line, Wish::Cancel, rest),
            "retry" => self.verb(line, Wish::Retry, rest),
            "pause" => self.verb(line, Wish::Pause, rest),
            "resume" => self.verb(line, Wish::Resume, rest),
            "resolve" => self.resolve(line, rest),
            "settings" => {
                let data: Payload = Payload::from_json(rest.to_owned()).unwrap();
                self.shard_verb(line, ShardWish::Settings { data: data.as_ref() });
            }
            "level" => self.shard_verb(line, ShardWish::Level { level: rest.parse().unwrap() }),
            "define" => {
                let effect = self.world.define(&definition(rest));
                self.print(line, effect);
            }
            "inquire" => self.inquire(line, rest),
            "raw" => {
                let effect = self.world.apply(rest.as_bytes());
                self.print(line, effect);
            }
            _ => self.answer(line, word, rest),
        }
    }

    /// `refund#1` is the first child of a step `refund`.
    fn id_of(&self, name: &str) -> TransactionId {
        let Some((step, number)) = name.split_once('#') else { return name.parse().unwrap() };
        let of_step = |id: &&TransactionId| id.as_str().split('.').next() == Some(step);
        self.children.iter().filter(of_step).nth(number.parse::<usize>().unwrap() - 1).unwrap().clone()
    }

    fn name_of(&mut self, id: &TransactionId) -> String {
        let Some((step, _)) = id.as_str().split_once('.') else { return id.to_string() };
        if !self.children.contains(id) {
            self.children.push(id.clone());
        }
        let of_step = |id: &&TransactionId| id.as_str().split('.').next() == Some(step);
        let number = self.children.iter().filter(of_step).position(|known| known == id).unwrap() + 1;
        format!("{step}#{number}")
    }

    /// What one shard says to another: its label, and what stands behind it.
    fn label(&mut self, value: &[u8]) -> (String, String) {
        let json = |data: &PayloadRef<'_>| match data {
            PayloadRef::Json(raw) if raw.get() != "{}" => format!(" {}", shortened(raw.get())),
            PayloadRef::Json(_) | PayloadRef::Base64(_) | PayloadRef::Absent => String::new(),
        };
        match read_input(Some(value)).unwrap() {
            Input::Child(said) => {
                let (name, attempt) = (self.name_of(&said.subject), said.parent.attempt);
                let count = if attempt == 1 { String::new() } else { format!(" {attempt}") };
                let definition = match said.wish {
                    ChildWish::Begin => format!(" {}", said.definition),
                    ChildWish::CallOff | ChildWish::Forget => String::new(),
                };
                let label = format!("{} {name}{count}", said.wish.as_str());
                (label, format!("{definition}{}", json(&said.data)))
            }
            Input::Reply(reply) => {
                let Address { step, operation, attempt, .. } = &reply.address;
                let label = format!("{step} {operation} {attempt} {}", reply.outcome.as_str());
                let reason = reply.reason.as_deref().map(|reason| format!(": {}", self.renamed(reason)));
                (label, format!("{}{}", reason.unwrap_or_default(), json(&reply.data)))
            }
            other => panic!("no shard says {other:?} to another"),
        }
    }

    /// Ids of children under their names.
    fn renamed(&self, text: &str) -> String {
        self.children.iter().fold(text.to_owned(), |text, id| {
            let step = id.as_str().split('.').next().unwrap();
            let of_step = |id: &&TransactionId| id.as_str().split('.').next() == Some(step);
            let number = self.children.iter().filter(of_step).position(|known| known == id).unwrap() + 1;
            text.replace(id.as_str(), &format!("{step}#{number}"))
        })
    }

    fn start(&mut self, line: &str, rest: &str) {
        let mut words = rest.split_whitespace().peekable();
        if let Some(id) = words.next_if(|word| !word.starts_with('{')) {
            self.latest = self.id_of(id);
        } else {
            self.latest = "t".parse().unwrap();
        }
        let data = Payload::from_json(words.next().unwrap_or("{}").to_owned()).unwrap();
        let definition = words.next().unwrap_or("t").parse().unwrap();
        let time = match words.next() {
            Some(at) => at.strip_prefix('@').unwrap().parse().unwrap(),
            None => self.world.now,
        };
        let start =
            Start { subject: self.latest.clone(), time, definition, traceparent: None, data: data.as_ref() };
        let effect = self.world.apply(&start.to_json("/test"));
        self.print(line, effect);
    }

    fn inquire(&mut self, line: &str, rest: &str) {
        let (whom, birth) = match rest.split_once('@') {
            Some((whom, offset)) => (whom, format!("{}-{offset}", identity().partition)),
            None => (rest, self.world.birth_of(&self.latest)),
        };
        let (step, branch) = whom.split_once('/').unwrap_or((whom, whom));
        let inquiry = Inquiry {
            instance: identity().instance,
            subject: self.latest.clone(),
            birth: birth.parse().unwrap(),
            step: step.into(),
            branch: branch.into(),
            participant: branch.parse().unwrap(),
        };
        let effect = self.world.apply(&inquiry.to_json());
        self.print(line, effect);
    }

    fn authority(reason: &str) -> Authority<'_> {
        let (reason, revision) = match reason.rsplit_once('@') {
            Some((reason, revision)) => (reason.trim(), Some(revision.parse().unwrap())),
            None => (reason, None),
        };
        Authority { id: "v".into(), actor: "tester".into(), reason: reason.into(), revision }
    }

    /// `resolve step[/branch] ok|refused reason`.
    fn resolve(&mut self, line: &str, rest: &str) {
        let mut words = rest.splitn(3, ' ');
        let (whom, outcome) = (words.next().unwrap(), words.next().unwrap());
        let (step, branch) = whom.split_once('/').map_or((whom, None), |(step, branch)| (step, Some(branch)));
        let outcome = match outcome {
            "ok" => Resolved::Done,
            "refused" => Resolved::Refused,
            other => panic!("{line}: {other}"),
        };
        let data = Payload::from_json(r#"{"by":"hand"}"#.to_owned()).unwrap();
        let data = if outcome == Resolved::Done { data.as_ref() } else { PayloadRef::Absent };
        let resolution = Resolution { step: step.into(), branch: branch.map(Into::into), outcome, data };
        self.verb(line, Wish::Resolve(resolution), words.next().unwrap_or("looked"));
    }

    fn verb(&mut self, line: &str, wish: Wish<'_>, reason: &str) {
        let verb = Verb { subject: self.latest.clone(), wish, authority: Self::authority(reason) };
        let effect = self.world.apply(&verb.to_json());
        self.print(line, effect);
    }

    fn shard_verb(&mut self, line: &str, wish: ShardWish<'_>) {
        let verb = ShardVerb { wish, authority: Self::authority("because") };
        let effect = self.world.apply(&verb.to_json(identity().partition));
        self.print(line, effect);
    }

    fn answer(&mut self, line: &str, whom: &str, rest: &str) {
        let (whom, attempt) = match whom.split_once('@') {
            Some((whom, attempt)) => (whom, Some(attempt.parse::<u32>().unwrap())),
            None => (whom, None),
        };
        let (step, operation) = match whom.split_once(':') {
            Some((step, operation)) => (step, Some(operation)),
            None => (whom, None),
        };
        let all = self.commands.get(step).cloned().unwrap_or_default();
        let command = all.iter().rev().find(|bytes| {
            let address = read_command(Some(bytes)).unwrap().address;
            address.subject == self.latest
                && operation.is_none_or(|operation| address.operation.as_str() == operation)
        });
        let Some(command) = command else { panic!("{line}: nothing was asked of {step}") };
        let command = read_command(Some(command)).unwrap();
        let mut address = command.address.clone();
        address.attempt = attempt.unwrap_or(address.attempt);
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if word == "lost" {
            let effect =
                self.world.apply(&Undeliverable { address, reason: "no such topic".into() }.to_json());
            return self.print(line, effect);
        }
        let (outcome, reason) = match word {
            "ok" => (Answer::Ok, None),
            "refused" => (Answer::Refused, Some(rest).filter(|rest| !rest.is_empty())),
            "expired" => (Answer::Refused, Some(REASON_EXPIRED)),
            "error" => (Answer::Error, Some(rest).filter(|rest| !rest.is_empty())),
            "pending" => (Answer::Pending, None),
            _ => panic!("{line}: what does {word} mean?"),
        };
        let data = match (outcome, rest) {
            (Answer::Ok, json) if !json.is_empty() => Payload::from_json(expanded(json)).unwrap(),
            (Answer::Ok | Answer::Refused | Answer::Error | Answer::Pending, _) => Payload::Absent,
        };
        let reply = Reply {
            address,
            instance: command.instance,
            source: "/test".into(),
            outcome,
            reason: reason.map(Into::into),
            replytoken: command.replytoken.clone(),
            data: data.as_ref(),
        };
        let value = reply.to_json();
        let effect = self.world.apply(&value);
        self.print(line, effect);
    }

    fn pass_until(&mut self, then: Time) {
        while self.ring(then) {}
    }

    fn ring(&mut self, then: Time) -> bool {
        let Some((value, effect)) = self.world.ring(then) else { return false };
        let Input::Timer(timer) = read_input(Some(&value)).unwrap() else { panic!("a timer rings") };
        let line = match &timer.branch {
            Some((step, branch)) if step == branch => format!("timer {step}"),
            Some((step, branch)) => format!("timer {step}/{branch}"),
            None => "timer deadline".to_owned(),
        };
        self.print(&line, effect);
        true
    }

    fn print(&mut self, line: &str, effect: Effect) {
        let rows: Vec<&str> =
            effect.entries.iter().flat_map(|entry| self.world.taken.rows_of(entry)).collect();
        let mut rows = rows.join(" ");
        let silent = effect.outputs.is_empty() && effect.entries.is_empty();
        match effect.notice {
            Some(Notice::VerbRefused { ref reason }) if reason.contains("pivot") => rows.push_str("T3"),
            Some(Notice::None) if silent && !line.starts_with("define") => {
                let step = line.split([' ', '/', ':', '@']).next().unwrap_or_default();
                let step = line.strip_prefix("post ").map_or(step, |said| said.split(' ').next().unwrap());
                rows.push_str(match () {
                    () if self.world.taken.committing.contains(step) => "P22",
                    () if self.world.taken.children.contains(step) => "C20",
                    () if line.starts_with("post ") => "",
                    () => "S21",
                });
            }
            _ => {}
        }
        if !rows.is_empty() {
            self.world.taken.rows.extend(rows.split(' ').map(str::to_owned));
            rows = format!("  [{rows}]");
        }
        writeln!(self.tree, "{line}{rows}").unwrap();
        if let Some(Notice::VerbRefused { reason }) = effect.notice {
            writeln!(self.tree, "  ! {reason}").unwrap();
        }
        for output in &effect.outputs {
            if let Destination::Inbox(_) = &output.destination {
                let value = output.value.as_deref().unwrap().to_vec();
                let (label, more) = self.label(&value);
                writeln!(self.tree, "  ~> {label}{more}").unwrap();
                self.mail.insert(label, value);
                continue;
            }
            let line = self.renamed(&printed(output));
            writeln!(self.tree, "  {line}").unwrap();
            if let Destination::Commands(participant) = &output.destination {
                let value = output.value.as_deref().unwrap().to_vec();
                let Asked::Command(command) = read_asked(Some(&value)).unwrap() else { continue };
                assert_eq!(command.address.branch, participant.as_str());
                let whom = called(&command.address);
                self.commands.entry(whom).or_default().push(value);
            }
        }
    }
}

/// The step, and the branch when it is not named alike.
fn called(address: &Address<'_>) -> String {
    if address.step == address.branch {
        address.step.to_string()
    } else {
        format!("{}/{}", address.step, address.branch)
    }
}

/// What leaves for anybody but another shard.
fn printed(output: &Output) -> String {
    let value = output.value.as_deref();
    match &output.destination {
        Destination::Commands(_) => {
            let command = match read_asked(value).unwrap() {
                Asked::Command(command) => command,
                Asked::Verdict(Verdict { inquiry, decision, heuristic }) => {
                    assert_eq!(heuristic, None, "a coordinator decides from its log");
                    return format!("-> {}/{}: {}", inquiry.step, inquiry.branch, decision.as_str());
                }
            };
            let key = String::from_utf8_lossy(output.key.as_deref().unwrap()).into_owned();
            let key =
                if key == command.address.subject.as_str() { String::new() } else { format!(" key {key}") };
            let data = match command.data.json() {
                None | Some("{}" | r#"{"input":{}}"#) => String::new(),
                Some(json) => format!(" {}", shortened(json)),
            };
            let address = command.address;
            format!("-> {} {} {}{key}{data}", called(&address), address.operation, address.attempt)
        }
        Destination::Outcomes => {
            let outcome = read_outcome(value).unwrap();
            let id = match outcome.occasion {
                Occasion::Transaction { revision, .. } => format!("{} at {revision}", outcome.subject),
                Occasion::Start { .. } => outcome.subject.to_string(),
            };
            let reason = outcome.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let data = match outcome.data {
                PayloadRef::Json(raw) => format!(" {}", shortened(raw.get())),
                PayloadRef::Base64(_) | PayloadRef::Absent => String::new(),
            };
            format!("= {id} {}{reason}{data}", outcome.outcome)
        }
        Destination::Inbox(_) => unreachable!("it has a label"),
        Destination::DeadLetters => {
            let message = output.headers.iter().find(|(name, _)| name == "__dlq.errors.message").unwrap();
            format!("x {}", String::from_utf8_lossy(&message.1))
        }
    }
}

/// `*5000` in a script stands for that many characters.
fn expanded(json: &str) -> String {
    match json.strip_prefix('*') {
        Some(bytes) => format!("\"{}\"", "x".repeat(bytes.parse::<usize>().unwrap() - 2)),
        None => json.to_owned(),
    }
}

fn shortened(json: &str) -> String {
    if json.len() > 100 { format!("{} bytes", json.len()) } else { json.to_owned() }
}

fn unindented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().skip_while(|line| line.trim().is_empty()).collect();
    let indent = lines.first().map_or(0, |line| line.len() - line.trim_start().len());
    let mut out = String::new();
    for line in lines {
        let line = line.get(indent..).unwrap_or_else(|| line.trim_start());
        if !line.trim().is_empty() {
            writeln!(out, "{}", line.trim_end()).unwrap();
        }
    }
    out
}
