//! `sagamore server`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use sagamore_decider::identity::ReplySecret;
use sagamore_decider::owner::Pace;
use sagamore_schemas::ids::Span;

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::reload::Reload;
use crate::config::ServerConfig;

/// Lanes that a server has unless told otherwise, at most: more threads than this seldom make it quicker.
const LANES_MAX_DEFAULT: usize = 4;

/// What a server is told.
#[derive(Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where the API listens.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8088")]
    pub listen: SocketAddr,
    /// Where other servers reach this API; the listen address unless told otherwise.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Threads that run shards; one per core, 4 at most, unless told otherwise.
    #[arg(long, value_name = "N")]
    pub lanes: Option<NonZeroUsize>,
    /// A file with the same names as these flags, TOML or (*.yaml, *.yml) YAML. Flags and variables go before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A folder for the view of all transactions, of this server alone; a temporary one unless told otherwise. What is
    /// deleted there is built anew from the journal.
    #[arg(long, value_name = "DIR")]
    pub view: Option<PathBuf>,
    /// How often a snapshot of each shard is written, from which `audit` and `rebuild` can begin; never, if it is 0s.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub snapshot_every: Span,
    /// Tolerate what no production may: a single broker, `CreateTime`.
    #[arg(long)]
    pub development: bool,
    /// The secret under which reply tokens are made, 16 bytes or more; a line end at its end does not count.
    #[arg(long, value_name = "FILE")]
    pub reply_token_secret_file: Option<PathBuf>,
}

/// Runs it until it is told to end.
pub fn run(args: &ServerArgs) -> Outcome {
    let site = args.kafka.site()?;
    let config = ServerConfig {
        kafka: site.settings,
        prefix: site.prefix,
        listen: args.listen,
        advertise: args.advertise.clone(),
        lanes: args.lanes.map_or_else(default_lanes, NonZeroUsize::get),
        development: args.development,
        view: args.view.clone(),
        check_topics: true,
        reply_secret: args.reply_token_secret_file.as_deref().map(read_secret).transpose()?,
        snapshot_every: args.snapshot_every,
        pace: Pace::default(),
    };
    let reload = Reload::new(args.config.clone());
    crate::server::run(config, &|| reload.reload())?;
    Ok(Exit::Done)
}

/// As many as make sense on this machine.
pub fn default_lanes() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(LANES_MAX_DEFAULT)
}

/// The secret, without line ends behind it.
pub fn read_secret(file: &Path) -> Result<ReplySecret, Failure> {
    let wrong =
        |why: String| Failure::usage(format_args!("--reply-token-secret-file {}: {why}", file.display()));
    let mut bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    ReplySecret::new(bytes).ok_or_else(|| wrong("a secret has 16 bytes or more".to_owned()))
}
