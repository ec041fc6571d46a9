//! `sagamore dead-letters`: what no shard could take, and what people do about it. It asks Kafka, and needs no server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use sagamore_schemas::ids::Time;
use sagamore_schemas::wire::{Handled, RecordPlace};
use serde::Serialize;

use super::exit::{Exit, Failure, Outcome};
use super::kafka::KafkaArgs;
use super::operator::OperatorArgs;
use super::output::{self, Printer};
use crate::clock;
use crate::dead_letters::{self, CauseCode, Deed, DeedError, Done, Event, Filter, Index, Letter, Status};

/// Letters that are listed unless told otherwise.
const LISTED_MAX_DEFAULT: usize = 100;
/// How much of a sentence a table shows, in characters.
const SENTENCE_SHOWN_MAX: usize = 60;

/// What about the dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Those that nobody has handled yet, oldest first.
    List(ListArgs),
    /// One of them: what it is, why it is there, what was done about it.
    Show(ShowArgs),
    /// Send copies to where they came from.
    Resend(ResendArgs),
    /// Say that nothing is to be done about them.
    Discard(DeedArgs),
    /// All of them as JSON lines, with keys, values and headers.
    Export(ExportArgs),
}

/// Which letters.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Only of this cause: its word, such as `not-an-event`, or a part of its sentence.
    #[arg(long, value_name = "CAUSE")]
    cause: Option<String>,
    /// Only those that came from this topic.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Only those set aside at this time or later, such as 2026-11-22T16:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Only those set aside before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
}

/// Which are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Also those that were sent again or discarded.
    #[arg(long)]
    all: bool,
    /// One line for each cause.
    #[arg(long)]
    by_cause: bool,
    /// Only what stands behind this one: the next page.
    #[arg(long, value_name = "PARTITION/OFFSET")]
    after: Option<RecordPlace>,
    /// How many are listed, at most.
    #[arg(long, value_name = "N", default_value_t = LISTED_MAX_DEFAULT)]
    limit: usize,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Which is shown.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Where it stands, as `list` says.
    #[arg(value_name = "PARTITION/OFFSET")]
    place: RecordPlace,
    /// Its value, byte for byte, and nothing else: to be edited and given to `resend --edit`.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// About which something is done.
