//! One branch of a transaction, as a check works with it: asks, hears, looks at effects, and keeps what was said, so that
//! a broken promise can be told.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sagamore_schemas::ids::{Birth, Span, Time, TransactionId};
use sagamore_schemas::wire::{
    Address, Answer, Command, Decided, Inquiry, Operation, Payload, PayloadRef, Verdict,
};
use uuid::Uuid;

use crate::bench::{Bench, Forward};
use crate::desk::Sending;
use crate::error::{Broken, Stop};
use crate::inbox::{Answered, Arrived, Said};
use crate::observe::Seen;

/// So often a technical failure is asked again, with pauses that double: a coordinator does the same.
const ERRORS_MAX: u32 = 6;
/// The first of these pauses.
const PAUSE: Duration = Duration::from_millis(100);
/// So often `pending` is taken for an answer to come.
const PENDINGS_MAX: u32 = 20;
/// From start to deadline of the transactions; nobody waits for it.
const DEADLINE: Span = Span::from_secs(15 * 60);

/// How many effects there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effects {
    /// As before.
    None,
    /// One.
    Once,
}

pub(crate) struct Branch<'b, 's> {
    bench: &'b Bench<'s>,
    pub(crate) instance: Uuid,
    pub(crate) subject: TransactionId,
    pub(crate) birth: Birth,
    pub(crate) step: String,
    /// The branch of the step.
    pub(crate) name: String,
    /// The key of its records.
    pub(crate) key: String,
    pub(crate) input: Payload,
    pub(crate) issued: Time,
    pub(crate) watermark: Time,
    pub(crate) replytoken: Option<String>,
    /// Only an answer to the present attempt counts, not one to an earlier one that came late.
    pub(crate) is_strict: bool,
    number: u64,
    result: Payload,
    attempts: BTreeMap<Operation, u32>,
    heard: BTreeSet<usize>,
    history: Vec<String>,
    before: Option<Seen>,
    once: Option<Seen>,
}

impl<'b, 's> Branch<'b, 's> {
    pub(crate) fn new(
        bench: &'b Bench<'s>,
        subject: TransactionId,
        birth: Birth,
        number: u64,
        input: Payload,
        [issued, watermark]: [Time; 2],
    ) -> Self {
        Self {
            bench,
            instance: bench.instance,
            key: bench.key(number).unwrap_or_else(|| subject.to_string()),
            subject,
            birth,
            step: "step".to_owned(),
            name: "branch".to_owned(),
            input,
            issued,
            watermark,
            replytoken: None,
            is_strict: false,
            number,
            result: Payload::Absent,
            attempts: BTreeMap::new(),
            heard: BTreeSet::new(),
            history: Vec::new(),
            before: None,
            once: None,
        }
    }

    /// The same transaction with something else about it: another life, another branch. With another number in its input,
    /// so that the business has no reason of its own to refuse it.
    pub(crate) fn turned(mut self, what: &str, turn: impl FnOnce(&mut Self)) -> Self {
        turn(&mut self);
        self.number = self.bench.number();
        self.input = self.bench.settings.input.fill(self.number);
        if let Some(key) = self.bench.key(self.number) {
            self.key = key;
        }
        self.attempts.clear();
        self.result = Payload::Absent;
        self.history.push(what.to_owned());
        self
    }

    /// Asks with another input from now on.
    pub(crate) fn with_input(&mut self, what: &str, input: Payload) {
        self.input = input;
        self.history.push(what.to_owned());
    }

    /// An input that is refused.
    pub(crate) fn refused_input(&self) -> Payload {
        self.bench.refused_input(self.number)
    }

    /// An input that succeeds.
    pub(crate) fn good_input(&self) -> Payload {
        self.bench.settings.input.fill(self.number)
    }

