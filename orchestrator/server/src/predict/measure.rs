//! A measure on time, as point masses: how probable, or how often, something is at which time.
//!
//! Point masses of nearly the same time (a 256th of an octave, so 0.3 %) become one, at their mean. So masses and means of
//! sums are exact up to rounding, and one resolution serves milliseconds and days. A distribution function read between
//! two merged masses is wrong by at most one of them.

use std::iter::repeat_n;

use sagamore_schemas::ids::Span;

/// Bits of the mantissa that tell point masses apart.
const RESOLUTION_BITS: u32 = 8;
/// Times below this, other than zero, are told apart no more: 1/16 ms.
const LEAST_MS: f64 = 0.062_5;
/// Octaves above it: more than a thousand years.
const OCTAVES: usize = 50;
const BUCKETS: usize = (OCTAVES << RESOLUTION_BITS) + 1;
/// Times are multiples of 2^-24 ms.
const GRAINS: f64 = 16_777_216.0;
/// Smaller point masses are dropped: all of them together are below anything that is printed.
const NEGLIGIBLE: f64 = 1e-16;

/// Masses at times, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measure {
    /// Times rise.
    atoms: Vec<Atom>,
    /// The sum of the masses up to each.
    sums: Vec<f64>,
}

/// One point mass.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Atom {
    at_ms: f64,
    mass: f64,
}

impl Measure {
    /// All of a mass at one time.
    pub fn at(at_ms: f64, mass: f64) -> Self {
        Self::gathered([(at_ms, mass)])
    }

    /// At once, certainly.
    pub fn now() -> Self {
        Self::at(0.0, 1.0)
    }

    /// From masses at times, in any order.
    pub fn gathered(masses: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut gather = Gather::default();
        masses.into_iter().for_each(|(at_ms, mass)| gather.add(at_ms, mass));
        gather.done()
    }

    fn iter(&self) -> impl Iterator<Item = (f64, f64)> {
        self.atoms.iter().map(|atom| (atom.at_ms, atom.mass))
    }

    /// The whole mass.
    pub fn mass(&self) -> f64 {
        self.sums.last().copied().unwrap_or(0.0)
    }

    /// Mass times mean.
    pub fn moment(&self) -> f64 {
        self.iter().map(|(at_ms, mass)| at_ms * mass).sum()
    }

    /// The mean time, or zero when there is no mass.
    pub fn mean(&self) -> f64 {
        if self.mass() > 0.0 { self.moment() / self.mass() } else { 0.0 }
    }

    /// The mass up to and at a time.
    pub fn until(&self, at_ms: f64) -> f64 {
        self.sum_of(self.atoms.partition_point(|atom| atom.at_ms <= at_ms))
    }

    /// The mass before a time.
    pub fn before(&self, at_ms: f64) -> f64 {
        self.sum_of(self.atoms.partition_point(|atom| atom.at_ms < at_ms))
    }

    fn sum_of(&self, count: usize) -> f64 {
        count.checked_sub(1).map_or(0.0, |last| self.sums[last])
    }

    /// The first time by which `mass` has been reached; `None`: it never is.
    pub fn reaches(&self, mass: f64) -> Option<f64> {
        let position = self.sums.partition_point(|sum| *sum < mass);
        self.atoms.get(position).map(|atom| atom.at_ms)
    }

    /// What lies up to and at a time.
    pub fn cut(&self, at_ms: f64) -> Self {
        self.weighted(|time| if time <= at_ms { 1.0 } else { 0.0 })
    }

    /// Each mass times what `weight` says of its time.
    pub fn weighted(&self, weight: impl Fn(f64) -> f64) -> Self {
        let atoms = self.atoms.iter().map(|atom| Atom { mass: atom.mass * weight(atom.at_ms), ..*atom });
        Self::of(atoms.collect())
    }

    /// Each mass times the same.
    pub fn scaled(&self, factor: f64) -> Self {
        self.weighted(|_| factor)
    }

    /// Both.
    pub fn plus(&self, other: &Self) -> Self {
        Self::gathered(self.iter().chain(other.iter()))
    }

    /// One after the other: the convolution. Independent times add up.
    pub fn then(&self, other: &Self) -> Self {
        let mut gather = Gather::default();
        for (first_ms, first) in self.iter() {
            for (second_ms, second) in other.iter() {
                gather.add(first_ms + second_ms, first * second);
            }
        }
        gather.done()
    }

