//! The determinism gate: recorded inboxes with everything the fold said to them are folded again, from the beginning,
//! with a takeover after every record, and from every checkpoint that stands in them.
//!
//! Whatever differs is another answer to the same log: a replay, an audit and an older server beside this one would
//! contradict what has been said. Then the level is raised, old levels keep their answers, and new goldens are written
//! for the new one. `SAGAMORE_BLESS=1` writes what does not exist yet, and overwrites nothing.
//!
//! `golden/format.rs` is the file, `golden/scripts.rs` what new ones are made of.

#![expect(clippy::unwrap_used, reason = "the harness belongs to the tests")]

#[path = "fold/harness/definition.rs"]
mod definition;
#[path = "golden/format.rs"]
mod format;
#[path = "golden/scribe.rs"]
mod scribe;
#[path = "golden/scripts.rs"]
mod scripts;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Once;

use sagamore_decider::checkpoint::Checkpoint;
use sagamore_decider::output::{Output, Record};
use sagamore_decider::restore::{Restored, StateReader};
use sagamore_decider::settings::LEVEL_MAX;
use sagamore_decider::shard::Shard;
use sagamore_schemas::log::{CHECKPOINT_KEY, record_hash};
use sagamore_schemas::wire::Authority;

use format::{Golden, In, Line, checkpoint_lines, end_line, out_line};

const NEW_LEVEL: &str = "\
The fold has answered a log that was recorded in other words than it did then. On a running system that is a
contradiction: servers of both versions run beside each other, and audits replay what was said. If it is not a mistake
it is a new level (ARCHITECTURE.md, \"A new level\"): raise LEVEL_MAX, keep the old behaviour for shards and transactions
of the old levels, and let SAGAMORE_BLESS=1 write goldens into the folder of the new one. The files of this level stay.";

#[test]
fn recorded_inboxes_are_answered_as_they_were() {
    each(|golden| {
        let mut shard = Shard::new(golden.head.identity());
        let found = fold(&mut shard, &golden.lines);
        compare(golden, &golden.lines, &found, "folded from the beginning");
    });
}

#[test]
fn a_takeover_after_any_record_changes_no_answer() {
    each(|golden| {
        let places: Vec<usize> =
            (0..golden.lines.len()).filter(|at| golden.lines[*at].starts_with("{\"in\":")).collect();
        for at in places {
            let (before, after) = golden.lines.split_at(at);
            let mut first = Shard::new(golden.head.identity());
            let (_, mut state) = fold_stored(&mut first, before);
            if let Some(draft) = first.draft(state.next_offset) {
                state.add(&first.complete(draft, &[]));
            }
            let mut second = state.restored(golden).shard;
            compare_said(golden, after, &mut second, &format!("after a takeover at line {}", at + 2));
        }
    });
}

#[test]
fn stored_checkpoints_are_restored_and_continued() {
    each(|golden| {
        let mut state = StateTopic::default();
        let mut said: Vec<&str> = Vec::new();
        let (mut last, mut owed) = (None, 0);
        for (at, (text, line)) in golden.read_lines().enumerate() {
            match line {
                Line::In(input) => last = Some(input),
                Line::Out => said.push(text),
                Line::Owed(count) => owed = count,
                Line::State(record) => {
                    let is_last = record.key.0 == CHECKPOINT_KEY;
                    state.records.push((record.key.0, record.as_of, record.value.map(|value| value.0)));
                    if is_last {
                        let restored = state.restored(golden);
                        is_of(&restored, last.as_ref().unwrap());
                        let owing: Vec<String> = restored.owed.iter().map(out_line).collect();
                        assert_eq!(owing, said[said.len() - owed..], "{}: what is owed", golden.head.golden);
                        let mut shard = restored.shard;
                        let how = format!("from the checkpoint that ends at line {}", at + 2);
                        compare_said(golden, &golden.lines[at + 1..], &mut shard, &how);
                    }
                }
                Line::Journal | Line::End => {}
            }
        }
    });
}

#[test]
fn every_script_has_its_golden() {
    write_missing();
    for script in scripts::SCRIPTS {
        let path = folder(LEVEL_MAX).join(format!("{}.jsonl", script.name));
        assert!(path.exists(), "{} is missing: SAGAMORE_BLESS=1 writes it", path.display());
    }
}

#[test]
#[should_panic(expected = "another answer to the record")]
fn a_difference_is_explained() {
    each(|golden| {
        let mut golden = golden.clone();
        let at = golden.lines.iter().position(|line| line.starts_with("{\"out\":")).unwrap();
        golden.lines[at] = golden.lines[at].replacen("sagamore.", "sagamoor.", 1);
        let found = fold(&mut Shard::new(golden.head.identity()), &golden.lines);
        compare(&golden, &golden.lines, &found, "folded from the beginning");
    });
}

/// Of what there is nothing yet, when somebody wants that; what there is stays as it is.
fn write_missing() {
    static ONCE: Once = Once::new();
    if is_blessing() {
        ONCE.call_once(|| scripts::SCRIPTS.iter().for_each(write));
    }
}

fn write(script: &scribe::Script) {
    let folder = folder(LEVEL_MAX);
    let path = folder.join(format!("{}.jsonl", script.name));
    if !path.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, scribe::write(script).print()).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the fold reads no variable; this asks whether to write files")]
fn is_blessing() -> bool {
    std::env::var_os("SAGAMORE_BLESS").is_some()
}

fn folder(level: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/level-{level}"))
}

/// Every golden of every level.
fn each(check: impl Fn(&Golden)) {
    write_missing();
    for level in 1..=LEVEL_MAX {
        let entries = std::fs::read_dir(folder(level));
        let mut files: Vec<PathBuf> = entries.unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "no goldens of level {level}");
        for file in files {
            let golden = Golden::read(&std::fs::read_to_string(&file).unwrap());
            assert_eq!(golden.head.level, level, "{}", file.display());
            check(&golden);
        }
    }
}

