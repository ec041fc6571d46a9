//! A shard that halted on a panic looks ahead in its inbox for the operator's decision to skip that record.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use sagamore_kafka::client::Isolation;
use sagamore_schemas::topics::Topic;
use sagamore_schemas::wire::{Authority, Input, ShardVerb, ShardWish, read_input};

use super::takeover::reader_at;
use super::{Event, Tenure};
use crate::config::Installation;

/// An operator's decision to pass over one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Inbox offset of the record.
    pub offset: i64,
    /// Idempotency key of the verb.
    pub id: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Skip {
    /// The decision that an inbox record is, if it is one.
    pub(crate) fn read(value: Option<&[u8]>) -> Option<Self> {
        let Ok(Input::Shard(ShardVerb { wish: ShardWish::Skip { offset }, authority })) = read_input(value)
        else {
            return None;
        };
        Some(Self {
            offset,
            id: authority.id.into_owned(),
            actor: authority.actor.into_owned(),
            reason: authority.reason.into_owned(),
        })
    }

    /// As the fold takes it.
    pub fn authority(&self) -> Authority<'_> {
        Authority {
            id: self.id.as_str().into(),
            actor: self.actor.as_str().into(),
            reason: self.reason.as_str().into(),
            revision: None,
        }
    }
}

/// The look-ahead goes on while this is there.
#[derive(Debug, Default)]
pub struct Looking(pub(super) Arc<()>);

/// Reads on from the record at `offset` until its `skip` is found, or nobody wants to know.
pub(super) fn look_ahead(
    installation: &Installation,
    tenure: Tenure,
    offset: i64,
    events: &Sender<(Tenure, Event)>,
    wanted: &Weak<()>,
) {
    let inbox = installation.topic(Topic::Inbox);
    let from = Offset::Offset(offset + 1);
    let consumer = match reader_at(installation, &inbox, tenure.partition, from, Isolation::ReadUncommitted) {
        Ok(consumer) => consumer,
        Err(failure) => return drop(events.send((tenure, Event::Failed(failure)))),
    };
    while wanted.strong_count() > 0 {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(500)) else { continue };
        if let Some(skip) = Skip::read(message.payload()).filter(|skip| skip.offset == offset) {
            return drop(events.send((tenure, Event::Skip(skip))));
        }
    }
}
