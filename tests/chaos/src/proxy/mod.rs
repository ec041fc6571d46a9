//! A TCP proxy that understands Kafka's frames: the network between clients and brokers, under orders.
//!
//! ```text
//!   client ──▶ port of broker 0 ──▶ broker 0      one port per broker, advertised to clients by the brokers;
//!   client ──▶ port of broker 1 ──▶ broker 1      brokers and controllers talk to each other directly
//! ```
//! [`Rule`]s say which frames are delayed, held, cut off, dropped or overtaken; [`Active`] says what came of them.
//! Without rules everything passes unchanged; what cannot be parsed passes as well, and is counted in [`Totals`].
//!
//! On tokio: a connection waits for its client, its broker, the time and a release at once, and there are a hundred
//! of them. The proxy has a runtime of its own, with one thread; the harness need not be asynchronous.
//!
//! Deliberately absent: TLS, a changed byte. Whoever wants a broker to be wrong needs another tool.
//!
//! ```no_run
//! use std::time::Duration;
//! use sagamore_chaos::proxy::{Action, Api, Proxy, Rule};
//! use sagamore_local_kafka::ClusterSize;
//!
//! let (kafka, proxy) = Proxy::with_kafka(ClusterSize::Three)?;
//! println!("clients go to {}, who checks goes to {}", proxy.bootstrap(), kafka.bootstrap());
//! let slow = proxy.set(Rule::new(Action::DelayRequest(Duration::from_millis(50))).api(Api::PRODUCE));
//! // …
//! slow.remove();
//! assert!(slow.counts().delayed > 0);
//! # Ok::<(), sagamore_chaos::proxy::ProxyError>(())
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sagamore_local_kafka::{ClusterSize, LaunchError, LocalKafka};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

mod connection;
mod frame;
mod frames;
mod late;
mod pending;
mod rule;

pub use frame::Api;
pub use rule::{Action, Counts, Rule};

use rule::{Book, Held, InForce};

/// Connections at a time, of all brokers together: ten processes with ten clients each have 300, and twice that while
/// they are restarted.
const CONNECTIONS_MAX: usize = 1024;
/// How long a broker may take to be reached; its client is turned away then, as if nobody listened.
const REACHED_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No port, or no thread.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        cause: std::io::Error,
    },
    /// There is no Kafka to stand before.
    #[error(transparent)]
    Kafka(#[from] LaunchError),
}

/// Ports, before there are brokers behind them: their addresses must be known when the brokers start.
pub struct Ports(Vec<(TcpListener, SocketAddr)>);

/// A proxy at work. When it is dropped, its connections are closed.
pub struct Proxy {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    runtime: Option<Runtime>,
}

/// A rule that was set; it stays in force when this is dropped.
#[derive(Clone)]
pub struct Active {
    rule: Arc<InForce>,
    shared: Arc<Shared>,
}

/// What passed the port of one broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted.
    pub connections: u64,
    /// Of these, open now.
    pub open: u64,
    /// Connections closed at once: the broker could not be reached.
    pub unreachable: u64,
    /// Requests read.
    pub requests: u64,
    /// Responses read.
    pub responses: u64,
    /// Requests whose header could not be parsed; passed on.
    pub unparsed: u64,
    /// Responses to no known request; passed on.
    pub unmatched: u64,
    /// Directions of connections in which something was no frame or too large: passed on as bytes from there.
    pub opaque: u64,
}

/// What every connection knows.
struct Shared {
    book: Book,
    brokers: Vec<Upstream>,
    runtime: Handle,
}

struct Upstream {
    address: SocketAddr,
    totals: Counters,
}

/// [`Totals`] as they grow.
#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    closed: AtomicU64,
    unreachable: AtomicU64,
    requests: AtomicU64,
    responses: AtomicU64,
    unparsed: AtomicU64,
    unmatched: AtomicU64,
    opaque: AtomicU64,
}

impl Ports {
    /// As many as there will be brokers.
    pub fn bind(brokers: usize) -> Result<Self, ProxyError> {
        let bind = |_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        (0..brokers).map(bind).collect::<Result<_, _>>().map(Self).map_err(ProxyError::io("listen"))
    }

