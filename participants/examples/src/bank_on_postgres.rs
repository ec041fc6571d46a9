//! The bank on PostgreSQL: it keeps what it has done and answered, and may be killed.
//!
//! | table | |
//! |---|---|
//! | `accounts` | `balance_cents`, of it `held_cents`; neither can be negative, nor more held than there is |
//! | `postings` | every change of a balance, by transaction, branch and operation; with the openings they are the balances |
//!
//! A vote is a hold (try/confirm/cancel: others see the money, and cannot spend it), or with [`Votes::Prepared`] a
//! prepared transaction of PostgreSQL, which holds the rows of its accounts until it is ended.

use sagamore_participant::{
    Command, Effect, Fault, Handle, Participant, Payload, Runtime, RuntimeError, read_data,
};
use sagamore_participant_postgres::tokio_postgres::{Config, Error};
use sagamore_participant_postgres::{OpenError, PostgresOptions, PostgresStore, Tx};
use serde::Deserialize;

use crate::bank::Posted;
use crate::injection::Injection;
use crate::run::Settings;

const NAME: &str = "bank";

/// What the business keeps.
pub const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS accounts (
        account       TEXT PRIMARY KEY,
        opening_cents BIGINT NOT NULL,
        balance_cents BIGINT NOT NULL CHECK (balance_cents >= 0),
        held_cents    BIGINT NOT NULL DEFAULT 0 CHECK (held_cents BETWEEN 0 AND balance_cents)
    );
    CREATE TABLE IF NOT EXISTS postings (
        subject   TEXT NOT NULL,
        birth     TEXT NOT NULL,
        step      TEXT NOT NULL,
        branch    TEXT NOT NULL,
        operation TEXT NOT NULL,
        account   TEXT NOT NULL,
        cents     BIGINT NOT NULL,
        PRIMARY KEY (subject, birth, step, branch, operation)
    )";

/// What a vote is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Votes {
    /// A row that says so.
    Holds,
    /// A prepared transaction.
    Prepared,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Not an address of PostgreSQL.
    #[error("not a URL of PostgreSQL: {0}")]
    Url(Error),
    /// The database is away, or not fit.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The runtime does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Starts it on this database. Of `settings` it heeds runtime, failures and the opening of accounts.
pub fn spawn(url: &str, votes: Votes, settings: &Settings) -> Result<Handle, SpawnError> {
    let config: Config = url.parse().map_err(SpawnError::Url)?;
    // Several participants may share a database, and its accounts; what they have answered is their own.
    let schema = settings.runtime.participant.to_string();
    let options = PostgresOptions { schema, xa: votes == Votes::Prepared, ..PostgresOptions::default() };
    let store = PostgresStore::open(config, options, TABLES)?;
    let opening_cents = i64::try_from(settings.opening_cents).unwrap_or(i64::MAX);
    let bank = Bank { votes, opening_cents, injection: settings.injection.clone() };
    Ok(Runtime::spawn(bank, store, &settings.runtime)?)
}

/// The participant.
pub struct Bank {
    /// What a vote is; the store's options say the same.
    pub votes: Votes,
    /// What every account has when it is first seen.
    pub opening_cents: i64,
    /// Failures on demand.
    pub injection: Injection,
}

/// `data` of `execute` and `prepare`: one of the two amounts.
#[derive(Deserialize)]
struct Posting {
    account: String,
    #[serde(default)]
    debit_cents: u32,
    #[serde(default)]
    credit_cents: u32,
}

impl Posting {
    /// What the balance changes by.
    fn change(&self) -> i64 {
        i64::from(self.credit_cents) - i64::from(self.debit_cents)
    }
}

/// `data` of what follows.
#[derive(Deserialize)]
struct Following {
    input: Posting,
}

