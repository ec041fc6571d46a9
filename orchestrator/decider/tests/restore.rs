//! A shard that is restored from its checkpoints goes on as if nothing had happened.

#![expect(clippy::unwrap_used, reason = "the helpers belong to the tests")]

use sagamore_decider::identity::Identity;
use sagamore_decider::outbox::{Sent, Way};
use sagamore_decider::output::{Destination, Output, Record};
use sagamore_decider::owner::{Duty, Owner, Pace};
use sagamore_decider::restore::StateReader;
use sagamore_schemas::ids::{Partition, Time};
use sagamore_schemas::wire::{Answer, DefinitionApplied, Payload, Reply, read_command};

fn identity() -> Identity {
    Identity {
        instance: uuid::Uuid::from_u128(7),
        partition: Partition(0),
        partitions: 1,
        replyto: "sagamore.inbox/0".into(),
        inbox: "sagamore.inbox".into(),
        secret: None,
    }
}

const ORDER: &str = r#"{"name":"order","version":1,"steps":[
    {"name":"reserve","participant":"inventory"},
    {"name":"charge","participant":"payment"},
    {"name":"ship","participant":"shipping","kind":"pivot"}]}"#;

#[test]
fn an_order_goes_through_a_takeover_after_every_record() {
    let mut log: Vec<Vec<u8>> = vec![
        DefinitionApplied { offset: 0, data: Payload::from_json(ORDER.into()).unwrap().as_ref() }.to_json(),
        start("order-1"),
    ];
    let mut topic: Vec<(Vec<u8>, i64, Option<Vec<u8>>)> = Vec::new();
    let mut outcomes = Vec::new();
    let mut at = 0;
    while at < log.len() {
        // A new owner for every record: what it knows is what the checkpoints hold.
        let mut reader = StateReader::default();
        for (key, as_of, value) in &topic {
            reader.read(key, Some(as_of.to_string().as_bytes()), value.as_deref());
        }
        let restored = reader.finish(identity()).unwrap();
        assert_eq!(restored.shard.next_offset(), i64::try_from(at).unwrap());
        let now = Time::from_epoch_ms(1_000_000 + i64::try_from(at).unwrap() * 1_000);
        let mut owner = Owner::new(restored, 0, Pace::default(), now);
        let record = Record {
            offset: i64::try_from(at).unwrap(),
            timestamp: now,
            key: None,
            value: Some(&log[at]),
            headers: &[],
        };
        let mut outputs: Vec<Output> = Vec::new();
        owner.on_record(&record, now, |output| outputs.push(output.clone()));
        let mut tickets = Vec::new();
        owner.send(now, Way::AtOnce, |ticket, _, _, _| {
            tickets.push(ticket);
            Sent::Queued
        });
        for ticket in tickets {
            owner.on_delivered(ticket);
        }
        for duty in owner.poll(now, true) {
            let Duty::Write(checkpoint) = duty else { panic!("no timer is due") };
            for record in checkpoint.state.into_iter().chain([checkpoint.last]) {
                topic.push((record.key, record.as_of, record.value));
            }
            owner.on_written(now);
        }
        assert!(owner.is_at_rest());
        for output in outputs {
            match output.destination {
                Destination::Commands(_) => log.push(answer(output.value.as_deref().unwrap())),
                Destination::Outcomes => {
                    outcomes.push(String::from_utf8(output.value.unwrap()).unwrap());
                }
                Destination::Inbox(_) | Destination::DeadLetters => panic!("{output:?}"),
            }
        }
        at += 1;
    }
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert!(outcomes[0].contains(r#""outcome":"committed""#), "{}", outcomes[0]);
    assert!(outcomes[0].contains(r#""charge":{"did":"charge"}"#), "{}", outcomes[0]);
}

fn start(id: &str) -> Vec<u8> {
    format!(
        r#"{{"specversion":"1.0","type":"sagamore.start.v1","id":"{id}/start","source":"/t","time":"1970-01-01T00:16:40Z","subject":"{id}","definition":"order","data":{{"sku":"A1"}}}}"#
    )
    .into_bytes()
}

fn answer(command: &[u8]) -> Vec<u8> {
    let command = read_command(Some(command)).unwrap();
    let data = Payload::from_json(format!(r#"{{"did":"{}"}}"#, command.address.step)).unwrap();
    Reply {
        address: command.address,
        instance: command.instance,
        source: "/t".into(),
        outcome: Answer::Ok,
        reason: None,
        replytoken: None,
        data: data.as_ref(),
    }
    .to_json()
}
