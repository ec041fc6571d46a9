//! Shipping on PostgreSQL.

use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
use sagamore_participant_postgres::{PostgresStore, Tx};

use super::{ENTER, Entry};
use crate::injection::Injection;
use crate::shipping::{Booking, NAME, read_country};

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS parcels (
        tracking TEXT PRIMARY KEY,
        country  TEXT NOT NULL
    )";

pub(super) struct Shipping {
    pub(super) injection: Injection,
    pub(super) refused_countries: Vec<String>,
}

impl Participant for Shipping {
    type Store = PostgresStore;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let country = match read_country(&self.injection, command) {
            Ok(country) => country,
            Err(refusal) => return Ok(refusal),
        };
        if self.refused_countries.contains(&country) {
            return Ok(Effect::refused(format_args!("no-carrier: {country}")));
        }
        let tracking = tracking(command);
        let entry = Entry::of(NAME, command, 1);
        tx.execute_all(&[
            ("INSERT INTO parcels (tracking, country) VALUES ($1, $2)", &[&tracking, &country]),
            (ENTER, &entry.parameters()),
        ])?;
        Effect::done(&Booking { tracking })
    }

    fn compensate(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let entry = Entry::of(NAME, command, -1);
        let done = tx.execute_all(&[
            ("DELETE FROM parcels WHERE tracking = $1", &[&tracking(command)]),
            (ENTER, &entry.parameters()),
        ])?;
        if done[0] == 1 {
            Ok(())
        } else {
            Err(Fault::new("a cancellation of a parcel that was never booked"))
        }
    }
}

fn tracking(command: &Command<'_>) -> String {
    crate::token("trk", command)
}
