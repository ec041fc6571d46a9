//! What is assumed of the participants: numbers for each branch, from a file and from flags.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sagamore_decider::definition::plan::{BranchIndex, Plan};
use sagamore_schemas::ids::Span;
use serde::{Deserialize, Serialize};

use super::PredictError;
use super::journal::MeasuredBranch;
use super::measure::{Measure, ms};

/// An attempt is answered `ok`, when nothing else is said.
pub const P: f64 = 0.999;
/// Half of the answers have come by then, when nothing else is said.
pub const LATENCY: Latency = Latency { p50: Span::from_ms(10), p99: Span::from_ms(50) };
/// An operation that is tried without end must be answered at least so often: below it no step can be said to end.
pub const ANSWERED_LEAST: f64 = 0.05;
/// Most replicas; more change nothing that could be printed.
pub const REPLICAS_MAX: u32 = 100;
/// The quantile of the standard normal distribution that goes with p99.
const NORMAL_P99: f64 = 2.326_347_874_040_841;

/// The numbers of all branches.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// For what is not said of a step.
    #[serde(default)]
    pub default: Numbers,
    /// By step, or by `step/branch` of a group.
    #[serde(default)]
    pub steps: BTreeMap<String, Numbers>,
}

/// What is said of one step; what is not said is said elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// Probability that an attempt of `execute` or `prepare` is answered `ok`.
    pub p: Option<f64>,
    /// That it is answered `refused`.
    pub refused: Option<f64>,
    /// That it is answered `error`. The rest is silence: the timeout falls.
    pub error: Option<f64>,
    /// Probability that an attempt of `compensate`, `commit`, `precommit` or `abort` is answered `ok`.
    pub undo: Option<f64>,
    /// From a command to its answer.
    pub latency: Option<Latency>,
    /// Independent replicas of which one is enough to answer.
    pub replicas: Option<u32>,
}

/// How long an answer takes: lognormal by its median and its 99th percentile, or constant when they are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half of the answers have come by then.
    pub p50: Span,
    /// All but one of a hundred have.
    pub p99: Span,
}

/// The answers to one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// Probability of `ok`.
    pub ok: f64,
    /// Of `refused`.
    pub refused: f64,
    /// Of `error`.
    pub error: f64,
    /// Of mass 1.
    pub latency: Measure,
}

/// What is assumed of one branch, nothing left open.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Assumed {
    /// Of an attempt of `execute` or `prepare`, replicas counted in.
    pub p: f64,
    /// The same.
    pub refused: f64,
    /// The same.
    pub error: f64,
    /// Of an attempt of what has been decided.
    pub undo: f64,
    /// From a command to its answer.
    pub latency: Latency,
}

impl Model {
    /// Adds numbers such as `p=0.98,refused=0.01,latency=20ms` of a step, or of all those nothing is said of.
    pub fn say(&mut self, step: Option<&str>, numbers: &str) -> Result<(), PredictError> {
        let numbers: Numbers = numbers.parse()?;
        let said = match step {
            Some(step) => self.steps.entry(step.to_owned()).or_default(),
            None => &mut self.default,
        };
        *said = numbers.or(*said);
        Ok(())
    }

    /// Takes what was measured wherever nothing is said of a step; what was said goes before it.
    pub fn measure(&mut self, plan: &Plan, measured: &[MeasuredBranch]) {
        for index in plan.branch_indexes() {
            let (step, branch) = names(plan, index);
            let Some(found) = measured.iter().find(|found| found.name == branch) else { continue };
            let said = |name: &String| self.steps.get(name).copied().unwrap_or_default();
            let numbers = said(&branch).or(said(&step)).or(found.numbers());
            self.steps.insert(branch, numbers);
        }
    }

    /// Branches of which neither was anything measured nor is said how often they answer.
    pub fn unsaid(&self, plan: &Plan) -> Vec<String> {
        let is_unsaid = |(step, branch): &(String, String)| {
            let said = |name: &String| self.steps.get(name).is_some_and(|numbers| numbers.p.is_some());
            !said(step) && !said(branch) && self.default.p.is_none()
        };
        plan.branch_indexes()
            .map(|index| names(plan, index))
            .filter(is_unsaid)
            .map(|(_, name)| name)
            .collect()
    }

    /// What is assumed of each branch of a plan, by its index.
    pub fn assumed(&self, plan: &Plan) -> Result<Vec<Assumed>, PredictError> {
        let names: Vec<(String, String)> = plan.branch_indexes().map(|index| names(plan, index)).collect();
        let is_known = |name: &String| names.iter().any(|(step, branch)| name == step || name == branch);
        if let Some(unknown) = self.steps.keys().find(|name| !is_known(name)) {
            return Err(PredictError::NoSuchStep(unknown.clone()));
        }
        let of = |(step, branch): &(String, String)| {
            let said = |name| self.steps.get(name).copied().unwrap_or_default();
            said(branch).or(said(step)).or(self.default).assumed(branch)
        };
        names.iter().map(of).collect()
    }
}

