//! Loyalty points on nothing but Kafka: the balances are a compacted topic, and every change is an event in another.
//!
//! | operation | does | refuses |
//! |---|---|---|
//! | `execute {"customer": "VINET", "points": 40}` | credits, or debits what is negative | `insufficient-points: customer VINET` |
//! | `compensate` | takes it back | |
//! | `prepare` | holds a debit, and promises room for a credit | as above |
//! | `commit`, `abort` | changes the balance; lets go | |
//!
//! The key of its steps is the customer: `key: "${input.customer}"`. A credit that was spent before it is taken back leaves
//! a negative balance, which is a debt: no business reason refuses a compensation.

use sagamore_participant::store::kafka::{KafkaStore, Tx};
use sagamore_participant::{
    Command, Effect, Fault, Handle, KafkaOnly, KafkaOnlySettings, Open, Participant, Payload, RuntimeError,
    read_data,
};
use sagamore_schemas::ids::Name;
use serde::{Deserialize, Serialize};

use crate::injection::Injection;

/// How it runs.
#[derive(Debug, Clone)]
pub struct PointsSettings {
    /// As a participant with nothing but Kafka.
    pub runtime: KafkaOnlySettings,
    /// Failures on demand.
    pub injection: Injection,
    /// The topic that every change of a balance is told to.
    pub events: String,
}

/// What it is called unless told otherwise.
pub fn name() -> Name {
    match "points".parse() {
        Ok(name) => name,
        Err(_) => unreachable!("it is a name"),
    }
}

/// Starts it.
pub fn spawn(settings: &PointsSettings) -> Result<Handle, RuntimeError> {
    let PointsSettings { runtime, injection, events } = settings;
    KafkaOnly::spawn(Points { injection: injection.clone(), events: events.clone() }, runtime)
}

struct Points {
    injection: Injection,
    events: String,
}

/// A row of the table, by customer.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Balance {
    points: i64,
    #[serde(default)]
    held: i64,
}

#[derive(Serialize, Deserialize)]
struct Change {
    customer: String,
    points: i64,
}

#[derive(Deserialize)]
struct Following {
    input: Change,
}

/// What the events say.
#[derive(Serialize)]
struct Changed<'a> {
    transaction: &'a str,
    birth: String,
    operation: &'a str,
    customer: &'a str,
    change: i64,
    points: i64,
}

impl Points {
    /// The balance, if the change is covered.
    fn covered(tx: &Tx<'_>, change: &Change) -> Result<Result<Balance, Effect>, Fault> {
        let balance: Balance = tx.read(&change.customer)?.unwrap_or_default();
        let free = balance.points.checked_sub(balance.held).and_then(|free| free.checked_add(change.points));
        if change.customer.is_empty() || change.points == 0 {
            return Ok(Err(Effect::refused("bad-input: a change of somebody's points is wanted")));
        }
        Ok(match free {
            Some(free) if free >= 0 || change.points > 0 => Ok(balance),
            _ => Err(Effect::refused(format_args!("insufficient-points: customer {}", change.customer))),
        })
    }

    fn change(&self, tx: &mut Tx<'_>, command: &Command<'_>, customer: &str, by: i64) -> Result<(), Fault> {
        let mut balance: Balance = tx.read(customer)?.unwrap_or_default();
        balance.points = balance.points.checked_add(by).ok_or_else(|| Fault::new("too many points"))?;
        keep(tx, customer, &balance)?;
        let address = &command.address;
        let changed = Changed {
            transaction: address.subject.as_str(),
            birth: address.birth.to_string(),
            operation: address.operation.as_str(),
            customer,
            change: by,
            points: balance.points,
        };
        tx.emit(&self.events, customer.as_bytes(), &serde_json::to_vec(&changed)?)
    }

    /// Points that are held no longer.
    fn let_go(tx: &mut Tx<'_>, change: &Change) -> Result<(), Fault> {
        let mut balance: Balance = tx.read(&change.customer)?.unwrap_or_default();
        balance.held -= held(change.points);
        keep(tx, &change.customer, &balance)
    }
}

/// A row says something, or is not there.
fn keep(tx: &mut Tx<'_>, customer: &str, balance: &Balance) -> Result<(), Fault> {
    if *balance == Balance::default() { tx.remove(customer.as_bytes()) } else { tx.write(customer, balance) }
}

/// A debit is held, a credit is not there before it is decided.
fn held(points: i64) -> i64 {
    points.min(0).saturating_neg()
}

impl Participant for Points {
    type Store = KafkaStore;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before("points", command)
    }

    fn execute(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        if let Some(refusal) = self.injection.refusal("points", command) {
            return Ok(refusal);
        }
        let change: Change = match read_data(command) {
            Ok(change) => change,
            Err(refusal) => return Ok(refusal),
        };
        if let Err(refusal) = Self::covered(tx, &change)? {
            return Ok(refusal);
        }
        self.change(tx, command, &change.customer, change.points)?;
        Effect::done(&change)
    }

    fn compensate(
        &self,
        tx: &mut Open<'_, Self>,
        command: &Command<'_>,
        done: &Payload,
    ) -> Result<(), Fault> {
        let Change { customer, points } = crate::stored(done)?;
        self.change(tx, command, &customer, -points)
    }

    fn prepare(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        let change: Change = match read_data(command) {
            Ok(change) => change,
            Err(refusal) => return Ok(refusal),
        };
        let mut balance = match Self::covered(tx, &change)? {
            Ok(balance) => balance,
            Err(refusal) => return Ok(refusal),
        };
        balance.held += held(change.points);
        keep(tx, &change.customer, &balance)?;
        Effect::done(&change)
    }

    fn commit(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Following { input } = crate::asked(command)?;
        Self::let_go(tx, &input)?;
        self.change(tx, command, &input.customer, input.points)
    }

    fn abort(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Following { input } = crate::asked(command)?;
        Self::let_go(tx, &input)
    }
}
