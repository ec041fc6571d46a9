//! Requests of one connection that a broker has and has not answered: what a response is about.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::Head;
use super::rule::InForce;

/// Requests remembered at a time. A client has a few in flight; what is never answered (a produce without
/// acknowledgements) goes when something later is.
const PENDING_MAX: usize = 1024;

/// A request on its way.
pub(super) struct Asked {
    pub(super) head: Head,
    /// The rule that held it before.
    pub(super) held_by: Option<Arc<InForce>>,
}

/// In the order in which the broker got them.
#[derive(Default)]
pub(super) struct Pending(VecDeque<Asked>);

impl Pending {
    pub(super) fn add(&mut self, asked: Asked) {
        if self.0.len() >= PENDING_MAX {
            self.0.pop_front();
        }
        self.0.push_back(asked);
    }

    /// The request that is answered with this correlation id. A broker answers in order: what stands before it never
    /// will be.
    pub(super) fn take(&mut self, correlation: i32) -> Option<Asked> {
        let at = self.0.iter().position(|asked| asked.head.correlation == correlation)?;
        self.0.drain(..at).for_each(Asked::count_unanswered);
        self.0.pop_front()
    }

    /// The connection is over.
    pub(super) fn end(&mut self) {
        self.0.drain(..).for_each(Asked::count_unanswered);
    }
}

impl Asked {
    fn count_unanswered(self) {
        if let Some(rule) = self.held_by {
            rule.count(|counts| counts.unanswered += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Action, Api, Rule};

    fn asked(correlation: i32, held_by: Option<Arc<InForce>>) -> Asked {
        let head =
            Head { api: Api::PRODUCE, version: 7, correlation, client_id: None, transactional_id: None };
        Asked { head, held_by }
    }

    #[test]
    fn a_response_finds_its_request_and_what_is_never_answered_goes() {
        let rule = Arc::new(InForce::new(Rule::new(Action::HoldRequest)));
        let mut pending = Pending::default();
        pending.add(asked(1, None));
        pending.add(asked(2, Some(Arc::clone(&rule))));
        pending.add(asked(3, None));
        assert!(pending.take(9).is_none());
        assert_eq!(pending.take(3).map(|asked| asked.head.correlation), Some(3));
        assert!(pending.take(1).is_none());
        assert_eq!(rule.counts().unanswered, 1);
        (0..5_000).for_each(|correlation| pending.add(asked(correlation, None)));
        assert_eq!(pending.0.len(), PENDING_MAX);
    }
}
