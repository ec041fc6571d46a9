//! What the view answers: lists, counts, causes, one transaction. All of an answer is read in one local transaction, with
//! the place in the journal at which it stands.
//!
//! A list goes oldest first, by the time of the start and the birth; a page begins behind the last row of the one
//! before, so that no page is dearer than another. Statuses are asked one by one and merged: each is one walk along
//! one index, which begins where the page begins.

use std::collections::BTreeSet;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use sagamore_schemas::ids::{Span, Time, TransactionId};
use serde::Serialize;

use super::ViewError;
use super::life::Life;
use super::show::{Plans, Shown};
use super::status::{Status, nearest};
use super::store::{COLUMNS, key, life_of};

/// Groups in one answer: more are no overview.
const GROUPS_SHOWN: usize = 1_000;

/// Which transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of one of these.
    pub statuses: BTreeSet<Status>,
    /// Of this definition, and perhaps of this version.
    pub definition: Option<(String, Option<u32>)>,
    /// Of which this step is being asked, or is stuck.
    pub step: Option<String>,
    /// That wait for this participant.
    pub participant: Option<String>,
    /// With an error of this kind.
    pub error: Option<String>,
    /// Whose id begins so.
    pub id_prefix: Option<String>,
    /// Started at this time or later.
    pub from: Option<Time>,
    /// Started before this time.
    pub until: Option<Time>,
}

impl Default for Filter {
    /// All that are open.
    fn default() -> Self {
        Self {
            statuses: Status::OPEN.into(),
            definition: None,
            step: None,
            participant: None,
            error: None,
            id_prefix: None,
            from: None,
            until: None,
        }
    }
}

/// Behind which row a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    started_ms: i64,
    key: i64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}.{:x}", self.started_ms, self.key)
    }
}

impl std::str::FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text| i64::from_str_radix(text, 16).ok().filter(|number| *number >= 0);
        let parts = text.split_once('.').and_then(|(one, other)| Some((number(one)?, number(other)?)));
        let (started_ms, key) = parts.ok_or("after is the next of the page before, as it was given")?;
        Ok(Self { started_ms, key })
    }
}

/// A page of a list.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// Oldest first.
    pub transactions: Vec<Shown>,
    /// Where the next page begins, when there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What transactions are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum By {
    /// Where they stand.
    Status,
    /// Name and version of the definition.
    Definition,
    /// The name alone.
    Name,
    /// The step that is being asked: one with two of them counts twice.
    Step,
    /// Who is being asked: the same.
    Participant,
    /// Of what kind the error is.
    Error,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Status, Self::Definition, Self::Name, Self::Step, Self::Participant, Self::Error];

    /// As the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Definition => "definition",
            Self::Name => "name",
            Self::Step => "step",
            Self::Participant => "participant",
            Self::Error => "error",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Status => "t.status",
            Self::Definition => "t.name || '@' || t.version",
            Self::Name => "t.name",
            Self::Step => "b.step",
            Self::Participant => "d.participant",
            Self::Error => "t.error",
        }
    }
}

impl std::str::FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|by| by.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            let near = nearest(text, names.into_iter())
                .map(|name| format!("did you mean {name}? "))
                .unwrap_or_default();
            format!("nothing is counted by {text:?}: {near}one of {}", names.join(", "))
        })
    }
}

/// How many there are of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What it was counted by, in the order asked for; null where it has none.
    #[serde(flatten)]
    pub group: serde_json::Map<String, serde_json::Value>,
    /// How many.
    pub transactions: i64,
}

/// A place in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// Everything below this offset of the journal is in the answer.
    pub offset: i64,
    /// When the newest of it was written; none before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Where the view stands.