/// The records of a state partition.
#[derive(Default)]
struct StateTopic {
    records: Vec<(Vec<u8>, i64, Option<Vec<u8>>)>,
    next_offset: i64,
}

impl StateTopic {
    fn add(&mut self, checkpoint: &Checkpoint) {
        for record in checkpoint.state.iter().chain([&checkpoint.last]).cloned() {
            self.records.push((record.key, record.as_of, record.value));
        }
        self.next_offset = checkpoint.next_offset;
    }

    fn restored(&self, golden: &Golden) -> Restored {
        let mut reader = StateReader::default();
        for (key, as_of, value) in &self.records {
            let as_of = as_of.to_string();
            let header = (key != CHECKPOINT_KEY).then_some(as_of.as_bytes());
            reader.read(key, header, value.as_deref());
        }
        let restored = reader.finish(golden.head.identity());
        restored.unwrap_or_else(|error| panic!("{}: {error}\n{NEW_LEVEL}", golden.head.golden))
    }
}

/// The checkpoint names the very record before it.
fn is_of(restored: &Restored, last: &In) {
    let applied = restored.applied.as_ref().unwrap();
    let bytes = |bytes: &Option<format::Bytes>| bytes.as_ref().map(|bytes| bytes.0.clone());
    let hash =
        record_hash(bytes(&last.key).as_deref(), bytes(&last.value).as_deref(), last.timestamp().epoch_ms());
    assert_eq!((applied.offset, applied.hash), (last.offset, hash), "the last applied record");
}

/// Folds the inputs among these lines, and prints what becomes of them; checkpoints where the lines have one.
fn fold(shard: &mut Shard, lines: &[String]) -> Vec<String> {
    fold_stored(shard, lines).0
}