/// How a branch is called in a model: by its step, and by its step and its own name.
pub fn names(plan: &Plan, index: BranchIndex) -> (String, String) {
    let (step, branch) = plan.branch(index);
    let step_name = step.name.to_string();
    let full = if step.is_group { format!("{step_name}/{}", branch.name) } else { step_name.clone() };
    (step_name, full)
}

impl Numbers {
    /// These, and where nothing is said the others.
    fn or(self, others: Self) -> Self {
        Self {
            p: self.p.or(others.p),
            refused: self.refused.or(others.refused),
            error: self.error.or(others.error),
            undo: self.undo.or(others.undo),
            latency: self.latency.or(others.latency),
            replicas: self.replicas.or(others.replicas),
        }
    }

    fn assumed(self, name: &str) -> Result<Assumed, PredictError> {
        let wrong = |what: String| PredictError::Numbers(name.to_owned(), what);
        let (refused, error) = (self.refused.unwrap_or(0.0), self.error.unwrap_or(0.0));
        let p = self.p.unwrap_or_else(|| P.min(1.0 - refused - error));
        let answered = p + refused;
        let undo = self.undo.unwrap_or(answered.min(1.0));
        let all = [("p", p), ("refused", refused), ("error", error), ("undo", undo)];
        if let Some((field, value)) = all.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err(wrong(format!("{field} = {value} is no probability (0 to 1)")));
        }
        if answered + error > 1.0 + 1e-12 {
            return Err(wrong(format!("p + refused + error = {} is more than 1", answered + error)));
        }
        let replicas = self.replicas.unwrap_or(1);
        if replicas == 0 || replicas > REPLICAS_MAX {
            return Err(wrong(format!("replicas = {replicas} is not among 1..{REPLICAS_MAX}")));
        }
        let latency = self.latency.unwrap_or(LATENCY);
        if latency.p50.as_ms() == 0 || latency.p99 < latency.p50 {
            return Err(wrong(format!("latency {latency}: the median is at least 1ms, and p99 no less")));
        }
        let of_replicas = |one: f64| one_of(one, replicas);
        let (all_answered, still_open) = (of_replicas(answered), 1.0 - answered);
        let scale = if answered > 0.0 { all_answered / answered } else { 0.0 };
        let errors = if still_open > 0.0 { error / still_open * (1.0 - all_answered) } else { 0.0 };
        Ok(Assumed {
            p: p * scale,
            refused: refused * scale,
            error: errors,
            undo: of_replicas(undo),
            latency,
        })
    }
}

/// One of n independent tries, or replicas, is enough: `1-(1-p)^n`.
///
/// ```
/// use sagamore::predict::model::one_of;
/// assert!((one_of(0.5, 3) - 0.875).abs() < 1e-15);
/// assert!((one_of(1e-20, 3) - 3e-20).abs() < 1e-30);
/// ```
pub fn one_of(p: f64, n: u32) -> f64 {
    // Not 1-(1-p)^n as it stands: of a p near 0 no digit would be left.
    if p >= 1.0 { if n == 0 { 0.0 } else { 1.0 } } else { -(f64::from(n) * (-p).ln_1p()).exp_m1() }
}

impl Assumed {
    /// The answers to `execute` or `prepare`.
    pub fn forward(&self) -> Answers {
        let Self { p: ok, refused, error, .. } = *self;
        Answers { ok, refused, error, latency: self.latency.measure() }
    }

    /// The answers to what has been decided: `ok`, or none.
    pub fn decided(&self) -> Answers {
        let unanswered = 1.0 - self.p - self.refused;
        let errors = if unanswered > 1e-12 { self.error / unanswered } else { 0.0 };
        let error = (1.0 - self.undo) * errors;
        Answers { ok: self.undo, refused: 0.0, error, latency: self.latency.measure() }
    }
}

impl Latency {
    /// Always the same.
    pub const fn constant(span: Span) -> Self {
        Self { p50: span, p99: span }
    }

    /// The standard deviation of its logarithm.
    pub fn sigma(self) -> f64 {
        (ms(self.p99) / ms(self.p50)).ln() / NORMAL_P99
    }