    /// The record of this operation.
    pub(crate) fn record(&self, operation: Operation, attempt: u32) -> Vec<u8> {
        let data = match operation {
            Operation::Execute | Operation::Prepare => self.input.clone(),
            Operation::Compensate | Operation::Precommit | Operation::Commit | Operation::Abort => {
                self.following()
            }
        };
        let command = Command {
            address: Address {
                subject: self.subject.clone(),
                birth: self.birth,
                step: Cow::Borrowed(&self.step),
                branch: Cow::Borrowed(&self.name),
                operation,
                attempt,
            },
            instance: self.instance,
            issued: self.issued,
            watermark: self.watermark,
            deadline: self.issued.after(DEADLINE),
            definition: "check@1".into(),
            replyto: self.bench.replyto(self.birth.partition.0).into(),
            traceparent: None,
            replytoken: self.replytoken.as_deref().map(Cow::Borrowed),
            unilateral_after: None,
            data: data.as_ref(),
        };
        command.to_json()
    }

    /// Sends another attempt.
    pub(crate) fn send(&mut self, operation: Operation) -> Result<(), Stop> {
        let attempt = self.attempts.entry(operation).or_default();
        *attempt += 1;
        let attempt = *attempt;
        self.say(format!("{operation} (attempt {attempt})"));
        self.put(self.record(operation, attempt))
    }

    /// Sends the very same record again.
    pub(crate) fn send_again(&mut self, operation: Operation) -> Result<(), Stop> {
        let attempt = self.attempts.get(&operation).copied().unwrap_or(1);
        self.say(format!("{operation} (attempt {attempt}, the same record again)"));
        self.put(self.record(operation, attempt))
    }

    /// Sends any record of its key.
    pub(crate) fn put(&mut self, value: Vec<u8>) -> Result<(), Stop> {
        self.bench.desk.send(self.sending(value))?;
        Ok(())
    }

    /// Any record of its key.
    pub(crate) fn sending(&self, value: Vec<u8>) -> Sending {
        self.bench.desk.sending(&self.key, value)
    }

    /// Tells it what was decided, as if it had asked.
    pub(crate) fn decide(&mut self, decision: Decided) -> Result<(), Stop> {
        self.say(format!("decision {}", decision.as_str()));
        let inquiry = self.inquiry();
        self.put(Verdict { inquiry, decision, heuristic: None }.to_json())
    }

