//! SIGINT and SIGTERM.

use std::time::Duration;

use super::exit::{Exit, Failure};

/// How often what may end by itself is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Blocks until one of them comes.
pub fn wait_for_end() -> Result<(), Failure> {
    wait_while(|| true)
}

/// Blocks until one of them comes, or that is over.
pub fn wait_while(goes_on: impl Fn() -> bool) -> Result<(), Failure> {
    let wrong = |error| Failure::new(Exit::Unexpected, format_args!("signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(wrong)?;
    runtime.block_on(async {
        let mut terminated =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(wrong)?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(wrong),
            _ = terminated.recv() => Ok(()),
            () = async { while goes_on() { tokio::time::sleep(LOOK_INTERVAL).await } } => Ok(()),
        }
    })
}
