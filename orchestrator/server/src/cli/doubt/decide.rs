//! `decide`: commits or aborts a branch in doubt by hand.
//!
//! The wish goes to the participant's command topic as a `sagamore.decision.v1` with `heuristic`, so that its own code carries
//! it out, in whatever language and store. With a store named, the vote is looked at first, and what came of the wish is waited
//! for. `--prepared` ends a prepared transaction of PostgreSQL from here, when the participant cannot run: there is no code of
//! the business in that.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::{InDoubt, Settled, inquiry};
use sagamore_participant::heuristic::{ByHand, Heuristic, Said, Standing, settle_by_hand};
use sagamore_participant::perform::Work;
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_participant::{Command, Effect, Fault, Operation, Participant, Payload};
use sagamore_participant_postgres::{PostgresStore, Tx};
use sagamore_schemas::home::partition_of;
use sagamore_schemas::ids::{Birth, Name, Span, TransactionId};
use sagamore_schemas::topics::command_topic;
use sagamore_schemas::wire::{Decided, HeuristicWish, Verdict};
use serde::Serialize;

use super::{Opened, PORTION, StoreArgs, failure, held};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::kafka::KafkaArgs;
use crate::cli::operator::OperatorArgs;
use crate::cli::output::{self, Printer};
use crate::clock;
use crate::site::NewRecord;

/// How often the store is looked at while it is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Which branch, what, and who says so.
#[derive(Debug, Args)]
pub struct DecideArgs {
    /// What to do.
    #[arg(value_name = "DECISION")]
    decision: Choice,
    /// Whose branch.
    #[arg(value_name = "TRANSACTION")]
    transaction: TransactionId,
    /// The step of its definition.
    #[arg(value_name = "STEP")]
    step: String,
    /// The branch of the step; left out, what the step is called.
    #[arg(value_name = "BRANCH")]
    branch: Option<String>,
    /// What definitions call the participant.
    #[arg(long, value_name = "NAME")]
    name: Name,
    /// Which life of the transaction; without a store it must be said.
    #[arg(long, value_name = "PARTITION-OFFSET")]
    birth: Option<Birth>,
    /// The branch is mixed, and its books have been set right by hand: from now on it counts as decided so.
    #[arg(long, conflicts_with = "prepared")]
    repaired: bool,
    /// End the prepared transaction from here: the participant does not run, and its store is PostgreSQL with XA.
    #[arg(long, requires = "postgres")]
    prepared: bool,
    /// How long to wait until the store says that it is done.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: Span,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Commit,
    Abort,
}

impl Choice {
    const fn operation(self) -> Operation {
        match self {
            Self::Commit => Operation::Commit,
            Self::Abort => Operation::Abort,
        }
    }