    /// What it asks when it is in doubt.
    pub(crate) fn inquiry(&self) -> Inquiry<'static> {
        Inquiry {
            instance: self.instance,
            subject: self.subject.clone(),
            birth: self.birth,
            step: self.step.clone().into(),
            branch: self.name.clone().into(),
            participant: self.bench.settings.participant.clone(),
        }
    }

    /// The next answer to this operation, within the time of an answer.
    pub(crate) fn hear(&mut self, operation: Operation) -> Result<Answered, Stop> {
        self.hear_within(operation, self.bench.settings.answer_timeout).map(|(answered, _)| answered)
    }

    /// The same with the record it stood in, within another time.
    pub(crate) fn hear_within(
        &mut self,
        operation: Operation,
        patience: Duration,
    ) -> Result<(Answered, Arrived), Stop> {
        for _ in 0..PENDINGS_MAX {
            let heard = self.next_reply(operation, Instant::now() + patience)?;
            let Some((answered, arrived)) = heard else {
                let came = self.nothing_within(patience);
                return Err(self.broken(&format!("an answer to {operation}"), &came));
            };
            if answered.outcome != Answer::Pending {
                return Ok((answered, arrived));
            }
        }
        Err(self.broken("an answer", &format!("pending, {PENDINGS_MAX} times")))
    }

    /// Asks until there is an answer that is none of technical failure.
    pub(crate) fn ask(&mut self, operation: Operation) -> Result<Answered, Stop> {
        self.ask_within(operation, self.bench.settings.answer_timeout).map(|(answered, _)| answered)
    }

    /// The same with the record it stood in, within another time.
    pub(crate) fn ask_within(
        &mut self,
        operation: Operation,
        patience: Duration,
    ) -> Result<(Answered, Arrived), Stop> {
        let mut pause = PAUSE;
        let mut last = String::new();
        for _ in 0..ERRORS_MAX {
            self.send(operation)?;
            let (answered, arrived) = self.hear_within(operation, patience)?;
            if answered.outcome != Answer::Error {
                return Ok((answered, arrived));
            }
            last = answered.told();
            self.bench.pause(pause)?;
            pause *= 2;
        }
        Err(self.broken("ok or refused", &format!("{last}, {ERRORS_MAX} times")))
    }

    /// Asks, and has it done.
    pub(crate) fn ask_ok(&mut self, operation: Operation) -> Result<Answered, Stop> {
        let answered = self.ask(operation)?;
        self.is_ok(operation, &answered)?;
        Ok(answered)
    }

    /// Takes the result of what was done, or tells that it was not.
    pub(crate) fn is_ok(&mut self, operation: Operation, answered: &Answered) -> Result<(), Stop> {
        if answered.outcome != Answer::Ok {
            return Err(self.broken(&format!("{operation} is answered ok"), &answered.told()));
        }
        if matches!(operation, Operation::Execute | Operation::Prepare) {
            self.result = answered.data.clone();
        }
        Ok(())
    }

    /// Asks, and is refused; with this reason, if one is given.
    pub(crate) fn ask_refused(
        &mut self,
        operation: Operation,
        reason: Option<&str>,
    ) -> Result<Answered, Stop> {
        let answered = self.ask(operation)?;
        let is_it = answered.outcome == Answer::Refused
            && reason.is_none_or(|reason| answered.reason.as_deref() == Some(reason));
        if !is_it {
            let reason = reason.map(|reason| format!(" with the reason {reason}")).unwrap_or_default();
            return Err(self.broken(&format!("{operation} is refused{reason}"), &answered.told()));
        }
        Ok(answered)
    }

    /// Asks once more, and hears what was said before.
    pub(crate) fn ask_the_same(&mut self, operation: Operation, before: &Answered) -> Result<Answered, Stop> {
        let answered = self.ask(operation)?;
        self.is_the_same(operation, before, &answered)?;
        Ok(answered)
    }

    /// That both say the same.
    pub(crate) fn is_the_same(
        &self,
        operation: Operation,
        before: &Answered,
        answered: &Answered,
    ) -> Result<(), Stop> {
        if answered.says_the_same_as(before) {
            return Ok(());
        }
        Err(self.broken(&format!("{operation} is answered as before: {}", before.told()), &answered.told()))
    }

    /// Does it, by this way, to its end.
    pub(crate) fn carry_out(&mut self, forward: Forward) -> Result<Answered, Stop> {
        let first = self.ask_ok(forward.first())?;
        if forward == Forward::Commit {
            self.ask_ok(Operation::Commit)?;
        }
        Ok(first)
    }

    /// Looks at the state before anything is done.
    pub(crate) fn mark(&mut self) -> Result<(), Stop> {
        self.before = self.see()?;
        Ok(())
    }

    /// That the state is as it was when it was marked, or changed by one effect.
    pub(crate) fn expect(&mut self, forward: Forward, effects: Effects) -> Result<(), Stop> {
        let (Some(before), Some(now)) = (self.before.clone(), self.see()?) else { return Ok(()) };
        self.judge(forward, effects, &before, &now)
    }

    /// That the state is as it was when it was marked last.
    pub(crate) fn expect_unchanged(&mut self) -> Result<(), Stop> {
        self.expect(Forward::Execute, Effects::None)
    }

    fn judge(&mut self, forward: Forward, effects: Effects, before: &Seen, now: &Seen) -> Result<(), Stop> {
        let unit = self.bench.unit(forward);
        let is_right = match (effects, now.since(before), unit) {
            (Effects::None, ..) => now == before,
            (Effects::Once, Some(change), Some(unit)) => change == unit,
            (Effects::Once, ..) => match &self.once {
                Some(once) => now == once,
                None => now != before,
            },
        };
        if is_right {
            if effects == Effects::Once {
                self.once.get_or_insert_with(|| now.clone());
            }
            return Ok(());
        }
        let expected = match (effects, unit) {
            (Effects::None, _) => format!("the state is {}, as before", before.told()),
            (Effects::Once, Some(unit)) => format!("the state has changed by {unit}, from {}", before.told()),
            (Effects::Once, None) => match &self.once {
                Some(once) => format!("the state is {}, as after the first", once.told()),
                None => format!("the state is no longer {}", before.told()),
            },
        };
        Err(self.broken(&expected, &format!("the state is {}", now.told())))
    }

    /// The state, where it can be seen.
    pub(crate) fn see(&self) -> Result<Option<Seen>, Stop> {
        self.bench.look(&self.subject, self.number)
    }

    /// Every reply to this operation that has come.
    pub(crate) fn replies(&self, operation: Operation) -> Vec<Answered> {
        self.bench.inbox.look(|shelf| {
            let replies = shelf.of(&self.subject).iter().filter_map(|arrived| match &arrived.said {
                Said::Reply(reply) if reply.operation == operation => Some(reply.as_ref().clone()),
                Said::Reply(_) | Said::Inquiry(_) => None,
            });
            replies.collect()
        })
    }

    /// Whether it has an answer to this operation that is none of technical failure.
    pub(crate) fn is_answered(&self, operation: Operation) -> bool {
        self.replies(operation).iter().any(|reply| matches!(reply.outcome, Answer::Ok | Answer::Refused))
    }

    /// A broken promise.
    pub(crate) fn broken(&self, expected: &str, came: &str) -> Stop {
        Broken { sent: self.told(), expected: expected.to_owned(), came: came.to_owned() }.into()
    }

    /// Adds to what is told of it.
    pub(crate) fn say(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    /// What was sent so far.
    pub(crate) fn told(&self) -> String {
        format!("{} of {} ({})", self.history.join(", then "), self.subject, self.birth)
    }

    fn next_reply(
        &mut self,
        operation: Operation,
        until: Instant,
    ) -> Result<Option<(Answered, Arrived)>, Stop> {
        let (subject, heard) = (&self.subject, &self.heard);
        let attempt = self.attempts.get(&operation).copied().filter(|_| self.is_strict);
        let found = self.bench.inbox.wait(
            until,
            || self.bench.pulse(),
            |shelf| {
                let mut all = shelf.of(subject).iter().enumerate();
                all.find_map(|(place, arrived)| match &arrived.said {
                    Said::Reply(reply)
                        if reply.operation == operation
                            && attempt.is_none_or(|attempt| reply.attempt == attempt)
                            && !heard.contains(&place) =>
                    {
                        Some((place, reply.as_ref().clone(), arrived.clone()))
                    }
                    Said::Reply(_) | Said::Inquiry(_) => None,
                })
            },
        )?;
        let Some((place, answered, arrived)) = found else { return Ok(None) };
        self.heard.insert(place);
        Ok(Some((answered, arrived)))
    }

    /// What came instead of an answer.
    fn nothing_within(&self, patience: Duration) -> String {
        let known = self.bench.subjects();
        let strays = self.bench.inbox.look(|shelf| shelf.strays(&known));
        let strays = strays.map(|strays| format!("; in the inbox stands what nobody understands, {strays}"));
        format!("nothing within {} s{}", patience.as_secs_f32(), strays.unwrap_or_default())
    }

    fn following(&self) -> Payload {
        let field = |name: &str, payload: &Payload| match payload.as_ref() {
            PayloadRef::Json(raw) => Some(format!("\"{name}\":{}", raw.get())),
            PayloadRef::Base64(text) => {
                Some(format!("\"{name}_base64\":{}", serde_json::Value::from(text.as_ref())))
            }
            PayloadRef::Absent => None,
        };
        let fields = [field("input", &self.input), field("result", &self.result)];
        let fields: Vec<String> = fields.into_iter().flatten().collect();
        match Payload::from_json(format!("{{{}}}", fields.join(","))) {
            Ok(payload) => payload,
            Err(error) => unreachable!("made of JSON: {error}"),
        }
    }
}
