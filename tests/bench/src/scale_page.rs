//! `sagamore-bench scale`: the tables of `SCALE.md`, from the figures of a run.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::figures::OURS;
use crate::scale::{Costs, Linear, Size, Structure, Wanted, size};

/// Measured on two cores, 2026-11-23; `SCALE.md` has the commands and what they said.
const STRUCTURE: Structure = Structure {
    view_entries_per_s: 102_000.0,
    entries: 3.9,
    open_bytes: 4_056.0,
    takeover_us: 15.9,
    ending_bytes: 48.0,
    coordinator_records: 3.0,
    threads: Linear {
        own: 26.0,
        each_lane: 13.0,
        each_shard: 6.0,
        own_each_broker: 5.0,
        lane_each_broker: 3.0,
        shard_each_broker: 1.0,
    },
    // At most: each client of a lane may know every broker; a shard's producer two leaders, its coordinator, the first.
    connections: Linear {
        own: 9.0,
        each_lane: 4.0,
        each_shard: 4.0,
        own_each_broker: 1.0,
        lane_each_broker: 3.0,
        shard_each_broker: 0.0,
    },
};

/// What a size is asked for with.
#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArguments {
    /// `bench.json` of a run; its fastest order saga of class C is taken, best measured with `--brokers 3`.
    #[arg(long)]
    figures: PathBuf,
    /// Transactions a second.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000.0, 100_000.0, 1_000_000.0])]
    rate: Vec<f64>,
    /// At least so many brokers.
    #[arg(long, default_value_t = 3.0)]
    brokers: f64,
    /// At least so many servers: two, so that one may be lost.
    #[arg(long, default_value_t = 2.0)]
    servers: f64,
    #[arg(long, default_value_t = 8.0)]
    server_cores: f64,
    #[arg(long, default_value_t = 8.0)]
    broker_cores: f64,
    /// The part of cores, disks and bounds that may be used.
    #[arg(long, default_value_t = 0.5)]
    busy: f64,
    /// Lanes of a server.
    #[arg(long, default_value_t = 4.0)]
    lanes_each: f64,
    /// What a broker writes to its disk a second.
    #[arg(long, default_value_t = 500.0)]
    broker_mb_per_s: f64,
    /// How long a transaction is open.
    #[arg(long, default_value_t = 1.0)]
    open_s: f64,
    /// Copies of each topic.
    #[arg(long, default_value_t = 3.0)]
    copies: f64,
}

#[derive(Deserialize)]
struct Document {
    setting: Setting,
    rows: Vec<Row>,
    takeover: Option<Takeover>,
}

#[derive(Deserialize)]
struct Setting {
    brokers: f64,
}

#[derive(Deserialize)]
struct Row {
    system: String,
    workload: String,
    durability: String,
    figures: BTreeMap<String, Median>,
}

#[derive(Deserialize)]
struct Median {
    median: f64,
}

#[derive(Deserialize)]
struct Takeover {
    open: f64,
    alone_s: f64,
    bytes_each: f64,
}

pub(crate) fn tell(arguments: &ScaleArguments) -> Result<(), Box<dyn Error>> {
    let (costs, structure) = read(&arguments.figures)?;
    print!("{}", page(&costs, &structure, &sizes(&costs, &structure, arguments)));
    Ok(())
}

fn sizes(costs: &Costs, structure: &Structure, arguments: &ScaleArguments) -> Vec<Size> {
    let wanted = |rate: &f64| Wanted {
        rate_per_s: *rate,
        open_s: arguments.open_s,
        copies: arguments.copies,
        server_cores: arguments.server_cores,
        broker_cores: arguments.broker_cores,
        busy: arguments.busy,
        lanes: arguments.lanes_each,
        broker_bytes_per_s: arguments.broker_mb_per_s * 1e6,
        participants: 3.0,
        brokers_least: arguments.brokers,
        servers_least: arguments.servers,
    };
    arguments.rate.iter().map(|rate| size(costs, structure, &wanted(rate))).collect()
}

fn read(path: &Path) -> Result<(Costs, Structure), Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    from_document(&serde_json::from_str(&text)?)
}

fn from_document(document: &Document) -> Result<(Costs, Structure), Box<dyn Error>> {
    let is_order = |row: &&Row| row.system == OURS && row.workload == "order" && row.durability == "C";
    let rate = |row: &Row| row.figures.get("rate_per_s").map_or(0.0, |figure| figure.median);
    let fastest =
        document.rows.iter().filter(is_order).max_by(|one, other| rate(one).total_cmp(&rate(other)));
    let row = fastest.ok_or("the figures have no order saga of class C")?;
    let figure = |name: &str| {
        let found = row.figures.get(name).map(|figure| figure.median);
        found.ok_or_else(|| format!("the figures have no {name}: was the broker the bench's own?"))
    };
    let costs = Costs {
        server_us: figure("cpu_orchestrator_us")?,
        participants_us: figure("cpu_participants_us")?,
        broker_us: figure("cpu_broker_us")?,
        records: figure("records")?,
        // Log files of all brokers, each with a copy.
        bytes: figure("bytes")? / document.setting.brokers,
    };
    let mut structure = STRUCTURE;
    if let Some(takeover) = &document.takeover {
        structure.open_bytes = takeover.bytes_each;
        structure.takeover_us = takeover.alone_s * 1e6 / takeover.open;
    }
    Ok((costs, structure))
}

