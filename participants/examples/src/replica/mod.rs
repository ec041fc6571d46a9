//! A replica: a database that is to hold the same rows as others, of whatever kind they are. A change is prepared at all
//! of them and committed at all or at none, by two-phase or three-phase commit; nobody sees a part of it decided.
//!
//! | `data` of `prepare` | |
//! |---|---|
//! | `row` | its name |
//! | `from` | the version it replaces; 0: there is none |
//! | `value` | any JSON; `null` removes it, and keeps its version |
//!
//! The answer is `{"version": from + 1}`. A row of another version, and one that another change holds, are refused as
//! `conflict: …`: so no change is lost, and replicas that took part in the same changes are equal row by row, which
//! [`compare`] looks at. A replica without a database (`log`) also wants the `key` of its branch to be the row. A replica that is down when it is asked aborts the change everywhere, by the deadline; one that
//! goes down after its vote catches up when it is back, for the decision is asked of it until it has answered.

mod compare;
mod log;
mod postgres;
mod sqlite;

use std::marker::PhantomData;

use sagamore_participant::store::kafka::KafkaStore;
use sagamore_participant::store::sqlite::SqliteStore;
use sagamore_participant::store::{LocalTransaction as _, Store};
use sagamore_participant::{
    Command, Effect, Fault, Handle, KafkaOnly, KafkaOnlySettings, Participant, Payload, RuntimeError,
    read_data,
};
use sagamore_schemas::ids::Name;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use compare::{Comparison, Difference, Found, Place, PlaceError, compare};
pub(crate) use postgres::TABLES;
pub(crate) use sqlite::tables;

use crate::books::{Books, Stock, Totals};
use crate::database::Votes;
use crate::injection::Injection;

pub(crate) const NAME: &str = "replica";

/// What one is called that has nothing but Kafka, unless told otherwise.
pub fn name_on_log() -> Name {
    match "log-replica".parse() {
        Ok(name) => name,
        Err(_) => unreachable!("it is a name"),
    }
}

/// What a database of a replica can do. Who holds a row is a branch, by [`holder`].
pub(crate) trait Rows {
    /// Whether a command may change this row here; if not, why.
    fn takes(&self, _row: &str) -> Result<(), &'static str> {
        Ok(())
    }
    /// The version of a row that is not held by somebody else; `None`: it is held.
    fn hold(&mut self, row: &str, holder: &str) -> Result<Option<i64>, Fault>;
    /// Lets a row go; whether it was held.
    fn let_go(&mut self, row: &str, holder: &str) -> Result<bool, Fault>;
    /// Replaces what a row is.
    fn put(&mut self, row: &str, version: i64, value: Option<&str>) -> Result<(), Fault>;
}

#[derive(Deserialize)]
struct Change {
    row: String,
    from: i64,
    // With a function of its own it may be null, and not be left out.
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Following {
    input: Change,
}

#[derive(Serialize)]
struct Prepared {
    version: i64,
}

/// The participant, on any store whose business can be rows.
pub(crate) struct Replica<S> {
    name: String,
    votes: Votes,
    injection: Injection,
    store: PhantomData<fn() -> S>,
}

impl<S> Replica<S> {
    pub(crate) fn new(votes: Votes, name: &Name, injection: &Injection) -> Self {
        Self { name: name.to_string(), votes, injection: injection.clone(), store: PhantomData }
    }
}

/// Starts one that has nothing but Kafka: its rows are a compacted topic.
pub fn spawn_on_log(settings: &KafkaOnlySettings, injection: &Injection) -> Result<Handle, RuntimeError> {
    let replica = Replica::<KafkaStore>::new(Votes::Holds, &settings.participant, injection);
    KafkaOnly::spawn(replica, settings)
}

impl<S> Participant for Replica<S>
where
    S: Store,
    for<'t> S::Business<'t>: Rows,
{
    type Store = S;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(&self.name, command)
    }

    fn execute(&self, _: &mut S::Business<'_>, _: &Command<'_>) -> Result<Effect, Fault> {
        Ok(Effect::refused(
            "atomic-only: a change is prepared: protocol two-phase, three-phase, or kind reserved",
        ))
    }

    fn compensate(&self, _: &mut S::Business<'_>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Err(Fault::new("nothing was executed here that could be undone"))
    }

    fn prepare(&self, rows: &mut S::Business<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        if let Some(refusal) = self.injection.refusal(&self.name, command) {
            return Ok(refusal);
        }
        let change: Change = match read_data(command) {
            Ok(change) => change,
            Err(refusal) => return Ok(refusal),
        };
        if let Err(why) = rows.takes(&change.row) {
            return Ok(Effect::refused(format_args!("bad-input: {}: {why}", change.row)));
        }
        let Some(version) = change.from.checked_add(1).filter(|version| *version > 0) else {
            return Ok(Effect::refused(format_args!("bad-input: from {}", change.from)));
        };
        let Some(found) = rows.hold(&change.row, &holder(command))? else {
            return Ok(Effect::refused(format_args!("conflict: {} is held by another change", change.row)));
        };
        if found != change.from {
            return Ok(Effect::refused(format_args!("conflict: {} is at version {found}", change.row)));
        }
        if self.votes == Votes::Prepared {
            // The prepared transaction holds it, and is the change.
            change.apply(rows, command)?;
        }
        Effect::done(&Prepared { version })
    }

    fn commit(&self, rows: &mut S::Business<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        if self.votes == Votes::Prepared {
            return Ok(());
        }
        let Following { input } = crate::asked(command)?;
        input.apply(rows, command)
    }

    fn abort(&self, rows: &mut S::Business<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        if self.votes == Votes::Prepared {
            return Ok(());
        }
        let Following { input } = crate::asked(command)?;
        input.let_go(rows, command)
    }
}

impl Change {
    fn apply(&self, rows: &mut impl Rows, command: &Command<'_>) -> Result<(), Fault> {
        self.let_go(rows, command)?;
        rows.put(&self.row, self.from + 1, self.value.as_deref().map(RawValue::get))
    }

    fn let_go(&self, rows: &mut impl Rows, command: &Command<'_>) -> Result<(), Fault> {
        if rows.let_go(&self.row, &holder(command))? {
            Ok(())
        } else {
            Err(Fault::new(format!("{} is not held by this change", self.row)))
        }
    }
}

/// The books of a replica in a file: what it has, it was given.
pub(crate) fn books(store: &SqliteStore) -> Result<Books, Fault> {
    let mut session = store.session()?;
    let mut tx = store.begin(&mut session)?;
    let changes: i64 =
        tx.business()
            .query_row("SELECT coalesce(sum(version), 0) FROM replica_rows", [], |row| row.get(0))?;
    let changes = u64::try_from(changes)?;
    let stock = Stock { opening: 0, added: changes, standing: 0, closing: changes };
    Ok(Totals { effects: changes, ..Totals::default() }.with(NAME, "changes", stock))
}

/// Which branch holds a row.
fn holder(command: &Command<'_>) -> String {
    let address = &command.address;
    format!("{}/{}/{}/{}", address.subject, address.birth, address.step, address.branch)
}
