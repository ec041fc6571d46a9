//! The API over a real socket, without a broker behind it: no request gets further than being read, and each is
//! answered. The first line of an input is method and target; `RAW` sends the rest as it is.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sagamore::api::{Api, serve};
use sagamore::config::{Installation, ServerConfig};
use sagamore::waiters::Waiters;
use sagamore::watch::Watch;
use sagamore_fuzz::Target;
use sagamore_kafka::client::ClientSettings;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn every_request_is_answered_and_the_server_lives_on() {
    Target { name: "http", cases: 4_000 }.run(|bytes| {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let (first, rest) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
        if first == b"RAW" {
            // Whatever is said to it, the connection may be closed, and nothing else.
            drop(said(rest, Then::Nothing));
            return;
        }
        let mut request = first.to_vec();
        // `forwarded`: what is not here is not asked of another server.
        let head = format!(
            " HTTP/1.1\r\nhost: fuzz\r\nx-sagamore-forwarded: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            rest.len()
        );
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(rest);
        let answer = said(&request, Then::Listen).unwrap_or_else(|error| panic!("no answer: {error}"));
        is_answer(&answer);
    });
    let live =
        said(b"GET /health/live HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\n\r\n", Then::Listen).unwrap();
    assert!(live.starts_with("HTTP/1.1 200"), "{live}");
}

fn is_answer(answer: &str) {
    let status: u16 = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
    assert!((200..600).contains(&status) && status != 500, "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    // hyper answers by itself, without a body, what is no HTTP.
    if status >= 400 && !body.is_empty() && !head.contains("/health") {
        let document: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let is_ready = document.get("ready").is_some();
        let is_problem = document["status"] == status && document["detail"].as_str().is_some();
        assert!(is_ready || is_problem, "an error is a problem document: {answer}");
    }
}

/// What follows a request: hyper gives up a connection whose other side will not say more.
#[derive(PartialEq)]
enum Then {
    Listen,
    Nothing,
}

/// The whole answer, as text.
fn said(request: &[u8], then: Then) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // The server may have answered, and closed, before it has read everything.
    let mut written = stream.write_all(request);
    if then == Then::Nothing {
        written = written.and_then(|()| stream.shutdown(Shutdown::Write));
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        written?;
        read?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn server() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listen = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(listener, api(listen)).await;
            });
        });
        listen
    })
}

fn api(listen: SocketAddr) -> Api {
    let config = ServerConfig {
        // The port of `tcpmux`, where nobody answers.
        kafka: ClientSettings::new("127.0.0.1:1"),
        prefix: "fuzz".parse().unwrap(),
        listen,
        advertise: None,
        lanes: 1,
        development: true,
        check_topics: false,
        reply_secret: None,
        pace: sagamore_decider::owner::Pace::default(),
    };
    let installation = Arc::new(Installation {
        config,
        instance: uuid::Uuid::from_u128(7),
        partitions: 4,
        client_id: "sagamore@fuzz".into(),
    });
    let directory = Arc::default();
    let watch = Arc::new(Watch::start(&installation, Arc::clone(&directory)).unwrap());
    Api::new(installation, directory, Waiters::default(), Vec::new(), watch).unwrap()
}
