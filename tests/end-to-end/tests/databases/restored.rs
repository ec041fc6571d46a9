//! A database that was restored from an old copy is found out before anything is answered from it; and what it has forgotten
//! can be done again, once.

use std::time::Duration;

use sagamore_end_to_end::stage::Stage;
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::books::run;
use crate::member::Member;
use crate::{postgres, site};

const SOON: Duration = Duration::from_mins(1);

#[test]
fn a_restored_copy_stops_and_what_it_has_forgotten_is_taken_again() {
    let server = postgres();
    run(&server.url(), "CREATE DATABASE first");
    let (stage, _servers) = site("restored", &["restored"]);
    let url = |database: &str| server.url_of("postgres", database);
    let file = |name: &str| stage.folder().join(format!("{name}.sqlite")).display().to_string();
    let members = |name: &str| {
        let [url, file] = [url(name), file(name)];
        [
            replica(&stage, "replica-a", &["--postgres", &url]),
            replica(&stage, "replica-b", &["--sqlite", &file]),
        ]
    };
    let copy = |from: &str, to: &str| {
        run(&server.url(), &format!("CREATE DATABASE {to} TEMPLATE {from}"));
        std::fs::copy(file(from), file(to)).unwrap();
    };
    let look = |store: &[&str], verb: &[&str], name: &str| {
        stage.sagamore(&[&["participant"], verb, &["--name", name], store, &["-o", "json"]].concat())
    };

    let mut at_work = members("first");
    for number in 0..3 {
        change(&stage, number);
    }
    for member in &mut at_work {
        member.end();
    }
    copy("first", "backup");
    let mut at_work = members("first");
    for number in 3..7 {
        change(&stage, number);
    }
    for member in &mut at_work {
        member.end();
    }

    // Restored, neither of them takes a single command.
    copy("backup", "restored");
    let places = [url("restored"), file("restored")];
    let stores: [&[&str]; 2] =
        [&["--postgres", &places[0], "--schema", "replica-a"], &["--sqlite", &places[1]]];
    let names = ["replica-a", "replica-b"];
    for (mut member, (store, name)) in members("restored").into_iter().zip(stores.iter().zip(names)) {
        let log = member.ends_with(10);
        assert!(log.contains("SAG-101") && log.contains("sagamore participant rewind"), "{log}");
        let looked = look(store, &["positions"], name);
        assert_eq!(looked.code, 10, "{looked:?}");
        let found: Vec<Value> = serde_json::from_str(&looked.out).unwrap();
        // A `prepare` and a `commit` for each of four changes.
        let forgotten: i64 = found.iter().map(|one| one["forgotten"].as_i64().unwrap()).sum();
        assert_eq!(forgotten, 8, "{found:?}");
    }

    // All commands since the copy are taken again.
    for (store, name) in stores.iter().zip(names) {
        let rewound = look(store, &["rewind"], name);
        assert_eq!(rewound.code, 0, "{rewound:?}");
        assert_eq!(look(store, &["positions"], name).code, 0);
    }
    let mut at_work = members("restored");
    let places = [url("first"), url("restored"), file("first"), file("restored")];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    wait::until(SOON, "the effects are there again", || {
        let compared =
            stage.command(&[&["participant", "compare", "-o", "json"], places.as_slice()].concat());
        compared.code == 0 && compared.out.contains("\"rows\": 7")
    });
    change(&stage, 7);
    let running = look(stores[0], &["rewind"], names[0]);
    assert_eq!(running.code, 0, "nothing is forgotten, and nothing is done: {running:?}");
    for member in &mut at_work {
        let counters = &member.end()["counters"];
        // Four changes again, and one more.
        assert_eq!(counters["effects"], 10, "{counters}");
    }

    // A lost database is found out as well, and may be accepted.
    run(&server.url(), "CREATE DATABASE lost");
    let mut lost = replica(&stage, "replica-a", &["--postgres", &url("lost")]);
    assert!(lost.ends_with(10).contains("SAG-101"));
    let lost_url = url("lost");
    let lost_store = ["--postgres", &lost_url, "--schema", "replica-a"];
    assert_eq!(look(&lost_store, &["accept"], "replica-a").code, 0);
    lost.restart();
    wait::until(SOON, "it is taken for the right one", || {
        look(&lost_store, &["positions"], "replica-a").code == 0
    });
    lost.end();
}

fn replica(stage: &Stage, name: &str, lives: &[&str]) -> Member {
    Member::new(stage, name, "replica", name, lives)
}

/// Each of a row of its own: between keys there is no order, and taken again they may come in another one.
fn change(stage: &Stage, number: i64) {
    let input = json!({"row": format!("row-{number}"), "from": 0, "value": {"by": number}}).to_string();
    let (id, address) = (format!("change-{number}"), stage.some_address(0));
    let start = [
        "start",
        "restored",
        "--id",
        &id,
        "--input",
        &input,
        "--wait",
        "--timeout",
        "50s",
        "--server",
        &address,
    ];
    let finished = stage.command(&start);
    assert_eq!(finished.code, 0, "{finished:?}");
}
