//! Relays between a real PostgreSQL and a real Kafka: what leaves, what never leaves, and what comes.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without fails it here")]

mod site;

use std::time::Duration;

use serde_json::Value;
use site::{Site, until};

#[test]
fn rows_leave_in_order_and_those_that_cannot_stand_aside() {
    let mut site = Site::new();
    site.topic("shop.event.order", 2);
    let insert = |kind: &str, id: &str, payload: &str| {
        format!(
            "INSERT INTO sagamore.outbox (aggregatetype, aggregateid, type, payload) VALUES ('{kind}', '{id}', 'E', {payload});"
        )
    };
    let mut rows = String::new();
    rows += &insert("nowhere", "1", "'{}'");
    rows += &insert("order", "1", "to_jsonb(repeat('x', 2100000))");
    rows += &insert("inbox", "1", r#"'{"type": "order.placed"}'"#);
    rows += &insert("o r d e r", "1", "'{}'");
    for number in 0..2_500 {
        rows += &insert("order", &format!("o{}", number % 7), &format!("'{number}'"));
    }
    rows += &insert("order", "o0", "NULL");
    site.sql(&rows);
    let relay = site.relay(&[], |settings| settings.route = "shop.event".into());
    until("all have left", || site.number("SELECT count(*) FROM sagamore.outbox") == 0);
    let records = site.read("shop.event.order", 2_501);
    for key in 0..7 {
        let of_key: Vec<Option<&String>> = records
            .iter()
            .filter(|record| record.key == format!("o{key}"))
            .map(|record| record.value.as_ref())
            .collect();
        let numbers: Vec<i64> = of_key.iter().flatten().map(|value| value.parse().unwrap()).collect();
        assert_eq!(numbers, (0..2_500).filter(|number| number % 7 == key).collect::<Vec<_>>());
        assert_eq!(of_key.last().unwrap().is_none(), key == 0, "no payload is a tombstone");
    }
    assert!(records.iter().all(|record| record.id.as_ref().is_some_and(|id| id.len() == 36)));
    let causes = site.texts("SELECT cause FROM sagamore.outbox_refused ORDER BY seq");
    let expected =
        ["there is no topic `shop.event.nowhere`", "2100002 bytes", "no record for an inbox", "not the name"];
    assert_eq!(causes.len(), expected.len(), "{causes:?}");
    assert!(causes.iter().zip(expected).all(|(cause, part)| cause.contains(part)), "{causes:?}");

    // The operator makes the topic, and puts the row back.
    site.topic("shop.event.later", 1);
    site.sql("UPDATE sagamore.outbox_refused SET aggregatetype = 'later' WHERE aggregatetype = 'nowhere'");
    site.sql("SELECT sagamore.again(seq) FROM sagamore.outbox_refused WHERE aggregatetype = 'later'");
    assert_eq!(site.read("shop.event.later", 1)[0].value.as_deref(), Some("{}"));
    relay.stop();
    let counters = relay.join().unwrap();
    assert_eq!((counters.sent, counters.refused), (2_502, 4));
}

#[test]
fn a_start_that_waited_long_is_stamped_when_it_leaves_and_only_once() {
    let mut site = Site::new();
    let time_of = |record: &str| -> Value { serde_json::from_str::<Value>(record).unwrap()["time"].clone() };
    site.sql("SELECT sagamore.start('waited', 'order')");
    site.sql("SELECT sagamore.start('said', 'order', NULL, now() - interval '3 days')");
    site.sql(
        "UPDATE sagamore.outbox SET payload = jsonb_set(payload, '{time}', '\"2020-01-01T00:00:00.000Z\"') WHERE stamps",
    );
    let relay = site.relay(&[], |_| ());
    let inbox = site.inbox();
    let records = site.read(&inbox, 2);
    let by_key = |key: &str| records.iter().find(|record| record.key == key).unwrap().value.clone().unwrap();
    let stamped = by_key("waited");
    assert_ne!(time_of(&stamped), "2020-01-01T00:00:00.000Z", "coordinators refuse what is so old");
    assert_eq!(Site::home("waited"), records.iter().find(|record| record.key == "waited").unwrap().partition);
    let said = time_of(&by_key("said"));
    relay.stop();
    relay.join().unwrap();

    // A former relay has sent one start an hour ago, died before it sent another, and nobody deleted them.
    let former = |id: &str, payload: &str| {
        format!(
            "INSERT INTO sagamore.outbox (aggregatetype, aggregateid, type, payload, stamps, handed_at)
             VALUES ('inbox', '{id}', 'sagamore.start.v1', '{payload}', true, now() - interval '1 hour');"
        )
    };
    let lost = stamped.replace("waited", "lost");
    site.sql(&(former("waited", &stamped) + &former("lost", &lost)));
    let relay = site.relay(&[], |_| ());
    until("both are gone", || site.number("SELECT count(*) FROM sagamore.outbox") == 0);
    relay.stop();
    let counters = relay.join().unwrap();
    assert_eq!((counters.found, counters.sent), (1, 1), "{counters:?}");
    let records = site.read(&inbox, 3);
    let sent: Vec<_> = records.iter().map(|record| record.key.as_str()).collect();
    assert!(sent.contains(&"lost"), "{sent:?}: `waited` is not there twice");
    let again = records.iter().find(|record| record.key == "lost").unwrap();
    assert_ne!(
        time_of(again.value.as_ref().unwrap()),
        time_of(&lost),
        "stamped anew, for it had not arrived"
    );
    assert_ne!(said, "", "what the service says is not touched");
    assert!(time_of(&by_key("said")).as_str().unwrap() < time_of(&stamped).as_str().unwrap());
}

#[test]
fn commands_come_once_are_remembered_and_purged_behind_the_watermark() {
    let mut site = Site::new();
    site.command_topic("stock");
    let participants = ["stock"];
    let first = site.relay(&participants, |_| ());
    for number in 0..20 {
        site.command("stock", &format!("t{number}"), number, "execute", "16:00:00", "15:00:00");
    }
    until("all are there", || site.number("SELECT count(*) FROM sagamore.todo") == 20);
    first.stop();
    assert_eq!(first.join().unwrap().opened, 20);
    // The next one goes on where the first has ended.
    let second = site.relay(&participants, |_| ());
    site.sql(
        "DO $$ DECLARE n BIGINT; BEGIN LOOP
        SELECT number INTO n FROM sagamore.take('stock'); EXIT WHEN n IS NULL;
        PERFORM sagamore.reply(n, 'ok', '{\"place\": 1}'); END LOOP; END $$",
    );
    let inbox = site.inbox();
    let replies = site.read(&inbox, 20);
    assert!(replies.iter().all(|reply| reply.partition == Site::home(&reply.key)));
    site.command("stock", "t3", 3, "execute", "16:00:00", "15:00:00");
    let repeated = site.read(&inbox, 21).pop().unwrap().value.unwrap();
    assert!(repeated.contains(r#""place": 1"#), "{repeated}");
    // One open, and a watermark behind all the others.
    site.command("stock", "open", 30, "execute", "16:30:00", "16:15:00");
    for number in 0..2 {
        site.command("stock", &format!("late{number}"), 40 + number, "execute", "16:30:00", "16:15:00");
    }
    until("they are open", || site.number("SELECT count(*) FROM sagamore.todo") == 3);
    until("what is old is gone, home by home", || {
        site.number(
            "SELECT count(*) FROM sagamore.commands c JOIN sagamore.horizon h USING (instance, home)
            WHERE c.issued_ms < h.horizon_ms",
        ) == 0
    });
    assert!(site.number("SELECT count(*) FROM sagamore.commands") < 23, "something was old");
    assert_eq!(site.number("SELECT count(*) FROM sagamore.todo"), 3);
    second.stop();
    let counters = second.join().unwrap();
    assert_eq!((counters.opened, counters.repeated), (3, 1), "{counters:?}");
}

#[test]
fn a_vote_that_hears_nothing_asks() {
    let mut site = Site::new();
    site.command_topic("stock");
    let relay = site.relay(&["stock"], |settings| settings.asks_after = Duration::from_millis(300));
    site.command("stock", "v", 7, "prepare", "16:00:00", "15:00:00");
    until("it is there", || site.number("SELECT count(*) FROM sagamore.todo") == 1);
    site.sql("SELECT sagamore.reply((SELECT number FROM sagamore.take('stock')), 'ok')");
    let inbox = site.inbox();
    let asked = site.read(&inbox, 2).pop().unwrap();
    let inquiry: Value = serde_json::from_str(&asked.value.unwrap()).unwrap();
    assert_eq!(inquiry["type"], "sagamore.inquiry.v1");
    assert_eq!((&inquiry["participant"], &inquiry["subject"]), (&"stock".into(), &"v".into()));
    assert_eq!(asked.partition, Site::home("v"));
    site.verdict("stock", "v", 7, "commit");
    until("it is told", || site.number("SELECT count(*) FROM sagamore.todo WHERE operation = 'commit'") == 1);
    site.sql("SELECT sagamore.reply((SELECT number FROM sagamore.take('stock')), 'ok')");
    assert_eq!(site.number("SELECT count(*) FROM sagamore.commands WHERE in_doubt"), 0);
    relay.stop();
    assert_eq!(relay.join().unwrap().verdicts, 1);
}

#[test]
fn one_is_active_and_whoever_goes_is_followed() {
    let mut site = Site::new();
    let first = site.relay(&[], |_| ());
    until("the first is active", || first.counters().active);
    let second = site.relay(&[], |_| ());
    site.sql("SELECT sagamore.start('a', 'order')");
    let inbox = site.inbox();
    site.read(&inbox, 1);
    assert!(!second.counters().active);
    // As if the network had cut the first one off from its database.
    site.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted");
    until("somebody is active again", || first.counters().active || second.counters().active);
    first.stop();
    first.join().unwrap();
    until("the second is active", || second.counters().active);
    site.sql("SELECT sagamore.start('b', 'order')");
    assert_eq!(site.read(&inbox, 2).len(), 2);
    // A database that is away for a while.
    site.database.restart().unwrap();
    until("it is active again", || {
        second.counters().active && site.try_sql("SELECT sagamore.start('c', 'order')").is_ok()
    });
    assert!(site.read(&inbox, 3).iter().any(|record| record.key == "c"));
    second.stop();
    second.join().unwrap();
}

#[test]
fn what_is_wrong_for_good_is_told_at_once() {
    let mut site = Site::new();
    site.sql(
        "CREATE SCHEMA newer; CREATE TABLE newer.outbox_schema (only_row INT, version INT);
        INSERT INTO newer.outbox_schema VALUES (1, 99)",
    );
    let newer = site.relay(&[], |settings| settings.schema = "newer".parse().unwrap());
    let told = newer.join().unwrap_err().to_string();
    assert!(told.contains("version 99"), "{told}");
    let nobody = site.relay(&[], |settings| {
        settings.postgres.dbname("nowhere");
    });
    let told = nobody.join().unwrap_err().to_string();
    assert!(told.contains("nowhere"), "{told}");
    let bare = site.relay(&[], |settings| settings.prefix = "without-topics".parse().unwrap());
    let told = bare.join().unwrap_err().to_string();
    assert!(told.contains("topics apply"), "{told}");
}
