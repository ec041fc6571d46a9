//! `skip`, `level` and `settings`: decisions of an operator about shards, written to their inboxes.
//!
//! They need no server: one that has halted takes them as well. A shard honours them where they stand in its log.

use clap::{Args, Subcommand};
use sagamore_decider::settings::{LEVEL_MAX, Settings};
use sagamore_schemas::ids::Partition;
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::{Payload, RecordPlace, ShardVerb, ShardWish};
use serde::Serialize;
use serde_json::value::RawValue;

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::operator::OperatorArgs;
use super::output::{self, Printer};
use crate::site::{NewRecord, Site};

/// Which record.
#[derive(Debug, Args)]
pub struct SkipArgs {
    /// The record on which the shard halted, as its message names it.
    #[arg(value_name = "PARTITION/OFFSET")]
    target: RecordPlace,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Which level.
#[derive(Debug, Args)]
pub struct LevelArgs {
    /// The new level.
    #[arg(value_name = "N")]
    level: u32,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What about the settings.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// The numbers of every shard, as its newest checkpoint has them.
    Show(ShowArgs),
    /// Change numbers, on all shards.
    Set(SetArgs),
}

/// Where to look.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What to change.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// A setting and its new value, such as `dedupe_window=30m` or `open_max=100000`; `null` takes a value away.
    #[arg(required = true, value_name = "KEY=VALUE")]
    changes: Vec<String>,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What was written where.
#[derive(Debug, Serialize)]
struct Written {
    partition: i32,
    offset: i64,
}

/// `skip PARTITION/OFFSET`.
pub fn skip(args: &SkipArgs, printer: Printer) -> Outcome {
    let RecordPlace { partition, offset } = args.target;
    let site = args.kafka.site()?;
    let partitions = site.partitions(Topic::Inbox)?;
    if !partitions.iter().any(|facts| facts.id == partition) {
        let message = format!("the inbox has no partition {partition}, there are {}", partitions.len());
        return Err(Failure::new(Exit::NotFound, message));
    }
    let verb = ShardVerb { wish: ShardWish::Skip { offset }, authority: args.operator.authority() };
    write(&site, &verb, vec![partition], printer)
}

/// `level N`.
pub fn level(args: &LevelArgs, printer: Printer) -> Outcome {
    if args.level == 0 || args.level > LEVEL_MAX {
        let message = format!(
            "this program knows levels up to {LEVEL_MAX}: shards at level {} would halt on servers like it",
            args.level
        );
        return Err(Failure::usage(message));
    }
    let verb =
        ShardVerb { wish: ShardWish::Level { level: args.level }, authority: args.operator.authority() };
    write_to_all(&args.kafka.site()?, &verb, printer)
}

/// `settings show|set`.
pub fn settings(command: SettingsCommand, printer: Printer) -> Outcome {
    match command {
        SettingsCommand::Show(args) => show(&args, printer),
        SettingsCommand::Set(args) => set(&args, printer),
    }
}

/// A shard's numbers.
#[derive(Debug, Serialize)]
struct Shown {
    partition: i32,
    level: u32,
    next_offset: i64,
    settings: Box<RawValue>,
}

fn show(args: &ShowArgs, printer: Printer) -> Outcome {
    let newest = args.kafka.site()?.newest_checkpoints()?;
    let mut shards = Vec::new();
    for (partition, newest) in newest {
        match newest.checkpoint {
            Some(checkpoint) => shards.push(Shown {
                partition,
                level: checkpoint.level,
                next_offset: checkpoint.next_offset,
                settings: checkpoint.settings.0,
            }),
            None => eprintln!("partition {partition} has no checkpoint yet: it begins with the defaults"),
        }
    }
    printer.list(&shards, || {
        let rows = shards.iter().flat_map(|shard| {
            let fields: serde_json::Map<_, _> =
                serde_json::from_str(shard.settings.get()).unwrap_or_default();
            let level = ("level".to_owned(), shard.level.into());
            std::iter::once(level).chain(fields).map(|(name, value): (String, serde_json::Value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                [shard.partition.to_string(), name, value]
            })
        });
        output::table(["partition", "setting", "value"], rows)
    })?;
    Ok(Exit::Done)
}

fn set(args: &SetArgs, printer: Printer) -> Outcome {
    let change = change_of(&args.changes)?;
    let site = args.kafka.site()?;
    // Judged as every shard will: by the numbers it has.
    for (partition, newest) in site.newest_checkpoints()? {
        let present = match &newest.checkpoint {
            Some(checkpoint) => serde_json::from_str(checkpoint.settings.0.get()).map_err(|error| {
                let message =
                    format!("partition {partition} has settings this program does not know: {error}");
                Failure::new(Exit::Conflict, message)
            })?,
            None => Settings::default(),
        };
        present
            .changed_by(&change)
            .map_err(|error| Failure::usage(format_args!("partition {partition}: {error}")))?;
    }
    let data = Payload::from_json(change).map_err(|error| Failure::new(Exit::Unexpected, error))?;
    let verb =
        ShardVerb { wish: ShardWish::Settings { data: data.as_ref() }, authority: args.operator.authority() };
    write_to_all(&site, &verb, printer)
}

/// `KEY=VALUE`s as one JSON object: what reads as a JSON number, boolean or `null` is one, the rest is text.
fn change_of(changes: &[String]) -> Result<String, Failure> {
    let mut object = serde_json::Map::new();
    for change in changes {
        let Some((key, value)) = change.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format_args!("`{change}` is not KEY=VALUE")));
        };
        let value = match serde_json::from_str(value) {
            Ok(
                value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_) | serde_json::Value::Null),
            ) => value,
            _ => value.into(),
        };
        if object.insert(key.to_owned(), value).is_some() {
            return Err(Failure::usage(format_args!("`{key}` is set twice")));
        }
    }
    // A typing error is told without asking anybody.
    let change = serde_json::Value::from(object).to_string();
    Settings::default().changed_by(&change).map_err(Failure::usage)?;
    Ok(change)
}

