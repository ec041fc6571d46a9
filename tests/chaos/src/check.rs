//! The judge. It believes neither the servers nor the participants nor the clients.
//!
//! | check | what must be so |
//! |---|---|
//! | ended | every acknowledged start stands in the log, has one life, and has ended or is stuck with a reason |
//! | decision | the journal has one decision of each life, and one final outcome, the one that was told |
//! | outcome | records of one id agree; one final outcome a transaction |
//! | effects | each operation of a step at most once; committed: all, once, in full; else: nothing is left |
//! | money | what left one bank arrived at the other, or came back |
//! | foretold | who had to be refused was not committed; who was turned back was foretold, late, unheard or cancelled |
//! | answers | what HTTP told is what the topic says; a contradiction is never accepted |
//! | refused | starts that contradict the first, or cannot be read: all of them, and no other |
//! | commands | the same id, the same command; nothing is undone in what is committed |
//! | journal | the chain is whole from its first link to the one in the last checkpoint |
//! | state | count and XOR of the last checkpoint are those of the topic; nothing is open but what is stuck |
//! | dead letters | garbage, all of it, and late replies to what has long ended |

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::evidence::{Answer, Evidence, Row, Told};
use crate::fate;

const FINAL: [&str; 3] = ["committed", "compensated", "aborted"];
/// Violations of one check that are told; the others are counted.
const TOLD_MAX: usize = 20;

/// What a check came to.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How much was looked at, by check.
    pub checked: BTreeMap<&'static str, u64>,
    /// What is wrong, by check.
    pub violations: BTreeMap<&'static str, Vec<String>>,
    /// What came of the transactions.
    pub outcomes: BTreeMap<String, u64>,
    /// Why they were turned back.
    pub reasons: BTreeMap<String, u64>,
    /// Other numbers that tell how it was.
    pub numbers: BTreeMap<&'static str, u64>,
}

impl Verdict {
    fn look(&mut self, check: &'static str) {
        *self.checked.entry(check).or_default() += 1;
    }

    fn wrong(&mut self, check: &'static str, what: String) {
        self.violations.entry(check).or_default().push(what);
    }

    /// Whether nothing is wrong.
    pub fn is_green(&self) -> bool {
        self.violations.is_empty()
    }

    /// Every violation, a line each, as many as anybody reads.
    pub fn told(&self) -> String {
        let mut lines = Vec::new();
        for (check, violations) in &self.violations {
            lines.extend(violations.iter().take(TOLD_MAX).map(|violation| format!("{check}: {violation}")));
            if violations.len() > TOLD_MAX {
                lines.push(format!("{check}: and {} more", violations.len() - TOLD_MAX));
            }
        }
        lines.join("\n")
    }
}

/// Judges.
pub fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    let lives = check_starts(evidence, &mut verdict);
    let finals = check_outcomes(evidence, &lives, &mut verdict);
    check_journal(evidence, &lives, &finals, &mut verdict);
    check_effects(evidence, &lives, &finals, &mut verdict);
    check_foretold(evidence, &finals, &mut verdict);
    check_answers(evidence, &finals, &mut verdict);
    check_commands(evidence, &lives, &finals, &mut verdict);
    check_state(evidence, &finals, &mut verdict);
    check_dead_letters(evidence, &lives, &mut verdict);
    verdict.numbers.extend([
        ("commands", evidence.commands_all),
        ("journal entries", evidence.journal.count() as u64),
        ("journal entries repeated", evidence.journal.repeated),
        ("checkpoints", evidence.state.checkpoints() as u64),
        ("ledger rows", evidence.rows.len() as u64),
        ("dead letters", evidence.dead_letters.len() as u64),
    ]);
    verdict
}

