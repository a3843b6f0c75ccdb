//! The Postgres wire against a real server.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

mod cluster;
mod connect;
mod stream;
