//! The floor: the records of an order saga through bare rdkafka, with no envelope, no logic and no answer to anybody.
//!
//! ```text
//!   driver ─▶ inbox ─▶ orchestrator ─▶ reserve, charge, book ─▶ participants ─▶ inbox …  ─▶ outcome ─▶ driver
//!                          └─ every 200 ms, in a Kafka transaction ─▶ state
//! ```
//! A record is 200 bytes, of which the first says how far the saga is; the key is the saga. It says what Kafka and
//! rdkafka can do on this machine with the same number of hops, so that a share of it holds on any machine. A saga is
//! four inbox records, three commands, one outcome; a state record only for what is open at a checkpoint.

mod clients;
mod orchestrator;
mod participants;

use std::error::Error;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use sagamore_schemas::wire::OutcomeKind;

pub(crate) use orchestrator::orchestrator;
pub(crate) use participants::participants;

use crate::load::{Ended, Ends, Seen, Starts};
use crate::processes::Role;
use crate::system::{
    CountedTopic, Processes, RunError, Site, System, Wanted, create_topics, read_from_end, send,
};
use clients::{Names, part_of};

const SAGA_BYTES: usize = 200;
const READY: Duration = Duration::from_mins(1);
/// Longer than its checkpoints are apart, twice.
const SETTLED: Duration = Duration::from_millis(500);
/// Keys are twelve digits, of which these are the saga's.
const SAGAS_PER_RUN: u64 = 1_000_000_000;

pub(crate) struct Floor {
    orchestrator: Role,
    participants: Role,
    names: Names,
    producer: ThreadedProducer<DefaultProducerContext>,
    outcomes: Outcomes,
    topics: Vec<CountedTopic>,
}

impl Floor {
    pub fn build(site: &Site, linger_ms: u32) -> Result<Self, Box<dyn Error>> {
        let tag = format!("floor-{}", &uuid::Uuid::new_v4().to_string()[..8]);
        let names = Names::new(&tag, i32::from(site.partitions.get()));
        let wanted: Vec<Wanted> = names
            .all()
            .map(|(label, topic)| Wanted {
                topic: topic.clone(),
                partitions: site.partitions,
                settings: if label == "state" {
                    vec![("cleanup.policy", "compact".to_owned())]
                } else {
                    Vec::new()
                },
            })
            .collect();
        create_topics(site, &wanted)?;
        let topics = names.all().map(|(label, topic)| CountedTopic {
            label,
            topic: topic.clone(),
            partitions: names.partitions,
        });
        let topics = topics.collect();
        let (partitions, linger) = (names.partitions.to_string(), linger_ms.to_string());
        let arguments = ["--prefix", tag.as_str(), "--partitions", &partitions, "--floor-linger-ms", &linger];
        let consumer = read_from_end(&site.kafka, &names.outcome, names.partitions)?;
        let mut floor = Self {
            orchestrator: Role::spawn("floor-orchestrator", &site.kafka, &arguments)?,
            participants: Role::spawn("floor-participants", &site.kafka, &arguments)?,
            producer: clients::producer(site.kafka.bootstrap(), linger_ms)
                .create_with_context(DefaultProducerContext)?,
            outcomes: Outcomes { consumer, run: 0 },
            names,
            topics,
        };
        floor.warm_up()?;
        Ok(floor)
    }

    fn warm_up(&mut self) -> Result<(), Box<dyn Error>> {
        const SAGAS: u64 = 100;
        let mut starts = self.starts(0);
        (0..SAGAS).try_for_each(|index| starts.start(index))?;
        let begun = Instant::now();
        let mut ended = 0;
        while ended < SAGAS {
            ended += u64::from(self.ends(0).next(Duration::from_millis(20))?.is_some());
            if begun.elapsed() > READY {
                return Err(format!("the floor ended {ended} of {SAGAS} sagas within 60 s").into());
            }
        }
        Ok(())
    }
}

impl System for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn starts(&self, run: u32) -> Box<dyn Starts> {
        let mut saga = vec![b'x'; SAGA_BYTES];
        saga[0] = 0;
        Box::new(Starter { producer: self.producer.clone(), names: self.names.clone(), saga, run })
    }

    fn ends(&mut self, run: u32) -> &mut dyn Ends {
        self.outcomes.run = run;
        &mut self.outcomes
    }

    fn processes(&self) -> Processes {
        Processes::on_broker(self.orchestrator.id(), self.participants.id())
    }

    fn topics(&self) -> &[CountedTopic] {
        &self.topics
    }

    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        std::thread::sleep(SETTLED);
        Ok(())
    }

    /// It remembers nothing, so there is no more to look at than that everything ended.
    fn check(&mut self, _: u32, seen: &Seen) -> Result<(), RunError> {
        let open = seen.outcomes.iter().filter(|outcome| outcome.is_none()).count();
        if open > 0 || seen.outcomes.is_empty() {
            let error = format!("the floor: {open} of {} sagas have not ended", seen.outcomes.len());
            return Err(RunError::Failed(error.into()));
        }
        Ok(())
    }
}

struct Starter {
    producer: ThreadedProducer<DefaultProducerContext>,
    names: Names,
    saga: Vec<u8>,
    run: u32,
}

impl Starts for Starter {
    fn start(&mut self, index: u64) -> Result<(), String> {
        let key = format!("{:012}", u64::from(self.run) * SAGAS_PER_RUN + index);
        let record = BaseRecord::to(&self.names.inbox)
            .partition(part_of(key.as_bytes(), self.names.partitions))
            .key(key.as_bytes())
            .payload(self.saga.as_slice());
        send(&self.producer, record).map_err(|error| error.to_string())
    }
}

struct Outcomes {
    consumer: BaseConsumer,
    run: u32,
}

impl Ends for Outcomes {
    fn next(&mut self, patience: Duration) -> Result<Option<Ended>, Box<dyn Error>> {
        let Some(message) = self.consumer.poll(patience) else { return Ok(None) };
        let message = message?;
        let key: u64 = std::str::from_utf8(message.key().unwrap_or_default())?.parse()?;
        let of_run = key / SAGAS_PER_RUN == u64::from(self.run);
        Ok(of_run.then_some(Ended { index: key % SAGAS_PER_RUN, told: OutcomeKind::Committed }))
    }
}
