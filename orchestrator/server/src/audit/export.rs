//! The journal for other programs: one line, or one row, for each entry.

use std::collections::BTreeSet;
use std::io::{self, Write};

use rdkafka::message::Message;
use sagamore_kafka::client::Isolation;
use sagamore_schemas::log::{Digest256, Sealed};
use sagamore_schemas::topics::Topic;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Span;
use super::fold::{AuditError, Progress};
use super::replay::Place;
use super::topics::{Stretch, read, stretches};
use crate::site::Site;

#[cfg(feature = "parquet")]
mod parquet;

/// An entry, and where it stands.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// The shard.
    pub partition: i32,
    /// Offset in the journal.
    pub record: i64,
    /// The chain up to it.
    pub chain: Digest256,
    /// The entry as it stands there.
    pub entry: Box<RawValue>,
}

/// Takes entries, and writes them down.
pub trait Sink {
    /// One more.
    fn write(&mut self, entry: Exported) -> io::Result<()>;
    /// The last has come.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// JSON, a line each.
pub struct Lines<W>(pub W);

impl<W: Write> Sink for Lines<W> {
    fn write(&mut self, entry: Exported) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, &entry)?;
        self.0.write_all(b"\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// Apache Parquet, columns and all.
#[cfg(feature = "parquet")]
pub fn parquet<W: Write + Send + 'static>(to: W) -> io::Result<Box<dyn Sink>> {
    Ok(Box::new(parquet::Rows::begin(to)?))
}

/// Why nothing, or not all, is exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// What was read cannot be written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Writes every committed entry of the span once, shard by shard in the order of the journal. How many.
pub fn export(
    site: &Site,
    span: Span,
    mut sink: Box<dyn Sink>,
    progress: Progress<'_>,
) -> Result<u64, ExportError> {
    let name = site.topic(Topic::Journal);
    let journals = stretches(site, |topic| topic == name).map_err(AuditError::from)?;
    let total = journals.iter().map(Stretch::span).sum();
    let mut count = 0;
    for journal in &journals {
        // Parts of a checkpoint may stand there twice, the second time right behind the next owner's takeover.
        let mut seen: BTreeSet<(i64, u32)> = BTreeSet::new();
        let mut failed = None;
        read(site, journal, Isolation::ReadCommitted, |message| {
            progress(1, total);
            let value = message.payload().unwrap_or_default();
            for Sealed { entry, chain } in serde_json::from_slice::<Vec<Sealed>>(value).unwrap_or_default() {
                let Ok(place) = Place::of(entry.get()) else { continue };
                if !span.contains(place.at) || !seen.insert((place.offset, place.sequence)) {
                    continue;
                }
                let (partition, record) = (message.partition(), message.offset());
                if let Err(error) = sink.write(Exported { partition, record, chain, entry }) {
                    failed = Some(error);
                    return false;
                }
                count += 1;
            }
            // Enough for what stands twice, and not all of a long journal.
            while seen.len() > SEEN_MAX {
                seen.pop_first();
            }
            true
        })
        .map_err(AuditError::from)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    sink.finish()?;
    Ok(count)
}

/// Places of entries that are remembered of a shard.
const SEEN_MAX: usize = 1_000_000;
