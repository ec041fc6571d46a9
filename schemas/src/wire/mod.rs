//! The wire: CloudEvents 1.0 in structured mode, one JSON document per record.
//!
//! ```text
//!  client ──start, cancel, retry──▶ inbox ──▶ shard ──command──▶ commands.<participant> ──▶ participant
//!                                     ▲         │                                              │
//!                                     │         └──outcome──▶ outcomes                         │
//!                                     └──────────────────────────reply─────────────────────────┘
//! ```
//! `read` turns bytes into one typed [`Input`] (for a shard), [`Command`] (for a participant) or [`Outcome`]; `write`
//! is the way back. `data` is never parsed here: it passes as raw JSON, byte for byte, or as base64 text.
//! Unknown attributes are ignored; a known attribute of a wrong type is an error that names it.

mod dead_letter;
mod doubt;
mod envelope;
mod payload;
mod read;
mod write;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::definition::DefinitionId;
use crate::ids::{Birth, Name, Partition, Span, Time, TransactionId};
pub use dead_letter::{
    ERRORS, Handled, Handling, LetterCause, RESENT, RecordPlace, RecordPlaceError, resent_headers,
};
pub use doubt::{Decided, Heuristic, HeuristicWish, Inquiry, Verdict};
pub use payload::{Payload, PayloadRef};
pub use read::{ReadCause, ReadError, read_asked, read_command, read_input, read_outcome};

/// The one header Sagamore sends, and its value.
pub const CONTENT_TYPE: (&str, &str) = ("content-type", "application/cloudevents+json");

/// What a shard reads.
#[derive(Debug)]
pub enum Input<'a> {
    /// A client begins a transaction.
    Start(Start<'a>),
    /// A participant answers a command.
    Reply(Reply<'a>),
    /// The owner says that a timer is due.
    Timer(Timer<'a>),
    /// The owner says that a command cannot be delivered.
    Undeliverable(Undeliverable<'a>),
    /// A participant in doubt asks.
    Inquiry(Inquiry<'a>),
    /// The home of a parent to the home of its child.
    Child(ChildRequest<'a>),
    /// A wish of a client or an operator about one transaction.
    Verb(Verb<'a>),
    /// A decision of an operator about the shard.
    Shard(ShardVerb<'a>),
    /// A definition, passed on from the definitions topic by the owner.
    Definition(DefinitionApplied<'a>),
}

/// `sagamore.start.v1`.
#[derive(Debug)]
pub struct Start<'a> {
    /// Transaction id: the caller's idempotency key.
    pub subject: TransactionId,
    /// When the caller first issued it; the same on every retry.
    pub time: Time,
    /// Which definition to run.
    pub definition: DefinitionRef,
    /// W3C trace context, passed on to every command.
    pub traceparent: Option<Cow<'a, str>>,
    /// The order itself.
    pub data: PayloadRef<'a>,
}

/// `order` or `order@3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefinitionRef {
    /// Name of the definition.
    pub name: Name,
    /// The version asked for; `None` is the latest in the order of the home partition.
    pub version: Option<u32>,
}

impl From<DefinitionId> for DefinitionRef {
    fn from(id: DefinitionId) -> Self {
        Self { name: id.name, version: Some(id.version) }
    }
}

impl fmt::Display for DefinitionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl std::str::FromStr for DefinitionRef {
    type Err = crate::ids::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || crate::ids::IdError::Name(crate::ids::shortened(text));
        match text.split_once('@') {
            Some((name, version)) => Ok(Self {
                name: name.parse()?,
                version: Some(version.parse().ok().filter(|v| *v > 0).ok_or_else(wrong)?),
            }),
            None => Ok(Self { name: text.parse()?, version: None }),
        }
    }
}

/// What a participant is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Saga: do it.
    Execute,
    /// Saga: undo it.
    Compensate,
    /// Atomic commitment: vote, and hold.
    Prepare,
    /// Three-phase: every vote was yes.
    Precommit,
    /// Atomic commitment: make it so.
    Commit,
    /// Atomic commitment: let it go.
    Abort,
}

impl Operation {
    /// Every operation, in the order of the wire's documentation.
    pub const ALL: [Self; 6] =
        [Self::Execute, Self::Compensate, Self::Prepare, Self::Precommit, Self::Commit, Self::Abort];

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Compensate => "compensate",
            Self::Prepare => "prepare",
            Self::Precommit => "precommit",
            Self::Commit => "commit",
            Self::Abort => "abort",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What names one operation of one branch of one transaction, and the attempt at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address<'a> {
    /// Transaction id.
    pub subject: TransactionId,
    /// Which life of that id.
    pub birth: Birth,
    /// Step of the definition.
    pub step: Cow<'a, str>,
    /// Branch of the step.
    pub branch: Cow<'a, str>,
    /// What was asked.
    pub operation: Operation,
    /// Which attempt, from 1.
    pub attempt: u32,
}

impl Address<'_> {
    /// The deterministic id of the command with this address.
    pub fn command_id(&self) -> String {
        let Self { subject, birth, step, branch, operation, attempt } = self;
        format!("{subject}/{birth}/{step}/{branch}/{operation}/{attempt}")
    }
}

/// `sagamore.command.v1`.
#[derive(Debug)]
pub struct Command<'a> {
    /// What is asked of whom.
    pub address: Address<'a>,
    /// The installation that asks; a reply echoes it.
    pub instance: Uuid,
    /// When this operation was first issued, by the log's clock: the same on every attempt.
    pub issued: Time,
    /// What was issued before this may be purged from the participant's memory of operations.
    pub watermark: Time,
    /// When the transaction's deadline falls.
    pub deadline: Time,
    /// The pinned definition, `name@version`.
    pub definition: Cow<'a, str>,
    /// Topic and partition the reply goes to, `<topic>/<partition>`.
    pub replyto: Cow<'a, str>,
    /// W3C trace context.
    pub traceparent: Option<Cow<'a, str>>,
    /// To be echoed by the reply, when reply tokens are configured.
    pub replytoken: Option<Cow<'a, str>>,
    /// With `prepare` and `precommit` of a step under `termination: unilateral`: after so long without another command
    /// the branch decides by itself. Absent: never.
    pub unilateral_after: Option<Span>,
    /// The mapped input; for operations after the first, input and result of the forward operation.
    pub data: PayloadRef<'a>,
}

/// What a participant says to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Done; for `prepare`: voted yes.
    Ok,
    /// A business no, final.
    Refused,
    /// Technical: try again.
    Error,
    /// Alive and still at it.
    Pending,
}

impl Answer {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Error => "error",
            Self::Pending => "pending",
        }
    }
}

