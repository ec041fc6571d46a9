//! Every reader of bytes from outside, each with what must hold whatever it is given.
//!
//! | target | reads | holds |
//! |---|---|---|
//! | wire | a record of the inbox, of commands, of outcomes | what is read is written and read again as the same; errors name their cause |
//! | ids | ids, names, births, durations, times, references | what is read prints as what reads the same |
//! | definition | YAML and JSON, then the check, then the plan | one canonical text; the same plan from it; every problem has its place |
//! | template | `${…}` in any JSON, over any data | what is rendered is JSON, within its bound |
//! | condition | CEL, over any data | an answer or an error, twice the same, in bounded work and stack |
//! | settings | a settings document | within the ranges, or refused and nothing changed |
//! | state | the records of a state partition | restored and stored again as the same, or refused; never a panic |
//! | shard | a golden inbox with one record damaged | no panic; nobody else's transaction is touched; what cannot be read is set aside or refused |
//! | participant | a command, done by a store in memory | one answer, however often it is asked; the reply reads as its own |
//! | http | requests to the API | an answer with a status, errors as problem documents; the server lives on |
//! | config | the server's file, TOML and YAML | taken, or told what is wrong with it |

#![expect(clippy::unwrap_used, reason = "the harness belongs to the tests")]

mod condition;
mod config;
mod definition;
mod http;
mod http_server;
mod ids;
mod participant;
mod settings;
mod shard;
mod snapshot;
mod state;
mod template;
mod wire;

#[path = "../../../../orchestrator/decider/tests/golden/format.rs"]
#[expect(dead_code, reason = "goldens are read here and not written")]
mod format;