pub fn positions(connection: &Connection) -> Result<Vec<Position>, ViewError> {
    let mut statement =
        connection.prepare_cached("SELECT home, next_offset, at_ms FROM positions ORDER BY home")?;
    let rows = statement.query_map([], |row| {
        let at_ms: i64 = row.get(2)?;
        let at = (at_ms > 0).then(|| Time::from_epoch_ms(at_ms));
        Ok(Position { partition: row.get(0)?, offset: row.get(1)?, at })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A page.
pub fn list(
    connection: &Connection,
    filter: &Filter,
    after: Option<Cursor>,
    size: usize,
) -> Result<Page, ViewError> {
    let mut rows: Vec<Life> = Vec::new();
    let more = size.saturating_add(1);
    let groups: Vec<Vec<Status>> = if filter.id_prefix.is_some() {
        // Along the index of ids, whatever the status.
        vec![filter.statuses.iter().copied().collect()]
    } else {
        filter.statuses.iter().map(|status| vec![*status]).collect()
    };
    for statuses in groups {
        let mut query = filter.query(&statuses);
        if let Some(after) = after {
            query.add("(t.started_ms, t.birth) > (?, ?)", [after.started_ms.into(), after.key.into()]);
        }
        let text = format!(
            "SELECT {COLUMNS} FROM transactions t {} WHERE {} ORDER BY t.started_ms, t.birth LIMIT {more}",
            query.index, query.conditions
        );
        let mut statement = connection.prepare_cached(&text)?;
        let found = statement.query_map(params_from_iter(query.values), life_of)?;
        rows.extend(found.collect::<Result<Vec<_>, _>>()?);
    }
    rows.sort_by_key(|life| (life.started, key(life.birth)));
    let has_more = rows.len() > size;
    rows.truncate(size);
    let last = rows.last().map(|life| Cursor { started_ms: life.started.epoch_ms(), key: key(life.birth) });
    let next = last.filter(|_| has_more).map(|cursor| cursor.to_string());
    let mut plans = Plans::new(connection);
    let transactions = rows.iter().map(|life| plans.show(life, false)).collect::<Result<_, _>>()?;
    Ok(Page { transactions, next })
}

/// Where a transaction's last entry stands, for who comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset in the journal.
    pub offset: i64,
    /// The birth as the file has it: several transactions of one partition may share an offset only after a rebuild.
    pub birth: i64,
}

/// What has changed in a partition since `after`, up to `end`, in the order of the journal.
pub fn changed(
    connection: &Connection,
    filter: &Filter,
    partition: i32,
    after: Place,
    end: i64,
    size: usize,
) -> Result<Vec<(Place, Shown)>, ViewError> {
    let statuses: Vec<Status> = filter.statuses.iter().copied().collect();
    let mut query = filter.query(&statuses);
    query.index = "INDEXED BY kept";
    query.add(
        "t.home = ? AND (t.journal_offset, t.birth) > (?, ?) AND t.journal_offset < ?",
        [partition.into(), after.offset.into(), after.birth.into(), end.into()],
    );
    let text = format!(
        "SELECT {COLUMNS}, t.journal_offset FROM transactions t {} WHERE {} ORDER BY t.journal_offset, t.birth LIMIT {size}",
        query.index, query.conditions
    );
    let mut statement = connection.prepare_cached(&text)?;
    let rows =
        statement.query_map(params_from_iter(query.values), |row| Ok((life_of(row)?, row.get(12)?)))?;
    let mut plans = Plans::new(connection);
    let shown = rows.map(|row| {
        let (life, offset) = row?;
        Ok((Place { offset, birth: key(life.birth) }, plans.show(&life, false)?))
    });
    shown.collect()
}

/// How many there are.
pub fn count(connection: &Connection, filter: &Filter, by: &[By]) -> Result<Vec<Count>, ViewError> {
    let statuses: Vec<Status> = filter.statuses.iter().copied().collect();
    let query = filter.query(&statuses);
    let columns: Vec<&str> = by.iter().map(|by| by.column()).collect();
    let is_by_branch = by.iter().any(|by| matches!(by, By::Step | By::Participant));
    let joined = if is_by_branch {
        "LEFT JOIN open_branches b ON b.birth = t.birth
         LEFT JOIN definition_branches d ON d.name = t.name AND d.version = t.version AND d.step = b.step AND d.branch = b.branch"
    } else {
        ""
    };
    let list = columns.join(", ");
    let (selected, grouped) = match by {
        [] => (String::new(), String::new()),
        _ => (format!("{list}, "), format!("GROUP BY {list} ORDER BY {list}")),
    };
    let distinct = if is_by_branch { "count(DISTINCT t.birth)" } else { "count(*)" };
    let text = format!(
        "SELECT {selected}{distinct} FROM transactions t {} {joined} WHERE {} {grouped} LIMIT {GROUPS_SHOWN}",
        query.index, query.conditions
    );
    let mut statement = connection.prepare_cached(&text)?;
    let mut rows = statement.query(params_from_iter(query.values))?;
    let mut counts = Vec::new();
    while let Some(row) = rows.next()? {
        let mut group = serde_json::Map::new();
        for (column, by) in by.iter().enumerate() {
            let value = match by {
                By::Status => Status::of_code(row.get(column)?).map(|status| status.as_str().to_owned()),
                By::Definition | By::Name | By::Step | By::Participant | By::Error => row.get(column)?,
            };
            group.insert(by.as_str().to_owned(), value.into());
        }
        counts.push(Count { group, transactions: row.get(by.len())? });
    }
    Ok(counts)
}

/// Transactions that are stuck alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// `name@version`; none when the journal begins after their starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// The step.
    pub step: String,
    /// Its branch, when it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Who did not do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    /// What was asked.
    pub operation: String,
    /// Of what kind the error is.
    pub error: String,
    /// How many branches are stuck so.
    pub count: i64,
    /// Since when the first is.
    pub first_seen: Time,
    /// Since when the newest is.
    pub last_seen: Time,
    /// One of them.
    pub sample: String,
    /// The verb that may free them.
    pub verb: &'static str,
    /// That verb, as it is typed.
    pub command: String,
    /// What to look at before.
    pub advice: &'static str,
}

/// What is stuck, by cause; the most frequent first.
pub fn stuck(connection: &Connection, filter: &Filter) -> Result<Vec<Cause>, ViewError> {
    let filter = Filter { statuses: [Status::Stuck].into(), ..filter.clone() };
    let query = filter.query(&[Status::Stuck]);
    let text = format!(
        "SELECT t.name, t.version, b.step, b.branch, d.participant, b.operation, coalesce(b.error, 'no answer'), count(*),
             min(b.since_ms), max(b.since_ms), max(b.was_refused), max(b.attempt), min(t.id)
         FROM transactions t {} JOIN open_branches b ON b.birth = t.birth AND b.phase = 'stuck'
         LEFT JOIN definition_branches d ON d.name = t.name AND d.version = t.version AND d.step = b.step AND d.branch = b.branch
         WHERE {} {} GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 8 DESC, 1, 2, 3 LIMIT {GROUPS_SHOWN}",
        query.index,
        query.conditions,
        if filter.step.is_some() { "AND b.step = ?" } else { "" }
    );
    let mut values = query.values;
    values.extend(filter.step.clone().map(Sql::from));
    let mut statement = connection.prepare_cached(&text)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        let (name, version): (Option<String>, Option<u32>) = (row.get(0)?, row.get(1)?);
        let branch: String = row.get(3)?;
        let cause = Cause {
            definition: name.zip(version).map(|(name, version)| format!("{name}@{version}")),
            step: row.get(2)?,
            branch: Some(branch).filter(|branch| !branch.is_empty()),
            participant: row.get(4)?,
            operation: row.get(5)?,
            error: row.get(6)?,
            count: row.get(7)?,
            first_seen: Time::from_epoch_ms(row.get(8)?),
            last_seen: Time::from_epoch_ms(row.get(9)?),
            sample: row.get(12)?,
            verb: "",
            command: String::new(),
            advice: "",
        };
        let (was_refused, attempt): (bool, u32) = (row.get(10)?, row.get(11)?);
        Ok(cause.advised(was_refused, attempt))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Cause {
    /// What may free them, by what was said.
    fn advised(mut self, was_refused: bool, attempt: u32) -> Self {
        let step = self
            .branch
            .as_ref()
            .map_or_else(|| self.step.clone(), |branch| format!("{}/{branch}", self.step));
        let resolve = format!("sagamore resolve {} --step {step} --as ok --reason …", self.sample);
        let which = self.definition.as_ref().map(|name| format!(" --definition {name}")).unwrap_or_default();
        let retry =
            format!("sagamore retry --stuck{which} --step {} --error {:?} --reason …", self.step, self.error);
        (self.verb, self.command, self.advice) = match (self.error.as_str(), was_refused) {
            _ if attempt == 0 => (
                "retry",
                retry,
                "nobody was asked: its input cannot be mapped from what earlier steps gave; look at the sample",
            ),
            ("expired", _) => (
                "resolve",
                resolve,
                "the participant has purged what it knew of it: look at its books, and say what they say",
            ),
            (_, true) if self.operation == "execute" => (
                "resolve",
                resolve,
                "the participant said no, remembers it, and would say it again: see that it is done by other means, then say so",
            ),
            (_, true) => (
                "retry",
                retry,
                "the participant said no: remove the cause there, then try again; or resolve what was done by hand",
            ),
            (_, false) => ("retry", retry, "nobody answered: see that the participant runs, then try again"),
        };
        self
    }
}

/// The newest life of an id. A start that was refused is none.
pub fn one(connection: &Connection, id: &TransactionId) -> Result<Option<Shown>, ViewError> {
    let text = format!(
        "SELECT {COLUMNS} FROM transactions t INDEXED BY by_id WHERE t.id = ?1 AND t.status <> {}
         ORDER BY t.started_ms DESC, t.birth DESC LIMIT 1",
        Status::Refused.code()
    );
    let mut statement = connection.prepare_cached(&text)?;
    let mut rows = statement.query_map([id.as_str()], life_of)?;
    let Some(life) = rows.next().transpose()? else { return Ok(None) };
    Plans::new(connection).show(&life, true).map(Some)
}

/// The definition that was probably meant, when none is called so.
pub fn unknown_definition(connection: &Connection, name: &str) -> Result<Option<Option<String>>, ViewError> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT name FROM definitions")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if names.iter().any(|known| known == name) {
        return Ok(None);
    }
    Ok(Some(nearest(name, names.iter().map(String::as_str)).map(str::to_owned)))
}

