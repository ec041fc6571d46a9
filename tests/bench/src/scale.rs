//! Measured costs carried to other sizes: what so many transactions a second need, and what breaks first. Pure.
//!
//! Costs of a transaction come from a `bench.json`; what a run of the bench does not show stands in [`Structure`], each
//! with the command that measured it; bounds are the product's own defaults. Everything is linear in the rate, the
//! servers or the shards, and that is the assumption. Deliberately absent: prices, networks, other kinds of machines.

use sagamore_decider::owner::Pace;
use sagamore_decider::settings::Settings;
use serde::Serialize;

/// Of one transaction, as a run of the bench says.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Costs {
    /// Processor microseconds of the servers, one view included.
    pub server_us: f64,
    pub participants_us: f64,
    /// Of all brokers together, with as many copies as were measured.
    pub broker_us: f64,
    pub records: f64,
    /// In the log files of one copy.
    pub bytes: f64,
}

/// What is not a cost of a transaction.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Structure {
    /// Entries of the journal that a view takes a second, alone: `--example view-figures`.
    pub view_entries_per_s: f64,
    /// Of a transaction: the same.
    pub entries: f64,
    /// Memory of an open transaction, and its part of a takeover: `--open 100000`.
    pub open_bytes: f64,
    pub takeover_us: f64,
    /// Memory of an ended one that is remembered: the bound of its record.
    pub ending_bytes: f64,
    /// Records of the transaction coordinator for one Kafka transaction: `coordinator_records_per_s` of a run.
    pub coordinator_records: f64,
    /// Threads and connections of a server: `threads` and `connections` of runs with more shards, lanes, brokers.
    pub threads: Linear,
    pub connections: Linear,
}

/// Of a server: a part of its own, one of each lane and one of each shard; the last two in [`Linear::of`] may grow with
/// the brokers of the cluster.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Linear {
    pub own: f64,
    pub each_lane: f64,
    pub each_shard: f64,
    /// More of each for each broker beyond the first.
    pub own_each_broker: f64,
    pub lane_each_broker: f64,
    pub shard_each_broker: f64,
}

impl Linear {
    pub fn of(&self, lanes: f64, shards: f64, brokers: f64) -> f64 {
        let more = brokers - 1.0;
        self.own
            + self.own_each_broker * more
            + lanes * (self.each_lane + self.lane_each_broker * more)
            + shards * (self.each_shard + self.shard_each_broker * more)
    }
}

/// What is wanted, and of what machines.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Wanted {
    pub rate_per_s: f64,
    /// How long a transaction is open.
    pub open_s: f64,
    pub copies: f64,
    /// Cores of a server and of a broker, as fast as those of the measurement, and the part that may be busy.
    pub server_cores: f64,
    pub broker_cores: f64,
    pub busy: f64,
    pub lanes: f64,
    /// What a broker writes to its disk a second.
    pub broker_bytes_per_s: f64,
    /// Kinds of participants: each has a topic of commands.
    pub participants: f64,
    /// More than what the processors ask for, if given.
    pub brokers_least: f64,
    pub servers_least: f64,
}

/// What it comes to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Size {
    pub wanted: Wanted,
    pub shards: f64,
    pub servers: f64,
    pub brokers: f64,
    pub server_cores_busy: f64,
    pub broker_cores_busy: f64,
    pub participant_cores_busy: f64,
    pub records_per_s: f64,
    pub bytes_per_s: f64,
    /// Of all copies, if nothing is deleted.
    pub disk_bytes_per_day: f64,
    /// Of all topics, without and with copies.
    pub partitions: f64,
    pub replicas_per_broker: f64,
    pub open: f64,
    pub memory_bytes_per_server: f64,
    pub kafka_transactions_per_s: f64,
    pub coordinator_records_per_s: f64,
    pub threads_per_server: f64,
    pub connections_per_server: f64,
    pub connections_per_broker: f64,
    /// After a server has been lost, without the session timeout of the group.
    pub takeover_s: f64,
    /// The parts of what there is at most; the first breaks first.
    pub limits: Vec<Limit>,
}

/// Something of which there is only so much.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limit {
    pub what: &'static str,
    pub used: f64,
    pub at_most: f64,
}

impl Limit {
    pub fn share(&self) -> f64 {
        self.used / self.at_most
    }
}

