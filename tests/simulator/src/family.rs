//! Parents and children, from outside: what the one may say to the other, and what must agree in the end.

use std::collections::BTreeMap;

use sagamore_decider::invariants::{self as inv, Invariant};
use sagamore_decider::output::{Destination, Output};
use sagamore_decider::transaction::{BranchPhase, Phase, Transaction};
use sagamore_schemas::definition::StepKind;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Birth, Partition, Time, TransactionId};
use sagamore_schemas::log::Decision;
use sagamore_schemas::wire::{
    Answer, ChildRequest, ChildWish, Input, Occasion, Operation, OutcomeKind, Reply, read_input, read_outcome,
};

use crate::asked::{Seen, is_settled};
use crate::client::RETRIES;
use crate::witness::Fold;
use crate::world::World;

type Broken = Vec<(&'static Invariant, String)>;

/// What a parent has asked about one of its steps.
#[derive(Debug, Default, Clone)]
pub struct Asks {
    attempts: BTreeMap<Operation, u32>,
    /// Every child that was to begin, the last one last.
    children: Vec<TransactionId>,
}

impl Asks {
    /// Whether what undoes a child was to begin.
    pub(crate) fn is_undone(&self) -> bool {
        self.attempts.contains_key(&Operation::Compensate)
    }

    /// Whether a child was called off.
    pub(crate) fn is_called_off(&self) -> bool {
        self.attempts.contains_key(&Operation::Abort)
    }
}

impl Fold {
    /// What one shard says to another: a parent to its child, or the home of a child to the parent.
    pub(crate) fn look_at_family(
        &mut self,
        to: Partition,
        output: &Output,
        input: Option<&Input<'_>>,
        broken: &mut Broken,
    ) {
        match read_input(output.value.as_deref()) {
            Ok(Input::Child(said)) => {
                if home(&said.subject, self.partitions) != to {
                    broken.push((&inv::CHILD_AGREES, format!("{} is not at home in {to}", said.subject)));
                }
                self.look_at_request(&said, input, broken);
            }
            Ok(Input::Reply(reply)) => {
                if reply.address.birth.partition != to {
                    let text = format!("{} is answered in {to}", reply.address.command_id());
                    broken.push((&inv::CHILD_AGREES, text));
                }
            }
            _ => broken.push((&inv::CHILD_AGREES, "something else in an inbox".to_owned())),
        }
    }

    fn look_at_request(&mut self, said: &ChildRequest<'_>, input: Option<&Input<'_>>, broken: &mut Broken) {
        let (address, subject) = (&said.parent, &said.subject);
        let seen = self.born.entry(address.birth).or_default();
        let asks = seen.asks.entry(address.step.to_string()).or_default();
        let mut demand = |holds: bool, text: &str| {
            if !holds {
                let text = format!("{} {} of {}: {text}", said.wish.as_str(), subject, address.command_id());
                broken.push((&inv::ALONG_THE_GRAPH, text));
            }
        };
        if said.wish == ChildWish::Forget {
            demand(asks.children.contains(subject), "it was never to begin");
            return demand(matches!(input, Some(Input::Reply(_))), "nothing was heard of its end");
        }
        let open = self.shard.open_transactions().find(|open| open.birth == address.birth);
        let planned = open.and_then(|open| {
            let (_, plan, _) = self.shard.definitions().iter().find(|(id, ..)| **id == open.definition)?;
            Some((open, plan, plan.steps.iter().find(|step| step.name.as_str() == address.step)?))
        });
        let Some((open, plan, step)) = planned else {
            return demand(false, "of nothing that is open");
        };
        let was_asked = |operation| asks.attempts.contains_key(&operation);
        let first = !was_asked(address.operation);
        let over = was_asked(Operation::Compensate) || was_asked(Operation::Abort);
        match address.operation {
            Operation::Execute => {
                demand(said.wish == ChildWish::Begin, "an execute begins");
                demand(!over, "asked again after it was over");
                if step.kind == StepKind::Retriable {
                    demand(seen.decision != Some(Decision::Rollback), "begins after a commit only");
                } else {
                    demand(!first || seen.decision.is_none(), "first asked after the decision");
                }
            }
            Operation::Compensate => {
                demand(said.wish == ChildWish::Begin, "what undoes it is to begin");
                demand(step.kind == StepKind::Compensatable, "it cannot be undone");
                demand(was_asked(Operation::Execute), "undone, and never begun");
            }
            Operation::Abort => {
                demand(said.wish == ChildWish::CallOff, "an abort calls off");
                demand(asks.children.last() == Some(subject), "another one was begun");
                demand(!was_asked(Operation::Compensate), "called off, and being undone");
            }
            Operation::Prepare | Operation::Precommit | Operation::Commit => {
                demand(false, "a child is no branch of a group");
            }
        }
        if address.operation != Operation::Execute {
            demand(open.phase == Phase::RollingBack, "the transaction is not rolled back");
            let settled = step.before.iter().all(|after| open.all_of(plan.step(*after), is_settled));
            demand(!first || settled, "undone before what came after it");
        }
        let attempt = asks.attempts.entry(address.operation).or_default();
        *attempt += 1;
        demand(address.attempt == *attempt, "attempts are counted one by one");
        if said.wish == ChildWish::Begin && !asks.children.contains(subject) {
            asks.children.push(subject.clone());
        }
    }

    pub(crate) fn look_at_birth_of_child(&mut self, subject: &TransactionId, broken: &mut Broken) {
        if !self.children_born.insert(subject.to_string()) {
            broken.push((&inv::CHILD_AGREES, format!("{subject} is born again")));
        }
        if self.called_off.contains(subject.as_str()) {
            broken.push((&inv::CHILD_AGREES, format!("{subject} begins, and was never to begin")));
        }
    }

    /// A parent was told that its child has not begun, and never will.
    pub(crate) fn look_at_call_off(&mut self, input: Option<&Input<'_>>, outputs: &[Output]) {
        let Some(Input::Child(said)) = input else { return };
        let is_told = |output: &Output| {
            reply_in(output, |reply| {
                reply.address.operation == Operation::Abort && reply.outcome == Answer::Ok
            })
        };
        if said.wish == ChildWish::CallOff && outputs.iter().any(is_told) {
            self.called_off.insert(said.subject.to_string());
        }
    }

    /// What has ended is told to whoever began it, and in the same words.
    pub(crate) fn look_at_end_of_child(&self, output: &Output, outputs: &[Output], broken: &mut Broken) {
        let Ok(outcome) = read_outcome(output.value.as_deref()) else { return };
        let Occasion::Transaction { birth, .. } = outcome.occasion else { return };
        let Some(parent) = self.born.get(&birth).and_then(|seen| seen.parent.as_ref()) else { return };
        if outcome.outcome == OutcomeKind::Stuck {
            return;
        }
        let wanted = if outcome.outcome == OutcomeKind::Committed { Answer::Ok } else { Answer::Refused };
        let is_told = |output: &Output| {
            reply_in(output, |reply| {
                let address = &reply.address;
                parent.is(address)
                    && address.operation == parent.operation
                    && address.attempt == parent.attempt
                    && reply.outcome == wanted
            })
        };
        if !outputs.iter().any(is_told) {
            let text =
                format!("{} ends {}, and {} does not hear it", outcome.subject, outcome.outcome, parent.id);
            broken.push((&inv::CHILD_AGREES, text));
        }
    }
}

fn reply_in(output: &Output, is: impl Fn(&Reply<'_>) -> bool) -> bool {
    matches!(output.destination, Destination::Inbox(_))
        && matches!(read_input(output.value.as_deref()), Ok(Input::Reply(reply)) if is(&reply))
}

impl World {
    /// Whether nothing more will become of it: it is stuck for good, or waits for one that is, or for a shard that has
    /// halted for good.
    pub(crate) fn rests(&self, fold: &Fold, open: &Transaction) -> bool {
        let is_doomed = |partition: Partition| self.doomed.contains_key(&partition.0);
        if let (Phase::Ended(_), Some(parent)) = (open.phase, &open.parent) {
            return is_doomed(parent.birth.partition);
        }
        let mut calls = open.branches.iter().filter(|branch| branch.phase.call().is_some()).peekable();
        let tried = self.retries.get(&open.birth).copied().unwrap_or_default();
        let is_given_up = tried >= RETRIES || is_doomed(open.birth.partition);
        let seen = fold.born.get(&open.birth);
        let waits = |phase: &BranchPhase| match phase {
            BranchPhase::Stuck(_) => is_given_up,
            _ => seen.is_some_and(|seen| seen.asks.values().any(|asks| self.is_in_vain(asks))),
        };
        let timers = fold.shard.timers().due(Time::MAX);
        let armed = timers.filter(|entry| entry.birth_offset == open.birth.offset).count();
        let asked = open.branches.iter().filter(|branch| branch.phase.due().is_some()).count();
        let has_deadline = armed > asked;
        calls.peek().is_some() && !has_deadline && calls.all(|branch| waits(&branch.phase))
    }

    fn is_in_vain(&self, asks: &Asks) -> bool {
        let Some(child) = asks.children.last() else { return false };
        let at = home(child, self.partitions).0;
        let fold = self.witness.folds().find(|(partition, _)| *partition == at);
        let rests = |fold: &Fold| {
            let open = fold.shard.open_transactions().find(|open| open.id == *child);
            // Or it finds no room, for what is stuck for good keeps it.
            let is_full = fold.shard.open_count() as u64 >= fold.shard.settings().open_max;
            let is_kept = || is_full && fold.shard.open_transactions().any(Transaction::is_stuck);
            open.map_or_else(is_kept, |open| self.rests(fold, open))
        };
        self.doomed.contains_key(&at) || fold.is_some_and(|(_, fold)| rests(fold))
    }

    /// A parent that has committed has one committed child for each of its steps; of any other nothing stands; and what
    /// has ended is forgotten.
    pub(crate) fn check_families(&mut self) {
        let mut children: BTreeMap<(Birth, String), Vec<(Operation, &Seen)>> = BTreeMap::new();
        for seen in self.witness.folds().flat_map(|(_, fold)| fold.born.values()) {
            if let Some(parent) = &seen.parent {
                let key = (parent.birth, parent.step.to_string());
                children.entry(key).or_default().push((parent.operation, seen));
            }
        }
        let mut wrong = None;
        for (partition, fold) in self.witness.folds() {
            if self.doomed.contains_key(&partition) {
                continue;
            }
            let of = |birth: &Birth, step: &String| children.get(&(*birth, step.clone()));
            for (birth, seen) in &fold.born {
                let Some(ended) = seen.ended else { continue };
                for (step, asks) in &seen.asks {
                    let homes = asks.children.iter().map(|child| home(child, self.partitions).0);
                    if homes.into_iter().any(|home| self.doomed.contains_key(&home)) {
                        continue;
                    }
                    let all = of(birth, step).map(Vec::as_slice).unwrap_or_default();
                    let committed = |operation| {
                        all.iter().filter(move |(of, seen)| {
                            *of == operation && seen.ended == Some(OutcomeKind::Committed)
                        })
                    };
                    let done = committed(Operation::Execute).count();
                    let undone = committed(Operation::Compensate).count();
                    let agrees = match ended {
                        OutcomeKind::Committed => done == 1 && undone == 0,
                        _ => done <= 1 && done == undone,
                    };
                    if !agrees || all.iter().any(|(_, seen)| seen.ended.is_none()) {
                        let all: Vec<_> =
                            all.iter().map(|(of, seen)| (of, &seen.subject, seen.ended)).collect();
                        let text = format!(
                            "{} ({birth}) ended {ended}, and of {step} there is {all:?}",
                            seen.subject
                        );
                        wrong = Some(text);
                    }
                }
            }
            let kept = fold.shard.open_transactions().find(|open| {
                let parent = open.parent.as_ref().map(|parent| parent.birth.partition.0);
                matches!(open.phase, Phase::Ended(_))
                    && parent.is_some_and(|parent| !self.doomed.contains_key(&parent))
            });
            if let Some(kept) = kept {
                wrong = Some(format!("{} has ended {:?}, and is kept", kept.id, kept.phase));
            }
        }
        if let Some(text) = wrong {
            self.witness.violated(&inv::CHILD_AGREES, text);
        }
    }
}
