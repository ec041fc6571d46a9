//! How transactions are started, and what is seen of their ends: the same for every system under test.
//!
//! | loop | starts | latency counts from |
//! |---|---|---|
//! | closed | one for each that ends, so many in flight | the start |
//! | open | at a fixed rate, whatever ends | the moment at which it was to start: who is late pays for it |

use std::error::Error;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sagamore_schemas::wire::OutcomeKind;

/// After so long without an end the run has failed.
const STALLED: Duration = Duration::from_mins(1);
/// How long one look for an end waits: no edge of the window is later than this.
const LOOK: Duration = Duration::from_millis(20);

/// Starts transactions of one run.
pub(crate) trait Starts: Send {
    fn start(&mut self, index: u64) -> Result<(), String>;
}

/// Tells which transactions of one run have ended.
pub(crate) trait Ends {
    /// The next end; `None` when there is none so soon.
    fn next(&mut self, patience: Duration) -> Result<Option<Ended>, Box<dyn Error>>;
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub index: u64,
    pub told: OutcomeKind,
}

/// What counts: first it warms up, then it is measured, then what is in flight ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// At both ends of the measured window.
pub(crate) type OnEdge<'a> = &'a mut dyn FnMut() -> Result<(), Box<dyn Error>>;

/// What was seen of a run.
pub(crate) struct Seen {
    /// Of each transaction that was started.
    pub outcomes: Vec<Option<OutcomeKind>>,
    pub contradictions: Vec<String>,
    pub latency_us: Histogram<u64>,
    /// Ended within the measured window, and how long that really was.
    pub ended: u64,
    pub measured: Duration,
    /// When the last one ended, since the first was started.
    pub last_end: Duration,
    /// Longest time without any end.
    pub longest_pause: Duration,
}

