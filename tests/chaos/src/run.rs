//! A run: start everything, let it go wrong, let it settle, judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rdkafka::message::Message;
use serde_json::{Value, json};

use crate::check::{self, Verdict};
use crate::client::{Client, notes_of};
use crate::evidence::{Evidence, text};
use crate::faults::{self, Scene, Tally};
use crate::notes::Notes;
use crate::schedule::{self, Density, Kind, Weights};
use crate::tail::{Isolation, Tail};
use crate::world::{PREFIX, World};

/// A run as long as this has every kind of fault, or is red.
const ALL_KINDS_FROM: Duration = Duration::from_mins(5);
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Stuck transactions are tried again that often while everything settles.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How long the last checkpoints may take after the last outcome.
const CHECKPOINTS_WITHIN: Duration = Duration::from_secs(20);
/// Longer than the pause between two checkpoints can become.
const CHECKPOINTS_EVERY: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(500);

/// An hour of faults on a real Kafka, and an independent check.
#[derive(Debug, Clone, Parser)]
#[command(name = "sagamore-chaos")]
pub struct Options {
    /// How long things go wrong.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// The same in seconds, instead.
    #[arg(long)]
    seconds: Option<u64>,
    /// What the schedule follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Transactions started in a second.
    #[arg(long, default_value_t = 25)]
    rate: u32,
    /// Only these faults, with commas between; each of them must happen.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// One fault follows the other sooner, so that a short run has many.
    #[arg(long)]
    dense: bool,
    /// How long everything may take to settle afterwards, in seconds.
    #[arg(long, default_value_t = 240)]
    settle: u64,
    /// Where the result is written, as JSON.
    #[arg(long)]
    summary: Option<PathBuf>,
    /// Where everything of the run is kept; a temporary folder otherwise, kept when the run is red.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What the outcomes topic says while it goes on.
#[derive(Default)]
struct Seen {
    ended: BTreeMap<String, u64>,
    subjects: BTreeSet<String>,
    stuck: BTreeSet<String>,
}

/// Runs it; whether it is green.
pub fn run(options: &Options) -> Result<bool, String> {
    let seed = options.seed;
    let length = Duration::from_secs(options.seconds.unwrap_or(options.minutes * 60));
    let kinds = if options.faults.is_empty() { Kind::ALL.to_vec() } else { options.faults.clone() };
    let folder = options.folder.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("sagamore-chaos-{seed}-{}", std::process::id()))
    });
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    println!("seed {seed}, {} s, everything is in {}", length.as_secs(), folder.display());
    let world = World::start(&folder, seed)?;
    for why in &world.skipped {
        println!("SKIPPED {why}");
    }
    let instance = world.instance().ok_or("no server tells the instance")?;
    let notes = Notes::create(&notes_of(&folder)).map_err(|error| error.to_string())?;
    let log = fs::File::create(folder.join("faults.txt")).map_err(|error| error.to_string())?;
    let scene = Arc::new(Scene {
        world,
        notes: Arc::new(notes),
        tally: Tally::default(),
        begun: Instant::now(),
        log: Mutex::new(log),
        instance,
    });
    let weights = if options.faults.is_empty() { Weights::AsUsual } else { Weights::Alike };
    let density = if options.dense { Density::Dense } else { Density::AsUsual };
    let plan = schedule::plan(seed, length, &kinds, weights, density);
    println!("{} faults of {} kinds are planned", plan.len(), kinds.len());
    let client = Client::begin(&scene.world, &scene.notes, seed, options.rate);
    let over = Arc::new(AtomicBool::new(false));
    let supervisor = {
        let (scene, over) = (Arc::clone(&scene), Arc::clone(&over));
        thread::spawn(move || faults::supervise(&scene, &|| over.load(Ordering::Relaxed)))
    };
    let chaos = {
        let scene = Arc::clone(&scene);
        thread::spawn(move || faults::run(&scene, &plan))
    };
    let mut watch = Watch::new(&scene)?;
    while !chaos.is_finished() || scene.begun.elapsed() < length {
        watch.look(&scene, &client);
    }
    chaos.join().map_err(|_| "a fault panicked: a defect of the harness")?;
    client.stop();
    scene.world.mend();
    let settled = settle(&scene, &client, &mut watch, Duration::from_secs(options.settle));
    over.store(true, Ordering::Relaxed);
    supervisor.join().map_err(|_| "the supervisor panicked: a defect of the harness")?;
    scene.world.keep();
    let stores = scene.world.stores();
    let evidence =
        Evidence::collect(scene.world.bootstrap(), PREFIX, &notes_of(&folder), &stores).map_err(|error| {
            format!("the evidence cannot be read: {error}; everything is in {}", folder.display())
        })?;
    let verdict = check::check(&evidence);
    let must = if options.faults.is_empty() && length < ALL_KINDS_FROM { Vec::new() } else { kinds };
    let missing = missing(&scene, &must);
    let is_green = verdict.is_green() && missing.is_empty() && settled.is_ok();
    report(&scene, &verdict, &missing, &settled);
    let summary = summary(&scene, options, &verdict, &missing, &settled, is_green);
    if let Some(file) = &options.summary {
        fs::write(file, format!("{summary:#}\n")).map_err(|error| error.to_string())?;
    }
    drop(evidence);
    if is_green && options.folder.is_none() {
        drop((client, watch));
        match Arc::into_inner(scene) {
            Some(scene) => drop(scene),
            None => return Err("somebody still uses the installation: a defect of the harness".to_owned()),
        }
        fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    } else if !is_green {
        let length = length.as_secs();
        println!("everything is kept in {}", folder.display());
        let kinds: Vec<&str> = options.faults.iter().map(|kind| kind.as_str()).collect();
        let only = if kinds.is_empty() { String::new() } else { format!(" --faults {}", kinds.join(",")) };
        let dense = if options.dense { " --dense" } else { "" };
        println!("again: cargo chaos --seconds {length} --seed {seed} --rate {}{dense}{only}", options.rate);
    }
    Ok(is_green)
}

