//! Orders through the three examples, every command twice: units, cents and parcels add up, and the journal of
//! effects agrees with the books.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU16;
use std::path::Path;

use sagamore_examples::inventory::{Inventory, Product, Restock, Warehouse, read_products, sample_products};
use sagamore_examples::payment::{Accounts, CREDIT_LIMIT_CENTS_DEFAULT, Payment};
use sagamore_examples::shipping::{Dispatch, REFUSED_COUNTRIES_DEFAULT, Shipping};
use sagamore_examples::{Books, Injection, Kind, Ledger, Settings, run};
use sagamore_kafka::embedded::EmbeddedBroker;
use sagamore_participant::memory::MemoryStore;
use sagamore_participant::perform::perform;
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_participant::{Operation, Participant};
use sagamore_schemas::ids::Time;
use sagamore_schemas::topics::Prefix;
use sagamore_schemas::wire::{Address, Answer, Command, Payload};
use serde_json::{Value, json};
use uuid::Uuid;

/// A participant in its store, without Kafka.
struct Desk<P: Participant>(P, P::Store);

impl<P: Participant> Desk<P> {
    /// Asks twice, as a nervous coordinator would; returns the first answer that is not technical.
    fn ask(&self, order: &str, operation: Operation, data: &Value) -> Result<(), String> {
        let data = Payload::from_json(data.to_string()).expect("JSON");
        let mut answers = (1..=4).map(|attempt| {
            let command = Command {
                address: Address {
                    subject: order.parse().expect("an id"),
                    birth: "0-7".parse().expect("a birth"),
                    step: "step".into(),
                    branch: "branch".into(),
                    operation,
                    attempt,
                },
                instance: Uuid::nil(),
                issued: Time::from_epoch_ms(10),
                watermark: Time::from_epoch_ms(1),
                deadline: Time::MAX,
                definition: "order@1".into(),
                replyto: "sagamore.inbox/0".into(),
                traceparent: None,
                replytoken: None,
                unilateral_after: None,
                data: data.as_ref(),
            };
            if let Err(fault) = self.0.before(&command) {
                return (Answer::Error, fault.reason().to_owned());
            }
            let mut session = self.1.session().expect("a session");
            let mut tx = self.1.begin(&mut session).expect("begun");
            let answered = perform(&self.0, &mut tx, &command).expect("performed");
            tx.commit().expect("committed");
            (answered.outcome, answered.reason.unwrap_or_default().into_owned())
        });
        let first = answers.find(|(outcome, _)| *outcome != Answer::Error).expect("an answer");
        assert_eq!(answers.next().unwrap_or_else(|| first.clone()), first);
        match first {
            (Answer::Ok, _) => Ok(()),
            (_, reason) => Err(reason),
        }
    }
}

/// Runs the orders; returns how they ended, by the first word of the reason, and the books.
fn sell(
    products: &[Product],
    orders: &[Value],
    injection: &Injection,
    journal: &Path,
) -> (BTreeMap<String, usize>, [Books; 3]) {
    let ledger = || Ledger::new(Some(journal)).expect("a journal");
    let injection = || injection.clone();
    let inventory = Desk(
        Inventory { injection: injection() },
        MemoryStore::new(Warehouse::new(products, Restock::default(), ledger())),
    );
    let payment = Desk(
        Payment { injection: injection() },
        MemoryStore::new(Accounts::new(CREDIT_LIMIT_CENTS_DEFAULT, ledger())),
    );
    let countries = REFUSED_COUNTRIES_DEFAULT.map(str::to_owned);
    let shipping =
        Desk(Shipping { injection: injection() }, MemoryStore::new(Dispatch::new(countries, ledger())));
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for order in orders {
        let id = format!("order-{}", order["order"]);
        let lines = json!({"order": order["order"], "lines": order["lines"]});
        let charge = json!({"customer": order["customer"], "amount_cents": order["total_cents"]});
        let parcel = json!({"order": order["order"], "country": order["ship_country"]});
        let end = inventory
            .ask(&id, Operation::Execute, &lines)
            .and_then(|()| payment.ask(&id, Operation::Execute, &charge))
            .and_then(|()| shipping.ask(&id, Operation::Execute, &parcel));
        if end.is_err() {
            // Whatever is not known to have been done is undone all the same.
            for undone in [
                shipping.ask(&id, Operation::Compensate, &json!({"input": parcel})),
                payment.ask(&id, Operation::Compensate, &json!({"input": charge})),
                inventory.ask(&id, Operation::Compensate, &json!({"input": lines})),
            ] {
                assert_eq!(undone, Ok(()));
            }
        }
        let word =
            end.map_or_else(|why| why.split(':').next().unwrap_or_default().to_owned(), |()| "ok".into());
        *ends.entry(word).or_default() += 1;
    }
    let books = [
        inventory.1.read(Warehouse::books),
        payment.1.read(Accounts::books),
        shipping.1.read(Dispatch::books),
    ];
    (ends, books)
}

