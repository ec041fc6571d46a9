//! Entries as rows of an Apache Parquet file.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use super::{Exported, Sink};

/// Rows that are held in memory, and written together.
const GROUP_ROWS: usize = 50_000;

const SCHEMA: &str = "message entry {
    REQUIRED INT32 partition;
    REQUIRED INT64 record;
    REQUIRED INT64 offset;
    REQUIRED INT32 sequence;
    REQUIRED INT64 at (TIMESTAMP(MILLIS,true));
    OPTIONAL BYTE_ARRAY input (UTF8);
    OPTIONAL BYTE_ARRAY transaction (UTF8);
    OPTIONAL BYTE_ARRAY birth (UTF8);
    OPTIONAL BYTE_ARRAY definition (UTF8);
    OPTIONAL BYTE_ARRAY step (UTF8);
    OPTIONAL BYTE_ARRAY branch (UTF8);
    OPTIONAL BYTE_ARRAY operation (UTF8);
    OPTIONAL BYTE_ARRAY answer (UTF8);
    OPTIONAL BYTE_ARRAY decision (UTF8);
    OPTIONAL BYTE_ARRAY outcome (UTF8);
    OPTIONAL BYTE_ARRAY reason (UTF8);
    OPTIONAL BYTE_ARRAY actor (UTF8);
    REQUIRED BYTE_ARRAY entry (UTF8);
    REQUIRED BYTE_ARRAY chain (UTF8);
}";

/// Columns of text that an entry may have, in the order of the schema.
const TEXTS: [&str; 12] = [
    "input",
    "transaction",
    "birth",
    "definition",
    "step",
    "branch",
    "operation",
    "answer",
    "decision",
    "outcome",
    "reason",
    "actor",
];

/// A file under way.
pub(super) struct Rows<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<(Exported, Value)>,
}

impl<W: Write + Send> Rows<W> {
    pub(super) fn begin(to: W) -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(io::Error::other)?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(to, schema, Arc::new(properties)).map_err(io::Error::other)?;
        Ok(Self { writer, rows: Vec::new() })
    }

    fn flush(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let write = || -> parquet::errors::Result<()> {
            let mut group = self.writer.next_row_group()?;
            int32(&mut group, rows.iter().map(|(row, _)| row.partition))?;
            int64(&mut group, rows.iter().map(|(row, _)| row.record))?;
            int64(&mut group, rows.iter().map(|(_, entry)| entry["offset"].as_i64().unwrap_or(-1)))?;
            let sequence =
                |entry: &Value| entry["sequence"].as_i64().and_then(|number| number.try_into().ok());
            int32(&mut group, rows.iter().map(|(_, entry)| sequence(entry).unwrap_or(-1)))?;
            int64(&mut group, rows.iter().map(|(_, entry)| at(entry)))?;
            for name in TEXTS {
                texts(&mut group, rows.iter().map(|(_, entry)| entry[name].as_str()))?;
            }
            required(&mut group, rows.iter().map(|(row, _)| row.entry.get().into()))?;
            required(&mut group, rows.iter().map(|(row, _)| row.chain.to_string().as_str().into()))?;
            group.close()?;
            Ok(())
        };
        let mut write = write;
        write().map_err(io::Error::other)
    }
}

impl<W: Write + Send> Sink for Rows<W> {
    fn write(&mut self, entry: Exported) -> io::Result<()> {
        let document = serde_json::from_str(entry.entry.get())?;
        self.rows.push((entry, document));
        if self.rows.len() < GROUP_ROWS { Ok(()) } else { self.flush() }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.flush()?;
        self.writer.close().map_err(io::Error::other)?;
        Ok(())
    }
}

/// Milliseconds since 1970.
fn at(entry: &Value) -> i64 {
    let time = serde_json::from_value::<sagamore_schemas::ids::Time>(entry["at"].clone());
    time.map_or(0, sagamore_schemas::ids::Time::epoch_ms)
}

type Group<'g, W> = SerializedRowGroupWriter<'g, W>;

fn column<W: Write + Send>(
    group: &mut Group<'_, W>,
    write: impl FnOnce(&mut parquet::file::writer::SerializedColumnWriter<'_>) -> parquet::errors::Result<usize>,
) -> parquet::errors::Result<()> {
    let Some(mut column) = group.next_column()? else { unreachable!("as many columns as the schema has") };
    write(&mut column)?;
    column.close()
}

fn int32<W: Write + Send>(
    group: &mut Group<'_, W>,
    values: impl Iterator<Item = i32>,
) -> parquet::errors::Result<()> {
    let values: Vec<i32> = values.collect();
    column(group, |column| column.typed::<Int32Type>().write_batch(&values, None, None))
}

fn int64<W: Write + Send>(
    group: &mut Group<'_, W>,
    values: impl Iterator<Item = i64>,
) -> parquet::errors::Result<()> {
    let values: Vec<i64> = values.collect();
    column(group, |column| column.typed::<Int64Type>().write_batch(&values, None, None))
}

fn required<W: Write + Send>(
    group: &mut Group<'_, W>,
    values: impl Iterator<Item = ByteArray>,
) -> parquet::errors::Result<()> {
    let values: Vec<ByteArray> = values.collect();
    column(group, |column| column.typed::<ByteArrayType>().write_batch(&values, None, None))
}

fn texts<'t, W: Write + Send>(
    group: &mut Group<'_, W>,
    values: impl Iterator<Item = Option<&'t str>> + Clone,
) -> parquet::errors::Result<()> {
    let levels: Vec<i16> = values.clone().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<ByteArray> = values.flatten().map(ByteArray::from).collect();
    column(group, |column| column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use sagamore_schemas::log::Digest256;
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal.parquet");
        let mut rows: Box<dyn Sink> =
            Box::new(Rows::begin(File::create(&path).expect("a file")).expect("rows"));
        for offset in 0..3 {
            let step = if offset == 1 { ",\"step\":\"charge\"" } else { "" };
            let entry = format!(
                "{{\"offset\":{offset},\"sequence\":0,\"at\":\"2026-11-22T16:00:00Z\",\"input\":\"reply\"{step}}}"
            );
            let entry = RawValue::from_string(entry).expect("JSON");
            rows.write(Exported { partition: 2, record: 7, chain: Digest256([1; 32]), entry })
                .expect("written");
        }
        rows.finish().expect("finished");
        let file = SerializedFileReader::new(File::open(&path).expect("a file")).expect("Parquet");
        let found: Vec<String> =
            file.get_row_iter(None).expect("rows").map(|row| row.expect("a row").to_string()).collect();
        assert_eq!(found.len(), 3);
        assert!(found[1].contains("step: \"charge\"") && found[0].contains("step: null"), "{found:?}");
        assert!(found[2].contains("offset: 2") && found[2].contains("2026-11-22 16:00:00"), "{found:?}");
    }
}