/// The one life of each transaction, by id; and which starts had to be refused.
fn check_starts<'e>(evidence: &'e Evidence, verdict: &mut Verdict) -> BTreeMap<&'e str, String> {
    let mut first: BTreeMap<&str, ((i32, i64), u64)> = BTreeMap::new();
    let mut refused: BTreeMap<String, &str> = BTreeMap::new();
    for (place, begun) in &evidence.starts {
        let cause = format!("{}-{}", place.0, place.1);
        if !begun.is_whole {
            refused.insert(cause, &begun.subject);
            continue;
        }
        match first.get(begun.subject.as_str()) {
            None => drop(first.insert(&begun.subject, (*place, begun.input_hash))),
            Some((home, _)) if home.0 != place.0 => {
                verdict.wrong("refused", format!("{} was started in two partitions", begun.subject));
            }
            Some((_, hash)) if *hash != begun.input_hash => drop(refused.insert(cause, &begun.subject)),
            Some(_) => {}
        }
    }
    let told: BTreeSet<(&str, &str)> = evidence
        .outcomes
        .iter()
        .flat_map(|(subject, all)| all.iter().map(move |told| (subject, told)))
        .filter(|(_, told)| told.outcome == "refused")
        .map(|(subject, told)| (told.cause.as_str(), subject.as_str()))
        .collect();
    let expected: BTreeSet<(&str, &str)> =
        refused.iter().map(|(cause, subject)| (cause.as_str(), *subject)).collect();
    for missing in expected.difference(&told) {
        verdict.wrong("refused", format!("{missing:?} had to be refused, and nothing says so"));
    }
    for surplus in told.difference(&expected) {
        verdict.wrong("refused", format!("{surplus:?} was refused without a reason that shows"));
    }
    *verdict.checked.entry("refused").or_default() += expected.len() as u64;
    for (id, wish) in &evidence.wishes {
        if wish.acknowledged && !first.contains_key(id.as_str()) {
            verdict.wrong("ended", format!("{id} was acknowledged, and stands in no inbox"));
        }
    }
    for id in first.keys().filter(|id| !evidence.wishes.contains_key(**id)) {
        verdict.wrong("ended", format!("{id} stands in an inbox, and nobody wanted it"));
    }
    first.into_iter().map(|(id, ((partition, offset), _))| (id, format!("{partition}-{offset}"))).collect()
}

/// The final outcome of each life, by id.
fn check_outcomes<'e>(
    evidence: &'e Evidence,
    lives: &BTreeMap<&'e str, String>,
    verdict: &mut Verdict,
) -> BTreeMap<&'e str, &'e Told> {
    let mut finals: BTreeMap<&str, &Told> = BTreeMap::new();
    for contradiction in &evidence.contradictions {
        verdict.wrong("outcome", contradiction.clone());
    }
    for (subject, all) in &evidence.outcomes {
        for told in all {
            verdict.look("outcome");
            *verdict.numbers.entry("outcomes told again").or_default() += told.times - 1;
            match told.outcome.as_str() {
                "refused" => continue,
                "stuck" => *verdict.numbers.entry("stuck for a while").or_default() += 1,
                outcome if FINAL.contains(&outcome) => {
                    if let Some(other) = finals.insert(subject, told) {
                        verdict.wrong("outcome", format!("{subject} ended twice: {other:?} and {told:?}"));
                    }
                }
                _ => verdict.wrong("outcome", format!("{subject} was told {told:?}")),
            }
            if lives.get(subject.as_str()) != Some(&told.birth) {
                verdict.wrong("outcome", format!("{subject} has another life: {told:?}"));
            }
        }
    }
    for (id, birth) in lives {
        verdict.look("ended");
        let all = evidence.outcomes.get(*id).map(Vec::as_slice).unwrap_or_default();
        let stuck = all.iter().rfind(|told| told.outcome == "stuck");
        match (finals.get(id), stuck) {
            (Some(told), _) => *verdict.outcomes.entry(told.outcome.clone()).or_default() += 1,
            (None, Some(told)) if !told.reason.is_empty() => {
                *verdict.outcomes.entry("stuck".to_owned()).or_default() += 1;
            }
            (None, _) => verdict.wrong("ended", format!("{id} ({birth}) has not ended")),
        }
    }
    let highest = |told: &Told, all: &[Told]| all.iter().all(|other| other.revision <= told.revision);
    for (id, told) in &finals {
        if !highest(told, &evidence.outcomes[*id]) {
            verdict.wrong("outcome", format!("{id} was told something after its end: {told:?}"));
        }
    }
    finals
}