fn check_books(books: &[Books; 3], ends: &BTreeMap<String, usize>, journal: &Path) {
    let served = *ends.get("ok").expect("some are served") as u64;
    let journal = fs::read_to_string(journal).expect("a journal");
    for book in books {
        assert!(book.balance(), "{book:?}");
        assert_eq!(book.effects - book.undone, served, "{book:?}");
        let (mut taken, mut returned, mut lines) = (0, 0, 0);
        for line in journal.lines() {
            let entry: Value = serde_json::from_str(line).expect("a line of JSON");
            if entry["participant"] == book.participant {
                lines += 1;
                let amount = entry["amount"].as_u64().expect("an amount");
                if entry["effect"] == "applied" { taken += amount } else { returned += amount }
            }
        }
        assert_eq!((taken, returned, lines), (book.taken, book.returned, book.effects + book.undone));
    }
}

#[test]
fn with_orders_of_our_own_and_failures_on_demand() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = directory.path().join("effects.jsonl");
    let countries = ["Germany", "USA", "Brazil", "France", "Norway"];
    let orders: Vec<Value> = (0..500_u64)
        .map(|order| {
            json!({
                "order": order, "customer": format!("C{}", order % 89),
                "ship_country": countries[usize::try_from(order % 5).expect("small")], "total_cents": 500 + order * 331 % 200_000,
                "lines": [{"product": 1 + order % 77, "quantity": 1 + order % 30},
                          {"product": 1 + order * 7 % 77, "quantity": 1 + order % 11}],
            })
        })
        .collect();
    let injection = Injection { seed: 42, refuse_percent: 5, fail_percent: 20, ..Injection::default() };
    let (ends, books) = sell(&sample_products(), &orders, &injection, &journal);
    assert!(ends["injected-refusal"] > 20 && ends["no-carrier"] > 50, "{ends:?}");
    check_books(&books, &ends, &journal);
    assert!(books[0].undone > 0 && books[1].undone > 0, "{books:?}");
}

#[test]
fn with_the_orders_of_the_sample() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/northwind");
    let (Ok(orders), Ok(products)) =
        (fs::read_to_string(sample.join("orders.jsonl")), fs::read(sample.join("products.jsonl")))
    else {
        return eprintln!("skipped: no {}", sample.display());
    };
    let orders: Vec<Value> =
        orders.lines().map(|line| serde_json::from_str(line).expect("an order")).collect();
    let products = read_products(products.as_slice()).expect("products");
    let directory = tempfile::tempdir().expect("a directory");
    let journal = directory.path().join("effects.jsonl");
    let (ends, books) = sell(&products, &orders, &Injection::default(), &journal);
    eprintln!("{ends:?}");
    check_books(&books, &ends, &journal);
    let undone = orders.len() - ends["ok"];
    assert!((orders.len() * 5 / 100..orders.len() * 15 / 100).contains(&undone), "{ends:?}");
    assert_eq!(ends.len(), 4, "each reason occurs: {ends:?}");
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let products = [Product { product: 1, units_in_stock: 1000, reorder_level: 0 }];
    let warehouse = Warehouse::new(&products, Restock::default(), Ledger::default());
    let inventory = Desk(Inventory { injection: Injection::default() }, MemoryStore::new(warehouse));
    let mut number = 0;
    let mut refused = |data: &Value| {
        number += 1;
        inventory.ask(&format!("order-{number}"), Operation::Execute, data).expect_err("refused")
    };
    assert_eq!(refused(&json!({"lines": []})), "bad-input: an order has at least one line");
    assert_eq!(
        refused(&json!({"lines": [{"product": 1, "quantity": 0}]})),
        "bad-input: 0 units of product 1"
    );
    assert_eq!(refused(&json!({"lines": [{"product": 2, "quantity": 1}]})), "unknown-product: 2");
    assert_eq!(
        refused(&json!({"lines": [{"product": 1, "quantity": 600}, {"product": 1, "quantity": 401}]})),
        "out-of-stock: product 1"
    );
    assert!(refused(&json!({"lines": [{"product": 1, "quantity": -1}]})).starts_with("bad-input: "));
    assert!(refused(&json!("lines")).starts_with("bad-input: "));
    assert!(inventory.1.read(Warehouse::books).balance());
}

#[test]
fn each_runs_and_stops() {
    let broker = EmbeddedBroker::start().expect("starts");
    let prefix = Prefix::default();
    broker.create_all_topics(&prefix, NonZeroU16::MIN, &Kind::OF_AN_ORDER.map(Kind::name)).expect("topics");
    for kind in Kind::OF_AN_ORDER {
        let clients = broker.client_settings().expect("settings");
        let runtime = sagamore_participant::Settings::new(clients, prefix.clone(), kind.name());
        let settings = Settings::new(runtime);
        let (books, _) = run(kind, &settings, |_| {}).expect("runs");
        assert!(books.balance(), "{books:?}");
        assert_eq!(books.participant, kind.as_str());
    }
}
