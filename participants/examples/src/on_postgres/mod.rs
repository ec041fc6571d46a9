//! The examples on PostgreSQL: they keep what they have done and answered, may be killed, and run as several instances.
//!
//! Business tables stand in the first schema of the search path, and participants in one database share them; what each
//! of them has answered is in a schema of its name.
//!
//! | table | |
//! |---|---|
//! | `shelves` | inventory: what is `on_hand`, and what is `reserved` |
//! | `customers` | payment: `limit_cents`, of it `charged_cents` |
//! | `parcels` | shipping: one row for each parcel that is booked |
//! | `accounts` | bank: `balance_cents`, of it `held_cents`; neither can be negative, nor more held than there is |
//! | `postings` | bank: every change of a balance; with the openings they are the balances |
//! | `effects` | inventory, payment, shipping: what each operation took (or gave back, below zero). No key keeps it from being written twice, so that a second effect shows |

mod bank;
mod books;
mod inventory;
mod payment;
mod shipping;

use sagamore_participant::{Command, Handle};
use sagamore_participant_postgres::PostgresStore;
use sagamore_participant_postgres::tokio_postgres::types::ToSql;

pub(crate) use books::books;

use crate::database::{Votes, at_work, open};
use crate::replica::{self, Replica};
use crate::run::{Kind, Settings, SpawnError};

pub(crate) fn spawn(
    kind: Kind,
    url: &str,
    votes: Votes,
    settings: &Settings,
) -> Result<(Handle, PostgresStore), SpawnError> {
    let injection = settings.injection.clone();
    match kind {
        Kind::Inventory => {
            let tables = inventory::tables(&settings.products, settings.restock);
            let store = open(url, votes, settings, &format!("{EFFECTS};{tables}"))?;
            at_work(inventory::Inventory { injection, restock: settings.restock }, store, settings)
        }
        Kind::Payment => {
            let store = open(url, votes, settings, &format!("{EFFECTS};{}", payment::TABLES))?;
            let limit_cents = saturated(settings.credit_limit_cents);
            at_work(payment::Payment { injection, limit_cents }, store, settings)
        }
        Kind::Shipping => {
            let store = open(url, votes, settings, &format!("{EFFECTS};{}", shipping::TABLES))?;
            let refused_countries = settings.refused_countries.clone();
            at_work(shipping::Shipping { injection, refused_countries }, store, settings)
        }
        Kind::Bank => {
            let store = open(url, votes, settings, bank::TABLES)?;
            let opening_cents = saturated(settings.opening_cents);
            at_work(bank::Bank { votes, opening_cents, injection }, store, settings)
        }
        Kind::Replica => {
            let store = open(url, votes, settings, replica::TABLES)?;
            at_work(Replica::new(votes, &settings.runtime.participant, &settings.injection), store, settings)
        }
    }
}

fn saturated(cents: u64) -> i64 {
    i64::try_from(cents).unwrap_or(i64::MAX)
}

const EFFECTS: &str = "
    CREATE TABLE IF NOT EXISTS effects (
        participant TEXT NOT NULL,
        subject     TEXT NOT NULL,
        birth       TEXT NOT NULL,
        step        TEXT NOT NULL,
        branch      TEXT NOT NULL,
        operation   TEXT NOT NULL,
        amount      BIGINT NOT NULL
    )";

const ENTER: &str = "INSERT INTO effects (participant, subject, birth, step, branch, operation, amount)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// A row of `effects`.
struct Entry<'c> {
    participant: &'static str,
    subject: &'c str,
    birth: String,
    step: &'c str,
    branch: &'c str,
    operation: &'static str,
    amount: i64,
}

impl<'c> Entry<'c> {
    fn of(participant: &'static str, command: &'c Command<'_>, amount: i64) -> Self {
        let address = &command.address;
        Self {
            participant,
            subject: address.subject.as_str(),
            birth: address.birth.to_string(),
            step: address.step.as_ref(),
            branch: address.branch.as_ref(),
            operation: address.operation.as_str(),
            amount,
        }
    }

    /// As [`ENTER`] takes it.
    fn parameters(&self) -> [&(dyn ToSql + Sync); 7] {
        [
            &self.participant,
            &self.subject,
            &self.birth,
            &self.step,
            &self.branch,
            &self.operation,
            &self.amount,
        ]
    }
}
