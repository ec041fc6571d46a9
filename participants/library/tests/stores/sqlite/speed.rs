//! What a commit costs. Not part of the suite: run it with
//! `cargo test --release -p sagamore-participant --features sqlite --test stores -- --ignored --nocapture per_second`.

use std::time::{Duration, Instant};

use sagamore_participant::perform::Work;
use sagamore_participant::store::Store;

use crate::ask::{Ask, try_all};
use crate::bed::{Bed, Obedient};
use crate::beds::{Memory, Sqlite};

const MEASURED: Duration = Duration::from_secs(3);

#[test]
#[ignore = "it measures for half a minute"]
fn commands_per_second() {
    for per_commit in [1, 10, 100, 1_000] {
        measure::<Sqlite>("sqlite", per_commit);
        measure::<Memory>("memory", per_commit);
    }
}

fn measure<B: Bed>(name: &str, per_commit: usize) {
    let bed = B::default();
    let store = bed.open();
    let mut session = store.session().unwrap();
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < MEASURED {
        let asks: Vec<Ask> = (done..done + per_commit)
            .map(|turn| Ask::new(format!("order-{turn}"), "execute").born(turn))
            .collect();
        let answers = try_all(&Obedient::<B>::new(), &store, &mut session, &asks).unwrap();
        assert!(answers.iter().all(|answered| answered.work == Work::Effect));
        done += per_commit;
    }
    let per_second = done * 1_000 / usize::try_from(started.elapsed().as_millis()).unwrap();
    println!("{name}: {per_commit} per commit: {per_second} commands/s");
}
