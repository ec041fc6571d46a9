//! A step starts another definition: its parent and it agree in the end, whatever is killed in between. Every errand moves
//! an amount of its own, so the banks' journals of effects say what has become of it without any id of ours.

use std::collections::BTreeMap;
use std::time::Duration;

use sagamore_end_to_end::load::{order, start_record};
use sagamore_end_to_end::random::Random;
use sagamore_end_to_end::stage::{Server, Stage};
use sagamore_end_to_end::{http, topics, wait};
use serde_json::{Value, json};

use crate::stage;

const ERRANDS: usize = 60;
const KILLS: usize = 3;
const ENDED_WITHIN: Duration = Duration::from_mins(2);

#[test]
fn children_end_with_their_parent() {
    let stage = stage("children");
    let mut random = Random::seeded("children_end_with_their_parent");
    let mut servers = [stage.server(1), stage.server(2)];
    stage.wait_running(&[&servers[0], &servers[1]]);
    let folder = format!("{}/definitions", env!("CARGO_MANIFEST_DIR"));
    let too_early = stage.must(&["define", "apply", &format!("{folder}/errand.yaml")], 10);
    assert!(too_early.error.contains("there is no transfer@1"), "{}", too_early.error);
    for name in ["transfer-back", "transfer", "courier", "errand"] {
        stage.define(name);
    }
    let _participants = [
        stage.participant_as("payment", "payment", &["--refuse-percent", "10", "--seed", "3"]),
        stage.participant_as("bank", "bank-a", &["--fail-percent", "5"]),
        stage.participant_as("bank", "bank-b", &["--fail-percent", "5"]),
        stage.participant_as("shipping", "shipping", &["--refuse-percent", "25", "--seed", "5"]),
        stage.participant_as("shipping", "courier", &["--fail-percent", "5"]),
    ];
    start_all(&stage);
    for kill in 0..KILLS {
        let goal = ERRANDS * (kill + 1) / (KILLS + 2);
        wait::until(ENDED_WITHIN, "the next kill", || outcomes(&stage).len() >= goal);
        servers[usize::from(random.within(0..2) == 1)].kill_and_restart();
    }
    wait::until(ENDED_WITHIN, "every errand has ended", || outcomes(&stage).len() == ERRANDS);
    wait::until(ENDED_WITHIN, "no ended child is kept", || nothing_is_open(&servers[0]));
    judge(&stage);
}

fn start_all(stage: &Stage) {
    let producer = topics::producer(stage.bootstrap());
    let inbox = stage.topic("inbox");
    for number in 0..ERRANDS {
        let (id, mut input) = (format!("errand-{number}"), order(u64::try_from(number).unwrap()));
        input["total_cents"] = json!(1_000 + number);
        let record = start_record(&id, "errand", &input, &jiff::Timestamp::now().to_string());
        let written = topics::write(&producer, &inbox, None, Some(id.as_bytes()), Some(record.as_bytes()));
        http::RUNTIME.block_on(written).unwrap();
    }
}

/// Final outcomes of errands, by id.
fn outcomes(stage: &Stage) -> BTreeMap<String, String> {
    let told = topics::read_all(stage.bootstrap(), &stage.topic("outcomes"));
    let told = told.iter().map(topics::Seen::json);
    let text = |told: &Value, name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let ended =
        told.filter(|told| text(told, "subject").starts_with("errand-") && text(told, "outcome") != "stuck");
    let mut ended_as = BTreeMap::new();
    for told in ended {
        let (id, outcome) = (text(&told, "subject"), text(&told, "outcome"));
        let before = ended_as.insert(id.clone(), outcome.clone());
        assert!(before.is_none_or(|before| before == outcome), "{id} told two things");
    }
    ended_as
}

fn nothing_is_open(server: &Server) -> bool {
    server.get("/v1/definitions").is_ok_and(|told| told.body["open"] == json!({}))
}

fn judge(stage: &Stage) {
    let ended = outcomes(stage);
    let mut effects: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for effect in stage.effects() {
        let key = effect["key"].as_str().unwrap_or_default();
        let step = key.rsplit('/').nth(1).unwrap_or_default().to_owned();
        let sign = if effect["operation"] == "compensate" { -1 } else { 1 };
        *effects.entry((step, effect["amount"].as_i64().unwrap_or_default())).or_default() += sign;
    }
    let stands = |step: &str, cents: i64| effects.get(&(step.to_owned(), cents)).copied().unwrap_or_default();
    let mut of: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..ERRANDS {
        let id = format!("errand-{number}");
        let outcome = ended[&id].as_str();
        *of.entry(outcome).or_default() += 1;
        let cents = 1_000 + i64::try_from(number).unwrap();
        let moved = [
            stands("debit", cents) - stands("credit-back", cents),
            stands("credit", cents) - stands("debit-back", cents),
        ];
        let expected = i64::from(outcome == "committed");
        assert_eq!(moved, [expected; 2], "{id} {outcome}: {effects:?}");
    }
    println!("{ERRANDS} errands: {of:?}; {} effects", effects.len());
    let brought: i64 = effects.iter().filter(|((step, _), _)| step == "bring").map(|(_, count)| count).sum();
    assert_eq!(usize::try_from(brought).unwrap(), of["committed"], "what is retriable follows the decision");
    assert!(of["committed"] > 20 && of.len() >= 2, "{of:?}");
    let undone = effects.keys().filter(|(step, _)| step == "credit-back").count();
    assert!(undone > 0, "no committed child was undone");
    let letters = stage.dead_letters();
    assert!(letters.is_empty(), "{letters:?}");
}
