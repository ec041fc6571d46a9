//! Faults between the processes and the brokers.

use std::thread;
use std::time::Duration;

use crate::faults::{Became, Scene};
use crate::proxy::{Action, Api, Rule};
use crate::schedule::{Fault, Kind};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Sets a rule for a while, releases what it held, and says whether anything came of it.
pub fn disturb(scene: &Scene, fault: Fault) -> Became {
    let Fault { kind, lasts, die, .. } = fault;
    let rule = rule_of(kind, die);
    let active = scene.world.proxy.set(rule.lasting(lasts));
    if matches!(kind, Kind::InitProducerIdDelayed | Kind::InitProducerIdDropped) {
        // Nobody asks for an id but a producer that begins: somebody has to take over.
        let mut server = scene.world.server(die);
        server.kill();
        server.start();
    }
    thread::sleep(lasts);
    active.remove();
    let released = active.release();
    if released > 0 {
        // So that the answers to what was released are counted.
        thread::sleep(MS(500));
    }
    let counts = active.counts();
    let detail = |name: &str, by: u64| scene.tally.detail(&format!("{kind}: {name}"), by);
    detail("frames delayed", counts.delayed);
    detail("frames held", counts.held);
    detail("released", counts.released);
    detail("released on a fresh connection", counts.released_late);
    detail("connections cut", counts.cut);
    detail("answers dropped", counts.dropped);
    detail("overtaken", counts.overtaken);
    for (code, count) in &counts.answers {
        detail(&format!("late ones answered with error {code}"), *count);
    }
    if counts.faults() > 0 { Became::Done } else { Became::Missed("no frame was touched".to_owned()) }
}

fn rule_of(kind: Kind, die: u64) -> Rule {
    let to = |action: Action, api: Api| Rule::new(action).api(api);
    let ours = |rule: Rule| rule.client_id_prefix("sagamore");
    match kind {
        Kind::ProduceDelayed => to(Action::DelayRequest(MS(50 + die % 1_500)), Api::PRODUCE).every(2),
        Kind::ProduceCutBefore => to(Action::CutBeforeRequest, Api::PRODUCE).every(15),
        Kind::ProduceCutAfter => to(Action::CutAfterRequest, Api::PRODUCE).every(15),
        Kind::ProduceHeld => ours(to(Action::HoldRequestAndCut, Api::PRODUCE).every(25)).times(10),
        // A held request of one kind is overtaken by the next of another on its connection: that is where there are two.
        Kind::RequestsOvertaken => to(Action::LetOvertake(MS(400)), Api::PRODUCE)
            .api(Api::OFFSET_COMMIT)
            .api(Api::HEARTBEAT)
            .every(3),
        Kind::FetchDelayed => to(Action::DelayResponse(MS(100 + die % 2_000)), Api::FETCH).every(2),
        Kind::FetchDropped => to(Action::DropResponse, Api::FETCH).every(20),
        Kind::InitProducerIdDelayed => {
            to(Action::DelayRequest(MS(1_000 + die % 4_000)), Api::INIT_PRODUCER_ID)
        }
        Kind::InitProducerIdDropped => to(Action::DropResponse, Api::INIT_PRODUCER_ID).every(2),
        Kind::EndTxnDelayed => to(Action::DelayRequest(MS(500 + die % 4_000)), Api::END_TXN).every(2),
        Kind::EndTxnDropped => to(Action::DropResponse, Api::END_TXN).every(3),
        Kind::EndTxnCutBefore => to(Action::CutBeforeRequest, Api::END_TXN).every(3),
        // Either the client believes it lost and goes on, or it waits for it.
        Kind::EndTxnHeld if die.is_multiple_of(2) => {
            to(Action::HoldRequestAndCut, Api::END_TXN).every(4).times(6)
        }
        Kind::EndTxnHeld => to(Action::HoldRequest, Api::END_TXN).every(4).times(6),
        other => unreachable!("{other} is none of the network"),
    }
}