fn write_to_all(site: &Site, verb: &ShardVerb<'_>, printer: Printer) -> Outcome {
    let partitions = site.partitions(Topic::Inbox)?.iter().map(|facts| facts.id).collect();
    write(site, verb, partitions, printer)
}

fn write(site: &Site, verb: &ShardVerb<'_>, partitions: Vec<i32>, printer: Printer) -> Outcome {
    let record = |&partition: &i32| NewRecord::event(partition, None, verb.to_json(Partition(partition)));
    let records: Vec<_> = partitions.iter().map(record).collect();
    let offsets = site.write(Topic::Inbox, &records)?;
    let written =
        partitions.into_iter().zip(offsets).map(|(partition, offset)| Written { partition, offset });
    let written: Vec<_> = written.collect();
    printer.list(&written, || {
        let row = |written: &Written| [written.partition.to_string(), written.offset.to_string()];
        output::table(["inbox partition", "written at"], written.iter().map(row))
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_judged_before_they_are_written() {
        let check = |changes: &[&str], then: Result<&str, &str>| {
            let changes: Vec<_> = changes.iter().map(|&change| change.to_owned()).collect();
            match (change_of(&changes), then) {
                (Ok(change), Ok(then)) => assert_eq!(change, then),
                (Err(failure), Err(then)) => {
                    assert_eq!(failure.exit, Exit::Usage);
                    assert!(failure.message.contains(then), "{failure}");
                }
                (came, then) => panic!("{came:?}, not {then:?}"),
            }
        };
        check(&["dedupe_window=30m", "open_max=5"], Ok(r#"{"dedupe_window":"30m","open_max":5}"#));
        check(&["reply_token=null"], Ok(r#"{"reply_token":null}"#));
        check(&["open_max"], Err("is not KEY=VALUE"));
        check(&["open_max=1", "open_max=2"], Err("twice"));
        check(&["open_maxx=1"], Err("unknown field `open_maxx`"));
        check(&["open_max=0"], Err("outside 1..10000000"));
    }
}
