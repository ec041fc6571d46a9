//! Where it is measured: a broker, its processor time and its files; and one measurement.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use serde::Serialize;

use crate::costs::{Cpu, CpuUs, Volume, VolumeEach};
use crate::load::{self, Seen, Windows};
use crate::processes::{Footprint, peak_bytes, reset_peak};
use crate::system::{Durability, RunError, System};
use sagamore_bench::workload::Workload;

/// Where Kafka's coordinators keep its transactions.
const TRANSACTION_STATE: &str = "__transaction_state";

/// How transactions are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "loop")]
pub(crate) enum Shape {
    Closed { in_flight: usize },
    Open { rate_per_s: u32 },
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Point {
    pub workload: Workload,
    pub durability: Durability,
    #[serde(flatten)]
    pub shape: Shape,
}

/// One measurement whose gate has opened.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub system: &'static str,
    #[serde(flatten)]
    pub point: Point,
    pub round: usize,
    /// Started in all, and ended within the measured window.
    pub started: usize,
    pub ended: u64,
    pub rate_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// Processor microseconds a transaction.
    pub cpu_us: CpuUs,
    pub orchestrator_peak_bytes: u64,
    pub participants_peak_bytes: u64,
    /// Of the orchestrator under load.
    pub footprint: Footprint,
    /// Records that the coordinators of Kafka transactions wrote a second, while there was load.
    pub coordinator_records_per_s: f64,
    /// Left in the topics by a transaction.
    #[serde(flatten)]
    pub volume: VolumeEach,
}

/// A broker, ours or a given one.
pub(crate) struct Lab {
    pub kafka: ClientSettings,
    own: Option<LocalKafka>,
    watcher: BaseConsumer,
    runs: u32,
}

impl Lab {
    /// Starts brokers unless some are given.
    pub fn open(given: Option<&str>, size: ClusterSize) -> Result<Self, Box<dyn Error>> {
        let own = if given.is_none() { Some(LocalKafka::start(size)?) } else { None };
        let bootstrap = given.or(own.as_ref().map(LocalKafka::bootstrap)).ok_or("no broker")?;
        let kafka = ClientSettings::new(bootstrap);
        let watcher = kafka.replay_consumer(Isolation::ReadUncommitted).create()?;
        Ok(Self { kafka, own, watcher, runs: 0 })
    }

    /// Processes of the brokers; none of those that are not ours.
    pub fn brokers(&self) -> Vec<u32> {
        let Some(own) = &self.own else { return Vec::new() };
        (0..own.broker_count()).filter_map(|index| own.broker_pid(index)).collect()
    }

    /// Records that the coordinators of Kafka transactions have written so far.
    fn coordinated(&self) -> Result<i64, Box<dyn Error>> {
        let metadata = self.watcher.fetch_metadata(Some(TRANSACTION_STATE), Duration::from_secs(10))?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let mut records = 0;
        for partition in 0..i32::try_from(partitions)? {
            records +=
                self.watcher.fetch_watermarks(TRANSACTION_STATE, partition, Duration::from_secs(10))?.1;
        }
        Ok(records)
    }

    /// A number no run has had yet.
    pub fn next_run(&mut self) -> u32 {
        self.runs += 1;
        self.runs
    }

    fn volume(&self, system: &dyn System) -> Result<Volume, Box<dyn Error>> {
        let data: Option<PathBuf> = self.own.as_ref().map(LocalKafka::data_dir);
        Volume::now(&self.watcher, system.topics(), data.as_deref())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    pub fn measure(
        &mut self,
        system: &mut dyn System,
        point: Point,
        windows: Windows,
        round: usize,
    ) -> Result<Sample, RunError> {
        let run = self.next_run();
        let processes = system.processes();
        let brokers = self.brokers();
        let before = self.volume(system)?;
        reset_peak(processes.orchestrator);
        reset_peak(processes.participants);
        let mut edges: Vec<Cpu> = Vec::new();
        let mut footprint = Footprint::default();
        let mut on_edge = || {
            footprint = Footprint::of(processes.orchestrator)?;
            edges.push(Cpu::now(processes, &brokers)?);
            Ok(())
        };
        let (coordinated, from) = (self.coordinated()?, Instant::now());
        let mut starts = system.starts(run);
        let seen: Seen = match point.shape {
            Shape::Closed { in_flight } => {
                load::closed(&mut *starts, system.ends(run), in_flight, windows, &mut on_edge)?
            }
            Shape::Open { rate_per_s } => {
                load::open(starts, system.ends(run), f64::from(rate_per_s), windows, &mut on_edge)?
            }
        };
        let coordinated = self.coordinated()? - coordinated;
        let coordinator_records_per_s = coordinated as f64 / from.elapsed().as_secs_f64();
        system.settle()?;
        system.check(run, &seen)?;
        let volume = self.volume(system)?.since(&before, seen.outcomes.len() as f64);
        let [begin, end] = edges[..] else { return Err(RunError::Failed("a window has two edges".into())) };
        let ms = |quantile: f64| seen.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Sample {
            system: system.name(),
            point,
            round,
            started: seen.outcomes.len(),
            ended: seen.ended,
            rate_per_s: seen.rate_per_s(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            cpu_us: end.since(&begin, seen.ended.max(1) as f64),
            orchestrator_peak_bytes: peak_bytes(processes.orchestrator)?,
            participants_peak_bytes: peak_bytes(processes.participants)?,
            footprint,
            coordinator_records_per_s,
            volume,
        })
    }
}

/// Seconds, as given on the command line.
pub(crate) fn windows(warm_up_s: f64, measured_s: f64) -> Windows {
    Windows { warm_up: Duration::from_secs_f64(warm_up_s), measured: Duration::from_secs_f64(measured_s) }
}
