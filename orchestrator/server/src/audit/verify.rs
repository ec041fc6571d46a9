//! The whole of it: every shard folded, every topic read, and what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use sagamore_kafka::client::Isolation;
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::{CheckpointRecord, Digest128};
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::Handled;
use serde::Serialize;

use super::compare::{Entries, Finding, Kind, Outputs, Tally};
use super::fold::{AuditError, Began, Begin, Fold, Folder, Folding, Origin, PROGRESS_EVERY, Places};
use super::proofs::Proof;
use super::replay::{Entered, ReplayedShard, Wanted, content_of, id_of};
use super::signed::SignedHead;
use super::topics::{Stretch, in_parallel, read, stretches};
use crate::checkpointer::{Skip, headers_of, timestamp_ms};
use crate::site::{Newest, Site};
use crate::snapshots::Found;

/// Findings that are told one by one; the others are counted.
const FINDINGS_TOLD_MAX: usize = 100;
/// How much of what was found is told.
const TOLD_BYTES_MAX: usize = 2_000;

/// How long after a snapshot a record may still come again that was sent before: librdkafka gives up what it has not delivered
/// within 5 min.
const REPEATED_WITHIN: sagamore_schemas::ids::Span = sagamore_schemas::ids::Span::from_secs(5 * 60);

/// From when to when.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Span {
    /// Inputs of this time and later.
    pub from: Option<Time>,
    /// Inputs before this time.
    pub to: Option<Time>,
}

impl Span {
    /// Whether it is within.
    pub fn contains(self, at: Time) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }
}

/// The verdict.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing is missing, different or extra, and no fold has stopped.
    pub clean: bool,
    /// What was looked at.
    #[serde(flatten)]
    pub span: Span,
    /// Each shard.
    pub shards: Vec<ShardReport>,
    /// Each topic; in `journal` and `inbox` the entries and records that shards have written there.
    pub topics: BTreeMap<String, Tally>,
    /// The first of what is wrong.
    pub findings: Vec<Finding>,
    /// Inputs folded.
    pub inputs: u64,
    /// Records and entries compared.
    pub compared: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Inputs a second while folding, over all threads.
    pub inputs_per_s: u64,
}

