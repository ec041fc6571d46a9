//! The demo, with its crash half way through, on a real Kafka: the exit code says that the books balance.

use std::path::Path;

use sagamore_end_to_end::KAFKA;
use sagamore_end_to_end::stage::Stage;

use crate::PROGRAM;

#[test]
fn the_demo_balances_on_a_real_kafka() {
    let stage = Stage::bare(KAFKA.bootstrap(), PROGRAM, "demo");
    let finished = stage.command(&["demo", "--crash", "--kafka", KAFKA.bootstrap()]);
    println!("{}", finished.out);
    assert_eq!(finished.code, 0, "{finished:?}");
}

#[test]
fn the_demo_balances_with_the_orders_of_northwind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/northwind");
    if !folder.join("orders.jsonl").is_file() {
        println!("skipped: there are no orders in ../shared/data/northwind");
        return;
    }
    let [orders, products] =
        ["orders.jsonl", "products.jsonl"].map(|file| folder.join(file).display().to_string());
    let stage = Stage::bare(KAFKA.bootstrap(), PROGRAM, "northwind");
    let files = ["--orders", &orders, "--products", &products];
    let finished = stage.command(&[&["demo", "--kafka", KAFKA.bootstrap()][..], &files].concat());
    println!("{}", finished.out);
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.out.contains("830"), "all of them: {finished:?}");
}
