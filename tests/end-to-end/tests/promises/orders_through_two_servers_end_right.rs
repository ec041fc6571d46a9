//! An order saga with 10 % refusals, through two servers: each order ends once, its effects as decided, and either
//! server starts and tells any order.

use sagamore_end_to_end::load::Load;
use sagamore_end_to_end::stage::Server;
use sagamore_end_to_end::wait;

use crate::{AT_A_TIME, assert_known_everywhere, stage, two_servers};

const ORDERS: u64 = 420;

#[test]
fn orders_through_two_servers_end_right() {
    let stage = stage("two-servers");
    let (servers, _participants) = two_servers(&stage);
    let owned = servers.each_ref().map(|server| server.running().len());
    assert!(owned.iter().all(|count| *count > 0), "both have shards: {owned:?}");
    let intents = Load::begin(&stage, "order", "order", AT_A_TIME, ORDERS).finish();
    let tally = stage.judge(&intents);
    assert_eq!(tally.orders() as u64, ORDERS);
    let refused = tally.of("compensated") + tally.of("aborted");
    assert!((21..=84).contains(&refused), "one in ten, 5 to 20 % here: {tally}");
    assert!(tally.of("compensated") > 0 && tally.of("aborted") > 0, "early and late refusals: {tally}");
    assert!(tally.told as u64 > ORDERS / 4, "told to those who waited: {tally}");
    assert_known_everywhere(&stage, &intents, 2);
    assert_measured(&servers, ORDERS);
}

/// Each end is counted once, by the server that had it, and each answer of a participant.
#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
fn assert_measured(servers: &[Server], orders: u64) {
    let sum = |name: &str| -> f64 {
        let lines = servers.iter().filter_map(|server| server.get("/metrics").ok()).flat_map(|answer| {
            let told = answer.body.as_str().unwrap_or_default().to_owned();
            told.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect::<Vec<_>>()
        });
        lines.filter_map(|line| line.split(' ').next_back()?.parse::<f64>().ok()).sum()
    };
    let within = std::time::Duration::from_secs(20);
    wait::until(within, "the last ends are counted", || {
        sum("sagamore_transaction_seconds_count{definition=\"order\"").to_bits() == (orders as f64).to_bits()
    });
    let charged = sum("sagamore_step_seconds_count{participant=\"payment\",operation=\"execute\"");
    assert!(charged > orders as f64 * 0.9 && charged <= orders as f64, "{charged}");
}
