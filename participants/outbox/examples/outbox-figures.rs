//! What goes through outbox and inbox, without a coordinator behind them:
//! `cargo run --release -p sagamore-outbox --example outbox-figures`.
//!
//! PostgreSQL (`fsync` on), Kafka, relay and workers share this machine. A worker takes a command, writes a posting and
//! replies, each in a transaction of its own.

use std::num::NonZeroU16;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use sagamore_kafka::client::{ClientSettings, Isolation};
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_local_postgres::LocalPostgres;
use sagamore_outbox::{Handle, Relay, Settings, schema};
use sagamore_participant_postgres::{Connection, connector};
use sagamore_schemas::home::partition_of;
use sagamore_schemas::topics::{Prefix, Topic, command_topic};
use tokio_postgres::NoTls;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const STARTS: i64 = 50_000;
const COMMANDS: i64 = 10_000;
const ALONE: usize = 200;
const SHARDS: u16 = 4;
const PATIENCE: Duration = Duration::from_mins(5);
const WORK: &str = "
    CREATE TABLE postings (subject TEXT PRIMARY KEY, cents BIGINT NOT NULL);
    CREATE FUNCTION work() RETURNS BOOLEAN LANGUAGE plpgsql AS $$
    DECLARE c sagamore.todo;
    BEGIN
        SELECT * INTO c FROM sagamore.take('bank');
        IF c.number IS NULL THEN RETURN false; END IF;
        INSERT INTO postings VALUES (c.subject, (c.data ->> 'cents')::bigint);
        PERFORM sagamore.reply(c.number, 'ok', '{\"posting\": 1}');
        RETURN true;
    END $$";

struct Site {
    postgres: LocalPostgres,
    clients: ClientSettings,
    prefix: Prefix,
}

fn main() -> Result<(), Failure> {
    let kafka = LocalKafka::start(ClusterSize::One)?;
    let site = Site {
        postgres: LocalPostgres::start(&[("shared_buffers", "256MB"), ("max_wal_size", "4GB")])?,
        clients: ClientSettings::new(kafka.bootstrap()),
        prefix: Prefix::default(),
    };
    let shards = NonZeroU16::new(SHARDS).ok_or("shards")?;
    let layout = Layout { prefix: site.prefix.clone(), partitions: shards, replication: NonZeroU16::MIN };
    apply(&site.clients, &layout)?;
    ensure_command_topics(&site.clients, &layout, &["bank".parse()?])?;
    let mut connection = site.connect()?;
    schema::migrate(&mut connection, &"sagamore".parse()?)?;
    connection.batch(WORK)?;

    connection.batch(&format!(
        "SELECT sagamore.start('o' || n, 'order', '{{\"total\": 440.00}}') FROM generate_series(1, {STARTS}) n"
    ))?;
    let begun = Instant::now();
    let relay = site.relay()?;
    let left = "SELECT count(*) FROM sagamore.outbox";
    while connection.wait(async |client| client.query_one(left, &[]).await)?.get::<_, i64>(0) > 0 {
        thread::sleep(Duration::from_millis(10));
    }
    println!("starts that waited: {:.0}/s", rate(STARTS, begun));
    let mut inbox = site.inbox()?;
    println!(
        "a start alone, from SQL to the inbox: {}",
        alone(|number| {
            let begun = Instant::now();
            connection.batch(&format!("SELECT sagamore.start('alone{number}', 'order')"))?;
            next(&mut inbox)?;
            Ok(begun.elapsed())
        })?
    );
    let producer: ThreadedProducer<_> = site.clients.client_producer("figures").create()?;
    thread::scope(|scope| -> Result<(), Failure> {
        let url = site.postgres.url();
        scope.spawn(move || work_until_idle(&url, 3));
        println!(
            "a command alone, from its topic to the reply in the inbox: {}",
            alone(|number| {
                let begun = Instant::now();
                site.command(&producer, &format!("c{number}"))?;
                next(&mut inbox)?;
                Ok(begun.elapsed())
            })?
        );
        Ok(())
    })?;
    for workers in [1, 4] {
        let first = COMMANDS * i64::from(workers);
        for number in first..first + COMMANDS {
            site.command(&producer, &format!("m{number}"))?;
        }
        producer.flush(PATIENCE)?;
        let begun = Instant::now();
        thread::scope(|scope| -> Result<(), Failure> {
            for _ in 0..workers {
                let url = site.postgres.url();
                scope.spawn(move || work_until_idle(&url, 1));
            }
            for _ in 0..COMMANDS {
                next(&mut inbox)?;
            }
            println!("commands, {workers} worker(s): {:.0}/s", rate(COMMANDS, begun));
            Ok(())
        })?;
    }
    relay.stop();
    println!("{:?}", relay.join()?);
    Ok(())
}

