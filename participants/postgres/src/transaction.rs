//! The library's view of an open local transaction.

use std::collections::HashMap;
use std::sync::PoisonError;

use sagamore_participant::barrier::{Branch, BranchKey, Home, Row, Stored};
use sagamore_participant::doubt::Vote;
use sagamore_participant::heuristic::Heuristic;
use sagamore_participant::store::{LocalTransaction, StoreFault};
use sagamore_participant::{Operation, Payload, barrier};
use sagamore_schemas::ids::Time;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::connection::{Connection, SqlError};
use crate::heuristics;
use crate::purge::{Horizon, tidy};
use crate::rows::{self, Key};
use crate::store::Inner;
use crate::tx::Tx;
use crate::xa::{self, Ended, Intention};

/// An open local transaction. What is not committed is rolled back when it is dropped.
pub struct PostgresTransaction<'t> {
    store: &'t Inner,
    tx: Tx<'t>,
    side: Option<&'t mut Connection>,
    known: HashMap<Branch, Known>,
    /// Branches written to since the last savepoint: after a rollback they are looked at again.
    touched: Vec<Branch>,
    horizons: HashMap<Home, Horizon>,
    inserted: HashMap<Home, usize>,
    /// Goes with the row of its `prepare`.
    vote: Option<Vote>,
    /// This local transaction is one, and ends with `PREPARE TRANSACTION`.
    voting: Option<String>,
    is_over: bool,
}

/// What is remembered of a branch.
struct Known {
    rows: Vec<Row>,
    /// How many of them stood there when it was looked at.
    found: usize,
    /// With XA: its vote is a prepared transaction.
    intention: Option<Intention>,
}

impl<'t> PostgresTransaction<'t> {
    pub(crate) fn new(store: &'t Inner, tx: Tx<'t>, side: Option<&'t mut Connection>) -> Self {
        Self {
            store,
            tx,
            side,
            known: HashMap::new(),
            touched: Vec::new(),
            horizons: HashMap::new(),
            inserted: HashMap::new(),
            vote: None,
            voting: None,
            is_over: false,
        }
    }

