//! How a command ends: the exit codes that scripts rely on, and the failure that carries one.

use std::fmt;
use std::process::ExitCode;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use sagamore_kafka::client::OverrideError;
use sagamore_kafka::topics::{InstanceError, TopicsError};

use crate::lane::LaneError;
use crate::server::StartError;
use crate::site::SiteError;

/// What the exit code of `sagamore` says. The numbers are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done; with `--wait`: committed.
    Done = 0,
    /// Something nobody expected.
    Unexpected = 1,
    /// The command line, a file or a setting is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Something else is there already, or it is in the wrong state.
    Conflict = 4,
    /// Not allowed.
    NotAllowed = 5,
    /// Server or broker unreachable.
    Unreachable = 6,
    /// Not known in time.
    Timeout = 7,
    /// A check is negative.
    CheckNegative = 10,
    /// `--wait`: compensated or aborted.
    NotCommitted = 20,
    /// `--wait`: stuck.
    Stuck = 21,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked, in one message for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What is printed.
    pub message: String,
}

/// What a command comes to.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// With this code and message.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// The person at the keyboard can mend it.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// What a Kafka client says, while it was `doing` something at `bootstrap`.
    pub fn kafka(doing: &str, bootstrap: &str, cause: &KafkaError) -> Self {
        let exit = exit_of_kafka(cause);
        match exit {
            Exit::Unreachable => Self::new(exit, format_args!("no broker answers at {bootstrap}: {cause}")),
            _ => Self::new(exit, format_args!("cannot {doing}: {cause}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<OverrideError> for Failure {
    fn from(error: OverrideError) -> Self {
        Self::usage(format_args!("--kafka-config: {error}"))
    }
}

impl From<TopicsError> for Failure {
    fn from(error: TopicsError) -> Self {
        Self::new(exit_of_topics(&error), error)
    }
}

impl From<InstanceError> for Failure {
    fn from(error: InstanceError) -> Self {
        Self::new(exit_of_instance(&error), error)
    }
}

impl From<SiteError> for Failure {
    fn from(error: SiteError) -> Self {
        match error {
            SiteError::Kafka { doing, bootstrap, cause } => Self::kafka(doing, &bootstrap, &cause),
            SiteError::Client(_) => Self::usage(error),
            SiteError::NoTopic(_) => Self::new(Exit::NotFound, error),
            SiteError::NotRead { .. } | SiteError::NotAcknowledged(_) => Self::new(Exit::Timeout, error),
            SiteError::Instance(error) => error.into(),
            SiteError::Topics(error) => error.into(),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::TopicsUnfit(_) | StartError::NoTopics(_) => Exit::CheckNegative,
            StartError::Unreachable(_) => Exit::Unreachable,
            StartError::Topics(error) => exit_of_topics(error),
            // An address or a folder that is taken, a property that contradicts another: wrong configuration.
            StartError::Listen(..)
            | StartError::Client(_)
            | StartError::View(_)
            | StartError::Lane(LaneError::Client(_)) => Exit::Usage,
            StartError::Lane(LaneError::Thread(_))
            | StartError::Runtime(_)
            | StartError::Snapshots(_)
            | StartError::Metrics(_) => Exit::Unexpected,
        };
        Self::new(exit, error)
    }
}

fn exit_of_topics(error: &TopicsError) -> Exit {
    match error {
        TopicsError::Unreachable { .. } => Exit::Unreachable,
        TopicsError::PartitionCount { .. } => Exit::Conflict,
        TopicsError::Create { cause, .. }
        | TopicsError::Alter { cause, .. }
        | TopicsError::Remove { cause, .. }
        | TopicsError::Describe { cause, .. } => exit_of_code(*cause),
        TopicsError::Request { cause, .. } => exit_of_kafka(cause),
        TopicsError::NotReady { .. } => Exit::Timeout,
        TopicsError::Instance(error) => exit_of_instance(error),
    }
}

fn exit_of_instance(error: &InstanceError) -> Exit {
    match error {
        InstanceError::NoTopic { .. } | InstanceError::Missing { .. } => Exit::NotFound,
        InstanceError::Contradiction { .. } => Exit::CheckNegative,
        InstanceError::Kafka { cause, .. } => exit_of_kafka(cause),
        InstanceError::Timeout { .. } => Exit::Timeout,
    }
}

fn exit_of_kafka(cause: &KafkaError) -> Exit {
    cause.rdkafka_error_code().map_or(Exit::Unexpected, exit_of_code)
}

fn exit_of_code(code: RDKafkaErrorCode) -> Exit {
    match code {
        RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::MessageTimedOut
        | RDKafkaErrorCode::SSL => Exit::Unreachable,
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownPartition => Exit::NotFound,
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
        | RDKafkaErrorCode::PolicyViolation
        | RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed => Exit::NotAllowed,
        RDKafkaErrorCode::InvalidReplicationFactor | RDKafkaErrorCode::InvalidPartitions => Exit::Usage,
        _ => Exit::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_scripts_rely_on() {
        let all = [
            (Exit::Done, 0),
            (Exit::Unexpected, 1),
            (Exit::Usage, 2),
            (Exit::NotFound, 3),
            (Exit::Conflict, 4),
            (Exit::NotAllowed, 5),
            (Exit::Unreachable, 6),
            (Exit::Timeout, 7),
            (Exit::CheckNegative, 10),
            (Exit::NotCommitted, 20),
            (Exit::Stuck, 21),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn what_kafka_says() {
        let check = |code, exit| {
            let failure = Failure::kafka("read the topic", "h:1", &KafkaError::MetadataFetch(code));
            assert_eq!(failure.exit, exit, "{failure}");
        };
        check(RDKafkaErrorCode::BrokerTransportFailure, Exit::Unreachable);
        check(RDKafkaErrorCode::OperationTimedOut, Exit::Unreachable);
        check(RDKafkaErrorCode::TopicAuthorizationFailed, Exit::NotAllowed);
        check(RDKafkaErrorCode::UnknownTopicOrPartition, Exit::NotFound);
        check(RDKafkaErrorCode::InvalidReplicationFactor, Exit::Usage);
        check(RDKafkaErrorCode::CoordinatorLoadInProgress, Exit::Unexpected);
        let topic = String::from("t");
        let error = TopicsError::Alter { topic, cause: RDKafkaErrorCode::PolicyViolation };
        assert_eq!(Failure::from(error).exit, Exit::NotAllowed);
    }

    #[test]
    fn how_a_server_that_does_not_start_ends() {
        let check = |error: StartError, exit| assert_eq!(Failure::from(error).exit, exit);
        check(StartError::TopicsUnfit(Vec::new()), Exit::CheckNegative);
        check(StartError::NoTopics(String::new()), Exit::CheckNegative);
        check(StartError::Unreachable(String::new()), Exit::Unreachable);
        let taken = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        check(StartError::Listen("127.0.0.1:1".parse().unwrap(), taken), Exit::Usage);
    }
}
