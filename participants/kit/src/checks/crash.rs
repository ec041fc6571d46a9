//! `kill -9`, and what the next process still knows.
//!
//! ```text
//!   answered:   done, refused, cancelled, voted ──┐
//!   asked:      more and more, one a millisecond ─┤ kill, while some are under way
//!                                                 ▼
//!   restart ──▶ the rest is answered by itself ──▶ all is asked again ──▶ effects, votes, undoing
//! ```

use std::thread;
use std::time::{Duration, Instant};

use sagamore_schemas::wire::{Answer, Operation};

use super::{Findings, doubt};
use crate::bench::{Bench, Forward};
use crate::branch::{Branch, Effects};
use crate::error::{Broken, Stop};
use crate::inbox::Answered;
use crate::observe::Seen;

/// Commands under way at a kill, for each key.
const EACH: usize = 4;
/// Between two of them: shorter than an answer takes, so that several are under way at any time.
const PACE: Duration = Duration::from_millis(1);

pub(super) fn all(bench: &Bench<'_>, findings: &mut Findings) -> Result<(), Stop> {
    let mut random = fastrand::Rng::with_seed(bench.settings.seed);
    let mut tally = Tally::default();
    for turn in 0..bench.settings.kills {
        let killed = kill_once(bench, &mut random, turn, &mut tally);
        // What was no row's own business is that of what has been answered.
        tally.is_down |= matches!(killed, Err(Stop::Broken(_)));
        tally.keep("crash/answers", killed)?;
        if tally.is_down {
            break;
        }
    }
    tally.tell(bench, findings)
}

/// What came of all kills; the first broken promise of each row.
#[derive(Default)]
struct Tally {
    /// Asked before a kill, and not answered then.
    unanswered: usize,
    asked: usize,
    /// The next process does not answer: no use in going on.
    is_down: bool,
    broken: Vec<(&'static str, Stop)>,
}

impl Tally {
    /// Keeps a broken promise; whatever ends the run is passed on.
    fn keep(&mut self, row: &'static str, came: Result<(), Stop>) -> Result<(), Stop> {
        match came {
            Ok(()) => Ok(()),
            Err(stop @ (Stop::Broken(_) | Stop::Skipped(_))) => {
                self.broken.push((row, stop));
                Ok(())
            }
            Err(end) => Err(end),
        }
    }

