//! SIGINT and SIGTERM.

use super::exit::{Exit, Failure};

/// Blocks until one of them comes.
pub fn wait_for_end() -> Result<(), Failure> {
    let wrong = |error| Failure::new(Exit::Unexpected, format_args!("signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(wrong)?;
    runtime.block_on(async {
        let mut terminated =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(wrong)?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(wrong),
            _ = terminated.recv() => Ok(()),
        }
    })
}
