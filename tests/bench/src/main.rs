//! What a transaction costs, beside the bare floor, in turns on one broker.
//!
//! ```text
//!   driver (this process) ──starts──▶ Kafka ◀──▶ server         a process of its own
//!            ▲                         │  ▲ ◀──▶ participants    a process of its own, with their ledger
//!            └───────outcomes──────────┘  └────▶ the floor's two processes, in their turn
//! ```
//! `--quick` says in under four minutes which share of the floor's rate is reached at 5,000 in flight. No number is
//! printed before the correctness gate has opened ([`gate`]); a run whose gate does not open exits with 10. Deliberately
//! absent: another machine. Broker, driver and all others share this one, so take shares and processor time, not rates.

mod costs;
mod faults;
mod figures;
mod floor;
mod gate;
mod lab;
mod load;
mod ours;
mod peer;
mod plots;
mod processes;
mod report;
mod roles;
mod scale;
mod scale_page;
mod session;
mod system;

use std::error::Error;
use std::io::Read;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sagamore_kafka::client::ClientSettings;
use sagamore_local_kafka::{ClusterSize, KAFKA_VERSION};
use sagamore_schemas::topics::Prefix;

use crate::lab::Lab;
use crate::ours::Plan;
use crate::peer::PeerKind;
use crate::report::Setting;
use crate::roles::StoreKind;
use crate::scale_page::ScaleArguments;
use crate::session::Programme;
use crate::system::{Durability, RunError, Site};
use sagamore_bench::workload::Workload;

/// A check is negative.
const EXIT_GATE: u8 = 10;
const IN_FLIGHT: [usize; 5] = [1, 16, 64, 500, 5_000];
const QUICK_IN_FLIGHT: [usize; 3] = [1, 64, 5_000];

#[derive(Parser)]
#[command(about = "What a transaction costs, beside the bare floor")]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// A running cluster instead of a broker of our own; bytes and the broker's processor time are not known then.
    #[arg(long, global = true)]
    kafka: Option<String>,
    /// Brokers of our own, and copies of each topic; beside `--kafka`, the copies.
    #[arg(long, value_enum, default_value_t = Brokers::One)]
    brokers: Brokers,
    /// Shards, and partitions of the floor.
    #[arg(long, global = true, default_value_t = NonZeroU16::MIN)]
    partitions: NonZeroU16,
    /// Threads of the server that run shards.
    #[arg(long, global = true, default_value_t = 1)]
    lanes: usize,
    /// How long the floor's producers wait for company. It is fastest at 5,000 in flight with 2 or 3.
    #[arg(long, global = true, default_value_t = 0)]
    floor_linger_ms: u32,
    /// Orders at 1, 64 and 5,000 in flight, three rounds, in under four minutes.
    #[arg(long)]
    quick: bool,
    /// Kinds of transactions.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Workload::Order])]
    workload: Vec<Workload>,
    /// Closed loops: transactions not yet ended at any moment.
    #[arg(long, value_delimiter = ',', default_values_t = IN_FLIGHT)]
    in_flight: Vec<usize>,
    /// Open loops: transactions started a second, whatever ends.
    #[arg(long, value_delimiter = ',')]
    rates: Vec<u32>,
    /// Begins an open loop at this rate and makes it faster until the system does not keep up.
    #[arg(long)]
    ramp_from: Option<u32>,
    /// When the broker writes to the disk: C before nothing, P before it acknowledges.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Durability::C], ignore_case = true)]
    durability: Vec<Durability>,
    /// How often each point is measured; ours and the floor in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 3.0)]
    warm_up_s: f64,
    #[arg(long, default_value_t = 10.0)]
    measured_s: f64,
    /// Without the floor.
    #[arg(long)]
    alone: bool,
    /// Other coordinators in turns with ours; `tests/bench/peers/run` builds them first.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<PeerKind>,
    /// Where they are.
    #[arg(long, default_value = "tests/bench/peers")]
    peers_folder: PathBuf,
    /// Servers killed with `kill -9` under load.
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// A takeover with so many transactions open.
    #[arg(long)]
    open: Option<u64>,
    /// Properties of librdkafka for the server and its participants, `KEY=VALUE`, several times.
    #[arg(long, global = true)]
    kafka_config: Vec<String>,
    /// Where the participants keep their effects.
    #[arg(long, value_enum, default_value_t = StoreKind::Memory)]
    store: StoreKind,
    /// A folder for `bench.json` and the drawings.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// A cluster of our own, with as many copies of each topic.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Brokers {
    #[value(name = "1")]
    One,
    #[value(name = "3")]
    Three,
}

impl Brokers {
    fn size(self) -> ClusterSize {
        match self {
            Self::One => ClusterSize::One,
            Self::Three => ClusterSize::Three,
        }
    }

    fn copies(self) -> NonZeroU16 {
        match self {
            Self::One => NonZeroU16::MIN,
            Self::Three => NonZeroU16::MIN.saturating_add(2),
        }
    }
}

#[derive(Subcommand)]
enum Verb {
    /// What more transactions a second would need, and what breaks first: the tables of SCALE.md.
    Scale(ScaleArguments),
    #[command(flatten)]
    Role(Role),
}

/// The processes of a run; each ends with its input.
#[derive(Subcommand)]
enum Role {
    /// The server alone.
    #[command(hide = true)]
    Server {
        #[arg(long)]
        prefix: Prefix,
    },
    /// The participants alone.
    #[command(hide = true)]
    Participants {
        #[arg(long)]
        prefix: Prefix,
        #[arg(long, value_enum)]
        workload: Workload,
        #[arg(long, value_enum)]
        store: StoreKind,
    },
    /// The floor's orchestrator alone.
    #[command(hide = true)]
    FloorOrchestrator {
        #[arg(long)]
        prefix: String,
    },
    /// The floor's participants alone.
    #[command(hide = true)]
    FloorParticipants {
        #[arg(long)]
        prefix: String,
    },
}

