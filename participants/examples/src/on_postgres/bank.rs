//! The bank on PostgreSQL.

use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
use sagamore_participant_postgres::{PostgresStore, Tx};

use crate::bank::{Following, NAME, Posted, Posting};
use crate::database::Votes;
use crate::injection::Injection;

pub(super) const TABLES: &str = "
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

pub(super) struct Bank {
    /// The store's options say the same.
    pub(super) votes: Votes,
    pub(super) opening_cents: i64,
    pub(super) injection: Injection,
}

/// What the balance changes by. An amount that has been read is one.
fn change(posting: &Posting) -> i64 {
    posting.credit_cents.cast_signed() - posting.debit_cents.cast_signed()
}

impl Bank {
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
        let posting = match Posting::read(&self.injection, command) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        answer(self.post(tx, command, &posting.account, change(&posting))?, &posting, command)
    }

    fn compensate(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Following { input: posting } = crate::asked(command)?;
        if self.post(tx, command, &posting.account, -change(&posting))? {
            Ok(())
        } else {
            Err(Fault::new("the credit has been spent, and cannot be taken back yet"))
        }
    }

    fn prepare(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let posting = match Posting::read(&self.injection, command) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        let is_enough = match self.votes {
            Votes::Prepared => self.post(tx, command, &posting.account, change(&posting))?,
            Votes::Holds => self.hold(tx, &posting.account, posting.debit_cents.cast_signed())?,
        };
        answer(is_enough, &posting, command)
    }

    fn commit(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        if self.votes == Votes::Prepared {
            return Ok(());
        }
        let Following { input: posting } = crate::asked(command)?;
        let is_let_go = self.hold(tx, &posting.account, -posting.debit_cents.cast_signed())?;
        let is_posted = self.post(tx, command, &posting.account, change(&posting))?;
        if is_let_go && is_posted { Ok(()) } else { Err(Fault::new("what was held is not there")) }
    }

    fn abort(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        if self.votes == Votes::Prepared {
            return Ok(());
        }
        let Following { input: posting } = crate::asked(command)?;
        if self.hold(tx, &posting.account, -posting.debit_cents.cast_signed())? {
            Ok(())
        } else {
            Err(Fault::new("what was held is not there"))
        }
    }
}
