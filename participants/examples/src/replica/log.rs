//! Rows in a compacted topic: the replica that has no database. A record is a row, and who holds it.

use sagamore_participant::store::kafka::Tx;
use sagamore_participant::{ClientSettings, Fault, TableError, read_table};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use super::{Found, Rows};

/// A row of the table. One that has no version is held by the change that makes it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<String>,
}

impl Rows for Tx<'_> {
    fn takes(&self, row: &str) -> Result<(), &'static str> {
        if self.is_here(row.as_bytes()) {
            Ok(())
        } else {
            Err("the `key` of the branch must be the row, up to its first `/`")
        }
    }

    fn hold(&mut self, row: &str, holder: &str) -> Result<Option<i64>, Fault> {
        let mut record: Record = self.read(row)?.unwrap_or_default();
        if record.held.is_some() {
            return Ok(None);
        }
        record.held = Some(holder.to_owned());
        self.write(row, &record)?;
        Ok(Some(record.version))
    }

    fn let_go(&mut self, row: &str, holder: &str) -> Result<bool, Fault> {
        let Some(mut record) =
            self.read::<Record>(row)?.filter(|record| record.held.as_deref() == Some(holder))
        else {
            return Ok(false);
        };
        record.held = None;
        if record.version == 0 {
            self.remove(row.as_bytes())?;
        } else {
            self.write(row, &record)?;
        }
        Ok(true)
    }

    fn put(&mut self, row: &str, version: i64, value: Option<&str>) -> Result<(), Fault> {
        let value = value.map(|value| RawValue::from_string(value.to_owned())).transpose()?;
        self.write(row, &Record { version, value, held: None })
    }
}

/// The table as it is now, in the order of its names, and how many rows are held.
pub(super) struct Snapshot {
    pub rows: BTreeMap<String, Found>,
    pub held: u64,
}

/// Reads the whole of it: a topic has no other order than that of its records.
pub(super) fn snapshot(clients: &ClientSettings, topic: &str) -> Result<Snapshot, TableError> {
    let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    read_table(clients, topic, |key, value| {
        let key = String::from_utf8_lossy(key).into_owned();
        match value {
            Some(value) => records.insert(key, value.to_vec()),
            None => records.remove(&key),
        };
    })?;
    let mut snapshot = Snapshot { rows: BTreeMap::new(), held: 0 };
    for (row, record) in records {
        let found = match serde_json::from_slice::<Record>(&record) {
            Ok(Record { version, value, held }) => {
                snapshot.held += u64::from(held.is_some());
                Found { version, value: value.map(|value| value.get().to_owned()) }
            }
            // Not ours, so not equal to any.
            Err(_) => Found { version: -1, value: Some(String::from_utf8_lossy(&record).into_owned()) },
        };
        if found.version != 0 {
            snapshot.rows.insert(row, found);
        }
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use sagamore_participant::store::kafka::rehearsal::Topics;
    use sagamore_participant::store::kafka::{Bounds, KafkaStore, Territory};
    use sagamore_participant::store::{LocalTransaction as _, Store as _};

    use super::*;

    #[test]
    fn a_row_that_nobody_committed_leaves_nothing() {
        let topics = Topics::default();
        let store = KafkaStore::new(topics.clone(), Bounds::default());
        let mut session = store.session().expect("a session");
        let mut tx = store.begin(&mut session).expect("a transaction");
        let rows = tx.business();
        assert_eq!(rows.hold("r", "one").expect("read"), Some(0));
        assert_eq!(rows.hold("r", "two").expect("read"), None);
        assert!(!rows.let_go("r", "two").expect("read"));
        assert!(rows.let_go("r", "one").expect("written"));
        tx.commit().expect("committed");
        assert!(topics.table().is_empty());
    }

    #[test]
    fn a_removed_row_keeps_its_version() {
        let topics = Topics::default();
        let store = KafkaStore::new(topics.clone(), Bounds::default());
        let mut session = store.session().expect("a session");
        let mut tx = store.begin(&mut session).expect("a transaction");
        let rows = tx.business();
        Rows::put(rows, "r", 1, Some("{\"a\": 1}")).expect("written");
        Rows::put(rows, "r", 2, None).expect("written");
        assert_eq!(rows.hold("r", "one").expect("read"), Some(2));
        tx.commit().expect("committed");
        let table = topics.table();
        assert_eq!(String::from_utf8_lossy(&table[b"r".as_slice()]), r#"{"version":2,"held":"one"}"#);
    }

    #[test]
    fn a_row_of_another_partition_is_not_taken() {
        let of = |partition| Topics::of(Territory { partition, partitions: 2, reserved: "sagamore.".into() });
        let taken = [0, 1].map(|partition| {
            let store = KafkaStore::new(of(partition), Bounds::default());
            let mut session = store.session().expect("a session");
            let mut tx = store.begin(&mut session).expect("a transaction");
            tx.business().takes("row-1").is_ok()
        });
        assert_ne!(taken[0], taken[1]);
    }
}