#[derive(Debug, Args)]
pub struct DeedArgs {
    /// Where they stand, as `list` says.
    #[arg(value_name = "PARTITION/OFFSET", required_unless_present_any = ["cause", "topic", "from", "to"], conflicts_with_all = ["cause", "topic", "from", "to"])]
    places: Vec<RecordPlace>,
    #[command(flatten)]
    which: Which,
    /// Say what it would be, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also what was handled before.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What is sent.
#[derive(Debug, Args)]
pub struct ResendArgs {
    #[command(flatten)]
    deed: DeedArgs,
    /// What stands in this file in place of the letter's own value; of one letter. The letter stays as it is.
    #[arg(long, value_name = "FILE", requires = "places")]
    edit: Option<PathBuf>,
    /// To this partition of the inbox, and not to the transaction's home.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
}

/// What is exported.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Also those that were sent again or discarded.
    #[arg(long)]
    all: bool,
    /// Where to; left out, to standard output.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Does it.
pub fn run(command: &DeadLettersCommand, printer: Printer) -> Outcome {
    match command {
        DeadLettersCommand::List(args) => list(args, printer),
        DeadLettersCommand::Show(args) => show(args, printer),
        DeadLettersCommand::Resend(args) => resend(args, printer),
        DeadLettersCommand::Discard(args) => {
            let site = args.kafka.site()?;
            told(&dead_letters::discard(&site, &args.deed(None, None))?, args.dry_run, printer)
        }
        DeadLettersCommand::Export(args) => export(args),
    }
}

impl Which {
    fn filter(&self) -> Filter {
        let Self { cause, topic, from, to } = self.clone();
        Filter { cause, topic, from, to }
    }
}

impl DeedArgs {
    fn deed(&self, edited: Option<Vec<u8>>, partition: Option<i32>) -> Deed {
        Deed {
            places: self.places.clone(),
            filter: self.which.filter(),
            actor: self.operator.actor(),
            reason: self.operator.reason.clone(),
            time: clock::now(),
            dry_run: self.dry_run,
            again: self.again,
            edited,
            partition,
        }
    }
}

/// A letter in a list.
#[derive(Debug, Serialize)]
struct Listed {
    place: RecordPlace,
    status: Status,
    cause: CauseCode,
    message: String,
    at: Time,
    from: String,
    #[serde(flatten)]
    event: Event,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    handled: Option<Handled>,
}

/// Letters of one cause.
#[derive(Debug, Serialize)]
struct Group {
    cause: CauseCode,
    count: u64,
    first: Time,
    last: Time,
    sample: RecordPlace,
    message: String,
}

fn list(args: &ListArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let filter = args.which.filter();
    let index = Index::read(&site)?;
    let mut groups: BTreeMap<CauseCode, Group> = BTreeMap::new();
    let mut page: BTreeMap<RecordPlace, Listed> = BTreeMap::new();
    let mut behind = 0_u64;
    index.letters(&site, |letter| {
        if !(args.all || index.status(letter.place).is_open()) || !filter.allows(letter) {
            return;
        }
        count(&mut groups, letter);
        if args.after.is_none_or(|after| after < letter.place) {
            behind += 1;
            page.insert(letter.place, listed(&index, letter));
            if page.len() > args.limit {
                page.pop_last();
            }
        }
    })?;
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    if args.by_cause {
        printer.list(&groups, || {
            let row = |group: &Group| {
                let Group { cause, count, first, last, sample, message } = group;
                let shown = shortened(message);
                [
                    cause.to_string(),
                    count.to_string(),
                    first.to_string(),
                    last.to_string(),
                    sample.to_string(),
                    shown,
                ]
            };
            output::table(["cause", "count", "first", "last", "sample", "why"], groups.iter().map(row))
        })?;
        return Ok(Exit::Done);
    }
    let page: Vec<Listed> = page.into_values().collect();
    printer.list(&page, || {
        let row = |letter: &Listed| {
            let about = letter.event.subject.clone().unwrap_or_default();
            let of = letter.event.kind.clone().unwrap_or_default();
            let status = letter.status.as_str().to_owned();
            let (place, cause) = (letter.place.to_string(), letter.cause.to_string());
            [
                place,
                status,
                cause,
                letter.at.to_string(),
                letter.from.clone(),
                of,
                about,
                shortened(&letter.message),
            ]
        };
        output::table(
            ["place", "status", "cause", "at", "from", "type", "about", "why"],
            page.iter().map(row),
        )
    })?;
    let counts = groups.iter().map(|group| format!("{} {}", group.count, group.cause));
    let total: u64 = groups.iter().map(|group| group.count).sum();
    eprintln!("{total} in all: {}", counts.collect::<Vec<_>>().join(", "));
    if behind > page.len() as u64
        && let Some(last) = page.last()
    {
        eprintln!("{} are listed; the next: --after {}", page.len(), last.place);
    }
    Ok(Exit::Done)
}

fn count(groups: &mut BTreeMap<CauseCode, Group>, letter: &Letter<'_>) {
    let group = groups.entry(letter.code).or_insert_with(|| Group {
        cause: letter.code,
        count: 0,
        first: letter.at,
        last: letter.at,
        sample: letter.place,
        message: letter.cause.message.to_owned(),
    });
    group.count += 1;
    group.first = group.first.min(letter.at);
    group.last = group.last.max(letter.at);
}

fn listed(index: &Index, letter: &Letter<'_>) -> Listed {
    Listed {
        place: letter.place,
        status: index.status(letter.place),
        cause: letter.code,
        message: letter.cause.message.to_owned(),
        at: letter.at,
        from: format!("{}/{}@{}", letter.cause.topic, letter.cause.partition, letter.cause.offset),
        event: letter.event.clone(),
        bytes: letter.value.map_or(0, <[u8]>::len),
        handled: index.newest(letter.place).cloned(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SENTENCE_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Bytes as they can be told: as text where they are, otherwise in Base64.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Bytes {
    Text(String),
    Base64(String),
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    fn shown(&self) -> &str {
        match self {
            Self::Text(text) | Self::Base64(text) => text,
        }
    }
}

/// A header.
#[derive(Debug, Serialize)]
struct Header {
    name: String,
    #[serde(flatten)]
    value: Bytes,
}

/// A letter with all that it has.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    listed: Listed,
    written: Time,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<Handled>,
}

fn whole(index: &Index, letter: &Letter<'_>) -> Whole {
    let header = |(name, value): &(&str, &[u8])| Header { name: (*name).to_owned(), value: Bytes::of(value) };
    Whole {
        listed: listed(index, letter),
        written: letter.cause.at,
        key: letter.key.map(Bytes::of),
        value: letter.value.map(Bytes::of),
        headers: letter.headers.iter().map(header).collect(),
        history: Vec::new(),
    }
}

fn show(args: &ShowArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let index = Index::read(&site)?;
    let place = index.first(args.place);
    let mut found = None;
    index.letters(&site, |letter| {
        if letter.place == place {
            found = Some((whole(&index, letter), letter.value.map(<[u8]>::to_vec)));
        }
    })?;
    let (mut whole, value) = found.ok_or_else(|| Failure::from(DeedError::NotFound(args.place)))?;
    if args.raw {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&value.unwrap_or_default()).and_then(|()| stdout.flush());
        return written.map(|()| Exit::Done).map_err(|error| Failure::new(Exit::Unexpected, error));
    }
    whole.history = Index::history(&site, place)?;
    printer.one(&whole, || story(&whole, index.repeats(place), value.as_deref()))?;
    Ok(Exit::Done)
}

fn story(whole: &Whole, repeats: usize, value: Option<&[u8]>) -> String {
    let Listed { place, status, cause, message, at, from, event, .. } = &whole.listed;
    let row = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
    let mut rows = vec![
        row("place", &place.to_string()),
        row("status", status.as_str()),
        row("cause", &format!("{cause}: {message}")),
        row("came from", &format!("{from}, written {}", whole.written)),
        row("set aside", &at.to_string()),
        row("type", event.kind.as_deref().unwrap_or("not known")),
        row("about", event.subject.as_deref().unwrap_or("not known")),
        row("key", whole.key.as_ref().map_or("none", Bytes::shown)),
    ];
    if repeats > 0 {
        rows.push(row("said again", &format!("{repeats} times")));
    }
    let header = |Header { name, value }: &Header| row("header", &format!("{name}: {}", value.shown()));
    rows.extend(whole.headers.iter().map(header));
    rows.extend(whole.history.iter().map(|handled| {
        let Handled { handling, actor, reason, time, to, edited, .. } = handled;
        let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        let edited = if *edited { ", edited" } else { "" };
        row(handling.as_str(), &format!("{time} by {actor}{to}{edited}: {reason}"))
    }));
    let value = match value {
        None => "no value".to_owned(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{} bytes:\n{text}", bytes.len()),
            Err(_) => format!("{} bytes, not text:\n{}", bytes.len(), hexadecimal(bytes)),
        },
    };
    format!("{}\n\n{value}", output::table(["what", "is"], rows))
}

/// Sixteen bytes a line, with their offset before and what is readable behind.
fn hexadecimal(bytes: &[u8]) -> String {
    let line = |(number, line): (usize, &[u8])| {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let readable =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let text: String = line.iter().map(readable).collect();
        format!("{:08x}  {:<47}  {text}", number * 16, digits.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn resend(args: &ResendArgs, printer: Printer) -> Outcome {
    let edited = match &args.edit {
        Some(_) if args.deed.places.len() != 1 => {
            return Err(Failure::usage("--edit is for one letter"));
        }
        Some(file) => {
            let wrong = |error| Failure::usage(format_args!("--edit {}: {error}", file.display()));
            Some(std::fs::read(file).map_err(wrong)?)
        }
        None => None,
    };
    let site = args.deed.kafka.site()?;
    let deed = args.deed.deed(edited, args.partition);
    told(&dead_letters::resend(&site, &deed)?, args.deed.dry_run, printer)
}

fn told(done: &[Done], is_dry_run: bool, printer: Printer) -> Outcome {
    printer.list(done, || {
        let row = |done: &Done| {
            let to = done.to.clone().unwrap_or_default();
            [done.place.to_string(), done.cause.to_string(), done.done.as_str().to_owned(), to]
        };
        output::table(["place", "cause", "done", "to"], done.iter().map(row))
    })?;
    let mut counts: BTreeMap<CauseCode, u64> = BTreeMap::new();
    for done in done {
        *counts.entry(done.cause).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    let tense = if is_dry_run { "would be done" } else { "done" };
    eprintln!(
        "{tense}: {} letters{}{}",
        done.len(),
        if counts.is_empty() { "" } else { ": " },
        counts.join(", ")
    );
    Ok(Exit::Done)
}

fn export(args: &ExportArgs) -> Outcome {
    let site = args.kafka.site()?;
    let filter = args.which.filter();
    let wrong = |error: io::Error| match &args.file {
        Some(file) => Failure::usage(format_args!("{}: {error}", file.display())),
        None => Failure::new(Exit::Unexpected, format_args!("stdout: {error}")),
    };
    let to: Box<dyn Write> = match &args.file {
        Some(file) => Box::new(File::create(file).map_err(wrong)?),
        None => Box::new(io::stdout().lock()),
    };
    let mut to = BufWriter::new(to);
    let index = Index::read(&site)?;
    let mut written = Ok(0_u64);
    index.letters(&site, |letter| {
        if let Ok(count) = written
            && (args.all || index.status(letter.place).is_open())
            && filter.allows(letter)
        {
            let line = serde_json::to_vec(&whole(&index, letter)).map_err(io::Error::from);
            let line = line.and_then(|line| to.write_all(&line).and_then(|()| to.write_all(b"\n")));
            written = line.map(|()| count + 1);
        }
    })?;
    let count = written.and_then(|count| to.flush().map(|()| count)).map_err(wrong)?;
    eprintln!("{count} letters");
    Ok(Exit::Done)
}

impl From<DeedError> for Failure {
    fn from(error: DeedError) -> Self {
        match error {
            DeedError::Site(error) => error.into(),
            DeedError::NotFound(_) => Self::new(Exit::NotFound, error),
            DeedError::Handled(..) | DeedError::Foreign(..) => Self::new(Exit::Conflict, error),
            DeedError::NoPartition(..) => Self::usage(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_shown_in_hexadecimal() {
        assert_eq!(
            hexadecimal(b"\xff\xfe\x00 no text at"),
            "00000000  ff fe 00 20 6e 6f 20 74 65 78 74 20 61 74        ... no text at"
        );
        let json = |bytes: &[u8]| serde_json::to_string(&Bytes::of(bytes)).unwrap();
        assert_eq!(json("ä".as_bytes()), r#"{"text":"ä"}"#);
        assert_eq!(json(b"\xff"), r#"{"base64":"/w=="}"#);
    }

    #[test]
    fn a_table_shows_so_much_of_a_sentence() {
        let long = "ä".repeat(SENTENCE_SHOWN_MAX);
        assert_eq!(shortened(&long), long);
        assert_eq!(shortened(&format!("{long}b")), format!("{long}…"));
    }
}