impl Bank {
    fn posting(&self, command: &Command<'_>) -> Result<Posting, Effect> {
        if let Some(refusal) = self.injection.refusal(NAME, command) {
            return Err(refusal);
        }
        let posting: Posting = read_data(command)?;
        let one_amount = (posting.debit_cents == 0) != (posting.credit_cents == 0);
        if posting.account.is_empty() || !one_amount {
            return Err(Effect::refused("bad-input: an account, and debit_cents or credit_cents above 0"));
        }
        Ok(posting)
    }

    /// Changes the balance by `cents`, and writes it down, in one round trip; whether there was enough, beside what is
    /// held.
    fn post(&self, tx: &mut Tx<'_>, command: &Command<'_>, account: &str, cents: i64) -> Result<bool, Fault> {
        let address = &command.address;
        let (subject, birth) = (address.subject.as_str(), address.birth.to_string());
        let (step, branch) = (address.step.as_ref(), address.branch.as_ref());
        let operation = address.operation.as_str();
        let done = tx.execute_all(&[
            (OPEN_ACCOUNT, &[&account, &self.opening_cents]),
            (
                "UPDATE accounts SET balance_cents = balance_cents + $2
                 WHERE account = $1 AND balance_cents - held_cents + $2 >= 0",
                &[&account, &cents],
            ),
            (
                "INSERT INTO postings (subject, birth, step, branch, operation, account, cents)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[&subject, &birth, &step, &branch, &operation, &account, &cents],
            ),
        ])?;
        Ok(done[1] == 1)
    }

    /// Changes what is held of an account; whether there was enough.
    fn hold(&self, tx: &mut Tx<'_>, account: &str, cents: i64) -> Result<bool, Fault> {
        let done = tx.execute_all(&[
            (OPEN_ACCOUNT, &[&account, &self.opening_cents]),
            (
                "UPDATE accounts SET held_cents = held_cents + $2
                 WHERE account = $1 AND held_cents + $2 BETWEEN 0 AND balance_cents",
                &[&account, &cents],
            ),
        ])?;
        Ok(done[1] == 1)
    }
}

const OPEN_ACCOUNT: &str = "INSERT INTO accounts (account, opening_cents, balance_cents) VALUES ($1, $2, $2)
    ON CONFLICT DO NOTHING";

fn answer(is_enough: bool, posting: &Posting, command: &Command<'_>) -> Result<Effect, Fault> {
    if !is_enough {
        return Ok(Effect::refused(format_args!("insufficient-funds: account {}", posting.account)));
    }
    Effect::done(&Posted { posting: crate::token("pst", command) })
}

impl Participant for Bank {
    type Store = PostgresStore;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let posting = match self.posting(command) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        answer(self.post(tx, command, &posting.account, posting.change())?, &posting, command)
    }

    fn compensate(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Following { input: posting } = crate::asked(command)?;
        if self.post(tx, command, &posting.account, -posting.change())? {
            Ok(())
        } else {
            Err(Fault::new("the credit has been spent, and cannot be taken back yet"))
        }
    }

    fn prepare(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let posting = match self.posting(command) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        let is_enough = match self.votes {
            Votes::Prepared => self.post(tx, command, &posting.account, posting.change())?,
            Votes::Holds => self.hold(tx, &posting.account, i64::from(posting.debit_cents))?,
        };
        answer(is_enough, &posting, command)
    }

    fn commit(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        if self.votes == Votes::Prepared {
            return Ok(());
        }
        let Following { input: posting } = crate::asked(command)?;
        let is_let_go = self.hold(tx, &posting.account, -i64::from(posting.debit_cents))?;
        let is_posted = self.post(tx, command, &posting.account, posting.change())?;
        if is_let_go && is_posted { Ok(()) } else { Err(Fault::new("what was held is not there")) }
    }

    fn abort(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        if self.votes == Votes::Prepared {
            return Ok(());
        }
        let Following { input: posting } = crate::asked(command)?;
        if self.hold(tx, &posting.account, -i64::from(posting.debit_cents))? {
            Ok(())
        } else {
            Err(Fault::new("what was held is not there"))
        }
    }
}
