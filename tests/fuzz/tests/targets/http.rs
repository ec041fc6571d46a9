//! The API over a real socket, without a broker behind it: no request gets further than being read, and each is
//! answered. The first line of an input is method and target; `RAW` sends the rest as it is.

use sagamore_fuzz::Target;

use crate::http_server::{Then, said};

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
        // hyper hangs up on what goes on as HTTP/2 behind a head that it cannot read.
        if !(answer.is_empty() && rest.starts_with(b"PRI * HTTP/2.0")) {
            is_answer(&answer);
        }
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
