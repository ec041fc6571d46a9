//! What a caller gets from servers that are busy, slow, gone, or drop the connection after they have accepted: never two
//! transactions, and never "failed" for what is only unknown.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sagamore_client::{Client, Error, Handle, Outcome};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
const ACCEPTED: Act = Act::Say(202, r#"{"id":"t","status":"accepted"}"#);
const COMMITTED: Act = Act::Say(
    200,
    r#"{"id":"t","outcome":"committed","birth":"0-1","revision":4,"data":{"steps":{"all":{"bank-a":{"posting":"p-1"}}}}}"#,
);
const UNAVAILABLE: Act =
    Act::Say(503, r#"{"title":"unavailable","detail":"retry with the same id and time"}"#);

/// What a server does with one request.
#[derive(Debug, Clone, Copy)]
enum Act {
    Say(u16, &'static str),
    /// Accepts, and drops the connection.
    Drop,
    /// Says so after the caller has given up.
    Late(u16, &'static str),
}

/// Requests as they came: path and body.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

/// Acts in this order, the last one for ever.
struct Server {
    address: String,
    seen: Seen,
}

impl Server {
    fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Seen::default();
        let mut acts: VecDeque<Act> = acts.into_iter().collect();
        let notes = Arc::clone(&seen);
        // They end with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let act = if acts.len() > 1 { acts.pop_front().unwrap() } else { acts[0] };
                let notes = Arc::clone(&notes);
                thread::spawn(move || serve(stream.unwrap(), act, &notes));
            }
        });
        Self { address, seen }
    }

    fn client(&self) -> Client {
        Client::connect(&self.address).unwrap()
    }

    fn bodies(&self) -> Vec<Value> {
        self.seen.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

fn serve(mut stream: TcpStream, act: Act, seen: &Seen) {
    let mut text = Vec::new();
    let (path, body) = loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).unwrap();
        text.extend_from_slice(&part[..read]);
        let request = String::from_utf8(text.clone()).unwrap();
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            break (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str(body).unwrap());
        }
    };
    seen.lock().unwrap().push((path, body));
    let (status, body) = match act {
        Act::Drop => return,
        Act::Say(status, body) => (status, body),
        Act::Late(status, body) => {
            thread::sleep(4 * SECOND);
            (status, body)
        }
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // Whoever has given up does not read it.
    drop(stream.write_all(answer.as_bytes()));
}

async fn start(client: &Client) -> Result<Handle, Error> {
    let input = json!({"total": 1});
    client.start("order@1").id("t").input(&input)?.patience(2 * SECOND).send().await
}

/// Every start that was sent is one and the same.
fn one_start(server: &Server) {
    let distinct: BTreeSet<String> = server.bodies().iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), 1, "{distinct:?}");
    let body = &server.bodies()[0];
    assert_eq!((&body["id"], &body["input"]), (&json!("t"), &json!({"total": 1})));
    assert!(body["time"].is_string(), "{body}");
}

#[tokio::test]
async fn a_start_is_sent_again_the_same_until_it_is_accepted() {
    for in_the_way in [UNAVAILABLE, Act::Drop, Act::Say(504, "a proxy"), Act::Say(429, "{}")] {
        let server = Server::start([in_the_way, in_the_way, ACCEPTED]);
        let handle = start(&server.client()).await.unwrap();
        assert_eq!(handle.id(), "t");
        assert_eq!(server.paths().len(), 3, "{in_the_way:?}");
        one_start(&server);
    }
}