/// A shard.
#[derive(Debug, Serialize)]
pub struct ShardReport {
    /// Where the fold began.
    #[serde(flatten)]
    pub began: Began,
    /// Inputs folded.
    pub inputs: u64,
    /// Up to this offset, which is not one of them.
    pub next_offset: i64,
    /// What its newest checkpoint has folded in.
    pub checkpoint: i64,
    /// Open transactions.
    pub open: usize,
    /// Why the fold does not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// Folds and compares. What is asked from some time on is folded from the newest snapshot before it.
pub fn verify(
    site: &Site,
    span: Span,
    signed: &[SignedHead],
    how: Folding<'_>,
) -> Result<Report, AuditError> {
    let begun = Instant::now();
    let folder = Folder::new(site, how)?;
    let audit = Audit { site, folder: &folder, span, how };
    // In this order. What a checkpoint has folded in was sent before it; what was sent has its cause in the inbox: so
    // nothing that comes meanwhile looks wrong.
    let newest = site.newest_checkpoints()?;
    let checkpoints = checkpoints_of(&newest);
    let (journals, told) = audit.topics()?;
    let inbox = folder.inbox()?;
    let wanted = Wanted { snapshots: how.snapshots, ..Wanted::default() };
    let is_before = |found: &Found| span.from.is_some_and(|from| outputs_from(found) <= from);
    let first = if span.from.is_some() { Begin::Late(&is_before) } else { Begin::Whole };
    let folds = folder.fold_all(&inbox, &first, None, &wanted, Folded::of)?;
    let took = begun.elapsed();
    let mut report = Report {
        clean: false,
        span,
        shards: Vec::new(),
        topics: BTreeMap::new(),
        findings: Vec::new(),
        inputs: folds.iter().map(|fold| fold.replayed.inputs).sum(),
        compared: 0,
        took_ms: 0,
        inputs_per_s: 0,
    };
    report.inputs_per_s = per_second(report.inputs, took);
    audit.compare_journals(&journals, &folds, &checkpoints, &mut report)?;
    compare_signed(signed, &folds, &site.topic(Topic::Journal), &mut report);
    audit.compare_outputs(&told, &folds, &checkpoints, &mut report)?;
    audit.say_what_should_be(&folds, &mut report)?;
    tell_proofs(&folds, &site.topic(Topic::Snapshots), &mut report);
    for fold in folds {
        report.shards.push(ShardReport {
            began: fold.origin.began(),
            inputs: fold.replayed.inputs,
            next_offset: fold.next_offset,
            checkpoint: next_offset(&checkpoints, fold.partition),
            open: fold.open,
            stopped: fold.stopped,
        });
    }
    let is_stopped = report.shards.iter().any(|shard| shard.stopped.is_some());
    report.compared = report.topics.values().map(|tally| tally.found()).sum();
    report.clean = !is_stopped && report.topics.values().all(|tally| tally.is_clean());
    report.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// From when on every output stands in its topic that a fold from this snapshot says: what came before was acknowledged when
/// its checkpoint was written, but a producer may still repeat it for a while.
fn outputs_from(snapshot: &Found) -> Time {
    snapshot.written.after(REPEATED_WITHIN)
}

/// What snapshots say beside the fold.
fn tell_proofs(folds: &[Folded], topic: &str, report: &mut Report) {
    let mut tally = Tally::default();
    for proof in folds.iter().flat_map(|fold| &fold.proofs) {
        tally.add(proof.kind);
        if proof.kind == Kind::Different {
            let finding = Finding {
                kind: proof.kind,
                topic: topic.to_owned(),
                partition: proof.found.part.partition.0,
                offset: Some(proof.found.last),
                cause: Some(proof.found.part.next_offset),
                sequence: None,
                found: proof.cause.clone(),
                said: None,
            };
            tell(&mut report.findings, vec![finding]);
        }
    }
    if tally != Tally::default() {
        report.topics.insert(topic.to_owned(), tally);
    }
}

/// What was signed once, and what the fold says there now.
fn compare_signed(signed: &[SignedHead], folds: &[Folded], journal: &str, report: &mut Report) {
    let mut tally = Tally::default();
    for SignedHead { partition, offset, sequence, hash, .. } in signed {
        let fold = folds.iter().find(|fold| fold.partition == *partition);
        if fold.is_some_and(|fold| *offset < fold.replayed.begins) {
            tally.add(Kind::NotRetained);
            continue;
        }
        let entries = fold.map(|fold| &fold.replayed.entries);
        let place = |entry: &Entered| (entry.offset, entry.sequence);
        let said = entries.and_then(|entries| {
            let at = entries.binary_search_by_key(&(*offset, *sequence), place).ok()?;
            Some(entries[at].chain)
        });
        if said == Some(*hash) {
            tally.add(Kind::Identical);
            continue;
        }
        tally.add(Kind::Different);
        let finding = Finding {
            kind: Kind::Different,
            topic: journal.to_owned(),
            partition: *partition,
            offset: None,
            cause: Some(*offset),
            sequence: Some(*sequence),
            found: Some(format!("signed: the chain up to here is {hash}")),
            said: said
                .map(|chain| format!("{chain}: the inbox has been altered since, or it is another one")),
        };
        tell(&mut report.findings, vec![finding]);
    }
    if !signed.is_empty() {
        report.topics.insert("signed".into(), tally);
    }
}

type Checkpoints<'c> = BTreeMap<i32, &'c CheckpointRecord>;

fn checkpoints_of(newest: &BTreeMap<i32, Newest>) -> Checkpoints<'_> {
    let mut checkpoints = Checkpoints::new();
    for (partition, newest) in newest {
        checkpoints.extend(newest.checkpoint.as_ref().map(|checkpoint| (*partition, checkpoint)));
    }
    checkpoints
}

fn next_offset(checkpoints: &Checkpoints<'_>, partition: i32) -> i64 {
    checkpoints.get(&partition).map_or(0, |checkpoint| checkpoint.next_offset)
}

/// The outputs of inputs before this were in their topics when the newest checkpoint was written.
fn acknowledged(checkpoints: &Checkpoints<'_>, partition: i32) -> i64 {
    let settled = checkpoints.get(&partition).filter(|checkpoint| checkpoint.owed == 0);
    settled.map_or(0, |checkpoint| checkpoint.next_offset)
}

fn per_second(count: u64, took: Duration) -> u64 {
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000) / ms
}

