//! An API on a socket of its own, without a broker behind it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sagamore::api::{Api, serve};
use sagamore::config::{Installation, ServerConfig};
use sagamore::view::View;
use sagamore::waiters::Waiters;
use sagamore::watch::Watch;
use sagamore_kafka::client::ClientSettings;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait where no answer is due: without a broker, some requests take seconds each.
const GLANCE: Duration = Duration::from_millis(20);

/// What follows a request: hyper gives up a connection whose other side will not say more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Then {
    /// It stays open for the answer.
    Listen,
    /// It says that there is no more.
    Nothing,
}

/// The whole answer, as text.
pub fn said(request: &[u8], then: Then) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server())?;
    let patience = match then {
        Then::Listen => PATIENCE,
        Then::Nothing => GLANCE,
    };
    stream.set_read_timeout(Some(patience))?;
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
        view: None,
        check_topics: false,
        reply_secret: None,
        snapshot_every: sagamore_schemas::ids::Span::default(),
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
    let view = Arc::new(View::start(&installation, Arc::default(), None).unwrap());
    Api::new(installation, directory, Waiters::default(), Vec::new(), watch, view).unwrap()
}
