//! An order saga with 10 % refusals, through two servers: each order ends once, its effects as decided, and either
//! server starts and tells any order.

use sagamore_end_to_end::load::Load;

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
}
