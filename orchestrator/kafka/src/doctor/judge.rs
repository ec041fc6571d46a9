//! From what was seen to what is missing: for which promise, why, and what to do about it.
//!
//! The promises are those of the README: 1 an accepted transaction ends, or is stuck with a reason; 2 effects happen once;
//! 3 what was acknowledged stays; 4 killed processes and zombies break nothing; 5 unfit settings are refused.

use sagamore_schemas::topics::{REPLICATION_LEAST, Severity};
use serde::Serialize;

use super::{Broker, Clock, Facts, Lacking, Probed};
use crate::client::{REQUEST_BYTES_MAX, SESSION_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS};
use crate::topics::Finding;

/// Clocks that differ by this much move deadlines visibly, in milliseconds.
const CLOCK_ADVICE_MS: i64 = 1_000;
/// A record this far ahead of its owner's clock halts its shard (SAG-005), in milliseconds.
const CLOCK_HALTS_MS: i64 = 15 * 60 * 1_000;
/// From here on a transaction of a few steps takes a second, in milliseconds.
const PRODUCE_ADVICE_MS: f64 = 100.0;
/// Offsets of groups: how long a participant that is away keeps its place, in minutes; as long as its commands are kept.
const OFFSETS_RETENTION_LEAST_MINUTES: i64 = 7 * 24 * 60;
/// How long a shard that nobody runs keeps the epoch that fences its former owner, in milliseconds.
const TRANSACTIONAL_ID_LEAST_MS: i64 = 24 * 3_600 * 1_000;
/// The least version of `InitProducerId` that tells a fenced producer from one that must begin anew: Kafka 2.5.
const INIT_PRODUCER_ID_LEAST: i16 = 3;

/// One thing that is not as it should be, and what it breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ailment {
    /// The promises that do not hold with it, by their numbers; none when it is only advice.
    pub promises: Vec<u8>,
    /// What it is.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Everything that is wrong, the worst first.
pub fn judge(facts: &Facts) -> Vec<Ailment> {
    let mut ailments: Vec<Ailment> = facts.topics.iter().cloned().map(of_topic).collect();
    if !facts.is_applied {
        ailments.push(ailment(
            &[],
            Severity::Advice,
            ("topics", "topic", "missing", "present"),
            "no topic of this prefix is there yet: nothing could be said about their settings",
            "sagamore topics apply",
        ));
    }
    if let Some(why) = &facts.unchecked {
        ailments.push(ailment(
            &[],
            Severity::Advice,
            ("topics", "check", why, "an answer of every broker"),
            "a broker did not answer, so the settings of the topics were not looked at",
            "bring it back, then sagamore doctor again",
        ));
    }
    let brokers = facts.brokers.len();
    if brokers < usize::from(REPLICATION_LEAST) {
        ailments.push(ailment(
            &[3],
            Severity::DevelopmentOnly,
            ("cluster", "brokers", &brokers.to_string(), "at least 3"),
            "one lost disk takes acknowledged records with it, or stops the writing",
            "add brokers, then move the partitions with kafka-reassign-partitions",
        ));
    }
    ailments.extend(facts.brokers.iter().flat_map(of_broker));
    ailments.extend(facts.lacking.iter().map(of_partition));
    ailments.extend(facts.left_behind.iter().map(|topic| {
        ailment(
            &[],
            Severity::Advice,
            (topic, "topic", "present", "absent"),
            "a doctor was killed before it could remove it, or is at work now",
            &format!("kafka-topics --delete --topic {topic}"),
        )
    }));
    match &facts.probe {
        Some(Ok(probed)) => ailments.extend(of_probe(probed)),
        Some(Err(why)) => ailments.push(ailment(
            &[1],
            Severity::BreaksAPromise,
            ("cluster", "probe", why, "records can be written and read"),
            "what a server needs could not be done here",
            "see what the broker says; with ACLs: Create, Delete, Read and Write on topics of the prefix",
        )),
        None => {}
    }
    ailments.sort_by_key(|ailment| ailment.finding.severity);
    ailments
}

fn ailment(
    promises: &[u8],
    severity: Severity,
    (place, setting, value, wanted): (&str, &str, &str, &str),
    reason: &str,
    remedy: &str,
) -> Ailment {
    let finding = Finding {
        topic: place.to_owned(),
        setting: setting.to_owned(),
        value: value.to_owned(),
        wanted: wanted.to_owned(),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
        severity,
    };
    Ailment { promises: promises.to_vec(), finding }
}

