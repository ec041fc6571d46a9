//! Failures on demand, the same in every run: what happens to a command follows from its id and a seed.

use std::thread;
use std::time::Duration;

use sagamore_participant::{Command, Effect, Fault};

/// Which failures.
#[derive(Debug, Clone, Default)]
pub struct Injection {
    /// Two runs with one seed fail alike.
    pub seed: u64,
    /// How many transactions of a hundred are refused.
    pub refuse_percent: u8,
    /// How many first attempts of a hundred fail technically.
    pub fail_percent: u8,
    /// How long each command takes longer.
    pub delay: Duration,
}

impl Injection {
    /// Before anything else.
    pub(crate) fn before(&self, participant: &str, command: &Command<'_>) -> Result<(), Fault> {
        if !self.delay.is_zero() {
            thread::sleep(self.delay);
        }
        let address = &command.address;
        let id = format!("{participant}/fail/{}/{}", address.subject, address.operation);
        if address.attempt == 1 && self.hits(&id, self.fail_percent) {
            return Err(Fault::new("injected-failure"));
        }
        Ok(())
    }

    /// Instead of an effect.
    pub(crate) fn refusal(&self, participant: &str, command: &Command<'_>) -> Option<Effect> {
        let id = format!("{participant}/refuse/{}", command.address.subject);
        self.hits(&id, self.refuse_percent).then(|| Effect::refused("injected-refusal"))
    }

    fn hits(&self, id: &str, percent: u8) -> bool {
        percent > 0 && hash(self.seed, id) % 100 < u64::from(percent)
    }
}

/// FNV-1a with the finish of `SplitMix64`, whose low digits are even enough to count percents by.
fn hash(seed: u64, text: &str) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    let folded = text.bytes().fold(BASIS ^ seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let mixed = (folded ^ (folded >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_is_a_percent() {
        let injection = Injection { seed: 7, ..Injection::default() };
        let hits = (0..10_000).filter(|n| injection.hits(&format!("order-{n}"), 10)).count();
        assert!((900..1_100).contains(&hits), "{hits}");
    }
}
