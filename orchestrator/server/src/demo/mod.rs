//! `sagamore demo`: the whole pipeline in one process, a stream of orders through it, a report.
//!
//! ```text
//!   generator, or files ─▶ orders ─▶ drive ──start──▶ inbox ─▶ server ─▶ commands ─▶ inventory, payment, shipping
//!                                      ▲                         │                             │ books
//!                                      └───────outcomes──────────┘                             ▼
//!                                                               topics ─▶ timeline ─────▶ report
//! ```
//! The report trusts three witnesses that know nothing of each other: the outcomes, the participants' books, and the
//! records in the topics. Deliberately absent: any shortcut into the server; the orders come as any Kafka client's do.

mod drive;
mod orders;
mod pipeline;
mod report;
mod timeline;

pub mod generator;

use std::io;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rdkafka::error::KafkaError;
use sagamore_examples::{SpawnError, WATCHED_MAX};
use sagamore_kafka::client::{ClientSettings, OverrideError};
use sagamore_kafka::embedded::{BANNER, EmbeddedError, TooMuch};
use sagamore_kafka::topics::TopicsError;

use crate::server::StartError;
use drive::{Driven, Progress, Route, drive};
use orders::Trade;
use pipeline::{Pipeline, Place};
use report::{Account, most_undone};

pub use report::{Balance, Crash, Report, Share};
pub use timeline::{Call, Entry, Timeline, What};

/// More orders than the examples can watch effects of.
const ORDERS_MAX: u64 = WATCHED_MAX as u64;
/// How long a takeover may take after the last order has ended.
const TAKEOVER_MAX: Duration = Duration::from_mins(1);

/// What the demo runs, and where.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Run on this cluster, under a fresh prefix, instead of the embedded broker.
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// A property of librdkafka, such as `security.protocol=ssl`; in the variable, one per line.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = '\n', requires = "kafka")]
    pub kafka_config: Vec<String>,
    /// How many orders to generate.
    #[arg(long, value_name = "N", default_value_t = Self::COUNT, value_parser = clap::value_parser!(u64).range(1..=ORDERS_MAX))]
    pub count: u64,
    /// Which orders: the same for the same number.
    #[arg(long, value_name = "N", default_value_t = Self::SEED)]
    pub seed: u64,
    /// Orders of your own, one JSON object per line; with --products.
    #[arg(long, value_name = "FILE", requires = "products", conflicts_with_all = ["count", "seed"])]
    pub orders: Option<PathBuf>,
    /// What is on the shelves, one JSON object per line; with --orders.
    #[arg(long, value_name = "FILE", requires = "orders")]
    pub products: Option<PathBuf>,
    /// Drop all shards half way through, as a crash would, and take them over again.
    #[arg(long)]
    pub crash: bool,
    /// Orders in flight at most.
    #[arg(long, value_name = "N", default_value_t = Self::IN_FLIGHT)]
    pub in_flight: NonZeroUsize,
    /// Shards.
    #[arg(long, value_name = "N", default_value_t = Self::PARTITIONS)]
    pub partitions: NonZeroU16,
}

impl DemoArgs {
    const COUNT: u64 = 830;
    const SEED: u64 = 1;
    const IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(64).expect("not 0");
    const PARTITIONS: NonZeroU16 = NonZeroU16::new(4).expect("not 0");
}

