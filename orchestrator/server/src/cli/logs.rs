//! The log: to stderr, of what `--log`, `SAGAMORE_LOG`, a server's file or `RUST_LOG` says. What is told can be changed while
//! the process runs; how it is written cannot.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use super::exit::Failure;

/// Sets another filter, once there is a log.
type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

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
pub fn begin(format: LogFormat, wanted: Option<&str>, is_long_lived: bool) -> Result<(), Failure> {
    let filter = filter(wanted, is_long_lived).map_err(Failure::usage)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call, in tests, leaves the first one's log in place.
    match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            if builder.try_init().is_ok() {
                let _ = CHANGE
                    .set(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
            }
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            if builder.try_init().is_ok() {
                let _ = CHANGE
                    .set(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
            }
        }
    }
    Ok(())
}

/// From now on it tells this. What it says is checked before anything changes.
pub fn change(wanted: Option<&str>) -> Result<(), String> {
    let filter = filter(wanted, true)?;
    CHANGE.get().map_or(Ok(()), |change| change(filter))
}

fn filter(wanted: Option<&str>, is_long_lived: bool) -> Result<EnvFilter, String> {
    let default = if is_long_lived { LONG_LIVED } else { SHORT_LIVED };
    let fallback = std::env::var("RUST_LOG").ok();
    let wanted = wanted.or(fallback.as_deref()).filter(|wanted| !wanted.is_empty()).unwrap_or(default);
    EnvFilter::try_new(wanted).map_err(|error| format!("--log {wanted}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_told() {
        for right in [None, Some(""), Some("debug"), Some("info,librdkafka=warn")] {
            assert!(filter(right, true).is_ok(), "{right:?}");
        }
        assert!(filter(Some("info,=,="), true).unwrap_err().contains("--log info,=,="));
    }
}