// The server and the floor run in this binary: with the allocator of `sagamore`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut arguments = Arguments::parse();
    match arguments.verb.take() {
        Some(Verb::Scale(scale)) => return scale_page::tell(&scale).map(|()| ExitCode::SUCCESS),
        Some(Verb::Role(role)) => return play(role, &arguments).map(|()| ExitCode::SUCCESS),
        None => {}
    }
    match measure(&arguments) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(RunError::Gate(error)) => {
            eprintln!("{error}");
            Ok(ExitCode::from(EXIT_GATE))
        }
        Err(RunError::Failed(error)) => Err(error),
    }
}

fn play(role: Role, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let bootstrap = arguments.kafka.as_deref().ok_or("a role needs --kafka")?;
    let overrides = arguments.kafka_config.iter().map(String::as_str);
    let kafka = ClientSettings::new(bootstrap).with_overrides(overrides)?;
    let (partitions, linger_ms) = (i32::from(arguments.partitions.get()), arguments.floor_linger_ms);
    match role {
        Role::Server { prefix } => return roles::server(kafka, prefix, arguments.lanes),
        Role::Participants { prefix, workload, store } => {
            return roles::participants(&kafka, &prefix, workload, store);
        }
        Role::FloorOrchestrator { prefix } => {
            floor::orchestrator(bootstrap, &prefix, partitions, linger_ms)?;
        }
        Role::FloorParticipants { prefix } => {
            floor::participants(bootstrap, &prefix, partitions, linger_ms)?;
        }
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn programme(arguments: &Arguments) -> Programme {
    let given = Programme {
        workloads: arguments.workload.clone(),
        durabilities: arguments.durability.clone(),
        in_flight: arguments.in_flight.clone(),
        rates_per_s: arguments.rates.clone(),
        ramp_from_per_s: arguments.ramp_from,
        rounds: arguments.rounds,
        windows: lab::windows(arguments.warm_up_s, arguments.measured_s),
        with_floor: !arguments.alone,
        floor_linger_ms: arguments.floor_linger_ms,
        peers: arguments.peers.clone(),
        peers_folder: arguments.peers_folder.clone(),
        kills: arguments.kills,
        open: arguments.open,
    };
    if !arguments.quick {
        return given;
    }
    Programme {
        workloads: vec![Workload::Order],
        durabilities: vec![Durability::C],
        in_flight: QUICK_IN_FLIGHT.into(),
        rates_per_s: Vec::new(),
        ramp_from_per_s: None,
        rounds: 3,
        windows: lab::windows(2.0, 5.0),
        with_floor: true,
        kills: 0,
        open: None,
        ..given
    }
}

fn measure(arguments: &Arguments) -> Result<(), RunError> {
    let programme = programme(arguments);
    if !programme.peers.is_empty() && programme.workloads != [Workload::Order] {
        return Err(RunError::Failed("peers know the workload `order` only".into()));
    }
    let mut lab = Lab::open(arguments.kafka.as_deref(), arguments.brokers.size())?;
    // The class is each part's own.
    let site = Site {
        kafka: lab.kafka.clone(),
        partitions: arguments.partitions,
        replication: arguments.brokers.copies(),
        durability: Durability::C,
        overrides: arguments.kafka_config.clone(),
    };
    let plan = Plan { workload: Workload::Order, store: arguments.store, lanes: arguments.lanes };
    let results = session::run(&mut lab, &site, plan, &programme)?;
    let setting = Setting {
        version: env!("CARGO_PKG_VERSION"),
        kafka: if arguments.kafka.is_some() { "given".to_owned() } else { KAFKA_VERSION.to_owned() },
        kernel: Setting::kernel(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        brokers: arguments.brokers.copies().get(),
        partitions: arguments.partitions.get(),
        lanes: arguments.lanes,
        rounds: programme.rounds,
        warm_up_s: programme.windows.warm_up.as_secs_f64(),
        measured_s: programme.windows.measured.as_secs_f64(),
        floor_linger_ms: programme.floor_linger_ms,
        kafka_config: arguments.kafka_config.clone(),
        participants_store: arguments.store,
    };
    tell(arguments, &setting, &results).map_err(RunError::Failed)
}

fn tell(arguments: &Arguments, setting: &Setting, results: &session::Results) -> Result<(), Box<dyn Error>> {
    let rows = figures::rows(&results.samples);
    if !rows.is_empty() {
        println!("{}", report::table(&rows));
    }
    print!(
        "{}{}{}",
        report::systems(&results.systems),
        report::records(results, &rows),
        report::faults(results)
    );
    std::fs::create_dir_all(&arguments.out)?;
    report::write_json(&arguments.out.join("bench.json"), setting, &rows, results)?;
    let drawn = plots::draw(&arguments.out, &rows)?;
    eprintln!("written to {}: bench.json {}", arguments.out.display(), drawn.join(" "));
    for in_flight in [1, 16, 64, 500, 5_000] {
        if let Some(share) = figures::share_of_floor(&rows, in_flight) {
            println!(
                "share of floor at {} in flight: {:.0} %{}",
                if in_flight == 5_000 { "5,000".to_owned() } else { in_flight.to_string() },
                share.median * 100.0,
                if in_flight == 5_000 {
                    String::new()
                } else {
                    format!(" ({:.0}-{:.0})", share.least * 100.0, share.most * 100.0)
                }
            );
        }
    }
    Ok(())
}
