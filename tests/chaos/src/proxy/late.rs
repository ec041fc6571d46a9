//! What arrives when its connection has gone: a request that was held goes to its broker on a fresh connection.
//!
//! A broker takes most requests from any connection; the correlation id is the client's, and the answer is ours: its
//! error code is counted, and nobody else sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use super::frame;
use super::frames::{Frames, Next, PREFIX_BYTES};
use super::rule::{Direction, Released};

/// How long a broker may take to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Delivers it, if that is still possible; returns at once.
pub(super) fn deliver(shared: &Arc<Shared>, released: Released) {
    match released.rule.action().direction() {
        Direction::Request => {
            let address = shared.brokers[released.broker].address;
            shared.runtime.spawn(send(address, released));
        }
        Direction::Response => released.rule.count(|counts| counts.undelivered += 1),
    }
}

async fn send(address: SocketAddr, Released { head, frame: request, rule, .. }: Released) {
    let reached = timeout(REACHED_WITHIN, async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request).await?;
        std::io::Result::Ok(stream)
    });
    let Ok(Ok(stream)) = reached.await else {
        rule.count(|counts| counts.undelivered += 1);
        return;
    };
    rule.count(|counts| counts.released_late += 1);
    match timeout(ANSWERED_WITHIN, Frames::new(stream).next()).await {
        Ok(Next::Frame(response)) => {
            rule.count_answer(frame::error_code(head.api, head.version, &response[PREFIX_BYTES..]));
        }
        Ok(Next::Opaque | Next::End) | Err(_) => rule.count(|counts| counts.unanswered += 1),
    }
}