impl Seen {
    fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            outcomes: Vec::new(),
            contradictions: Vec::new(),
            latency_us: Histogram::new(3)?,
            ended: 0,
            measured: Duration::ZERO,
            last_end: Duration::ZERO,
            longest_pause: Duration::ZERO,
        })
    }

    /// So many were started by somebody else.
    pub fn started(count: usize) -> Result<Self, Box<dyn Error>> {
        Ok(Self { outcomes: vec![None; count], ..Self::new()? })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    pub fn rate_per_s(&self) -> f64 {
        self.ended as f64 / self.measured.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Whether this is the first end of its transaction. The same may be told again, another may not.
    fn on_end(&mut self, ended: Ended, at: Duration) -> Result<bool, Box<dyn Error>> {
        let Ended { index, told } = ended;
        match self.outcomes.get_mut(usize::try_from(index)?) {
            None => self.contradictions.push(format!("{index} ended {told} and was never started")),
            Some(Some(before)) if *before == told => {}
            Some(Some(before)) => self.contradictions.push(format!("{index} ended {before}, then {told}")),
            Some(nothing @ None) => {
                *nothing = Some(told);
                self.longest_pause = self.longest_pause.max(at.saturating_sub(self.last_end));
                self.last_end = at;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    WarmingUp,
    Measuring,
    Draining,
}

/// Which stage it is, and whoever wants to know at its edges.
struct Clock<'a> {
    begun: Instant,
    windows: Windows,
    stage: Stage,
    measured_from: Duration,
    on_edge: OnEdge<'a>,
}

impl<'a> Clock<'a> {
    fn new(windows: Windows, on_edge: OnEdge<'a>) -> Self {
        let (begun, stage) = (Instant::now(), Stage::WarmingUp);
        Self { begun, windows, stage, measured_from: Duration::ZERO, on_edge }
    }

    fn tick(&mut self, seen: &mut Seen) -> Result<Duration, Box<dyn Error>> {
        let now = self.begun.elapsed();
        match self.stage {
            Stage::WarmingUp if now >= self.windows.warm_up => {
                (self.on_edge)()?;
                self.measured_from = self.begun.elapsed();
                self.stage = Stage::Measuring;
            }
            Stage::Measuring if now >= self.measured_from + self.windows.measured => {
                seen.measured = now.checked_sub(self.measured_from).unwrap_or_default();
                (self.on_edge)()?;
                self.stage = Stage::Draining;
            }
            Stage::WarmingUp | Stage::Measuring | Stage::Draining => {}
        }
        Ok(now)
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn stalled(seen: &Seen, flying: usize) -> Box<dyn Error> {
    let ended = seen.outcomes.iter().flatten().count();
    format!("{ended} ended, {flying} did not, and nothing for {} s", STALLED.as_secs()).into()
}

/// `in_flight` at any moment until the window is over.
pub(crate) fn closed(
    starts: &mut dyn Starts,
    ends: &mut dyn Ends,
    in_flight: usize,
    windows: Windows,
    on_edge: OnEdge<'_>,
) -> Result<Seen, Box<dyn Error>> {
    let mut seen = Seen::new()?;
    let mut started: Vec<Duration> = Vec::new();
    let mut clock = Clock::new(windows, on_edge);
    let mut flying = 0;
    loop {
        let now = clock.tick(&mut seen)?;
        if clock.stage == Stage::Draining && flying == 0 {
            return Ok(seen);
        }
        while clock.stage != Stage::Draining && flying < in_flight {
            let index = u64::try_from(started.len())?;
            seen.outcomes.push(None);
            started.push(clock.begun.elapsed());
            starts.start(index)?;
            flying += 1;
        }
        let Some(ended) = ends.next(LOOK)? else {
            if now.saturating_sub(seen.last_end) > STALLED {
                return Err(stalled(&seen, flying));
            }
            continue;
        };
        let now = clock.begun.elapsed();
        if seen.on_end(ended, now)? {
            flying -= 1;
            if clock.stage == Stage::Measuring {
                seen.ended += 1;
                let start = started[usize::try_from(ended.index)?];
                seen.latency_us.record(us(now.saturating_sub(start)))?;
            }
        }
    }
}

/// So many a second until the window is over. Latency is that of the transactions that were to start in the window.
pub(crate) fn open(
    mut starts: Box<dyn Starts>,
    ends: &mut dyn Ends,
    rate_per_s: f64,
    windows: Windows,
    on_edge: OnEdge<'_>,
) -> Result<Seen, Box<dyn Error>> {
    let mut seen = Seen::new()?;
    let whole = windows.warm_up + windows.measured;
    let count = count_until(whole, rate_per_s);
    let due = move |index: u64| due_at(index, rate_per_s);
    seen.outcomes.resize(usize::try_from(count)?, None);
    let mut clock = Clock::new(windows, on_edge);
    let begun = clock.begun;
    let sender = std::thread::spawn(move || -> Result<(), String> {
        for index in 0..count {
            let wait = due(index).saturating_sub(begun.elapsed());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            starts.start(index)?;
        }
        Ok(())
    });
    let mut flying = seen.outcomes.len();
    let mut heard = Instant::now();
    while flying > 0 || clock.stage != Stage::Draining {
        clock.tick(&mut seen)?;
        let Some(ended) = ends.next(LOOK)? else {
            if heard.elapsed() > STALLED {
                return Err(stalled(&seen, flying));
            }
            continue;
        };
        heard = Instant::now();
        let now = begun.elapsed();
        if seen.on_end(ended, now)? {
            flying -= 1;
            seen.ended += u64::from(clock.stage == Stage::Measuring);
            let intended = due(ended.index);
            if intended >= windows.warm_up {
                seen.latency_us.record(us(now.saturating_sub(intended)))?;
            }
        }
    }
    sender.join().map_err(|_| "the sender panicked")??;
    Ok(seen)
}

/// Until all that was started has ended.
pub(crate) fn drain(seen: &mut Seen, ends: &mut dyn Ends) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut heard = begun;
    let mut flying = seen.outcomes.iter().filter(|outcome| outcome.is_none()).count();
    while flying > 0 {
        if let Some(ended) = ends.next(LOOK)? {
            heard = Instant::now();
            flying -= usize::from(seen.on_end(ended, begun.elapsed())?);
        } else if heard.elapsed() > STALLED {
            return Err(stalled(seen, flying));
        }
    }
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate and seconds, both positive and small"
)]
fn count_until(whole: Duration, rate_per_s: f64) -> u64 {
    (whole.as_secs_f64() * rate_per_s).ceil() as u64
}

#[expect(clippy::cast_precision_loss, reason = "no run starts 2^52 transactions")]
fn due_at(index: u64, rate_per_s: f64) -> Duration {
    Duration::from_secs_f64(index as f64 / rate_per_s)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A system that ends what it is given after a while; it stands still in between.
    struct Given(Sender<(u64, Instant)>);
    struct After {
        given: Receiver<(u64, Instant)>,
        takes: Duration,
        stands_still: Option<(Instant, Instant)>,
        waiting: Option<(u64, Instant)>,
    }

    impl Starts for Given {
        fn start(&mut self, index: u64) -> Result<(), String> {
            self.0.send((index, Instant::now())).map_err(|error| error.to_string())
        }
    }

    impl Ends for After {
        fn next(&mut self, patience: Duration) -> Result<Option<Ended>, Box<dyn Error>> {
            if self.waiting.is_none() {
                self.waiting = self.given.recv_timeout(patience).ok();
            }
            let Some((index, at)) = self.waiting else { return Ok(None) };
            let now = Instant::now();
            let still = self.stands_still.is_some_and(|(from, to)| (from..to).contains(&now));
            if still || now < at + self.takes {
                std::thread::sleep(Duration::from_millis(1));
                return Ok(None);
            }
            self.waiting = None;
            Ok(Some(Ended { index, told: OutcomeKind::Committed }))
        }
    }

    fn system(takes_ms: u64, stands_still: Option<(Instant, Instant)>) -> (Given, After) {
        let (to, given) = channel();
        let takes = Duration::from_millis(takes_ms);
        (Given(to), After { given, takes, stands_still, waiting: None })
    }

    fn windows(warm_up_ms: u64, measured_ms: u64) -> Windows {
        Windows { warm_up: Duration::from_millis(warm_up_ms), measured: Duration::from_millis(measured_ms) }
    }

    #[test]
    fn closed_keeps_so_many_in_flight_and_counts_the_window() {
        let (mut starts, mut ends) = system(10, None);
        let mut edges = 0;
        let seen = closed(&mut starts, &mut ends, 4, windows(50, 300), &mut || {
            edges += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(edges, 2);
        assert!(seen.outcomes.iter().all(Option::is_some), "all that was started has ended");
        assert!(seen.ended > 0 && seen.ended < u64::try_from(seen.outcomes.len()).unwrap());
        assert_eq!(seen.ended, seen.latency_us.len());
        assert!(seen.latency_us.min() >= 9_000, "{}", seen.latency_us.min());
    }

    #[test]
    fn a_pause_of_the_system_is_not_omitted() {
        let now = Instant::now();
        let still = (now + Duration::from_millis(200), now + Duration::from_millis(500));
        let (starts, mut ends) = system(0, Some(still));
        let seen = open(Box::new(starts), &mut ends, 100.0, windows(0, 1_000), &mut || Ok(())).unwrap();
        // 30 of 100 were to start in the pause: half of them waited for longer than 150 ms of it.
        let late = seen.latency_us.count_between(150_000, u64::MAX);
        assert!(late >= 10, "only {late} of {} were late", seen.latency_us.len());
        assert!(seen.longest_pause >= Duration::from_millis(250), "{:?}", seen.longest_pause);
    }

    #[test]
    fn one_end_counts_once_and_two_different_ones_contradict() {
        let mut seen = Seen::new().unwrap();
        seen.outcomes.push(None);
        let mut on = |index, told| seen.on_end(Ended { index, told }, Duration::ZERO).unwrap();
        assert!(on(0, OutcomeKind::Committed));
        assert!(!on(0, OutcomeKind::Committed));
        assert!(!on(0, OutcomeKind::Compensated));
        assert!(!on(7, OutcomeKind::Committed));
        assert_eq!(
            seen.contradictions,
            ["0 ended committed, then compensated", "7 ended committed and was never started"]
        );
    }
}
