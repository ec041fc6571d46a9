//! The processes beside the driver: the server as it is, and three participants that always say yes.

use std::error::Error;
use std::io::Read;

use sagamore::config::ServerConfig;
use sagamore::server::Server;
use sagamore_decider::owner::Pace;
use sagamore_kafka::client::ClientSettings;
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload, Runtime, Settings};
use sagamore_schemas::ids::Name;
use sagamore_schemas::topics::Prefix;

pub(crate) const PARTICIPANTS: [&str; 3] = ["reserve", "charge", "book"];

pub(crate) fn participant_names() -> Vec<Name> {
    PARTICIPANTS.iter().filter_map(|name| name.parse().ok()).collect()
}

pub(crate) fn server(kafka: ClientSettings, prefix: Prefix) -> Result<(), Box<dyn Error>> {
    let mut server = Server::start(ServerConfig {
        kafka,
        prefix,
        listen: "127.0.0.1:0".parse()?,
        advertise: None,
        lanes: 1,
        development: true,
        check_topics: true,
        reply_secret: None,
        pace: Pace::default(),
    })?;
    until_parent_is_gone();
    server.stop();
    Ok(())
}

pub(crate) fn participants(kafka: &ClientSettings, prefix: &Prefix) -> Result<(), Box<dyn Error>> {
    let handles = participant_names()
        .into_iter()
        .map(|name| {
            Runtime::spawn(
                Yes,
                MemoryStore::new(Table::default()),
                &Settings::new(kafka.clone(), prefix.clone(), name),
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    until_parent_is_gone();
    handles.iter().for_each(sagamore_participant::Handle::stop);
    Ok(())
}

fn until_parent_is_gone() {
    // The driver holds the other end; any end of it will do.
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
}

/// Remembers for whom it has said yes; saying it twice to one transaction would be a defect of the barrier.
struct Yes;

impl Participant for Yes {
    type Store = MemoryStore<Table<String, ()>>;

    fn execute(&self, done: &mut Table<String, ()>, command: &Command<'_>) -> Result<Effect, Fault> {
        let subject = command.address.subject.to_string();
        assert!(done.get(&subject).is_none(), "{subject} was done twice");
        done.put(subject, ());
        Ok(Effect::Done(Payload::Absent))
    }

    fn compensate(
        &self,
        done: &mut Table<String, ()>,
        command: &Command<'_>,
        _: &Payload,
    ) -> Result<(), Fault> {
        done.remove(&command.address.subject.to_string());
        Ok(())
    }
}