/// The `reason` of a refusal that means "unknown", not "no": the operation may have been done and purged.
pub const REASON_EXPIRED: &str = "expired";

/// `sagamore.reply.v1`.
#[derive(Debug)]
pub struct Reply<'a> {
    /// The command it answers.
    pub address: Address<'a>,
    /// Echo of the command's instance.
    pub instance: Uuid,
    /// Who answers: the CloudEvents `source`.
    pub source: Cow<'a, str>,
    /// The answer.
    pub outcome: Answer,
    /// Why, for a refusal or an error.
    pub reason: Option<Cow<'a, str>>,
    /// Echo of the command's token.
    pub replytoken: Option<Cow<'a, str>>,
    /// The result.
    pub data: PayloadRef<'a>,
}

/// `sagamore.child.v1`: what the home of a parent says to the home of its child. The child's end comes back as a reply.
#[derive(Debug)]
pub struct ChildRequest<'a> {
    /// Transaction id of the child.
    pub subject: TransactionId,
    /// What is wanted of it.
    pub wish: ChildWish,
    /// The parent's branch, its operation and attempt: where answers go, and what they are about.
    pub parent: Address<'a>,
    /// The installation.
    pub instance: Uuid,
    /// When this was issued, by the clock of the parent's home. A child that is not known is not begun by a request
    /// issued before its home's dedupe window: it may have run.
    pub issued: Time,
    /// How many parents it has above it, from 1.
    pub depth: u32,
    /// What the child runs.
    pub definition: DefinitionId,
    /// W3C trace context, that of the parent.
    pub traceparent: Option<Cow<'a, str>>,
    /// The input of the child.
    pub data: PayloadRef<'a>,
}

