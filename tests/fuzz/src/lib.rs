//! Whatever parses, fed with what nobody would send.
//!
//! ```text
//! corpus/<target>/*  ──┐                                 ┌─ holds: the next
//! golden inboxes     ──┼─▶ mutate (bytes, JSON values) ─▶ property
//! a seed             ──┘                                 └─ fails: shrunk, kept in corpus/<target>/found-*, told
//! ```
//! An ordinary `cargo test` replays the corpus and then mutates it for a fixed number of cases from a fixed seed.
//! `SAGAMORE_FUZZ_SECONDS` runs on for about that long in all, from a seed that is printed; `SAGAMORE_FUZZ_SEED` names
//! one. Shrinking and the source of chance are proptest's. bolero would do, too; without libFuzzer, which asks for a
//! nightly compiler, it makes bytes up instead of mutating a corpus.
//!
//! Deliberately absent: coverage feedback, for the same reason.

pub mod corpus;
pub mod mutate;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use corpus::Corpus;

/// Seed of ordinary runs: any would do, but it must be the same for everybody.
const SEED_DEFAULT: u64 = 20_261_122;
/// Longest run of one target without `SAGAMORE_FUZZ_SECONDS`: a slow machine does fewer cases.
const SHORT_RUN_MAX: Duration = Duration::from_secs(4);
/// A case that takes longer is told: it may be a way to keep a server busy.
const SLOW: Duration = Duration::from_secs(1);
/// Targets that run after each other when two cores share them: what `SAGAMORE_FUZZ_SECONDS` is divided by.
const TURNS: u32 = 6;

/// One thing that reads.
#[derive(Debug)]
pub struct Target {
    /// Its folder in the corpus.
    pub name: &'static str,
    /// Cases of an ordinary run.
    pub cases: u32,
}

impl Target {
    /// Replays the corpus, then mutates it. `property` panics when it does not hold.
    pub fn run(&self, property: impl Fn(&[u8])) {
        let corpus = Corpus::of(self.name);
        assert!(!corpus.seeds.is_empty(), "corpus/{} is empty: nothing to mutate", self.name);
        for (name, seed) in &corpus.seeds {
            println!("corpus/{}/{name}", self.name);
            property(seed);
        }
        let seeds: Vec<Vec<u8>> = corpus.seeds.iter().map(|(_, seed)| seed.clone()).collect();
        self.explore(mutate::mutated(seeds), |bytes| property(&bytes.0), |bytes| corpus.keep(&bytes.0));
    }

    /// The same for inputs of any kind. `keep` says where a finding now stands.
    pub fn explore<S: Strategy<Value: std::fmt::Debug>>(
        &self,
        strategy: S,
        property: impl Fn(&S::Value),
        keep: impl Fn(&S::Value) -> PathBuf,
    ) {
        let long = variable("SAGAMORE_FUZZ_SECONDS").map(|seconds| Duration::from_secs(seconds) / TURNS);
        let seed =
            variable("SAGAMORE_FUZZ_SEED").unwrap_or_else(|| long.map_or(SEED_DEFAULT, |_| any_seed()));
        let config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
        let mut runner =
            TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(seed)));
        let begun = Instant::now();
        let (most, until) = match long {
            Some(long) => (u64::MAX, long),
            None => (u64::from(self.cases), SHORT_RUN_MAX),
        };
        let mut cases = 0;
        while cases < most && begun.elapsed() < until {
            cases += 1;
            let tree = match strategy.new_tree(&mut runner) {
                Ok(tree) => tree,
                Err(reason) => panic!("{}: {reason}", self.name),
            };
            let tried = runner.run_one(tree, |value| {
                let since = Instant::now();
                property(&value);
                if since.elapsed() > SLOW {
                    println!("{}: {:.1} s for {value:?}", self.name, since.elapsed().as_secs_f64());
                }
                Ok(())
            });
            if let Err(TestError::Fail(cause, least)) = tried {
                let place = keep(&least);
                panic!(
                    "{}: {cause}\nkept in {}\nSAGAMORE_FUZZ_SEED={seed}, case {cases}: {least:?}",
                    self.name,
                    place.display()
                );
            }
        }
        println!("{}: {cases} cases from seed {seed} in {:.1} s", self.name, begun.elapsed().as_secs_f64());
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is expected")))
}

fn any_seed() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or_default()
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes
}

/// The top of the repository.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}