    fn tell(mut self, bench: &Bench<'_>, findings: &mut Findings) -> Result<(), Stop> {
        let (kills, asked, unanswered) = (bench.settings.kills, self.asked, self.unanswered);
        for row in super::KILLS.rows {
            let place = self.broken.iter().position(|(of, _)| of == row);
            let came = match place {
                Some(place) => Err(self.broken.swap_remove(place).1),
                None if self.is_down => {
                    Err(Stop::Skipped("it did not answer as before after a kill".to_owned()))
                }
                None if *row == "crash/redelivered" && unanswered == 0 => Err(Stop::Skipped(format!(
                    "all {asked} commands were answered before it was killed: give more --kills or --keys"
                ))),
                None if matches!(*row, "crash/redelivered" | "crash/once") => {
                    Ok(Some(format!("{kills} kills, {unanswered} of {asked} commands unanswered then")))
                }
                None => Ok(None),
            };
            findings.note(row, came)?;
        }
        Ok(())
    }
}

fn kill_once(
    bench: &Bench<'_>,
    random: &mut fastrand::Rng,
    turn: u32,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let mut known = Known::prepare(bench)?;
    let mut flight = Flight::begin(bench)?;
    let unanswered = flight.send_until_killed(bench, random, turn)?;
    tally.asked += flight.branches.len();
    tally.unanswered += unanswered;
    known.was_killed(bench);
    bench.start()?;
    if let Err(stop) = known.wake(bench) {
        let stop = match stop {
            Stop::Ended(status) => {
                known.done.broken("it starts again and answers", &format!("its process has ended ({status})"))
            }
            stop => stop,
        };
        tally.is_down = true;
        return tally.keep("crash/answers", Err(stop));
    }
    tally.keep("crash/redelivered", flight.wait(bench))?;
    tally.keep("crash/answers", flight.look_at_the_answered(bench))?;
    tally.keep("crash/once", flight.look(bench))?;
    known.look(bench, tally, turn == 0)?;
    let undone = flight.undo(bench);
    tally.keep(if bench.settings.protocols.saga { "crash/undo" } else { "crash/vote" }, undone)
}

/// What has been answered before the kill.
struct Known<'b, 's> {
    done: Branch<'b, 's>,
    answer: Answered,
    cancelled: Branch<'b, 's>,
    refused: Option<(Branch<'b, 's>, Answered)>,
    undone: Option<Branch<'b, 's>>,
    votes: Option<[Branch<'b, 's>; 3]>,
    /// What had come about the vote that is left alone when the process was killed: it may have asked before.
    heard_of_left: usize,
}

impl<'b, 's> Known<'b, 's> {
    fn prepare(bench: &'b Bench<'s>) -> Result<Self, Stop> {
        let (forward, protocols) = (bench.forward(), bench.settings.protocols);
        let branch = || strict(bench.branch("crash/known"));
        let mut done = branch();
        done.mark()?;
        let answer = done.ask_ok(forward.first())?;
        if forward == Forward::Commit {
            done.ask_ok(Operation::Commit)?;
        }
        let mut cancelled = branch();
        cancelled.mark()?;
        cancelled.ask(forward.undo())?;
        let mut refused = None;
        if bench.settings.refused.is_some() {
            let mut branch = branch();
            branch.with_input("with --refused", branch.refused_input());
            let answer = branch.ask_refused(forward.first(), None)?;
            refused = Some((branch, answer));
        }
        let mut undone = None;
        if protocols.saga {
            let mut branch = branch();
            branch.mark()?;
            branch.ask_ok(Operation::Execute)?;
            undone = Some(branch);
        }
        let mut votes = None;
        if protocols.two_phase {
            let mut branches = [branch(), branch(), branch()];
            for branch in &mut branches {
                branch.mark()?;
                branch.ask_ok(Operation::Prepare)?;
            }
            votes = Some(branches);
        }
        Ok(Self { done, answer, cancelled, refused, undone, votes, heard_of_left: 0 })
    }

    fn was_killed(&mut self, bench: &Bench<'_>) {
        if let Some([.., left]) = &self.votes {
            self.heard_of_left = bench.inbox.look(|shelf| shelf.of(&left.subject).len());
        }
    }

    /// Asks what has been answered, until there is an answer.
    fn wake(&mut self, bench: &Bench<'_>) -> Result<(), Stop> {
        self.done.say("kill -9, start");
        let (answered, _) = self.done.ask_within(bench.forward().first(), bench.settings.start_timeout)?;
        // Judged later, with the rest.
        self.done.say(format!("answered {}", answered.told()));
        Ok(())
    }