/// Conditions on `transactions t`, and the values in them.
struct Query {
    conditions: String,
    values: Vec<Sql>,
    index: &'static str,
}

impl Query {
    fn add<const N: usize>(&mut self, condition: &str, values: [Sql; N]) {
        if !self.conditions.is_empty() {
            self.conditions.push_str(" AND ");
        }
        self.conditions.push_str(condition);
        self.values.extend(values);
    }
}

impl Filter {
    /// Reads `name` or `name@version`.
    pub fn definition_of(text: &str) -> Result<(String, Option<u32>), String> {
        let Some((name, version)) = text.split_once('@') else { return Ok((text.to_owned(), None)) };
        let version =
            version.parse().map_err(|_| format!("{text:?} is no definition: NAME or NAME@VERSION"))?;
        Ok((name.to_owned(), Some(version)))
    }

    /// Reads `open`, `ended`, `all`, or statuses with commas between.
    pub fn statuses_of(text: &str) -> Result<BTreeSet<Status>, String> {
        match text {
            "all" => Ok(Status::ALL.into()),
            "open" => Ok(Status::OPEN.into()),
            "ended" => Ok(Status::ALL.into_iter().filter(|status| !status.is_open()).collect()),
            list => list.split(',').map(str::parse).collect(),
        }
    }