/// Who tells how it goes.
struct Watch {
    outcomes: Tail,
    seen: Seen,
    told: Instant,
}

impl Watch {
    fn new(scene: &Scene) -> Result<Self, String> {
        let outcomes = Tail::new(scene.world.bootstrap(), &World::topic("outcomes"), Isolation::Uncommitted)?;
        Ok(Self { outcomes, seen: Seen::default(), told: Instant::now() })
    }

    fn look(&mut self, scene: &Scene, client: &Client) {
        let seen = &mut self.seen;
        self.outcomes.poll(LOOK, |record| {
            let document: Value =
                serde_json::from_slice(record.payload().unwrap_or_default()).unwrap_or_default();
            let (subject, outcome) = (text(&document, "subject"), text(&document, "outcome"));
            match outcome {
                "stuck" if !seen.subjects.contains(subject) => drop(seen.stuck.insert(subject.to_owned())),
                "refused" | "stuck" => {}
                _ => {
                    seen.stuck.remove(subject);
                    if seen.subjects.insert(subject.to_owned()) {
                        *seen.ended.entry(outcome.to_owned()).or_default() += 1;
                    }
                }
            }
        });
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            self.tell(scene, client);
        }
    }

    fn tell(&self, scene: &Scene, client: &Client) {
        let (started, acknowledged) = client.counts();
        let ended: Vec<String> =
            self.seen.ended.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        let faults: u64 = scene.tally.done().values().sum();
        println!(
            "{:>5.0} s  {started} started, {acknowledged} acknowledged, {}, {} stuck; {faults} faults",
            scene.begun.elapsed().as_secs_f32(),
            ended.join(", "),
            self.seen.stuck.len(),
        );
    }
}

/// Nothing goes wrong any more: everything that was started ends, what is stuck is tried again, checkpoints follow.
fn settle(scene: &Scene, client: &Client, watch: &mut Watch, patience: Duration) -> Result<Duration, String> {
    let begun = Instant::now();
    scene.say("nothing goes wrong any more");
    println!("nothing goes wrong any more; waiting for {} s at most", patience.as_secs());
    let mut retried = Instant::now();
    loop {
        watch.look(scene, client);
        let (started, acknowledged) = client.counts();
        let ended = watch.seen.subjects.len() as u64;
        if client.is_done() && ended >= started.max(acknowledged) {
            break;
        }
        if begun.elapsed() > patience {
            client.give_up();
            let stuck = watch.seen.stuck.len();
            return Err(format!(
                "not settled within {} s: {started} started, {acknowledged} acknowledged, {ended} ended, {stuck} stuck",
                patience.as_secs()
            ));
        }
        if retried.elapsed() > RETRY_EVERY {
            retried = Instant::now();
            for id in watch.seen.stuck.iter().take(50) {
                client.retry(id);
            }
        }
    }
    let took = begun.elapsed();
    wait_for_checkpoints(scene)?;
    Ok(took)
}