    /// What the brokers are to advertise, in their order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|(_, address)| *address).collect()
    }

    /// Begins to pass on, to these brokers.
    ///
    /// # Panics
    /// Unless there is one broker for each port.
    pub fn serve(self, brokers: &[SocketAddr]) -> Result<Proxy, ProxyError> {
        assert_eq!(self.0.len(), brokers.len(), "one broker for each port");
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .map_err(ProxyError::io("start a thread"))?;
        let upstream = |&address| Upstream { address, totals: Counters::default() };
        let brokers = brokers.iter().map(upstream).collect();
        let shared = Arc::new(Shared { book: Book::default(), brokers, runtime: runtime.handle().clone() });
        let addresses = self.addresses();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let inside = runtime.enter();
        for (broker, (listener, _)) in self.0.into_iter().enumerate() {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(ProxyError::io("listen"))?;
            runtime.spawn(accept(Arc::clone(&shared), broker, listener, Arc::clone(&places)));
        }
        drop(inside);
        Ok(Proxy { shared, addresses, runtime: Some(runtime) })
    }
}

impl Proxy {
    /// A Kafka, and the proxy its clients go through.
    pub fn with_kafka(size: ClusterSize) -> Result<(LocalKafka, Self), ProxyError> {
        let ports = Ports::bind(match size {
            ClusterSize::One => 1,
            ClusterSize::Three => 3,
        })?;
        let kafka = LocalKafka::start_behind(size, &ports.addresses())?;
        let proxy = ports.serve(kafka.behind())?;
        Ok((kafka, proxy))
    }

    /// Where clients go, `host:port` of every broker's port here, with commas between.
    pub fn bootstrap(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// Puts a rule in force, after those that are. The first that takes a frame has it.
    pub fn set(&self, rule: Rule) -> Active {
        Active { rule: self.shared.book.add(rule), shared: Arc::clone(&self.shared) }
    }

    /// Ends all rules. What they hold stays held until it is released.
    pub fn clear(&self) {
        self.shared.book.clear();
    }

    /// What has passed, per broker.
    pub fn totals(&self) -> Vec<Totals> {
        self.shared.brokers.iter().map(|broker| broker.totals.read()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Active {
    /// What it has really done so far.
    pub fn counts(&self) -> Counts {
        self.rule.counts()
    }

    /// Ends it. What it holds stays held until it is released.
    pub fn remove(&self) {
        self.rule.remove();
    }

    /// Lets go of everything it holds, in the order in which it came, and says how many frames that is. It goes on
    /// holding what it fits, unless it is spent or removed.
    pub fn release(&self) -> usize {
        let held = self.rule.take_held();
        let count = held.len();
        for Held { released, route } in held {
            if let Err(no_connection) = route.send(released) {
                late::deliver(&self.shared, no_connection.0);
            }
        }
        count
    }
}

impl ProxyError {
    fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::Io { doing, cause }
    }
}

impl Shared {
    fn totals(&self, broker: usize) -> &Counters {
        &self.brokers[broker].totals
    }
}

impl Counters {
    fn read(&self) -> Totals {
        // Closed first: what is open is never less than nothing.
        let closed = self.closed.load(Relaxed);
        let connections = self.connections.load(Relaxed);
        Totals {
            connections,
            open: connections.saturating_sub(closed),
            unreachable: self.unreachable.load(Relaxed),
            requests: self.requests.load(Relaxed),
            responses: self.responses.load(Relaxed),
            unparsed: self.unparsed.load(Relaxed),
            unmatched: self.unmatched.load(Relaxed),
            opaque: self.opaque.load(Relaxed),
        }
    }
}

async fn accept(
    shared: Arc<Shared>,
    broker: usize,
    listener: tokio::net::TcpListener,
    places: Arc<Semaphore>,
) {
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((client, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _place = place;
            shared.totals(broker).connections.fetch_add(1, Relaxed);
            connect(&shared, broker, client).await;
            shared.totals(broker).closed.fetch_add(1, Relaxed);
        });
    }
}

async fn connect(shared: &Arc<Shared>, broker: usize, client: TcpStream) {
    let address = shared.brokers[broker].address;
    let Ok(Ok(upstream)) = timeout(REACHED_WITHIN, TcpStream::connect(address)).await else {
        shared.totals(broker).unreachable.fetch_add(1, Relaxed);
        return;
    };
    // Frames are written whole: waiting for more only delays them.
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    connection::serve(Arc::clone(shared), broker, client, upstream).await;
}
