//! What a server is told at its start. Nothing here reaches the fold.

use std::net::SocketAddr;
use std::path::PathBuf;

use sagamore_decider::identity::ReplySecret;
use sagamore_decider::owner::Pace;
use sagamore_kafka::client::ClientSettings;
use sagamore_schemas::ids::Span;
use sagamore_schemas::topics::{Prefix, Topic};
use uuid::Uuid;

use crate::site::Site;

/// Everything a server needs to know.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where Kafka is, and what is different about its clients.
    pub kafka: ClientSettings,
    /// What the names of topics begin with.
    pub prefix: Prefix,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where other servers reach this API, `host:port`; the listen address unless told otherwise.
    pub advertise: Option<String>,
    /// Threads that run shards.
    pub lanes: usize,
    /// One broker, `CreateTime` and the embedded broker are tolerated.
    pub development: bool,
    /// Where the view of all transactions is kept; a temporary folder unless told otherwise.
    pub view: Option<PathBuf>,
    /// Whether the topics are checked before anything runs; the embedded broker cannot be asked.
    pub check_topics: bool,
    /// Secret under which reply tokens are made.
    pub reply_secret: Option<ReplySecret>,
    /// How often a snapshot of each shard is written; never, if it is zero.
    pub snapshot_every: Span,
    /// How owners pace themselves.
    pub pace: Pace,
}

/// What is known once the cluster has been asked: shared by every part of a running server.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The server's configuration.
    pub config: ServerConfig,
    /// The installation, written by `topics apply`.
    pub instance: Uuid,
    /// Partition count of the inbox.
    pub partitions: i32,
    /// What members of the group are called: other servers find the API in it.
    pub client_id: String,
}

impl Installation {
    /// Where it is.
    pub fn site(&self) -> Site {
        Site { settings: self.config.kafka.clone(), prefix: self.config.prefix.clone() }
    }

    /// The name of one of our topics.
    pub fn topic(&self, topic: Topic) -> String {
        topic.name(&self.config.prefix)
    }
}
