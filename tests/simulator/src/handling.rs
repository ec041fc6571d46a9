//! Participants at work: at least once, in any order, late, twice; and what they do in doubt.
//!
//! Whoever has voted yes and hears nothing asks, some times, with growing pauses. What it is answered is done like the
//! command itself, through the barrier: whichever comes first has the effect, the other finds its row.

use std::rc::Rc;

use sagamore_decider::invariants as inv;
use sagamore_participant::barrier::Refusal;
use sagamore_participant::perform::{Answered, Work};
use sagamore_schemas::wire::{
    Address, Answer, Asked, Command, Decided, Inquiry, Operation, Payload, REASON_EXPIRED, Reply, Verdict,
    read_asked, read_command,
};

use crate::desk::{Mood, key};
use crate::faults::Fault;
use crate::kafka::{Place, Record};
use crate::world::{Event, World};

/// How often a branch in doubt asks. What is in doubt for longer is so for a halted shard, or one that is stuck.
const INQUIRIES_MAX: u32 = 4;
/// Its pauses grow by this.
const PATIENCE_FACTOR: i64 = 8;

impl World {
    /// New commands are visible: they are handled, sometime.
    pub(crate) fn hand_out(&mut self, participant: u8) {
        let high = self.kafka.at(Place::Commands(participant)).high();
        let desk = &mut self.desks[usize::from(participant)];
        let from = std::mem::replace(&mut desk.position, high);
        let wait = (desk.away_until - self.now).max(0);
        for offset in from..high {
            self.hand(participant, offset, wait);
        }
    }

    /// A participant was restarted: what it had not committed comes again.
    pub(crate) fn hand_again(&mut self, participant: u8, wait: i64) {
        let high = self.kafka.at(Place::Commands(participant)).high();
        for offset in (high - 5).max(0)..high {
            self.hand(participant, offset, wait);
        }
    }

    fn hand(&mut self, participant: u8, offset: i64, wait: i64) {
        let mut delay = wait + self.latency();
        if self.faults.strikes(Fault::LateCommand, 30) {
            delay += self.faults.span(Fault::LateCommand);
        }
        self.after(delay, Event::Handle(participant, offset));
        if self.faults.strikes(Fault::RepeatedCommand, 10) {
            let late = delay + self.faults.span(Fault::RepeatedCommand);
            self.after(late, Event::Handle(participant, offset));
        }
    }

    /// The command at this offset of its topic.
    pub(crate) fn handles(&mut self, participant: u8, offset: i64) {
        let away = self.desks[usize::from(participant)].away_until - self.now;
        if away > 0 {
            return self.after(away, Event::Handle(participant, offset));
        }
        let Some(entry) = self.kafka.at(Place::Commands(participant)).get(offset).cloned() else { return };
        match read_asked(entry.record.value.as_deref()) {
            Ok(Asked::Command(command)) => self.obeys(participant, offset, &command),
            Ok(Asked::Verdict(verdict)) => self.learns(participant, &verdict),
            Err(_) => {}
        }
    }

    fn obeys(&mut self, participant: u8, offset: i64, command: &Command<'_>) {
        if self.faults.strikes(Fault::Pending, 15) {
            self.reply(command, Answer::Pending, None, &Payload::Absent);
            let late = self.faults.rng(Fault::Pending).i64(0..3_000);
            return self.after(late, Event::Handle(participant, offset));
        }
        if self.faults.strikes(Fault::RudeAnswer, 25) {
            let reason = match command.address.operation {
                Operation::Compensate | Operation::Precommit | Operation::Commit | Operation::Abort
                    if self.net.bool() =>
                {
                    "rude"
                }
                _ => REASON_EXPIRED,
            };
            return self.reply(command, Answer::Refused, Some(reason), &Payload::Absent);
        }
        let Some(answered) = self.performs(participant, command) else { return };
        if command.address.operation == Operation::Prepare && answered.work == Work::Effect {
            self.desks[usize::from(participant)].votes.insert(key(command), offset);
            let patience = self.net.i64(500..20_000);
            self.after(patience, Event::Doubt(participant, offset, 1, patience));
        }
        self.reply(command, answered.outcome, answered.reason.as_deref(), &answered.data);
    }

    /// In a local transaction of its own.
    fn performs(&mut self, participant: u8, command: &Command<'_>) -> Option<Answered> {
        let mood = self.mood(command);
        let desk = &self.desks[usize::from(participant)];
        let answered = desk.handle(command, mood);
        for broken in desk.take_broken() {
            self.witness.violated(&inv::ONE_EFFECT, format!("p{participant}: {broken}"));
        }
        let id = command.address.command_id();
        self.tell(|| format!("p{participant} {id}: {} {:?}", answered.outcome.as_str(), answered.work));
        let contradicts = [Refusal::NotPrepared, Refusal::Aborted, Refusal::Committed].map(Refusal::as_str);
        let reason = answered.reason.as_deref().unwrap_or_default();
        // What is late for a transaction that has ended, and is purged, may say so.
        let birth = command.address.birth;
        let has_ended = || {
            let fold = self.witness.folds().find(|(partition, _)| *partition == birth.partition.0);
            fold.and_then(|(_, fold)| fold.born.get(&birth)).is_some_and(|seen| seen.ended.is_some())
        };
        if answered.work == Work::Nothing && contradicts.contains(&reason) && !has_ended() {
            let text = format!("p{participant} is told {id}, and that is {reason}");
            self.witness.violated(&inv::ONE_VERDICT, text);
            return None;
        }
        Some(answered)
    }