    /// Older than this, newer than that, as of now.
    pub fn aged(&mut self, now: Time, older: Option<Span>, newer: Option<Span>) {
        self.until = older.map(|span| now.before(span));
        self.from = newer.map(|span| now.before(span));
    }

    fn query(&self, statuses: &[Status]) -> Query {
        let index = match self {
            Self { id_prefix: Some(_), .. } => "INDEXED BY by_id",
            Self { error: Some(_), .. } => "INDEXED BY by_error",
            Self { definition: Some(_), .. } => "INDEXED BY by_name",
            _ => "INDEXED BY by_status",
        };
        let mut query = Query { conditions: String::new(), values: Vec::new(), index };
        let codes: Vec<String> = statuses.iter().map(|status| status.code().to_string()).collect();
        match &*codes {
            [one] => query.add(&format!("t.status = {one}"), []),
            codes => query.add(&format!("t.status IN ({})", codes.join(", ")), []),
        }
        if let Some((name, version)) = &self.definition {
            query.add("t.name = ?", [name.clone().into()]);
            if let Some(version) = version {
                query.add("t.version = ?", [(*version).into()]);
            }
        }
        if let Some(error) = &self.error {
            query.add("t.error = ?", [error.clone().into()]);
        }
        if let Some(prefix) = &self.id_prefix {
            // `~` comes after every character of an id.
            query.add("t.id >= ? AND t.id < ?", [prefix.clone().into(), format!("{prefix}~").into()]);
        }
        if let Some(from) = self.from {
            query.add("t.started_ms >= ?", [from.epoch_ms().into()]);
        }
        if let Some(until) = self.until {
            query.add("t.started_ms < ?", [until.epoch_ms().into()]);
        }
        // Of one that is stuck, what is stuck of it.
        let stuck = if statuses == [Status::Stuck] { " AND o.phase = 'stuck'" } else { "" };
        if let Some(step) = &self.step {
            let condition = format!(
                "EXISTS (SELECT 1 FROM open_branches o WHERE o.birth = t.birth AND o.step = ?{stuck})"
            );
            query.add(&condition, [step.clone().into()]);
        }
        if let Some(participant) = &self.participant {
            let condition = format!(
                "EXISTS (SELECT 1 FROM open_branches o JOIN definition_branches p
                     ON p.name = t.name AND p.version = t.version AND p.step = o.step AND p.branch = o.branch
                     WHERE o.birth = t.birth AND p.participant = ?{stuck})"
            );
            query.add(&condition, [participant.clone().into()]);
        }
        query
    }
}
