//! What is told: a table for people, a document for programs, drawings for both.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::figures::{OURS, Row, Spread};
use crate::lab::Shape;
use crate::peer::About;
use crate::session::Results;

/// Where and with what it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    pub version: &'static str,
    pub kafka: String,
    pub kernel: String,
    pub processors: usize,
    pub brokers: u16,
    pub partitions: u16,
    pub lanes: usize,
    pub rounds: usize,
    pub warm_up_s: f64,
    pub measured_s: f64,
    pub floor_linger_ms: u32,
    pub kafka_config: Vec<String>,
    pub participants_store: crate::roles::StoreKind,
}

impl Setting {
    pub fn kernel() -> String {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        release.trim().to_owned()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    setting: &'a Setting,
    rows: &'a [Row],
    #[serde(flatten)]
    results: &'a Results,
}

pub(crate) fn write_json(
    path: &Path,
    setting: &Setting,
    rows: &[Row],
    results: &Results,
) -> Result<(), Box<dyn Error>> {
    let document = Document { setting, rows, results };
    std::fs::write(path, serde_json::to_string_pretty(&document)?)?;
    Ok(())
}

pub(crate) fn shape(shape: Shape) -> String {
    match shape {
        Shape::Closed { in_flight } => format!("{in_flight} in flight"),
        Shape::Open { rate_per_s } => format!("{rate_per_s}/s offered"),
    }
}

/// A figure, and its share of the floor below it.
pub(crate) fn table(rows: &[Row]) -> String {
    const COLUMNS: [(&str, &str, usize); 12] = [
        ("rate/s", "rate_per_s", 0),
        ("p50 ms", "p50_ms", 1),
        ("p99 ms", "p99_ms", 1),
        ("p99.9 ms", "p999_ms", 1),
        ("orch. us", "cpu_orchestrator_us", 0),
        ("saga us", "cpu_saga_us", 0),
        ("part. us", "cpu_participants_us", 0),
        ("driver us", "cpu_driver_us", 0),
        ("broker us", "cpu_broker_us", 0),
        ("system us", "cpu_system_us", 0),
        ("records", "records", 2),
        ("bytes", "bytes", 0),
    ];
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    // What nobody has takes no room.
    let is_there = |figure: &str| rows.iter().any(|row| row.figures.contains_key(figure));
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(_, figure, _)| is_there(figure)).collect();
    let heads = ["class", "workload", "load", "system"].into_iter();
    table.set_header(heads.chain(columns.iter().map(|(head, ..)| *head)).chain(["peak MiB"]));
    for row in rows {
        let mut cells = vec![
            Cell::new(row.point.durability.as_str()),
            Cell::new(row.point.workload.as_str()),
            Cell::new(shape(row.point.shape)),
            Cell::new(if row.shares_of_floor.is_empty() {
                row.system.to_owned()
            } else {
                format!("{OURS}\n(x floor)")
            }),
        ];
        let shown = columns.iter().map(|(_, figure, digits)| (*figure, *digits));
        for (figure, digits) in shown.chain([("orchestrator_peak_mib", 0)]) {
            let text = cell(row, figure, digits);
            cells.push(Cell::new(text).set_alignment(CellAlignment::Right));
        }
        table.add_row(cells);
    }
    table.to_string()
}

fn cell(row: &Row, figure: &str, digits: usize) -> String {
    let Some(spread) = row.figures.get(figure) else { return "-".to_owned() };
    let mut text = told(spread, digits);
    if let Some(share) = row.shares_of_floor.get(figure) {
        write!(text, "\n({:.2})", share.median).ok();
    }
    text
}

fn told(spread: &Spread, digits: usize) -> String {
    let Spread { median, least, most } = spread;
    if (most - least).abs() < f64::EPSILON {
        format!("{median:.digits$}")
    } else {
        format!("{median:.digits$}\n{least:.digits$}-{most:.digits$}")
    }
}

/// What was measured, in the words of each system.
pub(crate) fn systems(systems: &[About]) -> String {
    let mut text = String::new();
    for About { system, durability, told } in systems {
        for (what, words) in told {
            writeln!(text, "{system}, class {}, {what}: {words}", durability.as_str()).ok();
        }
    }
    text
}

/// Where the records of a transaction are, by topic.
pub(crate) fn records(results: &Results, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut of_row = results.samples.iter().filter(|s| s.point == row.point && s.system == row.system);
        // A system without topics leaves nothing in them.
        let Some(sample) = of_row.next_back().filter(|s| !s.volume.records.is_empty()) else { continue };
        let parts: Vec<String> =
            sample.volume.records.iter().map(|(label, each)| format!("{label} {each:.2}")).collect();
        writeln!(
            text,
            "records, {} {} {}, class {}: {} (ends of Kafka transactions counted)",
            row.system,
            row.point.workload.as_str(),
            shape(row.point.shape),
            row.point.durability.as_str(),
            parts.join(", ")
        )
        .ok();
    }
    text
}

/// What was measured once.
pub(crate) fn faults(results: &Results) -> String {
    let mut text = String::new();
    for saturation in &results.saturation {
        let rate = saturation
            .rate_per_s
            .map_or("less than the ramp begins with".to_owned(), |rate| format!("{rate}/s"));
        writeln!(
            text,
            "saturation, {} class {}: keeps up with {rate}",
            saturation.system,
            saturation.durability.as_str()
        )
        .ok();
    }
    if let Some(Spread { median, least, most }) =
        Spread::of(results.recoveries.iter().map(|recovery| recovery.pause_s))
    {
        let load = results.recoveries[0].load_per_s;
        writeln!(
            text,
            "recovery after kill -9 at {load}/s: nothing ended for {median:.1} s ({least:.1}-{most:.1})"
        )
        .ok();
    }
    if let Some(takeover) = &results.takeover {
        writeln!(
            text,
            "takeover with {} open: {:.2} s, and {:.1} s from the kill; {:.0} bytes of memory each; drained in {:.1} s",
            takeover.open, takeover.alone_s, takeover.from_kill_s, takeover.bytes_each, takeover.drained_s
        )
        .ok();
    }
    text
}