/// The last checkpoint of each shard has been written: the journal does not grow any more.
fn wait_for_checkpoints(scene: &Scene) -> Result<(), String> {
    let begun = Instant::now();
    let journal = Tail::new(scene.world.bootstrap(), &World::topic("journal"), Isolation::Committed)?;
    let mut before = None;
    loop {
        let ends = journal.ends()?;
        if before.as_ref() == Some(&ends) {
            return Ok(());
        }
        if begun.elapsed() > CHECKPOINTS_WITHIN {
            return Err(format!(
                "the journal does not come to rest within {} s",
                CHECKPOINTS_WITHIN.as_secs()
            ));
        }
        before = Some(ends);
        thread::sleep(CHECKPOINTS_EVERY);
    }
}

/// Kinds that had to happen and did not.
fn missing(scene: &Scene, must: &[Kind]) -> Vec<&'static str> {
    let done = scene.tally.done();
    let skipped = |kind: &Kind| scene.world.skipped.iter().any(|why| why.starts_with(kind.as_str()));
    must.iter()
        .filter(|kind| !done.contains_key(kind.as_str()) && !skipped(kind))
        .map(|kind| kind.as_str())
        .collect()
}

fn report(scene: &Scene, verdict: &Verdict, missing: &[&str], settled: &Result<Duration, String>) {
    let (done, missed) = (scene.tally.done(), scene.tally.missed());
    println!("\n{:<34} {:>6} {:>6}", "fault", "done", "missed");
    for kind in Kind::ALL {
        let count = |counts: &BTreeMap<String, u64>| counts.get(kind.as_str()).copied().unwrap_or_default();
        println!("{:<34} {:>6} {:>6}", kind.as_str(), count(&done), count(&missed));
    }
    println!();
    for (what, count) in scene.tally.details() {
        println!("{what:<60} {count:>8}");
    }
    println!("\n{:<34} {:>8} {:>6}", "check", "looked", "wrong");
    let checks: BTreeSet<_> = verdict.checked.keys().chain(verdict.violations.keys()).collect();
    for check in checks {
        let looked = verdict.checked.get(*check).copied().unwrap_or_default();
        println!("{check:<34} {looked:>8} {:>6}", verdict.violations.get(*check).map_or(0, Vec::len));
    }
    println!("\ntransactions: {:?}; turned back by {:?}", verdict.outcomes, verdict.reasons);
    println!("{:?}", verdict.numbers);
    for why in &scene.world.skipped {
        println!("SKIPPED {why}");
    }
    match settled {
        Ok(took) => println!("settled after {} s", took.as_secs()),
        Err(why) => println!("RED {why}"),
    }
    for kind in missing {
        println!("RED {kind} never happened");
    }
    if !verdict.is_green() {
        println!("RED\n{}", verdict.told());
    }
    let green = verdict.is_green() && missing.is_empty() && settled.is_ok();
    println!("{}", if green { "GREEN" } else { "RED" });
}

fn summary(
    scene: &Scene,
    options: &Options,
    verdict: &Verdict,
    missing: &[&str],
    settled: &Result<Duration, String>,
    is_green: bool,
) -> Value {
    json!({
        "verdict": if is_green { "green" } else { "red" },
        "seed": options.seed,
        "seconds": options.seconds.unwrap_or(options.minutes * 60),
        "rate": options.rate,
        "transactions": verdict.outcomes,
        "turned_back_by": verdict.reasons,
        "numbers": verdict.numbers,
        "faults": scene.tally.done(),
        "faults_missed": scene.tally.missed(),
        "details": scene.tally.details(),
        "skipped": scene.world.skipped,
        "never_happened": missing,
        "checks": verdict.checked,
        "violations": verdict.violations,
        "settled_after_s": settled.as_ref().map(Duration::as_secs).map_err(Clone::clone).map_or_else(|why| json!(why), |s| json!(s)),
    })
}
