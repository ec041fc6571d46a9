//! How Sagamore talks to Kafka.
//!
//! - [`client`]: the properties of every kind of client, each with its reason, and which of them may be overridden;
//! - [`crowd`]: whether records wait for company;
//! - [`doctor`]: whether a cluster is fit for what is promised, looked at and tried out;
//! - [`topics`]: create, alter and check the topics of `sagamore_schemas::topics` on a live cluster;
//! - [`transactions`]: Kafka transactions that can be believed;
//! - [`embedded`]: a broker inside the process, for the demo and for tests without Java.
//!
//! Deliberately absent: loops that consume and produce. Lanes and participants own their clients and their loops.

pub mod client;
pub mod crowd;
pub mod doctor;
pub mod embedded;
pub mod topics;
pub mod transactions;

mod block_on;