    fn look(&mut self, bench: &Bench<'_>, tally: &mut Tally, waits_for_inquiry: bool) -> Result<(), Stop> {
        let forward = bench.forward();
        let done = &mut self.done;
        let same = done.ask_the_same(forward.first(), &self.answer).and_then(|_| {
            // A vote that had been forgotten would be there again, and not committed.
            if forward == Forward::Commit {
                done.ask_ok(Operation::Commit)?;
            }
            done.expect(forward, Effects::Once)
        });
        tally.keep("crash/answers", same)?;
        self.cancelled.say("kill -9, start");
        let cancelled = self.cancelled.ask_refused(forward.first(), None);
        tally.keep("crash/cancelled", cancelled.and_then(|_| self.cancelled.expect_unchanged()))?;
        if let Some((branch, answer)) = &mut self.refused {
            branch.say("kill -9, start");
            branch.with_input("with --input", branch.good_input());
            tally.keep("crash/refused", branch.ask_the_same(forward.first(), answer).map(|_| ()))?;
        }
        if let Some(branch) = &mut self.undone {
            branch.say("kill -9, start");
            let undone = branch.ask_ok(Operation::Compensate).and_then(|_| branch.expect_unchanged());
            tally.keep("crash/undo", undone)?;
        }
        let Some([committed, aborted, left]) = &mut self.votes else { return Ok(()) };
        for branch in [&mut *committed, &mut *aborted, &mut *left] {
            branch.say("kill -9, start");
        }
        let committed = committed
            .ask_ok(Operation::Commit)
            .and_then(|_| committed.expect(Forward::Commit, Effects::Once));
        tally.keep("crash/vote", committed)?;
        let aborted = aborted.ask_ok(Operation::Abort).and_then(|_| aborted.expect_unchanged());
        tally.keep("crash/vote", aborted)?;
        // Once: it takes as long as a participant waits before it asks.
        if waits_for_inquiry {
            tally.keep("crash/asks", doubt::asks(bench, left, self.heard_of_left))?;
        }
        tally.keep("crash/vote", left.ask(Operation::Abort).map(|_| ()))
    }
}

/// Commands that are under way when it is killed.
struct Flight<'b, 's> {
    branches: Vec<(Branch<'b, 's>, Forward)>,
    /// What effects had come to, where all of them are seen together.
    before: Option<Seen>,
    killed_at: String,
    /// Of each branch, whether it had its answer then.
    was_answered: Vec<bool>,
}

impl<'b, 's> Flight<'b, 's> {
    fn begin(bench: &'b Bench<'s>) -> Result<Self, Stop> {
        let protocols = bench.settings.protocols;
        let is_per_transaction = bench.is_seen_per_transaction();
        let mut branches = Vec::new();
        for place in 0..bench.settings.keys.get() * EACH {
            let mut branch = strict(bench.branch("crash/flight"));
            if bench.settings.key.is_none() {
                branch.key = format!("crash.key-{}", place % bench.settings.keys);
            }
            if is_per_transaction {
                branch.mark()?;
            }
            let forward = if protocols.two_phase && (place % 2 == 1 || !protocols.saga) {
                Forward::Commit
            } else {
                Forward::Execute
            };
            branches.push((branch, forward));
        }
        let before = match branches.first() {
            Some((branch, _)) if !is_per_transaction => branch.see()?,
            _ => None,
        };
        Ok(Self { branches, before, killed_at: String::new(), was_answered: Vec::new() })
    }

    /// Sends one after the other, so that each stage of the work has something in it, and kills in between; how many had
    /// no answer then.
    fn send_until_killed(
        &mut self,
        bench: &Bench<'_>,
        random: &mut fastrand::Rng,
        turn: u32,
    ) -> Result<usize, Stop> {
        let sent = random.usize(self.branches.len() / 4..self.branches.len()) + 1;
        let moment = random.u64(..u64::try_from(2 * PACE.as_micros()).unwrap_or(1));
        self.branches.truncate(sent);
        for place in 0..sent {
            let (branch, forward) = &mut self.branches[place];
            branch.send(forward.first())?;
            thread::sleep(PACE);
            // Every other time some have their answers.
            if turn.is_multiple_of(2) && place == sent / 2 {
                self.wait_for_an_answer(bench)?;
            }
        }
        bench.pulse()?;
        thread::sleep(Duration::from_micros(moment));
        bench.kill();
        bench.desk.flush()?;
        for (branch, forward) in &self.branches {
            self.was_answered.push(branch.is_answered(forward.first()));
        }
        let unanswered = self.was_answered.iter().filter(|was_answered| !**was_answered).count();
        self.killed_at = format!("kill -9 with {unanswered} of {sent} unanswered, start");
        for (branch, _) in &mut self.branches {
            branch.say(self.killed_at.clone());
        }
        Ok(unanswered)
    }

    fn wait_for_an_answer(&self, bench: &Bench<'_>) -> Result<(), Stop> {
        let until = Instant::now() + bench.settings.answer_timeout;
        while self.answered() == 0 && Instant::now() < until {
            bench.pause(PACE)?;
        }
        Ok(())
    }

