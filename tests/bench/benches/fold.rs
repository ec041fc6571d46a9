//! Inputs folded a second on one core: `cargo bench -p sagamore-bench --bench fold`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sagamore_bench::inbox::{Inbox, empty_shard};
use sagamore_bench::workload::Workload;

/// Transactions of one inbox, all open at once.
const CROWD: u64 = 5_000;

fn fold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fold");
    group.sample_size(20);
    for (workload, transactions) in [
        (Workload::Order, 30),
        (Workload::Order, CROWD),
        (Workload::TwoPhase, CROWD),
        (Workload::Mixed, CROWD),
        (Workload::Graph, CROWD / 5),
    ] {
        let inbox = Inbox::record(workload, transactions);
        group.throughput(Throughput::Elements(u64::try_from(inbox.inputs()).unwrap_or(u64::MAX)));
        group.bench_function(format!("{} x {transactions}", workload.as_str()), |bencher| {
            bencher.iter_batched(
                empty_shard,
                |mut shard| {
                    inbox.fold(&mut shard);
                    shard
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// What a checkpoint of a crowd costs the thread that folds: its draft, and its records.
fn checkpoint(criterion: &mut Criterion) {
    let inbox = Inbox::record(Workload::Order, CROWD);
    let mut group = criterion.benchmark_group("checkpoint");
    group.sample_size(20);
    group.throughput(Throughput::Elements(CROWD));
    group.bench_function("all ended", |bencher| {
        bencher.iter_batched(
            || {
                let mut shard = empty_shard();
                inbox.fold(&mut shard);
                shard
            },
            |mut shard| {
                let draft = shard.draft(0).expect("something was applied");
                (shard.complete(draft, &[]), shard)
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, fold, checkpoint);
criterion_main!(benches);
