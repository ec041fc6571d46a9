//! Random moments that come again: everything follows from a seed, which is printed.

use std::ops::Range;

/// Variable with another seed.
const SEED_VARIABLE: &str = "SAGAMORE_SEED_E2E";
const SEED: u64 = 20_261_122;

/// `SplitMix64`.
pub struct Random(u64);

impl Random {
    /// Of the seed in the environment, or the usual one.
    pub fn seeded(test: &str) -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(SEED);
        println!("{test}: {SEED_VARIABLE}={seed}");
        Self(seed)
    }

    /// A number of this range.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (mixed ^ (mixed >> 31)) % (range.end - range.start)
    }
}
