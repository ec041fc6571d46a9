//! What all checks of a run share: the way out, the way back, the process, and names that nobody has used.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sagamore_schemas::ids::{Birth, Span, Time, TransactionId};
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::{Operation, Payload};
use uuid::Uuid;

use crate::branch::Branch;
use crate::desk::Desk;
use crate::error::{CheckError, Stop};
use crate::inbox::Inbox;
use crate::observe::{self, Seen};
use crate::process::Process;
use crate::settings::Settings;

/// Partitions of inbox and command topic: enough that keys and homes differ.
pub(crate) const PARTITIONS: u16 = 3;
/// How far behind its commands a coordinator's watermark is.
const WATERMARK_AGE: Span = Span::from_secs(3 * 24 * 3600);

pub(crate) struct Bench<'s> {
    pub(crate) settings: &'s Settings,
    pub(crate) desk: Desk,
    pub(crate) inbox: Inbox,
    pub(crate) instance: Uuid,
    process: Mutex<Option<Process>>,
    kills: AtomicU32,
    numbers: AtomicU64,
    births: AtomicI64,
    subjects: Mutex<BTreeSet<String>>,
    units: OnceLock<Option<Units>>,
}

/// By how much one effect changes what is observed, where that is a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) execute: Option<i64>,
    pub(crate) commit: Option<i64>,
}

impl<'s> Bench<'s> {
    pub(crate) fn new(settings: &'s Settings, desk: Desk, inbox: Inbox) -> Self {
        Self {
            settings,
            desk,
            inbox,
            instance: Uuid::new_v4(),
            process: Mutex::new(None),
            kills: AtomicU32::new(0),
            numbers: AtomicU64::new(first_number()),
            births: AtomicI64::new(now().epoch_ms()),
            subjects: Mutex::new(BTreeSet::new()),
            units: OnceLock::new(),
        }
    }

    /// A branch of a transaction that nobody has heard of.
    pub(crate) fn branch(&self, check: &str) -> Branch<'_, 's> {
        let number = self.number();
        let subject = self.subject(check, number);
        let home = sagamore_schemas::home::home(&subject, i32::from(PARTITIONS));
        let now = now();
        Branch::new(
            self,
            subject,
            Birth { partition: home, offset: self.births.fetch_add(1, Ordering::Relaxed) },
            number,
            self.settings.input.fill(number),
            [now, now.before(WATERMARK_AGE)],
        )
    }

    /// The same on this partition of the command topic.
    pub(crate) fn branch_on(&self, partition: i32, check: &str) -> Branch<'_, 's> {
        loop {
            let branch = self.branch(check);
            if self.desk.partition_of(&branch.key) == partition {
                return branch;
            }
        }
    }

    /// The key of a transaction, where that is not its id.
    pub(crate) fn key(&self, number: u64) -> Option<String> {
        self.settings.key.as_ref().map(|key| key.replace("{n}", &number.to_string()))
    }

    /// A number of its own, for an input.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// An input that is refused.
    pub(crate) fn refused_input(&self, number: u64) -> Payload {
        match &self.settings.refused {
            Some(template) => template.fill(number),
            None => unreachable!("a row that needs it is skipped without"),
        }
    }

    /// A transaction id, remembered as ours.
    pub(crate) fn subject(&self, check: &str, number: u64) -> TransactionId {
        let text = format!("{}-{number}", check.replace('/', "."));
        let subject = match text.parse::<TransactionId>() {
            Ok(subject) => subject,
            Err(error) => unreachable!("ids of rows are short and plain: {error}"),
        };
        locked(&self.subjects).insert(text);
        subject
    }

    /// Every transaction id that was sent.
    pub(crate) fn subjects(&self) -> BTreeSet<String> {
        locked(&self.subjects).clone()
    }

    /// The operation that does something, and what makes it final: saga where it is known.
    pub(crate) fn forward(&self) -> Forward {
        if self.settings.protocols.saga { Forward::Execute } else { Forward::Commit }
    }

    /// Where replies of a home go.
    pub(crate) fn replyto(&self, partition: i32) -> String {
        format!("{}/{partition}", Topic::Inbox.name(&self.settings.prefix))
    }

    /// Whether there is still somebody to wait for.
    pub(crate) fn pulse(&self) -> Result<(), Stop> {
        if self.settings.interrupt.is_set() {
            return Err(CheckError::Interrupted.into());
        }
        self.desk.failed()?;
        match locked(&self.process).as_mut().and_then(Process::ended) {
            None => Ok(()),
            Some(status) => Err(Stop::Ended(status)),
        }
    }

    /// Waits, as long as there is somebody to wait for.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), Stop> {
        let until = Instant::now() + time;
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            self.pulse()?;
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
        Ok(())
    }

    /// Starts the participant, if the kit is to do so.
    pub(crate) fn start(&self) -> Result<(), CheckError> {
        if let Some(command) = &self.settings.command {
            let command = crate::process::filled(command, self.settings);
            *self.process() = Some(Process::spawn(self.settings, &command)?);
        }
        Ok(())
    }

    /// `kill -9`, now.
    pub(crate) fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
            self.kills.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends it with the run.
    pub(crate) fn end(&self) {
        drop(self.process().take());
    }

    /// How often it was killed.
    pub(crate) fn kills(&self) -> u32 {
        self.kills.load(Ordering::Relaxed)
    }

    /// What the participant's effects have come to, where that can be seen.
    pub(crate) fn look(&self, subject: &TransactionId, number: u64) -> Result<Option<Seen>, Stop> {
        match (&self.settings.observe, self.units.get()) {
            // Looked at, and nothing to see.
            (None, _) | (_, Some(None)) => Ok(None),
            (Some(command), _) => {
                observe::observe(self.settings, command, subject.as_str(), number).map(Some)
            }
        }
    }

    /// Says by how much effects change what is seen; none when they do not.
    pub(crate) fn calibrate(&self, units: Option<Units>) {
        if self.units.set(units).is_err() {
            tracing::error!("calibrated twice");
        }
    }

    /// By how much one effect changes a number.
    pub(crate) fn unit(&self, forward: Forward) -> Option<i64> {
        let units = self.units.get().copied().flatten()?;
        match forward {
            Forward::Execute => units.execute,
            Forward::Commit => units.commit,
        }
    }

    /// Whether effects can be seen.
    pub(crate) fn sees_effects(&self) -> bool {
        self.settings.observe.is_some() && self.units.get().is_some_and(Option::is_some)
    }

    /// Whether what is seen is one transaction's.
    pub(crate) fn is_seen_per_transaction(&self) -> bool {
        self.settings.observe.as_deref().is_some_and(observe::is_per_transaction)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        locked(&self.process)
    }
}

/// Numbers, births and so subjects of one run are not those of another: the participant may still know them. They stay
/// below 2^31 for those who read them as 32 bits, and come again after three weeks.
fn first_number() -> u64 {
    let seconds = u64::try_from(now().epoch_ms() / 1000).unwrap_or(0);
    seconds % 2_000_000 * 1000
}

/// How an effect comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forward {
    /// `execute`.
    Execute,
    /// `prepare`, then `commit`.
    Commit,
}

impl Forward {
    /// Its first operation.
    pub(crate) const fn first(self) -> Operation {
        match self {
            Self::Execute => Operation::Execute,
            Self::Commit => Operation::Prepare,
        }
    }

    /// What undoes its first operation, before it is final.
    pub(crate) const fn undo(self) -> Operation {
        match self {
            Self::Execute => Operation::Compensate,
            Self::Commit => Operation::Abort,
        }
    }
}

pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_epoch_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
