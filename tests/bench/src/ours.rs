//! Sagamore as a system under test: a server and participants in processes of their own, driven over Kafka.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use sagamore_kafka::topics::{Layout, apply};
use sagamore_local_kafka::KAFKA_VERSION;
use sagamore_schemas::home::home;
use sagamore_schemas::ids::{Name, Time, TransactionId};
use sagamore_schemas::topics::{Prefix, Topic, command_topic, command_topic_settings};
use sagamore_schemas::wire::{DefinitionRef, Payload, Start, read_outcome};

use crate::figures::OURS;
use crate::gate::{self, Evidence};
use crate::load::{Ended, Ends, Seen, Starts};
use crate::peer::About;
use crate::processes::{Role, kill};
use crate::roles::{StoreKind, parse_transaction_id, read_ledger, transaction_id};
use crate::system::{
    CountedTopic, Durability, Processes, RunError, Site, System, Wanted, create_topics, read_from_end, send,
};
use sagamore_bench::workload::{Workload, order_data, participant_names};

const READY: Duration = Duration::from_mins(1);
/// The server tells its numbers four times a second: two looks after the last end are a fresh one.
const REPORTED: Duration = Duration::from_millis(500);
/// The run of the transactions that warm a new installation up.
const FIRST_RUN: u32 = 0;

/// How an installation is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub workload: Workload,
    pub store: StoreKind,
    pub lanes: usize,
}

pub(crate) struct Ours {
    site: Site,
    prefix: Prefix,
    plan: Plan,
    server: Role,
    /// Where the server's API listens, once it has said so.
    api: Option<String>,
    participants: Option<Role>,
    producer: ThreadedProducer<DefaultProducerContext>,
    outcomes: Outcomes,
    topics: Vec<CountedTopic>,
    scratch: tempfile::TempDir,
}

impl Ours {
    /// Topics, a server, participants, and one transaction of each shard.
    pub fn build(site: &Site, plan: Plan) -> Result<Self, Box<dyn Error>> {
        let mut ours = Self::build_without_participants(site, plan)?;
        ours.attach_participants()?;
        ours.warm_up()?;
        Ok(ours)
    }

    /// The same with nobody who answers commands.
    pub fn build_without_participants(site: &Site, plan: Plan) -> Result<Self, Box<dyn Error>> {
        let prefix: Prefix = format!("bench-{}", &uuid::Uuid::new_v4().to_string()[..8]).parse()?;
        let (wanted, topics) = topics(site, &prefix);
        create_topics(site, &wanted)?;
        let layout =
            Layout { prefix: prefix.clone(), partitions: site.partitions, replication: site.replication };
        apply(&site.kafka, &layout)?;
        let producer: ThreadedProducer<DefaultProducerContext> =
            site.kafka.client_producer("bench").create()?;
        let definition = Topic::Definitions.name(&prefix);
        let key = format!("{}@1", plan.workload.as_str());
        send(
            &producer,
            BaseRecord::to(&definition).key(key.as_bytes()).payload(plan.workload.definition().as_bytes()),
        )?;
        let partitions = i32::from(site.partitions.get());
        let consumer = read_from_end(&site.kafka, &Topic::Outcomes.name(&prefix), partitions)?;
        let server = server(site, &prefix, plan.lanes)?;
        let mut ours = Self {
            site: site.clone(),
            prefix,
            plan,
            server,
            api: None,
            participants: None,
            producer,
            outcomes: Outcomes { consumer, run: FIRST_RUN },
            topics,
            scratch: tempfile::tempdir()?,
        };
        ours.wait_until(READY, |metrics| metrics.sum("sagamore_shard_state") >= f64::from(partitions))?;
        Ok(ours)
    }

    pub fn about(&self) -> About {
        let kept = match self.site.durability {
            Durability::C => {
                "Kafka's default: acknowledged from memory, the replicas keep what is not on a disk yet; here there is one copy, and a crash of the machine loses the last writes"
            }
            Durability::P => "flush.messages=1: on the disk before it is acknowledged",
        };
        let settings = format!(
            "{} copies, {} shards, {} lanes, checkpoints every 200 ms, endings kept 15 min",
            self.site.replication, self.site.partitions, self.plan.lanes
        );
        let told = [
            ("server", format!("sagamore {}, Kafka {KAFKA_VERSION}", env!("CARGO_PKG_VERSION"))),
            ("settings", settings),
            ("durability", kept.to_owned()),
        ];
        About {
            system: OURS,
            durability: self.site.durability,
            told: told.map(|(what, words)| (what.to_owned(), words)).into(),
        }
    }

