//! From bytes to one typed input, or to an error that says what could be read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::envelope::Envelope;
use super::{
    Address, Answer, Asked, Authority, ChildRequest, ChildWish, Command, Decided, DefinitionApplied,
    Heuristic, HeuristicWish, Input, Inquiry, Occasion, Outcome, OutcomeKind, PayloadRef, Reply, Resolution,
    Resolved, ShardVerb, ShardWish, Start, Timer, Undeliverable, Verb, Verdict, Wish,
};
use crate::ids::{Birth, Name, TransactionId};

/// A record that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// What is wrong.
    pub cause: ReadCause,
    /// The transaction it wanted to start, when that much was readable: such a start is refused, not only set aside.
    pub start: Option<TransactionId>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadCause {
    /// There is no value.
    #[error("the record has no value")]
    Empty,
    /// Not JSON, or a known attribute of a wrong type.
    #[error("not a CloudEvents document: {0}")]
    Json(String),
    /// A CloudEvents version we do not know.
    #[error("specversion must be \"1.0\"")]
    SpecVersion,
    /// A type nobody may send here.
    #[error("unexpected type {0:?}")]
    Type(String),
    /// An attribute that this type needs.
    #[error("attribute {0} is missing")]
    Missing(&'static str),
    /// An attribute outside its form.
    #[error("attribute {0}: {1}")]
    Attribute(&'static str, String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for ReadError {}

impl From<ReadCause> for ReadError {
    fn from(cause: ReadCause) -> Self {
        Self { cause, start: None }
    }
}

/// Reads what a shard's inbox holds.
pub fn read_input(value: Option<&[u8]>) -> Result<Input<'_>, ReadError> {
    let mut e = envelope(value)?;
    let kind = e.kind.take().ok_or(ReadCause::Missing("type"))?;
    Ok(match kind.as_ref() {
        "sagamore.start.v1" => {
            let subject: TransactionId = parsed("subject", e.subject.take())?;
            Input::Start(
                start(e, subject.clone()).map_err(|cause| ReadError { cause, start: Some(subject) })?,
            )
        }
        "sagamore.reply.v1" => Input::Reply(reply(e)?),
        "sagamore.inquiry.v1" => Input::Inquiry(inquiry(&mut e)?),
        "sagamore.child.v1" => Input::Child(child(e)?),
        "sagamore.timer.v1" => Input::Timer(timer(e)?),
        "sagamore.undeliverable.v1" => Input::Undeliverable(Undeliverable {
            reason: required("reason", e.reason.take())?,
            address: address(&mut e)?,
        }),
        "sagamore.cancel.v1" => Input::Verb(verb(e, Wish::Cancel)?),
        "sagamore.retry.v1" => Input::Verb(verb(e, Wish::Retry)?),
        "sagamore.pause.v1" => Input::Verb(verb(e, Wish::Pause)?),
        "sagamore.resume.v1" => Input::Verb(verb(e, Wish::Resume)?),
        "sagamore.resolve.v1" => {
            let resolution = resolution(&mut e)?;
            Input::Verb(verb(e, Wish::Resolve(resolution))?)
        }
        "sagamore.skip.v1" => Input::Shard(shard_verb(e, ShardKind::Skip)?),
        "sagamore.level.v1" => Input::Shard(shard_verb(e, ShardKind::Level)?),
        "sagamore.settings.v1" => Input::Shard(shard_verb(e, ShardKind::Settings)?),
        "sagamore.definition.v1" => Input::Definition(DefinitionApplied {
            offset: e.definitionsoffset.ok_or(ReadCause::Missing("definitionsoffset"))?,
            data: payload(&mut e)?,
        }),
        _ => return Err(ReadCause::Type(crate::ids::shortened(&kind)).into()),
    })
}

/// Reads what a participant's command topic holds.
pub fn read_asked(value: Option<&[u8]>) -> Result<Asked<'_>, ReadError> {
    let mut e = envelope(value)?;
    match e.kind.as_deref() {
        Some("sagamore.command.v1") => Ok(Asked::Command(command(e)?)),
        Some("sagamore.decision.v1") => {
            let told = required("decision", e.decision.take())?;
            let decision = Decided::ALL.into_iter().find(|known| known.as_str() == told);
            let decision = decision.ok_or_else(|| unknown("decision", &told))?;
            let heuristic = heuristic(&mut e, decision)?;
            Ok(Asked::Verdict(Verdict { inquiry: inquiry(&mut e)?, decision, heuristic }))
        }
        Some(kind) => Err(ReadCause::Type(crate::ids::shortened(kind)).into()),
        None => Err(ReadCause::Missing("type").into()),
    }
}

/// Reads a command.
pub fn read_command(value: Option<&[u8]>) -> Result<Command<'_>, ReadError> {
    let e = envelope(value)?;
    expect_type(&e, "sagamore.command.v1")?;
    Ok(command(e)?)
}