#[tokio::test]
async fn what_is_final_is_not_asked_again() {
    let of = async |status, body| {
        let server = Server::start([Act::Say(status, body)]);
        let error = start(&server.client()).await.unwrap_err();
        assert_eq!(server.paths().len(), 1, "{status}");
        error
    };
    let conflict = of(409, r#"{"title":"conflict","detail":"conflict: other data"}"#).await;
    assert!(matches!(&conflict, Error::Conflict { detail } if detail == "conflict: other data (HTTP 409)"));
    let refused = of(422, r#"{"title":"missing-input","detail":"missing-input: ${input.x}"}"#).await;
    assert!(matches!(&refused, Error::Refused { reason, .. } if reason == "missing-input"), "{refused:?}");
    assert!(matches!(of(500, "boom").await, Error::Unexpected(_)));
}

#[tokio::test]
async fn overloaded_is_known_and_silence_is_not() {
    let busy = Act::Say(429, r#"{"title":"overloaded","detail":"overloaded: 200000 open"}"#);
    let server = Server::start([busy]);
    let error = start(&server.client()).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    one_start(&server);
    // One that may have been heard makes all of it unknown.
    for unknown in [UNAVAILABLE, Act::Drop, Act::Late(202, "{}")] {
        let server = Server::start([unknown, busy]);
        let error = start(&server.client()).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{unknown:?}: {error:?}");
        one_start(&server);
    }
}

#[tokio::test]
async fn nobody_there_is_known_too() {
    // Bound and dropped: nobody listens there any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begun = Instant::now();
    let error = start(&Client::connect(&format!("http://{free}")).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    assert!(begun.elapsed() >= 2 * SECOND, "it was tried again: a server may come back");

    let server = Server::start([ACCEPTED]);
    let both = Client::connect(&format!("http://{free},{}", server.address)).unwrap();
    assert_eq!(start(&both).await.unwrap().id(), "t");
}

#[tokio::test]
async fn of_several_servers_the_next_is_asked() {
    let (busy, well) = (Server::start([UNAVAILABLE]), Server::start([ACCEPTED]));
    let client = Client::connect(&format!("{},{}", busy.address, well.address)).unwrap();
    start(&client).await.unwrap();
    start(&client).await.unwrap();
    assert_eq!((busy.paths().len(), well.paths().len()), (1, 2), "whoever answered is asked first");
    assert_eq!(busy.bodies()[0], well.bodies()[0]);
}

#[tokio::test]
async fn a_wait_goes_on_over_servers_that_end() {
    let still_open = ACCEPTED;
    let server = Server::start([ACCEPTED, Act::Drop, still_open, UNAVAILABLE, COMMITTED]);
    let handle = start(&server.client()).await.unwrap();
    let outcome = handle.wait(10 * SECOND).await.unwrap();
    assert!(outcome.is_committed(), "{outcome}");
    assert!(server.paths()[1..].iter().all(|path| path.starts_with("/v1/transactions?wait=")));
    one_start(&server);
}

#[tokio::test]
async fn a_wait_that_ends_first_says_so() {
    for meanwhile in [ACCEPTED, UNAVAILABLE, Act::Late(200, "{}"), Act::Drop] {
        let server = Server::start([ACCEPTED, meanwhile]);
        let handle = start(&server.client()).await.unwrap();
        let error = handle.wait(SECOND).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{meanwhile:?}: {error:?}");
        one_start(&server);
    }
    let too_old = Act::Say(422, r#"{"title":"too-old","detail":"too-old: it may have run"}"#);
    let server = Server::start([ACCEPTED, too_old]);
    let error = start(&server.client()).await.unwrap().wait(SECOND).await.unwrap_err();
    assert!(matches!(&error, Error::Forgotten { id } if id == "t"), "{error:?}");
}

#[tokio::test]
async fn participants_become_a_definition_and_a_start() {
    let known = Act::Say(201, r#"{"definition":"adhoc","complete":true}"#);
    let some_lack = Act::Say(202, r#"{"definition":"adhoc","complete":false}"#);
    let unknown = Act::Say(422, r#"{"title":"unknown-definition","detail":"unknown-definition: x"}"#);
    let acts = [UNAVAILABLE, some_lack, known, ACCEPTED, COMMITTED, unknown, known, ACCEPTED];
    let server = Server::start(acts);
    let client = server.client();
    let transfer = async |id: &str| {
        let (debit, credit) = (json!({"debit_cents": 7}), json!({"credit_cents": 7}));
        let new = client.transaction(id).two_phase().participant("bank-a", &debit)?;
        new.participant("bank-b", &credit)?.deadline("30s").start().await
    };
    let Outcome::Committed(results) = transfer("t").await.unwrap().wait(SECOND).await.unwrap() else {
        panic!("it was committed")
    };
    assert_eq!(results.of::<Value>("bank-a").unwrap()["posting"], "p-1");
    transfer("u").await.unwrap();
    let kinds: Vec<_> = server.paths().iter().map(|path| path.contains("definitions")).collect();
    assert_eq!(kinds, [true, true, true, false, false, false, true, false], "{:?}", server.paths());
    let bodies = server.bodies();
    assert_eq!(bodies[0], bodies[6], "the same shape is the same definition");
    let name = format!("{}@1", bodies[0]["name"].as_str().unwrap());
    assert_eq!(bodies[3]["definition"], json!(name));
    assert_eq!(
        bodies[3]["input"],
        json!({"bank-a": {"debit_cents": 7}, "bank-b": {"credit_cents": 7}}),
        "payloads travel in the input"
    );
}

#[tokio::test]
async fn a_cancel_says_whether_it_was_taken() {
    let taken = Act::Say(200, r#"{"id":"t","taken":true}"#);
    let too_late = Act::Say(409, r#"{"title":"wrong-state","detail":"it has ended"}"#);
    let gone = Act::Say(404, r#"{"title":"not-found","detail":"t"}"#);
    let server = Server::start([ACCEPTED, taken, too_late, gone, UNAVAILABLE]);
    let handle = start(&server.client()).await.unwrap();
    handle.cancel("customer called").await.unwrap();
    assert_eq!(server.paths()[1], "/v1/transactions/t/cancel");
    let error = handle.cancel("again").await.unwrap_err();
    assert!(matches!(&error, Error::Refused { reason, .. } if reason == "wrong-state"), "{error:?}");
    assert!(matches!(handle.cancel("again").await, Err(Error::Forgotten { .. })));
    assert!(matches!(handle.cancel("again").await, Err(Error::Timeout { .. })));
}