    pub fn attach_participants(&mut self) -> Result<(), Box<dyn Error>> {
        let store = clap::ValueEnum::to_possible_value(&self.plan.store).ok_or("a store without a name")?;
        let mut arguments = vec![
            "--prefix",
            self.prefix.as_str(),
            "--workload",
            self.plan.workload.as_str(),
            "--store",
            store.get_name(),
        ];
        arguments.extend(self.site.overrides.iter().flat_map(|given| ["--kafka-config", given]));
        self.participants = Some(Role::spawn("participants", &self.site.kafka, &arguments)?);
        Ok(())
    }

    /// What kills the server while its load is being driven; afterwards [`Self::succeed`].
    pub fn successor(&self) -> Successor {
        Successor {
            killed: self.server.id(),
            site: self.site.clone(),
            prefix: self.prefix.clone(),
            lanes: self.plan.lanes,
            server: None,
        }
    }

    /// The successor's server is the one from now on.
    pub fn succeed(&mut self, successor: Successor) {
        if let Some(server) = successor.server {
            self.server = server;
            self.api = None;
        }
    }

    pub fn server_id(&self) -> u32 {
        self.server.id()
    }

    /// Until every shard has taken the definition: a start that comes earlier is refused.
    pub fn wait_until_defined(&mut self) -> Result<(), Box<dyn Error>> {
        let partitions = f64::from(self.site.partitions.get());
        let inputs = |metrics: &Metrics| metrics.sum("sagamore_inputs_total");
        self.wait_until(READY, |metrics| inputs(metrics) >= partitions)?;
        Ok(())
    }