fn check_journal(
    evidence: &Evidence,
    lives: &BTreeMap<&str, String>,
    finals: &BTreeMap<&str, &Told>,
    verdict: &mut Verdict,
) {
    let (broken, heads) = evidence.journal.verify();
    for wrong in evidence.journal.wrong.iter().chain(&broken) {
        verdict.wrong("journal", wrong.clone());
    }
    for last in evidence.state.last() {
        verdict.look("journal");
        if heads.get(&last.partition) != Some(&last.chain) {
            let head = heads.get(&last.partition);
            let wrong = format!(
                "shard {}: the checkpoint ends with {}, the journal with {head:?}",
                last.partition, last.chain
            );
            verdict.wrong("journal", wrong);
        }
    }
    let journal = evidence.journal.lives();
    for (id, birth) in lives {
        verdict.look("decision");
        let life = journal.get(birth).cloned().unwrap_or_default();
        let Some(told) = finals.get(id) else { continue };
        let decision = if told.outcome == "committed" { "commit" } else { "rollback" };
        if life.subject != *id || life.decisions != [decision] {
            verdict.wrong(
                "decision",
                format!("{id} ({birth}) ended {}, the journal has {life:?}", told.outcome),
            );
        }
        let ends: Vec<_> = life.outcomes.iter().filter(|(outcome, _)| outcome != "stuck").collect();
        if ends != [&(told.outcome.clone(), told.revision)] {
            verdict.wrong("decision", format!("{id} ({birth}) was told {told:?}, the journal has {ends:?}"));
        }
    }
    for (birth, life) in &journal {
        if lives.get(life.subject.as_str()) != Some(birth) {
            verdict.wrong("decision", format!("the journal has a life {birth} of {}", life.subject));
        }
    }
}

fn check_effects(
    evidence: &Evidence,
    lives: &BTreeMap<&str, String>,
    finals: &BTreeMap<&str, &Told>,
    verdict: &mut Verdict,
) {
    let mut by_step: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in &evidence.rows {
        verdict.look("effects");
        if lives.get(row.subject.as_str()) != Some(&row.birth) {
            verdict.wrong("effects", format!("of a life that is none: {row:?}"));
        }
        by_step.entry((&row.subject, &row.step)).or_default().push(row);
    }
    for ((subject, step), rows) in &by_step {
        for operation in ["execute", "compensate"] {
            let times = rows.iter().filter(|row| row.operation == operation).count();
            if times > 1 {
                verdict
                    .wrong("effects", format!("{operation} of {step} of {subject} was done {times} times"));
            }
        }
        if rows[0].operation != "execute" {
            verdict.wrong("effects", format!("{step} of {subject} was undone before it was done"));
        }
        let left: i64 = rows.iter().map(|row| row.amount).sum();
        match finals.get(subject).map(|told| told.outcome.as_str()) {
            Some("committed") if rows.len() == 1 => {}
            Some("compensated") if left == 0 => {}
            Some(outcome) => {
                verdict.wrong("effects", format!("{subject} is {outcome}, and {step} did {rows:?}"));
            }
            None => {}
        }
    }
    let mut banks = 0;
    for (id, told) in finals {
        let (Some(wish), true) = (evidence.wishes.get(*id), told.outcome == "committed") else { continue };
        for step in fate::steps_of(&wish.definition) {
            let amount = step.amount.map_or(Some(1), |field| wish.input[field].as_i64()).unwrap_or_default();
            let expected = Some(fate::signed(step.name, amount));
            let done = by_step.get(&(*id, step.name)).and_then(|rows| rows.first());
            let right =
                done.is_some_and(|row| row.participant == step.participant && Some(row.amount) == expected);
            if !right {
                verdict.wrong("effects", format!("{id} is committed, and {} did {done:?}", step.name));
            }
        }
    }
    for row in &evidence.rows {
        if matches!(row.step.as_str(), "debit" | "credit") && finals.contains_key(row.subject.as_str()) {
            verdict.look("money");
            banks += row.amount;
        }
    }
    if banks != 0 {
        verdict.wrong("money", format!("the banks together have {banks} more than before"));
    }
}

fn check_foretold(evidence: &Evidence, finals: &BTreeMap<&str, &Told>, verdict: &mut Verdict) {
    for (id, told) in finals {
        let Some(wish) = evidence.wishes.get(*id) else { continue };
        verdict.look("foretold");
        let steps = fate::steps_of(&wish.definition);
        let foretold: Vec<&str> =
            steps.iter().map(|step| step.name).filter(|step| fate::is_refused(id, step)).collect();
        let (step, why) = told.reason.split_once(": ").unwrap_or((told.reason.as_str(), ""));
        let (kind, fits) = match told.outcome.as_str() {
            "committed" => ("", foretold.is_empty()),
            _ if told.reason == "deadline" => ("deadline", true),
            _ if step == "cancelled" => ("cancelled", wish.cancels),
            _ if why.starts_with("chaos: foretold") => ("refused", foretold.contains(&step)),
            _ if why.starts_with("no answer after") => ("no answer", true),
            _ => ("unexplained", false),
        };
        if !fits {
            verdict.wrong("foretold", format!("{id}: {told:?}, and {foretold:?} had to be refused"));
        }
        if !kind.is_empty() {
            *verdict.reasons.entry(kind.to_owned()).or_default() += 1;
        }
    }
}