/// What a parent wants of its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChildWish {
    /// Begin, and say how it ended.
    Begin,
    /// Turn back if there is a way back, never begin if it has not begun, and say how it ended.
    CallOff,
    /// Its end has been heard.
    Forget,
}

impl ChildWish {
    /// Every wish.
    pub const ALL: [Self; 3] = [Self::Begin, Self::CallOff, Self::Forget];

    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::CallOff => "call-off",
            Self::Forget => "forget",
        }
    }
}

/// What a participant's command topic holds.
#[derive(Debug)]
pub enum Asked<'a> {
    /// To do something.
    Command(Command<'a>),
    /// To know something it has asked.
    Verdict(Verdict<'a>),
}

/// `sagamore.timer.v1`: written by the owner of the shard only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer<'a> {
    /// Transaction id.
    pub subject: TransactionId,
    /// Which life of that id.
    pub birth: Birth,
    /// The step and branch it belongs to; `None` is the transaction's deadline.
    pub branch: Option<(Cow<'a, str>, Cow<'a, str>)>,
    /// When it was due; tells this timer from an earlier one of the same branch.
    pub due: Time,
}

/// `sagamore.undeliverable.v1`: written by the owner of the shard only. It means unknown, not no.
#[derive(Debug)]
pub struct Undeliverable<'a> {
    /// The command that cannot be delivered.
    pub address: Address<'a>,
    /// What the client library said.
    pub reason: Cow<'a, str>,
}

/// Who decides, why, and on what state.
#[derive(Debug, Clone)]
pub struct Authority<'a> {
    /// Idempotency key of the verb.
    pub id: Cow<'a, str>,
    /// Who.
    pub actor: Cow<'a, str>,
    /// Why.
    pub reason: Cow<'a, str>,
    /// The revision it was decided on (compare and set); `None` takes any.
    pub revision: Option<u64>,
}

/// A verb about one transaction.
#[derive(Debug)]
pub struct Verb<'a> {
    /// Transaction id.
    pub subject: TransactionId,
    /// What is wanted.
    pub wish: Wish<'a>,
    /// Who, why, on what.
    pub authority: Authority<'a>,
}

/// What a verb wants.
#[derive(Debug, Clone)]
pub enum Wish<'a> {
    /// `sagamore.cancel.v1`: go back, if there still is a way back.
    Cancel,
    /// `sagamore.retry.v1`: try again now what is stuck or waits.
    Retry,
    /// `sagamore.pause.v1`: ask for nothing more, until it is resumed.
    Pause,
    /// `sagamore.resume.v1`: go on from there.
    Resume,
    /// `sagamore.resolve.v1`: a person answers in the place of a participant, for a branch that is stuck.
    Resolve(Resolution<'a>),
}

impl Wish<'_> {
    /// As it stands on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Resolve(_) => "resolve",
        }
    }
}

/// What a person has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolved {
    /// `ok`: it has been done.
    #[serde(rename = "ok")]
    Done,
    /// It has not been done, and will not be.
    Refused,
}

impl From<Resolved> for Answer {
    fn from(resolved: Resolved) -> Self {
        match resolved {
            Resolved::Done => Self::Ok,
            Resolved::Refused => Self::Refused,
        }
    }
}

/// What a person says of a branch that is stuck.
#[derive(Debug, Clone)]
pub struct Resolution<'a> {
    /// The step.
    pub step: Cow<'a, str>,
    /// The branch, when the step has several.
    pub branch: Option<Cow<'a, str>>,
    /// What has become of what was asked.
    pub outcome: Resolved,
    /// The result, as the participant would have answered it.
    pub data: PayloadRef<'a>,
}

/// A verb about the shard as a whole.
#[derive(Debug)]
pub struct ShardVerb<'a> {
    /// What is wanted.
    pub wish: ShardWish<'a>,
    /// Who and why.
    pub authority: Authority<'a>,
}