    /// One transaction of each shard until it has ended: definition, group and connections are there then.
    fn warm_up(&mut self) -> Result<(), Box<dyn Error>> {
        let partitions = i32::from(self.site.partitions.get());
        let mut missing: Vec<i32> = (0..partitions).collect();
        let begun = Instant::now();
        let mut index = 0;
        while let Some(partition) = missing.first().copied() {
            if begun.elapsed() > READY {
                return Err(format!(
                    "shard {partition} did not end a transaction within {} s",
                    READY.as_secs()
                )
                .into());
            }
            let id: TransactionId = transaction_id(FIRST_RUN, index).parse()?;
            let asked = index;
            index += 1;
            if home(&id, partitions).0 != partition {
                continue;
            }
            self.starts(FIRST_RUN).start(asked)?;
            let patience = Instant::now() + Duration::from_secs(2);
            while Instant::now() < patience {
                let ended = self.ends(FIRST_RUN).next(Duration::from_millis(20))?;
                if ended.is_some_and(|ended| ended.index == asked) {
                    // A start before the definition is there is refused: then the next one is tried.
                    if ended.is_some_and(|ended| self.plan.workload.allows(asked, ended.told)) {
                        missing.remove(0);
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks at the server's metrics until they are as wanted.
    pub fn wait_until(
        &mut self,
        patience: Duration,
        is_so: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics, Box<dyn Error>> {
        let begun = Instant::now();
        loop {
            let metrics = self.metrics()?;
            if is_so(&metrics) {
                return Ok(metrics);
            }
            if begun.elapsed() > patience {
                return Err(
                    format!("the server is not where it should be within {} s", patience.as_secs()).into()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn metrics(&mut self) -> Result<Metrics, Box<dyn Error>> {
        let api = match &self.api {
            Some(api) => api.clone(),
            None => self.api.insert(self.server.line()?).clone(),
        };
        let mut stream = TcpStream::connect(&api)?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {api}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(Metrics(answer))
    }
}

/// Another server in the place of one that is killed.
pub(crate) struct Successor {
    killed: u32,
    site: Site,
    prefix: Prefix,
    lanes: usize,
    server: Option<Role>,
}

impl Successor {
    /// `kill -9`, and the other one at once.
    pub fn kill_and_replace(&mut self) -> Result<(), Box<dyn Error>> {
        kill(self.killed)?;
        self.server = Some(server(&self.site, &self.prefix, self.lanes)?);
        Ok(())
    }
}

fn server(site: &Site, prefix: &Prefix, lanes: usize) -> Result<Role, Box<dyn Error>> {
    let lanes = lanes.to_string();
    let mut arguments = vec!["--prefix", prefix.as_str(), "--lanes", &lanes];
    arguments.extend(site.overrides.iter().flat_map(|given| ["--kafka-config", given]));
    Role::spawn("server", &site.kafka, &arguments)
}

fn topics(site: &Site, prefix: &Prefix) -> (Vec<Wanted>, Vec<CountedTopic>) {
    let (mut wanted, mut counted) = (Vec::new(), Vec::new());
    for topic in Topic::ALL {
        let settings =
            topic.settings().into_iter().map(|setting| (setting.key, setting.value_for(site.replication)));
        let partitions = topic.partitions(site.partitions);
        wanted.push(Wanted { topic: topic.name(prefix), partitions, settings: settings.collect() });
        if !matches!(topic, Topic::Definitions | Topic::Snapshots) {
            let partitions = i32::from(partitions.get());
            counted.push(CountedTopic { label: topic.suffix(), topic: topic.name(prefix), partitions });
        }
    }
    for name in participant_names() {
        let settings = command_topic_settings();
        let settings =
            settings.into_iter().map(|setting| (setting.key, setting.value_for(site.replication))).collect();
        let topic = command_topic(prefix, &name);
        wanted.push(Wanted { topic: topic.clone(), partitions: site.partitions, settings });
        let partitions = i32::from(site.partitions.get());
        counted.push(CountedTopic { label: "commands", topic, partitions });
    }
    (wanted, counted)
}

/// What a server counts, in Prometheus' text format.
pub(crate) struct Metrics(String);

impl Metrics {
    /// All samples of this name, whatever their labels.
    pub fn sum(&self, name: &str) -> f64 {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let values = samples
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter_map(|rest| rest.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()));
        values.sum()
    }
}

impl System for Ours {
    fn name(&self) -> &'static str {
        OURS
    }

    fn starts(&self, run: u32) -> Box<dyn Starts> {
        Box::new(Starter {
            producer: self.producer.clone(),
            inbox: Topic::Inbox.name(&self.prefix),
            partitions: i32::from(self.site.partitions.get()),
            definition: self.plan.workload.as_str(),
            data: order_data(),
            run,
        })
    }

    fn ends(&mut self, run: u32) -> &mut dyn Ends {
        self.outcomes.run = run;
        &mut self.outcomes
    }

    fn processes(&self) -> Processes {
        let participants = self.participants.as_ref().map_or(self.server.id(), Role::id);
        Processes::on_broker(self.server.id(), participants)
    }

    fn topics(&self) -> &[CountedTopic] {
        &self.topics
    }

    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        std::thread::sleep(REPORTED);
        let names = [
            "sagamore_open_transactions",
            "sagamore_unacknowledged_outputs",
            "sagamore_checkpoint_age_seconds",
        ];
        // What stays open is the gate's to say.
        self.wait_until(Duration::from_secs(30), |metrics| names.iter().all(|name| metrics.sum(name) == 0.0))
            .ok();
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, as a gauge")]
    fn check(&mut self, run: u32, seen: &Seen) -> Result<(), RunError> {
        let path = self.scratch.path().join("ledger");
        let participants = self.participants.as_mut().ok_or("nobody keeps a ledger").map_err(Box::from)?;
        participants.ask(&format!("ledger {run} {}", path.display()))?;
        let ledger = read_ledger(run, &path)?;
        let open = self.metrics()?.sum("sagamore_open_transactions") as u64;
        gate::check(&Evidence {
            run,
            workload: self.plan.workload,
            outcomes: &seen.outcomes,
            contradictions: &seen.contradictions,
            ledger: &ledger,
            open,
        })?;
        Ok(())
    }
}

struct Starter {
    producer: ThreadedProducer<DefaultProducerContext>,
    inbox: String,
    partitions: i32,
    definition: &'static str,
    data: String,
    run: u32,
}

impl Starts for Starter {
    fn start(&mut self, index: u64) -> Result<(), String> {
        self.send(index).map_err(|error| error.to_string())
    }
}

impl Starter {
    fn send(&self, index: u64) -> Result<(), Box<dyn Error>> {
        let id: TransactionId = transaction_id(self.run, index).parse()?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let data = Payload::from_json(self.data.clone())?;
        let start = Start {
            subject: id.clone(),
            time: Time::from_epoch_ms(i64::try_from(now_ms)?),
            definition: DefinitionRef { name: self.definition.parse::<Name>()?, version: None },
            traceparent: None,
            data: data.as_ref(),
        };
        let value = start.to_json("/bench");
        let record = BaseRecord::to(&self.inbox)
            .partition(home(&id, self.partitions).0)
            .key(id.as_str().as_bytes())
            .payload(value.as_slice());
        Ok(send(&self.producer, record)?)
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
        let outcome = read_outcome(message.payload())?;
        let (run, index) =
            parse_transaction_id(outcome.subject.as_str()).ok_or("an outcome of somebody else")?;
        Ok((run == self.run).then_some(Ended { index, told: outcome.outcome }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_are_added_up() {
        let metrics =
            Metrics("# TYPE a_b gauge\na_b{shard=\"0\"} 2\na_b{shard=\"1\"} 3\na_b_c 7\na 1.5\n".to_owned());
        assert!((metrics.sum("a_b") - 5.0).abs() < f64::EPSILON);
        assert!((metrics.sum("a") - 1.5).abs() < f64::EPSILON);
        assert!(metrics.sum("b").abs() < f64::EPSILON);
    }
}
