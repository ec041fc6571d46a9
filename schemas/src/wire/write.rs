//! From typed values to the bytes of a record. One writer, no intermediate document.

use std::fmt::{Display, Write as _};

use super::{
    Address, Answer, Authority, ChildRequest, Command, DefinitionApplied, Input, Inquiry, Occasion, Outcome,
    PayloadRef, Reply, ShardVerb, ShardWish, Start, Timer, Undeliverable, Verb, Verdict, Wish,
};

const COORDINATOR: &str = "/sagamore";

impl Start<'_> {
    /// As a record value; `source` says who starts it.
    pub fn to_json(&self, source: &str) -> Vec<u8> {
        let mut w = Writer::new("sagamore.start.v1", format_args!("{}/start", self.subject), source);
        w.display("time", self.time);
        w.display("subject", &self.subject);
        w.display("definition", &self.definition);
        w.optional("traceparent", self.traceparent.as_deref());
        w.payload(&self.data);
        w.finish()
    }
}

impl Command<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let mut w = Writer::new("sagamore.command.v1", CommandId(&self.address), COORDINATOR);
        w.display("instance", self.instance);
        w.address(&self.address);
        w.display("issued", self.issued);
        w.display("watermark", self.watermark);
        w.display("deadline", self.deadline);
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
        let mut w = Writer::new("sagamore.decision.v1", id, COORDINATOR);
        w.inquiry(&self.inquiry);
        w.text("decision", decision);
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
        let id = format_args!("{}/reply{before}", CommandId(&self.address));
        let mut w = Writer::new("sagamore.reply.v1", id, &self.source);
        w.display("instance", self.instance);
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
        let id = format_args!("{}/{wish}", CommandId(&self.parent));
        let mut w = Writer::new("sagamore.child.v1", id, COORDINATOR);
        w.display("instance", self.instance);
        w.display("subject", &self.subject);
        w.text("wish", wish);
        w.display("parent", &self.parent.subject);
        w.place(&self.parent);
        w.display("issued", self.issued);
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
        w.display("instance", self.instance);
        w.display("subject", &self.subject);
        match self.occasion {
            Occasion::Transaction { birth, revision } => {
                w.display("birth", birth);
                w.number("revision", revision);
            }
            Occasion::Start { cause } => w.display("cause", cause),
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
        w.display("subject", subject);
        w.display("birth", birth);
        if let Some((step, branch)) = branch {
            w.text("step", step);
            w.text("branch", branch);
        }
        w.display("due", due);
        w.finish()
    }
}

impl Undeliverable<'_> {
    /// As a record value.
    pub fn to_json(&self) -> Vec<u8> {
        let id = CommandId(&self.address);
        let mut w = Writer::new("sagamore.undeliverable.v1", format_args!("{id}/undeliverable"), COORDINATOR);
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
        };
        let mut w = Writer::new(kind, &self.authority.id, COORDINATOR);
        w.display("subject", &self.subject);
        w.authority(&self.authority);
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

struct CommandId<'a, 'b>(&'a Address<'b>);

impl Display for CommandId<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Address { subject, birth, step, branch, operation, attempt } = self.0;
        write!(f, "{subject}/{birth}/{step}/{branch}/{operation}/{attempt}")
    }
}

struct Writer(String);

impl Writer {
    fn new(kind: &str, id: impl Display, source: &str) -> Self {
        /// A command with a small payload fits without growing.
        const TYPICAL_BYTES: usize = 1152;
        let mut w = Self(String::with_capacity(TYPICAL_BYTES));
        w.0.push_str("{\"specversion\":\"1.0\",\"type\":\"");
        w.0.push_str(kind);
        w.0.push('"');
        w.display("id", id);
        w.text("source", source);
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
        self.name(name);
        let start = self.0.len() + 1;
        let written = write!(self.0, "\"{value}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        if self.0.as_bytes()[start..].iter().any(|b| needs_escape(*b)) {
            let raw = self.0.split_off(start - 1);
            push_json_string(&mut self.0, &raw[1..]);
        } else {
            self.0.push('"');
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.display_number(name, value);
    }

    fn display_number(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let written = write!(self.0, "{value}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }

    fn address(&mut self, address: &Address<'_>) {
        self.display("subject", &address.subject);
        self.place(address);
    }

    fn place(&mut self, address: &Address<'_>) {
        self.display("birth", address.birth);
        self.text("step", &address.step);
        self.text("branch", &address.branch);
        self.text("operation", address.operation.as_str());
        self.number("attempt", u64::from(address.attempt));
    }

    fn inquiry(&mut self, inquiry: &Inquiry<'_>) {
        self.display("instance", inquiry.instance);
        self.display("subject", &inquiry.subject);
        self.display("birth", inquiry.birth);
        self.text("step", &inquiry.step);
        self.text("branch", &inquiry.branch);
        self.display("participant", &inquiry.participant);
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

fn needs_escape(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

fn push_json_string(out: &mut String, value: &str) {
    if value.bytes().any(needs_escape) {
        out.push_str(&serde_json::Value::from(value).to_string());
    } else {
        out.push('"');
        out.push_str(value);
        out.push('"');
    }
}