/// What a shard verb wants.
#[derive(Debug)]
pub enum ShardWish<'a> {
    /// `sagamore.skip.v1`: pass over one record on which `apply` panics.
    Skip {
        /// Inbox offset of that record.
        offset: i64,
    },
    /// `sagamore.level.v1`: raise the level.
    Level {
        /// The new level.
        level: u32,
    },
    /// `sagamore.settings.v1`: replace the numbers the fold uses.
    Settings {
        /// The settings document, as raw JSON.
        data: PayloadRef<'a>,
    },
}

/// `sagamore.definition.v1`.
#[derive(Debug)]
pub struct DefinitionApplied<'a> {
    /// Offset in the definitions topic: the order among definitions.
    pub offset: i64,
    /// The definition, as canonical JSON.
    pub data: PayloadRef<'a>,
}

/// How a transaction, or a start, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// Everything was done.
    Committed,
    /// Something had been done, and was undone.
    Compensated,
    /// Nothing had been done.
    Aborted,
    /// A start was not accepted.
    Refused,
    /// It needs a human; a final outcome of a higher revision may follow.
    Stuck,
}

impl OutcomeKind {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Compensated => "compensated",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::Stuck => "stuck",
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `sagamore.outcome.v1`. Consumers drop repeats by `id`.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// Transaction id.
    pub subject: TransactionId,
    /// How it ended.
    pub outcome: OutcomeKind,
    /// What makes this outcome one of a kind.
    pub occasion: Occasion,
    /// The installation.
    pub instance: Uuid,
    /// The pinned definition, `name@version`, or what the refused start asked for.
    pub definition: Option<Cow<'a, str>>,
    /// Why, unless committed.
    pub reason: Option<Cow<'a, str>>,
    /// `{"steps": {step: result}}` for a committed transaction.
    pub data: PayloadRef<'a>,
}

/// What an outcome is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A transaction.
    Transaction {
        /// Which life of the id.
        birth: Birth,
        /// Count of applied inputs: of two outcomes the higher holds.
        revision: u64,
    },
    /// A start that was refused.
    Start {
        /// Partition and offset of that very start: a waiter heeds only its own.
        cause: Birth,
    },
}

impl Outcome<'_> {
    /// The deterministic id.
    pub fn id(&self) -> String {
        match self.occasion {
            Occasion::Transaction { birth, revision } => {
                format!("{}/{birth}/outcome/{revision}", self.subject)
            }
            Occasion::Start { cause } => format!("{}/{cause}/start/refused", self.subject),
        }
    }
}

