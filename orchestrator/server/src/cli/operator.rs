//! Who decides, and why: the flags of every verb.

use clap::Args;
use sagamore_schemas::wire::Authority;
use uuid::Uuid;

/// Reason and actor.
#[derive(Debug, Clone, Args)]
pub struct OperatorArgs {
    /// Why; it stands in the journal.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who; the user's name unless told otherwise.
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
}

impl OperatorArgs {
    /// The name that goes to the journal.
    pub fn actor(&self) -> String {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.actor.clone().or_else(user).unwrap_or_else(|| "operator".to_owned())
    }

    /// A verb's authority, with an id of its own.
    pub fn authority(&self) -> Authority<'static> {
        Authority {
            id: Uuid::new_v4().to_string().into(),
            actor: self.actor().into(),
            reason: self.reason.clone().into(),
            revision: None,
        }
    }
}
