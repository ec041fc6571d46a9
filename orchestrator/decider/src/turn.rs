//! One input applied to one transaction: what a protocol may read and what it may cause.

use std::borrow::Cow;

use serde_json::value::RawValue;

use sagamore_schemas::ids::{Span, Time};
use sagamore_schemas::log::{Decision, Digest128, JournalEntry, StepChange};
use sagamore_schemas::wire::{Address, Command, Operation, Payload};

use crate::definition::plan::{Plan, StepIndex};
use crate::definition::template::{RenderError, Scope};
use crate::identity::Identity;
use crate::output::{Destination, Output};
use crate::timers::{TimerEntry, TimerOwner, Timers};
use crate::transaction::{Call, Phase, StepPhase, Transaction};

/// Whether an input meant anything to the transaction. What did not leaves no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heeded {
    Yes,
    No,
}

pub(crate) struct Turn<'a> {
    pub identity: &'a Identity,
    pub plan: &'a Plan,
    pub clock: Time,
    pub watermark: Time,
    pub timers: &'a mut Timers,
    /// Whether commands carry reply tokens: the settings say so, never what this process happens to know.
    pub tokens: bool,
    pub outputs: &'a mut Vec<Output>,
    pub entry: JournalEntry,
    /// Why a step got stuck in this turn.
    pub stuck: Option<String>,
}

impl Turn<'_> {
    /// Moves a step to another phase, with its timer.
    pub fn enter(&mut self, transaction: &mut Transaction, index: StepIndex, phase: StepPhase) {
        let birth_offset = transaction.birth.offset;
        let timer = |due| TimerEntry { due, birth_offset, owner: TimerOwner::Step(index) };
        let step = transaction.step_mut(index);
        if let Some(due) = step.phase.due() {
            self.timers.disarm(timer(due));
        }
        if let Some(due) = phase.due() {
            self.timers.arm(timer(due));
        }
        let name = &self.plan.step(index).name;
        if let StepPhase::Stuck(call) = &phase {
            let reason = step.reason.as_deref().unwrap_or("no answer");
            self.stuck = Some(format!("{name}: {} {reason}", call.operation));
        }
        self.entry.changes.push(StepChange { step: name.clone(), phase: phase.to_string() });
        step.phase = phase;
    }

    /// Records the one decision; from here on the deadline is of no meaning.
    pub fn decide(&mut self, transaction: &mut Transaction, decision: Decision) {
        assert_eq!(transaction.phase, Phase::Forward, "SAG-INV-1 one decision: {}", transaction.birth);
        self.disarm_deadline(transaction);
        self.entry.decision = Some(decision);
        transaction.phase = match decision {
            Decision::Commit => Phase::Committing,
            Decision::Rollback => Phase::RollingBack,
        };
    }

    /// From here on there is no way back, or no need of one.
    pub fn disarm_deadline(&mut self, transaction: &Transaction) {
        self.timers.disarm(deadline_timer(transaction));
    }

    /// Sends a command and waits for its answer. Fails, and sends nothing, when its input cannot be mapped.
    pub fn ask(&mut self, transaction: &mut Transaction, index: StepIndex, call: Call) -> Result<(), String> {
        let plan = self.plan.step(index);
        let Some(branch) = plan.branches.first() else { unreachable!("a saga step has one branch") };
        let data = self.data(transaction, index, call.operation)?;
        let key = match &branch.key {
            Some(template) => render(transaction, |scope| template.render_text(scope))?,
            None => transaction.id.to_string(),
        };
        let address = Address {
            subject: transaction.id.clone(),
            birth: transaction.birth,
            step: Cow::Borrowed(plan.name.as_str()),
            branch: Cow::Borrowed(branch.name.as_str()),
            operation: call.operation,
            attempt: call.attempt,
        };
        let command = Command {
            instance: self.identity.instance,
            issued: call.issued,
            watermark: self.watermark,
            deadline: transaction.deadline,
            definition: Cow::Owned(transaction.definition.to_string()),
            replyto: Cow::Borrowed(&self.identity.replyto),
            traceparent: transaction.traceparent.as_deref().map(Cow::Borrowed),
            replytoken: self.reply_token(&address).map(Cow::Owned),
            data: data.as_ref(),
            address,
        };
        self.outputs.push(Output {
            destination: Destination::Commands(branch.participant.clone()),
            key: Some(key.into_bytes()),
            value: Some(command.to_json()),
            headers: Vec::new(),
        });
        let due = self.clock.after(plan.timeout);
        self.enter(transaction, index, StepPhase::Asked(Call { due, ..call }));
        Ok(())
    }

    fn reply_token(&self, address: &Address<'_>) -> Option<String> {
        if self.tokens { self.identity.reply_token(address) } else { None }
    }

    fn data(
        &self,
        transaction: &Transaction,
        index: StepIndex,
        operation: Operation,
    ) -> Result<Payload, String> {
        let template = self.plan.step(index).branches.first().and_then(|branch| branch.input.as_ref());
        let rendered = match template {
            Some(template) => Some(render(transaction, |scope| template.render(scope))?),
            None => None,
        };
        let from_json = |text| Payload::from_json(text).map_err(|error| error.to_string());
        match operation {
            Operation::Execute | Operation::Prepare => match rendered {
                Some(text) => from_json(text),
                None => Ok(transaction.input.clone()),
            },
            Operation::Compensate | Operation::Precommit | Operation::Commit | Operation::Abort => {
                let input = match rendered {
                    Some(text) => from_json(text)?,
                    None => transaction.input.clone(),
                };
                let result = &transaction.step(index).result;
                let fields: Vec<String> =
                    [field("input", &input), field("result", result)].into_iter().flatten().collect();
                from_json(format!("{{{}}}", fields.join(",")))
            }
        }
    }

    /// Pause before the attempt that follows `call`: the definition's delay, of which a deterministic half is jitter.
    ///
    /// "Equal jitter": half the delay is certain, the other half scaled by a hash of the command's id.
    pub fn pause(&self, transaction: &Transaction, index: StepIndex, call: Call) -> Time {
        let plan = self.plan.step(index);
        let delay_ms = plan.retry.delay(call.tries).as_ms();
        let seed = format!("{}/{index}/{}/{}", transaction.birth, call.operation, call.attempt);
        let Digest128(hash) = Digest128::of(seed.as_bytes());
        let roll = u64::from(u16::from_be_bytes([hash[0], hash[1]]));
        let half_ms = delay_ms / 2;
        let jitter_ms = half_ms * roll / u64::from(u16::MAX);
        self.clock.after(Span::from_ms(delay_ms - half_ms + jitter_ms))
    }
}