fn fold_stored(shard: &mut Shard, lines: &[String]) -> (Vec<String>, StateTopic) {
    let mut found = Vec::new();
    let mut state = StateTopic::default();
    let mut said: Vec<Output> = Vec::new();
    let golden = Golden { head: serde_json::from_str(HEADLESS).unwrap(), lines: lines.to_vec() };
    for (text, line) in golden.read_lines() {
        match line {
            Line::In(input) => {
                found.push(text.to_owned());
                let outputs = apply(shard, &input);
                found.extend(outputs.iter().map(out_line));
                said.extend(outputs);
            }
            Line::Owed(owed) => {
                let Some(draft) = shard.draft(state.next_offset) else { continue };
                let owing: Vec<&Output> = said[said.len().saturating_sub(owed)..].iter().collect();
                let checkpoint = shard.complete(draft, &owing);
                found.extend(checkpoint_lines(&checkpoint, owed));
                state.add(&checkpoint);
            }
            Line::End => found.push(end_line(shard)),
            Line::Out | Line::State(_) | Line::Journal => {}
        }
    }
    (found, state)
}

/// A head for lines that are read by themselves.
const HEADLESS: &str = r#"{"golden":"","level":0,"shows":"","instance":"00000000-0000-0000-0000-000000000000","partition":0,"partitions":1,"inbox":""}"#;

fn apply(shard: &mut Shard, input: &In) -> Vec<Output> {
    let headers: Vec<(&str, &[u8])> =
        input.headers.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())).collect();
    let record = Record {
        offset: input.offset,
        timestamp: input.timestamp(),
        key: input.key.as_ref().map(|key| key.0.as_slice()),
        value: input.value.as_ref().map(|value| value.0.as_slice()),
        headers: &headers,
    };
    let mut outputs = Vec::new();
    match &input.skipped {
        Some((actor, reason)) => {
            let authority =
                Authority { id: "".into(), actor: actor.into(), reason: reason.into(), revision: None };
            shard.skip(&record, &authority);
        }
        None => {
            shard.apply(&record, &mut outputs);
        }
    }
    outputs
}

/// The rest of the inbox is answered in the same words, and the chain comes to the same end. What later checkpoints
/// hold depends on which came before, so they are left out.
fn compare_said(golden: &Golden, lines: &[String], shard: &mut Shard, how: &str) {
    let is_said = |line: &&String| {
        !["{\"owed\"", "{\"state\"", "{\"journal\""].iter().any(|kind| line.starts_with(kind))
    };
    let expected: Vec<String> = lines.iter().filter(is_said).cloned().collect();
    let found = fold(shard, &expected);
    compare(golden, &expected, &found, how);
}

/// Panics with the record, and where the line of it differs.
fn compare(golden: &Golden, expected: &[String], found: &[String], how: &str) {
    let length = expected.len().max(found.len());
    let Some(first) = (0..length).find(|at| expected.get(*at) != found.get(*at)) else { return };
    let is_input = |line: &&String| line.starts_with("{\"in\":");
    let record = expected[..expected.len().min(first + 1)].iter().rev().find(is_input);
    let none = "(nothing)".to_owned();
    let (then, now) = (expected.get(first).unwrap_or(&none), found.get(first).unwrap_or(&none));
    let common = then.bytes().zip(now.bytes()).take_while(|(one, other)| one == other).count();
    let from = then.floor_char_boundary(common.saturating_sub(60));
    let part = |line: &str| -> String {
        line.chars().skip(line[..from.min(line.len())].chars().count()).take(160).collect()
    };
    let mut others: BTreeMap<bool, usize> = BTreeMap::new();
    for at in first + 1..length {
        *others.entry(expected.get(at) == found.get(at)).or_default() += 1;
    }
    panic!(
        "{} ({}), {how}: another answer to the record\n  {}\nwas\n  {then}\nis\n  {now}\nfrom character {from} on\n  - {}\n  + {}\n{} more lines differ\n\n{NEW_LEVEL}",
        golden.head.golden,
        golden.head.shows,
        record.unwrap_or(&none),
        part(then),
        part(now),
        others.get(&false).copied().unwrap_or_default(),
    );
}
