//! Inventory on PostgreSQL. A shelf's row is locked from its change until the local transaction ends; products are taken
//! in the order of their numbers, and two batches that meet the other way round all the same are told apart by the
//! server's search for deadlocks, and done again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sagamore_participant::{Command, Effect, Fault, Participant, Payload};
use sagamore_participant_postgres::tokio_postgres::types::ToSql;
use sagamore_participant_postgres::{PostgresStore, Tx};

use super::{ENTER, Entry};
use crate::injection::Injection;
use crate::inventory::{NAME, Product, Reservation, Restock, Shelf, read_wanted, to_release};

/// Units that come with the deliveries that a shelf needs after `$2` units are gone, as [`Shelf::restocked`] has it.
/// `$3` is a delivery, `$4` how many there may be.
const DELIVERIES: &str =
    "LEAST($4 - deliveries, GREATEST(0, (reorder_level - (on_hand - $2) + $3 - 1) / $3))";

const RELEASE: &str = "UPDATE shelves SET on_hand = on_hand + $2, reserved = reserved - $2
    WHERE product = $1 AND reserved >= $2";

/// The table, and what is on the shelves when they are first seen.
pub(super) fn tables(products: &[Product], restock: Restock) -> String {
    let mut text = "
        CREATE TABLE IF NOT EXISTS shelves (
            product       BIGINT PRIMARY KEY,
            opening       BIGINT NOT NULL,
            delivered     BIGINT NOT NULL,
            on_hand       BIGINT NOT NULL CHECK (on_hand >= 0),
            reserved      BIGINT NOT NULL DEFAULT 0 CHECK (reserved >= 0),
            reorder_level BIGINT NOT NULL,
            deliveries    BIGINT NOT NULL
        );"
    .to_owned();
    for product in products {
        let Shelf { opening, delivered, on_hand, reorder_level, deliveries, .. } =
            Shelf::opened(product, restock);
        let number = product.product;
        // Numbers only: nothing here has to be escaped.
        let _ = write!(
            text,
            "INSERT INTO shelves (product, opening, delivered, on_hand, reorder_level, deliveries)
             VALUES ({number}, {opening}, {delivered}, {on_hand}, {reorder_level}, {deliveries})
             ON CONFLICT DO NOTHING;"
        );
    }
    text
}

pub(super) struct Inventory {
    pub(super) injection: Injection,
    pub(super) restock: Restock,
}

impl Inventory {
    fn reserve(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        let wanted = match read_wanted(&self.injection, command) {
            Ok(wanted) => signed(&wanted)?,
            Err(refusal) => return Ok(refusal),
        };
        let (delivery, deliveries_max) = self.deliveries();
        let reserve = format!(
            "UPDATE shelves SET
                 on_hand = on_hand - $2 + {DELIVERIES} * $3,
                 reserved = reserved + $2,
                 delivered = delivered + {DELIVERIES} * $3,
                 deliveries = deliveries + {DELIVERIES}
             WHERE product = $1 AND on_hand >= $2"
        );
        let total = wanted.iter().map(|(_, units)| *units).sum();
        let lines: Vec<[&(dyn ToSql + Sync); 4]> = wanted
            .iter()
            .map(|(product, units)| [product as &(dyn ToSql + Sync), units, &delivery, &deliveries_max])
            .collect();
        let entry = Entry::of(NAME, command, total);
        let entry = entry.parameters();
        let done = tx.execute_all(&with_entry(&reserve, &lines, &entry))?;
        let Some(missing) = done.iter().position(|count| *count == 0) else {
            let units = u64::try_from(total)?;
            return Effect::done(&Reservation { reservation: crate::token("res", command), units });
        };
        let (product, _) = wanted[missing];
        let is_known = tx.query_opt("SELECT 1 FROM shelves WHERE product = $1", &[&product])?.is_some();
        Ok(Effect::refused(if is_known {
            format!("out-of-stock: product {product}")
        } else {
            format!("unknown-product: {product}")
        }))
    }

    /// Units of a delivery, which are more than none, and how many of them there may be.
    fn deliveries(&self) -> (i64, i64) {
        match i64::try_from(self.restock.units) {
            Ok(units) if units > 0 => (units, i64::from(self.restock.deliveries_max)),
            Ok(_) | Err(_) => (1, 0),
        }
    }
}

/// Puts back what this branch has reserved or holds.
fn release(tx: &mut Tx<'_>, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
    let (reserved, units) = to_release(command, done)?;
    let reserved = signed(&reserved)?;
    let lines: Vec<[&(dyn ToSql + Sync); 2]> =
        reserved.iter().map(|(product, units)| [product as &(dyn ToSql + Sync), units]).collect();
    let entry = Entry::of(NAME, command, -i64::try_from(units)?);
    let entry = entry.parameters();
    let done = tx.execute_all(&with_entry(RELEASE, &lines, &entry))?;
    match done.iter().position(|count| *count == 0) {
        None => Ok(()),
        Some(line) => {
            let (product, units) = reserved[line];
            Err(Fault::new(format!("product {product}: {units} units were never reserved")))
        }
    }
}

/// A statement and its parameters, as a local transaction takes them.
type Line<'l> = (&'l str, &'l [&'l (dyn ToSql + Sync)]);

/// The same statement for each line, and the row of `effects` behind them.
fn with_entry<'l, const N: usize>(
    statement: &'l str,
    lines: &'l [[&'l (dyn ToSql + Sync); N]],
    entry: &'l [&'l (dyn ToSql + Sync); 7],
) -> Vec<Line<'l>> {
    let lines = lines.iter().map(|line| (statement, line.as_slice()));
    lines.chain([(ENTER, entry.as_slice())]).collect()
}

fn signed(units: &BTreeMap<u32, u64>) -> Result<Vec<(i64, i64)>, Fault> {
    units.iter().map(|(product, units)| Ok((i64::from(*product), i64::try_from(*units)?))).collect()
}

impl Participant for Inventory {
    type Store = PostgresStore;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        self.reserve(tx, command)
    }

    fn compensate(&self, tx: &mut Tx<'_>, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        release(tx, command, done)
    }

    fn prepare(&self, tx: &mut Tx<'_>, command: &Command<'_>) -> Result<Effect, Fault> {
        self.reserve(tx, command)
    }

    fn commit(&self, tx: &mut Tx<'_>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        tx.execute(ENTER, &Entry::of(NAME, command, 0).parameters())?;
        Ok(())
    }

    fn abort(&self, tx: &mut Tx<'_>, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        release(tx, command, done)
    }
}
