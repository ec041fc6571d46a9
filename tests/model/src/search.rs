//! Runs a model through stateright, and turns what it finds into words.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Path};

use crate::{Missing, Protocol};

/// Threads of an exhaustive check: the machines that run it have two cores.
const THREADS: usize = 2;

/// What an exhaustive check has found.
#[derive(Debug)]
pub struct Report {
    /// The model.
    pub name: &'static str,
    /// States that were visited, each counted once.
    pub unique_states: usize,
    /// Actions on the longest way that was followed; it differs a little from run to run, with the threads.
    pub depth: usize,
    /// What it took.
    pub took: Duration,
    /// Whether every reachable state was visited.
    pub is_complete: bool,
    /// Properties that hold in every state.
    pub holds: Vec<&'static str>,
    /// Things that do happen in some state.
    pub happens: Vec<&'static str>,
    /// Broken properties, and things that ought to happen and never do, each with its story.
    pub failures: Vec<String>,
}

/// The shortest way in which a property breaks while one mechanism is switched off.
#[derive(Debug)]
pub struct Refutation {
    /// The model.
    pub name: &'static str,
    /// What is switched off.
    pub missing: Missing,
    /// States that were visited until then.
    pub unique_states: usize,
    /// Actions, and their story; `None`: the property holds without the mechanism.
    pub found: Option<(usize, String)>,
}

/// Visits every reachable state.
pub fn check<P: Protocol>(model: &P) -> Report {
    let begun = Instant::now();
    let checker = model.clone().checker().threads(THREADS).spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let mut report = Report {
        name: model.name(),
        unique_states: checker.unique_state_count(),
        depth: checker.max_depth() - 1,
        took: begun.elapsed(),
        is_complete: checker.is_done(),
        holds: Vec::new(),
        happens: Vec::new(),
        failures: Vec::new(),
    };
    for property in model.properties() {
        match (property.expectation, discoveries.remove(property.name)) {
            (Expectation::Always | Expectation::Eventually, None) => report.holds.push(property.name),
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                report.failures.push(story(model, property.name, path).1);
            }
            (Expectation::Sometimes, Some(_)) => report.happens.push(property.name),
            (Expectation::Sometimes, None) => {
                report.failures.push(format!("{}: \"{}\" never happens", model.name(), property.name));
            }
        }
    }
    report
}

/// Finds the shortest way in which the property breaks that the missing mechanism upholds.
///
/// stateright may go on for a while after a find, and then keeps a later and longer one. So what was found is sought
/// again below its own depth, until nothing shorter is there.
pub fn refute<P: Protocol>(model: &P) -> Option<Refutation> {
    let missing = model.without()?;
    let sought = HasDiscoveries::AnyOf(BTreeSet::from([missing.upholds]));
    let mut refutation = Refutation { name: model.name(), missing, unique_states: 0, found: None };
    let mut depth_max = usize::MAX;
    loop {
        let checker = model
            .clone()
            .checker()
            .finish_when(sought.clone())
            .target_max_depth(depth_max)
            .spawn_bfs()
            .join();
        refutation.unique_states = refutation.unique_states.max(checker.unique_state_count());
        let Some(path) = checker.discoveries().remove(missing.upholds) else { return Some(refutation) };
        let found = story(model, missing.upholds, path);
        // The first state is at depth 1, and states at the largest depth are not looked at.
        depth_max = found.0 + 1;
        refutation.found = Some(found);
    }
}

fn story<P: Protocol>(model: &P, property: &str, path: Path<P::State, P::Action>) -> (usize, String) {
    let steps = path.into_vec();
    let mut text = match model.without() {
        Some(missing) => format!("{}, without: {}\n\n", model.name(), missing.mechanism),
        None => format!("{}\n\n", model.name()),
    };
    let mut count = 0;
    for pair in steps.windows(2) {
        let [(before, Some(action)), (after, _)] = pair else { continue };
        count += 1;
        let _ = writeln!(text, "{count}. {}", model.tell(before, action, after));
    }
    if let Some((last, _)) = steps.last() {
        let _ = write!(text, "\nBroken: \"{property}\". {}\n", model.tell_end(last));
    }
    (count, text)
}