    /// Voted yes some time ago, to the command at this offset: if nothing was heard since, asks.
    pub(crate) fn doubts(&mut self, participant: u8, offset: i64, times: u32, patience: i64) {
        let away = self.desks[usize::from(participant)].away_until - self.now;
        if away > 0 {
            return self.after(away, Event::Doubt(participant, offset, times, patience));
        }
        let Some(entry) = self.kafka.at(Place::Commands(participant)).get(offset).cloned() else { return };
        let Ok(command) = read_command(entry.record.value.as_deref()) else { return };
        let Ok(name) = format!("p{participant}").parse() else { return };
        if !self.desks[usize::from(participant)].is_in_doubt(&key(&command)) {
            return;
        }
        let address = &command.address;
        self.tell(|| format!("p{participant} asks about {}", address.command_id()));
        let inquiry = Inquiry {
            instance: command.instance,
            subject: address.subject.clone(),
            birth: address.birth,
            step: address.step.clone(),
            branch: address.branch.clone(),
            participant: name,
        };
        self.say(&command, inquiry.to_json());
        if times < INQUIRIES_MAX {
            let patience = patience * PATIENCE_FACTOR;
            self.after(patience, Event::Doubt(participant, offset, times + 1, patience));
        }
    }

    /// What was answered to an inquiry.
    fn learns(&mut self, participant: u8, verdict: &Verdict<'_>) {
        let Inquiry { birth, step, branch, .. } = &verdict.inquiry;
        let branch = format!("{birth}/{step}/{branch}");
        self.tell(|| format!("p{participant} learns of {branch}: {}", verdict.decision.as_str()));
        let operation = match verdict.decision {
            Decided::Commit => Operation::Commit,
            Decided::Abort => Operation::Abort,
            Decided::Undecided | Decided::Forgotten => return,
        };
        let Some(vote) = self.desks[usize::from(participant)].votes.get(&branch).copied() else { return };
        let Some(entry) = self.kafka.at(Place::Commands(participant)).get(vote).cloned() else { return };
        let Ok(mut command) = read_command(entry.record.value.as_deref()) else { return };
        command.address.operation = operation;
        self.performs(participant, &command);
    }

    fn mood(&mut self, command: &Command<'_>) -> Mood {
        let Address { subject, step, branch, operation, .. } = &command.address;
        let what = format!("{subject}/{step}/{branch}");
        let refuses = matches!(operation, Operation::Execute | Operation::Prepare)
            && self.faults.has(Fault::BusinessNo)
            && crate::stream(self.plan.seed, &what, 0).u8(0..12) == 0;
        if refuses {
            self.faults.note(Fault::BusinessNo);
        }
        Mood {
            refuses,
            fails: self.faults.strikes(Fault::TechnicalError, 6),
            large_bytes: self.large_bytes(),
            lacks: self.faults.strikes(Fault::MissingField, 4),
        }
    }

    /// What does not fit, or just fits in a child and not in what began it.
    fn large_bytes(&mut self) -> usize {
        let is_larger = self.faults.strikes(Fault::LargeResult, 30);
        match is_larger.then(|| self.has_children && self.faults.rng(Fault::LargeResult).bool()) {
            Some(true) => self.faults.rng(Fault::LargeResult).usize(3_700..4_000),
            Some(false) => 8_000,
            None => 0,
        }
    }

    fn reply(&mut self, command: &Command<'_>, outcome: Answer, reason: Option<&str>, data: &Payload) {
        let reply = Reply {
            address: command.address.clone(),
            instance: command.instance,
            source: "/desk".into(),
            outcome,
            reason: reason.map(Into::into),
            replytoken: None,
            data: data.as_ref(),
        };
        self.say(command, reply.to_json());
    }

    /// To the home of a command, as late and as often as chance has it.
    fn say(&mut self, command: &Command<'_>, value: Vec<u8>) {
        let record = Record {
            key: Some(Rc::from(command.address.subject.as_str().as_bytes())),
            value: Some(Rc::from(value)),
            as_of: None,
        };
        let place = Place::Inbox(command.address.birth.partition.0);
        let mut delay = self.latency();
        if self.faults.strikes(Fault::LateReply, 30) {
            delay += self.faults.span(Fault::LateReply);
        }
        if self.faults.strikes(Fault::RepeatedReply, 12) {
            let late = delay + self.faults.span(Fault::RepeatedReply);
            self.after(late, Event::Arrive(place, record.clone(), None));
        }
        self.after(delay, Event::Arrive(place, record, None));
    }
}