/// Replicas that a broker is commonly given at most.
const REPLICAS_PER_BROKER_MAX: f64 = 4_000.0;
/// Threads that a container is commonly given at most.
const THREADS_PER_SERVER_MAX: f64 = 10_000.0;
/// Connections for which a broker needs no other settings than files that may be open.
const CONNECTIONS_PER_BROKER_MAX: f64 = 10_000.0;
const SECONDS_PER_DAY: f64 = 86_400.0;

#[expect(clippy::cast_precision_loss, reason = "bounds, far below 2^52")]
pub(crate) fn size(costs: &Costs, structure: &Structure, wanted: &Wanted) -> Size {
    let (settings, pace) = (Settings::default(), Pace::default());
    let rate = wanted.rate_per_s;
    let window_s = (settings.dedupe_window.as_ms() + settings.start_ahead.as_ms()) as f64 / 1e3;
    let (finished_max, open_max) = (settings.finished_max as f64, settings.open_max as f64);
    let open = rate * wanted.open_s;

    // A shard is folded by one thread; it remembers so many that have ended and holds so many that are open.
    let shard_by_core = rate * costs.server_us / 1e6 / wanted.busy;
    let shard_by_endings = rate * window_s / finished_max / wanted.busy;
    let shard_by_open = open / open_max / wanted.busy;
    let shards = shard_by_core.max(shard_by_endings).max(shard_by_open).ceil().max(1.0);

    // The first view is in the servers' costs; each further server has another one, a single thread.
    let view = rate * structure.entries / structure.view_entries_per_s;
    let cores_of = |servers: f64| rate * costs.server_us / 1e6 + (servers - 1.0) * view.min(1.0);
    let room = wanted.server_cores * wanted.busy;
    let mut servers = wanted.servers_least.max(1.0);
    // With a view that takes all there is no number suffices: then the least that would do without views.
    let without_views = (rate * costs.server_us / 1e6 / room).ceil();
    while cores_of(servers) > servers * room && servers < without_views * 10.0 {
        servers += 1.0;
    }

    let broker_cores_busy = rate * costs.broker_us / 1e6;
    let bytes_per_s = rate * costs.bytes;
    let by_cores = broker_cores_busy / (wanted.broker_cores * wanted.busy);
    let by_disk = bytes_per_s * wanted.copies / (wanted.broker_bytes_per_s * wanted.busy);
    // Inbox, state, journal, snapshots, outcomes and the commands of each participant; definitions, dead letters.
    let partitions = shards * (5.0 + wanted.participants) + 2.0;
    let by_replicas = partitions * wanted.copies / REPLICAS_PER_BROKER_MAX;
    let brokers = by_cores.max(by_disk).max(by_replicas).ceil().max(wanted.copies).max(wanted.brokers_least);

    let shards_each = shards / servers;
    let threads_per_server = structure.threads.of(wanted.lanes, shards_each, brokers);
    let connections_per_server = structure.connections.of(wanted.lanes, shards_each, brokers);
    let connections_per_broker = connections_per_server * servers / brokers;
    let kafka_transactions_per_s = shards * 1e3 / pace.checkpoint_every.as_ms() as f64;
    let endings = rate * window_s;
    let replicas_per_broker = partitions * wanted.copies / brokers;
    let limit = |what, used, at_most| Limit { what, used, at_most };
    let mut limits = vec![
        limit("journal entries a second, of a view", rate * structure.entries, structure.view_entries_per_s),
        limit("endings remembered by a shard", endings / shards, finished_max),
        limit("open transactions of a shard", open / shards, open_max),
        limit("threads of a server", threads_per_server, THREADS_PER_SERVER_MAX),
        limit("connections to a broker", connections_per_broker, CONNECTIONS_PER_BROKER_MAX),
        limit("replicas on a broker", replicas_per_broker, REPLICAS_PER_BROKER_MAX),
        limit(
            "bytes a second to a broker's disk",
            bytes_per_s * wanted.copies / brokers,
            wanted.broker_bytes_per_s,
        ),
        limit("cores of a broker", broker_cores_busy / brokers, wanted.broker_cores),
        limit("cores of a server", cores_of(servers) / servers, wanted.server_cores),
    ];
    limits.sort_by(|one, other| other.share().total_cmp(&one.share()));
    Size {
        wanted: *wanted,
        shards,
        servers,
        brokers,
        server_cores_busy: cores_of(servers),
        broker_cores_busy,
        participant_cores_busy: rate * costs.participants_us / 1e6,
        records_per_s: rate * costs.records,
        bytes_per_s,
        disk_bytes_per_day: bytes_per_s * wanted.copies * SECONDS_PER_DAY,
        partitions,
        replicas_per_broker,
        open,
        memory_bytes_per_server: (open * structure.open_bytes + endings * structure.ending_bytes) / servers,
        kafka_transactions_per_s,
        coordinator_records_per_s: kafka_transactions_per_s * structure.coordinator_records,
        threads_per_server,
        connections_per_server,
        connections_per_broker,
        takeover_s: open / servers * structure.takeover_us / 1e6,
        limits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs =
        Costs { server_us: 100.0, participants_us: 25.0, broker_us: 200.0, records: 10.0, bytes: 6_000.0 };
    const PLAIN: Linear = Linear {
        own: 10.0,
        each_lane: 5.0,
        each_shard: 2.0,
        own_each_broker: 1.0,
        lane_each_broker: 0.5,
        shard_each_broker: 0.25,
    };
    const STRUCTURE: Structure = Structure {
        view_entries_per_s: 100_000.0,
        entries: 4.0,
        open_bytes: 3_000.0,
        takeover_us: 20.0,
        ending_bytes: 48.0,
        coordinator_records: 3.0,
        threads: PLAIN,
        connections: PLAIN,
    };
    const WANTED: Wanted = Wanted {
        rate_per_s: 10_000.0,
        open_s: 2.0,
        copies: 3.0,
        server_cores: 8.0,
        broker_cores: 8.0,
        busy: 0.5,
        lanes: 4.0,
        broker_bytes_per_s: 200e6,
        participants: 3.0,
        brokers_least: 0.0,
        servers_least: 0.0,
    };

    fn near(one: f64, other: f64) {
        assert!((one - other).abs() <= 1e-6 * other.abs().max(1.0), "{one} and {other}");
    }

    #[test]
    fn ten_thousand_a_second_by_hand() {
        let size = size(&COSTS, &STRUCTURE, &WANTED);
        // One core for the fold of 10,000 at 100 us, half busy: 2; endings: 10,000 * 960 s / 4,000,000, half full: 5.
        near(size.shards, 5.0);
        // One core, a server has four to give.
        near(size.servers, 1.0);
        near(size.broker_cores_busy, 2.0);
        near(size.brokers, 3.0);
        near(size.records_per_s, 100_000.0);
        near(size.bytes_per_s, 60e6);
        near(size.disk_bytes_per_day, 60e6 * 3.0 * 86_400.0);
        near(size.partitions, 42.0);
        near(size.replicas_per_broker, 42.0);
        near(size.open, 20_000.0);
        near(size.memory_bytes_per_server, 20_000.0 * 3_000.0 + 9_600_000.0 * 48.0);
        near(size.kafka_transactions_per_s, 25.0);
        near(size.coordinator_records_per_s, 75.0);
        // 10 + 2 brokers more, 4 lanes at 5 + 1, 5 shards at 2 + 0.5.
        near(size.threads_per_server, 12.0 + 24.0 + 12.5);
        near(size.connections_per_broker, (12.0 + 24.0 + 12.5) / 3.0);
        near(size.takeover_s, 0.4);
    }

    #[test]
    fn each_server_reads_everything() {
        // 20,000/s are two cores of fold and 0.8 of a view; a server of one busy core holds none beside the view's.
        let wanted = Wanted { rate_per_s: 20_000.0, server_cores: 2.0, ..WANTED };
        let few = size(&COSTS, &STRUCTURE, &wanted);
        // n servers: 2 + 0.8 (n - 1) <= n, so 6.
        near(few.servers, 6.0);
        near(few.server_cores_busy, 6.0);
    }

    #[test]
    fn the_view_breaks_first_and_more_servers_do_not_help() {
        let wanted = Wanted { rate_per_s: 100_000.0, ..WANTED };
        for servers_least in [1.0, 50.0] {
            let size = size(&COSTS, &STRUCTURE, &Wanted { servers_least, ..wanted });
            let first = &size.limits[0];
            assert_eq!(first.what, "journal entries a second, of a view");
            near(first.share(), 4.0);
        }
    }

    #[test]
    fn more_of_everything_is_never_less() {
        let mut before = size(&COSTS, &STRUCTURE, &WANTED);
        for factor in 2_i32..200 {
            let wanted = Wanted { rate_per_s: 10_000.0 * f64::from(factor), ..WANTED };
            let now = size(&COSTS, &STRUCTURE, &wanted);
            assert!(now.shards >= before.shards && now.brokers >= before.brokers, "{factor}");
            assert!(now.servers >= before.servers, "{factor}: {} {}", now.servers, before.servers);
            before = now;
        }
    }
}
