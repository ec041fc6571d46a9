//! The log: to stderr, of what `SAGAMORE_LOG` (or `RUST_LOG`) says.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document per line.
    Json,
}

/// What a process that stays up tells. The target `rdkafka` repeats `librdkafka`, and tells ends of partitions as errors.
const LONG_LIVED: &str = "info,librdkafka=warn,rdkafka=off";
/// What a short command tells: its own last line says all there is, in better words than the client's.
const SHORT_LIVED: &str = "warn,librdkafka=off,rdkafka=off";

/// Sets it up, once per process.
pub fn begin(format: LogFormat, is_long_lived: bool) {
    let wanted = std::env::var("SAGAMORE_LOG").or_else(|_| std::env::var("RUST_LOG")).unwrap_or_default();
    let default = if is_long_lived { LONG_LIVED } else { SHORT_LIVED };
    let filter = if wanted.is_empty() { EnvFilter::new(default) } else { EnvFilter::new(wanted) };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call, in tests, leaves the first one's log in place.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
