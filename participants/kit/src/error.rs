//! Why there is no verdict, and how a check ends before its end.

use rdkafka::error::KafkaError;
use sagamore_kafka::topics::TopicsError;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The topics cannot be made.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// A Kafka client does not do what it should.
    #[error("cannot {doing}: {cause}")]
    Kafka {
        /// What was tried.
        doing: &'static str,
        /// What the client says.
        cause: KafkaError,
    },
    /// Somebody else's prefix.
    #[error(
        "{topic} is there: under this prefix lives a coordinator, and its participants would be told nonsense. Start the \
         participant under a prefix of its own, and name that with --prefix"
    )]
    Occupied {
        /// The topic that gives it away.
        topic: String,
    },
    /// The participant or its log cannot be started.
    #[error("cannot {doing}: {cause}")]
    Process {
        /// What was tried.
        doing: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The command that shows effects does not.
    #[error("--observe: `{command}` {cause}")]
    Observe {
        /// As it was run.
        command: String,
        /// What it did instead.
        cause: String,
    },
    /// More came than any participant has to say.
    #[error("{count} records came to the inbox, and no end: the participant answers in a loop. See {log}")]
    Flooded {
        /// So many were read.
        count: usize,
        /// Where its output is.
        log: String,
    },
    /// Wanted from outside.
    #[error("interrupted")]
    Interrupted,
}

/// What does not keep a promise: sent, expected, came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What was sent.
    pub sent: String,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub came: String,
}

/// How a check ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// With a broken promise.
    Broken(Broken),
    /// It cannot be looked at.
    Skipped(String),
    /// The participant's process has ended by itself; how.
    Ended(String),
    /// There is no verdict at all.
    Error(CheckError),
}

impl From<CheckError> for Stop {
    fn from(error: CheckError) -> Self {
        Self::Error(error)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}
