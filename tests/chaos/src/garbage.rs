//! What nobody should send, written where everybody reads. Each piece is on disk before it leaves.

use sagamore_end_to_end::PARTITIONS;
use sagamore_end_to_end::http::RUNTIME;
use sagamore_end_to_end::topics;
use serde_json::{Value, json};

use crate::fate::PARTICIPANTS;
use crate::faults::{Became, Scene, draw};
use crate::world::World;

/// Pieces at a time.
const PIECES: u64 = 5;

/// Into inbox partitions.
pub fn to_inbox(scene: &Scene, die: u64) -> Became {
    let inbox = World::topic("inbox");
    throw(scene, die, &inbox, |nth, tag| {
        let reply = |instance: &str, birth: &str| {
            json!({"specversion": "1.0", "type": "sagamore.reply.v1", "id": tag, "source": "/garbage",
                "instance": instance, "subject": tag, "birth": birth, "step": "charge", "branch": "till",
                "operation": "execute", "attempt": 1, "outcome": "ok"})
        };
        match nth % 7 {
            0 => [b"\xff\xfe\x00", tag.as_bytes()].concat(),
            1 => reply(&scene.instance, "0-1").to_string().into_bytes()[..60].to_vec(),
            2 => reply("00000000-0000-4000-8000-000000000000", "0-1").to_string().into_bytes(),
            3 => reply(&scene.instance, "9-12345").to_string().into_bytes(),
            4 => json!({"specversion": "1.0", "type": "sagamore.unheard-of.v1", "id": tag, "source": "/x"})
                .to_string()
                .into_bytes(),
            5 => json!({"specversion": "1.0", "type": "sagamore.start.v1", "id": tag, "source": "/x",
                "subject": tag, "definition": "No Name", "time": "2026-01-01T00:00:00Z"})
            .to_string()
            .into_bytes(),
            _ => {
                json!({"specversion": "0.3", "type": "sagamore.start.v1", "id": tag}).to_string().into_bytes()
            }
        }
    })
}

/// Into partitions of a participant's commands.
pub fn to_commands(scene: &Scene, die: u64) -> Became {
    let participant = PARTICIPANTS[usize::try_from(die % PARTICIPANTS.len() as u64).unwrap_or(0)];
    throw(scene, die, &World::topic(&format!("commands.{participant}")), |nth, tag| match nth % 3 {
        0 => [b"\xff\xfe\x00", tag.as_bytes()].concat(),
        1 => {
            format!("{{\"specversion\":\"1.0\",\"type\":\"sagamore.command.v1\",\"id\":\"{tag}").into_bytes()
        }
        _ => json!({"specversion": "1.0", "type": "sagamore.command.v1", "id": tag, "source": "/x",
            "instance": scene.instance, "subject": tag, "birth": "0-1", "step": "charge", "branch": "till",
            "operation": "destroy", "attempt": 1})
        .to_string()
        .into_bytes(),
    })
}

fn throw(scene: &Scene, die: u64, topic: &str, piece: impl Fn(u64, &str) -> Vec<u8>) -> Became {
    let producer = topics::producer(scene.world.bootstrap());
    let mut thrown = 0;
    for nth in 0..PIECES {
        let which = draw(die, &format!("piece {nth}"));
        let tag = format!("garbage-{:08x}-{nth}", die >> 32);
        let value = piece(which, &tag);
        let partition = i32::try_from(which >> 8 & 0xff).unwrap_or(0) % PARTITIONS;
        let text = String::from_utf8_lossy(&value).into_owned();
        scene.notes.write(&json!({"note": "garbage", "topic": topic, "value": text}));
        let key = Some(tag.as_bytes());
        let written = RUNTIME.block_on(topics::write(&producer, topic, Some(partition), key, Some(&value)));
        if let Ok((partition, offset)) = written {
            thrown += 1;
            let note: Value =
                json!({"note": "garbage-written", "topic": topic, "partition": partition, "offset": offset});
            scene.notes.write(&note);
        }
    }
    scene.tally.detail(&format!("pieces of garbage in {topic}"), thrown);
    if thrown > 0 { Became::Done } else { Became::Missed("no broker took it".to_owned()) }
}
