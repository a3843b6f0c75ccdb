//! The integration tests: one binary, one Postgres cluster that it starts by itself (or the server that
//! `TEST_DATABASE_URL` names), a database of its own for every test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it stops where it can't go on"
)]
#![allow(unreachable_pub, reason = "nothing is outside of this binary")]

mod admission;
mod adversary;
mod bench;
mod canary;
mod claims;
mod clients;
mod columns;
mod commands;
mod control;
mod crowd;
mod drift;
mod either;
mod emit_http;
mod failures;
mod faults;
mod forms;
mod golden;
mod half_open;
mod isolation;
mod key_sets;
mod limits;
mod live;
mod measure;
mod memory;
mod migrations;
mod mirror;
mod mistakes;
mod names;
mod order;
mod outbox;
mod pacing;
mod parts;
mod presence;
mod proxies;
mod rechecks;
mod requests;
mod restart;
mod revocation;
mod roles;
mod rows;
mod schema;
mod secrecy;
mod sessions;
mod setup;
mod source;
mod stats;
mod streams;
mod tables;
mod transactions;
mod values;
mod wire;
