//! From typed values to the bytes of a record. One writer, no intermediate document.

use std::fmt::{Display, Write as _};

use uuid::Uuid;

use super::{
    Address, Answer, Authority, ChildRequest, Command, DefinitionApplied, Heuristic, Input, Inquiry,
    Occasion, Outcome, PayloadRef, Reply, ShardVerb, ShardWish, Start, Timer, Undeliverable, Verb, Verdict,
    Wish,
};
use crate::ids::{Birth, Time};
use crate::json::{needs_escape, push_birth, push_json_string, push_number};

const COORDINATOR: &str = "/sagamore";
/// Whose decisions by hand are.
const OPERATOR: &str = "/sagamore/operator";

impl Start<'_> {
    /// As a record value; `source` says who starts it.
    pub fn to_json(&self, source: &str) -> Vec<u8> {
        let mut w = Writer::new("sagamore.start.v1", format_args!("{}/start", self.subject), source);
        w.time("time", self.time);
        w.text("subject", self.subject.as_str());
        w.display("definition", &self.definition);
        w.optional("traceparent", self.traceparent.as_deref());
        w.payload(&self.data);
        w.finish()
    }
}

impl Command<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let mut w = Writer::about("sagamore.command.v1", &self.address, ["", ""], COORDINATOR, &self.data);
        w.uuid("instance", self.instance);
        w.address(&self.address);
        w.time("issued", self.issued);
        w.time("watermark", self.watermark);
        w.time("deadline", self.deadline);
        w.text("definition", &self.definition);
        w.text("replyto", &self.replyto);
        w.optional("traceparent", self.traceparent.as_deref());
        w.optional("replytoken", self.replytoken.as_deref());
        if let Some(after) = self.unilateral_after {
            w.display("unilateralafter", after);
        }
        w.payload(&self.data);
        w.finish()
    }
}

impl Inquiry<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let Self { subject, birth, step, branch, participant, .. } = self;
        let id = format_args!("{subject}/{birth}/{step}/{branch}/{participant}/inquiry");
        let mut w = Writer::new("sagamore.inquiry.v1", id, &format!("/{participant}"));
        w.inquiry(self);
        w.finish()
    }
}

impl Verdict<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let Inquiry { subject, birth, step, branch, participant, .. } = &self.inquiry;
        let decision = self.decision.as_str();
        let id = format_args!("{subject}/{birth}/{step}/{branch}/{participant}/decision/{decision}");
        let source = if self.heuristic.is_some() { OPERATOR } else { COORDINATOR };
        let mut w = Writer::new("sagamore.decision.v1", id, source);
        w.inquiry(&self.inquiry);
        w.text("decision", decision);
        if let Some(Heuristic { wish, actor, reason, time }) = &self.heuristic {
            w.text("heuristic", wish.as_str());
            w.text("actor", actor);
            w.text("reason", reason);
            w.time("time", *time);
        }
        w.finish()
    }
}

impl Reply<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        // An attempt has one final answer, and others before it.
        let before = match self.outcome {
            Answer::Ok | Answer::Refused => "",
            Answer::Error => "/error",
            Answer::Pending => "/pending",
        };
        let address = &self.address;
        let mut w = Writer::about("sagamore.reply.v1", address, ["/reply", before], &self.source, &self.data);
        w.uuid("instance", self.instance);
        w.address(&self.address);
        w.text("outcome", self.outcome.as_str());
        w.optional("reason", self.reason.as_deref());
        w.optional("replytoken", self.replytoken.as_deref());
        w.payload(&self.data);
        w.finish()
    }
}

impl ChildRequest<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let wish = self.wish.as_str();
        let mut w = Writer::about("sagamore.child.v1", &self.parent, ["/", wish], COORDINATOR, &self.data);
        w.uuid("instance", self.instance);
        w.text("subject", self.subject.as_str());
        w.text("wish", wish);
        w.text("parent", self.parent.subject.as_str());
        w.place(&self.parent);
        w.time("issued", self.issued);
        w.number("depth", u64::from(self.depth));
        w.display("definition", &self.definition);
        w.optional("traceparent", self.traceparent.as_deref());
        w.payload(&self.data);
        w.finish()
    }
}