struct Audit<'a> {
    site: &'a Site,
    folder: &'a Folder<'a>,
    span: Span,
    how: Folding<'a>,
}

/// A fold without its shard.
struct Folded {
    partition: i32,
    origin: Origin,
    proofs: Vec<Proof>,
    replayed: ReplayedShard,
    next_offset: i64,
    open: usize,
    stopped: Option<String>,
    found: Vec<Digest128>,
    skips: BTreeMap<i64, Skip>,
}

impl Folded {
    fn of(fold: Fold) -> Self {
        let Fold { partition, origin, shard, replayed, stopped, found, skips, proofs } = fold;
        let (next_offset, open) = (shard.next_offset(), shard.open_count());
        Self { partition, origin, proofs, replayed, next_offset, open, stopped, found, skips }
    }
}

impl Audit<'_> {
    /// Journals; and whatever outputs go to, but for the inbox.
    fn topics(&self) -> Result<(Vec<Stretch>, Vec<Stretch>), AuditError> {
        let journal = self.site.topic(Topic::Journal);
        let commands = format!("{}.commands.", self.site.prefix);
        let others = [self.site.topic(Topic::Outcomes), self.site.topic(Topic::DeadLetters)];
        let all = stretches(self.site, |topic| {
            topic == journal || topic.starts_with(&commands) || others.iter().any(|other| other == topic)
        })?;
        Ok(all.into_iter().partition(|stretch| stretch.topic == journal))
    }

    fn compare_journals(
        &self,
        journals: &[Stretch],
        folds: &[Folded],
        checkpoints: &Checkpoints<'_>,
        report: &mut Report,
    ) -> Result<(), AuditError> {
        let total: u64 = journals.iter().map(Stretch::span).sum();
        let compared = in_parallel(journals, self.how.threads, |stretch| {
            let Some(fold) = folds.iter().find(|fold| fold.partition == stretch.partition) else {
                return Ok((Tally::default(), Vec::new()));
            };
            self.compare_journal(stretch, fold, next_offset(checkpoints, stretch.partition), total)
        })?;
        let mut tally = Tally::default();
        for (part, findings) in compared {
            tally.merge(part);
            tell(&mut report.findings, findings);
        }
        for fold in folds {
            let Some(checkpoint) = checkpoints.get(&fold.partition) else { continue };
            let head = &checkpoint.chain;
            let entries = &fold.replayed.entries;
            let at = entries
                .binary_search_by_key(&(head.offset, head.sequence), |entry| (entry.offset, entry.sequence));
            let before = fold.replayed.chain;
            let is_same = at.map_or_else(
                |_| head.hash == before && entries.first().is_none_or(|first| first.offset > head.offset),
                |at| entries[at].chain == head.hash,
            );
            let is_later = checkpoint.next_offset >= fold.replayed.begins;
            if !is_same && is_later && fold.stopped.is_none() {
                tally.add(Kind::Different);
                tell(
                    &mut report.findings,
                    vec![Finding {
                        kind: Kind::Different,
                        topic: self.site.topic(Topic::State),
                        partition: fold.partition,
                        offset: None,
                        cause: Some(head.offset),
                        sequence: Some(head.sequence),
                        found: Some(format!("the newest checkpoint has the chain at {}", head.hash)),
                        said: None,
                    }],
                );
            }
        }
        report.topics.insert(self.site.topic(Topic::Journal), tally);
        Ok(())
    }

    fn compare_journal(
        &self,
        stretch: &Stretch,
        fold: &Folded,
        next_offset: i64,
        total: u64,
    ) -> Result<(Tally, Vec<Finding>), AuditError> {
        let mut entries = Entries::new(&fold.replayed);
        let mut tally = Tally::default();
        let mut findings = Vec::new();
        let finding = |kind, offset, cause, sequence, found| Finding {
            kind,
            topic: stretch.topic.clone(),
            partition: stretch.partition,
            offset,
            cause: Some(cause),
            sequence: Some(sequence),
            found,
            said: None,
        };
        read(self.site, stretch, Isolation::ReadCommitted, |message| {
            (self.how.progress)(1, total);
            for found in entries.see(message.payload().unwrap_or_default()) {
                // Up to where the fold has stopped.
                let is_beyond = fold.stopped.is_some() && found.place.offset >= fold.next_offset;
                if is_beyond || !self.span.contains(found.place.at) {
                    continue;
                }
                tally.add(found.kind);
                if matches!(found.kind, Kind::Different | Kind::Extra) && findings.len() < FINDINGS_TOLD_MAX {
                    let (cause, sequence) = (found.place.offset, found.place.sequence);
                    let text = Some(cut(&found.text));
                    findings.push(finding(found.kind, Some(message.offset()), cause, sequence, text));
                }
            }
            true
        })?;
        for (kind, entry) in entries.not_found(next_offset, stretch.low == 0) {
            if !self.span.contains(entry.at) {
                continue;
            }
            tally.add(kind);
            if kind == Kind::Missing && findings.len() < FINDINGS_TOLD_MAX {
                findings.push(finding(kind, None, entry.offset, entry.sequence, None));
            }
        }
        Ok((tally, findings))
    }

    fn compare_outputs(
        &self,
        topics: &[Stretch],
        folds: &[Folded],
        checkpoints: &Checkpoints<'_>,
        report: &mut Report,
    ) -> Result<(), AuditError> {
        let said = folds.iter().flat_map(|fold| fold.replayed.said.iter().copied()).collect();
        let undeliverable =
            folds.iter().flat_map(|fold| fold.replayed.undeliverable.iter().copied()).collect();
        let outputs = Outputs::new(said, undeliverable);
        // What the inbox has was read with the fold. Whoever else writes there is no concern of this.
        for content in folds.iter().flat_map(|fold| &fold.found) {
            let _ = outputs.see(*content, Digest128::default);
        }
        let began = folds.iter().filter_map(|fold| fold.origin.snapshot.as_ref());
        let began = began.map(|snapshot| outputs_from(&snapshot.found)).max();
        let total: u64 = topics.iter().map(Stretch::span).sum();
        let ends: BTreeMap<i32, i64> = folds.iter().map(|fold| (fold.partition, fold.next_offset)).collect();
        let compared = in_parallel(topics, self.how.threads, |stretch| {
            self.compare_topic(stretch, &outputs, began, total)
        })?;
        let mut begins = began;
        for (topic, tally, first, findings) in compared {
            report.topics.entry(topic).or_default().merge(tally);
            begins = begins.max(first);
            tell(&mut report.findings, findings);
        }
        let mut tally = Tally::default();
        let mut findings = Vec::new();
        for said in outputs.not_found().filter(|said| self.span.contains(said.at)) {
            let end = ends.get(&said.partition).copied().unwrap_or(0);
            let kind = if said.cause >= acknowledged(checkpoints, said.partition).min(end) {
                Kind::UnderWay
            } else if begins.is_some_and(|begins| said.at < begins) {
                Kind::NotRetained
            } else {
                Kind::Missing
            };
            tally.add(kind);
            if kind == Kind::Missing && findings.len() < FINDINGS_TOLD_MAX {
                findings.push(Finding {
                    kind,
                    topic: self.site.topic(Topic::Inbox),
                    partition: said.partition,
                    offset: None,
                    cause: Some(said.cause),
                    sequence: None,
                    found: None,
                    said: Some("an output of this input stands in no topic".into()),
                });
            }
        }
        report.topics.insert("outputs".into(), tally);
        tell(&mut report.findings, findings);
        Ok(())
    }

    /// Its tally, when it begins if something before is gone, and what is wrong.
    fn compare_topic(
        &self,
        stretch: &Stretch,
        outputs: &Outputs,
        began: Option<Time>,
        total: u64,
    ) -> Result<(String, Tally, Option<Time>, Vec<Finding>), AuditError> {
        let mut tally = Tally::default();
        let mut findings = Vec::new();
        let mut first = None;
        let mut read_since = 0;
        read(self.site, stretch, Isolation::ReadCommitted, |message| {
            read_since += 1;
            if read_since == PROGRESS_EVERY {
                (self.how.progress)(std::mem::take(&mut read_since), total);
            }
            let at = Time::from_epoch_ms(timestamp_ms(message.timestamp()));
            first.get_or_insert(at);
            let headers = headers_of(message);
            if stretch.topic == self.site.topic(Topic::DeadLetters) && Handled::read(&headers).is_some() {
                // A person's, about a letter: the fold knows nothing of it.
                return true;
            }
            let (key, value) = (message.key(), message.payload());
            let content = content_of(&stretch.topic, key, value, &headers);
            let mut kind = outputs.see(content, || id_of(value, &headers));
            if kind == Kind::Extra && began.is_some_and(|began| at < began) {
                // Said by what was not folded.
                kind = Kind::NotRetained;
            }
            if !self.span.contains(at) {
                return true;
            }
            tally.add(kind);
            if matches!(kind, Kind::Different | Kind::Extra) && findings.len() < FINDINGS_TOLD_MAX {
                findings.push(Finding {
                    kind,
                    topic: stretch.topic.clone(),
                    partition: stretch.partition,
                    offset: Some(message.offset()),
                    cause: None,
                    sequence: None,
                    found: Some(cut(&String::from_utf8_lossy(value.unwrap_or_default()))),
                    said: None,
                });
            }
            true
        })?;
        (self.how.progress)(read_since, total);
        Ok((stretch.topic.clone(), tally, first.filter(|_| stretch.low > 0), findings))
    }

    /// Folds the shards of wrong entries once more, and keeps what the fold says in their place.
    fn say_what_should_be(&self, folds: &[Folded], report: &mut Report) -> Result<(), AuditError> {
        let journal = self.site.topic(Topic::Journal);
        for folded in folds {
            let wrong = report.findings.iter_mut().filter(|finding| {
                finding.topic == journal
                    && finding.partition == folded.partition
                    && finding.kind != Kind::Extra
            });
            let mut wrong: Vec<&mut Finding> = wrong.collect();
            let place = |finding: &Finding| Some((finding.cause?, finding.sequence?));
            let entries: Places = wrong.iter().filter_map(|finding| place(finding)).collect();
            let Some((last, _)) = entries.last() else { continue };
            let origin = folded.origin.up_to(last + 1);
            let (skips, span) = (folded.skips.clone(), origin.stretch.span());
            let wanted = Wanted { entries, ..Wanted::default() };
            let fold = self.folder.fold_once(&origin, None, skips, wanted, span, &mut |_, _| {})?;
            for finding in &mut wrong {
                finding.said =
                    place(finding).and_then(|place| fold.replayed.texts.get(&place)).map(|text| cut(text));
            }
        }
        Ok(())
    }
}

fn tell(findings: &mut Vec<Finding>, more: Vec<Finding>) {
    let room = FINDINGS_TOLD_MAX.saturating_sub(findings.len());
    findings.extend(more.into_iter().take(room));
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TOLD_BYTES_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