/// A row of the table: what it is, and its value of a size.
type Line = (&'static str, fn(&Size) -> String);

const LINES: &[Line] = &[
    ("shards", |size| whole(size.shards)),
    ("servers", |size| whole(size.servers)),
    ("brokers", |size| whole(size.brokers)),
    ("cores busy: servers, brokers, participants", |size| {
        let cores = [size.server_cores_busy, size.broker_cores_busy, size.participant_cores_busy];
        cores.map(|cores| format!("{cores:.1}")).join(", ")
    }),
    ("records a second", |size| whole(size.records_per_s)),
    ("MB a second, of one copy", |size| whole(size.bytes_per_s / 1e6)),
    ("TB a day, of all copies", |size| format!("{:.1}", size.disk_bytes_per_day / 1e12)),
    ("partitions; replicas on a broker", |size| {
        format!("{}; {}", whole(size.partitions), whole(size.replicas_per_broker))
    }),
    ("open at a time", |size| whole(size.open)),
    ("GB of memory for them and for endings, of a server", |size| {
        format!("{:.1}", size.memory_bytes_per_server / 1e9)
    }),
    ("Kafka transactions a second; records of their coordinators", |size| {
        format!("{}; {}", whole(size.kafka_transactions_per_s), whole(size.coordinator_records_per_s))
    }),
    ("threads of a server", |size| whole(size.threads_per_server)),
    ("connections of a server; to a broker", |size| {
        format!("{}; {}", whole(size.connections_per_server), whole(size.connections_per_broker))
    }),
    ("takeover of a lost server, without the session timeout", |size| format!("{:.1} s", size.takeover_s)),
];

/// Markdown.
fn page(costs: &Costs, structure: &Structure, sizes: &[Size]) -> String {
    let mut text = String::new();
    let Costs { server_us, participants_us, broker_us, records, bytes } = costs;
    writeln!(
        text,
        "A transaction costs {server_us:.0} us in servers, {participants_us:.0} us in participants, {broker_us:.0} us in brokers; \
         {records:.1} records, {bytes:.0} bytes a copy. Open, it holds {:.0} bytes.\n",
        structure.open_bytes
    )
    .ok();
    let heads: Vec<String> =
        sizes.iter().map(|size| format!("{}/s", whole(size.wanted.rate_per_s))).collect();
    writeln!(text, "| | {} |\n|---|{}", heads.join(" | "), "---|".repeat(sizes.len())).ok();
    for (what, value) in LINES {
        let values: Vec<String> = sizes.iter().map(value).collect();
        writeln!(text, "| {what} | {} |", values.join(" | ")).ok();
    }
    for (rank, ordinal) in ["first", "second", "third", "fourth"].into_iter().enumerate() {
        let of = |size: &Size| {
            size.limits.get(rank).map_or(String::new(), |limit| {
                format!("{}: {:.0} % of {}", limit.what, limit.share() * 100.0, whole(limit.at_most))
            })
        };
        let values: Vec<String> = sizes.iter().map(of).collect();
        writeln!(text, "| breaks {ordinal} | {} |", values.join(" | ")).ok();
    }
    text
}

/// Rounded, with a comma before every third digit.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: &str = r#"{"setting": {"brokers": 3}, "takeover": {"open": 1000, "alone_s": 0.02, "bytes_each": 2500.0},
        "rows": [
            {"system": "floor", "workload": "order", "durability": "C", "figures": {"rate_per_s": {"median": 9000}}},
            {"system": "sagamore", "workload": "order", "durability": "P", "figures": {"rate_per_s": {"median": 8000}}},
            {"system": "sagamore", "workload": "order", "durability": "C", "figures": {"rate_per_s": {"median": 50}}},
            {"system": "sagamore", "workload": "order", "durability": "C", "figures": {"rate_per_s": {"median": 5000},
                "cpu_orchestrator_us": {"median": 100}, "cpu_participants_us": {"median": 25}, "cpu_broker_us": {"median": 150},
                "records": {"median": 10}, "bytes": {"median": 18000}}}]}"#;

    fn document(text: &str) -> Document {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_fastest_order_of_ours_counts_and_one_copy_of_its_bytes() {
        let (costs, structure) = from_document(&document(FIGURES)).unwrap();
        let told =
            [costs.server_us, costs.broker_us, costs.bytes, structure.open_bytes, structure.takeover_us];
        assert_eq!(told.map(|value| format!("{value:.0}")), ["100", "150", "6000", "2500", "20"]);
    }

    #[test]
    fn figures_of_somebody_elses_broker_are_refused() {
        let without = FIGURES.replace("cpu_broker_us", "cpu_other_us");
        let told = from_document(&document(&without)).unwrap_err().to_string();
        assert!(told.contains("cpu_broker_us"), "{told}");
    }

    #[test]
    fn a_table_has_a_column_for_each_rate() {
        let (costs, structure) = from_document(&document(FIGURES)).unwrap();
        let arguments = <ScaleArguments as clap::Args>::augment_args(clap::Command::new("scale"))
            .get_matches_from(["scale", "--figures", "x", "--rate", "1000,1000000"]);
        let arguments = <ScaleArguments as clap::FromArgMatches>::from_arg_matches(&arguments).unwrap();
        let text = page(&costs, &structure, &sizes(&costs, &structure, &arguments));
        assert!(text.contains("| | 1,000/s | 1,000,000/s |\n|---|---|---|\n"), "{text}");
        assert!(text.contains("| breaks first |"), "{text}");
        let cells = text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches(" | ").count());
        assert!(cells.skip(2).all(|cells| cells == 2), "{text}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(["7", "999", "1,000", "12,345,678"], [7.0, 999.4, 999.6, 12_345_678.0].map(whole)[..]);
    }
}
