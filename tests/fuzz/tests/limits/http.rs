//! Bounds of the API, over a real socket.

use crate::around;

#[path = "../targets/http_server.rs"]
mod server;

fn status_of(request: &str, body: &[u8]) -> String {
    let mut whole = format!(
        "{request} HTTP/1.1\r\nhost: limits\r\nx-sagamore-forwarded: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    whole.extend_from_slice(body);
    let answer = server::said(&whole, server::Then::Listen).unwrap();
    answer.get(9..12).unwrap().to_owned()
}

#[test]
fn a_body_has_so_many_bytes() {
    const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
    for (bytes, then) in around(BODY_BYTES_MAX).into_iter().zip(["503", "503", "413"]) {
        let begin = r#"{"id":"t","definition":"t","input":""#;
        let body = format!("{begin}{}\"}}", "x".repeat(bytes - begin.len() - 2));
        assert_eq!(body.len(), bytes);
        // 503: it has been read, and there is no shard.
        assert_eq!(status_of("POST /v1/transactions", body.as_bytes()), then, "{bytes}");
    }
}

#[test]
fn a_wait_and_a_list_may_be_longer_than_they_become() {
    let body = br#"{"id":"t","definition":"t"}"#;
    for (wait, then) in
        [("299s", "503"), ("300s", "503"), ("301s", "503"), ("365d", "503"), ("366d", "400"), ("-1s", "400")]
    {
        assert_eq!(status_of(&format!("POST /v1/transactions?wait={wait}"), body), then, "{wait}");
    }
    for (limit, then) in [
        ("0", "200"),
        ("999", "200"),
        ("1000", "200"),
        ("1001", "200"),
        ("-1", "400"),
        ("18446744073709551616", "400"),
    ] {
        assert_eq!(status_of(&format!("GET /v1/transactions?limit={limit}"), b""), then, "{limit}");
    }
}