/// What `topics check` has found, with the promise that it breaks.
fn of_topic(finding: Finding) -> Ailment {
    let promises: &[u8] = match (finding.severity, finding.setting.as_str()) {
        (Severity::Advice, _) => &[],
        (_, "partitions" | "cleanup.policy") => &[1, 3, 4],
        (_, "replication" | "min.insync.replicas" | "unclean.leader.election.enable" | "retention.ms") => {
            &[3]
        }
        (_, "retention.bytes") => &[3],
        (_, "min.compaction.lag.ms" | "delete.retention.ms") => &[4],
        (_, "instance") => &[2, 4],
        (_, setting) if setting.starts_with("transaction.") => &[4],
        // Timestamps, sizes, topics that are missing: something does not come to its end.
        _ => &[1],
    };
    Ailment { promises: promises.to_vec(), finding }
}

fn of_broker(broker: &Broker) -> Vec<Ailment> {
    let place = format!("broker {}", broker.id);
    let value = |key: &str| broker.settings.get(key).map(String::as_str);
    let number = |key: &str| value(key).and_then(|value| value.parse::<i64>().ok());
    let told = |key: &str| value(key).unwrap_or("unknown").to_owned();
    if broker.is_silent {
        return vec![ailment(
            &[],
            Severity::Advice,
            (&place, "answer", "none", "an answer"),
            "it may have gone, or cannot be reached from here; its settings were not looked at",
            "bring it back, or look at the network between; then ask again",
        )];
    }
    let mut ailments = Vec::new();
    let mut add = |is_wrong: bool, promises: &[u8], severity, key: &str, wanted: &str, reason: &str| {
        if is_wrong {
            let set =
                format!("set {key} in the broker's properties, or with kafka-configs --entity-type brokers");
            ailments.push(ailment(promises, severity, (&place, key, &told(key), wanted), reason, &set));
        }
    };
    let below = |key: &str, least: i64| number(key).is_some_and(|value| value < least);
    let session = i64::from(SESSION_TIMEOUT_MS);
    add(
        number("group.min.session.timeout.ms").is_some_and(|least| least > session),
        &[1],
        Severity::BreaksAPromise,
        "group.min.session.timeout.ms",
        &format!("at most {session}"),
        "members with a shorter session are not let in: no shard would run",
    );
    add(
        below("group.max.session.timeout.ms", session),
        &[1],
        Severity::BreaksAPromise,
        "group.max.session.timeout.ms",
        &format!("at least {session}"),
        "members with a longer session are not let in: no shard would run",
    );
    add(
        below("transaction.max.timeout.ms", i64::from(TRANSACTION_TIMEOUT_MS)),
        &[1],
        Severity::BreaksAPromise,
        "transaction.max.timeout.ms",
        &format!("at least {TRANSACTION_TIMEOUT_MS}"),
        "checkpoints ask for this long, and no shard could be taken over",
    );
    add(
        below("socket.request.max.bytes", i64::from(REQUEST_BYTES_MAX)),
        &[1],
        Severity::BreaksAPromise,
        "socket.request.max.bytes",
        &format!("at least {REQUEST_BYTES_MAX}"),
        "the broker drops the connection of a checkpoint with large transactions, again and again",
    );
    add(
        value("log.cleaner.enable") == Some("false"),
        &[1],
        Severity::BreaksAPromise,
        "log.cleaner.enable",
        "true",
        "the state is never compacted: each takeover takes longer than the one before",
    );
    add(
        below("transactional.id.expiration.ms", TRANSACTIONAL_ID_LEAST_MS),
        &[4],
        Severity::BreaksAPromise,
        "transactional.id.expiration.ms",
        &format!("at least {TRANSACTIONAL_ID_LEAST_MS}"),
        "the broker forgets that a former owner was fenced, and he could write again",
    );
    add(
        value("auto.create.topics.enable") == Some("true"),
        &[],
        Severity::Advice,
        "auto.create.topics.enable",
        "false",
        "a misspelt topic is made with none of the settings, and its commands wait instead of being undeliverable",
    );
    add(
        below("offsets.retention.minutes", OFFSETS_RETENTION_LEAST_MINUTES),
        &[],
        Severity::Advice,
        "offsets.retention.minutes",
        &format!("at least {OFFSETS_RETENTION_LEAST_MINUTES}"),
        "a participant that is away for longer reads all its commands again",
    );
    add(
        below("offsets.topic.replication.factor", i64::from(REPLICATION_LEAST)),
        &[1],
        Severity::DevelopmentOnly,
        "offsets.topic.replication.factor",
        "at least 3",
        "the groups of lanes and participants are lost with one broker",
    );
    ailments
}