    /// Looks at branches: first whether they are prepared, then at their rows.
    fn look(&mut self, keys: &[BranchKey<'_>]) -> Result<(), StoreFault> {
        let mut intentions = HashMap::new();
        if let Some(side) = self.side.as_deref_mut() {
            for key in keys {
                if let Some(intention) = xa::intention(side, &self.store.statements, key)? {
                    intentions.insert(Branch::from(key), intention);
                }
            }
        }
        if !intentions.is_empty() {
            // What is prepared cannot give way. A serializable one that reads what it has written would fail for ever, and
            // with it the commit that ends it.
            self.tx.relax(&self.store.begin);
        }
        let fetched = rows::fetch(&mut self.tx, &self.store.statements, keys)?;
        for (home, stored) in fetched.horizons {
            let horizon = self.horizons.entry(home).or_insert(Horizon { stored, raised: stored });
            horizon.stored = stored;
            horizon.raised = horizon.raised.max(stored);
        }
        for (branch, mut rows) in fetched.rows {
            let found = rows.len();
            let is_visible = rows.iter().any(|row| row.operation == Operation::Prepare);
            // Visible: it was committed after we had asked for the gid.
            let intention = intentions.remove(&branch).filter(|_| !is_visible);
            rows.extend(intention.as_ref().map(Intention::row));
            self.known.insert(branch, Known { rows, found, intention });
        }
        if self.side.is_some() {
            for key in keys {
                self.finish_commit(key)?;
            }
        }
        Ok(())
    }

    /// The row of a `commit` whose process died after `COMMIT PREPARED`.
    fn finish_commit(&mut self, key: &BranchKey<'_>) -> Result<(), StoreFault> {
        let branch = Branch::from(key);
        let Some(known) = self.known.get(&branch) else { return Ok(()) };
        if known.intention.is_some() || !barrier::in_doubt(&known.rows) || self.stored_vote(key)?.is_some() {
            return Ok(());
        }
        let issued = self.known.get(&branch).and_then(|known| known.rows.first()).map(|row| row.issued);
        let by_hand = heuristics::of_branch(&mut self.tx, &self.store.statements, &Key::of(key))?
            .is_some_and(|known| known.operation == Operation::Commit);
        let row = Row {
            operation: Operation::Commit,
            issued: issued.unwrap_or_default(),
            answer: if by_hand { Stored::ByHand } else { Stored::Done(Payload::Absent) },
        };
        self.write(key, row, false)
    }

    fn stored_vote(&mut self, key: &BranchKey<'_>) -> Result<Option<Vote>, StoreFault> {
        let found = self.tx.look(&self.store.statements.vote, &Key::of(key).parameters());
        let found = found.map_err(|error| error.fault())?;
        Ok(found.first().map(|row| Vote::from_bytes(row.get(0))))
    }

    /// Writes a row and what goes with it; the vote of a branch in doubt goes with the row that decides.
    fn write(&mut self, key: &BranchKey<'_>, row: Row, decides_vote: bool) -> Result<(), StoreFault> {
        let statements = &self.store.statements;
        let branch = Branch::from(key);
        let found = self.known.get(&branch).map_or(0, |known| known.found);
        let columns = Key::of(key);
        let of_key = columns.parameters();
        let vote = self.vote.take_if(|_| row.operation == Operation::Prepare);
        let command = vote.as_ref().map(Vote::as_bytes).unwrap_or_default();
        let of_vote = columns.and(&[&command]);
        let ends = matches!(row.operation, Operation::Commit | Operation::Abort);
        let mut more: Vec<(&str, &[&(dyn ToSql + Sync)], Option<u64>)> = Vec::new();
        if vote.is_some() && self.side.is_none() {
            more.push((&statements.keep_vote, &of_vote, None));
        }
        if ends {
            // Who commits and who aborts meet here: one of them finds no vote any more.
            more.push((&statements.delete_vote, &of_key, decides_vote.then_some(1)));
            if self.side.is_some() {
                more.push((&statements.forget, &of_key, None));
                if !matches!(row.answer, Stored::ByHand) {
                    // What an operator had decided could not be carried out, and this was quicker.
                    more.push((&statements.heuristics.forget, &of_key, None));
                }
            }
        }
        if found > 0 {
            more.push((&statements.hold, &of_key, Some(found as u64)));
        }
        if more.is_empty() && vote.is_none() && row.operation == Operation::Execute && self.tx.may_defer() {
            // The usual case: no round trip of its own.
            rows::defer(&mut self.tx, statements, key, &row).map_err(|error| conflict(&error))?;
            self.count(key, row);
            return Ok(());
        }
        let with: Vec<_> = more.iter().map(|(text, parameters, _)| (*text, *parameters)).collect();
        self.touched.push(branch.clone());
        let written = rows::insert(&mut self.tx, statements, &columns, &row, &with)
            .map_err(|error| conflict(&error))?;
        let expected = std::iter::once(Some(1)).chain(more.iter().map(|(_, _, expected)| *expected));
        if written
            .iter()
            .zip(expected)
            .any(|(written, expected)| expected.is_some_and(|least| *written < least))
        {
            return Err(StoreFault::Conflict);
        }
        if let (Some(side), Some(vote), Stored::Done(result)) = (self.side.as_deref_mut(), vote, &row.answer)
        {
            // Nobody else can be here: the row is ours, or the gid would be on the server.
            let intention = Intention {
                gid: xa::gid(&self.store.options.gid_prefix, key),
                issued: row.issued,
                vote,
                result: result.clone(),
            };
            xa::intend(side, statements, &columns, &intention).map_err(|error| error.fault())?;
            self.voting = Some(intention.gid);
        }
        self.count(key, row);
        Ok(())
    }

    fn count(&mut self, key: &BranchKey<'_>, row: Row) {
        *self.inserted.entry(key.home()).or_default() += 1;
        if let Some(known) = self.known.get_mut(&Branch::from(key)) {
            known.rows.push(row);
        }
    }

    /// Ends the prepared transaction of a branch, before the row that says so.
    fn end_prepared(&mut self, key: &BranchKey<'_>, row: &Row) -> Result<(), StoreFault> {
        let branch = Branch::from(key);
        let Some(known) = self.known.get_mut(&branch) else { return Ok(()) };
        let Some(intention) = &known.intention else { return Ok(()) };
        let Some(side) = self.side.as_deref_mut() else { return Ok(()) };
        // Whatever comes of it, what is known is known no more.
        self.touched.push(branch.clone());
        if xa::end(side, &intention.gid, row.operation)? == Ended::Unknown {
            return Err(StoreFault::Conflict);
        }
        let vote = intention.row();
        known.intention = None;
        if row.operation == Operation::Abort {
            // What was visible to nobody. From here on a late `prepare` finds it.
            known.rows.retain(|row| row.operation != Operation::Prepare);
            self.write(key, vote, false)?;
        }
        Ok(())
    }

    /// Raises horizons and purges, where it is time.
    fn tidy(&mut self) -> Result<(), SqlError> {
        let mut places = self.store.places.lock().unwrap_or_else(PoisonError::into_inner);
        for (home, inserted) in &self.inserted {
            places.entry(*home).or_default().count(*inserted);
        }
        let due: Vec<(Home, Horizon)> = self
            .horizons
            .iter()
            .filter(|(home, horizon)| {
                horizon.is_far_ahead() || places.get(home).is_some_and(crate::purge::Place::is_due)
            })
            .map(|(home, horizon)| (*home, *horizon))
            .collect();
        for (home, horizon) in due {
            // Others do not wait for our purging; they find nothing due.
            let mut place = places.remove(&home).unwrap_or_default();
            drop(places);
            let done = tidy(
                &mut self.tx,
                &self.store.statements,
                &self.store.options.schema,
                home,
                horizon,
                &mut place,
            );
            places = self.store.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.insert(home, place);
            done?;
        }
        Ok(())
    }
}

impl<'t> LocalTransaction for PostgresTransaction<'t> {
    type Business = Tx<'t>;

