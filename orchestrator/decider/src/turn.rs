//! One input applied to one transaction: what a protocol may read and what it may cause.

use std::borrow::Cow;

use serde_json::value::RawValue;

use sagamore_schemas::ids::{Name, Span, Time};
use sagamore_schemas::log::{Decision, Digest128, JournalEntry, StepChange};
use sagamore_schemas::wire::{Address, Command, Operation, Payload};

use crate::definition::plan::{BranchIndex, Performer, Plan, PlanBranch, PlanStep, Retry};
use crate::definition::template::{RenderError, Scope};
use crate::definitions::Definitions;
use crate::identity::Identity;
use crate::output::{Destination, Output};
use crate::protocol::child;
use crate::timers::{TimerEntry, TimerOwner, Timers};
use crate::transaction::{BranchPhase, Call, Phase, Transaction};

/// Whether an input meant anything to the transaction. What did not leaves no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heeded {
    Yes,
    No,
}

pub(crate) struct Turn<'a> {
    pub identity: &'a Identity,
    pub plan: &'a Plan,
    /// All that the shard knows: what undoes a child is in its definition.
    pub definitions: &'a Definitions,
    pub clock: Time,
    pub watermark: Time,
    pub timers: &'a mut Timers,
    /// Whether commands carry reply tokens: the settings say so, never what this process happens to know.
    pub tokens: bool,
    /// Most bytes that a child is given.
    pub child_bytes_max: u64,
    pub outputs: &'a mut Vec<Output>,
    pub entry: JournalEntry,
    /// Why a branch got stuck in this turn.
    pub stuck: Option<String>,
}

