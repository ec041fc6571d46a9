//! The books of an example, read from its database: what stands from the business's own tables, what was taken and
//! given back from the rows that each operation left.

use sagamore_participant::Fault;
use sagamore_participant::store::{LocalTransaction as _, Store as _};
use sagamore_participant_postgres::PostgresStore;

use crate::books::{Books, Stock, Totals};
use crate::run::Kind;
use crate::shipping::CAPACITY_PARCELS;
use crate::{bank, inventory, payment, replica, shipping};

const SHELVES: &str = "SELECT coalesce(sum(opening), 0)::bigint, coalesce(sum(delivered), 0)::bigint,
    coalesce(sum(reserved), 0)::bigint, coalesce(sum(on_hand), 0)::bigint FROM shelves";
const CUSTOMERS: &str = "SELECT coalesce(sum(limit_cents), 0)::bigint, 0::bigint,
    coalesce(sum(charged_cents), 0)::bigint, coalesce(sum(limit_cents - charged_cents), 0)::bigint FROM customers";
const PARCELS: &str =
    "SELECT $CAPACITY::bigint, 0::bigint, count(*), $CAPACITY::bigint - count(*) FROM parcels";
/// What a branch has posted comes in when it is above zero, and is gone when below.
const ACCOUNTS: &str = "
    SELECT (SELECT coalesce(sum(opening_cents), 0)::bigint FROM accounts),
        coalesce(sum(net) FILTER (WHERE net > 0), 0)::bigint,
        coalesce(-sum(net) FILTER (WHERE net < 0), 0)::bigint
            + (SELECT coalesce(sum(held_cents), 0)::bigint FROM accounts),
        (SELECT coalesce(sum(balance_cents - held_cents), 0)::bigint FROM accounts)
    FROM (SELECT sum(cents) AS net FROM postings GROUP BY subject, birth, step, branch) AS branches";

/// Taken, given back, effects, undone, twice.
const EFFECTS: &str = "
    SELECT coalesce(sum(amount) FILTER (WHERE amount > 0), 0)::bigint,
        coalesce(-sum(amount) FILTER (WHERE amount < 0), 0)::bigint,
        count(*) FILTER (WHERE operation IN ('execute', 'commit')),
        count(*) FILTER (WHERE operation = 'compensate'),
        count(*) - count(DISTINCT (subject, birth, step, branch, operation))
    FROM effects WHERE participant = '$PARTICIPANT'";
/// A key keeps postings from being written twice. What is held was taken, and has no posting yet.
const POSTINGS: &str = "
    SELECT coalesce(-sum(cents) FILTER (WHERE cents < 0 AND operation <> 'compensate'), 0)::bigint
            + (SELECT coalesce(sum(held_cents), 0)::bigint FROM accounts),
        coalesce(sum(cents) FILTER (WHERE cents > 0 AND operation = 'compensate'), 0)::bigint,
        count(*) FILTER (WHERE operation <> 'compensate'),
        count(*) FILTER (WHERE operation = 'compensate'),
        0::bigint
    FROM postings";

/// What a replica has, it was given.
const CHANGES: &str = "SELECT 0::bigint, coalesce(sum(version), 0)::bigint, 0::bigint,
    coalesce(sum(version), 0)::bigint FROM replica_rows";
const NOTHING_TAKEN: &str =
    "SELECT 0::bigint, 0::bigint, coalesce(sum(version), 0)::bigint, 0::bigint, 0::bigint FROM replica_rows";

pub(crate) fn books(kind: Kind, store: &PostgresStore) -> Result<Books, Fault> {
    let (participant, unit, stock, totals) = match kind {
        Kind::Inventory => (inventory::NAME, "units", SHELVES, EFFECTS),
        Kind::Payment => (payment::NAME, "cents", CUSTOMERS, EFFECTS),
        Kind::Shipping => (shipping::NAME, "parcels", PARCELS, EFFECTS),
        Kind::Bank => (bank::NAME, "cents", ACCOUNTS, POSTINGS),
        Kind::Replica => (replica::NAME, "changes", CHANGES, NOTHING_TAKEN),
    };
    // One statement, so one moment: other instances go on meanwhile.
    let both = format!("SELECT * FROM ({stock}) AS stock CROSS JOIN ({totals}) AS totals")
        .replace("$CAPACITY", &CAPACITY_PARCELS.to_string())
        .replace("$PARTICIPANT", participant);
    let mut session = store.session()?;
    let mut tx = store.begin(&mut session)?;
    let row = tx.business().query_one(&both, &[])?;
    let number = |n: usize| u64::try_from(row.get::<_, i64>(n));
    let stock = Stock { opening: number(0)?, added: number(1)?, standing: number(2)?, closing: number(3)? };
    let totals = Totals {
        taken: number(4)?,
        returned: number(5)?,
        effects: number(6)?,
        undone: number(7)?,
        duplicates: number(8)?,
        unwatched: 0,
    };
    Ok(totals.with(participant, unit, stock))
}
