//! Which transactions: the flags of a filter, the same for looking and for deciding.

use clap::{Args, ValueEnum};
use sagamore_client::http::Servers;
use sagamore_schemas::ids::Span;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::read;
use super::exit::Failure;
use super::transactions::{Shown, block_on, read_shown};

/// Transactions that a server gives on one page.
const PAGE: usize = 1_000;

/// Which ones.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Those of this definition; with a version, of that one.
    #[arg(long, value_name = "NAME[@V]")]
    definition: Option<String>,
    /// Those of which this step is being asked, or is stuck.
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Those that wait for this participant.
    #[arg(long, value_name = "NAME")]
    participant: Option<String>,
    /// Those with an error of this kind: the words of a reason before its colon.
    #[arg(long, value_name = "KIND")]
    error: Option<String>,
    /// Those whose id begins so.
    #[arg(long, value_name = "TEXT")]
    id_prefix: Option<String>,
    /// Those started longer ago.
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
    /// Those started since.
    #[arg(long, value_name = "DURATION")]
    newer_than: Option<Span>,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Status {
    /// Going forward, not decided.
    Running,
    /// Not decided, and held by a person.
    Paused,
    /// Decided, going forward to the end.
    Committing,
    /// Going back.
    RollingBack,
    /// In need of a person.
    Stuck,
    /// Ended: done.
    Committed,
    /// Ended: something was undone.
    Compensated,
    /// Ended: nothing had been done.
    Aborted,
    /// A start that was refused.
    Refused,
    /// The first five.
    Open,
    /// The others.
    Ended,
    /// Any.
    All,
}

/// Where an open transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OpenStatus {
    /// Going forward, not decided.
    Running,
    /// Not decided, and held by a person.
    Paused,
    /// Decided, going forward to the end.
    Committing,
    /// Going back.
    RollingBack,
    /// In need of a person.
    Stuck,
}

impl OpenStatus {
    /// As the fold says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Committing => "committing",
            Self::RollingBack => "rolling-back",
            Self::Stuck => "stuck",
        }
    }
}

impl Which {
    /// Those that are stuck at a step.
    pub fn stuck_at(definition: Option<String>, step: String, error: Option<String>) -> Self {
        Self { definition, step: Some(step), error, ..Self::default() }
    }

    /// As a server takes it; `&` at its end when it is not empty.
    pub fn query(&self, statuses: &[Status]) -> String {
        let span = |span: Option<Span>| span.map(|span| span.to_string());
        let statuses: Vec<String> = statuses
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        let statuses = Some(statuses.join(",")).filter(|statuses| !statuses.is_empty());
        let pairs = [
            ("status", statuses),
            ("definition", self.definition.clone()),
            ("step", self.step.clone()),
            ("participant", self.participant.clone()),
            ("error", self.error.clone()),
            ("id_prefix", self.id_prefix.clone()),
            ("older_than", span(self.older_than)),
            ("newer_than", span(self.newer_than)),
        ];
        let mut query = String::new();
        for (name, value) in pairs {
            if let Some(value) = value {
                query.extend([name, "=", &escaped(&value), "&"]);
            }
        }
        query
    }
}

/// A value as it stands in a query: what an URL might change is escaped.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b',' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// One page.
#[derive(Debug, Deserialize)]
struct Listed {
    transactions: Vec<Box<RawValue>>,
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    lag_records: Option<i64>,
}

/// A list, page after page.
pub struct Pages<'s> {
    servers: &'s Servers,
    query: String,
    /// How many more.
    left: usize,
    next: Option<String>,
    is_over: bool,
}

/// A transaction as it was told and as tables show it.
pub type Told = (Box<RawValue>, Shown);

impl<'s> Pages<'s> {
    /// At most so many of these.
    pub fn new(servers: &'s Servers, query: String, most: usize) -> Self {
        Self { servers, query, left: most, next: None, is_over: false }
    }

    /// The next of them; none when there are no more.
    pub fn next(&mut self) -> Result<Option<Vec<Told>>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        let size = self.left.min(PAGE);
        let after = self.next.as_ref().map(|next| format!("&after={next}")).unwrap_or_default();
        let path = format!("/v1/transactions?{}limit={size}{after}", self.query);
        let listed: Listed = read(&block_on(self.servers.get(&path))??)?;
        if self.next.is_none() {
            behind(listed.lag_records);
        }
        self.left -= listed.transactions.len().min(self.left);
        self.next = listed.next;
        self.is_over = self.next.is_none() || self.left == 0;
        let told = |raw: Box<RawValue>| read_shown(&raw).map(|shown| (raw, shown));
        listed.transactions.into_iter().map(told).collect::<Result<_, _>>().map(Some)
    }

    /// Whether there are more than were asked for.
    pub fn has_more(&self) -> bool {
        self.next.is_some()
    }

    /// All of them.
    pub fn all(mut self) -> Result<Vec<Told>, Failure> {
        let mut all = Vec::new();
        while let Some(page) = self.next()? {
            all.extend(page);
        }
        if self.has_more() {
            eprintln!("there are more than these {}", all.len());
        }
        Ok(all)
    }
}

/// Says that a view is still being built: what it shows is a part.
pub fn behind(lag_records: Option<i64>) {
    /// More than what is written while a list is read.
    const SEVERAL: i64 = 10_000;
    match lag_records {
        None => eprintln!("the server does not know yet how far its view is: this may be a part"),
        Some(lag) if lag > SEVERAL => {
            eprintln!("the server has {lag} journal records still to read: this is a part");
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_as_a_server_takes_them() {
        let which = Which {
            definition: Some("order@1".to_owned()),
            error: Some("no account & more".to_owned()),
            older_than: Some(Span::from_secs(3600)),
            ..Which::default()
        };
        assert_eq!(
            which.query(&[Status::Stuck, Status::RollingBack]),
            "status=stuck,rolling-back&definition=order@1&error=no%20account%20%26%20more&older_than=1h&"
        );
        assert_eq!(Which::default().query(&[]), "");
    }
}