/// `<topic>/<partition>`, as `replyto` names the place of a reply.
pub fn parse_replyto(text: &str) -> Option<(&str, Partition)> {
    let (topic, partition) = text.rsplit_once('/')?;
    Some((topic, Partition(partition.parse().ok().filter(|p| *p >= 0)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address<'static> {
        Address {
            subject: "order-1234".parse().unwrap(),
            birth: "3-88121".parse().unwrap(),
            step: "charge".into(),
            branch: "payment".into(),
            operation: Operation::Execute,
            attempt: 1,
        }
    }

    #[test]
    fn a_command_reads_back_as_it_was_written() {
        let data = Payload::from_json(r#"{"total":100.10, "note":"é\n"}"#.to_owned()).unwrap();
        let command = Command {
            address: address(),
            instance: Uuid::nil(),
            issued: "2026-11-22T16:00:00.013Z".parse().unwrap(),
            watermark: "2026-11-19T16:00:00Z".parse().unwrap(),
            deadline: "2026-11-22T16:15:00Z".parse().unwrap(),
            definition: "order@3".into(),
            replyto: "sagamore.inbox/3".into(),
            traceparent: None,
            replytoken: Some("a\"b\\c\u{1}".into()),
            unilateral_after: Some(Span::from_ms(1500)),
            data: data.as_ref(),
        };
        let written = command.to_json();
        let text = std::str::from_utf8(&written).unwrap();
        assert!(text.contains(r#""id":"order-1234/3-88121/charge/payment/execute/1""#), "{text}");
        let read = read_command(Some(&written)).unwrap();
        assert_eq!(read.address, command.address);
        assert_eq!(read.replytoken, command.replytoken);
        assert_eq!(read.unilateral_after, command.unilateral_after);
        assert_eq!(
            (read.issued, read.watermark, read.deadline),
            (command.issued, command.watermark, command.deadline)
        );
        assert_eq!(read.data.json(), Some(r#"{"total":100.10, "note":"é\n"}"#), "byte for byte");
        assert_eq!(parse_replyto(&read.replyto), Some(("sagamore.inbox", Partition(3))));
    }

    #[test]
    fn what_is_said_to_a_child_reads_back_as_it_was_written() {
        let data = Payload::from_json(r#"{"total":100.10}"#.to_owned()).unwrap();
        for wish in ChildWish::ALL {
            let request = ChildRequest {
                subject: "refund.c0ffee".parse().unwrap(),
                wish,
                parent: address(),
                instance: Uuid::nil(),
                issued: "2026-11-22T16:00:00.013Z".parse().unwrap(),
                depth: 2,
                definition: "refund@2".parse().unwrap(),
                traceparent: None,
                data: data.as_ref(),
            };
            let written = request.to_json();
            let text = std::str::from_utf8(&written).unwrap();
            assert!(text.contains(r#""subject":"refund.c0ffee""#), "{text}");
            assert!(text.contains(r#""parent":"order-1234","birth":"3-88121""#), "{text}");
            let Input::Child(read) = read_input(Some(&written)).unwrap() else { panic!("{text}") };
            assert_eq!(
                (&read.subject, read.wish, &read.parent, &read.definition),
                (&request.subject, wish, &request.parent, &request.definition)
            );
            assert_eq!((read.issued, read.depth), (request.issued, 2));
            assert_eq!(read.data.json(), request.data.json());
        }
    }

    #[test]
    fn what_a_foreign_client_writes_is_read() {
        let start = br#"{ "specversion" : "1.0", "type":"sagamore.start.v1","id":"order-1234/start","source":"/shop",
            "time":"2026-11-22T17:00:00+01:00", "subject":"order-1234","definition":"order","unknown":[1],"data":{"sku":"A1"}}"#;
        let Input::Start(start) = read_input(Some(start)).unwrap() else { panic!("a start") };
        assert_eq!(start.subject.as_str(), "order-1234");
        assert_eq!(start.time.to_string(), "2026-11-22T16:00:00.000Z");
        assert_eq!(start.definition.to_string(), "order");
        assert_eq!(start.data.json(), Some(r#"{"sku":"A1"}"#));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let check = |given: &str, then: &str, start: bool| {
            let error = read_input(Some(given.as_bytes())).unwrap_err();
            assert!(error.to_string().contains(then), "{given}: {error}");
            assert_eq!(error.start.is_some(), start, "{given}");
        };
        check("", "not a CloudEvents document", false);
        check("\u{0}\u{1}", "not a CloudEvents document", false);
        check("[]", "not a CloudEvents document", false);
        check("{}", "specversion", false);
        check(r#"{"specversion":"1.0"}"#, "type is missing", false);
        check(r#"{"specversion":"1.0","type":"other"}"#, "unexpected type", false);
        check(r#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"a b"}"#, "transaction id", false);
        check(r#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"a"}"#, "time is missing", true);
        check(
            r#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"a","time":"x"}"#,
            "RFC 3339",
            true,
        );
        check(
            r#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"a","time":"2026-11-22T16:00:00Z","definition":"O"}"#,
            "name",
            true,
        );
        check(r#"{"specversion":"1.0","type":"sagamore.reply.v1","outcome":"maybe"}"#, "maybe", false);
        check(
            r#"{"specversion":"1.0","type":"sagamore.start.v1","subject":"a","time":"2026-11-22T16:00:00Z","definition":"o","data_base64":"\u0001"}"#,
            "data_base64",
            true,
        );
        let long = "s".repeat(33);
        check(
            &format!(
                r#"{{"specversion":"1.0","type":"sagamore.child.v1","wish":"begin","subject":"c","parent":"p","birth":"0-1","step":"{long}","branch":"b","operation":"execute","attempt":1}}"#
            ),
            "attribute step: name",
            false,
        );
        assert_eq!(read_input(None).unwrap_err().cause, ReadCause::Empty);
    }
}
