//! A guard against regressions that no noisy machine can move: what an order saga allocates on its way through the
//! fold. A change that needs more than a tenth more fails here; one that needs less lowers the stored numbers.

use allocation_counter::{AllocationInfo, measure};
use sagamore_bench::inbox::{Inbox, empty_shard};
use sagamore_bench::workload::Workload;

const TRANSACTIONS: u64 = 3_000;

/// What one transaction allocated in the fold when the numbers were last stored.
struct Stored {
    workload: Workload,
    allocations: u64,
    bytes: u64,
}

const STORED: [Stored; 3] = [
    Stored { workload: Workload::Order, allocations: 34, bytes: 7_697 },
    Stored { workload: Workload::TwoPhase, allocations: 85, bytes: 16_704 },
    Stored { workload: Workload::Graph, allocations: 140, bytes: 39_447 },
];

fn fold(workload: Workload) -> AllocationInfo {
    let inbox = Inbox::record(workload, TRANSACTIONS);
    let mut shard = empty_shard();
    let info = measure(|| {
        inbox.fold(&mut shard);
    });
    assert_eq!(shard.open_count(), 0);
    info
}

#[test]
fn a_transaction_allocates_no_more_than_it_did() {
    let mut wrong = Vec::new();
    for Stored { workload, allocations, bytes } in STORED {
        let info = fold(workload);
        for (what, now, stored) in [
            ("allocations", info.count_total / TRANSACTIONS, allocations),
            ("bytes allocated", info.bytes_total / TRANSACTIONS, bytes),
        ] {
            let name = workload.as_str();
            println!("{name}: {now} {what} a transaction, {stored} stored");
            if now > stored + stored / 10 {
                wrong.push(format!("{name}: {now} {what} a transaction, {stored} stored"));
            }
        }
    }
    assert!(wrong.is_empty(), "more than a tenth more than it was:\n{}", wrong.join("\n"));
}

/// What an open order kept allocated in the fold, as of a checkpoint, when the number was last stored. A tenth more is 1.5 KiB.
const KEPT_STORED: i64 = 1_355;

#[test]
fn an_open_transaction_keeps_no_more_than_it_did() {
    let inbox = Inbox::record(Workload::Order, TRANSACTIONS);
    let mut shard = empty_shard();
    let info = measure(|| {
        inbox.fold_starts(&mut shard);
        let draft = shard.draft(0).expect("something was applied");
        drop(shard.complete(draft, &[]));
    });
    assert_eq!(u64::try_from(shard.open_count()), Ok(TRANSACTIONS));
    let each = info.bytes_current / i64::try_from(TRANSACTIONS).expect("a small number");
    println!("{each} bytes an open transaction, {KEPT_STORED} stored");
    assert!(each <= KEPT_STORED + KEPT_STORED / 10, "{each}, {KEPT_STORED} stored");
}

#[test]
fn the_count_is_the_same_every_time() {
    let [first, second] = [fold(Workload::Order), fold(Workload::Order)];
    let spread = first.count_total.abs_diff(second.count_total);
    assert!(spread * 100 < first.count_total, "{} and {}", first.count_total, second.count_total);
}