impl Turn<'_> {
    /// Moves a branch to another phase, with its timer.
    pub fn enter(&mut self, transaction: &mut Transaction, index: BranchIndex, phase: BranchPhase) {
        if let Some(timer) = transaction.timer(index) {
            self.timers.disarm(timer);
        }
        let name = self.name(index);
        if let BranchPhase::Stuck(call) = &phase {
            let reason = transaction.branch(index).reason.as_deref().unwrap_or("no answer");
            self.stuck = Some(format!("{name}: {} {reason}", call.operation));
        }
        let (step, planned) = self.plan.branch(index);
        self.entry.changes.push(StepChange {
            step: step.name.clone(),
            branch: step.is_group.then(|| planned.name.clone()),
            phase: phase.text(),
        });
        transaction.branch_mut(index).phase = phase;
        if let Some(timer) = transaction.timer(index) {
            self.timers.arm(timer);
        }
    }

    /// What people call a branch: its step, and its own name when it is not alone.
    pub fn name(&self, index: BranchIndex) -> String {
        let (step, branch) = self.plan.branch(index);
        if step.is_group { format!("{}/{}", step.name, branch.name) } else { step.name.to_string() }
    }

    /// What is told when a branch turns the transaction back.
    pub fn told(&self, index: BranchIndex, reason: &str) -> String {
        format!("{}: {reason}", self.name(index))
    }

    /// The first command of an operation.
    pub fn first_call(&self, operation: Operation) -> Call {
        Call { operation, attempt: 1, tries: 1, issued: self.clock, due: self.clock }
    }

    /// How often an operation is tried: what has been decided is, without end.
    pub fn attempts(&self, index: BranchIndex, operation: Operation) -> u32 {
        match operation {
            Operation::Execute | Operation::Prepare | Operation::Compensate => {
                self.plan.branch(index).0.retry.attempts
            }
            Operation::Precommit | Operation::Commit | Operation::Abort => Retry::UNBOUNDED,
        }
    }

    /// Records the one decision; from here on the deadline is of no meaning.
    pub fn decide(&mut self, transaction: &mut Transaction, decision: Decision) {
        assert!(transaction.is_undecided(), "SAG-INV-1 one decision: {}", transaction.birth);
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
    pub fn ask(
        &mut self,
        transaction: &mut Transaction,
        index: BranchIndex,
        call: Call,
    ) -> Result<(), String> {
        let (step, branch) = self.plan.branch(index);
        let data = match (&branch.by, call.operation) {
            // To call a child off no data is needed, and none may stand in the way.
            (Performer::Child(_), Operation::Abort) => Cow::Owned(Payload::Absent),
            _ => self.data(transaction, index, call.operation)?,
        };
        let address = Address {
            subject: transaction.id.clone(),
            birth: transaction.birth,
            step: Cow::Borrowed(step.name.as_str()),
            branch: Cow::Borrowed(branch.name.as_str()),
            operation: call.operation,
            attempt: call.attempt,
        };
        match &branch.by {
            Performer::Participant(name) => {
                self.command(transaction, index, name, call, address, &data)?;
            }
            Performer::Child(_) => child::request(self, transaction, index, address, Payload::as_ref(&data))?,
        }
        let due = self.clock.after(step.timeout);
        self.enter(transaction, index, BranchPhase::Asked(Call { due, ..call }));
        Ok(())
    }

    fn command(
        &mut self,
        transaction: &Transaction,
        index: BranchIndex,
        participant: &Name,
        call: Call,
        address: Address<'_>,
        data: &Payload,
    ) -> Result<(), String> {
        let (step, branch) = self.plan.branch(index);
        let key = key_of(transaction, branch)?;
        let is_before_decision = matches!(call.operation, Operation::Prepare | Operation::Precommit);
        let command = Command {
            instance: self.identity.instance,
            issued: call.issued,
            watermark: self.watermark,
            deadline: transaction.deadline,
            definition: Cow::Borrowed(&self.plan.label),
            replyto: Cow::Borrowed(&self.identity.replyto),
            traceparent: transaction.traceparent.as_deref().map(Cow::Borrowed),
            replytoken: self.reply_token(&address).map(Cow::Owned),
            unilateral_after: step.unilateral_after.filter(|_| is_before_decision),
            data: data.as_ref(),
            address,
        };
        self.outputs.push(Output {
            destination: Destination::Commands(participant.clone()),
            key: Some(key.into_bytes()),
            value: Some(command.to_json()),
            headers: Vec::new(),
        });
        Ok(())
    }

    fn reply_token(&self, address: &Address<'_>) -> Option<String> {
        if self.tokens { self.identity.reply_token(address) } else { None }
    }

    pub(crate) fn data<'t>(
        &self,
        transaction: &'t Transaction,
        index: BranchIndex,
        operation: Operation,
    ) -> Result<Cow<'t, Payload>, String> {
        let rendered = match &self.plan.branch(index).1.input {
            Some(template) => Some(render(transaction, |scope| template.render(scope))?),
            None => None,
        };
        let from_json = |text| Payload::from_json(text).map_err(|error| error.to_string());
        match operation {
            Operation::Execute | Operation::Prepare => match rendered {
                Some(text) => from_json(text).map(Cow::Owned),
                None => Ok(Cow::Borrowed(&transaction.input)),
            },
            Operation::Compensate | Operation::Precommit | Operation::Commit | Operation::Abort => {
                let input = match rendered {
                    Some(text) => Cow::Owned(from_json(text)?),
                    None => Cow::Borrowed(&transaction.input),
                };
                let result = &transaction.branch(index).result;
                let fields: Vec<String> =
                    [field("input", &input), field("result", result)].into_iter().flatten().collect();
                from_json(format!("{{{}}}", fields.join(","))).map(Cow::Owned)
            }
        }
    }

    /// Pause before the attempt that follows `call`: the definition's delay, of which a deterministic half is jitter.
    ///
    /// "Equal jitter": half the delay is certain, the other half scaled by a hash of the command's id.
    pub fn pause(&self, transaction: &Transaction, index: BranchIndex, call: Call) -> Time {
        let (step, _) = self.plan.branch(index);
        let delay_ms = step.retry.delay(call.tries).as_ms();
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

/// Whether a step is to be done: `false` means that it is skipped. An error is a refusal of the step.
pub(crate) fn is_wanted(transaction: &Transaction, step: &PlanStep) -> Result<bool, String> {
    let Some(condition) = &step.when else { return Ok(true) };
    with_scope(transaction, |scope| condition.evaluate(scope)).map_err(|error| format!("when: {error}"))
}

/// The key of what is sent to a branch: its instances share the work by it.
pub(crate) fn key_of(transaction: &Transaction, branch: &PlanBranch) -> Result<String, String> {
    match &branch.key {
        Some(template) => render(transaction, |scope| template.render_text(scope)),
        None => Ok(transaction.id.as_str().to_owned()),
    }
}

fn render<T>(
    transaction: &Transaction,
    with: impl FnOnce(&Scope<'_>) -> Result<T, RenderError>,
) -> Result<T, String> {
    with_scope(transaction, with).map_err(|error| error.to_string())
}

fn with_scope<T>(transaction: &Transaction, with: impl FnOnce(&Scope<'_>) -> T) -> T {
    let result = |index: BranchIndex| json_of(&transaction.branch(index).result);
    with(&Scope { transaction: &transaction.id, input: json_of(&transaction.input), result: &result })
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