    fn answered(&self) -> usize {
        self.branches.iter().filter(|(branch, forward)| branch.is_answered(forward.first())).count()
    }

    /// Waits until the rest is answered without being asked again.
    fn wait(&self, bench: &Bench<'_>) -> Result<(), Stop> {
        let until = Instant::now() + bench.settings.answer_timeout;
        while self.answered() < self.branches.len() && Instant::now() < until {
            bench.pause(Duration::from_millis(20))?;
        }
        // A technical failure is an answer, too: the coordinator asks again.
        let lost = self.branches.iter().find(|(branch, forward)| branch.replies(forward.first()).is_empty());
        match lost {
            None => Ok(()),
            Some((branch, forward)) => {
                let count = self.branches.len() - self.answered();
                let came = format!("nothing for {count} commands");
                Err(branch
                    .broken(&format!("an answer to {} without another attempt", forward.first()), &came))
            }
        }
    }

    /// That what was answered is there, without being asked again.
    fn look_at_the_answered(&mut self, bench: &Bench<'_>) -> Result<(), Stop> {
        if !bench.is_seen_per_transaction() {
            return Ok(());
        }
        let answered =
            self.branches.iter_mut().zip(&self.was_answered).filter(|(_, was_answered)| **was_answered);
        let mut executed = answered.map(|(of, _)| of).filter(|(_, forward)| *forward == Forward::Execute);
        executed.try_for_each(|(branch, forward)| branch.expect(*forward, Effects::Once))
    }

    /// Asks for everything again: each has been done, and once.
    fn look(&mut self, bench: &Bench<'_>) -> Result<(), Stop> {
        let mut first_broken = Ok(());
        for (branch, forward) in &mut self.branches {
            branch.ask_ok(forward.first())?;
            if *forward == Forward::Commit {
                branch.ask_ok(Operation::Commit)?;
            }
            if let Err(changed) = contradiction(branch, forward.first())
                && first_broken.is_ok()
            {
                first_broken = Err(changed);
            }
        }
        first_broken?;
        if bench.is_seen_per_transaction() {
            return self
                .branches
                .iter_mut()
                .try_for_each(|(branch, forward)| branch.expect(*forward, Effects::Once));
        }
        let (Some(before), Some((branch, _))) = (&self.before, self.branches.first()) else { return Ok(()) };
        let units: Option<Vec<i64>> = self.branches.iter().map(|(_, forward)| bench.unit(*forward)).collect();
        let (Some(now), Some(units)) = (branch.see()?, units) else { return Ok(()) };
        let wanted: i64 = units.iter().sum();
        match now.since(before) {
            Some(change) if change != wanted => Err(Broken {
                sent: format!("{} commands, then {}", self.branches.len(), self.killed_at),
                expected: format!("the state has changed by {wanted}, from {}", before.told()),
                came: format!("the state is {}", now.told()),
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// Undoes what can be undone: what was done twice is still there afterwards, also where texts are compared.
    fn undo(&mut self, bench: &Bench<'_>) -> Result<(), Stop> {
        for (branch, _) in self.branches.iter_mut().filter(|(_, forward)| *forward == Forward::Execute) {
            branch.ask_ok(Operation::Compensate)?;
            if bench.is_seen_per_transaction() {
                branch.expect_unchanged()?;
            }
        }
        Ok(())
    }
}

/// After a kill commands come again by themselves: only an answer to the present attempt says that all before it are done.
fn strict<'b, 's>(mut branch: Branch<'b, 's>) -> Branch<'b, 's> {
    branch.is_strict = true;
    branch
}

/// That no two answers to it differ.
fn contradiction(branch: &Branch<'_, '_>, operation: Operation) -> Result<(), Stop> {
    let replies = branch.replies(operation);
    let mut answers = replies.iter().filter(|reply| matches!(reply.outcome, Answer::Ok | Answer::Refused));
    let Some(first) = answers.next() else { return Ok(()) };
    answers.try_for_each(|answer| branch.is_the_same(operation, first, answer))
}
