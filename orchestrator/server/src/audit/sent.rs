//! Which outputs of the fold stand in a topic.

use rdkafka::message::Message;
use sagamore_kafka::client::Isolation;
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::Digest128;
use sagamore_schemas::topics::Topic;

use super::compare::Outputs;
use super::replay::content_of;
use super::topics::{in_parallel, read, stretches};
use crate::checkpointer::{headers_of, timestamp_ms};
use crate::site::{Site, SiteError};

/// Marks those that do, wherever outputs go. Of what is older than what is returned nothing is known: some topic no longer
/// reaches back so far.
pub fn sent(site: &Site, outputs: &Outputs, threads: usize) -> Result<Option<Time>, SiteError> {
    let own = [Topic::Inbox, Topic::Outcomes, Topic::DeadLetters].map(|topic| site.topic(topic));
    let commands = format!("{}.commands.", site.prefix);
    let topics = stretches(site, |topic| topic.starts_with(&commands) || own.iter().any(|own| own == topic))?;
    let begins = in_parallel(&topics, threads, |stretch| {
        let mut first = None;
        read(site, stretch, Isolation::ReadUncommitted, |message| {
            first.get_or_insert_with(|| Time::from_epoch_ms(timestamp_ms(message.timestamp())));
            let content = content_of(&stretch.topic, message.key(), message.payload(), &headers_of(message));
            outputs.see(content, Digest128::default);
            true
        })?;
        Ok::<_, SiteError>(first.filter(|_| stretch.low > 0))
    })?;
    Ok(begins.into_iter().flatten().max())
}