impl Outcome<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let mut w = Writer::new("sagamore.outcome.v1", self.id(), COORDINATOR);
        w.uuid("instance", self.instance);
        w.text("subject", self.subject.as_str());
        match self.occasion {
            Occasion::Transaction { birth, revision } => {
                w.birth("birth", birth);
                w.number("revision", revision);
            }
            Occasion::Start { cause } => w.birth("cause", cause),
        }
        w.optional("definition", self.definition.as_deref());
        w.text("outcome", self.outcome.as_str());
        w.optional("reason", self.reason.as_deref());
        w.payload(&self.data);
        w.finish()
    }
}

impl Timer<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let Self { subject, birth, branch, due } = self;
        let mut w = match branch {
            Some((step, branch)) => Writer::new(
                "sagamore.timer.v1",
                format_args!("{subject}/{birth}/{step}/{branch}/timer/{}", due.epoch_ms()),
                COORDINATOR,
            ),
            None => Writer::new(
                "sagamore.timer.v1",
                format_args!("{subject}/{birth}/deadline/{}", due.epoch_ms()),
                COORDINATOR,
            ),
        };
        w.text("subject", subject.as_str());
        w.birth("birth", *birth);
        if let Some((step, branch)) = branch {
            w.text("step", step);
            w.text("branch", branch);
        }
        w.time("due", *due);
        w.finish()
    }
}

impl Undeliverable<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let (kind, none) = ("sagamore.undeliverable.v1", PayloadRef::Absent);
        let mut w = Writer::about(kind, &self.address, ["/", "undeliverable"], COORDINATOR, &none);
        w.address(&self.address);
        w.text("reason", &self.reason);
        w.finish()
    }
}

impl Verb<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let kind = match self.wish {
            Wish::Cancel => "sagamore.cancel.v1",
            Wish::Retry => "sagamore.retry.v1",
            Wish::Pause => "sagamore.pause.v1",
            Wish::Resume => "sagamore.resume.v1",
            Wish::Resolve(_) => "sagamore.resolve.v1",
        };
        let mut w = Writer::new(kind, &self.authority.id, COORDINATOR);
        w.text("subject", self.subject.as_str());
        w.authority(&self.authority);
        if let Wish::Resolve(resolution) = &self.wish {
            w.text("step", &resolution.step);
            if let Some(branch) = &resolution.branch {
                w.text("branch", branch);
            }
            w.text("outcome", Answer::from(resolution.outcome).as_str());
            w.payload(&resolution.data);
        }
        w.finish()
    }
}

impl ShardVerb<'_> {
    /// As a record value for the inbox partition `home`.
    pub fn to_json(&self, home: crate::ids::Partition) -> Vec<u8> {
        let kind = match self.wish {
            ShardWish::Skip { .. } => "sagamore.skip.v1",
            ShardWish::Level { .. } => "sagamore.level.v1",
            ShardWish::Settings { .. } => "sagamore.settings.v1",
        };
        let mut w = Writer::new(kind, &self.authority.id, COORDINATOR);
        w.authority(&self.authority);
        match &self.wish {
            ShardWish::Skip { offset } => w.display("target", format_args!("{home}/{offset}")),
            ShardWish::Level { level } => w.number("level", u64::from(*level)),
            ShardWish::Settings { data } => w.payload(data),
        }
        w.finish()
    }
}

impl DefinitionApplied<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let offset = self.offset;
        let mut w = Writer::new("sagamore.definition.v1", format_args!("definitions/{offset}"), COORDINATOR);
        w.display_number("definitionsoffset", offset);
        w.payload(&self.data);
        w.finish()
    }
}

impl Input<'_> {
    /// The `type` of this input, without prefix and version: a label for metrics and the journal.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Reply(_) => "reply",
            Self::Timer(_) => "timer",
            Self::Undeliverable(_) => "undeliverable",
            Self::Inquiry(_) => "inquiry",
            Self::Child(ChildRequest { wish, .. }) => wish.as_str(),
            Self::Verb(Verb { wish, .. }) => wish.as_str(),
            Self::Shard(ShardVerb { wish: ShardWish::Skip { .. }, .. }) => "skip",
            Self::Shard(ShardVerb { wish: ShardWish::Level { .. }, .. }) => "level",
            Self::Shard(ShardVerb { wish: ShardWish::Settings { .. }, .. }) => "settings",
            Self::Definition(_) => "definition",
        }
    }
}

