//! Forwards committed replies to the inbox: an ordinary consumer group on the replies, a plain idempotent producer. What was
//! forwarded and not yet committed is forwarded again, which harms nobody: a reply counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sagamore_schemas::topics::KafkaOnlyTopic;
use sagamore_schemas::wire::parse_replyto;
use tracing::warn;

use super::KafkaOnlySettings;
use crate::runtime::counters::count;
use crate::runtime::desk::Taken;
use crate::runtime::replies::{Outgoing, Replies, Shared};
use crate::runtime::{Ending, Poller, RuntimeError, Work};

/// How long a stop waits for the last replies. They are forwarded by whoever comes next.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// After so long without a reply the last one has been seen.
const QUIET: Duration = Duration::from_millis(300);

/// The running relay.
pub(super) struct Relay {
    thread: JoinHandle<()>,
    ending: Arc<AtomicU8>,
    shared: Arc<Shared>,
}

impl Relay {
    pub(super) fn spawn(
        settings: &KafkaOnlySettings,
        replies: &Arc<Replies>,
        shared: &Arc<Shared>,
    ) -> Result<Self, RuntimeError> {
        let KafkaOnlySettings { clients, prefix, participant, .. } = settings;
        let topic = KafkaOnlyTopic::Replies.name(prefix, participant).into();
        let config = clients.participant_consumer(
            &format!("{}.relay", settings.group()),
            &format!("sagamore-{participant}-relay"),
        );
        let ending = Arc::new(AtomicU8::new(Ending::None as u8));
        let forward =
            Forward { replies: Arc::clone(replies), shared: Arc::clone(shared), topic: Arc::clone(&topic) };
        let poller = Poller::new(config, topic, replies, shared, &ending, forward, None)?;
        let thread =
            thread::Builder::new().name(format!("{participant}-relay")).spawn(move || poller.run())?;
        Ok(Self { thread, ending, shared: Arc::clone(shared) })
    }

    /// Lets the last replies leave, and ends.
    pub(super) fn end(self, how: Ending) {
        if how == Ending::Stop {
            let forwarded = || self.shared.counts.delivered.load(Ordering::Relaxed);
            let (begun, mut quiet, mut before) = (Instant::now(), Instant::now(), forwarded());
            while begun.elapsed() < LAST_WITHIN && quiet.elapsed() < QUIET {
                thread::sleep(super::STOP_INTERVAL);
                if forwarded() != before || self.shared.progress.in_flight() > 0 {
                    (quiet, before) = (Instant::now(), forwarded());
                }
            }
        }
        self.ending.fetch_max(how as u8, Ordering::AcqRel);
        assert!(self.thread.join().is_ok() || thread::panicking(), "the relay has panicked");
    }
}

struct Forward {
    replies: Arc<Replies>,
    shared: Arc<Shared>,
    topic: Arc<str>,
}

impl Work for Forward {
    fn work(&mut self, mut batch: Vec<Taken>) -> Vec<Taken> {
        self.shared.progress.begin(&mut batch, Taken::token);
        for taken in &batch {
            let Some((partition, subject)) = address(&taken.key, self.replies.topic()) else {
                let Taken { partition, offset, .. } = *taken;
                warn!(topic = %self.topic, partition, offset, "not a reply to be forwarded; passed over");
                count(&self.shared.counts.misdirected);
                self.shared.progress.finish(taken.token());
                continue;
            };
            let (key, value) = (subject.as_bytes().to_vec(), taken.value.clone());
            self.replies.send(Outgoing { token: taken.token(), partition, key, value });
        }
        batch
    }

    fn end(self) {}
}

/// Partition of the inbox, and transaction: the key of a reply is `<replyto> <subject>`.
fn address<'k>(key: &'k [u8], inbox: &str) -> Option<(i32, &'k str)> {
    let (replyto, subject) = std::str::from_utf8(key).ok()?.split_once(' ')?;
    let (topic, home) = parse_replyto(replyto)?;
    (topic == inbox && !subject.is_empty()).then_some((home.0, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_goes_where_its_key_says_if_that_is_the_inbox() {
        let at = |key: &'static str| address(key.as_bytes(), "s.inbox");
        assert_eq!(at("s.inbox/3 order-1"), Some((3, "order-1")));
        for wrong in
            ["", "s.inbox/3", "s.inbox/3 ", "s.outcomes/3 order-1", "s.inbox/-1 order-1", "s.inbox 3 order-1"]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(address(b"\xff", "s.inbox"), None);
    }
}
