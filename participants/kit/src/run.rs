//! A run, stage by stage.

use std::num::NonZeroU16;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use sagamore_kafka::topics::{Layout, ensure_topics, present_topics, remove_topics};
use sagamore_schemas::topics::{Topic, command_topic};

use crate::bench::{Bench, PARTITIONS, locked};
use crate::catalogue::{self, Need, Row};
use crate::checks::{self, Check, Findings, GARBAGE, KILLS, Look, SIDE_BY_SIDE};
use crate::desk::Desk;
use crate::error::{Broken, CheckError, Stop};
use crate::inbox::Inbox;
use crate::observe::is_per_transaction;
use crate::process;
use crate::report::{Judged, Report, Verdict};
use crate::settings::Settings;

/// What the first commands judge.
const FIRST: [&str; 2] = ["answers/ok", "answers/effect"];

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'p> {
    /// What is done now.
    Stage(&'p str),
    /// So many of so many rows are judged.
    Judged(usize, usize),
}

/// Looks at a participant, and tells what came of each row. `tell` hears how far it has come.
///
/// # Errors
/// When there can be no verdict: Kafka is away, a command of `settings` cannot be run, the run is interrupted. A
/// participant that does not answer is a verdict.
pub fn check(settings: &Settings, tell: &(dyn Fn(Progress<'_>) + Sync)) -> Result<Report, CheckError> {
    let since = Instant::now();
    tell(Progress::Stage("making the topics"));
    let topics = Topics::make(settings)?;
    let looked = look(settings, &topics, tell, since);
    let removed = if settings.keeps_topics { Ok(()) } else { topics.remove(settings) };
    let report = looked?;
    if let Err(error) = removed {
        tracing::warn!(%error, "the topics of this run stay");
    }
    Ok(report)
}

struct Topics {
    inbox: String,
    commands: String,
    made: Vec<String>,
}

impl Topics {
    /// Those of a coordinator without a coordinator, under a prefix that is nobody's.
    fn make(settings: &Settings) -> Result<Self, CheckError> {
        let layout = Layout {
            prefix: settings.prefix.clone(),
            partitions: NonZeroU16::new(PARTITIONS).unwrap_or(NonZeroU16::MIN),
            replication: settings.replication,
        };
        let state = Topic::State.name(&settings.prefix);
        let present = present_topics(&settings.clients)?;
        if present.contains(&state) {
            return Err(CheckError::Occupied { topic: state });
        }
        let inbox = Topic::Inbox.name(&settings.prefix);
        let commands = command_topic(&settings.prefix, &settings.participant);
        let participants = [settings.participant.clone()];
        ensure_topics(&settings.clients, &layout, &[Topic::Inbox], &participants)?;
        let made =
            [&inbox, &commands].into_iter().filter(|topic| !present.contains(*topic)).cloned().collect();
        Ok(Self { inbox, commands, made })
    }

    fn remove(&self, settings: &Settings) -> Result<(), CheckError> {
        Ok(remove_topics(&settings.clients, &self.made)?)
    }
}

fn look(
    settings: &Settings,
    topics: &Topics,
    tell: &(dyn Fn(Progress<'_>) + Sync),
    since: Instant,
) -> Result<Report, CheckError> {
    let partitions = i32::from(PARTITIONS);
    let log = settings.log.display().to_string();
    let inbox = Inbox::open(&settings.clients, topics.inbox.clone(), partitions, log.clone())?;
    let desk = Desk::open(&settings.clients, topics.commands.clone(), partitions)?;
    let bench = Bench::new(settings, desk, inbox);
    let run = Run { bench: &bench, tell, judged: Mutex::new(Vec::new()) };
    let looked = run.all();
    let (kills, sent, observed) = (bench.kills(), bench.desk.sent(), bench.sees_effects());
    bench.end();
    looked?;
    let Run { judged, .. } = run;
    let report = Report {
        participant: settings.participant.to_string(),
        prefix: settings.prefix.to_string(),
        verdict: Verdict::Pass,
        passed: 0,
        failed: 0,
        skipped: 0,
        observed,
        sent,
        kills,
        log: settings.command.is_some().then_some(log),
        took_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        rows: judged.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner),
    };
    Ok(report.finish())
}

struct Run<'r, 's> {
    bench: &'r Bench<'s>,
    tell: &'r (dyn Fn(Progress<'_>) + Sync),
    judged: Mutex<Vec<Judged>>,
}

impl Run<'_, '_> {
    fn all(&self) -> Result<(), CheckError> {
        let bench = self.bench;
        self.skip_what_cannot_be_looked_at();
        (self.tell)(Progress::Stage("waiting for the first answer"));
        bench.start()?;
        let mut findings = Findings::default();
        let goes_on = match checks::probe(bench, &mut findings) {
            Ok(goes_on) => goes_on,
            Err(stop) => return Err(only_error(stop)),
        };
        self.judge(findings.into_judged());
        if !goes_on {
            self.skip_the_rest("it does not answer");
            return Ok(());
        }
        if bench.settings.observe.is_some() && !bench.sees_effects() {
            self.skip_where(|row| row.needs.contains(&Need::Observe), "--observe shows no effects");
        }
        match self.stages() {
            Ok(()) => self.finish(None),
            Err(Stop::Ended(status)) => self.finish(Some(status)),
            Err(stop) => Err(only_error(stop)),
        }
    }

    fn stages(&self) -> Result<(), Stop> {
        (self.tell)(Progress::Stage("asking"));
        self.side_by_side()?;
        (self.tell)(Progress::Stage("killing"));
        self.look_at(&KILLS)?;
        // Before the garbage: whoever answers that echoes it.
        self.look_at_the_inbox()?;
        (self.tell)(Progress::Stage("sending garbage"));
        for check in GARBAGE {
            self.look_at(check)?;
            let judged = locked(&self.judged);
            let blocked =
                judged.iter().find(|row| check.rows.contains(&row.id) && row.verdict == Verdict::Fail);
            if let Some(row) = blocked {
                let why = format!("{} may hold up whatever comes after it", row.id);
                drop(judged);
                self.skip_where(|row| row.group() == "malformed", &why);
                return Ok(());
            }
        }
        Ok(())
    }

    fn look_at_the_inbox(&self) -> Result<(), Stop> {
        let mut findings = Findings::default();
        checks::at_the_end(self.bench, &mut findings)?;
        let mut judged = findings.into_judged();
        judged.retain(|row| !self.is_judged(row.id));
        self.judge(judged);
        Ok(())
    }

    /// The first that ends the run ends it for all.
    fn side_by_side(&self) -> Result<(), Stop> {
        let settings = self.bench.settings;
        let sees_all = settings.observe.as_deref().is_some_and(|command| !is_per_transaction(command));
        let workers = if sees_all { 1 } else { settings.workers.get() };
        let next = AtomicUsize::new(0);
        let stopped = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(check) = SIDE_BY_SIDE.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if locked(&stopped).is_some() {
                            return;
                        }
                        if let Err(stop) = self.look_at(check) {
                            locked(&stopped).get_or_insert(stop);
                        }
                    }
                });
            }
        });
        match stopped.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            None => Ok(()),
            Some(stop) => Err(stop),
        }
    }

    /// Looks at what is not judged yet.
    fn look_at(&self, check: &Check) -> Result<(), Stop> {
        let open: Vec<&'static str> = check.rows.iter().copied().filter(|row| !self.is_judged(row)).collect();
        if open.is_empty() {
            return Ok(());
        }
        let mut findings = Findings::default();
        let looked = match check.look {
            Look::One(look) => {
                let looked = look(self.bench);
                check.rows.iter().try_fold(looked, |looked, row| findings.take(row, looked).map(Ok))?
            }
            Look::Several(look) => look(self.bench, &mut findings),
        };
        let mut judged = findings.into_judged();
        judged.retain(|row| open.contains(&row.id));
        let mut missing: Vec<&Row> = open
            .iter()
            .filter(|id| judged.iter().all(|row| row.id != **id))
            .map(|id| catalogue::by_id(id))
            .collect();
        // What ends several looks early is the first open row's, and the others are not looked at.
        let looked = match looked {
            Err(Stop::Broken(broken)) if !missing.is_empty() => {
                judged.push(Judged::failed(missing.remove(0), broken));
                Ok(())
            }
            Err(Stop::Broken(_) | Stop::Skipped(_)) => Ok(()),
            looked => looked,
        };
        if looked.is_ok() {
            let why = "what comes before it has failed";
            judged.extend(missing.into_iter().map(|row| Judged::skipped(row, why)));
        }
        self.judge(judged);
        looked
    }

    /// What is judged by all that has come, or has not.
    fn finish(&self, ended: Option<String>) -> Result<(), CheckError> {
        let mut findings = Findings::default();
        let stays = ended.map_or(Ok(()), |status| {
            let printed = process::tail(&self.bench.settings.log);
            Err(Stop::Broken(Broken {
                sent: "what the open rows ask".to_owned(),
                expected: "a process that goes on".to_owned(),
                came: format!("it has ended by itself ({status}); it printed: {printed}"),
            }))
        });
        let has_ended = stays.is_err();
        findings.take("run/stays", stays).map_err(only_error)?;
        let mut judged = findings.into_judged();
        judged.retain(|row| !self.is_judged(row.id));
        self.judge(judged);
        if has_ended {
            self.skip_the_rest("the participant has ended by itself");
        }
        Ok(())
    }

    fn judge(&self, rows: Vec<Judged>) {
        let mut judged = locked(&self.judged);
        judged.extend(rows);
        (self.tell)(Progress::Judged(judged.len(), catalogue::ROWS.len()));
    }

    fn is_judged(&self, id: &str) -> bool {
        locked(&self.judged).iter().any(|row| row.id == id)
    }

    fn skip_what_cannot_be_looked_at(&self) {
        let settings = self.bench.settings;
        let protocols = settings.protocols;
        let needs = [
            (Need::Saga, protocols.saga, "it does not speak saga (--operations)"),
            (Need::TwoPhase, protocols.two_phase, "it does not speak two-phase (--operations)"),
            (Need::ThreePhase, protocols.three_phase, "it does not speak three-phase (--operations)"),
            (Need::Refused, settings.refused.is_some(), "no --refused"),
            (Need::Observe, settings.observe.is_some(), "no --observe"),
            (
                Need::Command,
                settings.command.is_some(),
                "no --command: it runs already, and cannot be killed",
            ),
        ];
        for (need, is_there, why) in needs {
            if !is_there {
                self.skip_where(|row| row.needs.contains(&need), why);
            }
        }
        // The first answer is always looked at: without it there is nothing else to see.
        let is_left_out = |row: &Row| !settings.selection.takes(row) && !FIRST.contains(&row.id);
        self.skip_where(is_left_out, "not selected (--only, --skip)");
        if settings.kills == 0 {
            self.skip_where(|row| row.group() == "crash", "--kills 0");
        }
    }

    fn skip_the_rest(&self, why: &str) {
        self.skip_where(|_| true, why);
    }

    fn skip_where(&self, is_skipped: impl Fn(&Row) -> bool, why: &str) {
        let rows = catalogue::ROWS.iter().filter(|row| is_skipped(row) && !self.is_judged(row.id));
        let rows: Vec<Judged> = rows.map(|row| Judged::skipped(row, why)).collect();
        self.judge(rows);
    }
}

/// What is left when rows have taken what is theirs.
fn only_error(stop: Stop) -> CheckError {
    match stop {
        Stop::Error(error) => error,
        Stop::Broken(Broken { came: said, .. }) | Stop::Skipped(said) | Stop::Ended(said) => {
            unreachable!("a row takes it: {said}")
        }
    }
}
