//! Whether records wait for company: lone ones leave at once, those of a crowd share requests.
//!
//! A request costs the broker much the same whether it carries one record or a hundred, and each wakes a fetch of
//! whoever reads. librdkafka's linger is fixed per producer, so whoever sends has two of them ([`Linger`]), and a
//! [`Crowd`] that says which to use. What is counted is what has been handed over and is not acknowledged: with so many
//! in flight at most so many can be, hence no wait for a few that are in a hurry.

use std::time::{Duration, Instant};

/// How long the first record of a request waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linger {
    /// It leaves at once.
    None,
    /// So long that a crowd's requests are few, so short that a crowd's latency, hundreds of ms, does not show it.
    Crowd,
}

impl Linger {
    /// As librdkafka's `linger.ms`.
    pub(crate) fn as_ms(self) -> &'static str {
        match self {
            Self::None => "0",
            Self::Crowd => "20",
        }
    }
}

/// How long there must be no crowd before it counts as gone: records in company come in waves.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// Whether there is a crowd. It comes at a number, and is gone when there was not a third of it for a second.
#[derive(Debug)]
pub struct Crowd {
    comes_at: usize,
    last_seen: Option<Instant>,
}

impl Crowd {
    /// A crowd that comes when so many records are not acknowledged.
    pub fn at(comes_at: usize) -> Self {
        Self { comes_at, last_seen: None }
    }

    /// Looks at how many records are not acknowledged now.
    pub fn look(&mut self, unacknowledged: usize, now: Instant) -> Linger {
        let stays = self.last_seen.is_some() && unacknowledged >= self.comes_at / 3;
        if unacknowledged >= self.comes_at || stays {
            self.last_seen = Some(now);
        }
        if self.last_seen.is_some_and(|seen| now.duration_since(seen) > GONE_AFTER) {
            self.last_seen = None;
        }
        if self.last_seen.is_some() { Linger::Crowd } else { Linger::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_comes_at_once_and_goes_slowly() {
        let begin = Instant::now();
        let mut crowd = Crowd::at(300);
        for (at_ms, unacknowledged, then) in [
            (0, 299, Linger::None),
            (1, 300, Linger::Crowd),
            (2, 0, Linger::Crowd),
            (900, 99, Linger::Crowd),
            (901, 100, Linger::Crowd),
            (1_901, 0, Linger::Crowd),
            (1_902, 0, Linger::None),
            (1_903, 299, Linger::None),
        ] {
            let now = begin + Duration::from_millis(at_ms);
            assert_eq!(crowd.look(unacknowledged, now), then, "{unacknowledged} after {at_ms} ms");
        }
    }
}
