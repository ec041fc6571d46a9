//! The demo's promises, on the embedded broker: every order ends, some for business reasons, the books balance.

use std::path::{Path, PathBuf};

use sagamore::demo::{DemoArgs, DemoError, Report, play};

/// The 830 orders of the Northwind sample; they stay where they are.
fn northwind() -> Option<(PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/northwind");
    let files = (folder.join("orders.jsonl"), folder.join("products.jsonl"));
    (files.0.exists() && files.1.exists()).then_some(files)
}

fn run(args: &DemoArgs) -> Report {
    let report = play(args).expect("a report");
    println!("{}", report.text());
    assert!(report.good);
    assert_eq!(report.unended, 0);
    assert!((5.0..=15.0).contains(&report.undone_percent()), "{}", report.undone_percent());
    let reasons: Vec<_> = report.outcomes.iter().map(|share| share.reason.as_str()).collect();
    for reason in ["", "reserve: out-of-stock", "charge: credit-limit", "ship: no-carrier"] {
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
    report
}

#[test]
fn the_northwind_orders() {
    let Some((orders, products)) = northwind() else {
        eprintln!("skipped: ../shared/data/northwind is not here");
        return;
    };
    let args = DemoArgs { orders: Some(orders), products: Some(products), ..DemoArgs::default() };
    let report = run(&args);
    assert_eq!(report.orders, 830);
}

#[test]
fn the_generated_orders_through_a_crash() {
    let report = run(&DemoArgs { crash: true, ..DemoArgs::default() });
    let crash = report.crash.unwrap();
    assert_eq!((report.orders, crash.shards), (830, 4));
    assert!(crash.in_flight > 0, "{crash:?}");
    let tree = report.timeline.unwrap().tree();
    for part in ["ship (shipping)", "refused no-carrier", "compensate", "outcome compensated"] {
        assert!(tree.contains(part), "{tree}");
    }
}

#[test]
fn more_than_the_embedded_broker_keeps_is_refused() {
    let error = play(&DemoArgs { count: 100_000, ..DemoArgs::default() }).unwrap_err();
    assert!(matches!(error, DemoError::TooMuch(_)), "{error}");
    assert!(error.to_string().contains("--kafka"), "{error}");
}
