//! An order goes from start to outcome, in one process: on the embedded broker and on a real Kafka.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use sagamore::config::ServerConfig;
use sagamore::server::Server;
use sagamore_decider::owner::Pace;
use sagamore_examples::{Kind, Settings, spawn};
use sagamore_kafka::client::ClientSettings;
use sagamore_kafka::embedded::EmbeddedBroker;
use sagamore_kafka::topics::{Layout, apply, ensure_command_topics};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use sagamore_schemas::ids::{Name, Span};
use sagamore_schemas::topics::Prefix;
use serde_json::{Value, json};

const ORDER: &str = r#"{"name":"order","version":1,"steps":[
    {"name":"reserve","participant":"inventory","input":{"order":"${input.order}","lines":"${input.lines}"}},
    {"name":"charge","participant":"payment","input":{"customer":"${input.customer}","amount_cents":"${input.total_cents}"}},
    {"name":"ship","participant":"shipping","kind":"pivot","input":{"order":"${input.order}","country":"${input.ship_country}"}}]}"#;

fn shards() -> NonZeroU16 {
    NonZeroU16::new(4).unwrap()
}

fn participants() -> Vec<Name> {
    ["inventory", "payment", "shipping"].map(|name| name.parse().unwrap()).into()
}

fn config(kafka: ClientSettings, check_topics: bool) -> ServerConfig {
    ServerConfig {
        kafka,
        prefix: Prefix::default(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        lanes: 1,
        development: true,
        view: None,
        check_topics,
        reply_secret: None,
        snapshot_every: Span::default(),
        pace: Pace::default(),
    }
}

/// Over HTTP: new, known, other content under the same version, unsound.
async fn define(server: &Server) {
    let post = async |text: String, wait: &str| {
        let url = format!("http://{}/v1/definitions{wait}", server.address());
        let answer = reqwest::Client::new().post(url).body(text).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap())
    };
    let (status, body) = post(ORDER.to_owned(), "?wait=0s").await;
    assert_eq!((status, &body["complete"]), (202, &json!(false)), "{body}");
    let (status, body) = post(ORDER.to_owned(), "?wait=30s").await;
    assert_eq!((status, &body["was_there"]), (200, &json!(true)), "{body}");
    let next = ORDER.replace(r#""version":1"#, r#""version":2"#);
    let (status, body) = post(next, "?wait=30s").await;
    assert_eq!((status, &body["definition"]), (201, &json!("order@2")), "{body}");
    let (status, body) = post(ORDER.replace("pivot", "retriable"), "").await;
    assert_eq!((status, &body["title"]), (409, &json!("conflict")), "{body}");
    let unsound = "name: order\nversion: 1\nsteps:\n  - name: reserve\n    participants: inventory\n";
    let (status, body) = post(unsound.to_owned(), "").await;
    assert_eq!((status, &body["title"]), (422, &json!("unsound-definition")), "{body}");
    let first = &body["problems"][0];
    let told = [&first["code"], &first["line"], &first["column"], &first["severity"]];
    assert_eq!(told, [&json!("unknown-field"), &json!(5), &json!(5), &json!("error")], "{body}");
    let (status, body) = post(ORDER.to_owned(), "?wait=soon").await;
    assert_eq!((status, &body["title"]), (400, &json!("bad-request")), "{body}");
}

fn order(number: u32, country: &str) -> Value {
    json!({
        "id": format!("order-{number}"),
        "definition": "order",
        "input": {"order": number, "customer": "ALFKI", "ship_country": country, "total_cents": 1000,
                  "lines": [{"product": 1, "quantity": 1}]},
    })
}

async fn drive(server: &Server) {
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/transactions", server.address());
    let post = async |path: &str, body: &Value| {
        let answer = client.post(format!("{url}{path}")).body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        (status, body)
    };
    let (status, body) = post("?wait=20s", &order(1, "France")).await;
    assert_eq!((status, &body["outcome"]), (200, &json!("committed")), "{body}");
    assert_eq!(body["data"]["steps"]["charge"]["amount_cents"], 1000, "{body}");
    let (status, body) = post("?wait=20s", &order(1, "France")).await;
    assert_eq!((status, &body["outcome"]), (200, &json!("committed")), "told again: {body}");
    let (status, body) = post("?wait=20s", &order(1, "Spain")).await;
    assert_eq!((status, &body["title"]), (409, &json!("conflict")), "{body}");
    let refused = sagamore_examples::shipping::REFUSED_COUNTRIES_DEFAULT[0];
    let (status, body) = post("?wait=20s", &order(2, refused)).await;
    assert_eq!((status, &body["outcome"]), (200, &json!("compensated")), "{body}");
    for number in 3..40 {
        let (status, body) = post("", &order(number, "France")).await;
        assert_eq!(status, 202, "{body}");
    }
    for number in 3..40 {
        let begun = Instant::now();
        loop {
            let answer = client.get(format!("{url}/order-{number}")).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            if body["status"] == "committed" {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{body}");
        }
    }
    let (status, body) = post("/order-3/cancel", &json!({"reason": "too late"})).await;
    assert_eq!((status, &body["title"]), (409, &json!("wrong-state")), "{body}");
    let resolved = json!({"reason": "too late", "step": "charge", "outcome": "ok", "data": {"receipt": "r"}});
    let (status, body) = post("/order-3/resolve", &resolved).await;
    assert_eq!((status, &body["title"]), (409, &json!("wrong-state")), "{body}");
    for unfit in
        [json!({"reason": "of what?"}), json!({"reason": "x", "step": "charge", "outcome": "perhaps"})]
    {
        let (status, body) = post("/order-3/resolve", &unfit).await;
        assert_eq!((status, &body["title"]), (400, &json!("bad-request")), "{body}");
    }
    let (status, body) = post("/nobody/cancel", &json!({"reason": "who?"})).await;
    assert_eq!((status, &body["title"]), (404, &json!("not-found")), "{body}");
}

/// Listens to a stream of events: when this returns, nothing is missed any more.
async fn connect(url: &str, last: Option<&str>) -> reqwest::Response {
    let mut request = reqwest::Client::new().get(url);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    answer
}

/// What a stream says until it is `enough`.
async fn said(mut answer: reqwest::Response, enough: impl Fn(&str) -> bool) -> String {
    let mut said = String::new();
    let read = async {
        while !enough(&said) {
            said.push_str(&String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .unwrap_or_else(|_| panic!("too little: {said}"));
    said
}

/// One transaction from its start to its end, heard by whoever listens; and again by who comes later.
async fn listen(server: &Server) {
    let url = format!("http://{}/v1", server.address());
    let of_one = format!("{url}/transactions/order-100/events");
    let ended = |said: &str| said.contains(r#""outcome":"committed""#);
    let one = connect(&of_one, None).await;
    let filtered = connect(&format!("{url}/events?id_prefix=order-10&status=committed"), None).await;
    let answer = reqwest::Client::new()
        .post(format!("{url}/transactions?wait=20s"))
        .body(order(100, "France").to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let heard = said(one, ended).await;
    // A start and three answers; more, when one had to be asked again.
    assert!(heard.matches("event: change").count() >= 4, "{heard}");
    assert_eq!(said(filtered, ended).await.matches("event: change").count(), 1);
    let first = heard.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let again = connect(&of_one, Some(first)).await;
    let again = said(again, |said| said.contains("event: state")).await;
    assert!(again.contains(r#""status":"committed""#), "{again}");
    let wrong = reqwest::Client::new().get(&of_one).header("last-event-id", "x").send().await.unwrap();
    assert_eq!(wrong.status().as_u16(), 400);
}

fn run(kafka: &ClientSettings, check_topics: bool) {
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init(),
    );
    let mut server = Server::start(config(kafka.clone(), check_topics)).unwrap();
    let examples: Vec<_> = [Kind::Inventory, Kind::Payment, Kind::Shipping]
        .into_iter()
        .map(|kind| {
            let settings = sagamore_participant::Settings::new(kafka.clone(), Prefix::default(), kind.name());
            spawn(kind, &Settings::new(settings)).unwrap()
        })
        .collect();
    assert!(server.wait_ready(Duration::from_secs(30)), "{:?}", server.directory().shards());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(define(&server));
    runtime.block_on(drive(&server));
    runtime.block_on(listen(&server));
    assert_eq!(server.crash_shards(), 4);
    assert!(server.wait_ready(Duration::from_secs(30)), "{:?}", server.directory().shards());
    // A restored shard remembers.
    runtime.block_on(async {
        let answer =
            reqwest::get(format!("http://{}/v1/transactions/order-2", server.address())).await.unwrap();
        assert!(answer.text().await.unwrap().contains("compensated"));
    });
    server.stop();
    drop(examples);
}

#[test]
fn an_order_goes_through_on_the_embedded_broker() {
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_all_topics(&Prefix::default(), shards(), &participants()).unwrap();
    run(&broker.client_settings().unwrap(), false);
}

#[test]
fn an_order_goes_through_on_a_real_kafka() {
    let kafka = LocalKafka::start(ClusterSize::One).unwrap();
    let settings = ClientSettings::new(kafka.bootstrap());
    let layout = Layout { prefix: Prefix::default(), partitions: shards(), replication: NonZeroU16::MIN };
    apply(&settings, &layout).unwrap();
    ensure_command_topics(&settings, &layout, &participants()).unwrap();
    run(&settings, true);
}