fn inquiry<'a>(e: &mut Envelope<'a>) -> Result<Inquiry<'a>, ReadCause> {
    Ok(Inquiry {
        instance: parsed("instance", e.instance.take())?,
        subject: parsed("subject", e.subject.take())?,
        birth: parsed("birth", e.birth.take())?,
        step: required("step", e.step.take())?,
        branch: required("branch", e.branch.take())?,
        participant: parsed("participant", e.participant.take())?,
    })
}

/// By hand one commits or aborts; there is nothing else to say.
fn heuristic<'a>(e: &mut Envelope<'a>, decision: Decided) -> Result<Option<Heuristic<'a>>, ReadCause> {
    let Some(told) = e.heuristic.take() else { return Ok(None) };
    let wish = HeuristicWish::ALL.into_iter().find(|known| known.as_str() == told);
    let wish = wish.ok_or_else(|| unknown("heuristic", &told))?;
    match decision {
        Decided::Commit | Decided::Abort => {}
        Decided::Undecided | Decided::Forgotten => return Err(unknown("decision", decision.as_str())),
    }
    Ok(Some(Heuristic {
        wish,
        actor: required("actor", e.actor.take())?,
        reason: required("reason", e.reason.take())?,
        time: parsed("time", e.time.take())?,
    }))
}

fn command(mut e: Envelope<'_>) -> Result<Command<'_>, ReadCause> {
    let unilateral_after = e.unilateralafter.take().map(|text| parsed("unilateralafter", Some(text)));
    Ok(Command {
        address: address(&mut e)?,
        instance: parsed("instance", e.instance.take())?,
        issued: parsed("issued", e.issued.take())?,
        watermark: parsed("watermark", e.watermark.take())?,
        deadline: parsed("deadline", e.deadline.take())?,
        definition: required("definition", e.definition.take())?,
        replyto: required("replyto", e.replyto.take())?,
        traceparent: e.traceparent.take(),
        replytoken: e.replytoken.take(),
        unilateral_after: unilateral_after.transpose()?,
        data: payload(&mut e)?,
    })
}

/// Reads what the outcomes topic holds.
pub fn read_outcome(value: Option<&[u8]>) -> Result<Outcome<'_>, ReadError> {
    let mut e = envelope(value)?;
    expect_type(&e, "sagamore.outcome.v1")?;
    let kind = match required("outcome", e.outcome.take())?.as_ref() {
        "committed" => OutcomeKind::Committed,
        "compensated" => OutcomeKind::Compensated,
        "aborted" => OutcomeKind::Aborted,
        "refused" => OutcomeKind::Refused,
        "stuck" => OutcomeKind::Stuck,
        other => return Err(unknown("outcome", other).into()),
    };
    let occasion = match kind {
        OutcomeKind::Refused => Occasion::Start { cause: parsed("cause", e.cause.take())? },
        OutcomeKind::Committed | OutcomeKind::Compensated | OutcomeKind::Aborted | OutcomeKind::Stuck => {
            Occasion::Transaction {
                birth: parsed("birth", e.birth.take())?,
                revision: e.revision.ok_or(ReadCause::Missing("revision"))?,
            }
        }
    };
    Ok(Outcome {
        subject: parsed("subject", e.subject.take())?,
        outcome: kind,
        occasion,
        instance: parsed("instance", e.instance.take())?,
        definition: e.definition.take(),
        reason: e.reason.take(),
        data: payload(&mut e)?,
    })
}