    /// The later of two independent times: distribution functions multiply.
    pub fn later(&self, other: &Self) -> Self {
        self.weighted(|at_ms| other.before(at_ms)).plus(&other.weighted(|at_ms| self.until(at_ms)))
    }

    fn of(mut atoms: Vec<Atom>) -> Self {
        atoms.retain(|atom| atom.mass > NEGLIGIBLE);
        let mut sum = 0.0;
        let add = |atom: &Atom| {
            sum += atom.mass;
            sum
        };
        let sums = atoms.iter().map(add).collect();
        Self { atoms, sums }
    }
}

/// Masses on their way into their buckets.
struct Gather {
    /// Mass and moment.
    buckets: Vec<(f64, f64)>,
    first: usize,
    last: usize,
}

impl Default for Gather {
    fn default() -> Self {
        Self { buckets: repeat_n((0.0, 0.0), BUCKETS).collect(), first: BUCKETS, last: 0 }
    }
}

impl Gather {
    fn add(&mut self, at_ms: f64, mass: f64) {
        let bucket = bucket_of(at_ms);
        self.first = self.first.min(bucket);
        self.last = self.last.max(bucket);
        self.buckets[bucket].0 += mass;
        self.buckets[bucket].1 += mass * at_ms;
    }

    fn done(self) -> Measure {
        let filled = self.buckets.get(self.first..=self.last).unwrap_or_default();
        let atoms = filled.iter().filter(|(mass, _)| *mass > NEGLIGIBLE);
        // A constant stays what it is: rounding of the division must not carry it across a deadline.
        let mean = |mass: f64, moment: f64| (moment / mass * GRAINS).round() / GRAINS;
        Measure::of(atoms.map(|(mass, moment)| Atom { at_ms: mean(*mass, *moment), mass: *mass }).collect())
    }
}

/// Zero has a bucket of its own. Of other numbers the exponent and the first bits of the mantissa are the bucket.
fn bucket_of(at_ms: f64) -> usize {
    if at_ms <= 0.0 {
        return 0;
    }
    let key = |ms: f64| ms.to_bits() >> (f64::MANTISSA_DIGITS - 1 - RESOLUTION_BITS);
    let bucket = key(at_ms).saturating_sub(key(LEAST_MS));
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| (bucket + 1).min(BUCKETS - 1))
}

/// A count as a number to reckon with.
pub fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts and milliseconds here are far below 2^53")]
    let number = count as f64;
    number
}

/// Milliseconds as a number to reckon with.
pub fn ms(span: Span) -> f64 {
    float(span.as_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(measure: &Measure, mass: f64, mean: f64) {
        assert!((measure.mass() - mass).abs() < 1e-12, "mass {}", measure.mass());
        assert!((measure.mean() - mean).abs() < 1e-7, "mean {}", measure.mean());
    }

    #[test]
    fn sums_have_exact_masses_and_means() {
        let wide = Measure::gathered((0..1000).map(|n| (float(n) * 1.37, 0.001)));
        let mean = 999.0 / 2.0 * 1.37;
        check(&wide, 1.0, mean);
        check(&wide.then(&wide).then(&Measure::at(20.0, 0.5)), 0.5, 2.0 * mean + 20.0);
        check(&wide.plus(&Measure::now()), 2.0, mean / 2.0);
    }

    #[test]
    fn the_later_of_two_dice() {
        let die = Measure::gathered((1..=6).map(|n| (float(n), 1.0 / 6.0)));
        let later = die.later(&die);
        check(&later, 1.0, 161.0 / 36.0);
        assert!((later.until(3.0) - 0.25).abs() < 1e-12);
        assert!((later.before(3.0) - 4.0 / 36.0).abs() < 1e-12);
        assert_eq!(later.reaches(0.25 - 1e-9), Some(3.0));
        assert_eq!(later.reaches(0.25 + 1e-9), Some(4.0));
        assert_eq!(later.reaches(1.1), None);
    }

    #[test]
    fn nothing_is_nothing() {
        let nothing = Measure::default();
        check(&nothing, 0.0, 0.0);
        check(&nothing.then(&Measure::now()), 0.0, 0.0);
        check(&nothing.later(&Measure::now()), 0.0, 0.0);
        assert_eq!(nothing.reaches(0.1), None);
    }
}