    const fn decided(self) -> Decided {
        match self {
            Self::Commit => Decided::Commit,
            Self::Abort => Decided::Abort,
        }
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Done {
    transaction: String,
    birth: String,
    step: String,
    branch: String,
    decision: Operation,
    /// `done`, or `sent` when no store was named to look at.
    state: &'static str,
}

/// `participant decide`.
pub(super) fn decide(args: &DecideArgs, printer: Printer) -> Outcome {
    if args.operator.reason.trim().is_empty() {
        return Err(Failure::usage("--reason says why; it is kept for ever"));
    }
    let (birth, state) = match args.store.open(args.prepared)? {
        None => (send_blindly(args)?, "sent"),
        Some(Opened::Postgres(store)) if args.prepared => (end_prepared(args, &store)?, "done"),
        Some(Opened::Postgres(store)) => (send(args, &store)?, "done"),
        Some(Opened::Sqlite(store)) => (send(args, &store)?, "done"),
    };
    let done = Done {
        transaction: args.transaction.to_string(),
        birth: birth.to_string(),
        step: args.step.clone(),
        branch: args.branch().to_owned(),
        decision: args.decision.operation(),
        state,
    };
    printer.one(&done, || {
        output::table(
            ["transaction", "birth", "step", "branch", "decision", "state"],
            [[
                done.transaction.clone(),
                done.birth.clone(),
                done.step.clone(),
                done.branch.clone(),
                done.decision.to_string(),
                done.state.to_owned(),
            ]],
        )
    })?;
    Ok(Exit::Done)
}

impl DecideArgs {
    fn branch(&self) -> &str {
        self.branch.as_deref().unwrap_or(&self.step)
    }

    fn is_about(&self, of: &Branch) -> bool {
        of.subject == self.transaction
            && *of.step == self.step
            && *of.branch == *self.branch()
            && self.birth.is_none_or(|birth| of.birth == birth)
    }

    fn wish(&self) -> HeuristicWish {
        if self.repaired { HeuristicWish::Repaired } else { HeuristicWish::Decided }
    }

    fn by(&self) -> ByHand {
        let reason = self.operator.reason.as_str().into();
        ByHand { actor: self.operator.actor().into(), reason, time: clock::now() }
    }

    fn called(&self) -> String {
        format!("{} {}/{}", self.transaction, self.step, self.branch())
    }
}

/// Without a look at the store: for participants whose store is not ours.
fn send_blindly(args: &DecideArgs) -> Result<Birth, Failure> {
    let Some(birth) = args.birth else {
        return Err(Failure::usage(
            "which life of the transaction: --birth, or the store (--postgres, --sqlite), where its vote says it",
        ));
    };
    let instance = args.kafka.site()?.instance()?.instance;
    let of = Branch {
        instance,
        subject: args.transaction.clone(),
        birth,
        step: args.step.as_str().into(),
        branch: args.branch().into(),
    };
    write(args, &of)?;
    Ok(birth)
}

/// Looks, writes, and waits until the store says that it is done.
fn send<S: Store>(args: &DecideArgs, store: &S) -> Result<Birth, Failure> {
    let of = if args.repaired { mixed(args, store)? } else { vote(args, store)?.branch };
    write(args, &of)?;
    let until = Instant::now() + Duration::from_millis(args.timeout.as_ms());
    let expected = if args.repaired { Standing::Repaired } else { Standing::Open };
    loop {
        match kept(store, &of)? {
            Some(kept) if kept.standing >= expected && (args.repaired || vote_of(args, store)?.is_none()) => {
                return Ok(of.birth);
            }
            Some(_) | None if Instant::now() < until => std::thread::sleep(LOOK_INTERVAL),
            Some(_) | None if !args.repaired && vote_of(args, store)?.is_none() => {
                let message =
                    format!("{} has been ended otherwise meanwhile: see its transaction", args.called());
                return Err(Failure::new(Exit::Conflict, message));
            }
            Some(_) | None => {
                let message = format!(
                    "not done within {}: the wish stands in the command topic of {}, which is away, or its log says why",
                    args.timeout, args.name
                );
                return Err(Failure::new(Exit::Timeout, message));
            }
        }
    }
}

fn vote<S: Store>(args: &DecideArgs, store: &S) -> Result<InDoubt, Failure> {
    if let Some(found) = vote_of(args, store)? {
        return Ok(found);
    }
    let decided = held::all(store)?.into_iter().find(|(of, _)| args.is_about(of));
    Err(match decided {
        Some((_, kept)) => Failure::new(
            Exit::Conflict,
            format_args!(
                "{} was decided by hand before, by {}: {}, {}",
                args.called(),
                kept.decided.actor,
                kept.operation,
                kept.standing.as_str()
            ),
        ),
        None => Failure::new(Exit::NotFound, format_args!("{} is not in doubt in this store", args.called())),
    })
}

/// Of several lives of one id the youngest.
fn vote_of<S: Store>(args: &DecideArgs, store: &S) -> Result<Option<InDoubt>, Failure> {
    let mut session = store.session().map_err(|fault| failure(&fault))?;
    let (mut youngest, mut after) = (None::<InDoubt>, None);
    loop {
        let portion =
            store.in_doubt(&mut session, after.as_ref(), PORTION).map_err(|fault| failure(&fault))?;
        after = portion.last().map(|last| last.branch.clone());
        let is_end = portion.len() < PORTION;
        for one in portion.into_iter().filter(|one| args.is_about(&one.branch)) {
            let offset = |one: &InDoubt| one.branch.birth.offset;
            if youngest.as_ref().is_none_or(|young| offset(young) < offset(&one)) {
                youngest = Some(one);
            }
        }
        if is_end {
            return Ok(youngest);
        }
    }
}

/// The branch whose books have been set right.
fn mixed<S: Store>(args: &DecideArgs, store: &S) -> Result<Branch, Failure> {
    let found = held::all(store)?.into_iter().find(|(of, _)| args.is_about(of));
    match found {
        Some((of, kept))
            if kept.standing == Standing::Mixed && kept.operation != args.decision.operation() =>
        {
            Ok(of)
        }
        Some((_, kept)) => Err(Failure::new(
            Exit::Conflict,
            format_args!(
                "{} is {} by hand, and {}: there is nothing to be repaired by a {}",
                args.called(),
                kept.operation,
                kept.standing.as_str(),
                args.decision.operation()
            ),
        )),
        None => {
            Err(Failure::new(Exit::NotFound, format_args!("{} was never decided by hand", args.called())))
        }
    }
}

fn kept<S: Store>(store: &S, of: &Branch) -> Result<Option<Heuristic>, Failure> {
    let mut session = store.session().map_err(|fault| failure(&fault))?;
    let mut tx = store.begin(&mut session).map_err(|fault| failure(&fault))?;
    tx.heuristic(&of.key()).map_err(|fault| failure(&fault))
}

fn write(args: &DecideArgs, of: &Branch) -> Result<(), Failure> {
    let site = args.kafka.site()?;
    let ByHand { actor, reason, time } = args.by();
    let heuristic = sagamore_schemas::wire::Heuristic {
        wish: args.wish(),
        actor: actor.into_string().into(),
        reason: reason.into_string().into(),
        time,
    };
    let verdict = Verdict {
        inquiry: inquiry(of, &args.name),
        decision: args.decision.decided(),
        heuristic: Some(heuristic),
    };
    let topic = command_topic(&site.prefix, &args.name);
    let partitions = i32::try_from(site.partitions_of(&topic)?.len()).unwrap_or(i32::MAX);
    let key = of.subject.to_string();
    let partition = partition_of(key.as_bytes(), partitions).0;
    let record = NewRecord::event(partition, Some(key), verdict.to_json());
    site.write_to(&topic, &[record])?;
    Ok(())
}

/// Nothing of the business happens when a prepared transaction is ended.
struct Nobody;

impl Participant for Nobody {
    type Store = PostgresStore;

    fn execute(&self, _: &mut Tx<'_>, _: &Command<'_>) -> Result<Effect, Fault> {
        Err(Fault::new("nothing is executed from here"))
    }

    fn compensate(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Err(Fault::new("nothing is compensated from here"))
    }

    fn commit(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }

    fn abort(&self, _: &mut Tx<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

fn end_prepared(args: &DecideArgs, store: &PostgresStore) -> Result<Birth, Failure> {
    let of = vote(args, store)?.branch;
    let holds = store.held(0).map_err(|fault| failure(&fault))?;
    if !holds.iter().any(|hold| hold.branch.as_ref() == Some(&of)) {
        let message = format!(
            "the vote of {} is held in rows, which only the participant's own code can end: without --prepared",
            args.called()
        );
        return Err(Failure::new(Exit::Conflict, message));
    }
    let mut session = store.session().map_err(|fault| failure(&fault))?;
    let mut tx = store.begin(&mut session).map_err(|fault| failure(&fault))?;
    let said = Said { wish: HeuristicWish::Decided, by: args.by() };
    let settled = settle_by_hand(&Nobody, &mut tx, &of, args.decision.operation(), &said)
        .map_err(|fault| failure(&fault))?;
    match settled {
        Settled::Told(answered) if answered.work != Work::Failed => {
            tx.commit().map_err(|fault| failure(&fault))?;
            Ok(of.birth)
        }
        Settled::Told(answered) => Err(Failure::new(Exit::Unexpected, answered.reason.unwrap_or_default())),
        Settled::Undecided
        | Settled::Forgotten
        | Settled::NotInDoubt
        | Settled::Contradicted(_)
        | Settled::Repaired
        | Settled::NotMixed => {
            Err(Failure::new(Exit::Conflict, format_args!("{} has been ended meanwhile", args.called())))
        }
    }
}
