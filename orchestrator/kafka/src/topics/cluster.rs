//! The few requests to the cluster that topics need, and their answers as plain data.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use super::{REQUEST_TIMEOUT, TopicsError};
use crate::block_on::block_on;
use crate::client::ClientSettings;

pub(super) struct Cluster {
    admin: AdminClient<DefaultClientContext>,
    bootstrap: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicFacts {
    pub(super) partitions: usize,
    /// The smallest number of copies of one of its partitions.
    pub(super) replication: NonZeroU16,
    pub(super) has_leaders: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigValue {
    pub(super) value: Option<String>,
    /// Set on this very topic, not inherited.
    pub(super) is_own: bool,
}

impl Cluster {
    pub(super) fn connect(settings: &ClientSettings) -> Result<Self, TopicsError> {
        let admin = settings
            .admin()
            .create()
            .map_err(|cause| TopicsError::Request { action: "make an admin client", cause })?;
        Ok(Self { admin, bootstrap: settings.bootstrap().to_owned() })
    }

    pub(super) fn topics(&self) -> Result<BTreeMap<String, TopicFacts>, TopicsError> {
        Ok(self.metadata()?.topics().iter().map(|topic| (topic.name().to_owned(), facts(topic))).collect())
    }

    pub(super) fn brokers(&self) -> Result<Vec<i32>, TopicsError> {
        Ok(self.metadata()?.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect())
    }

    pub(super) fn topic_configs(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, ConfigValue>>, TopicsError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let specifiers: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let answers = block_on(self.admin.describe_configs(&specifiers, &options()))
            .map_err(|cause| TopicsError::Request { action: "read the settings of topics", cause })?;
        let mut configs = BTreeMap::new();
        for (answer, name) in answers.into_iter().zip(names) {
            let resource =
                answer.map_err(|cause| TopicsError::Describe { resource: (*name).to_owned(), cause })?;
            // The answers say themselves whose they are.
            let name = match &resource.specifier {
                OwnedResourceSpecifier::Topic(name) => name.clone(),
                OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => continue,
            };
            configs.insert(name, values(&resource));
        }
        Ok(configs)
    }

    pub(super) fn broker_config(&self, id: i32) -> Result<BTreeMap<String, ConfigValue>, TopicsError> {
        let specifier = ResourceSpecifier::Broker(id);
        let answers = block_on(self.admin.describe_configs([&specifier], &options()))
            .map_err(|cause| TopicsError::Request { action: "read the settings of a broker", cause })?;
        let answer = answers.into_iter().next().unwrap_or(Err(RDKafkaErrorCode::UnknownBroker));
        let resource =
            answer.map_err(|cause| TopicsError::Describe { resource: format!("broker {id}"), cause })?;
        Ok(values(&resource))
    }

    /// Creates a topic; one that is there already is fine: another `apply` was quicker.
    pub(super) fn create(
        &self,
        name: &str,
        partitions: NonZeroU16,
        replication: NonZeroU16,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), TopicsError> {
        let mut topic = NewTopic::new(
            name,
            i32::from(partitions.get()),
            TopicReplication::Fixed(i32::from(replication.get())),
        );
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let answers = block_on(self.admin.create_topics([&topic], &options()))
            .map_err(|cause| TopicsError::Request { action: "create topics", cause })?;
        match answers.into_iter().next() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((topic, cause))) => Err(TopicsError::Create { topic, cause }),
        }
    }

    /// Sets these settings of a topic and keeps the others it has of its own.
    pub(super) fn alter(&self, name: &str, settings: &BTreeMap<&str, &str>) -> Result<(), TopicsError> {
        // The request replaces everything the topic has of its own: what stays must be said again.
        let present = self.topic_configs(&[name])?.remove(name).unwrap_or_default();
        let mut merged: BTreeMap<&str, &str> = present
            .iter()
            .filter(|(_, entry)| entry.is_own)
            .filter_map(|(key, entry)| Some((key.as_str(), entry.value.as_deref()?)))
            .collect();
        merged.extend(settings);
        let mut request = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in merged {
            request = request.set(key, value);
        }
        let answers = block_on(self.admin.alter_configs([&request], &options()))
            .map_err(|cause| TopicsError::Request { action: "alter topics", cause })?;
        match answers.into_iter().next() {
            None | Some(Ok(_)) => Ok(()),
            Some(Err((_, cause))) => Err(TopicsError::Alter { topic: name.to_owned(), cause }),
        }
    }

    pub(super) fn remove(&self, names: &[String]) -> Result<(), TopicsError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        let answers = block_on(self.admin.delete_topics(&names, &options()))
            .map_err(|cause| TopicsError::Request { action: "remove topics", cause })?;
        let refused = answers.into_iter().filter_map(Result::err);
        let refused = refused.filter(|(_, cause)| *cause != RDKafkaErrorCode::UnknownTopicOrPartition);
        refused.take(1).try_for_each(|(topic, cause)| Err(TopicsError::Remove { topic, cause }))
    }

    fn metadata(&self) -> Result<Metadata, TopicsError> {
        self.admin
            .inner()
            .fetch_metadata(None, REQUEST_TIMEOUT)
            .map_err(|cause| TopicsError::Unreachable { bootstrap: self.bootstrap.clone(), cause })
    }
}

fn facts(topic: &rdkafka::metadata::MetadataTopic) -> TopicFacts {
    let copies = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
    TopicFacts {
        partitions: topic.partitions().len(),
        replication: u16::try_from(copies).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN),
        has_leaders: topic.partitions().iter().all(|partition| partition.leader() >= 0),
    }
}

fn values(resource: &ConfigResource) -> BTreeMap<String, ConfigValue> {
    let value = |entry: &rdkafka::admin::ConfigEntry| {
        let is_own = matches!(entry.source, ConfigSource::DynamicTopic);
        (entry.name.clone(), ConfigValue { value: entry.value.clone(), is_own })
    };
    resource.entries.iter().map(value).collect()
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}
