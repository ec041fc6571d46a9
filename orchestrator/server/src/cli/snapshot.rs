//! `sagamore snapshot`: writes one of each shard now, or says which there are. It needs no server.

use clap::Args;
use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::topics::Topic;
use serde::Serialize;

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::output::{self, Printer};
use crate::site::Site;
use crate::snapshots::{Found, SnapshotError, Snapshots, Written, write};
use sagamore_decider::identity::Identity;

/// Of which shard.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The partition of the inbox; left out, every shard.
    #[arg(value_name = "PARTITION")]
    partition: Option<i32>,
    /// Say which there are, and write none.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// A snapshot that is there.
#[derive(Debug, Serialize)]
struct Listed {
    partition: i32,
    next_offset: i64,
    clock: Time,
    written: Time,
    /// Where its last piece stands in the topic.
    offset: i64,
    bytes: u64,
    pieces: u32,
    /// Whether every piece is there; whether it is undamaged is seen by who begins at it.
    whole: bool,
}

/// Does it.
pub fn run(args: &SnapshotArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let shards = shards(&site, args.partition)?;
    if args.list { list(&site, shards, printer) } else { write_each(&site, &shards, printer) }
}

fn shards(site: &Site, wanted: Option<i32>) -> Result<Vec<Identity>, Failure> {
    let instance = site.instance()?;
    let partitions = i32::from(instance.partitions.get());
    let all = (0..partitions).filter(|partition| wanted.is_none_or(|wanted| wanted == *partition));
    let identity = |partition| {
        Identity::new(instance.instance, Partition(partition), partitions, site.topic(Topic::Inbox), None)
    };
    let shards: Vec<Identity> = all.map(identity).collect();
    match wanted {
        Some(wanted) if shards.is_empty() => Err(SnapshotError::NoShard(wanted).into()),
        _ => Ok(shards),
    }
}

fn write_each(site: &Site, shards: &[Identity], printer: Printer) -> Outcome {
    let mut written: Vec<Written> = Vec::new();
    for identity in shards {
        match write(site, identity, &|| true) {
            Ok(one) => written.push(one),
            // Nobody asked for this one by its number.
            Err(error @ SnapshotError::NoCheckpoint(_)) if shards.len() > 1 => eprintln!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    printer.list(&written, || {
        let rows = written.iter().map(|one| {
            [
                one.partition.to_string(),
                one.next_offset.to_string(),
                one.clock.to_string(),
                one.records.to_string(),
                one.bytes.to_string(),
                one.pieces.to_string(),
                one.took_ms.to_string(),
            ]
        });
        output::table(["shard", "next", "clock", "records", "bytes", "pieces", "ms"], rows)
    })?;
    Ok(Exit::Done)
}

fn list(site: &Site, shards: Vec<Identity>, printer: Printer) -> Outcome {
    let mut listed = Vec::new();
    for identity in shards {
        let partition = identity.partition.0;
        let found = Snapshots::new(site, identity)?.all()?;
        listed.extend(found.into_iter().map(|found| listing(partition, &found)));
    }
    printer.list(&listed, || {
        let rows = listed.iter().map(|one| {
            [
                one.partition.to_string(),
                one.next_offset.to_string(),
                one.clock.to_string(),
                one.written.to_string(),
                one.offset.to_string(),
                one.bytes.to_string(),
                one.pieces.to_string(),
                if one.whole { "yes" } else { "torn" }.to_owned(),
            ]
        });
        output::table(["shard", "next", "clock", "written", "at", "bytes", "pieces", "whole"], rows)
    })?;
    Ok(Exit::Done)
}

fn listing(partition: i32, found: &Found) -> Listed {
    Listed {
        partition,
        next_offset: found.part.next_offset,
        clock: found.part.clock,
        written: found.written,
        offset: found.last,
        bytes: found.bytes,
        pieces: found.part.count,
        whole: found.is_whole(),
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let exit = match error {
            SnapshotError::Site(error) => return error.into(),
            SnapshotError::NoShard(_) => Exit::NotFound,
            SnapshotError::NoCheckpoint(_) => Exit::Conflict,
            SnapshotError::Unproved { .. } => Exit::CheckNegative,
            SnapshotError::GivenUp => Exit::Unexpected,
        };
        Self::new(exit, error)
    }
}