impl Default for DemoArgs {
    fn default() -> Self {
        Self {
            kafka: None,
            kafka_config: Vec::new(),
            count: Self::COUNT,
            seed: Self::SEED,
            orders: None,
            products: None,
            crash: false,
            in_flight: Self::IN_FLIGHT,
            partitions: Self::PARTITIONS,
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file cannot be read, or is not what it should be.
    #[error("{path}: {cause}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// More orders than the embedded broker keeps.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// More orders than the examples can watch.
    #[error("{0} orders are more than the example participants keep in memory ({ORDERS_MAX}): take fewer")]
    TooMany(usize),
    /// No orders.
    #[error("there are no orders")]
    NoOrders,
    /// A property cannot be overridden.
    #[error("--kafka-config: {0}")]
    Override(#[from] OverrideError),
    /// The embedded broker does not do what it should.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The topics cannot be made.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// The server does not start.
    #[error(transparent)]
    Server(#[from] StartError),
    /// An example does not run.
    #[error(transparent)]
    Example(#[from] SpawnError),
    /// A Kafka client fails.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The shards do not get ready.
    #[error("not every shard was ready within {} s", .0.as_secs())]
    NotReady(Duration),
}

/// Runs it. What is not the report goes to stderr: a banner, and a progress bar where that is a terminal.
pub fn play(args: &DemoArgs) -> Result<Report, DemoError> {
    let trade = trade(args)?;
    let place = place(args)?;
    let mut pipeline = Pipeline::start(place, args.partitions, &trade)?;
    let Pipeline { prefix, kafka, .. } = &pipeline;
    if args.kafka.is_some() {
        eprintln!("running on {} under the prefix {prefix}; its topics stay\n", kafka.bootstrap());
    }
    let (driven, crash) = run_orders(&pipeline, &trade, args)?;
    let undone = most_undone(&trade.orders, &driven);
    let timeline = undone.map(|id| Timeline::read(kafka, prefix, id)).transpose()?;
    let done = pipeline.stop()?;
    Ok(Report::new(Account {
        kafka: args.kafka.clone().unwrap_or_else(|| "embedded".to_owned()),
        prefix: pipeline.prefix.to_string(),
        orders: &trade.orders,
        driven: &driven,
        done,
        crash,
        timeline,
    }))
}

fn place(args: &DemoArgs) -> Result<Place, DemoError> {
    let Some(bootstrap) = &args.kafka else {
        eprintln!("{BANNER}\n");
        return Ok(Place::Embedded);
    };
    let overrides = args.kafka_config.iter().map(String::as_str).filter(|text| !text.is_empty());
    Ok(Place::Cluster(ClientSettings::new(bootstrap).with_overrides(overrides)?))
}

fn trade(args: &DemoArgs) -> Result<Trade, DemoError> {
    let trade = match (&args.orders, &args.products) {
        (Some(orders), Some(products)) => Trade::read(orders, products)?,
        _ => generator::generate(args.seed, args.count).into(),
    };
    match trade.orders.len() {
        0 => Err(DemoError::NoOrders),
        count if count as u64 > ORDERS_MAX => Err(DemoError::TooMany(count)),
        _ => Ok(trade),
    }
}

fn run_orders(
    pipeline: &Pipeline,
    trade: &Trade,
    args: &DemoArgs,
) -> Result<(Driven, Option<Crash>), DemoError> {
    let count = trade.orders.len();
    let bar = progress_bar(count);
    let mut accident = args.crash.then(|| Accident::new(count.div_ceil(2)));
    let route = Route {
        kafka: &pipeline.kafka,
        producer: &pipeline.producer,
        prefix: &pipeline.prefix,
        partitions: pipeline.server.installation().partitions,
    };
    let driven = drive(&route, &trade.orders, args.in_flight, |progress| {
        bar.set_position(progress.ended as u64);
        bar.set_message(format!("{} committed", progress.committed));
        if let Some(accident) = &mut accident {
            accident.watch(pipeline, progress);
        }
    })?;
    bar.finish_and_clear();
    let crash = accident.map(|accident| accident.wait(pipeline)).transpose()?;
    Ok((driven, crash.flatten()))
}

fn progress_bar(count: usize) -> ProgressBar {
    // Where stderr is no terminal, it draws nothing.
    let bar = ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:40} {pos}/{len} orders, {msg}, {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The crash half way through: when it is due, what it hit, how long it took.
enum Accident {
    Coming { after: usize },
    Happened { since: Instant, crash: Crash },
    Over(Crash),
}

impl Accident {
    fn new(after: usize) -> Self {
        Self::Coming { after }
    }

    fn watch(&mut self, pipeline: &Pipeline, progress: Progress) {
        match self {
            Self::Coming { after } if progress.ended >= *after => {
                let since = Instant::now();
                let in_flight = progress.started - progress.ended;
                let shards = pipeline.server.crash_shards();
                let crash = Crash { ended: progress.ended, in_flight, shards, takeover_ms: 0.0 };
                *self = Self::Happened { since, crash };
            }
            Self::Happened { since, crash } if pipeline.is_running() => {
                *self = Self::Over(Crash { takeover_ms: report::millis(since.elapsed()), ..*crash });
            }
            Self::Coming { .. } | Self::Happened { .. } | Self::Over(_) => {}
        }
    }

    /// Waits until the shards run again; `None` when it did not come to a crash.
    fn wait(mut self, pipeline: &Pipeline) -> Result<Option<Crash>, DemoError> {
        let begun = Instant::now();
        loop {
            match self {
                Self::Coming { .. } => return Ok(None),
                Self::Over(crash) => return Ok(Some(crash)),
                Self::Happened { .. } if begun.elapsed() > TAKEOVER_MAX => {
                    return Err(DemoError::NotReady(TAKEOVER_MAX));
                }
                Self::Happened { .. } => std::thread::sleep(Duration::from_millis(5)),
            }
            self.watch(pipeline, Progress::default());
        }
    }
}
