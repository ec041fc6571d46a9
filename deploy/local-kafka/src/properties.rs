//! The properties of one broker.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// Where one broker listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) broker: u16,
    pub(crate) controller: u16,
    pub(crate) client: Option<ClientListener>,
}

/// A listener for clients who are told another address than its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientListener {
    pub(crate) port: u16,
    pub(crate) advertised: SocketAddr,
}

/// `server.properties` of the broker at `index` of these; of two lines for one property the last holds.
pub(crate) fn server(index: usize, cluster: &[Ports], log_dir: &Path, more: &[(&str, &str)]) -> String {
    let Ports { broker, controller, client } = cluster[index];
    let voters: Vec<_> = cluster
        .iter()
        .enumerate()
        .map(|(index, ports)| format!("{}@127.0.0.1:{}", index + 1, ports.controller))
        .collect();
    let replication = cluster.len();
    // One copy less than there are: a broker can be killed and the others go on.
    let in_sync = replication.saturating_sub(1).max(1);
    let mut text = String::new();
    let mut set = |key: &str, value: &str| {
        writeln!(text, "{key}={value}").expect("a String takes everything");
    };
    set("process.roles", "broker,controller");
    set("node.id", &(index + 1).to_string());
    set("controller.quorum.voters", &voters.join(","));
    set("controller.listener.names", "CONTROLLER");
    set("inter.broker.listener.name", "BROKER");
    set("listener.security.protocol.map", "BROKER:PLAINTEXT,CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT");
    let mut listeners = format!("BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("BROKER://127.0.0.1:{broker}");
    if let Some(client) = client {
        write!(listeners, ",CLIENT://127.0.0.1:{}", client.port).expect("a String takes everything");
        write!(advertised, ",CLIENT://{}", client.advertised).expect("a String takes everything");
    }
    set("listeners", &listeners);
    set("advertised.listeners", &advertised);
    set("log.dirs", &log_dir.display().to_string());
    set("default.replication.factor", &replication.to_string());
    set("min.insync.replicas", &in_sync.to_string());
    set("offsets.topic.replication.factor", &replication.to_string());
    set("transaction.state.log.replication.factor", &replication.to_string());
    set("transaction.state.log.min.isr", &in_sync.to_string());
    // As in production: a misspelt topic is an error.
    set("auto.create.topics.enable", "false");
    // The rest is haste: few partitions to create at first use, no waiting for members, quick ends.
    set("offsets.topic.num.partitions", "4");
    set("transaction.state.log.num.partitions", "4");
    set("group.initial.rebalance.delay.ms", "0");
    set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000");
    // A killed broker that comes back is let in when its old session is over.
    set("broker.session.timeout.ms", "3000");
    set("broker.heartbeat.interval.ms", "500");
    for (key, value) in more {
        set(key, value);
    }
    text
}

/// Log4j's properties: everything of importance into one file.
pub(crate) fn log4j(file: &Path) -> String {
    format!(
        "appender.file.type=File\n\
         appender.file.name=file\n\
         appender.file.fileName={}\n\
         appender.file.layout.type=PatternLayout\n\
         appender.file.layout.pattern=%d %p %m (%c)%n\n\
         rootLogger.level=info\n\
         rootLogger.appenderRef.file.ref=file\n",
        file.display()
    )
}
