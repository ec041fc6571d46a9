//! Bodies of snapshots: cut, damaged, longer than they say.

use proptest::prelude::*;
use proptest::sample::Index;
use sagamore_decider::checkpoint::StateRecord;
use sagamore_decider::restore::StateReader;
use sagamore_decider::snapshot::{decode, encode, restore};
use sagamore_fuzz::Target;
use sagamore_fuzz::corpus::Corpus;
use sagamore_fuzz::mutate::{damage, damaged};
use sagamore_schemas::log::CHECKPOINT_KEY;

use crate::shard::goldens;
use crate::state::{identity, seen, states};

const TARGET: Target = Target { name: "snapshot", cases: 3_000 };

#[test]
fn a_snapshot_is_restored_as_it_was_written_or_refused() {
    let bodies: Vec<Vec<u8>> = goldens().iter().filter_map(|golden| body(&golden.print())).collect();
    assert!(bodies.len() > 3, "goldens of one partition have states");
    let values = bodies.clone();
    let strategy = (any::<Index>(), proptest::collection::vec(damage(), 0..3), any::<Index>()).prop_map(
        move |(at, damages, cut)| {
            let mut body = damaged(bodies[at.index(bodies.len())].clone(), &damages, &values);
            body.truncate(cut.index(body.len() * 4 + 1));
            body
        },
    );
    let corpus = Corpus::of(TARGET.name);
    corpus.seeds.iter().for_each(|(_, seed)| property(seed));
    TARGET.explore(strategy, |body| property(body), |body| corpus.keep(body));
}

fn body(golden: &str) -> Option<Vec<u8>> {
    let mut reader = StateReader::default();
    for state in states(golden) {
        let as_of = state.as_of.to_string();
        let header = (state.key.0 != CHECKPOINT_KEY).then_some(as_of.as_bytes());
        reader.read(&state.key.0, header, state.value.as_ref().map(|value| value.0.as_slice()));
    }
    // Goldens of other partition counts are other identities.
    Some(encode(reader.prove(&identity()).ok()?)?.bytes)
}

fn property(body: &[u8]) {
    let records = match decode(body) {
        Ok(records) => records,
        Err(error) => return assert!(error.to_string().len() > 10, "{error}"),
    };
    let size: usize = records.iter().map(size_of_frame).sum();
    assert_eq!(size, body.len(), "nothing is passed over");
    if let Ok(restored) = restore(&records, identity()) {
        let again = restore(&decode(body).unwrap(), identity()).unwrap();
        assert_eq!(seen(&again.shard), seen(&restored.shard));
    }
}

fn size_of_frame(record: &StateRecord) -> usize {
    16 + record.key.len() + record.value.as_ref().map_or(0, Vec::len)
}
