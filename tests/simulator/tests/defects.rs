//! Each planted defect is found, and found soon.

use std::sync::atomic::{AtomicUsize, Ordering};

use sagamore_simulator::defects::ALL;
use sagamore_simulator::{report, run};

/// Seeds that a defect may hide from.
const SEEDS_MAX: u64 = 2_000;

#[test]
fn each_planted_defect_is_found() {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let hidden = std::thread::scope(|scope| {
        let hunt = || {
            let mut hidden = Vec::new();
            while let Some((name, defect, text, _)) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = run::hunt(*defect, SEEDS_MAX, 10);
                println!("{}", report::hunted(name, text, found.as_ref()));
                if found.is_none() {
                    hidden.push(*name);
                }
            }
            hidden
        };
        let hunters: Vec<_> = (0..threads).map(|_| scope.spawn(hunt)).collect();
        hunters
            .into_iter()
            .flat_map(|hunter| hunter.join().unwrap_or(vec!["a hunter died"]))
            .collect::<Vec<_>>()
    });
    assert!(hidden.is_empty(), "{SEEDS_MAX} seeds do not show {hidden:?}");
    assert!(ALL.len() >= 15);
}

/// The same seed tells the same story.
#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in [1, 7, 42] {
        let plan = sagamore_simulator::world::Plan { seed, transactions: 10, ..Default::default() };
        let (_, once) = run::run_with(&plan, None, Some(Vec::new()));
        let (_, again) = run::run_with(&plan, None, Some(Vec::new()));
        assert!(once == again && !once.is_empty(), "seed {seed} differs from itself");
    }
}
