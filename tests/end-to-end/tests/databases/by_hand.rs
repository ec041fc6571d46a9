//! What an operator decides by hand before the coordinator has: the same is agreed, the opposite is never papered over.

use std::time::Duration;

use sagamore_end_to_end::stage::{Finished, Stage};
use sagamore_end_to_end::wait;
use serde_json::{Value, json};

use crate::books::run;
use crate::member::Member;
use crate::{postgres, site};

const SOON: Duration = Duration::from_mins(1);

#[test]
fn a_decision_by_hand_against_the_coordinators_is_stuck_until_the_books_are_set_right() {
    let database = postgres();
    run(&database.url(), "CREATE DATABASE other");
    let [url, other] = [database.url(), database.url_of("postgres", "other")];
    let (stage, _servers) = site("by-hand", &["by-hand"]);
    let address = stage.some_address(0);
    let asked = |verb: &[&str], code: i32| {
        let finished = stage.command(&[verb, &["--server", &address, "-o", "json"]].concat());
        assert_eq!(finished.code, code, "{verb:?}: {finished:?}");
        finished.out
    };
    let of_store = |verb: &[&str]| {
        stage.command(
            &[&["participant"], verb, &["--postgres", &url, "--schema", "bank-a", "-o", "json"]].concat(),
        )
    };
    let decide = |verb: &[&str]| {
        let said = [
            "--name",
            "bank-a",
            "--reason",
            "payroll waits for these rows",
            "--actor",
            "anna",
            "--postgres",
            &url,
            "--schema",
            "bank-a",
        ];
        stage.sagamore(&[&["participant", "decide"], verb, &said].concat())
    };

    // One votes; the other one is away, so nothing is decided.
    let mut bank_a = bank(&stage, "bank-a", &url);
    for transaction in ["mixed", "agreed"] {
        let input = json!({"from": format!("f-{transaction}"), "to": "t", "cents": 5}).to_string();
        asked(&["start", "by-hand", "--id", transaction, "--input", &input], 0);
    }
    wait::until(SOON, "both have voted", || {
        let looked = of_store(&["in-doubt"]);
        looked.code == 0 && list(&looked, 0).len() == 2
    });
    let held = list(&of_store(&["in-doubt", "--older-than", "1ms"]), 10);
    for one in &held {
        assert_eq!(
            (&one["held"], &one["step"], &one["branch"]),
            (&json!("prepared"), &json!("move"), &json!("bank-a"))
        );
        assert_eq!(one["definition"], "by-hand@1");
        assert!(one["relations"].as_array().unwrap().contains(&json!("postings")), "{one}");
    }
    list(&of_store(&["in-doubt", "--older-than", "1h"]), 0);

    // An operator decides: once by the participant's own code, and once without the participant.
    assert_eq!(decide(&["abort", "nothing", "move", "bank-a"]).code, 3);
    assert_eq!(decide(&["abort", "mixed", "move", "bank-a"]).code, 0);
    let again = decide(&["commit", "mixed", "move", "bank-a"]);
    assert!(again.code == 4 && again.error.contains("by anna: abort, open"), "{again:?}");
    bank_a.end();
    assert_eq!(decide(&["commit", "agreed", "move", "bank-a", "--prepared"]).code, 0);
    assert!(list(&of_store(&["in-doubt"]), 0).is_empty());
    let kept = list(&of_store(&["heuristics"]), 0);
    assert!(kept.len() == 2 && kept.iter().all(|one| one["standing"] == "open"), "{kept:?}");
    bank_a.restart();

    // The other one votes yes, and the coordinator commits both.
    let mut bank_b = bank(&stage, "bank-b", &other);
    asked(&["wait", "agreed", "--timeout", "50s"], 0);
    asked(&["wait", "mixed", "--timeout", "50s"], 21);
    let seen = asked(&["get", "mixed"], 0);
    assert!(seen.contains("heuristic-mixed"), "{seen}");
    let mixed = list(&of_store(&["heuristics", "--mixed"]), 10);
    let [one] = mixed.as_slice() else { panic!("{mixed:?}") };
    assert_eq!((&one["transaction"], &one["decision"]), (&json!("mixed"), &json!("abort")));
    assert_eq!((&one["decided"]["actor"], &one["standing"]), (&json!("anna"), &json!("mixed")));

    // Asked again it says the same; when the books have been set right, it has committed.
    asked(&["retry", "mixed", "--reason", "again"], 0);
    asked(&["wait", "mixed", "--timeout", "50s"], 21);
    assert_eq!(decide(&["abort", "mixed", "move", "bank-a", "--repaired"]).code, 4);
    assert_eq!(decide(&["commit", "mixed", "move", "bank-a", "--repaired"]).code, 0);
    asked(&["retry", "mixed", "--reason", "posted by hand"], 0);
    asked(&["wait", "mixed", "--timeout", "50s"], 0);
    let kept = list(&of_store(&["heuristics"]), 0);
    let mut standings: Vec<&str> = kept.iter().map(|one| one["standing"].as_str().unwrap()).collect();
    standings.sort_unstable();
    assert_eq!(standings, ["agreed", "repaired"]);
    let counters = &bank_a.end()["counters"];
    assert!(counters["mixed"].as_u64() >= Some(2), "{counters}");
    bank_b.end();
}

fn bank(stage: &Stage, name: &str, url: &str) -> Member {
    Member::new(stage, name, "bank", name, &["--postgres", url, "--votes", "prepared"])
}

fn list(finished: &Finished, code: i32) -> Vec<Value> {
    assert_eq!(finished.code, code, "{finished:?}");
    serde_json::from_str(&finished.out).unwrap()
}