fn check_answers(evidence: &Evidence, finals: &BTreeMap<&str, &Told>, verdict: &mut Verdict) {
    for (id, wish) in &evidence.wishes {
        for answer in &wish.answers {
            verdict.look("answers");
            let Answer { of, status, body, is_known } = answer;
            let fits = match (of.as_str(), status) {
                (_, 500.. | 429) | ("start", 202) | ("conflict", 409) | ("cancel" | "retry", 200 | 409) => {
                    true
                }
                ("start", 200) => agrees(body, "outcome", finals.get(id.as_str())),
                // Open; or ended, and then as it was told.
                ("look", 200) => {
                    let is_final = body["status"].as_str().is_some_and(|status| FINAL.contains(&status));
                    !is_final || agrees(body, "status", finals.get(id.as_str()))
                }
                // A start that stands in the log only may not have been applied yet.
                ("look" | "cancel" | "retry", 404) => !is_known,
                _ => false,
            };
            if !fits {
                verdict.wrong(
                    "answers",
                    format!("{id}: {answer:?}, the topic says {:?}", finals.get(id.as_str())),
                );
            }
        }
    }
}

fn agrees(body: &Value, name: &str, told: Option<&&Told>) -> bool {
    told.is_some_and(|told| {
        body[name] == told.outcome.as_str()
            && body["birth"] == told.birth.as_str()
            && body["revision"] == told.revision
    })
}

fn check_commands(
    evidence: &Evidence,
    lives: &BTreeMap<&str, String>,
    finals: &BTreeMap<&str, &Told>,
    verdict: &mut Verdict,
) {
    let by_birth: BTreeMap<&str, &str> = lives.iter().map(|(id, birth)| (birth.as_str(), *id)).collect();
    for command in evidence.commands.keys() {
        verdict.look("commands");
        let mut parts = command.split('/');
        let (birth, _, operation) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let Some(id) = by_birth.get(birth) else {
            verdict.wrong("commands", format!("{command} is of a life that is none"));
            continue;
        };
        let is_committed = finals.get(id).is_some_and(|told| told.outcome == "committed");
        if is_committed && operation == Some("compensate") {
            verdict.wrong("commands", format!("{command} of {id}, which is committed"));
        }
    }
}

fn check_state(evidence: &Evidence, finals: &BTreeMap<&str, &Told>, verdict: &mut Verdict) {
    for last in evidence.state.last() {
        verdict.look("state");
        for wrong in &last.wrong {
            verdict.wrong("state", wrong.clone());
        }
        for id in last.open.iter().filter(|id| finals.contains_key(id.as_str())) {
            verdict.wrong(
                "state",
                format!("{id} has ended, and is open in the state of shard {}", last.partition),
            );
        }
        let end = evidence.inbox_ends.get(&last.partition).copied().unwrap_or_default();
        if last.next_offset > end {
            verdict.wrong(
                "state",
                format!("shard {} has applied {} of {end}", last.partition, last.next_offset),
            );
        }
    }
}

fn check_dead_letters(evidence: &Evidence, lives: &BTreeMap<&str, String>, verdict: &mut Verdict) {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    for letter in &evidence.dead_letters {
        verdict.look("dead letters");
        found.insert(&letter.place);
        let document: Value = serde_json::from_str(&letter.value).unwrap_or_default();
        let subject = document["subject"].as_str().unwrap_or_default();
        let is_late = document["type"] == "sagamore.reply.v1"
            && lives.get(subject).is_some_and(|birth| document["birth"] == birth.as_str())
            && letter.cause == "a reply to nothing that is known";
        if is_late {
            *verdict.numbers.entry("late replies among the dead letters").or_default() += 1;
        } else if !evidence.garbage.contains(&letter.value) {
            verdict.wrong("dead letters", format!("{letter:?} is no garbage of ours"));
        }
    }
    for place in evidence.garbage_places.iter().filter(|place| !found.contains(place.as_str())) {
        let is_start = place
            .split_once('-')
            .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)))
            .is_some_and(|place: (i32, i64)| evidence.starts.contains_key(&place));
        if !is_start {
            verdict.wrong("dead letters", format!("the garbage at {place} is not among them"));
        }
    }
}
