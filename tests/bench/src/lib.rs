//! What the benchmark and the micro-benchmarks share: the workloads with their plans, and inboxes recorded from them.

pub mod inbox;
pub mod workload;
