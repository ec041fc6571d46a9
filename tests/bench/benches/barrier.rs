//! Commands through the barrier a second on one core: `cargo bench -p sagamore-bench --bench barrier`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sagamore_participant::barrier::{Row, Stored, decide};
use sagamore_participant::memory::{MemoryStore, Table};
use sagamore_participant::perform::perform;
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_participant::{Command, Effect, Fault, Operation, Participant, Payload};
use sagamore_schemas::ids::{Birth, Partition, Time};
use sagamore_schemas::wire::Address;
use uuid::Uuid;

const NOW_MS: i64 = 1_767_225_600_000;
/// Commands in one local transaction, as many as a runtime takes at a time.
const BATCH: i64 = 500;

struct Yes;

impl Participant for Yes {
    type Store = MemoryStore<Table<u64, ()>>;

    fn execute(&self, _: &mut Table<u64, ()>, _: &Command<'_>) -> Result<Effect, Fault> {
        Ok(Effect::Done(Payload::Absent))
    }

    fn compensate(&self, _: &mut Table<u64, ()>, _: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Ok(())
    }
}

fn command(number: i64) -> Command<'static> {
    let now = Time::from_epoch_ms(NOW_MS);
    Command {
        address: Address {
            subject: format!("r1-{number}").parse().expect("an id"),
            birth: Birth { partition: Partition(0), offset: number },
            step: "reserve".into(),
            branch: "reserve".into(),
            operation: Operation::Execute,
            attempt: 1,
        },
        instance: Uuid::from_u128(7),
        issued: now,
        watermark: now,
        deadline: now,
        definition: "order@1".into(),
        replyto: "sagamore.inbox/0".into(),
        traceparent: None,
        replytoken: None,
        unilateral_after: None,
        data: Payload::Absent.as_ref(),
    }
}

fn run(store: &MemoryStore<Table<u64, ()>>, commands: &[Command<'_>]) {
    store.session().expect("memory");
    let mut session = ();
    let mut tx = store.begin(&mut session).expect("memory");
    for command in commands {
        black_box(perform(&Yes, &mut tx, command).expect("memory"));
    }
    tx.commit().expect("memory");
}

fn barrier(criterion: &mut Criterion) {
    let now = Time::from_epoch_ms(NOW_MS);
    let rows = [Row { operation: Operation::Execute, issued: now, answer: Stored::Done(Payload::Absent) }];
    let mut group = criterion.benchmark_group("barrier");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decide", |bencher| {
        bencher.iter(|| {
            black_box(decide(black_box(Operation::Compensate), now, black_box(&rows), now));
        });
    });
    let commands: Vec<Command<'static>> = (0..BATCH).map(command).collect();
    group.throughput(Throughput::Elements(BATCH.unsigned_abs()));
    group.bench_function("first time", |bencher| {
        bencher.iter_batched(
            || MemoryStore::new(Table::default()),
            |store| {
                run(&store, &commands);
                store
            },
            BatchSize::LargeInput,
        );
    });
    let store = MemoryStore::new(Table::default());
    run(&store, &commands);
    group.bench_function("repeated", |bencher| bencher.iter(|| run(&store, &commands)));
    group.finish();
}

criterion_group!(benches, barrier);
criterion_main!(benches);
