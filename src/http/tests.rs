//! The server as a client meets it: over TCP, its answers asserted whole.

mod bench;
mod client;
mod control;
mod downgrade;
mod expiry;
mod lifecycle;
mod live;
mod presence;
mod probes;
mod refusals;
mod stats;
mod streams;
mod tickets;
