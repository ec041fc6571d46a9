//! A session: ours and the floor in turns on one broker, round by round, then what is measured once.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::faults::{self, Recovery, Takeover};
use crate::floor::Floor;
use crate::lab::{Lab, Point, Sample, Shape};
use crate::load::Windows;
use crate::ours::{Ours, Plan};
use crate::peer::{About, Peer, PeerKind};
use crate::system::{Durability, RunError, Site, System};
use sagamore_bench::workload::Workload;

/// A step of the ramp is so many times as fast as the one before.
const RAMP_FACTOR: f64 = 1.5;
/// A system that ends less than this part of what is offered is beyond its saturation.
const KEEPS_UP: f64 = 0.95;
/// Steps of a ramp at most: from 250 a second to beyond what a broker takes.
const RAMP_STEPS: usize = 16;

/// What is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Programme {
    pub workloads: Vec<Workload>,
    pub durabilities: Vec<Durability>,
    pub in_flight: Vec<usize>,
    pub rates_per_s: Vec<u32>,
    /// Where the ramp begins, if there is one.
    pub ramp_from_per_s: Option<u32>,
    pub rounds: usize,
    pub windows: Windows,
    pub with_floor: bool,
    pub floor_linger_ms: u32,
    /// Other coordinators, of the order saga, and where they are.
    pub peers: Vec<PeerKind>,
    pub peers_folder: PathBuf,
    /// Servers killed under load.
    pub kills: usize,
    /// Open transactions that a new server takes over.
    pub open: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Results {
    pub samples: Vec<Sample>,
    /// What was measured, where there was somebody to compare with.
    pub systems: Vec<About>,
    /// The highest offered rate that each system kept up with.
    pub saturation: Vec<Saturation>,
    pub recoveries: Vec<Recovery>,
    pub takeover: Option<Takeover>,
}

#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Saturation {
    pub system: &'static str,
    pub durability: Durability,
    pub rate_per_s: Option<u32>,
}

impl Programme {
    fn shapes(&self) -> Vec<Shape> {
        let closed = self.in_flight.iter().map(|in_flight| Shape::Closed { in_flight: *in_flight });
        let open = self.rates_per_s.iter().map(|rate| Shape::Open { rate_per_s: *rate });
        closed.chain(open).collect()
    }
}

struct Session<'a> {
    lab: &'a mut Lab,
    programme: &'a Programme,
    results: Results,
    bar: ProgressBar,
}

pub(crate) fn run(
    lab: &mut Lab,
    site: &Site,
    plan: Plan,
    programme: &Programme,
) -> Result<Results, RunError> {
    let systems = 1 + usize::from(programme.with_floor) + programme.peers.len();
    let points = programme.durabilities.len()
        * programme.workloads.len()
        * programme.shapes().len()
        * programme.rounds
        * systems;
    let steps = points + programme.kills + usize::from(programme.open.is_some());
    let bar = ProgressBar::new(u64::try_from(steps).unwrap_or_default());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (about {eta} left) {msg}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut session = Session { lab, programme, results: Results::default(), bar };
    for durability in &programme.durabilities {
        let site = Site { durability: *durability, ..site.clone() };
        for workload in &programme.workloads {
            session.in_turns(&site, Plan { workload: *workload, ..plan })?;
        }
    }
    let site = Site { durability: Durability::C, ..site.clone() };
    let plan = Plan { workload: Workload::Order, ..plan };
    if programme.kills > 0 {
        session.kills(&site, plan)?;
    }
    if let Some(open) = programme.open {
        session.bar.set_message(format!("takeover with {open} open"));
        session.results.takeover = Some(faults::takeover(session.lab, &site, plan, open)?);
        session.bar.inc(1);
    }
    session.bar.finish_and_clear();
    Ok(session.results)
}

impl Session<'_> {
    fn in_turns(&mut self, site: &Site, plan: Plan) -> Result<(), RunError> {
        self.bar.set_message("starting");
        let mut ours = Ours::build(site, plan)?;
        let mut floor = if self.programme.with_floor {
            Some(Floor::build(site, self.programme.floor_linger_ms)?)
        } else {
            None
        };
        let mut peers = Vec::new();
        for kind in &self.programme.peers {
            peers.push(Peer::build(*kind, &self.programme.peers_folder, site.durability)?);
        }
        if !peers.is_empty() {
            self.results.systems.push(ours.about());
            self.results.systems.extend(peers.iter().map(Peer::about));
        }
        for round in 0..self.programme.rounds {
            for shape in self.programme.shapes() {
                let point = Point { workload: plan.workload, durability: site.durability, shape };
                let mut turns: Vec<&mut dyn System> = vec![&mut ours];
                turns.extend(floor.as_mut().map(|floor| floor as &mut dyn System));
                turns.extend(peers.iter_mut().map(|peer| peer as &mut dyn System));
                // What the one leaves behind for the other is left behind for both.
                if round % 2 == 1 {
                    turns.reverse();
                }
                for system in turns {
                    let sample = self.measure(system, point, round)?;
                    self.results.samples.push(sample);
                }
            }
        }
        if let Some(from_per_s) = self.programme.ramp_from_per_s
            && plan.workload == Workload::Order
        {
            self.ramp(site, &mut ours, from_per_s)?;
            if let Some(floor) = &mut floor {
                self.ramp(site, floor, from_per_s)?;
            }
        }
        Ok(())
    }

    fn measure(&mut self, system: &mut dyn System, point: Point, round: usize) -> Result<Sample, RunError> {
        let what = match point.shape {
            Shape::Closed { in_flight } => format!("{in_flight} in flight"),
            Shape::Open { rate_per_s } => format!("{rate_per_s}/s"),
        };
        let (workload, class) = (point.workload.as_str(), point.durability.as_str());
        self.bar.set_message(format!(
            "{} {workload} {what}, class {class}, round {}",
            system.name(),
            round + 1
        ));
        let sample = self.lab.measure(system, point, self.programme.windows, round)?;
        self.bar.inc(1);
        Ok(sample)
    }

    /// Faster and faster, until the system ends less than is offered.
    fn ramp(&mut self, site: &Site, system: &mut dyn System, from_per_s: u32) -> Result<(), RunError> {
        let mut saturation = None;
        let mut rate = f64::from(from_per_s);
        for _ in 0..RAMP_STEPS {
            self.bar.inc_length(1);
            let rate_per_s = whole(rate);
            let shape = Shape::Open { rate_per_s };
            let point = Point { workload: Workload::Order, durability: site.durability, shape };
            let sample = self.measure(system, point, 0)?;
            let keeps_up = sample.rate_per_s >= KEEPS_UP * f64::from(rate_per_s);
            self.results.samples.push(sample);
            if !keeps_up {
                break;
            }
            saturation = Some(rate_per_s);
            rate *= RAMP_FACTOR;
        }
        let (system, durability) = (system.name(), site.durability);
        self.results.saturation.push(Saturation { system, durability, rate_per_s: saturation });
        Ok(())
    }

    fn kills(&mut self, site: &Site, plan: Plan) -> Result<(), RunError> {
        let mut ours = Ours::build(site, plan)?;
        for _ in 0..self.programme.kills {
            self.bar.set_message("kill -9 of the server under load");
            let recovery = faults::recovery(self.lab, &mut ours)?;
            self.results.recoveries.push(recovery);
            self.bar.inc(1);
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, positive and small")]
fn whole(rate: f64) -> u32 {
    rate.round() as u32
}
