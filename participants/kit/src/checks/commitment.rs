//! `prepare`, `precommit`, `commit` and `abort`, in every order.

use sagamore_schemas::wire::Operation::{Abort, Commit, Precommit, Prepare};

use crate::bench::{Bench, Forward};
use crate::branch::Effects;
use crate::error::Stop;

pub(super) fn commit(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/commit");
    branch.mark()?;
    branch.ask_ok(Prepare)?;
    branch.ask_ok(Commit)?;
    branch.expect(Forward::Commit, Effects::Once)
}

pub(super) fn duplicates(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/duplicates");
    branch.mark()?;
    let vote = branch.ask_ok(Prepare)?;
    branch.ask_the_same(Prepare, &vote)?;
    let committed = branch.ask_ok(Commit)?;
    branch.expect(Forward::Commit, Effects::Once)?;
    branch.ask_the_same(Commit, &committed)?;
    branch.send_again(Commit)?;
    let again = branch.hear(Commit)?;
    branch.is_the_same(Commit, &committed, &again)?;
    branch.ask_the_same(Prepare, &vote)?;
    branch.expect(Forward::Commit, Effects::Once)
}

pub(super) fn abort(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/abort");
    branch.mark()?;
    branch.ask_ok(Prepare)?;
    let aborted = branch.ask_ok(Abort)?;
    branch.expect_unchanged()?;
    branch.ask_the_same(Abort, &aborted)?;
    branch.expect_unchanged()
}

pub(super) fn abort_first(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/abort-first");
    branch.mark()?;
    branch.ask_ok(Abort)?;
    branch.ask_refused(Prepare, None)?;
    branch.ask_ok(Abort)?;
    branch.expect_unchanged()
}

pub(super) fn unprepared(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/unprepared");
    branch.mark()?;
    branch.ask_refused(Commit, None)?;
    branch.expect_unchanged()
}

pub(super) fn refused(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/refused");
    branch.mark()?;
    branch.with_input("with --refused", branch.refused_input());
    let vote = branch.ask_refused(Prepare, None)?;
    branch.with_input("with --input", branch.good_input());
    branch.ask_the_same(Prepare, &vote)?;
    branch.ask_ok(Abort)?;
    branch.expect_unchanged()
}

pub(super) fn precommit(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/precommit");
    branch.mark()?;
    branch.ask_ok(Prepare)?;
    let precommitted = branch.ask_ok(Precommit)?;
    branch.ask_the_same(Precommit, &precommitted)?;
    branch.ask_ok(Commit)?;
    branch.expect(Forward::Commit, Effects::Once)
}

pub(super) fn precommit_unprepared(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("commitment/precommit-unprepared");
    branch.mark()?;
    branch.ask_refused(Precommit, None)?;
    branch.expect_unchanged()
}
