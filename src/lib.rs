//! walcast turns committed PostgreSQL rows into typed events on authenticated Server-Sent-Events streams,
//! one journal per organization.
//!
//! ```text
//! Postgres ─ WAL ─► source ─► Transaction ─► mirror ─► catalog ─► Event ─► journal ─► hub ─► http
//! ```
//!
//! One direction, one vocabulary per step. Each module uses only modules above it in this list, and
//! `tests/layers.rs` fails when one does not:
//!
//! | module | owns |
//! | --- | --- |
//! | [`config`] | the configuration file, its environment and its defaults |
//! | [`telemetry`] | metric names, readiness, logging |
//! | [`postgres`] | connections, the replication wire, pgoutput, the live schema; no IO in the decoders |
//! | [`source`] | whole committed transactions, what is confirmed, reconnecting; knows no organization |
//! | [`mirror`] | small tables kept in memory by the stream itself |
//! | [`catalog`] | what a change means: rows in, events out; no IO, no clock |
//! | [`journal`] | one append-only log of frames per organization, and its window |
//! | [`access`] | who somebody is and what they may see |
//! | [`hub`] | streams: cursors in a journal, filtered, woken |
//! | [`presence`] | who has a stream open in an organization, told to its streams |
//! | [`emit`] | events that services hand in, on their way into the database |
//! | [`live`] | what queries answer, asked again when it may have changed |
//! | [`http`] | paths, parameters, status codes, the bytes on a socket |
//! | [`cli`] | the commands |
//! | [`app`] | the wiring: every task that lives long is spawned there |
//! | [`fuzzing`](self) | what the fuzzers run; only in tests and under a fuzzer |

pub mod config;
pub mod telemetry;

pub mod postgres;

pub mod source;

pub mod mirror;

pub mod catalog;

pub mod journal;

pub mod access;

pub mod hub;

pub mod presence;

pub mod emit;

pub mod live;

pub mod http;

pub mod cli;

pub mod app;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