impl Site {
    fn connect(&self) -> Result<Connection, Failure> {
        Ok(Connection::open(&connector(NoTls), &self.postgres.url().parse()?, PATIENCE)?)
    }

    fn relay(&self) -> Result<Handle, Failure> {
        let mut settings = Settings::new(self.postgres.url().parse()?, self.clients.clone());
        settings.participants = vec!["bank".parse()?];
        Ok(Relay::spawn(settings)?)
    }

    /// A reader that stands at its end.
    fn inbox(&self) -> Result<BaseConsumer, Failure> {
        let topic = Topic::Inbox.name(&self.prefix);
        let consumer: BaseConsumer = self.clients.replay_consumer(Isolation::ReadUncommitted).create()?;
        let mut places = TopicPartitionList::new();
        for partition in 0..i32::from(SHARDS) {
            let (_, end) = consumer.fetch_watermarks(&topic, partition, PATIENCE)?;
            places.add_partition_offset(&topic, partition, Offset::Offset(end))?;
        }
        consumer.assign(&places)?;
        Ok(consumer)
    }

    fn command(
        &self,
        producer: &ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
        subject: &str,
    ) -> Result<(), Failure> {
        let home = partition_of(subject.as_bytes(), i32::from(SHARDS)).0;
        let value = format!(
            r#"{{"specversion":"1.0","type":"sagamore.command.v1","id":"i","source":"/sagamore","subject":"{subject}",
            "birth":"{home}-7","step":"charge","branch":"bank","operation":"execute","attempt":1,"definition":"order@1",
            "instance":"00000000-0000-0000-0000-000000000000","replyto":"{}/{home}","issued":"2026-11-22T16:00:00Z",
            "watermark":"2026-11-19T16:00:00Z","deadline":"2026-11-22T17:00:00Z","data":{{"cents":440}}}}"#,
            Topic::Inbox.name(&self.prefix),
        );
        let topic = command_topic(&self.prefix, &"bank".parse()?);
        producer.send(BaseRecord::to(&topic).key(subject).payload(&value)).map_err(|(failure, _)| failure)?;
        Ok(())
    }
}

/// Works until there has been nothing for so many seconds.
fn work_until_idle(url: &str, seconds: u64) {
    let config = url.parse().expect("a URL");
    let mut connection = Connection::open(&connector(NoTls), &config, PATIENCE).expect("it answers");
    let statement = connection.statement("SELECT work()").expect("a statement");
    let mut worked = Instant::now();
    while worked.elapsed() < Duration::from_secs(seconds) {
        let row = connection.wait(async |client| client.query_one(&statement, &[]).await).expect("work");
        if row.get(0) {
            worked = Instant::now();
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn next(inbox: &mut BaseConsumer) -> Result<(), Failure> {
    let message = inbox.poll(PATIENCE).ok_or("nothing has come")??;
    message.payload().map(|_| ()).ok_or_else(|| "an empty record".into())
}

fn alone(mut one: impl FnMut(usize) -> Result<Duration, Failure>) -> Result<String, Failure> {
    let mut times = (0..ALONE).map(&mut one).collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    Ok(format!("p50 {:.1?}, p99 {:.1?}", times[ALONE / 2], times[ALONE * 99 / 100]))
}

#[expect(clippy::cast_precision_loss, reason = "a rate, to be read")]
fn rate(count: i64, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}
