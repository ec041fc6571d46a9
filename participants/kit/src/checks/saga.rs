//! `execute` and `compensate`, in every order.

use sagamore_schemas::wire::Operation::{Compensate, Execute};

use crate::bench::{Bench, Forward};
use crate::branch::Effects;
use crate::error::Stop;

pub(super) fn undo(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("saga/undo");
    branch.mark()?;
    branch.ask_ok(Execute)?;
    branch.expect(Forward::Execute, Effects::Once)?;
    branch.ask_ok(Compensate)?;
    branch.expect_unchanged()
}

pub(super) fn undo_once(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("saga/undo-once");
    branch.mark()?;
    let done = branch.ask_ok(Execute)?;
    let undone = branch.ask_ok(Compensate)?;
    branch.ask_the_same(Compensate, &undone)?;
    branch.ask_the_same(Execute, &done)?;
    branch.send_again(Compensate)?;
    let again = branch.hear(Compensate)?;
    branch.is_the_same(Compensate, &undone, &again)?;
    branch.expect_unchanged()
}

pub(super) fn empty(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("saga/empty");
    branch.mark()?;
    let first = branch.ask_ok(Compensate)?;
    branch.ask_the_same(Compensate, &first)?;
    branch.expect_unchanged()
}

pub(super) fn late(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("saga/late");
    branch.mark()?;
    branch.ask(Compensate)?;
    branch.ask_refused(Execute, None)?;
    branch.ask_refused(Execute, None)?;
    branch.ask(Compensate)?;
    // What an empty compensate may have broken is another row's business.
    branch.mark()?;
    branch.ask_refused(Execute, None)?;
    branch.expect_unchanged()
}

pub(super) fn refused(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("saga/refused");
    branch.mark()?;
    branch.with_input("with --refused", branch.refused_input());
    let first = branch.ask_refused(Execute, None)?;
    branch.ask_the_same(Execute, &first)?;
    branch.with_input("with --input", branch.good_input());
    branch.ask_the_same(Execute, &first)?;
    branch.expect_unchanged()
}

pub(super) fn refused_undo(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut branch = bench.branch("saga/refused-undo");
    branch.with_input("with --refused", branch.refused_input());
    branch.ask_refused(Execute, None)?;
    branch.mark()?;
    branch.ask_ok(Compensate)?;
    branch.expect_unchanged()
}
