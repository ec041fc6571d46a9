//! From samples to figures: the median of the rounds with its spread, and the share of the floor, round by round.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::lab::{Point, Sample, Shape};
use sagamore_bench::workload::Workload;

pub(crate) const OURS: &str = "sagamore";
pub(crate) const FLOOR: &str = "floor";

/// Of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least, most })
    }
}

/// One kind of number of a sample.
pub(crate) type Figure = fn(&Sample) -> Option<f64>;

/// Every kind, with its name in the report.
pub(crate) const FIGURES: &[(&str, Figure)] = &[
    ("rate_per_s", |sample| Some(sample.rate_per_s)),
    ("p50_ms", |sample| Some(sample.p50_ms)),
    ("p99_ms", |sample| Some(sample.p99_ms)),
    ("p999_ms", |sample| Some(sample.p999_ms)),
    ("cpu_orchestrator_us", |sample| Some(sample.cpu_us.orchestrator)),
    ("cpu_saga_us", |sample| sample.cpu_us.saga),
    ("cpu_participants_us", |sample| Some(sample.cpu_us.participants)),
    ("cpu_driver_us", |sample| Some(sample.cpu_us.driver)),
    ("cpu_broker_us", |sample| sample.cpu_us.broker),
    ("cpu_system_us", |sample| Some(sample.cpu_us.system())),
    ("records", |sample| sample.volume.records_total()),
    ("bytes", |sample| sample.volume.bytes_total()),
    ("orchestrator_peak_mib", |sample| Some(mebibytes(sample.orchestrator_peak_bytes))),
    ("participants_peak_mib", |sample| Some(mebibytes(sample.participants_peak_bytes))),
    ("threads", |sample| Some(count(sample.footprint.threads))),
    ("connections", |sample| Some(count(sample.footprint.connections))),
    ("coordinator_records_per_s", |sample| Some(sample.coordinator_records_per_s)),
];

#[expect(clippy::cast_precision_loss, reason = "a size, for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "threads, connections")]
fn count(count: usize) -> f64 {
    count as f64
}

/// All figures of a point, of one system.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub system: &'static str,
    #[serde(flatten)]
    pub point: Point,
    pub figures: BTreeMap<&'static str, Spread>,
    /// Each figure divided by that of the floor's order saga in the same turn.
    pub shares_of_floor: BTreeMap<&'static str, Spread>,
}

impl Row {
    pub fn median(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).map(|spread| spread.median)
    }
}

pub(crate) fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut points: Vec<(Point, &'static str)> =
        samples.iter().map(|sample| (sample.point, sample.system)).collect();
    points.sort_unstable();
    points.dedup();
    let row = |(point, system): (Point, &'static str)| {
        let of_point: Vec<&Sample> = of(samples, point, system).collect();
        let figures = FIGURES.iter().filter_map(|(name, figure)| {
            Some((*name, Spread::of(of_point.iter().filter_map(|sample| figure(sample)))?))
        });
        let shares = FIGURES.iter().filter(|_| system != FLOOR).filter_map(|(name, figure)| {
            let shares = of_point.iter().filter_map(|sample| {
                let floor = of(samples, point, FLOOR).find(|floor| floor.round == sample.round)?;
                figure(floor).filter(|value| *value > 0.0).zip(figure(sample)).map(|(floor, own)| own / floor)
            });
            Some((*name, Spread::of(shares)?))
        });
        Row { system, point, figures: figures.collect(), shares_of_floor: shares.collect() }
    };
    points.into_iter().map(row).collect()
}

fn of<'a>(
    samples: &'a [Sample],
    point: Point,
    system: &'static str,
) -> impl Iterator<Item = &'a Sample> + use<'a> {
    samples.iter().filter(move |sample| sample.point == point && sample.system == system)
}

/// The share of the floor's rate, of order sagas in Kafka's default durability.
pub(crate) fn share_of_floor(rows: &[Row], in_flight: usize) -> Option<Spread> {
    let is_it = |row: &&Row| {
        row.system == OURS
            && row.point.workload == Workload::Order
            && row.point.durability == crate::system::Durability::C
            && row.point.shape == Shape::Closed { in_flight }
    };
    rows.iter().find(is_it).and_then(|row| row.shares_of_floor.get("rate_per_s").copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::costs::{CpuUs, VolumeEach};
    use crate::processes::Footprint;
    use crate::system::Durability;

    fn sample(system: &'static str, round: usize, rate_per_s: f64) -> Sample {
        Sample {
            system,
            point: Point {
                workload: Workload::Order,
                durability: Durability::C,
                shape: Shape::Closed { in_flight: 16 },
            },
            round,
            started: 1,
            ended: 1,
            rate_per_s,
            p50_ms: 1.0,
            p99_ms: 1.0,
            p999_ms: 1.0,
            cpu_us: CpuUs {
                orchestrator: 1.0,
                saga: None,
                participants: 2.0,
                driver: 4.0,
                broker: Some(8.0),
            },
            orchestrator_peak_bytes: 1 << 20,
            participants_peak_bytes: 1 << 20,
            footprint: Footprint { threads: 45, connections: 15 },
            coordinator_records_per_s: 20.0,
            volume: VolumeEach { records: BTreeMap::from([("inbox", 4.0), ("state", 0.5)]), bytes: None },
        }
    }

    #[test]
    fn the_middle_and_both_ends() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Some(Spread { median: 3.0, least: 1.0, most: 9.0 }));
        assert_eq!(spread(&[4.0, 2.0]), Some(Spread { median: 3.0, least: 2.0, most: 4.0 }));
    }

    #[test]
    fn shares_are_those_of_the_same_round() {
        // The machine is half as fast in the second round; the share is a half all the same.
        let samples =
            [sample(OURS, 0, 100.0), sample(FLOOR, 0, 200.0), sample(OURS, 1, 50.0), sample(FLOOR, 1, 100.0)];
        let rows = rows(&samples);
        let half = Some(Spread { median: 0.5, least: 0.5, most: 0.5 });
        assert_eq!(share_of_floor(&rows, 16), half);
        assert_eq!(share_of_floor(&rows, 17), None);
        let floor = rows.iter().find(|row| row.system == FLOOR).unwrap();
        assert!(floor.shares_of_floor.is_empty());
        assert_eq!(floor.median("cpu_system_us"), Some(11.0), "all but the driver");
        assert_eq!(floor.median("cpu_saga_us"), None);
        assert_eq!(floor.median("records"), Some(4.5));
        assert_eq!(floor.median("bytes"), None);
    }
}