    fn foresee(&mut self, keys: &[BranchKey<'_>]) -> Result<(), StoreFault> {
        let mut unknown: Vec<BranchKey<'_>> = Vec::new();
        for key in keys {
            if !self.known.contains_key(&Branch::from(key)) && !unknown.contains(key) {
                unknown.push(*key);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        self.look(&unknown)
    }

    fn horizon(&mut self, home: Home, watermark: Time) -> Result<Time, StoreFault> {
        if !self.horizons.contains_key(&home) {
            let stored = rows::horizon(&mut self.tx, &self.store.statements, home)?;
            self.horizons.insert(home, Horizon { stored, raised: stored });
        }
        let horizon = self.horizons.entry(home).or_insert(Horizon { stored: watermark, raised: watermark });
        horizon.raised = horizon.raised.max(watermark);
        Ok(horizon.raised)
    }

    fn rows(&mut self, key: &BranchKey<'_>) -> Result<&[Row], StoreFault> {
        self.foresee(&[*key])?;
        Ok(self.known.get(&Branch::from(key)).map(|known| known.rows.as_slice()).unwrap_or_default())
    }

    fn business(&mut self) -> &mut Tx<'t> {
        &mut self.tx
    }

    fn insert(&mut self, key: &BranchKey<'_>, row: Row) -> Result<(), StoreFault> {
        if self.voting.is_some() {
            return Err(StoreFault::Unavailable("a vote has a local transaction of its own".into()));
        }
        self.foresee(&[*key])?;
        let known = self.known.get(&Branch::from(key));
        let rows = known.map(|known| known.rows.as_slice()).unwrap_or_default();
        if rows.iter().any(|known| known.operation == row.operation) {
            self.touched.push(Branch::from(key));
            return Err(StoreFault::Conflict);
        }
        let ends = matches!(row.operation, Operation::Commit | Operation::Abort);
        let is_prepared = known.is_some_and(|known| known.intention.is_some());
        let found = known.map_or(0, |known| known.found);
        let decides_vote = ends && !is_prepared && barrier::in_doubt(&rows[..found]);
        if ends {
            self.end_prepared(key, &row)?;
        }
        self.write(key, row, decides_vote)
    }

    fn keep_vote(&mut self, _: &BranchKey<'_>, vote: Vote) -> Result<(), StoreFault> {
        self.vote = Some(vote);
        Ok(())
    }

    fn vote(&mut self, key: &BranchKey<'_>) -> Result<Option<Vote>, StoreFault> {
        self.foresee(&[*key])?;
        let known = self.known.get(&Branch::from(key));
        if let Some(intention) = known.and_then(|known| known.intention.as_ref()) {
            return Ok(Some(intention.vote.clone()));
        }
        self.stored_vote(key)
    }

    fn heuristic(&mut self, key: &BranchKey<'_>) -> Result<Option<Heuristic>, StoreFault> {
        heuristics::of_branch(&mut self.tx, &self.store.statements, &Key::of(key))
    }

    fn keep_heuristic(&mut self, key: &BranchKey<'_>, heuristic: &Heuristic) -> Result<(), StoreFault> {
        let is_prepared = self.known.get(&Branch::from(key)).is_some_and(|known| known.intention.is_some());
        match self.side.as_deref_mut().filter(|_| is_prepared) {
            Some(side) => heuristics::intend(side, &self.store.statements, &Key::of(key), heuristic),
            None => heuristics::keep(&mut self.tx, &self.store.statements, &Key::of(key), heuristic),
        }
    }

    fn savepoint(&mut self) -> Result<(), StoreFault> {
        self.touched.clear();
        self.tx.savepoint();
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), StoreFault> {
        for branch in self.touched.drain(..) {
            self.known.remove(&branch);
        }
        self.vote = None;
        self.voting = None;
        if self.tx.is_hopeless {
            return Err(StoreFault::Conflict);
        }
        self.tx.roll_back();
        Ok(())
    }

    fn commit(mut self) -> Result<(), StoreFault> {
        if !self.tx.has_begun {
            // Nothing was asked.
            self.is_over = true;
            return Ok(());
        }
        let ended = match self.voting.take() {
            Some(gid) => self.tx.finish(&format!("PREPARE TRANSACTION '{gid}'")),
            None => self.tidy().and_then(|()| self.tx.finish("COMMIT")),
        };
        self.is_over = ended.is_ok();
        ended.map_err(|error| conflict(&error))
    }
}

impl Drop for PostgresTransaction<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.tx.has_begun {
            // If it does not arrive, the connection is lost, and the server rolls back by itself.
            let _ = self.tx.connection.batch("ROLLBACK");
        }
    }
}

/// Why a row could not be written: somebody else's stands in its way, for longer than we wait, or anything else.
fn conflict(error: &SqlError) -> StoreFault {
    match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::UNIQUE_VIOLATION => {
            StoreFault::Conflict
        }
        _ => error.fault(),
    }
}