fn of_partition(lacking: &Lacking) -> Ailment {
    let Lacking { topic, partition, copies, in_sync, least, has_leader } = lacking;
    let place = format!("{topic}/{partition}");
    if !has_leader {
        return ailment(
            &[1],
            Severity::BreaksAPromise,
            (&place, "leader", "none", "a broker that is in sync"),
            "nobody can write to it or read from it now; nothing is lost",
            "bring its brokers back; kafka-topics --describe names them. Never elect an unclean leader",
        );
    }
    let (promises, severity, reason): (&[u8], _, _) = if in_sync < least {
        (&[1], Severity::BreaksAPromise, "it takes no record now; nothing is lost, and nothing goes on")
    } else {
        (&[], Severity::Advice, "a copy is behind: one more failure may stop it")
    };
    ailment(
        promises,
        severity,
        (&place, "copies in sync", &format!("{in_sync} of {copies}"), &format!("{copies} of {copies}")),
        reason,
        "bring the missing broker back, or move the copy with kafka-reassign-partitions",
    )
}

fn of_probe(probed: &Probed) -> Vec<Ailment> {
    let mut ailments: Vec<Ailment> = probed.clocks.iter().filter_map(of_clock).collect();
    let transactions = &probed.transactions;
    let mut broken = |value: &str, wanted: &str, reason: &str| {
        ailments.push(ailment(
            &[4],
            Severity::BreaksAPromise,
            ("cluster", "Kafka transactions", value, wanted),
            reason,
            "see the brokers' logs and __transaction_state; with ACLs: Write and Describe on transactional ids of the prefix",
        ));
    };
    if let Some(failed) = &transactions.failed {
        broken(
            failed,
            "begin, commit, abort and fence",
            "checkpoints are Kafka transactions: no shard would run",
        );
    } else {
        if !transactions.shows_committed_only {
            broken(
                "a committed reader saw something else",
                "what was committed, and nothing else",
                "a takeover would read a checkpoint that was never finished",
            );
        }
        if !transactions.fences {
            broken(
                "a former owner could commit after his successor had begun",
                "it is fenced",
                "a zombie could write over its successor's state",
            );
        }
    }
    let init = probed.requests.get("InitProducerId").copied();
    if let Some(newest) = init.filter(|newest| *newest < INIT_PRODUCER_ID_LEAST) {
        ailments.push(ailment(
            &[4],
            Severity::BreaksAPromise,
            ("cluster", "InitProducerId", &newest.to_string(), "version 3 or newer"),
            "brokers before Kafka 2.5 do not tell a producer that was fenced from one that must begin anew",
            "newer brokers",
        ));
    }
    if probed.produce.p99_ms > PRODUCE_ADVICE_MS {
        ailments.push(ailment(
            &[],
            Severity::Advice,
            ("cluster", "produce p99", &format!("{:.1} ms", probed.produce.p99_ms), "at most 100 ms"),
            "each step of a transaction waits for two such records, one after the other",
            "look at the brokers' disks, at acks of slow followers, and at the way between",
        ));
    }
    ailments
}