    /// As a measure of mass 1.
    fn measure(self) -> Measure {
        /// Parts of the logarithm's range, and how many standard deviations that has on each side.
        const PARTS: u32 = 600;
        const WIDTH: f64 = 6.5;
        let sigma = self.sigma();
        if sigma <= 0.0 {
            return Measure::at(ms(self.p50), 1.0);
        }
        // The mass of each part is exact; its mean is that of the lognormal density, shifted by sigma (completing the
        // square), so that the whole mean is exact too.
        let at = |part: u32| WIDTH * (2.0 * f64::from(part) / f64::from(PARTS) - 1.0);
        let moment = ms(self.p50) * (sigma * sigma / 2.0).exp();
        let part = |part: u32| {
            let (from, to) = (at(part), at(part + 1));
            let mass = normal(to) - normal(from);
            let mean = moment * (normal(to - sigma) - normal(from - sigma)) / mass;
            let (least, most) = (ms(self.p50) * (sigma * from).exp(), ms(self.p50) * (sigma * to).exp());
            (if mean.is_finite() { mean.clamp(least, most) } else { least }, mass)
        };
        let all = Measure::gathered((0..PARTS).map(part));
        all.scaled(1.0 / all.mass())
    }
}

/// The standard normal distribution function, by the complementary error function of W. Press and others, "Numerical
/// Recipes", 6.2: relative error below 1.2e-7.
fn normal(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let polynomial = COEFFICIENTS.iter().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let tail = 0.5 * t * (polynomial - z * z).exp();
    if x < 0.0 { tail } else { 1.0 - tail }
}

impl FromStr for Numbers {
    type Err = PredictError;

    fn from_str(text: &str) -> Result<Self, PredictError> {
        let wrong = |part: &str| PredictError::Flag(part.to_owned());
        let mut numbers = Self::default();
        for part in text.split(',') {
            let (field, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
            let number = || value.parse::<f64>().map_err(|_| wrong(part));
            match field {
                "p" => numbers.p = Some(number()?),
                "refused" => numbers.refused = Some(number()?),
                "error" => numbers.error = Some(number()?),
                "undo" => numbers.undo = Some(number()?),
                "latency" => numbers.latency = Some(value.parse().map_err(|_| wrong(part))?),
                "replicas" => numbers.replicas = Some(value.parse().map_err(|_| wrong(part))?),
                _ => return Err(wrong(part)),
            }
        }
        Ok(numbers)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.p50 == self.p99 { write!(f, "{}", self.p50) } else { write!(f, "{}/{}", self.p50, self.p99) }
    }
}

impl FromStr for Latency {
    type Err = sagamore_schemas::ids::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((p50, p99)) => Ok(Self { p50: p50.parse()?, p99: p99.parse()? }),
            None => Ok(Self::constant(text.parse()?)),
        }
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lognormal_has_its_median_its_p99_and_its_mean() {
        let latency = Latency { p50: Span::from_ms(20), p99: Span::from_ms(100) };
        let measure = latency.measure();
        let check = |is: f64, should: f64, tolerance: f64| {
            assert!((is - should).abs() < tolerance, "{is} instead of {should}");
        };
        check(measure.mass(), 1.0, 1e-12);
        check(measure.until(20.0), 0.5, 0.01);
        check(measure.until(100.0), 0.99, 0.001);
        check(measure.mean(), 20.0 * (latency.sigma().powi(2) / 2.0).exp(), 1e-4);
        let constant = Latency::constant(Span::from_ms(20)).measure();
        check(constant.before(20.0), 0.0, 1e-12);
        check(constant.until(20.0), 1.0, 1e-12);
    }

    #[test]
    fn replicas_are_tries_side_by_side() {
        let numbers: Numbers = "p=0.6,refused=0.2,error=0.1,replicas=2".parse().unwrap();
        let assumed = numbers.assumed("charge").unwrap();
        let check = |is: f64, should: f64| assert!((is - should).abs() < 1e-12, "{is} instead of {should}");
        check(assumed.p, 0.72);
        check(assumed.refused, 0.24);
        check(assumed.error, 0.02);
        check(assumed.undo, 0.96);
    }

    #[test]
    fn wrong_numbers_are_told() {
        let check = |flag: &str, then: &str| {
            let said = flag.parse::<Numbers>().and_then(|numbers| numbers.assumed("charge").map(drop));
            assert_eq!(said.unwrap_err().to_string(), then);
        };
        check("p=1.5", "charge: p = 1.5 is no probability (0 to 1)");
        check("p=NaN", "charge: p = NaN is no probability (0 to 1)");
        check("p=0.9,refused=0.2", "charge: p + refused + error = 1.1 is more than 1");
        check("replicas=0", "charge: replicas = 0 is not among 1..100");
        check("latency=50ms/20ms", "charge: latency 50ms/20ms: the median is at least 1ms, and p99 no less");
        check(
            "q=1",
            "`q=1`: p=, refused=, error= and undo= take a probability, latency= a duration such as 20ms or 20ms/80ms (p50/p99), replicas= a number",
        );
        check(
            "latency=fast",
            "`latency=fast`: p=, refused=, error= and undo= take a probability, latency= a duration such as 20ms or 20ms/80ms (p50/p99), replicas= a number",
        );
    }
}