fn envelope(value: Option<&[u8]>) -> Result<Envelope<'_>, ReadCause> {
    let value = value.ok_or(ReadCause::Empty)?;
    // Looked at once as a whole, UTF-8 costs less than text by text; a record that is not gets its error as ever.
    let read = match std::str::from_utf8(value) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(value),
    };
    let e: Envelope<'_> = read.map_err(|error| ReadCause::Json(error.to_string()))?;
    match e.specversion.as_deref() {
        Some("1.0") => Ok(e),
        _ => Err(ReadCause::SpecVersion),
    }
}

fn expect_type(e: &Envelope<'_>, wanted: &str) -> Result<(), ReadCause> {
    match e.kind.as_deref() {
        Some(kind) if kind == wanted => Ok(()),
        Some(kind) => Err(ReadCause::Type(crate::ids::shortened(kind))),
        None => Err(ReadCause::Missing("type")),
    }
}

fn start(mut e: Envelope<'_>, subject: TransactionId) -> Result<Start<'_>, ReadCause> {
    Ok(Start {
        subject,
        time: parsed("time", e.time.take())?,
        definition: parsed("definition", e.definition.take())?,
        traceparent: e.traceparent.take(),
        data: payload(&mut e)?,
    })
}

fn reply(mut e: Envelope<'_>) -> Result<Reply<'_>, ReadCause> {
    let outcome = match required("outcome", e.outcome.take())?.as_ref() {
        "ok" => Answer::Ok,
        "refused" => Answer::Refused,
        "error" => Answer::Error,
        "pending" => Answer::Pending,
        other => return Err(unknown("outcome", other)),
    };
    Ok(Reply {
        address: address(&mut e)?,
        instance: parsed::<Uuid>("instance", e.instance.take())?,
        source: required("source", e.source.take())?,
        outcome,
        reason: e.reason.take(),
        replytoken: e.replytoken.take(),
        data: payload(&mut e)?,
    })
}

fn child(mut e: Envelope<'_>) -> Result<ChildRequest<'_>, ReadCause> {
    let told = required("wish", e.wish.take())?;
    let wish = ChildWish::ALL.into_iter().find(|known| known.as_str() == told);
    let subject = parsed("subject", e.subject.take())?;
    e.subject = e.parent.take();
    if e.subject.is_none() {
        return Err(ReadCause::Missing("parent"));
    }
    let parent = address(&mut e)?;
    // They are kept with the child, so they are not of any length.
    for (name, text) in [("step", &parent.step), ("branch", &parent.branch)] {
        text.parse::<Name>().map_err(|error| ReadCause::Attribute(name, error.to_string()))?;
    }
    Ok(ChildRequest {
        subject,
        wish: wish.ok_or_else(|| unknown("wish", &told))?,
        parent,
        instance: parsed("instance", e.instance.take())?,
        issued: parsed("issued", e.issued.take())?,
        depth: e.depth.ok_or(ReadCause::Missing("depth"))?,
        definition: parsed("definition", e.definition.take())?,
        traceparent: e.traceparent.take(),
        data: payload(&mut e)?,
    })
}

fn timer(mut e: Envelope<'_>) -> Result<Timer<'_>, ReadCause> {
    let branch = match (e.step.take(), e.branch.take()) {
        (Some(step), Some(branch)) => Some((step, branch)),
        (None, None) => None,
        (Some(_), None) => return Err(ReadCause::Missing("branch")),
        (None, Some(_)) => return Err(ReadCause::Missing("step")),
    };
    Ok(Timer {
        subject: parsed("subject", e.subject.take())?,
        birth: parsed::<Birth>("birth", e.birth.take())?,
        branch,
        due: parsed("due", e.due.take())?,
    })
}

fn verb<'a>(mut e: Envelope<'a>, wish: Wish<'a>) -> Result<Verb<'a>, ReadCause> {
    Ok(Verb { subject: parsed("subject", e.subject.take())?, wish, authority: authority(&mut e)? })
}

fn resolution<'a>(e: &mut Envelope<'a>) -> Result<Resolution<'a>, ReadCause> {
    let told = required("outcome", e.outcome.take())?;
    let outcome = match &*told {
        "ok" => Resolved::Done,
        "refused" => Resolved::Refused,
        other => return Err(unknown("outcome", other)),
    };
    Ok(Resolution {
        step: required("step", e.step.take())?,
        branch: e.branch.take(),
        outcome,
        data: payload(e)?,
    })
}

#[derive(Clone, Copy)]
enum ShardKind {
    Skip,
    Level,
    Settings,
}

fn shard_verb(mut e: Envelope<'_>, kind: ShardKind) -> Result<ShardVerb<'_>, ReadCause> {
    let wish = match kind {
        ShardKind::Skip => {
            let target = required("target", e.target.take())?;
            let offset = target.rsplit_once('/').and_then(|(_, offset)| offset.parse().ok());
            ShardWish::Skip { offset: offset.ok_or_else(|| unknown("target", &target))? }
        }
        ShardKind::Level => ShardWish::Level { level: e.level.ok_or(ReadCause::Missing("level"))? },
        ShardKind::Settings => ShardWish::Settings { data: payload(&mut e)? },
    };
    Ok(ShardVerb { wish, authority: authority(&mut e)? })
}

fn authority<'a>(e: &mut Envelope<'a>) -> Result<Authority<'a>, ReadCause> {
    Ok(Authority {
        id: required("id", e.id.take())?,
        actor: required("actor", e.actor.take())?,
        reason: required("reason", e.reason.take())?,
        revision: e.revision,
    })
}

fn address<'a>(e: &mut Envelope<'a>) -> Result<Address<'a>, ReadCause> {
    Ok(Address {
        subject: parsed("subject", e.subject.take())?,
        birth: parsed("birth", e.birth.take())?,
        step: required("step", e.step.take())?,
        branch: required("branch", e.branch.take())?,
        operation: e.operation.ok_or(ReadCause::Missing("operation"))?,
        attempt: e.attempt.ok_or(ReadCause::Missing("attempt"))?,
    })
}

fn payload<'a>(e: &mut Envelope<'a>) -> Result<PayloadRef<'a>, ReadCause> {
    match (e.data, e.data_base64.take()) {
        (Some(json), _) => Ok(PayloadRef::Json(json)),
        (None, Some(text)) if text.bytes().all(is_base64) => Ok(PayloadRef::Base64(text)),
        (None, Some(_)) => Err(ReadCause::Attribute("data_base64", "not Base64 (RFC 4648)".to_owned())),
        (None, None) => Ok(PayloadRef::Absent),
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

fn required<'a>(name: &'static str, value: Option<Cow<'a, str>>) -> Result<Cow<'a, str>, ReadCause> {
    value.ok_or(ReadCause::Missing(name))
}

fn parsed<T: FromStr<Err: fmt::Display>>(
    name: &'static str,
    value: Option<Cow<'_, str>>,
) -> Result<T, ReadCause> {
    required(name, value)?.parse().map_err(|error: T::Err| ReadCause::Attribute(name, error.to_string()))
}

fn unknown(name: &'static str, value: &str) -> ReadCause {
    ReadCause::Attribute(name, format!("{:?} is not known", crate::ids::shortened(value)))
}
