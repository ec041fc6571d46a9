//! Participants at work: at least once, in any order, late, twice.

use std::rc::Rc;

use sagamore_decider::invariants as inv;
use sagamore_schemas::wire::{Answer, Command, Operation, Payload, REASON_EXPIRED, Reply, read_command};

use crate::desk::Mood;
use crate::faults::Fault;
use crate::kafka::{Place, Record};
use crate::world::{Event, World};

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
        let Ok(command) = read_command(entry.record.value.as_deref()) else { return };
        if self.faults.strikes(Fault::Pending, 15) {
            self.reply(&command, Answer::Pending, None, &Payload::Absent);
            let late = self.faults.rng(Fault::Pending).i64(0..3_000);
            return self.after(late, Event::Handle(participant, offset));
        }
        if self.faults.strikes(Fault::RudeAnswer, 25) {
            let reason = match command.address.operation {
                Operation::Compensate if self.net.bool() => "rude",
                _ => REASON_EXPIRED,
            };
            return self.reply(&command, Answer::Refused, Some(reason), &Payload::Absent);
        }
        let mood = self.mood(&command);
        let desk = &self.desks[usize::from(participant)];
        let answered = desk.handle(&command, mood);
        for broken in desk.take_broken() {
            self.witness.violated(&inv::ONE_EFFECT, format!("p{participant}: {broken}"));
        }
        let id = command.address.command_id();
        self.tell(|| format!("p{participant} {id}: {} {:?}", answered.outcome.as_str(), answered.work));
        self.reply(&command, answered.outcome, answered.reason.as_deref(), &answered.data);
    }

    fn mood(&mut self, command: &Command<'_>) -> Mood {
        let what = format!("{}/{}", command.address.subject, command.address.step);
        let refuses = command.address.operation == Operation::Execute
            && self.faults.has(Fault::BusinessNo)
            && crate::stream(self.plan.seed, &what, 0).u8(0..12) == 0;
        if refuses {
            self.faults.note(Fault::BusinessNo);
        }
        Mood {
            refuses,
            fails: self.faults.strikes(Fault::TechnicalError, 6),
            large: self.faults.strikes(Fault::LargeResult, 30),
            lacks: self.faults.strikes(Fault::MissingField, 4),
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
        let record = Record {
            key: Some(Rc::from(command.address.subject.as_str().as_bytes())),
            value: Some(Rc::from(reply.to_json())),
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