/// The timer of a transaction's deadline; it stands until the decision, or until the pivot has been asked.
pub(crate) fn deadline_timer(transaction: &Transaction) -> TimerEntry {
    TimerEntry {
        due: transaction.deadline,
        birth_offset: transaction.birth.offset,
        owner: TimerOwner::Deadline,
    }
}

fn render<T>(
    transaction: &Transaction,
    with: impl FnOnce(&Scope<'_>) -> Result<T, RenderError>,
) -> Result<T, String> {
    let result = |index: StepIndex| json_of(&transaction.step(index).result);
    let scope = Scope { transaction: &transaction.id, input: json_of(&transaction.input), result: &result };
    with(&scope).map_err(|error| error.to_string())
}

/// The JSON of a payload, when it is JSON.
pub(crate) fn json_of(payload: &Payload) -> Option<&RawValue> {
    match payload {
        Payload::Json(raw) => Some(raw),
        Payload::Base64(_) | Payload::Absent => None,
    }
}

/// A payload as a field of a JSON object.
pub(crate) fn field(name: &str, payload: &Payload) -> Option<String> {
    match payload {
        Payload::Json(raw) => Some(format!("\"{name}\":{}", raw.get())),
        Payload::Base64(text) => {
            Some(format!("\"{name}_base64\":{}", serde_json::Value::from(text.as_ref())))
        }
        Payload::Absent => None,
    }
}