struct Writer(String);

impl Writer {
    fn new(kind: &str, id: impl Display, source: &str) -> Self {
        let mut w = Self::begin(kind, &PayloadRef::Absent);
        w.display("id", id);
        w.text("source", source);
        w
    }

    /// What has the id of a command, or one made of it by two suffixes.
    fn about(
        kind: &str,
        address: &Address<'_>,
        suffixes: [&str; 2],
        source: &str,
        payload: &PayloadRef<'_>,
    ) -> Self {
        let mut w = Self::begin(kind, payload);
        w.quoted("id", |out| {
            let Address { subject, birth, step, branch, operation, attempt } = address;
            out.push_str(subject.as_str());
            out.push('/');
            push_birth(out, *birth);
            for part in [step, branch, operation.as_str()] {
                out.push('/');
                out.push_str(part);
            }
            out.push('/');
            push_number(out, u64::from(*attempt));
            out.push_str(suffixes[0]);
            out.push_str(suffixes[1]);
        });
        w.text("source", source);
        w
    }

    fn begin(kind: &str, payload: &PayloadRef<'_>) -> Self {
        /// All but the payload of most records fits without growing.
        const TYPICAL_BYTES: usize = 768;
        let mut w = Self(String::with_capacity(TYPICAL_BYTES + payload.size_bytes()));
        w.0.push_str("{\"specversion\":\"1.0\",\"type\":\"");
        w.0.push_str(kind);
        w.0.push('"');
        w
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        push_json_string(&mut self.0, value);
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn display(&mut self, name: &str, value: impl Display) {
        self.quoted(name, |out| {
            let written = write!(out, "{value}");
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        });
    }

    fn time(&mut self, name: &str, time: Time) {
        self.text(name, time.rfc_3339(&mut [0; 24]));
    }

    fn uuid(&mut self, name: &str, uuid: Uuid) {
        self.text(name, uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    }

    fn birth(&mut self, name: &str, birth: Birth) {
        self.quoted(name, |out| push_birth(out, birth));
    }

    fn quoted(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        self.name(name);
        self.0.push('"');
        let start = self.0.len();
        write(&mut self.0);
        if needs_escape(&self.0[start..]) {
            let raw = self.0.split_off(start - 1);
            push_json_string(&mut self.0, &raw[1..]);
        } else {
            self.0.push('"');
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        push_number(&mut self.0, value);
    }

    fn display_number(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let written = write!(self.0, "{value}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }

    fn address(&mut self, address: &Address<'_>) {
        self.text("subject", address.subject.as_str());
        self.place(address);
    }

    fn place(&mut self, address: &Address<'_>) {
        self.birth("birth", address.birth);
        self.text("step", &address.step);
        self.text("branch", &address.branch);
        self.text("operation", address.operation.as_str());
        self.number("attempt", u64::from(address.attempt));
    }

    fn inquiry(&mut self, inquiry: &Inquiry<'_>) {
        self.uuid("instance", inquiry.instance);
        self.text("subject", inquiry.subject.as_str());
        self.birth("birth", inquiry.birth);
        self.text("step", &inquiry.step);
        self.text("branch", &inquiry.branch);
        self.text("participant", inquiry.participant.as_str());
    }

    fn authority(&mut self, authority: &Authority<'_>) {
        self.text("actor", &authority.actor);
        self.text("reason", &authority.reason);
        if let Some(revision) = authority.revision {
            self.number("revision", revision);
        }
    }

    fn payload(&mut self, payload: &PayloadRef<'_>) {
        match payload {
            PayloadRef::Json(raw) => {
                self.name("data");
                self.0.push_str(raw.get());
            }
            PayloadRef::Base64(text) => self.text("data_base64", text),
            PayloadRef::Absent => {}
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push('}');
        self.0.into_bytes()
    }
}
