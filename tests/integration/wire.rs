//! The Postgres wire against a real server.

mod cluster;
mod connect;
mod stream;
