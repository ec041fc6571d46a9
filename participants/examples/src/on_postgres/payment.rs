//! Payment on PostgreSQL.

use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
use sagamore_participant_postgres::{PostgresStore, Tx};

use super::{ENTER, Entry};
use crate::injection::Injection;
use crate::payment::{Charge, NAME, Receipt, Undoing, read_charge};

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS customers (
        customer      TEXT PRIMARY KEY,
        limit_cents   BIGINT NOT NULL,
        charged_cents BIGINT NOT NULL CHECK (charged_cents BETWEEN 0 AND limit_cents)
    )";

pub(super) struct Payment {
    pub(super) injection: Injection,
    pub(super) limit_cents: i64,
}

impl Participant for Payment {
    type Store = PostgresStore;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let Charge { customer, amount_cents } = match read_charge(&self.injection, command) {
            Ok(charge) => charge,
            Err(refusal) => return Ok(refusal),
        };
        let Ok(cents) = i64::try_from(amount_cents) else {
            return Ok(Effect::refused(format_args!("bad-input: {amount_cents} cents")));
        };
        let entry = Entry::of(NAME, command, cents);
        let done = tx.execute_all(&[
            (
                "INSERT INTO customers (customer, limit_cents, charged_cents) VALUES ($1, $2, 0)
                 ON CONFLICT DO NOTHING",
                &[&customer, &self.limit_cents],
            ),
            (
                "UPDATE customers SET charged_cents = charged_cents + $2
                 WHERE customer = $1 AND $2 <= limit_cents - charged_cents",
                &[&customer, &cents],
            ),
            (ENTER, &entry.parameters()),
        ])?;
        if done[1] == 0 {
            return Ok(Effect::refused(format_args!("credit-limit: customer {customer}")));
        }
        Effect::done(&Receipt { receipt: crate::token("rcp", command), amount_cents })
    }

    fn compensate(&self, tx: &mut Tx<'_>, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        let receipt: Receipt = crate::stored(done)?;
        let Undoing { input: Charge { customer, .. } } = crate::asked(command)?;
        let cents = i64::try_from(receipt.amount_cents)?;
        let entry = Entry::of(NAME, command, -cents);
        let done = tx.execute_all(&[
            (
                "UPDATE customers SET charged_cents = charged_cents - $2
                 WHERE customer = $1 AND charged_cents >= $2",
                &[&customer, &cents],
            ),
            (ENTER, &entry.parameters()),
        ])?;
        if done[0] == 1 { Ok(()) } else { Err(Fault::new("a refund of more than was charged")) }
    }
}