fn of_clock((broker, clock): (&i32, &Clock)) -> Option<Ailment> {
    let off = (clock.ahead_ms.abs() - clock.uncertain_ms).max(0);
    if off < CLOCK_ADVICE_MS {
        return None;
    }
    // Only a broker that is ahead halts shards; one that is behind makes everything later.
    let halts = clock.ahead_ms > 0 && off >= CLOCK_HALTS_MS;
    let (promises, severity): (&[u8], _) =
        if halts { (&[1], Severity::BreaksAPromise) } else { (&[], Severity::Advice) };
    Some(ailment(
        promises,
        severity,
        (
            &format!("broker {broker}"),
            "clock",
            &format!("{} ms ahead of this machine", clock.ahead_ms),
            "within a second",
        ),
        "time is the broker's timestamp: deadlines jump when another broker leads, and a quarter of an hour ahead halts shards (SAG-005)",
        "run a time service (chrony, ntpd) on the brokers and here",
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Latency, TransactionsProbed};
    use super::*;

    fn broker(id: i32, settings: &[(&str, &str)]) -> Broker {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Broker { id, settings, ..Broker::default() }
    }

    fn probed() -> Probed {
        let transactions = TransactionsProbed { failed: None, shows_committed_only: true, fences: true };
        let latency = Latency { p50_ms: 1.0, p99_ms: 2.0 };
        Probed {
            produce: latency,
            fetch: latency,
            clocks: [(1, Clock { ahead_ms: 900, uncertain_ms: 1 })].into(),
            transactions,
            requests: [("InitProducerId".to_owned(), 3)].into(),
        }
    }

    fn fit() -> Facts {
        Facts {
            brokers: (1..=3).map(|id| broker(id, &[("group.min.session.timeout.ms", "6000")])).collect(),
            is_applied: true,
            probe: Some(Ok(probed())),
            ..Facts::default()
        }
    }

    /// What the judge says of a cluster that is fit, but for this.
    fn but(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = fit();
        change(&mut facts);
        let told = |Ailment { promises, finding }: Ailment| {
            format!(
                "{} {}={} {promises:?} {:?}",
                finding.topic, finding.setting, finding.value, finding.severity
            )
        };
        judge(&facts).into_iter().map(told).collect()
    }

    #[test]
    fn a_fit_cluster_lacks_nothing() {
        assert_eq!(but(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn settings_of_brokers_at_their_edges() {
        for (key, good, bad, then) in [
            ("group.min.session.timeout.ms", "6000", "6001", "[1] BreaksAPromise"),
            ("group.max.session.timeout.ms", "6000", "5999", "[1] BreaksAPromise"),
            ("transaction.max.timeout.ms", "10000", "9999", "[1] BreaksAPromise"),
            ("socket.request.max.bytes", "8388608", "8388607", "[1] BreaksAPromise"),
            ("log.cleaner.enable", "true", "false", "[1] BreaksAPromise"),
            ("transactional.id.expiration.ms", "86400000", "86399999", "[4] BreaksAPromise"),
            ("auto.create.topics.enable", "false", "true", "[] Advice"),
            ("offsets.retention.minutes", "10080", "10079", "[] Advice"),
            ("offsets.topic.replication.factor", "3", "2", "[1] DevelopmentOnly"),
        ] {
            assert!(but(|facts| facts.brokers[1] = broker(2, &[(key, good)])).is_empty(), "{key}={good}");
            let told = but(|facts| facts.brokers[1] = broker(2, &[(key, bad)]));
            assert_eq!(told, [format!("broker 2 {key}={bad} {then}")]);
        }
    }

    #[test]
    fn what_is_missing_now() {
        let lacking = |in_sync, has_leader| Lacking {
            topic: "s.inbox".into(),
            partition: 2,
            copies: 3,
            in_sync,
            least: 2,
            has_leader,
        };
        assert_eq!(
            but(|facts| facts.lacking = vec![lacking(2, true), lacking(1, true), lacking(0, false)]),
            [
                "s.inbox/2 copies in sync=1 of 3 [1] BreaksAPromise",
                "s.inbox/2 leader=none [1] BreaksAPromise",
                "s.inbox/2 copies in sync=2 of 3 [] Advice",
            ]
        );
        let silent = Broker { id: 2, is_silent: true, ..Broker::default() };
        assert_eq!(but(|facts| facts.brokers[1] = silent), ["broker 2 answer=none [] Advice"]);
        assert_eq!(
            but(|facts| facts.unchecked = Some("no answer".into())),
            ["topics check=no answer [] Advice"]
        );
        assert_eq!(but(|facts| facts.is_applied = false), ["topics topic=missing [] Advice"]);
        assert_eq!(but(|facts| facts.brokers.truncate(1)), ["cluster brokers=1 [3] DevelopmentOnly"]);
        assert_eq!(
            but(|facts| facts.left_behind = vec!["s.doctor-1".into()]),
            ["s.doctor-1 topic=present [] Advice"]
        );
    }

    #[test]
    fn what_the_probe_has_seen() {
        let probe = |change: &dyn Fn(&mut Probed)| {
            let mut probed = probed();
            change(&mut probed);
            but(|facts| facts.probe = Some(Ok(probed)))
        };
        let clock = |ahead_ms, uncertain_ms| {
            probe(&|probed| probed.clocks = [(1, Clock { ahead_ms, uncertain_ms })].into())
        };
        assert!(clock(1_500, 501).is_empty(), "it may be the way there");
        assert_eq!(clock(-2_000, 1), ["broker 1 clock=-2000 ms ahead of this machine [] Advice"]);
        assert_eq!(clock(900_001, 1), ["broker 1 clock=900001 ms ahead of this machine [1] BreaksAPromise"]);
        assert_eq!(clock(-900_001, 1).len(), 1);
        for (change, count) in [
            ((|probed| probed.transactions.fences = false) as fn(&mut Probed), 1),
            (|probed| probed.transactions.shows_committed_only = false, 1),
            (|probed| probed.transactions.failed = Some("init_transactions: no".into()), 1),
            (|probed| probed.requests = BTreeMap::from([("InitProducerId".to_owned(), 2)]), 1),
        ] {
            let told = probe(&change);
            assert_eq!(told.len(), count, "{told:?}");
            assert!(told[0].ends_with("[4] BreaksAPromise"), "{told:?}");
        }
        assert_eq!(
            probe(&|probed| probed.produce.p99_ms = 100.1),
            ["cluster produce p99=100.1 ms [] Advice"]
        );
        let told = but(|facts| facts.probe = Some(Err("not allowed".into())));
        assert_eq!(told, ["cluster probe=not allowed [1] BreaksAPromise"]);
    }
}
