//! What a run has cost: processor time by process, records and bytes by topic, memory.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Serialize;

use crate::processes::{processor_s, processor_with_children_s};
use crate::system::{CountedTopic, Keeps, Processes};

/// Processor seconds so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    orchestrator: f64,
    saga: Option<f64>,
    participants: f64,
    driver: f64,
    broker: Option<f64>,
}

impl Cpu {
    pub fn now(processes: Processes, brokers: &[u32]) -> Result<Self, Box<dyn Error>> {
        let other_driver = processes.driver.map(processor_s).transpose()?;
        Ok(Self {
            orchestrator: processor_s(processes.orchestrator)?,
            saga: processes.saga.map(processor_s).transpose()?,
            participants: processor_s(processes.participants)?,
            driver: processor_s(std::process::id())? + other_driver.unwrap_or_default(),
            broker: match processes.keeps {
                Keeps::Broker => all(brokers)?,
                Keeps::Database(process) => Some(processor_with_children_s(process)?),
                Keeps::Orchestrator => None,
            },
        })
    }

    /// Microseconds a transaction since `before`.
    pub fn since(&self, before: &Self, transactions: f64) -> CpuUs {
        let each = |now: f64, before: f64| (now - before) * 1e6 / transactions;
        let some = |now: Option<f64>, before| now.zip(before).map(|(now, before)| each(now, before));
        CpuUs {
            orchestrator: each(self.orchestrator, before.orchestrator),
            saga: some(self.saga, before.saga),
            participants: each(self.participants, before.participants),
            driver: each(self.driver, before.driver),
            broker: some(self.broker, before.broker),
        }
    }
}

/// `None` when there is none to look at.
fn all(processes: &[u32]) -> Result<Option<f64>, Box<dyn Error>> {
    let spent = processes.iter().map(|process| processor_s(*process)).collect::<Result<Vec<_>, _>>()?;
    Ok((!spent.is_empty()).then(|| spent.iter().sum()))
}

/// Processor microseconds of one transaction.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CpuUs {
    pub orchestrator: f64,
    /// The user's code of the saga, where that is a process of its own.
    pub saga: Option<f64>,
    pub participants: f64,
    pub driver: f64,
    /// Or the database in its place.
    pub broker: Option<f64>,
}

impl CpuUs {
    /// Of the system, without what drives it.
    pub fn system(&self) -> f64 {
        self.orchestrator
            + self.saga.unwrap_or_default()
            + self.participants
            + self.broker.unwrap_or_default()
    }
}

/// Records and bytes in the counted topics so far.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    records: BTreeMap<&'static str, i64>,
    bytes: Option<BTreeMap<&'static str, u64>>,
}

/// What one transaction left in the topics. Ends of Kafka transactions count as records.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct VolumeEach {
    pub records: BTreeMap<&'static str, f64>,
    /// Of the broker's log files; `None` for a broker that is not ours.
    pub bytes: Option<BTreeMap<&'static str, f64>>,
}

impl VolumeEach {
    /// `None` for a system without topics.
    pub fn records_total(&self) -> Option<f64> {
        (!self.records.is_empty()).then(|| self.records.values().sum())
    }

    pub fn bytes_total(&self) -> Option<f64> {
        self.bytes.as_ref().map(|bytes| bytes.values().sum())
    }
}

impl Volume {
    pub fn now(
        consumer: &BaseConsumer,
        topics: &[CountedTopic],
        data: Option<&Path>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut records: BTreeMap<&'static str, i64> = BTreeMap::new();
        for CountedTopic { label, topic, partitions } in topics {
            for partition in 0..*partitions {
                let (_, end) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10))?;
                *records.entry(label).or_default() += end;
            }
        }
        let data = data.filter(|_| !topics.is_empty());
        Ok(Self { records, bytes: data.map(|data| log_bytes(data, topics)).transpose()? })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    pub fn since(&self, before: &Self, transactions: f64) -> VolumeEach {
        let records = self.records.iter().map(|(label, end)| {
            let begin = before.records.get(label).copied().unwrap_or_default();
            (*label, (end - begin) as f64 / transactions)
        });
        let bytes = self.bytes.as_ref().zip(before.bytes.as_ref()).map(|(now, before)| {
            let each = now.iter().map(|(label, bytes)| {
                let begin = before.get(label).copied().unwrap_or_default();
                (*label, bytes.saturating_sub(begin) as f64 / transactions)
            });
            each.collect()
        });
        VolumeEach { records: records.collect(), bytes }
    }
}

/// Bytes of the log files of these topics, somewhere below `data`.
fn log_bytes(data: &Path, topics: &[CountedTopic]) -> std::io::Result<BTreeMap<&'static str, u64>> {
    let mut labels: BTreeMap<String, &'static str> = BTreeMap::new();
    for CountedTopic { label, topic, partitions } in topics {
        labels.extend((0..*partitions).map(|partition| (format!("{topic}-{partition}"), *label)));
    }
    let mut bytes = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let label = labels.get(name);
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            // A segment may go while this looks.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if let Some(label) = label
                && entry.path().extension().is_some_and(|extension| extension == "log")
            {
                *bytes.entry(*label).or_default() += metadata.len();
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_of_the_counted_topics_count() {
        let data = tempfile::tempdir().unwrap();
        let write = |folder: &str, file: &str, bytes: usize| {
            let folder = data.path().join("broker-0").join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(file), vec![0; bytes]).unwrap();
        };
        write("a.inbox-0", "0.log", 100);
        write("a.inbox-1", "0.log", 10);
        write("a.inbox-1", "5.log", 1);
        write("a.inbox-1", "0.index", 1000);
        write("a.inbox-2", "0.log", 1000);
        write("b.inbox-0", "0.log", 1000);
        let topics = [CountedTopic { label: "inbox", topic: "a.inbox".to_owned(), partitions: 2 }];
        assert_eq!(log_bytes(data.path(), &topics).unwrap(), BTreeMap::from([("inbox", 111)]));
    }
}
